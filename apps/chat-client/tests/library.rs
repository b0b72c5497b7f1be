//! The library against a server on a real socket.

mod common;

use std::time::Duration;

use bytes::BytesMut;
use chat_client::{
    Body, ChatClient, ChatError, ClientOptions, Conversation, Event, GroupId, Operation, UserId,
};
use chat_proto::frame;
use chat_proto::ids::{MessageId as Id, code};
use chat_proto::messages as proto;
use common::{FakeServer, Peer, SOON, login_answer, sent};
use crossbeam_channel::Receiver;
use nexus_net::LoopGroup;
use prost::Message as _;

fn user(id: i32) -> UserId {
    UserId::new(id).unwrap()
}

fn quick() -> ClientOptions {
    let mut options = ClientOptions {
        ack_delay: Duration::from_millis(5),
        gap_delay: Duration::from_millis(5),
        ..ClientOptions::default()
    };
    options.backoff.initial = Duration::from_millis(5);
    options
}

fn next(events: &Receiver<Event>) -> Event {
    events.recv_timeout(SOON).expect("an event")
}

/// The sequence and text of the next event, a message.
fn next_text(events: &Receiver<Event>) -> (u64, String) {
    match next(events) {
        Event::Message(message) => match message.body {
            Body::Text(text) => (message.sequence, text),
            other => panic!("no text: {other:?}"),
        },
        other => panic!("no message: {other:?}"),
    }
}

/// A client that is signed in as user 1, and the server's side of it.
fn signed_in(server: &FakeServer) -> (ChatClient, Receiver<Event>, Peer) {
    let (client, events) = ChatClient::connect(server.address(), quick()).unwrap();
    let login = client.login(user(1), "secret");
    let mut peer = server.accept();
    peer.log_in();
    assert_eq!(login.wait(SOON).unwrap().name, "alice");
    assert_eq!(next(&events), Event::Connected);
    (client, events, peer)
}

#[test]
fn a_user_registers_signs_in_and_talks() {
    let server = FakeServer::start();
    let (client, events) = ChatClient::connect(server.address(), quick()).unwrap();
    let registered = client.register("alice", "secret");
    let mut peer = server.accept();
    let (id, request) = peer.expect::<proto::RegisterRequest>(Id::REGISTER);
    assert_eq!(request.user_name, b"alice"[..]);
    let answer = proto::RegisterResponse {
        error_code: code::SUCCESS,
        user_id: 1,
        ..Default::default()
    };
    peer.answer(id, Id::REGISTER_ANSWER, &answer);
    let me = registered.wait(SOON).unwrap();
    assert_eq!((me, client.user()), (user(1), None));

    let login = client.login(me, "secret");
    peer.log_in();
    assert_eq!(login.wait(SOON).unwrap().friends[0].name, "bob");
    assert_eq!(client.user(), Some(me));

    let message = client.send_to_friend(user(2), "hello");
    let (id, request) = peer.expect::<proto::FriendChatRequest>(Id::FRIEND_CHAT);
    assert_eq!(request.content, "hello");
    assert_eq!(request.sender.unwrap().user_name, b"alice"[..]);
    assert_eq!(request.time.len(), "YYYY-MM-DD HH:MM:SS".len());
    assert_ne!(request.client_message_id, 0);
    peer.answer(id, Id::FRIEND_CHAT_ANSWER, &sent(1));
    assert_eq!(message.wait(SOON).unwrap().sequence, 1);

    peer.push_text(2, "hi");
    assert_eq!(next(&events), Event::Connected);
    assert_eq!(next_text(&events), (2, "hi".to_owned()));
    let (_, ack) = peer.expect::<proto::DeliveryAck>(Id::DELIVERY_ACK);
    assert_eq!(ack.acks[0].sequence, 2);
}

