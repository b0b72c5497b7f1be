//! MariaDB.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::geteuid;

use crate::certificates::ServerFiles;
use crate::home::Home;
use crate::ports::free_port;
use crate::process::{Launch, Process};
use crate::{Error, programs};

/// The database every server has.
const DATABASE: &str = "nexus";

/// A MariaDB server with full durability: an acknowledged commit survives [`Process::kill`].
///
/// It listens on TCP only; the user `root` has no password.
#[derive(Debug)]
pub struct MariaDb {
    // Before the home: the process ends before its folder is removed.
    process: Process,
    port: u16,
    user: &'static str,
    _home: Home,
}

/// What may be chosen about a [`MariaDb`].
#[derive(Debug, Clone, Default)]
pub struct MariaDbOptions {
    /// The TCP port; a free one by default.
    pub port: Option<u16>,
    /// The folder of its data and its log. One that holds a database already is taken up again.
    /// By default a temporary one.
    pub data_dir: Option<PathBuf>,
    /// TLS, and then nothing else; the user is then `nexus`, who must show a certificate and needs no
    /// password. By default none.
    pub tls: Option<ServerFiles>,
    /// The only node of a Galera cluster, which it bootstraps: it can be made to lose its quorum and to get it
    /// back, but not be restarted after [`Process::kill`]. By default no Galera.
    pub galera: bool,
    /// Further options of the server, such as `--read-only`. By default none.
    pub args: Vec<String>,
}

impl MariaDb {
    /// Starts a fresh server with an empty database `nexus` on a free port, and waits until it
    /// answers a query.
    ///
    /// # Errors
    ///
    /// [`Error::MissingProgram`], [`Error::CommandFailed`] when the data cannot be initialised,
    /// and as [`Process::start`].
    pub fn start() -> Result<Self, Error> {
        Self::start_with(MariaDbOptions::default())
    }

    /// [`Self::start`] with options.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_with(options: MariaDbOptions) -> Result<Self, Error> {
        let program = programs::MARIADBD.find()?;
        let client = programs::MARIADB.find()?;
        let home = Home::open(options.data_dir, "mariadb")?;
        let port = options.port.unwrap_or_else(free_port);
        let mut args = server_args(&home, port, options.tls.as_ref())?;
        // A node of Galera that is not ready answers what needs no table.
        let query = match options.galera {
            true => "SELECT COUNT(*) FROM mysql.db",
            false => "SELECT 1",
        };
        if options.galera {
            args.extend(galera_args()?);
        }
        args.extend(options.args.into_iter().map(OsString::from));
        initialise(&home)?;
        let user = match options.tls {
            None => "root",
            Some(_) => "nexus",
        };
        let process = Process::start(Launch {
            name: "mariadb".to_owned(),
            program,
            args,
            log: home.join("mariadb.log"),
            ready: Box::new(move |_| answers_query(&client, port, options.tls.as_ref(), query)),
        })?;
        Ok(Self {
            process,
            port,
            user,
            _home: home,
        })
    }

    /// `mysql://root@127.0.0.1:PORT/nexus`, with TLS `mysql://nexus@...`.
    pub fn url(&self) -> String {
        self.url_at(self.address())
    }

    /// [`Self::url`] for those who reach the server at another address.
    pub(crate) fn url_at(&self, address: SocketAddr) -> String {
        format!("mysql://{}@{address}/{DATABASE}", self.user)
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Deref for MariaDb {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

/// Creates the system tables, unless they are there.
fn initialise(home: &Home) -> Result<(), Error> {
    // Made under another name, so that what is called `data` is complete.
    let (data, unfinished) = (home.join("data"), home.join("data.unfinished"));
    if data.exists() {
        return Ok(());
    }
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)
            .map_err(Error::io(format!("removing {}", unfinished.display())))?;
    }
    let program = programs::MARIADB_INSTALL_DB.find()?;
    let output = Command::new(&program)
        .arg("--no-defaults")
        .args(user_args())
        .arg(option("--datadir=", &unfinished))
        // A starting server removes what it takes for leftovers from the folder of temporary
        // tables, so it must not be shared.
        .arg(option("--tmpdir=", home.path()))
        // Without this, root of the database is whoever is root of the machine.
        .arg("--auth-root-authentication-method=normal")
        .args(["--skip-test-db", "--skip-name-resolve"])
        .stdin(Stdio::null())
        .output()
        .map_err(Error::io(format!("starting {}", program.display())))?;
    if !output.status.success() {
        return Err(Error::CommandFailed {
            command: program.display().to_string(),
            status: output.status,
            output: [output.stdout, output.stderr]
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                .concat(),
        });
    }
    fs::rename(&unfinished, &data).map_err(Error::io(format!("creating {}", data.display())))
}

