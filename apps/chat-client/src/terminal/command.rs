//! What can be typed, and how it is understood.

use chat_client::{Conversation, GroupId, Language, UserId};

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
    Login: ["login", "登录"] "ID PASSWORD", "sign in with your user id", "用用户 ID 登录";
    ChatFriend: ["chat", "私聊"] "ID", "talk with a friend", "与好友聊天";
    ChatGroup: ["groupchat", "群聊"] "ID", "talk in a group", "在群组中聊天";
    AddFriend: ["add", "加好友"] "ID", "make a user your friend", "添加好友";
    DeleteFriend: ["remove", "删好友"] "ID", "end a friendship", "删除好友";
    CreateGroup: ["create", "建群"] "NAME [DESCRIPTION]", "make a group", "创建群组";
    JoinGroup: ["join", "加群"] "ID", "join a group", "加入群组";
    LeaveGroup: ["leave", "退群"] "ID", "leave a group", "退出群组";
    DeleteGroup: ["delete", "解散"] "ID", "delete a group that you made", "解散自己创建的群组";
    Friends: ["friends", "好友"] "", "list your friends", "查看好友";
    Groups: ["groups", "群组"] "", "list your groups", "查看群组";
    History: ["history", "历史"] "friend|group ID [COUNT]", "read what was said", "查看历史消息";
    Logout: ["logout", "登出"] "", "sign out", "登出";
    Quit: ["quit", "exit", "退出"] "", "leave this program", "退出程序";
    Help: ["help", "menu", "?", "帮助"] "", "show what can be done", "显示帮助";
    ToFriend: ["to", "发"] "ID TEXT", "send one message to a friend", "向好友发一条消息";
    ToGroup: ["group", "群发"] "ID TEXT", "send one message to a group", "向群组发一条消息";
    Wait: ["wait", "等待"] "COUNT [SECONDS]", "wait until so many more messages have arrived", "等待收到若干条新消息";
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
const BESIDES: &[Verb] = &[Verb::ToFriend, Verb::ToGroup, Verb::Wait, Verb::Help];

/// Which menu counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Menu {
    SignedOut,
    SignedIn,
}

impl Menu {
    fn verbs(self) -> &'static [Verb] {
        match self {
            Self::SignedOut => MENU_BEFORE,
            Self::SignedIn => MENU_AFTER,
        }
    }

    /// The menu, a line each.
    pub(crate) fn lines(self, language: Language) -> Vec<String> {
        let numbered = (1..).zip(self.verbs()).map(|(n, &verb)| {
            let entry = entry(verb);
            format!("{n:>3}  {}", entry.explained(language))
        });
        numbered.collect()
    }

    /// The menu, and everything else that is understood.
    pub(crate) fn help(self, language: Language) -> Vec<String> {
        let mut lines = self.lines(language);
        if self == Self::SignedIn {
            let besides = BESIDES.iter().map(|&verb| entry(verb).explained(language));
            lines.extend(besides.map(|line| format!("     {line}")));
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

    fn explained(&self, language: Language) -> String {
        let english = self.words.first().copied().unwrap_or_default();
        let word = match self.word(language) {
            word if word == english => english.to_owned(),
            word => format!("{english} ({word})"),
        };
        let usage = format!("{word} {}", self.arguments);
        let what = language.pick(self.english, self.chinese);
        format!("{:<34} {what}", usage.trim_end())
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
    let line = line.trim();
    let (word, rest) = split_word(line);
    if let Ok(number) = word.parse::<usize>() {
        let verb = menu.verbs().get(number.checked_sub(1)?)?;
        return Some((*verb, rest));
    }
    let word = word.to_lowercase();
    let entry = ENTRIES.iter().find(|e| e.words.contains(&word.as_str()))?;
    Some((entry.verb, rest))
}

/// The first word, and the rest without the space between.
pub(crate) fn split_word(text: &str) -> (&str, &str) {
    match text.trim_start().split_once(char::is_whitespace) {
        Some((word, rest)) => (word, rest.trim_start()),
        None => (text.trim_start(), ""),
    }
}

/// An id as typed: a number above 0.
pub(crate) fn user(text: &str) -> Option<UserId> {
    UserId::new(text.trim().parse().ok()?)
}

/// An id as typed: a number above 0.
pub(crate) fn group(text: &str) -> Option<GroupId> {
    GroupId::new(text.trim().parse().ok()?)
}

/// "friend 2" or "group 3", in either language.
pub(crate) fn conversation(kind: &str, id: &str) -> Option<Conversation> {
    match kind {
        "friend" | "f" | "好友" => user(id).map(Conversation::Friend),
        "group" | "g" | "群组" | "群" => group(id).map(Conversation::Group),
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
    fn ids_are_numbers_above_0() {
        assert_eq!(user("7").map(UserId::get), Some(7));
        for wrong in ["", "0", "-1", "x", "99999999999", "1 2"] {
            assert_eq!(user(wrong), None, "{wrong}");
        }
        assert_eq!(conversation("nobody", "1"), None);
    }
}