#[test]
fn an_answer_may_arrive_byte_by_byte_and_many_in_one_piece() {
    let server = FakeServer::start();
    let (client, events) = ChatClient::connect(server.address(), quick()).unwrap();
    let login = client.login(user(1), "secret");
    let mut peer = server.accept();
    let (id, _) = peer.expect::<proto::LoginRequest>(Id::LOGIN);
    let answer = frame::to_bytes(&proto::ResponseFrame {
        message_id: Id::LOGIN_ANSWER.0,
        content: login_answer("alice").encode_to_vec().into(),
        request_id: id,
    });
    for byte in answer {
        peer.raw(&[byte]);
    }
    login.wait(SOON).unwrap();
    let mut pushes = BytesMut::new();
    for sequence in 1..=20 {
        let push = proto::ResponseFrame {
            message_id: Id::RECV_FRIEND.0,
            content: common::chat(sequence, "x").encode_to_vec().into(),
            request_id: 0,
        };
        frame::encode(&push, &mut pushes);
    }
    peer.raw(&pushes);
    assert_eq!(next(&events), Event::Connected);
    for sequence in 1..=20 {
        assert_eq!(next_text(&events).0, sequence);
    }
}

#[test]
fn a_lost_connection_is_made_again_with_the_same_user_and_unanswered_messages() {
    let server = FakeServer::start();
    let (client, events, mut peer) = signed_in(&server);
    let message = client.send_to_group(GroupId::new(3).unwrap(), "hello");
    let (_, first) = peer.expect::<proto::GroupChatRequest>(Id::GROUP_CHAT);
    let friends = client.friends();
    peer.expect::<proto::FetchFriendsRequest>(Id::FETCH_FRIENDS);
    drop(peer);
    assert_eq!(friends.wait(SOON), Err(ChatError::Disconnected));

    let mut peer = server.accept();
    peer.resume();
    let (id, again) = peer.expect::<proto::GroupChatRequest>(Id::GROUP_CHAT);
    assert_eq!(again, first);
    let answer = proto::GroupChatResponse {
        error_code: code::SUCCESS,
        sequence: 7,
        ..Default::default()
    };
    peer.answer(id, Id::GROUP_CHAT_ANSWER, &answer);
    assert_eq!(message.wait(SOON).unwrap().sequence, 7);
    assert!(matches!(next(&events), Event::Disconnected { .. }));
    assert_eq!(next(&events), Event::Reconnected { resent: 1 });
}

#[test]
fn a_client_goes_on_at_its_next_address() {
    let (first, second) = (FakeServer::start(), FakeServer::start());
    let options = ClientOptions {
        more_addresses: vec![second.address()],
        ..quick()
    };
    let (client, events) = ChatClient::connect(first.address(), options).unwrap();
    let login = client.login(user(1), "secret");
    let mut peer = first.accept();
    peer.log_in();
    login.wait(SOON).unwrap();
    drop(peer);
    second.accept().resume();
    assert_eq!(next(&events), Event::Connected);
    assert!(matches!(next(&events), Event::Disconnected { .. }));
    assert_eq!(next(&events), Event::Reconnected { resent: 0 });
    // And back again, from one that has gone as from one that has closed.
    first.accept().resume();
}

#[test]
fn a_server_that_accepts_and_is_silent_is_left_for_the_next_address() {
    let (silent, other) = (FakeServer::start(), FakeServer::start());
    let options = ClientOptions {
        more_addresses: vec![other.address()],
        request_timeout: Duration::from_secs(5),
        ..quick()
    };
    let (client, events) = ChatClient::connect(silent.address(), options).unwrap();
    let login = client.login(user(1), "secret");
    let _open = silent.accept();
    assert_eq!(login.wait(SOON), Err(ChatError::Timeout));
    let mut peer = other.accept();
    let login = client.login(user(1), "secret");
    peer.log_in();
    login.wait(SOON).unwrap();

    // So it is with the session of a user who does nothing about it.
    drop(peer);
    let _open_too = silent.accept();
    other.accept().resume();
    let mut last = next(&events);
    while !matches!(last, Event::Reconnected { .. }) {
        last = next(&events);
    }
    assert_eq!(client.user(), Some(user(1)));
}

