//! The terminal program, driven by a script.

mod common;

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chat_proto::ids::{MessageId as Id, code};
use chat_proto::messages as proto;
use common::{FakeServer, Peer, friends, login_answer, sent};
use prost::Message as _;

/// A small chat: user 1 with the password "secret", who has the friend 2.
fn chat() -> SocketAddr {
    let dropped = Arc::new(AtomicBool::new(false));
    FakeServer::serve(move |frame, peer| answer(&frame, peer, &dropped))
}

fn answer(frame: &proto::RequestFrame, peer: &mut Peer, dropped: &AtomicBool) {
    let (id, content) = (frame.request_id, frame.content.clone());
    let error_code = code::SUCCESS;
    match Id(frame.message_id) {
        Id::REGISTER => {
            let request = proto::RegisterRequest::decode(content).unwrap();
            let free = request.user_name == b"alice"[..];
            let answer = proto::RegisterResponse {
                error_code: if free { error_code } else { 3 },
                user_id: 1,
                ..Default::default()
            };
            peer.answer(id, Id::REGISTER_ANSWER, &answer);
        }
        Id::LOGIN => {
            let request = proto::LoginRequest::decode(content).unwrap();
            let mut answer = login_answer("alice");
            if request.user_password != b"secret"[..] {
                answer.error_code = code::LOGIN_WRONG_PASSWORD;
            }
            peer.answer(id, Id::LOGIN_ANSWER, &answer);
        }
        Id::RESUME => peer.answer(id, Id::RESUME_ANSWER, &login_answer("alice")),
        Id::LOGOUT => {
            let answer = proto::LogoutResponse {
                error_code,
                ..Default::default()
            };
            peer.answer(id, Id::LOGOUT_ANSWER, &answer);
        }
        Id::FRIEND_CHAT => {
            let request = proto::FriendChatRequest::decode(content).unwrap();
            let receiver = request.receiver.unwrap().user_id;
            if request.content == "drop" && !dropped.swap(true, Ordering::SeqCst) {
                // A fault on the way: the answer never comes.
                peer.raw(&[0xff; 4]);
                return;
            }
            let mut answer = sent(1);
            if receiver != 2 {
                answer.error_code = code::FRIEND_CHAT_NOT_FRIENDS;
            }
            peer.answer(id, Id::FRIEND_CHAT_ANSWER, &answer);
            if request.content == "befriend" {
                let notice = proto::AddFriendRequest {
                    user_id: 5,
                    friend_id: 1,
                    sequence: 1,
                    user_name: "dora".into(),
                    ..Default::default()
                };
                peer.push(Id::RECV_ADD_FRIEND, &notice);
            }
            if request.content == "ping" {
                peer.push_text(2, "pong \x1b[2J\nsecond line");
            }
        }
        Id::FETCH_FRIENDS => {
            let answer = proto::FetchFriendsResponse {
                error_code,
                friend_list: Some(friends()),
                ..Default::default()
            };
            peer.answer(id, Id::FETCH_FRIENDS_ANSWER, &answer);
        }
        Id::FETCH_HISTORY => {
            let message = proto::Message {
                message_type: proto::MessageType::FriendChat.into(),
                sender: common::chat(0, "").sender,
                content: "of old".to_owned(),
                sequence: 1,
                ..Default::default()
            };
            let answer = proto::FetchHistoryResponse {
                error_code,
                messages: vec![message],
                last_sequence: 1,
                ..Default::default()
            };
            peer.answer(id, Id::FETCH_HISTORY_ANSWER, &answer);
        }
        Id::CREATE_GROUP => {
            let request = proto::CreateGroupRequest::decode(content).unwrap();
            let answer = proto::CreateGroupResponse {
                error_code,
                group: Some(proto::Group {
                    group_id: 3,
                    group_name: request.group_name,
                    group_description: request.group_description,
                    ..Default::default()
                }),
                ..Default::default()
            };
            peer.answer(id, Id::CREATE_GROUP_ANSWER, &answer);
        }
        Id::DELIVERY_ACK | Id::HEARTBEAT => {}
        other => panic!("not expected: {other:?}"),
    }
}

