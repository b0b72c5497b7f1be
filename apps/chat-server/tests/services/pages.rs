//! Lists and histories larger than one answer.

use std::collections::BTreeSet;
use std::sync::Arc;

use chat_proto::frame::RESPONSE_CONTENT_BYTES_MAX;
use chat_proto::ids::code;
use chat_proto::messages::*;
use chat_server::ServerOptions;
use chat_store::{ConversationId, GroupId, NewMessage, SqliteStore, UserId};
use prost::Message as _;
use rusqlite::Connection;

use super::{Setting, of, setting, setting_on};

/// The longest name, and its number.
fn name(number: usize) -> String {
    format!("{}{number:05}", "\u{1F600}".repeat(58))
}

/// A setting whose store SQL can fill, faster than a thousand people can join.
struct Crowded {
    setting: Setting,
    conn: Connection,
    _folder: tempfile::TempDir,
}

impl Crowded {
    fn new(adjust: impl FnOnce(&mut ServerOptions)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("chat.sqlite");
        let store = SqliteStore::open(&file).unwrap();
        let setting = setting_on(Arc::new(store), adjust);
        Self {
            setting,
            conn: Connection::open(&file).unwrap(),
            _folder: folder,
        }
    }

    /// Users with the longest names.
    fn users(&self, count: usize) -> Vec<i32> {
        let insert = "INSERT INTO user (name, password_hash) VALUES (?, 'hash')";
        let begin = self.conn.unchecked_transaction().unwrap();
        let ids = (0..count)
            .map(|number| {
                self.conn.execute(insert, [name(number)]).unwrap();
                i32::try_from(self.conn.last_insert_rowid()).unwrap()
            })
            .collect();
        begin.commit().unwrap();
        ids
    }

    /// A group of these, and of its admin.
    fn group(&self, admin: i32, members: &[i32]) -> i32 {
        let store = &self.setting.store;
        let admin = UserId::new(admin).unwrap();
        let made = store.create_group(admin, "group", "", usize::MAX).unwrap();
        let chat_store::CreateGroup::Created(group) = made else {
            panic!("{made:?}");
        };
        let conversation = ConversationId::group(group.id).raw().cast_signed();
        let begin = self.conn.unchecked_transaction().unwrap();
        for (sequence, member) in (1i64..).zip(members) {
            let join = "INSERT INTO group_member (group_id, user_id, role, joined_seq) VALUES (?, ?, 0, ?)";
            self.conn
                .execute(join, (group.id.get(), member, sequence))
                .unwrap();
        }
        let told = "UPDATE conversation SET last_seq = last_seq + ? WHERE id = ?";
        self.conn
            .execute(told, (members.len() as i64, conversation))
            .unwrap();
        begin.commit().unwrap();
        group.id.get()
    }
}

impl Setting {
    fn groups(&self) -> GroupServiceRpcClient {
        GroupServiceRpcClient::new(self.node.channel.clone())
    }

    fn members(&self, user: i32, group_id: i32, after_user_id: i32) -> FetchGroupMembersResponse {
        let request = FetchGroupMembersRequest {
            user_id: user,
            group_id,
            after_user_id,
        };
        let call = self
            .groups()
            .fetch_group_members_with(&request, of(user, 1));
        call.wait().unwrap().message
    }

    fn history(&self, user: i32, friend_id: i32, first_sequence: u64) -> FetchHistoryResponse {
        let request = FetchHistoryRequest {
            user_id: user,
            conversation: Some(Conversation {
                friend_id,
                group_id: 0,
            }),
            first_sequence,
            count_max: 0,
        };
        let call = self.users().fetch_history_with(&request, of(user, 1));
        call.wait().unwrap().message
    }
}

fn ids(group: &Group) -> Vec<i32> {
    let list = group.group_user_list.as_ref();
    list.map_or(Vec::new(), |list| {
        list.group_users.iter().map(|one| one.user_id).collect()
    })
}

