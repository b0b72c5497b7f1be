//! What can be typed, and how it is understood.

use chat_client::{GroupId, Language};
use unicode_width::UnicodeWidthStr;

use super::typed::split_word;

/// What the user wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Register,
    Login,
    ChatFriend,
    ChatGroup,
    AddFriend,
    DeleteFriend,
    CreateGroup,
    JoinGroup,
    LeaveGroup,
    DeleteGroup,
    Friends,
    Groups,
    History,
    Logout,
    Quit,
    Help,
    ToFriend,
    ToGroup,
    Wait,
    Back,
}

/// How a verb is typed and explained.
pub(crate) struct Entry {
    pub(crate) verb: Verb,
    /// The first one is shown in menus.
    words: &'static [&'static str],
    /// What follows the word.
    arguments: &'static str,
    english: &'static str,
    chinese: &'static str,
}

macro_rules! entries {
    ($($verb:ident: [$($word:literal),+] $arguments:literal, $english:literal, $chinese:literal;)+) => {
        const ENTRIES: &[Entry] = &[$(Entry {
            verb: Verb::$verb,
            words: &[$($word),+],
            arguments: $arguments,
            english: $english,
            chinese: $chinese,
        }),+];
    };
}

entries! {
    Register: ["register", "reg", "注册"] "NAME PASSWORD", "make an account", "注册账号";
    Login: ["login", "登录"] "NAME PASSWORD", "sign in", "登录";
    ChatFriend: ["chat", "私聊"] "NAME", "talk with a friend", "与好友聊天";
    ChatGroup: ["groupchat", "群聊"] "ID", "talk in a group", "在群组中聊天";
    AddFriend: ["add", "加好友"] "NAME", "make a user your friend", "添加好友";
    DeleteFriend: ["remove", "删好友"] "NAME", "end a friendship", "删除好友";
    CreateGroup: ["create", "建群"] "NAME [DESCRIPTION]", "make a group", "创建群组";
    JoinGroup: ["join", "加群"] "ID", "join a group", "加入群组";
    LeaveGroup: ["leave", "退群"] "ID", "leave a group", "退出群组";
    DeleteGroup: ["delete", "解散"] "ID", "delete a group that you made", "解散自己创建的群组";
    Friends: ["friends", "好友"] "", "list your friends", "查看好友";
    Groups: ["groups", "群组"] "", "list your groups", "查看群组";
    History: ["history", "历史"] "friend NAME|group ID [COUNT]", "read what was said", "查看历史消息";
    Logout: ["logout", "登出"] "", "sign out", "登出";
    Quit: ["quit", "exit", "退出"] "", "leave this program", "退出程序";
    Help: ["help", "menu", "?", "帮助"] "", "show what can be done", "显示帮助";
    ToFriend: ["to", "发"] "NAME TEXT", "send one message to a friend", "向好友发一条消息";
    ToGroup: ["group", "群发"] "ID TEXT", "send one message to a group", "向群组发一条消息";
    Wait: ["wait", "等待"] "COUNT [SECONDS]", "wait for so many messages", "等待收到若干条新消息";
    Back: ["back", "返回"] "", "leave a chat, for the menu", "离开聊天，返回菜单";
}

const MENU_BEFORE: &[Verb] = &[Verb::Register, Verb::Login, Verb::Quit];
const MENU_AFTER: &[Verb] = &[
    Verb::ChatFriend,
    Verb::ChatGroup,
    Verb::AddFriend,
    Verb::DeleteFriend,
    Verb::CreateGroup,
    Verb::JoinGroup,
    Verb::LeaveGroup,
    Verb::DeleteGroup,
    Verb::Friends,
    Verb::Groups,
    Verb::History,
    Verb::Logout,
    Verb::Quit,
];
/// Understood everywhere, and listed by `help`.
const BESIDES: &[Verb] = &[
    Verb::ToFriend,
    Verb::ToGroup,
    Verb::Wait,
    Verb::Back,
    Verb::Help,
];

/// Two columns need so much room.
const COLUMNS_MIN: usize = 72;
const USAGE_COLUMNS: usize = 38;

