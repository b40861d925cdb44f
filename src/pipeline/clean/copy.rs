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
use crate::report::upgrade_check::Verdict;
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
    let targets = [UpgradeTarget::V3_6, target];
    for target in targets.iter().skip(usize::from(target == UpgradeTarget::V3_6)) {
        let checked = check::check(&CheckOptions::new([root]).target(*target), interrupted)?;
        if checked.verdict != Verdict::Clean || checked.exit_status != 0 {
            return Err(failed(format!("`check` finds {} for etcd {target}", checked.verdict)));
        }
    }
    Ok(())
}

fn log_of(opened: &Opened) -> Result<&Wal> {
    opened.wal().ok_or_else(|| Error::new(Reason::WalMissing, "the log of the member is missing"))
}
