//! v2 permissions as v3 ranges, through the same rules as the keys (docs/formats.md 7.1, 7.2; docs/cli.md, `--include`
//! to `--rules`).
//!
//! A v2 pattern is a set of keys: one key, or all keys with a prefix. Rules cut that set into pieces on which each rule
//! acts uniformly. Each included piece is renamed as a whole, and is an interval again. Knows patterns, rules and
//! intervals. Must not know roles or users.

use std::collections::HashSet;

use crate::error::Result;
use crate::options::Rules;
use crate::options::rules::{Choice, Pattern};
use crate::transform::rules::KeyRules;

/// A half-open interval of keys; without an end it is unbounded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// The first key.
    pub start: Vec<u8>,
    /// The first key after it.
    pub end: Option<Vec<u8>>,
}

/// The v3 form of one pattern.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// The v3 keys, in order; no ranges overlap or touch.
    pub ranges: Vec<Range>,
    /// Whether a part of the pattern is left out, with its keys.
    pub cut: bool,
}

/// The reason why a pattern has no image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoImage {
    /// No v2 key can match it.
    MatchesNothing,
    /// A rule with a regular expression acts on a part of its keys, so they are not an interval.
    NoInterval,
    /// The rules cut it and the patterns before it into too many pieces.
    TooMany,
}

/// Maximum number of pieces for all patterns; 16 more for each pattern and for each end of a rule.
const PIECES: usize = 200_000;

/// The effect of the rules on sets of keys.
#[derive(Debug)]
pub struct KeySets<'r> {
    rules: &'r Rules,
    keys: KeyRules,
    /// The keys where the effect of a rule begins or ends, sorted.
    cuts: Vec<Vec<u8>>,
    /// The starts of ranges without any v2 key, because a v2 key has no two slashes in a row.
    holes: HashSet<Vec<u8>>,
    /// Number of pieces that may still be created.
    left: usize,
}

impl<'r> KeySets<'r> {
    /// Prepares rules.
    ///
    /// # Errors
    /// Those of [`KeyRules::new`].
    pub fn new(rules: &'r Rules) -> Result<Self> {
        let chosen = rules.choose.iter().map(|choice| match choice {
            Choice::Include(pattern) | Choice::Exclude(pattern) => pattern,
        });
        let patterns = chosen.chain(rules.rename.iter().map(|rename| &rename.from));
        let mut cuts = Vec::new();
        let mut holes = HashSet::new();
        for rename in &rules.rename {
            // A character other than a slash follows this slash. If the new name has no slash in its place, the range
            // must express that, or it would cover other keys too.
            if let Pattern::Prefix(prefix) = &rename.from
                && prefix.ends_with('/')
                && !rename.to.ends_with('/')
            {
                let ends = ["", "\0", "/", "0"].map(|end| format!("{prefix}{end}").into_bytes());
                let [nothing, something, slash, other] = ends;
                cuts.extend([something, slash.clone(), other]);
                holes.extend([nothing, slash]);
            }
        }
        for pattern in patterns {
            let Pattern::Prefix(prefix) = pattern else { continue };
            let prefix = prefix.as_bytes();
            cuts.push(prefix.to_vec());
            if prefix.ends_with(b"/") {
                cuts.extend(successor(prefix));
            } else {
                cuts.extend([&b"\0"[..], b"/", b"0"].map(|end| [prefix, end].concat()));
            }
        }
        cuts.sort_unstable();
        cuts.dedup();
        let left = PIECES.saturating_add(cuts.len().saturating_mul(16));
        Ok(KeySets { rules, keys: KeyRules::new(rules)?, cuts, holes, left })
    }

    /// Returns the v3 keys of the v2 keys that a pattern matches.
    ///
    /// # Errors
    /// The reason why no key matches, or why ranges cannot express the keys.
    pub fn image(&mut self, pattern: &[u8]) -> Result<Image, NoImage> {
        let whole = matched(pattern).ok_or(NoImage::MatchesNothing)?;
        if self.rules.choose.is_empty() && !self.rules.rename_keys() {
            let everything = Range { start: Vec::new(), end: None };
            return Ok(Image { ranges: vec![if pattern == b"*" { everything } else { whole }], cut: false });
        }
        let mut image = Image::default();
        let left = (self.left + 16).checked_sub(self.cuts_inside(&whole).len() + 1).ok_or(NoImage::TooMany)?;
        self.left = left;
        for piece in self.pieces(&whole) {
            if self.holes.contains(&piece.start) {
                continue;
            }
            match self.piece(&piece)? {
                Some(range) => image.ranges.push(range),
                None => image.cut = true,
            }
        }
        image.ranges = joined(std::mem::take(&mut image.ranges));
        Ok(image)
    }

