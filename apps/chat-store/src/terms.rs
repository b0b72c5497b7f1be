//! On what terms a change is made: until when, and by which login.

use std::time::Instant;

use crate::UserId;

/// The terms of a change. One that does not meet them is not made. Default: none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Terms {
    /// The latest time at which the commit may begin: later, the caller has given up and was told so.
    pub deadline: Option<Instant>,
    /// Who asks. Once the user has a later login, this one changes nothing.
    pub login: Option<Login>,
}

/// One of a user's logins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Login {
    /// Whose.
    pub user: UserId,
    /// Its number, as [`Store::begin_login`](crate::Store::begin_login) gave it.
    pub number: u64,
}

impl Terms {
    pub(crate) fn is_late(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| deadline <= Instant::now())
    }
}
