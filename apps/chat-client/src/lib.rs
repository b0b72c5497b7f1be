//! A client of the chat, for programs and tests. The terminal program stands on it.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use chat_client::{ChatClient, ClientOptions, Event};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! const PATIENCE: Duration = Duration::from_secs(10);
//! let (client, events) = ChatClient::connect("127.0.0.1:8000".parse()?, ClientOptions::default())?;
//! client.register("alice", "secret").wait(PATIENCE)?;
//! let login = client.login("alice", "secret").wait(PATIENCE)?;
//! for friend in &login.friends {
//!     client.send_to_friend(friend.user, "hello").wait(PATIENCE)?;
//! }
//! for event in events {
//!     if let Event::Message(message) = event {
//!         println!("{}: {:?}", message.sender, message.body);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! | module | owns |
//! |---|---|
//! | `client` | [`ChatClient`], what applications call |
//! | `state` | sessions, requests, the order of messages: everything without a socket |
//! | `driver` | the socket: joins `state` to nexus-net |
//! | `pending` | [`Pending`]: an answer that is still to come |
//! | `model` | [`Message`], [`Event`], people and groups |
//! | `token` | [`SessionToken`]: what a user comes back with |
//! | `error`, `words` | [`ChatError`], and the same in sentences |
//! | [`time`] | times as texts |
//!
//! # What a client sees to
//!
//! - A connection that was lost is made again, with growing delays, to the next address if there are
//!   several. The session goes on there: by its token and without the password, from what the client
//!   has of each conversation. Sends without an answer are sent again, in their order and under the ids
//!   they had; so are those that the server cannot take at the moment. Other requests that were under way fail with [`ChatError::Disconnected`].
//! - Where the session has ended meanwhile (expired, or a login elsewhere), [`Event::SignedOut`] says
//!   that the user has to log in again.
//! - A message is shown once, in its conversation's order, whether it waited, was pushed or had to
//!   be fetched, and acknowledged once it was handed to the application.
//! - The password is forgotten once the login was answered. The token is kept in memory and printed nowhere; who
//!   wants to come back in another process stores it ([`SessionToken::to_text`]).
//! - Everything that can grow is limited: see [`ClientOptions`].

mod client;
mod driver;
mod error;
mod model;
mod options;
mod pending;
mod state;
pub mod time;
mod token;
mod words;

pub use chat_proto::conversation::{GroupId, UserId};

pub use crate::client::ChatClient;
pub use crate::error::{ChatError, Operation};
pub use crate::model::{
    Body, Conversation, Event, Friend, Group, HistoryPage, LoginSnapshot, Member, Message,
    Presence, Role, Sent, Status, Who,
};
pub use crate::options::ClientOptions;
pub use crate::pending::Pending;
pub use crate::token::{NotAToken, SessionToken};
pub use crate::words::Language;
