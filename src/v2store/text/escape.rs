//! The escapes of JSON strings: `\n`, `\"`, `\u003c`, surrogate pairs (RFC 8259, section 7).
//!
//! A surrogate without its other half decodes to U+FFFD, as in Go. Must not know where a string ends.

/// The reason why a string cannot be read, with an offset from its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextError {
    /// Offset in the string, in bytes.
    pub at: usize,
    /// What was expected there.
    pub expected: &'static str,
}

/// A decoded escape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Escape {
    pub(super) char: char,
    /// Length in the document, in bytes.
    pub(super) raw_len: usize,
    /// Whether it replaces a byte or a surrogate that is no character.
    pub(super) replacement: bool,
}

/// Reads one escape, from its backslash.
///
/// # Errors
/// JSON does not know the escape.
pub(super) fn unescape(bytes: &[u8]) -> Result<Escape, TextError> {
    let simple = |char| Ok(Escape { char, raw_len: 2, replacement: false });
    match bytes.get(1) {
        Some(b'"') => simple('"'),
        Some(b'\\') => simple('\\'),
        Some(b'/') => simple('/'),
        Some(b'b') => simple('\u{8}'),
        Some(b'f') => simple('\u{c}'),
        Some(b'n') => simple('\n'),
        Some(b'r') => simple('\r'),
        Some(b't') => simple('\t'),
        Some(b'u') => unicode_escape(bytes),
        _ => Err(TextError { at: 0, expected: "an escape that JSON knows" }),
    }
}

fn unicode_escape(bytes: &[u8]) -> Result<Escape, TextError> {
    let first = hex4(bytes.get(2..6)).ok_or(TextError { at: 0, expected: "four hex digits after \\u" })?;
    if let Some(char) = char::from_u32(first) {
        return Ok(Escape { char, raw_len: 6, replacement: first == 0xfffd });
    }
    // A surrogate: half of a pair, or a replacement character.
    if (0xd800..0xdc00).contains(&first)
        && bytes.get(6..8) == Some(b"\\u")
        && let Some(second @ 0xdc00..0xe000) = hex4(bytes.get(8..12))
        && let Some(char) = char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))
    {
        return Ok(Escape { char, raw_len: 12, replacement: false });
    }
    Ok(Escape { char: '\u{fffd}', raw_len: 6, replacement: true })
}

fn hex4(digits: Option<&[u8]>) -> Option<u32> {
    digits?.iter().try_fold(0, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?))
}
