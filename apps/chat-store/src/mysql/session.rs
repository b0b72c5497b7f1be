//! Prepared statements on one connection.

use mysql::{Conn, Params, prelude::Queryable};

use super::{errors::classify, pool::Link};
use crate::{
    error::DbError,
    sql::{Cell, Dialect, Executed, Generation, Row, Session, Value},
};

/// The driver prepares each text once and keeps it with the connection.
pub(super) struct MySqlSession<'a> {
    conn: &'a mut Conn,
    generation: Generation,
}

impl<'a> MySqlSession<'a> {
    pub(super) fn new(link: &'a mut Link) -> Self {
        Self {
            generation: link.generation,
            conn: &mut link.conn,
        }
    }

    /// On a connection that is nobody else's.
    pub(super) fn alone(conn: &'a mut Conn) -> Self {
        Self {
            conn,
            generation: Generation::NONE,
        }
    }
}

impl Session for MySqlSession<'_> {
    fn dialect(&self) -> Dialect {
        Dialect::MySql
    }

    fn generation(&self) -> Generation {
        self.generation
    }

    fn query(&mut self, sql: &str, params: &[Value<'_>]) -> Result<Vec<Row>, DbError> {
        let result = self.conn.exec_iter(sql, bind(params)).map_err(classify)?;
        result.map(|row| read_row(row.map_err(classify)?)).collect()
    }

    fn execute(&mut self, sql: &str, params: &[Value<'_>]) -> Result<Executed, DbError> {
        self.conn.exec_drop(sql, bind(params)).map_err(classify)?;
        let last_insert_id = i64::try_from(self.conn.last_insert_id())
            .map_err(|_| DbError::unexpected("generated id"))?;
        Ok(Executed {
            rows: self.conn.affected_rows(),
            last_insert_id,
        })
    }
}

fn bind(params: &[Value<'_>]) -> Params {
    if params.is_empty() {
        return Params::Empty;
    }
    let bind = |value: &Value<'_>| match *value {
        Value::Null => mysql::Value::NULL,
        Value::Int(number) => mysql::Value::Int(number),
        Value::Unsigned(number) => mysql::Value::UInt(number),
        Value::Text(text) => mysql::Value::Bytes(text.into()),
    };
    Params::Positional(params.iter().map(bind).collect())
}

fn read_row(row: mysql::Row) -> Result<Row, DbError> {
    let cell = |value| match value {
        mysql::Value::NULL => Ok(Cell::Null),
        mysql::Value::Int(number) => Ok(Cell::Int(number)),
        mysql::Value::UInt(number) => Ok(Cell::Unsigned(number)),
        mysql::Value::Bytes(bytes) => String::from_utf8(bytes)
            .map(Cell::Text)
            .map_err(|_| DbError::unexpected("bytes that are not UTF-8")),
        _ => Err(DbError::unexpected("type of a column")),
    };
    row.unwrap()
        .into_iter()
        .map(cell)
        .collect::<Result<_, _>>()
        .map(Row)
}
