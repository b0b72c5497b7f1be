//! What a failure of the driver, and an answer of the server, mean for the operation.
//!
//! The codes are those of the [MySQL 8.0 Error Message Reference][mysql] and of the [MariaDB error codes][mariadb];
//! a code that one of the two gives another meaning is never an answer to the statements of this crate there.
//!
//! An error undoes the statement, the whole transaction, or nothing, by its code and the server's configuration
//! (`innodb_rollback_on_timeout`). Nothing here depends on it: whatever failed in a transaction, the transaction is
//! rolled back or its connection is closed before anything else is done.
//!
//! [mysql]: https://dev.mysql.com/doc/mysql-errors/8.0/en/server-error-reference.html
//! [mariadb]: https://mariadb.com/docs/server/reference/error-codes/mariadb-error-code-reference

use std::{error::Error as _, io};

use mysql::{DriverError, Error, MySqlError};

use crate::error::DbError;

/// How the error of an answer is made.
type Meaning = fn(String) -> DbError;

/// What codes of a server mean: all that an operator, another client, a full disk or a fail-over can cause. Any other
/// code is a fault of this crate, of the schema or of the data.
const ANSWERS: &[(Meaning, &[u16])] = &[
    // Others were in the way: the transaction is run again.
    (
        DbError::Conflict,
        &[
            1020, // ER_CHECKREAD: MariaDB's innodb_snapshot_isolation, a row has changed since the snapshot
            1205, // ER_LOCK_WAIT_TIMEOUT: a row, a table, or FLUSH TABLES WITH READ LOCK
            1213, // ER_LOCK_DEADLOCK: also a failed certification of Galera
            1297, // ER_GET_TEMPORARY_ERRMSG
            1412, // ER_TABLE_DEF_CHANGED: the schema has changed since the snapshot
            1615, // ER_NEED_REPREPARE: the schema has changed since the statement was prepared
            1689, // ER_LOCK_ABORTED: a change of the schema waits for the table
            3058, // ER_USER_LOCK_DEADLOCK
            3101, // ER_TRANSACTION_ROLLBACK_DURING_COMMIT: certification of MySQL's group replication
            3572, // ER_LOCK_NOWAIT
        ],
    ),
    // A unique key is taken, perhaps just now: run again, the transaction finds the row.
    (
        DbError::KeyTaken,
        &[
            1022, // ER_DUP_KEY
            1062, // ER_DUP_ENTRY
            1169, // ER_DUP_UNIQUE
            1586, // ER_DUP_ENTRY_WITH_KEY_NAME
        ],
    ),
    // Somebody or a time limit ended the statement: the transaction is run again.
    (
        DbError::Interrupted,
        &[
            1028, // ER_FILSORT_ABORT
            1317, // ER_QUERY_INTERRUPTED: KILL QUERY
            1969, // ER_STATEMENT_TIMEOUT: MariaDB's max_statement_time
            3024, // ER_QUERY_TIMEOUT: MySQL's max_execution_time
            4192, // ER_SLAVE_STATEMENT_TIMEOUT
        ],
    ),
    // The connection or its server serves no more: once more on a new connection, which may lead to another server.
    (
        DbError::Lost,
        &[
            1047, // ER_UNKNOWN_COM_ERROR: a Galera node without quorum, joining, or told to reject queries
            1053, // ER_SERVER_SHUTDOWN
            1077, // ER_NORMAL_SHUTDOWN
            1078, // ER_GOT_SIGNAL
            1079, // ER_SHUTDOWN_COMPLETE
            1080, // ER_FORCING_CLOSE
            1152, // ER_ABORTING_CONNECTION
            1154, // ER_NET_READ_ERROR_FROM_PIPE
            1155, // ER_NET_FCNTL_ERROR
            1156, // ER_NET_PACKETS_OUT_OF_ORDER
            1157, // ER_NET_UNCOMPRESS_ERROR
            1158, // ER_NET_READ_ERROR
            1159, // ER_NET_READ_INTERRUPTED: net_read_timeout
            1160, // ER_NET_ERROR_ON_WRITE
            1161, // ER_NET_WRITE_INTERRUPTED: net_write_timeout
            1184, // ER_NEW_ABORTING_CONNECTION
            1189, // ER_MASTER_NET_READ
            1190, // ER_MASTER_NET_WRITE
            1218, // ER_CONNECT_TO_MASTER
            1243, // ER_UNKNOWN_STMT_HANDLER: a proxy has forgotten the prepared statements
            1290, // ER_OPTION_PREVENTS_STATEMENT: read_only, the server was demoted
            1792, // ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION
            1836, // ER_READ_ONLY_MODE
            1874, // ER_INNODB_READ_ONLY
            1927, // ER_CONNECTION_KILLED: MariaDB's KILL; MaxScale
            2002, // CR_CONNECTION_ERROR: this and the next, of the client library, are passed on by proxies
            2003, // CR_CONN_HOST_ERROR
            2006, // CR_SERVER_GONE_ERROR
            2013, // CR_SERVER_LOST
            2055, // CR_SERVER_LOST_EXTENDED
            3032, // ER_SERVER_OFFLINE_MODE
            3168, // ER_SERVER_ISNT_AVAILABLE
            3169, // ER_SESSION_WAS_KILLED
            4031, // ER_CLIENT_INTERACTION_TIMEOUT: MySQL's wait_timeout
        ],
    ),
    // The server refuses, and a new connection would not help.
    (
        DbError::Unavailable,
        &[
            1004, // ER_CANT_CREATE_FILE: this and the next, the disk is full or fails, or no file may be opened
            1005, // ER_CANT_CREATE_TABLE
            1015, // ER_CANT_LOCK
            1016, // ER_CANT_OPEN_FILE
            1017, // ER_FILE_NOT_FOUND
            1021, // ER_DISK_FULL
            1023, // ER_ERROR_ON_CLOSE
            1024, // ER_ERROR_ON_READ
            1025, // ER_ERROR_ON_RENAME
            1026, // ER_ERROR_ON_WRITE
            1030, // ER_GET_ERRNO
            1036, // ER_OPEN_AS_READONLY
            1037, // ER_OUTOFMEMORY
            1038, // ER_OUT_OF_SORTMEMORY
            1040, // ER_CON_COUNT_ERROR: max_connections
            1041, // ER_OUT_OF_RESOURCES
            1042, // ER_BAD_HOST_ERROR
            1043, // ER_HANDSHAKE_ERROR
            1044, // ER_DBACCESS_DENIED_ERROR: this and the next, accounts and grants are being changed
            1045, // ER_ACCESS_DENIED_ERROR
            1046, // ER_NO_DB_ERROR
            1049, // ER_BAD_DB_ERROR
            1114, // ER_RECORD_FILE_FULL
            1129, // ER_HOST_IS_BLOCKED: max_connect_errors
            1130, // ER_HOST_NOT_PRIVILEGED
            1135, // ER_CANT_CREATE_THREAD
            1142, // ER_TABLEACCESS_DENIED_ERROR
            1143, // ER_COLUMNACCESS_DENIED_ERROR
            1146, // ER_NO_SUCH_TABLE: the schema was there, it is being restored or this is another server
            1180, // ER_ERROR_DURING_COMMIT
            1181, // ER_ERROR_DURING_ROLLBACK
            1203, // ER_TOO_MANY_USER_CONNECTIONS
            1206, // ER_LOCK_TABLE_FULL
            1223, // ER_CANT_UPDATE_WITH_READLOCK
            1226, // ER_USER_LIMIT_REACHED: MAX_USER_CONNECTIONS, MAX_QUERIES_PER_HOUR and others of the account
            1227, // ER_SPECIFIC_ACCESS_DENIED_ERROR
            1251, // ER_NOT_SUPPORTED_AUTH_MODE
            1275, // ER_SERVER_IS_IN_SECURE_AUTH_MODE
            1370, // ER_PROCACCESS_DENIED_ERROR
            1429, // ER_CONNECT_TO_FOREIGN_DATA_SOURCE
            1430, // ER_QUERY_ON_FOREIGN_DATA_SOURCE
            1461, // ER_MAX_PREPARED_STMT_COUNT_REACHED
            1467, // ER_AUTOINC_READ_FAILED
            1534, // ER_BINLOG_ROW_LOGGING_FAILED
            1598, // ER_BINLOG_LOGGING_IMPOSSIBLE
            1637, // ER_TOO_MANY_CONCURRENT_TRXS
            1665, // ER_BINLOG_STMT_MODE_AND_ROW_ENGINE: binlog_format = STATEMENT
            1698, // ER_ACCESS_DENIED_NO_PASSWORD_ERROR
            1810, // ER_IO_READ_ERROR
            1811, // ER_IO_WRITE_ERROR
            1812, // ER_TABLESPACE_MISSING
            1814, // ER_TABLESPACE_DISCARDED
            1820, // ER_MUST_CHANGE_PASSWORD
            1862, // ER_MUST_CHANGE_PASSWORD_LOGIN
            1873, // ER_ACCESS_DENIED_CHANGE_USER_ERROR
            1878, // ER_TEMP_FILE_WRITE_FAILURE
            1881, // ER_INNODB_FORCED_RECOVERY
            3015, // ER_ENGINE_OUT_OF_MEMORY
            3019, // ER_INNODB_UNDO_LOG_FULL
            3044, // ER_STD_BAD_ALLOC_ERROR
            3100, // ER_RUN_HOOK_ERROR: group replication takes no writes
            3118, // ER_ACCOUNT_HAS_BEEN_LOCKED of MySQL
            3159, // ER_SECURE_TRANSPORT_REQUIRED
            3675, // ER_DISK_FULL_NOWAIT
            3781, // ER_GR_HOLD_WAIT_TIMEOUT: this and the next, a new primary of the group catches up
            3782, // ER_GR_HOLD_KILLED
            3783, // ER_GR_HOLD_MEMBER_STATUS_ERROR
            3796, // ER_GRP_TRX_CONSISTENCY_NOT_ALLOWED
            3797, // ER_GRP_TRX_CONSISTENCY_BEFORE
            3798, // ER_GRP_TRX_CONSISTENCY_AFTER_ON_TRX_BEGIN
            3799, // ER_GRP_TRX_CONSISTENCY_BEGIN_NOT_ALLOWED
            3955, // ER_USER_ACCESS_DENIED_FOR_USER_ACCOUNT_BLOCKED_BY_PASSWORD_LOCK
            4139, // ER_INDEX_FILE_FULL
            4145, // ER_BACKUP_LOCK_IS_ACTIVE
            4150, // ER_USER_IS_BLOCKED
            4151, // ER_ACCOUNT_HAS_BEEN_LOCKED of MariaDB
        ],
    ),
    // A change of the schema was made before.
    (
        DbError::AlreadyMade,
        &[
            1050, // ER_TABLE_EXISTS_ERROR
            1060, // ER_DUP_FIELDNAME
            1061, // ER_DUP_KEYNAME
            1091, // ER_CANT_DROP_FIELD_OR_KEY
        ],
    ),
];

