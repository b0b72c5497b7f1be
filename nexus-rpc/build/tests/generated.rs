//! What is generated, as text. That it compiles and works is shown by nexus-rpc's own tests, which
//! use it.

use std::fs;
use std::path::Path;

use nexus_rpc_build::{BuildError, Builder};

const MODES: &str = r#"
syntax = "proto3";
package test.modes;

// A block of its own.

// Three ways to run.
//
// See https://example.com for more.
service Modes {
  // May block.
  rpc Pooled(In) returns (Out);
  rpc Inline(In) returns (Out) { option idempotency_level = IDEMPOTENT; }
  rpc Later(In) returns (Out) { option idempotency_level = NO_SIDE_EFFECTS; }
  rpc Type(In) returns (Out) { option idempotency_level = IDEMPOTENCY_UNKNOWN; }
}

message In { bytes data = 1; map<string, int32> counts = 2; }
message Out {}
"#;

#[test]
fn the_echo_service_becomes_trait_server_and_client() {
    let dir = tempfile::tempdir().expect("a folder");
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    Builder::new()
        .out_dir(dir.path())
        .compile(&["example/echo.proto"], &[protos])
        .expect("generated");
    let code = read(dir.path(), "example.rs");
    for expected in [
        "pub struct EchoRequest",
        "pub trait EchoService: ::core::marker::Send + ::core::marker::Sync + 'static {",
        "fn echo( &self, call: &::nexus_rpc::CallContext, request: EchoRequest, ) \
         -> ::core::result::Result<EchoResponse, ::nexus_rpc::RpcError>;",
        "pub struct EchoServiceServer<T>(::std::sync::Arc<T>);",
        "0 => call.unary(|context, request| self.0.echo(context, request)),",
        "pub static ECHO_SERVICE: ::nexus_rpc::ServiceDescriptor",
        "name: \"example.EchoService\", methods: &ECHO_SERVICE_METHODS, files: &ECHO_SERVICE_FILES,",
        "static ECHO_SERVICE_FILES: [u8; ",
        "service: \"example.EchoService\", name: \"Echo\", \
         request_type: \"example.EchoRequest\", response_type: \"example.EchoResponse\", \
         execution: ::nexus_rpc::Execution::Pooled, idempotent: false,",
        "pub const SERVICE: &'static str = \"example.EchoService\";",
        "pub fn echo(&self, request: &EchoRequest) -> ::nexus_rpc::Call<EchoResponse>",
        "pub fn echo_with( &self, request: &EchoRequest, options: ::nexus_rpc::CallOptions, ) \
         -> ::nexus_rpc::Call<EchoResponse>",
        "self.channel.call(&ECHO_SERVICE_METHODS[0], request, options)",
    ] {
        assert_contains(&code, expected);
    }
}

#[test]
fn each_method_runs_as_it_was_told() {
    let code = generate(
        MODES,
        Builder::new()
            .inline("test.modes.Modes.Inline")
            .responder("test.modes.Modes.Later"),
    )
    .expect("generated");
    for expected in [
        "fn inline( &self, call: &::nexus_rpc::CallContext, request: In, ) \
         -> ::core::result::Result<Out, ::nexus_rpc::RpcError>;",
        "fn later( &self, call: ::nexus_rpc::CallContext, request: In, \
         responder: ::nexus_rpc::Responder<Out>, );",
        "0 => call.unary(|context, request| self.0.pooled(context, request)),",
        "1 => call.unary(|context, request| self.0.inline(context, request)),",
        "2 => { call.responder(|context, request, responder| { \
         self.0.later(context, request, responder) }) }",
        "execution: ::nexus_rpc::Execution::Inline, idempotent: true,",
        "execution: ::nexus_rpc::Execution::Responder, idempotent: true,",
    ] {
        assert_contains(&code, expected);
    }
    let counts = |text: &str| code.matches(text).count();
    assert_eq!(
        (counts("idempotent: true"), counts("idempotent: false")),
        (2, 2)
    );
}

