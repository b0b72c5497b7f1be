//! Whether a configuration file shows every key that its program knows, and no other, each value in one spelling.

use std::collections::{BTreeMap, BTreeSet};

/// No key of any program.
const UNKNOWN: &str = "no_such_key";

/// The keys of each section, or the sections under the name "".
type Keys = BTreeMap<String, BTreeSet<String>>;

/// Compares the keys in `file` (TOML; `# key = value` counts, it shows a key without a default) with those that
/// a program knows. `refusal` gives the program's error about a text with a key that it does not know: serde names
/// all that it does.
///
/// # Panics
/// The two differ, or a size or a duration is spelt otherwise than `64 KiB` and `1m 30s`.
#[track_caller]
pub fn assert_keys_stand(file: &str, refusal: impl Fn(&str) -> String) {
    let mut known = Keys::new();
    let sections = named(&refusal(&format!("{UNKNOWN} = 1\n")));
    for section in &sections {
        let keys = named(&refusal(&format!("[{section}]\n{UNKNOWN} = 1\n")));
        known.insert(section.clone(), keys);
    }
    assert!(!known.is_empty(), "no section is known");
    let stands = standing(file);
    let only = |these: &Keys, those: &Keys| -> Vec<String> {
        let missing = |(section, keys): (&String, &BTreeSet<String>)| {
            let other = those.get(section).cloned().unwrap_or_default();
            let keys: Vec<String> = keys
                .difference(&other)
                .map(|key| format!("{section}.{key}"))
                .collect();
            keys
        };
        these.iter().flat_map(missing).collect()
    };
    let (absent, unknown) = (only(&known, &stands), only(&stands, &known));
    assert!(absent.is_empty(), "the file does not show {absent:?}");
    assert!(unknown.is_empty(), "the program does not know {unknown:?}");
}

/// What serde's message says it expected instead of the unknown key.
#[track_caller]
fn named(error: &str) -> BTreeSet<String> {
    let expected = format!("unknown field `{UNKNOWN}`, expected ");
    let names = error
        .split_once(&expected)
        .and_then(|(_, names)| names.lines().next());
    let names = names.unwrap_or_else(|| panic!("no key is named in {error:?}"));
    names
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

#[track_caller]
fn standing(file: &str) -> Keys {
    let mut keys = Keys::new();
    let mut section = String::new();
    for line in file.lines() {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            section = name.to_owned();
            keys.entry(section.clone()).or_default();
            continue;
        }
        let line = line.strip_prefix("# ").unwrap_or(line);
        let Some((key, value)) = line.split_once(" = ") else {
            continue;
        };
        // Prose has other characters in front of an equals sign.
        if key
            .chars()
            .all(|char| char.is_ascii_lowercase() || char == '_')
        {
            assert_spelling(key, value);
            keys.entry(section.clone())
                .or_default()
                .insert(key.to_owned());
        }
    }
    keys
}

/// A number with a unit has one spelling, and a size always has a unit.
#[track_caller]
fn assert_spelling(key: &str, value: &str) {
    let number = value.parse::<u64>().is_ok();
    let size = key.ends_with("_bytes") || key.contains("_size");
    assert!(
        !(number && size),
        "{key} = {value}: a size is written as \"64 KiB\""
    );
    let Some(text) = value
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
    else {
        return;
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (amount, unit) = text.split_at(digits);
    if amount.is_empty()
        || !unit
            .trim_start()
            .starts_with(|char: char| char.is_ascii_alphabetic())
    {
        return;
    }
    let sizes = [" B", " KiB", " MiB", " GiB"];
    let durations = ["ms", "s", "m", "h", "d"];
    let right = sizes.contains(&unit)
        || text.split(' ').all(|part| {
            let unit = part.trim_start_matches(|char: char| char.is_ascii_digit());
            unit != part && durations.contains(&unit)
        });
    assert!(
        right,
        "{key} = {value}: spelt as \"64 KiB\", or as \"500ms\", \"1m 30s\", \"30d\""
    );
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// Of a program that knows `[net]` with `listen`, `idle` and `frame_size`.
    fn refusal(text: &str) -> String {
        match text.starts_with('[') {
            true => {
                format!("unknown field `{UNKNOWN}`, expected one of `listen`, `idle`, `frame_size`")
            }
            false => format!("unknown field `{UNKNOWN}`, expected `net`\nkey \"net\": missing"),
        }
    }

    fn is_right(file: &str) -> bool {
        catch_unwind(AssertUnwindSafe(|| assert_keys_stand(file, refusal))).is_ok()
    }

    #[test]
    fn a_key_too_few_or_too_many_and_another_spelling_are_found() {
        let right = "[net]\n# Text = text.\n# listen = \"a:1\"\nidle = \"1m 30s\"\nframe_size = \"64 KiB\"\n";
        assert!(is_right(right));
        for (from, to) in [
            ("# listen", "# lisen"),
            ("idle = \"1m 30s\"\n", ""),
            ("[net]", "[web]"),
            ("idle", "other = 1\nidle"),
            ("64 KiB", "64KiB"),
            ("\"64 KiB\"", "65536"),
            ("1m 30s", "90 s"),
            ("1m 30s", "30days"),
        ] {
            assert!(!is_right(&right.replace(from, to)), "{from} -> {to}");
        }
    }
}
