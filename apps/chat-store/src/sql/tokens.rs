//! What users can resume their sessions with.

use super::session::{Session, Value};
use crate::{
    UserId,
    error::DbError,
    types::{SessionToken, TokenHash, TokenOwner, User},
};

pub(super) fn replace(
    s: &mut dyn Session,
    user: UserId,
    token: Option<&SessionToken>,
) -> Result<(), DbError> {
    s.execute(
        "DELETE FROM session_token WHERE user_id = ?",
        &[user.into()],
    )?;
    if let Some(token) = token {
        // Of two that come here at once one meets the key, and is run again.
        let sql = "INSERT INTO session_token (user_id, token_hash, expires_at_ms) VALUES (?, ?, ?)";
        let hash = token.hash.to_hex();
        let row = [
            user.into(),
            hash.as_str().into(),
            token.expires_at_ms.into(),
        ];
        s.execute(sql, &row)?;
    }
    Ok(())
}

pub(super) fn owner(
    s: &mut dyn Session,
    user: UserId,
    token: &TokenHash,
    now_ms: i64,
) -> Result<Option<TokenOwner>, DbError> {
    let sql = "SELECT u.name, u.password_hash, u.last_offline_at_ms, u.last_login, t.expires_at_ms \
               FROM session_token t JOIN user u ON u.id = t.user_id \
               WHERE t.user_id = ? AND t.token_hash = ? AND t.expires_at_ms > ?";
    let hash = token.to_hex();
    let params = [user.into(), hash.as_str().into(), now_ms.into()];
    let Some(row) = s.first(sql, &params)? else {
        return Ok(None);
    };
    Ok(Some(TokenOwner {
        user: User {
            id: user,
            name: row.text(0)?,
            password_hash: row.text(1)?,
            last_offline_at_ms: row.optional_i64(2)?,
            last_login: row.u64(3)?,
        },
        expires_at_ms: row.i64(4)?,
    }))
}

pub(super) fn extend(
    s: &mut dyn Session,
    user: UserId,
    token: &TokenHash,
    expires_at_ms: i64,
) -> Result<(), DbError> {
    let sql = "UPDATE session_token SET expires_at_ms = ? WHERE user_id = ? AND token_hash = ?";
    let hash = token.to_hex();
    let params = [expires_at_ms.into(), user.into(), hash.as_str().into()];
    s.execute(sql, &params)?;
    Ok(())
}

pub(super) fn end(s: &mut dyn Session, user: UserId, token: &TokenHash) -> Result<(), DbError> {
    let sql = "DELETE FROM session_token WHERE user_id = ? AND token_hash = ?";
    let hash = token.to_hex();
    s.execute(sql, &[user.into(), hash.as_str().into()])?;
    Ok(())
}

pub(super) fn delete_expired(
    s: &mut dyn Session,
    now_ms: i64,
    count_max: usize,
) -> Result<usize, DbError> {
    let limit = Value::limit(count_max);
    let sql = "SELECT user_id FROM session_token WHERE expires_at_ms <= ? LIMIT ?";
    let mut expired = s
        .query(sql, &[now_ms.into(), limit])?
        .iter()
        .map(|row| row.user(0))
        .collect::<Result<Vec<_>, _>>()?;
    // In one order, so that two servers at this do not wait for each other.
    expired.sort_unstable();
    let sql = "DELETE FROM session_token WHERE user_id = ? AND expires_at_ms <= ?";
    for user in &expired {
        s.execute(sql, &[(*user).into(), now_ms.into()])?;
    }
    Ok(expired.len())
}
