//! Rules that select and rename keys, from the command line and from a TOML file.
//!
//! Plain data, checked only for completeness. Must not know how a rule applies to a key.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Reason, Result};
use crate::interrupt::Interrupt;
use crate::named_file;

/// A pattern of key names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pattern {
    /// The key of this name and all keys below it: `/a` does not match `/ab`. `/a/` matches only keys below `/a`.
    Prefix(String),
    /// Keys that match this regular expression.
    Regex(String),
}

/// A rule that takes keys or leaves them out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// Take them.
    Include(Pattern),
    /// Leave them out.
    Exclude(Pattern),
}

/// A rule that renames keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rename {
    /// The keys. A prefix is replaced, or the first match of a regular expression.
    pub from: Pattern,
    /// The replacement; with a regular expression, `$1` or `${name}` is a group.
    pub to: String,
}

/// An encoding of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decode {
    /// Base64 of the standard alphabet, with or without padding.
    Base64,
}

/// A rule that decodes values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueRule {
    /// The keys.
    pub of: Pattern,
    /// The encoding.
    pub decode: Decode,
}

/// All rules. In each list, the first rule that matches a key applies.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Rules {
    /// If it contains an `Include`, keys without a match are left out.
    pub choose: Vec<Choice>,
    /// At most one applies to a key.
    pub rename: Vec<Rename>,
    /// Whether the first slash is removed, after the renames.
    pub strip_leading_slash: bool,
    /// At most one applies to a value.
    pub values: Vec<ValueRule>,
}

impl Rules {
    /// Whether any rule renames keys.
    pub(crate) fn rename_keys(&self) -> bool {
        !self.rename.is_empty() || self.strip_leading_slash
    }
}

/// The content of a rules file: rules and TTL policies.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct RulesFile {
    /// They apply after those of the command line.
    pub(crate) rules: Rules,
    /// They are added to those of the command line.
    pub(crate) ttl: Vec<super::TtlRule>,
}

/// Reads a rules file.
///
/// ```toml
/// strip-leading-slash = true
///
/// [[choose]]                       # the first that matches decides
/// exclude = "/services/tmp"        # or: include, exclude-regex, include-regex
///
/// [[rename]]                       # the first that matches, once
/// prefix = "/services"             # or: regex = '^/old/([a-z]+)/'
/// to = "/prod/services"            # with a regex: to = "/new/$1/"
///
/// [[value]]
/// prefix = "/certs"                # or: regex
/// decode = "base64"
///
/// [[ttl]]
/// prefix = "/locks"                # without: for all that no prefix names
/// policy = "fixed:60s"
/// ```
///
/// # Errors
/// [`Reason::Usage`] naming the file and the line; [`Reason::FileMissing`] and [`Reason::PermissionDenied`].
pub(crate) fn read(path: &Path) -> Result<RulesFile> {
    let bytes = named_file::read(path, Reason::Usage, "read the rules", Interrupt::default())?;
    let not_text = |_| Error::new(Reason::Usage, "expected text in UTF-8, found other bytes").in_file(path);
    let text = String::from_utf8(bytes).map_err(not_text)?;
    parse(&text).map_err(|message| Error::new(Reason::Usage, message).in_file(path))
}

