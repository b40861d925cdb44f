//! The changes that led to a state: the log again, from a snapshot on that is old enough.
//!
//! Must not know who asks.

use super::super::Change;
use super::arena::Arena;
use super::follow::{Follower, Step};
use crate::error::{Reason, Result};
use crate::ids::{RaftIndex, V2Index};
use crate::interrupt::Interrupt;
use crate::source::growing::{GrowingLog, LogPlace};
use crate::source::open::Opened;
use crate::v2store::apply::Replay;
use crate::v2store::dialect::Rules;
use crate::v2store::membership::Voters;
use crate::v2store::replay::read_table_watched;
use crate::v2store::tree::Tree;

/// A state whose past is asked for.
#[derive(Clone, Copy)]
pub(super) struct Past<'p> {
    pub(super) place: &'p LogPlace,
    /// The rules of the state.
    pub(super) rules: Rules,
    /// The last entry of the state.
    pub(super) applied: RaftIndex,
    /// Its index.
    pub(super) index: V2Index,
    pub(super) interrupt: Interrupt<'static>,
}

/// Opens the directory with the newest start at or below an entry.
pub(super) type Open<'o> = &'o dyn Fn(RaftIndex) -> Result<Opened>;

impl Past<'_> {
    /// Calls `each` with the changes after this index up to the state, in order. Returns whether the files have all of them.
    ///
    /// # Errors
    /// That of `each`; an interruption; one of the files, which means that they do not have all.
    pub(super) fn replay(
        &self,
        since: V2Index,
        open: Open<'_>,
        each: &mut dyn FnMut(Vec<Change>) -> Result<()>,
    ) -> Result<bool> {
        let Some(opened) = self.start(since, open)? else { return Ok(false) };
        let table = read_table_watched(&opened, self.interrupt)?;
        let start = opened.start.index();
        let Some(log) = GrowingLog::open(self.place, start)? else { return Ok(false) };
        let voters = opened.start.snapshot.as_ref().map(|found| Voters::from(&found.conf_state)).unwrap_or_default();
        let forms = opened.wal().map(|wal| wal.marks().forms()).unwrap_or_default();
        let replay = Replay::new(Tree::new(&table), voters, self.rules, start);
        let arena = Arena::default();
        let mut follower = Follower::new(replay, log, forms, arena.end(), self.interrupt);
        while follower.replay.applied < self.applied {
            let Step::More(mut changes) = follower.step()? else { return Ok(false) };
            changes.retain(|change| change.index > since && change.index <= self.index);
            each(changes)?;
            // A purge must not take what is still to be read.
            follower.hold()?;
        }
        Ok(table.current_index <= since)
    }

    /// Opens the newest start at or below an index of the store; without one, the oldest that leads to the log.
    fn start(&self, since: V2Index, open: Open<'_>) -> Result<Option<Opened>> {
        let mut to = self.applied;
        let mut later = None;
        loop {
            let found = open(to).and_then(|opened| {
                let leads = GrowingLog::open(self.place, opened.start.index())?.is_some();
                let index = read_table_watched(&opened, self.interrupt)?.current_index;
                Ok((opened, index, leads))
            });
            match found {
                Ok((opened, index, true)) => match opened.start.index() {
                    start if index > since && start > RaftIndex(0) => {
                        // It is opened again if no older one does: only one of them is held.
                        later = Some(to);
                        to = RaftIndex(start.0 - 1);
                    }
                    _ => return Ok(Some(opened)),
                },
                Err(e) if matches!(e.reason(), Reason::Interrupted(_)) => return Err(e),
                _ => return later.map(open).transpose(),
            }
        }
    }
}
