//! The arguments of a command. One that is missing is asked for on a terminal; in a script that is an error: the next
//! line is the next command, and no answer.

use std::borrow::Cow;

use chat_client::{GroupId, Who};

use super::command::{self, Verb, entry};
use super::phrases;
use super::screen::{Echo, Input, Kind, Line};
use super::session::{Failure, Session};
use super::typed::{BadQuote, Word};

/// A question in both languages.
pub(super) type Question = (&'static str, &'static str);

const WHO: Question = ("name or user id: ", "用户名或用户 ID：");
const GROUP: Question = ("group id: ", "群组 ID：");
const PASSWORD: Question = ("password: ", "密码：");
const AGAIN: Question = ("the same again: ", "请再次输入：");

impl Session {
    /// A user as the first argument, and the other arguments.
    pub(super) fn who<'a>(
        &self,
        verb: Verb,
        rest: &'a str,
        input: &mut Input,
    ) -> Result<(Who, &'a str), Failure> {
        let (word, rest) = self.word(verb, rest, WHO, input)?;
        Ok((word.who(), rest))
    }

    /// A group as the first argument, and the other arguments.
    pub(super) fn group<'a>(
        &self,
        verb: Verb,
        rest: &'a str,
        input: &mut Input,
    ) -> Result<(GroupId, &'a str), Failure> {
        let (word, rest) = self.word(verb, rest, GROUP, input)?;
        let group = command::group(&word.text).ok_or_else(|| self.usage(verb))?;
        Ok((group, rest))
    }

    /// The first argument, and the others.
    pub(super) fn word<'a>(
        &self,
        verb: Verb,
        rest: &'a str,
        question: Question,
        input: &mut Input,
    ) -> Result<(Word<'a>, &'a str), Failure> {
        let (word, rest) = Word::first(rest).map_err(|quote| self.bad_quote(&quote))?;
        if !word.is_missing() {
            return Ok((word, rest));
        }
        let answer = self.ask(verb, question, Echo::Shown, input)?;
        let answer = answer.trim();
        if answer.is_empty() {
            return Err(Failure::Cancelled);
        }
        let word = Word::last(answer).map_err(|quote| self.bad_quote(&quote))?;
        Ok((word.into_owned(), ""))
    }

    /// The last argument, which may be missing.
    pub(super) fn last<'a>(&self, rest: &'a str) -> Result<Cow<'a, str>, Failure> {
        let word = Word::last(rest).map_err(|quote| self.bad_quote(&quote))?;
        Ok(word.text)
    }

    pub(super) fn password<'a>(
        &self,
        verb: Verb,
        rest: &'a str,
        input: &mut Input,
    ) -> Result<Cow<'a, str>, Failure> {
        match rest {
            "" => self.ask_hidden(verb, PASSWORD, input).map(Cow::Owned),
            rest => self.last(rest),
        }
    }

    pub(super) fn new_password<'a>(
        &self,
        verb: Verb,
        rest: &'a str,
        input: &mut Input,
    ) -> Result<Cow<'a, str>, Failure> {
        let password = self.password(verb, rest, input)?;
        if rest.is_empty() && self.ask_hidden(verb, AGAIN, input)? != password {
            let hint = self.language.pick(
                "the two passwords differ; try again",
                "两次输入的密码不一致，请重试",
            );
            return Err(Failure::Hint(hint.to_owned()));
        }
        Ok(password)
    }

    pub(super) fn ask(
        &self,
        verb: Verb,
        (english, chinese): Question,
        echo: Echo,
        input: &mut Input,
    ) -> Result<String, Failure> {
        if self.screen.kind() == Kind::Pipe {
            return Err(self.missing(verb));
        }
        match input.read(self.language.pick(english, chinese), echo) {
            Line::Text(text) => Ok(text),
            // Ctrl-C and Ctrl-D lead out of a question.
            Line::Away | Line::End => Err(Failure::Cancelled),
        }
    }

    fn ask_hidden(
        &self,
        verb: Verb,
        question: Question,
        input: &mut Input,
    ) -> Result<String, Failure> {
        let text = self.ask(verb, question, Echo::Hidden, input)?;
        // What is pasted often ends with a line end.
        match text.trim_end_matches(['\r', '\n']) {
            "" => Err(Failure::Cancelled),
            text => Ok(text.to_owned()),
        }
    }

    fn missing(&self, verb: Verb) -> Failure {
        let usage = phrases::usage(&entry(verb).usage(), example(verb), self.language);
        let missing = self.language.pick("something is missing", "缺少参数");
        Failure::Hint(format!("{missing}; {usage}"))
    }

    pub(super) fn usage(&self, verb: Verb) -> Failure {
        let usage = phrases::usage(&entry(verb).usage(), example(verb), self.language);
        Failure::Hint(usage)
    }

    pub(super) fn bad_quote(&self, _: &BadQuote) -> Failure {
        let hint = self.language.pick(
            "a quote is not closed: type \"two words\" or 'two words'",
            "引号没有正确闭合：请写作 \"two words\" 或 'two words'",
        );
        Failure::Hint(hint.to_owned())
    }
}

/// How a command may look.
fn example(verb: Verb) -> &'static str {
    match verb {
        Verb::Register => "register ann 'my secret'",
        Verb::Login => "login ann 'my secret'",
        Verb::ChatFriend => "chat bob",
        Verb::ChatGroup => "groupchat 3",
        Verb::AddFriend => "add bob",
        Verb::DeleteFriend => "remove bob",
        Verb::CreateGroup => "create 'our group' for all of us",
        Verb::JoinGroup => "join 3",
        Verb::LeaveGroup => "leave 3",
        Verb::DeleteGroup => "delete 3",
        Verb::History => "history friend bob 50",
        Verb::ToFriend => "to bob hello",
        Verb::ToGroup => "group 3 hello",
        Verb::Wait => "wait 1 30",
        Verb::Friends | Verb::Groups | Verb::Logout | Verb::Quit | Verb::Help | Verb::Back => "",
    }
}
