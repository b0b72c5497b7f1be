//! The chat's rules in SQL, written once for both databases.
//!
//! ```text
//! Store (trait)  <-  every Backend, through the functions of this folder
//!                      |- MySqlStore    ../mysql    connections, retries, errors
//!                      `- SqliteStore   ../sqlite
//! ```
//!
//! A backend runs a piece of work in a transaction and hands it a [`Session`] to talk to the
//! database with; where the two dialects of SQL differ, [`Dialect`] says the words.
//!
//! Locks are taken in one order: rows of `conversation` by ascending id, then rows of
//! `conversation_cursor` by user and conversation. Whatever changes a conversation or who belongs
//! to it locks the row of the conversation first. So there are no deadlocks among these functions,
//! and what they read after that lock cannot change until they commit.

mod append;
mod backend;
mod conversations;
mod dialect;
mod friends;
mod groups;
mod lists;
pub(crate) mod memberships;
pub(crate) mod migrations;
mod on_terms;
mod pending;
mod row;
mod session;
mod tokens;
mod users;

pub(crate) use backend::{Backend, Retry, now_ms};
pub(crate) use dialect::Dialect;
pub(crate) use memberships::{Generation, Memberships};
pub(crate) use row::{Cell, Row};
pub(crate) use session::{Executed, STATEMENT_BYTES_MAX, Session, Value};
