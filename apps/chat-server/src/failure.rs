//! Why an operation was not done, as its answer says it.

use std::borrow::Cow;

use chat_bus::BusError;
use chat_proto::ids::code;
use chat_proto::messages::{Reason, Rule};
use chat_store::StoreError;

use crate::log_limit::LogLimit;
use crate::password::PasswordError;

static STORE_IS_AWAY: LogLimit = LogLimit::new();
static BUS_IS_AWAY: LogLimit = LogLimit::once_a_minute();

/// An error code of the client protocol, and a text for people.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    code: i32,
    text: Cow<'static, str>,
    reason: Option<Reason>,
}

impl Failure {
    pub(crate) fn new(code: i32, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            text: text.into(),
            reason: None,
        }
    }

    /// Names the rule that was broken, so that a client can say it in the user's language.
    pub(crate) fn because(mut self, rule: Rule, value: u64) -> Self {
        let rule = rule.into();
        self.reason = Some(Reason { rule, value });
        self
    }

    /// The rule that was broken, for the answers that have a field for it.
    pub(crate) fn reason(&self) -> Option<Reason> {
        self.reason
    }

    /// A fault of this system; the details are for the log only.
    pub(crate) fn internal(error: impl std::fmt::Display) -> Self {
        log::error!("{error}");
        Self::new(code::INTERNAL, "a fault of the system")
    }

    /// Where doing it twice is no harm: then it may be tried again, whether it was done or not.
    pub(crate) fn repeatable(self) -> Self {
        match self.code {
            code::UNCERTAIN => Self::new(code::UNAVAILABLE, "try again"),
            _ => self,
        }
    }

    /// Whether it has this code.
    pub(crate) fn is(&self, code: i32) -> bool {
        self.code == code
    }

    /// Code and text for the answer. Faults of the system are noted in the log with the operation.
    pub(crate) fn into_parts(self, operation: &str) -> (i32, String) {
        if self.code == code::UNAVAILABLE {
            log::debug!("{operation}: unavailable: {}", self.text);
        }
        (self.code, self.text.into_owned())
    }

    /// What passes by itself is "unavailable"; any other failure of the store has the operation's own code.
    pub(crate) fn store(error: StoreError, store_failed: i32) -> Self {
        match error {
            StoreError::Internal(_) => {
                log::error!("{error}");
                Self::new(store_failed, "the store failed")
            }
            other => other.into(),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) | StoreError::Conflict(_) => {
                if STORE_IS_AWAY.allows() {
                    log::warn!("{error}");
                }
                Self::new(
                    code::UNAVAILABLE,
                    "the store is not available, try again later",
                )
            }
            StoreError::Uncertain(_) => {
                log::warn!("{error}");
                Self::new(code::UNCERTAIN, "it is not known whether it was stored")
            }
            StoreError::TooLate => Self::new(code::UNAVAILABLE, "it took too long, try again"),
            StoreError::Displaced => {
                Self::new(code::NOT_LOGGED_IN, "you have logged in somewhere else")
            }
            StoreError::TooLong { .. } => Self::new(code::TOO_LARGE, error.to_string()),
            other => Self::internal(other),
        }
    }
}

/// Notes in the log that the bus failed.
pub(crate) fn note_bus(error: &BusError) {
    if BUS_IS_AWAY.allows() {
        log::warn!("{error}");
    }
}

impl From<BusError> for Failure {
    fn from(error: BusError) -> Self {
        note_bus(&error);
        Self::new(
            code::UNAVAILABLE,
            "presence is not available, try again later",
        )
    }
}

impl From<PasswordError> for Failure {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Busy => Self::new(
                code::UNAVAILABLE,
                "too many people log in right now, try again",
            ),
            error => Self::internal(error),
        }
    }
}
