//! Prepared statements on one connection, and what its errors mean.

use rusqlite::{
    Connection, ErrorCode, ToSql, params_from_iter,
    types::{ToSqlOutput, ValueRef},
};

use crate::{
    error::DbError,
    sql::{Cell, Dialect, Executed, Generation, Row, Session, Value},
};

pub(crate) struct SqliteSession<'a>(pub(crate) &'a Connection);

impl Session for SqliteSession<'_> {
    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }

    /// There is one file.
    fn generation(&self) -> Generation {
        Generation::FIRST
    }

    fn query(&mut self, sql: &str, params: &[Value<'_>]) -> Result<Vec<Row>, DbError> {
        let mut statement = self.0.prepare_cached(sql).map_err(classify)?;
        let columns = statement.column_count();
        let mut rows = statement
            .query(params_from_iter(params))
            .map_err(classify)?;
        let mut read = Vec::new();
        while let Some(row) = rows.next().map_err(classify)? {
            let cells = (0..columns)
                .map(|column| row.get_ref(column).map_err(classify).and_then(read_cell));
            read.push(Row(cells.collect::<Result<_, _>>()?));
        }
        Ok(read)
    }

    fn execute(&mut self, sql: &str, params: &[Value<'_>]) -> Result<Executed, DbError> {
        let mut statement = self.0.prepare_cached(sql).map_err(classify)?;
        let rows = statement
            .execute(params_from_iter(params))
            .map_err(classify)?;
        let rows = u64::try_from(rows).unwrap_or(u64::MAX);
        Ok(Executed {
            rows,
            last_insert_id: self.0.last_insert_rowid(),
        })
    }
}

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match *self {
            Value::Null => ValueRef::Null,
            Value::Int(number) => ValueRef::Integer(number),
            Value::Unsigned(number) => ValueRef::Integer(number.cast_signed()),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

fn read_cell(value: ValueRef<'_>) -> Result<Cell, DbError> {
    match value {
        ValueRef::Null => Ok(Cell::Null),
        ValueRef::Integer(number) => Ok(Cell::Int(number)),
        ValueRef::Text(bytes) => String::from_utf8(bytes.to_vec())
            .map(Cell::Text)
            .map_err(|_| DbError::unexpected("bytes that are not UTF-8")),
        ValueRef::Real(_) | ValueRef::Blob(_) => Err(DbError::unexpected("type of a column")),
    }
}

pub(super) fn classify(error: rusqlite::Error) -> DbError {
    let reason = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation) => DbError::KeyTaken(reason),
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::CannotOpen
            | ErrorCode::ReadOnly
            | ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::OutOfMemory,
        ) => DbError::Unavailable(reason),
        _ => DbError::Internal(reason),
    }
}
