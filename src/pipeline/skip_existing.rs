//! `--skip-existing`: checks an output that exists, and makes the sidecar files that it lacks.
//!
//! The output must agree with the report of the earlier run, and must have exactly the content that the source gives. A
//! sidecar file is made from the source and the output. Must not know how an output is written.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;

use super::context::Context;
use super::read::Source;
use super::targets::Places;
use super::write::Files;
use super::{directories, sidecars, stages};
use crate::error::{Error, Kind, Reason, Result};
use crate::export::index_map::is_of_output;
use crate::options::ConvertOptions;
use crate::output::Digested;
use crate::report::{OutputFacts, Report};
use crate::source::live_copy;
use crate::source::map::Map;
use crate::verify::{self, V3Summary};

/// Checks the output that `earlier` describes. Returns the sidecar files that it lacks, without their names.
///
/// # Errors
/// [`Reason::OutputExists`] if the output is damaged or differs from the report or the source; a sidecar file cannot be
/// made.
pub(super) fn check(
    context: &Context<'_>,
    source: Source<'_>,
    earlier: &Report,
    places: Places,
) -> Result<Option<Files>> {
    let options = context.options;
    let output = &options.output;
    let facts = earlier.output.as_ref().ok_or_else(|| differs(output, "its report names no output"))?;
    let map = live_copy::map(&directories::first_database(options, facts)).map_err(|e| differs(output, e.message()))?;
    context.interrupt.ask()?;
    let summary = verify::verify_watched(map.bytes(), context.interrupt).map_err(|e| {
        if e.kind() != Kind::Verify {
            return e;
        }
        let place = e.offset().map_or(String::new(), |offset| format!("byte {offset}: "));
        differs(output, &format!("it is damaged: {place}{}", e.message()))
    })?;
    if let Some(what) = difference(facts, &summary) {
        return Err(differs(output, &format!("its report has another {what}")));
    }
    let wanted = wanted(options);
    if options.transformer.is_some() && !makes_any(&wanted, options) {
        // Only another run of the transformer could compare its pairs with the source.
        return check_index_map(facts, context).map(|()| None);
    }
    let made = make(context, &wanted, source, earlier, &map, places).map_err(|e| match e.kind() {
        Kind::Verify => differs(output, &format!("it differs from the source: {e}")),
        _ => e.context("comparing the existing output with the source"),
    })?;
    check_index_map(facts, context)?;
    Ok(Some(made))
}

/// Refuses an existing index map of another output.
fn check_index_map(facts: &OutputFacts, context: &Context<'_>) -> Result<()> {
    match &context.options.index_map {
        Some(path) if exists(path) && !is_of_output(path, &facts.sha256, context.interrupt)? => {
            Err(differs(path, "it is the index map of another output"))
        }
        _ => Ok(()),
    }
}

fn differs(output: &Path, what: &str) -> Error {
    let error = Error::new(Reason::OutputExists, format!("it exists, and {what}")).in_file(output);
    error.hint(crate::report::earlier::NOT_EQUAL)
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

/// Returns whether a sidecar file has content. An empty file counts as missing.
fn exists(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.len() > 0)
}

/// Returns the options with the sidecar files to make, including those that are made only to be compared.
fn wanted(options: &ConvertOptions) -> ConvertOptions {
    let mut wanted = options.clone();
    if options.dry_run {
        return ConvertOptions { ledger: None, index_map: None, ..wanted };
    }
    wanted.index_map = wanted.index_map.filter(|path| !exists(path));
    wanted
}

/// Returns whether a sidecar file is missing.
fn makes_any(wanted: &ConvertOptions, options: &ConvertOptions) -> bool {
    wanted.index_map.is_some() || (!options.dry_run && options.ledger.as_ref().is_some_and(|path| !exists(path)))
}

fn make(
    context: &Context<'_>,
    wanted: &ConvertOptions,
    source: Source<'_>,
    earlier: &Report,
    map: &Map,
    places: Places,
) -> Result<Files> {
    let facts = earlier.output.as_ref().ok_or_else(|| Error::new(Reason::Internal, "the report names no output"))?;
    let mut report = Report::new(wanted);
    // TTLs count against the instant of the run that made the output.
    report.as_of.clone_from(&earlier.as_of);
    let context = &context.with(wanted, &report)?;
    let numbered = stages::run(context, source, &mut report)?;
    verify::compare(map.bytes(), &numbered.content()?, context.interrupt)?;
    let digested = Digested {
        db_sha256: bytes_of(&facts.db_sha256)?,
        db_bytes: facts.db_bytes,
        sha256: bytes_of(&facts.sha256)?,
        bytes: facts.bytes,
    };
    let made = sidecars::make(context, places, &numbered, Some(map.bytes()), &digested, true)?;
    let mut missing = Vec::new();
    for file in made.files {
        if !exists(file.path()) {
            missing.push(file);
        } else if !is_same(file.temp_path(), file.path(), context)? {
            return Err(differs(file.path(), "it belongs to another output"));
        }
    }
    Ok(Files::without_output(missing))
}

/// Returns whether two files have the same bytes.
fn is_same(one: &Path, other: &Path, context: &Context<'_>) -> Result<bool> {
    let open = |path: &Path| -> Result<_> {
        let file = File::open(path).map_err(|e| Error::io(Reason::OutputExists, path, "read", e))?;
        Ok(BufReader::with_capacity(1 << 20, file))
    };
    let (mut one, mut other) = (open(one)?, open(other)?);
    loop {
        context.interrupt.ask()?;
        let failed = |e| Error::io(Reason::OutputExists, Path::new("a sidecar file"), "compare", e);
        let (a, b) = (one.fill_buf().map_err(failed)?, other.fill_buf().map_err(failed)?);
        let len = a.len().min(b.len());
        if len == 0 || a.get(..len) != b.get(..len) {
            return Ok(a.is_empty() && b.is_empty());
        }
        one.consume(len);
        other.consume(len);
    }
}

/// Decodes a sha256 from its hex digits.
fn bytes_of(hex: &str) -> Result<[u8; 32]> {
    let digits = (0..32).map(|at| u8::from_str_radix(hex.get(2 * at..2 * at + 2).unwrap_or_default(), 16).ok());
    let bytes: Option<Vec<u8>> = digits.collect();
    let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| Error::new(Reason::OutputExists, "expected a sha256 of 64 hex digits in the earlier report"))
}