/// Which menu counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Menu {
    SignedOut,
    SignedIn,
    /// Within a chat, where a command begins with a slash.
    Chat,
}

impl Menu {
    fn verbs(self) -> &'static [Verb] {
        match self {
            Self::SignedOut => MENU_BEFORE,
            Self::SignedIn | Self::Chat => MENU_AFTER,
        }
    }

    /// The menu, a line each; on a narrow screen without explanations.
    pub(crate) fn lines(self, columns: usize, language: Language) -> Vec<String> {
        let line = |(number, &verb): (usize, &Verb)| {
            let entry = entry(verb);
            let line = match columns < COLUMNS_MIN {
                true => entry.usage_in("", language),
                false => entry.explained("", language),
            };
            let line = format!("{number:>3}  {line}");
            match line.width() > columns {
                true => format!("{number:>3}  {}", entry.word_in("", language)),
                false => line,
            }
        };
        (1..).zip(self.verbs()).map(line).collect()
    }

    /// Everything that is understood here, and how it is typed.
    pub(crate) fn help(self, columns: usize, language: Language) -> Vec<String> {
        let (slash, besides) = match self {
            Self::SignedOut => ("", &[Verb::Help][..]),
            Self::SignedIn => ("", BESIDES),
            Self::Chat => ("/", BESIDES),
        };
        let mut lines = Vec::new();
        for (index, &verb) in self.verbs().iter().chain(besides).enumerate() {
            let entry = entry(verb);
            let number = match self {
                Self::Chat => String::new(),
                _ if index < self.verbs().len() => (index + 1).to_string(),
                _ => String::new(),
            };
            if columns < COLUMNS_MIN {
                lines.push(format!("{number:>3}  {}", entry.usage_in(slash, language)));
                lines.push(format!("       {}", entry.explanation(language)));
            } else {
                lines.push(format!("{number:>3}  {}", entry.explained(slash, language)));
            }
        }
        let notes = [
            language.pick(
                "NAME is a user's name or user id. A name of digits alone is typed name:12.",
                "NAME 是用户名或用户 ID；纯数字的用户名写作 name:12。",
            ),
            language.pick(
                "Quotes hold space together: \"ann lee\" or 'ann lee'. A TEXT is sent as it is.",
                "含空格的词请加引号：\"ann lee\" 或 'ann lee'；TEXT 原样发送。",
            ),
        ];
        lines.extend(notes.map(str::to_owned));
        if self == Self::Chat {
            let note = language.pick(
                "Every other line is sent. // at the beginning is sent as one /.",
                "其他内容逐行发送；以 // 开头的行发送时保留一个 /。",
            );
            lines.push(note.to_owned());
        }
        lines
    }
}

impl Entry {
    fn word(&self, language: Language) -> &'static str {
        match (language, self.words) {
            (Language::Chinese, [first, .., last]) if last.is_ascii() => first,
            (Language::Chinese, [.., last]) => last,
            (_, words) => words.first().copied().unwrap_or_default(),
        }
    }

    fn explanation(&self, language: Language) -> &'static str {
        language.pick(self.english, self.chinese)
    }

    fn explained(&self, slash: &str, language: Language) -> String {
        let usage = self.usage_in(slash, language);
        // Chinese characters are two columns wide.
        let space = " ".repeat(USAGE_COLUMNS.saturating_sub(usage.width()));
        format!("{usage}{space} {}", self.explanation(language))
    }

    fn usage_in(&self, slash: &str, language: Language) -> String {
        let word = self.word_in(slash, language);
        format!("{word} {}", self.arguments).trim_end().to_owned()
    }

    fn word_in(&self, slash: &str, language: Language) -> String {
        let english = self.words.first().copied().unwrap_or_default();
        match self.word(language) {
            word if word == english => format!("{slash}{english}"),
            word => format!("{slash}{english} ({word})"),
        }
    }

    /// How it is typed.
    pub(crate) fn usage(&self) -> String {
        let word = self.words.first().copied().unwrap_or_default();
        format!("{word} {}", self.arguments).trim_end().to_owned()
    }
}

