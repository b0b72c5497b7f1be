//! Schema changes: numbered files, each applied once and in order.
//!
//! The files are in `migrations/mysql` and `migrations/sqlite`, one of each name and number in both;
//! `schema_version` in the database says which of them were applied. A file that was released is
//! never changed: what comes later is a new file, and a line in [`migrations`]. Servers of the version
//! before go on running while the first new one starts, so a change must leave them working.
//!
//! MySQL commits each statement that changes a table at once, and the record of it is another commit. So a
//! file whose record was not made, because the server or the connection died in between, is applied again from
//! its beginning: what it finds made already (a table, a column, an index) it passes over. Other statements
//! must be such that they can be repeated.
//!
//! (refinery does this as a rule. Its driver for SQLite ends at an older rusqlite, and its driver for
//! MySQL takes a file for applied whose second statement failed.)

use super::{dialect::Dialect, session::Session};
use crate::error::DbError;

/// One file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Migration {
    /// From 1, without gaps.
    version: u32,
    name: &'static str,
    sql: &'static str,
}

/// The files of a folder, by their names.
macro_rules! files {
    ($folder:literal: $($version:literal $name:literal)*) => {
        &[$(Migration {
            version: $version,
            name: $name,
            sql: include_str!(concat!(
                "../../migrations/", $folder, "/V", $version, "__", $name, ".sql"
            )),
        }),*]
    };
}

/// All of them, ascending.
macro_rules! migrations {
    ($($version:literal $name:literal)*) => {
        const MYSQL: &[Migration] = files!("mysql": $($version $name)*);
        const SQLITE: &[Migration] = files!("sqlite": $($version $name)*);
    };
}

migrations! {
    1 "tables"
    2 "session_token"
    3 "unchanged_for"
    4 "last_login"
}

/// The migrations of a dialect.
pub(crate) fn migrations(dialect: Dialect) -> &'static [Migration] {
    match dialect {
        Dialect::MySql => MYSQL,
        Dialect::Sqlite => SQLITE,
    }
}

/// Whether all of `migrations` were applied.
///
/// # Errors
/// [`DbError::NewerSchema`] when others were as well.
pub(crate) fn are_applied(s: &mut dyn Session, migrations: &[Migration]) -> Result<bool, DbError> {
    let known = latest(migrations);
    Ok(applied_version(s, known)? == known)
}

/// Applies those of `migrations` that were not applied. The caller sees to it that nobody else does so
/// meanwhile.
///
/// # Errors
/// As [`are_applied`]. A statement that fails is named in the error.
pub(crate) fn apply(
    s: &mut dyn Session,
    migrations: &[Migration],
    now_ms: i64,
) -> Result<(), DbError> {
    s.execute(s.dialect().create_schema_version(), &[])?;
    let applied = applied_version(s, latest(migrations))?;
    for migration in migrations {
        if migration.version <= applied {
            continue;
        }
        for (index, statement) in statements(migration.sql).iter().enumerate() {
            match s.execute(statement, &[]) {
                Ok(_) => {}
                Err(DbError::AlreadyMade(reason)) => {
                    let place = place(migration, index, statement);
                    log::info!("{place}: passed over ({reason})");
                }
                Err(error) => return Err(error.in_context(&place(migration, index, statement))),
            }
        }
        let sql = "INSERT INTO schema_version (version, name, applied_at_ms) VALUES (?, ?, ?)";
        let version = i64::from(migration.version);
        s.execute(sql, &[version.into(), migration.name.into(), now_ms.into()])?;
        log::info!(
            "the database's schema is now at version {version} ({})",
            migration.name
        );
    }
    Ok(())
}

fn latest(migrations: &[Migration]) -> u32 {
    migrations.last().map_or(0, |migration| migration.version)
}

/// 0 for an empty database, and for one from before there were versions, which the first migration
/// takes up as it is.
fn applied_version(s: &mut dyn Session, known: u32) -> Result<u32, DbError> {
    if s.query(s.dialect().find_schema_version(), &[])?.is_empty() {
        return Ok(0);
    }
    let sql = "SELECT COALESCE(MAX(version), 0) FROM schema_version";
    let found = match s.first(sql, &[])? {
        Some(row) => {
            u32::try_from(row.i64(0)?).map_err(|_| DbError::unexpected("version of the schema"))?
        }
        None => 0,
    };
    if found > known {
        return Err(DbError::NewerSchema { found, known });
    }
    Ok(found)
}

