//! Servers that are set up in another way than the store needs its sessions.

use std::sync::{Arc, OnceLock};

use chat_store::*;
use mysql::prelude::Queryable;
use nexus_testkit::MariaDbOptions;

use crate::{database::Database, suite};

/// What an account without rights begins with, beside what the server's defaults are.
const INIT_CONNECT: &str = "SET NAMES latin1, sql_select_limit = 1, autocommit = 0, completion_type = 'CHAIN', \
     sql_mode = 'ANSI', tx_read_only = ON, max_statement_time = 0.001, sql_safe_updates = ON";

/// One database server for all cases; it ends with this process.
fn database() -> &'static Database {
    static DATABASE: OnceLock<Database> = OnceLock::new();
    DATABASE.get_or_init(|| {
        let mut database = Database::start_with(MariaDbOptions {
            args: [
                "--skip-character-set-client-handshake",
                "--character-set-server=latin1",
                "--collation-server=latin1_german1_ci",
            ]
            .map(str::to_owned)
            .into(),
            ..MariaDbOptions::default()
        });
        for setting in [
            "sql_mode = 'ANSI,PIPES_AS_CONCAT,NO_AUTO_VALUE_ON_ZERO'",
            "completion_type = 'RELEASE'",
            "tx_isolation = 'SERIALIZABLE'",
            "tx_read_only = ON",
            "autocommit = OFF",
            "sql_select_limit = 1",
            "max_join_size = 1",
            "sql_safe_updates = ON",
            "sql_auto_is_null = ON",
            "unique_checks = OFF",
            "foreign_key_checks = OFF",
            "time_zone = '+09:30'",
            "innodb_lock_wait_timeout = 50",
            "lock_wait_timeout = 1",
            "idle_transaction_timeout = 1",
            "innodb_snapshot_isolation = ON",
            "max_statement_time = 0.001",
        ] {
            let sql = format!("SET GLOBAL {setting}");
            database.operator.query_drop(&sql).expect(&sql);
        }
        let sql = "SET GLOBAL init_connect = ?";
        database.operator.exec_drop(sql, (INIT_CONNECT,)).unwrap();
        database
    })
}

fn servers() -> suite::Servers {
    let store = || -> Arc<dyn Store> {
        let store = MySqlStore::new(MySqlOptions::new(database().url())).unwrap();
        store.prepare_schema().unwrap();
        Arc::new(store)
    };
    suite::Servers {
        a: store(),
        b: store(),
        _folder: None,
    }
}

suite::conformance! { crate::settings::servers:
    users {
        a_registered_user_is_found
        names_are_compared_byte_by_byte
    }
    groups {
        all_groups_come_with_all_members
    }
    append {
        messages_get_the_next_sequences_in_order
        another_message_under_a_used_id_is_refused
        acknowledgements_go_alone_and_with_messages
        a_batch_may_be_larger_than_a_statement
        texts_of_all_sizes_and_scripts_come_back
    }
    pending {
        pages_hold_everything_exactly_once
    }
    tokens {
        tokens_replaced_at_once_leave_one
    }
    concurrency {
        sequences_have_no_gaps_under_eight_writers
        changes_and_messages_at_once_keep_the_sequence
    }
}

#[test]
fn a_text_is_stored_as_what_it_is() {
    let servers = servers();
    let (ann, _, conversation) = suite::pair(&*servers.a);
    let text = "na\u{ef}ve \u{4f60}\u{597d} \u{1f600}";
    let stamp = suite::send(&*servers.a, conversation, ann, text);
    let mut conn = database().connect();
    conn.query_drop("SET SESSION max_statement_time = 0")
        .unwrap();
    let sql = "SELECT HEX(content) FROM message WHERE conversation_id = ? AND seq = ?";
    let stored: Option<String> = conn
        .exec_first(sql, (conversation.raw(), stamp.sequence))
        .unwrap();
    let bytes: String = text.bytes().map(|byte| format!("{byte:02X}")).collect();
    assert_eq!(stored, Some(bytes));
}

#[test]
fn a_server_that_cannot_do_is_refused_with_the_setting_and_what_to_do() {
    for (args, setting, remedy) in [
        (
            &["--max-allowed-packet=1M"][..],
            "max_allowed_packet = 1048576",
            "set it to 4194304 or more",
        ),
        (
            &["--log-bin", "--server-id=1", "--binlog-format=STATEMENT"],
            "binlog_format = STATEMENT",
            "ROW or MIXED",
        ),
    ] {
        let mut database = Database::start_with(MariaDbOptions {
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            ..MariaDbOptions::default()
        });
        let store = MySqlStore::new(MySqlOptions::new(database.url())).unwrap();
        let refused = store.prepare_schema().unwrap_err();
        assert!(refused.is_unavailable(), "{refused}");
        let reason = refused.to_string();
        assert!(
            reason.contains(setting) && reason.contains(remedy),
            "{reason}"
        );
        // Found right without a restart of the program.
        database.run("SET GLOBAL max_allowed_packet = 4194304");
        database.run("SET GLOBAL binlog_format = MIXED");
        store.prepare_schema().unwrap();
    }
}
