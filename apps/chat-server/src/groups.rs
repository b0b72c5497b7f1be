//! `GroupServiceRpc`: groups and their members.

use chat_proto::ids::code;
use chat_proto::messages::{
    AddGroupRequest, AddGroupResponse, CreateGroupRequest, CreateGroupResponse, DeleteGroupRequest,
    DeleteGroupResponse, FetchGroupMembersRequest, FetchGroupMembersResponse, FetchGroupsRequest,
    FetchGroupsResponse, Group, GroupList, GroupServiceRpc, GroupUserList, QuitGroupRequest,
    QuitGroupResponse, Rule,
};
use chat_store::{
    ConversationId, CreateGroup, DeleteGroup, GroupId, JoinGroup, LeaveGroup, MessageKind, UserId,
};
use nexus_rpc::{CallContext, RpcError};

use crate::caller::Caller;
use crate::convert::{self, Online};
use crate::pages::LIST_BYTES_MAX;
use crate::{Services, caller, failure::Failure, input};

const TOO_MANY_GROUPS: &str = "you are in as many groups as you may be";

impl GroupServiceRpc for Services {
    fn create_group(
        &self,
        call: &CallContext,
        request: CreateGroupRequest,
    ) -> Result<CreateGroupResponse, RpcError> {
        let caller = caller::caller(call, &self.clocks)?;
        Ok(match self.try_create_group(caller, &request) {
            Ok(group) => CreateGroupResponse {
                error_code: code::SUCCESS,
                group: Some(group),
                ..Default::default()
            },
            Err(failure) => {
                let reason = failure.reason();
                let (error_code, error_text) = failure.into_parts("create group");
                CreateGroupResponse {
                    error_code,
                    error_text,
                    reason,
                    ..Default::default()
                }
            }
        })
    }

    fn add_group(
        &self,
        call: &CallContext,
        request: AddGroupRequest,
    ) -> Result<AddGroupResponse, RpcError> {
        let caller = caller::caller(call, &self.clocks)?;
        Ok(match self.try_join(caller, request.group_id) {
            Ok((group, sequence)) => AddGroupResponse {
                error_code: code::SUCCESS,
                group: Some(group),
                sequence,
                ..Default::default()
            },
            Err(failure) => {
                let (error_code, error_text) = failure.into_parts("join group");
                AddGroupResponse {
                    error_code,
                    error_text,
                    ..Default::default()
                }
            }
        })
    }

    fn quit_group(
        &self,
        call: &CallContext,
        request: QuitGroupRequest,
    ) -> Result<QuitGroupResponse, RpcError> {
        let caller = caller::caller(call, &self.clocks)?;
        let group_id = request.group_id;
        Ok(match self.try_leave(caller, group_id) {
            Ok(sequence) => QuitGroupResponse {
                error_code: code::SUCCESS,
                group_id,
                sequence,
                ..Default::default()
            },
            Err(failure) => {
                let (error_code, error_text) = failure.into_parts("leave group");
                QuitGroupResponse {
                    error_code,
                    group_id,
                    error_text,
                    ..Default::default()
                }
            }
        })
    }

    fn delete_group(
        &self,
        call: &CallContext,
        request: DeleteGroupRequest,
    ) -> Result<DeleteGroupResponse, RpcError> {
        let caller = caller::caller(call, &self.clocks)?;
        let group_id = request.group_id;
        Ok(match self.try_delete_group(caller, group_id) {
            Ok(sequence) => DeleteGroupResponse {
                error_code: code::SUCCESS,
                group_id,
                sequence,
                ..Default::default()
            },
            Err(failure) => {
                let (error_code, error_text) = failure.into_parts("delete group");
                DeleteGroupResponse {
                    error_code,
                    group_id,
                    error_text,
                    ..Default::default()
                }
            }
        })
    }

    fn fetch_groups(
        &self,
        call: &CallContext,
        request: FetchGroupsRequest,
    ) -> Result<FetchGroupsResponse, RpcError> {
        let caller = caller::caller(call, &self.clocks)?;
        Ok(match self.try_fetch_groups(caller, request) {
            Ok((groups, more)) => FetchGroupsResponse {
                error_code: code::SUCCESS,
                group_list: Some(groups),
                more,
                ..Default::default()
            },
            Err(failure) => {
                let (error_code, error_text) = failure.into_parts("fetch groups");
                FetchGroupsResponse {
                    error_code,
                    error_text,
                    ..Default::default()
                }
            }
        })
    }

    fn fetch_group_members(
        &self,
        call: &CallContext,
        request: FetchGroupMembersRequest,
    ) -> Result<FetchGroupMembersResponse, RpcError> {
        let caller = caller::caller(call, &self.clocks)?;
        Ok(match self.try_fetch_members(caller, request) {
            Ok((members, more)) => FetchGroupMembersResponse {
                error_code: code::SUCCESS,
                group_user_list: Some(members),
                more,
                ..Default::default()
            },
            Err(failure) => {
                let (error_code, error_text) = failure.into_parts("fetch group members");
                FetchGroupMembersResponse {
                    error_code,
                    error_text,
                    ..Default::default()
                }
            }
        })
    }
}

