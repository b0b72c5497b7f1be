//! What clients may call themselves, and what they may say: the one place where it is checked.
//!
//! | what | kept as | refused |
//! |---|---|---|
//! | names | NFC, without space around | control, format, private and unassigned characters, line ends, and what is blank without being space. The joiner and the selector of emoji are let through, inside of emoji |
//! | texts (messages, descriptions) | as they came | control characters but tab and line end |
//! | passwords | NFC, every space separator (category Zs) as U+0020 | control characters (category Cc), fewer characters than configured, more than 1,024 bytes |
//!
//! Names are compared byte by byte, so upper and lower case differ, and letters of different scripts
//! may look alike: it is the user id that says who somebody is, and a name only says what to call
//! them. Names from before these rules stay as they are.
//!
//! The mappings of passwords are those of the profile OpaqueString (RFC 8265, section 4.2.2). Its class of
//! characters is not enforced: of that, control characters alone are refused. The class is defined by the tables of
//! Unicode 6.3, so it refuses every letter and emoji that is newer, and the joiners and selectors within emoji.

use std::borrow::Cow;

use bytes::Bytes;
use chat_proto::ids::code;
use chat_proto::messages::Rule;
use chat_store::{CLIENT_TIME_BYTES_MAX, NAME_BYTES_MAX};
use unicode_normalization::{UnicodeNormalization, is_nfc};
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

use crate::failure::Failure;

/// Longer passwords are refused: hashing them is work that a stranger would choose.
const PASSWORD_BYTES_MAX: usize = 1024;
/// Joins emoji to one.
const ZERO_WIDTH_JOINER: char = '\u{200d}';
/// Has a character that is both shown as emoji.
const EMOJI_SELECTOR: char = '\u{fe0f}';

/// The text in a `bytes` field.
///
/// # Errors
/// INVALID: it is not UTF-8.
pub(crate) fn text(bytes: &Bytes) -> Result<&str, Failure> {
    std::str::from_utf8(bytes).map_err(|_| invalid("the text is not UTF-8"))
}

/// A name of a user or of a group, as it is kept; may be empty.
///
/// # Errors
/// INVALID or TOO_LARGE, saying what is wrong.
pub(crate) fn name(bytes: &Bytes, characters_max: usize) -> Result<String, Failure> {
    let given = text(bytes)?;
    let too_long = || {
        too_large(format!("a name has at most {characters_max} characters"))
            .because(Rule::NameTooLong, number(characters_max))
    };
    // Normalising makes text at most three times as long; what is far too long is not touched.
    if is_longer(given, characters_max.saturating_mul(4)) {
        return Err(too_long());
    }
    let name = form_of_name(given);
    if is_longer(&name, characters_max) {
        return Err(too_long());
    }
    match odd_in_name(&name) {
        None => Ok(name),
        Some(odd) => {
            let text = format!("a name cannot have the character {}", code_point(odd));
            Err(invalid(text).because(Rule::NameCharacter, u32::from(odd).into()))
        }
    }
}

/// What a name that somebody enters may be kept as: as it came, which it is for a user from before names had
/// one form, and as it is kept today. Nothing, if it cannot be one.
///
/// # Errors
/// INVALID: it is not UTF-8.
pub(crate) fn entered_name(bytes: &Bytes) -> Result<Vec<Cow<'_, str>>, Failure> {
    let given = text(bytes)?;
    // Longer ones become no shorter than a name may be.
    if given.is_empty() || given.len() > NAME_BYTES_MAX.saturating_mul(4) {
        return Ok(Vec::new());
    }
    let mut forms = vec![Cow::Borrowed(given)];
    let kept = form_of_name(given);
    if kept != given {
        forms.push(Cow::Owned(kept));
    }
    forms.retain(|form| !form.is_empty() && form.len() <= NAME_BYTES_MAX);
    Ok(forms)
}

