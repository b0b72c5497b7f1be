//! Carries commands out.

use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::time::Duration;

use chat_client::{ChatClient, ChatError, Conversation, Language, Message, Pending, Status, Who};

use super::ask::Question;
use super::command::{self, Menu, Party, Verb};
use super::feed::Feed;
use super::phrases;
use super::screen::{Echo, Input, Kind, Line, Screen};
use super::typed::{as_typed, split_word};

/// An answer is due before this is over: its request's own deadline comes first.
pub(super) const PATIENCE: Duration = Duration::from_secs(3700);
const HISTORY_LINES: u32 = 20;
const NAME: Question = ("name: ", "用户名：");
const GROUP_NAME: Question = ("name of the group: ", "群组名称：");
const DESCRIPTION: Question = ("description (may be empty): ", "群组简介（可为空）：");
const CONVERSATION: Question = (
    "friend NAME or group ID: ",
    "friend 用户名，或 group 群组 ID：",
);

/// One user at work.
pub(crate) struct Session {
    pub(super) client: ChatClient,
    pub(super) feed: Feed,
    pub(super) screen: Screen,
    pub(super) language: Language,
    timeout: Duration,
    /// With whom the user chats: what is typed is sent there. `None` at the menu.
    pub(super) talking: Option<Conversation>,
}

/// Why a command was not carried out.
pub(super) enum Failure {
    /// What was typed is not usable; says what would be.
    Hint(String),
    /// There is no such command.
    NotUnderstood(String),
    /// The server or the way to it.
    Chat(ChatError),
    /// The user did not want it after all.
    Cancelled,
}

/// What comes after a command.
pub(super) enum Next {
    Command,
    Quit,
}

impl From<ChatError> for Failure {
    fn from(error: ChatError) -> Self {
        Self::Chat(error)
    }
}

impl Session {
    pub(crate) fn new(
        client: ChatClient,
        feed: Feed,
        screen: Screen,
        language: Language,
        timeout: Duration,
    ) -> Self {
        Self {
            client,
            feed,
            screen,
            language,
            timeout,
            talking: None,
        }
    }

    /// Reads and carries out commands until the user leaves or the script ends.
    pub(crate) fn run(mut self, mut input: Input) -> ExitCode {
        self.greet(&mut input);
        let mut code = ExitCode::SUCCESS;
        loop {
            if self.screen.kind() == Kind::Terminal && self.client.user().is_none() {
                self.talking = None;
            }
            let done = match (input.read(&self.prompt(), Echo::Shown), self.talking) {
                (Line::Text(line), Some(to)) => self.carry_out_in_chat(to, &line, &mut input),
                (Line::Text(line), None) => self.carry_out_lines(&line, &mut input),
                // Ctrl-C and Ctrl-D lead out of a chat, and from the menu out of here.
                (Line::Away | Line::End, Some(_)) if self.screen.kind() == Kind::Terminal => {
                    self.talking = None;
                    Ok(Next::Command)
                }
                (Line::Away | Line::End, _) => Ok(Next::Quit),
            };
            match done {
                Ok(Next::Command) | Err(Failure::Cancelled) => {}
                Ok(Next::Quit) => break,
                Err(failure) => {
                    self.screen.error(&self.explain(failure));
                    code = self.failed(code);
                }
            }
        }
        if self.client.user().is_some()
            && let Err(error) = self.client.logout().wait(PATIENCE)
        {
            self.screen.error(&error.explain(self.language));
            code = self.failed(code);
        }
        self.client.close();
        if self.screen.kind() == Kind::Pipe {
            self.feed.finish();
        }
        code
    }

    /// The exit code after a failure: people make mistakes, scripts fail.
    fn failed(&self, code: ExitCode) -> ExitCode {
        match self.screen.kind() {
            Kind::Terminal => code,
            Kind::Pipe => ExitCode::FAILURE,
        }
    }

    fn explain(&self, failure: Failure) -> String {
        match failure {
            Failure::Hint(hint) => hint,
            Failure::NotUnderstood(word) => phrases::not_understood(&word, self.language),
            Failure::Chat(error) => error.explain(self.language),
            Failure::Cancelled => String::new(),
        }
    }

