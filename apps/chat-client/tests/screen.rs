//! The terminal program on a terminal of its own, as `script` (util-linux) makes one.

mod common;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use chat_proto::ids::{MessageId as Id, code};
use chat_proto::messages as proto;
use common::{FakeServer, Peer, SOON, friends, login_answer, sent};
use prost::Message as _;

/// The program, a keyboard and a screen.
struct Terminal {
    child: Child,
    keyboard: ChildStdin,
    output: Receiver<Vec<u8>>,
    /// What was shown and not yet looked at.
    shown: String,
}

impl Terminal {
    fn open(address: SocketAddr) -> Self {
        let (program, ip, port) = (
            env!("CARGO_BIN_EXE_chat-client"),
            address.ip(),
            address.port(),
        );
        let mut child = Command::new("script")
            .args(["--quiet", "--return", "--command"])
            .arg(format!("{program} {ip} {port} --lang en"))
            .arg("/dev/null")
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script, of the package bsdutils");
        let keyboard = child.stdin.take().unwrap();
        let mut screen = child.stdout.take().unwrap();
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                let _ = sender.send(bytes[..count].to_vec());
            }
        });
        Self {
            child,
            keyboard,
            output,
            shown: String::new(),
        }
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
        self.keyboard.flush().unwrap();
    }

    /// Waits for a text, and returns what was shown before it.
    #[track_caller]
    fn expect(&mut self, text: &str) -> String {
        let deadline = Instant::now() + SOON;
        loop {
            if let Some((before, after)) = self.shown.split_once(text) {
                let (before, after) = (before.to_owned(), after.to_owned());
                self.shown = after;
                return before;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.shown.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => panic!("{text:?} was not shown: {:?}", self.shown),
            }
        }
    }

    fn log_in(&mut self) {
        self.expect("> ");
        self.press("login alice\r");
        self.expect("password: ");
        self.press("secret\r");
        self.expect("signed in as alice (1)");
        self.expect("alice (1)> ");
    }

    fn exit_code(mut self) -> Option<i32> {
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it goes on: {:?}", self.shown);
            std::thread::yield_now();
        }
    }
}

/// A test that fails leaves no program behind.
impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Alice, who has the friend bob; tells of each text that is sent.
fn chat() -> (SocketAddr, Receiver<String>) {
    let (sender, texts) = channel();
    let address = FakeServer::serve(move |frame, peer| {
        answer(&frame, peer, |text| {
            let _ = sender.send(text);
        })
    });
    (address, texts)
}

fn answer(frame: &proto::RequestFrame, peer: &mut Peer, tell: impl Fn(String)) {
    let (id, content) = (frame.request_id, frame.content.clone());
    match Id(frame.message_id) {
        Id::LOGIN => peer.answer(id, Id::LOGIN_ANSWER, &login_answer("alice")),
        Id::LOGOUT => {
            let answer = proto::LogoutResponse {
                error_code: code::SUCCESS,
                ..Default::default()
            };
            peer.answer(id, Id::LOGOUT_ANSWER, &answer);
        }
        Id::FETCH_FRIENDS => {
            let answer = proto::FetchFriendsResponse {
                error_code: code::SUCCESS,
                friend_list: Some(friends()),
                ..Default::default()
            };
            peer.answer(id, Id::FETCH_FRIENDS_ANSWER, &answer);
        }
        Id::FRIEND_CHAT => {
            let request = proto::FriendChatRequest::decode(content).unwrap();
            peer.answer(id, Id::FRIEND_CHAT_ANSWER, &sent(1));
            tell(request.content);
        }
        _ => {}
    }
}

#[test]
fn a_password_is_not_shown_and_control_c_and_d_lead_out_of_where_one_is() {
    let (address, _texts) = chat();
    let mut terminal = Terminal::open(address);
    terminal.expect("> ");
    // Out of a question.
    terminal.press("login alice\r");
    terminal.expect("password: ");
    terminal.press("sec\u{3}");
    let shown = terminal.expect("> ");
    assert!(!shown.contains("sec") && shown.contains("***"), "{shown:?}");
    terminal.press("login\r");
    terminal.expect("name or user id: ");
    terminal.press("\u{4}");
    terminal.log_in();
    // Out of a chat.
    for key in ["\u{3}", "\u{4}"] {
        terminal.press("chat bob\r");
        terminal.expect("→ bob (2) ");
        terminal.press(key);
        terminal.expect("alice (1)> ");
    }
    // Out of the program.
    terminal.press("\u{3}");
    assert_eq!(terminal.exit_code(), Some(0));
}

#[test]
fn all_lines_that_are_pasted_into_a_chat_are_sent() {
    let (address, texts) = chat();
    let mut terminal = Terminal::open(address);
    terminal.log_in();
    terminal.press("chat bob\r");
    terminal.expect("→ bob (2) ");
    // As a terminal pastes that does not say where a paste begins and ends ...
    terminal.press("one\r\rtwo\rthree\r");
    for expected in ["one", "two", "three"] {
        assert_eq!(texts.recv_timeout(SOON).unwrap(), expected);
    }
    // ... and as one that does: a text of several lines is one message.
    terminal.press("\u{1b}[200~four\nfive\u{1b}[201~\r");
    assert_eq!(texts.recv_timeout(SOON).unwrap(), "four\nfive");
    terminal.press("/quit\r");
    assert_eq!(terminal.exit_code(), Some(0));
}

#[test]
fn lines_that_are_pasted_at_the_menu_are_commands_up_to_a_chat() {
    let (address, texts) = chat();
    let mut terminal = Terminal::open(address);
    terminal.log_in();
    terminal.press("\u{1b}[200~friends\nchat bob\nhello\n/back\nfriends\u{1b}[201~\r");
    terminal.expect("bob (2) online");
    terminal.expect("each line is sent to bob (2)");
    assert_eq!(texts.recv_timeout(SOON).unwrap(), "hello");
    terminal.expect("bob (2) online");
    terminal.expect("alice (1)> ");
}

#[test]
fn who_thinks_at_the_menu_until_the_server_ends_the_connection_hears_nothing_of_it() {
    let connections = Arc::new(AtomicUsize::new(0));
    let server = FakeServer::start();
    let address = server.address();
    let made = Arc::clone(&connections);
    std::thread::spawn(move || {
        for number in 0.. {
            let mut peer = server.accept();
            made.fetch_add(1, Ordering::SeqCst);
            if number < 3 {
                let notice = proto::ErrorNotice {
                    error_code: code::NOT_LOGGED_IN,
                    error_text: "nobody logged in for too long".to_owned(),
                };
                peer.push(Id::ERROR, &notice);
                continue;
            }
            while let Some(frame) = peer.next() {
                answer(&frame, &mut peer, |_| {});
            }
            break;
        }
    });
    let mut terminal = Terminal::open(address);
    let deadline = Instant::now() + SOON;
    while connections.load(Ordering::SeqCst) < 4 {
        assert!(Instant::now() < deadline, "it does not connect again");
        std::thread::yield_now();
    }
    terminal.expect("> ");
    terminal.press("login alice secret\r");
    let shown = terminal.expect("signed in as alice (1)");
    assert!(!shown.contains('*') && !shown.contains('!'), "{shown:?}");
}
