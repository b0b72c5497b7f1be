//! The messages of a service, known only now: from its provider, or from `.proto` files.
//!
//! JSON becomes a message and a message JSON by their descriptors, in protobuf's own JSON mapping.

mod text;

use std::fmt::Display;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use nexus_rpc::json;
use nexus_rpc_build::read_descriptor_set;
use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor, SerializeOptions,
    ServiceDescriptor,
};
use ureq::config::ConfigBuilder;
use ureq::typestate::AgentScope;

use crate::args::{Global, MethodName, TypeSource};
use crate::directory::Directory;
use crate::failure::Failure;
use crate::reach;
use crate::tls::Tls;

/// Descriptors may take so many bytes; a provider that sends more is not believed.
const DESCRIPTORS_BYTES_MAX: u64 = 16 << 20;

/// Instead of asking a provider.
const GIVE_PROTO: &str = "give the .proto file that defines the service: --proto FILE [--import DIR], or --descriptors FILE; \
                          or, if its pages are on a port of their own, --pages HOST:PORT";

/// Where a provider tells its types.
const PAGE: &str = "/services?format=descriptor";

/// What is known of services and messages.
pub(crate) struct Types {
    pool: DescriptorPool,
}

impl Types {
    /// The types of a service, from where the command line says.
    pub(crate) fn of_service(
        service: &str,
        source: &TypeSource,
        directory: &Directory,
        global: &Global,
    ) -> Result<Self, Failure> {
        if let Some(types) = Self::of_files(source)? {
            return Ok(types);
        }
        if let Some(pages) = &source.pages {
            return Self::of_pages(pages, global);
        }
        // In a list of addresses each may have other services: the first that knows the name counts.
        let mut told = None;
        for provider in directory.some_providers(service)? {
            match Self::of_provider(&provider.address.to_string(), global) {
                Ok(types) if types.knows(service) => return Ok(types),
                Ok(types) => told = Some(Ok(types)),
                Err(failure) => told = told.or(Some(Err(failure))),
            }
        }
        told.unwrap_or_else(|| Err(Failure::new(format!("nobody tells {service}"), GIVE_PROTO)))
    }

    /// The types in the files that the command line names, if it names any.
    pub(crate) fn of_files(source: &TypeSource) -> Result<Option<Self>, Failure> {
        match &source.descriptors {
            Some(file) => Self::of_descriptors(file).map(Some),
            None if source.proto.is_empty() => Ok(None),
            None => Self::of_protos(&source.proto, &source.import).map(Some),
        }
    }

    fn of_descriptors(file: &Path) -> Result<Self, Failure> {
        let broken = |why: String| {
            Failure::new(
                why,
                "write it with `protoc --include_imports --descriptor_set_out=FILE` or `buf build -o FILE`",
            )
        };
        let files = read_descriptor_set(file).map_err(|error| broken(error.to_string()))?;
        let pool = DescriptorPool::from_file_descriptor_set(files)
            .map_err(|error| broken(format!("{}: {error}", file.display())))?;
        Ok(Self { pool })
    }

    /// The types in `.proto` files, looked for in `imports`, or where they lie.
    fn of_protos(protos: &[PathBuf], imports: &[PathBuf]) -> Result<Self, Failure> {
        let beside = |proto: &PathBuf| match proto.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let mut folders: Vec<PathBuf> = imports.to_vec();
        if folders.is_empty() {
            folders.extend(protos.iter().map(beside));
            folders.dedup();
        }
        let broken = |why: String| {
            Failure::new(
                why,
                "correct the file, or name the folder of its imports with --import DIR; if protoc takes it (editions, \
                 names that differ only in case), compile it and give --descriptors FILE",
            )
        };
        // The error's debug form is the one that shows the place in the file.
        let files =
            protox::compile(protos, folders).map_err(|error| broken(format!("{error:?}")))?;
        let pool = DescriptorPool::from_file_descriptor_set(files)
            .map_err(|error| broken(error.to_string()))?;
        Ok(Self { pool })
    }

    /// The types of the services that a provider of nexus-rpc has, from its page `/services` on the port of its
    /// calls.
    pub(crate) fn of_provider(address: &str, global: &Global) -> Result<Self, Failure> {
        match Tls::of(&global.tls)? {
            Some(tls) => {
                let config = fetching(global).tls_config(tls.for_pages()).build();
                let (agent, url) = tls
                    .agent(config, address, PAGE)
                    .map_err(|error| untold(address, error))?;
                Self::fetch(&agent, &url, address, Some(&tls), global)
            }
            None => Self::of_pages(address, global),
        }
    }

    /// The same from its inner port, which speaks no TLS.
    fn of_pages(address: &str, global: &Global) -> Result<Self, Failure> {
        let agent = fetching(global).build().into();
        let url = format!("http://{address}{PAGE}");
        Self::fetch(&agent, &url, address, None, global)
    }

