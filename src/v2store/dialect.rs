//! The rules of a replay: the versions of etcd that apply requests differently, and the evidence for the version that
//! ran last (docs/formats.md 6.11).
//!
//! A server replays its whole log at its start, with its own rules. So one rule set applies to the whole replay: that
//! of the server that started last. Knows versions, rules and how bounds combine. Must not know where a bound was
//! found.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::RaftIndex;

/// A version of etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The major version, 2 or 3.
    pub major: u32,
    /// The minor version.
    pub minor: u32,
    /// The patch version.
    pub patch: u32,
}

impl Version {
    /// Creates a version.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Version {
        Version { major, minor, patch }
    }

    /// Parses `MAJOR.MINOR.PATCH`, the form of a cluster version.
    pub fn parse(text: &[u8]) -> Option<Version> {
        let mut parts = std::str::from_utf8(text).ok()?.split('.').map(|part| part.parse().ok());
        let (major, minor) = (parts.next()??, parts.next()??);
        Some(Version { major, minor, patch: parts.next().flatten().unwrap_or(0) })
    }

    /// Returns the first version of the next minor line.
    pub fn next_line(self) -> Version {
        match (self.major, self.minor) {
            (2, 3) => Version::new(3, 0, 0),
            (major, minor) => Version::new(major, minor.saturating_add(1), 0),
        }
    }

    /// Returns the newest possible patch of the line.
    fn line_end(self) -> Version {
        Version { patch: u32::MAX, ..self }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// A version that an operator names: `X.Y` means the newest patch of that line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SourceVersion {
    major: u32,
    minor: u32,
    patch: Option<u32>,
}

impl SourceVersion {
    /// Returns the version whose rules apply.
    pub(crate) fn version(self) -> Version {
        Version::new(self.major, self.minor, self.patch.unwrap_or(u32::MAX))
    }
}

impl FromStr for SourceVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str =
            "expected X.Y or X.Y.Z, a version of etcd with the v2 store: 2.0 to 2.3, or 3.0 to 3.5, like 2.0.9";
        let number = |part: &str| match part.bytes().all(|b| b.is_ascii_digit()) {
            true => part.parse().map_err(|_| EXPECTED.to_string()),
            false => Err(EXPECTED.to_string()),
        };
        let parts = text.split('.').map(number).collect::<Result<Vec<u32>, _>>()?;
        let (major, minor, patch) = match parts.as_slice() {
            [major, minor] => (*major, *minor, None),
            [major, minor, patch] => (*major, *minor, Some(*patch)),
            _ => return Err(EXPECTED.into()),
        };
        match (major, minor) {
            (2, 0..=3) | (3, 0..=5) => Ok(SourceVersion { major, minor, patch }),
            _ => Err(EXPECTED.into()),
        }
    }
}

impl fmt::Display for SourceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        self.patch.map_or(Ok(()), |patch| write!(f, ".{patch}"))
    }
}

impl From<SourceVersion> for String {
    fn from(version: SourceVersion) -> String {
        version.to_string()
    }
}

impl TryFrom<String> for SourceVersion {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// A set of rules, each introduced by some version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rules(u16);

impl Rules {
    /// The namespaces `/0` and `/1` are read-only, like `/` in every version.
    pub const READ_ONLY_NAMESPACES: Rules = Rules(1);
    /// `prevExist=true` with a previous value or index compares; earlier it was an unconditional update.
    pub const COMPARED_UPDATES: Rules = Rules(1 << 1);
    /// In-order names are padded to 20 digits.
    pub const PADDED_NAMES: Rules = Rules(1 << 2);
    /// `refresh=true` retains the value and renews the TTL.
    pub const REFRESH: Rules = Rules(1 << 3);
    /// Attributes of a removed member are not written.
    pub const REMOVED_ATTRIBUTES: Rules = Rules(1 << 4);
    /// A compare-and-swap with `refresh=true` retains the value too.
    pub const REFRESH_IN_SWAPS: Rules = Rules(1 << 5);
    /// Attributes are encoded again and written to the node of the member; other paths of that form are not written.
    pub const RE_ENCODED_ATTRIBUTES: Rules = Rules(1 << 6);
    /// At most one learner is allowed.
    pub const ONE_LEARNER: Rules = Rules(1 << 7);
    /// An update of a directory fails.
    pub const FIXED_DIRECTORIES: Rules = Rules(1 << 8);
    /// An update of the peer URLs of a learner does not promote it.
    pub const LASTING_LEARNERS: Rules = Rules(1 << 9);

