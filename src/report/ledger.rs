//! The lines of a ledger: what became of each v2 node (docs/cli.md, `--ledger`).
//!
//! Each line is a JSON object. The order: written keys by revision; keys that are left out, with the reason;
//! directories; nodes of the snapshot that a later sibling of the same name replaces.
//! Names that are not UTF-8 are in base64. Values are never in it, only their sha256. Must not know how lines are made.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::words::words;

/// A line of the ledger: a node, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
pub struct Line {
    /// The v2 key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The v2 key in base64, if it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_base64: Option<String>,
    /// Whether the node is a directory.
    #[serde(skip_serializing_if = "is_false")]
    pub dir: bool,
    /// Whether a transformer added the pair. Then it belongs to no v2 node and has no path and no indexes.
    #[serde(skip_serializing_if = "is_false")]
    pub added: bool,
    /// The v2 created index.
    pub created_index: u64,
    /// The v2 modified index.
    pub modified_index: u64,
    /// The time when it expires by its own TTL, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration: Option<String>,
    /// The size of its value, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_bytes: Option<u64>,
    /// The sha256 of its value, in lower-case hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_sha256: Option<String>,
    /// The v3 pair, if it is written.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub written: Option<Written>,
    /// The reason why it is not written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<NotWritten>,
    /// The rule that excludes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

words! {
    /// The reason why a node is not written.
    pub enum NotWritten {
        /// `--hidden drop` leaves it out.
        Hidden = "hidden",
        /// The rule of `rule` excludes it.
        Excluded = "excluded",
        /// Includes are given, and none matches it.
        NotIncluded = "not-included",
        /// It has expired.
        Expired = "expired",
        /// A `--ttl` policy drops it.
        Ttl = "ttl",
        /// The transformer returned no pair for it.
        Transformer = "transformer",
        /// v3 has a key of that name, which `--on-conflict keep-v3` preserves.
        KeptV3 = "kept-v3",
        /// `--existing keep-v3` leaves v2 out.
        V3Only = "v3-only",
        /// A directory, which v3 does not have.
        Directory = "directory",
        /// A later node of the same name replaces it in the snapshot.
        DuplicateName = "duplicate-name",
    }
}

/// The v3 pair of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
pub struct Written {
    /// The v3 key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The v3 key in base64, if it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// The main revision.
    pub revision: i64,
    /// The sub revision.
    #[serde(skip_serializing_if = "is_zero")]
    pub sub_revision: i64,
    /// The ID of its lease; 0 for none.
    #[serde(skip_serializing_if = "is_zero")]
    pub lease: i64,
}

/// Returns bytes as text, or in base64 if they are not UTF-8: exactly one of the two.
pub(crate) fn text_or_base64(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_string()), None),
        Err(_) => (None, Some(STANDARD.encode(bytes))),
    }
}

/// The possible starts of a line. The name that follows may be longer than the bytes that [`is_ledger`] reads.
const BEGINNINGS: [&[u8]; 3] = [br#"{"path":""#, br#"{"path_base64":""#, br#"{"added":true,"#];

/// Returns whether a file starts like a ledger.
pub(crate) fn is_ledger(path: &Path) -> bool {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(64).read_to_end(&mut start));
    read.is_ok() && BEGINNINGS.iter().any(|beginning| start.starts_with(beginning))
}

fn is_false(flag: &bool) -> bool {
    !flag
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added() -> Line {
        Line { added: true, written: Some(Written::default()), ..Line::default() }
    }

    #[test]
    fn a_line_holds_what_there_is_to_say() {
        let line = Line {
            path: Some("/a".into()),
            created_index: 3,
            modified_index: 4,
            written: Some(Written { key_base64: Some("/w==".into()), revision: 4, lease: 1, ..Written::default() }),
            ..Line::default()
        };
        let json = serde_json::to_string(&line).unwrap();
        let expected =
            r#"{"path":"/a","created_index":3,"modified_index":4,"key_base64":"/w==","revision":4,"lease":1}"#;
        assert_eq!(json, expected);
        for line in [&line, &Line { path: None, path_base64: Some("/w==".into()), ..line.clone() }, &added()] {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), serde_json::to_vec(line).unwrap()).unwrap();
            assert!(is_ledger(file.path()), "{line:?}");
        }
        assert!(!is_ledger(Path::new("Cargo.toml")) && !is_ledger(Path::new("missing")));
        assert_eq!(text_or_base64(b"\xff"), (None, Some("/w==".into())));
        assert_eq!(text_or_base64("ä".as_bytes()), (Some("ä".into()), None));
    }
}
