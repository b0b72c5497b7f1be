//! The code of one service: trait, server adapter, client, descriptors.

use std::collections::BTreeMap;
use std::fmt::Write;

use prost_build::{Comments, Method, Service, ServiceGenerator};
use prost_types::FileDescriptorSet;

use crate::files::Files;

/// Where a method's handler runs; the variants are those of `nexus_rpc::Execution`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Execution {
    #[default]
    Pooled,
    Inline,
    Responder,
}

/// Writes services, with the methods that are not pooled.
pub(crate) struct Generator {
    executions: BTreeMap<String, Execution>,
    files: Files,
}

impl Generator {
    pub(crate) fn new(executions: BTreeMap<String, Execution>, files: &FileDescriptorSet) -> Self {
        let files = Files::new(files);
        Self { executions, files }
    }

    fn execution(&self, service: &str, method: &Method) -> Execution {
        let name = format!("{service}.{}", method.proto_name);
        self.executions.get(&name).copied().unwrap_or_default()
    }
}

impl ServiceGenerator for Generator {
    fn generate(&mut self, service: Service, buf: &mut String) {
        let full_name = full_name(&service.package, &service.proto_name);
        let methods: Vec<(Execution, &Method)> = service
            .methods
            .iter()
            .map(|method| (self.execution(&full_name, method), method))
            .collect();
        let code = ServiceCode {
            name: &service.name,
            descriptor: &shouty(&service.name),
            full_name: &full_name,
            comments: &service.comments,
            methods: &methods,
            files: &self.files.of_service(&full_name),
        };
        code.write_descriptors(buf);
        code.write_trait(buf);
        code.write_server(buf);
        code.write_client(buf);
    }
}

/// The name with its package, as it stands on the wire.
pub(crate) fn full_name(package: &str, name: &str) -> String {
    match package {
        "" => name.to_owned(),
        package => format!("{package}.{name}"),
    }
}

/// One service on its way into code. Everything outside the generated file is named by its absolute
/// path, as a message may have any name.
struct ServiceCode<'a> {
    /// `EchoService`
    name: &'a str,
    /// `ECHO_SERVICE`
    descriptor: &'a str,
    /// `example.EchoService`
    full_name: &'a str,
    comments: &'a Comments,
    methods: &'a [(Execution, &'a Method)],
    /// The service's `.proto` files, encoded.
    files: &'a [u8],
}

/// Adds lines; writing to a string cannot fail.
macro_rules! lines {
    ($buf:ident, $($line:literal)*) => {{
        $(writeln!($buf, $line).expect("a string takes everything");)*
    }};
}