/// A message that people write to each other.
///
/// # Errors
/// INVALID or TOO_LARGE, saying what is wrong.
pub(crate) fn message(text: &str, characters_max: usize) -> Result<(), Failure> {
    if is_longer(text, characters_max) {
        let text = format!("a message has at most {characters_max} characters");
        return Err(too_large(text));
    }
    match odd_in_text(text) {
        None => Ok(()),
        Some(odd) => Err(invalid(format!(
            "a message cannot have the control character {}",
            code_point(odd)
        ))),
    }
}

/// The description of a group.
///
/// # Errors
/// INVALID or TOO_LARGE, saying what is wrong.
pub(crate) fn description(bytes: &Bytes, characters_max: usize) -> Result<&str, Failure> {
    let description = text(bytes)?;
    if is_longer(description, characters_max) {
        let text = format!("a description has at most {characters_max} characters");
        let failure = too_large(text);
        return Err(failure.because(Rule::DescriptionTooLong, number(characters_max)));
    }
    match odd_in_text(description) {
        None => Ok(description),
        Some(odd) => {
            let text = format!(
                "a description cannot have the control character {}",
                code_point(odd)
            );
            Err(invalid(text).because(Rule::DescriptionCharacter, u32::from(odd).into()))
        }
    }
}

/// The time that a client sends along, which is only echoed.
///
/// # Errors
/// INVALID or TOO_LARGE, saying what is wrong.
pub(crate) fn client_time(time: &str) -> Result<(), Failure> {
    if time.len() > CLIENT_TIME_BYTES_MAX {
        return Err(too_large("the time is too long"));
    }
    match time.chars().any(char::is_control) {
        false => Ok(()),
        true => Err(invalid("the time cannot have control characters")),
    }
}

/// A password that somebody chooses, as it is hashed.
///
/// # Errors
/// INVALID or TOO_LARGE, saying what is wrong.
pub(crate) fn new_password(bytes: &Bytes, characters_min: usize) -> Result<String, Failure> {
    let given = text(bytes)?;
    if given.len() > PASSWORD_BYTES_MAX {
        let text = format!("a password has at most {PASSWORD_BYTES_MAX} bytes");
        let failure = too_large(text);
        return Err(failure.because(Rule::PasswordTooLong, number(PASSWORD_BYTES_MAX)));
    }
    if let Some(odd) = given.chars().find(|c| c.is_control()) {
        let text = format!(
            "a password cannot have the control character {}",
            code_point(odd)
        );
        return Err(invalid(text).because(Rule::PasswordCharacter, u32::from(odd).into()));
    }
    let password = prepared(given).into_owned();
    if password.chars().count() < characters_min {
        let text = format!("a password needs at least {characters_min} characters");
        return Err(invalid(text).because(Rule::PasswordTooShort, number(characters_min)));
    }
    Ok(password)
}

/// What a password that somebody enters may have been hashed as: as it is kept today, and, if that is
/// something else, as it came, for users from before that was prepared. Nothing, if it cannot be one.
///
/// # Errors
/// INVALID: it is not UTF-8.
pub(crate) fn entered_password(bytes: &Bytes) -> Result<Vec<Cow<'_, str>>, Failure> {
    let given = text(bytes)?;
    if given.len() > PASSWORD_BYTES_MAX {
        return Ok(Vec::new());
    }
    let prepared = prepared(given);
    let mut forms = vec![prepared];
    if forms.iter().all(|form| form != given) {
        forms.push(Cow::Borrowed(given));
    }
    Ok(forms)
}

fn form_of_name(given: &str) -> String {
    given.trim().nfc().collect()
}

fn prepared(password: &str) -> Cow<'_, str> {
    let is_odd_space =
        |c: char| c != ' ' && c.general_category() == GeneralCategory::SpaceSeparator;
    if is_nfc(password) && !password.chars().any(is_odd_space) {
        return Cow::Borrowed(password);
    }
    let spaced = password
        .chars()
        .map(|c| if is_odd_space(c) { ' ' } else { c });
    Cow::Owned(spaced.nfc().collect())
}

