//! The states of all members: the content at the common index, the reference, the nodes that differ, the v3 backends.
//!
//! Must not know the logs beyond the contradictions between them.

use std::cmp::Reverse;

use super::found::{Found, Given};
use super::reading::{self, Reading};
use crate::bolt::Db;
use crate::display::lossy;
use crate::error::{Error, Reason, Result};
use crate::ids::{RaftIndex, Revision};
use crate::interrupt::Interrupt;
use crate::report::comparison::{CommonV3, Comparison, Differs, NodeDifference, Status};
use crate::source::cluster::{self, Contradiction};
use crate::source::map::Map;
use crate::source::open::OpenOptions;
use crate::transform::policy::NAMESPACE;
use crate::v2store::content_hash::{ContentHash, content_hash};
use crate::v2store::difference::{DifferingNode, differing_nodes};
use crate::v2store::tree::Tree;
use crate::verify::{HashAt, hash_kv_at};

/// Maximum number of nodes that are listed for a member.
const LISTED: usize = 20;

/// A content hash, or the reason why a member cannot be replayed to the index.
type Hashed = std::result::Result<ContentHash, String>;

/// Compares the content at the common index and the entries of all pairs, and selects the reference.
///
/// # Errors
/// An interruption; a file changed.
pub(super) fn compare(given: &Given<'_>, index: RaftIndex, options: &OpenOptions<'_>) -> Result<Found> {
    let count = given.readings.len();
    let common: Vec<Hashed> = (0..count).map(|at| hash_at(given, at, index, options)).collect::<Result<_>>()?;
    let mut contradictions: Vec<Vec<Option<Contradiction>>> = Vec::new();
    for one in &given.readings {
        let of_pair = |other: &Reading| match (one.member(), other.member()) {
            (Some(one), Some(other)) => cluster::contradiction(one, other, options.interrupt),
            _ => Ok(None),
        };
        contradictions.push(given.readings.iter().map(of_pair).collect::<Result<_>>()?);
    }
    let hash = |at: usize| common.get(at).and_then(|hash| hash.as_ref().ok());
    let differ = |one: usize, other: usize| {
        let other_content = hash(one).zip(hash(other)).is_some_and(|(one, other)| one != other);
        other_content || contradictions.get(one).and_then(|of| of.get(other)?.as_ref()).is_some()
    };
    let contradict: Vec<Vec<bool>> =
        (0..count).map(|one| (0..count).map(|other| differ(one, other)).collect()).collect();
    // A member that contradicts most others is not the reference, even if it is the most advanced.
    let is_contradicted = |at: usize| {
        let by = contradict.get(at).map_or(0, |of| of.iter().filter(|differ| **differ).count());
        by * 2 > count.saturating_sub(1)
    };
    let rank = |at: &usize| {
        let reading = given.readings.get(*at)?;
        let (state, is_removed) = (&reading.state, given.is_removed(reading));
        Some((!is_removed, !is_contradicted(*at), state.applied, state.incomplete.is_none(), Reverse(*at)))
    };
    let reference = (0..count).max_by_key(rank).unwrap_or(0);
    let mut compared_later = Vec::new();
    for at in 0..count {
        let needed = at != reference && (hash(at).is_none() || hash(reference).is_none());
        compared_later.push(if needed { compare_later(given, at, reference, options)? } else { None });
    }
    let words = |hash: Hashed| hash.map(|hash| hash.to_string());
    Ok(Found {
        common: common.into_iter().map(words).collect(),
        contradictions: contradictions.into_iter().nth(reference).unwrap_or_default(),
        compared_later,
        reference,
        contradict,
    })
}