/// ProxySQL's own answers: no server is reachable, or has a connection left.
const PROXYSQL: std::ops::RangeInclusive<u16> = 9001..=9999;

/// Answers to a COMMIT that say that nothing was committed, and nothing will be: of a lock that blocks commits (1205), of
/// `read_only` (1290), of the certification of Galera (1213) and of group replication (3101), and of a Galera node
/// that serves nobody (1047). After the last one the transaction is still open, and the next START TRANSACTION would commit
/// it.
const REFUSED_COMMITS: [u16; 5] = [1047, 1205, 1213, 1290, 3101];

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
        Error::MySqlError(answer) => classify_answer(answer)(reason),
        Error::DriverError(
            DriverError::PacketOutOfSync | DriverError::UnexpectedPacket | DriverError::Timeout,
        ) => DbError::Unavailable(reason),
        _ => DbError::Internal(reason),
    }
}

/// Of a COMMIT. Only a clear refusal says that nothing was committed.
pub(super) fn classify_commit(error: Error) -> DbError {
    match &error {
        Error::MySqlError(answer) if REFUSED_COMMITS.contains(&answer.code) => classify(error),
        _ => DbError::Uncertain(error.to_string()),
    }
}

/// Of what begins or ends a transaction. If that fails, the state of the connection is not known, and the connection
/// must not be used again.
pub(super) fn classify_boundary(error: Error) -> DbError {
    let reason = error.to_string();
    match classify(error) {
        unavailable @ DbError::Unavailable(_) => unavailable,
        _ => DbError::Lost(reason),
    }
}