#[test]
fn a_history_of_the_longest_messages_comes_in_pages() {
    let setting = setting(|_| {});
    let [ann, bob] = ["ann", "bob"].map(|name| setting.register(name));
    setting.befriend(ann, bob);
    let (a, b) = (UserId::new(ann).unwrap(), UserId::new(bob).unwrap());
    let message = NewMessage {
        conversation: ConversationId::pair(a, b).unwrap(),
        sender: a,
        client_message_id: None,
        content: "\u{1F600}".repeat(16 * 1024),
        client_time: "2026-01-02 03:04:05".into(),
        terms: Default::default(),
    };
    for _ in 0..4 {
        setting
            .store
            .append(&vec![message.clone(); 30], &[])
            .unwrap();
    }
    let (mut next, mut pages) = (1, 0);
    loop {
        let page = setting.history(bob, ann, next);
        assert_eq!(page.error_code, code::SUCCESS, "{}", page.error_text);
        assert!(page.encoded_len() <= RESPONSE_CONTENT_BYTES_MAX);
        assert_eq!(page.last_sequence, 121);
        let sequences: Vec<u64> = page.messages.iter().map(|one| one.sequence).collect();
        assert_eq!(
            sequences,
            (next..next + sequences.len() as u64).collect::<Vec<_>>()
        );
        pages += 1;
        match sequences.last() {
            Some(&last) if last < page.last_sequence => next = last + 1,
            last => break assert_eq!(last, Some(&121)),
        }
    }
    assert!(pages > 4, "{pages} pages");
    // A login has a page of them, and says by its marks where it ends.
    let login = setting.login(bob, 2);
    let pending = login.offline_message_list.as_ref().unwrap().messages.len();
    assert!((2..20).contains(&pending), "{pending}");
    assert!(login.encoded_len() <= RESPONSE_CONTENT_BYTES_MAX);
}

#[test]
fn a_thousand_friends_with_the_longest_names_have_room_in_a_login() {
    let crowded = Crowded::new(|_| {});
    let setting = &crowded.setting;
    let ann = setting.register("ann");
    let me = UserId::new(ann).unwrap();
    let friends = crowded.users(1000);
    for &friend in &friends {
        let friend = UserId::new(friend).unwrap();
        setting.store.add_friend(friend, me, 1000).unwrap();
    }
    // An old client knows no pages: there must be none.
    let login = setting.login(ann, 2);
    assert_eq!(login.error_code, code::SUCCESS, "{}", login.error_text);
    assert!(!login.more_friends && !login.more_groups);
    let listed = login.friend_list.unwrap().friend_users;
    assert_eq!(
        listed.iter().map(|one| one.friend_id).collect::<Vec<_>>(),
        friends
    );
    assert_eq!(listed[999].friend_name, name(999));
}

#[test]
fn who_joins_a_group_of_a_thousand_with_the_longest_names_is_told_all() {
    let crowded = Crowded::new(|_| {});
    let setting = &crowded.setting;
    let [ann, bob] = ["ann", "bob"].map(|name| setting.register(name));
    let group_id = crowded.group(ann, &crowded.users(998));
    let join = |user: i32| {
        let request = AddGroupRequest {
            user_id: user,
            group_id,
            ..Default::default()
        };
        setting
            .groups()
            .add_group_with(&request, of(user, 1))
            .wait()
            .unwrap()
            .message
    };
    let joined = join(bob);
    assert_eq!(joined.error_code, code::SUCCESS, "{}", joined.error_text);
    let group = joined.group.unwrap();
    assert_eq!((ids(&group).len(), group.more_members), (1000, false));
    let carl = setting.register("carl");
    assert_eq!(join(carl).error_code, code::TOO_LARGE);
}

