//! Session tokens: 256 random bits that stand for a login. The store keeps their hashes, so who reads
//! the store can log in as nobody. They are in no log and no error.

use bytes::Bytes;
use chat_store::TokenHash;
use sha2::{Digest, Sha256};

const TOKEN_BYTES: usize = 32;

/// A token, as the client has it.
pub(crate) struct Token([u8; TOKEN_BYTES]);

/// The system gives no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("no random bytes: {0}")]
pub(crate) struct NoRandomness(getrandom::Error);

impl Token {
    pub(crate) fn random() -> Result<Self, NoRandomness> {
        let mut token = [0; TOKEN_BYTES];
        getrandom::fill(&mut token).map_err(NoRandomness)?;
        Ok(Self(token))
    }

    /// What a client sent; `None` for what cannot be a token.
    pub(crate) fn read(bytes: &Bytes) -> Option<Self> {
        bytes.as_ref().try_into().ok().map(Self)
    }

    pub(crate) fn to_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }

    /// A single pass of SHA-256: there is nothing to guess in random bits, so nothing has to be slow.
    pub(crate) fn hash(&self) -> TokenHash {
        TokenHash(Sha256::digest(self.0).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_random_and_only_32_bytes_are_one() {
        let (a, b) = (Token::random().unwrap(), Token::random().unwrap());
        assert_ne!(a.to_bytes(), b.to_bytes());
        assert!(Token::read(&a.to_bytes()).is_some_and(|read| read.hash() == a.hash()));
        for length in [0, 31, 33, 1000] {
            assert!(Token::read(&Bytes::from(vec![0; length])).is_none());
        }
    }

    #[test]
    fn the_hash_is_sha_256() {
        // The example of 32 zero bytes.
        let hash = Token([0; 32]).hash();
        let expected = "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925";
        assert_eq!(hash.to_hex(), expected);
    }
}