/// Runs the program with a script as its input.
fn run(address: SocketAddr, options: &[&str], script: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_chat-client"))
        .args([&address.ip().to_string(), &address.port().to_string()])
        .args(options)
        .env_remove("LC_ALL")
        .env_remove("LC_MESSAGES")
        .env("LANG", "C.UTF-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // It may end before it has read all of it.
    let _ = input.write_all(script.as_bytes());
    drop(input);
    child.wait_with_output().unwrap()
}

fn lines(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    text.lines().map(str::to_owned).collect()
}

const SIGNED_IN: &str = "signed in as alice (1): friends 1, groups 0, messages waiting 0";

#[test]
fn a_script_gets_a_line_for_each_answer_and_message() {
    let script = "\
# a comment, and an empty line

login 1 secret
friends
to 2 ping
wait 1
history friend 2
create rustaceans people who like crabs
logout
quit
";
    let output = run(chat(), &[], script);
    let expected = [
        SIGNED_IN,
        "bob (2) online",
        "sent",
        "bob (2): pong \u{fffd}[2J⏎second line",
        "bob (2): of old",
        "created: rustaceans (3) - people who like crabs: ",
        "signed out",
    ];
    // The message may be shown before the answer is.
    let mut shown = lines(&output.stdout);
    let mut expected: Vec<String> = expected.iter().map(|&line| line.to_owned()).collect();
    shown.sort();
    expected.sort();
    assert_eq!(shown, expected);
    assert_eq!(lines(&output.stderr), [""; 0]);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn who_has_become_a_friend_is_shown_by_the_name() {
    let output = run(chat(), &[], "login 1 secret\nto 2 befriend\nwait 1\n");
    let shown = lines(&output.stdout);
    let expected = "dora (5) added you as a friend";
    assert!(shown.iter().any(|line| line == expected), "{shown:?}");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_failed_command_is_told_the_script_goes_on_and_the_exit_code_tells() {
    let script = "\
to 2 hello
login 1 wrong
login 1 secret
to 9 hello
to two hello
dance
to 2 hello
";
    let output = run(chat(), &[], script);
    assert_eq!(lines(&output.stdout), [SIGNED_IN, "sent"]);
    let errors = [
        "error: sign in first",
        "error: the password is wrong",
        "error: you are not friends; add this user as a friend first",
        "error: type: to ID TEXT   for example: to 2 hello",
        "error: \"dance\" is not understood: type a number of the menu or a command; help shows them",
    ];
    assert_eq!(lines(&output.stderr), errors);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn the_numbers_of_the_menus_ask_for_what_they_need() {
    let script = "1\nalice\nsecret\n2\n1\nsecret\n1\n2\nhello\nhow are you\n/back\n9\n";
    let output = run(chat(), &[], script);
    let expected = [
        "registered: your user id is 1; sign in with: login 1",
        SIGNED_IN,
        "sent",
        "sent",
        "bob (2) online",
    ];
    assert_eq!(lines(&output.stdout), expected);
    assert_eq!(lines(&output.stderr), [""; 0]);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_script_that_ends_within_a_command_fails() {
    let output = run(chat(), &[], "register alice\n");
    assert_eq!(
        lines(&output.stderr),
        ["error: the input ended within a command"]
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_lost_connection_is_made_again_told_and_the_message_sent() {
    let output = run(chat(), &[], "login 1 secret\nto 2 drop\nfriends\n");
    let shown = lines(&output.stdout);
    for expected in [
        "* connection lost (what the server sends is not readable); connecting again ...",
        "* connected and signed in again; 1 messages were sent again",
        "sent",
        "bob (2) online",
    ] {
        assert!(shown.iter().any(|line| line == expected), "{shown:?}");
    }
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_server_that_is_not_there_is_told_with_what_to_check() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let output = run(address, &["--timeout", "1"], "login 1 secret\n");
    let errors = lines(&output.stderr).join("\n");
    assert!(errors.contains("cannot reach a chat server"), "{errors}");
    assert!(errors.contains("is the server running"), "{errors}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn waiting_for_messages_that_do_not_come_fails() {
    let output = run(chat(), &[], "login 1 secret\nwait 1 0\n");
    assert_eq!(
        lines(&output.stderr),
        ["error: not so many messages have arrived in time"]
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn it_speaks_chinese() {
    let script = "注册 bob secret\n登录 1 secret\n好友\n发 2 你好\n登出\n";
    let output = run(chat(), &["--lang", "zh"], script);
    let expected = [
        "已登录为 alice (1)：好友 1，群组 0，待收消息 0",
        "bob (2) 在线",
        "已发送",
        "已登出",
    ];
    assert_eq!(lines(&output.stdout), expected);
    assert_eq!(lines(&output.stderr), ["error: 该用户名已被使用，请换一个"]);
}

#[test]
fn a_wrong_command_line_has_code_2_and_help_explains() {
    let program = env!("CARGO_BIN_EXE_chat-client");
    let wrong = Command::new(program).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    let help = Command::new(program).arg("--help").output().unwrap();
    let text = lines(&help.stdout).join("\n");
    for part in ["<HOST>", "<PORT>", "--lang", "--timeout", "Examples:"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn help_lists_the_commands() {
    let output = run(chat(), &[], "login 1 secret\nhelp\n");
    let text = lines(&output.stdout).join("\n");
    for command in [
        "chat ID",
        "to ID TEXT",
        "history friend|group ID [COUNT]",
        "logout",
    ] {
        assert!(text.contains(command), "{text}");
    }
}
