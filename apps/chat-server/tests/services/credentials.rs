//! Names and passwords: what they may be, and how often they may be tried.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chat_bus::Rate;
use chat_proto::ids::code;
use chat_proto::messages::*;
use chat_store::UserId;

use super::{Node, setting};

const HOUR: Duration = Duration::from_secs(3600);
const MADE_UP: Bytes = Bytes::from_static(&[0; 32]);

fn code_of(reply: LoginReply) -> i32 {
    reply.response.unwrap().error_code
}

#[test]
fn who_guesses_passwords_is_stopped_and_locks_nobody_out() {
    let setting = setting(|options| {
        let rate = Rate::literal(3, HOUR);
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
fn a_name_that_nobody_has_is_refused_as_a_wrong_password_is() {
    let setting = setting(|options| {
        options.clients.failed_logins_per_address_and_user = Rate::literal(3, HOUR);
        options.clients.failed_logins_per_address = Rate::literal(10, HOUR);
    });
    let user = setting.register("ann");
    let (stranger, owner) = ("192.0.2.1", "198.51.100.1");
    let answer = |from: &str, name: &str| {
        let reply = setting.node.login_by_name(from, name, "guess");
        assert!(reply.not_begun, "{reply:?}");
        let response = reply.response.unwrap();
        (response.error_code, response.error_text)
    };
    for _ in 0..3 {
        let of_ann = answer(stranger, "ann");
        assert_eq!(of_ann.0, code::LOGIN_WRONG_PASSWORD);
        assert_eq!(answer(stranger, "nobody"), of_ann);
    }
    // Neither name is tried any more from there.
    for name in ["ann", "nobody"] {
        assert_eq!(answer(stranger, name).0, code::RATE_LIMITED, "{name}");
    }
    let others = (1..=10).map(|n| answer(stranger, &format!("nobody {n}")).0);
    let refused: Vec<_> = others.filter(|&code| code == code::RATE_LIMITED).collect();
    assert_eq!(refused.len(), 10 - 4, "six of ten had failed before");
    let reply = setting.node.login_by_name(owner, "ann", "secret");
    assert_eq!(code_of(reply), code::SUCCESS);
    assert_eq!(setting.session_of(user), Some(1));
}

#[test]
fn a_user_from_before_names_had_one_form_gets_in_by_the_name_as_it_was() {
    let setting = setting(|_| {});
    let hash = |name: &str| {
        let user = UserId::new(setting.register(name)).unwrap();
        setting.store.user(user).unwrap().unwrap().password_hash
    };
    let old = "ame\u{301}lie \u{200d}";
    setting.store.create_user(old, &hash("other")).unwrap();
    let reply = setting.node.login_by_name("192.0.2.1", old, "secret");
    let response = reply.response.unwrap();
    assert_eq!(response.error_code, code::SUCCESS);
    assert_eq!(response.user.unwrap().user_name, old.as_bytes());
}

#[test]
fn made_up_tokens_use_up_what_may_fail_from_an_address() {
    let setting = setting(|options| {
        options.clients.failed_logins_per_address = Rate::literal(5, HOUR);
        options.clients.failed_logins_per_address_and_user = Rate::literal(2, HOUR);
    });
    let (ann, bob) = (setting.register("ann"), setting.register("bob"));
    let (shared, elsewhere) = ("192.0.2.1", "198.51.100.1");
    let resume = |from, user, token: &Bytes| code_of(setting.node.resume(from, user, token));
    let login = |from, user, password| code_of(setting.node.login(from, user, password));
    let token_of = |from, user| {
        let reply = setting.node.login(from, user, "secret");
        reply.response.unwrap().session_token
    };
    let (of_ann, of_bob) = (token_of(elsewhere, ann), token_of(shared, bob));
    // Right ones cost nothing.
    for _ in 0..10 {
        assert_eq!(resume(shared, bob, &of_bob), code::SUCCESS);
    }
    for _ in 0..4 {
        assert_eq!(resume(shared, ann, &MADE_UP), code::SESSION_ENDED);
    }
    assert_eq!(login(shared, ann, "guess"), code::LOGIN_WRONG_PASSWORD);
    // Nothing is looked at now, right or wrong ...
    for token in [&MADE_UP, &of_ann] {
        assert_eq!(resume(shared, ann, token), code::RATE_LIMITED);
    }
    assert_eq!(login(shared, bob, "secret"), code::RATE_LIMITED);
    // ... but of a user who has come from there lately, unless wrong tokens came in that user's name.
    for _ in 0..10 {
        assert_eq!(resume(shared, bob, &of_bob), code::SUCCESS);
    }
    for _ in 0..2 {
        assert_eq!(resume(shared, bob, &MADE_UP), code::SESSION_ENDED);
    }
    assert_eq!(resume(shared, bob, &of_bob), code::RATE_LIMITED);
    for (user, token) in [(ann, &of_ann), (bob, &of_bob)] {
        assert_eq!(resume(elsewhere, user, token), code::SUCCESS);
    }
}

#[test]
fn registrations_beyond_the_limit_are_refused() {
    let setting = setting(|options| {
        let rate = Rate::literal(2, HOUR);
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
}

#[test]
fn a_registration_that_is_refused_names_the_rule() {
    let setting = setting(|_| {});
    let broken = |rule: Rule, value| Some((rule.into(), value));
    let (long, very_long) = ("x".repeat(51), "x".repeat(1025));
    for (name, password, code, reason) in [
        (" \t ", "secret", code::REGISTER_EMPTY, None),
        ("someone", "", code::REGISTER_EMPTY, None),
        (
            "a\u{202e}b",
            "secret",
            code::INVALID,
            broken(Rule::NameCharacter, 0x202e),
        ),
        (
            "a\0b",
            "secret",
            code::INVALID,
            broken(Rule::NameCharacter, 0),
        ),
        (
            &long,
            "secret",
            code::TOO_LARGE,
            broken(Rule::NameTooLong, 50),
        ),
        (
            &very_long,
            "secret",
            code::TOO_LARGE,
            broken(Rule::NameTooLong, 50),
        ),
        (
            "someone",
            "short",
            code::INVALID,
            broken(Rule::PasswordTooShort, 6),
        ),
        // Six as they are typed, five as they are kept.
        (
            "someone",
            "shor\u{65}\u{301}",
            code::INVALID,
            broken(Rule::PasswordTooShort, 6),
        ),
        (
            "someone",
            "with\0zero",
            code::INVALID,
            broken(Rule::PasswordCharacter, 0),
        ),
        (
            "someone",
            "with\u{9b}csi",
            code::INVALID,
            broken(Rule::PasswordCharacter, 0x9b),
        ),
        (
            "someone",
            &very_long,
            code::TOO_LARGE,
            broken(Rule::PasswordTooLong, 1024),
        ),
    ] {
        let answer = setting.node.register(name, password);
        assert_eq!(answer.error_code, code, "{name:?} {password:?}");
        assert!(!answer.error_text.is_empty());
        let found = answer.reason.map(|reason| (reason.rule, reason.value));
        assert_eq!(found, reason, "{name:?} {password:?}");
    }
    // What no rule forbids: emoji, joined and not, and letters of every age.
    for (name, password) in [("a", "👩\u{200d}🚀❤\u{fe0f}🤔!"), ("b", "𞤀𞤁𞤂𞤃𞤄𞤅")]
    {
        let answer = setting.node.register(name, password);
        assert_eq!(answer.error_code, code::SUCCESS, "{}", answer.error_text);
        let login = setting.node.login("192.0.2.1", answer.user_id, password);
        assert_eq!(code_of(login), code::SUCCESS);
    }
}

#[test]
fn a_login_that_comes_too_often_is_told_how_long_to_wait() {
    let setting = setting(|options| {
        options.clients.failed_logins_per_address_and_user = Rate::literal(1, HOUR);
    });
    let user = setting.register("a");
    let login = || {
        setting
            .node
            .login("192.0.2.1", user, "guess")
            .response
            .unwrap()
    };
    assert_eq!(login().reason, None);
    let reason = login().reason.expect("a reason");
    assert_eq!(reason.rule, i32::from(Rule::TooOften));
    assert!((3590..=3601).contains(&reason.value), "{reason:?}");
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
    let reply = setting.node.resume(home, user, &MADE_UP);
    assert!(reply.not_begun, "{reply:?}");
    assert_eq!(code_of(reply), code::SESSION_ENDED);
}