/// Everything about a verb.
pub(crate) fn entry(verb: Verb) -> &'static Entry {
    let found = ENTRIES.iter().find(|entry| entry.verb == verb);
    // Each verb has its line in the table; a test sees to it.
    found.unwrap_or(&ENTRIES[0])
}

/// The verb of a line, by its word or its number in the menu, and what follows. `None` when it is
/// not understood.
pub(crate) fn parse(line: &str, menu: Menu) -> Option<(Verb, &str)> {
    let (word, rest) = split_word(line.trim());
    // As in a chat.
    let word = word.strip_prefix('/').unwrap_or(word);
    if menu != Menu::Chat
        && let Ok(number) = word.parse::<usize>()
    {
        let verb = menu.verbs().get(number.checked_sub(1)?)?;
        return Some((*verb, rest));
    }
    let word = word.to_lowercase();
    let entry = ENTRIES.iter().find(|e| e.words.contains(&word.as_str()))?;
    Some((entry.verb, rest))
}

/// A group's id as typed: a number above 0.
pub(crate) fn group(text: &str) -> Option<GroupId> {
    GroupId::new(text.trim().parse().ok()?)
}

/// What a conversation is with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Party {
    Friend,
    Group,
}

/// "friend" or "group", in either language.
pub(crate) fn party(word: &str) -> Option<Party> {
    match word {
        "friend" | "f" | "好友" => Some(Party::Friend),
        "group" | "g" | "群组" | "群" => Some(Party::Group),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_its_line() {
        for &verb in MENU_BEFORE.iter().chain(MENU_AFTER).chain(BESIDES) {
            assert_eq!(entry(verb).verb, verb);
        }
    }

    #[test]
    fn no_word_means_two_things() {
        let mut words: Vec<_> = ENTRIES.iter().flat_map(|entry| entry.words).collect();
        let count = words.len();
        words.sort();
        words.dedup();
        assert_eq!(words.len(), count);
    }

    #[test]
    fn numbers_mean_what_the_menu_shows() {
        assert_eq!(parse("1", Menu::SignedOut), Some((Verb::Register, "")));
        assert_eq!(parse("1", Menu::SignedIn), Some((Verb::ChatFriend, "")));
        assert_eq!(
            parse(" 3  7 ", Menu::SignedIn),
            Some((Verb::AddFriend, "7"))
        );
        for wrong in ["0", "99", "-1"] {
            assert_eq!(parse(wrong, Menu::SignedIn), None, "{wrong}");
        }
    }

    #[test]
    fn words_are_understood_in_both_languages_and_any_case() {
        assert_eq!(
            parse("TO 2  hello  there", Menu::SignedIn),
            Some((Verb::ToFriend, "2  hello  there"))
        );
        assert_eq!(parse("好友", Menu::SignedIn), Some((Verb::Friends, "")));
        assert_eq!(parse("nonsense", Menu::SignedIn), None);
        assert_eq!(parse("", Menu::SignedIn), None);
    }

    #[test]
    fn a_groups_id_is_a_number_above_0() {
        assert_eq!(group("7").map(GroupId::get), Some(7));
        for wrong in ["", "0", "-1", "x", "99999999999", "1 2"] {
            assert_eq!(group(wrong), None, "{wrong}");
        }
        assert_eq!(party("nobody"), None);
    }

    #[test]
    fn numbers_mean_nothing_in_a_chat() {
        assert_eq!(parse("1", Menu::Chat), None);
        assert_eq!(parse("back", Menu::Chat), Some((Verb::Back, "")));
    }

    #[test]
    fn what_is_shown_fits_the_screen() {
        for (columns, language) in [
            (80, Language::English),
            (80, Language::Chinese),
            (40, Language::English),
            (40, Language::Chinese),
        ] {
            for menu in [Menu::SignedOut, Menu::SignedIn] {
                let lines = menu.lines(columns, language);
                assert!(lines.len() < 24 - 2);
                for line in lines {
                    assert!(line.width() <= columns, "{columns}: {line}");
                }
            }
            for line in Menu::Chat.help(80, language) {
                assert!(line.width() <= 80, "{line}");
            }
        }
    }
}
