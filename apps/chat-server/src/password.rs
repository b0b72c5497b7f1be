//! Passwords: Argon2id, stored as PHC strings. They are in no log and no error.

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};

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

/// The hashing failed: a fault of the system or of a stored hash.
#[derive(Debug, thiserror::Error)]
#[error("password hashing failed: {0}")]
pub(crate) struct HashingFailed(String);

pub(crate) struct Passwords {
    argon2: Argon2<'static>,
}

impl Passwords {
    /// With parameters that Argon2 does not take, its own defaults are used.
    pub(crate) fn new(cost: PasswordCost) -> Self {
        let params = Params::new(cost.memory_kib, cost.passes, 1, None).unwrap_or_default();
        Self {
            argon2: Argon2::new(Algorithm::Argon2id, Version::V0x13, params),
        }
    }

    pub(crate) fn hash(&self, password: &[u8]) -> Result<String, HashingFailed> {
        match self.argon2.hash_password(password) {
            Ok(hash) => Ok(hash.to_string()),
            Err(error) => Err(HashingFailed(error.to_string())),
        }
    }

    pub(crate) fn verify(&self, password: &[u8], hash: &str) -> Result<bool, HashingFailed> {
        let hash = PasswordHash::new(hash).map_err(|error| HashingFailed(error.to_string()))?;
        match self.argon2.verify_password(password, &hash) {
            Ok(()) => Ok(true),
            Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
            Err(error) => Err(HashingFailed(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_password_verifies_and_a_wrong_one_does_not() {
        let passwords = Passwords::new(PasswordCost::MINIMAL);
        let hash = passwords.hash("秘密".as_bytes()).unwrap();
        assert!(hash.starts_with("$argon2id$"), "{hash}");
        assert!(passwords.verify("秘密".as_bytes(), &hash).unwrap());
        assert!(!passwords.verify(b"guess", &hash).unwrap());
        assert_ne!(hash, passwords.hash("秘密".as_bytes()).unwrap(), "salted");
    }

    #[test]
    fn a_hash_made_at_another_cost_still_verifies() {
        let hash = Passwords::new(PasswordCost::MINIMAL).hash(b"x").unwrap();
        let other = Passwords::new(PasswordCost {
            memory_kib: 16,
            passes: 2,
        });
        assert!(other.verify(b"x", &hash).unwrap());
    }

    #[test]
    fn a_damaged_hash_is_an_error_and_no_wrong_password() {
        assert!(
            Passwords::new(PasswordCost::MINIMAL)
                .verify(b"x", "nonsense")
                .is_err()
        );
    }
}
