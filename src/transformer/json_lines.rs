//! The protocol of new transformers: one JSON object in each line, in both directions. Bytes that are not UTF-8 are in
//! base64.
//!
//! In: `{"key":"/a","value":"v","created_index":3,"modified_index":7,"expiration":"2026-05-04T12:00:00Z","ttl":90}`. A
//! directory has `"dir":true` and no `value`. `key_base64` and `value_base64` replace fields that are not text.
//! `expiration` is the earliest expiry of the node and the directories above it, and `ttl` the seconds until then. Out:
//! `key` and `value`, or in base64. Optional are `mod_revision`, `create_revision` (default: the two indexes),
//! `version` (1) and `lease` (that of the node), so an unchanged line converts unchanged. A line with `"dir":true`
//! makes no pair. Must not know processes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::count::bytes;
use crate::ids::{LeaseId, Revision};
use crate::mvcc::KeyValue;
use crate::transform::lease::seconds_left;
use crate::transformer::listing::Node;

/// The longest line, rounded: the longest value in base64, or with an escape for every character.
const MAX_LINE: usize = 1 << 34;

#[derive(Debug, Default, Serialize)]
struct Asked<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dir: bool,
    created_index: u64,
    modified_index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<i64>,
}

/// Writes a node as one line.
pub(super) fn write_node(out: &mut Vec<u8>, node: &Node<'_>, as_of: Option<Timestamp>) {
    let mut asked = Asked {
        dir: node.value.is_none(),
        created_index: node.created,
        modified_index: node.modified,
        expiration: node.effective.map(|at| at.to_string()),
        ttl: node.effective.zip(as_of).map(|(at, as_of)| seconds_left(at, as_of)),
        ..Asked::default()
    };
    match std::str::from_utf8(node.key) {
        Ok(key) => asked.key = Some(key),
        Err(_) => asked.key_base64 = Some(STANDARD.encode(node.key)),
    }
    match node.value.as_deref().map(|value| (value, std::str::from_utf8(value))) {
        None => {}
        Some((_, Ok(text))) => asked.value = Some(text),
        Some((bytes, Err(_))) => asked.value_base64 = Some(STANDARD.encode(bytes)),
    }
    // Text and numbers, written to memory: no error is possible.
    let _ = serde_json::to_writer(&mut *out, &asked);
    out.push(b'\n');
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answered {
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
    #[serde(default)]
    dir: bool,
    created_index: Option<u64>,
    modified_index: Option<u64>,
    create_revision: Option<u64>,
    mod_revision: Option<u64>,
    version: Option<u64>,
    lease: Option<u64>,
    #[serde(rename = "expiration")]
    _expiration: Option<String>,
    #[serde(rename = "ttl")]
    _ttl: Option<i64>,
}

const EXPECTED: &str = "one JSON object with `key` or `key_base64`, `value` or `value_base64`, and optionally `mod_revision`, \
                        `create_revision`, `version` and `lease`, all four not negative";

/// The parser of answers. It stores only bytes that have arrived.
#[derive(Debug, Default)]
pub(super) struct Lines {
    bytes: Vec<u8>,
    /// Number of complete lines.
    lines: u64,
}

impl Lines {
    /// Accepts bytes, and passes the pair of every complete line to `each`.
    ///
    /// # Errors
    /// The fault and the number of the line; that of `each`.
    pub(super) fn push(
        &mut self,
        bytes: &[u8],
        each: &mut dyn FnMut(&KeyValue<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut rest = bytes;
        while let Some(at) = memchr::memchr(b'\n', rest) {
            let (line, after) = rest.split_at_checked(at).unwrap_or_default();
            rest = after.get(1..).unwrap_or_default();
            if self.bytes.is_empty() {
                self.line(line, each)?;
            } else {
                let mut whole = std::mem::take(&mut self.bytes);
                whole.extend_from_slice(line);
                self.line(&whole, each)?;
            }
        }
        if self.bytes.len().saturating_add(rest.len()) > MAX_LINE {
            return Err(format!("{}: expected its end within {MAX_LINE} bytes", self.place()));
        }
        self.bytes.extend_from_slice(rest);
        Ok(())
    }

    /// Checks that the last line was complete.
    ///
    /// # Errors
    /// The number of the incomplete line.
    pub(super) fn end(&self) -> Result<(), String> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        Err(format!("{}: truncated: expected a line end after {}", self.place(), bytes(self.bytes.len() as u64)))
    }

    fn line(&mut self, line: &[u8], each: &mut dyn FnMut(&KeyValue<'_>) -> Result<(), String>) -> Result<(), String> {
        answer(line, each).map_err(|what| format!("{}: {what}", self.place()))?;
        self.lines += 1;
        Ok(())
    }

    fn place(&self) -> String {
        format!("line {} of its output", self.lines + 1)
    }
}

fn answer(line: &[u8], each: &mut dyn FnMut(&KeyValue<'_>) -> Result<(), String>) -> Result<(), String> {
    // The decoder alone would also accept a list of values.
    if !line.trim_ascii_start().starts_with(b"{") {
        return Err(format!("expected {EXPECTED}"));
    }
    // The decoder's own message can contain a value.
    let answered: Answered =
        serde_json::from_slice(line).map_err(|e| format!("column {}: expected {EXPECTED}", e.column()))?;
    if answered.dir {
        return Ok(());
    }
    let bytes = |text: Option<String>, base64: Option<String>, name: &str| match (text, base64) {
        (Some(text), None) => Ok(text.into_bytes()),
        (None, Some(base64)) => {
            STANDARD.decode(base64).map_err(|_| format!("expected base64 with padding in `{name}_base64`"))
        }
        _ => Err(format!("expected `{name}` or `{name}_base64`, one of the two")),
    };
    let key = bytes(answered.key, answered.key_base64, "key")?;
    let value = bytes(answered.value, answered.value_base64, "value")?;
    let modified = answered.mod_revision.or(answered.modified_index);
    let modified = modified.ok_or("expected `mod_revision`, or the node's `modified_index`")?;
    let created = answered.create_revision.or(answered.created_index.map(|created| created.min(modified)));
    // A number out of range remains so; the caller reports it.
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    each(&KeyValue {
        key: &key,
        value: &value,
        create_revision: Revision(number(created.unwrap_or(modified))),
        mod_revision: Revision(number(modified)),
        version: number(answered.version.unwrap_or(1)),
        lease: LeaseId(number(answered.lease.unwrap_or(0))),
    })
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn line(key: &[u8], value: Option<&[u8]>, effective: Option<&str>) -> String {
        let effective = effective.map(|at| at.parse().unwrap());
        let node = Node { key, value: value.map(Cow::Borrowed), expiry: None, effective, modified: 7, created: 3 };
        let mut out = Vec::new();
        write_node(&mut out, &node, "2020-01-01T00:00:00Z".parse().ok());
        String::from_utf8(out).unwrap()
    }

    /// The pairs as (key, value, create, mod, version, lease).
    type Found = (Vec<u8>, Vec<u8>, i64, i64, i64, i64);

    fn pairs(text: &str, piece: usize) -> Result<Vec<Found>, String> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for piece in text.as_bytes().chunks(piece) {
            lines.push(piece, &mut |kv| {
                let numbers = (kv.create_revision.0, kv.mod_revision.0, kv.version, kv.lease.0);
                found.push((kv.key.to_vec(), kv.value.to_vec(), numbers.0, numbers.1, numbers.2, numbers.3));
                Ok(())
            })?;
        }
        lines.end()?;
        Ok(found)
    }

    #[test]
    fn nodes_as_documented() {
        let indexes = r#""created_index":3,"modified_index":7"#;
        let text = |rest: &str| format!("{{{rest}}}\n");
        assert_eq!(line(b"/a", Some(b"<\n>"), None), text(&format!(r#""key":"/a","value":"<\n>",{indexes}"#)));
        assert_eq!(line(b"/d", None, None), text(&format!(r#""key":"/d","dir":true,{indexes}"#)));
        assert_eq!(
            line(b"/\xff", Some(b"\x00\xfe"), Some("2020-01-01T00:01:29.5Z")),
            text(&format!(
                r#""key_base64":"L/8=","value_base64":"AP4=",{indexes},"expiration":"2020-01-01T00:01:29.5Z","ttl":90"#
            ))
        );
    }

    #[test]
    fn unchanged_answers_are_the_node() {
        let sent = [line(b"/a", Some(b"v"), Some("2020-01-01T00:00:00Z")), line(b"/d", None, None)].concat()
            + &line(b"/\xff", Some(b"\xff"), None);
        for piece in [1, 7, sent.len()] {
            let found = pairs(&sent, piece).unwrap();
            let expected: [Found; 2] =
                [(b"/a".to_vec(), b"v".to_vec(), 3, 7, 1, 0), (b"/\xff".to_vec(), b"\xff".to_vec(), 3, 7, 1, 0)];
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn named_fields_win_over_the_indexes() {
        let own = r#"{"key":"k","value":"","modified_index":7,"created_index":3,"mod_revision":9,"create_revision":8,"version":2,"lease":4}"#;
        assert_eq!(pairs(&format!("{own}\n"), 99).unwrap(), [(b"k".to_vec(), vec![], 8, 9, 2, 4)]);
        let new = r#"{"key":"k","value":"","mod_revision":9}"#;
        assert_eq!(pairs(&format!("{new}\n"), 99).unwrap(), [(b"k".to_vec(), vec![], 9, 9, 1, 0)]);
    }

    #[test]
    fn malformed_answers_are_named_with_their_line() {
        let good = "{\"key\":\"a\",\"value\":\"\",\"modified_index\":5}\n";
        for (text, expected) in [
            ("", "expected one JSON object"),
            ("nonsense", "expected one JSON object"),
            ("{\"key\":\"a\",\"value\":\"\",\"modified_index\":5}", "truncated: expected a line end after 41 bytes"),
            (r#"{"key":"a","value":"s3cret","modified_index":"s3cret"}"#, "column 53: expected one JSON object"),
            (r#"{"key":"a","value":"s3cret","s3cret":1,"modified_index":5}"#, "column 36: expected one JSON object"),
            (r#"{"key":"a","value":"s3cret","lease":-1,"modified_index":5}"#, "column 38: expected one JSON object"),
            (r#"{"key":"a","value":"s3cret"}"#, "expected `mod_revision`"),
            (r#"{"value":"s3cret","modified_index":5}"#, "expected `key` or `key_base64`, one of the two"),
            (r#"{"key":"a","modified_index":5}"#, "expected `value` or `value_base64`, one of the two"),
            (r#"{"key":"a","key_base64":"YQ==","value":"","modified_index":5}"#, "expected `key` or `key_base64`, one"),
            (r#"{"key":"a","value_base64":"s3cret!","modified_index":5}"#, "expected base64 with padding in `value_"),
            (r#"[{"key":"a"}]"#, "expected one JSON object"),
        ] {
            let end = if expected.starts_with("truncated") { "" } else { "\n" };
            let error = pairs(&format!("{good}{text}{end}"), 16).unwrap_err();
            assert!(error.starts_with("line 2 of its output: "), "{error}");
            assert!(error.contains(expected) && !error.contains("s3cret"), "{text}: {error}");
        }
    }

    #[test]
    fn numbers_that_no_revision_can_be_stay_out_of_range() {
        let found = pairs("{\"key\":\"a\",\"value\":\"\",\"mod_revision\":18446744073709551615}\n", 99).unwrap();
        assert_eq!(found[0].3, i64::MAX);
    }

    proptest::proptest! {
        #[test]
        fn any_node_comes_back(key: Vec<u8>, value: Vec<u8>, piece in 1usize..40) {
            let found = pairs(&line(&key, Some(&value), None), piece).unwrap();
            proptest::prop_assert_eq!(&found[0].0, &key);
            proptest::prop_assert_eq!(&found[0].1, &value);
        }

        #[test]
        fn any_answers(text: String) {
            let _ = pairs(&text, 9);
        }
    }
}
