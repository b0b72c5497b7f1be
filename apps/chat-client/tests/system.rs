//! The library and the terminal program against the real chat, in one process.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use chat_client::{Body, ChatClient, ClientOptions, Conversation, Event, UserId};
use chat_server::PasswordCost;
use chat_standalone::Standalone;
use crossbeam_channel::Receiver;
use nexus_net::{PemFiles, ServerTls};
use nexus_testkit::{Authority, wait_until};

const SOON: Duration = Duration::from_secs(30);

fn chat(listen: SocketAddr, data: &std::path::Path) -> Standalone {
    chat_with(listen, data, None)
}

fn chat_with(listen: SocketAddr, data: &std::path::Path, tls: Option<ServerTls>) -> Standalone {
    let chat = Standalone::start(listen, data, |server, proxy| {
        server.password_cost = PasswordCost::MINIMAL;
        proxy.tls = tls;
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
    run_with(address, &[], None, script)
}

/// With options of the command line, and certificates that the system trusts.
fn run_with(
    address: SocketAddr,
    options: &[&str],
    of_system: Option<&str>,
    script: &str,
) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_chat-client"))
        .args([&address.ip().to_string(), &address.port().to_string()])
        .args(options)
        .envs(of_system.map(|file| ("SSL_CERT_FILE", file)))
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

#[test]
fn under_tls_scripts_are_served_to_who_trusts_the_certificate() {
    let data = tempfile::tempdir().unwrap();
    let ca = Authority::open(data.path(), "ca").unwrap();
    let other = Authority::open(data.path(), "other").unwrap();
    let own = ca.issue("chat", "chat.example").unwrap();
    let tls = ServerTls::from_pem(&PemFiles {
        certificates: own.certificate,
        key: own.key,
        ..PemFiles::default()
    });
    let running = chat_with(any_port(), &data.path().join("data"), Some(tls.unwrap()));
    let address = running.local_addr();
    let script = "register anna secret\n";
    let path = |ca: &Authority| ca.certificate().display().to_string();
    let (ca, other) = (path(&ca), path(&other));

    // By its address, by the name that it has for others, and where the system trusts it.
    let served = run_with(address, &["--tls", "--ca", &ca], None, script);
    assert!(served.status.success(), "{served:?}");
    let named = ["--tls", "--ca", &ca, "--server-name", "chat.example"];
    let served = run_with(address, &named, None, "login 1 secret\n");
    assert!(served.status.success(), "{served:?}");
    let served = run_with(address, &["--tls"], Some(&ca), "login 1 secret\n");
    assert!(served.status.success(), "{served:?}");

    let wrong_name = ["--tls", "--ca", &ca, "--server-name", "other.example"];
    for refused in [&["--tls", "--ca", &other][..], &wrong_name, &["--tls"], &[]] {
        let options = [refused, &["--timeout", "2"]].concat();
        let output = run_with(address, &options, Some(&other), script);
        assert_eq!(output.status.code(), Some(1), "{refused:?}: {output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(refused.is_empty() || said.contains("certificate"), "{said}");
    }
    running.drain(SOON);
}
