//! [`ClusterSecret`]: what proxies show to chat servers, so that those accept calls from nobody else.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use subtle::ConstantTimeEq;

use crate::config::Problems;
use crate::reload::Reload;

/// The environment variable that stands in for a file.
pub const ENVIRONMENT: &str = "NEXUS_CLUSTER_SECRET";

/// 256 random bits have 64 characters in hexadecimal and 43 in base 64; less than half of that is no secret.
const BYTES_MIN: usize = 32;
const BYTES_MAX: usize = 1024;
/// Enough to change a secret while everything runs, which takes two.
const SECRETS_MAX: usize = 8;

/// One secret or, while it is being changed, several. Clones are of the same; nothing shows its value.
#[derive(Clone)]
pub struct ClusterSecret {
    secrets: Arc<ArcSwap<Vec<Bytes>>>,
}

impl ClusterSecret {
    /// From a text with one secret per line.
    ///
    /// # Errors
    /// There is none in it, there are more than 8, or one is shorter than 32 or longer than 1024 bytes.
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(Self {
            secrets: Arc::new(ArcSwap::from_pointee(lines(text)?)),
        })
    }

    /// A new one, of 256 random bits, for parts of one process.
    pub fn random() -> Self {
        let bytes: [u8; 32] = rand::random();
        Self {
            secrets: Arc::new(ArcSwap::from_pointee(vec![Bytes::copy_from_slice(&bytes)])),
        }
    }

    /// Reads `file`, or the variable [`ENVIRONMENT`] where no file is configured; `None` when there is neither.
    /// What is wrong is noted in `problems` about `key`; a file is added to what is read again.
    pub(crate) fn configured(
        key: &str,
        file: Option<&PathBuf>,
        problems: &mut Problems,
        reload: &mut Reload,
    ) -> Option<Self> {
        let Some(file) = file.cloned() else {
            let text = std::env::var(ENVIRONMENT).ok()?;
            let parsed = Self::parse(&text)
                .map_err(|error| format!("in the environment variable {ENVIRONMENT}: {error}"));
            return problems.accept(key, parsed);
        };
        let read = move || {
            std::fs::read_to_string(&file)
                .map_err(|error| error.to_string())
                .and_then(|text| lines(&text))
                .map_err(|error| format!("{}: {error}", file.display()))
        };
        let secret = Self {
            secrets: Arc::new(ArcSwap::from_pointee(problems.accept(key, read())?)),
        };
        let shared = Arc::clone(&secret.secrets);
        reload.add(key, move || {
            shared.store(Arc::new(read()?));
            Ok(())
        });
        Some(secret)
    }

    /// What to show: the first one.
    pub fn shown(&self) -> Bytes {
        self.secrets.load().first().cloned().unwrap_or_default()
    }

    /// Whether what somebody shows is one of them. How long it takes tells its length, and nothing more.
    pub fn is_shown(&self, data: &[u8]) -> bool {
        let secrets = self.secrets.load();
        let no = subtle::Choice::from(0);
        let found = secrets
            .iter()
            .fold(no, |found, secret| found | secret.ct_eq(data));
        found.into()
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret")
    }
}

fn lines(text: &str) -> Result<Vec<Bytes>, String> {
    let found: Vec<Bytes> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| Bytes::copy_from_slice(line.as_bytes()))
        .collect();
    if found.is_empty() || found.len() > SECRETS_MAX {
        return Err(format!(
            "expected 1 to {SECRETS_MAX} lines with a secret each"
        ));
    }
    if found
        .iter()
        .any(|secret| !(BYTES_MIN..=BYTES_MAX).contains(&secret.len()))
    {
        return Err(format!(
            "expected secrets of {BYTES_MIN} to {BYTES_MAX} characters, as `openssl rand -hex 32` makes them"
        ));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "0123456789abcdef0123456789abcdef";
    const NEW: &str = "fedcba9876543210fedcba9876543210";

    #[test]
    fn the_first_is_shown_and_each_is_accepted() {
        let secret = ClusterSecret::parse(&format!("\n {NEW} \r\n{OLD}\n")).unwrap();
        assert_eq!(secret.shown(), NEW);
        assert!(secret.is_shown(NEW.as_bytes()) && secret.is_shown(OLD.as_bytes()));
        let longer = format!("{NEW}0");
        for other in ["", &NEW[1..], &NEW.to_uppercase(), &longer] {
            assert!(!secret.is_shown(other.as_bytes()), "{other:?}");
        }
    }

    #[test]
    fn what_is_too_short_too_long_or_too_much_is_no_secret() {
        for text in [
            String::new(),
            " \n\n".to_owned(),
            OLD[1..].to_owned(),
            format!("{OLD}\nshort"),
            "x".repeat(BYTES_MAX + 1),
            [OLD; SECRETS_MAX + 1].join("\n"),
        ] {
            assert!(ClusterSecret::parse(&text).is_err(), "{text:?}");
        }
        assert!(ClusterSecret::parse(&"x".repeat(BYTES_MAX)).is_ok());
    }

    #[test]
    fn nothing_shows_the_value() {
        let secret = ClusterSecret::parse(OLD).unwrap();
        assert_eq!(format!("{secret:?}"), "ClusterSecret");
        let error = ClusterSecret::parse(&OLD[1..]).unwrap_err();
        assert!(!error.contains(&OLD[1..]), "{error}");
    }

    #[test]
    fn a_file_is_read_again_and_one_that_is_broken_changes_nothing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), OLD).unwrap();
        let (mut problems, mut reload) = (Problems::new("x.toml"), Reload::default());
        let path = file.path().to_path_buf();
        let secret = ClusterSecret::configured(
            "cluster.secret_file",
            Some(&path),
            &mut problems,
            &mut reload,
        )
        .unwrap();
        problems.finish().unwrap();
        std::fs::write(file.path(), format!("{NEW}\n{OLD}\n")).unwrap();
        reload.run();
        assert_eq!(secret.shown(), NEW);
        std::fs::write(file.path(), "short").unwrap();
        reload.run();
        assert_eq!(secret.shown(), NEW);
        assert!(secret.is_shown(OLD.as_bytes()));
    }
}
