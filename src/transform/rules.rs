//! Rules for keys: which are included, their new names, which values are decoded (docs/cli.md, `--include` to
//! `--rules`).
//!
//! Every decision depends on a v2 key alone, and the first matching rule wins. A rename is stored as the length to
//! remove and the prefix to add, so new keys are built only when they are written. Must not know nodes or policies.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use regex::bytes::Regex;

use crate::error::Result;
use crate::options::rules::{Choice, Pattern, Rename};
use crate::options::{Rules, TtlPolicy, TtlRule};
use crate::transform::patterns::{Patterns, Prefixes, regex};

/// Compiled rules. Counts the matches of each.
#[derive(Debug, Clone, Default)]
pub struct KeyRules {
    choose: Matcher,
    /// For each include or exclude, whether it includes.
    includes: Arc<[bool]>,
    with_include: bool,
    rename: Matcher,
    renames: Arc<[Renaming]>,
    strip_leading_slash: bool,
    decode: Matcher,
}

/// Patterns of one kind of rule, with the number of times that each was the first match.
#[derive(Debug, Clone, Default)]
struct Matcher {
    patterns: Patterns,
    /// The text of each rule, for messages.
    texts: Arc<[String]>,
    hits: Vec<u64>,
}

/// The effect of a rename.
#[derive(Debug)]
enum Renaming {
    Prefix {
        len: usize,
        to: Box<[u8]>,
    },
    /// Compiled at the first match: the pattern is known to be valid.
    Regex {
        text: String,
        regex: OnceLock<Option<Regex>>,
        to: Box<[u8]>,
    },
}

/// The name of a key: `prefix`, then the v2 key from byte `skip` on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Renamed {
    /// Number of bytes of the v2 key to remove.
    pub skip: usize,
    /// The bytes in their place.
    pub prefix: Box<[u8]>,
}

impl KeyRules {
    /// Compiles rules.
    ///
    /// # Errors
    /// [`Reason::Usage`](crate::error::Reason::Usage) for a regular expression that cannot be parsed.
    pub fn new(rules: &Rules) -> Result<KeyRules> {
        let includes: Arc<[bool]> = rules.choose.iter().map(|choice| matches!(choice, Choice::Include(_))).collect();
        Ok(KeyRules {
            choose: Matcher::new(rules.choose.iter().map(of_choice))?,
            with_include: includes.contains(&true),
            includes,
            rename: Matcher::new(rules.rename.iter().map(|rename| ("map", &rename.from)))?,
            renames: rules.rename.iter().map(Renaming::new).collect(),
            strip_leading_slash: rules.strip_leading_slash,
            decode: Matcher::new(rules.values.iter().map(|value| ("decode", &value.of)))?,
        })
    }

    /// Returns why the key is left out: the position of the rule among includes and excludes, or an inner `None` if no
    /// include matches it. Returns `None` if it is included.
    pub fn excluded(&mut self, key: &[u8]) -> Option<Option<u32>> {
        match self.choose.first(key) {
            Some(at) if self.includes.get(at) == Some(&true) => None,
            Some(at) => Some(u32::try_from(at).ok()),
            None => self.with_include.then_some(None),
        }
    }

    /// Returns whether any rule looks at names.
    pub(super) fn reads_names(&self) -> bool {
        !self.choose.texts.is_empty() || self.with_include || self.renames() || self.decodes()
    }

    /// Returns the text of an include or exclude.
    pub fn choice_text(&self, at: u32) -> &str {
        self.choose.texts.get(at as usize).map_or("", String::as_str)
    }

    /// Returns whether a regular expression is the first rule that decides if keys like this one are included.
    pub(super) fn regex_chooses(&self, key: &[u8]) -> bool {
        self.choose.patterns.regex_decides(key)
    }

    /// Returns whether a regular expression is the first rule that decides the names of keys like this one.
    pub(super) fn regex_renames(&self, key: &[u8]) -> bool {
        self.rename.patterns.regex_decides(key)
    }

    /// Returns whether any key can get another name.
    pub fn renames(&self) -> bool {
        !self.renames.is_empty() || self.strip_leading_slash
    }

