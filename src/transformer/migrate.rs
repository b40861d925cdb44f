//! The protocol of `etcdctl migrate --transformer`, byte for byte. Nodes are written like Go's `encoding/json` does,
//! without a separator. Answers are frames: a length (8 bytes, little-endian) and that many bytes of `mvccpb.KeyValue`.
//!
//! docs/formats.md 12.1 (step 3 and 4) and 12.2 (flaws 5, 6, 8): what etcdctl replaces, ignores or panics at is an
//! error here. Must not know processes, or whether a pair is useful.

use std::io::Write;

use jiff::Timestamp;

use crate::count::bytes;
use crate::ids::ByteOffset;
use crate::limits;
use crate::mvcc::KeyValue;
use crate::transformer::listing::Node;

/// Length of a frame's length field in bytes.
const LENGTH_BYTES: usize = 8;

/// The longest frame: a larger pair does not fit into a bbolt file.
const MAX_FRAME: i64 = limits::MAX_BOLT_VALUE as i64;

/// Writes a node as etcdctl 3.4 does (`v2store.NodeExtern`): fields in this order, without empty ones, except for the
/// value of a file. `as_of` replaces the clock for `ttl`; without it, `ttl` is absent.
///
/// # Errors
/// The part that is not UTF-8: the name or the value. Then nothing is written.
pub(super) fn write_node(out: &mut Vec<u8>, node: &Node<'_>, as_of: Option<Timestamp>) -> Result<(), &'static str> {
    let key = std::str::from_utf8(node.key).map_err(|_| "name")?;
    let value = node.value.as_deref().map(std::str::from_utf8).transpose().map_err(|_| "value")?;
    out.extend_from_slice(b"{\"key\":");
    write_string(out, key);
    if let Some(value) = value {
        out.extend_from_slice(b",\"value\":");
        write_string(out, value);
    } else {
        out.extend_from_slice(b",\"dir\":true");
    }
    if let Some(at) = node.expiry {
        // Whole seconds without a fraction, otherwise all its digits: RFC3339Nano in both languages.
        put(out, format_args!(",\"expiration\":\"{at}\""));
        write_number(out, "ttl", as_of.map_or(0, |as_of| seconds_left(at, as_of)));
    }
    write_number(out, "modifiedIndex", node.modified);
    write_number(out, "createdIndex", node.created);
    out.push(b'}');
    Ok(())
}

/// Returns the seconds until `at`, rounded up; 0 or less if it has passed. Go's durations end at 2^63 nanoseconds.
fn seconds_left(at: Timestamp, as_of: Timestamp) -> i128 {
    let nanoseconds = (at.as_nanosecond() - as_of.as_nanosecond()).clamp(i64::MIN.into(), i64::MAX.into());
    nanoseconds.div_euclid(1_000_000_000) + i128::from(nanoseconds.rem_euclid(1_000_000_000) > 0)
}

fn write_number<N: std::fmt::Display + Default + PartialEq>(out: &mut Vec<u8>, name: &str, number: N) {
    if number != N::default() {
        put(out, format_args!(",\"{name}\":{number}"));
    }
}

/// Writes a string with the escapes of Go 1.19: also HTML characters and the line ends of JavaScript.
fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for run in text.split_inclusive(is_escaped) {
        let last = run.chars().next_back().filter(|c| is_escaped(*c));
        let plain = run.get(..run.len() - last.map_or(0, char::len_utf8)).unwrap_or_default();
        out.extend_from_slice(plain.as_bytes());
        match last {
            None => {}
            Some('"') => out.extend_from_slice(b"\\\""),
            Some('\\') => out.extend_from_slice(b"\\\\"),
            Some('\n') => out.extend_from_slice(b"\\n"),
            Some('\r') => out.extend_from_slice(b"\\r"),
            Some('\t') => out.extend_from_slice(b"\\t"),
            Some(other) => put(out, format_args!("\\u{:04x}", u32::from(other))),
        }
    }
    out.push(b'"');
}

fn is_escaped(c: char) -> bool {
    matches!(c, '\0'..='\x1f' | '"' | '\\' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}')
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // A write to a vector cannot fail.
    let _ = out.write_fmt(text);
}

