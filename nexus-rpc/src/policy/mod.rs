//! What a channel decides, without doing it: no socket, no thread, no clock and no source of
//! randomness is in here. Time and random numbers are arguments, so every decision can be tested.
//!
//! | module | decides |
//! |---|---|
//! | [`balance`] | which member of a service gets the next call |
//! | [`backup`] | when a call that has no answer yet is sent a second time |
//! | [`breaker`] | when a failing endpoint is isolated, and how long |
//! | [`budget`] | how many retries and backup requests the calls pay for |
//! | [`machine`] | what an endpoint does next: connect, probe, wait |
//! | [`mix`] | nothing: the numbers that hashing and jitter are made of |
//!
//! The delay before a retry is [`nexus_net::Backoff`]'s, like the one before a new connection.

pub(crate) mod backup;
pub(crate) mod balance;
pub(crate) mod breaker;
pub(crate) mod budget;
pub(crate) mod machine;
pub(crate) mod mix;

pub use backup::BackupAfter;
pub use balance::{LoadBalancing, ZonePreference};
pub use breaker::{BreakerOptions, FailureWindow, SlowCalls};
pub use budget::BudgetOptions;
