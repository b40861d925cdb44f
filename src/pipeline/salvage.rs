//! `--salvage`: weighs every sound start of a damaged source by what a replay from it gives, and chooses the one that reaches
//! furthest.

use super::load::backend;
use super::prepare::replay_options;
use super::{Interrupted, memory};
use crate::error::{Error, Reason, Result};
use crate::ids::RaftIndex;
use crate::interrupt::Interrupt;
use crate::options::ConvertOptions;
use crate::source::choose::SalvageStart;
use crate::source::open::{Opened, Weighed};
use crate::transform::plan::NAMESPACE;
use crate::v2store::overlay::Tree;
use crate::v2store::recover::{ReplayOptions, read_table_watched, recover};

/// Starts that are replayed: each replay takes the time of a conversion, and no server keeps more than a few snapshots.
const MOST_WEIGHED: usize = 32;

/// Replays from each start, the most promising first, and leaves the source with the one that reaches furthest; of equals the newest snapshot. A start
/// that no replay can go on from is passed over, unless there is no other.
///
/// # Errors
/// That of the most promising start, where none can be replayed; an interruption; a start that takes more memory than
/// `--memory-limit` allows.
pub(super) fn weigh(opened: &mut Opened, options: &ConvertOptions, interrupted: Interrupted<'_>) -> Result<()> {
    let mut starts = std::mem::take(&mut opened.other_starts);
    if !opened.salvage {
        return Ok(());
    }
    let mut best: Option<(RaftIndex, RaftIndex, usize)> = None;
    let mut first_error = None;
    let mut weighed = Vec::new();
    for at in 0..=starts.len().min(MOST_WEIGHED - 1) {
        // The start at hand stands in `opened`, the one before it goes back to its place.
        if let Some(at) = at.checked_sub(1) {
            swap(opened, &mut starts, at);
        }
        let start = opened.choice.index();
        let path = opened.choice.snapshot.as_ref().map(|snapshot| snapshot.path().to_path_buf());
        match replay(opened, options, interrupted) {
            Ok((raft_index, keys)) => {
                if best.is_none_or(|(reached, from, _)| (raft_index, start) > (reached, from)) {
                    best = Some((raft_index, start, at));
                }
                weighed.push(Weighed { path, start, raft_index, keys, chosen: false, place: at });
            }
            Err(error) if matches!(error.reason(), Reason::Interrupted(_) | Reason::MemoryLimit) => return Err(error),
            Err(error) => {
                first_error.get_or_insert(error);
            }
        }
        if let Some(at) = at.checked_sub(1) {
            swap(opened, &mut starts, at);
        }
    }
    let Some((.., place)) = best else { return first_error.map_or(Ok(()), Err) };
    if let Some(at) = place.checked_sub(1) {
        let passed_over = std::mem::take(&mut opened.choice.passed_over);
        swap(opened, &mut starts, at);
        let index = opened.choice.index();
        opened.choice.passed_over.extend(passed_over.into_iter().filter(|passed| passed.index > index));
    }
    for line in &mut weighed {
        line.chosen = line.place == place;
    }
    opened.weighed = weighed;
    Ok(())
}

fn swap(opened: &mut Opened, starts: &mut [SalvageStart], at: usize) {
    if let Some(start) = starts.get_mut(at) {
        std::mem::swap(&mut opened.choice, &mut start.choice);
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
