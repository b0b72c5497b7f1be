//! Errors in sentences that people understand, in their language.

use chat_proto::ids::code;

use crate::{ChatError, Operation};

/// The language of sentences for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Language {
    /// English.
    #[default]
    English,
    /// Chinese, simplified.
    Chinese,
}

impl Language {
    /// The one of two texts that is in this language.
    pub const fn pick<'a>(self, english: &'a str, chinese: &'a str) -> &'a str {
        match self {
            Self::English => english,
            Self::Chinese => chinese,
        }
    }
}

pub(crate) fn explain(error: &ChatError, language: Language) -> String {
    let sentence = match error {
        ChatError::Refused {
            operation,
            code,
            text,
        } => return refused(*operation, *code, text, language),
        ChatError::SignedOut { reason } => {
            let sentence = language.pick("you were signed out", "您已被登出");
            return with_detail(sentence, reason);
        }
        ChatError::Protocol(detail) => {
            let sentence = language.pick(
                "the server's answer makes no sense; is it a chat server, and as new as this client?",
                "无法理解服务器的应答：它是聊天服务器吗？版本与客户端一致吗？",
            );
            return with_detail(sentence, detail);
        }
        ChatError::Timeout => language.pick(
            "no answer in time; it may have been done or not",
            "等待应答超时，操作可能已完成，也可能没有",
        ),
        ChatError::Disconnected => language.pick(
            "the connection was lost before the answer came; it may have been done or not",
            "收到应答前连接已断开，操作可能已完成，也可能没有",
        ),
        ChatError::Busy => language.pick(
            "too many requests are waiting for answers; try again in a moment",
            "等待应答的请求过多，请稍后再试",
        ),
    };
    sentence.to_owned()
}

/// The server's words are an addition to a sentence, and the whole answer to an unknown code.
fn refused(operation: Operation, code: i32, text: &str, language: Language) -> String {
    match reason(operation, code) {
        Some((english, chinese)) => language.pick(english, chinese).to_owned(),
        None => {
            let what = self::operation(operation, language);
            let sentence = match language {
                Language::English => format!("{what} failed with code {code}"),
                Language::Chinese => format!("{what}失败，错误码 {code}"),
            };
            with_detail(&sentence, text)
        }
    }
}

fn with_detail(sentence: &str, detail: &str) -> String {
    if detail.is_empty() {
        sentence.to_owned()
    } else {
        format!("{sentence}: {detail}")
    }
}

/// An operation's name, as the beginning of "... failed".
pub(crate) fn operation(operation: Operation, language: Language) -> &'static str {
    let (english, chinese) = match operation {
        Operation::Register => ("registering", "注册"),
        Operation::Login | Operation::LoginByName => ("signing in", "登录"),
        Operation::Resume => ("going on with the session", "恢复会话"),
        Operation::Logout => ("signing out", "登出"),
        Operation::AddFriend => ("adding a friend", "添加好友"),
        Operation::DeleteFriend => ("deleting a friend", "删除好友"),
        Operation::FriendChat => ("sending to a friend", "向好友发送消息"),
        Operation::CreateGroup => ("creating a group", "创建群组"),
        Operation::JoinGroup => ("joining a group", "加入群组"),
        Operation::LeaveGroup => ("leaving a group", "退出群组"),
        Operation::DeleteGroup => ("deleting a group", "解散群组"),
        Operation::GroupChat => ("sending to a group", "向群组发送消息"),
        Operation::Friends => ("listing friends", "查看好友"),
        Operation::Groups => ("listing groups", "查看群组"),
        Operation::History => ("reading the history", "查看历史消息"),
    };
    language.pick(english, chinese)
}