#[test]
fn comments_become_documentation_and_nothing_public_is_without() {
    let code = generate(MODES, Builder::new()).expect("generated");
    for expected in [
        "/// Three ways to run. /// /// See <https://example.com> for more. pub trait Modes",
        "/// May block. /// /// Runs on the worker pool and may block. fn pooled(",
        "/// `test.modes.Modes.Inline`. /// /// Runs on the worker pool and may block. fn inline(",
        "/// May block. pub fn pooled(&self",
        "/// Calls `test.modes.Modes.Inline`. pub fn inline(&self",
        "#[allow(missing_docs)]",
    ] {
        assert_contains(&code, expected);
    }
    assert!(!code.contains("A block of its own"), "{code}");
}

#[test]
fn bytes_are_shared_and_maps_are_sorted() {
    let code = generate(MODES, Builder::new()).expect("generated");
    assert_contains(&code, "pub data: ::prost::bytes::Bytes,");
    assert_contains(&code, "pub counts: ::prost::alloc::collections::BTreeMap<");
}

#[test]
fn a_method_named_like_a_keyword_is_escaped() {
    let code = generate(MODES, Builder::new()).expect("generated");
    assert_contains(&code, "fn r#type( &self, call: &::nexus_rpc::CallContext");
    assert_contains(&code, "pub fn type_with( &self,");
    assert_contains(
        &code,
        "self.type_with(request, ::core::default::Default::default())",
    );
}

#[test]
fn a_package_is_not_needed() {
    let proto = "syntax = \"proto3\"; service S { rpc M(E) returns (E); } message E {}";
    let code = generate(proto, Builder::new().inline("S.M")).expect("generated");
    assert_contains(&code, "service: \"S\", name: \"M\", request_type: \"E\"");
}

#[test]
fn streaming_is_refused_by_name() {
    for (request, response) in [("stream E", "E"), ("E", "stream E")] {
        let proto = format!(
            "syntax = \"proto3\"; package p; service S {{ rpc M({request}) returns ({response}); }} \
             message E {{}}"
        );
        let error = generate(&proto, Builder::new()).expect_err("refused");
        assert!(
            matches!(&error, BuildError::Streaming { method } if method == "p.S.M"),
            "{error}"
        );
    }
}

#[test]
fn a_method_that_is_misspelt_or_named_twice_is_an_error() {
    let error = generate(MODES, Builder::new().inline("test.modes.Modes.Inlnie"));
    assert!(
        matches!(&error, Err(BuildError::UnknownMethod { method }) if method.ends_with("Inlnie")),
        "{error:?}"
    );
    let name = "test.modes.Modes.Inline";
    let error = generate(MODES, Builder::new().inline(name).responder(name));
    assert!(
        matches!(&error, Err(BuildError::NamedTwice { .. })),
        "{error:?}"
    );
}

#[test]
fn an_error_in_a_file_says_where() {
    let error = generate("syntax = \"proto3\";\nmessage {}", Builder::new()).expect_err("refused");
    assert!(error.to_string().contains("test.proto"), "{error}");
    assert!(error.to_string().contains('2'), "{error}");
}

fn generate(proto: &str, builder: Builder) -> Result<String, BuildError> {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("test.proto"), proto).expect("written");
    builder
        .out_dir(dir.path())
        .compile(&["test.proto"], &[dir.path()])?;
    let file = match proto.contains("package test.modes") {
        true => "test.modes.rs",
        false => "_.rs",
    };
    Ok(read(dir.path(), file))
}

/// The generated code with all white space made one space, so that lines do not matter.
fn read(dir: &Path, file: &str) -> String {
    let code = fs::read_to_string(dir.join(file)).expect("a generated file");
    code.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn assert_contains(code: &str, expected: &str) {
    assert!(code.contains(expected), "{expected}\nis not in\n{code}");
}