#[test]
fn garbage_ends_the_connection_and_the_next_one_works() {
    let server = FakeServer::start();
    let (client, events, mut peer) = signed_in(&server);
    peer.raw(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    let mut again = server.accept();
    again.resume();
    assert!(matches!(next(&events), Event::Disconnected { .. }));
    assert_eq!(next(&events), Event::Reconnected { resent: 0 });
    assert_eq!(client.user(), Some(user(1)));
}

#[test]
fn a_gap_is_filled_over_the_wire() {
    let server = FakeServer::start();
    let (_client, events, mut peer) = signed_in(&server);
    peer.push_text(1, "one");
    assert_eq!(next_text(&events).0, 1);
    peer.push_text(3, "three");
    let (id, request) = peer.expect::<proto::FetchHistoryRequest>(Id::FETCH_HISTORY);
    assert_eq!((request.first_sequence, request.count_max), (2, 2));
    let message = |sequence, text: &str| proto::Message {
        message_type: proto::MessageType::FriendChat.into(),
        sender: common::chat(0, "").sender,
        content: text.to_owned(),
        sequence,
        ..Default::default()
    };
    let answer = proto::FetchHistoryResponse {
        error_code: code::SUCCESS,
        messages: vec![message(2, "two"), message(3, "three")],
        last_sequence: 3,
        ..Default::default()
    };
    peer.answer(id, Id::FETCH_HISTORY_ANSWER, &answer);
    assert_eq!(next_text(&events), (2, "two".to_owned()));
    assert_eq!(next_text(&events), (3, "three".to_owned()));
}

#[test]
fn events_that_find_no_room_wait_and_none_is_lost() {
    const COUNT: u64 = 500;
    let server = FakeServer::start();
    let options = ClientOptions {
        events_max: 2,
        ..quick()
    };
    let (client, events) = ChatClient::connect(server.address(), options).unwrap();
    let login = client.login(user(1), "secret");
    let mut peer = server.accept();
    peer.log_in();
    login.wait(SOON).unwrap();
    for sequence in 1..=COUNT {
        peer.push_text(sequence, "x");
    }
    assert_eq!(next(&events), Event::Connected);
    for sequence in 1..=COUNT {
        assert_eq!(next_text(&events).0, sequence);
    }
    loop {
        let (_, ack) = peer.expect::<proto::DeliveryAck>(Id::DELIVERY_ACK);
        assert!(ack.acks[0].sequence <= COUNT);
        if ack.acks[0].sequence == COUNT {
            break;
        }
    }
}

#[test]
fn a_refusal_tells_operation_code_and_words() {
    let server = FakeServer::start();
    let (client, _events, mut peer) = signed_in(&server);
    let history = client.history(Conversation::Friend(user(9)), 1, 10);
    let (id, _) = peer.expect::<proto::FetchHistoryRequest>(Id::FETCH_HISTORY);
    let answer = proto::FetchHistoryResponse {
        error_code: code::INVALID,
        error_text: "no".to_owned(),
        ..Default::default()
    };
    peer.answer(id, Id::FETCH_HISTORY_ANSWER, &answer);
    let error = ChatError::Refused {
        operation: Operation::History,
        code: code::INVALID,
        text: "no".to_owned(),
        reason: None,
    };
    assert_eq!(history.wait(SOON), Err(error));
}

#[test]
fn a_newer_login_signs_out_and_a_new_login_is_possible() {
    let server = FakeServer::start();
    let (client, events, mut peer) = signed_in(&server);
    let reason = "signed in elsewhere".to_owned();
    let notice = proto::SignedOut {
        reason: reason.clone(),
        ..Default::default()
    };
    peer.push(Id::SIGNED_OUT, &notice);
    drop(peer);
    assert_eq!(next(&events), Event::SignedOut { reason });
    assert_eq!(next(&events), Event::Connected);
    assert_eq!(client.user(), None);
    let mut peer = server.accept();
    let login = client.login(user(1), "secret");
    peer.log_in();
    login.wait(SOON).unwrap();
}

#[test]
fn closing_acknowledges_and_ends_the_connection() {
    let server = FakeServer::start();
    let options = ClientOptions {
        // Longer than the test: the close itself acknowledges.
        ack_delay: Duration::from_secs(600),
        ..quick()
    };
    let (client, events) = ChatClient::connect(server.address(), options).unwrap();
    let login = client.login(user(1), "secret");
    let mut peer = server.accept();
    peer.log_in();
    login.wait(SOON).unwrap();
    peer.push_text(1, "x");
    assert_eq!(next(&events), Event::Connected);
    assert_eq!(next_text(&events).0, 1);
    let friends = client.friends();
    peer.expect::<proto::FetchFriendsRequest>(Id::FETCH_FRIENDS);
    let server_side = std::thread::spawn(move || {
        let (_, ack) = peer.expect::<proto::DeliveryAck>(Id::DELIVERY_ACK);
        (ack.acks[0].sequence, peer.next())
    });
    client.close();
    assert_eq!(server_side.join().unwrap(), (1, None));
    assert_eq!(friends.wait(SOON), Err(ChatError::Disconnected));
    assert!(
        events.recv_timeout(SOON).is_err(),
        "an event after the close"
    );
}

#[test]
fn a_server_that_is_not_there_is_told_and_waited_for() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let options = ClientOptions {
        request_timeout: Duration::from_millis(200),
        ..quick()
    };
    let (client, events) = ChatClient::connect(address, options).unwrap();
    let login = client.login(user(1), "secret");
    for failures in 1..=3 {
        match next(&events) {
            Event::Unreachable { failures: told, .. } => assert_eq!(told, failures),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(login.wait(SOON), Err(ChatError::Timeout));
}

#[test]
fn many_clients_share_one_loop_and_tell_callbacks() {
    const CLIENTS: i32 = 300;
    let address = FakeServer::serve(|frame, peer| {
        if frame.message_id == Id::LOGIN.0 {
            peer.answer(frame.request_id, Id::LOGIN_ANSWER, &login_answer("x"));
            peer.push_text(1, "welcome");
        }
    });
    let loops = LoopGroup::start("clients", 1).unwrap();
    let (sender, results) = crossbeam_channel::unbounded();
    let clients: Vec<ChatClient> = (1..=CLIENTS)
        .map(|id| {
            let welcomed = sender.clone();
            let on_event = move |event| {
                if let Event::Message(_) = event {
                    let _ = welcomed.send(id);
                }
            };
            let client =
                ChatClient::connect_with(loops.next(), address, quick(), on_event).unwrap();
            let signed_in = sender.clone();
            client.login(user(id), "x").on_complete(move |login| {
                let _ = signed_in.send(login.unwrap().user.get());
            });
            client
        })
        .collect();
    let mut seen: Vec<i32> = (0..2 * CLIENTS)
        .map(|_| results.recv_timeout(SOON).unwrap())
        .collect();
    seen.sort_unstable();
    assert!(seen.into_iter().eq((1..=CLIENTS).flat_map(|id| [id, id])));
    for client in &clients {
        assert!(client.user().is_some());
    }
}

#[test]
fn options_out_of_range_are_refused() {
    let address = "127.0.0.1:1".parse().unwrap();
    for options in [
        ClientOptions {
            events_max: 0,
            ..quick()
        },
        ClientOptions {
            send_timeout: Duration::MAX,
            ..quick()
        },
        ClientOptions {
            silence_max: Duration::ZERO,
            ..quick()
        },
    ] {
        assert!(ChatClient::connect(address, options).is_err());
    }
}
