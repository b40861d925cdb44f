//! The sidecar files of an output that are made from it: the ledger and the index map.

mod index_map;
mod ledger;

use std::path::Path;
use std::time::Instant;

use super::Interrupted;
use super::prepare::Prepared;
use super::targets::Places;
use crate::error::Result;
use crate::options::ConvertOptions;
use crate::output::Digested;
use crate::output::sidecar::Sidecar;
use crate::report::Report;

/// Makes the sidecar files of an output, without their names; `file` is the output, which a dry run has not.
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

/// Where the ledger goes. A dry run replaces none: that of an output stays.
fn ledger_path<'a>(options: &'a ConvertOptions, report: &mut Report) -> Option<&'a Path> {
    let path = options.ledger.as_deref()?;
    if options.dry_run && path.exists() {
        let message = format!("{}: the ledger exists, and a dry run replaces none", path.display());
        report.warn("ledger-not-written", message);
        return None;
    }
    Some(path)
}
