//! A chat: each line that is typed is sent, until `/back`. A line that begins with a slash is a command.

use chat_client::{Conversation, Friend, GroupId, Pending, Who};
use unicode_normalization::UnicodeNormalization;

use super::command::Menu;
use super::phrases;
use super::screen::{Echo, Input, Kind, Line};
use super::session::{Failure, Next, PATIENCE, Session};

impl Session {
    /// Talks with a friend from now on. Whether the user is one is looked up first: a stranger cannot be written to.
    pub(super) fn chat_with(&mut self, who: &Who, input: &mut Input) -> Result<(), Failure> {
        match self.find_friend(who) {
            Ok(friend) => self.enter(Conversation::Friend(friend.user)),
            Err(failure) => {
                self.pass_over_chat(input);
                return Err(failure);
            }
        }
        Ok(())
    }

    /// Talks in a group from now on, if the user is a member.
    pub(super) fn chat_in(&mut self, group: GroupId, input: &mut Input) -> Result<(), Failure> {
        let found = self.answer(self.client.groups()).and_then(|groups| {
            self.feed.names().groups(&groups);
            match groups.iter().any(|one| one.group == group) {
                true => Ok(()),
                false => Err(Failure::Hint(phrases::not_a_member(group, self.language))),
            }
        });
        match found {
            Ok(()) => self.enter(Conversation::Group(group)),
            Err(failure) => {
                self.pass_over_chat(input);
                return Err(failure);
            }
        }
        Ok(())
    }

    /// One of the user's friends. Names are unique, so there is at most one.
    pub(super) fn find_friend(&self, who: &Who) -> Result<Friend, Failure> {
        let friends = self.answer(self.client.friends())?;
        self.feed.names().friends(&friends);
        let is_meant = |friend: &Friend| match who {
            Who::Id(id) => friend.user == *id,
            Who::Name(name) => name.trim().nfc().eq(friend.name.nfc()),
        };
        let found = friends.into_iter().find(is_meant);
        found.ok_or_else(|| Failure::Hint(phrases::not_a_friend(who, self.language)))
    }

    /// One line in a chat.
    pub(super) fn carry_out_in_chat(
        &mut self,
        to: Conversation,
        line: &str,
        input: &mut Input,
    ) -> Result<Next, Failure> {
        if line.trim().is_empty() {
            // On a terminal it may be a part of what was pasted.
            if self.screen.kind() == Kind::Pipe {
                self.talking = None;
            }
            return Ok(Next::Command);
        }
        let text = match line.trim_start().strip_prefix('/') {
            Some(text) if text.starts_with('/') => text,
            Some(command) => {
                return match self.carry_out(command, Menu::Chat, input) {
                    Err(Failure::NotUnderstood(word)) => {
                        input.remember(line);
                        let hint = phrases::no_command(&word, self.language);
                        Err(Failure::Hint(hint))
                    }
                    done => done,
                };
            }
            None => line,
        };
        input.remember(line);
        let sent = self.client.send(to, text);
        match self.screen.kind() {
            Kind::Terminal => self.tell_failure(sent, text.to_owned()),
            Kind::Pipe => {
                sent.wait(PATIENCE)?;
                self.say("sent", "已发送", "");
            }
        }
        Ok(Next::Command)
    }

    fn enter(&mut self, to: Conversation) {
        self.talking = Some(to);
        if self.screen.kind() == Kind::Terminal {
            let partner = self.partner(to);
            self.screen
                .line(&phrases::chatting(&partner, self.language));
        }
    }

    pub(super) fn partner(&self, to: Conversation) -> String {
        match to {
            Conversation::Friend(friend) => self.feed.names().user(friend, ""),
            Conversation::Group(group) => self.feed.names().group(group),
        }
    }

    /// The lines that a script has for a chat that cannot be: they are no commands.
    fn pass_over_chat(&self, input: &mut Input) {
        if self.screen.kind() == Kind::Pipe {
            while let Line::Text(line) = input.read("", Echo::Shown) {
                if matches!(line.trim(), "" | "/back") {
                    break;
                }
            }
        }
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
}
