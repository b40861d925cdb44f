//! `--salvage`: replays from every readable start snapshot of a damaged source, and selects the one with the highest
//! raft index.
//!
//! Must not know why a start is damaged.

use super::context::Context;
use super::replay_options::replay_options;
use super::{backend, memory, owner};
use crate::error::{Error, Reason, Result};
use crate::ids::RaftIndex;
use crate::interrupt::Interrupt;
use crate::source::open::{Attempt, Opened, Outcome};
use crate::source::start::SalvageStart;
use crate::transform::policy::NAMESPACE;
use crate::v2store::recover::recover;
use crate::v2store::replay::read_table_watched;
use crate::v2store::tree::Tree;

/// The maximum number of replays. Each takes the time of a conversion, and a server retains only a few snapshots.
const MOST_REPLAYED: usize = 32;

/// Replays from each start, the most promising first, and sets the source to the start whose replay reaches the highest
/// raft index; among equals, to the newest snapshot. Skips a start that cannot be replayed, unless it is the only one.
///
/// # Errors
/// That of the most promising start, if none can be replayed; an interruption; a start that needs more memory than
/// `--memory-limit` allows.
pub(super) fn compare_starts(opened: &mut Opened, context: &Context<'_>) -> Result<()> {
    let mut starts = std::mem::take(&mut opened.other_starts);
    if !opened.salvage {
        return Ok(());
    }
    let mut attempts = Vec::new();
    // `opened` has the current start, `starts` the others.
    for place in 0..=starts.len() {
        swap(opened, &mut starts, place);
        let start = opened.start.index();
        let path = opened.start.snapshot.as_ref().map(|snapshot| snapshot.path().to_path_buf());
        let outcome = match (place < MOST_REPLAYED).then(|| replay(opened, context)) {
            None => Outcome::NotTried,
            Some(Ok((raft_index, keys))) => Outcome::Reached(raft_index, keys),
            Some(Err(error)) if matches!(error.reason(), Reason::Interrupted(_) | Reason::MemoryLimit) => {
                return Err(error);
            }
            Some(Err(error)) => Outcome::Failed(error),
        };
        swap(opened, &mut starts, place);
        attempts.push(Attempt { path, start, outcome, chosen: false });
    }
    let reached = |attempt: &Attempt| match attempt.outcome {
        Outcome::Reached(raft_index, _) => Some((raft_index, attempt.start)),
        Outcome::Failed(_) | Outcome::NotTried => None,
    };
    // Among equals, the first one.
    let best = attempts.iter_mut().enumerate().rev().max_by_key(|(_, attempt)| reached(attempt));
    let Some((place, best)) = best.filter(|(_, best)| reached(best).is_some()) else {
        let first = attempts.into_iter().find_map(|attempt| match attempt.outcome {
            Outcome::Failed(error) => Some(error),
            Outcome::Reached(..) | Outcome::NotTried => None,
        });
        return first.map_or(Ok(()), Err);
    };
    best.chosen = true;
    if place > 0 {
        let passed_over = std::mem::take(&mut opened.start.passed_over);
        swap(opened, &mut starts, place);
        let index = opened.start.index();
        opened.start.passed_over.extend(passed_over.into_iter().filter(|passed| passed.index > index));
    }
    opened.attempts = attempts;
    Ok(())
}

/// Exchanges the current start with that of a place, or back again. Place 0 is the current start itself.
fn swap(opened: &mut Opened, starts: &mut [SalvageStart], place: usize) {
    if let Some(start) = place.checked_sub(1).and_then(|other| starts.get_mut(other)) {
        std::mem::swap(&mut opened.start, &mut start.start);
    }
}

/// Replays the log. Returns the last raft index and the number of keys.
fn replay(opened: &Opened, context: &Context<'_>) -> Result<(RaftIndex, u64)> {
    let within = |e: Error| e.in_file(opened.path());
    memory::before_reading(context, opened).map_err(within)?;
    let table = read_table_watched(opened, context.interrupt)?;
    let changes_limit = memory::after_reading(context, opened, &table).map_err(within)?;
    owner::require_content(opened, &table, context.interrupt)?;
    let backend = backend::newest(opened, context.interrupt)?;
    let mut recovered = recover(opened, &table, backend.applied(), &replay_options(context, changes_limit))?;
    let applied = recovered.replay.applied;
    let keys = keys(&mut recovered.replay.tree, context.interrupt)?;
    Ok((applied, keys))
}

fn keys(tree: &mut Tree<'_>, interrupt: Interrupt<'_>) -> Result<u64> {
    let Ok(root) = tree.lookup(NAMESPACE) else { return Ok(0) };
    let tree = &*tree;
    let (mut keys, mut visited) = (0, 0);
    tree.walk(root, &mut |visit| {
        visited += 1;
        keys += u64::from(!tree.is_dir(visit.node));
        interrupt.ask_at(visited)
    })?;
    Ok(keys)
}
