//! Passwords: Argon2id, stored as PHC strings. They are in no log and no error.
//!
//! Hashing is costly on purpose, and what a stranger can ask for. So only a few passwords are hashed at
//! a time, and only a few callers wait for that, since each of them is a worker that others want.
//!
//! The memory that hashing takes (19 MiB at the default cost) is allocated once for each of those that may run
//! at a time and used again: an allocator that gets such pieces from many threads keeps one for each of them.

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use parking_lot::{Condvar, Mutex};

/// What hashing one password costs. A stored hash keeps the cost it was made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswordCost {
    /// Memory in KiB. Default 19,456 (19 MiB), as OWASP recommends with 2 passes.
    pub memory_kib: u32,
    /// Passes over the memory. Default 2.
    pub passes: u32,
}

impl Default for PasswordCost {
    fn default() -> Self {
        Self {
            memory_kib: 19 * 1024,
            passes: 2,
        }
    }
}

impl PasswordCost {
    /// The least that Argon2 takes: for tests, where thousands of users register.
    pub const MINIMAL: Self = Self {
        memory_kib: 8,
        passes: 1,
    };
}

/// A password was not hashed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PasswordError {
    /// As many are being hashed, and wait for it, as may.
    #[error("too many passwords to hash")]
    Busy,
    /// A fault of the system or of a stored hash.
    #[error("password hashing failed: {0}")]
    Failed(String),
}

pub(crate) struct Passwords {
    argon2: Argon2<'static>,
    turnstile: Turnstile,
    /// What those inside hash in.
    memories: Mutex<Vec<Memory>>,
}

impl Passwords {
    /// Hashes `at_once` passwords at a time and has `waiting_max` callers wait. With parameters that
    /// Argon2 does not take, its own defaults are used.
    pub(crate) fn new(cost: PasswordCost, at_once: usize, waiting_max: usize) -> Self {
        let params = Params::new(cost.memory_kib, cost.passes, 1, None).unwrap_or_default();
        Self {
            argon2: Argon2::new(Algorithm::Argon2id, Version::V0x13, params),
            turnstile: Turnstile::new(at_once, waiting_max),
            memories: Mutex::default(),
        }
    }