/// Compares a member with the reference at the lower one of their committed states, if both can be replayed to it.
fn compare_later(
    given: &Given<'_>,
    at: usize,
    reference: usize,
    options: &OpenOptions<'_>,
) -> Result<Option<(RaftIndex, bool)>> {
    let applied = |at: usize| given.readings.get(at).map(|reading| reading.state.applied);
    let Some(index) = applied(at).min(applied(reference)) else { return Ok(None) };
    let (one, other) = (hash_at(given, at, index, options)?, hash_at(given, reference, index, options)?);
    Ok(one.ok().zip(other.ok()).map(|(one, other)| (index, one == other)))
}

/// Returns the content hash of a member at a raft index.
fn hash_at(given: &Given<'_>, at: usize, index: RaftIndex, options: &OpenOptions<'_>) -> Result<Hashed> {
    let (Some(source), Some(reading)) = (given.sources.get(at), given.readings.get(at)) else {
        return Ok(Err("the member was not read".to_string()));
    };
    if reading.state.applied == index {
        return Ok(Ok(reading.state.hash));
    }
    let version = reading.state.rules.first;
    let hashed = reading::at(*source, index, version, options, |recovered| {
        content_hash(&mut recovered.replay.tree, options.interrupt)
    });
    unless_fatal(hashed)
}

/// Turns an error of a replay into its message, unless it ends the run.
fn unless_fatal<T>(result: Result<T>) -> Result<std::result::Result<T, String>> {
    let is_fatal = |error: &Error| matches!(error.reason(), Reason::Interrupted(_) | Reason::ChangedWhileReading);
    match result {
        Err(error) if is_fatal(&error) => Err(error),
        result => Ok(result.map_err(|error| error.message().to_string())),
    }
}

/// Lists the nodes in which members differ from the reference: at the index where the contents contradict each other, or
/// between the committed states.
///
/// # Errors
/// An interruption; a file changed.
pub(super) fn list_nodes(
    comparison: &mut Comparison,
    given: &Given<'_>,
    found: &Found,
    options: &OpenOptions<'_>,
) -> Result<()> {
    let common = RaftIndex(comparison.common_index);
    let Some(reference) = given.readings.get(found.reference) else { return Ok(()) };
    for (at, reading) in given.readings.iter().enumerate() {
        let Some(line) = given.positions.get(at).and_then(|position| comparison.members.get_mut(*position)) else {
            continue;
        };
        let of_common = |at: usize| found.common.get(at).and_then(|hash| hash.as_ref().ok());
        let differ = of_common(at).zip(of_common(found.reference)).is_some_and(|(one, other)| one != other);
        let indexes = match found.compared_later.get(at).copied().flatten() {
            _ if differ => (common, common),
            Some((index, false)) => (index, index),
            _ => (reading.state.applied, reference.state.applied),
        };
        let equal = reading.state.hash == reference.state.hash && indexes.0 != common;
        if at == found.reference || line.status == Status::Equal || equal {
            continue;
        }
        let listed = list_between(given, (at, indexes.0), (found.reference, indexes.1), options)?;
        if let Ok((count, nodes)) = listed {
            line.nodes_compared_at = Some((indexes.0.0, indexes.1.0));
            (line.differing_nodes, line.nodes) = (count, nodes);
        }
    }
    Ok(())
}

type Listed = (u64, Vec<NodeDifference>);

fn list_between(
    given: &Given<'_>,
    member: (usize, RaftIndex),
    reference: (usize, RaftIndex),
    options: &OpenOptions<'_>,
) -> Result<std::result::Result<Listed, String>> {
    let of = |at: usize| given.sources.get(at).zip(given.readings.get(at));
    let (Some((source, reading)), Some((other_source, other_reading))) = (of(member.0), of(reference.0)) else {
        return Ok(Err("the member was not read".to_string()));
    };
    let listed = reading::at(*other_source, reference.1, other_reading.state.rules.first, options, |other| {
        let expected = &mut other.replay.tree;
        reading::at(*source, member.1, reading.state.rules.first, options, |own| {
            let own = &mut own.replay.tree;
            let found = differing_nodes(expected, own, LISTED, options.interrupt)?;
            let nodes = found.first.iter().map(|node| node_difference(expected, own, node)).collect();
            Ok((found.count, nodes))
        })
    });
    unless_fatal(listed)
}

