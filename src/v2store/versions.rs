//! The version whose rules a log was replayed with, and the reasons (docs/formats.md 6.11).
//!
//! Plain data that `choose_rules` builds: the possible versions, the bounds with their proofs, and the states that
//! other rules would give. Must not know how a bound was proven, or what the report says.

use crate::ids::{RaftIndex, V2Index};
use crate::v2store::dialect::{Bound, Interval, Limit, RuleSet, Version};
use crate::v2store::difference::Difference;

/// The rules of a replay, and the reasons for them.
#[derive(Debug, Clone)]
pub struct Versions {
    /// The bounds of the version.
    pub bounds: Vec<Bound>,
    /// The versions within the bounds.
    pub interval: Interval,
    /// The rule set of the replay.
    pub used: RuleSet,
    /// The version that the operator named.
    pub named: Option<Version>,
    /// Possible rule sets that a replay with them refutes.
    pub refuted: Vec<Refuted>,
    /// Other possible rule sets with which the log leads to another tree.
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
    /// The raft index of the entry.
    pub index: RaftIndex,
    /// How that entry refutes it.
    pub refutation: Refutation,
    /// A rule set that agrees with the entry.
    pub by: RuleSet,
}

/// How an entry refutes a rule set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refutation {
    /// The entry uses an in-order name that these rules never create.
    Name,
    /// The entry updates a learner, and with these rules the members would differ from those in the v3 backend.
    Members,
}

/// A rule set with which the log leads to another tree.
#[derive(Debug, Clone)]
pub struct Other {
    /// The rule set.
    pub rule_set: RuleSet,
    /// The index of the store at the end.
    pub v2_index: V2Index,
    /// The nodes in which the trees differ.
    pub difference: Difference,
}

impl Versions {
    /// Returns the bound in effect that contradicts a named version.
    pub fn contradiction(&self) -> Option<&Bound> {
        let named = self.named?;
        self.bounds.iter().filter(|bound| bound.in_effect).find(|bound| match bound.limit {
            Limit::AtLeast(version) => named < version,
            Limit::Below(version) => RuleSet::of(named).first >= version,
        })
    }

    /// Returns whether a server of this line may have run last.
    pub fn may_be(&self, line: Version) -> bool {
        match self.named {
            Some(named) => (named.major, named.minor) == (line.major, line.minor),
            None => self.interval.may_be(line),
        }
    }
}
