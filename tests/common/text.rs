//! What Go makes of bytes that are not UTF-8 when it writes JSON.

/// Each byte that is not part of a character becomes a U+FFFD of its own.
pub fn lossy(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '\u{fffd}'));
    }
    text
}
