//! Hurts a chat while it is used, and watches what becomes of it: is anything acknowledged lost, is anything
//! shown twice, and how long until service is whole again?
//!
//! ```sh
//! cargo xtask chaos --minutes 10
//! cargo xtask chaos --minutes 2 --seed 7 --fault kill-redis
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`fault`] | what can be done to a chat |
//! | [`plan`] | which faults come in which order, from a seed |
//! | [`trial`] | a cluster under load that suffers them |
//! | [`absence`] | a user who vanishes, as a friend sees it |
//! | [`disk`] | a standalone chat whose disk fills up |
//! | `watch` | how far behind the chat is, sampled |
//! | [`outcome`] | what a fault did, as a line and as a table |
//!
//! **Whole** is a chat in which every conversation has had a message that was due after a given moment, and
//! that message, and all before it, are acknowledged and have reached everybody in order. So each verdict
//! covers everything that was sent until then. Clients send again what has no answer, with the same id, and
//! connect again when they hear nothing; they never ask for what is missing: that is the chat's task.
//!
//! A seed fixes the order, the calm before and the length of the faults. What the machine does meanwhile it
//! does not fix.

#![forbid(unsafe_code)]

pub mod absence;
pub mod disk;
pub mod fault;
pub mod outcome;
pub mod plan;
pub mod trial;
mod watch;

pub use absence::Absence;
pub use fault::{Fault, Part};
pub use outcome::{Outcome, Summary};
pub use plan::{Form, Plan, Step};
pub use trial::{Trial, TrialOptions};

/// A chat cannot be started or hurt. (What becomes of it then is no error but an [`Outcome`].)
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program does not start, or does not come back.
    #[error(transparent)]
    Program(#[from] nexus_testkit::Error),
    /// The users cannot be made.
    #[error(transparent)]
    Users(#[from] chat_load::setup::SetupError),
    /// The load cannot be started.
    #[error(transparent)]
    Load(#[from] chat_load::LoadError),
    /// A client cannot be started, or its TLS cannot be set up.
    #[error(transparent)]
    Net(#[from] nexus_net::Error),
    /// The system refuses something.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The run was ended before the first fault.
    #[error("ended before anything was done to the chat")]
    Interrupted,
    /// The chat does not work although nothing was done to it.
    #[error("the chat does not work before it is hurt: {0}")]
    Start(&'static str),
}