fn server_args(home: &Home, port: u16, tls: Option<&ServerFiles>) -> Result<Vec<OsString>, Error> {
    let mut sql = format!("CREATE DATABASE IF NOT EXISTS {DATABASE} CHARACTER SET utf8mb4;\n");
    if tls.is_some() {
        sql += &format!(
            "CREATE OR REPLACE USER nexus@'127.0.0.1' REQUIRE X509;\n\
             GRANT ALL ON {DATABASE}.* TO nexus@'127.0.0.1';\n"
        );
    }
    let init = home.write("init.sql", &sql)?;
    let mut args: Vec<OsString> = vec!["--no-defaults".into()];
    args.extend(user_args());
    args.extend([
        option("--datadir=", &home.join("data")),
        option("--tmpdir=", home.path()),
        option("--pid-file=", &home.join("mariadb.pid")),
        option("--init-file=", &init),
        format!("--port={port}").into(),
        "--bind-address=127.0.0.1".into(),
        // No Unix socket: its path may be 107 bytes long, a folder's path longer.
        "--socket=".into(),
        "--skip-name-resolve".into(),
        "--character-set-server=utf8mb4".into(),
        "--max-connections=500".into(),
        "--innodb-buffer-pool-size=256M".into(),
        "--innodb-flush-log-at-trx-commit=1".into(),
        // With the default of 96 MiB a chat under load fills it every few seconds, and each time
        // pages are written that would be written once more soon.
        "--innodb-log-file-size=512M".into(),
    ]);
    if let Some(tls) = tls {
        args.extend([
            option("--ssl-cert=", &tls.identity.certificate),
            option("--ssl-key=", &tls.identity.key),
            option("--ssl-ca=", &tls.client_ca),
            "--require-secure-transport=ON".into(),
        ]);
    }
    Ok(args)
}

/// A cluster of one node, on ports of its own.
fn galera_args() -> Result<Vec<OsString>, Error> {
    let library = programs::GALERA.find()?;
    let (group, transfer) = (free_port(), free_port());
    Ok(vec![
        "--wsrep-on=ON".into(),
        option("--wsrep-provider=", &library),
        "--wsrep-cluster-address=gcomm://".into(),
        format!("--wsrep-node-address=127.0.0.1:{group}").into(),
        format!(
            "--wsrep-provider-options=base_port={group};gmcast.listen_addr=tcp://127.0.0.1:{group};\
             ist.recv_addr=127.0.0.1:{transfer};pc.recovery=false;gcache.size=8M"
        )
        .into(),
        // What Galera requires.
        "--binlog-format=ROW".into(),
        "--innodb-autoinc-lock-mode=2".into(),
    ])
}

/// The server refuses to run as root unless told so.
fn user_args() -> Option<OsString> {
    geteuid().is_root().then(|| "--user=root".into())
}

/// `NAME=PATH` as one argument, for paths that need not be UTF-8.
fn option(name: &str, path: &Path) -> OsString {
    let mut option = OsString::from(name);
    option.push(path);
    option
}

/// Whether a query gets its answer, asked by the server's own client program: it knows the
/// handshake, and this crate stays free of a database driver.
fn answers_query(client: &Path, port: u16, tls: Option<&ServerFiles>, query: &str) -> bool {
    let mut command = Command::new(client);
    command.args(["--no-defaults", "--protocol=tcp", "--host=127.0.0.1"]);
    match tls {
        None => command.arg("--user=root"),
        Some(tls) => command
            .arg("--user=nexus")
            .arg(option("--ssl-ca=", &tls.client_ca))
            .arg(option("--ssl-cert=", &tls.probe.certificate))
            .arg(option("--ssl-key=", &tls.probe.key)),
    };
    command
        .args([
            &format!("--port={port}"),
            "--connect-timeout=1",
            &format!("--execute={query}"),
            DATABASE,
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
