//! How to reach a ZooKeeper and as whom: options, and the url that says the same.

use std::time::Duration;
use std::{fmt, io};

use percent_encoding::percent_decode_str;

use crate::registry::RegistryUrlError;

/// How to use a ZooKeeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZooKeeperOptions {
    /// The servers, each `host:port`. Names are looked up anew for every session.
    pub servers: Vec<String>,
    /// Below which node everything lies. Default `/nexus`. The registry creates the nodes that are
    /// missing; it needs no permission on those that exist.
    pub root: String,
    /// Who this client is. Default: nobody, and everybody may change the nodes that it creates.
    pub credentials: Option<ZooKeeperCredentials>,
    /// How long the providers of a process that died stay listed. ZooKeeper bounds it by its own
    /// limits (4 s to 40 s unless configured). Default 6 s.
    pub session_timeout: Duration,
    /// How long one operation may take before the session counts as dead. Default 3 s.
    pub operation_deadline: Duration,
    /// How often everything is read again without cause, as watches are not trusted alone.
    /// Default 10 s.
    pub reread_interval: Duration,
    /// How long, after a reconnect, a list that has become empty is not believed: whoever was in it
    /// lost its session too and is about to register again. Default 10 s; zero believes at once.
    pub empty_grace: Duration,
}

/// A user of ZooKeeper's `digest` authentication scheme.
///
/// A client with credentials creates every node with two ACL entries: all permissions for its own
/// user, and READ for everybody. So only clients with the same user and password can register, change
/// or delete providers, and callers need no credentials.
///
/// ZooKeeper never refuses a wrong password. It computes another identity from it, and that identity
/// lacks the permissions: the first operation that needs one fails with `NoAuth`.
#[derive(Clone, PartialEq, Eq)]
pub struct ZooKeeperCredentials {
    /// The user's name. Not empty, and without a colon, which ends it in ZooKeeper.
    pub user: String,
    /// The password. Not empty.
    pub password: String,
}

/// Without the password.
impl fmt::Debug for ZooKeeperCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZooKeeperCredentials")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl ZooKeeperOptions {
    /// Default options for these servers.
    pub fn new(servers: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            servers: servers.into_iter().map(Into::into).collect(),
            root: "/nexus".into(),
            credentials: None,
            session_timeout: Duration::from_secs(6),
            operation_deadline: Duration::from_secs(3),
            reread_interval: Duration::from_secs(10),
            empty_grace: Duration::from_secs(10),
        }
    }

    /// Default options for `user:password@host:port,host:port/root`, where credentials and root are
    /// optional. User and password are percent-encoded: at least `%`, `/`, `@` and `:` in them are.
    ///
    /// # Errors
    /// See [`check`](Self::check).
    pub fn parse(text: &str) -> Result<Self, RegistryUrlError> {
        let (authority, root) = match text.find('/') {
            Some(slash) => text.split_at(slash),
            None => (text, ""),
        };
        let (credentials, servers) = match authority.rsplit_once('@') {
            Some((credentials, servers)) => (Some(parse_credentials(credentials)?), servers),
            None => (None, authority),
        };
        let mut options = Self::new(servers.split(',').map(str::trim));
        options.credentials = credentials;
        if !root.is_empty() {
            options.root = root.to_owned();
        }
        let checked = options.check();
        // A password with a slash in it: what is before the slash was taken for servers, and must not
        // be shown.
        if let Some((_, behind)) = root.rsplit_once('@')
            && (checked.is_err() || is_address(behind.split([',', '/']).next().unwrap_or_default()))
        {
            return Err(RegistryUrlError::BadCredentials);
        }
        checked.map(|()| options)
    }

    /// Whether the addresses, the root and the credentials have the right form. Looks nothing up.
    ///
    /// # Errors
    /// [`RegistryUrlError::BadAddress`], [`RegistryUrlError::BadRoot`],
    /// [`RegistryUrlError::BadCredentials`].
    pub fn check(&self) -> Result<(), RegistryUrlError> {
        let bad_address = |address: &str| RegistryUrlError::BadAddress {
            address: address.to_owned(),
            source: io::Error::new(io::ErrorKind::InvalidInput, "host:port is expected"),
        };
        if let Some(ZooKeeperCredentials { user, password }) = &self.credentials
            && (user.is_empty() || user.contains(':') || password.is_empty())
        {
            return Err(RegistryUrlError::BadCredentials);
        }
        if self.servers.is_empty() {
            return Err(bad_address(""));
        }
        if let Some(server) = self.servers.iter().find(|server| !is_address(server)) {
            return Err(bad_address(server));
        }
        let good = |part: &str| !matches!(part, "" | "." | "..");
        match self.root.strip_prefix('/') {
            Some(path) if path.split('/').all(good) => Ok(()),
            _ => Err(RegistryUrlError::BadRoot {
                root: self.root.clone(),
            }),
        }
    }
}