    /// Lines at the menu: several are there at once when they were pasted.
    fn carry_out_lines(&mut self, lines: &str, input: &mut Input) -> Result<Next, Failure> {
        for line in lines.lines() {
            let done = match self.talking {
                Some(to) => self.carry_out_in_chat(to, line, input),
                None => self.carry_out(line, self.menu(), input),
            };
            match done {
                Ok(Next::Command) => {}
                done => return done,
            }
        }
        Ok(Next::Command)
    }

    pub(super) fn carry_out(
        &mut self,
        line: &str,
        menu: Menu,
        input: &mut Input,
    ) -> Result<Next, Failure> {
        let trimmed = line.trim();
        // Lines of a script that start with # are for its reader.
        if menu != Menu::Chat && (trimmed.is_empty() || trimmed.starts_with('#')) {
            return Ok(Next::Command);
        }
        let Some((verb, rest)) = command::parse(trimmed, menu) else {
            // The rest may be long.
            return Err(Failure::NotUnderstood(split_word(trimmed).0.to_owned()));
        };
        if !matches!(verb, Verb::Register | Verb::Login) {
            match menu {
                Menu::Chat => input.remember(&format!("/{line}")),
                _ => input.remember(line),
            }
        }
        match verb {
            Verb::Quit => return Ok(Next::Quit),
            Verb::Back => self.talking = None,
            Verb::Help => self.show_help(menu, input),
            Verb::Register => self.register(rest, input)?,
            Verb::Login => self.login(rest, input)?,
            Verb::Logout => self.logout(input)?,
            Verb::ChatFriend => {
                let (who, _) = self.who(verb, rest, input)?;
                self.chat_with(&who, input)?;
            }
            Verb::ChatGroup => {
                let (group, _) = self.group(verb, rest, input)?;
                self.chat_in(group, input)?;
            }
            Verb::ToFriend => {
                let (who, text) = self.who(verb, rest, input)?;
                if text.is_empty() {
                    return Err(self.usage(verb));
                }
                let friend = match who {
                    Who::Id(friend) => friend,
                    who => self.find_friend(&who)?.user,
                };
                self.send_one(Conversation::Friend(friend), text)?;
            }
            Verb::ToGroup => {
                let (group, text) = self.group(verb, rest, input)?;
                if text.is_empty() {
                    return Err(self.usage(verb));
                }
                self.send_one(Conversation::Group(group), text)?;
            }
            Verb::AddFriend => {
                let (who, _) = self.who(verb, rest, input)?;
                let friend = self.answer(self.client.add_friend(who))?;
                self.feed.names().friends(std::slice::from_ref(&friend));
                self.say(
                    "friend added: ",
                    "已添加好友：",
                    &phrases::friend(&friend, self.language),
                );
            }
            Verb::DeleteFriend => {
                let (who, _) = self.who(verb, rest, input)?;
                let friend = match who {
                    Who::Id(friend) => friend,
                    who => self.find_friend(&who)?.user,
                };
                self.answer(self.client.delete_friend(friend))?;
                let friend = self.feed.names().user(friend, "");
                self.say("friend deleted: ", "已删除好友：", &friend);
            }
            Verb::CreateGroup => self.create_group(rest, input)?,
            Verb::JoinGroup => {
                let (group, _) = self.group(verb, rest, input)?;
                let group = self.answer(self.client.join_group(group))?;
                self.feed.names().groups(std::slice::from_ref(&group));
                self.say(
                    "joined: ",
                    "已加入群组：",
                    &phrases::group(&group, self.language),
                );
            }
            Verb::LeaveGroup => {
                let (group, _) = self.group(verb, rest, input)?;
                self.answer(self.client.leave_group(group))?;
                self.say("left group ", "已退出群组 ", &group.to_string());
            }
            Verb::DeleteGroup => {
                let (group, _) = self.group(verb, rest, input)?;
                self.answer(self.client.delete_group(group))?;
                self.say("deleted group ", "已解散群组 ", &group.to_string());
            }
            Verb::Friends => {
                let friends = self.answer(self.client.friends())?;
                self.feed.names().friends(&friends);
                self.list(friends.iter().map(|f| phrases::friend(f, self.language)));
            }
            Verb::Groups => {
                let groups = self.answer(self.client.groups())?;
                self.feed.names().groups(&groups);
                self.list(groups.iter().map(|g| phrases::group(g, self.language)));
            }
            Verb::History => self.history(rest, input)?,
            Verb::Wait => self.wait(rest)?,
        }
        Ok(Next::Command)
    }

