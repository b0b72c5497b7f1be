//! Why the server refused, in sentences.

use chat_proto::ids::code;
use chat_proto::messages::{Reason, Rule};

use super::{Language, operation, with_detail};
use crate::Operation;

/// The rule that was broken, if the server names one; else what the code means for this operation. The server's
/// own words, which are English, are the answer where they tell more than the code, and besides to an unknown code.
pub(super) fn explain(
    of: Operation,
    (code, text): (i32, &str),
    reason: Option<&Reason>,
    language: Language,
) -> String {
    if let Some(broken) = reason.and_then(|reason| broken(reason, language)) {
        return broken;
    }
    let Some((english, chinese)) = sentence(of, code) else {
        let what = operation(of, language);
        let sentence = match language {
            Language::English => format!("{what} failed with code {code}"),
            Language::Chinese => format!("{what}失败，错误码 {code}"),
        };
        return with_detail(&sentence, text);
    };
    match language {
        _ if text.is_empty() || !leaves_open(code) => language.pick(english, chinese).to_owned(),
        Language::English => text.to_owned(),
        Language::Chinese => format!("{chinese}（{text}）"),
    }
}

/// Whether a code covers several reasons, so that the server's words say more.
fn leaves_open(code: i32) -> bool {
    matches!(
        code,
        code::RATE_LIMITED | code::TOO_LARGE | code::INVALID | code::NOT_YOURSELF
    )
}

/// The rule that was broken; `None` for one that is not known here.
fn broken(reason: &Reason, language: Language) -> Option<String> {
    let n = reason.value;
    let sentences = match Rule::try_from(reason.rule).ok()? {
        Rule::Unknown => return None,
        Rule::NameTooLong => (
            format!("a name has at most {n} characters"),
            format!("名称最多 {n} 个字符"),
        ),
        Rule::NameCharacter => (
            format!("a name cannot have the character U+{n:04X}"),
            format!("名称不能包含字符 U+{n:04X}"),
        ),
        Rule::PasswordTooShort => (
            format!("the password is too short: it needs at least {n} characters"),
            format!("密码过短，至少需要 {n} 个字符"),
        ),
        Rule::PasswordTooLong => (
            format!("the password is too long: it has at most {n} bytes"),
            format!("密码过长，最多 {n} 字节"),
        ),
        Rule::PasswordCharacter => (
            format!("a password cannot have control characters, as U+{n:04X}"),
            format!("密码不能包含控制字符（U+{n:04X}）"),
        ),
        Rule::DescriptionTooLong => (
            format!("a description has at most {n} characters"),
            format!("简介最多 {n} 个字符"),
        ),
        Rule::DescriptionCharacter => (
            format!("a description cannot have control characters, as U+{n:04X}"),
            format!("简介不能包含控制字符（U+{n:04X}）"),
        ),
        Rule::TooManyGroups => (
            format!("you are in {n} groups, and may be in no more"),
            format!("您已加入 {n} 个群组，达到上限"),
        ),
        Rule::TooOften => (
            format!("too many tries; try again in {n} s"),
            format!("尝试次数过多，请 {n} 秒后再试"),
        ),
    };
    let (english, chinese) = sentences;
    Some(match language {
        Language::English => english,
        Language::Chinese => chinese,
    })
}

