//! TOML text to a value, finding as many mistakes as it can.
//!
//! Deserializing stops at the first mistake. So the key with the mistake is noted and taken out of
//! the document, and deserializing starts over; it ends when the rest is good or when the rest
//! cannot do without a key that was taken out.

use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Problems;

/// The value of `text`, unless something was added to `problems`.
pub(super) fn parse<T: DeserializeOwned>(text: &str, problems: &mut Problems) -> Option<T> {
    let (mut document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let line = error.span().map(|span| line_of(text, span.start));
        problems.push(line, None, error.message().to_owned());
    }
    if !errors.is_empty() {
        return None;
    }
    let mut removed: Vec<Vec<String>> = Vec::new();
    loop {
        let error = match T::deserialize(toml::Deserializer::from(document.clone())) {
            Ok(value) => return removed.is_empty().then_some(value),
            Err(error) => error,
        };
        let span = error.span().unwrap_or(0..0);
        let line = Some(line_of(text, span.start));
        if let Some(name) = missing_field(error.message()) {
            let mut path = Vec::new();
            if span != document.span() {
                find(document.get_ref(), &mut path, &|_, value| value == span);
            }
            path.push(name.to_owned());
            // What is missing only because it was wrong has been reported.
            if !removed.contains(&path) {
                problems.push(None, Some(path.join(".")), "missing".to_owned());
            }
            return None;
        }
        let mut path = Vec::new();
        let holds = |span: &Range<usize>, at: usize| span.contains(&at);
        find(document.get_ref(), &mut path, &|key, value| {
            holds(&key, span.start) || holds(&value, span.start)
        });
        if !remove(document.get_mut(), &path) {
            problems.push(line, None, error.message().to_owned());
            return None;
        }
        problems.push(line, Some(path.join(".")), error.message().to_owned());
        removed.push(path);
    }
}

/// Extends `path` to the first and deepest key for which `wanted` (given the places of the key and
/// of its value) holds, and says whether there is one.
///
/// Looks into tables even if they are not wanted themselves: the place of a `[table]` is its
/// header, and its keys stand elsewhere.
fn find(
    table: &DeTable<'_>,
    path: &mut Vec<String>,
    wanted: &dyn Fn(Range<usize>, Range<usize>) -> bool,
) -> bool {
    for (key, value) in table {
        path.push(key.get_ref().to_string());
        let deeper = match value.get_ref() {
            DeValue::Table(inner) => find(inner, path, wanted),
            _ => false,
        };
        if deeper || wanted(key.span(), value.span()) {
            return true;
        }
        path.pop();
    }
    false
}

fn remove(table: &mut DeTable<'_>, path: &[String]) -> bool {
    match path {
        [] => false,
        [key] => table.remove(key.as_str()).is_some(),
        [key, rest @ ..] => match table.get_mut(key.as_str()).map(Spanned::get_mut) {
            Some(DeValue::Table(inner)) => remove(inner, rest),
            _ => false,
        },
    }
}

/// The name in serde's message for a missing field, which has no other form.
fn missing_field(message: &str) -> Option<&str> {
    message.strip_prefix("missing field `")?.strip_suffix('`')
}

/// The line, from 1, of the byte at `position`.
fn line_of(text: &str, position: usize) -> usize {
    1 + text
        .bytes()
        .take(position)
        .filter(|&byte| byte == b'\n')
        .count()
}
