//! A replay that goes on as the log of the member grows.
//!
//! Applies what is committed by the rules for a log at rest: up to the commit index in the log, or everything if this member is the
//! only voter. Must not know who asks.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::super::{Change, Head};
use super::arena::End;
use super::changes;
use super::clock::Clock;
use crate::error::Result;
use crate::ids::RaftIndex;
use crate::interrupt::Interrupt;
use crate::source::entries::EntryRef;
use crate::source::evidence::Forms;
use crate::source::growing::{GrowingLog, Grown};
use crate::source::raft::{EntryKind, Proposal, parse_entry, parse_proposal};
use crate::v2store::apply::Replay;
use crate::v2store::membership;
use crate::v2store::replay::write_in;

/// A replay and the log that it goes on with.
pub(super) struct Follower<'m> {
    pub(super) replay: Replay<'m>,
    pub(super) log: GrowingLog,
    /// Where the bytes of requests go that the tree refers to.
    arena: End<'m>,
    interrupt: Interrupt<'static>,
    /// The entries that were last counted as not committed: the first and last of them, and the number of writes.
    tail: Option<(RaftIndex, RaftIndex, u64)>,
    /// Bytes of the entries.
    scratch: Vec<u8>,
    /// The evidence about the servers with which the rules were selected, and the version of the cluster then.
    evidence: (Forms, Option<String>),
    /// When new segments were last looked for.
    held: Instant,
    clock: Clock,
}

/// How often new segments are opened before they are needed, and the log is compared with the one that is open.
pub(super) const HOLD: Duration = Duration::from_millis(500);

/// What one step found.
#[derive(Debug)]
pub(super) enum Step {
    /// The log had more; changes may be among it.
    More(Vec<Change>),
    /// The end of the log.
    End,
    /// There is other evidence about the servers, so that other rules may be right.
    Evidence,
    /// The log does not continue here, for this reason.
    Broken(String),
}

/// Changes after which a step ends, and the bytes of their values.
const CHANGES: usize = 1024;
const BYTES: usize = 4 << 20;
/// Entries that are applied at once.
const ENTRIES: usize = 4096;
/// Entries at the end of the log that are read to see whether they are writes. More of them count without that.
const TAIL: usize = 1024;

impl<'m> Follower<'m> {
    /// Creates a follower of a log that was opened after the last entry of the replay.
    pub(super) fn new(
        mut replay: Replay<'m>,
        log: GrowingLog,
        forms: Forms,
        arena: End<'m>,
        interrupt: Interrupt<'static>,
    ) -> Follower<'m> {
        replay.tree.record();
        let evidence = (forms, membership::cluster_version(&mut replay.tree));
        let (tail, scratch, held, clock) = (None, Vec::new(), Instant::now(), Clock::default());
        Follower { replay, log, arena, interrupt, tail, scratch, evidence, held, clock }
    }

    /// Opens new segments, if that is due, so that a purge cannot take them. `Some` is the reason why the log does not continue.
    ///
    /// # Errors
    /// The directory cannot be listed, or a segment not opened.
    pub(super) fn hold(&mut self) -> Result<Option<String>> {
        if self.held.elapsed() < HOLD {
            return Ok(None);
        }
        self.held = Instant::now();
        self.log.hold()
    }

    /// Reads the log once, and applies the entries that are committed.
    ///
    /// # Errors
    /// Damage in the log or in an entry; a file that cannot be read; an interruption.
    pub(super) fn step(&mut self) -> Result<Step> {
        // What was read before and is still to be applied comes first.
        let mut changes = Vec::new();
        if self.apply(&mut changes)? {
            return Ok(Step::More(changes));
        }
        match self.log.grow(self.interrupt)? {
            Grown::Broken(why) => return Ok(Step::Broken(why)),
            Grown::Nothing if self.is_other_evidence() => return Ok(Step::Evidence),
            Grown::Nothing => return Ok(Step::End),
            Grown::More => {}
        }
        self.apply(&mut changes)?;
        Ok(Step::More(changes))
    }

    fn is_other_evidence(&mut self) -> bool {
        let (forms, version) = &self.evidence;
        let is_other = |(now, before): (&Option<bool>, &Option<bool>)| now.is_some() && now != before;
        self.log.forms().iter().zip(forms).any(is_other)
            || membership::cluster_version(&mut self.replay.tree) != *version
    }

    /// Returns where the store is, and how many writes wait for their commit.
    ///
    /// # Errors
    /// The log cannot be read.
    pub(super) fn head(&mut self) -> Result<Head> {
        let entries = self.log.entries();
        let range = entries.first().zip(entries.last()).map(|(first, last)| (first.index, last.index));
        let uncommitted = match (range, self.tail) {
            (None, _) => 0,
            (Some((first, last)), Some((f, l, writes))) if (first, last) == (f, l) => writes,
            (Some((first, last)), _) => {
                let writes = self.writes()?;
                self.tail = Some((first, last, writes));
                writes
            }
        };
        let (index, raft) = (self.replay.tree.current_index, Some(self.replay.applied));
        Ok(Head { index, raft, uncommitted, clock_ahead: self.clock.seconds_ahead() })
    }

    fn writes(&mut self) -> Result<u64> {
        let entries = self.log.entries();
        let mut writes = entries.len().saturating_sub(TAIL) as u64;
        for reference in entries.iter().take(TAIL) {
            self.scratch.clear();
            self.log.read_entry(reference, &mut self.scratch)?;
            writes += u64::from(write_in(&parse_entry(&self.scratch, reference.offset())?).is_some());
        }
        Ok(writes)
    }

    fn is_committed(&self, entry: &EntryRef) -> bool {
        let only = self.replay.voters.only();
        entry.index <= self.log.commit() || (only.is_some() && only == self.log.member())
    }

    /// Applies entries that are committed. Returns whether there were any.
    fn apply(&mut self, changes: &mut Vec<Change>) -> Result<bool> {
        let mut held = 0;
        let mut any = false;
        for _ in 0..ENTRIES {
            let Some(reference) = self.log.entries().first().copied().filter(|entry| self.is_committed(entry)) else {
                break;
            };
            self.apply_one(&reference, changes).map_err(|e| e.in_file(self.log.segment_path(&reference)))?;
            self.log.take(reference.index);
            any = true;
            held += reference.len();
            if changes.len() >= CHANGES || held >= BYTES {
                break;
            }
        }
        Ok(any)
    }

    fn apply_one(&mut self, reference: &EntryRef, changes: &mut Vec<Change>) -> Result<()> {
        self.scratch.clear();
        self.log.read_entry(reference, &mut self.scratch)?;
        let entry = parse_entry(&self.scratch, reference.offset())?;
        let is_v3 = entry.kind == EntryKind::Normal
            && matches!(parse_proposal(entry.data, entry.data_offset)?, Proposal::V3(_) | Proposal::Empty);
        if is_v3 {
            // Without effect on the tree, so their bytes need not be held.
            self.replay.applied = reference.index;
            return Ok(());
        }
        let bytes = self.arena.push(self.scratch.as_slice().to_vec());
        let entry = parse_entry(bytes, reference.offset())?;
        self.replay.apply(&entry).map_err(|e| e.at(entry.data_offset))?;
        self.replay.ambiguous_expiries.clear();
        self.clock.see(self.replay.last_sync, Timestamp::now());
        changes::append(&mut self.replay, &entry, changes)
    }
}
