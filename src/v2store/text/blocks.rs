//! JSON strings in blocks of 64 bytes, with the positions of their escapes as bits of a number.
//!
//! Text with an escape in every few bytes, such as JSON in JSON, takes no test for each byte: a block is compared as a
//! whole, and short texts between escapes are copied with a fixed length. Escapes of two bytes are counted and never looked
//! at one by one. Only for strings that are UTF-8. Must not know which field a string belongs to.

use wide::u8x16;

use super::escape::{Escape, unescape};

/// Bytes of a block.
const BLOCK: usize = 64;
/// Most bytes that one block decodes to: each escape is at least as long as its character, and the last escape may
/// extend beyond the block.
const MAX_DECODED: usize = BLOCK + 4;
/// Bytes that are copied at once.
const WIDE: usize = 16;

/// Totals of a string from its first escape on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Escaped {
    /// Bytes up to the closing quote.
    pub(super) raw_len: usize,
    /// Bytes that the escapes are longer than what they decode to.
    pub(super) saved: usize,
    /// Number of escapes `\ufffd`, and of surrogates without their other half.
    pub(super) replaced: u32,
}

/// Scans a string up to its closing quote. Returns `None` if it has no end, or contains an escape or a control character
/// that JSON does not allow.
pub(super) fn scan(text: &[u8]) -> Option<Escaped> {
    let mut out = Escaped { raw_len: 0, saved: 0, replaced: 0 };
    loop {
        let ahead = text.get(out.raw_len..)?;
        // The padding ends a string, but is not in the text.
        let mut padded = [b'"'; BLOCK];
        let block = Block::of(block_of(ahead, &mut padded));
        let backslashes = block.bits(|bytes| is(bytes, b'\\'));
        let quotes = block.bits(|bytes| is(bytes, b'"'));
        let (escapes, mut next) = whole(starts(backslashes), BLOCK);
        let ends = quotes & !(escapes << 1) | block.bits(|bytes| bytes.min(u8x16::splat(0x1f)).simd_eq(bytes));
        let letters = (escapes & below_lowest(ends)) << 1;
        if letters & !(quotes | backslashes | block.bits(is_letter)) != 0 {
            return None;
        }
        let mut long_ones = letters & block.bits(|bytes| is(bytes, b'u'));
        out.saved += (letters & !long_ones).count_ones() as usize;
        while long_ones != 0 {
            let at = long_ones.trailing_zeros() as usize - 1;
            let escape = long(ahead.get(at..)?)?;
            out.saved += escape.raw_len - escape.char.len_utf8();
            out.replaced += u32::from(escape.replacement);
            // Also the second one of a surrogate pair.
            long_ones = from_bit(long_ones, at + escape.raw_len);
            next = next.max(at + escape.raw_len);
        }
        if ends != 0 {
            let at = ends.trailing_zeros() as usize;
            out.raw_len += at;
            return (ahead.get(at) == Some(&b'"')).then_some(out);
        }
        out.raw_len += next;
    }
}

/// Decodes what [`scan`] accepted into a buffer of exactly the decoded length. Returns whether it fitted.
pub(super) fn decode_into(raw: &[u8], out: &mut [u8]) -> bool {
    let (mut raw, mut done) = (raw, 0);
    while !raw.is_empty() {
        match decode_block(&mut raw, out.get_mut(done..).unwrap_or_default()) {
            Some(decoded) => done += decoded,
            None => return false,
        }
    }
    done == out.len()
}

/// Returns whether what [`scan`] accepted decodes to these bytes.
pub(super) fn decodes_to(raw: &[u8], bytes: &[u8]) -> bool {
    let mut buffer = [0; 512];
    let (mut raw, mut bytes) = (raw, bytes);
    while !raw.is_empty() {
        let mut done = 0;
        while !raw.is_empty() && buffer.len() - done >= MAX_DECODED {
            match decode_block(&mut raw, buffer.get_mut(done..).unwrap_or_default()) {
                Some(decoded) => done += decoded,
                None => return false,
            }
        }
        match buffer.get(..done).and_then(|decoded| bytes.strip_prefix(decoded)) {
            Some(after) => bytes = after,
            None => return false,
        }
    }
    bytes.is_empty()
}

