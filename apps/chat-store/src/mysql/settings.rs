//! What a session of the database is set to, whatever the server, the account or a proxy in between has made of it.
//!
//! First everything is set that MySQL and MariaDB have in common: a limit on rows, or on time, would hold for the
//! questions that follow as well. The server is asked how the session is set, the rest is set by the names that this
//! server knows, and it is asked again. A connection that is not set as this crate relies on is refused.

use std::{collections::BTreeMap, time::Duration};

use mysql::{Conn, prelude::Queryable};

use super::errors::classify;
use crate::{error::DbError, sql::STATEMENT_BYTES_MAX};

/// The packets that the server has to take: a statement with its texts, and as much again.
const PACKET_BYTES_MIN: usize = 2 * STATEMENT_BYTES_MAX;

const UNLIMITED: &str = "18446744073709551615";

/// One variable of a session, which the server knows under one of the names.
struct Setting {
    names: &'static [&'static str],
    value: String,
    /// Not of both MySQL and MariaDB: a server that does not know it needs no setting.
    is_optional: bool,
}

/// What a session is to be set to.
pub(super) struct Settings(Vec<Setting>);

/// The variables of a session by their names, as the server shows them.
pub(super) type Variables = BTreeMap<String, String>;

/// Why a connection is not used.
#[derive(Debug)]
pub(super) enum Unusable {
    /// It is not set as this crate relies on, for the reason that is given.
    Refused(String),
    /// Of what passes by itself.
    Failed(DbError),
}

fn unusable(error: mysql::Error) -> Unusable {
    match classify(error) {
        DbError::Internal(reason) => Unusable::Refused(format!(
            "the database does not let a session be set as this program needs it: {reason}"
        )),
        passing => Unusable::Failed(passing),
    }
}

impl Settings {
    /// Of a session for transactions that take at most `io_timeout` per statement. Each wait for a lock takes half of it
    /// at most, so that the server tells of it before the connection is given up, and so does a transaction
    /// whose server or network has stopped between two statements: its locks would keep all others waiting. (MySQL has
    /// no such limit.)
    pub(super) fn new(io_timeout: Duration) -> Self {
        let seconds = io_timeout.as_secs().max(1);
        let half = (seconds / 2).max(1).to_string();
        let mut settings = Self::without_limits(&half);
        settings.add(&["lock_wait_timeout"], &half);
        // MariaDB's of all statements in seconds, MySQL's of what only reads in milliseconds. A result that nobody waits
        // for any more ends as well.
        settings.add_optional(&["max_statement_time"], seconds);
        settings.add_optional(&["max_execution_time"], seconds.saturating_mul(1000));
        settings
    }

    /// Of a session that changes the schema, where a statement may take as long as the data is large.
    pub(super) fn of_schema_changes(io_timeout: Duration) -> Self {
        let half = (io_timeout.as_secs() / 2).max(1).to_string();
        let mut settings = Self::without_limits(&half);
        settings.add_optional(&["max_statement_time"], 0);
        settings.add_optional(&["max_execution_time"], 0);
        settings
    }

    fn without_limits(stalled_s: &str) -> Self {
        let mut settings = Self(Vec::new());
        for (names, value) in [
            // By SET NAMES.
            (&["character_set_client"][..], "utf8mb4"),
            (&["character_set_connection"], "utf8mb4"),
            (&["character_set_results"], "utf8mb4"),
            (&["collation_connection"], "utf8mb4_bin"),
            // A text that does not fit is an error, and so is a table of another engine.
            (&["sql_mode"], "STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION"),
            // A transaction lasts from START TRANSACTION to COMMIT.
            (&["autocommit"], "ON"),
            (&["completion_type"], "NO_CHAIN"),
            (&["transaction_isolation", "tx_isolation"], "READ-COMMITTED"),
            (&["transaction_read_only", "tx_read_only"], "OFF"),
            // Statements do what they say.
            (&["sql_select_limit"], UNLIMITED),
            (&["max_join_size"], UNLIMITED),
            (&["sql_big_selects"], "ON"),
            (&["sql_safe_updates"], "OFF"),
            (&["sql_auto_is_null"], "OFF"),
            (&["foreign_key_checks"], "ON"),
            (&["unique_checks"], "ON"),
            (&["time_zone"], "+00:00"),
            (&["innodb_lock_wait_timeout"], stalled_s),
            // Within a statement that has come in part.
            (&["net_read_timeout"], stalled_s),
        ] {
            settings.add(names, value);
        }
        settings.add_optional(&["idle_transaction_timeout"], stalled_s);
        // A Galera node without quorum serves no old data.
        settings.add_optional(&["wsrep_dirty_reads"], "OFF");
        settings
    }

