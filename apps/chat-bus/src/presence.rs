//! The ids and answers of presence.
//!
//! Knows how an id is written (in keys, logs and entries), not where it is stored.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// One run of one proxy process.
///
/// Random per start, so that a restarted proxy is never mistaken for its predecessor. Written as
/// 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProxyId(u64);

impl ProxyId {
    /// A new id, for a proxy that starts.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// The id that [`as_u64`](Self::as_u64) gave.
    pub const fn from_u64(id: u64) -> Self {
        Self(id)
    }

    /// The id as a number, for a protocol field.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ProxyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for ProxyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProxyId({self})")
    }
}

/// One client connection of one proxy. Written as `proxy:session`, the session in decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionRef {
    /// The proxy that holds the connection.
    pub proxy: ProxyId,
    /// The connection's number, never used twice by one [`ProxyId`].
    pub session: u64,
}

impl fmt::Display for SessionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.proxy, self.session)
    }
}

impl FromStr for SessionRef {
    type Err = MalformedSession;

    fn from_str(text: &str) -> Result<Self, MalformedSession> {
        let (proxy, session) = text.split_once(':').ok_or(MalformedSession)?;
        Ok(Self {
            proxy: ProxyId(u64::from_str_radix(proxy, 16).map_err(|_| MalformedSession)?),
            session: session.parse().map_err(|_| MalformedSession)?,
        })
    }
}

/// The text is not a [`SessionRef`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not of the form proxy:session")]
pub struct MalformedSession;

/// Who stays when a user logs in who is logged in already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginPolicy {
    /// The new session; the old one is named in [`Claim::Granted`] and should be closed.
    NewerWins,
    /// The old session; the new one is refused.
    OlderWins,
}

/// Which login of its user a session is of: a later login has a higher number, and a session that is resumed
/// keeps its own or has a higher one.
pub type LoginNumber = u64;

/// Of a login whose number is not known: it is neither older nor newer than others.
pub const NO_NUMBER: LoginNumber = 0;

/// Which of a client's attempts to resume its session a claim is for, as the client counts them. Attempts of different
/// runs, and those of clients that do not count, are not compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attempt {
    /// Who counts: random for each run of a client, 0 for one that does not.
    pub run: u64,
    /// Counts up.
    pub number: u64,
}

impl Attempt {
    /// Whether the client has made `other` after this one; `None` if they cannot be compared.
    pub(crate) fn is_before(&self, other: &Self) -> Option<bool> {
        (self.run != 0 && self.run == other.run).then_some(self.number < other.number)
    }
}

/// What puts a claim before or after others of its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClaimOrder {
    /// Of which login.
    pub login: LoginNumber,
    /// Which of the client's attempts.
    pub attempt: Attempt,
    /// How long what the client asked for has waited on its way until now; zero if that is not known to be long.
    pub waited: Duration,
}

impl From<LoginNumber> for ClaimOrder {
    /// The claim of a login that has not waited, of a client that does not count.
    fn from(login: LoginNumber) -> Self {
        Self {
            login,
            ..Self::default()
        }
    }
}

/// The answer to [`Bus::claim`](crate::Bus::claim).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The user now belongs to the session that asked.
    Granted {
        /// The live session that was replaced, if there was another one, and before it those that lost the user in
        /// the last minutes: who replaced them may not have learned of it. Most of them know already.
        replaced: Vec<SessionRef>,
    },
    /// Another live session keeps the user.
    Refused,
    /// The user has logged in later.
    Outdated {
        /// That login.
        latest: LoginNumber,
    },
    /// The claim comes too late: the session itself was released before or has lost the user, or the client has made a
    /// later attempt.
    Over,
}

/// The fact, for [`Bus::remembers`](crate::Bus::remembers), that a session was released: as long as a claim of it may be
/// under way.
pub fn over_fact(session: SessionRef) -> String {
    format!("over:{session}")
}

/// A session that its proxy holds, for [`Bus::restore`](crate::Bus::restore).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldSession {
    /// Whose.
    pub user: i32,
    /// Which one.
    pub session: u64,
    /// Of which login.
    pub login: LoginNumber,
}

/// The answer to [`Bus::restore`](crate::Bus::restore).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restored {
    /// Users whom another live session has, which is not known to be of an older login.
    pub taken: Vec<i32>,
    /// Users who have logged in later.
    pub outdated: Vec<i32>,
    /// Of the other users, the sessions that lost them: see [`Claim::Granted`].
    pub replaced: Vec<(i32, SessionRef)>,
}

/// The answer to [`Bus::renew_lease`](crate::Bus::renew_lease).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// The lease was there as it was left, and is prolonged.
    Kept,
    /// There was no lease, or that of an older state of the backend; there is one now. The proxy's sessions must be
    /// compared and restored.
    New,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_reads_back_as_it_was_written() {
        for (proxy, session) in [(0, 0), (1, 2), (u64::MAX, u64::MAX)] {
            let written = SessionRef {
                proxy: ProxyId::from_u64(proxy),
                session,
            };
            assert_eq!(written.to_string().parse(), Ok(written));
        }
    }

    #[test]
    fn text_that_is_no_session_is_refused() {
        for text in [
            "",
            ":",
            "1",
            "1:",
            ":1",
            "x:1",
            "1:x",
            "1:-1",
            "11111111111111111:1",
        ] {
            assert_eq!(
                text.parse::<SessionRef>(),
                Err(MalformedSession),
                "{text:?}"
            );
        }
    }

    #[test]
    fn two_starts_have_two_ids() {
        assert_ne!(ProxyId::random(), ProxyId::random());
    }
}
