//! Lists of a size that only SQL makes in time: a user in 100 groups of 1,000 members with long names.

use std::collections::BTreeSet;

use chat_store::*;
use mysql::{Conn, Opts, prelude::Queryable};
use nexus_testkit::MariaDb;

use crate::suite::{NO_LIMIT, create_group, register};

const GROUPS: usize = 100;
const MEMBERS: usize = 1000;
/// What an answer has for lists, about.
const LISTS_BYTES_MAX: usize = 7 << 19;

/// A user in as many groups, still alone.
fn ann_and_groups(store: &dyn Store) -> (UserId, Vec<GroupId>) {
    let ann = register(store, "ann");
    let group = || create_group(store, ann, "group", "").id;
    (ann, (0..GROUPS).map(|_| group()).collect())
}

/// Statements that make everybody a member of all groups.
fn crowd(groups: &[GroupId]) -> Vec<String> {
    let names: Vec<String> = (1..MEMBERS)
        .map(|number| format!("('{}{number:04}', 'x')", "\u{1F600}".repeat(46)))
        .collect();
    let users = format!(
        "INSERT INTO user (name, password_hash) VALUES {}",
        names.join(",")
    );
    let join = |group: &GroupId| {
        let conversation = ConversationId::group(*group).raw();
        [
            format!(
                "INSERT INTO group_member (group_id, user_id, role, joined_seq) \
                 SELECT {group}, id, 0, 1 FROM user WHERE password_hash = 'x'"
            ),
            format!("UPDATE conversation SET last_seq = last_seq + 1 WHERE id = {conversation}"),
        ]
    };
    [users]
        .into_iter()
        .chain(groups.iter().flat_map(join))
        .collect()
}

/// What is read at a login, and then all the rest.
fn a_login_has_its_share_of_all_groups(store: &dyn Store, ann: UserId, groups: &[GroupId]) {
    let overview = store.overview(ann, &[], NO_LIMIT, LISTS_BYTES_MAX).unwrap();
    assert!(!overview.groups.more);
    let shown: Vec<GroupId> = overview.groups.items.iter().map(|group| group.id).collect();
    assert_eq!(shown, groups);
    let bytes =
        |group: &Group| group.bytes() + group.members.iter().map(Member::bytes).sum::<usize>();
    let taken: usize = overview.groups.items.iter().map(bytes).sum();
    assert!(taken <= LISTS_BYTES_MAX);
    assert!(taken > LISTS_BYTES_MAX / 10 * 9, "{taken} bytes");
    for group in &overview.groups.items {
        assert!(group.more_members);
        assert!(group.members.len() > MEMBERS / 8, "{}", group.members.len());
    }

    let group = &overview.groups.items[GROUPS / 2];
    let mut ids: Vec<UserId> = group.members.iter().map(|member| member.id).collect();
    loop {
        let page = store
            .members_page(group.id, ids.last().copied(), 50_000)
            .unwrap();
        ids.extend(page.items.iter().map(|member| member.id));
        if !page.more {
            break;
        }
    }
    assert_eq!(ids.len(), MEMBERS);
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), MEMBERS);
}

#[test]
fn a_hundred_thousand_members_are_not_read_to_show_some_of_mysql() {
    let server = MariaDb::start().unwrap();
    let store = MySqlStore::new(MySqlOptions::new(server.url())).unwrap();
    store.prepare_schema().unwrap();
    let (ann, groups) = ann_and_groups(&store);
    let mut conn = Conn::new(Opts::from_url(&server.url()).unwrap()).unwrap();
    for statement in crowd(&groups) {
        conn.query_drop(statement).unwrap();
    }
    let mut rows_read = || -> u64 {
        let row: Option<(String, u64)> = conn
            .query_first("SHOW GLOBAL STATUS LIKE 'Handler_read_next'")
            .unwrap();
        row.unwrap().1
    };
    let before = rows_read();
    store.overview(ann, &[], NO_LIMIT, LISTS_BYTES_MAX).unwrap();
    let some = rows_read() - before;
    a_login_has_its_share_of_all_groups(&store, ann, &groups);
    let before = rows_read();
    let members = store
        .groups(ann)
        .unwrap()
        .into_iter()
        .map(|group| group.members.len());
    assert_eq!(members.sum::<usize>(), GROUPS * MEMBERS);
    let all = rows_read() - before;
    // A sixth of them has room.
    assert!(some < all / 3, "{some} rows and {all} rows");
}

#[test]
fn a_hundred_thousand_members_have_room_in_a_login_of_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chat.sqlite");
    let store = SqliteStore::open(&file).unwrap();
    store.prepare_schema().unwrap();
    let (ann, groups) = ann_and_groups(&store);
    let conn = rusqlite::Connection::open(&file).unwrap();
    conn.execute_batch(&format!("BEGIN; {}; COMMIT", crowd(&groups).join(";")))
        .unwrap();
    a_login_has_its_share_of_all_groups(&store, ann, &groups);
}
