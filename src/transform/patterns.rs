//! Lists of patterns, of which the first match decides (docs/cli.md, `--include` to `--rules`).
//!
//! A lookup goes through a key component by component, so the time does not depend on the number of prefixes. Many
//! regular expressions are matched together. Must not know what a pattern decides or how it was written.

use std::sync::Arc;

use hashbrown::HashMap;
use regex::bytes::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};

use crate::count;
use crate::error::{Error, Reason, Result};
use crate::options::rules::Pattern;

/// Maximum memory of the regular expressions of one list, in bytes.
const REGEX_LIMIT: usize = 64 << 20;

/// Up to this number, regular expressions are matched one by one, which is faster.
const FEW: usize = 4;

/// A list of patterns. A clone shares it.
#[derive(Debug, Clone, Default)]
pub(super) struct Patterns {
    prefixes: Arc<Prefixes>,
    regexes: Arc<Regexes>,
}

impl Patterns {
    /// Compiles a list.
    ///
    /// # Errors
    /// [`Reason::Usage`] for a regular expression that cannot be parsed, and for regular expressions that take too much
    /// memory.
    pub(super) fn new<'p>(patterns: impl Iterator<Item = &'p Pattern>) -> Result<Patterns> {
        let mut prefixes = Prefixes::default();
        let mut regexes = Vec::new();
        for (at, pattern) in patterns.enumerate() {
            match pattern {
                Pattern::Prefix(prefix) => prefixes.add(prefix.as_bytes(), at),
                Pattern::Regex(text) => regexes.push((at, text.as_str())),
            }
        }
        Ok(Patterns { prefixes: Arc::new(prefixes), regexes: Arc::new(Regexes::new(&regexes)?) })
    }

    /// Returns the position of the first pattern that matches a key.
    pub(super) fn first(&self, key: &[u8]) -> Option<usize> {
        let prefix = self.prefixes.first(key);
        self.regexes.first(key, prefix).or(prefix)
    }

    /// Returns whether a regular expression comes before every prefix that matches a key.
    pub(super) fn regex_decides(&self, key: &[u8]) -> bool {
        let Some(regex) = self.regexes.places.first() else { return false };
        self.prefixes.first(key).is_none_or(|prefix| *regex < prefix)
    }
}

/// Prefixes by their components.
#[derive(Debug)]
pub(super) struct Prefixes {
    nodes: Vec<PrefixNode>,
}

#[derive(Debug, Default)]
struct PrefixNode {
    children: HashMap<Vec<u8>, usize>,
    /// The first prefix that ends here: it matches the key itself and its subtree.
    here: Option<usize>,
    /// The first prefix that ends with a slash after this component: it matches the subtree only.
    below: Option<usize>,
}

impl Default for Prefixes {
    fn default() -> Self {
        Prefixes { nodes: vec![PrefixNode::default()] }
    }
}

impl Prefixes {
    /// Adds a prefix at a position of the list. Of equal ones the first counts.
    pub(super) fn add(&mut self, prefix: &[u8], place: usize) {
        let (path, below) = prefix.strip_suffix(b"/").map_or((prefix, false), |path| (path, true));
        let mut node = 0;
        for name in path.split(|byte| *byte == b'/') {
            let next = self.nodes.len();
            let Some(children) = self.nodes.get_mut(node).map(|node| &mut node.children) else { return };
            node = *children.entry_ref(name).or_insert(next);
            if node == next {
                self.nodes.push(PrefixNode::default());
            }
        }
        if let Some(node) = self.nodes.get_mut(node) {
            (if below { &mut node.below } else { &mut node.here }).get_or_insert(place);
        }
    }

    /// Returns the lowest position of a prefix that matches a key.
    pub(super) fn first(&self, key: &[u8]) -> Option<usize> {
        let mut node = self.nodes.first()?;
        let mut first = None;
        let mut names = key.split(|byte| *byte == b'/').peekable();
        while let Some(name) = names.next() {
            let Some(next) = node.children.get(name).and_then(|at| self.nodes.get(*at)) else { break };
            node = next;
            let below = node.below.filter(|_| names.peek().is_some());
            first = [first, node.here, below].into_iter().flatten().min();
        }
        first
    }
}

/// Regular expressions, with their positions in the list.
#[derive(Debug, Default)]
struct Regexes {
    places: Vec<usize>,
    matcher: Matcher,
}

#[derive(Debug)]
enum Matcher {
    OneByOne(Vec<Regex>),
    Together(RegexSet),
}

impl Default for Matcher {
    fn default() -> Self {
        Matcher::OneByOne(Vec::new())
    }
}

