//! By which version's rules a log was replayed, and why (docs/formats.md 6). Plain data: `choose_rules` makes it.

use crate::ids::{RaftIndex, V2Index};
use crate::v2store::dialect::{Bound, Interval, Limit, RuleSet, Version};
use crate::v2store::difference::Difference;

/// By which rules a log was replayed, and why.
#[derive(Debug, Clone)]
pub struct Versions {
    /// What bounds the version.
    pub bounds: Vec<Bound>,
    /// The versions that these leave.
    pub interval: Interval,
    /// The rule set that was used.
    pub used: RuleSet,
    /// The version that was named, where one was.
    pub named: Option<Version>,
    /// Rule sets that were possible, and are refuted by what a replay by them would have to show.
    pub refuted: Vec<Refuted>,
    /// Rule sets that are possible, too, and by which the log makes another tree.
    pub others: Vec<Other>,
}

impl Default for Versions {
    fn default() -> Versions {
        let oldest = Version::new(2, 0, 0);
        Versions {
            bounds: Vec::new(),
            interval: Interval { from: oldest, below: None },
            used: RuleSet::of(oldest),
            named: None,
            refuted: Vec::new(),
            others: Vec::new(),
        }
    }
}

/// A rule set that the source refutes.
#[derive(Debug, Clone, Copy)]
pub struct Refuted {
    /// The rule set.
    pub rule_set: RuleSet,
    /// The entry.
    pub index: RaftIndex,
    /// How that entry refutes it.
    pub sign: Sign,
    /// A rule set that agrees with the entry.
    pub by: RuleSet,
}

/// How an entry refutes a rule set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// It uses an in-order name that was never made by these rules.
    Name,
    /// It updates a learner, and by these rules the members would not be those that the v3 backend holds.
    Members,
}

/// A rule set by which the log makes another tree.
#[derive(Debug, Clone)]
pub struct Other {
    /// The rule set.
    pub rule_set: RuleSet,
    /// The store's index in the end.
    pub v2_index: V2Index,
    /// Where the trees differ.
    pub difference: Difference,
}

impl Versions {
    /// The bound in effect that a named version contradicts.
    pub fn contradiction(&self) -> Option<&Bound> {
        let named = self.named?;
        self.bounds.iter().filter(|bound| bound.in_effect).find(|bound| match bound.limit {
            Limit::AtLeast(version) => named < version,
            Limit::Below(version) => RuleSet::of(named).first >= version,
        })
    }

    /// Whether a server of this line may have run last.
    pub fn may_be(&self, line: Version) -> bool {
        match self.named {
            Some(named) => (named.major, named.minor) == (line.major, line.minor),
            None => self.interval.may_be(line),
        }
    }
}
