//! Waiting for a condition, and finding the repository.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Waits until `condition` holds. It is evaluated every few milliseconds, on the calling thread.
///
/// # Panics
///
/// When it does not hold within `deadline`; the message is `what`.
#[track_caller]
pub fn wait_until(what: &str, deadline: Duration, condition: impl FnMut() -> bool) {
    assert!(
        holds_within(deadline, condition),
        "not within {deadline:?}: {what}"
    );
}

/// Waits like [`wait_until`] and says whether the condition came to hold. It is evaluated at
/// least once.
pub(crate) fn holds_within(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() >= deadline {
            return false;
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// The top folder of the repository this crate was built in.
pub fn repository_root() -> PathBuf {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The crate is `xtask/testkit`, two below the root.
    crate_dir
        .ancestors()
        .nth(2)
        .unwrap_or(crate_dir)
        .to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_comes_to_hold_ends_the_wait() {
        let mut looks = 0;
        wait_until("three looks", Duration::from_secs(60), || {
            looks += 1;
            looks == 3
        });
    }

    #[test]
    #[should_panic(expected = "the moon is cheese")]
    fn a_condition_that_never_holds_panics_with_its_name() {
        wait_until("the moon is cheese", Duration::from_millis(20), || false);
    }

    #[test]
    fn repository_root_holds_the_workspace() {
        let manifest = std::fs::read_to_string(repository_root().join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[workspace]"));
    }
}