/// The table of the protocol, in English and Chinese.
fn reason(operation: Operation, code: i32) -> Option<(&'static str, &'static str)> {
    const STORE: (&str, &str) = (
        "the server could not store it; try again",
        "服务器未能保存，请重试",
    );
    if code >= 100 {
        return reason_for_all(code);
    }
    Some(match (operation, code) {
        (Operation::Register, code::REGISTER_EMPTY) => (
            "a name and a password are needed, neither may be empty",
            "用户名和密码都不能为空",
        ),
        (Operation::Register, code::REGISTER_NAME_TAKEN) => (
            "this name is taken; choose another",
            "该用户名已被使用，请换一个",
        ),
        (Operation::Login, code::LOGIN_BAD_ID) => {
            ("a user id is a number above 0", "用户 ID 应为大于 0 的数字")
        }
        (Operation::Login, code::LOGIN_NO_USER) => (
            "there is no user with this id; it is the number that registering gave",
            "没有该 ID 的用户：ID 是注册时得到的数字",
        ),
        (Operation::Login, code::LOGIN_WRONG_PASSWORD) => ("the password is wrong", "密码错误"),
        (Operation::LoginByName, code::LOGIN_BAD_ID) => (
            "this server knows users by their id only; sign in with the number that registering gave",
            "该服务器只支持用用户 ID 登录：ID 是注册时得到的数字",
        ),
        (Operation::LoginByName, code::LOGIN_NO_USER) => {
            ("there is no user of this name", "没有该用户名的用户")
        }
        (Operation::LoginByName, code::LOGIN_WRONG_PASSWORD) => (
            "the name or the password is wrong; upper and lower case differ",
            "用户名或密码错误，请注意区分大小写",
        ),
        (
            Operation::Login | Operation::LoginByName | Operation::Resume,
            code::LOGIN_ALREADY_ONLINE,
        ) => (
            "this user is signed in elsewhere already",
            "该用户已在别处登录",
        ),
        (Operation::Logout, code::LOGOUT_FAILED) => {
            ("the server could not sign you out", "服务器未能登出")
        }
        (Operation::AddFriend, code::ADD_FRIEND_BAD_ID) => (
            "name somebody else, by the user id or by the name",
            "请输入他人的用户 ID 或用户名",
        ),
        (Operation::AddFriend, code::ADD_FRIEND_NO_USER) => (
            "there is no such user; in names upper and lower case differ",
            "没有该用户，请注意用户名区分大小写",
        ),
        (Operation::DeleteFriend, code::DELETE_FRIEND_BAD_ID) => (
            "a friend's id is a number above 0 and not your own",
            "好友 ID 应为大于 0 的数字，且不能是自己",
        ),
        (Operation::DeleteFriend, code::DELETE_FRIEND_NO_USER) => {
            ("there is no user with this id", "没有该 ID 的用户")
        }
        (Operation::AddFriend, code::ADD_FRIEND_ALREADY) => {
            ("you are friends already", "你们已经是好友")
        }
        (Operation::AddFriend, 5) | (Operation::FriendChat, 3) => (
            "the server could not look the user up; try again",
            "服务器未能查到该用户，请重试",
        ),
        (Operation::AddFriend, code::ADD_FRIEND_STORE)
        | (Operation::DeleteFriend, code::DELETE_FRIEND_STORE)
        | (Operation::FriendChat, code::FRIEND_CHAT_STORE)
        | (Operation::CreateGroup, code::CREATE_GROUP_STORE)
        | (Operation::LeaveGroup, code::LEAVE_STORE)
        | (Operation::DeleteGroup, code::DELETE_GROUP_STORE)
        | (Operation::GroupChat, code::GROUP_CHAT_STORE) => STORE,
        (Operation::DeleteFriend, code::DELETE_FRIEND_NOT_FRIENDS) => {
            ("you are not friends", "你们不是好友")
        }
        (Operation::FriendChat, code::FRIEND_CHAT_NOT_FRIENDS) => (
            "you are not friends; add this user as a friend first",
            "你们不是好友，请先添加好友",
        ),
        (Operation::CreateGroup, code::CREATE_GROUP_EMPTY) => {
            ("a group needs a name", "群组名称不能为空")
        }
        (Operation::CreateGroup, 4) => (
            "the group was made, but you could not be added to it; try to join it",
            "群组已创建，但未能将您加入，请尝试加入该群",
        ),
        (Operation::JoinGroup, code::JOIN_BAD_ID)
        | (Operation::LeaveGroup, code::LEAVE_BAD_ID)
        | (Operation::DeleteGroup, code::DELETE_GROUP_BAD_ID) => (
            "a group's id is a number above 0",
            "群组 ID 应为大于 0 的数字",
        ),
        (Operation::JoinGroup, code::JOIN_ALREADY) => {
            ("you are a member of this group already", "您已是该群成员")
        }
        (Operation::JoinGroup, code::JOIN_NO_GROUP) => {
            ("there is no group with this id", "没有该 ID 的群组")
        }
        (Operation::LeaveGroup, code::LEAVE_NOT_MEMBER) => {
            ("you are not a member of this group", "您不是该群成员")
        }
        (Operation::DeleteGroup, code::DELETE_GROUP_NOT_MEMBER)
        | (Operation::GroupChat, code::GROUP_CHAT_NOT_MEMBER) => (
            "there is no such group, or you are not a member of it",
            "没有该群组，或您不是该群成员",
        ),
        (Operation::DeleteGroup, code::DELETE_GROUP_NOT_ADMIN) => (
            "only the admin of a group may delete it; you can leave it",
            "只有群主可以解散群组，您可以退出该群",
        ),
        _ => return None,
    })
}