    /// Returns whether any value is decoded.
    pub fn decodes(&self) -> bool {
        !self.decode.texts.is_empty()
    }

    /// Returns the v3 name of a v2 key; `None` if it is the same.
    pub fn rename(&mut self, key: &[u8]) -> Option<Renamed> {
        let renaming = self.rename.first(key).and_then(|at| self.renames.get(at));
        let renamed = renaming.and_then(|renaming| renaming.apply(key));
        if !self.strip_leading_slash {
            return renamed;
        }
        let mut renamed = renamed.unwrap_or_default();
        if let Some(rest) = renamed.prefix.strip_prefix(b"/") {
            renamed.prefix = rest.into();
        } else if renamed.prefix.is_empty() && key.get(renamed.skip) == Some(&b'/') {
            renamed.skip += 1;
        }
        Some(renamed)
    }

    /// Returns the value of a v2 key, decoded if a rule requires it.
    ///
    /// # Errors
    /// A description of the fault in the value, without the value.
    pub fn decode(&mut self, key: &[u8], value: impl FnOnce() -> Vec<u8>) -> Result<Option<Box<[u8]>>, &'static str> {
        use base64::Engine;
        use base64::engine::general_purpose::GeneralPurposeConfig;
        use base64::engine::{DecodePaddingMode, GeneralPurpose};
        const ENGINE: GeneralPurpose = GeneralPurpose::new(
            &base64::alphabet::STANDARD,
            GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
        );
        if self.decode.first(key).is_none() {
            return Ok(None);
        }
        let decoded = ENGINE.decode(value().trim_ascii()).map_err(|_| "expected base64 in its value")?;
        Ok(Some(decoded.into()))
    }

    /// Returns the text of the rules without a match.
    pub fn unused(&self) -> Vec<&str> {
        [&self.choose, &self.rename, &self.decode].into_iter().flat_map(Matcher::unused).collect()
    }
}

impl Renamed {
    /// Returns the v3 key of a v2 key.
    pub fn apply(&self, key: &[u8]) -> Vec<u8> {
        [&self.prefix, key.get(self.skip..).unwrap_or_default()].concat()
    }
}

fn of_choice(choice: &Choice) -> (&'static str, &Pattern) {
    match choice {
        Choice::Include(pattern) => ("include", pattern),
        Choice::Exclude(pattern) => ("exclude", pattern),
    }
}

impl Matcher {
    fn new<'p>(patterns: impl Iterator<Item = (&'static str, &'p Pattern)> + Clone) -> Result<Matcher> {
        let text = |(word, pattern): (&str, &Pattern)| match pattern {
            Pattern::Prefix(prefix) => format!("{word} {prefix}"),
            Pattern::Regex(text) => format!("{word} regex {text}"),
        };
        let texts: Arc<[String]> = patterns.clone().map(text).collect();
        let hits = vec![0; texts.len()];
        Ok(Matcher { patterns: Patterns::new(patterns.map(|(_, pattern)| pattern))?, texts, hits })
    }

    /// Returns the position of the first pattern that matches a key.
    fn first(&mut self, key: &[u8]) -> Option<usize> {
        let at = self.patterns.first(key)?;
        if let Some(hits) = self.hits.get_mut(at) {
            *hits += 1;
        }
        Some(at)
    }

    fn unused(&self) -> impl Iterator<Item = &str> {
        self.texts.iter().zip(&self.hits).filter(|(_, hits)| **hits == 0).map(|(text, _)| text.as_str())
    }
}

impl Renaming {
    fn new(rename: &Rename) -> Renaming {
        let to = rename.to.as_bytes().into();
        match &rename.from {
            Pattern::Prefix(prefix) => Renaming::Prefix { len: prefix.len(), to },
            Pattern::Regex(text) => Renaming::Regex { text: text.clone(), regex: OnceLock::new(), to },
        }
    }

