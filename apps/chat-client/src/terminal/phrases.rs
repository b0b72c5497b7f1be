//! Sentences with something in them, in the user's language.

use chat_client::{
    Body, Conversation, Event, Friend, Group, GroupId, Language, Message, Presence, Role, Who, time,
};

use super::feed::Names;
use super::screen::Kind;
use super::typed::as_typed;

/// So many attempts to connect fail before the user hears of it.
pub(crate) const FAILURES_TOLD: u32 = 3;

/// What to check when the server cannot be reached.
pub(crate) fn unreachable(place: (&str, u16), reason: &str, language: Language) -> [String; 2] {
    let (host, port) = place;
    match language {
        Language::English => [
            format!("cannot reach a chat server at {host} port {port} ({reason})."),
            "Check: is the server running, are host and port right, is there a firewall between?"
                .to_owned(),
        ],
        Language::Chinese => [
            format!("无法连接 {host} 端口 {port} 上的聊天服务器（{reason}）。"),
            "请检查：服务器是否已启动，地址和端口是否正确，是否被防火墙拦截。".to_owned(),
        ],
    }
}

/// A message as one line. With its time for people; without for scripts, which compare.
pub(crate) fn message(message: &Message, names: &Names, kind: Kind, language: Language) -> String {
    let sender = names.user(message.sender, &message.sender_name);
    let place = match message.conversation {
        Conversation::Friend(_) => String::new(),
        Conversation::Group(group) => format!("[{}] ", names.group(group)),
    };
    let what = match &message.body {
        Body::Text(text) => format!("{place}{sender}: {text}"),
        other => format!("{place}{sender} {}", notice(other, language)),
    };
    let time = time::text_of(message.server_time_ms)
        .filter(|_| message.server_time_ms > 0)
        .unwrap_or_else(|| message.sender_time.clone());
    match kind {
        Kind::Terminal if !time.is_empty() => format!("{time} {what}"),
        _ => what,
    }
}

fn notice(body: &Body, language: Language) -> &'static str {
    match body {
        Body::FriendAdded => language.pick("added you as a friend", "已将您加为好友"),
        Body::FriendDeleted => language.pick("ended the friendship", "已将您从好友中删除"),
        Body::GroupJoined => language.pick("joined the group", "加入了群组"),
        Body::GroupLeft => language.pick("left the group", "退出了群组"),
        Body::GroupDeleted => language.pick("deleted the group", "解散了群组"),
        _ => language.pick(
            "did something new to this program",
            "进行了本程序尚不支持的操作",
        ),
    }
}

/// An event that is no message; `None` when there is nothing to say.
pub(crate) fn event(event: &Event, language: Language) -> Option<String> {
    Some(match (event, language) {
        (Event::Disconnected { reason }, Language::English) => {
            format!("* connection lost ({reason}); connecting again ...")
        }
        (Event::Disconnected { reason }, Language::Chinese) => {
            format!("* 连接已断开（{reason}），正在重新连接……")
        }
        (
            Event::Unreachable {
                failures: FAILURES_TOLD,
                reason,
            },
            Language::English,
        ) => {
            format!("* the server cannot be reached ({reason}); still trying")
        }
        (
            Event::Unreachable {
                failures: FAILURES_TOLD,
                reason,
            },
            Language::Chinese,
        ) => {
            format!("* 仍无法连接服务器（{reason}），将继续尝试")
        }
        (Event::Connected, _) => language
            .pick("* connected; you are not signed in", "* 已连接，尚未登录")
            .to_owned(),
        (Event::Reconnected { resent: 0 }, _) => language
            .pick("* connected and signed in again", "* 已重新连接并登录")
            .to_owned(),
        (Event::Reconnected { resent }, Language::English) => {
            format!("* connected and signed in again; {resent} messages were sent again")
        }
        (Event::Reconnected { resent }, Language::Chinese) => {
            format!("* 已重新连接并登录，重发了 {resent} 条消息")
        }
        (Event::SignedOut { reason }, Language::English) => {
            format!("* you were signed out: {reason}")
        }
        (Event::SignedOut { reason }, Language::Chinese) => format!("* 您已被登出：{reason}"),
        (Event::Problem { code, text }, Language::English) => {
            format!("* the server reports problem {code}: {text}")
        }
        (Event::Problem { code, text }, Language::Chinese) => {
            format!("* 服务器报告问题 {code}：{text}")
        }
        _ => return None,
    })
}