/// Whether it has the form of `host:port`.
fn is_address(text: &str) -> bool {
    let parts = text.rsplit_once(':');
    let parts = parts.map(|(host, port)| (host.is_empty(), port.parse::<u16>()));
    matches!(parts, Some((false, Ok(1..))))
}

/// `user:password`, each percent-encoded.
fn parse_credentials(text: &str) -> Result<ZooKeeperCredentials, RegistryUrlError> {
    let decode = |part: &str| match percent_decode_str(part).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_) => Err(RegistryUrlError::BadCredentials),
    };
    match text.split_once(':') {
        Some((user, password)) => Ok(ZooKeeperCredentials {
            user: decode(user)?,
            password: decode(password)?,
        }),
        None => Err(RegistryUrlError::BadCredentials),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(text: &str) -> (String, String) {
        let options = ZooKeeperOptions::parse(text).expect("valid");
        let credentials = options.credentials.expect("credentials");
        (credentials.user, credentials.password)
    }

    #[test]
    fn a_connect_string_may_have_a_root() {
        let options = ZooKeeperOptions::parse("a:2181, b:2182/chat/prod").expect("valid");
        assert_eq!(options.servers, ["a:2181", "b:2182"]);
        assert_eq!(options.root, "/chat/prod");
        assert_eq!(options.credentials, None);
        let options = ZooKeeperOptions::parse("[::1]:2181").expect("valid");
        assert_eq!(
            (options.servers.len(), options.root.as_str()),
            (1, "/nexus")
        );
    }

    #[test]
    fn a_connect_string_may_have_credentials() {
        let pair = |user: &str, password: &str| (user.to_owned(), password.to_owned());
        let options = ZooKeeperOptions::parse("nexus:pw@a:1,b:2/root").expect("valid");
        assert_eq!(options.servers, ["a:1", "b:2"]);
        assert_eq!(options.root, "/root");
        assert_eq!(credentials("nexus:pw@a:1,b:2/root"), pair("nexus", "pw"));
        assert_eq!(
            credentials("n%40x:p%3A%2F%40%25%C3%A4@a:1"),
            pair("n@x", "p:/@%ä")
        );
        // Not encoded, but not ambiguous either.
        assert_eq!(credentials("u:p:q@r@[::1]:1/x@y"), pair("u", "p:q@r"));
        let options = ZooKeeperOptions::parse("a:1/x@y").expect("valid");
        assert_eq!(options.root, "/x@y");
    }

    #[test]
    fn what_cannot_be_right_is_refused() {
        for text in ["", "a", "a:", ":2181", "a:0", "a:70000", "a:1,", "a:1,,b:2"] {
            let result = ZooKeeperOptions::parse(text);
            assert!(
                matches!(result, Err(RegistryUrlError::BadAddress { .. })),
                "{text:?} {result:?}"
            );
        }
        for text in ["a:1/", "a:1//x", "a:1/x/", "a:1/x/../y", "u:p@a:1/"] {
            let result = ZooKeeperOptions::parse(text);
            assert!(
                matches!(result, Err(RegistryUrlError::BadRoot { .. })),
                "{text:?} {result:?}"
            );
        }
        for text in [
            "user@a:1",
            ":secret@a:1",
            "user:@a:1",
            "@a:1",
            "us%3Aer:secret@a:1",
            "user:%ff@a:1",
            "user:secret/more@a:1",
            "user:1/secret/@a:1",
        ] {
            let result = ZooKeeperOptions::parse(text);
            assert!(
                matches!(result, Err(RegistryUrlError::BadCredentials)),
                "{text:?} {result:?}"
            );
        }
    }

    #[test]
    fn the_password_is_in_no_text() {
        let options = ZooKeeperOptions::parse("nexus:secret@a:1").expect("valid");
        let text = format!("{options:?}");
        assert!(text.contains("nexus") && !text.contains("secret"), "{text}");
        for text in [
            "nexus:sec/ret@a:1",
            "nexus:sec@a",
            "nexus:sec@@:1",
            "nexus:sec@a:1//",
        ] {
            let error = ZooKeeperOptions::parse(text).expect_err("invalid");
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("sec"), "{shown}");
        }
    }
}
