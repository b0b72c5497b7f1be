//! The READMEs' service: its files, compiled in a crate of its own, outside the workspace, and the commands that
//! are to work while it runs.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::support::PATIENCE;

/// Compiling takes its time on a busy machine.
const COMPILING: Duration = Duration::from_secs(1200);

const README: &str = include_str!("../../../../README.md");
const CHINESE: &str = include_str!("../../../../README.zh-CN.md");

/// Where the README has its program listen.
const PORT: &str = "9100";

#[test]
fn the_readmes_service_compiles_prints_hello_and_answers_the_commands_shown() {
    let port = free_port();
    let package = Package::new("hello");
    package.write(
        "proto/example/echo.proto",
        &block(README, "proto", "EchoService"),
    );
    let build = block(README, "rust", "nexus_rpc_build::Builder");
    package.write("build.rs", &build);
    let main = block(README, "rust", "impl EchoService for Echo").replace(PORT, &port);
    package.write("src/main.rs", &main);
    let program = package.run();
    assert_eq!(program.line(COMPILING), "hello");

    let http = block(README, "sh", "curl --json").replace(PORT, &port);
    let commands: Vec<&str> = http.lines().collect();
    let [status, echo] = commands[..] else {
        panic!("two commands are expected: {http}");
    };
    let status = shell(status);
    assert!(status.contains("example.EchoService"), "{status}");
    assert_eq!(shell(echo).trim(), r#"{"message":"hello"}"#);

    let tool = block(README, "sh", "nexus-rpc list").replace(PORT, &port);
    let (registry, commands) = tool.split_once('\n').expect("the registry, then commands");
    assert!(
        registry.starts_with("export NEXUS_REGISTRY=list://"),
        "{registry}"
    );
    for command in commands.lines() {
        // A press lasts ten seconds unless it is told otherwise.
        let command = command.replace(" --duration 10s", "").replace("5000", "50");
        let brief = match command.contains(" press ") {
            true => format!("{command} --duration 200ms"),
            false => command,
        };
        let said = shell(&format!("{registry}\n{brief}"));
        let wanted = match brief.split(' ').nth(1) {
            Some("list") => "example.EchoService",
            Some("describe") => "rpc Echo(example.EchoRequest) returns (example.EchoResponse)",
            Some("call") => r#""message": "hello""#,
            Some("press") => "p99",
            other => panic!("{other:?} is not known here"),
        };
        assert!(said.contains(wanted), "{brief}: {said}");
    }
}

#[test]
fn messages_of_googles_types_compile_with_the_readmes_dependencies() {
    let package = Package::new("known");
    package.write(
        "proto/example/echo.proto",
        r#"syntax = "proto3";
package example;
import "google/protobuf/any.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/empty.proto";
import "google/protobuf/field_mask.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
message Known {
  google.protobuf.Any any = 1;
  google.protobuf.Duration duration = 2;
  google.protobuf.Empty empty = 3;
  google.protobuf.FieldMask mask = 4;
  google.protobuf.Struct object = 5;
  google.protobuf.Timestamp time = 6;
  google.protobuf.StringValue text = 7;
  google.protobuf.BytesValue bytes = 8;
  map<string, google.protobuf.Value> values = 9;
  oneof one { google.protobuf.Int64Value number = 10; google.protobuf.ListValue list = 11; }
}
service Clock {
  rpc Now(google.protobuf.Empty) returns (google.protobuf.Timestamp);
  rpc Wrap(google.protobuf.StringValue) returns (Known);
}
"#,
    );
    package.write(
        "build.rs",
        &block(README, "rust", "nexus_rpc_build::Builder"),
    );
    package.write(
        "src/main.rs",
        r#"use nexus_rpc::{CallContext, RpcError};
include!(concat!(env!("OUT_DIR"), "/example.rs"));
struct Wall;
impl Clock for Wall {
    fn now(&self, _: &CallContext, _: ()) -> Result<prost_types::Timestamp, RpcError> {
        Ok(prost_types::Timestamp { seconds: 1, nanos: 2 })
    }
    fn wrap(&self, _: &CallContext, text: String) -> Result<Known, RpcError> {
        let values = [("k".to_owned(), prost_types::Value::default())].into();
        Ok(Known { text: Some(text), values, ..Known::default() })
    }
}
fn main() {
    let _service = ClockServer::new(Wall);
    println!("compiled");
}
"#,
    );
    assert_eq!(package.run().line(COMPILING), "compiled");
}

#[test]
fn both_readmes_show_the_same_program_and_commands() {
    for (language, mark) in [
        ("toml", "nexus-rpc = {"),
        ("proto", "EchoService"),
        ("rust", "nexus_rpc_build::Builder"),
        ("rust", "impl EchoService for Echo"),
        ("sh", "curl --json"),
        ("sh", "nexus-rpc list"),
    ] {
        let code = |readme| without_comments(&block(readme, language, mark));
        assert_eq!(code(README), code(CHINESE));
    }
}

/// A new crate with the dependencies that the README lists.
struct Package(tempfile::TempDir);

impl Package {
    fn new(name: &str) -> Self {
        let package = Self(tempfile::tempdir().expect("a folder"));
        // The README's folder `nexus` is a clone; here it is this one.
        let clone = format!("path = \"{}/", checkout().display());
        let dependencies =
            block(README, "toml", "nexus-rpc = {").replace("path = \"nexus/", &clone);
        package.write(
            "Cargo.toml",
            &format!("[package]\nname = \"{name}\"\nedition = \"2024\"\n\n{dependencies}"),
        );
        // The versions that this workspace has, which are here already.
        let lock = fs::read_to_string(checkout().join("Cargo.lock")).expect("a lock file");
        package.write("Cargo.lock", &lock);
        package
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }

    /// Compiles and starts it, without a network.
    fn run(&self) -> Program {
        // Kept between runs.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("readme");
        let cargo = |args: &[&str]| {
            let mut command = Command::new(env!("CARGO"));
            command
                .args(args)
                .current_dir(self.0.path())
                .env("CARGO_TARGET_DIR", &target)
                .stdin(Stdio::null());
            command
        };
        let mut child = cargo(&["run", "--offline", "--quiet"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("cargo runs");
        let stdout = child.stdout.take().expect("piped");
        let (tell, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // A test that has ended asks no more.
                let _ = tell.send(line);
            }
        });
        Program { child, lines }
    }
}

/// Ends with the test. On Unix `cargo run` becomes the program.
struct Program {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Program {
    #[track_caller]
    fn line(&self, patience: Duration) -> String {
        let line = self.lines.recv_timeout(patience);
        line.expect("a line; why there is none is on stderr")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn checkout() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    folder.canonicalize().expect("the checkout")
}

/// A port that nobody has just now.
fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener
        .local_addr()
        .expect("its address")
        .port()
        .to_string()
}

/// The fenced block in this language that contains `mark`.
fn block(text: &str, language: &str, mark: &str) -> String {
    let fence = format!("```{language}\n");
    let mut blocks = text
        .split(&fence)
        .skip(1)
        .filter_map(|rest| rest.split("```").next());
    let found = blocks.find(|block| block.contains(mark));
    found
        .unwrap_or_else(|| panic!("no {language} block with {mark}"))
        .to_owned()
}

/// Comments may be in either language.
fn without_comments(code: &str) -> Vec<String> {
    let code = code
        .lines()
        .map(|line| line.split("# ").next().unwrap_or(line));
    code.map(|line| line.trim_end().to_owned()).collect()
}

/// What the commands print, with this build's tool in the path.
fn shell(commands: &str) -> String {
    let tool = Path::new(env!("CARGO_BIN_EXE_nexus-rpc"));
    let mut path = tool.parent().expect("a folder").as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let seconds = PATIENCE.as_secs().to_string();
    let output = Command::new("timeout")
        .args([&seconds, "sh", "-ec", commands])
        .env("PATH", path)
        .output()
        .expect("a shell");
    assert!(output.status.success(), "{commands}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}
