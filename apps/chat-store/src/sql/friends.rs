//! Friendships: two rows each, so that either side finds its own by key.

use super::{
    conversations::{self, Notice},
    session::Session,
    users,
};
use crate::{
    ConversationId, UserId,
    error::DbError,
    types::{AddFriend, DeleteFriend, MessageKind},
};

pub(super) fn add(
    s: &mut dyn Session,
    user: UserId,
    friend: UserId,
    friends_max: usize,
    now_ms: i64,
) -> Result<AddFriend, DbError> {
    let Some(conversation) = ConversationId::pair(user, friend) else {
        return Ok(AddFriend::NoSuchUser);
    };
    users::lock(s, &[user, friend])?;
    let mut names = users::names(s, &[user, friend])?;
    let (true, Some(friend_name)) = (names.contains_key(&user), names.remove(&friend)) else {
        return Ok(AddFriend::NoSuchUser);
    };
    let last_sequence = conversations::create(s, conversation)?;
    let sql = "SELECT user_id FROM friendship WHERE user_id = ? AND friend_id = ?";
    if s.first(sql, &[user.into(), friend.into()])?.is_some() {
        return Ok(AddFriend::AlreadyFriends);
    }
    for of in [user, friend] {
        if count(s, of)? >= friends_max {
            return Ok(AddFriend::TooManyFriends { of });
        }
    }
    let rows = [[user.into(), friend.into()], [friend.into(), user.into()]];
    s.insert_rows("INSERT INTO friendship (user_id, friend_id)", &rows, "")?;
    let notice = Notice {
        sender: user,
        kind: MessageKind::AddFriend,
        content: "",
    };
    let stamp = conversations::notify(s, conversation, last_sequence, &notice, now_ms)?;
    for party in [user.min(friend), user.max(friend)] {
        conversations::open_cursor(s, party, conversation, 0)?;
    }
    Ok(AddFriend::Added { stamp, friend_name })
}

pub(super) fn delete(
    s: &mut dyn Session,
    user: UserId,
    friend: UserId,
    now_ms: i64,
) -> Result<DeleteFriend, DbError> {
    let Some(conversation) = ConversationId::pair(user, friend) else {
        return Ok(DeleteFriend::NoSuchUser);
    };
    if !users::names(s, &[friend])?.contains_key(&friend) {
        return Ok(DeleteFriend::NoSuchUser);
    }
    let Some(last_sequence) = conversations::lock(s, conversation)? else {
        return Ok(DeleteFriend::NotFriends);
    };
    let sql = "DELETE FROM friendship WHERE user_id = ? AND friend_id = ?";
    if s.execute(sql, &[user.into(), friend.into()])?.rows == 0 {
        return Ok(DeleteFriend::NotFriends);
    }
    s.execute(sql, &[friend.into(), user.into()])?;
    let notice = Notice {
        sender: user,
        kind: MessageKind::DeleteFriend,
        content: "",
    };
    conversations::notify(s, conversation, last_sequence, &notice, now_ms)
        .map(DeleteFriend::Deleted)
}

fn count(s: &mut dyn Session, user: UserId) -> Result<usize, DbError> {
    let sql = "SELECT COUNT(*) FROM friendship WHERE user_id = ?";
    s.first(sql, &[user.into()])?
        .map_or(Ok(0), |row| row.count(0))
}