    // ---- commands ----

    fn register(&self, rest: &str, input: &mut Input) -> Result<(), Failure> {
        let (name, rest) = self.word(Verb::Register, rest, NAME, input)?;
        let password = self.new_password(Verb::Register, rest, input)?;
        let user = self.answer(self.client.register(&name.text, &password))?;
        let name = as_typed(name.text.trim());
        match self.language {
            Language::English => self.screen.line(&format!(
                "registered: your user id is {user}; sign in with: login {name}"
            )),
            Language::Chinese => self.screen.line(&format!(
                "注册成功：您的用户 ID 是 {user}，请用 login {name} 登录"
            )),
        }
        Ok(())
    }

    fn login(&self, rest: &str, input: &mut Input) -> Result<(), Failure> {
        let (who, rest) = self.who(Verb::Login, rest, input)?;
        let password = self.password(Verb::Login, rest, input)?;
        let login = self.answer(self.client.login(who, &password))?;
        self.feed.signed_in(true);
        {
            let mut names = self.feed.names();
            names.me(login.user, &login.name);
            names.friends(&login.friends);
            names.groups(&login.groups);
        }
        let (name, user, waiting) = (&login.name, login.user, login.waiting);
        let (friends, groups) = (login.friends.len(), login.groups.len());
        match self.language {
            Language::English => self.screen.line(&format!(
                "signed in as {name} ({user}): friends {friends}, groups {groups}, messages waiting {waiting}"
            )),
            Language::Chinese => self.screen.line(&format!(
                "已登录为 {name} ({user})：好友 {friends}，群组 {groups}，待收消息 {waiting}"
            )),
        }
        self.show_menu(input);
        Ok(())
    }

    fn logout(&mut self, input: &mut Input) -> Result<(), Failure> {
        self.answer(self.client.logout())?;
        self.feed.signed_in(false);
        self.talking = None;
        self.say("signed out", "已登出", "");
        self.show_menu(input);
        Ok(())
    }

    fn create_group(&self, rest: &str, input: &mut Input) -> Result<(), Failure> {
        let verb = Verb::CreateGroup;
        let (name, description) = self.word(verb, rest, GROUP_NAME, input)?;
        let description = match rest {
            "" => self.ask(verb, DESCRIPTION, Echo::Shown, input)?.into(),
            _ => self.last(description)?,
        };
        let created = self.client.create_group(&name.text, description.trim());
        let group = self.answer(created)?;
        self.feed.names().groups(std::slice::from_ref(&group));
        self.say(
            "created: ",
            "已创建群组：",
            &phrases::group(&group, self.language),
        );
        Ok(())
    }

    fn history(&self, rest: &str, input: &mut Input) -> Result<(), Failure> {
        let verb = Verb::History;
        let asked;
        let typed = match rest {
            "" => {
                asked = self.ask(verb, CONVERSATION, Echo::Shown, input)?;
                if asked.trim().is_empty() {
                    return Err(Failure::Cancelled);
                }
                &asked
            }
            rest => rest,
        };
        let (kind, rest) = split_word(typed);
        let party = command::party(kind).ok_or_else(|| self.usage(verb))?;
        let (conversation, rest) = match party {
            Party::Friend => {
                let (who, rest) = self.who(verb, rest, input)?;
                let friend = match who {
                    Who::Id(friend) => friend,
                    who => self.find_friend(&who)?.user,
                };
                (Conversation::Friend(friend), rest)
            }
            Party::Group => {
                let (group, rest) = self.group(verb, rest, input)?;
                (Conversation::Group(group), rest)
            }
        };
        let count = match rest.trim() {
            "" => HISTORY_LINES,
            count => count
                .parse()
                .ok()
                .filter(|count| (1..=500).contains(count))
                .ok_or_else(|| self.usage(verb))?,
        };
        let last = self
            .answer(self.client.history(conversation, 1, 1))?
            .last_sequence;
        let first = last.saturating_sub(u64::from(count) - 1).max(1);
        let messages = self.messages(conversation, first..=last)?;
        let kind = self.screen.kind();
        let lines: Vec<String> = {
            let names = self.feed.names();
            let line = |message| phrases::message(message, &names, kind, self.language);
            messages.iter().map(line).collect()
        };
        self.list(lines.into_iter());
        Ok(())
    }

