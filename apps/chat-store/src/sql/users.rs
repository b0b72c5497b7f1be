//! Users.

use std::collections::HashMap;

use super::session::{ROWS_MAX, Session, Value};
use crate::{
    UserId,
    error::DbError,
    terms::Login,
    types::{CreateUser, User},
};

pub(super) fn create(
    s: &mut dyn Session,
    name: &str,
    password_hash: &str,
) -> Result<CreateUser, DbError> {
    // Asked first, because a refused INSERT uses up an id. Of two that ask at once, one meets the
    // unique key, is run again and then finds the other.
    if named(s, name)?.is_some() {
        return Ok(CreateUser::NameTaken);
    }
    let sql = "INSERT INTO user (name, password_hash) VALUES (?, ?)";
    let done = s.execute(sql, &[name.into(), password_hash.into()])?;
    i32::try_from(done.last_insert_id)
        .ok()
        .and_then(UserId::new)
        .map(CreateUser::Created)
        .ok_or_else(|| DbError::unexpected("new user id"))
}

pub(super) fn find(s: &mut dyn Session, id: UserId) -> Result<Option<User>, DbError> {
    let sql = "SELECT name, password_hash, last_offline_at_ms, last_login FROM user WHERE id = ?";
    let Some(row) = s.first(sql, &[id.into()])? else {
        return Ok(None);
    };
    Ok(Some(User {
        id,
        name: row.text(0)?,
        password_hash: row.text(1)?,
        last_offline_at_ms: row.optional_i64(2)?,
        last_login: row.u64(3)?,
    }))
}

pub(super) fn named(s: &mut dyn Session, name: &str) -> Result<Option<UserId>, DbError> {
    let row = s.first("SELECT id FROM user WHERE name = ?", &[name.into()])?;
    row.map(|row| row.user(0)).transpose()
}

pub(super) fn names(
    s: &mut dyn Session,
    ids: &[UserId],
) -> Result<HashMap<UserId, String>, DbError> {
    let keys: Vec<_> = ids.iter().map(|id| [(*id).into()]).collect();
    let rows = s.query_in("SELECT id, name FROM user WHERE id", &keys, "")?;
    rows.iter()
        .map(|row| Ok((row.user(0)?, row.text(1)?)))
        .collect()
}

pub(super) fn set_last_offline(s: &mut dyn Session, id: UserId, at_ms: i64) -> Result<(), DbError> {
    let sql = "UPDATE user SET last_offline_at_ms = ? WHERE id = ?";
    s.execute(sql, &[at_ms.into(), id.into()])?;
    Ok(())
}

/// Counts a login of a user, who is locked from here on. Its number is higher than `beyond`.
pub(super) fn next_login(s: &mut dyn Session, id: UserId, beyond: u64) -> Result<u64, DbError> {
    let sql = "UPDATE user SET last_login = 1 + CASE WHEN last_login < ? THEN ? ELSE last_login END \
               WHERE id = ?";
    s.execute(sql, &[beyond.into(), beyond.into(), id.into()])?;
    let row = s.first("SELECT last_login FROM user WHERE id = ?", &[id.into()])?;
    row.ok_or_else(|| DbError::unexpected("user"))?.u64(0)
}

/// Undoes [`next_login`], if nothing has come after it.
pub(super) fn withdraw_login(s: &mut dyn Session, id: UserId, number: u64) -> Result<(), DbError> {
    let sql = "UPDATE user SET last_login = last_login - 1 WHERE id = ? AND last_login = ?";
    s.execute(sql, &[id.into(), number.into()])?;
    Ok(())
}

/// The condition that a user has logged in again after one of `count` logins, each bound as user and number.
pub(super) fn displaced(count: usize) -> String {
    vec!["id = ? AND last_login > ?"; count].join(" OR ")
}

/// The parameters of [`displaced`].
pub(super) fn displaced_params(logins: &[Login]) -> impl Iterator<Item = Value<'static>> {
    let params = |login: &Login| [login.user.into(), login.number.into()];
    logins.iter().flat_map(params)
}

/// The users who have logged in again after one of these logins, each with the number of the latest login.
pub(super) fn find_displaced(
    s: &mut dyn Session,
    logins: &[Login],
) -> Result<Vec<(UserId, u64)>, DbError> {
    let mut found = Vec::new();
    for logins in logins.chunks(ROWS_MAX) {
        let condition = displaced(logins.len());
        let params: Vec<_> = displaced_params(logins).collect();
        let sql = format!("SELECT id, last_login FROM user WHERE {condition}");
        for row in s.query(&sql, &params)? {
            found.push((row.user(0)?, row.u64(1)?));
        }
    }
    Ok(found)
}

/// Locks those of some users that exist, for what is counted per user. To be done before anything else is
/// locked.
pub(super) fn lock(s: &mut dyn Session, ids: &[UserId]) -> Result<(), DbError> {
    let keys: Vec<_> = ids.iter().map(|id| [(*id).into()]).collect();
    let order_and_lock = format!("ORDER BY id {}", s.dialect().for_update());
    s.query_in("SELECT id FROM user WHERE id", &keys, &order_and_lock)?;
    Ok(())
}
