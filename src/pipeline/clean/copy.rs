//! The directory of one member: writes it, reads it back, and checks that an etcd starts on it.
//!
//! Must not know how it was decided what is removed.

use std::path::Path;

use super::member::Plan;
use crate::data_dir::{PREALLOCATED, SEGMENT_NAME};
use crate::error::{Error, Reason, Result};
use crate::options::{CheckOptions, UpgradeTarget};
use crate::pipeline::directories::files::Writer;
use crate::pipeline::directories::layout::{DB, SNAP, WAL};
use crate::pipeline::{Interrupted, check};
use crate::report::upgrade_check::{Blockers, CheckedSource, UpgradeCheck, Verdict};
use crate::source::open::{OpenOptions, Opened};
use crate::source::wal::Wal;

/// Writes the directory of a member. Returns the number of entries in its log.
///
/// # Errors
/// A file is read back with other bytes; the operating system fails; an interruption.
pub(super) fn write(writer: Writer<'_>, opened: &Opened, plan: &Plan, root: &Path) -> Result<u64> {
    let (snap, log) = (root.join(SNAP), root.join(WAL));
    writer.create_dir(&snap)?;
    writer.create_dir(&log)?;
    let sha256 = writer.describe(&plan.db)?.sha256;
    writer.copy(&plan.db, &root.join(DB), &sha256)?;
    let restart = plan.restart();
    writer.write(&snap.join(restart.snap_name()), &restart.snap_file()?, 0)?;
    let mut entries = 0;
    writer.stream(&log.join(SEGMENT_NAME), PREALLOCATED, &mut |out| {
        let counted = plan.entries(log_of(opened)?).inspect(|_| entries += 1);
        restart.write_segment(counted, plan.state, out)
    })?;
    Ok(entries)
}

/// Compares a directory with its source, and checks it as `check` does.
///
/// # Errors
/// [`Reason::VerifyFailed`]; an interruption.
pub(super) fn require_clean(
    opened: &Opened,
    plan: &Plan,
    root: &Path,
    target: UpgradeTarget,
    interrupted: Interrupted<'_>,
) -> Result<()> {
    let options = OpenOptions { interrupt: crate::interrupt::Interrupt::new(interrupted), ..OpenOptions::default() };
    let failed = |what: String| Error::new(Reason::VerifyFailed, format!("the copy of a member is wrong: {what}"));
    let copy = check::open_member(root, None, &options).map_err(|e| failed(e.message().to_string()))?;
    let (source, copied) = (log_of(opened)?, log_of(&copy)?);
    let owner = copied.metadata().map(|metadata| (metadata.node_id, metadata.cluster_id));
    if (owner, copied.hard_state()) != (Some((plan.id, plan.cluster)), Some(plan.state)) {
        return Err(failed("its log has another member or another hard state".into()));
    }
    let history = copied.history();
    let mut found = history.iter();
    for expected in plan.entries(source) {
        let expected = expected?;
        let entry = found.next().map(|reference| copied.entry(reference)).transpose()?;
        let parts = |entry: &crate::source::raft::Entry<'_>| (entry.kind, entry.term, entry.index);
        if !entry.is_some_and(|entry| parts(&entry) == parts(&expected) && entry.data == expected.data) {
            return Err(failed(format!("its log has another raft entry {}", expected.index)));
        }
    }
    if found.next().is_some() {
        return Err(failed("its log has more entries than the source".into()));
    }
    for version in [UpgradeTarget::V3_6, UpgradeTarget::V3_7].into_iter().filter(|version| *version <= target) {
        let checked = check::check(&CheckOptions::new([root]).target(version), interrupted)?;
        let has_no_v2 = if version == target { is_clean(&checked) } else { checked.sources.iter().all(has_no_v2) };
        if !has_no_v2 {
            return Err(failed(format!("`check` finds {} for etcd {version}", checked.verdict)));
        }
    }
    Ok(())
}

fn is_clean(checked: &UpgradeCheck) -> bool {
    checked.verdict == Verdict::Clean && checked.exit_status == 0
}

/// Returns whether a copy has no v2 content for an earlier version than its target. That version need not start on it.
fn has_no_v2(checked: &CheckedSource) -> bool {
    let Blockers { later_version: _, nodes, entries } = &checked.blockers;
    let has_none = checked.error.is_none() && nodes.is_empty() && entries.is_empty();
    has_none && !checked.loses_data() && checked.losses.is_empty()
}

fn log_of(opened: &Opened) -> Result<&Wal> {
    opened.wal().ok_or_else(|| Error::new(Reason::WalMissing, "the log of the member is missing"))
}
