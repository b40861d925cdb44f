//! JSON strings as Go's `encoding/json` writes and reads them (docs/formats.md 3.1): the end of a string, its decoded
//! length, and its bytes.
//!
//! Go replaces invalid UTF-8 by U+FFFD, when it writes (as the escape `\ufffd`) and when it reads. Must not know which
//! field a string belongs to.

use std::borrow::Cow;

use jiff::Timestamp;

use crate::ids::ByteOffset;
use crate::{limits, time};

mod blocks;
mod escape;

pub use escape::TextError;
use escape::unescape;

/// Go's zero time, which means "no TTL".
pub(super) const NO_EXPIRY: &[u8] = b"0001-01-01T00:00:00Z";
const GO_ZERO_TIME: Timestamp = Timestamp::constant(-62_135_596_800, 0);

/// A reference to a string in a JSON document, without its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Text {
    /// Offset of its first byte in the document.
    pub offset: ByteOffset,
    /// Length in the document, in bytes.
    pub raw_len: u32,
    /// Decoded length in bytes.
    pub len: u32,
}

/// The result of the scan of a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scanned {
    /// Bytes up to the closing quote.
    pub raw_len: usize,
    /// Decoded length in bytes.
    pub len: usize,
    /// Whether it has escapes, or bytes that are not UTF-8, so that it must be decoded.
    pub escaped: bool,
    /// Number of escapes `\ufffd`: each replaces a byte that was not UTF-8 when the snapshot was written.
    pub replaced: u32,
}

/// Scans a string of a document that is UTF-8, like [`scan`]. `None`: it cannot be read.
#[inline]
pub(crate) fn scan_utf8(rest: &[u8]) -> Option<Scanned> {
    let plain = memchr::memchr2(b'"', b'\\', rest)?;
    if has_control(rest.get(..plain)?) {
        return None;
    }
    let mut out = Scanned { raw_len: plain, len: plain, ..Scanned::default() };
    if rest.get(plain) == Some(&b'\\') {
        let after = blocks::scan(rest.get(plain..)?)?;
        let raw_len = plain + after.raw_len;
        out = Scanned { raw_len, len: raw_len - after.saved, escaped: true, replaced: after.replaced };
    }
    // No text is longer than its raw form.
    (out.raw_len as u64 <= limits::MAX_STRING).then_some(out)
}

/// Scans a string after its opening quote, up to its closing quote.
///
/// If `valid_utf8` is set, the whole document is UTF-8, and only escapes need a test.
///
/// # Errors
/// The string has no end, or contains an escape or a control character that JSON does not allow.
pub fn scan(rest: &[u8], valid_utf8: bool) -> Result<Scanned, TextError> {
    let mut out = Scanned::default();
    let mut at = 0;
    loop {
        let ahead = rest.get(at..).unwrap_or_default();
        let Some(run) = memchr::memchr2(b'"', b'\\', ahead) else {
            return Err(TextError { at: rest.len(), expected: "the end of a string" });
        };
        let plain = ahead.get(..run).unwrap_or_default();
        if has_control(plain) {
            return Err(TextError { at, expected: "a string without control characters" });
        }
        if valid_utf8 {
            out.len += run;
        } else {
            let decoded = String::from_utf8_lossy(plain);
            out.escaped |= matches!(decoded, Cow::Owned(_));
            out.len += lossy_len(plain);
        }
        at += run;
        if ahead.get(run) == Some(&b'"') {
            out.raw_len = at;
            break;
        }
        let escape = unescape(rest.get(at..).unwrap_or_default()).map_err(|e| TextError { at: at + e.at, ..e })?;
        out.escaped = true;
        out.replaced += u32::from(escape.replacement);
        out.len += escape.char.len_utf8();
        at += escape.raw_len;
    }
    if out.raw_len as u64 > limits::MAX_STRING || out.len as u64 > limits::MAX_STRING {
        return Err(TextError { at: 0, expected: "a string below 4 GiB" });
    }
    Ok(out)
}

/// Returns whether a text has a control character.
#[inline]
fn has_control(text: &[u8]) -> bool {
    // Without an early end, the compiler tests many bytes at once.
    text.iter().fold(false, |found, byte| found | (*byte < 0x20))
}

/// Reads the time at which a node expires, as RFC 3339. `Some(None)` is no TTL, and `None` is no time.
pub(super) fn expiry(raw: &[u8]) -> Option<Option<Timestamp>> {
    if raw == NO_EXPIRY {
        return Some(None);
    }
    let at = std::str::from_utf8(raw).ok().and_then(time::instant)?;
    // The zero time is an instant: another time zone or a fraction of zeros does not change it.
    Some((at != GO_ZERO_TIME).then_some(at))
}

/// Decodes what [`scan`] accepted into a buffer of exactly the decoded length. Returns whether it fitted.
#[must_use]
pub fn decode_into(raw: &[u8], out: &mut [u8]) -> bool {
    if simdutf8::basic::from_utf8(raw).is_ok() { blocks::decode_into(raw, out) } else { decode_any(raw, out) }
}

