//! For whom a call is.

use chat_proto::ids::code;
use chat_proto::messages::*;
use nexus_rpc::ErrorCode;
use prost::Message as _;

use super::{of, setting};

#[test]
fn a_caller_that_names_no_user_is_refused() {
    let setting = setting(|_| {});
    let groups = GroupServiceRpcClient::new(setting.node.channel.clone());
    let error = groups
        .fetch_groups(&FetchGroupsRequest {
            user_id: 1,
            ..Default::default()
        })
        .wait()
        .unwrap_err();
    assert_eq!(error.code(), ErrorCode::UNAUTHENTICATED);
}

#[test]
fn the_user_of_the_call_counts_and_not_the_one_in_the_body() {
    let setting = setting(|_| {});
    let (a, b) = (setting.register("a"), setting.register("b"));
    setting.befriend(a, b);
    setting.login(b, 2);
    let request = FriendChatRequest {
        sender: Some(Sender {
            user_id: b,
            user_name: "forged".into(),
            ..Default::default()
        }),
        receiver: Some(Receiver {
            user_id: b,
            ..Default::default()
        }),
        content: "hi".into(),
        ..Default::default()
    };
    let chats = OneChatServiceRpcClient::new(setting.node.channel.clone());
    let answer = chats
        .friend_chat_with(&request, of(a, 1))
        .wait()
        .unwrap()
        .message;
    assert_eq!(answer.error_code, code::SUCCESS);
    let chat = FriendChatRequest::decode(setting.push().content).unwrap();
    let sender = chat.sender.unwrap();
    assert_eq!((sender.user_id, &sender.user_name[..]), (a, &b"a"[..]));
}