impl ServiceCode<'_> {
    fn write_descriptors(&self, buf: &mut String) {
        let Self {
            descriptor,
            full_name,
            methods,
            files,
            ..
        } = self;
        let count = methods.len();
        let (files, files_bytes) = (files.escape_ascii(), files.len());
        lines!(buf,
            "/// What `{full_name}` consists of."
            "pub static {descriptor}: ::nexus_rpc::ServiceDescriptor = ::nexus_rpc::ServiceDescriptor {{"
            "    name: \"{full_name}\","
            "    methods: &{descriptor}_METHODS,"
            "    files: &{descriptor}_FILES,"
            "}};"
            ""
            "static {descriptor}_FILES: [u8; {files_bytes}] = *b\"{files}\";"
            ""
            "static {descriptor}_METHODS: [::nexus_rpc::MethodDescriptor; {count}] = ["
        );
        for (execution, method) in *methods {
            let name = &method.proto_name;
            let request = method.input_proto_type.trim_start_matches('.');
            let response = method.output_proto_type.trim_start_matches('.');
            // 0 is IDEMPOTENCY_UNKNOWN; 1 and 2 are NO_SIDE_EFFECTS and IDEMPOTENT.
            let level = method.options.idempotency_level;
            let idempotent = level.is_some_and(|level| level != 0);
            lines!(buf,
                "    ::nexus_rpc::MethodDescriptor {{"
                "        service: \"{full_name}\","
                "        name: \"{name}\","
                "        request_type: \"{request}\","
                "        response_type: \"{response}\","
                "        execution: ::nexus_rpc::Execution::{execution:?},"
                "        idempotent: {idempotent},"
                "    }},"
            );
        }
        lines!(buf, "];" "");
    }

    fn write_trait(&self, buf: &mut String) {
        let Self {
            name, full_name, ..
        } = self;
        write_docs(buf, 0, self.comments, &format!("`{full_name}`."));
        lines!(
            buf,
            "pub trait {name}: ::core::marker::Send + ::core::marker::Sync + 'static {{"
        );
        for (execution, method) in self.methods {
            let (rust, proto) = (&method.name, &method.proto_name);
            let (request, response) = (&method.input_type, &method.output_type);
            write_docs(buf, 1, &method.comments, &format!("`{full_name}.{proto}`."));
            match execution {
                Execution::Pooled => lines!(buf,
                    "    ///"
                    "    /// Runs on the worker pool and may block."
                ),
                Execution::Inline => lines!(buf,
                    "    ///"
                    "    /// Runs on the connection's loop and must not block."
                ),
                Execution::Responder => lines!(buf,
                    "    ///"
                    "    /// Begins on the connection's loop and must not block; the responder answers, any time and"
                    "    /// from any thread."
                ),
            }
            match execution {
                Execution::Pooled | Execution::Inline => lines!(buf,
                    "    fn {rust}("
                    "        &self,"
                    "        call: &::nexus_rpc::CallContext,"
                    "        request: {request},"
                    "    ) -> ::core::result::Result<{response}, ::nexus_rpc::RpcError>;"
                ),
                Execution::Responder => lines!(buf,
                    "    fn {rust}("
                    "        &self,"
                    "        call: ::nexus_rpc::CallContext,"
                    "        request: {request},"
                    "        responder: ::nexus_rpc::Responder<{response}>,"
                    "    );"
                ),
            }
        }
        lines!(buf, "}}" "");
    }

    fn write_server(&self, buf: &mut String) {
        let Self {
            name, descriptor, ..
        } = self;
        lines!(buf,
            "/// Serves an implementation of [`{name}`]. Clones serve the same one."
            "#[allow(dead_code)]"
            "pub struct {name}Server<T>(::std::sync::Arc<T>);"
            ""
            "#[allow(dead_code)]"
            "impl<T: {name}> {name}Server<T> {{"
            "    /// Takes the implementation."
            "    pub fn new(service: T) -> Self {{"
            "        Self(::std::sync::Arc::new(service))"
            "    }}"
            ""
            "    /// Shares the implementation."
            "    pub fn from_arc(service: ::std::sync::Arc<T>) -> Self {{"
            "        Self(service)"
            "    }}"
            "}}"
            ""
            "impl<T> ::core::clone::Clone for {name}Server<T> {{"
            "    fn clone(&self) -> Self {{"
            "        Self(::std::sync::Arc::clone(&self.0))"
            "    }}"
            "}}"
            ""
            "impl<T: {name}> ::nexus_rpc::Service for {name}Server<T> {{"
            "    fn descriptor(&self) -> &'static ::nexus_rpc::ServiceDescriptor {{"
            "        &{descriptor}"
            "    }}"
            ""
            "    fn call(&self, method: usize, call: ::nexus_rpc::IncomingCall) {{"
            "        match method {{"
        );
        for (index, (execution, method)) in self.methods.iter().enumerate() {
            let rust = &method.name;
            match execution {
                Execution::Pooled | Execution::Inline => lines!(
                    buf,
                    "            {index} => call.unary(|context, request| self.0.{rust}(context, request)),"
                ),
                Execution::Responder => lines!(buf,
                    "            {index} => call.responder(|context, request, responder| {{"
                    "                self.0.{rust}(context, request, responder)"
                    "            }}),"
                ),
            }
        }
        // Never happens: providers find the method in the descriptor. A dropped call is answered.
        lines!(buf,
            "            _ => ::core::mem::drop(call),"
            "        }}"
            "    }}"
            "}}"
            ""
        );
    }

    fn write_client(&self, buf: &mut String) {
        let Self {
            name,
            descriptor,
            full_name,
            methods,
            ..
        } = self;
        // Whoever includes the code may only call or only serve.
        lines!(buf,
            "/// Calls `{full_name}` over a channel."
            "#[allow(dead_code)]"
            "#[derive(Clone)]"
            "pub struct {name}Client {{"
            "    channel: ::nexus_rpc::RpcChannel,"
            "}}"
            ""
            "#[allow(dead_code)]"
            "impl {name}Client {{"
            "    /// The service's full name."
            "    pub const SERVICE: &'static str = \"{full_name}\";"
            ""
            "    /// A client that calls over this channel."
            "    pub fn new(channel: ::nexus_rpc::RpcChannel) -> Self {{"
            "        Self {{ channel }}"
            "    }}"
        );
        for (index, (_, method)) in methods.iter().enumerate() {
            let (rust, proto) = (&method.name, &method.proto_name);
            let plain = rust.trim_start_matches("r#");
            let (request, response) = (&method.input_type, &method.output_type);
            lines!(buf, "");
            write_docs(
                buf,
                1,
                &method.comments,
                &format!("Calls `{full_name}.{proto}`."),
            );
            lines!(buf,
                "    pub fn {rust}(&self, request: &{request}) -> ::nexus_rpc::Call<{response}> {{"
                "        self.{plain}_with(request, ::core::default::Default::default())"
                "    }}"
                ""
                "    /// Like [`{plain}`](Self::{rust}), with options for this call."
                "    pub fn {plain}_with("
                "        &self,"
                "        request: &{request},"
                "        options: ::nexus_rpc::CallOptions,"
                "    ) -> ::nexus_rpc::Call<{response}> {{"
                "        self.channel.call(&{descriptor}_METHODS[{index}], request, options)"
                "    }}"
                ""
                "    /// Has `fallback` answer calls of [`{plain}`](Self::{rust}) that fail for good, over all clients of"
                "    /// the channel; see [`set_fallback`](::nexus_rpc::RpcChannel::set_fallback)."
                "    pub fn {plain}_fallback("
                "        &self,"
                "        fallback: impl Fn("
                "            {request},"
                "            &::nexus_rpc::RpcError,"
                "        ) -> ::core::result::Result<{response}, ::nexus_rpc::RpcError>"
                "        + ::core::marker::Send"
                "        + ::core::marker::Sync"
                "        + 'static,"
                "    ) {{"
                "        self.channel.set_fallback(&{descriptor}_METHODS[{index}], fallback)"
                "    }}"
            );
        }
        lines!(buf, "}}" "");
    }
}

