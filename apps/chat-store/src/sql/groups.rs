//! Groups and who is in them. `joined_seq`, the sequence of a member's own joining, is what orders
//! the members.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    conversations::{self, Notice},
    lists,
    memberships::KnownGroup,
    row::{Row, role_number},
    session::{Session, Value},
    users,
};
use crate::{
    ConversationId, GroupId, UserId,
    error::DbError,
    types::{CreateGroup, DeleteGroup, Group, JoinGroup, LeaveGroup, Member, MessageKind, Role},
};

/// Of a group's members, as many as take this are told to who joins it.
const JOINED_GROUP_BYTES_MAX: usize = 512 << 10;

pub(super) fn create(
    s: &mut dyn Session,
    creator: UserId,
    name: &str,
    description: &str,
    groups_max: usize,
) -> Result<CreateGroup, DbError> {
    users::lock(s, &[creator])?;
    if count(s, creator)? >= groups_max {
        return Ok(CreateGroup::TooManyGroups);
    }
    let sql = "INSERT INTO chat_group (name, description, creator_id) VALUES (?, ?, ?)";
    let done = s.execute(sql, &[name.into(), description.into(), creator.into()])?;
    let id = i32::try_from(done.last_insert_id)
        .ok()
        .and_then(GroupId::new)
        .ok_or_else(|| DbError::unexpected("new group id"))?;
    let conversation = ConversationId::group(id);
    let last_sequence = conversations::create(s, conversation)?;
    insert_member(s, id, creator, Role::Admin, last_sequence)?;
    conversations::open_cursor(s, creator, conversation, last_sequence)?;
    let names = users::names(s, &[creator])?;
    let members = names.into_iter().map(|(id, name)| Member {
        id,
        name,
        role: Role::Admin,
    });
    let group = Group {
        id,
        name: name.to_owned(),
        description: description.to_owned(),
        members: members.collect(),
        more_members: false,
    };
    if group.members.is_empty() {
        return Err(DbError::Internal(
            "the creator of a group is no user".into(),
        ));
    }
    Ok(CreateGroup::Created(group))
}

/// Beyond which nobody joins.
#[derive(Clone, Copy)]
pub(super) struct JoinLimits {
    /// Members of the group.
    pub(super) members_max: usize,
    /// Groups of the user.
    pub(super) groups_max: usize,
}

pub(super) fn join(
    s: &mut dyn Session,
    user: UserId,
    group: GroupId,
    limits: JoinLimits,
    now_ms: i64,
) -> Result<JoinGroup, DbError> {
    users::lock(s, &[user])?;
    let conversation = ConversationId::group(group);
    let Some(last_sequence) = conversations::lock(s, conversation)? else {
        return Ok(JoinGroup::NoSuchGroup);
    };
    if name(s, group)?.is_none() {
        return Ok(JoinGroup::NoSuchGroup);
    }
    let members = members(s, group)?;
    if members.iter().any(|(member, _)| *member == user) {
        return Ok(JoinGroup::AlreadyMember);
    }
    if members.len() >= limits.members_max {
        return Ok(JoinGroup::Full);
    }
    if count(s, user)? >= limits.groups_max {
        return Ok(JoinGroup::TooManyGroups);
    }
    let notice = Notice {
        sender: user,
        kind: MessageKind::JoinGroup,
        content: "",
    };
    let stamp = conversations::notify(s, conversation, last_sequence, &notice, now_ms)?;
    insert_member(s, group, user, Role::Member, stamp.sequence)?;
    conversations::open_cursor(s, user, conversation, stamp.sequence)?;
    let user_name = users::names(s, &[user])?.remove(&user);
    let user_name = user_name
        .ok_or_else(|| DbError::Internal("the one who joins a group is no user".into()))?;
    let listed = lists::members(s, group, None, JOINED_GROUP_BYTES_MAX)?;
    let head = heads(s, &[group])?.remove(&group);
    let group = Group {
        members: listed.items,
        more_members: listed.more,
        ..head.ok_or_else(|| DbError::unexpected("absence of a group"))?
    };
    let members = members.into_iter().map(|(member, _)| member);
    Ok(JoinGroup::Joined {
        stamp,
        user_name,
        group,
        members: members.chain([user]).collect(),
    })
}

