//! Names and passwords: what they may be, and how often they may be tried.

use std::sync::Arc;
use std::time::Duration;

use chat_bus::Rate;
use chat_proto::ids::code;
use chat_proto::messages::*;

use super::{Node, setting};

fn code_of(reply: LoginReply) -> i32 {
    reply.response.unwrap().error_code
}

#[test]
fn who_guesses_passwords_is_stopped_and_locks_nobody_out() {
    let setting = setting(|options| {
        let rate = Rate::literal(3, Duration::from_secs(3600));
        options.clients.failed_logins_per_address_and_user = rate;
    });
    let user = setting.register("a");
    let (stranger, owner) = ("192.0.2.1", "198.51.100.1");
    for _ in 0..3 {
        assert_eq!(
            code_of(setting.node.login(stranger, user, "guess")),
            code::LOGIN_WRONG_PASSWORD
        );
    }
    // Not even the right one is looked at now.
    assert_eq!(
        code_of(setting.node.login(stranger, user, "secret")),
        code::RATE_LIMITED
    );
    for _ in 0..10 {
        assert_eq!(
            code_of(setting.node.login(owner, user, "secret")),
            code::SUCCESS
        );
    }
    assert_eq!(
        code_of(setting.node.login(stranger, user + 1, "guess")),
        code::LOGIN_NO_USER
    );
}

#[test]
fn registrations_beyond_the_limit_are_refused() {
    let setting = setting(|options| {
        let rate = Rate::literal(2, Duration::from_secs(3600));
        options.clients.registrations_per_address = rate;
    });
    // What is refused as it is costs nothing.
    let empty = setting.node.register("", "secret");
    assert_eq!(empty.error_code, code::REGISTER_EMPTY);
    setting.register("a");
    setting.register("b");
    let refused = setting.node.register("c", "secret");
    assert_eq!(refused.error_code, code::RATE_LIMITED);
    assert!(refused.error_text.contains("try again"), "{refused:?}");
}

#[test]
fn names_and_passwords_are_kept_in_one_form() {
    let setting = setting(|_| {});
    let user = setting.node.register("  ame\u{301}lie ", "se\u{301}cret");
    assert_eq!(user.error_code, code::SUCCESS, "{}", user.error_text);
    for taken in ["am\u{e9}lie", "ame\u{301}lie"] {
        let answer = setting.node.register(taken, "secret");
        assert_eq!(answer.error_code, code::REGISTER_NAME_TAKEN, "{taken:?}");
    }
    for typed in ["s\u{e9}cret", "se\u{301}cret"] {
        let code = code_of(setting.node.login("192.0.2.1", user.user_id, typed));
        assert_eq!(code, code::SUCCESS, "{typed:?}");
    }
    let long = "x".repeat(51);
    for (name, password, expected) in [
        ("a\u{202e}b", "secret", code::INVALID),
        ("a\0b", "secret", code::INVALID),
        (" \t ", "secret", code::REGISTER_EMPTY),
        (&long, "secret", code::TOO_LARGE),
        ("someone", "short", code::INVALID),
        ("someone", "with\0zero", code::INVALID),
    ] {
        let answer = setting.node.register(name, password);
        assert_eq!(answer.error_code, expected, "{name:?} {password:?}");
    }
}

#[test]
fn a_login_that_was_refused_for_what_it_showed_was_certainly_not_begun() {
    let setting = setting(|_| {});
    let user = setting.register("a");
    let bus = Arc::new(setting.bus.clone());
    // At this one everybody finds too many before them.
    let busy = Node::start(&setting.store, bus, |options| {
        options.clients.password_hashes_at_once = 0;
        options.clients.password_hashes_waiting_max = 0;
    });
    let home = "198.51.100.1";
    for (node, password, code, not_begun) in [
        (&busy, "secret", code::UNAVAILABLE, true),
        (&setting.node, "guess", code::LOGIN_WRONG_PASSWORD, true),
        (&setting.node, "secret", code::SUCCESS, false),
    ] {
        assert_eq!(setting.session_of(user), None);
        let reply = node.login(home, user, password);
        assert_eq!(reply.not_begun, not_begun, "{reply:?}");
        assert_eq!(code_of(reply), code);
    }
    assert_eq!(setting.session_of(user), Some(1));
    let request = ResumeRequest {
        user_id: user,
        session_token: vec![0; 32].into(),
        ..Default::default()
    };
    let call = setting.users().resume_with(&request, super::at(home, user));
    let reply = call.wait().unwrap().message;
    assert!(reply.not_begun, "{reply:?}");
    assert_eq!(code_of(reply), code::SESSION_ENDED);
}
