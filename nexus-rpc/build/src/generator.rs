//! Writes the Rust of one service.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use prost_build::{Comments, Method, Service, ServiceGenerator};
use prost_types::method_options::IdempotencyLevel;

/// How a handler runs; the names are those of `nexus_rpc::Execution`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Execution {
    Pooled,
    Inline,
    Responder,
}

#[derive(Debug)]
pub(crate) struct Generator {
    inline: BTreeSet<String>,
    responder: BTreeSet<String>,
}

impl Generator {
    pub(crate) fn new(inline: BTreeSet<String>, responder: BTreeSet<String>) -> Self {
        Self { inline, responder }
    }

    fn execution(&self, service: &str, method: &Method) -> Execution {
        let name = format!("{service}.{}", method.proto_name);
        if self.responder.contains(&name) {
            Execution::Responder
        } else if self.inline.contains(&name) {
            Execution::Inline
        } else {
            Execution::Pooled
        }
    }

    fn write(&self, service: &Service, out: &mut String) -> std::fmt::Result {
        let full_name = match service.package.as_str() {
            "" => service.proto_name.clone(),
            package => format!("{package}.{}", service.proto_name),
        };
        self.write_descriptor(service, &full_name, out)?;
        self.write_trait(service, &full_name, out)?;
        self.write_server(service, &full_name, out)?;
        write_client(service, &full_name, out)
    }

    fn write_descriptor(
        &self,
        service: &Service,
        full_name: &str,
        out: &mut String,
    ) -> std::fmt::Result {
        writeln!(
            out,
            "static {}: ::nexus_rpc::ServiceDescriptor = ::nexus_rpc::ServiceDescriptor {{",
            descriptor_name(service)
        )?;
        writeln!(out, "    name: {full_name:?},\n    methods: &[")?;
        for method in &service.methods {
            writeln!(
                out,
                "        ::nexus_rpc::MethodDescriptor {{
            service: {full_name:?},
            name: {:?},
            request_type: {:?},
            response_type: {:?},
            execution: ::nexus_rpc::Execution::{:?},
            idempotent: {},
        }},",
                method.proto_name,
                method.input_proto_type.trim_start_matches('.'),
                method.output_proto_type.trim_start_matches('.'),
                self.execution(full_name, method),
                method.options.idempotency_level() != IdempotencyLevel::IdempotencyUnknown,
            )?;
        }
        writeln!(out, "    ],\n}};\n")
    }

    fn write_trait(
        &self,
        service: &Service,
        full_name: &str,
        out: &mut String,
    ) -> std::fmt::Result {
        write_comments(
            &service.comments,
            &format!("The service `{full_name}`."),
            "",
            out,
        )?;
        writeln!(out, "pub trait {}: Send + Sync + 'static {{", service.name)?;
        for method in &service.methods {
            let fallback = format!("`{full_name}/{}`.", method.proto_name);
            write_comments(&method.comments, &fallback, "    ", out)?;
            let Method {
                name,
                input_type,
                output_type,
                ..
            } = method;
            let execution = self.execution(full_name, method);
            match execution {
                Execution::Responder => writeln!(
                    out,
                    "    ///\n    /// Started on the loop's thread, where it must not block; answers through `responder`.
    fn {name}(&self, call: ::nexus_rpc::CallContext, request: {input_type}, \
                     responder: ::nexus_rpc::Responder<{output_type}>);"
                )?,
                Execution::Inline | Execution::Pooled => {
                    let place = match execution {
                        Execution::Inline => "Runs on the loop's thread and must not block.",
                        _ => "Runs on the worker pool and may block.",
                    };
                    writeln!(
                        out,
                        "    ///\n    /// {place}
    fn {name}(&self, call: &::nexus_rpc::CallContext, request: {input_type}) \
                         -> ::core::result::Result<{output_type}, ::nexus_rpc::RpcError>;"
                    )?;
                }
            }
        }
        writeln!(out, "}}\n")
    }

    fn write_server(
        &self,
        service: &Service,
        full_name: &str,
        out: &mut String,
    ) -> std::fmt::Result {
        let name = &service.name;
        let descriptor = descriptor_name(service);
        writeln!(
            out,
            "/// Serves a [`{name}`].
#[derive(Debug)]
pub struct {name}Server<T>(::std::sync::Arc<T>);

impl<T: {name}> {name}Server<T> {{
    /// Serves `service`.
    pub fn new(service: T) -> Self {{
        Self(::std::sync::Arc::new(service))
    }}

    /// Serves a `service` that others hold too.
    pub fn from_arc(service: ::std::sync::Arc<T>) -> Self {{
        Self(service)
    }}
}}

impl<T: {name}> ::nexus_rpc::Service for {name}Server<T> {{
    fn descriptor(&self) -> &'static ::nexus_rpc::ServiceDescriptor {{
        &{descriptor}
    }}

    fn call(&self, method: usize, call: ::nexus_rpc::IncomingCall) {{
        match method {{"
        )?;
        for (index, method) in service.methods.iter().enumerate() {
            let method_name = &method.name;
            match self.execution(full_name, method) {
                Execution::Responder => writeln!(
                    out,
                    "            {index} => call.responder(|context, request, responder| \
                     self.0.{method_name}(context, request, responder)),"
                )?,
                Execution::Inline | Execution::Pooled => writeln!(
                    out,
                    "            {index} => call.unary(|context, request| \
                     self.0.{method_name}(context, request)),"
                )?,
            }
        }
        writeln!(
            out,
            "            // The provider takes indices from the descriptor above.
            _ => drop(call),
        }}
    }}
}}
"
        )
    }
}

