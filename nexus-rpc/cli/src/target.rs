//! A method ready to be called: its types, and a channel to its providers.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nexus_net::LoopGroup;
use nexus_rpc::registry::Provider;
use nexus_rpc::{
    ChannelOptions, Credentials, ErrorCode, Execution, MethodDescriptor, RawMessage, RpcChannel,
    RpcError,
};
use prost_reflect::prost_types::method_options::IdempotencyLevel;

use crate::args::{Global, MethodName, TypeSource};
use crate::directory::Directory;
use crate::failure::Failure;
use crate::reach;
use crate::tls::Tls;
use crate::types::{self, Types};

/// Of many providers that cannot be reached, so many are asked for the cause, one after the other.
const PROBED_MAX: usize = 3;

/// What a method is called with.
pub(crate) struct Target {
    pub(crate) name: MethodName,
    /// For the channel.
    pub(crate) method: &'static MethodDescriptor,
    /// With the types of its messages.
    pub(crate) types: prost_reflect::MethodDescriptor,
    directory: Directory,
    tls: Option<Tls>,
    timeout: Duration,
}

impl Target {
    pub(crate) fn find(
        name: &MethodName,
        source: &TypeSource,
        global: &Global,
    ) -> Result<Self, Failure> {
        let directory = Directory::open(global)?;
        let types = Types::of_service(&name.service, source, &directory, global)?.method(name)?;
        Ok(Self {
            name: name.clone(),
            method: leaked(&types),
            types,
            directory,
            tls: Tls::of(&global.tls)?,
            timeout: global.timeout,
        })
    }

    /// The request that the command line gives: JSON, or `-` for stdin.
    pub(crate) fn request(&self, json: &str) -> Result<RawMessage, Failure> {
        let mut read = String::new();
        let json = match json {
            "-" => {
                io::stdin().read_to_string(&mut read).map_err(|error| {
                    Failure::new(
                        format!("the request cannot be read from stdin: {error}"),
                        "give it as UTF-8 text, or as an argument instead of -",
                    )
                })?;
                &read
            }
            json => json,
        };
        types::encode(self.types.input(), json).map(RawMessage)
    }

    /// A channel that is connected to a provider of the method, with its connections on `loops` threads.
    pub(crate) fn connect(
        &self,
        options: ChannelOptions,
        loops: usize,
        global: &Global,
    ) -> Result<RpcChannel, Failure> {
        let service = self.method.service;
        let providers = self.directory.some_providers(service)?;
        let loops = LoopGroup::start("nexus-rpc", loops).map_err(|error| {
            Failure::new(
                format!("no thread to call from: {error}"),
                "raise the limits of processes and open files (ulimit)",
            )
        })?;
        let credentials = global.authorization.clone();
        let options = ChannelOptions {
            timeout: global.timeout,
            credentials: credentials.map(|text| Arc::new(Authorization(text.into())) as Arc<_>),
            tls: self.tls.as_ref().map(|tls| tls.calls.clone()),
            ..options
        };
        let channel = RpcChannel::new(self.directory.registry(), Arc::new(loops), options);
        if !channel.wait_ready(service, global.timeout) {
            let addresses: Vec<String> = providers.iter().map(|p| p.address.to_string()).collect();
            let what = format!(
                "no provider of {service} can be reached within {:?}: tried {}",
                global.timeout,
                addresses.join(", ")
            );
            return Err(match self.trouble(&providers) {
                Some(trouble) => trouble.of(what),
                None => Failure::new(
                    what,
                    "see whether it runs there and is reached from here (firewall, container network)",
                ),
            });
        }
        Ok(channel)
    }

    /// A call that failed; on the way to its provider, with the cause if one is found there.
    pub(crate) fn failure(&self, error: &RpcError) -> Failure {
        let failure = Failure::call(&self.name, error);
        let on_the_way = matches!(
            error.code(),
            ErrorCode::HOST_DOWN
                | ErrorCode::CONNECTION_FAILED
                | ErrorCode::CONNECTION_CLOSED
                | ErrorCode::TLS
        );
        let providers = || self.directory.some_providers(self.method.service).ok();
        match on_the_way
            .then(providers)
            .flatten()
            .and_then(|all| self.trouble(&all))
        {
            Some(trouble) => trouble.of(failure.what()),
            None => failure,
        }
    }

    /// The first cause that is found why one of the providers cannot be called.
    fn trouble(&self, providers: &[Provider]) -> Option<Failure> {
        providers.iter().take(PROBED_MAX).find_map(|provider| {
            reach::trouble(
                &provider.address.to_string(),
                self.tls.as_ref(),
                self.timeout,
            )
        })
    }
}

pub(crate) fn read_file(path: &Path) -> Result<Bytes, Failure> {
    fs::read(path).map(Bytes::from).map_err(|error| {
        Failure::new(
            format!("{} cannot be read: {error}", path.display()),
            "check the path and its permissions",
        )
    })
}

/// A channel wants descriptors that live as long as the program; this one does, and there is one a run.
fn leaked(types: &prost_reflect::MethodDescriptor) -> &'static MethodDescriptor {
    let name = |name: &str| -> &'static str { Box::leak(name.into()) };
    let options = types.method_descriptor_proto().options.clone();
    let level = options.unwrap_or_default().idempotency_level();
    Box::leak(Box::new(MethodDescriptor {
        service: name(types.parent_service().full_name()),
        name: name(types.name()),
        request_type: name(types.input().full_name()),
        response_type: name(types.output().full_name()),
        // The provider's affair.
        execution: Execution::Pooled,
        idempotent: level != IdempotencyLevel::IdempotencyUnknown,
    }))
}

struct Authorization(Bytes);

impl Credentials for Authorization {
    fn authentication_data(&self) -> Bytes {
        self.0.clone()
    }
}
