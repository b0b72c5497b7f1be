//! Names and passwords: what they may be, and how often they may be tried.

use std::time::Duration;

use bytes::Bytes;
use chat_bus::Rate;
use chat_proto::ids::{code, metadata};
use chat_proto::messages::*;

use super::{Setting, of, setting};

/// A login as a proxy passes it on for a client at an address.
fn login_from(setting: &Setting, address: &str, user_id: i32, password: &str) -> i32 {
    let request = LoginRequest {
        user_id,
        user_password: Bytes::copy_from_slice(password.as_bytes()),
        ..Default::default()
    };
    let address = address.parse().unwrap();
    let options = of(user_id, 1).with_metadata(metadata::ADDRESS, address);
    let reply = setting.users().login_with(&request, options).wait();
    reply.unwrap().message.response.unwrap().error_code
}

fn registered(setting: &Setting, name: &[u8], password: &[u8]) -> RegisterResponse {
    let request = RegisterRequest {
        user_name: Bytes::copy_from_slice(name),
        user_password: Bytes::copy_from_slice(password),
    };
    setting.users().register(&request).wait().unwrap().message
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
            login_from(&setting, stranger, user, "guess"),
            code::LOGIN_WRONG_PASSWORD
        );
    }
    // Not even the right one is looked at now.
    assert_eq!(
        login_from(&setting, stranger, user, "secret"),
        code::RATE_LIMITED
    );
    for _ in 0..10 {
        assert_eq!(login_from(&setting, owner, user, "secret"), code::SUCCESS);
    }
    assert_eq!(
        login_from(&setting, stranger, user + 1, "guess"),
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
    let empty = registered(&setting, b"", b"secret");
    assert_eq!(empty.error_code, code::REGISTER_EMPTY);
    setting.register("a");
    setting.register("b");
    let refused = registered(&setting, b"c", b"secret");
    assert_eq!(refused.error_code, code::RATE_LIMITED);
    assert!(refused.error_text.contains("try again"), "{refused:?}");
}

#[test]
fn names_and_passwords_are_kept_in_one_form() {
    let setting = setting(|_| {});
    let user = registered(
        &setting,
        "  ame\u{301}lie ".as_bytes(),
        "se\u{301}cret".as_bytes(),
    );
    assert_eq!(user.error_code, code::SUCCESS, "{}", user.error_text);
    for taken in ["am\u{e9}lie", "ame\u{301}lie"] {
        let answer = registered(&setting, taken.as_bytes(), b"secret");
        assert_eq!(answer.error_code, code::REGISTER_NAME_TAKEN, "{taken:?}");
    }
    for typed in ["s\u{e9}cret", "se\u{301}cret"] {
        let code = login_from(&setting, "192.0.2.1", user.user_id, typed);
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
        let answer = registered(&setting, name.as_bytes(), password.as_bytes());
        assert_eq!(answer.error_code, expected, "{name:?} {password:?}");
    }
}
