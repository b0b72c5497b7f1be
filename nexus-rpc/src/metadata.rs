//! What travels beside the message of a call or an answer: names with short texts, `user_fields` in baidu_std.
//!
//! A [`MetadataKey`] gives a name its type, once, for whoever writes it and whoever reads it:
//!
//! ```
//! use nexus_rpc::{Metadata, MetadataKey};
//!
//! const TENANT: MetadataKey<u64> = MetadataKey::new("tenant");
//!
//! let mut metadata = Metadata::default();
//! metadata.set(TENANT, 7);
//! assert_eq!(metadata.get(TENANT), Ok(Some(7)));
//! assert_eq!(metadata.text("tenant"), Some("7"));
//! ```
//!
//! Metadata goes with every call, so it is for what is small: who, for whom, which trace. It counts towards the
//! frame's [limit](crate::wire::Limits); over HTTP, towards that of a head.

use std::collections::{BTreeMap, btree_map};
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use crate::RpcError;

/// The longest name of a [`MetadataKey`].
const NAME_BYTES_MAX: usize = 64;

/// A name in the metadata, and the type of what stands there, which is written with [`Display`](fmt::Display)
/// and read with [`FromStr`]. Made as a constant that both sides share.
pub struct MetadataKey<T> {
    name: &'static str,
    value: PhantomData<fn(T) -> T>,
}

impl<T> MetadataKey<T> {
    /// The key with this name: lower-case letters, digits, `-`, `_` and `.`, 1 to 64 of them, so that it is
    /// also a name in HTTP, where case does not count.
    ///
    /// # Panics
    /// With any other name. In a constant, that does not compile.
    pub const fn new(name: &'static str) -> Self {
        let bytes = name.as_bytes();
        assert!(
            !bytes.is_empty() && bytes.len() <= NAME_BYTES_MAX,
            "a metadata name has 1 to 64 characters"
        );
        // An index, because a constant function has no iterators.
        let mut at = 0;
        while at < bytes.len() {
            assert!(
                matches!(bytes[at], b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'),
                "a metadata name has lower-case letters, digits, -, _ and . only"
            );
            at += 1;
        }
        Self {
            name,
            value: PhantomData,
        }
    }

    /// The name.
    pub const fn name(self) -> &'static str {
        self.name
    }
}

impl<T> Clone for MetadataKey<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for MetadataKey<T> {}

impl<T> fmt::Debug for MetadataKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MetadataKey").field(&self.name).finish()
    }
}

/// The metadata does not have what was asked for. As an [`RpcError`] it is the caller's fault,
/// [`BAD_REQUEST`](crate::ErrorCode::BAD_REQUEST). It names the key and does not show the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// The key is not there.
    #[error("the metadata has no {0}")]
    Missing(&'static str),
    /// What stands there is not of the key's type.
    #[error("the metadata's {0} cannot be read")]
    Malformed(&'static str),
}

impl From<MetadataError> for RpcError {
    fn from(error: MetadataError) -> Self {
        Self::bad_request(error.to_string())
    }
}

/// The metadata of a call or an answer. Each name is there once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata(BTreeMap<String, String>);

impl Metadata {
    /// What stands under the key; `None` when nothing does.
    ///
    /// # Errors
    /// [`MetadataError::Malformed`].
    pub fn get<T: FromStr>(&self, key: MetadataKey<T>) -> Result<Option<T>, MetadataError> {
        match self.text(key.name) {
            Some(text) => match text.parse() {
                Ok(value) => Ok(Some(value)),
                Err(_) => Err(MetadataError::Malformed(key.name)),
            },
            None => Ok(None),
        }
    }

    /// What stands under the key, which has to be there.
    ///
    /// # Errors
    /// [`MetadataError`]; a handler may return it with `?`.
    pub fn require<T: FromStr>(&self, key: MetadataKey<T>) -> Result<T, MetadataError> {
        self.get(key)?.ok_or(MetadataError::Missing(key.name))
    }

    /// Puts a value under the key, in the place of one that is there.
    pub fn set<T: fmt::Display>(&mut self, key: MetadataKey<T>, value: T) {
        self.set_text(key.name, value.to_string());
    }

    /// Takes out what stands under the key; whether there was anything.
    pub fn remove<T>(&mut self, key: MetadataKey<T>) -> bool {
        self.0.remove(key.name).is_some()
    }

    /// The text under a name that is known only now.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Puts a text under a name that is known only now. Neither is looked at: brpc's programs may choose names
    /// that no [`MetadataKey`] has.
    pub fn set_text(&mut self, name: impl Into<String>, text: impl Into<String>) {
        self.0.insert(name.into(), text.into());
    }

    /// Names and texts, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.into_iter()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// As a frame's meta has it.
    pub(crate) fn from_fields(fields: BTreeMap<String, String>) -> Self {
        Self(fields)
    }

    /// For a frame's meta.
    pub(crate) fn into_fields(self) -> BTreeMap<String, String> {
        self.0
    }
}

impl FromIterator<(String, String)> for Metadata {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(fields: I) -> Self {
        Self(fields.into_iter().collect())
    }
}

impl<'a> IntoIterator for &'a Metadata {
    type Item = (&'a str, &'a str);
    type IntoIter = MetadataIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        MetadataIter(self.0.iter())
    }
}