    pub(crate) fn hash(&self, password: &[u8]) -> Result<String, PasswordError> {
        let params = self.argon2.params();
        let salt = Salt::generate();
        let mut output = [0; Params::DEFAULT_OUTPUT_LEN];
        self.with_memory(|memory| memory.fill(&self.argon2, password, &salt, &mut output))?;
        let hash = PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(params).map_err(failed)?,
            salt: Some(salt),
            hash: Some(Output::new(&output).map_err(failed)?),
        };
        Ok(hash.to_string())
    }

    /// Whether one of the passwords is the one. All are looked at in one turn: who is told "busy" has had
    /// none looked at.
    pub(crate) fn verify_any<'p>(
        &self,
        passwords: impl IntoIterator<Item = &'p [u8]>,
        hash: &str,
    ) -> Result<bool, PasswordError> {
        let stored = Stored::parse(hash)?;
        self.with_memory(|memory| {
            for password in passwords {
                if stored.is_of(password, memory)? {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }

    /// Takes the time that [`verify_any`](Self::verify_any) takes for wrong passwords.
    pub(crate) fn verify_nobodys<'p>(
        &self,
        passwords: impl IntoIterator<Item = &'p [u8]>,
    ) -> Result<(), PasswordError> {
        let nobodys = nobodys(self.argon2.params());
        self.verify_any(passwords, &nobodys).map(drop)
    }

    /// Waits for a turn, and runs `hash` in memory that is kept for the next.
    fn with_memory<R>(
        &self,
        hash: impl FnOnce(&mut Memory) -> Result<R, PasswordError>,
    ) -> Result<R, PasswordError> {
        let _pass = self.turnstile.enter().ok_or(PasswordError::Busy)?;
        let mut memory = self.memories.lock().pop().unwrap_or_default();
        let result = hash(&mut memory);
        memory.keep(self.argon2.params().block_count());
        self.memories.lock().push(memory);
        result
    }
}

/// A hash as it was stored, with what it was made with.
struct Stored {
    argon2: Argon2<'static>,
    salt: Salt,
    output: Output,
}

impl Stored {
    fn parse(hash: &str) -> Result<Self, PasswordError> {
        let hash = PasswordHash::new(hash).map_err(failed)?;
        let algorithm = Algorithm::try_from(hash.algorithm.as_str()).map_err(failed)?;
        let version = hash.version.map(Version::try_from).transpose();
        let version = version.map_err(failed)?.unwrap_or_default();
        let params = Params::try_from(&hash).map_err(failed)?;
        let (Some(salt), Some(output)) = (hash.salt, hash.hash) else {
            return Err(failed("a stored hash without salt or hash"));
        };
        Ok(Self {
            argon2: Argon2::new(algorithm, version, params),
            salt,
            output,
        })
    }

    fn is_of(&self, password: &[u8], memory: &mut Memory) -> Result<bool, PasswordError> {
        let mut output = [0; Output::MAX_LENGTH];
        let output = output
            .get_mut(..self.output.len())
            .ok_or_else(|| failed("a hash of a wrong length"))?;
        memory.fill(&self.argon2, password, &self.salt, output)?;
        // Compared in constant time.
        Ok(Output::new(output).map_err(failed)? == self.output)
    }
}

/// The memory of one hash.
#[derive(Default)]
struct Memory(Vec<Block>);

impl Memory {
    fn fill(
        &mut self,
        argon2: &Argon2<'_>,
        password: &[u8],
        salt: &Salt,
        output: &mut [u8],
    ) -> Result<(), PasswordError> {
        let blocks = argon2.params().block_count();
        if self.0.len() < blocks {
            // Not grown: what is in it is of no use.
            self.0 = Vec::new();
            self.0.try_reserve_exact(blocks).map_err(failed)?;
            self.0.resize(blocks, Block::new());
        }
        argon2
            .hash_password_into_with_memory(password, salt, output, &mut self.0)
            .map_err(failed)
    }

    /// Keeps as many blocks as the usual hash takes; a stored one may have taken more.
    fn keep(&mut self, blocks: usize) {
        if self.0.len() > blocks {
            self.0 = Vec::new();
        }
    }
}

/// A stored hash of these parameters that no password is known to have.
fn nobodys(params: &Params) -> String {
    let (memory, passes, lanes) = (params.m_cost(), params.t_cost(), params.p_cost());
    let (salt, hash) = ("A".repeat(22), "A".repeat(43));
    format!("$argon2id$v=19$m={memory},t={passes},p={lanes}${salt}${hash}")
}

fn failed(error: impl std::fmt::Display) -> PasswordError {
    PasswordError::Failed(error.to_string())
}

/// Lets a few through at a time and a few wait.
struct Turnstile {
    at_once: usize,
    waiting_max: usize,
    state: Mutex<Turns>,
    one_left: Condvar,
}

#[derive(Default)]
struct Turns {
    inside: usize,
    waiting: usize,
}

/// The right to be inside, until dropped.
struct Pass<'a>(&'a Turnstile);

impl Turnstile {
    fn new(at_once: usize, waiting_max: usize) -> Self {
        Self {
            at_once,
            waiting_max,
            state: Mutex::default(),
            one_left: Condvar::new(),
        }
    }

    /// Waits for its turn; `None`, at once: too many wait already.
    fn enter(&self) -> Option<Pass<'_>> {
        let mut turns = self.state.lock();
        if turns.inside >= self.at_once {
            if turns.waiting >= self.waiting_max {
                return None;
            }
            turns.waiting += 1;
            while turns.inside >= self.at_once {
                self.one_left.wait(&mut turns);
            }
            turns.waiting -= 1;
        }
        turns.inside += 1;
        Some(Pass(self))
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.0.state.lock().inside -= 1;
        self.0.one_left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn passwords(cost: PasswordCost) -> Passwords {
        Passwords::new(cost, 1, 0)
    }

    #[test]
    fn the_right_password_verifies_and_a_wrong_one_does_not() {
        let passwords = passwords(PasswordCost::MINIMAL);
        let hash = passwords.hash("秘密".as_bytes()).unwrap();
        assert!(hash.starts_with("$argon2id$"), "{hash}");
        let verify = |those: &[&str]| {
            let those = those.iter().map(|password| password.as_bytes());
            passwords.verify_any(those, &hash).unwrap()
        };
        assert!(verify(&["秘密"]));
        assert!(verify(&["guess", "秘密"]));
        assert!(!verify(&["guess", "another"]));
        assert_ne!(hash, passwords.hash("秘密".as_bytes()).unwrap(), "salted");
    }

    #[test]
    fn a_hash_made_at_another_cost_still_verifies() {
        let hash = passwords(PasswordCost::MINIMAL).hash(b"x").unwrap();
        let other = passwords(PasswordCost {
            memory_kib: 16,
            passes: 2,
        });
        assert!(other.verify_any([&b"x"[..]], &hash).unwrap());
    }

    #[test]
    fn nobodys_hash_costs_what_a_users_does_and_no_password_has_it() {
        let passwords = passwords(PasswordCost {
            memory_kib: 16,
            passes: 2,
        });
        let of_user = passwords.hash(b"secret").unwrap();
        let nobodys = nobodys(passwords.argon2.params());
        let cost = |hash: &str| hash.split('$').nth(3).map(str::to_owned);
        assert_eq!(cost(&nobodys), cost(&of_user));
        assert_eq!(nobodys.len(), of_user.len());
        assert!(!passwords.verify_any([&b"secret"[..]], &nobodys).unwrap());
        assert!(passwords.verify_nobodys([&b"secret"[..]]).is_ok());
    }

    #[test]
    fn a_damaged_hash_is_an_error_and_no_wrong_password() {
        assert!(
            passwords(PasswordCost::MINIMAL)
                .verify_any([&b"x"[..]], "nonsense")
                .is_err()
        );
    }

    const HASHES_OF_PASSWORD: [&str; 4] = [
        "$argon2id$v=19$m=64,t=2,p=1$c29tZXNhbHQxMg$k4+cODflMb8R0nqK/x8fV6ILCOx4fz2Kl1JqEPjCYyo",
        "$argon2i$v=19$m=64,t=2,p=1$c29tZXNhbHQxMg$HGXgyU+BOntvEU3xzfcUiwdvaheMNl6Gj94pbUfDIKo",
        "$argon2d$v=19$m=64,t=2,p=1$c29tZXNhbHQxMg$ixkZUYCB8CxfmK97If7wHLIvNtsUQ3j+ydx16zKdgnw",
        "$argon2id$v=19$m=64,t=1,p=2$c29tZXNhbHQxMg$6snsPp1vZPpJDFIBiA6A9w",
    ];

    #[test]
    fn hashes_that_other_programs_have_made_verify() {
        // By the reference implementation: argon2 of Debian's package argon2, with -id, -i and -d, and with two
        // lanes and 16 bytes.
        for hash in HASHES_OF_PASSWORD {
            let passwords = passwords(PasswordCost::MINIMAL);
            let verify = |password: &[u8]| passwords.verify_any([password], hash);
            assert!(verify(b"password").unwrap(), "{hash}");
            assert!(!verify(b"passwort").unwrap(), "{hash}");
        }
    }

    #[test]
    fn the_memory_of_a_hash_is_used_for_the_next_and_a_larger_one_is_given_back() {
        let passwords = Passwords::new(PasswordCost::MINIMAL, 4, 100);
        let hash = passwords.hash(b"x").unwrap();
        let kept = || {
            let memories = passwords.memories.lock();
            let place = |memory: &Memory| (memory.0.as_ptr() as usize, memory.0.len());
            memories.iter().map(place).collect::<Vec<_>>()
        };
        let first = kept();
        assert_eq!(first.len(), 1);
        assert_eq!(first[0].1, 8);
        for _ in 0..10 {
            assert!(passwords.verify_any([&b"x"[..]], &hash).unwrap());
            assert!(passwords.verify_any([&b"x"[..]], "nonsense").is_err());
        }
        assert_eq!(kept(), first);
        let costly = PasswordCost {
            memory_kib: 1024,
            passes: 1,
        };
        let costly = Passwords::new(costly, 1, 0).hash(b"x").unwrap();
        assert!(passwords.verify_any([&b"x"[..]], &costly).unwrap());
        assert!(
            kept().iter().all(|&(_, blocks)| blocks <= 8),
            "{:?}",
            kept()
        );
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| passwords.verify_any([&b"x"[..]], &hash).unwrap());
            }
        });
        assert!((1..=4).contains(&kept().len()), "{:?}", kept());
    }

    #[test]
    fn a_few_are_inside_a_few_wait_and_the_rest_is_turned_away() {
        let turnstile = Turnstile::new(2, 1);
        let (first, second) = (turnstile.enter().unwrap(), turnstile.enter().unwrap());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| turnstile.enter().is_some());
            while turnstile.state.lock().waiting == 0 {
                std::thread::yield_now();
            }
            assert!(turnstile.enter().is_none());
            drop(first);
            assert!(waiting.join().unwrap());
        });
        drop(second);
        assert_eq!(turnstile.state.lock().inside, 0);
    }

    #[test]
    fn however_many_come_no_more_are_inside_than_may() {
        let turnstile = Turnstile::new(2, 100);
        let inside = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let _pass = turnstile.enter().unwrap();
                        assert!(inside.fetch_add(1, Ordering::SeqCst) < 2);
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
    }
}
