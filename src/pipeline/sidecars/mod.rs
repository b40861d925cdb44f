//! The sidecar files that are made from an output: the ledger and the index map. Must not know the policies.

mod index_map;
mod ledger;

use std::path::Path;
use std::time::Instant;

use super::Interrupted;
use super::prepare::Prepared;
use super::targets::Places;
use crate::error::Result;
use crate::notice::Code;
use crate::options::ConvertOptions;
use crate::output::Digested;
use crate::output::sidecar::Sidecar;
use crate::report::Report;

/// Makes the sidecar files of an output, under temporary names. `file` is the output; `None` in a dry run.
pub(super) fn make(
    options: &ConvertOptions,
    places: Places,
    prepared: &Prepared<'_>,
    file: Option<&[u8]>,
    digested: &Digested,
    report: &mut Report,
    interrupted: Interrupted<'_>,
) -> Result<Vec<Sidecar>> {
    let mut made = Vec::new();
    if let Some(path) = ledger_path(options, report) {
        let started = Instant::now();
        let mut ledger = Sidecar::create(path, places.ledger)?;
        ledger::write(&mut ledger, prepared, file, &report.balance, interrupted)?;
        report.stage("ledger", started.elapsed());
        made.push(ledger);
    }
    if let (Some(path), Some(file)) = (&options.index_map, file) {
        let started = Instant::now();
        let map = Sidecar::create(path, places.index_map)?;
        index_map::write(&map, prepared, file, digested, options, interrupted)?;
        report.stage("index map", started.elapsed());
        made.push(map);
    }
    Ok(made)
}

/// Returns the path of the ledger. A dry run does not replace an existing ledger, which may belong to an output.
fn ledger_path<'a>(options: &'a ConvertOptions, report: &mut Report) -> Option<&'a Path> {
    let path = options.ledger.as_deref()?;
    if options.dry_run && path.exists() {
        let message = format!("{}: a dry run does not replace the existing ledger", path.display());
        report.warn(Code::LedgerNotWritten, message);
        return None;
    }
    Some(path)
}
