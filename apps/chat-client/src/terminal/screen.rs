//! Lines in and out.
//!
//! On a terminal a line editor owns the screen while a line is being typed: what arrives then is
//! printed above that line. Otherwise lines are read and written plainly, without prompts.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::Validator;
use rustyline::{ColorMode, Config, Editor, ExternalPrinter, Helper};

/// Where the thread that reads shows lines, between one that it reads and the next.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Screen {
    kind: Kind,
}

/// Where another thread shows lines, at any time. It may have to wait until the line editor is back
/// at work, so nothing that the reading thread needs may wait for it.
pub(crate) struct Announcer {
    screen: Screen,
    editor: Option<Box<dyn FnMut(String) + Send>>,
}

/// Whether there is somebody to prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Terminal,
    Pipe,
}

/// Where lines come from.
pub(crate) enum Input {
    Editor(Box<Editor<Mask, MemHistory>>),
    Script(io::Lines<io::StdinLock<'static>>),
}

/// Whether what is typed may be seen and remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Echo {
    Shown,
    Hidden,
}

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Text(String),
    /// Ctrl-C: away from here.
    Away,
    /// Ctrl-D, or the end of the script.
    End,
}

impl Screen {
    /// The screen and keyboard of this process. A terminal needs to be at both ends.
    pub(crate) fn open() -> rustyline::Result<(Self, Announcer, Input)> {
        if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
            let screen = Self { kind: Kind::Pipe };
            let announcer = Announcer {
                screen,
                editor: None,
            };
            return Ok((screen, announcer, Input::Script(io::stdin().lines())));
        }
        let config = Config::builder()
            .auto_add_history(false)
            // Needed to show something else than what was typed, for passwords.
            .color_mode(ColorMode::Forced)
            .build();
        let mut editor = Editor::with_history(config, MemHistory::new())?;
        editor.set_helper(Some(Mask(Echo::Shown)));
        let mut printer = editor.create_external_printer()?;
        let screen = Self {
            kind: Kind::Terminal,
        };
        let announcer = Announcer {
            screen,
            editor: Some(Box::new(move |line| {
                let _ = printer.print(line + "\n");
            })),
        };
        Ok((screen, announcer, Input::Editor(Box::new(editor))))
    }

    pub(crate) fn kind(self) -> Kind {
        self.kind
    }

    /// Shows one line. What others wrote may be in it: it cannot do anything to the terminal.
    pub(crate) fn line(self, text: &str) {
        // Where nobody reads there is nothing to be done.
        let _ = writeln!(io::stdout().lock(), "{}", clean(text));
    }

    /// Shows what went wrong; through pipes on standard error.
    pub(crate) fn error(self, text: &str) {
        match self.kind {
            Kind::Terminal => self.line(&format!("! {text}")),
            Kind::Pipe => {
                let _ = writeln!(io::stderr().lock(), "error: {}", clean(text));
            }
        }
    }
}

impl Announcer {
    pub(crate) fn kind(&self) -> Kind {
        self.screen.kind
    }

    /// Shows one line, as [`Screen::line`] does.
    pub(crate) fn line(&mut self, text: &str) {
        match &mut self.editor {
            Some(editor) => editor(clean(text)),
            None => self.screen.line(text),
        }
    }
}

impl Input {
    /// The next line, without its end.
    pub(crate) fn read(&mut self, prompt: &str, echo: Echo) -> Line {
        let editor = match self {
            Self::Script(lines) => {
                return match lines.next() {
                    Some(Ok(line)) => Line::Text(line),
                    Some(Err(_)) | None => Line::End,
                };
            }
            Self::Editor(editor) => editor,
        };
        if let Some(mask) = editor.helper_mut() {
            mask.0 = echo;
        }
        match editor.readline(&clean(prompt)) {
            Ok(line) => Line::Text(line),
            Err(ReadlineError::Interrupted) => Line::Away,
            Err(_) => Line::End,
        }
    }

    /// How wide the screen is; of a script none is.
    pub(crate) fn columns(&mut self) -> usize {
        let dimensions = match self {
            Self::Script(_) => None,
            Self::Editor(editor) => editor.dimensions(),
        };
        dimensions.map_or(usize::MAX, |(columns, _)| usize::from(columns))
    }

    /// Remembers a line, for the arrow keys. In memory only.
    pub(crate) fn remember(&mut self, line: &str) {
        if let Self::Editor(editor) = self {
            let _ = editor.add_history_entry(line);
        }
    }
}

/// Shows stars for what must not be seen.
pub(crate) struct Mask(Echo);

impl Highlighter for Mask {
    fn highlight<'l>(&self, line: &'l str, _cursor: usize) -> Cow<'l, str> {
        match self.0 {
            Echo::Shown => Cow::Borrowed(line),
            Echo::Hidden => Cow::Owned("*".repeat(line.chars().count())),
        }
    }

    fn highlight_char(&self, _line: &str, _cursor: usize, kind: CmdKind) -> bool {
        self.0 == Echo::Hidden && kind != CmdKind::MoveCursor
    }
}

impl Completer for Mask {
    type Candidate = String;
}

impl Hinter for Mask {
    type Hint = String;
}

impl Validator for Mask {}
impl Helper for Mask {}

/// One line that a terminal shows as it is: no control characters, which could move the cursor or
/// pretend to be somebody else, and none that turn the direction of writing around.
fn clean(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' => '⏎',
        '\t' => ' ',
        '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.trim_end_matches(['\r', '\n'])
        .chars()
        .map(shown)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(
            clean("a\x1b[2Jb\x07\u{9b}c\td\ne\u{202e}f\r\n"),
            "a\u{fffd}[2Jb\u{fffd}\u{fffd}c d⏎e\u{fffd}f"
        );
    }

    #[test]
    fn words_of_all_languages_do() {
        let text = "你好, héllo, שלום 👩‍🚀";
        assert_eq!(clean(text), text);
    }
}
