//! What a failure of the driver means for the operation.

use std::{error::Error as _, io};

use mysql::{DriverError, Error};

use crate::error::DbError;

/// Of a statement before the commit, so nothing has happened.
pub(super) fn classify(error: Error) -> DbError {
    let reason = error.to_string();
    match &error {
        Error::IoError(io) => classify_io(io, reason),
        Error::CodecError(codec) => {
            match codec
                .source()
                .and_then(|source| source.downcast_ref::<io::Error>())
            {
                Some(io) => classify_io(io, reason),
                None => DbError::Unavailable(reason),
            }
        }
        Error::MySqlError(server) => classify_server(server.code, reason),
        Error::DriverError(
            DriverError::PacketOutOfSync | DriverError::UnexpectedPacket | DriverError::Timeout,
        ) => DbError::Unavailable(reason),
        _ => DbError::Internal(reason),
    }
}

/// Of a COMMIT. Only a clear refusal says that nothing was committed.
pub(super) fn classify_commit(error: Error) -> DbError {
    match classify(error) {
        DbError::Lost(reason)
        | DbError::Unavailable(reason)
        | DbError::Uncertain(reason)
        | DbError::AlreadyMade(reason)
        | DbError::Internal(reason) => DbError::Uncertain(reason),
        refused => refused,
    }
}

/// A timeout is not worth a second connection: the database would let that one wait as well.
fn classify_io(error: &io::Error, reason: String) -> DbError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            DbError::Unavailable(format!("no answer in time: {reason}"))
        }
        _ => DbError::Lost(reason),
    }
}

/// By the numbers of MySQL and MariaDB.
fn classify_server(code: u16, reason: String) -> DbError {
    match code {
        // Unique key, lock wait timeout, deadlock, and MariaDB's "record has changed since last
        // read", which it can raise under snapshots.
        1062 | 1205 | 1213 | 1020 => DbError::Conflict(reason),
        // Shutting down, connection killed, closed for inactivity, prepared statement forgotten.
        1053 | 1077 | 1078 | 1079 | 1927 | 4031 | 1243 | 1615 => DbError::Lost(reason),
        // Too many connections, too many of this user, too much of something for this user, query
        // interrupted, read only, too many statements prepared, disk full.
        1040 | 1203 | 1226 | 1317 | 1290 | 1836 | 1461 | 1021 | 1114 => {
            DbError::Unavailable(reason)
        }
        // A table, a column, an index is there already; a column or an index is gone already.
        1050 | 1060 | 1061 | 1091 => DbError::AlreadyMade(reason),
        _ => DbError::Internal(reason),
    }
}
