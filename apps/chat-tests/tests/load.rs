//! A small load on the chat in one process: everything arrives, also when the chat goes away and comes back
//! in the middle.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use chat_bus::Rate;
use chat_load::{Load, LoadOptions, Pace, Roster, Senders, Shape, setup};
use chat_server::PasswordCost;
use chat_standalone::Standalone;
use nexus_testkit::{free_port, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

fn start(listen: SocketAddr, data: &Path) -> Standalone {
    let chat = Standalone::start(listen, data, |server, proxy| {
        server.password_cost = PasswordCost::MINIMAL;
        // A load is faster than any client, and all of it comes from here.
        let any = Rate::literal(1_000_000, Duration::from_secs(1));
        server.clients.registrations_per_address = any;
        server.clients.password_hashes_waiting_max = usize::MAX;
        proxy.clients.messages_per_user = any;
        proxy.clients.requests_per_connection = any;
        proxy.clients.logins_per_address = any;
    })
    .unwrap();
    wait_until("the chat is ready", PATIENCE, || chat.is_ready());
    chat
}

/// A load on pairs and groups of which everybody sends, logged in.
fn load(address: SocketAddr, pace: Pace) -> Load {
    let shape = Shape {
        pairs: 8,
        friends: 2,
        groups: 2,
        group_members: 5,
        idle: 2,
    };
    let roster = setup::register(&[address], shape).unwrap();
    load_of(&roster, address, pace)
}

fn load_of(roster: &Roster, address: SocketAddr, pace: Pace) -> Load {
    let options = LoadOptions {
        senders: Senders::All,
        resumes: true,
        ..LoadOptions::new(vec![address], pace)
    };
    let load = Load::start(options, roster).unwrap();
    assert!(load.wait_entered(PATIENCE), "{:?}", load.progress());
    load
}

fn wait_acknowledged(load: &Load, count: u64) {
    wait_until("messages are acknowledged", PATIENCE, || {
        load.progress().acknowledged >= count
    });
}

#[test]
fn everything_that_is_acknowledged_arrives_once_and_in_order() {
    let data = tempfile::tempdir().unwrap();
    let chat = start("127.0.0.1:0".parse().unwrap(), data.path());
    let load = load(chat.local_addr(), Pace::FlatOut { in_flight: 3 });
    load.begin(Duration::ZERO);
    wait_acknowledged(&load, 1000);
    load.end_sending();
    assert!(load.drain(PATIENCE), "{:?}", load.progress());
    let report = load.report();
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.verdict.unacknowledged, 0);
    assert!(report.delivered > report.acknowledged, "groups: {report}");
}

#[test]
fn a_chat_that_goes_away_and_comes_back_loses_nothing() {
    let data = tempfile::tempdir().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut chat = start(address, data.path());
    let pace = Pace::Open {
        pairs_per_s: 200.0,
        groups_per_s: 50.0,
    };
    let load = load(address, pace);
    load.begin(Duration::ZERO);
    for round in 1..=2 {
        wait_acknowledged(&load, round * 200);
        // Cut off, with messages under way.
        drop(chat);
        wait_until("the clients have noticed", PATIENCE, || {
            load.progress().logged_in == 0
        });
        chat = start(address, data.path());
        assert!(load.wait_entered(PATIENCE), "{:?}", load.progress());
    }
    wait_acknowledged(&load, 600);
    load.end_sending();
    assert!(load.drain(PATIENCE), "{:?}", load.progress());
    let report = load.report();
    assert!(report.is_clean(), "{report}");
    assert!(report.reconnects > 0, "{report}");
    chat.drain(Duration::from_secs(10));
}

#[test]
fn sessions_that_end_without_their_users_doing_are_violations() {
    let data = tempfile::tempdir().unwrap();
    let chat = start("127.0.0.1:0".parse().unwrap(), data.path());
    let address = chat.local_addr();
    let shape = Shape {
        pairs: 1,
        friends: 1,
        groups: 0,
        group_members: 0,
        idle: 0,
    };
    let roster = setup::register(&[address], shape).unwrap();
    let pace = Pace::FlatOut { in_flight: 1 };
    let load = load_of(&roster, address, pace);
    assert_eq!(load.verdict().sessions_ended, 0);
    // A login that the load's users know nothing of.
    let _thief = load_of(&roster, address, pace);
    // Signed out at first; then the token is refused, too.
    wait_until("both ends of each session are counted", PATIENCE, || {
        load.verdict().sessions_ended >= 4
    });
    let report = load.report();
    assert!(!report.is_clean(), "{report}");
    for why in ["somewhere else", "its token is refused"] {
        assert!(report.to_string().contains(why), "{why}: {report}");
    }
}
