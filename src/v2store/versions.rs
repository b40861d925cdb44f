//! By which version's rules a log is replayed, and whether that matters.
//!
//! Where the source leaves several rule sets possible and its log has entries on which they differ, it is replayed by each of
//! them, and the trees are compared. A log without such entries is replayed once. Knows `dialect` and `evidence`; decides
//! nothing about what a difference means for a run.

use std::collections::BTreeSet;

use crate::error::Result;
use crate::ids::{RaftIndex, V2Index};
use crate::v2store::dialect::{Bound, Interval, Limit, RuleSet, Rules, Version};
use crate::v2store::difference::{Difference, difference};
use crate::v2store::evidence::{self, Found};
use crate::v2store::recover::{Ground, Recovered};

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
    /// Rule sets that were possible, and are refuted by the log's in-order names.
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

/// A rule set by which a request would use an in-order name that no request made.
#[derive(Debug, Clone, Copy)]
pub struct Refuted {
    /// The rule set.
    pub rule_set: RuleSet,
    /// The request.
    pub index: RaftIndex,
    /// A rule set by which that name was made.
    pub by: RuleSet,
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

/// The rules to replay by, and those to compare with.
pub(super) struct Choice {
    pub(super) rules: Rules,
    pub(super) versions: Versions,
    candidates: Vec<RuleSet>,
}

/// Chooses the rules of a replay.
///
/// # Errors
/// An entry cannot be read.
pub(super) fn choose(ground: &Ground<'_>) -> Result<Choice> {
    let Found { mut evidence, exercised } =
        evidence::gather(ground.opened, ground.table, &ground.committed, ground.backend, ground.up_to())?;
    let interval = evidence.resolve();
    let started = evidence.started.unwrap_or(RaftIndex(0));
    let mut versions = Versions { bounds: evidence.bounds, interval, ..Versions::default() };
    if let Some(named) = ground.options.version {
        versions.named = Some(named);
        versions.used = RuleSet::of(named);
        return Ok(Choice { rules: rules_of(ground, versions.used), versions, candidates: Vec::new() });
    }
    let alike = |a: RuleSet, b: RuleSet| !rules_of(ground, a).difference(rules_of(ground, b)).meets(exercised);
    let mut possible = interval.rule_sets();
    let candidates = representatives(&possible, interval.most_plausible(&possible), &alike);
    if candidates.len() > 1 && exercised.has(Rules::PADDED_NAMES) {
        versions.refuted = refuted(ground, &candidates, started);
        possible.retain(|set| !versions.refuted.iter().any(|refuted| alike(refuted.rule_set, *set)));
        versions.interval = interval.narrowed(&possible);
    }
    versions.used = versions.interval.most_plausible(&possible);
    let mut candidates = representatives(&possible, versions.used, &alike);
    candidates.retain(|set| *set != versions.used);
    Ok(Choice { rules: rules_of(ground, versions.used), versions, candidates })
}

fn rules_of(ground: &Ground<'_>, set: RuleSet) -> Rules {
    match ground.options.padded_names {
        Some(padded) => set.rules().with(Rules::PADDED_NAMES, padded),
        None => set.rules(),
    }
}

/// One of each that the log tells apart, the newest; of the most plausible one's kind, that one.
fn representatives(possible: &[RuleSet], plausible: RuleSet, alike: &dyn Fn(RuleSet, RuleSet) -> bool) -> Vec<RuleSet> {
    let mut kinds = vec![plausible];
    for set in possible.iter().rev() {
        if !kinds.iter().any(|kind| alike(*kind, *set)) {
            kinds.push(*set);
        }
    }
    kinds.sort_by_key(|set| set.first);
    kinds
}

/// The rule sets under which a request uses an in-order name that was never made, and that others account for: of two, the one
/// whose names were used, if no name of the other was. Only requests to the server that started last count.
fn refuted(ground: &Ground<'_>, candidates: &[RuleSet], started: RaftIndex) -> Vec<Refuted> {
    let used = |set: &RuleSet| -> Option<BTreeSet<RaftIndex>> {
        let replayed = ground.replay(rules_of(ground, *set), true, &mut |_| Ok(())).ok()?;
        Some(replayed.replay.names?.used.into_iter().filter(|index| *index > started).collect())
    };
    // What cannot be replayed at all is an error of the replay, if it is chosen.
    let used: Vec<_> = candidates.iter().map(|set| (*set, used(set).unwrap_or_default())).collect();
    let mut refuted = Vec::new();
    for (set, own) in &used {
        let by = used.iter().filter(|(_, other)| own.is_subset(other));
        let first = by.filter_map(|(by, other)| Some((*by, *other.difference(own).next()?))).next();
        refuted.extend(first.map(|(by, index)| Refuted { rule_set: *set, index, by }));
    }
    refuted
}

/// Replays by the other possible rules, and notes where the trees differ.
///
/// # Errors
/// Those of the replay by the chosen rules do not occur here; what cannot be replayed by other rules was not written by a server
/// that has them, because it would have stopped there.
pub(super) fn compare(ground: &Ground<'_>, choice: &mut Choice, chosen: &mut Recovered<'_>) -> Result<()> {
    for set in &choice.candidates {
        let Ok(mut other) = ground.replay(rules_of(ground, *set), false, &mut |_| Ok(())) else { continue };
        let found = difference(&mut chosen.replay.tree, &mut other.replay.tree);
        let v2_index = other.v2_index();
        if found.count > 0 || v2_index != chosen.v2_index() {
            choice.versions.others.push(Other { rule_set: *set, v2_index, difference: found });
        }
    }
    Ok(())
}
