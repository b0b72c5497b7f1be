//! Users, friends, groups and messages on MySQL, MariaDB or SQLite.
//!
//! # Layout
//!
//! - [`Store`]: the trait behind which the databases stand; [`MySqlStore`] and [`SqliteStore`] are
//!   the two. `sql/` has the rules that both share.
//! - [`MessageWriter`]: the write path of messages, which commits many of them at once.
//!
//! Ids are those of `chat_proto::conversation`.
//!
//! # The data
//!
//! Whatever a user can receive is a message in a conversation: a pair of friends or a group. Each
//! conversation numbers its messages from 1 without gaps; the number is given out in the transaction
//! that stores the message. A user has a cursor in each conversation, up to which everything was
//! acknowledged; messages of others after it are pending. `schema.sql` at the top of the repository
//! tells the rest.

mod batcher;
mod error;
mod mysql;
mod sql;
mod sqlite;
mod store;
mod terms;
mod types;

pub use chat_proto::conversation::{ConversationId, GroupId, Parties, UserId};

pub use batcher::{MessageWriter, OnDone, QueueFull, Shutdown, WriterOptions};
pub use error::StoreError;
pub use mysql::{MySqlError, MySqlOptions, MySqlStore, MySqlTls};
pub use sqlite::SqliteStore;
pub use store::Store;
pub use terms::{Login, Terms};
pub use types::*;
