//! Compares the snapshots that several members have at one raft index and term. They are one state, so their stores
//! must agree.
//!
//! Compares only the nodes that an output depends on: each member has its own event history and statistics. If two
//! stores differ, the members have two histories, or one store was damaged before it was written. The data does not
//! show which one is right. Must not know the logs.

use std::collections::BTreeMap;

use super::context::Context;
use super::memory;
use crate::display::{lossy, short};
use crate::error::{Error, Reason, Result};
use crate::ids::{RaftIndex, Term};
use crate::interrupt::Interrupt;
use crate::source::dir::SnapName;
use crate::source::live_copy::Files;
use crate::source::open::Opened;
use crate::source::snap::Snapshot;
use crate::v2store::difference::difference;
use crate::v2store::tree::Tree;
use crate::v2store::{json, path};

/// Refuses members with different snapshots at one index and term. Ignores snapshots that cannot be read.
///
/// # Errors
/// [`Reason::TwoHistories`] with both files; [`Reason::MemoryLimit`] for the comparison; an interruption.
pub(super) fn check(opened: &Opened, context: &Context<'_>) -> Result<()> {
    if opened.members.len() < 2 {
        return Ok(());
    }
    let interrupt = context.interrupt;
    let mut named: BTreeMap<(RaftIndex, Term), Vec<(&SnapName, &Files)>> = BTreeMap::new();
    for member in &opened.members {
        for name in &member.snapshots {
            named.entry((name.index, name.term)).or_default().push((name, &member.files));
        }
    }
    for ((index, term), files) in named {
        let read = |(name, files): (&SnapName, &Files)| {
            let snapshot = Snapshot::of(files.open_snapshot(&name.path, interrupt).ok()?, interrupt).ok()?;
            ((snapshot.index, snapshot.term) == (index, term)).then_some(snapshot)
        };
        let mut snapshots = files.into_iter().filter_map(read);
        let Some(first) = snapshots.next() else { continue };
        for other in snapshots {
            interrupt.ask()?;
            refuse_other_state(&first, &other)?;
            if first.json() != other.json() {
                memory::before_comparing(context, [&first, &other])?;
                compare(&first, &other, interrupt)?;
            }
        }
    }
    Ok(())
}

fn compare(first: &Snapshot, other: &Snapshot, interrupt: Interrupt<'_>) -> Result<()> {
    let uncounted = interrupt.uncounted();
    let tables = (json::read_watched(first.json(), uncounted), json::read_watched(other.json(), uncounted));
    interrupt.ask()?;
    let (Ok(one), Ok(two)) = tables else { return Ok(()) };
    if one.current_index != two.current_index {
        let what =
            format!("the v2 index is {} in the first and {} in the second", one.current_index, two.current_index);
        return Err(differ(first, other, &what));
    }
    let found = difference(&mut Tree::new(&one), &mut Tree::new(&two), interrupt)?;
    let Some(path) = found.paths.first() else { return Ok(()) };
    Err(differ(first, other, &format!("first at {}", short(&lossy(path::user_key(path))))))
}

/// Refuses snapshots with different voters or learners. Their order does not matter.
fn refuse_other_state(first: &Snapshot, other: &Snapshot) -> Result<()> {
    let members = |snapshot: &Snapshot| {
        let state = snapshot.conf_state.clone();
        let (mut voters, mut learners) = (state.voters, state.learners);
        voters.sort_unstable();
        learners.sort_unstable();
        (voters, learners)
    };
    if members(first) == members(other) { Ok(()) } else { Err(differ(first, other, "in the voters")) }
}

fn differ(first: &Snapshot, other: &Snapshot, what: &str) -> Error {
    let message = format!(
        "the snapshot at raft index {} and term {} differs from that of another member, {}: {what}; nothing tells which one \
         is right",
        first.index,
        first.term,
        other.path().display()
    );
    Error::new(Reason::TwoHistories, message).in_file(first.path()).hint("name only members of one history")
}
