//! The lines of a ledger: what became of one v2 node (CLI.md, `--ledger`).
//!
//! One JSON object a line, in this order: what is written, by revision; keys that are not, with the reason; directories; nodes
//! of the snapshot that a later sibling of the same name stands in for.
//! Names that are no UTF-8 stand in base64. Values never stand in it, only their SHA-256.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

/// What became of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
pub struct Line {
    /// The v2 key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The v2 key in base64, where it is no UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_base64: Option<String>,
    /// It is a directory.
    #[serde(skip_serializing_if = "is_false")]
    pub dir: bool,
    /// It is none: a pair that a transformer made of no v2 key. It has no path and no indexes.
    #[serde(skip_serializing_if = "is_false")]
    pub added: bool,
    /// The v2 index that made it.
    pub created_index: u64,
    /// The v2 index that last changed it.
    pub modified_index: u64,
    /// When it expires by its own TTL, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration: Option<String>,
    /// Bytes of its value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_bytes: Option<u64>,
    /// SHA-256 of its value, in lower-case hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_sha256: Option<String>,
    /// Where it went.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub written: Option<Written>,
    /// Why it is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The rule that leaves it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// The v3 pair of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
pub struct Written {
    /// The v3 key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The v3 key in base64, where it is no UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// Its main revision.
    pub revision: i64,
    /// Its sub revision.
    #[serde(skip_serializing_if = "is_zero")]
    pub sub_revision: i64,
    /// The lease that it is attached to; 0 for none.
    #[serde(skip_serializing_if = "is_zero")]
    pub lease: i64,
}

/// Bytes as text, or in base64 where they are no UTF-8: one of the two.
pub fn text_or_base64(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_string()), None),
        Err(_) => (None, Some(STANDARD.encode(bytes))),
    }
}

/// What a line begins with; its name may be longer than what is read here.
const BEGINNINGS: [&[u8]; 3] = [br#"{"path":""#, br#"{"path_base64":""#, br#"{"added":true,"#];

/// Whether a file begins as a ledger does.
pub fn is_ledger(path: &Path) -> bool {
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