/// Which statement failed; the first line of it tells people most.
fn place(migration: &Migration, index: usize, statement: &str) -> String {
    format!(
        "migration V{}__{}, statement {}, `{}`",
        migration.version,
        migration.name,
        index + 1,
        statement.lines().next().unwrap_or_default()
    )
}

/// The statements of a file, in which a comment has a line to itself and a text holds no semicolon.
fn statements(sql: &str) -> Vec<String> {
    let code: Vec<_> = sql
        .lines()
        .filter(|line| !line.trim_start().starts_with("--"))
        .collect();
    code.join("\n")
        .split(';')
        .map(str::trim)
        .filter(|statement| !statement.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use rusqlite::Connection;

    use super::*;
    use crate::sqlite::SqliteSession;

    fn migration(version: u32, sql: &'static str) -> Migration {
        Migration {
            version,
            name: "test",
            sql,
        }
    }

    fn session(test: impl FnOnce(&mut dyn Session)) {
        let conn = Connection::open_in_memory().unwrap();
        test(&mut SqliteSession(&conn));
    }

    #[test]
    fn every_file_is_listed_and_versions_have_no_gaps() {
        for (folder, dialect) in [("mysql", Dialect::MySql), ("sqlite", Dialect::Sqlite)] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("migrations")
                .join(folder);
            let files: BTreeSet<_> = fs::read_dir(folder)
                .unwrap()
                .map(|file| file.unwrap().file_name().into_string().unwrap())
                .collect();
            let listed: BTreeSet<_> = migrations(dialect)
                .iter()
                .map(|migration| format!("V{}__{}.sql", migration.version, migration.name))
                .collect();
            assert_eq!(files, listed);
            let versions: Vec<_> = migrations(dialect).iter().map(|m| m.version).collect();
            let expected: Vec<_> = (1..).take(versions.len()).collect();
            assert_eq!(versions, expected);
        }
    }

    #[test]
    fn each_migration_is_applied_once_and_in_order() {
        session(|s| {
            let first = migration(1, "CREATE TABLE a (x INTEGER)");
            // Could not be applied a second time, nor before the first.
            let second = migration(2, "ALTER TABLE a ADD COLUMN y INTEGER");
            assert!(!are_applied(s, &[first]).unwrap());
            apply(s, &[first], 7).unwrap();
            assert!(are_applied(s, &[first]).unwrap());
            assert!(!are_applied(s, &[first, second]).unwrap());
            for _ in 0..2 {
                apply(s, &[first, second], 8).unwrap();
            }
            let sql = "SELECT version, applied_at_ms FROM schema_version ORDER BY version";
            let rows = s.query(sql, &[]).unwrap();
            let rows: Vec<_> = rows
                .iter()
                .map(|row| (row.i64(0).unwrap(), row.i64(1).unwrap()))
                .collect();
            assert_eq!(rows, [(1, 7), (2, 8)]);
        });
    }

    #[test]
    fn a_statement_that_fails_is_named_and_its_migration_is_not_recorded() {
        session(|s| {
            let bad = migration(
                1,
                "-- A comment; with a semicolon.\nCREATE TABLE a (x INTEGER);\nALTER TABLE b\nADD y;",
            );
            let error = apply(s, &[bad], 0).unwrap_err();
            let DbError::Internal(reason) = error else {
                panic!("{error:?}");
            };
            let named = "migration V1__test, statement 2, `ALTER TABLE b`: ";
            assert!(reason.starts_with(named), "{reason}");
            assert!(!are_applied(s, &[bad]).unwrap());
        });
    }

    #[test]
    fn a_schema_from_the_future_is_refused() {
        session(|s| {
            let (first, second) = (
                migration(1, "CREATE TABLE a (x INTEGER)"),
                migration(2, "CREATE TABLE b (x INTEGER)"),
            );
            apply(s, &[first, second], 0).unwrap();
            for refused in [
                are_applied(s, &[first]).unwrap_err(),
                apply(s, &[first], 0).unwrap_err(),
            ] {
                let DbError::NewerSchema { found: 2, known: 1 } = refused else {
                    panic!("{refused:?}");
                };
            }
        });
    }
}
