//! What can go wrong when a server is started.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

/// Why a server could not be started, or did not come back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program is not installed.
    #[error("{program} is not installed; to install it: apt-get install {package}")]
    MissingProgram {
        /// The program or file that was looked for.
        program: String,
        /// The Debian package that brings it.
        package: String,
    },
    /// The operating system refused something: a file, a folder, a new process.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate cannot be made.
    #[error("making a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A command that should have done its work and ended well did not.
    #[error("{command} failed ({status}):\n{output}")]
    CommandFailed {
        /// The command.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it printed, or the end of it.
        output: String,
    },
    /// The process ended before it was ready.
    #[error("{name} ended before it was ready ({status}); its log ends:\n{log_tail}")]
    Exited {
        /// The process.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log_tail: String,
    },
    /// The process runs but did not answer in time.
    #[error("{name} was not ready after {waited:?}; its log ends:\n{log_tail}")]
    NotReady {
        /// The process.
        name: String,
        /// How long it was waited for.
        waited: Duration,
        /// The end of its log.
        log_tail: String,
    },
}

impl Error {
    /// For `map_err`: says what was being done when the system refused.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}
