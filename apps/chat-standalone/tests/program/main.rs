//! The program as a newcomer starts it.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use chat_proto::ids::{MessageId, code};
use chat_proto::messages::{Conversation, FetchHistoryRequest, FetchHistoryResponse};
use chat_tests::WireClient;
use nexus_testkit::{free_port, wait_until};

mod backup;
mod data_folder;

const PROGRAM: &str = env!("CARGO_BIN_EXE_chat-standalone");
const SOON: Duration = Duration::from_secs(60);
const PASSWORD: &str = "secret-1";

fn start(listen: &str, data: &Path) -> Program {
    start_with(listen, data, &[])
}

fn start_with(listen: &str, data: &Path, options: &[&str]) -> Program {
    started(
        Command::new(PROGRAM)
            .args(arguments(listen, data))
            .args(options),
    )
}

/// Starts the program in what a shell has set up.
fn start_by(set_up: &str, listen: &str, data: &Path) -> Program {
    let script = format!("{set_up}; exec \"$0\" \"$@\"");
    let mut shell = Command::new("sh");
    started(
        shell
            .args(["-c", &script, PROGRAM])
            .args(arguments(listen, data)),
    )
}

fn arguments<'a>(listen: &'a str, data: &'a Path) -> [&'a std::ffi::OsStr; 4] {
    [
        "--listen".as_ref(),
        listen.as_ref(),
        "--data".as_ref(),
        data.as_ref(),
    ]
}

fn started(command: &mut Command) -> Program {
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Program(Some(command.spawn().unwrap()))
}

/// A running program; killed when it is dropped.
struct Program(Option<Child>);

impl Program {
    fn child(&mut self) -> &mut Child {
        self.0.as_mut().expect("not ended")
    }

    fn id(&mut self) -> u32 {
        self.child().id()
    }

    /// Kills it; what it has said.
    fn kill(mut self) -> Output {
        self.child().kill().unwrap();
        self.output()
    }

    /// Waits for its end.
    fn output(mut self) -> Output {
        wait_until("it ends", SOON, || {
            self.child().try_wait().unwrap().is_some()
        });
        let child = self.0.take().expect("not ended");
        child.wait_with_output().unwrap()
    }

    /// Asks it to stop, and waits until it has.
    fn stop(mut self) {
        let pid = self.id().to_string();
        let killed = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(killed.unwrap().success());
        assert!(self.child().wait().unwrap().success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What was said on standard error.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Two friends, one of whom writes to the other.
struct Talk {
    writer: WireClient,
    reader: i32,
}

impl Talk {
    /// Registers two users, of names that begin with `name`.
    fn begin(address: SocketAddr, name: &str) -> Self {
        let mut writer = WireClient::connect(address);
        wait_until("the chat is ready", SOON, || {
            writer
                .register(&format!("{name}-ready"), PASSWORD)
                .error_code
                != code::UNAVAILABLE
        });
        let mut register = |name: &str| {
            let registered = writer.register(name, PASSWORD);
            assert_eq!(
                registered.error_code,
                code::SUCCESS,
                "{}",
                registered.error_text
            );
            registered.user_id
        };
        let own = register(&format!("{name}-writer"));
        let reader = register(&format!("{name}-reader"));
        let login = writer.login(own, PASSWORD, true);
        assert_eq!(login.error_code, code::SUCCESS, "{}", login.error_text);
        assert_eq!(writer.add_friend(reader).error_code, code::SUCCESS);
        Self { writer, reader }
    }

    fn send(&mut self, text: &str) {
        assert_eq!(self.try_send(text), code::SUCCESS);
    }

    /// The code of the answer.
    fn try_send(&mut self, text: &str) -> i32 {
        self.writer.chat(self.reader, text).error_code
    }
}

/// All that was written in a talk, read by its writer from the chat at `address`.
fn history(address: SocketAddr, talk: &Talk) -> Vec<String> {
    let mut client = WireClient::connect(address);
    let user_id = talk.writer.user_id;
    wait_until("logged in", SOON, || {
        client.login(user_id, PASSWORD, true).error_code == code::SUCCESS
    });
    let mut texts = Vec::new();
    loop {
        let request = FetchHistoryRequest {
            user_id,
            conversation: Some(Conversation {
                friend_id: talk.reader,
                group_id: 0,
            }),
            first_sequence: texts.len() as u64 + 1,
            count_max: 0,
        };
        let (id, answer_id) = (MessageId::FETCH_HISTORY, MessageId::FETCH_HISTORY_ANSWER);
        let answer: FetchHistoryResponse = client.request(id, &request, answer_id);
        assert_eq!(answer.error_code, code::SUCCESS, "{}", answer.error_text);
        texts.extend(answer.messages.into_iter().map(|message| message.content));
        if texts.len() as u64 >= answer.last_sequence {
            return texts;
        }
    }
}

/// Reads until the program has said how to join; returns where it listens.
fn listens(program: &mut Program) -> SocketAddr {
    let mut address = None;
    for line in BufReader::new(program.child().stdout.as_mut().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(rest) = line.strip_prefix("The chat listens on ") {
            address = rest.split(' ').next().and_then(|word| word.parse().ok());
        }
        if line.contains("cargo run --release -p chat-client -- 127.0.0.1 ") {
            break;
        }
    }
    address.expect("the program says where it listens")
}

#[test]
fn it_says_where_it_listens_serves_and_stops_when_asked() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("made if it is missing");
    let mut program = start("127.0.0.1:0", &folder);
    let address = listens(&mut program);
    TcpStream::connect(address).unwrap();
    assert!(folder.is_dir());
    program.stop();
}

#[test]
fn output_that_nobody_takes_does_not_end_it() {
    for (name, output) in [
        ("closed", "exec >&- 2>&-"),
        ("full", "exec >/dev/full 2>&1"),
        ("unread", ":"),
    ] {
        let data = tempfile::tempdir().unwrap();
        let listen = format!("127.0.0.1:{}", free_port());
        let mut program = start_by(output, &listen, data.path());
        // Only the last one still has them.
        drop((program.child().stdout.take(), program.child().stderr.take()));
        wait_until(name, SOON, || TcpStream::connect(&listen).is_ok());
        program.stop();
    }
}

#[test]
fn what_cannot_be_used_is_named_with_the_remedy() {
    let data = tempfile::tempdir().unwrap();
    let mut first = start("127.0.0.1:0", &data.path().join("first"));
    let address = listens(&mut first).to_string();
    let second = start(&address, &data.path().join("second")).output();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(
        said.contains(&address) && said.contains("--listen"),
        "{said}"
    );
    first.kill();

    let file = data.path().join("a file");
    std::fs::write(&file, "").unwrap();
    let third = start("127.0.0.1:0", &file).output();
    assert_eq!(third.status.code(), Some(1));
    let said = String::from_utf8_lossy(&third.stderr);
    assert!(said.contains("a file") && said.contains("--data"), "{said}");
}

#[test]
fn a_certificate_that_cannot_be_used_is_named_and_one_without_its_key_refused() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("chat.pem").display().to_string();
    let said = |options: &[&str]| {
        let program = start_with("127.0.0.1:0", data.path(), options);
        let output = program.output();
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), said)
    };
    let (code, text) = said(&["--tls-cert", &file]);
    assert_eq!(code, Some(2));
    assert!(text.contains("--tls-key"), "{text}");
    let (code, text) = said(&["--tls-cert", &file, "--tls-key", &file]);
    assert_eq!(code, Some(1));
    assert!(text.contains(&file), "{text}");
}
