//! What ZooKeeper refuses, in words that say what to do, and said once.

use std::fmt;
use std::time::{Duration, Instant};

use nexus_net::Backoff;
use zookeeper::ZkError;

/// The server has answered that it will not do something.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refusal {
    /// What was asked for, as `create /nexus/services`.
    pub(super) operation: String,
    /// The permission that the operation needs, as ZooKeeper names it, and the node it is needed on.
    pub(super) permission: &'static str,
    pub(super) node: String,
    pub(super) error: ZkError,
    /// Whether this client has shown credentials.
    pub(super) authenticated: bool,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            operation,
            permission,
            node,
            error,
            authenticated,
        } = self;
        write!(f, "ZooKeeper refuses to {operation}: ")?;
        match error {
            ZkError::NoAuth => {
                write!(f, "NoAuth, it needs the permission {permission} on {node}; ")?;
                f.write_str(match authenticated {
                    true => "check user and password of the registry's url, or give the permission with setAcl",
                    false => "give the permission with setAcl, or put user:password@ into the registry's url",
                })
            }
            // The zookeeper crate has no name for the codes of newer servers.
            ZkError::Unimplemented => f.write_str(
                "an error code that this client does not know; a quota that is exceeded (see listquota) \
                 and a server that throttles requests have such codes",
            ),
            ZkError::InvalidACL => f.write_str(
                "InvalidACL; the server does not know the authentication scheme digest",
            ),
            ZkError::NotEmpty => write!(
                f,
                "NotEmpty; another program has put nodes below {node}, delete them"
            ),
            ZkError::NoChildrenForEphemerals => write!(
                f,
                "NoChildrenForEphemerals; a node above {node} is ephemeral, choose another root"
            ),
            other => write!(f, "{other:?}"),
        }
    }
}

/// Between two attempts at something that is refused, or that another process holds.
const PAUSES: Backoff = Backoff {
    initial: Duration::from_secs(1),
    max: Duration::from_secs(30),
};

/// Something that does not work until somebody mends it: the log has it once, and not once per attempt, and
/// the attempts become rare.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    said: Option<String>,
    attempts: u32,
}

impl Trouble {
    /// Logs a warning, unless the last one said the same. When to try again.
    pub(super) fn note(&mut self, what: &dyn fmt::Display, now: Instant) -> Instant {
        let what = what.to_string();
        if self.said.as_ref() == Some(&what) {
            log::debug!("{what}");
        } else {
            log::warn!("{what}");
            self.said = Some(what);
        }
        self.attempts = self.attempts.saturating_add(1);
        now + PAUSES.delay(self.attempts, rand::random())
    }

    /// It works. True if it did not before.
    pub(super) fn is_over(&mut self) -> bool {
        std::mem::take(self).said.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_is_missing_where_and_what_to_do() {
        let mut refusal = Refusal {
            operation: "create /a/b".into(),
            permission: "CREATE",
            node: "/a".into(),
            error: ZkError::NoAuth,
            authenticated: true,
        };
        let text = refusal.to_string();
        for part in ["create /a/b", "CREATE on /a", "password", "setAcl"] {
            assert!(text.contains(part), "{text}");
        }
        refusal.authenticated = false;
        assert!(refusal.to_string().contains("user:password@"));
        refusal.error = ZkError::Unimplemented;
        assert!(refusal.to_string().contains("quota"));
    }

    #[test]
    fn trouble_is_said_once_and_tried_ever_more_rarely() {
        let now = Instant::now();
        let mut trouble = Trouble::default();
        assert!(!trouble.is_over());
        let pauses: Vec<_> = (0..20).map(|_| trouble.note(&"a", now) - now).collect();
        assert!(pauses[0] <= PAUSES.initial, "{pauses:?}");
        assert!(pauses[19] >= PAUSES.max / 2 && pauses[19] <= PAUSES.max);
        assert_eq!(trouble.said.as_deref(), Some("a"));
        trouble.note(&"b", now);
        assert_eq!(trouble.said.as_deref(), Some("b"));
        assert!(trouble.is_over());
        assert!(!trouble.is_over());
        assert!(trouble.note(&"b", now) - now <= PAUSES.initial);
    }
}