pub(super) fn leave(
    s: &mut dyn Session,
    user: UserId,
    group: GroupId,
    now_ms: i64,
) -> Result<LeaveGroup, DbError> {
    let conversation = ConversationId::group(group);
    let Some(last_sequence) = conversations::lock(s, conversation)? else {
        return Ok(LeaveGroup::NotMember);
    };
    let members = members(s, group)?;
    let Some((_, role)) = members.iter().copied().find(|(member, _)| *member == user) else {
        return Ok(LeaveGroup::NotMember);
    };
    let rest: Vec<UserId> = members
        .iter()
        .map(|(member, _)| *member)
        .filter(|member| *member != user)
        .collect();
    let new_admin = rest.first().copied().filter(|_| role == Role::Admin);

    let notice = Notice {
        sender: user,
        kind: MessageKind::LeaveGroup,
        content: "",
    };
    let stamp = conversations::notify(s, conversation, last_sequence, &notice, now_ms)?;
    let sql = "DELETE FROM group_member WHERE group_id = ? AND user_id = ?";
    s.execute(sql, &[group.into(), user.into()])?;
    if let Some(heir) = new_admin {
        let sql = "UPDATE group_member SET role = ? WHERE group_id = ? AND user_id = ?";
        let admin = Value::Int(role_number(Role::Admin));
        s.execute(sql, &[admin, group.into(), heir.into()])?;
    }
    if rest.is_empty() {
        s.execute("DELETE FROM chat_group WHERE id = ?", &[group.into()])?;
    }
    conversations::close_cursor(s, user, conversation)?;
    Ok(LeaveGroup::Left {
        stamp,
        members: rest,
        new_admin,
    })
}

pub(super) fn delete(
    s: &mut dyn Session,
    user: UserId,
    group: GroupId,
    now_ms: i64,
) -> Result<DeleteGroup, DbError> {
    let conversation = ConversationId::group(group);
    let Some(last_sequence) = conversations::lock(s, conversation)? else {
        return Ok(DeleteGroup::NoSuchGroup);
    };
    let Some(group_name) = name(s, group)? else {
        return Ok(DeleteGroup::NoSuchGroup);
    };
    let members = members(s, group)?;
    match members.iter().find(|(member, _)| *member == user) {
        None => return Ok(DeleteGroup::NotMember),
        Some((_, Role::Member)) => return Ok(DeleteGroup::NotAdmin),
        Some((_, Role::Admin)) => {}
    }
    // The name is the content, because the group is gone when an offline member reads this.
    let notice = Notice {
        sender: user,
        kind: MessageKind::DeleteGroup,
        content: &group_name,
    };
    let stamp = conversations::notify(s, conversation, last_sequence, &notice, now_ms)?;
    s.execute(
        "DELETE FROM group_member WHERE group_id = ?",
        &[group.into()],
    )?;
    s.execute("DELETE FROM chat_group WHERE id = ?", &[group.into()])?;
    conversations::close_cursor(s, user, conversation)?;
    let members = members.into_iter().map(|(member, _)| member).collect();
    Ok(DeleteGroup::Deleted { stamp, members })
}

pub(super) fn members_of(
    s: &mut dyn Session,
    groups: &[GroupId],
) -> Result<HashMap<GroupId, Vec<UserId>>, DbError> {
    let distinct: BTreeSet<_> = groups.iter().copied().collect();
    let keys: Vec<_> = distinct.into_iter().map(|group| [group.into()]).collect();
    let rows = s.query_in(
        "SELECT group_id, user_id FROM group_member WHERE group_id",
        &keys,
        "ORDER BY group_id, joined_seq",
    )?;
    let mut members: HashMap<GroupId, Vec<UserId>> = HashMap::new();
    for row in rows {
        members.entry(row.group(0)?).or_default().push(row.user(1)?);
    }
    Ok(members)
}

/// Those of the groups that are there, with all their members; in two statements for up to 256.
pub(super) fn find_all(s: &mut dyn Session, ids: &[GroupId]) -> Result<Vec<KnownGroup>, DbError> {
    let keys: Vec<_> = ids.iter().map(|id| [(*id).into()]).collect();
    let heads = heads(s, ids)?;
    let rows = s.query_in(
        "SELECT m.group_id, m.user_id, u.name, m.role, m.joined_seq \
         FROM group_member m JOIN user u ON u.id = m.user_id WHERE m.group_id",
        &keys,
        "ORDER BY m.group_id, m.user_id",
    )?;
    let mut members = by_group(rows)?;
    let complete = |head: Group| {
        let (members, joined): (Vec<_>, Vec<_>) = members
            .remove(&head.id)
            .unwrap_or_default()
            .into_iter()
            .unzip();
        let group = Group {
            members,
            more_members: false,
            ..head
        };
        KnownGroup::new(group, &joined)
    };
    Ok(heads.into_values().map(complete).collect())
}