fn classify_answer(answer: &MySqlError) -> Meaning {
    let mut known = ANSWERS.iter();
    if let Some((meaning, _)) = known.find(|(_, codes)| codes.contains(&answer.code)) {
        return *meaning;
    }
    if PROXYSQL.contains(&answer.code) {
        return DbError::Unavailable;
    }
    // By the classes of the SQL standard: connection exception, transaction rollback, insufficient resources.
    match answer.state.get(..2) {
        Some("08") => DbError::Lost,
        Some("40") => DbError::Conflict,
        Some("53") => DbError::Unavailable,
        _ => DbError::Internal,
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn answer(code: u16, state: &str) -> Error {
        Error::MySqlError(MySqlError {
            state: state.to_owned(),
            message: "message".to_owned(),
            code,
        })
    }

    #[test]
    fn every_code_has_one_meaning() {
        let codes: Vec<u16> = ANSWERS
            .iter()
            .flat_map(|(_, codes)| *codes)
            .copied()
            .collect();
        let distinct: BTreeSet<u16> = codes.iter().copied().collect();
        assert_eq!(codes.len(), distinct.len());
    }

    #[test]
    fn no_answer_that_passes_by_itself_is_a_fault_of_the_store() {
        for code in [
            1020, 1021, 1040, 1044, 1045, 1047, 1053, 1114, 1129, 1130, 1135, 1142, 1146, 1152,
            1158, 1159, 1160, 1161, 1180, 1184, 1203, 1205, 1206, 1213, 1226, 1290, 1317, 1412,
            1461, 1615, 1637, 1665, 1689, 1792, 1836, 1878, 1927, 1969, 2006, 2013, 3024, 3032,
            3058, 3100, 3101, 3159, 3169, 3572, 3675, 3797, 4031, 4150, 4151, 9001,
        ] {
            let meaning = classify(answer(code, "HY000"));
            assert!(
                !matches!(meaning, DbError::Internal(_)),
                "{code}: {meaning:?}"
            );
            let at_commit = classify_commit(answer(code, "HY000"));
            assert!(
                !matches!(at_commit, DbError::Internal(_)),
                "{code}: {at_commit:?}"
            );
        }
        for (state, passes) in [
            ("08S01", true),
            ("40001", true),
            ("42000", false),
            ("", false),
        ] {
            let meaning = classify(answer(1999, state));
            assert_ne!(matches!(meaning, DbError::Internal(_)), passes, "{state}");
        }
    }

    #[test]
    fn only_a_clear_refusal_of_a_commit_is_tried_again() {
        for code in REFUSED_COMMITS {
            let refused = classify_commit(answer(code, "HY000"));
            assert!(
                matches!(refused, DbError::Conflict(_) | DbError::Lost(_)),
                "{code}: {refused:?}"
            );
        }
        for code in [1053, 1062, 1180, 1317, 1927, 1969, 2013, 3024, 3100, 9999] {
            let unclear = classify_commit(answer(code, "08S01"));
            assert!(
                matches!(unclear, DbError::Uncertain(_)),
                "{code}: {unclear:?}"
            );
        }
        let broken = io::Error::from(io::ErrorKind::ConnectionReset);
        let unclear = classify_commit(Error::IoError(broken));
        assert!(matches!(unclear, DbError::Uncertain(_)), "{unclear:?}");
    }

    #[test]
    fn a_connection_whose_rollback_failed_is_not_used_again() {
        for code in [1205, 1317, 1969, 1064] {
            let failed = classify_boundary(answer(code, "HY000"));
            assert!(matches!(failed, DbError::Lost(_)), "{code}: {failed:?}");
        }
    }
}
