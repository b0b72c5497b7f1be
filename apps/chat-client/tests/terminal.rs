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
            let taken = request.user_name == b"bob"[..];
            let mut answer = proto::RegisterResponse {
                error_code: if taken { 3 } else { error_code },
                user_id: 1,
                ..Default::default()
            };
            if request.user_password.len() < 6 {
                answer.error_code = code::INVALID;
                answer.error_text = "a password needs at least 6 characters".to_owned();
                answer.reason = Some(proto::Reason {
                    rule: proto::Rule::PasswordTooShort.into(),
                    value: 6,
                });
            }
            peer.answer(id, Id::REGISTER_ANSWER, &answer);
        }
        Id::LOGIN => {
            let request = proto::LoginRequest::decode(content).unwrap();
            let mut answer = login_answer("alice");
            // The user has one password for short, and one with space in it.
            let password = String::from_utf8_lossy(&request.user_password).into_owned();
            let is_alice = request.user_id == 1 || request.user_name == b"alice"[..];
            if !is_alice || !["secret", "two words"].contains(&password.as_str()) {
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
        Id::ADD_FRIEND => {
            let request = proto::AddFriendRequest::decode(content).unwrap();
            let known = request.friend_id == 4 || request.friend_name == b"carol king"[..];
            let answer = proto::AddFriendResponse {
                error_code: match known {
                    true => error_code,
                    false => code::ADD_FRIEND_NO_USER,
                },
                friend_user: Some(proto::FriendUser {
                    friend_id: 4,
                    friend_name: "carol king".into(),
                    ..Default::default()
                }),
                ..Default::default()
            };
            peer.answer(id, Id::ADD_FRIEND_ANSWER, &answer);
        }
        Id::FETCH_GROUPS => {
            let answer = proto::FetchGroupsResponse {
                error_code,
                ..Default::default()
            };
            peer.answer(id, Id::FETCH_GROUPS_ANSWER, &answer);
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
group two hello
dance
to 2 hello
";
    let output = run(chat(), &[], script);
    assert_eq!(lines(&output.stdout), [SIGNED_IN, "sent"]);
    let errors = [
        "error: sign in first",
        "error: the password is wrong",
        "error: you are not friends; add this user as a friend first",
        "error: two is not one of your friends; friends shows them, add two adds",
        "error: type: group ID TEXT   for example: group 3 hello",
        "error: \"dance\" is not understood: type a number of the menu or a command; help shows them",
    ];
    assert_eq!(lines(&output.stderr), errors);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn the_numbers_of_the_menus_are_commands() {
    let script = "1 alice secret\n2 1 secret\n1 2\nhello\nhow are you\n/back\n9\n";
    let output = run(chat(), &[], script);
    let expected = [
        "registered: your user id is 1; sign in with: login alice",
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
fn a_name_does_where_an_id_does() {
    let script = "\
login alice secret
add 'carol king'
to bob hello
history friend bob
chat bob
hello again
/back
add nobody
";
    let output = run(chat(), &[], script);
    let expected = [
        SIGNED_IN,
        "friend added: carol king (4) offline",
        "sent",
        "bob (2): of old",
        "sent",
    ];
    assert_eq!(lines(&output.stdout), expected);
    assert_eq!(
        lines(&output.stderr),
        ["error: there is no such user; in names upper and lower case differ"]
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_name_of_digits_is_told_from_an_id() {
    let chat = FakeServer::serve(|frame, peer| {
        let request = proto::LoginRequest::decode(frame.content).unwrap();
        let refused = proto::ErrorNotice {
            error_code: 1234,
            error_text: format!("{}/{:?}", request.user_id, request.user_name),
        };
        peer.answer(frame.request_id, Id::ERROR, &refused);
    });
    let script = "login 12 x\nlogin name:12 x\nlogin \"12\" x\nlogin 13800138000 x\n";
    let output = run(chat, &[], script);
    let said = |who: &str| format!("error: signing in failed with code 1234: {who}");
    let expected = ["12/b\"\"", "0/b\"12\"", "0/b\"12\"", "0/b\"13800138000\""].map(said);
    assert_eq!(lines(&output.stderr), expected);
}

#[test]
fn quotes_hold_words_together() {
    let script = "\
register \"ann lee\" 'two words'
login alice 'two words'
logout
login alice two words
create 'rust aceans' \"people who like crabs\"
create plain it's about crabs
login 'alice secret
";
    let output = run(chat(), &[], script);
    let expected = [
        "registered: your user id is 1; sign in with: login \"ann lee\"",
        SIGNED_IN,
        "signed out",
        SIGNED_IN,
        "created: rust aceans (3) - people who like crabs: ",
        "created: plain (3) - it's about crabs: ",
    ];
    assert_eq!(lines(&output.stdout), expected);
    assert_eq!(
        lines(&output.stderr),
        ["error: a quote is not closed: type \"two words\" or 'two words'"]
    );
}

#[test]
fn what_is_missing_in_a_script_is_an_error_and_not_the_next_line() {
    let script = "register alice\nlogin alice\nlogin alice secret\nadd\ncreate\nfriends\n";
    let output = run(chat(), &[], script);
    assert_eq!(lines(&output.stdout), [SIGNED_IN, "bob (2) online"]);
    let errors = [
        "error: something is missing; type: register NAME PASSWORD   for example: register ann 'my secret'",
        "error: something is missing; type: login NAME PASSWORD   for example: login ann 'my secret'",
        "error: something is missing; type: add NAME   for example: add bob",
        "error: something is missing; type: create NAME [DESCRIPTION]   for example: create 'our group' for all of us",
    ];
    assert_eq!(lines(&output.stderr), errors);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_password_that_is_refused_is_told_why_in_the_users_language() {
    for (language, expected) in [
        (
            "en",
            "error: the password is too short: it needs at least 6 characters",
        ),
        ("zh", "error: 密码过短，至少需要 6 个字符"),
    ] {
        let output = run(chat(), &["--lang", language], "register ann pw\n");
        assert_eq!(lines(&output.stderr), [expected]);
        assert_eq!(output.status.code(), Some(1));
    }
}

#[test]
fn a_chat_with_a_stranger_is_refused_at_once_and_its_lines_are_no_commands() {
    let script = "\
login 1 secret
chat 99
logout
/back
groupchat 7
quit
/back
friends
";
    let output = run(chat(), &[], script);
    assert_eq!(lines(&output.stdout), [SIGNED_IN, "bob (2) online"]);
    let errors = [
        "error: 99 is not one of your friends; friends shows them, add 99 adds",
        "error: you are not a member of group 7; groups shows yours, join 7 joins",
    ];
    assert_eq!(lines(&output.stderr), errors);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn commands_work_in_a_chat_after_a_slash() {
    let script = "\
login 1 secret
chat 2
hello
/friends
/friend
//etc/hosts
/history friend 2
/quit
never sent
";
    let output = run(chat(), &[], script);
    let expected = [
        SIGNED_IN,
        "sent",
        "bob (2) online",
        "sent",
        "bob (2): of old",
    ];
    assert_eq!(lines(&output.stdout), expected);
    assert_eq!(
        lines(&output.stderr),
        [
            "error: \"/friend\" is no command, and was not sent; /help shows the commands, // begins a text with /"
        ]
    );
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
        "chat NAME",
        "to NAME TEXT",
        "history friend NAME|group ID [COUNT]",
        "logout",
        "name:12",
    ] {
        assert!(text.contains(command), "{text}");
    }
    let output = run(chat(), &[], "login 1 secret\nchat 2\n/help\n");
    let text = lines(&output.stdout).join("\n");
    for command in [
        "/back",
        "/quit",
        "/history friend NAME|group ID [COUNT]",
        "//",
    ] {
        assert!(text.contains(command), "{text}");
    }
}