    fn add(&mut self, names: &'static [&'static str], value: impl ToString) {
        self.0.push(Setting {
            names,
            value: value.to_string(),
            is_optional: false,
        });
    }

    fn add_optional(&mut self, names: &'static [&'static str], value: impl ToString) {
        self.0.push(Setting {
            names,
            value: value.to_string(),
            is_optional: true,
        });
    }

    /// Sets a session, and returns its variables.
    pub(super) fn apply(&self, conn: &mut Conn) -> Result<Variables, Unusable> {
        conn.query_drop(self.in_common()).map_err(unusable)?;
        let before = self.ask(conn)?;
        let now = match self.difference(&before) {
            Some(sql) => {
                conn.query_drop(sql).map_err(unusable)?;
                self.ask(conn)?
            }
            None => before,
        };
        self.check(&now).map_err(Unusable::Refused)?;
        Ok(now)
    }

    fn ask(&self, conn: &mut Conn) -> Result<Variables, Unusable> {
        let names = self.0.iter().flat_map(|setting| setting.names);
        let asked: Vec<_> = names
            .chain(&ASKED)
            .map(|name| format!("'{name}'"))
            .collect();
        let sql = format!(
            "SHOW SESSION VARIABLES WHERE Variable_name IN ({})",
            asked.join(",")
        );
        let rows = conn.query_opt(sql).map_err(unusable)?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        rows.into_iter()
            .map(|row| {
                let (name, value): (Vec<u8>, Option<Vec<u8>>) =
                    row.map_err(|_| Unusable::Failed(DbError::unexpected("variable")))?;
                let name = text(name).to_ascii_lowercase();
                Ok((name, text(value.unwrap_or_default())))
            })
            .collect()
    }

    /// The statement that sets what both servers know by one name.
    fn in_common(&self) -> String {
        let mut sql = "SET NAMES utf8mb4 COLLATE utf8mb4_bin".to_owned();
        for setting in &self.0 {
            match setting.names {
                [name] if !setting.is_optional && !is_of_names(name) => {
                    sql += &format!(", {}", setting.assignment(name));
                }
                // A comment to MySQL.
                [name @ "max_statement_time"] => {
                    sql += &format!(" /*M!100101 , {} */", setting.assignment(name));
                }
                _ => {}
            }
        }
        sql
    }

    /// The statement that sets what differs.
    fn difference(&self, found: &Variables) -> Option<String> {
        let differs = self.0.iter().filter_map(|setting| {
            let (name, value) = setting.find(found)?;
            (!setting.is(value)).then(|| setting.assignment(name))
        });
        let assignments: Vec<_> = differs.collect();
        (!assignments.is_empty()).then(|| format!("SET {}", assignments.join(", ")))
    }

    /// Says what is not as it has to be, and what to do.
    fn check(&self, found: &Variables) -> Result<(), String> {
        for setting in &self.0 {
            let wanted = &setting.value;
            match setting.find(found) {
                Some((_, value)) if setting.is(value) => {}
                Some((name, value)) => {
                    return Err(format!(
                        "the database keeps {name} at '{value}' in a session where '{wanted}' is needed: look for what \
                         overrides SET SESSION {name}, such as a proxy in between"
                    ));
                }
                None if setting.is_optional => {}
                None => {
                    return Err(format!(
                        "the database does not say how a session has set {}, which has to be '{wanted}': this is no \
                         MySQL 8 or MariaDB 10.11, or a proxy in between does not pass on SHOW SESSION VARIABLES",
                        setting.names.join(" or ")
                    ));
                }
            }
        }
        let value = |name: &str| found.get(name).map_or("", String::as_str);
        if is_on(value("log_bin")) && value("binlog_format").eq_ignore_ascii_case("STATEMENT") {
            return Err(
                "the database has binlog_format = STATEMENT, which takes no changes at READ COMMITTED: \
                 set binlog_format = ROW or MIXED in its configuration"
                    .into(),
            );
        }
        let packet_bytes = value("max_allowed_packet").parse().unwrap_or(usize::MAX);
        if packet_bytes < PACKET_BYTES_MIN {
            return Err(format!(
                "the database has max_allowed_packet = {packet_bytes}: set it to {PACKET_BYTES_MIN} or more in its \
                 configuration"
            ));
        }
        Ok(())
    }
}

impl Setting {
    /// Its name and value on this server.
    fn find<'a>(&self, found: &'a Variables) -> Option<(&'static str, &'a str)> {
        let mut names = self.names.iter();
        names.find_map(|name| Some((*name, found.get(*name)?.as_str())))
    }

    fn assignment(&self, name: &str) -> String {
        match self.value.parse::<u64>() {
            Ok(number) => format!("SESSION {name} = {number}"),
            Err(_) => format!("SESSION {name} = '{}'", self.value),
        }
    }

    /// Whether this is the value that it has to have, as a server shows it.
    fn is(&self, shown: &str) -> bool {
        match (number(&self.value), number(shown)) {
            (Some(wanted), Some(shown)) => wanted == shown,
            _ => self.value.eq_ignore_ascii_case(shown),
        }
    }
}

