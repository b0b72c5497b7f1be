//! How many friends, groups and members there may be.

use bytes::Bytes;
use chat_proto::ids::code;
use chat_proto::messages::*;

use super::{of, setting};

#[test]
fn a_full_group_takes_nobody() {
    let setting = setting(|options| options.group_members_max = 2);
    let groups = GroupServiceRpcClient::new(setting.node.channel.clone());
    let users: Vec<i32> = ["a", "b", "c"].map(|name| setting.register(name)).into();
    let request = CreateGroupRequest {
        user_id: users[0],
        group_name: "g".into(),
        ..Default::default()
    };
    let group = groups
        .create_group_with(&request, of(users[0], 1))
        .wait()
        .unwrap()
        .message;
    let group_id = group.group.unwrap().group_id;
    let join = |user: i32| {
        let request = AddGroupRequest {
            user_id: user,
            group_id,
            ..Default::default()
        };
        groups
            .add_group_with(&request, of(user, 1))
            .wait()
            .unwrap()
            .message
            .error_code
    };
    assert_eq!(join(users[1]), code::SUCCESS);
    assert_eq!(join(users[2]), code::TOO_LARGE);
}

#[test]
fn friends_and_groups_are_limited() {
    let setting = setting(|options| {
        options.clients.friends_max = 1;
        options.clients.groups_max = 1;
    });
    let [a, b, c] = ["a", "b", "c"].map(|name| setting.register(name));
    setting.befriend(a, b);
    let friends = FriendServiceRpcClient::new(setting.node.channel.clone());
    for (user_id, friend_id) in [(a, c), (c, a)] {
        let request = AddFriendRequest {
            user_id,
            friend_id,
            ..Default::default()
        };
        let answer = friends.add_friend_with(&request, of(user_id, 1)).wait();
        assert_eq!(answer.unwrap().message.error_code, code::TOO_LARGE);
    }
    let groups = GroupServiceRpcClient::new(setting.node.channel.clone());
    let create = |user_id: i32, group_name: &str| {
        let request = CreateGroupRequest {
            user_id,
            group_name: Bytes::copy_from_slice(group_name.as_bytes()),
            ..Default::default()
        };
        let answer = groups.create_group_with(&request, of(user_id, 1)).wait();
        answer.unwrap().message
    };
    let group_id = create(a, "one").group.unwrap().group_id;
    assert_eq!(create(a, "two").error_code, code::TOO_LARGE);
    assert_eq!(create(b, " \t ").error_code, code::CREATE_GROUP_EMPTY);
    assert_eq!(create(b, "a\nb").error_code, code::INVALID);
    assert_eq!(create(b, "of b").error_code, code::SUCCESS);
    let request = AddGroupRequest {
        user_id: b,
        group_id,
        ..Default::default()
    };
    let answer = groups.add_group_with(&request, of(b, 1)).wait();
    assert_eq!(answer.unwrap().message.error_code, code::TOO_LARGE);
}