    /// Returns the new name of a key that the pattern matches.
    fn apply(&self, key: &[u8]) -> Option<Renamed> {
        match self {
            Renaming::Prefix { len, to } => Some(Renamed { skip: *len, prefix: to.clone() }),
            Renaming::Regex { text, regex: compiled, to } => {
                let groups = compiled.get_or_init(|| regex(text).ok()).as_ref()?.captures(key)?;
                let found = groups.get(0)?;
                let mut new = key.get(..found.start())?.to_vec();
                groups.expand(to, &mut new);
                Some(Renamed { skip: found.end(), prefix: new.into() })
            }
        }
    }
}

/// Returns whether a prefix pattern matches a key: the key itself or its subtree. `/a` does not match `/ab`.
pub fn is_below(prefix: &[u8], key: &[u8]) -> bool {
    let Some(rest) = key.strip_prefix(prefix) else { return false };
    rest.is_empty() || rest.first() == Some(&b'/') || prefix.last() == Some(&b'/')
}

/// TTL policies by prefix.
#[derive(Debug, Clone, Default)]
pub struct TtlRules {
    prefixes: Arc<Prefixes>,
    /// Longest prefix first.
    rules: Vec<(Box<[u8]>, TtlPolicy, u64)>,
    otherwise: TtlPolicy,
}

impl TtlRules {
    /// Sorts and compiles policies.
    pub fn new(rules: &[TtlRule]) -> TtlRules {
        let mut out = TtlRules::default();
        for rule in rules {
            match &rule.prefix {
                Some(prefix) => out.rules.push((prefix.as_bytes().into(), rule.policy, 0)),
                None => out.otherwise = rule.policy,
            }
        }
        out.rules.sort_by_key(|(prefix, ..)| std::cmp::Reverse(prefix.len()));
        let mut prefixes = Prefixes::default();
        for (at, (prefix, ..)) in out.rules.iter().enumerate() {
            prefixes.add(prefix, at);
        }
        out.prefixes = Arc::new(prefixes);
        out
    }

    /// Returns whether any policy depends on the name of a key.
    pub(super) fn reads_names(&self) -> bool {
        !self.rules.is_empty()
    }

    /// Returns the policy for a v2 key with a TTL.
    pub fn policy(&mut self, key: &[u8]) -> TtlPolicy {
        match self.prefixes.first(key).and_then(|at| self.rules.get_mut(at)) {
            Some((_, policy, hits)) => {
                *hits += 1;
                *policy
            }
            None => self.otherwise,
        }
    }

    /// Returns the policies whose prefix matched no key with a TTL.
    pub fn unused(&self) -> Vec<String> {
        let unused = self.rules.iter().filter(|(.., hits)| *hits == 0);
        unused.map(|(prefix, policy, _)| format!("ttl {}={policy}", String::from_utf8_lossy(prefix))).collect()
    }
}

