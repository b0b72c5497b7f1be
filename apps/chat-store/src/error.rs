//! What can go wrong in a store.

/// Why a store could not do what it was asked. What a user did wrong is no error but an outcome of
/// the operation.
///
/// Never contains names, message texts or passwords.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database does not answer, refuses, or all connections to it are busy; asking again
    /// later makes sense. Nothing was changed.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// The database did not say whether it has committed: the change was made, or was not, or will be made in a moment.
    #[error("it is not known whether the database has committed: {0}")]
    Uncertain(String),
    /// The deadline of the change's [`Terms`](crate::Terms) has passed. Nothing was changed.
    #[error("too late: nobody waits for it any more")]
    TooLate,
    /// The user has a later login than that of the change's [`Terms`](crate::Terms). Nothing was changed.
    #[error("the user has logged in again since")]
    Displaced,
    /// Others kept getting in the way, more often than is retried; asking again later makes sense. Nothing was
    /// changed.
    #[error("too many conflicting changes: {0}")]
    Conflict(String),
    /// A text is longer than the column that keeps it. Nothing was changed.
    #[error("{field} is longer than {bytes_max} bytes")]
    TooLong {
        /// What is too long.
        field: &'static str,
        /// The longest that is taken, in bytes of UTF-8.
        bytes_max: usize,
    },
    /// A newer program has changed the schema; this one must not touch it.
    #[error(
        "the database's schema has version {found}, and this program knows versions up to {known} \
         only: run a newer program"
    )]
    NewerSchema {
        /// The version of the database.
        found: u32,
        /// The highest version that this program knows.
        known: u32,
    },
    /// The database answered what cannot be: a wrong schema, damaged data, a fault in this crate.
    #[error("the store failed: {0}")]
    Internal(String),
}

impl StoreError {
    /// Whether the database is away, so that trying again later is the remedy.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Uncertain(_))
    }
}

/// What one attempt of an operation can end with, before it is decided whether it is retried.
#[derive(Debug)]
pub(crate) enum DbError {
    /// The connection is gone, or its server serves no more; nothing was committed on it.
    Lost(String),
    /// The database is away or too slow, and nothing was committed.
    Unavailable(String),
    /// Whether something was committed is not known.
    Uncertain(String),
    /// As [`StoreError::TooLate`].
    TooLate,
    /// As [`StoreError::Displaced`].
    Displaced,
    /// The deadline of some of a batch's messages passed while it was written: once more without them.
    Shrunk,
    /// Deadlock or lock wait timeout: rolled back.
    Conflict(String),
    /// A unique key was taken by somebody just now: rolled back.
    KeyTaken(String),
    /// Somebody or a time limit of the database ended a statement: rolled back.
    Interrupted(String),
    /// The schema is of a newer program.
    NewerSchema { found: u32, known: u32 },
    /// A change of the schema that was made already.
    AlreadyMade(String),
    /// Retrying cannot help.
    Internal(String),
}

impl DbError {
    /// What the database returned makes no sense.
    pub(crate) fn unexpected(what: &str) -> Self {
        Self::Internal(format!("unexpected {what} in the database"))
    }

    /// The same, saying where it happened.
    pub(crate) fn in_context(self, place: &str) -> Self {
        let add = |reason: String| format!("{place}: {reason}");
        match self {
            Self::Lost(reason) => Self::Lost(add(reason)),
            Self::Unavailable(reason) => Self::Unavailable(add(reason)),
            Self::Uncertain(reason) => Self::Uncertain(add(reason)),
            Self::Conflict(reason) => Self::Conflict(add(reason)),
            Self::KeyTaken(reason) => Self::KeyTaken(add(reason)),
            Self::Interrupted(reason) => Self::Interrupted(add(reason)),
            Self::AlreadyMade(reason) => Self::AlreadyMade(add(reason)),
            Self::Internal(reason) => Self::Internal(add(reason)),
            same @ (Self::NewerSchema { .. } | Self::TooLate | Self::Displaced | Self::Shrunk) => {
                same
            }
        }
    }
}

impl From<DbError> for StoreError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Lost(reason) | DbError::Unavailable(reason) | DbError::Interrupted(reason) => {
                Self::Unavailable(reason)
            }
            DbError::Uncertain(reason) => Self::Uncertain(reason),
            DbError::TooLate | DbError::Shrunk => Self::TooLate,
            DbError::Displaced => Self::Displaced,
            DbError::Conflict(reason) => Self::Conflict(reason),
            DbError::NewerSchema { found, known } => Self::NewerSchema { found, known },
            // A key that is taken each time is not somebody's who was quicker.
            DbError::KeyTaken(reason)
            | DbError::AlreadyMade(reason)
            | DbError::Internal(reason) => Self::Internal(reason),
        }
    }
}