fn reason_for_all(code: i32) -> Option<(&'static str, &'static str)> {
    Some(match code {
        code::NOT_LOGGED_IN => ("sign in first", "请先登录"),
        code::NOT_YOURSELF => ("that is possible for oneself only", "只能为自己操作"),
        code::RATE_LIMITED => (
            "too many requests; wait a moment",
            "请求过于频繁，请稍候再试",
        ),
        code::TOO_LARGE => ("that is too long", "内容过长"),
        code::UNAVAILABLE => (
            "a part of the server is not there at the moment; try again shortly",
            "服务暂时不可用，请稍后重试",
        ),
        code::INTERNAL => ("a fault of the server", "服务器内部错误"),
        code::INVALID => (
            "the server cannot read that; text has to be UTF-8",
            "服务器无法识别，文本必须为 UTF-8 编码",
        ),
        code::UNKNOWN_MESSAGE => (
            "the server does not know this request",
            "服务器不支持该请求",
        ),
        code::ALREADY_LOGGED_IN => (
            "you are signed in already; sign out first",
            "您已登录，请先登出",
        ),
        code::SESSION_ENDED => (
            "the session has ended; sign in with your password",
            "会话已结束，请用密码重新登录",
        ),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(operation: Operation, code: i32, text: &str) -> ChatError {
        ChatError::Refused {
            operation,
            code,
            text: text.to_owned(),
        }
    }

    #[test]
    fn the_same_code_means_something_else_for_each_operation() {
        let sentences = [
            Operation::Register,
            Operation::Login,
            Operation::AddFriend,
            Operation::FriendChat,
            Operation::CreateGroup,
            Operation::JoinGroup,
            Operation::GroupChat,
        ]
        .map(|operation| refusal(operation, 2, "").to_string());
        for (index, sentence) in sentences.iter().enumerate() {
            assert!(!sentences[..index].contains(sentence), "{sentence}");
        }
    }

    #[test]
    fn every_code_of_the_table_has_a_sentence_in_both_languages() {
        let table: [(Operation, &[i32]); 11] = [
            (Operation::Register, &[2, 3]),
            (Operation::Login, &[2, 3, 4, 5]),
            (Operation::LoginByName, &[2, 3, 4, 5]),
            (Operation::Logout, &[2]),
            (Operation::AddFriend, &[2, 3, 4, 5, 6]),
            (Operation::DeleteFriend, &[2, 3, 4, 5]),
            (Operation::FriendChat, &[2, 3, 5]),
            (Operation::CreateGroup, &[2, 3, 4]),
            (Operation::JoinGroup, &[2, 3, 4]),
            (Operation::LeaveGroup, &[2, 3, 4]),
            (Operation::DeleteGroup, &[2, 3, 4, 5]),
        ];
        for (operation, codes) in table {
            for &code in codes
                .iter()
                .chain(&[100, 101, 102, 103, 104, 105, 106, 107, 108, 109])
            {
                let error = refusal(operation, code, "");
                for language in [Language::English, Language::Chinese] {
                    let sentence = error.explain(language);
                    assert!(!sentence.contains(&code.to_string()), "{sentence}");
                }
            }
        }
    }

    #[test]
    fn an_unknown_code_is_told_with_the_servers_words() {
        let error = refusal(Operation::JoinGroup, 77, "the moon is full");
        assert_eq!(
            error.to_string(),
            "joining a group failed with code 77: the moon is full"
        );
        assert_eq!(
            error.explain(Language::Chinese),
            "加入群组失败，错误码 77: the moon is full"
        );
    }
}
