//! The services of the fake that only take note of their calls.

use chat_proto::ids::code;
use chat_proto::messages::*;
use nexus_rpc::{CallContext, Responder, RpcError};

use crate::fake::Fake;

/// Methods of which only the call matters: answered with success.
macro_rules! succeed {
    ($service:ident: $($method:ident($request:ident) -> $answer:ident
        $(, |$fake:ident, $filled:ident| $fill:block)?;)*) => {
        impl $service for Fake {$(
            fn $method(&self, call: &CallContext, _: $request) -> Result<$answer, RpcError> {
                self.note(stringify!($method), call);
                #[allow(unused_mut, reason = "most answers hold nothing more")]
                let mut answer = $answer {
                    error_code: code::SUCCESS,
                    ..Default::default()
                };
                $({
                    let ($fake, $filled) = (self, &mut answer);
                    $fill
                })?
                Ok(answer)
            }
        )*}
    };
}

succeed! { FriendServiceRpc:
    add_friend(AddFriendRequest) -> AddFriendResponse, |fake, answer| {
        let (friend_id, sequence) = fake.script(|state| state.added);
        answer.sequence = sequence;
        answer.friend_user = Some(FriendUser {
            friend_id,
            ..Default::default()
        });
    };
    delete_friend(DeleteFriendRequest) -> DeleteFriendResponse;
    fetch_friends(FetchFriendsRequest) -> FetchFriendsResponse;
}

succeed! { GroupServiceRpc:
    create_group(CreateGroupRequest) -> CreateGroupResponse;
    add_group(AddGroupRequest) -> AddGroupResponse;
    quit_group(QuitGroupRequest) -> QuitGroupResponse;
    delete_group(DeleteGroupRequest) -> DeleteGroupResponse;
    fetch_groups(FetchGroupsRequest) -> FetchGroupsResponse;
    fetch_group_members(FetchGroupMembersRequest) -> FetchGroupMembersResponse, |fake, answer| {
        let name = vec![b'x'; fake.script(|state| state.answer_bytes)].into();
        let member = GroupUser {
            user_name: name,
            ..Default::default()
        };
        answer.group_user_list = Some(GroupUserList {
            group_users: vec![member],
        });
    };
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
