//! `advise`: what a v2 source relies on that v3 does not have, and what applications do in v3 instead.
//!
//! `nodes` reads the tree, `requests` the log, `history` the event history of the snapshot, and `access` users and roles. Reads a
//! source as a conversion does, but refuses no state: its warnings contain the losses too. Must not know how the result is printed.

mod access;
mod history;
mod nodes;
mod requests;
mod tallies;

use std::path::Path;

use requests::Requests;
use tallies::Tallies;

use super::context::Context;
use super::inspect::open_options;
use super::{Interrupted, backend, diagnostics, same_snapshot};
use crate::error::{Error, Reason, Result};
use crate::interrupt::Interrupt;
use crate::options::{AdviseOptions, ConvertOptions, WalDir};
use crate::report::Report;
use crate::report::advice::{Advice, Basis};
use crate::source::open::{Found, OpenOptions, Opened, open, open_cluster};
use crate::transform::rules::KeyRules;
use crate::v2store::recover::recover_observed;
use crate::v2store::replay::{Applied, Recovered, ReplayOptions, read_table_watched};
use crate::v2store::table::Table;

/// Advises on a source, or on the members of one cluster as one source.
///
/// # Errors
/// The source has no v2 data, is damaged, or cannot be read; an interruption.
pub fn advise(options: &AdviseOptions, interrupted: Interrupted<'_>) -> Result<Advice> {
    let wal_dirs = options.wal_dirs.len();
    if options.sources.is_empty() || (wal_dirs > 0 && wal_dirs != options.sources.len()) {
        let message = "expected at least 1 source, and as many log directories as sources or none";
        return Err(Error::new(Reason::Usage, message));
    }
    let interrupt = Interrupt::new(interrupted);
    let open_options = open_options(options.allow_live, interrupt);
    let advised = open_sources(options, &open_options).and_then(|opened| {
        let advice = advise_on(&opened, options, interrupt)?;
        opened.check_bytes(interrupt)?;
        Ok(advice)
    });
    open_options.watch.settle(advised)
}

fn open_sources(options: &AdviseOptions, open_options: &OpenOptions<'_>) -> Result<Box<Opened>> {
    let wal_dirs = (0..).map(|at| options.wal_dirs.get(at));
    let sources: Vec<(&Path, Option<&WalDir>)> = options.sources.iter().map(|path| &**path).zip(wal_dirs).collect();
    let [(source, wal_dir)] = sources.as_slice() else {
        return open_cluster(&sources, open_options).map(Box::new);
    };
    match open(source, *wal_dir, open_options)? {
        Found::V2(opened) => Ok(opened),
        Found::V3File(map) | Found::V3Only(map) => {
            let message = "found a v3 database, which has no v2 data";
            let error = Error::new(Reason::UnsupportedFormat, message).in_file(map.path());
            Err(error.hint("name the data directory: v2 data is in .snap and WAL files"))
        }
    }
}

/// Refuses members with different snapshots at one index.
fn check_snapshots(opened: &Opened, interrupt: Interrupt<'_>) -> Result<()> {
    let convert = ConvertOptions::new("", "");
    let context = Context::new(&convert, &Report::new(&convert), &(), interrupt)?;
    same_snapshot::check(opened, &context)
}

fn advise_on(opened: &Opened, options: &AdviseOptions, interrupt: Interrupt<'_>) -> Result<Advice> {
    check_snapshots(opened, interrupt)?;
    let table = read_table_watched(opened, interrupt)?;
    let backend = backend::newest(opened, interrupt)?;
    let mut found = Tallies::new(options.examples);
    let mut requests = Requests::new(&mut found);
    before_snapshot(opened, &mut requests, interrupt)?;
    let replay_options = ReplayOptions { interrupt, ..ReplayOptions::default() };
    let observe = &mut |applied: &Applied<'_>| requests.see(applied.entry, Some(applied.effect));
    let mut recovered = recover_observed(opened, &table, backend.applied(), &replay_options, observe)?;
    let (state, _) = diagnostics::source(opened, &mut recovered, None);
    // The tree comes last, because its queues join those of the log.
    let mut in_tree = Tallies::new(options.examples);
    let mut rules = KeyRules::new(&options.rules)?;
    let nodes = nodes::read(&mut recovered.replay.tree, &mut rules, &mut in_tree, interrupt)?;
    let basis = requests.end(nodes.queues);
    found.put_first(in_tree);
    let events = events(opened, &table, &mut found, interrupt)?;
    history::forgotten(recovered.v2_index().0, &mut found);
    let mut warnings = [state.notices.losses, state.notices.warnings].concat();
    warnings.extend(access::read(&mut recovered.replay.tree, &mut found));
    Ok(Advice {
        sources: options.sources.iter().map(|path| path.display().to_string()).collect(),
        basis: Basis { keys: nodes.keys, directories: nodes.directories, events, ..at(&recovered, basis) },
        findings: found.findings(),
        warnings,
    })
}

/// Sees the entries that the snapshot contains, as far as the log still has them.
fn before_snapshot(opened: &Opened, requests: &mut Requests<'_>, interrupt: Interrupt<'_>) -> Result<()> {
    let Some(wal) = opened.wal() else { return Ok(()) };
    let start = opened.start.index();
    for reference in wal.history().into_iter().take_while(|entry| entry.index <= start) {
        interrupt.ask()?;
        let entry = wal.entry(reference)?;
        // The state does not depend on this entry, so damage in it does not matter.
        let _ = requests.see(&entry, None);
    }
    Ok(())
}

fn events(opened: &Opened, table: &Table<'_>, found: &mut Tallies, interrupt: Interrupt<'_>) -> Result<u64> {
    history::read(table, found, interrupt).map_err(|e| match &opened.start.snapshot {
        Some(snapshot) => e.counted_from(snapshot.json_offset()).in_file(snapshot.path()),
        None => e,
    })
}

fn at(recovered: &Recovered<'_>, basis: Basis) -> Basis {
    Basis { raft_index: recovered.replay.applied.0, v2_index: recovered.v2_index().0, ..basis }
}