fn node_difference(expected: &Tree<'_>, own: &Tree<'_>, node: &DifferingNode) -> NodeDifference {
    let mut differs = Vec::new();
    match (node.one, node.other) {
        (Some(one), Some(other)) => {
            let facts = [
                (Differs::Kind, expected.is_dir(one) != own.is_dir(other)),
                (Differs::Value, expected.value(one) != own.value(other)),
                (Differs::CreatedIndex, expected.created(one) != own.created(other)),
                (Differs::ModifiedIndex, expected.modified(one) != own.modified(other)),
                (Differs::Expiration, expected.expiry(one) != own.expiry(other)),
            ];
            differs.extend(facts.into_iter().filter(|(_, differ)| *differ).map(|(what, _)| what));
        }
        (None, _) => differs.push(Differs::Extra),
        (_, None) => differs.push(Differs::Missing),
    }
    NodeDifference { key: lossy(node.path.strip_prefix(NAMESPACE).unwrap_or(&node.path)), differs }
}

/// Computes HashKV of all v3 backends at the smallest current revision, compacted at the highest compact revision.
///
/// # Errors
/// An interruption.
pub(super) fn compare_backends(comparison: &mut Comparison, given: &Given<'_>, interrupt: Interrupt<'_>) -> Result<()> {
    let lines = || comparison.members.iter().filter_map(|line| Some((&line.path, line.v3.as_ref()?)));
    let Some((path, first)) = lines().min_by_key(|(_, v3)| v3.revision) else { return Ok(()) };
    let compacted = lines().filter_map(|(_, v3)| v3.compact_revision).max();
    let mut common = CommonV3 { revision: first.revision, compact_revision: compacted, not_comparable: None };
    if compacted.is_some_and(|compacted| compacted > common.revision) {
        let message = format!(
            "{path} is at revision {}, and another member has compacted the history up to {}",
            common.revision,
            compacted.unwrap_or_default()
        );
        common.not_comparable = Some(message);
    }
    let same_compaction = lines().all(|(_, v3)| v3.compact_revision == compacted);
    let mut hashes = Vec::new();
    for (reading, position) in given.readings.iter().zip(&given.positions) {
        let Some(map) = reading.backend().filter(|_| common.not_comparable.is_none()) else { continue };
        if comparison.members.get(*position).is_none_or(|line| line.v3.is_none()) {
            continue;
        }
        match hash_of(map, &common, interrupt)? {
            Ok(hash) if hash.is_stable || same_compaction => hashes.push((*position, hash.hash)),
            Ok(_) => common.not_comparable = Some("no key is live, and the compact revisions differ".to_string()),
            Err(why) => common.not_comparable = Some(why),
        }
    }
    for (position, hash) in hashes.into_iter().filter(|_| common.not_comparable.is_none()) {
        if let Some(v3) = comparison.members.get_mut(position).and_then(|line| line.v3.as_mut()) {
            v3.common_hash_kv = Some(hash);
        }
    }
    comparison.v3 = Some(common);
    Ok(())
}

fn hash_of(map: &Map, common: &CommonV3, interrupt: Interrupt<'_>) -> Result<std::result::Result<HashAt, String>> {
    let revision = |revision: u64| Revision(i64::try_from(revision).unwrap_or(i64::MAX));
    let db = Db::open(map.bytes()).map(|db| db.watched(interrupt));
    let compacted = common.compact_revision.map(revision);
    let hash = db.and_then(|db| hash_kv_at(&db, revision(common.revision), compacted));
    // An interrupted read looks like damage.
    interrupt.ask()?;
    Ok(hash.map_err(|damage| format!("{}: byte {}: {}", map.path().display(), damage.offset, damage.message)))
}
