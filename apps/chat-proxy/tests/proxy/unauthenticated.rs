//! What connections on which nobody has logged in may hold, each and together.

use bytes::Bytes;
use chat_proto::ids::{MessageId, code};
use chat_proto::messages::*;

use super::Setting;
use crate::client::{Client, chat, login_request, request};
use crate::fake::token;

/// A registration whose frame, its length left out, has so many bytes.
fn registration(bytes: usize) -> Vec<u8> {
    let of_name = |length| {
        let content = RegisterRequest {
            user_name: Bytes::from(vec![b'a'; length]),
            ..Default::default()
        };
        request(MessageId::REGISTER, 1, &content)
    };
    let name = (1..bytes).rev().map(of_name);
    let mut frames = name.skip_while(|frame| frame.len() > bytes + 4);
    frames.next().expect("a frame that short")
}

fn long_resume(user_id: i32, conversations: i32) -> Vec<u8> {
    let received = (1..=conversations).map(|friend_id| ConversationAck {
        conversation: Some(Conversation {
            friend_id,
            group_id: 0,
        }),
        sequence: 1,
    });
    let content = ResumeRequest {
        user_id,
        session_token: token(user_id),
        acknowledges: false,
        received: received.collect(),
        ..Default::default()
    };
    request(MessageId::RESUME, 2, &content)
}

/// Sends the beginning of a frame, and returns when it has been read.
fn begin(client: &mut Client, frame: &[u8], bytes: usize) {
    // In one piece with what is answered.
    let mut both = request(MessageId::HEARTBEAT, 7, &Heartbeat { token: 7 });
    both.extend_from_slice(&frame[..bytes]);
    client.send_raw(&both);
    let _: Heartbeat = client.expect(MessageId::HEARTBEAT_ANSWER);
}

#[track_caller]
fn expect_refused(client: &mut Client, code: i32) {
    let notice: ErrorNotice = client.expect(MessageId::ERROR);
    assert_eq!(notice.error_code, code, "{}", notice.error_text);
    client.expect_closed();
}

#[test]
fn before_the_login_frames_are_short_however_they_come() {
    let setting = Setting::new();
    let short = registration(4096);
    let long = registration(4097);
    for cut in [4, 5, 6, 2000, short.len()] {
        let mut client = setting.connect();
        begin(&mut client, &short, cut);
        client.send_raw(&short[cut..]);
        let answer: RegisterResponse = client.expect(MessageId::REGISTER_ANSWER);
        assert_eq!(answer.error_code, code::SUCCESS);

        let mut client = setting.connect();
        client.send_raw(&long[..cut]);
        let _ = client.try_send_raw(&long[cut..]);
        expect_refused(&mut client, code::TOO_LARGE);
    }
    let long = "x".repeat(5000);
    let mut client = setting.logged_in(1);
    client.chat(3, 1, 2, &long);
    assert_eq!(client.receive().request_id, 3);
}

#[test]
fn a_resume_may_name_thousands_of_conversations() {
    let setting = Setting::new();
    let frame = long_resume(1, 10_000);
    assert!(frame.len() > 70_000);
    for cut in [5, 6, 60_000] {
        let mut client = setting.connect();
        client.send_raw(&frame[..cut]);
        client.send_raw(&frame[cut..]);
        let answer: LoginResponse = client.expect(MessageId::RESUME_ANSWER);
        assert_eq!(answer.error_code, code::SUCCESS);
    }
}

