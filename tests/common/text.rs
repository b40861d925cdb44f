//! Bytes in JSON: what Go makes of those that are not UTF-8, and how etcdlift writes them.
//!
//! Shares no code with etcdlift.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// The bytes in a field of a line: a string, or base64 in a field of its own.
pub fn bytes(line: &Value, name: &str) -> Option<Vec<u8>> {
    match (line[name].as_str(), line[format!("{name}_base64")].as_str()) {
        (Some(text), None) => Some(text.as_bytes().to_vec()),
        (None, Some(base64)) => Some(STANDARD.decode(base64).unwrap()),
        (None, None) => None,
        both => panic!("{both:?}"),
    }
}

/// Each byte that is not part of a character becomes a U+FFFD of its own.
pub fn lossy(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '\u{fffd}'));
    }
    text
}