/// The first character that a name cannot have.
fn odd_in_name(name: &str) -> Option<char> {
    let mut before = None;
    let mut characters = name.chars().peekable();
    while let Some(c) = characters.next() {
        let after = characters.peek().copied();
        let fits = match c {
            ZERO_WIDTH_JOINER => is_emoji_part(before) && is_symbol(after),
            EMOJI_SELECTOR => is_symbol(before),
            c => is_visible(c) || c.general_category() == GeneralCategory::SpaceSeparator,
        };
        if !fits {
            return Some(c);
        }
        before = Some(c);
    }
    None
}

fn is_symbol(c: Option<char>) -> bool {
    c.is_some_and(|c| c.general_category_group() == GeneralCategoryGroup::Symbol)
}

fn is_emoji_part(c: Option<char>) -> bool {
    c == Some(EMOJI_SELECTOR) || is_symbol(c)
}

fn is_visible(c: char) -> bool {
    // Letters and marks that show nothing: fillers of Hangul, the grapheme joiner, vowels of Khmer,
    // variation selectors, and the blank of Braille.
    let is_blank = matches!(c,
        '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}'
        | '\u{e0100}'..='\u{e01ef}');
    !is_blank
        && !matches!(
            c.general_category_group(),
            GeneralCategoryGroup::Other | GeneralCategoryGroup::Separator
        )
}

fn odd_in_text(text: &str) -> Option<char> {
    let is_odd = |c: &char| c.is_control() && !matches!(c, '\t' | '\n' | '\r');
    text.chars().find(is_odd)
}

fn is_longer(text: &str, characters_max: usize) -> bool {
    // Counted only where it may be too much.
    text.len() > characters_max && text.chars().count() > characters_max
}

fn code_point(c: char) -> String {
    format!("U+{:04X}", u32::from(c))
}

fn number(limit: usize) -> u64 {
    u64::try_from(limit).unwrap_or(u64::MAX)
}

fn invalid(text: impl Into<Cow<'static, str>>) -> Failure {
    Failure::new(code::INVALID, text)
}