#[test]
fn what_all_of_them_hold_has_a_limit_that_keeps_out_no_login_that_comes_whole() {
    let setting = Setting::with(|options| options.unauthenticated_bytes_max = 7000);
    let frame = registration(4000);
    let mut held = [setting.connect(), setting.connect()];
    for client in &mut held {
        begin(client, &frame, 3000);
    }
    let mut third = setting.connect();
    third.send_raw(&frame[..3000]);
    expect_refused(&mut third, code::UNAVAILABLE);
    setting.logged_in(1).expect_silence();
    // Those who hold something are served, and hold nothing then.
    for client in &mut held {
        client.send_raw(&frame[3000..]);
        let answer: RegisterResponse = client.expect(MessageId::REGISTER_ANSWER);
        assert_eq!(answer.error_code, code::SUCCESS);
    }
    for _ in 0..2 {
        let mut client = setting.connect();
        begin(&mut client, &frame, 3000);
        drop(client);
    }
    super::wait_until("there is room again", || {
        let mut clients = [setting.connect(), setting.connect()];
        clients.iter_mut().all(|client| {
            begin(client, &frame, 3000);
            let _ = client.try_send_raw(&frame[3000..]);
            let answer = client.try_receive();
            answer.is_some_and(|frame| frame.message_id != MessageId::ERROR.0)
        })
    });
}

#[test]
fn long_frames_leave_half_of_it_to_others() {
    let setting = Setting::with(|options| options.unauthenticated_bytes_max = 40_000);
    let resume = long_resume(1, 10_000);
    let mut first = setting.connect();
    begin(&mut first, &resume, 19_000);
    let mut second = setting.connect();
    second.send_raw(&resume[..6000]);
    expect_refused(&mut second, code::UNAVAILABLE);
    let frame = registration(4000);
    let mut others: Vec<Client> = (0..5).map(|_| setting.connect()).collect();
    for client in &mut others {
        begin(client, &frame, 3900);
    }
    for client in &mut others {
        client.send_raw(&frame[3900..]);
        let answer: RegisterResponse = client.expect(MessageId::REGISTER_ANSWER);
        assert_eq!(answer.error_code, code::SUCCESS);
    }
}

#[test]
fn long_resumes_that_are_being_answered_count() {
    let setting = Setting::with(|options| options.unauthenticated_bytes_max = 1_500_000);
    setting.fake.script(|state| state.hold_logins = true);
    let mut first = setting.connect();
    first.send_raw(&long_resume(1, 10_000));
    setting
        .fake
        .wait("the resume", |state| !state.calls.is_empty());
    let mut second = setting.connect();
    second.send_raw(&long_resume(2, 10_000));
    let answer: LoginResponse = second.expect(MessageId::RESUME_ANSWER);
    assert_eq!(answer.error_code, code::UNAVAILABLE);
    setting.fake.script(|state| state.hold_logins = false);
    let answer: LoginResponse = first.expect(MessageId::RESUME_ANSWER);
    assert_eq!(answer.error_code, code::SUCCESS);
    second.send_raw(&long_resume(2, 10_000));
    let answer: LoginResponse = second.expect(MessageId::RESUME_ANSWER);
    assert_eq!(answer.error_code, code::SUCCESS);
}

#[test]
fn a_long_frame_sent_ahead_of_the_login_s_answer_is_taken_after_it() {
    let setting = Setting::new();
    setting.fake.script(|state| state.hold_logins = true);
    let mut client = setting.connect();
    let frame = request(MessageId::FRIEND_CHAT, 6, &chat(1, 2, &"x".repeat(60_000)));
    let mut bytes = request(MessageId::LOGIN, 5, &login_request(1, false));
    bytes.extend_from_slice(&frame[..30_000]);
    client.send_raw(&bytes);
    setting
        .fake
        .wait("the login", |state| !state.calls.is_empty());
    client.send_raw(&frame[30_000..]);
    setting.fake.script(|state| state.hold_logins = false);
    assert_eq!(client.receive().request_id, 5);
    let answer: FriendChatResponse = client.expect(MessageId::FRIEND_CHAT_ANSWER);
    assert_eq!(answer.error_code, code::SUCCESS);
}

#[test]
fn who_takes_no_answers_is_closed() {
    let setting = Setting::new();
    let mut client = setting.connect();
    let unknown = request(MessageId(9999), 1, &Heartbeat::default()).repeat(1000);
    while client.try_send_raw(&unknown) {}
    while client.try_receive().is_some() {}
}
