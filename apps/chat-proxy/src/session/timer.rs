//! The timers of a connection.

use crate::directory::SessionId;

/// What a connection's timers are for; their tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timer {
    /// The client may have been silent for too long.
    Silence,
    /// The client has had its time to log in.
    LogIn,
    /// A frame has had its time to become complete.
    Frame,
    /// A gap has had its time, or a failed fetch its pause.
    Gap(SessionId),
    /// The login is to look for what it may have missed.
    Resync(SessionId),
}

impl Timer {
    pub(super) fn token(self) -> u64 {
        match self {
            // No session has the number 0, or that of the last token.
            Self::Silence => 0,
            Self::LogIn => 1,
            Self::Frame => u64::MAX,
            Self::Gap(session) => session.0 << 1,
            Self::Resync(session) => (session.0 << 1) | 1,
        }
    }

    pub(super) fn of(token: u64) -> Self {
        let session = SessionId(token >> 1);
        match token {
            0 => Self::Silence,
            1 => Self::LogIn,
            u64::MAX => Self::Frame,
            token if token & 1 == 0 => Self::Gap(session),
            _ => Self::Resync(session),
        }
    }
}
