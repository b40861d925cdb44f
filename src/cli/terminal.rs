//! Text on its way to a terminal: colours, and lines of at most 80 columns.
//!
//! In a file or a pipe, text stays as it is: one warning is one line there. Must not know what the text means beyond
//! the words at the beginning of a line.

use std::borrow::Cow;
use std::ffi::OsString;

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use clap::ValueEnum;
use clap::builder::styling::{AnsiColor, Style};

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum ColorWhen {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Always, also in files and pipes
    Always,
    /// Never
    Never,
}

/// The environment variable of `--color`.
pub(super) const COLOR_VARIABLE: &str = "ETCDLIFT_COLOR";

/// The heading of options that decide how a command runs.
pub(super) const RUN: &str = "Run";

const COLUMNS: usize = 80;

/// The words at the beginning of a line that have a colour; lines with `true` are wrapped.
const WORDS: [(&str, &str, AnsiColor, bool); 9] = [
    ("etcdlift: ", "error:", AnsiColor::Red, false),
    ("", "hint:", AnsiColor::Cyan, true),
    ("", "warning:", AnsiColor::Yellow, true),
    ("", "loss:", AnsiColor::Red, true),
    ("", "wrong:", AnsiColor::Red, true),
    ("", "COMPLETE", AnsiColor::Green, false),
    ("", "INCOMPLETE", AnsiColor::Yellow, false),
    ("", "VERIFIED", AnsiColor::Green, false),
    ("", "NOT VERIFIED", AnsiColor::Red, false),
];

/// Uses colours from now on as `--color` says, before the command line is parsed: help and usage errors follow it too.
pub(super) fn choose_color(arguments: &[OsString]) {
    let typed = typed_color(arguments).or_else(|| std::env::var(COLOR_VARIABLE).ok());
    let when = typed.and_then(|word| ColorWhen::from_str(&word, false).ok()).unwrap_or_default();
    let choice = match when {
        ColorWhen::Auto => ColorChoice::Auto,
        ColorWhen::Always => ColorChoice::Always,
        ColorWhen::Never => ColorChoice::Never,
    };
    choice.write_global();
}

/// Returns the last value of `--color`.
fn typed_color(arguments: &[OsString]) -> Option<String> {
    let words: Vec<Cow<'_, str>> =
        arguments.iter().map(|word| word.to_string_lossy()).take_while(|w| w != "--").collect();
    words.iter().enumerate().rev().find_map(|(at, word)| match word.strip_prefix("--color")? {
        "" => words.get(at + 1).map(ToString::to_string),
        value => value.strip_prefix('=').map(str::to_string),
    })
}

/// Returns the text as this stream shows it.
pub(super) fn shown<'t>(text: &'t str, stream: &impl RawStream) -> Cow<'t, str> {
    let terminal = stream.is_terminal();
    // With auto, a variable like CLICOLOR_FORCE never puts colours into a file.
    let allowed = terminal || ColorChoice::global() == ColorChoice::Always;
    let color = allowed && AutoStream::choice(stream) != ColorChoice::Never;
    match (color, terminal) {
        (false, false) => Cow::Borrowed(text),
        (color, wrap) => Cow::Owned(text.split_inclusive('\n').map(|line| show(line, color, wrap)).collect()),
    }
}

fn show(line: &str, color: bool, wrap: bool) -> String {
    let word = |(before, word, _, _): &&(&str, &str, AnsiColor, bool)| {
        line.strip_prefix(before).is_some_and(|rest| rest.starts_with(word))
    };
    let Some((before, word, ansi, long)) = WORDS.iter().find(word) else { return line.to_string() };
    let line = if wrap && *long { wrapped(line) } else { line.to_string() };
    if !color {
        return line;
    }
    let style = Style::new().bold().fg_color(Some((*ansi).into()));
    let rest = line.get(before.len() + word.len()..).unwrap_or_default();
    format!("{before}{style}{word}{style:#}{rest}")
}

/// Breaks a line at spaces, and indents what follows. A longer word has a line of its own.
fn wrapped(line: &str) -> String {
    let mut text = String::new();
    let mut column = 0;
    for word in line.trim_end_matches('\n').split(' ') {
        let width = word.chars().count();
        if column > 0 && column + 1 + width > COLUMNS {
            text.push_str("\n  ");
            column = 2;
        } else if column > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += width;
    }
    if line.ends_with('\n') { text + "\n" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_color_on_the_command_line_counts() {
        let typed = |words: &[&str]| typed_color(&words.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(typed(&["etcdlift", "convert", "a"]), None);
        assert_eq!(typed(&["etcdlift", "--color", "never", "convert"]).as_deref(), Some("never"));
        assert_eq!(typed(&["etcdlift", "--color", "never", "man", "--color=always"]).as_deref(), Some("always"));
        assert_eq!(typed(&["etcdlift", "--", "--color=always"]), None);
        assert_eq!(typed(&["etcdlift", "--color"]), None);
    }

    #[test]
    fn words_at_the_beginning_of_a_line_have_colours() {
        let yellow = "\u{1b}[1m\u{1b}[33mwarning:\u{1b}[0m a warning: b\n";
        assert_eq!(show("warning: a warning: b\n", true, false), yellow);
        assert_eq!(show("etcdlift: error: a\n", true, false), "etcdlift: \u{1b}[1m\u{1b}[31merror:\u{1b}[0m a\n");
        assert!(show("INCOMPLETE, exit status 8: a\n", true, true).starts_with("\u{1b}[1m\u{1b}[33mINCOMPLETE"));
        for plain in ["a key: 1\n", "  warning: a\n", "the error: a\n"] {
            assert_eq!(show(plain, true, true), plain);
        }
    }

    #[test]
    fn long_warnings_are_wrapped_at_80_columns() {
        let line = format!("warning: {}\n", "word ".repeat(30).trim_end());
        let text = show(&line, false, true);
        assert!(text.lines().count() == 3 && text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.lines().skip(1).all(|line| line.starts_with("  word")), "{text}");
        assert_eq!(text.replace("\n  ", " "), line);
        let long = format!("warning: {} end\n", "x".repeat(90));
        assert_eq!(show(&long, false, true), format!("warning:\n  {}\n  end\n", "x".repeat(90)));
        let error = format!("etcdlift: error: {line}");
        assert_eq!(show(&error, false, true), error);
    }
}
