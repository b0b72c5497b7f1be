//! One connection inside a transaction, and multi-row statements on it.

use super::{dialect::Dialect, memberships::Generation, row::Row};
use crate::{ConversationId, GroupId, UserId, error::DbError};

/// The most rows that one statement reads or writes. Lists of keys are filled up to a power of two, and
/// inserts are cut where their number of rows has four significant bits, so that a connection has
/// few different statements to keep prepared.
pub(crate) const ROWS_MAX: usize = 256;

/// A parameter of a statement.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Null,
    Int(i64),
    /// SQLite has no such type and keeps the same 64 bits as a signed number.
    Unsigned(u64),
    Text(&'a str),
}

impl Value<'_> {
    /// The parameter of a `LIMIT`.
    pub(crate) fn limit(rows_max: usize) -> Self {
        Self::Int(i64::try_from(rows_max).unwrap_or(i64::MAX))
    }
}

impl From<UserId> for Value<'_> {
    fn from(id: UserId) -> Self {
        Self::Int(id.get().into())
    }
}

impl From<GroupId> for Value<'_> {
    fn from(id: GroupId) -> Self {
        Self::Int(id.get().into())
    }
}

impl From<ConversationId> for Value<'_> {
    fn from(id: ConversationId) -> Self {
        Self::Unsigned(id.raw())
    }
}

impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        Self::Unsigned(number)
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

/// What a statement that changes something did.
pub(crate) struct Executed {
    pub(crate) rows: u64,
    pub(crate) last_insert_id: i64,
}

/// A connection to run prepared statements on. Parameters are `?`.
pub(crate) trait Session {
    fn dialect(&self) -> Dialect;

    /// Which others see the same history of the database.
    fn generation(&self) -> Generation;

    fn query(&mut self, sql: &str, params: &[Value<'_>]) -> Result<Vec<Row>, DbError>;

    fn execute(&mut self, sql: &str, params: &[Value<'_>]) -> Result<Executed, DbError>;
}

impl dyn Session + '_ {
    /// The first row, if there is any.
    pub(crate) fn first(
        &mut self,
        sql: &str,
        params: &[Value<'_>],
    ) -> Result<Option<Row>, DbError> {
        Ok(self.query(sql, params)?.into_iter().next())
    }

    /// `{before} IN (all keys) {after}`, in as many statements as it takes. The last one is filled
    /// up with its last key, which changes nothing about what is found.
    pub(crate) fn query_in<'v, const WIDTH: usize>(
        &mut self,
        before: &str,
        keys: &[[Value<'v>; WIDTH]],
        after: &str,
    ) -> Result<Vec<Row>, DbError> {
        let mut found = Vec::new();
        for chunk in keys.chunks(ROWS_MAX) {
            let keys = padded(chunk);
            let list = self.dialect().key_list(keys.len(), WIDTH);
            found.extend(self.query(&format!("{before} IN {list} {after}"), keys.as_flattened())?);
        }
        Ok(found)
    }

    /// `{before} IN (all keys)` with `first` as the first parameters, in as many statements as it takes.
    pub(crate) fn execute_in<'v>(
        &mut self,
        before: &str,
        first: &[Value<'v>],
        keys: &[Value<'v>],
    ) -> Result<(), DbError> {
        for chunk in keys.chunks(ROWS_MAX) {
            let Some(last) = chunk.last() else { break };
            let width = chunk.len().next_power_of_two();
            let mut params = first.to_vec();
            params.extend_from_slice(chunk);
            params.resize(first.len() + width, *last);
            let list = self.dialect().key_list(width, 1);
            self.execute(&format!("{before} IN {list}"), &params)?;
        }
        Ok(())
    }

    /// `{before} VALUES (all rows) {after}`, in as many statements as it takes.
    pub(crate) fn insert_rows<'v, const WIDTH: usize>(
        &mut self,
        before: &str,
        rows: &[[Value<'v>; WIDTH]],
        after: &str,
    ) -> Result<(), DbError> {
        let mut rest = rows;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rows_of_next_insert(rest));
            rest = later;
            let places = row_list(now.len(), WIDTH);
            self.execute(
                &format!("{before} VALUES {places} {after}"),
                now.as_flattened(),
            )?;
        }
        Ok(())
    }
}

/// A list of keys, filled up to a power of two with its last one.
pub(super) fn padded<T: Copy>(keys: &[T]) -> Vec<T> {
    let mut padded = keys.to_vec();
    if let Some(&last) = keys.last() {
        padded.resize(keys.len().next_power_of_two(), last);
    }
    padded
}

/// The texts that one statement may carry: far below what either database takes in one packet.
pub(crate) const STATEMENT_BYTES_MAX: usize = 2 * 1024 * 1024;

/// How many of the first rows go into the next statement: as many as may, rounded down to four
/// significant bits; at least one.
fn rows_of_next_insert<const WIDTH: usize>(rows: &[[Value<'_>; WIDTH]]) -> usize {
    let mut bytes = 0;
    let fitting = rows
        .iter()
        .take(ROWS_MAX)
        .take_while(|row| {
            bytes += row.iter().map(text_bytes).sum::<usize>();
            bytes <= STATEMENT_BYTES_MAX
        })
        .count();
    let dropped_bits = fitting.checked_ilog2().unwrap_or(0).saturating_sub(3);
    (fitting >> dropped_bits << dropped_bits).max(1)
}

fn text_bytes(value: &Value<'_>) -> usize {
    match value {
        Value::Text(text) => text.len(),
        Value::Null | Value::Int(_) | Value::Unsigned(_) => 0,
    }
}

/// `(?,?),(?,?)` for that many rows.
pub(super) fn row_list(rows: usize, width: usize) -> String {
    let row = format!("({})", vec!["?"; width].join(","));
    vec![row.as_str(); rows].join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inserts_are_split_where_they_have_four_significant_bits() {
        let sizes = |count: usize| {
            let rows = vec![[Value::Int(1)]; count];
            let mut rest = rows.as_slice();
            let mut sizes = Vec::new();
            while !rest.is_empty() {
                let size = rows_of_next_insert(rest);
                sizes.push(size);
                rest = &rest[size..];
            }
            sizes
        };
        assert_eq!(sizes(1), [1]);
        assert_eq!(sizes(15), [15]);
        assert_eq!(sizes(17), [16, 1]);
        assert_eq!(sizes(103), [96, 7]);
        assert_eq!(sizes(256), [256]);
        assert_eq!(sizes(600), [256, 256, 88]);
    }

    #[test]
    fn long_texts_make_shorter_statements_but_never_empty_ones() {
        let text = "x".repeat(STATEMENT_BYTES_MAX / 4);
        assert_eq!(rows_of_next_insert(&[[Value::Text(&text)]; 8]), 4);
        let text = "x".repeat(STATEMENT_BYTES_MAX + 1);
        assert_eq!(rows_of_next_insert(&[[Value::Text(&text)]; 8]), 1);
    }
}