/// Goes over names and texts.
#[derive(Clone, Debug)]
pub struct MetadataIter<'a>(btree_map::Iter<'a, String, String>);

impl<'a> Iterator for MetadataIter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, text) = self.0.next()?;
        Some((name, text))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::ErrorCode;

    const NUMBER: MetadataKey<i32> = MetadataKey::new("a-number");
    const ADDRESS: MetadataKey<SocketAddr> = MetadataKey::new("address");
    const NAME: MetadataKey<String> = MetadataKey::new("name");

    #[test]
    fn what_is_set_is_read_and_replaced_and_taken_out() {
        let mut metadata = Metadata::default();
        let address: SocketAddr = "127.0.0.1:9".parse().expect("an address");
        metadata.set(ADDRESS, address);
        metadata.set(NAME, "old".to_owned());
        metadata.set(NAME, "hällo".to_owned());
        assert_eq!(metadata.require(ADDRESS), Ok(address));
        assert_eq!(metadata.get(NAME), Ok(Some("hällo".to_owned())));
        let fields: Vec<_> = metadata.iter().collect();
        assert_eq!(fields, [("address", "127.0.0.1:9"), ("name", "hällo")]);
        assert!(metadata.remove(NAME) && !metadata.remove(NAME));
        assert_eq!((metadata.len(), metadata.get(NAME)), (1, Ok(None)));
    }

    #[test]
    fn what_is_missing_and_what_is_malformed_are_told_apart_and_the_value_is_not_shown() {
        let mut metadata = Metadata::default();
        assert_eq!(metadata.get(NUMBER), Ok(None));
        let missing = metadata.require(NUMBER);
        assert_eq!(missing, Err(MetadataError::Missing("a-number")));
        metadata.set_text("a-number", "a secret");
        let malformed = metadata.get(NUMBER).expect_err("no number");
        assert_eq!(malformed, MetadataError::Malformed("a-number"));
        let error = RpcError::from(malformed);
        assert_eq!(error.code(), ErrorCode::BAD_REQUEST);
        assert!(error.text().contains("a-number") && !error.text().contains("secret"));
    }

    #[test]
    fn names_that_http_would_change_or_refuse_make_no_key() {
        for name in ["", "Tenant", "a b", "ä", "a:b", &"x".repeat(65)] {
            let name: &'static str = Box::leak(name.into());
            let made = std::panic::catch_unwind(|| MetadataKey::<String>::new(name));
            assert!(made.is_err(), "{name:?}");
        }
        let longest: &'static str = Box::leak("x".repeat(64).into());
        for name in ["a", "x-1_y.z", longest] {
            assert_eq!(MetadataKey::<String>::new(name).name(), name);
        }
    }

    proptest! {
        #[test]
        fn every_value_comes_back(number in any::<i32>(), text in ".{0,40}") {
            let mut metadata = Metadata::default();
            metadata.set(NUMBER, number);
            metadata.set(NAME, text.clone());
            let sent = Metadata::from_fields(metadata.into_fields());
            prop_assert_eq!(sent.require(NUMBER), Ok(number));
            prop_assert_eq!(sent.require(NAME), Ok(text));
        }
    }
}