/// Those of the groups that are there, without their members.
pub(super) fn heads(
    s: &mut dyn Session,
    ids: &[GroupId],
) -> Result<BTreeMap<GroupId, Group>, DbError> {
    let keys: Vec<_> = ids.iter().map(|id| [(*id).into()]).collect();
    let sql = "SELECT id, name, description FROM chat_group WHERE id";
    let rows = s.query_in(sql, &keys, "")?;
    rows.iter()
        .map(|row| {
            let id = row.group(0)?;
            let group = Group {
                id,
                name: row.text(1)?,
                description: row.text(2)?,
                members: Vec::new(),
                more_members: true,
            };
            Ok((id, group))
        })
        .collect()
}

/// The members of a group with higher ids than one of them.
#[derive(Clone, Copy)]
pub(super) struct Stretch {
    pub(super) group: GroupId,
    pub(super) after: Option<UserId>,
}

/// The first members in these stretches, each with the sequence of the joining, in one statement. The inner queries are
/// ranges of the primary key, so no more members are read than are returned.
pub(super) fn members_in(
    s: &mut dyn Session,
    stretches: &[Stretch],
    rows_max: usize,
) -> Result<HashMap<GroupId, Vec<ListedMember>>, DbError> {
    let Some(last) = stretches.last() else {
        return Ok(HashMap::new());
    };
    let width = stretches.len().next_power_of_two();
    let stretch = |stretch: &Stretch, rows_max| {
        let after = i64::from(stretch.after.map_or(0, UserId::get));
        [stretch.group.into(), after.into(), Value::limit(rows_max)]
    };
    let mut params: Vec<Value<'_>> = Vec::with_capacity(3 * width);
    for one in stretches {
        params.extend(stretch(one, rows_max));
    }
    for _ in stretches.len()..width {
        params.extend(stretch(last, 0));
    }
    let ranges: Vec<String> = (0..width)
        .map(|index| {
            format!(
                "SELECT * FROM (SELECT group_id, user_id, role, joined_seq FROM group_member \
                 WHERE group_id = ? AND user_id > ? ORDER BY user_id LIMIT ?) AS range_{index}"
            )
        })
        .collect();
    let sql = format!(
        "SELECT m.group_id, m.user_id, u.name, m.role, m.joined_seq FROM ({}) AS m \
         JOIN user u ON u.id = m.user_id ORDER BY m.group_id, m.user_id",
        ranges.join(" UNION ALL ")
    );
    by_group(s.query(&sql, &params)?)
}

/// A member, with the sequence of the joining.
pub(super) type ListedMember = (Member, u64);

/// From rows of (group, user, user's name, role, sequence of the joining).
fn by_group(rows: Vec<Row>) -> Result<HashMap<GroupId, Vec<ListedMember>>, DbError> {
    let mut members: HashMap<GroupId, Vec<ListedMember>> = HashMap::new();
    for row in rows {
        let member = Member {
            id: row.user(1)?,
            name: row.text(2)?,
            role: row.role(3)?,
        };
        let of_group = members.entry(row.group(0)?).or_default();
        of_group.push((member, row.u64(4)?));
    }
    Ok(members)
}

/// In how many groups a user is.
fn count(s: &mut dyn Session, user: UserId) -> Result<usize, DbError> {
    let sql = "SELECT COUNT(*) FROM group_member WHERE user_id = ?";
    s.first(sql, &[user.into()])?
        .map_or(Ok(0), |row| row.count(0))
}

fn name(s: &mut dyn Session, group: GroupId) -> Result<Option<String>, DbError> {
    s.first("SELECT name FROM chat_group WHERE id = ?", &[group.into()])?
        .map(|row| row.text(0))
        .transpose()
}

/// Who is in a group, the longest-standing first.
fn members(s: &mut dyn Session, group: GroupId) -> Result<Vec<(UserId, Role)>, DbError> {
    let sql = "SELECT user_id, role FROM group_member WHERE group_id = ? ORDER BY joined_seq";
    let rows = s.query(sql, &[group.into()])?;
    rows.iter()
        .map(|row| Ok((row.user(0)?, row.role(1)?)))
        .collect()
}

fn insert_member(
    s: &mut dyn Session,
    group: GroupId,
    user: UserId,
    role: Role,
    joined_sequence: u64,
) -> Result<(), DbError> {
    let sql = "INSERT INTO group_member (group_id, user_id, role, joined_seq) VALUES (?, ?, ?, ?)";
    let role = Value::Int(role_number(role));
    s.execute(
        sql,
        &[group.into(), user.into(), role, joined_sequence.into()],
    )?;
    Ok(())
}