/// Decodes the next block, up to the end of its last escape. Returns the number of decoded bytes, if they fitted; the
/// bytes after them may be changed too.
#[inline]
fn decode_block(raw: &mut &[u8], out: &mut [u8]) -> Option<usize> {
    let ahead = *raw;
    let block = Block::of(block_of(ahead, &mut [0; BLOCK]));
    let (mut escapes, end) = whole(starts(block.bits(|bytes| is(bytes, b'\\'))), ahead.len().min(BLOCK));
    let (mut from, mut done) = (0, 0);
    while escapes != 0 {
        let at = escapes.trailing_zeros() as usize;
        escapes &= escapes - 1;
        put(ahead, from..at, out, &mut done)?;
        match short(ahead.get(at + 1)) {
            0 => {
                let escape = long(ahead.get(at..)?)?;
                let len = escape.char.len_utf8();
                escape.char.encode_utf8(out.get_mut(done..done + len)?);
                done += len;
                from = at + escape.raw_len;
                // Also the second one of a surrogate pair.
                escapes = from_bit(escapes, from);
            }
            byte => {
                *out.get_mut(done)? = byte;
                done += 1;
                from = at + 2;
            }
        }
    }
    if from < end {
        put(ahead, from..end, out, &mut done)?;
        from = end;
    }
    *raw = ahead.get(from..)?;
    Some(done)
}

/// Copies a part of a text. A short part takes one copy of a fixed length, which also changes the bytes after it.
#[inline]
fn put(text: &[u8], part: std::ops::Range<usize>, out: &mut [u8], done: &mut usize) -> Option<()> {
    let len = part.len();
    let wide = text.get(part.start..).and_then(|text| text.first_chunk::<WIDE>());
    match (wide, out.get_mut(*done..).and_then(|out| out.first_chunk_mut::<WIDE>())) {
        (Some(wide), Some(out)) if len <= WIDE => *out = *wide,
        _ => out.get_mut(*done..*done + len)?.copy_from_slice(text.get(part)?),
    }
    *done += len;
    Some(())
}

/// Returns the first 64 bytes, or all of them and the padding after them.
#[inline]
fn block_of<'b>(bytes: &'b [u8], padded: &'b mut [u8; BLOCK]) -> &'b [u8; BLOCK] {
    match bytes.first_chunk() {
        Some(block) => block,
        None => {
            if let Some(head) = padded.get_mut(..bytes.len()) {
                head.copy_from_slice(bytes);
            }
            padded
        }
    }
}

/// A block as the processor compares it.
struct Block([u8x16; BLOCK / 16]);

impl Block {
    #[inline]
    fn of(bytes: &[u8; BLOCK]) -> Block {
        let parts = bytes.as_chunks().0;
        Block(std::array::from_fn(|at| parts.get(at).map_or(u8x16::ZERO, |part| u8x16::new(*part))))
    }

    /// Returns a bit for each byte, the lowest for the first one.
    #[inline]
    fn bits(&self, is: impl Fn(u8x16) -> u8x16) -> u64 {
        self.0.iter().rev().fold(0, |bits, part| bits << 16 | u64::from(is(*part).to_bitmask()))
    }
}

#[inline]
fn is(bytes: u8x16, byte: u8) -> u8x16 {
    bytes.simd_eq(u8x16::splat(byte))
}

/// Whether bytes are second bytes of escapes: one of `/bfnrtu`. Letters that differ in one bit are compared together.
#[inline]
fn is_letter(bytes: u8x16) -> u8x16 {
    let (f_n, b_r, t_u) = (u8x16::splat(b'f' ^ b'n'), u8x16::splat(b'b' ^ b'r'), u8x16::splat(b't' ^ b'u'));
    is(bytes | f_n, b'n') | is(bytes | b_r, b'r') | is(bytes | t_u, b'u') | is(bytes, b'/')
}