#[test]
fn a_login_of_somebody_in_groups_without_end_has_all_groups_and_some_of_each() {
    const GROUPS: usize = 12;
    const MEMBERS: usize = 2000;
    let crowded = Crowded::new(|options| options.group_members_max = 10_000);
    let setting = &crowded.setting;
    let ann = setting.register("ann");
    let others = crowded.users(MEMBERS);
    let mut groups: Vec<i32> = (0..GROUPS).map(|_| crowded.group(ann, &others)).collect();
    let small = crowded.group(ann, &others[..1]);
    groups.push(small);

    let login = setting.login(ann, 2);
    assert_eq!(login.error_code, code::SUCCESS, "{}", login.error_text);
    let bytes = login.encoded_len();
    assert!(bytes <= RESPONSE_CONTENT_BYTES_MAX, "{bytes} bytes");
    // As much as fits, for clients that cannot ask for more.
    assert!(bytes > RESPONSE_CONTENT_BYTES_MAX / 4 * 3, "{bytes} bytes");
    assert!(!login.more_groups);
    let listed = login.group_list.unwrap().groups;
    assert_eq!(
        listed
            .iter()
            .map(|group| group.group_id)
            .collect::<Vec<_>>(),
        groups
    );
    let (last, large) = listed.split_last().unwrap();
    assert_eq!((ids(last).len(), last.more_members), (2, false));
    for group in large {
        assert!(group.more_members && ids(group).len() > MEMBERS / 3);
    }

    // The rest comes in pages; in the end it is everybody, once.
    let mut shown = ids(&large[0]);
    loop {
        let page = setting.members(ann, groups[0], *shown.last().unwrap());
        assert_eq!(page.error_code, code::SUCCESS, "{}", page.error_text);
        assert!(page.encoded_len() <= RESPONSE_CONTENT_BYTES_MAX);
        let members = page.group_user_list.unwrap().group_users;
        shown.extend(members.iter().map(|member| member.user_id));
        if !page.more {
            break;
        }
    }
    assert_eq!(shown.len(), MEMBERS + 1);
    assert_eq!(shown.iter().collect::<BTreeSet<_>>().len(), MEMBERS + 1);

    let request = FetchGroupsRequest {
        user_id: ann,
        after_group_id: groups[10],
    };
    let call = setting.groups().fetch_groups_with(&request, of(ann, 1));
    let page = call.wait().unwrap().message;
    assert!(page.encoded_len() <= RESPONSE_CONTENT_BYTES_MAX && !page.more);
    let listed = page.group_list.unwrap().groups;
    assert_eq!(
        listed
            .iter()
            .map(|group| group.group_id)
            .collect::<Vec<_>>(),
        groups[11..]
    );
    assert!(listed.iter().all(|group| !group.more_members));

    // Who joins a group beyond the limit of that answer is told so.
    let bob = setting.register("bob");
    let request = AddGroupRequest {
        user_id: bob,
        group_id: groups[0],
        ..Default::default()
    };
    let joined = setting
        .groups()
        .add_group_with(&request, of(bob, 1))
        .wait()
        .unwrap()
        .message;
    let group = joined.group.unwrap();
    assert!(group.more_members && ids(&group).len() > 1000);
    assert!(group.encoded_len() < RESPONSE_CONTENT_BYTES_MAX / 4);
    let members = setting
        .store
        .group_members(GroupId::new(groups[0]).unwrap());
    assert_eq!(members.unwrap().len(), MEMBERS + 2);
}

#[test]
fn members_are_shown_to_members() {
    let crowded = Crowded::new(|_| {});
    let setting = &crowded.setting;
    let [ann, bob] = ["ann", "bob"].map(|name| setting.register(name));
    let group_id = crowded.group(ann, &[]);
    assert_eq!(setting.members(ann, group_id, 0).error_code, code::SUCCESS);
    for (user, group_id) in [(bob, group_id), (ann, 0), (ann, -1), (ann, i32::MAX)] {
        let answer = setting.members(user, group_id, 0);
        assert_eq!(answer.error_code, code::NOT_YOURSELF);
        assert!(answer.group_user_list.is_none());
    }
    let nobody = setting.members(ann, group_id, i32::MAX);
    assert_eq!((nobody.error_code, nobody.more), (code::SUCCESS, false));
}
