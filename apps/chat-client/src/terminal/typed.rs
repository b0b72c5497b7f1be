//! Words as they are typed, and whom they name.
//!
//! Space parts words. A word that begins with a quote goes up to the next such quote, and may hold space; within "..."
//! a backslash takes a quote or a backslash as it is. Elsewhere quotes and backslashes are like any other character: a
//! crate that splits whole lines as a shell does would take an apostrophe in a message for a quote.

use std::borrow::Cow;

use chat_client::{UserId, Who};

/// One word.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Word<'a> {
    pub(crate) text: Cow<'a, str>,
    quoted: bool,
}

/// A quote is not closed, or goes on without space after it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadQuote;

impl<'a> Word<'a> {
    /// The first word of a text, and the rest without the space between.
    pub(crate) fn first(text: &'a str) -> Result<(Self, &'a str), BadQuote> {
        let text = text.trim_start();
        let quote = match text.chars().next() {
            Some(quote @ ('"' | '\'')) => quote,
            _ => {
                let (word, rest) = split_word(text);
                return Ok((Self::plain(word), rest));
            }
        };
        let mut word = String::new();
        let mut characters = text.char_indices().skip(1);
        while let Some((at, c)) = characters.next() {
            if c == quote {
                let rest = text.get(at + c.len_utf8()..).unwrap_or_default();
                if !rest.is_empty() && !rest.starts_with(char::is_whitespace) {
                    return Err(BadQuote);
                }
                let word = Self {
                    text: Cow::Owned(word),
                    quoted: true,
                };
                return Ok((word, rest.trim_start()));
            }
            word.push(match c {
                '\\' if quote == '"' => escaped(&mut characters),
                c => c,
            });
        }
        Err(BadQuote)
    }

    /// All of a text as one word: as it is, or what is in its quotes.
    pub(crate) fn last(text: &'a str) -> Result<Self, BadQuote> {
        let (word, rest) = Self::first(text)?;
        Ok(match word.quoted && rest.is_empty() {
            true => word,
            false => Self::plain(text),
        })
    }

    pub(crate) fn into_owned(self) -> Word<'static> {
        Word {
            text: Cow::Owned(self.text.into_owned()),
            quoted: self.quoted,
        }
    }

    fn plain(text: &'a str) -> Self {
        Self {
            text: Cow::Borrowed(text),
            quoted: false,
        }
    }

    /// Nothing was typed. `""` is something.
    pub(crate) fn is_missing(&self) -> bool {
        self.text.is_empty() && !self.quoted
    }

    /// Whom the word names: a number is an id, anything else a name, as are quoted words and what follows `name:`.
    pub(crate) fn who(&self) -> Who {
        if self.quoted {
            return Who::from(&*self.text);
        }
        match (self.text.strip_prefix("name:"), user(&self.text)) {
            (Some(name), _) => Who::from(name),
            (None, Some(id)) => Who::Id(id),
            (None, None) => Who::from(&*self.text),
        }
    }
}

/// What stands for a name so that [`Word::who`] reads it again.
pub(crate) fn as_typed(name: &str) -> Cow<'_, str> {
    let is_plain = !name.is_empty()
        && !name.starts_with(['"', '\''])
        && !name.starts_with("name:")
        && !name.contains(char::is_whitespace);
    match (is_plain, user(name)) {
        (true, None) => Cow::Borrowed(name),
        (true, Some(_)) => Cow::Owned(format!("name:{name}")),
        (false, _) => {
            let name = name.replace('\\', r"\\").replace('"', r#"\""#);
            Cow::Owned(format!("\"{name}\""))
        }
    }
}

/// The first word, whatever it is made of, and the rest without the space between.
pub(crate) fn split_word(text: &str) -> (&str, &str) {
    match text.trim_start().split_once(char::is_whitespace) {
        Some((word, rest)) => (word, rest.trim_start()),
        None => (text.trim_start(), ""),
    }
}

/// A user's id: a number above 0.
fn user(text: &str) -> Option<UserId> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    UserId::new(text.parse().ok().filter(|_| is_number)?)
}

fn escaped(characters: &mut impl Iterator<Item = (usize, char)>) -> char {
    match characters.next() {
        Some((_, c)) => c,
        None => '\\',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(mut text: &str) -> Result<Vec<String>, BadQuote> {
        let mut words = Vec::new();
        loop {
            let (word, rest) = Word::first(text)?;
            if word.is_missing() {
                return Ok(words);
            }
            words.push(word.text.into_owned());
            text = rest;
        }
    }

    #[test]
    fn quotes_group_words() {
        for (typed, expected) in [
            ("", &[][..]),
            ("  ann   secret ", &["ann", "secret"]),
            (r#""ann lee"  'two words'"#, &["ann lee", "two words"]),
            (r#""it's" 'say "hi"'"#, &["it's", "say \"hi\""]),
            (r#""a \"b\" \\" 'c\d'"#, &["a \"b\" \\", "c\\d"]),
            (r#""" ''"#, &["", ""]),
            // Not at the beginning of a word they are nothing special.
            (r#"o'neil d"or a\b"#, &["o'neil", "d\"or", "a\\b"]),
            ("\"张 伟\"\u{3000}密码", &["张 伟", "密码"]),
        ] {
            assert_eq!(words(typed).unwrap(), expected, "{typed}");
        }
        for wrong in ["\"ann", "'", "\"ann lee\"x", "ann 'secret", "\"a\\\""] {
            assert_eq!(words(wrong), Err(BadQuote), "{wrong}");
        }
    }

    #[test]
    fn the_last_word_is_the_rest_of_the_line_or_what_its_quotes_hold() {
        for (typed, expected) in [
            ("", ""),
            ("two words", "two words"),
            ("'two words'", "two words"),
            ("\"two\" words", "\"two\" words"),
            ("it's", "it's"),
        ] {
            assert_eq!(Word::last(typed).unwrap().text, expected, "{typed}");
        }
        assert_eq!(Word::last("'tis"), Err(BadQuote));
    }

    #[test]
    fn a_number_is_an_id_and_a_name_of_digits_is_written_otherwise() {
        let id = |id| Who::Id(UserId::new(id).unwrap());
        for (typed, expected) in [
            ("12", id(12)),
            ("ann", "ann".into()),
            ("name:12", "12".into()),
            ("\"12\"", "12".into()),
            ("'name:12'", "name:12".into()),
            // No id is such a number.
            ("0", "0".into()),
            ("-1", "-1".into()),
            ("+1", "+1".into()),
            ("13800138000", "13800138000".into()),
        ] {
            assert_eq!(Word::first(typed).unwrap().0.who(), expected, "{typed}");
        }
    }

    #[test]
    fn a_name_that_is_shown_can_be_typed() {
        for name in [
            "ann", "12", "ann lee", "name:x", "\"q\" \\", "'", "张伟", "0", "",
        ] {
            let typed = as_typed(name);
            let (word, rest) = Word::first(&typed).unwrap();
            assert_eq!((word.who(), rest), (Who::from(name), ""), "{typed}");
        }
    }
}