/// The comments of the `.proto` file as documentation, or `otherwise` where it has none.
fn write_docs(buf: &mut String, indent: u8, comments: &Comments, otherwise: &str) {
    let mut comments = comments.clone();
    // Comments that stand apart belong to the file and not to this item.
    comments.leading_detached.clear();
    if comments.leading.is_empty() && comments.trailing.is_empty() {
        comments.leading.push(format!(" {otherwise}"));
    }
    comments.append_with_indent(indent, buf);
}

/// `EchoServiceV2` -> `ECHO_SERVICE_V2`, `HTTPGate` -> `HTTP_GATE`.
fn shouty(camel: &str) -> String {
    let mut shouty = String::with_capacity(camel.len() + 8);
    let mut before: Option<char> = None;
    let mut letters = camel.chars().peekable();
    while let Some(letter) = letters.next() {
        let word_ends = before.is_some_and(|c| c.is_lowercase() || c.is_ascii_digit());
        let acronym_ends = before.is_some_and(char::is_uppercase)
            && letters.peek().is_some_and(|next| next.is_lowercase());
        if letter.is_uppercase() && (word_ends || acronym_ends) {
            shouty.push('_');
        }
        shouty.extend(letter.to_uppercase());
        before = Some(letter);
    }
    shouty
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_statics_are_split_at_words() {
        for (camel, expected) in [
            ("Echo", "ECHO"),
            ("EchoService", "ECHO_SERVICE"),
            ("EchoServiceV2", "ECHO_SERVICE_V2"),
            ("HTTPGate", "HTTP_GATE"),
            ("UserServiceRpc", "USER_SERVICE_RPC"),
        ] {
            assert_eq!(shouty(camel), expected);
        }
    }

    #[test]
    fn a_service_without_package_has_no_leading_dot() {
        assert_eq!(full_name("", "Echo"), "Echo");
        assert_eq!(full_name("a.b", "Echo"), "a.b.Echo");
    }
}
