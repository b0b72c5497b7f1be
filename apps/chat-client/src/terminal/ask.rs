//! Asks for what a command still needs: on a terminal with a question, in a script it is the next line.

use chat_client::{GroupId, UserId};

use super::command::{self, Verb, entry, split_word};
use super::phrases;
use super::screen::{Echo, Input, Kind, Line};
use super::session::{Failure, Session};

impl Session {
    pub(super) fn ask_user(
        &self,
        verb: Verb,
        typed: &str,
        input: &mut Input,
    ) -> Result<UserId, Failure> {
        let typed = match typed {
            "" => self.ask("user id: ", "用户 ID：", input)?,
            typed => typed.to_owned(),
        };
        let example = format!("{} 2", first_word(verb));
        command::user(&typed).ok_or_else(|| self.usage(verb, &example))
    }

    pub(super) fn ask_group(
        &self,
        verb: Verb,
        typed: &str,
        input: &mut Input,
    ) -> Result<GroupId, Failure> {
        let typed = match typed {
            "" => self.ask("group id: ", "群组 ID：", input)?,
            typed => typed.to_owned(),
        };
        let example = format!("{} 3", first_word(verb));
        command::group(&typed).ok_or_else(|| self.usage(verb, &example))
    }

    pub(super) fn ask(
        &self,
        english: &str,
        chinese: &str,
        input: &mut Input,
    ) -> Result<String, Failure> {
        let text = self.ask_or_nothing(english, chinese, input)?;
        if text.is_empty() {
            Err(self.nothing_typed())
        } else {
            Ok(text)
        }
    }

    pub(super) fn ask_or_nothing(
        &self,
        english: &str,
        chinese: &str,
        input: &mut Input,
    ) -> Result<String, Failure> {
        match input.read(self.language.pick(english, chinese), Echo::Shown) {
            Line::Text(text) => Ok(text.trim().to_owned()),
            Line::Away => Err(Failure::Cancelled),
            Line::End => Err(Failure::End),
        }
    }

    pub(super) fn ask_hidden(
        &self,
        english: &str,
        chinese: &str,
        input: &mut Input,
    ) -> Result<String, Failure> {
        match input.read(self.language.pick(english, chinese), Echo::Hidden) {
            Line::Text(text) if text.is_empty() => Err(self.nothing_typed()),
            Line::Text(text) => Ok(text),
            Line::Away => Err(Failure::Cancelled),
            Line::End => Err(Failure::End),
        }
    }

    pub(super) fn ask_new_password(&self, input: &mut Input) -> Result<String, Failure> {
        let password = self.ask_hidden("password: ", "密码：", input)?;
        if self.screen.kind() == Kind::Terminal {
            let again = self.ask_hidden("the same again: ", "请再次输入：", input)?;
            if again != password {
                let hint = self.language.pick(
                    "the two passwords differ; try again",
                    "两次输入的密码不一致，请重试",
                );
                return Err(Failure::Hint(hint.to_owned()));
            }
        }
        Ok(password)
    }

    fn nothing_typed(&self) -> Failure {
        match self.screen.kind() {
            // An empty answer is the way out of a question.
            Kind::Terminal => Failure::Cancelled,
            Kind::Pipe => {
                let hint = self
                    .language
                    .pick("an empty line where text is needed", "此处不能为空行");
                Failure::Hint(hint.to_owned())
            }
        }
    }

    pub(super) fn usage(&self, verb: Verb, example: &str) -> Failure {
        Failure::Hint(phrases::usage(&entry(verb).usage(), example, self.language))
    }
}

fn first_word(verb: Verb) -> String {
    split_word(&entry(verb).usage()).0.to_owned()
}