/// Returns the backslashes that begin an escape, of those in a block that begins outside of one: the first, the third and
/// so on of each row of them.
#[inline]
fn starts(backslashes: u64) -> u64 {
    const ODD: u64 = 0xaaaa_aaaa_aaaa_aaaa;
    // The carry of a subtraction runs through a row of backslashes, and ends at the byte after it. Its place, odd or even,
    // tells where the row began.
    ((backslashes << 1 | ODD).wrapping_sub(backslashes) ^ ODD) & backslashes
}

/// Returns the escapes of a block without one whose letter is in the next block, and where that next block begins.
#[inline]
fn whole(escapes: u64, end: usize) -> (u64, usize) {
    const LAST: u64 = 1 << (BLOCK - 1);
    if escapes & LAST == 0 { (escapes, end) } else { (escapes ^ LAST, BLOCK - 1) }
}

/// Returns the bits below the lowest one of `bits`; all of them if it has none.
#[inline]
fn below_lowest(bits: u64) -> u64 {
    bits.wrapping_sub(1) & !bits
}

/// Returns the bits from a number on.
#[inline]
fn from_bit(bits: u64, first: usize) -> u64 {
    if first < BLOCK { bits & (u64::MAX << first) } else { 0 }
}

/// Returns the character of an escape of two bytes, by its second one; 0 for another escape.
#[inline]
fn short(letter: Option<&u8>) -> u8 {
    letter.and_then(|letter| SHORT.get(usize::from(*letter))).copied().unwrap_or(0)
}

/// The characters of the escapes of two bytes, by their second byte.
static SHORT: [u8; 256] = table(b"\"\\/bfnrt", b"\"\\/\x08\x0c\n\r\t", 0);

/// The values of hex digits; 16 for other bytes.
static HEX: [u8; 256] = {
    const VALUES: [u8; 22] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 10, 11, 12, 13, 14, 15];
    table(b"0123456789abcdefABCDEF", &VALUES, 16)
};

#[allow(clippy::indexing_slicing, reason = "the compiler evaluates it")]
const fn table<const N: usize>(bytes: &[u8; N], values: &[u8; N], rest: u8) -> [u8; 256] {
    let mut table = [rest; 256];
    let mut at = 0;
    while at < N {
        table[bytes[at] as usize] = values[at];
        at += 1;
    }
    table
}

