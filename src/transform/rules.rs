//! Rules applied to keys: which are taken, what they are called, which values are decoded (CLI.md, `--include` to `--rules`).
//!
//! Everything is decided from a v2 key alone, the first rule that matches wins. A renamed key is described by what stays of
//! the old one and what stands before it, so that keys are put together only when they are written. Knows neither nodes nor
//! policies.

use std::borrow::Cow;

use regex::bytes::Regex;

use crate::error::{Error, Reason, Result};
use crate::options::rules::{Choice, Pattern};
use crate::options::{Rules, TtlPolicy, TtlRule};

/// Rules, ready to be asked. Counts what each has matched.
#[derive(Debug, Clone, Default)]
pub struct KeyRules {
    choose: Vec<(bool, Matcher)>,
    with_include: bool,
    rename: Vec<(Matcher, Box<[u8]>)>,
    strip_leading_slash: bool,
    decode: Vec<Matcher>,
}

#[derive(Debug, Clone)]
struct Matcher {
    pattern: Compiled,
    /// How the rule was written, to name it.
    text: String,
    hits: u64,
}

#[derive(Debug, Clone)]
enum Compiled {
    Prefix(Box<[u8]>),
    Regex(Box<Regex>),
}

/// What a key is called: `prefix`, then the v2 key from byte `skip` on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Renamed {
    /// Bytes of the v2 key that are left out.
    pub skip: usize,
    /// What stands in their place.
    pub prefix: Box<[u8]>,
}

impl KeyRules {
    /// Makes rules ready.
    ///
    /// # Errors
    /// [`Reason::Usage`] for a regular expression that cannot be read.
    pub fn new(rules: &Rules) -> Result<KeyRules> {
        let mut out = KeyRules { strip_leading_slash: rules.strip_leading_slash, ..KeyRules::default() };
        for choice in &rules.choose {
            let (include, word, pattern) = match choice {
                Choice::Include(pattern) => (true, "include", pattern),
                Choice::Exclude(pattern) => (false, "exclude", pattern),
            };
            out.with_include |= include;
            out.choose.push((include, Matcher::new(word, pattern)?));
        }
        for rename in &rules.rename {
            out.rename.push((Matcher::new("map", &rename.from)?, rename.to.as_bytes().into()));
        }
        for value in &rules.values {
            out.decode.push(Matcher::new("decode", &value.of)?);
        }
        Ok(out)
    }

    /// Why the key is left out: the place of the rule among all choices, or `None` inside for a key that no include names.
    /// `None`: it is taken.
    pub fn excluded(&mut self, key: &[u8]) -> Option<Option<u32>> {
        if self.choose.is_empty() {
            return None;
        }
        for (at, (include, matcher)) in self.choose.iter_mut().enumerate() {
            if matcher.matches(key) {
                return if *include { None } else { Some(u32::try_from(at).ok()) };
            }
        }
        self.with_include.then_some(None)
    }

    /// How a choice was written.
    pub fn choice_text(&self, at: u32) -> &str {
        self.choose.get(at as usize).map_or("", |(_, matcher)| &matcher.text)
    }

    /// Whether any key can get another name.
    pub fn renames(&self) -> bool {
        !self.rename.is_empty() || self.strip_leading_slash
    }

    /// Whether any value is decoded.
    pub fn decodes(&self) -> bool {
        !self.decode.is_empty()
    }

    /// What a v2 key is called in v3; `None`: the same.
    pub fn rename(&mut self, key: &[u8]) -> Option<Renamed> {
        let renamed = self.rename.iter_mut().find_map(|(matcher, to)| matcher.rename(key, to));
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

    /// The value under a v2 key, decoded where a rule says so.
    ///
    /// # Errors
    /// What is wrong with the value, which is not shown.
    pub fn decode(&mut self, key: &[u8], value: impl FnOnce() -> Vec<u8>) -> Result<Option<Box<[u8]>>, &'static str> {
        use base64::Engine;
        use base64::engine::general_purpose::GeneralPurposeConfig;
        use base64::engine::{DecodePaddingMode, GeneralPurpose};
        const ENGINE: GeneralPurpose = GeneralPurpose::new(
            &base64::alphabet::STANDARD,
            GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
        );
        if !self.decode.iter_mut().any(|matcher| matcher.matches(key)) {
            return Ok(None);
        }
        let decoded = ENGINE.decode(value().trim_ascii()).map_err(|_| "expected base64 in its value")?;
        Ok(Some(decoded.into()))
    }

