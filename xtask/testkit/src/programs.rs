//! The programs and files this crate starts servers from, and the Debian packages that bring them.

use std::env;
use std::path::{Path, PathBuf};

use crate::Error;

/// Something that has to be installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requirement {
    /// The name of a program, or the absolute path of a file.
    pub program: &'static str,
    /// The Debian package that brings it.
    pub package: &'static str,
}

pub(crate) const MARIADBD: Requirement = Requirement::new("mariadbd", "mariadb-server");
pub(crate) const MARIADB_INSTALL_DB: Requirement =
    Requirement::new("mariadb-install-db", "mariadb-server");
pub(crate) const MARIADB: Requirement = Requirement::new("mariadb", "mariadb-client");
pub(crate) const GALERA: Requirement =
    Requirement::new("/usr/lib/galera/libgalera_smm.so", "galera-4");
pub(crate) const REDIS: Requirement = Requirement::new("redis-server", "redis-server");
pub(crate) const REDIS_CLI: Requirement = Requirement::new("redis-cli", "redis-tools");
pub(crate) const JAVA: Requirement = Requirement::new("java", "default-jre-headless");
pub(crate) const ZOOKEEPER_JAR: Requirement =
    Requirement::new("/usr/share/java/zookeeper.jar", "zookeeper");
pub(crate) const SLF4J_JAR: Requirement =
    Requirement::new("/usr/share/java/slf4j-simple.jar", "libslf4j-java");
pub(crate) const NGINX: Requirement = Requirement::new("nginx", "nginx");
pub(crate) const NGINX_STREAM: Requirement = Requirement::new(
    "/usr/lib/nginx/modules/ngx_stream_module.so",
    "libnginx-mod-stream",
);
/// For the commands of the README.
pub(crate) const CURL: Requirement = Requirement::new("curl", "curl");
/// For the build of the allocator of `chat-server` and `chat-proxy`.
pub(crate) const MAKE: Requirement = Requirement::new("make", "make");

const ALL: [Requirement; 13] = [
    MARIADBD,
    MARIADB_INSTALL_DB,
    MARIADB,
    GALERA,
    REDIS,
    REDIS_CLI,
    ZOOKEEPER_JAR,
    JAVA,
    SLF4J_JAR,
    NGINX,
    NGINX_STREAM,
    CURL,
    MAKE,
];

/// Where programs are looked for beside `PATH`: servers live in the `sbin` folders, which an
/// ordinary user's `PATH` leaves out on Debian.
const SBIN: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Everything of this crate's needs that is not installed, in a fixed order.
pub fn missing() -> Vec<Requirement> {
    ALL.into_iter()
        .filter(|requirement| requirement.find().is_err())
        .collect()
}

impl Requirement {
    const fn new(program: &'static str, package: &'static str) -> Self {
        Self { program, package }
    }

    /// Where it is installed.
    ///
    /// # Errors
    ///
    /// [`Error::MissingProgram`] when it is not.
    pub fn find(&self) -> Result<PathBuf, Error> {
        let path = env::var_os("PATH").unwrap_or_default();
        // An absolute path replaces the folder it is joined to.
        env::split_paths(&path)
            .chain(SBIN.map(PathBuf::from))
            .map(|folder| folder.join(self.program))
            .find(|candidate| is_file(candidate))
            .ok_or_else(|| Error::MissingProgram {
                program: self.program.to_owned(),
                package: self.package.to_owned(),
            })
    }
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_names_the_package_to_install() {
        let requirement = Requirement::new("no-such-program", "no-such-package");
        let message = requirement.find().unwrap_err().to_string();
        assert!(message.contains("no-such-program"), "{message}");
        assert!(
            message.contains("apt-get install no-such-package"),
            "{message}"
        );
    }

    #[test]
    fn a_missing_file_names_the_package_to_install() {
        let requirement = Requirement::new("/no/such/file.so", "no-such-package");
        assert!(
            requirement
                .find()
                .unwrap_err()
                .to_string()
                .contains("no-such-package")
        );
    }

    #[test]
    fn programs_and_files_are_found() {
        assert!(NGINX.find().unwrap().is_absolute());
        assert_eq!(
            NGINX_STREAM.find().unwrap(),
            Path::new(NGINX_STREAM.program)
        );
    }
}
