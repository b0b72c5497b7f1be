//! Making the users of a load: straight in the store, where that can be reached, or over the protocol.
//!
//! Registering hashes a password, which is expensive on purpose; in the store all users get the same hash,
//! of the least cost, so that thousands are ready within seconds.

mod protocol;
mod store;

pub use protocol::register;
pub use store::{seed, seed_with};

use crate::roster::Roster;

/// The users of a load cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The store's address cannot be used.
    #[error(transparent)]
    Url(#[from] chat_store::MySqlError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] chat_store::StoreError),
    /// The chat cannot be reached.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Something answered otherwise than it should.
    #[error("{what}: {answer}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// What came back.
        answer: String,
    },
}

/// The password of all users of a load. They exist in databases of tests only.
const PASSWORD: &str = "chat load";
/// Threads that make users at a time.
const THREADS: usize = 16;

/// Runs `make` for 0 to `count` on several threads; the results in that order.
fn in_parallel<T: Send>(
    count: usize,
    make: impl Fn(usize) -> Result<T, SetupError> + Sync,
) -> Result<Vec<T>, SetupError> {
    let share = count.div_ceil(THREADS).max(1);
    std::thread::scope(|scope| {
        let make = &make;
        let begin = |first: usize| {
            let last = (first + share).min(count);
            scope.spawn(move || (first..last).map(make).collect::<Result<Vec<T>, _>>())
        };
        let threads: Vec<_> = (0..count).step_by(share).map(begin).collect();
        let mut made = Vec::with_capacity(count);
        for thread in threads {
            let part = thread.join().map_err(|_| SetupError::Refused {
                what: "making users",
                answer: "a thread panicked".to_owned(),
            })?;
            made.extend(part?);
        }
        Ok(made)
    })
}

fn empty_roster() -> Roster {
    Roster {
        password: PASSWORD.to_owned(),
        ..Roster::default()
    }
}

/// A prefix for the names of one load's users.
fn fresh_prefix() -> String {
    format!("load {:08x}", rand::random::<u32>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_threads_come_in_order() {
        for count in [0, 1, 15, 16, 17, 100] {
            let made = in_parallel(count, Ok).unwrap();
            assert_eq!(made, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_first_failure_is_the_result() {
        let made = in_parallel(100, |index| match index {
            77 => Err(SetupError::Io(std::io::Error::other("the seventy-seventh"))),
            index => Ok(index),
        });
        assert!(made.is_err());
    }
}