    /// The first version with each rule.
    const SINCE: [(Rules, Version); 10] = [
        (Rules::READ_ONLY_NAMESPACES, Version::new(2, 0, 1)),
        (Rules::COMPARED_UPDATES, Version::new(2, 0, 10)),
        (Rules::PADDED_NAMES, Version::new(2, 2, 0)),
        (Rules::REFRESH, Version::new(2, 3, 0)),
        (Rules::REMOVED_ATTRIBUTES, Version::new(2, 3, 0)),
        (Rules::REFRESH_IN_SWAPS, Version::new(2, 3, 7)),
        (Rules::RE_ENCODED_ATTRIBUTES, Version::new(3, 0, 0)),
        (Rules::ONE_LEARNER, Version::new(3, 4, 0)),
        (Rules::FIXED_DIRECTORIES, Version::new(3, 5, 0)),
        (Rules::LASTING_LEARNERS, Version::new(3, 5, 31)),
    ];

    /// Returns the rules of a version.
    pub fn of(version: Version) -> Rules {
        Rules::SINCE.iter().filter(|(_, since)| *since <= version).fold(Rules(0), |all, (rule, _)| all.and(*rule))
    }

    /// Returns whether all of these rules apply.
    pub fn has(self, rules: Rules) -> bool {
        self.0 & rules.0 == rules.0
    }

    /// Returns the union of two sets.
    pub fn and(self, rules: Rules) -> Rules {
        Rules(self.0 | rules.0)
    }

    /// Returns this set with or without some rules.
    pub fn with(self, rules: Rules, hold: bool) -> Rules {
        if hold { self.and(rules) } else { Rules(self.0 & !rules.0) }
    }

    /// Returns the rules of this set that the other set does not contain.
    pub fn difference(self, other: Rules) -> Rules {
        Rules(self.0 ^ other.0)
    }

    /// Returns whether the two sets have a rule in common.
    pub fn meets(self, other: Rules) -> bool {
        self.0 & other.0 != 0
    }
}

/// Versions that apply every request in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleSet {
    /// The first of these versions.
    pub first: Version,
    /// A description of these versions.
    pub label: &'static str,
}

impl RuleSet {
    /// All rule sets, oldest first.
    pub const ALL: [RuleSet; 10] = [
        RuleSet::new(2, 0, 0, "2.0.0"),
        RuleSet::new(2, 0, 1, "2.0.1 to 2.0.9"),
        RuleSet::new(2, 0, 10, "2.0.10 to 2.1"),
        RuleSet::new(2, 2, 0, "2.2"),
        RuleSet::new(2, 3, 0, "2.3.0 to 2.3.6"),
        RuleSet::new(2, 3, 7, "2.3.7 or later 2.3"),
        RuleSet::new(3, 0, 0, "3.0 to 3.3"),
        RuleSet::new(3, 4, 0, "3.4"),
        RuleSet::new(3, 5, 0, "3.5.0 to 3.5.30"),
        RuleSet::new(3, 5, 31, "3.5.31 or later"),
    ];

    const fn new(major: u32, minor: u32, patch: u32, label: &'static str) -> RuleSet {
        RuleSet { first: Version::new(major, minor, patch), label }
    }

    /// Returns the rule set of a version.
    pub fn of(version: Version) -> RuleSet {
        let [oldest, ..] = RuleSet::ALL;
        RuleSet::ALL.into_iter().rev().find(|set| set.first <= version).unwrap_or(oldest)
    }

    /// Returns its rules.
    pub fn rules(self) -> Rules {
        Rules::of(self.first)
    }

    /// Returns the first version of the next rule set.
    fn end(self) -> Option<Version> {
        RuleSet::ALL.into_iter().map(|set| set.first).find(|first| *first > self.first)
    }
}

/// The limit of a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// This version or a later one.
    AtLeast(Version),
    /// A version before this one.
    Below(Version),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::AtLeast(version) => write!(f, "{version} or later"),
            Limit::Below(version) => write!(f, "before {version}"),
        }
    }
}

