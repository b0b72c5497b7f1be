//! Errors in sentences that people understand, in their language.

mod refusals;

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
            reason,
        } => return refusals::explain(*operation, (*code, text), reason.as_ref(), language),
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
        Operation::Members => ("listing members", "查看群成员"),
        Operation::History => ("reading the history", "查看历史消息"),
    };
    language.pick(english, chinese)
}
