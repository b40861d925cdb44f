//! `--salvage`: weighs every sound start of a damaged source by what a replay from it gives, and chooses the one that reaches
//! furthest.

use super::replay_options::replay_options;
use super::{Interrupted, memory};
use crate::error::{Error, Reason, Result};
use crate::ids::RaftIndex;
use crate::interrupt::Interrupt;
use crate::options::ConvertOptions;
use crate::pipeline::read::backend;
use crate::source::open::{Attempt, Opened, Outcome};
use crate::source::start::SalvageStart;
use crate::transform::policy::NAMESPACE;
use crate::v2store::recover::recover;
use crate::v2store::replay::{ReplayOptions, read_table_watched};
use crate::v2store::tree::Tree;

/// Starts that are replayed: each replay takes the time of a conversion, and no server keeps more than a few snapshots.
const MOST_REPLAYED: usize = 32;

/// Replays from each start, the most promising first, and leaves the source with the one that reaches furthest; of equals the
/// newest snapshot. A start that no replay can go on from is passed over, unless there is no other.
///
/// # Errors
/// That of the most promising start, where none can be replayed; an interruption; a start that takes more memory than
/// `--memory-limit` allows.
pub(super) fn weigh(opened: &mut Opened, options: &ConvertOptions, interrupted: Interrupted<'_>) -> Result<()> {
    let mut starts = std::mem::take(&mut opened.other_starts);
    if !opened.salvage {
        return Ok(());
    }
    let mut weighed = Vec::new();
    // The start at hand stands in `opened`, the others in `starts`.
    for place in 0..=starts.len() {
        swap(opened, &mut starts, place);
        let start = opened.start.index();
        let path = opened.start.snapshot.as_ref().map(|snapshot| snapshot.path().to_path_buf());
        let outcome = match (place < MOST_REPLAYED).then(|| replay(opened, options, interrupted)) {
            None => Outcome::NotTried,
            Some(Ok((raft_index, keys))) => Outcome::Reached(raft_index, keys),
            Some(Err(error)) if matches!(error.reason(), Reason::Interrupted(_) | Reason::MemoryLimit) => {
                return Err(error);
            }
            Some(Err(error)) => Outcome::Failed(error),
        };
        swap(opened, &mut starts, place);
        weighed.push(Attempt { path, start, outcome, chosen: false });
    }
    let reached = |weighed: &Attempt| match weighed.outcome {
        Outcome::Reached(raft_index, _) => Some((raft_index, weighed.start)),
        Outcome::Failed(_) | Outcome::NotTried => None,
    };
    // The first of those that are as good.
    let best = weighed.iter_mut().enumerate().rev().max_by_key(|(_, weighed)| reached(weighed));
    let Some((place, best)) = best.filter(|(_, best)| reached(best).is_some()) else {
        let first = weighed.into_iter().find_map(|weighed| match weighed.outcome {
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
    opened.attempts = weighed;
    Ok(())
}

/// Changes the start at hand with that of a place, or back again. The first place is its own.
fn swap(opened: &mut Opened, starts: &mut [SalvageStart], place: usize) {
    if let Some(start) = place.checked_sub(1).and_then(|other| starts.get_mut(other)) {
        std::mem::swap(&mut opened.start, &mut start.start);
    }
}

/// How far a replay goes, and how many keys it gives.
fn replay(opened: &Opened, options: &ConvertOptions, interrupted: Interrupted<'_>) -> Result<(RaftIndex, u64)> {
    let within = |e: Error| e.in_file(opened.path());
    memory::before_reading(options, opened, interrupted).map_err(within)?;
    let table = read_table_watched(opened, Interrupt::new(interrupted))?;
    let changes_limit = memory::after_reading(options, opened, &table, interrupted).map_err(within)?;
    let backend = backend(opened, interrupted)?;
    let replay_options = ReplayOptions { changes_limit, ..replay_options(options, interrupted) };
    let mut recovered = recover(opened, &table, backend.applied(), &replay_options)?;
    let applied = recovered.replay.applied;
    let keys = keys(&mut recovered.replay.tree, Interrupt::new(interrupted))?;
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
