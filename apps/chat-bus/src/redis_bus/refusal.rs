//! [`Refusal`]: an error of Redis that is true of other requests as well.
//!
//! Redis answers, and cannot or will not do what the bus needs: to the bus that is as if Redis were away. Whoever runs it
//! has to do something, mostly; [`Refusal::advice`] says what.
//!
//! The codes are those of Redis 5 to 7 and of Valkey (`server.c`, `acl.c`, `cluster.c` of their sources). Before Redis 7 a
//! script reports the refusal of a command in it as `ERR Error running script ...: -CODE ...`.

use std::fmt;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::ServerError;

/// A refusal that was not seen for this long is a new one when it comes again.
const SAME_FOR: Duration = Duration::from_secs(60);
/// A refusal that is older says nothing about now.
const RECENT: Duration = Duration::from_secs(5);

/// What Redis said, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    text: String,
    advice: &'static str,
}

impl Refusal {
    /// `None` for an error of the one request: a key of another type, a fault of a script.
    pub(super) fn of(error: &ServerError) -> Option<Self> {
        let text = server_error(error);
        let code = match error.code() {
            "WRONGTYPE" | "EXECABORT" | "NOSCRIPT" => return None,
            "ERR" => match code_in(&text) {
                Some("WRONGTYPE" | "ERR") => return None,
                Some(code) => code,
                None if text.contains("user_script") => return None,
                None => "ERR",
            },
            code => code,
        };
        let advice = advice(code, &text);
        Some(Self { text, advice })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text, self.advice)
    }
}

/// The refusal that was seen last. Writes each to the log once, however many requests it meets.
#[derive(Debug, Default)]
pub(super) struct LastRefusal(Mutex<Option<(Refusal, Instant)>>);

impl LastRefusal {
    pub(super) fn note(&self, refusal: &Refusal) {
        let now = Instant::now();
        let last = self.0.lock().replace((refusal.clone(), now));
        let is_known = last.is_some_and(|(last, seen)| {
            last.advice == refusal.advice && now.saturating_duration_since(seen) < SAME_FOR
        });
        if !is_known {
            log::warn!("redis refuses: {refusal}");
        }
    }

    /// Why Redis is not asked, if a refusal is the reason: while the circuit is open, its probe is refused at least once
    /// a second.
    pub(super) fn recent(&self) -> Option<Refusal> {
        let last = self.0.lock();
        let (refusal, seen) = last.as_ref()?;
        (seen.elapsed() < RECENT).then(|| refusal.clone())
    }
}

/// An error of the server as text, without the arguments of the command it may repeat: those can
/// be messages or passwords.
pub(super) fn server_error(error: &ServerError) -> String {
    let details = error.details().unwrap_or_default();
    let details = details.split(", with args").next().unwrap_or_default();
    format!("{} {details}", error.code())
}

/// The code of a command in a script, where the script's own is `ERR`.
fn code_in(text: &str) -> Option<&str> {
    if text.contains("ACL failure in script") || text.contains("user executing the script can't") {
        return Some("NOPERM");
    }
    let (_, nested) = text.split_once(": -")?;
    let code = nested.split_whitespace().next()?;
    code.bytes()
        .all(|byte| byte.is_ascii_uppercase())
        .then_some(code)
}

