//! Text from a source for a person or a file: the only place that escapes characters for terminals and JSON.
//!
//! A key, a member name or a file name can contain characters that move the cursor, reorder the line or end it. Knows
//! characters. Must not know reports or errors.

use std::{fmt, io};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

/// Returns whether a terminal may interpret a character instead of showing it: the controls of C0 and C1, the
/// separators of lines and paragraphs, and the characters that reorder a line.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text for a terminal: one line, with hidden characters escaped as in Rust.
#[derive(Debug, Clone, Copy)]
pub struct Printable<'a>(pub &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for run in runs(self.0) {
            match run {
                Run::Shown(text) => f.write_str(text)?,
                Run::Hidden(c) => write!(f, "{}", c.escape_default())?,
            }
        }
        Ok(())
    }
}

/// Returns [`Printable`] as a string.
pub fn printable(text: &str) -> String {
    Printable(text).to_string()
}

/// Returns a name for a sentence: printable, and shortened if it is long.
pub fn short(name: &str) -> String {
    const SHOWN: usize = 100;
    let mut text: String = name.chars().take(SHOWN).collect();
    if text.len() < name.len() {
        text.push_str(&format!("… ({} bytes)", name.len()));
    }
    printable(&text)
}

/// Writes a value as JSON on one line. Hidden characters are escaped; a parser reads the same value.
///
/// # Errors
/// Those of the writer; the value cannot be JSON.
pub fn write_json(out: impl io::Write, value: &impl Serialize) -> serde_json::Result<()> {
    value.serialize(&mut Serializer::with_formatter(out, Escaping(CompactFormatter)))
}

/// Writes a value like [`write_json`], indented.
///
/// # Errors
/// As [`write_json`].
pub fn write_indented_json(out: impl io::Write, value: &impl Serialize) -> serde_json::Result<()> {
    value.serialize(&mut Serializer::with_formatter(out, Escaping(PrettyFormatter::new())))
}

/// Describes the fault in JSON and its position, without the content: `found another kind of value at byte 17`.
///
/// The decoder's own message quotes the content, which may be a password hash.
pub fn json_fault(e: &serde_json::Error) -> String {
    use serde_json::error::Category;
    let found = match e.classify() {
        Category::Syntax | Category::Io => "found no JSON",
        Category::Data => "found a value of another kind",
        Category::Eof => "found the end",
    };
    match (e.line(), e.column()) {
        (0, _) => found.to_string(),
        (1, column) => format!("{found} at byte {column}"),
        (line, column) => format!("{found} at line {line}, byte {column}"),
    }
}

enum Run<'a> {
    Shown(&'a str),
    Hidden(char),
}

/// Splits a text into runs without hidden characters, and the hidden characters between them.
fn runs(text: &str) -> impl Iterator<Item = Run<'_>> {
    text.split_inclusive(is_hidden).flat_map(|run| {
        let hidden = run.chars().next_back().filter(|c| is_hidden(*c));
        let shown = hidden.map_or(run, |c| run.strip_suffix(c).unwrap_or_default());
        [Some(Run::Shown(shown)), hidden.map(Run::Hidden)].into_iter().flatten()
    })
}

/// A JSON formatter that also escapes the hidden characters that JSON allows in strings.
struct Escaping<F>(F);

macro_rules! as_inner {
    ($($name:ident($($argument:ident: $kind:ty),*);)*) => {
        $(fn $name<W: ?Sized + io::Write>(&mut self, out: &mut W $(, $argument: $kind)*) -> io::Result<()> {
            self.0.$name(out $(, $argument)*)
        })*
    };
}

impl<F: Formatter> Formatter for Escaping<F> {
    as_inner! {
        begin_array();
        end_array();
        begin_array_value(first: bool);
        end_array_value();
        begin_object();
        end_object();
        begin_object_key(first: bool);
        end_object_key();
        begin_object_value();
        end_object_value();
    }

    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        // The C0 controls are escaped already, and DEL is the only other control in ASCII.
        if fragment.is_ascii() && memchr::memchr(0x7f, fragment.as_bytes()).is_none() {
            return out.write_all(fragment.as_bytes());
        }
        for run in runs(fragment) {
            match run {
                Run::Shown(text) => out.write_all(text.as_bytes())?,
                Run::Hidden(c) => write!(out, "\\u{:04x}", u32::from(c))?,
            }
        }
        Ok(())
    }
}

/// Converts bytes to text, with U+FFFD for invalid UTF-8.
pub fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Returns the first names of a list: `a, b and 7 more`.
pub fn first_of(names: &[String]) -> String {
    const SHOWN: usize = 10;
    let shown = names.iter().take(SHOWN).map(|name| short(name)).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HIDDEN: &str = "\0\u{7}\n\u{1b}\u{7f}\u{80}\u{9b}\u{9f}\u{61c}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202e}\u{2066}\u{2069}";

    #[test]
    fn a_terminal_sees_no_hidden_character() {
        let text: String = HIDDEN.chars().flat_map(|c| ['a', c, 'é']).collect();
        let shown = printable(&text);
        assert!(!shown.chars().any(is_hidden), "{shown}");
        assert!(shown.contains("aéa\\n") || shown.contains("é"), "{shown}");
        assert_eq!(printable("a\u{202e}b\u{9b}2J"), "a\\u{202e}b\\u{9b}2J");
        assert_eq!(printable("plain ü 🚀\u{fffd}"), "plain ü 🚀\u{fffd}");
    }

    #[test]
    fn json_has_no_hidden_character_and_the_same_value() {
        let text: String = HIDDEN.chars().flat_map(|c| ['a', c, 'é']).collect();
        let value = serde_json::json!({ &text: [&text, 1, null], "plain": "ü\"\\" });
        for indented in [false, true] {
            let mut out = Vec::new();
            if indented { write_indented_json(&mut out, &value) } else { write_json(&mut out, &value) }.unwrap();
            let out = String::from_utf8(out).unwrap();
            assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap(), value);
            assert!(!out.chars().any(|c| is_hidden(c) && c != '\n'), "{out}");
            assert_eq!(out.contains('\n'), indented);
        }
        let plain = serde_json::json!({"a": [1, {"b": "c"}], "d": {}});
        let mut out = Vec::new();
        write_indented_json(&mut out, &plain).unwrap();
        assert_eq!(out, serde_json::to_vec_pretty(&plain).unwrap());
    }

    #[test]
    fn json_faults_do_not_quote_content() {
        for (text, expected) in [
            ("[1,\"$2a$10$secret\"]", "found a value of another kind at byte 18"),
            ("[1", "found the end at byte 2"),
            ("secret", "found no JSON at byte 1"),
            ("[\n1, \"secret\"]", "found a value of another kind at line 2, byte 11"),
        ] {
            let fault = json_fault(&serde_json::from_str::<Vec<u8>>(text).unwrap_err());
            assert_eq!(fault, expected, "{text}");
        }
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        assert_eq!(short("/a\n"), "/a\\n");
        let long = "é".repeat(101);
        assert_eq!(short(&long), format!("{}… (202 bytes)", "é".repeat(100)));
    }

    #[test]
    fn long_lists_are_cut() {
        let names = |n: u32| (0..n).map(|i| i.to_string()).collect::<Vec<_>>();
        assert_eq!(first_of(&names(2)), "0, 1");
        assert_eq!(first_of(&names(13)), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 3 more");
    }
}