/// A number, or a switch, which is shown as a word or as a number. MariaDB shows seconds with a fraction.
fn number(shown: &str) -> Option<u64> {
    match shown {
        _ if is_on(shown) => Some(1),
        _ if shown.eq_ignore_ascii_case("OFF") => Some(0),
        _ => match shown.split_once('.') {
            Some((whole, fraction)) if fraction.bytes().all(|digit| digit == b'0') => {
                whole.parse().ok()
            }
            _ => shown.parse().ok(),
        },
    }
}

/// Variables that are not set.
const ASKED: [&str; 6] = [
    "log_bin",
    "binlog_format",
    "max_allowed_packet",
    "server_id",
    "hostname",
    "port",
];

/// Whether SET NAMES sets it.
fn is_of_names(name: &str) -> bool {
    name.starts_with("character_set_") || name == "collation_connection"
}

fn is_on(value: &str) -> bool {
    value.eq_ignore_ascii_case("ON") || value == "1"
}

/// Tells servers apart that one address may lead to. In a replication each has an id of its own.
pub(super) fn which_server(variables: &Variables) -> String {
    let value = |name| variables.get(name).map_or("", String::as_str);
    [value("server_id"), value("hostname"), value("port")].join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const IO_TIMEOUT: Duration = Duration::from_secs(5);

    /// What a server shows that is set as it has to be.
    fn variables(rename: impl Fn(&str) -> Option<&str>) -> Variables {
        let settings = Settings::new(IO_TIMEOUT);
        let settings = settings.0.iter().filter_map(|setting| {
            let name = setting.names.iter().find_map(|name| rename(name))?;
            Some((name.to_owned(), setting.value.clone()))
        });
        settings.collect()
    }

    /// The names of MySQL 8.
    fn mysql(name: &str) -> Option<&str> {
        let of_mariadb = [
            "tx_isolation",
            "tx_read_only",
            "max_statement_time",
            "idle_transaction_timeout",
            "wsrep_dirty_reads",
        ];
        (!of_mariadb.contains(&name)).then_some(name)
    }

    /// The names of MariaDB 10.11.
    fn mariadb(name: &str) -> Option<&str> {
        let of_mysql = [
            "transaction_isolation",
            "transaction_read_only",
            "max_execution_time",
        ];
        (!of_mysql.contains(&name)).then_some(name)
    }

    #[test]
    fn servers_are_set_by_the_names_they_know() {
        let settings = Settings::new(IO_TIMEOUT);
        for (names, known, unknown) in [
            (
                mysql as fn(&str) -> Option<&str>,
                "SESSION transaction_isolation = 'READ-COMMITTED'",
                "tx_isolation =",
            ),
            (
                mariadb,
                "SESSION tx_isolation = 'READ-COMMITTED'",
                "transaction_isolation",
            ),
        ] {
            let right = variables(names);
            settings.check(&right).unwrap();
            assert_eq!(settings.difference(&right), None);
            let wrong = right
                .keys()
                .map(|name| (name.clone(), "?".to_owned()))
                .collect();
            let sql = settings.difference(&wrong).unwrap();
            assert!(
                sql.contains(known) && !sql.contains(&format!(" {unknown}")),
                "{sql}"
            );
        }
        let sql = settings.in_common();
        assert!(
            !sql.contains("tx_") && !sql.contains("transaction_"),
            "{sql}"
        );
    }

    #[test]
    fn a_session_that_is_not_set_is_refused_by_the_name_of_the_setting() {
        let settings = Settings::new(IO_TIMEOUT);
        for names in [mysql as fn(&str) -> Option<&str>, mariadb] {
            let right = variables(names);
            for name in right.keys() {
                let mut wrong = right.clone();
                wrong.insert(name.clone(), "2".into());
                if right[name] == "2" {
                    wrong.insert(name.clone(), "60".into());
                }
                let refused = settings.check(&wrong).unwrap_err();
                assert!(refused.contains(&format!("keeps {name} at")), "{refused}");
            }
            let mut silent = right.clone();
            silent.remove("sql_mode");
            let refused = settings.check(&silent).unwrap_err();
            assert!(refused.contains("has set sql_mode"), "{refused}");
        }
    }

    #[test]
    fn values_are_known_in_each_form_that_servers_show() {
        let settings = Settings::new(IO_TIMEOUT);
        let mut shown = variables(mariadb);
        shown.insert("max_statement_time".into(), "5.000000".into());
        shown.insert("autocommit".into(), "1".into());
        shown.insert("sql_safe_updates".into(), "0".into());
        shown.insert("tx_isolation".into(), "read-committed".into());
        settings.check(&shown).unwrap();
        for (name, value) in [
            ("max_statement_time", "5.500000"),
            ("autocommit", "OFF"),
            ("sql_select_limit", "1"),
        ] {
            let mut wrong = shown.clone();
            wrong.insert(name.into(), value.into());
            settings.check(&wrong).unwrap_err();
        }
    }
}
