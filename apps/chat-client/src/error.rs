//! Why a request failed.

use std::fmt;

use chat_proto::messages::Reason;

use crate::words::{self, Language};

/// What was asked of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Making an account.
    Register,
    /// Signing in with the user id.
    Login,
    /// Signing in with the name.
    LoginByName,
    /// Going on with a session.
    Resume,
    /// Signing out.
    Logout,
    /// Making a friend.
    AddFriend,
    /// Ending a friendship.
    DeleteFriend,
    /// Sending a message to a friend.
    FriendChat,
    /// Making a group.
    CreateGroup,
    /// Joining a group.
    JoinGroup,
    /// Leaving a group.
    LeaveGroup,
    /// Deleting a group.
    DeleteGroup,
    /// Sending a message to a group.
    GroupChat,
    /// Listing friends.
    Friends,
    /// Listing groups.
    Groups,
    /// Listing the members of a group.
    Members,
    /// Reading a conversation's history.
    History,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(words::operation(*self, Language::English))
    }
}

/// Why a request failed. Its `Display` is a sentence for people, as is
/// [`explain`](Self::explain) in their language.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// The server refused.
    #[error("{}", self.explain(Language::English))]
    Refused {
        /// What was asked.
        operation: Operation,
        /// Its code, of [`chat_proto::ids::code`]: below 100 each operation has its own.
        code: i32,
        /// The server's words, if any.
        text: String,
        /// The rule that was broken, where the code leaves that open and the server says it.
        reason: Option<Reason>,
    },
    /// No answer in time. Whether the server did it is not known.
    #[error("{}", self.explain(Language::English))]
    Timeout,
    /// The connection was lost, or the client closed, before the answer came. Whether the server
    /// did it is not known.
    #[error("{}", self.explain(Language::English))]
    Disconnected,
    /// The user was signed out before the answer came.
    #[error("{}", self.explain(Language::English))]
    SignedOut {
        /// What the server said.
        reason: String,
    },
    /// Too many requests have no answer yet
    /// ([`ClientOptions::calls_max`](crate::ClientOptions::calls_max)). This one was not made.
    #[error("{}", self.explain(Language::English))]
    Busy,
    /// The server's answer makes no sense.
    #[error("{}", self.explain(Language::English))]
    Protocol(String),
}

impl ChatError {
    /// The error in a sentence.
    pub fn explain(&self, language: Language) -> String {
        words::explain(self, language)
    }
}
