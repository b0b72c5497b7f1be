//! Carries commands out.

use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::time::Duration;

use chat_client::{ChatClient, ChatError, Conversation, Language, Message, Pending, Status};

use super::command::{self, Menu, Verb, split_word};
use super::feed::Feed;
use super::phrases;
use super::screen::{Echo, Input, Kind, Line, Screen};

/// An answer is due before this is over: its request's own deadline comes first.
const PATIENCE: Duration = Duration::from_secs(3700);
const HISTORY_LINES: u32 = 20;

/// One user at work.
pub(crate) struct Session {
    client: ChatClient,
    feed: Feed,
    pub(super) screen: Screen,
    pub(super) language: Language,
    timeout: Duration,
}

/// Why a command was not carried out.
pub(super) enum Failure {
    /// What was typed is not usable; says what would be.
    Hint(String),
    /// The server or the way to it.
    Chat(ChatError),
    /// The user did not want it after all.
    Cancelled,
    /// The input has ended.
    End,
}

/// What comes after a command.
enum Next {
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
        }
    }

    /// Reads and carries out commands until the user leaves or the script ends.
    pub(crate) fn run(self, mut input: Input) -> ExitCode {
        self.greet();
        let mut code = ExitCode::SUCCESS;
        // Ctrl-C and Ctrl-D lead out of here, too.
        while let Line::Text(line) = input.read(&self.prompt(), Echo::Shown) {
            match self.carry_out(&line, &mut input) {
                Ok(Next::Command) | Err(Failure::Cancelled) => {}
                Ok(Next::Quit) => break,
                Err(Failure::End) => {
                    self.screen.error(
                        self.language
                            .pick("the input ended within a command", "输入在命令中途结束"),
                    );
                    code = self.failed(code);
                    break;
                }
                Err(Failure::Hint(hint)) => {
                    self.screen.error(&hint);
                    code = self.failed(code);
                }
                Err(Failure::Chat(error)) => {
                    self.screen.error(&error.explain(self.language));
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

    fn carry_out(&self, line: &str, input: &mut Input) -> Result<Next, Failure> {
        let trimmed = line.trim();
        // Lines of a script that start with # are for its reader.
        if trimmed.is_empty() || trimmed.starts_with('#') {
            return Ok(Next::Command);
        }
        let Some((verb, rest)) = command::parse(trimmed, self.menu()) else {
            // The rest may be long.
            let (word, _) = split_word(trimmed);
            return Err(Failure::Hint(phrases::not_understood(word, self.language)));
        };
        if !matches!(verb, Verb::Register | Verb::Login) {
            input.remember(line);
        }
        match verb {
            Verb::Quit => return Ok(Next::Quit),
            Verb::Help => self.show_help(),
            Verb::Register => self.register(rest, input)?,
            Verb::Login => self.login(rest, input)?,
            Verb::Logout => self.logout()?,
            Verb::ChatFriend => {
                let friend = self.ask_user(verb, rest, input)?;
                self.talk(Conversation::Friend(friend), input)?;
            }
            Verb::ChatGroup => {
                let group = self.ask_group(verb, rest, input)?;
                self.talk(Conversation::Group(group), input)?;
            }
            Verb::ToFriend => {
                let (id, text) = split_word(rest);
                let to = command::user(id).map(Conversation::Friend);
                self.send_one(verb, to, text, "to 2 hello")?;
            }
            Verb::ToGroup => {
                let (id, text) = split_word(rest);
                let to = command::group(id).map(Conversation::Group);
                self.send_one(verb, to, text, "group 3 hello")?;
            }
            Verb::AddFriend => {
                let user = self.ask_user(verb, rest, input)?;
                let friend = self.answer(self.client.add_friend(user))?;
                self.feed.names().friends(std::slice::from_ref(&friend));
                self.say(
                    "friend added: ",
                    "已添加好友：",
                    &phrases::friend(&friend, self.language),
                );
            }
            Verb::DeleteFriend => {
                let friend = self.ask_user(verb, rest, input)?;
                self.answer(self.client.delete_friend(friend))?;
                self.say("friend deleted: ", "已删除好友：", &friend.to_string());
            }
            Verb::CreateGroup => self.create_group(rest, input)?,
            Verb::JoinGroup => {
                let group = self.ask_group(verb, rest, input)?;
                let group = self.answer(self.client.join_group(group))?;
                self.feed.names().groups(std::slice::from_ref(&group));
                self.say(
                    "joined: ",
                    "已加入群组：",
                    &phrases::group(&group, self.language),
                );
            }
            Verb::LeaveGroup => {
                let group = self.ask_group(verb, rest, input)?;
                self.answer(self.client.leave_group(group))?;
                self.say("left group ", "已退出群组 ", &group.to_string());
            }
            Verb::DeleteGroup => {
                let group = self.ask_group(verb, rest, input)?;
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
        let (name, password) = split_word(rest);
        let name = match name {
            "" => self.ask("name: ", "用户名：", input)?,
            name => name.to_owned(),
        };
        let password = match password {
            "" => self.ask_new_password(input)?,
            password => password.to_owned(),
        };
        let user = self.answer(self.client.register(&name, &password))?;
        match self.language {
            Language::English => self.screen.line(&format!(
                "registered: your user id is {user}; sign in with: login {user}"
            )),
            Language::Chinese => self.screen.line(&format!(
                "注册成功：您的用户 ID 是 {user}，请用 login {user} 登录"
            )),
        }
        Ok(())
    }

    fn login(&self, rest: &str, input: &mut Input) -> Result<(), Failure> {
        let (id, password) = split_word(rest);
        let user = self.ask_user(Verb::Login, id, input)?;
        let password = match password {
            "" => self.ask_hidden("password: ", "密码：", input)?,
            password => password.to_owned(),
        };
        let login = self.answer(self.client.login(user, &password))?;
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
        self.show_menu();
        Ok(())
    }

    fn logout(&self) -> Result<(), Failure> {
        self.answer(self.client.logout())?;
        self.say("signed out", "已登出", "");
        self.show_menu();
        Ok(())
    }

    fn create_group(&self, rest: &str, input: &mut Input) -> Result<(), Failure> {
        let (name, description) = match split_word(rest) {
            ("", _) => (
                self.ask("name of the group: ", "群组名称：", input)?,
                self.ask_or_nothing(
                    "description (may be empty): ",
                    "群组简介（可为空）：",
                    input,
                )?,
            ),
            (name, description) => (name.to_owned(), description.to_owned()),
        };
        let group = self.answer(self.client.create_group(&name, &description))?;
        self.feed.names().groups(std::slice::from_ref(&group));
        self.say(
            "created: ",
            "已创建群组：",
            &phrases::group(&group, self.language),
        );
        Ok(())
    }

    fn history(&self, rest: &str, input: &mut Input) -> Result<(), Failure> {
        let typed = match rest {
            "" => self.ask("friend or group, and id: ", "好友或群组，以及 ID：", input)?,
            rest => rest.to_owned(),
        };
        let (kind, rest) = split_word(&typed);
        let (id, count) = split_word(rest);
        let count = match count.trim() {
            "" => Some(HISTORY_LINES),
            count => count.parse().ok().filter(|count| (1..=500).contains(count)),
        };
        let conversation = command::conversation(kind, id);
        let (Some(conversation), Some(count)) = (conversation, count) else {
            return Err(self.usage(Verb::History, "history friend 2 50"));
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
            return Err(self.usage(Verb::Wait, "wait 1 30"));
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

    // ---- messages ----

    fn send_one(
        &self,
        verb: Verb,
        to: Option<Conversation>,
        text: &str,
        example: &str,
    ) -> Result<(), Failure> {
        match to {
            Some(to) if !text.is_empty() => {
                self.answer(self.client.send(to, text))?;
                self.say("sent", "已发送", "");
                Ok(())
            }
            _ => Err(self.usage(verb, example)),
        }
    }

    /// Sends each line that is typed, until an empty one or /back.
    fn talk(&self, to: Conversation, input: &mut Input) -> Result<(), Failure> {
        let partner = match to {
            Conversation::Friend(friend) => self.feed.names().user(friend, ""),
            Conversation::Group(group) => self.feed.names().group(group),
        };
        if self.screen.kind() == Kind::Terminal {
            self.say(
                "each line is sent; an empty line or /back leads back to the menu",
                "逐行发送，空行或 /back 返回菜单",
                "",
            );
        }
        let mut all_sent = true;
        while self.client.user().is_some() || self.screen.kind() == Kind::Pipe {
            let text = match input.read(&format!("→ {partner} "), Echo::Shown) {
                Line::Text(text) => text,
                Line::Away | Line::End => break,
            };
            if matches!(text.trim(), "" | "/back") {
                break;
            }
            input.remember(&text);
            let sent = self.client.send(to, &text);
            match self.screen.kind() {
                Kind::Terminal => self.tell_failure(sent, text),
                Kind::Pipe => match sent.wait(PATIENCE) {
                    Ok(_) => self.say("sent", "已发送", ""),
                    // The next line is a message still.
                    Err(error) => {
                        self.screen.error(&error.explain(self.language));
                        all_sent = false;
                    }
                },
            }
        }
        if all_sent {
            return Ok(());
        }
        let hint = self
            .language
            .pick("not all of it was sent", "部分消息未能发送");
        Err(Failure::Hint(hint.to_owned()))
    }

    /// Says it when a message could not be sent; typing goes on meanwhile.
    fn tell_failure<T: Send + 'static>(&self, sent: Pending<T>, text: String) {
        let (notes, language) = (self.feed.notes(), self.language);
        sent.on_complete(move |result| {
            if let Err(error) = result {
                let not_sent = language.pick("! not sent", "! 未发送");
                let note = format!("{not_sent} \"{text}\": {}", error.explain(language));
                // On the loop's thread: rather a note less than waiting.
                let _ = notes.try_send(note);
            }
        });
    }

    fn answer<T>(&self, pending: Pending<T>) -> Result<T, Failure> {
        Ok(pending.wait(PATIENCE)?)
    }

    // ---- showing ----

    fn greet(&self) {
        if self.screen.kind() == Kind::Terminal {
            self.say(
                "Welcome to the chat. Type a number or a word.",
                "欢迎使用聊天系统，请输入编号或命令。",
                "",
            );
            self.show_menu();
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
        match self.client.user() {
            Some(user) => format!("{state}{}> ", self.feed.names().user(user, "")),
            None => format!("{state}> "),
        }
    }

    fn show_menu(&self) {
        if self.screen.kind() == Kind::Terminal {
            for line in self.menu().lines(self.language) {
                self.screen.line(&line);
            }
        }
    }

    fn show_help(&self) {
        for line in self.menu().help(self.language) {
            self.screen.line(&line);
        }
    }

    fn say(&self, english: &str, chinese: &str, rest: &str) {
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
