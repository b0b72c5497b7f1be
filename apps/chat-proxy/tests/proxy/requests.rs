//! Who may ask for what, and what is answered when it cannot be had.

use chat_proto::ids::{MessageId, code};
use chat_proto::messages::*;
use prost::Message as _;

use super::{Setting, provide, wait_until};
use crate::client::{Client, chat};

/// Every request of a user: its id, its answer's id, and the request as made by user 1.
fn user_requests() -> Vec<(MessageId, MessageId, Vec<u8>)> {
    let user_id = 1;
    let group_chat = GroupChatRequest {
        sender: chat(user_id, 2, "").sender,
        receiver: Some(Receiver {
            group_id: 5,
            ..Default::default()
        }),
        ..Default::default()
    };
    macro_rules! of_user {
        ($request:ident) => {
            $request {
                user_id,
                ..Default::default()
            }
            .encode_to_vec()
        };
    }
    use MessageId as Id;
    vec![
        (
            Id::ADD_FRIEND,
            Id::ADD_FRIEND_ANSWER,
            of_user!(AddFriendRequest),
        ),
        (
            Id::DELETE_FRIEND,
            Id::DELETE_FRIEND_ANSWER,
            of_user!(DeleteFriendRequest),
        ),
        (
            Id::CREATE_GROUP,
            Id::CREATE_GROUP_ANSWER,
            of_user!(CreateGroupRequest),
        ),
        (
            Id::DELETE_GROUP,
            Id::DELETE_GROUP_ANSWER,
            of_user!(DeleteGroupRequest),
        ),
        (
            Id::ADD_GROUP,
            Id::ADD_GROUP_ANSWER,
            of_user!(AddGroupRequest),
        ),
        (
            Id::QUIT_GROUP,
            Id::QUIT_GROUP_ANSWER,
            of_user!(QuitGroupRequest),
        ),
        (
            Id::FRIEND_CHAT,
            Id::FRIEND_CHAT_ANSWER,
            chat(user_id, 2, "hello").encode_to_vec(),
        ),
        (
            Id::GROUP_CHAT,
            Id::GROUP_CHAT_ANSWER,
            group_chat.encode_to_vec(),
        ),
        (
            Id::FETCH_FRIENDS,
            Id::FETCH_FRIENDS_ANSWER,
            FetchFriendsRequest {
                user_id,
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        (
            Id::FETCH_GROUPS,
            Id::FETCH_GROUPS_ANSWER,
            FetchGroupsRequest {
                user_id,
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        (
            Id::FETCH_HISTORY,
            Id::FETCH_HISTORY_ANSWER,
            of_user!(FetchHistoryRequest),
        ),
        (
            Id::LOGOUT,
            Id::LOGOUT_ANSWER,
            LogoutRequest {
                user_id,
                ..Default::default()
            }
            .encode_to_vec(),
        ),
    ]
}

/// Sends a request and returns the answer's code; checks ids, and that a refusal says why.
fn ask(client: &mut Client, id: MessageId, answer_id: MessageId, content: &[u8]) -> i32 {
    let frame = RequestFrame {
        message_id: id.0,
        content: content.to_vec().into(),
        request_id: 8,
    };
    client.send_raw(&chat_proto::frame::to_bytes(&frame));
    let frame = client.receive();
    assert_eq!((frame.message_id, frame.request_id), (answer_id.0, 8));
    // All answers have their code in field 1.
    LogoutResponse::decode(frame.content).map_or(0, |answer| answer.error_code)
}

#[test]
fn requests_before_login_are_refused_in_their_own_answer() {
    let setting = Setting::new();
    let mut client = setting.connect();
    for (id, answer_id, content) in user_requests() {
        let answer = ask(&mut client, id, answer_id, &content);
        assert_eq!(answer, code::NOT_LOGGED_IN, "{id:?}");
    }
    client.send(MessageId::DELIVERY_ACK, 0, &DeliveryAck::default());
    let notice: ErrorNotice = client.expect(MessageId::ERROR);
    assert_eq!(notice.error_code, code::NOT_LOGGED_IN);
    assert!(setting.fake.script(|state| state.calls.is_empty()));
}

#[test]
fn a_users_requests_are_forwarded_with_who_asks() {
    let setting = Setting::new();
    let mut client = setting.logged_in(1);
    for (id, answer_id, content) in user_requests() {
        assert_eq!(
            ask(&mut client, id, answer_id, &content),
            code::SUCCESS,
            "{id:?}"
        );
    }
    let calls = setting
        .fake
        .script(|state| std::mem::take(&mut state.calls));
    assert_eq!(calls.len(), 1 + user_requests().len());
    let proxy = setting.proxy.id().as_u64();
    let session = calls[0].session;
    assert!(session.is_some());
    for call in calls {
        let user = (call.name != "login").then_some(1);
        assert_eq!(call.user, user, "{call:?}");
        assert_eq!((call.proxy, call.session), (Some(proxy), session));
    }
}

#[test]
fn a_request_for_somebody_else_is_refused_and_not_forwarded() {
    let setting = Setting::new();
    let mut client = setting.logged_in(9);
    for (id, answer_id, content) in user_requests() {
        let answer = ask(&mut client, id, answer_id, &content);
        assert_eq!(answer, code::NOT_YOURSELF, "{id:?}");
    }
    // A sender that is missing is nobody.
    for (id, answer_id) in [
        (MessageId::FRIEND_CHAT, MessageId::FRIEND_CHAT_ANSWER),
        (MessageId::GROUP_CHAT, MessageId::GROUP_CHAT_ANSWER),
    ] {
        assert_eq!(ask(&mut client, id, answer_id, &[]), code::NOT_YOURSELF);
    }
    // The session itself may ask what it has missed, when the bus is connected only after the login.
    let forwarded: Vec<&str> = setting.fake.script(|state| {
        let names = state.calls.iter().map(|call| call.name);
        names.filter(|&name| name != "fetch_pending").collect()
    });
    assert_eq!(forwarded, ["login"]);
}

#[test]
fn content_that_cannot_be_read_is_refused_in_the_operations_own_answer() {
    let setting = Setting::new();
    let mut client = setting.logged_in(1);
    let bad = [0xff; 3];
    for (id, answer_id, _) in user_requests() {
        assert_eq!(
            ask(&mut client, id, answer_id, &bad),
            code::INVALID,
            "{id:?}"
        );
    }
    let mut client = setting.connect();
    for (id, answer_id) in [
        (MessageId::REGISTER, MessageId::REGISTER_ANSWER),
        (MessageId::LOGIN, MessageId::LOGIN_ANSWER),
        (MessageId::HEARTBEAT, MessageId::ERROR),
    ] {
        assert_eq!(
            ask(&mut client, id, answer_id, &bad),
            code::INVALID,
            "{id:?}"
        );
    }
}

#[test]
fn registering_needs_no_login_and_may_be_repeated() {
    let setting = Setting::new();
    let mut client = setting.connect();
    let request = RegisterRequest {
        user_name: "ann".into(),
        user_password: "secret".into(),
    };
    let (id, answer_id) = (MessageId::REGISTER, MessageId::REGISTER_ANSWER);
    for _ in 0..2 {
        let answer: RegisterResponse = client.ask(id, &request, answer_id);
        assert_eq!((answer.error_code, answer.user_id), (code::SUCCESS, 1000));
    }
    let empty: RegisterResponse = client.ask(id, &RegisterRequest::default(), answer_id);
    assert_eq!(empty.error_code, code::REGISTER_EMPTY);
}

#[test]
fn a_login_that_failed_may_be_repeated_and_one_that_succeeded_may_not() {
    let setting = Setting::new();
    let mut client = setting.connect();
    let wrong = LoginRequest {
        user_id: 1,
        ..Default::default()
    };
    let (id, answer_id) = (MessageId::LOGIN, MessageId::LOGIN_ANSWER);
    let answer: LoginResponse = client.ask(id, &wrong, answer_id);
    assert_eq!(answer.error_code, code::LOGIN_WRONG_PASSWORD);
    assert_eq!(client.log_in(1, false).error_code, code::SUCCESS);
    assert_eq!(client.log_in(1, false).error_code, code::ALREADY_LOGGED_IN);
    assert_eq!(client.log_in(2, false).error_code, code::ALREADY_LOGGED_IN);
    assert_eq!(setting.proxy.sessions(), 1);
}

#[test]
fn requests_beyond_the_limit_are_refused_until_others_are_answered() {
    let setting = Setting::with(|options| options.requests_in_flight_per_session_max = 3);
    let mut client = setting.logged_in(1);
    setting.fake.script(|state| state.hold_chats = true);
    for id in 1..=4 {
        client.chat(id, 1, 2, "hello");
    }
    let frame = client.receive();
    let refused = FriendChatResponse::decode(frame.content).expect("an answer");
    assert_eq!(
        (frame.request_id, refused.error_code),
        (4, code::RATE_LIMITED)
    );
    // Neither counts: the one is answered here, the other is not a request of a user.
    client.expect_silence();
    setting
        .fake
        .wait("one is held", |state| state.held.len() == 1);
    setting.fake.release_chats();
    for id in 1..=3 {
        assert_eq!(client.receive().request_id, id);
    }
    client.chat(5, 1, 2, "hello");
    let answer: FriendChatResponse = client.expect(MessageId::FRIEND_CHAT_ANSWER);
    assert_eq!(answer.error_code, code::SUCCESS);
}

#[test]
fn sends_of_one_conversation_go_one_by_one_and_of_several_side_by_side() {
    let setting = Setting::new();
    let mut client = setting.logged_in(1);
    setting.fake.script(|state| state.hold_chats = true);
    for (id, to) in [(1, 2), (2, 2), (3, 2), (4, 3), (5, 4)] {
        client.chat(id, 1, to, &id.to_string());
    }
    setting
        .fake
        .wait("one of each conversation", |state| state.held.len() == 3);
    client.expect_silence();
    let held = |state: &mut crate::fake::State| {
        let mut held: Vec<_> = state.held.iter().map(|(r, _)| r.content.clone()).collect();
        held.sort();
        held
    };
    assert_eq!(setting.fake.script(held), ["1", "4", "5"]);
    setting.fake.release_chats();
    let mut answers: Vec<(u64, u64)> = (0..5)
        .map(|_| {
            let frame = client.receive();
            let answer = FriendChatResponse::decode(frame.content).expect("an answer");
            (frame.request_id, answer.sequence)
        })
        .collect();
    answers.sort_unstable();
    assert_eq!(answers, [(1, 1), (2, 2), (3, 3), (4, 1), (5, 1)]);
}

#[test]
fn a_fault_of_a_service_is_internal() {
    let setting = Setting::new();
    let mut client = setting.logged_in(1);
    setting.fake.script(|state| state.fail_chats = true);
    let answer: FriendChatResponse = client.ask(
        MessageId::FRIEND_CHAT,
        &chat(1, 2, "hello"),
        MessageId::FRIEND_CHAT_ANSWER,
    );
    assert_eq!(answer.error_code, code::INTERNAL);
    client.expect_silence();
}

#[test]
fn while_no_server_is_there_requests_are_unavailable_and_then_go_on() {
    let mut setting = Setting::new();
    let mut client = setting.logged_in(1);
    let mut other = setting.connect();
    setting.provider.drain(std::time::Duration::ZERO);
    wait_until("the proxy notices", || !setting.proxy.is_ready());
    for (id, answer_id, content) in user_requests() {
        if id != MessageId::LOGOUT {
            let answer = ask(&mut client, id, answer_id, &content);
            assert_eq!(answer, code::UNAVAILABLE, "{id:?}");
        }
    }
    assert_eq!(other.log_in(2, false).error_code, code::UNAVAILABLE);
    setting.provider = provide(&setting.fake, &setting.registry, &setting.loops);
    wait_until("the proxy notices", || setting.proxy.is_ready());
    assert_eq!(other.log_in(2, false).error_code, code::SUCCESS);
    let (id, answer_id) = (MessageId::FRIEND_CHAT, MessageId::FRIEND_CHAT_ANSWER);
    let answer: FriendChatResponse = client.ask(id, &chat(1, 2, "hello"), answer_id);
    assert_eq!(answer.error_code, code::SUCCESS);
    assert_eq!(other.expect_push(), 1);
}

#[test]
fn a_message_that_is_recognised_goes_to_a_second_server_when_the_first_does_not_answer() {
    let setting = Setting::new();
    let _second = provide(&setting.fake, &setting.registry, &setting.loops);
    let mut client = setting.logged_in(1);
    setting.fake.script(|state| state.hold_chats = true);
    // The one without an id would be stored twice; it is the older, and would be repeated first.
    let recognised = FriendChatRequest {
        client_message_id: 7,
        ..chat(1, 3, "hello")
    };
    client.send(MessageId::FRIEND_CHAT, 1, &chat(1, 2, "hello"));
    client.send(MessageId::FRIEND_CHAT, 2, &recognised);
    setting
        .fake
        .wait("both servers have it", |state| state.held.len() > 2);
    let ids = setting.fake.script(|state| {
        let held = state.held.iter();
        held.map(|(request, _)| request.client_message_id)
            .collect::<Vec<_>>()
    });
    assert_eq!(ids, [0, 7, 7]);
    setting.fake.release_chats();
    for _ in 0..2 {
        let answer: FriendChatResponse = client.expect(MessageId::FRIEND_CHAT_ANSWER);
        assert_eq!(answer.error_code, code::SUCCESS);
    }
    client.expect_silence();
}
