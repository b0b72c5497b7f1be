//! Load for a chat, with a checker: does what was acknowledged arrive, once, in order and intact, and how
//! fast?
//!
//! The program `chat-load` starts a cluster (or uses one that is there), makes users, and has them talk; it
//! exits with 1 when a promise was broken. Programs and tests that hurt a chat while it works use the
//! library: [`Load`] runs in their own process and says at any time what has come through.
//!
//! | module | holds |
//! |---|---|
//! | [`roster`] | users, pairs and groups |
//! | [`setup`] | making them: in the store, or over the protocol |
//! | [`envelope`] | what a message says about itself |
//! | [`checker`] | what must hold, sans-IO |
//! | [`engine`] | the users on their connections |
//! | [`options`], [`tally`], [`report`] | how a load runs, what is counted, what it says at the end |
//! | [`processes`] | a load over several processes |
//! | [`parts`] | CPU time and memory of a cluster's parts |
//!
//! Clients of the load do what a client has to: they acknowledge, connect again with a growing pause,
//! send again what has no answer (with the same client message id), and recognise what they have.
//!
//! ```no_run
//! use std::time::Duration;
//! use chat_load::{Load, LoadOptions, Pace, Shape, setup};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let address = "127.0.0.1:8000".parse()?;
//! let roster = setup::register(&[address], Shape { pairs: 4, ..Shape::default() })?;
//! let pace = Pace::Open { pairs_per_s: 100.0, groups_per_s: 0.0 };
//! let load = Load::start(LoadOptions::new(vec![address], pace), &roster)?;
//! assert!(load.wait_entered(Duration::from_secs(30)));
//! load.begin(Duration::ZERO);
//! // Here the chat is hurt.
//! load.end_sending();
//! assert!(load.drain(Duration::from_secs(90)));
//! assert!(load.verdict().is_clean());
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

pub mod checker;
pub mod engine;
pub mod envelope;
pub mod options;
pub mod parts;
pub mod processes;
pub mod report;
pub mod roster;
pub mod setup;
pub mod tally;

pub use checker::Verdict;
pub use engine::{Load, LoadError, Progress};
pub use options::{LoadOptions, Pace, Senders};
pub use report::Report;
pub use roster::{Roster, Shape};
pub use tally::Timeline;
