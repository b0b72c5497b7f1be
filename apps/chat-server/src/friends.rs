//! `FriendServiceRpc`: friends.

use chat_proto::ids::code;
use chat_proto::messages::{
    AddFriendRequest, AddFriendResponse, DeleteFriendRequest, DeleteFriendResponse,
    FetchFriendsRequest, FetchFriendsResponse, FriendList, FriendServiceRpc, FriendUser,
};
use chat_store::{AddFriend, ConversationId, DeleteFriend, Friend, MessageKind, Stamp, UserId};
use nexus_rpc::{CallContext, RpcError};

use crate::convert::{self, Online};
use crate::pages::LIST_BYTES_MAX;
use crate::publisher::Job;
use crate::{Services, caller, caller::Caller, failure::Failure};

impl FriendServiceRpc for Services {
    fn add_friend(
        &self,
        call: &CallContext,
        request: AddFriendRequest,
    ) -> Result<AddFriendResponse, RpcError> {
        let caller = caller::caller(call, &self.clocks)?;
        Ok(match self.try_add_friend(caller, &request) {
            Ok((friend, sequence)) => AddFriendResponse {
                error_code: code::SUCCESS,
                friend_user: Some(friend),
                sequence,
                ..Default::default()
            },
            Err(failure) => {
                let (error_code, error_text) = failure.into_parts("add friend");
                AddFriendResponse {
                    error_code,
                    error_text,
                    ..Default::default()
                }
            }
        })
    }

    fn delete_friend(
        &self,
        call: &CallContext,
        request: DeleteFriendRequest,
    ) -> Result<DeleteFriendResponse, RpcError> {
        let caller = caller::caller(call, &self.clocks)?;
        let friend_id = request.friend_id;
        Ok(match self.try_delete_friend(caller, friend_id) {
            Ok(sequence) => DeleteFriendResponse {
                error_code: code::SUCCESS,
                friend_id,
                sequence,
                ..Default::default()
            },
            Err(failure) => {
                let (error_code, error_text) = failure.into_parts("delete friend");
                DeleteFriendResponse {
                    error_code,
                    friend_id,
                    error_text,
                    ..Default::default()
                }
            }
        })
    }

    fn fetch_friends(
        &self,
        call: &CallContext,
        request: FetchFriendsRequest,
    ) -> Result<FetchFriendsResponse, RpcError> {
        let caller = caller::caller(call, &self.clocks)?;
        Ok(match self.try_fetch_friends(caller, request) {
            Ok((friends, more)) => FetchFriendsResponse {
                error_code: code::SUCCESS,
                friend_list: Some(friends),
                more,
                ..Default::default()
            },
            Err(failure) => {
                let (error_code, error_text) = failure.into_parts("fetch friends");
                FetchFriendsResponse {
                    error_code,
                    error_text,
                    ..Default::default()
                }
            }
        })
    }
}

impl Services {
    fn try_add_friend(
        &self,
        Caller { user, terms }: Caller,
        request: &AddFriendRequest,
    ) -> Result<(FriendUser, u64), Failure> {
        let bad_id = || Failure::new(code::ADD_FRIEND_BAD_ID, "not the id of another user");
        let friend = match request.friend_id {
            0 if !request.friend_name.is_empty() => {
                let friend = self.user_named(&request.friend_name)?;
                friend.ok_or_else(|| Failure::new(code::ADD_FRIEND_NO_USER, "no such user"))?
            }
            id => UserId::new(id).ok_or_else(bad_id)?,
        };
        let conversation = ConversationId::pair(user, friend).ok_or_else(bad_id)?;
        let store_failed = |error| Failure::store(error, code::ADD_FRIEND_STORE);
        let added = self
            .store
            .on(terms)
            .add_friend(user, friend, self.clients.friends_max);
        match added.map_err(store_failed)? {
            AddFriend::Added { stamp, friend_name } => {
                let to = vec![friend];
                // The change is made, and is told without the name if need be.
                let mut names = self.store.names(&[user]).unwrap_or_default();
                let actor = (user, names.remove(&user).unwrap_or_default());
                self.announce(MessageKind::AddFriend, conversation, actor, stamp, to);
                let online = Online::of(&*self.bus, [friend]);
                let friend = Friend {
                    id: friend,
                    name: friend_name,
                };
                Ok((convert::friend_user(friend, &online), stamp.sequence))
            }
            AddFriend::NoSuchUser => Err(Failure::new(code::ADD_FRIEND_NO_USER, "no such user")),
            AddFriend::AlreadyFriends => {
                Err(Failure::new(code::ADD_FRIEND_ALREADY, "already friends"))
            }
            AddFriend::TooManyFriends { of } => Err(Failure::new(
                code::TOO_LARGE,
                match of == user {
                    true => "you have as many friends as you may have",
                    false => "the other one has as many friends as allowed",
                },
            )),
        }
    }

    fn try_delete_friend(
        &self,
        Caller { user, terms }: Caller,
        friend: i32,
    ) -> Result<u64, Failure> {
        let bad_id = || Failure::new(code::DELETE_FRIEND_BAD_ID, "not the id of another user");
        let friend = UserId::new(friend).ok_or_else(bad_id)?;
        let conversation = ConversationId::pair(user, friend).ok_or_else(bad_id)?;
        let store_failed = |error| Failure::store(error, code::DELETE_FRIEND_STORE);
        match self
            .store
            .on(terms)
            .delete_friend(user, friend)
            .map_err(store_failed)?
        {
            DeleteFriend::Deleted(stamp) => {
                let to = vec![friend];
                let actor = (user, String::new());
                self.announce(MessageKind::DeleteFriend, conversation, actor, stamp, to);
                Ok(stamp.sequence)
            }
            DeleteFriend::NoSuchUser => {
                Err(Failure::new(code::DELETE_FRIEND_NO_USER, "no such user"))
            }
            DeleteFriend::NotFriends => {
                Err(Failure::new(code::DELETE_FRIEND_NOT_FRIENDS, "not friends"))
            }
        }
    }

    fn try_fetch_friends(
        &self,
        Caller { user, terms }: Caller,
        request: FetchFriendsRequest,
    ) -> Result<(FriendList, bool), Failure> {
        let after = UserId::new(request.after_friend_id);
        let store = self.store.on(terms);
        let page = store.friends_page(user, after, LIST_BYTES_MAX)?;
        let online = Online::of(&*self.bus, page.items.iter().map(|friend| friend.id));
        Ok((convert::friend_list(page.items, &online), page.more))
    }

    /// Tells a change to those who were concerned; it is a message of the conversation already. The actor's name
    /// is empty where they know it.
    pub(crate) fn announce(
        &self,
        kind: MessageKind,
        conversation: ConversationId,
        actor: (UserId, String),
        stamp: Stamp,
        to: Vec<UserId>,
    ) {
        let message = convert::notice(kind, conversation, actor, stamp);
        self.publisher.publish(Job::ToMembers(message, to.into()));
    }
}
