//! What a user comes back with, instead of the password.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use chat_proto::conversation::UserId;

/// Longer ones are not from a chat server.
const SECRET_BYTES_MAX: usize = 256;

/// Stands for a login: with it the session can be [resumed](crate::ChatClient::resume), also by another
/// process, until it expires, the user logs out or logs in with the password somewhere.
///
/// Who has it is the user. It is printed nowhere; [`to_text`](Self::to_text) gives it away.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionToken {
    user: UserId,
    secret: Bytes,
}

impl SessionToken {
    /// `None` if there is no secret.
    pub(crate) fn new(user: UserId, secret: &Bytes) -> Option<Self> {
        // A copy: the field is a piece of the buffer that was read.
        let secret = Bytes::copy_from_slice(secret);
        (!secret.is_empty() && secret.len() <= SECRET_BYTES_MAX).then_some(Self { user, secret })
    }

    pub(crate) fn secret(&self) -> &Bytes {
        &self.secret
    }

    /// Whose session it is.
    pub fn user(&self) -> UserId {
        self.user
    }

    /// The token in one line, for a file that nobody else can read. [`str::parse`] reads it again.
    pub fn to_text(&self) -> String {
        format!("{}:{}", self.user, hex::encode(&self.secret))
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionToken")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// The text is not that of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a session token")]
pub struct NotAToken;

impl FromStr for SessionToken {
    type Err = NotAToken;

    fn from_str(text: &str) -> Result<Self, NotAToken> {
        let (user, secret) = text.trim().split_once(':').ok_or(NotAToken)?;
        let user = user.parse().ok().and_then(UserId::new).ok_or(NotAToken)?;
        let secret = hex::decode(secret).map_err(|_| NotAToken)?;
        Self::new(user, &secret.into()).ok_or(NotAToken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_as_text_and_is_not_printed() {
        let user = UserId::new(7).unwrap();
        let token = SessionToken::new(user, &Bytes::from_static(b"secret")).unwrap();
        assert_eq!(token.to_text().parse(), Ok(token.clone()));
        assert_eq!(format!("{}\n", token.to_text()).parse(), Ok(token.clone()));
        let printed = format!("{token:?}");
        assert!(!printed.contains("secret") && !printed.contains(&hex::encode("secret")));
    }

    #[test]
    fn other_texts_are_no_token() {
        for text in [
            "", "7", "7:", ":ab", "0:ab", "-1:ab", "7:xy", "7:abc", "7:ab:cd",
        ] {
            assert_eq!(text.parse::<SessionToken>(), Err(NotAToken), "{text}");
        }
        let long = format!("7:{}", "ab".repeat(SECRET_BYTES_MAX + 1));
        assert_eq!(long.parse::<SessionToken>(), Err(NotAToken));
    }
}
