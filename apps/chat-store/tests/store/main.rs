//! The store's tests through its public API.
//!
//! `suite` is the contract, which `sqlite` and `mariadb` run on theirs; `faults` takes MariaDB
//! away, and `batcher` is about the message writer.

mod batcher;
mod faults;
mod mariadb;
mod sqlite;
mod suite;
