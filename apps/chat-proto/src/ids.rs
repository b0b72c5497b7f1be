//! The numbers of the client protocol. Those below 100 are what existing clients speak.

/// What a frame's content is. The number travels as the frame's `message_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageId(pub i32);

macro_rules! message_ids {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)*) => {
        impl MessageId {
            $($(#[$doc])* pub const $name: Self = Self($number);)*

            /// The name of a known id.
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

message_ids! {
    /// RegisterRequest.
    REGISTER = 1;
    /// LoginRequest.
    LOGIN = 2;
    /// AddFriendRequest.
    ADD_FRIEND = 4;
    /// DeleteFriendRequest.
    DELETE_FRIEND = 5;
    /// CreateGroupRequest.
    CREATE_GROUP = 6;
    /// DeleteGroupRequest.
    DELETE_GROUP = 7;
    /// AddGroupRequest: join.
    ADD_GROUP = 8;
    /// QuitGroupRequest: leave.
    QUIT_GROUP = 9;
    /// FriendChatRequest.
    FRIEND_CHAT = 10;
    /// GroupChatRequest.
    GROUP_CHAT = 11;
    /// LogoutRequest.
    LOGOUT = 12;
    /// Pushed: a FriendChatRequest to its receiver.
    RECV_FRIEND = 13;
    /// Pushed: a GroupChatRequest to the other members.
    RECV_GROUP = 14;
    /// Pushed: an AddFriendRequest to the added user.
    RECV_ADD_FRIEND = 15;
    /// Pushed: a DeleteFriendRequest to the deleted user.
    RECV_DELETE_FRIEND = 16;
    /// Pushed: an AddGroupRequest to the group's other members.
    RECV_ADD_GROUP = 17;
    /// Pushed: a QuitGroupRequest to the remaining members.
    RECV_QUIT_GROUP = 18;
    /// Pushed: a DeleteGroupRequest to the group's other members.
    RECV_DELETE_GROUP = 19;
    /// RegisterResponse.
    REGISTER_ANSWER = 20;
    /// LoginResponse.
    LOGIN_ANSWER = 21;
    /// AddFriendResponse.
    ADD_FRIEND_ANSWER = 22;
    /// DeleteFriendResponse.
    DELETE_FRIEND_ANSWER = 23;
    /// CreateGroupResponse.
    CREATE_GROUP_ANSWER = 24;
    /// DeleteGroupResponse.
    DELETE_GROUP_ANSWER = 25;
    /// AddGroupResponse.
    ADD_GROUP_ANSWER = 26;
    /// QuitGroupResponse.
    QUIT_GROUP_ANSWER = 27;
    /// FriendChatResponse.
    FRIEND_CHAT_ANSWER = 28;
    /// GroupChatResponse.
    GROUP_CHAT_ANSWER = 29;
    /// LogoutResponse.
    LOGOUT_ANSWER = 30;
    /// Pushed: an ErrorNotice.
    ERROR = 100;
    /// Heartbeat.
    HEARTBEAT = 101;
    /// Heartbeat, repeated.
    HEARTBEAT_ANSWER = 102;
    /// DeliveryAck; not answered.
    DELIVERY_ACK = 103;
    /// FetchFriendsRequest.
    FETCH_FRIENDS = 105;
    /// FetchFriendsResponse.
    FETCH_FRIENDS_ANSWER = 106;
    /// FetchGroupsRequest.
    FETCH_GROUPS = 107;
    /// FetchGroupsResponse.
    FETCH_GROUPS_ANSWER = 108;
    /// FetchHistoryRequest.
    FETCH_HISTORY = 109;
    /// FetchHistoryResponse.
    FETCH_HISTORY_ANSWER = 110;
    /// Pushed: SignedOut.
    SIGNED_OUT = 111;
    /// ResumeRequest.
    RESUME = 112;
    /// LoginResponse.
    RESUME_ANSWER = 113;
    /// FetchGroupMembersRequest.
    FETCH_GROUP_MEMBERS = 114;
    /// FetchGroupMembersResponse.
    FETCH_GROUP_MEMBERS_ANSWER = 115;
}

macro_rules! codes {
    ($($(#[$doc:meta])* pub const $name:ident: i32 = $number:literal;)*) => {
        /// Error codes. 1 is success; 2 to 6 mean something else for each operation; from 100 they mean
        /// the same for all.
        pub mod code {
            $($(#[$doc])* pub const $name: i32 = $number;)*

            /// The names and numbers of all codes. A code of one operation begins with its name.
            pub const ALL: &[(&str, i32)] = &[$((stringify!($name), $number)),*];
        }
    };
}

codes! {
    /// Success.
    pub const SUCCESS: i32 = 1;
    /// The connection has not logged in.
    pub const NOT_LOGGED_IN: i32 = 100;
    /// The request's user is not the connection's.
    pub const NOT_YOURSELF: i32 = 101;
    /// Too many requests.
    pub const RATE_LIMITED: i32 = 102;
    /// A text or a list is too large.
    pub const TOO_LARGE: i32 = 103;
    /// A part of the system is not there at the moment, and nothing was done; try again.
    pub const UNAVAILABLE: i32 = 104;
    /// A fault of the system.
    pub const INTERNAL: i32 = 105;
    /// Not readable (undecodable, or not UTF-8), or a client message id that was used for another message.
    pub const INVALID: i32 = 106;
    /// The message id is not known.
    pub const UNKNOWN_MESSAGE: i32 = 107;
    /// The connection has logged in already.
    pub const ALREADY_LOGGED_IN: i32 = 108;
    /// The session cannot be resumed (any more): log in with the password.
    pub const SESSION_ENDED: i32 = 109;
    /// Not known whether it was done: look before you do it again. Only for requests that change something, and not for
    /// messages with a client message id: those can be sent again without harm.
    pub const UNCERTAIN: i32 = 110;

    /// Register: empty name or password.
    pub const REGISTER_EMPTY: i32 = 2;
    /// Register: the name is taken.
    pub const REGISTER_NAME_TAKEN: i32 = 3;
    /// Login: the id is not positive.
    pub const LOGIN_BAD_ID: i32 = 2;
    /// Login: no such user.
    pub const LOGIN_NO_USER: i32 = 3;
    /// Login: wrong password.
    pub const LOGIN_WRONG_PASSWORD: i32 = 4;
    /// Login: already online, where the policy refuses a second login.
    pub const LOGIN_ALREADY_ONLINE: i32 = 5;
    /// Logout: failed.
    pub const LOGOUT_FAILED: i32 = 2;
    /// Add friend: invalid id, or oneself.
    pub const ADD_FRIEND_BAD_ID: i32 = 2;
    /// Add friend: no such user.
    pub const ADD_FRIEND_NO_USER: i32 = 3;
    /// Add friend: already friends.
    pub const ADD_FRIEND_ALREADY: i32 = 4;
    /// Add friend: the store failed.
    pub const ADD_FRIEND_STORE: i32 = 6;
    /// Delete friend: invalid id, or oneself.
    pub const DELETE_FRIEND_BAD_ID: i32 = 2;
    /// Delete friend: no such user.
    pub const DELETE_FRIEND_NO_USER: i32 = 3;
    /// Delete friend: not friends.
    pub const DELETE_FRIEND_NOT_FRIENDS: i32 = 4;
    /// Delete friend: the store failed.
    pub const DELETE_FRIEND_STORE: i32 = 5;
    /// One-to-one chat: not friends.
    pub const FRIEND_CHAT_NOT_FRIENDS: i32 = 2;
    /// One-to-one chat: the store failed.
    pub const FRIEND_CHAT_STORE: i32 = 5;
    /// Create group: empty name.
    pub const CREATE_GROUP_EMPTY: i32 = 2;
    /// Create group: the store failed.
    pub const CREATE_GROUP_STORE: i32 = 3;
    /// Join group: invalid id.
    pub const JOIN_BAD_ID: i32 = 2;
    /// Join group: already a member.
    pub const JOIN_ALREADY: i32 = 3;
    /// Join group: no such group, or the store failed.
    pub const JOIN_NO_GROUP: i32 = 4;
    /// Leave group: invalid id.
    pub const LEAVE_BAD_ID: i32 = 2;
    /// Leave group: not a member.
    pub const LEAVE_NOT_MEMBER: i32 = 3;
    /// Leave group: the store failed.
    pub const LEAVE_STORE: i32 = 4;
    /// Delete group: invalid id.
    pub const DELETE_GROUP_BAD_ID: i32 = 2;
    /// Delete group: not a member, or no such group.
    pub const DELETE_GROUP_NOT_MEMBER: i32 = 3;
    /// Delete group: not the admin.
    pub const DELETE_GROUP_NOT_ADMIN: i32 = 4;
    /// Delete group: the store failed.
    pub const DELETE_GROUP_STORE: i32 = 5;
    /// Group chat: not a member, or no such group.
    pub const GROUP_CHAT_NOT_MEMBER: i32 = 2;
    /// Group chat: the store failed.
    pub const GROUP_CHAT_STORE: i32 = 5;
}

/// What a proxy sends along with a call to a service.
pub mod metadata {
    use nexus_rpc::{ErrorCode, MetadataKey};

    use crate::call_time::CallTime;
    use crate::client_address::ClientAddress;

    /// The user of the connection.
    pub const USER: MetadataKey<i32> = MetadataKey::new("chat-user");
    /// The proxy's id.
    pub const PROXY: MetadataKey<u64> = MetadataKey::new("chat-proxy");
    /// The session's id on that proxy.
    pub const SESSION: MetadataKey<u64> = MetadataKey::new("chat-session");
    /// Which of the user's logins the session is of. Absent: not known.
    pub const LOGIN: MetadataKey<u64> = MetadataKey::new("chat-login");
    /// When the call was asked for, and until when it is waited for.
    pub const TIME: MetadataKey<CallTime> = MetadataKey::new("chat-time");
    /// The error of a call that came so late, by its [`TIME`], that it was not carried out.
    pub const TOO_LATE: ErrorCode = ErrorCode::new(21_001);
    /// From where the client connects, in calls that come before a login.
    pub const ADDRESS: MetadataKey<ClientAddress> = MetadataKey::new("chat-address");
}