/// Reads an escape that is not short, from its backslash.
#[inline]
fn long(escape: &[u8]) -> Option<Escape> {
    if let Some([b'\\', b'u', digits @ ..]) = escape.first_chunk::<6>() {
        let [a, b, c, d] = digits.map(|digit| u32::from(HEX.get(usize::from(digit)).copied().unwrap_or(16)));
        let is_hex = (a | b | c | d) < 16;
        if let Some(char) = char::from_u32(a << 12 | b << 8 | c << 4 | d).filter(|_| is_hex) {
            return Some(Escape { char, raw_len: 6, replacement: char == '\u{fffd}' });
        }
    }
    // A surrogate, or no escape.
    unescape(escape).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::agree;
    use crate::v2store::text;

    /// A letter, every kind of escape, then what is no escape, and characters of each length.
    const PARTS: [&str; 33] = [
        "a",
        r#"\""#,
        r"\\",
        r"\/",
        r"\b",
        r"\f",
        r"\n",
        r"\r",
        r"\t",
        r"\u003c",
        r"\u003C",
        r"\u0026",
        r"\u0000",
        r"\u00e4",
        r"\u2028",
        r"\ufffd",
        r"\uFFFD",
        r"\ud83d\ude00",
        r"\uD83D\uDE00",
        r"\ud83d",
        r"\ude00",
        r"\ud83d\u0041",
        r"\ud83d\n",
        r"\u12",
        r"\u12g4",
        r"\x",
        r"\U0041",
        r"\",
        "\n",
        "\u{1f}",
        "\u{e4}",
        "\u{20ac}",
        "\u{1f600}",
    ];

    /// The number of parts from the first one on that are a string.
    const ACCEPTED: usize = 23;

    #[test]
    fn every_part_at_every_place_of_a_block() {
        for part in PARTS {
            for before in 0..140 {
                for (fill, after) in [("x", 0), ("x", 3), ("x", 90), (r"\n", 0), (r"\\", 1), (r"\u003e", 9)] {
                    agree(&format!("{}{part}{}", fill.repeat(before), "y".repeat(after)));
                }
                // The first block begins at the first escape, so that the part may begin at any bit of it.
                for after in [0, 3, 90] {
                    agree(&format!("\\n{}{part}{}", "x".repeat(before), "y".repeat(after)));
                }
            }
        }
    }

    #[test]
    fn a_text_that_ends_anywhere_is_no_string() {
        let text = r#"{\"a\":\"\u003cb\u003e\ud83d\ude00\\\"}\n"#.repeat(6);
        for end in 0..text.len() {
            let text = &text.as_bytes()[..end];
            assert_eq!((text::scan_utf8(text), text::scan(text, true).ok()), (None, None), "{end}");
        }
    }

    #[test]
    fn bits_are_those_of_each_byte() {
        let bytes: [u8; BLOCK] = std::array::from_fn(|at| (at * 37 % 11) as u8);
        for wanted in 0..11 {
            let expected = bytes.iter().rev().fold(0, |bits, byte| bits << 1 | u64::from(*byte == wanted));
            assert_eq!(Block::of(&bytes).bits(|bytes| is(bytes, wanted)), expected);
        }
        for byte in 0..=u8::MAX {
            let letters = Block::of(&[byte; BLOCK]).bits(is_letter);
            assert_eq!(letters, if b"/bfnrtu".contains(&byte) { u64::MAX } else { 0 }, "{byte}");
        }
        assert_eq!((below_lowest(0), below_lowest(1), below_lowest(0b1010_0000)), (u64::MAX, 0, 0b1_1111));
        assert_eq!((from_bit(u64::MAX, 0), from_bit(u64::MAX, 63), from_bit(u64::MAX, 64)), (u64::MAX, 1 << 63, 0));
        assert_eq!((whole(1 << 63 | 5, 64), whole(5, 60)), ((5, 63), (5, 60)));
    }

    /// One backslash after the other.
    fn slow_starts(backslashes: u64) -> u64 {
        let (mut starts, mut at) = (0, 0);
        while at < BLOCK {
            let is_start = backslashes >> at & 1;
            starts |= is_start << at;
            at += 1 + is_start as usize;
        }
        starts
    }

    #[test]
    fn escapes_begin_at_every_other_backslash_of_a_row() {
        for from in 0..BLOCK {
            for to in from..BLOCK {
                let row = u64::MAX >> (BLOCK - 1 - to) & u64::MAX << from;
                for bits in [row, !row, row ^ 1 << (to * 7 % BLOCK), row ^ 0x0101_0101_0101_0101] {
                    assert_eq!(starts(bits), slow_starts(bits), "{bits:b}");
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn both_ways_agree(parts in proptest::collection::vec(0..PARTS.len() + 20, 0..120)) {
            // Most of the parts are letters.
            agree(&parts.iter().map(|at| *PARTS.get(*at).unwrap_or(&"abc")).collect::<String>());
        }

        #[test]
        fn escapes_begin_where_they_begin(bits in proptest::num::u64::ANY, more in proptest::num::u64::ANY) {
            for bits in [bits, bits | more, bits & more] {
                assert_eq!(starts(bits), slow_starts(bits), "{bits:b}");
            }
        }

        #[test]
        fn escapes_of_all_kinds_agree(parts in proptest::collection::vec(0..ACCEPTED, 0..200)) {
            // With a letter of one byte among them, an escape may begin at any bit of a block.
            agree(&parts.iter().map(|at| PARTS[*at]).collect::<String>());
        }
    }
}
