//! This process's limits, which the processes it starts inherit.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// As many open files as are asked for, when the system allows it.
const OPEN_FILES_MAX: u64 = 65_536;

/// Raises the soft limit of open files: the usual 1,024 are too few for a server under a load
/// test, and for the test.
pub(crate) fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(OPEN_FILES_MAX, |maximum| maximum.min(OPEN_FILES_MAX));
    if current.is_some_and(|current| current < wanted) {
        // Refused: the servers run with what there is.
        let _ = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: Some(wanted),
                maximum,
            },
        );
    }
}