fn presence(presence: Presence, language: Language) -> &'static str {
    match presence {
        Presence::Online => language.pick("online", "在线"),
        Presence::Offline => language.pick("offline", "离线"),
    }
}

/// A friend as a line.
pub(crate) fn friend(friend: &Friend, language: Language) -> String {
    let state = presence(friend.presence, language);
    format!("{} ({}) {state}", friend.name, friend.user)
}

/// The members of a group that have room in a line that people read.
const MEMBERS_SHOWN: usize = 50;

/// A group as a line.
pub(crate) fn group(group: &Group, language: Language) -> String {
    let shown = group.members.iter().take(MEMBERS_SHOWN);
    let mut members: Vec<String> = shown
        .map(|member| {
            let state = presence(member.presence, language);
            let admin = match member.role {
                Role::Admin => language.pick(", admin", "，群主"),
                Role::Member => "",
            };
            format!("{} ({}) {state}{admin}", member.name, member.user)
        })
        .collect();
    let hidden = group.members.len().saturating_sub(MEMBERS_SHOWN);
    if hidden > 0 || group.more_members {
        members.push(match (language, group.more_members) {
            (Language::English, false) => format!("and {hidden} more"),
            (Language::English, true) => "and more".to_owned(),
            (Language::Chinese, false) => format!("另有 {hidden} 人"),
            (Language::Chinese, true) => "等".to_owned(),
        });
    }
    let description = match group.description.as_str() {
        "" => String::new(),
        description => format!(" - {description}"),
    };
    let members = members.join("; ");
    format!("{} ({}){description}: {members}", group.name, group.group)
}

/// A line that was not understood.
pub(crate) fn not_understood(line: &str, language: Language) -> String {
    match language {
        Language::English => format!(
            "\"{line}\" is not understood: type a number of the menu or a command; help shows them"
        ),
        Language::Chinese => format!("无法识别“{line}”：请输入菜单编号或命令，输入 help 查看"),
    }
}

/// A line in a chat that is no command, though it begins as one.
pub(crate) fn no_command(word: &str, language: Language) -> String {
    match language {
        Language::English => format!(
            "\"/{word}\" is no command, and was not sent; /help shows the commands, // begins a text with /"
        ),
        Language::Chinese => {
            format!("“/{word}”不是命令，也未发送：/help 查看命令，以 / 开头的消息请以 // 开头")
        }
    }
}

/// Where what is typed goes from now on.
pub(crate) fn chatting(partner: &str, language: Language) -> String {
    match language {
        Language::English => format!(
            "each line is sent to {partner}; /back leads back to the menu, /help shows more"
        ),
        Language::Chinese => format!("逐行发送给 {partner}：/back 返回菜单，/help 查看更多"),
    }
}

/// Somebody who cannot be written to.
pub(crate) fn not_a_friend(who: &Who, language: Language) -> String {
    let who = match who {
        Who::Id(id) => id.to_string(),
        Who::Name(name) => as_typed(name).into_owned(),
    };
    match language {
        Language::English => {
            format!("{who} is not one of your friends; friends shows them, add {who} adds")
        }
        Language::Chinese => {
            format!("{who} 不是您的好友：friends 查看好友，add {who} 添加好友")
        }
    }
}

/// A group that the user is not in.
pub(crate) fn not_a_member(group: GroupId, language: Language) -> String {
    match language {
        Language::English => {
            format!("you are not a member of group {group}; groups shows yours, join {group} joins")
        }
        Language::Chinese => {
            format!("您不是群组 {group} 的成员：groups 查看群组，join {group} 加入群组")
        }
    }
}

/// How a command is to be typed.
pub(crate) fn usage(usage: &str, example: &str, language: Language) -> String {
    match language {
        Language::English => format!("type: {usage}   for example: {example}"),
        Language::Chinese => format!("格式：{usage}   例如：{example}"),
    }
}
