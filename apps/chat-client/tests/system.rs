//! The library and the terminal program against the real chat, in one process.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use chat_client::{Body, ChatClient, ClientOptions, Conversation, Event, UserId};
use chat_server::PasswordCost;
use chat_standalone::Standalone;
use crossbeam_channel::Receiver;
use nexus_testkit::wait_until;

const SOON: Duration = Duration::from_secs(30);

fn chat(listen: SocketAddr, data: &std::path::Path) -> Standalone {
    let chat = Standalone::start(listen, data, |server, _| {
        server.password_cost = PasswordCost::MINIMAL;
    })
    .unwrap();
    wait_until("the chat is ready", SOON, || chat.is_ready());
    chat
}

fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn member(address: SocketAddr, name: &str) -> (ChatClient, Receiver<Event>, UserId) {
    let (client, events) = ChatClient::connect(address, ClientOptions::default()).unwrap();
    let user = client.register(name, "secret").wait(SOON).unwrap();
    client.login(user, "secret").wait(SOON).unwrap();
    (client, events, user)
}

/// The next message, whatever else happens before it.
fn next_body(events: &Receiver<Event>) -> Body {
    loop {
        if let Event::Message(message) = events.recv_timeout(SOON).expect("a message") {
            return message.body;
        }
    }
}

#[test]
fn two_users_talk_and_nothing_is_lost_over_a_restart_of_the_chat() {
    let data = tempfile::tempdir().unwrap();
    let running = chat(any_port(), data.path());
    let address = running.local_addr();
    let (anna, _anna_events, _) = member(address, "anna");
    let (bert, bert_events, bert_id) = member(address, "bert");
    anna.add_friend(bert_id).wait(SOON).unwrap();
    assert_eq!(next_body(&bert_events), Body::FriendAdded);
    anna.send_to_friend(bert_id, "before").wait(SOON).unwrap();
    assert_eq!(next_body(&bert_events), Body::Text("before".into()));

    running.drain(SOON);
    // Sent while there is no chat: it waits for the connection.
    let sent = anna.send_to_friend(bert_id, "meanwhile");
    let running = chat(address, data.path());
    sent.wait(SOON).unwrap();
    assert_eq!(next_body(&bert_events), Body::Text("meanwhile".into()));

    let group = anna.create_group("g", "").wait(SOON).unwrap().group;
    bert.join_group(group).wait(SOON).unwrap();
    anna.send_to_group(group, "to all").wait(SOON).unwrap();
    assert_eq!(next_body(&bert_events), Body::Text("to all".into()));
    let page = bert
        .history(Conversation::Group(group), 1, 100)
        .wait(SOON)
        .unwrap();
    assert_eq!(page.last_sequence, 2);
    anna.close();
    bert.close();
    running.drain(SOON);
}

/// Runs the terminal program with a script as its input.
fn run(address: SocketAddr, script: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_chat-client"))
        .args([&address.ip().to_string(), &address.port().to_string()])
        .env_remove("LC_ALL")
        .env_remove("LC_MESSAGES")
        .env("LANG", "C.UTF-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(script.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn scripts_of_two_users_find_each_other() {
    let data = tempfile::tempdir().unwrap();
    let running = chat(any_port(), data.path());
    let address = running.local_addr();
    let first = run(address, "register anna secret\nregister bert secret\n");
    assert!(first.status.success(), "{first:?}");

    let first = run(address, "login 1 secret\nadd 2\nto 2 你好 bert\n");
    assert!(first.status.success(), "{first:?}");
    let second = run(address, "login 2 secret\nwait 2\nto 1 and you\nfriends\n");
    assert!(second.status.success(), "{second:?}");
    let shown = String::from_utf8(second.stdout).unwrap();
    assert!(shown.contains("你好 bert"), "{shown}");
    assert!(shown.contains("anna"), "{shown}");
    let wrong = run(address, "login 1 secret\nto 77 nobody\n");
    assert_eq!(wrong.status.code(), Some(1), "{wrong:?}");
    running.drain(SOON);
}
