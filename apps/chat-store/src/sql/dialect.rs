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

    /// After an INSERT: a row whose `key` is there already gets the new value of `column`. (MySQL
    /// calls VALUES() outdated since 8.0.20, but MariaDB knows no other way.)
    pub(super) fn or_replace(self, key: &str, column: &str) -> String {
        match self {
            Self::MySql => format!("ON DUPLICATE KEY UPDATE {column} = VALUES({column})"),
            Self::Sqlite => {
                format!("ON CONFLICT ({key}) DO UPDATE SET {column} = excluded.{column}")
            }
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