/// The table of the protocol, in English and Chinese.
fn sentence(operation: Operation, code: i32) -> Option<(&'static str, &'static str)> {
    const STORE: (&str, &str) = (
        "the server could not store it; try again",
        "服务器未能保存，请重试",
    );
    Some(match (operation, code) {
        (_, code) if code >= 100 => return sentence_for_all(operation, code),
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

/// Codes that mean the same for all operations, in words that fit the operation.
fn sentence_for_all(operation: Operation, code: i32) -> Option<(&'static str, &'static str)> {
    Some(match (operation, code) {
        (Operation::Register, code::TOO_LARGE) => {
            ("the name or the password is too long", "用户名或密码过长")
        }
        (Operation::Register, code::INVALID) => (
            "the name or the password cannot be used",
            "用户名或密码不符合要求",
        ),
        (Operation::AddFriend, code::TOO_LARGE) => (
            "you or the other one has as many friends as allowed",
            "您或对方的好友数量已达上限",
        ),
        (Operation::CreateGroup, code::TOO_LARGE) => (
            "the name or the description is too long, or you are in too many groups",
            "群组名称或简介过长，或您加入的群组数量已达上限",
        ),
        (Operation::CreateGroup, code::INVALID) => (
            "the name or the description cannot be used",
            "群组名称或简介不符合要求",
        ),
        (Operation::JoinGroup, code::TOO_LARGE) => (
            "the group is full, or you are in as many groups as allowed",
            "该群组已满，或您加入的群组数量已达上限",
        ),
        (Operation::FriendChat | Operation::GroupChat, code::TOO_LARGE) => (
            "the message is too long; send it in parts",
            "消息过长，请分多条发送",
        ),
        (Operation::FriendChat | Operation::GroupChat, code::INVALID) => (
            "the server does not take this message",
            "服务器不接受该消息",
        ),
        (Operation::History, code::NOT_YOURSELF) => {
            ("you have no such conversation", "您没有该会话")
        }
        (_, code) => return sentence_for_code(code),
    })
}

fn sentence_for_code(code: i32) -> Option<(&'static str, &'static str)> {
    Some(match code {
        code::NOT_LOGGED_IN => ("sign in first", "请先登录"),
        code::NOT_YOURSELF => ("that is possible for oneself only", "只能为自己操作"),
        code::RATE_LIMITED => (
            "too many requests; wait a moment",
            "请求过于频繁，请稍候再试",
        ),
        code::TOO_LARGE => ("that is too long, or too many", "内容过长或数量过多"),
        code::UNAVAILABLE => (
            "a part of the server is not there at the moment; try again shortly",
            "服务暂时不可用，请稍后重试",
        ),
        code::INTERNAL => ("a fault of the server", "服务器内部错误"),
        code::INVALID => ("the server does not take that text", "服务器不接受该内容"),
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
        code::UNCERTAIN => (
            "the server does not know whether it was done; look before you try again",
            "服务器无法确定操作是否已完成，请先确认再重试",
        ),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ChatError;

    const LANGUAGES: [Language; 2] = [Language::English, Language::Chinese];

    /// The operations whose own codes have a name that begins so.
    const OPERATIONS: [(&str, &[Operation]); 11] = [
        ("REGISTER", &[Operation::Register]),
        ("LOGIN", &[Operation::Login, Operation::LoginByName]),
        ("LOGOUT", &[Operation::Logout]),
        ("ADD_FRIEND", &[Operation::AddFriend]),
        ("DELETE_FRIEND", &[Operation::DeleteFriend]),
        ("FRIEND_CHAT", &[Operation::FriendChat]),
        ("CREATE_GROUP", &[Operation::CreateGroup]),
        ("JOIN", &[Operation::JoinGroup]),
        ("LEAVE", &[Operation::LeaveGroup]),
        ("DELETE_GROUP", &[Operation::DeleteGroup]),
        ("GROUP_CHAT", &[Operation::GroupChat]),
    ];
    /// Those that have no codes of their own.
    const OTHERS: [Operation; 5] = [
        Operation::Resume,
        Operation::Friends,
        Operation::Groups,
        Operation::Members,
        Operation::History,
    ];

    fn refusal(operation: Operation, code: i32, text: &str) -> ChatError {
        ChatError::Refused {
            operation,
            code,
            text: text.to_owned(),
            reason: None,
        }
    }

    fn broken_rule(rule: Rule, value: u64) -> ChatError {
        ChatError::Refused {
            operation: Operation::Register,
            code: code::INVALID,
            text: "as the server says it".to_owned(),
            reason: Some(Reason {
                rule: rule.into(),
                value,
            }),
        }
    }

    fn all_operations() -> impl Iterator<Item = Operation> {
        OPERATIONS
            .iter()
            .flat_map(|(_, of)| *of)
            .chain(&OTHERS)
            .copied()
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
    fn every_code_of_every_operation_has_a_sentence_in_both_languages() {
        // Of the protocol, though no server of this project answers with them.
        let unnamed = [
            (Operation::AddFriend, 5),
            (Operation::FriendChat, 3),
            (Operation::CreateGroup, 4),
        ];
        let mut cases = unnamed.to_vec();
        for &(name, code) in code::ALL {
            if code >= 100 {
                cases.extend(all_operations().map(|operation| (operation, code)));
            } else if code != code::SUCCESS {
                let own = OPERATIONS
                    .iter()
                    .filter(|(prefix, _)| name.starts_with(&format!("{prefix}_")));
                let own: Vec<_> = own.flat_map(|(_, of)| *of).collect();
                assert!(!own.is_empty(), "{name} is of no operation");
                cases.extend(own.into_iter().map(|&operation| (operation, code)));
            }
        }
        for (operation, code) in cases {
            let (english, chinese) = sentence(operation, code)
                .unwrap_or_else(|| panic!("no sentence: {operation:?} {code}"));
            assert!(english.is_ascii(), "{english}");
            assert!(!chinese.is_ascii(), "{chinese}");
            for language in LANGUAGES {
                let explained = refusal(operation, code, "").explain(language);
                assert_eq!(explained, language.pick(english, chinese));
            }
        }
    }

    #[test]
    fn every_rule_has_a_sentence_with_its_number_in_both_languages() {
        for rule in (1..).map_while(|rule| Rule::try_from(rule).ok()) {
            let sentences = LANGUAGES.map(|language| broken_rule(rule, 0x4_321).explain(language));
            for sentence in &sentences {
                let number = ["17185", "4321"].map(|number| sentence.contains(number));
                assert!(number.contains(&true), "{rule:?}: {sentence}");
            }
            assert!(sentences[0].is_ascii() && !sentences[1].is_ascii());
        }
    }

    #[test]
    fn a_password_that_is_too_short_is_told_how_long_it_has_to_be() {
        let error = broken_rule(Rule::PasswordTooShort, 6);
        assert_eq!(
            LANGUAGES.map(|language| error.explain(language)),
            [
                "the password is too short: it needs at least 6 characters",
                "密码过短，至少需要 6 个字符"
            ]
        );
    }

    #[test]
    fn a_rule_that_is_not_known_here_is_told_in_the_servers_words() {
        let mut error = broken_rule(Rule::Unknown, 6);
        assert_eq!(error.to_string(), "as the server says it");
        if let ChatError::Refused { reason, .. } = &mut error {
            *reason = Some(Reason {
                rule: 999,
                value: 6,
            });
        }
        assert_eq!(error.to_string(), "as the server says it");
    }

    #[test]
    fn where_a_code_leaves_the_reason_open_the_servers_words_are_shown() {
        let error = refusal(
            Operation::Friends,
            code::RATE_LIMITED,
            "too fast, slow down",
        );
        assert_eq!(error.to_string(), "too fast, slow down");
        assert_eq!(
            error.explain(Language::Chinese),
            "请求过于频繁，请稍候再试（too fast, slow down）"
        );
        let clear = refusal(
            Operation::Login,
            code::LOGIN_WRONG_PASSWORD,
            "wrong password",
        );
        assert_eq!(clear.to_string(), "the password is wrong");
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