/// The server that a bound applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The server that ran when the log ended at this entry.
    At(RaftIndex),
    /// The server that ran last.
    End,
}

/// A bound of the version, with its proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The limit.
    pub limit: Limit,
    /// The server that it applies to.
    pub place: Place,
    /// A description of the proof.
    pub proof: String,
    /// The file with the proof.
    pub file: Option<PathBuf>,
    /// Whether it bounds the server that started last. A bound of an earlier server may not.
    pub in_effect: bool,
}

/// The evidence in a source about the versions that wrote it.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// All bounds.
    pub bounds: Vec<Bound>,
    /// The entry with which the server of a member last published its attributes, as each server does at its start.
    /// Later entries belong to the server that started last.
    pub started: Option<RaftIndex>,
    /// The entry that last lowered the cluster version.
    pub lowered: Option<RaftIndex>,
}

/// The possible versions of the server that started last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// The lowest possible version.
    pub from: Version,
    /// The first version that is too high.
    pub below: Option<Version>,
}

impl Evidence {
    /// Adds a bound.
    pub fn add(&mut self, limit: Limit, place: Place, proof: impl Into<String>, file: Option<PathBuf>) {
        self.bounds.push(Bound { limit, place, proof: proof.into(), file, in_effect: false });
    }

    /// Combines the bounds, the newest first, and marks those in effect.
    ///
    /// A lower bound of an earlier server applies to a later one too, unless newer evidence contradicts it. A server
    /// refuses to start on the data of a newer cluster version. An upper bound does not apply, because the server may
    /// have been upgraded since.
    pub fn resolve(&mut self) -> Interval {
        let started = self.started.map_or(Place::At(RaftIndex(0)), Place::At);
        let lowered = self.lowered.map_or(Place::At(RaftIndex(0)), Place::At);
        self.bounds.sort_by_key(|bound| std::cmp::Reverse(bound.place));
        let mut found = Interval { from: Version::new(2, 0, 0), below: None };
        for bound in &mut self.bounds {
            bound.in_effect = match bound.limit {
                Limit::AtLeast(version) => {
                    let earlier = bound.place < lowered && bound.place < started;
                    let holds = found.below.is_none_or(|below| version < below) && !earlier;
                    if holds {
                        found.from = found.from.max(version);
                    }
                    holds
                }
                Limit::Below(version) => {
                    let holds = bound.place >= started && version > found.from;
                    if holds {
                        found.below = Some(found.below.map_or(version, |below| below.min(version)));
                    }
                    holds
                }
            };
        }
        found
    }
}

impl Interval {
    /// Returns whether a version of the line may have run.
    pub fn may_be(self, line: Version) -> bool {
        self.from <= line.line_end() && self.below.is_none_or(|below| below > Version { patch: 0, ..line })
    }

    /// Returns whether this version may have run.
    pub fn contains(self, version: Version) -> bool {
        self.from <= version && self.below.is_none_or(|below| version < below)
    }

    /// Returns the rule sets of the versions in the interval, oldest first.
    pub fn rule_sets(self) -> Vec<RuleSet> {
        let contains = |set: &RuleSet| {
            set.end().is_none_or(|end| self.from < end) && self.below.is_none_or(|below| set.first < below)
        };
        RuleSet::ALL.into_iter().filter(contains).collect()
    }

    /// Returns the part of the interval with these rule sets, oldest first.
    pub fn narrowed(self, sets: &[RuleSet]) -> Interval {
        let from = sets.first().map_or(self.from, |set| set.first.max(self.from));
        let end = sets.last().and_then(|set| set.end());
        Interval { from, below: self.below.into_iter().chain(end).min() }
    }

    /// Returns the most plausible of some rule sets: the newest patch of the line that the evidence indicates.
    pub fn most_plausible(self, among: &[RuleSet]) -> RuleSet {
        let end = self.from.line_end();
        let newest = among.iter().rev().find(|set| set.first <= end).or(among.first());
        newest.copied().unwrap_or(RuleSet::of(self.from))
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.below {
            Some(below) => write!(f, "{} or later, before {below}", self.from),
            None => write!(f, "{} or later", self.from),
        }
    }
}

#[cfg(test)]
mod tests;
