//! Names and values for the random client: plain ones, and bytes that are hard to carry.
//!
//! These are control characters, quotes, hidden names, and bytes that are not UTF-8.

use crate::common::random::Random;

const PLAIN: [&str; 14] = ["a", "ab", "abc", "a-b", "a.b", "a b", "a0", "A", "b", "conf", "queue", "z", "10", "9"];

/// Every one of them is UTF-8.
const ODD: [&str; 34] = [
    "\u{1f600}",
    "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}",
    "e\u{301}",
    "\u{e9}",
    "\"q\"",
    "it's",
    "<a>&amp;",
    "\\",
    "\\u0041",
    "\0",
    "nul\0in",
    "\n",
    "line\r\nend",
    "\t",
    "\u{1}\u{1f}",
    "\u{7f}",
    "\u{85}",
    "\u{2028}",
    "\u{2029}x",
    "\u{feff}",
    "\u{fffd}",
    "\u{fffe}\u{ffff}",
    "\u{10ffff}",
    "%",
    "%2F",
    "%00",
    "100%",
    "...",
    "a=b&c=d;e",
    "?x#y",
    "+",
    "~:@,$*!()[]{}|^`",
    " ",
    "\u{4e2d}\u{6587}",
];

const HIDDEN: [&str; 7] = ["_", "_a", "_h", "__", "_hidden dir", "_\u{1f648}", "_0"];

/// None of them is UTF-8.
const BAD: [&[u8]; 14] = [
    b"\xff",
    b"a\xff",
    b"a\xfe",
    b"\xff\xfe",
    b"\x80",
    b"\xc3",
    b"\xc3(",
    b"\xe2\x82",
    b"\xe2\x82b",
    b"\xf0\x9f\x98",
    b"\xed\xa0\x80",
    b"\xc0\xaf",
    b"\xf4\x90\x80\x80",
    b"_\xff",
];

/// What one client has to say: few names, so that requests meet.
#[derive(Debug)]
pub(super) struct Words {
    names: Vec<Vec<u8>>,
    /// Whether it sends bytes that are not UTF-8.
    bad: bool,
}

impl Words {
    pub(super) fn new(random: &mut Random) -> Self {
        let bad = random.chance(35);
        let texts = [random.some(&PLAIN, 7), random.some(&ODD, 5), random.some(&HIDDEN, 3)].concat();
        let mut names: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
        if bad {
            names.extend(random.some(&BAD, 4).iter().map(|bytes| bytes.to_vec()));
        }
        if random.chance(20) {
            names.push(vec![b'n'; random.between(200, 1000)]);
        }
        Self { names, bad }
    }

    pub(super) fn name(&self, random: &mut Random) -> Vec<u8> {
        random.pick(&self.names)
    }

    pub(super) fn value(&self, random: &mut Random) -> Vec<u8> {
        match random.below(100) {
            0..8 => Vec::new(),
            8..12 => vec![b"xyz\n\0"[random.below(5)]; random.between(5_000, 60_000)],
            12..24 if self.bad => [random.pick(&BAD), &b"-"[..], random.pick(&BAD)].concat(),
            12..40 => [random.pick(&ODD), random.pick(&PLAIN), random.pick(&ODD)].concat().into_bytes(),
            _ => format!("value {}", random.below(30)).into_bytes(),
        }
    }
}
