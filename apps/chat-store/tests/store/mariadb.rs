//! The suite on a real MariaDB, through two stores as two servers have them.

use std::sync::{Arc, OnceLock};

use chat_store::*;
use nexus_testkit::MariaDb;

use crate::suite;

/// One database server for all cases; it ends with this process.
fn url() -> String {
    static DATABASE: OnceLock<MariaDb> = OnceLock::new();
    DATABASE
        .get_or_init(|| MariaDb::start().expect("MariaDB starts"))
        .url()
}

fn servers() -> suite::Servers {
    let store = || -> Arc<dyn Store> {
        let store = MySqlStore::new(MySqlOptions::new(url())).unwrap();
        store.prepare_schema().unwrap();
        Arc::new(store)
    };
    suite::Servers {
        a: store(),
        b: store(),
        _folder: None,
    }
}

suite::conformance!(crate::mariadb::servers);
