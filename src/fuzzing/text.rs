//! JSON strings: the scan and the decoder of whole blocks agree with those of one escape after another, and with serde_json.
//!
//! Must not know the store.

use crate::v2store::text::{decode_any, decode_into, decodes_to, scan, scan_utf8};

/// Reads any bytes as the rest of a string after its opening quote: a row of letters, and then a part, several times. The
/// first two bytes are their numbers, so that each part is at each place of a block soon.
pub fn text(data: &[u8]) {
    let [letters, times, part @ ..] = data else { return };
    let Ok(part) = std::str::from_utf8(part) else { return };
    agree(&("x".repeat(usize::from(*letters)) + &part.repeat(usize::from(times % 8) + 1)));
}

/// Compares the ways to read this text, which a quote ends. Only serde_json refuses a surrogate without its other half.
pub fn agree(text: &str) {
    let json = format!("{text}\"");
    let (fast, general) = (scan_utf8(json.as_bytes()), scan(json.as_bytes(), true));
    assert_eq!(fast, general.ok(), "{json}");
    let Some(scanned) = fast else {
        assert!(!serde_reads(&json), "{json}");
        return;
    };
    let raw = &json.as_bytes()[..scanned.raw_len];
    let mut out = vec![0; scanned.len];
    assert!(decode_any(raw, &mut out), "{json}");
    match serde_json::from_str::<String>(&format!("\"{}\"", &json[..scanned.raw_len])) {
        Ok(oracle) => assert_eq!(oracle.as_bytes(), out),
        Err(e) => assert!(scanned.replaced > 0, "{json}: {e}"),
    }
    // Longer buffers, as each is a part of a page.
    for (len, fits) in [(scanned.len.wrapping_sub(1), false), (scanned.len, true), (scanned.len + 1, false)] {
        let mut page = vec![0xee; scanned.len + 40];
        if let Some(part) = page.get_mut(7..len.saturating_add(7)) {
            assert_eq!(decode_into(raw, part), fits, "{json}");
            assert!(!fits || part == out, "{json}");
            assert!(page[..7].iter().all(|byte| *byte == 0xee), "{json}");
            assert!(page[7 + len..].iter().all(|byte| *byte == 0xee), "{json}");
        }
    }
    assert!(decodes_to(raw, &out), "{json}");
    assert!(!decodes_to(raw, &[&out[..], b"x"].concat()), "{json}");
    for at in (0..out.len()).step_by(out.len() / 5 + 1) {
        assert!(!decodes_to(raw, &out[..at]), "{json}");
        out[at] ^= 1;
        assert!(!decodes_to(raw, &out), "{json}");
        out[at] ^= 1;
    }
}

/// Whether serde_json reads a string that begins here. What follows its closing quote does not matter.
fn serde_reads(json: &str) -> bool {
    let text = format!("\"{json}");
    serde_json::Deserializer::from_str(&text).into_iter::<String>().next().is_some_and(|read| read.is_ok())
}
