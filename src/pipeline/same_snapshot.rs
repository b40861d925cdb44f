//! Snapshots that several members have of one raft index and term: the state of one cluster at one entry, so the same store.
//!
//! Compares the nodes that an output depends on. Watchers' history and statistics are each member's own, and may differ. Members
//! whose stores differ have two histories, or one of them was damaged before it was written; which is right cannot be known.

use std::collections::BTreeMap;

use super::{Interrupted, memory};
use crate::display::lossy;
use crate::display::short;
use crate::error::{Error, Reason, Result};
use crate::ids::{RaftIndex, Term};
use crate::interrupt::Interrupt;
use crate::options::ConvertOptions;
use crate::source::dir::SnapName;
use crate::source::live_copy::Files;
use crate::source::open::Opened;
use crate::source::snap::Snapshot;
use crate::v2store::difference::difference;
use crate::v2store::json;
use crate::v2store::path;
use crate::v2store::tree::Tree;

/// Refuses members that have different snapshots of one index and term. A snapshot that cannot be read is not compared.
///
/// # Errors
/// [`Reason::TwoHistories`] with both files; the comparison would need more memory than allowed.
pub(super) fn check(opened: &Opened, options: &ConvertOptions, interrupted: Interrupted<'_>) -> Result<()> {
    if opened.members.len() < 2 {
        return Ok(());
    }
    let interrupt = Interrupt::new(interrupted);
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
            interrupted()?;
            refuse_other_state(&first, &other)?;
            if first.json() != other.json() {
                memory::before_comparing(options, [&first, &other], interrupted)?;
                compare(&first, &other, interrupt)?;
            }
        }
    }
    Ok(())
}

fn compare(first: &Snapshot, other: &Snapshot, interrupt: Interrupt<'_>) -> Result<()> {
    let tables = (json::read_watched(first.json(), interrupt), json::read_watched(other.json(), interrupt));
    interrupt.ask()?;
    let (Ok(one), Ok(two)) = tables else { return Ok(()) };
    if one.current_index != two.current_index {
        let what = format!("the v2 index is {} here and {} there", one.current_index, two.current_index);
        return Err(differ(first, other, &what));
    }
    let found = difference(&mut Tree::new(&one), &mut Tree::new(&two), interrupt)?;
    let Some(path) = found.paths.first() else { return Ok(()) };
    Err(differ(first, other, &format!("first in {}", short(&lossy(path::user_key(path))))))
}

/// Who votes and who learns, in whatever order.
fn refuse_other_state(first: &Snapshot, other: &Snapshot) -> Result<()> {
    let members = |snapshot: &Snapshot| {
        let state = snapshot.conf_state.clone();
        let (mut voters, mut learners) = (state.voters, state.learners);
        voters.sort_unstable();
        learners.sort_unstable();
        (voters, learners)
    };
    if members(first) == members(other) { Ok(()) } else { Err(differ(first, other, "in who votes")) }
}

fn differ(first: &Snapshot, other: &Snapshot, what: &str) -> Error {
    let message = format!(
        "the snapshot of raft index {} and term {} differs from that of another member, {}, {what}: which of them is right \
         cannot be known; give only members of one history",
        first.index,
        first.term,
        other.path().display()
    );
    Error::new(Reason::TwoHistories, message).in_file(first.path())
}