impl Services {
    fn try_create_group(
        &self,
        Caller { user, terms }: Caller,
        request: &CreateGroupRequest,
    ) -> Result<Group, Failure> {
        let limits = &self.clients;
        let name = input::name(&request.group_name, limits.name_characters_max)?;
        let longest = limits.description_characters_max;
        let description = input::description(&request.group_description, longest)?;
        if name.is_empty() {
            return Err(Failure::new(
                code::CREATE_GROUP_EMPTY,
                "a group needs a name",
            ));
        }
        let created = self
            .store
            .on(terms)
            .create_group(user, &name, description, limits.groups_max)
            .map_err(|error| Failure::store(error, code::CREATE_GROUP_STORE))?;
        let CreateGroup::Created(group) = created else {
            let most = u64::try_from(limits.groups_max).unwrap_or(u64::MAX);
            let failure = Failure::new(code::TOO_LARGE, TOO_MANY_GROUPS);
            return Err(failure.because(Rule::TooManyGroups, most));
        };
        Ok(self.group_with_states(group))
    }

    fn try_join(
        &self,
        Caller { user, terms }: Caller,
        group: i32,
    ) -> Result<(Group, u64), Failure> {
        let Some(id) = GroupId::new(group) else {
            return Err(Failure::new(
                code::JOIN_BAD_ID,
                "the group id is not positive",
            ));
        };
        let store_failed = |error| Failure::store(error, code::JOIN_NO_GROUP);
        match self
            .store
            .on(terms)
            .join_group(user, id, self.group_members_max, self.clients.groups_max)
            .map_err(store_failed)?
        {
            JoinGroup::Joined {
                stamp,
                user_name,
                group,
                members,
            } => {
                let others = members.into_iter().filter(|&member| member != user);
                let others = others.collect();
                let conversation = ConversationId::group(id);
                self.announce(
                    MessageKind::JoinGroup,
                    conversation,
                    (user, user_name),
                    stamp,
                    others,
                );
                Ok((self.group_with_states(group), stamp.sequence))
            }
            JoinGroup::NoSuchGroup => Err(Failure::new(code::JOIN_NO_GROUP, "no such group")),
            JoinGroup::AlreadyMember => Err(Failure::new(code::JOIN_ALREADY, "already a member")),
            JoinGroup::Full => Err(Failure::new(code::TOO_LARGE, "the group is full")),
            JoinGroup::TooManyGroups => Err(Failure::new(code::TOO_LARGE, TOO_MANY_GROUPS)),
        }
    }

    fn try_leave(&self, Caller { user, terms }: Caller, group: i32) -> Result<u64, Failure> {
        let Some(id) = GroupId::new(group) else {
            return Err(Failure::new(
                code::LEAVE_BAD_ID,
                "the group id is not positive",
            ));
        };
        let store_failed = |error| Failure::store(error, code::LEAVE_STORE);
        match self
            .store
            .on(terms)
            .leave_group(user, id)
            .map_err(store_failed)?
        {
            LeaveGroup::Left { stamp, members, .. } => {
                let conversation = ConversationId::group(id);
                let actor = (user, String::new());
                self.announce(MessageKind::LeaveGroup, conversation, actor, stamp, members);
                Ok(stamp.sequence)
            }
            LeaveGroup::NotMember => Err(Failure::new(code::LEAVE_NOT_MEMBER, "not a member")),
        }
    }

    fn try_delete_group(&self, Caller { user, terms }: Caller, group: i32) -> Result<u64, Failure> {
        let Some(id) = GroupId::new(group) else {
            return Err(Failure::new(
                code::DELETE_GROUP_BAD_ID,
                "the group id is not positive",
            ));
        };
        let store_failed = |error| Failure::store(error, code::DELETE_GROUP_STORE);
        match self
            .store
            .on(terms)
            .delete_group(user, id)
            .map_err(store_failed)?
        {
            DeleteGroup::Deleted { stamp, mut members } => {
                members.retain(|&member| member != user);
                let conversation = ConversationId::group(id);
                let actor = (user, String::new());
                self.announce(
                    MessageKind::DeleteGroup,
                    conversation,
                    actor,
                    stamp,
                    members,
                );
                Ok(stamp.sequence)
            }
            DeleteGroup::NoSuchGroup | DeleteGroup::NotMember => Err(Failure::new(
                code::DELETE_GROUP_NOT_MEMBER,
                "no such group, or not a member of it",
            )),
            DeleteGroup::NotAdmin => Err(Failure::new(
                code::DELETE_GROUP_NOT_ADMIN,
                "only the group's admin may delete it",
            )),
        }
    }

    fn try_fetch_groups(
        &self,
        Caller { user, terms }: Caller,
        request: FetchGroupsRequest,
    ) -> Result<(GroupList, bool), Failure> {
        let after = GroupId::new(request.after_group_id);
        let store = self.store.on(terms);
        let page = store.groups_page(user, after, LIST_BYTES_MAX)?;
        let members = page.items.iter().flat_map(|group| &group.members);
        let online = Online::of(&*self.bus, members.map(|member| member.id));
        Ok((convert::group_list(page.items, &online), page.more))
    }

    fn try_fetch_members(
        &self,
        Caller { user, terms }: Caller,
        request: FetchGroupMembersRequest,
    ) -> Result<(GroupUserList, bool), Failure> {
        let none_of_yours = || Failure::new(code::NOT_YOURSELF, "this is not one of your groups");
        let group = GroupId::new(request.group_id).ok_or_else(none_of_yours)?;
        let store = self.store.on(terms);
        if !store.is_participant(user, ConversationId::group(group))? {
            return Err(none_of_yours());
        }
        let after = UserId::new(request.after_user_id);
        let page = store.members_page(group, after, LIST_BYTES_MAX)?;
        let online = Online::of(&*self.bus, page.items.iter().map(|member| member.id));
        Ok((convert::member_list(page.items, &online), page.more))
    }

    fn group_with_states(&self, group: chat_store::Group) -> Group {
        let members = group.members.iter().map(|member| member.id);
        let online = Online::of(&*self.bus, members);
        convert::group(group, &online)
    }
}
