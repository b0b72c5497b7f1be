//! The store's tests through its public API.
//!
//! `suite` is the contract, which `sqlite` and `mariadb` run on theirs; `faults` takes MariaDB
//! away, `answers` makes it refuse, `settings` sets it up otherwise, `tls` encrypts the way to it, `migrations` is about the schema, and `batcher` is about the message writer.

mod answers;
mod batcher;
mod database;
mod faults;
mod large;
mod mariadb;
mod memberships;
mod migrations;
mod settings;
mod sqlite;
mod suite;
mod tls;