fn parse(text: &str) -> Result<RulesFile, String> {
    let file: File = toml::from_str(text).map_err(|e| {
        let line = e.span().map(|span| text.get(..span.start).unwrap_or_default().matches('\n').count() + 1);
        let line = line.map(|line| format!("line {line}: ")).unwrap_or_default();
        format!("{line}{}", e.message().replace('\n', " "))
    })?;
    let mut out = RulesFile::default();
    out.rules.strip_leading_slash = file.strip_leading_slash;
    for (at, choose) in file.choose.into_iter().enumerate() {
        let given = [
            choose.include.map(|p| Choice::Include(Pattern::Prefix(p))),
            choose.exclude.map(|p| Choice::Exclude(Pattern::Prefix(p))),
            choose.include_regex.map(|p| Choice::Include(Pattern::Regex(p))),
            choose.exclude_regex.map(|p| Choice::Exclude(Pattern::Regex(p))),
        ];
        out.rules.choose.push(one(given.into_iter().flatten(), || {
            format!("choose {}: expected one of include, exclude, include-regex and exclude-regex", at + 1)
        })?);
    }
    for (at, rename) in file.rename.into_iter().enumerate() {
        let from = pattern(rename.prefix, rename.regex, || format!("rename {}", at + 1))?;
        out.rules.rename.push(Rename { from, to: rename.to });
    }
    for (at, value) in file.value.into_iter().enumerate() {
        let of = pattern(value.prefix, value.regex, || format!("value {}", at + 1))?;
        out.rules.values.push(ValueRule { of, decode: value.decode });
    }
    for ttl in file.ttl {
        let policy = ttl.policy.parse().map_err(|e| format!("ttl: {:?}: {e}", ttl.policy))?;
        out.ttl.push(super::TtlRule { prefix: ttl.prefix, policy });
    }
    Ok(out)
}

fn pattern(prefix: Option<String>, regex: Option<String>, what: impl Fn() -> String) -> Result<Pattern, String> {
    let given = [prefix.map(Pattern::Prefix), regex.map(Pattern::Regex)];
    one(given.into_iter().flatten(), || format!("{}: expected one of prefix and regex", what()))
}

fn one<T>(mut given: impl Iterator<Item = T>, expected: impl Fn() -> String) -> Result<T, String> {
    match (given.next(), given.next()) {
        (Some(one), None) => Ok(one),
        _ => Err(expected()),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct File {
    #[serde(default)]
    strip_leading_slash: bool,
    #[serde(default)]
    choose: Vec<Choose>,
    #[serde(default)]
    rename: Vec<FileRename>,
    #[serde(default)]
    value: Vec<Value>,
    #[serde(default)]
    ttl: Vec<Ttl>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Choose {
    include: Option<String>,
    exclude: Option<String>,
    include_regex: Option<String>,
    exclude_regex: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRename {
    prefix: Option<String>,
    regex: Option<String>,
    to: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Value {
    prefix: Option<String>,
    regex: Option<String>,
    decode: Decode,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ttl {
    prefix: Option<String>,
    policy: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_everything() {
        let text = r#"
            strip-leading-slash = true
            [[choose]]
            exclude = "/services/tmp"
            [[choose]]
            include-regex = "^/s"
            [[rename]]
            prefix = "/services"
            to = "/prod/services"
            [[rename]]
            regex = '^/old/([a-z]+)/'
            to = "/new/$1/"
            [[value]]
            prefix = "/certs"
            decode = "base64"
            [[ttl]]
            prefix = "/locks"
            policy = "fixed:60s"
            [[ttl]]
            policy = "drop""#;
        let file = parse(text).unwrap();
        assert_eq!(file.rules.choose.len(), 2);
        assert_eq!(file.rules.choose[1], Choice::Include(Pattern::Regex("^/s".into())));
        assert_eq!(file.rules.rename[0].from, Pattern::Prefix("/services".into()));
        assert_eq!(file.rules.values[0].decode, Decode::Base64);
        assert!(file.rules.strip_leading_slash && file.rules.rename_keys());
        assert_eq!(file.ttl[1].prefix, None);
    }

    #[test]
    fn faults_are_named_with_their_line() {
        for (text, expected) in [
            ("x = 1", "line 1: unknown field `x`"),
            ("\n[[choose]]\ninclude = 3", "line 3: "),
            ("[[choose]]\ninclude = \"/a\"\nexclude = \"/b\"", "choose 1: expected one of"),
            ("[[rename]]\nto = \"/b\"", "rename 1: expected one of prefix and regex"),
            ("[[value]]\nprefix = \"/b\"\ndecode = \"rot13\"", "line 3: unknown variant `rot13`"),
            ("[[ttl]]\npolicy = \"later\"", "ttl: \"later\": expected lease"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
