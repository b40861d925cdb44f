//! The rules of a replay, and whether the choice makes a difference.
//!
//! The source may allow several rule sets, and its log may have entries on which they differ. Then it is replayed with
//! each of them, and the trees are compared. A log without such entries is replayed once. Uses `dialect` and `evidence`. Must
//! not know what a difference means for a run.

use std::collections::BTreeSet;

use crate::error::{Reason, Result};
use crate::ids::RaftIndex;
use crate::v2store::dialect::{RuleSet, Rules};
use crate::v2store::difference::difference;
use crate::v2store::evidence::{self, Found};
use crate::v2store::membership;
use crate::v2store::replay::{Recovered, ReplayInput};
use crate::v2store::versions::{Other, Refutation, Refuted, Versions};

/// The rules to replay with, and those to compare with.
pub(super) struct Choice {
    pub(super) rules: Rules,
    pub(super) versions: Versions,
    candidates: Vec<RuleSet>,
}

/// Selects the rules of a replay.
///
/// # Errors
/// An entry cannot be read.
pub(super) fn choose(input: &ReplayInput<'_, '_>) -> Result<Choice> {
    let Found { mut evidence, exercised, members } = evidence::gather(input)?;
    let interval = evidence.resolve();
    let started = evidence.started.unwrap_or(RaftIndex(0));
    let mut versions = Versions { bounds: evidence.bounds, interval, ..Versions::default() };
    if let Some(named) = input.options.version {
        versions.named = Some(named);
        versions.used = RuleSet::of(named);
        return Ok(Choice { rules: rules_of(input, versions.used), versions, candidates: Vec::new() });
    }
    let alike = |a: RuleSet, b: RuleSet| !rules_of(input, a).difference(rules_of(input, b)).meets(exercised);
    let mut possible = interval.rule_sets();
    let candidates = representatives(&possible, interval.most_plausible(&possible), &alike);
    if candidates.len() > 1 && (exercised.has(Rules::PADDED_NAMES) || members.is_some()) {
        let trials = candidates.iter().map(|set| Trial::of(input, *set, started));
        let trials: Vec<Trial> = trials.filter_map(Result::transpose).collect::<Result<_>>()?;
        versions.refuted = by_names(&trials);
        versions.refuted.extend(members.into_iter().flat_map(|(members, index)| by_members(&trials, members, index)));
        possible.retain(|set| !versions.refuted.iter().any(|refuted| alike(refuted.rule_set, *set)));
        versions.interval = interval.narrowed(&possible);
    }
    versions.used = versions.interval.most_plausible(&possible);
    let mut candidates = representatives(&possible, versions.used, &alike);
    candidates.retain(|set| *set != versions.used);
    Ok(Choice { rules: rules_of(input, versions.used), versions, candidates })
}

fn rules_of(input: &ReplayInput<'_, '_>, set: RuleSet) -> Rules {
    match input.options.padded_names {
        Some(padded) => set.rules().with(Rules::PADDED_NAMES, padded),
        None => set.rules(),
    }
}

/// Returns one of each kind that the log distinguishes: the newest, or the most plausible one for its own kind.
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

/// Returns whether more than one candidate remains that the log distinguishes.
///
/// # Errors
/// An entry cannot be read.
pub(super) fn may_compare(input: &ReplayInput<'_, '_>) -> Result<bool> {
    let Found { mut evidence, exercised, .. } = evidence::gather(input)?;
    let alike = |a: RuleSet, b: RuleSet| !rules_of(input, a).difference(rules_of(input, b)).meets(exercised);
    let possible = evidence.resolve().rule_sets();
    let differ = possible.windows(2).any(|pair| matches!(pair, [a, b] if !alike(*a, *b)));
    Ok(differ && input.options.version.is_none())
}

/// Replays with a rule set that may be wrong. Returns `None` if the log cannot be replayed with it.
///
/// # Errors
/// An interruption; [`Reason::MemoryLimit`](crate::error::Reason::MemoryLimit).
fn attempt<'m>(input: &ReplayInput<'m, '_>, set: RuleSet, names: bool) -> Result<Option<Recovered<'m>>> {
    match input.replay(rules_of(input, set), names, &mut |_| Ok(())) {
        Ok(recovered) => Ok(Some(recovered)),
        Err(error) if matches!(error.reason(), Reason::Interrupted(_) | Reason::MemoryLimit) => Err(error),
        Err(_) => Ok(None),
    }
}