/// The parser of answers. It stores only bytes that have arrived.
#[derive(Debug, Default)]
pub(super) struct Frames {
    bytes: Vec<u8>,
    /// Number of processed bytes at the start of `bytes`.
    done: usize,
    /// Offset of `bytes` in the whole output.
    offset: ByteOffset,
}

impl Frames {
    /// Accepts bytes, and passes every complete pair to `each`.
    ///
    /// # Errors
    /// The fault and the offset of the frame; that of `each`.
    pub(super) fn push(
        &mut self,
        bytes: &[u8],
        each: &mut dyn FnMut(&KeyValue<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        self.bytes.extend_from_slice(bytes);
        while let Some(len) = self.next_len()? {
            let start = self.done + LENGTH_BYTES;
            let Some(message) = self.bytes.get(start..start + len) else { break };
            let place = self.place();
            let kv = KeyValue::decode(message, self.offset + start as u64).map_err(|e| {
                format!("{place}: expected a KeyValue message, found at byte {} no {}", e.offset, bare(e.expected))
            })?;
            each(&kv).map_err(|what| format!("{place}: {what}"))?;
            self.done = start + len;
        }
        self.shrink();
        Ok(())
    }

    /// Checks that the last frame was complete.
    ///
    /// # Errors
    /// The length of its present part.
    pub(super) fn end(&self) -> Result<(), String> {
        let rest = self.bytes.get(self.done..).unwrap_or_default();
        match (rest.len(), self.length()) {
            (0, _) => Ok(()),
            (have, None) => Err(format!("{}: truncated: {have} of the 8 bytes of its length", self.place())),
            (have, Some(len)) => Err(format!(
                "{}: truncated: {} of {}",
                self.place(),
                have.saturating_sub(LENGTH_BYTES),
                bytes(len as u64)
            )),
        }
    }

    fn next_len(&self) -> Result<Option<usize>, String> {
        match self.length() {
            None => Ok(None),
            Some(len @ 0..=MAX_FRAME) => Ok(usize::try_from(len).ok()),
            Some(len) => Err(format!("{}: expected a length of up to {MAX_FRAME} bytes, found {len}", self.place())),
        }
    }

    fn length(&self) -> Option<i64> {
        let head = self.bytes.get(self.done..)?.first_chunk::<LENGTH_BYTES>()?;
        Some(i64::from_le_bytes(*head))
    }

    fn place(&self) -> String {
        format!("the frame at byte {} of its output", self.offset + self.done as u64)
    }

    /// Drops processed bytes. Moves the start of a frame to the front, once for each call of [`Frames::push`].
    fn shrink(&mut self) {
        self.offset += self.done as u64;
        self.bytes.drain(..self.done);
        self.done = 0;
    }
}

/// Removes the article of `a varint`, the text of the wire reader, for use after "no".
fn bare(expected: &str) -> &str {
    expected.strip_prefix("a ").unwrap_or(expected)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::ids::Revision;

    fn json(key: &[u8], value: Option<&[u8]>, expiry: Option<&str>) -> Result<String, &'static str> {
        let expiry = expiry.map(|at| at.parse().unwrap());
        let node = Node { key, value: value.map(Cow::Borrowed), expiry, effective: expiry, modified: 7, created: 3 };
        let mut out = Vec::new();
        write_node(&mut out, &node, "2020-01-01T00:00:00Z".parse().ok())?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn nodes_as_go_writes_them() {
        let text = "\u{0}\u{8}\u{c}\n\r\t\u{1f}\"\\<>&/\u{7f}\u{2028}\u{2029}\u{fffd}ü🚀";
        let escaped = r#"\u0000\u0008\u000c\n\r\t\u001f\"\\\u003c\u003e\u0026/"#.to_string()
            + "\u{7f}"
            + r"\u2028\u2029"
            + "\u{fffd}ü🚀";
        assert_eq!(
            json(b"/a", Some(text.as_bytes()), None).unwrap(),
            format!(r#"{{"key":"/a","value":"{escaped}","modifiedIndex":7,"createdIndex":3}}"#)
        );
        assert_eq!(json(b"/d", None, None).unwrap(), r#"{"key":"/d","dir":true,"modifiedIndex":7,"createdIndex":3}"#);
        assert!(json(b"/e", Some(b""), None).unwrap().contains(r#""value":"","#));
    }

    #[test]
    fn a_ttl_is_rounded_up_and_left_out_where_it_is_0() {
        for (at, expected) in [
            ("2020-01-01T00:00:10Z", r#""expiration":"2020-01-01T00:00:10Z","ttl":10,"#),
            ("2020-01-01T00:00:09.1234Z", r#""expiration":"2020-01-01T00:00:09.1234Z","ttl":10,"#),
            ("2020-01-01T00:00:00Z", r#""expiration":"2020-01-01T00:00:00Z","modifiedIndex""#),
            ("2019-12-31T23:59:59.5Z", r#""expiration":"2019-12-31T23:59:59.5Z","modifiedIndex""#),
            ("2019-12-31T23:59:58.5Z", r#""expiration":"2019-12-31T23:59:58.5Z","ttl":-1,"#),
            ("2900-01-01T00:00:00Z", r#""expiration":"2900-01-01T00:00:00Z","ttl":9223372037,"#),
        ] {
            let found = json(b"/a", Some(b""), Some(at)).unwrap();
            assert!(found.contains(expected), "{found}");
        }
    }

    #[test]
    fn invalid_utf8_is_named() {
        assert_eq!(json(b"/\xff", Some(b""), None), Err("name"));
        assert_eq!(json(b"/a", Some(b"\xff"), None), Err("value"));
    }

    fn frame(message: &[u8]) -> Vec<u8> {
        [&(message.len() as u64).to_le_bytes()[..], message].concat()
    }

    /// Returns the keys of bytes that arrive in pieces of `piece` bytes.
    fn keys(bytes: &[u8], piece: usize) -> Result<Vec<String>, String> {
        let mut frames = Frames::default();
        let mut found = Vec::new();
        for piece in bytes.chunks(piece) {
            frames.push(piece, &mut |kv| {
                assert!(kv.mod_revision == Revision(5) || kv.key.is_empty());
                found.push(String::from_utf8(kv.key.to_vec()).unwrap());
                if kv.key == b"no" { Err("not this one".into()) } else { Ok(()) }
            })?;
            assert!(frames.bytes.len() < 64);
        }
        frames.end()?;
        Ok(found)
    }

    #[test]
    fn frames_are_found_however_they_arrive() {
        let bytes = [frame(b"\x0a\x02/a\x18\x05"), frame(b""), frame(b"\x0a\x03/bc\x18\x05")].concat();
        for piece in 1..bytes.len() + 1 {
            assert_eq!(keys(&bytes, piece).unwrap(), ["/a", "", "/bc"]);
        }
        for cut in 1..bytes.len() {
            let whole = [14, 22].contains(&cut);
            let found = keys(&bytes[..cut], 5);
            assert_eq!(found.is_ok(), whole, "{cut}: {found:?}");
        }
    }

    #[test]
    fn faulty_frames_are_named_with_their_place() {
        let good = frame(b"\x0a\x02/a\x18\x05");
        let after = |bytes: &[u8]| keys(&[&good[..], bytes].concat(), 3).unwrap_err();
        let place = "the frame at byte 14 of its output: ";
        for (bytes, expected) in [
            (&b"\x05\0\0"[..], "truncated: 3 of the 8 bytes of its length"),
            (b"\x05\0\0\0\0\0\0\0\x0a\x01", "truncated: 2 of 5 bytes"),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", "expected a length of up to 2147483646 bytes, found -1"),
            (b"y\ny\ny\ny\n", "expected a length of up to 2147483646 bytes, found 754645927544294009"),
            (
                b"\x02\0\0\0\0\0\0\0\x0a\x09",
                "expected a KeyValue message, found at byte 23 no length within the message",
            ),
            (b"\x02\0\0\0\0\0\0\0\x08\x09", "expected a KeyValue message, found at byte 22 no length-delimited field"),
            (b"\x06\0\0\0\0\0\0\0\x0a\x02no\x18\x05", "not this one"),
        ] {
            assert_eq!(after(bytes), format!("{place}{expected}"));
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_reads_back(text: String) {
            let mut out = Vec::new();
            write_string(&mut out, &text);
            proptest::prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }

        #[test]
        fn any_answers(bytes: Vec<u8>) {
            let mut frames = Frames::default();
            let _ = frames.push(&bytes, &mut |_| Ok(())).and_then(|()| frames.end());
        }
    }
}