fn too_large(text: impl Into<Cow<'static, str>>) -> Failure {
    Failure::new(code::TOO_LARGE, text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(name_given: &str) -> Result<String, i32> {
        name(&Bytes::copy_from_slice(name_given.as_bytes()), 20).map_err(|f| f.into_parts("test").0)
    }

    #[test]
    fn names_are_kept_normalised_and_without_space_around() {
        for (given, kept) in [
            ("ann", "ann"),
            ("  ann  lee\u{3000}", "ann  lee"),
            ("ame\u{301}lie", "am\u{e9}lie"),
            ("\u{1112}\u{1161}\u{11ab}", "\u{d55c}"),
            ("张伟 😀", "张伟 😀"),
            ("नमस्ते", "नमस्ते"),
            // A heart shown as emoji, a family, a flag.
            ("\u{2764}\u{fe0f}", "\u{2764}\u{fe0f}"),
            ("\u{1f469}\u{200d}\u{1f467}", "\u{1f469}\u{200d}\u{1f467}"),
            (
                "\u{1f3f3}\u{fe0f}\u{200d}\u{1f308}",
                "\u{1f3f3}\u{fe0f}\u{200d}\u{1f308}",
            ),
            ("", ""),
            (" \u{a0} ", ""),
        ] {
            assert_eq!(named(given).as_deref(), Ok(kept), "{given:?}");
        }
    }

    #[test]
    fn names_show_what_they_are() {
        for odd in [
            "a\0b",
            "a\nb",
            "a\u{1b}[2Jb",
            "a\u{7f}b",
            "a\u{85}b",
            "a\u{200b}b",
            "a\u{200d}b",
            "a\u{202e}b",
            "a\u{2066}b",
            "a\u{2028}b",
            "a\u{feff}b",
            "a\u{ad}b",
            "a\u{61c}b",
            "\u{3164}",
            "\u{2800}",
            "a\u{fe0f}",
            "\u{200d}\u{1f467}",
            "\u{1f467}\u{200d}",
            "\u{e000}",
            "\u{e0041}",
            "\u{378}",
            "a\u{34f}b",
        ] {
            assert_eq!(named(odd), Err(code::INVALID), "{odd:?}");
        }
    }

    #[test]
    fn lengths_are_counted_in_characters() {
        let (fits, over) = ("张".repeat(20), "张".repeat(21));
        assert_eq!(named(&fits), Ok(fits.clone()));
        assert_eq!(named(&over), Err(code::TOO_LARGE));
        // Decomposed it is longer, kept it is not.
        assert_eq!(named(&"e\u{301}".repeat(20)), Ok("\u{e9}".repeat(20)));
        assert!(message(&fits, 20).is_ok());
        assert!(message(&over, 20).is_err());
    }

    #[test]
    fn texts_have_no_control_characters_but_line_ends_and_tabs() {
        assert!(message("", 10).is_ok());
        assert!(message("a\r\n\tb \u{202e}\u{200d}", 20).is_ok());
        for odd in ["\0", "\u{1b}[31m", "\u{7}", "\u{9b}", "\u{7f}"] {
            let failure = message(odd, 10).unwrap_err();
            assert_eq!(failure.into_parts("test").0, code::INVALID, "{odd:?}");
        }
        assert!(client_time("2024-02-29 12:00:00").is_ok());
        assert!(client_time("12:00\n").is_err());
        assert!(client_time(&"0".repeat(CLIENT_TIME_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn a_password_is_the_same_however_it_is_typed() {
        let typed = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let kept = new_password(&typed("pa\u{73}\u{301}\u{a0}wort"), 4).unwrap();
        assert_eq!(kept, "pa\u{15b} wort");
        for way in ["pa\u{15b} wort", "pas\u{301} wort", "pa\u{15b}\u{3000}wort"] {
            let way = typed(way);
            let forms = entered_password(&way).unwrap();
            assert_eq!(forms[0], kept);
        }
        // As it came, too: it may be from before.
        let old = typed("pas\u{301}");
        assert_eq!(entered_password(&old).unwrap(), ["pa\u{15b}", "pas\u{301}"]);
        let plain = typed("secret");
        assert_eq!(entered_password(&plain).unwrap(), ["secret"]);
        let long = typed(&"x".repeat(PASSWORD_BYTES_MAX + 1));
        assert!(entered_password(&long).unwrap().is_empty());
        assert!(new_password(&long, 1).is_err());
        assert!(new_password(&typed("abc"), 4).is_err());
        assert!(new_password(&typed("ab\0cd"), 1).is_err());
        assert!(new_password(&Bytes::from_static(b"\xff"), 1).is_err());
    }

    proptest! {
        #[test]
        fn a_kept_name_is_kept_as_it_is(given in "\\PC{0,30}|.{0,30}") {
            if let Ok(kept) = named(&given) {
                prop_assert_eq!(named(&kept), Ok(kept.clone()));
                prop_assert!(kept.chars().count() <= 20);
                prop_assert!(!kept.chars().any(char::is_control));
            }
        }

        #[test]
        fn a_password_that_was_taken_lets_in(given in ".{1,40}") {
            let bytes = Bytes::from(given);
            if let Ok(kept) = new_password(&bytes, 1) {
                let entered = entered_password(&bytes).unwrap();
                prop_assert_eq!(&entered[0], &kept);
                // And as it is kept.
                let again = Bytes::from(kept.clone());
                prop_assert_eq!(&entered_password(&again).unwrap()[0], &kept);
            }
        }
    }
}
