//! The services of the fake that only take note of their calls.

use chat_proto::ids::code;
use chat_proto::messages::*;
use nexus_rpc::{CallContext, Responder, RpcError};

use crate::fake::Fake;

/// Methods of which only the call matters: answered with success.
macro_rules! succeed {
    ($service:ident: $($method:ident($request:ident) -> $answer:ident;)*) => {
        impl $service for Fake {$(
            fn $method(&self, call: &CallContext, _: $request) -> Result<$answer, RpcError> {
                self.note(stringify!($method), call);
                Ok($answer {
                    error_code: code::SUCCESS,
                    ..Default::default()
                })
            }
        )*}
    };
}

succeed! { FriendServiceRpc:
    add_friend(AddFriendRequest) -> AddFriendResponse;
    delete_friend(DeleteFriendRequest) -> DeleteFriendResponse;
    fetch_friends(FetchFriendsRequest) -> FetchFriendsResponse;
}

succeed! { GroupServiceRpc:
    create_group(CreateGroupRequest) -> CreateGroupResponse;
    add_group(AddGroupRequest) -> AddGroupResponse;
    quit_group(QuitGroupRequest) -> QuitGroupResponse;
    delete_group(DeleteGroupRequest) -> DeleteGroupResponse;
    fetch_groups(FetchGroupsRequest) -> FetchGroupsResponse;
}

impl GroupChatServiceRpc for Fake {
    fn group_chat(
        &self,
        call: CallContext,
        _request: GroupChatRequest,
        responder: Responder<GroupChatResponse>,
    ) {
        self.note("group_chat", &call);
        responder.complete(Ok(GroupChatResponse {
            error_code: code::SUCCESS,
            ..Default::default()
        }));
    }
}