/// The result of a replay with one rule set.
struct Trial {
    rule_set: RuleSet,
    /// Of the requests to the server that started last, those that use an in-order name.
    used: BTreeSet<RaftIndex>,
    /// The members at the end.
    members: u64,
}

impl Trial {
    /// Runs the replay. A replay that fails is an error only if its rule set is selected.
    ///
    /// # Errors
    /// An interruption.
    fn of(input: &ReplayInput<'_, '_>, rule_set: RuleSet, started: RaftIndex) -> Result<Option<Trial>> {
        let Some(recovered) = attempt(input, rule_set, true)? else { return Ok(None) };
        let mut replay = recovered.replay;
        let members = membership::fingerprint_of(&mut replay.tree);
        let used = replay.names.into_iter().flat_map(|names| names.used).filter(|index| *index > started).collect();
        Ok(Some(Trial { rule_set, used, members }))
    }
}

/// Returns the rule sets under which a request uses an in-order name that was never created, while other rule sets
/// account for it. Of two sets, the one whose names were used remains, if no name of the other was used.
fn by_names(trials: &[Trial]) -> Vec<Refuted> {
    let refuted = |trial: &Trial| {
        let others = trials.iter().filter(|other| trial.used.is_subset(&other.used));
        let (by, index) =
            others.filter_map(|other| Some((other.rule_set, *other.used.difference(&trial.used).next()?))).next()?;
        Some(Refuted { rule_set: trial.rule_set, index, refutation: Refutation::Name, by })
    };
    trials.iter().filter_map(refuted).collect()
}

/// Returns the rule sets that do not lead to the members in the v3 backend, if others do.
fn by_members(trials: &[Trial], members: u64, index: RaftIndex) -> Vec<Refuted> {
    let Some(by) = trials.iter().find(|trial| trial.members == members) else { return Vec::new() };
    let refuted = |trial: &&Trial| trial.members != members;
    let refuted = trials.iter().filter(refuted);
    refuted
        .map(|trial| Refuted { rule_set: trial.rule_set, index, refutation: Refutation::Members, by: by.rule_set })
        .collect()
}

/// Replays with the other possible rules, and records where the trees differ.
///
/// If the log cannot be replayed with other rules, no server with them wrote it, because it would have stopped there.
///
/// # Errors
/// An interruption.
pub(super) fn compare(input: &ReplayInput<'_, '_>, choice: &mut Choice, chosen: &mut Recovered<'_>) -> Result<()> {
    for set in &choice.candidates {
        let Some(mut other) = attempt(input, *set, false)? else { continue };
        let found = difference(&mut chosen.replay.tree, &mut other.replay.tree, input.options.interrupt)?;
        let v2_index = other.v2_index();
        if found.count > 0 || v2_index != chosen.v2_index() {
            choice.versions.others.push(Other { rule_set: *set, v2_index, difference: found });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v2store::dialect::Version;

    fn trial(version: (u32, u32, u32), used: &[u64], members: u64) -> Trial {
        let rule_set = RuleSet::of(Version::new(version.0, version.1, version.2));
        Trial { rule_set, used: used.iter().copied().map(RaftIndex).collect(), members }
    }

    fn refuted(found: Vec<Refuted>) -> Vec<(&'static str, u64)> {
        found.into_iter().map(|refuted| (refuted.rule_set.label, refuted.index.0)).collect()
    }

    #[test]
    fn a_rule_set_is_refuted_where_another_accounts_for_more_names() {
        let old = |used| trial((2, 1, 0), used, 0);
        let new = |used| trial((2, 2, 0), used, 0);
        assert_eq!(refuted(by_names(&[old(&[]), new(&[7, 9])])), [("2.0.10 to 2.1", 7)]);
        assert_eq!(refuted(by_names(&[old(&[7, 8]), new(&[7])])), [("2.2", 8)]);
        // Each set uses names that only the other does not have: nothing is proven.
        assert_eq!(refuted(by_names(&[old(&[7]), new(&[8])])), []);
        assert_eq!(refuted(by_names(&[old(&[]), new(&[])])), []);
    }

    #[test]
    fn members_refute_only_where_some_rules_lead_to_them() {
        let trials = [trial((3, 5, 0), &[], 1), trial((3, 5, 31), &[], 2)];
        assert_eq!(refuted(by_members(&trials, 1, RaftIndex(5))), [("3.5.31 or later", 5)]);
        assert_eq!(refuted(by_members(&trials, 2, RaftIndex(5))), [("3.5.0 to 3.5.30", 5)]);
        assert_eq!(refuted(by_members(&trials, 3, RaftIndex(5))), []);
    }
}
