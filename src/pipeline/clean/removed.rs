//! What a run removes, as files: the v2 keys (`--save-v2`), and the list of nodes and requests (`--ledger`).
//!
//! Must not know what a copy contains.

use std::path::Path;

use super::member::Plan;
use crate::error::{Error, Reason, Result};
use crate::notice::Code;
use crate::options::{CleanOptions, ExportOptions};
use crate::output::sidecar::Sidecar;
use crate::pipeline::export;
use crate::report::cleaning::RemovedLine;
use crate::report::{Exported, Notice};
use crate::source::open::OpenOptions;

/// Writes the v2 keys of the members as `export` does. Without keys there is no file.
///
/// # Errors
/// Those of an export.
pub(super) fn save(
    path: &Path,
    options: &CleanOptions,
    plans: &[&Plan],
    open_options: &OpenOptions<'_>,
) -> Result<(Exported, Option<Sidecar>)> {
    // A removed member has an earlier state, which matters only if no other is given.
    let all_removed = plans.iter().all(|plan| plan.is_removed());
    let mut export = ExportOptions::new("", path);
    export.sources.clear();
    export.allow_removed = true;
    for (at, plan) in plans.iter().enumerate().filter(|(_, plan)| all_removed || !plan.is_removed()) {
        export.sources.push(plan.path.clone());
        export.wal_dirs.extend(options.wal_dirs.get(at).cloned());
    }
    let (mut exported, file) = export::stage_file(&export, &open_options.watch, open_options.interrupt)?;
    // The copy has the v3 data, and the notices of its member say what is wrong with the log.
    let said = |notice: &Notice| plans.iter().any(|plan| plan.warnings.iter().any(|own| own.code == notice.code));
    exported.warnings.retain(|notice| notice.code != Code::V3Present && !said(notice));
    Ok((exported, file))
}

/// Writes a line for each removed node and each replaced request.
///
/// # Errors
/// The file cannot be written; an interruption.
pub(super) fn ledger(path: &Path, plans: &[&Plan], options: &OpenOptions<'_>) -> Result<Sidecar> {
    let mut file = Sidecar::create(path, Default::default())?;
    file.write(|out| {
        for plan in plans {
            let member_id = &plan.id.to_string();
            let nodes = plan.nodes.iter().map(|node| RemovedLine { member_id, node: Some(node), request: None });
            let requests =
                plan.replaced.iter().map(|entry| RemovedLine { member_id, node: None, request: Some(entry) });
            for (number, line) in nodes.chain(requests).enumerate() {
                options.interrupt.ask_at(number)?;
                let mut json = serde_json::to_vec(&line)
                    .map_err(|e| Error::new(Reason::Internal, format!("cannot write a line as JSON: {e}")))?;
                json.push(b'\n');
                let failed = |e| Error::io(Reason::OutputFailed, path, "write the ledger", e);
                out.write_all(&json).map_err(failed)?;
            }
        }
        Ok(())
    })?;
    file.sync().map(|()| file)
}