fn advice(code: &str, text: &str) -> &'static str {
    match code {
        "NOAUTH" | "WRONGPASS" => "check user and password in the URL of Redis",
        "NOPERM" => {
            "allow the user all keys and channels with the chat's prefix, and all commands but dangerous ones: \
             ACL SETUSER NAME ~nexus:* &nexus:* +@all -@dangerous"
        }
        "READONLY" | "MASTERDOWN" | "UNBLOCKED" => {
            "the address leads to a replica; it has to lead to the master"
        }
        "LOADING" => "Redis reads its data; nothing is to be done but to wait",
        "OOM" => "raise maxmemory of Redis, or remove what others keep there",
        "MISCONF" => "Redis cannot save to its disk: make room there, and see the log of Redis",
        "NOREPLICAS" => "start its replicas, or lower min-replicas-to-write of Redis",
        "BUSY" => "a script of somebody else takes too long: SCRIPT KILL ends it",
        "DENIED" => {
            "give Redis a password, or set protected-mode no where nobody else can reach it"
        }
        "MOVED" | "ASK" | "CLUSTERDOWN" | "CROSSSLOT" | "TRYAGAIN" => {
            "this is Redis Cluster, on which the chat does not run: use one Redis with replicas"
        }
        _ if text.contains("max number of clients") => {
            "raise maxclients of Redis, or end other connections"
        }
        _ if ["AUTH", "password", "unauthenticated"]
            .iter()
            .any(|word| text.contains(word)) =>
        {
            "check user and password in the URL of Redis"
        }
        _ if text.contains("DB index") => "choose a database that Redis has, in its URL",
        _ if text.contains("unknown command") => {
            "the chat needs this command; see rename-command in the configuration of Redis"
        }
        _ => "see the log of Redis",
    }
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::*;

    fn refusal(line: &str) -> Option<Refusal> {
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).expect("a reply");
        let Value::ServerError(error) = value else {
            panic!("{value:?}")
        };
        Refusal::of(&error)
    }

    #[test]
    fn what_is_true_of_every_request_is_a_refusal_with_advice() {
        for (line, word) in [
            ("ERR max number of clients reached", "maxclients"),
            ("NOAUTH Authentication required.", "password"),
            (
                "WRONGPASS invalid username-password pair or user is disabled.",
                "password",
            ),
            ("ERR invalid password", "password"),
            (
                "ERR Protocol error: unauthenticated multibulk length",
                "user and password",
            ),
            ("ERR Client sent AUTH, but no password is set", "password"),
            (
                "NOPERM this user has no permissions to run the 'eval' command",
                "ACL SETUSER",
            ),
            (
                "READONLY You can't write against a read only replica.",
                "master",
            ),
            (
                "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
                "master",
            ),
            ("LOADING Redis is loading the dataset in memory", "wait"),
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                "maxmemory",
            ),
            (
                "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to",
                "room",
            ),
            (
                "NOREPLICAS Not enough good replicas to write.",
                "min-replicas",
            ),
            (
                "DENIED Redis is running in protected mode",
                "protected-mode",
            ),
            ("MOVED 3999 127.0.0.1:6381", "Cluster"),
            (
                "CROSSSLOT Keys in request don't hash to the same slot",
                "Cluster",
            ),
            ("ERR DB index is out of range", "database"),
            (
                "ERR unknown command 'EVAL', with args beginning with: ",
                "rename-command",
            ),
            ("UPSTREAM is away", "log of Redis"),
            // In scripts: of version 7, and of those before.
            (
                "ERR ACL failure in script: User default has no permissions to run the 'set' command script: 1f, on @user_script:1.",
                "ACL SETUSER",
            ),
            (
                "ERR Error running script (call to f_1f): @user_script:1: @user_script: 1: -READONLY You can't write against a read only replica.",
                "master",
            ),
            (
                "ERR Error running script (call to f_1f): @user_script:1: @user_script: 1: -OOM command not allowed when used memory > 'maxmemory'.",
                "maxmemory",
            ),
            (
                "ERR Error running script (call to f_1f): @user_script:1: @user_script: 1: The user executing the script can't run this command or subcommand",
                "ACL SETUSER",
            ),
        ] {
            let text = refusal(line).expect(line).to_string();
            assert!(text.contains(word), "{text}");
        }
    }

    #[test]
    fn what_is_true_of_one_request_is_none() {
        for line in [
            "WRONGTYPE Operation against a key holding the wrong kind of value",
            "ERR user_script:3: attempt to compare nil with number script: 1f, on @user_script:3.",
            "ERR Error running script (call to f_1f): @user_script:2: @user_script: 2: -WRONGTYPE Operation against a key",
        ] {
            assert_eq!(refusal(line), None, "{line}");
        }
    }

    #[test]
    fn arguments_are_not_repeated() {
        let refusal = refusal("ERR unknown command 'AUTH', with args beginning with: 'sesame'");
        let text = refusal.expect("a refusal").to_string();
        assert!(!text.contains("sesame"), "{text}");
    }
}
