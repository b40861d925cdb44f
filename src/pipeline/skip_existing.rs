//! `--skip-existing`: an output that stands there already is checked, and sidecar files that it lacks are made.
//!
//! The report of the earlier run says what the output should be; the file has to say so too, and must hold exactly what the
//! source gives. A sidecar file is made from that and from the output.

use std::fs;
use std::path::Path;

use super::prepare::prepare;
use super::progress::Run;
use super::sidecars;
use super::targets::sidecar;
use super::write::Files;
use crate::error::{Error, Kind, Reason, Result};
use crate::export::index_map::is_index_map;
use crate::interrupt::Interrupt;
use crate::options::ConvertOptions;
use crate::output::Digested;
use crate::report::ledger::is_ledger;
use crate::report::{OutputFacts, Report};
use crate::source::live_copy;
use crate::source::map::Map;
use crate::source::open::Opened;
use crate::v2store::table::Table;
use crate::verify::{self, V3Summary};

/// Checks the output that `earlier` tells of. Returns the sidecar files that it lacks, without their names.
///
/// # Errors
/// The output is not sound, or not what the report tells of ([`Reason::OutputExists`]); a sidecar file cannot be made for it.
pub(super) fn check(
    options: &ConvertOptions,
    opened: &Opened,
    table: &Table<'_>,
    changes_limit: Option<u64>,
    earlier: &Report,
    run: &Run<'_>,
) -> Result<Option<Files>> {
    let output = &options.output;
    let facts = earlier.output.as_ref().ok_or_else(|| differs(output, "its report tells of no output"))?;
    let map = live_copy::map(output).map_err(|e| differs(output, e.message()))?;
    (run.interrupted)()?;
    let summary = verify::verify_watched(map.bytes(), Interrupt::new(run.interrupted)).map_err(|e| {
        if e.kind() != Kind::Verify {
            return e;
        }
        let place = e.offset().map_or(String::new(), |offset| format!("byte {offset}: "));
        differs(output, &format!("it is not sound: {place}{}", e.message()))
    })?;
    if let Some(what) = difference(facts, &summary) {
        return Err(differs(output, &format!("its report tells of another {what}")));
    }
    let missing = missing(options)?;
    if options.transformer.is_some() && missing.ledger.is_none() && missing.index_map.is_none() {
        // What a program made can be held against the source only by running it again.
        return Ok(None);
    }
    make(&missing, opened, table, changes_limit, earlier, &map, run).map(Some).map_err(|e| match e.kind() {
        Kind::Verify => differs(output, &format!("it does not hold what the source holds: {e}")),
        _ => e.context("holding the existing output against the source"),
    })
}

fn differs(output: &Path, what: &str) -> Error {
    let message = format!("the output exists, and {what}; --skip-existing leaves only an equal one alone");
    Error::new(Reason::OutputExists, message).in_file(output)
}

fn difference(facts: &OutputFacts, found: &V3Summary) -> Option<&'static str> {
    let numbers = [
        ("HashKV", facts.hash_kv.into(), u64::from(found.hash_kv)),
        ("status hash", facts.status_hash.into(), found.status_hash.into()),
        ("number of pairs", facts.pairs, found.pairs),
        ("number of leases", facts.leases, found.leases),
    ];
    numbers.into_iter().find(|(_, told, found)| told != found).map(|(what, ..)| what)
}

/// The options, without the sidecar files that exist.
fn missing(options: &ConvertOptions) -> Result<ConvertOptions> {
    let mut missing = options.clone();
    let exists = |what, path: &Option<std::path::PathBuf>, is_one: fn(&Path) -> bool| match path {
        Some(path) if fs::symlink_metadata(path).is_ok() => sidecar(what, path, true, is_one).map(|()| true),
        _ => Ok(false),
    };
    if options.dry_run {
        return Ok(ConvertOptions { ledger: None, index_map: None, ..missing });
    }
    if exists("ledger", &options.ledger, is_ledger)? {
        missing.ledger = None;
    }
    if exists("index map", &options.index_map, is_index_map)? {
        missing.index_map = None;
    }
    Ok(missing)
}

fn make(
    missing: &ConvertOptions,
    opened: &Opened,
    table: &Table<'_>,
    changes_limit: Option<u64>,
    earlier: &Report,
    map: &Map,
    run: &Run<'_>,
) -> Result<Files> {
    let facts = earlier.output.as_ref().ok_or_else(|| Error::new(Reason::Internal, "the report tells of no output"))?;
    let mut report = Report::new(missing);
    // TTLs count from the instant of the run that made the output.
    report.as_of.clone_from(&earlier.as_of);
    let prepared = prepare(opened, table, missing, changes_limit, &mut report, run.interrupted)?;
    verify::compare(map.bytes(), &prepared.content()?, &|| (run.interrupted)())?;
    let digested = Digested {
        db_sha256: bytes_of(&facts.db_sha256)?,
        db_bytes: facts.db_bytes,
        sha256: bytes_of(&facts.sha256)?,
        bytes: facts.bytes,
    };
    sidecars::make(missing, &prepared, Some(map.bytes()), &digested, &mut report, run.interrupted)
        .map(Files::without_output)
}

/// A sha256 from its hex digits.
fn bytes_of(hex: &str) -> Result<[u8; 32]> {
    let digits = (0..32).map(|at| u8::from_str_radix(hex.get(2 * at..2 * at + 2).unwrap_or_default(), 16).ok());
    let bytes: Option<Vec<u8>> = digits.collect();
    let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| Error::new(Reason::OutputExists, "expected a sha256 of 64 hex digits in the earlier report"))
}
