//! Rows that a database returned, read with suspicion.

use std::num::NonZeroU64;

use crate::{ConversationId, GroupId, UserId, error::DbError, types::Role};

/// One value of a row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Cell {
    Null,
    Int(i64),
    Unsigned(u64),
    Text(String),
}

/// One row; columns count from 0.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Row(pub(crate) Vec<Cell>);

impl Row {
    pub(crate) fn i64(&self, column: usize) -> Result<i64, DbError> {
        match self.cell(column)? {
            Cell::Int(number) => Ok(*number),
            Cell::Unsigned(number) => i64::try_from(*number).map_err(|_| wrong("number", column)),
            Cell::Null | Cell::Text(_) => Err(wrong("number", column)),
        }
    }

    /// A 64-bit number without sign, which SQLite returns with one.
    pub(crate) fn u64(&self, column: usize) -> Result<u64, DbError> {
        match self.cell(column)? {
            Cell::Int(number) => Ok(number.cast_unsigned()),
            Cell::Unsigned(number) => Ok(*number),
            Cell::Null | Cell::Text(_) => Err(wrong("number", column)),
        }
    }

    pub(crate) fn optional_i64(&self, column: usize) -> Result<Option<i64>, DbError> {
        match self.cell(column)? {
            Cell::Null => Ok(None),
            _ => self.i64(column).map(Some),
        }
    }

    /// Null and zero both read as none.
    pub(crate) fn optional_u64(&self, column: usize) -> Result<Option<NonZeroU64>, DbError> {
        match self.cell(column)? {
            Cell::Null => Ok(None),
            _ => self.u64(column).map(NonZeroU64::new),
        }
    }

    pub(crate) fn i32(&self, column: usize) -> Result<i32, DbError> {
        i32::try_from(self.i64(column)?).map_err(|_| wrong("number", column))
    }

    pub(crate) fn count(&self, column: usize) -> Result<usize, DbError> {
        usize::try_from(self.i64(column)?).map_err(|_| wrong("count", column))
    }

    pub(crate) fn text(&self, column: usize) -> Result<String, DbError> {
        match self.cell(column)? {
            Cell::Text(text) => Ok(text.clone()),
            Cell::Null | Cell::Int(_) | Cell::Unsigned(_) => Err(wrong("text", column)),
        }
    }

    pub(crate) fn user(&self, column: usize) -> Result<UserId, DbError> {
        UserId::new(self.i32(column)?).ok_or_else(|| wrong("user id", column))
    }

    pub(crate) fn group(&self, column: usize) -> Result<GroupId, DbError> {
        GroupId::new(self.i32(column)?).ok_or_else(|| wrong("group id", column))
    }

    pub(crate) fn conversation(&self, column: usize) -> Result<ConversationId, DbError> {
        ConversationId::from_raw(self.u64(column)?).ok_or_else(|| wrong("conversation id", column))
    }

    pub(crate) fn role(&self, column: usize) -> Result<Role, DbError> {
        match self.i64(column)? {
            0 => Ok(Role::Member),
            1 => Ok(Role::Admin),
            _ => Err(wrong("role", column)),
        }
    }

    fn cell(&self, column: usize) -> Result<&Cell, DbError> {
        self.0
            .get(column)
            .ok_or_else(|| wrong("number of columns", column))
    }
}

/// The number that [`Row::role`] reads.
pub(super) const fn role_number(role: Role) -> i64 {
    match role {
        Role::Member => 0,
        Role::Admin => 1,
    }
}

fn wrong(what: &str, column: usize) -> DbError {
    DbError::unexpected(&format!("{what} (column {column})"))
}