    /// All messages of a stretch, which may take several pages.
    fn messages(
        &self,
        conversation: Conversation,
        mut stretch: RangeInclusive<u64>,
    ) -> Result<Vec<Message>, Failure> {
        let mut messages: Vec<Message> = Vec::new();
        while !stretch.is_empty() {
            let (first, last) = (*stretch.start(), *stretch.end());
            let count =
                u32::try_from(last - first).map_or(u32::MAX, |count| count.saturating_add(1));
            let page = self.answer(self.client.history(conversation, first, count))?;
            let Some(read) = page.messages.last().map(|message| message.sequence) else {
                break;
            };
            messages.extend(page.messages);
            stretch = read.saturating_add(1)..=last;
        }
        Ok(messages)
    }

    fn wait(&self, rest: &str) -> Result<(), Failure> {
        let (count, seconds) = split_word(rest);
        let count: Option<u64> = count.parse().ok();
        let timeout = match seconds.trim() {
            "" => Some(self.timeout),
            seconds => seconds
                .parse()
                .ok()
                .filter(|&seconds: &u64| seconds <= 3600)
                .map(Duration::from_secs),
        };
        let (Some(count), Some(timeout)) = (count, timeout) else {
            return Err(self.usage(Verb::Wait));
        };
        if self.feed.wait(count, timeout) {
            Ok(())
        } else {
            let hint = self.language.pick(
                "not so many messages have arrived in time",
                "限定时间内未收到足够的消息",
            );
            Err(Failure::Hint(hint.to_owned()))
        }
    }

    fn send_one(&self, to: Conversation, text: &str) -> Result<(), Failure> {
        self.answer(self.client.send(to, text))?;
        self.say("sent", "已发送", "");
        Ok(())
    }

    pub(super) fn answer<T>(&self, pending: Pending<T>) -> Result<T, Failure> {
        Ok(pending.wait(PATIENCE)?)
    }

    // ---- showing ----

    fn greet(&self, input: &mut Input) {
        if self.screen.kind() == Kind::Terminal {
            self.say(
                "Welcome to the chat. Type a number or a word; help explains them.",
                "欢迎使用聊天系统，请输入编号或命令，help 查看说明。",
                "",
            );
            self.show_menu(input);
        }
    }

    fn menu(&self) -> Menu {
        match self.client.user() {
            Some(_) => Menu::SignedIn,
            None => Menu::SignedOut,
        }
    }

    fn prompt(&self) -> String {
        let state = match self.client.status() {
            Status::Connecting => self.language.pick("(connecting) ", "（连接中）"),
            Status::Resuming => self.language.pick("(resuming) ", "（恢复中）"),
            _ => "",
        };
        match (self.talking, self.client.user()) {
            (Some(to), _) => format!("{state}→ {} ", self.partner(to)),
            (None, Some(user)) => format!("{state}{}> ", self.feed.names().user(user, "")),
            (None, None) => format!("{state}> "),
        }
    }

    fn show_menu(&self, input: &mut Input) {
        if self.screen.kind() == Kind::Terminal {
            for line in self.menu().lines(input.columns(), self.language) {
                self.screen.line(&line);
            }
        }
    }

    fn show_help(&self, menu: Menu, input: &mut Input) {
        for line in menu.help(input.columns(), self.language) {
            self.screen.line(&line);
        }
    }

    pub(super) fn say(&self, english: &str, chinese: &str, rest: &str) {
        let beginning = self.language.pick(english, chinese);
        self.screen.line(&format!("{beginning}{rest}"));
    }

    fn list(&self, lines: impl ExactSizeIterator<Item = String>) {
        if lines.len() == 0 {
            self.say("(none)", "（无）", "");
        }
        for line in lines {
            self.screen.line(&line);
        }
    }
}