    /// Rules that nothing has matched, as they were written.
    pub fn unused(&self) -> Vec<&str> {
        let choose = self.choose.iter().map(|(_, matcher)| matcher);
        let rename = self.rename.iter().map(|(matcher, _)| matcher);
        let all = choose.chain(rename).chain(&self.decode);
        all.filter(|matcher| matcher.hits == 0).map(|matcher| matcher.text.as_str()).collect()
    }
}

impl Renamed {
    /// The v3 key of a v2 key.
    pub fn apply(&self, key: &[u8]) -> Vec<u8> {
        [&self.prefix, key.get(self.skip..).unwrap_or_default()].concat()
    }
}

impl Matcher {
    fn new(word: &str, pattern: &Pattern) -> Result<Matcher> {
        let (pattern, text) = match pattern {
            Pattern::Prefix(prefix) => (Compiled::Prefix(prefix.as_bytes().into()), format!("{word} {prefix}")),
            Pattern::Regex(text) => {
                let regex = Regex::new(text).map_err(|e| {
                    let what = e.to_string().lines().last().unwrap_or_default().trim().to_string();
                    Error::new(Reason::Usage, format!("regular expression {text:?}: {what}"))
                })?;
                (Compiled::Regex(Box::new(regex)), format!("{word} regex {text}"))
            }
        };
        Ok(Matcher { pattern, text, hits: 0 })
    }

    fn matches(&mut self, key: &[u8]) -> bool {
        let found = match &self.pattern {
            Compiled::Prefix(prefix) => is_below(prefix, key),
            Compiled::Regex(regex) => regex.is_match(key),
        };
        self.hits += u64::from(found);
        found
    }

    fn rename(&mut self, key: &[u8], to: &[u8]) -> Option<Renamed> {
        let renamed = match &self.pattern {
            Compiled::Prefix(prefix) => {
                is_below(prefix, key).then(|| Renamed { skip: prefix.len(), prefix: to.into() })
            }
            Compiled::Regex(regex) => regex.captures(key).and_then(|groups| {
                let found = groups.get(0)?;
                let mut new = key.get(..found.start())?.to_vec();
                groups.expand(to, &mut new);
                Some(Renamed { skip: found.end(), prefix: new.into() })
            }),
        };
        self.hits += u64::from(renamed.is_some());
        renamed
    }
}

/// Whether a prefix pattern matches a key: the key itself, or what is below it; `/a` is not `/ab`.
pub fn is_below(prefix: &[u8], key: &[u8]) -> bool {
    let Some(rest) = key.strip_prefix(prefix) else { return false };
    rest.is_empty() || rest.first() == Some(&b'/') || prefix.last() == Some(&b'/')
}

/// TTL policies by prefix.
#[derive(Debug, Clone, Default)]
pub struct TtlRules {
    /// Longest prefix first.
    rules: Vec<(Box<[u8]>, TtlPolicy, u64)>,
    otherwise: TtlPolicy,
}

impl TtlRules {
    /// Makes policies ready.
    pub fn new(rules: &[TtlRule]) -> TtlRules {
        let mut out = TtlRules::default();
        for rule in rules {
            match &rule.prefix {
                Some(prefix) => out.rules.push((prefix.as_bytes().into(), rule.policy, 0)),
                None => out.otherwise = rule.policy,
            }
        }
        out.rules.sort_by_key(|(prefix, ..)| std::cmp::Reverse(prefix.len()));
        out
    }

    /// The policy for a v2 key that has a TTL.
    pub fn policy(&mut self, key: &[u8]) -> TtlPolicy {
        match self.rules.iter_mut().find(|(prefix, ..)| is_below(prefix, key)) {
            Some((_, policy, hits)) => {
                *hits += 1;
                *policy
            }
            None => self.otherwise,
        }
    }

    /// Policies for a prefix that no key with a TTL has matched.
    pub fn unused(&self) -> Vec<String> {
        let unused = self.rules.iter().filter(|(.., hits)| *hits == 0);
        unused.map(|(prefix, policy, _)| format!("ttl {}={policy}", String::from_utf8_lossy(prefix))).collect()
    }
}

/// Text of a key for messages that name two of them.
pub(crate) fn shown(key: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::rules::{Decode, Rename, ValueRule};

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
