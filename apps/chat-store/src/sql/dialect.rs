//! Where the SQL of MySQL and MariaDB differs from that of SQLite.

use super::session::row_list;

/// Which SQL a session speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dialect {
    /// MySQL 8 and MariaDB 10.11.
    MySql,
    Sqlite,
}

impl Dialect {
    /// Makes the table that the migrations keep their record in.
    pub(super) fn create_schema_version(self) -> &'static str {
        match self {
            Self::MySql => {
                "CREATE TABLE IF NOT EXISTS schema_version (
                    version INT NOT NULL,
                    name VARCHAR(255) NOT NULL,
                    applied_at_ms BIGINT NOT NULL,
                    PRIMARY KEY (version)
                ) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin"
            }
            Self::Sqlite => {
                "CREATE TABLE IF NOT EXISTS schema_version (
                    version INTEGER PRIMARY KEY,
                    name TEXT NOT NULL,
                    applied_at_ms INTEGER NOT NULL
                ) STRICT"
            }
        }
    }

    /// Finds a row if that table is there.
    pub(super) fn find_schema_version(self) -> &'static str {
        match self {
            Self::MySql => {
                "SELECT 1 FROM information_schema.tables
                 WHERE table_schema = DATABASE() AND table_name = 'schema_version'"
            }
            Self::Sqlite => {
                "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'schema_version'"
            }
        }
    }

    /// The list of `rows` keys after an `IN`. Lists of row values are written in different ways.
    pub(super) fn key_list(self, rows: usize, width: usize) -> String {
        match (self, width) {
            (_, 1) => format!("({})", vec!["?"; rows].join(",")),
            (Self::MySql, _) => format!("({})", row_list(rows, width)),
            (Self::Sqlite, _) => format!("(VALUES {})", row_list(rows, width)),
        }
    }

    /// Locks the rows that a SELECT returns. SQLite has one writer at a time and needs no locks.
    pub(super) fn for_update(self) -> &'static str {
        match self {
            Self::MySql => "FOR UPDATE",
            Self::Sqlite => "",
        }
    }

    /// After an INSERT: a row whose `key` is there already gets the new values of `columns`. (MySQL
    /// calls VALUES() outdated since 8.0.20, but MariaDB knows no other way.)
    pub(super) fn or_replace(self, key: &str, columns: &[&str]) -> String {
        let set = |new: fn(&str) -> String| {
            let columns = columns.iter();
            let set: Vec<_> = columns.map(|c| format!("{c} = {}", new(c))).collect();
            set.join(", ")
        };
        match self {
            Self::MySql => format!(
                "ON DUPLICATE KEY UPDATE {}",
                set(|column| format!("VALUES({column})"))
            ),
            Self::Sqlite => format!(
                "ON CONFLICT ({key}) DO UPDATE SET {}",
                set(|column| format!("excluded.{column}"))
            ),
        }
    }

    /// After an INSERT: a row whose `key` is there already stays as it is, and is locked. (INSERT
    /// IGNORE would also let pass what is really wrong.)
    pub(super) fn or_keep(self, key: &str, column: &str) -> String {
        match self {
            Self::MySql => format!("ON DUPLICATE KEY UPDATE {column} = {column}"),
            Self::Sqlite => format!("ON CONFLICT ({key}) DO NOTHING"),
        }
    }
}