/// Decodes like [`decode_into`], also what is not UTF-8.
pub(crate) fn decode_any(raw: &[u8], out: &mut [u8]) -> bool {
    let mut rest = out;
    let fits = decode_parts(raw, &mut |part| match std::mem::take(&mut rest).split_at_mut_checked(part.len()) {
        Some((head, after)) => {
            head.copy_from_slice(part);
            rest = after;
            true
        }
        None => false,
    });
    fits && rest.is_empty()
}

/// Returns whether what [`scan`] accepted decodes to these bytes.
pub fn decodes_to(raw: &[u8], bytes: &[u8]) -> bool {
    if simdutf8::basic::from_utf8(raw).is_ok() {
        return blocks::decodes_to(raw, bytes);
    }
    let mut rest = bytes;
    let agrees = decode_parts(raw, &mut |part| match rest.strip_prefix(part) {
        Some(after) => {
            rest = after;
            true
        }
        None => false,
    });
    agrees && rest.is_empty()
}

/// Returns bytes as Go's JSON encoder writes them: U+FFFD for each byte that is not UTF-8.
pub fn as_go_writes(bytes: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    if simdutf8::basic::from_utf8(&bytes).is_ok() {
        return bytes;
    }
    let mut out = Vec::with_capacity(bytes.len());
    push_as_go_writes(&mut out, &bytes);
    Cow::Owned(out)
}

/// Appends bytes like [`as_go_writes`].
pub fn push_as_go_writes(out: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        out.extend_from_slice(chunk.valid().as_bytes());
        chunk.invalid().iter().for_each(|_| out.extend_from_slice("\u{fffd}".as_bytes()));
    }
}

/// Decodes in parts, until `take` returns false. Returns whether all parts were taken.
fn decode_parts(raw: &[u8], take: &mut impl FnMut(&[u8]) -> bool) -> bool {
    let mut at = 0;
    while let Some(ahead) = raw.get(at..).filter(|ahead| !ahead.is_empty()) {
        let run = memchr::memchr(b'\\', ahead).unwrap_or(ahead.len());
        let plain = ahead.get(..run).unwrap_or_default();
        for chunk in plain.utf8_chunks() {
            let taken = take(chunk.valid().as_bytes());
            if !taken || !chunk.invalid().iter().all(|_| take("\u{fffd}".as_bytes())) {
                return false;
            }
        }
        at += run;
        if run < ahead.len() {
            let Ok(escape) = unescape(raw.get(at..).unwrap_or_default()) else { return false };
            if !take(escape.char.encode_utf8(&mut [0; 4]).as_bytes()) {
                return false;
            }
            at += escape.raw_len;
        }
    }
    true
}

/// Returns the bytes of a string, borrowed if it has no escapes.
pub fn decode(raw: &[u8], len: usize, escaped: bool) -> Cow<'_, [u8]> {
    if !escaped {
        return Cow::Borrowed(raw);
    }
    let mut out = vec![0; len];
    let fits = decode_into(raw, &mut out);
    debug_assert!(fits, "a scanned string has the length that the scan gave");
    Cow::Owned(out)
}

/// Returns the length after Go's decoding, which replaces each byte that is not part of a character.
fn lossy_len(bytes: &[u8]) -> usize {
    bytes.utf8_chunks().map(|chunk| chunk.valid().len() + 3 * chunk.invalid().len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &[u8]) -> (Vec<u8>, Scanned) {
        let valid = std::str::from_utf8(json).is_ok();
        let scanned = scan(&json[1..], valid).unwrap();
        let bytes = decode(&json[1..=scanned.raw_len], scanned.len, scanned.escaped).into_owned();
        assert_eq!(bytes.len(), scanned.len);
        assert!(decodes_to(&json[1..=scanned.raw_len], &bytes));
        assert!(!decodes_to(&json[1..=scanned.raw_len], &[&bytes[..], b"x"].concat()));
        (bytes, scanned)
    }

    #[test]
    fn reads_what_go_writes() {
        let (bytes, scanned) = read(br#""a\u003c\"\\\n\u0000\u2028\ufffd","#);
        assert_eq!(bytes, "a<\"\\\n\0\u{2028}\u{fffd}".as_bytes());
        assert_eq!(scanned.replaced, 1);
    }

    #[test]
    fn bytes_and_surrogates_that_are_no_characters_become_replacements_as_in_go() {
        assert_eq!(read(b"\"a\xff\xe2\x82b\"").0, "a\u{fffd}\u{fffd}\u{fffd}b".as_bytes());
        assert_eq!(read(br#""\ud83d\ude00""#).0, "\u{1f600}".as_bytes());
        assert_eq!(read(br#""\ud83dx\udc00""#).0, "\u{fffd}x\u{fffd}".as_bytes());
        assert_eq!(read(br#""\ud83d\u0041""#).0, "\u{fffd}A".as_bytes());
    }

    #[test]
    fn refuses_what_is_no_string() {
        for bad in [&b"abc"[..], b"a\\", b"\\x\"", b"\\u12g4\"", b"\\u12", b"\n\"", b"a\\\""] {
            assert!(scan(bad, true).is_err(), "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn reads_as_serde_json_does(text: String) {
            let json = serde_json::to_string(&text).unwrap();
            let (bytes, scanned) = read(json.as_bytes());
            proptest::prop_assert_eq!(bytes, text.into_bytes());
            proptest::prop_assert_eq!(scanned.raw_len, json.len() - 2);
        }
    }
}