impl Regexes {
    fn new(regexes: &[(usize, &str)]) -> Result<Regexes> {
        let places = regexes.iter().map(|(place, _)| *place).collect();
        if regexes.len() <= FEW {
            let regexes = regexes.iter().map(|(_, text)| regex(text)).collect::<Result<_>>()?;
            return Ok(Regexes { places, matcher: Matcher::OneByOne(regexes) });
        }
        let texts = regexes.iter().map(|(_, text)| text);
        let set = RegexSetBuilder::new(texts.clone()).size_limit(REGEX_LIMIT).build();
        let set = set.map_err(|e| match e {
            regex::Error::CompiledTooBig(limit) => {
                let message = format!(
                    "{} regular expressions of one kind of rule: expected up to {} of compiled code",
                    regexes.len(),
                    count::bytes(limit as u64)
                );
                Error::new(Reason::Usage, message).hint("use fewer regular expressions, or prefixes")
            }
            // The set does not say which expression is wrong.
            e => texts.clone().find_map(|text| regex(text).err()).unwrap_or_else(|| unreadable("", &e)),
        })?;
        Ok(Regexes { places, matcher: Matcher::Together(set) })
    }

    /// Returns the position of the first regular expression before `end` that matches a key.
    fn first(&self, key: &[u8], end: Option<usize>) -> Option<usize> {
        let before = |place: &usize| end.is_none_or(|end| *place < end);
        self.places.first().filter(|first| before(first))?;
        match &self.matcher {
            Matcher::OneByOne(regexes) => {
                let mut before = self.places.iter().zip(regexes).take_while(|(place, _)| before(place));
                before.find(|(_, regex)| regex.is_match(key)).map(|(place, _)| *place)
            }
            Matcher::Together(set) => {
                let first = set.matches(key).iter().next()?;
                self.places.get(first).copied().filter(before)
            }
        }
    }
}

/// Compiles a regular expression.
///
/// # Errors
/// [`Reason::Usage`] if it cannot be parsed or takes too much memory.
pub(super) fn regex(text: &str) -> Result<Regex> {
    RegexBuilder::new(text).build().map_err(|e| unreadable(text, &e))
}

fn unreadable(text: &str, e: &regex::Error) -> Error {
    let e = e.to_string();
    let what = e.lines().last().unwrap_or_default().trim();
    Error::new(Reason::Usage, format!("regular expression {text:?}: {what}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::transform::rules::is_below;

    fn first_of(patterns: &[Pattern], key: &str) -> Option<usize> {
        patterns.iter().position(|pattern| match pattern {
            Pattern::Prefix(prefix) => is_below(prefix.as_bytes(), key.as_bytes()),
            Pattern::Regex(text) => Regex::new(text).unwrap().is_match(key.as_bytes()),
        })
    }

    proptest! {
        #[test]
        fn the_first_that_matches_is_found(
            patterns in proptest::collection::vec((any::<bool>(), "[/ab]{0,5}"), 0..12),
            keys in proptest::collection::vec("[/ab]{0,6}", 1..12),
        ) {
            let pattern = |(regex, text): &(bool, String)| match regex {
                true => Pattern::Regex(text.clone()),
                false => Pattern::Prefix(text.clone()),
            };
            let patterns: Vec<Pattern> = patterns.iter().map(pattern).collect();
            let list = Patterns::new(patterns.iter()).unwrap();
            for key in keys {
                prop_assert_eq!(list.first(key.as_bytes()), first_of(&patterns, &key), "{}", key);
                let decides = patterns.iter().find(|pattern| match pattern {
                    Pattern::Prefix(prefix) => is_below(prefix.as_bytes(), key.as_bytes()),
                    Pattern::Regex(_) => true,
                });
                prop_assert_eq!(list.regex_decides(key.as_bytes()), matches!(decides, Some(Pattern::Regex(_))));
            }
        }
    }

    #[test]
    fn regular_expressions_that_take_too_much_memory_are_refused() {
        let regex = |at| Pattern::Regex(format!("[a-z]{{{}}}x", 2000 + at));
        let error = Patterns::new((0..1000).map(regex).collect::<Vec<_>>().iter()).unwrap_err();
        let expected = "1000 regular expressions of one kind of rule: expected up to 67108864 bytes of compiled code";
        assert!(error.reason() == Reason::Usage && error.to_string().contains(expected), "{error}");
    }

    #[test]
    fn a_wrong_regular_expression_among_many_is_named() {
        let regex = |at| Pattern::Regex(if at == 7 { "(".into() } else { format!("a{at}") });
        let error = Patterns::new((0..9).map(regex).collect::<Vec<_>>().iter()).unwrap_err();
        assert!(error.to_string().contains("regular expression \"(\": "), "{error}");
    }
}