    /// Cuts a range at every key where the effect of a rule begins or ends.
    fn pieces(&self, whole: &Range) -> Vec<Range> {
        let inside = self.cuts_inside(whole);
        let mut pieces = Vec::new();
        let mut start = whole.start.clone();
        for cut in inside {
            pieces.push(Range { start, end: Some(cut.clone()) });
            start = cut.clone();
        }
        pieces.push(Range { start, end: whole.end.clone() });
        pieces
    }

    fn cuts_inside(&self, whole: &Range) -> &[Vec<u8>] {
        let first = self.cuts.partition_point(|cut| *cut <= whole.start);
        let end = whole.end.as_ref().map_or(self.cuts.len(), |end| self.cuts.partition_point(|cut| cut < end));
        self.cuts.get(first..end.max(first)).unwrap_or_default()
    }

    /// Returns the image of a piece; `None` if it is left out. If prefixes decide, its first key represents the whole
    /// piece.
    fn piece(&mut self, piece: &Range) -> Result<Option<Range>, NoImage> {
        let key = &piece.start;
        let one = piece.is_one_key();
        if !one && self.keys.regex_chooses(key) {
            return Err(NoImage::NoInterval);
        }
        if self.keys.excluded(key).is_some() {
            return Ok(None);
        }
        if !one && self.keys.regex_renames(key) {
            return Err(NoImage::NoInterval);
        }
        let Some(renamed) = self.keys.rename(key) else { return Ok(Some(piece.clone())) };
        let start = renamed.apply(key);
        if one {
            // No key can have the empty name, and v3 would read it as the key of one zero byte.
            let named = !start.is_empty();
            return Ok(named.then(|| Range { end: Some([&start[..], b"\0"].concat()), start }));
        }
        // The replaced part ends before the first byte in which keys of the piece differ, or directly after it. In the
        // second case the piece is everything with that prefix.
        let shared = key.get(..renamed.skip).unwrap_or_default();
        let end = match &piece.end {
            Some(end) if end.starts_with(shared) => Some(renamed.apply(end)),
            _ => successor(&renamed.prefix),
        };
        Ok(Some(Range { start, end }))
    }
}

impl Range {
    /// Returns whether it contains one key only.
    pub fn is_one_key(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end.split_last() == Some((&0, &self.start)))
    }

    /// Returns whether it contains this key.
    pub fn contains(&self, key: &[u8]) -> bool {
        *key >= *self.start && self.end.as_ref().is_none_or(|end| *key < **end)
    }
}

/// Returns the v2 keys that a pattern matches; all of them begin with a slash. Returns `None` if it can match none.
pub fn matched(pattern: &[u8]) -> Option<Range> {
    let Some(prefix) = pattern.strip_suffix(b"*") else {
        let is_key = pattern.first() == Some(&b'/');
        return is_key.then(|| Range { start: pattern.to_vec(), end: Some([pattern, b"\0"].concat()) });
    };
    let prefix = if prefix.is_empty() { b"/" } else { prefix };
    (prefix.first() == Some(&b'/')).then(|| Range { start: prefix.to_vec(), end: successor(prefix) })
}

/// Returns the first key after all keys with this prefix; `None` if no key comes after them.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut out = prefix.get(..=last)?.to_vec();
    *out.last_mut()? += 1;
    Some(out)
}