/// Returns the text of a key for messages that name two of them.
pub(crate) fn shown(key: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Reason;
    use crate::options::rules::{Decode, ValueRule};

    fn prefix(text: &str) -> Pattern {
        Pattern::Prefix(text.into())
    }

    #[test]
    fn a_prefix_ends_at_a_slash() {
        for (pattern, key, expected) in [
            ("/a", "/a", true),
            ("/a", "/a/b", true),
            ("/a", "/ab", false),
            ("/a", "/a-b", false),
            ("/a/", "/a/b", true),
            ("/a/", "/a", false),
            ("/", "/x", true),
            ("/a", "/", false),
        ] {
            assert_eq!(is_below(pattern.as_bytes(), key.as_bytes()), expected, "{pattern} {key}");
        }
    }

    #[test]
    fn the_first_choice_wins_and_an_include_leaves_the_rest_out() {
        let choose = vec![
            Choice::Exclude(prefix("/a/tmp")),
            Choice::Include(prefix("/a")),
            Choice::Include(Pattern::Regex("^/b[0-9]".into())),
            Choice::Exclude(prefix("/never")),
        ];
        let mut rules = KeyRules::new(&Rules { choose, ..Rules::default() }).unwrap();
        assert_eq!(rules.excluded(b"/a/x"), None);
        assert_eq!(rules.excluded(b"/a/tmp/x"), Some(Some(0)));
        assert_eq!(rules.excluded(b"/b7"), None);
        assert_eq!(rules.excluded(b"/c"), Some(None));
        assert_eq!(rules.choice_text(0), "exclude /a/tmp");
        assert_eq!(rules.unused(), ["exclude /never"]);
        let choose = vec![Choice::Exclude(prefix("/a"))];
        let mut rules = KeyRules::new(&Rules { choose, ..Rules::default() }).unwrap();
        assert_eq!((rules.excluded(b"/b"), rules.excluded(b"/a")), (None, Some(Some(0))));
    }

    fn renamed(rename: &[(Pattern, &str)], strip_leading_slash: bool, key: &str) -> String {
        let rename = rename.iter().map(|(from, to)| Rename { from: from.clone(), to: (*to).into() }).collect();
        let mut rules = KeyRules::new(&Rules { rename, strip_leading_slash, ..Rules::default() }).unwrap();
        let new = rules.rename(key.as_bytes()).map_or(key.as_bytes().to_vec(), |new| new.apply(key.as_bytes()));
        String::from_utf8(new).unwrap()
    }

    #[test]
    fn one_rename_is_applied_once_and_then_the_slash_goes() {
        let maps = [(prefix("/a"), "/b"), (prefix("/b"), "/c"), (prefix("/d/"), "")];
        for (key, kept, stripped) in [
            ("/a", "/b", "b"),
            ("/a/x", "/b/x", "b/x"),
            ("/ab", "/ab", "ab"),
            ("/b/x", "/c/x", "c/x"),
            ("/d/x", "x", "x"),
            ("/d", "/d", "d"),
        ] {
            assert_eq!(renamed(&maps, false, key), kept);
            assert_eq!(renamed(&maps, true, key), stripped);
        }
        assert_eq!(renamed(&[(prefix("/a"), "")], true, "/a/x"), "x");
        assert_eq!(renamed(&[(prefix("/a"), "")], false, "/a"), "");
    }

    #[test]
    fn a_regular_expression_replaces_what_it_finds_first() {
        let maps = [(Pattern::Regex("/v([0-9]+)/".into()), "/version/${1}/")];
        assert_eq!(renamed(&maps, false, "/x/v12/y/v3/z"), "/x/version/12/y/v3/z");
        assert_eq!(renamed(&maps, true, "/x/v12/y"), "x/version/12/y");
        assert_eq!(renamed(&maps, false, "/x"), "/x");
        let rename = vec![Rename { from: Pattern::Regex("(".into()), to: String::new() }];
        let error = KeyRules::new(&Rules { rename, ..Rules::default() }).unwrap_err();
        assert_eq!(error.reason(), Reason::Usage);
    }

    #[test]
    fn values_are_decoded() {
        let values = vec![ValueRule { of: prefix("/c"), decode: Decode::Base64 }];
        let mut rules = KeyRules::new(&Rules { values, ..Rules::default() }).unwrap();
        let mut decode = |key: &str, value: &str| rules.decode(key.as_bytes(), || value.into());
        assert_eq!(decode("/c/a", "aGk=\n").unwrap().unwrap(), b"hi"[..].into());
        assert_eq!(decode("/c/a", "aGk").unwrap().unwrap(), b"hi"[..].into());
        assert_eq!(decode("/d", "???").unwrap(), None);
        assert!(decode("/c", "???").is_err());
    }

    #[test]
    fn the_longest_prefix_decides_on_a_ttl() {
        let rules: Vec<TtlRule> =
            ["drop", "/a=lease", "/a/b=permanent", "/z=fail"].iter().map(|text| text.parse().unwrap()).collect();
        let mut rules = TtlRules::new(&rules);
        assert_eq!(rules.policy(b"/a/b/c"), TtlPolicy::Permanent);
        assert_eq!(rules.policy(b"/a/bc"), TtlPolicy::Lease);
        assert_eq!(rules.policy(b"/c"), TtlPolicy::Drop);
        assert_eq!(rules.unused(), ["ttl /z=fail"]);
        assert_eq!(TtlRules::new(&[]).policy(b"/c"), TtlPolicy::Lease);
    }
}