impl ServiceGenerator for Generator {
    fn generate(&mut self, service: Service, buf: &mut String) {
        // Writing to a String cannot fail.
        let _ = self.write(&service, buf);
    }
}

fn write_client(service: &Service, full_name: &str, out: &mut String) -> std::fmt::Result {
    let name = &service.name;
    let descriptor = descriptor_name(service);
    writeln!(
        out,
        "/// Calls a [`{name}`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct {name}Client {{
    channel: ::nexus_rpc::RpcChannel,
}}

impl {name}Client {{
    /// The service's full name.
    pub const SERVICE: &'static str = {full_name:?};

    /// Calls through `channel`.
    pub fn new(channel: ::nexus_rpc::RpcChannel) -> Self {{
        Self {{ channel }}
    }}"
    )?;
    for (index, method) in service.methods.iter().enumerate() {
        let Method {
            name,
            input_type,
            output_type,
            ..
        } = method;
        let fallback = format!("Calls `{full_name}/{}`.", method.proto_name);
        writeln!(out)?;
        write_comments(&method.comments, &fallback, "    ", out)?;
        writeln!(
            out,
            "    pub fn {name}(&self, request: &{input_type}) -> ::nexus_rpc::Call<{output_type}> {{
        self.{name}_with(request, ::nexus_rpc::CallOptions::default())
    }}

    /// [`{name}`](Self::{name}) with options of its own.
    pub fn {name}_with(
        &self,
        request: &{input_type},
        options: ::nexus_rpc::CallOptions,
    ) -> ::nexus_rpc::Call<{output_type}> {{
        self.channel.call(&{descriptor}.methods[{index}], request, options)
    }}"
        )?;
    }
    writeln!(out, "}}\n")
}

/// `EchoService` -> `ECHO_SERVICE`.
fn descriptor_name(service: &Service) -> String {
    let mut name = String::new();
    let mut after_lower = false;
    for c in service.name.chars() {
        if c.is_uppercase() && after_lower {
            name.push('_');
        }
        after_lower = !c.is_uppercase();
        name.extend(c.to_uppercase());
    }
    name
}

fn write_comments(
    comments: &Comments,
    fallback: &str,
    indent: &str,
    out: &mut String,
) -> std::fmt::Result {
    if comments.leading.is_empty() {
        return writeln!(out, "{indent}/// {fallback}");
    }
    for line in &comments.leading {
        writeln!(out, "{indent}///{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generate(generator: &Generator) -> String {
        let method = Method {
            name: "echo".into(),
            proto_name: "Echo".into(),
            comments: Comments {
                leading_detached: Vec::new(),
                leading: vec![" Says it again.".into()],
                trailing: Vec::new(),
            },
            input_type: "EchoRequest".into(),
            output_type: "EchoResponse".into(),
            input_proto_type: ".example.EchoRequest".into(),
            output_proto_type: ".example.EchoResponse".into(),
            options: Default::default(),
            client_streaming: false,
            server_streaming: false,
        };
        let service = Service {
            name: "EchoService".into(),
            proto_name: "EchoService".into(),
            package: "example".into(),
            comments: Comments::default(),
            methods: vec![method],
            options: Default::default(),
        };
        let mut out = String::new();
        generator.write(&service, &mut out).unwrap();
        out
    }

    #[test]
    fn a_method_is_pooled_unless_named() {
        let code = generate(&Generator::new(BTreeSet::new(), BTreeSet::new()));
        assert!(code.contains("execution: ::nexus_rpc::Execution::Pooled"));
        assert!(code.contains("call.unary("));
        assert!(code.contains("/// Says it again."));
        assert!(code.contains("request_type: \"example.EchoRequest\""));
    }

    #[test]
    fn a_named_method_gets_a_responder() {
        let named = BTreeSet::from(["example.EchoService.Echo".to_owned()]);
        let code = generate(&Generator::new(BTreeSet::new(), named));
        assert!(code.contains("execution: ::nexus_rpc::Execution::Responder"));
        assert!(code.contains("responder: ::nexus_rpc::Responder<EchoResponse>"));
        assert!(code.contains("call.responder("));
    }

    #[test]
    fn descriptor_names_are_screaming_snake_case() {
        let service = |name: &str| Service {
            name: name.into(),
            proto_name: name.into(),
            package: String::new(),
            comments: Comments::default(),
            methods: Vec::new(),
            options: Default::default(),
        };
        assert_eq!(descriptor_name(&service("EchoService")), "ECHO_SERVICE");
        assert_eq!(
            descriptor_name(&service("OneChatServiceRpc")),
            "ONE_CHAT_SERVICE_RPC"
        );
    }
}