/// Sorts ranges and joins those that touch or overlap.
pub(super) fn joined(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut out: Vec<Range> = Vec::new();
    for range in ranges {
        match out.last_mut() {
            Some(last) if last.end.as_ref().is_none_or(|end| range.start <= *end) => {
                let longer = match (&last.end, &range.end) {
                    (Some(a), Some(b)) => b > a,
                    (Some(_), None) => true,
                    (None, _) => false,
                };
                if longer {
                    last.end = range.end;
                }
            }
            _ => out.push(range),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::options::rules::Rename;

    fn range(start: &str, end: &str) -> Range {
        Range { start: start.into(), end: (end != "*").then(|| end.into()) }
    }

    fn rules(choose: &[(&str, &str)], rename: &[(&str, &str)], strip_leading_slash: bool) -> Rules {
        let pattern = |text: &str| match text.strip_prefix('~') {
            Some(regex) => Pattern::Regex(regex.into()),
            None => Pattern::Prefix(text.into()),
        };
        let choice = |(word, text): &(&str, &str)| match *word {
            "+" => Choice::Include(pattern(text)),
            _ => Choice::Exclude(pattern(text)),
        };
        Rules {
            choose: choose.iter().map(choice).collect(),
            rename: rename.iter().map(|(from, to)| Rename { from: pattern(from), to: (*to).into() }).collect(),
            strip_leading_slash,
            ..Rules::default()
        }
    }

    fn image(rules: &Rules, pattern: &str) -> Result<Image, NoImage> {
        KeySets::new(rules).unwrap().image(pattern.as_bytes())
    }

    /// Roles times rules would be too many pieces: refused before they are built.
    #[test]
    fn pieces_are_bounded() {
        let rename = |n: usize| Rename { from: Pattern::Prefix(format!("/k{n:04}/")), to: format!("/r{n:04}/") };
        let rules = Rules { rename: (0..1000).map(rename).collect(), ..Rules::default() };
        let mut sets = KeySets::new(&rules).unwrap();
        let images: Vec<_> = (0..1000).map(|_| sets.image(b"/*").map(|image| image.ranges.len())).collect();
        let made = images.iter().take_while(|image| image.is_ok()).count();
        assert!((50..500).contains(&made), "{made}");
        assert_eq!(images.last(), Some(&Err(NoImage::TooMany)));
        // A pattern that no rule cuts is still accepted.
        assert!(sets.image(b"/other/*").is_ok());
    }

    #[test]
    fn without_rules_a_pattern_is_one_range() {
        let none = Rules::default();
        for (pattern, start, end) in [
            ("/a", "/a", "/a\0"),
            ("/a*", "/a", "/b"),
            ("/a/*", "/a/", "/a0"),
            ("/*", "/", "0"),
            ("*", "", "*"),
            ("/a*b", "/a*b", "/a*b\0"),
            ("/a**", "/a*", "/a+"),
        ] {
            assert_eq!(image(&none, pattern).unwrap().ranges, [range(start, end)], "{pattern}");
        }
        for nothing in ["", "a", "a*"] {
            assert_eq!(image(&none, nothing), Err(NoImage::MatchesNothing), "{nothing}");
        }
    }

    #[test]
    fn a_range_is_split_where_a_rule_cuts_it() {
        let map = rules(&[], &[("/a/b", "/x")], false);
        let found = image(&map, "/a*").unwrap();
        assert_eq!(
            found.ranges,
            [
                range("/a", "/a/b"),
                range("/a/b\0", "/a/b/"),
                range("/a/b0", "/b"),
                range("/x", "/x\0"),
                range("/x/", "/x0")
            ]
        );
        assert!(!found.cut);
        let excluded = image(&rules(&[("-", "/a/b")], &[], false), "/a/*").unwrap();
        assert_eq!(excluded.ranges, [range("/a/", "/a/b"), range("/a/b\0", "/a/b/"), range("/a/b0", "/a0")]);
        assert!(excluded.cut);
        let gone = image(&rules(&[("+", "/c")], &[], false), "/a/*").unwrap();
        assert_eq!((gone.ranges.len(), gone.cut), (0, true));
    }

    #[test]
    fn stripping_can_open_an_end() {
        let strip = rules(&[], &[], true);
        assert_eq!(image(&strip, "/*").unwrap().ranges, [range("", "*")]);
        assert_eq!(image(&strip, "*").unwrap().ranges, [range("", "*")]);
        assert_eq!(image(&strip, "/a/*").unwrap().ranges, [range("a/", "a0")]);
        assert_eq!(image(&strip, "/a").unwrap().ranges, [range("a", "a\0")]);
        let everything = rules(&[], &[("/", "/p/")], false);
        assert_eq!(image(&everything, "/*").unwrap().ranges, [range("/p/", "/p0")]);
    }

    #[test]
    fn text_after_a_slash_begins_with_none() {
        let bare = image(&rules(&[], &[("/ab/", "")], false), "/ab/*").unwrap();
        assert_eq!(bare.ranges, [range("\0", "/"), range("0", "*")]);
        let glued = image(&rules(&[], &[("/ab/", "/x")], false), "/ab/*").unwrap();
        assert_eq!(glued.ranges, [range("/x\0", "/x/"), range("/x0", "/y")]);
        assert!(!glued.cut);
    }

    #[test]
    fn the_empty_name_is_no_right() {
        let gone = image(&rules(&[], &[("/a", "")], false), "/a").unwrap();
        assert_eq!(gone, Image { ranges: Vec::new(), cut: true });
        assert_eq!(image(&rules(&[], &[], true), "/").unwrap().ranges, []);
        let below = image(&rules(&[], &[("/a", "")], true), "/a*").unwrap().ranges;
        assert!(below.iter().any(|range| range.contains(b"x")), "{below:?}");
    }

    #[test]
    fn ends_without_a_key_after_them_are_open() {
        assert_eq!(successor(b""), None);
        assert_eq!(successor(b"\xff\xff"), None);
        assert_eq!(successor(b"a\xff"), Some(b"b".to_vec()));
        let found = KeySets::new(&rules(&[], &[("/a", "\u{0}")], false)).unwrap().image(b"/a/*").unwrap();
        assert_eq!(found.ranges, [range("\u{0}/", "\u{0}0")]);
    }

    #[test]
    fn a_regular_expression_has_an_image_of_single_keys_only() {
        let regex = rules(&[], &[("/safe", "/s"), ("~/v([0-9])", "/version$1")], false);
        assert_eq!(image(&regex, "/a/*"), Err(NoImage::NoInterval));
        assert_eq!(image(&regex, "/a/v7").unwrap().ranges, [range("/a/version7", "/a/version7\0")]);
        assert_eq!(image(&regex, "/safe/*").unwrap().ranges, [range("/s/", "/s0")]);
        let left_out = rules(&[("-", "/b")], &[("~x", "y")], false);
        assert_eq!(image(&left_out, "/b/*").unwrap(), Image { ranges: Vec::new(), cut: true });
        assert_eq!(image(&left_out, "/a/*"), Err(NoImage::NoInterval));
        assert_eq!(image(&rules(&[("-", "~x")], &[], false), "/a*"), Err(NoImage::NoInterval));
    }

    /// Returns all clean v2 keys of up to three components over a small alphabet.
    fn keys() -> Vec<Vec<u8>> {
        let names = ["a", "b", "ab", "a!", "a0"];
        let mut keys = Vec::new();
        for one in names {
            keys.push(format!("/{one}"));
            for two in names {
                keys.push(format!("/{one}/{two}"));
                keys.extend(names.map(|three| format!("/{one}/{two}/{three}")));
            }
        }
        keys.into_iter().map(String::into_bytes).collect()
    }

    fn v2_allows(pattern: &str, key: &[u8]) -> bool {
        match pattern.strip_suffix('*') {
            Some(prefix) => key.starts_with(prefix.as_bytes()),
            None => key == pattern.as_bytes(),
        }
    }

    fn is_clean(key: &[u8]) -> bool {
        key.starts_with(b"/") && !key.ends_with(b"/") && !key.windows(2).any(|pair| pair == b"//")
    }

    proptest! {
        /// A v3 range allows a key if and only if the pattern allowed it in v2.
        #[test]
        fn an_image_allows_what_its_pattern_allowed(
            choose in proptest::collection::vec(("[+-]", "/(a|b|ab)?(/[ab]?)?"), 0..3),
            rename in proptest::collection::vec(("/(a|b|ab)(/[ab]?)?", "(/[xab]/?)?"), 0..3),
            strip: bool,
            pattern in "(/(a|b|ab|a0)?(/(a|b|ab)){0,2}/?\\*?|\\*)",
        ) {
            prop_assume!(choose.iter().all(|(_, prefix)| !prefix.is_empty()));
            let borrowed = |pairs: &[(String, String)]| -> Vec<(String, String)> { pairs.to_vec() };
            let (choose, rename) = (borrowed(&choose), borrowed(&rename));
            let choose: Vec<_> = choose.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
            let rename: Vec<_> = rename.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
            let rules = rules(&choose, &rename, strip);
            let image = image(&rules, &pattern).unwrap();
            let mut keys_of = KeyRules::new(&rules).unwrap();
            let mut new_name = |key: &[u8]| -> Option<Vec<u8>> {
                let kept = keys_of.excluded(key).is_none();
                kept.then(|| keys_of.rename(key).map_or_else(|| key.to_vec(), |new| new.apply(key)))
            };
            let images: std::collections::BTreeSet<_> = keys().iter().filter_map(|key| new_name(key)).collect();
            // Names with an extra slash come from a useless rename; `widening` checks them.
            for new in images.iter().filter(|new| is_clean(new) || is_clean(&[b"/", &new[..]].concat())) {
                // Every v2 key, present or not, that would get this name.
                let unstripped = [new.clone(), [b"/", &new[..]].concat()];
                let mut old: Vec<Vec<u8>> = unstripped.to_vec();
                for (from, to) in &rename {
                    let rests = unstripped.iter().filter_map(|full| full.strip_prefix(to.as_bytes()));
                    old.extend(rests.map(|rest| [from.as_bytes(), rest].concat()));
                }
                let expected = old.iter().any(|key| {
                    is_clean(key) && new_name(key).as_ref() == Some(new) && v2_allows(&pattern, key)
                });
                let allowed = image.ranges.iter().any(|range| range.contains(new));
                prop_assert_eq!(allowed, expected, "{:?} {:?}", new, image);
            }
            prop_assert!(image.ranges.windows(2).all(|pair| pair[0].end.as_ref().is_some_and(|end| *end < pair[1].start)));
        }
    }
}