    fn fetch(
        agent: &ureq::Agent,
        url: &str,
        address: &str,
        tls: Option<&Tls>,
        global: &Global,
    ) -> Result<Self, Failure> {
        let mut request = agent.get(url);
        if let Some(authorization) = &global.authorization {
            request = request.header("authorization", authorization);
        }
        let mut response =
            request
                .call()
                .map_err(|error| match reach::trouble(address, tls, global.timeout) {
                    Some(trouble) => trouble.of(format!("{address} does not tell its types")),
                    None => untold(address, error),
                })?;
        let status = response.status();
        if status.as_u16() == 401 || status.as_u16() == 403 {
            return Err(Failure::new(
                format!("{address} shows its types only to those it knows (HTTP {status})"),
                "set NEXUS_AUTHORIZATION (or --authorization), or use --proto FILE",
            ));
        }
        if !status.is_success() {
            return Err(untold(address, format!("HTTP {status}")));
        }
        let body = response
            .body_mut()
            .with_config()
            .limit(DESCRIPTORS_BYTES_MAX);
        let files = body.read_to_vec().map_err(|error| untold(address, error))?;
        let pool =
            DescriptorPool::decode(files.as_slice()).map_err(|error| untold(address, error))?;
        Ok(Self { pool })
    }

    pub(crate) fn services(&self) -> impl Iterator<Item = ServiceDescriptor> + '_ {
        self.pool.services()
    }

    /// A method that can be called.
    pub(crate) fn method(&self, name: &MethodName) -> Result<MethodDescriptor, Failure> {
        let Some(service) = self.pool.get_service_by_name(&name.service) else {
            let known: Vec<String> = self.services().map(|s| s.full_name().to_owned()).collect();
            return Err(Failure::new(
                format!("there is no service {}", name.service),
                format!("these are known: {}", listed(&known)),
            ));
        };
        let mut methods = service.methods();
        let Some(method) = methods.find(|method| method.name() == name.method) else {
            let known: Vec<String> = service.methods().map(|m| m.name().to_owned()).collect();
            return Err(Failure::new(
                format!("{} has no method {}", name.service, name.method),
                format!("it has {}", listed(&known)),
            ));
        };
        if method.is_client_streaming() || method.is_server_streaming() {
            return Err(Failure::new(
                format!("{name} streams, which nexus-rpc does not"),
                "call another method; streams of brpc need a program on brpc itself",
            ));
        }
        Ok(method)
    }

    /// Whether there is such a service, method, message or enum.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.describe(name).is_ok()
    }

    pub(crate) fn text_of(&self, service: &ServiceDescriptor) -> String {
        text::service(service)
    }

    /// A service, method or message as `.proto` text, with all the messages that it needs.
    pub(crate) fn describe(&self, name: &str) -> Result<String, Failure> {
        if let Some(service) = self.pool.get_service_by_name(name) {
            return Ok(text::service(&service));
        }
        if let Some(message) = self.pool.get_message_by_name(name) {
            return Ok(text::message(&message));
        }
        if let Some(defined) = self.pool.get_enum_by_name(name) {
            return Ok(text::enumeration(&defined));
        }
        let method = name.parse().map_err(|_| {
            Failure::new(
                format!("there is no {name}"),
                "`nexus-rpc describe` without a name shows every service",
            )
        })?;
        Ok(text::method(&self.method(&method)?))
    }
}

/// The encoded message that the JSON means.
pub(crate) fn encode(descriptor: MessageDescriptor, text: &str) -> Result<Bytes, Failure> {
    let name = descriptor.full_name().to_owned();
    let wrong = |error: serde_json::Error| {
        Failure::new(
            format!("the request is no {name}: {error}"),
            format!("`nexus-rpc describe {name}` shows its fields"),
        )
    };
    let message = json::read(&descriptor, text.as_bytes()).map_err(wrong)?;
    Ok(message.encode_to_vec().into())
}

/// How JSON is laid out.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Layout {
    /// Over several lines, for people.
    Pretty,
    /// In one line.
    Line,
}

/// The message as JSON.
pub(crate) fn decode(
    descriptor: MessageDescriptor,
    message: Bytes,
    layout: Layout,
) -> Result<String, Failure> {
    let name = descriptor.full_name().to_owned();
    let wrong = |error: String| {
        Failure::new(
            format!("the answer is no {name}: {error}"),
            "provider and .proto file differ: take the file that the provider was built from",
        )
    };
    let message =
        DynamicMessage::decode(descriptor, message).map_err(|error| wrong(error.to_string()))?;
    // With the fields that have their default: who reads it wants to see what there is.
    let options = SerializeOptions::new().skip_default_fields(false);
    let mut json = Vec::new();
    let written = match layout {
        Layout::Pretty => {
            let mut out = serde_json::Serializer::pretty(&mut json);
            message.serialize_with_options(&mut out, &options)
        }
        Layout::Line => {
            let mut out = serde_json::Serializer::new(&mut json);
            message.serialize_with_options(&mut out, &options)
        }
    };
    written.map_err(|error| wrong(error.to_string()))?;
    String::from_utf8(json).map_err(|error| wrong(error.to_string()))
}

/// How a page is fetched.
fn fetching(global: &Global) -> ConfigBuilder<AgentScope> {
    ureq::Agent::config_builder()
        .timeout_global(Some(global.timeout))
        .http_status_as_error(false)
        // A provider is reached directly, whatever the environment says of the web.
        .proxy(None)
        .max_redirects(0)
}

fn untold(address: &str, why: impl Display) -> Failure {
    Failure::new(
        format!("{address} does not tell its types: {why}"),
        GIVE_PROTO,
    )
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        names => names.join(", "),
    }
}
