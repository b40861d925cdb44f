//! The sidecar files that are made from an output: the ledger and the index map.
//!
//! Both are complete before the output gets its name. A dry run writes a ledger where none exists, and no index map.
//! Must not know the policies.

mod index_map;
mod ledger;

use std::path::Path;

use super::context::{Activity, Context};
use super::number::Numbered;
use super::targets::Places;
use crate::error::Result;
use crate::notice::Code;
use crate::options::ConvertOptions;
use crate::output::Digested;
use crate::output::sidecar::Sidecar;
use crate::pipeline::clock::Begun;
use crate::report::{Notices, StageName};

/// Sidecar files under temporary names, and what their making found.
#[derive(Default)]
pub(super) struct Made {
    pub(super) files: Vec<Sidecar>,
    pub(super) notices: Notices,
}

/// Makes the sidecar files of an output, under temporary names. `file` is the output; `None` in a dry run.
/// `is_compared`: it is known to have the content of the plan.
pub(super) fn make(
    context: &Context<'_>,
    places: Places,
    numbered: &Numbered<'_>,
    file: Option<&[u8]>,
    digested: &Digested,
    is_compared: bool,
) -> Result<Made> {
    let mut made = Made::default();
    let options = context.options;
    if let Some(path) = ledger_path(options, &mut made.notices) {
        context.observer.stage(Activity::Ledger);
        let started = Begun::now();
        let mut ledger = Sidecar::create(path, places.ledger)?;
        ledger::write(&mut ledger, numbered, file, context.interrupt)?;
        context.took(StageName::Ledger, started);
        made.files.push(ledger);
    }
    if let (Some(path), Some(file)) = (&options.index_map, file) {
        context.observer.stage(Activity::IndexMap);
        let started = Begun::now();
        let map = Sidecar::create(path, places.index_map)?;
        index_map::write(&map, numbered, file, digested, is_compared, context)?;
        context.took(StageName::IndexMap, started);
        made.files.push(map);
    }
    Ok(made)
}

/// Returns the path of the ledger. A dry run does not replace an existing ledger, which may belong to an output.
fn ledger_path<'a>(options: &'a ConvertOptions, notices: &mut Notices) -> Option<&'a Path> {
    let path = options.ledger.as_deref()?;
    if options.dry_run && path.exists() {
        let message = format!("{}: a dry run does not replace the existing ledger", path.display());
        notices.warn(Code::LedgerNotWritten, message);
        return None;
    }
    Some(path)
}
