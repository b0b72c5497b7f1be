//! MariaDB really runs, survives what the verbs do to it, and leaves nothing behind.

use std::path::Path;
use std::process::Command;

use crate::{assert_standard_verbs, process_exists};
use nexus_testkit::{Error, MariaDb, MariaDbOptions};

/// Runs the statements with the command-line client; the rows it prints, or what it complains of.
fn sql(server: &MariaDb, statements: &str) -> Result<String, String> {
    let port = format!("--port={}", server.port());
    let output = Command::new("mariadb")
        .args([
            "--no-defaults",
            "--protocol=tcp",
            "--host=127.0.0.1",
            "--user=root",
        ])
        .args([
            port.as_str(),
            "--connect-timeout=1",
            "--skip-column-names",
            "--batch",
        ])
        .args(["--execute", statements, "nexus"])
        .output()
        .unwrap();
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[test]
fn a_fresh_server_has_an_empty_database_and_full_durability() {
    let server = MariaDb::start().unwrap();
    assert_eq!(
        server.url(),
        format!("mysql://root@127.0.0.1:{}/nexus", server.port())
    );
    assert_eq!(sql(&server, "SHOW TABLES").unwrap(), "");
    let settings = sql(
        &server,
        "SELECT @@innodb_flush_log_at_trx_commit, @@innodb_flush_method",
    );
    assert_eq!(settings.unwrap(), "1\tO_DIRECT");
}

#[test]
fn committed_rows_survive_kill_and_restart() {
    let server = MariaDb::start().unwrap();
    sql(
        &server,
        "CREATE TABLE t (n INT PRIMARY KEY); INSERT INTO t VALUES (42)",
    )
    .unwrap();
    server.kill();
    assert!(sql(&server, "SELECT 1").is_err());
    server.restart().unwrap();
    assert_eq!(sql(&server, "SELECT n FROM t").unwrap(), "42");
}

#[test]
fn verbs_do_what_they_say() {
    let server = MariaDb::start().unwrap();
    assert_standard_verbs(&server);
    assert_eq!(server.stop().code(), Some(0), "{}", server.log_tail());
}

#[test]
fn dropping_leaves_neither_process_nor_files() {
    let server = MariaDb::start().unwrap();
    let (pid, home) = (
        server.pid(),
        server.log_path().parent().unwrap().to_path_buf(),
    );
    assert!(process_exists(pid) && home.exists());
    drop(server);
    assert!(!process_exists(pid) && !home.exists());
}

#[test]
fn a_named_folder_is_kept_and_taken_up_again() {
    let folder = tempfile::tempdir().unwrap();
    let options = MariaDbOptions {
        data_dir: Some(folder.path().join("db")),
        ..MariaDbOptions::default()
    };
    let server = MariaDb::start_with(options.clone()).unwrap();
    sql(&server, "CREATE TABLE t (n INT PRIMARY KEY)").unwrap();
    drop(server);
    let server = MariaDb::start_with(options).unwrap();
    assert_eq!(sql(&server, "SHOW TABLES").unwrap(), "t");
}

#[test]
fn an_initialisation_that_was_interrupted_is_begun_again() {
    let folder = tempfile::tempdir().unwrap();
    let torso = folder.path().join("data.unfinished/mysql");
    std::fs::create_dir_all(&torso).unwrap();
    std::fs::write(torso.join("user.frm"), "half of it").unwrap();
    let data_dir = Some(folder.path().to_path_buf());
    let server = MariaDb::start_with(MariaDbOptions {
        port: None,
        data_dir,
        ..Default::default()
    })
    .unwrap();
    assert_eq!(sql(&server, "SHOW TABLES").unwrap(), "");
}

#[test]
fn a_port_in_use_is_an_error_with_the_log() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = Some(taken.local_addr().unwrap().port());
    let error = MariaDb::start_with(MariaDbOptions {
        port,
        data_dir: None,
        ..Default::default()
    })
    .unwrap_err();
    assert!(matches!(error, Error::Exited { .. }), "{error}");
    assert!(
        error.to_string().contains("Address already in use"),
        "{error}"
    );
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error_that_names_it() {
    let data_dir = Some(Path::new("/proc/no/such/folder").to_path_buf());
    let error = MariaDb::start_with(MariaDbOptions {
        port: None,
        data_dir,
        ..Default::default()
    })
    .unwrap_err();
    assert!(
        error.to_string().contains("/proc/no/such/folder"),
        "{error}"
    );
}
