//! `convert`: the stages in their order, each with its refusals, and the books that must balance.

use std::path::PathBuf;
use std::time::Instant;

use jiff::Timestamp;

use super::load::{Backend, backend, read_and_hash, wal_dir};
use super::write::{Image, Written, write};
use super::{Interrupted, facts};
use crate::error::{Error, Reason, Result};
use crate::ids::{RaftIndex, Term};
use crate::mvcc::schema;
use crate::options::{ConvertOptions, Dirs, InOrderNames, Keep, Revisions, TailPolicy, To};
use crate::output::sink::refuse_existing;
use crate::output::snapshot::hex;
use crate::report::table::counted;
use crate::report::{Balance, Count, OutputFacts, Report, earlier};
use crate::source::open::{Found, OpenOptions, Opened, open, open_cluster};
use crate::source::wal::Wal;
use crate::transform::auth;
use crate::transform::order::{Numbering, Ordered, order};
use crate::transform::plan::{Plan, Policy, plan};
use crate::v2store::membership;
use crate::v2store::recover::{Recovered, ReplayOptions, TailRule, recover};

/// How a conversion ended that has made an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All that the cluster held.
    Complete,
    /// Done and verified, but perhaps not all that the cluster held (exit 8); the report's losses say what.
    Partial,
}

/// Converts a source into an output file, which appears whole and verified, or not at all. The report is filled in as far as
/// the run got, whether it fails or not.
///
/// # Errors
/// Every kind of CLI.md's exit table; nothing is left behind then.
pub fn convert(options: &ConvertOptions, report: &mut Report, interrupted: Interrupted<'_>) -> Result<Outcome> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.jobs.max(1))
        .build()
        .map_err(|e| Error::new(Reason::Internal, format!("cannot start threads: {e}")))?;
    pool.install(|| run(options, report, interrupted))
}

fn run(options: &ConvertOptions, report: &mut Report, interrupted: Interrupted<'_>) -> Result<Outcome> {
    if !options.skip_existing {
        refuse_existing(&options.output, options.overwrite)?;
    }
    let started = Instant::now();
    let opened = open_v2(options)?;
    report.stage("open", started.elapsed());

    let started = Instant::now();
    let (table, files) = read_and_hash(&opened, interrupted)?;
    report.source_files = files;
    report.stage("read", started.elapsed());
    if options.skip_existing
        && let Some(earlier) = earlier::find(report, &|| interrupted())?
    {
        *report = earlier;
        return Ok(if report.losses.is_empty() { Outcome::Complete } else { Outcome::Partial });
    }

    let started = Instant::now();
    let backend = backend(&opened)?;
    let mut recovered = recover(&opened, &table, backend.consistent_index, &replay_options(options))
        .map_err(|e| e.in_file(opened.path()))?;
    facts::source(report, &opened, &mut recovered);
    report.stage("replay", started.elapsed());
    refuse_removed(&opened, &mut recovered, options)?;

    let started = Instant::now();
    let v2_index = recovered.v2_index();
    let auth = auth::names(&mut recovered.replay.tree);
    facts::auth(report, &auth);
    let plan = plan(&mut recovered.replay.tree, &policy(options, report)?, &|| interrupted())?;
    facts::contents(report, &plan, table.duplicates);
    refuse_nothing(options, &opened, &plan)?;
    backend.refuse_v3(&opened, &recovered.replay.v3_writes)?;
    let balance = balance(&plan);
    let numbering = match options.revisions {
        Revisions::Keep => Numbering::Keep,
        Revisions::Dense => Numbering::Dense,
    };
    let tree = &recovered.replay.tree;
    let ordered = order(tree, plan.rows, numbering, v2_index, options.bump_revision)?;
    facts::order(report, &ordered);
    report.stage("plan", started.elapsed());
    refuse_strict(options, report).map_err(|e| e.in_file(opened.path()))?;

    let (consistent_index, term) = raft_position(options, &opened, &recovered, &backend);
    let meta = schema::Meta {
        consistent_index,
        term,
        scheduled_compact: Some(ordered.current),
        finished_compact: Some(ordered.current),
    };
    check_balance(&balance, &ordered, plan.markers)?;
    let written = write(&Image { tree, ordered: &ordered, meta }, options, report, interrupted)?;
    report.balance = balance;
    report.output = Some(output_facts(options, v2_index.0, &written));
    Ok(if report.losses.is_empty() { Outcome::Complete } else { Outcome::Partial })
}

fn open_v2(options: &ConvertOptions) -> Result<Box<Opened>> {
    let open_options = OpenOptions { up_to: options.up_to_index.map(RaftIndex), salvage: options.salvage };
    let wal_dirs: Vec<_> = (0..options.sources.len()).map(|at| wal_dir(options.wal_dirs.get(at))).collect();
    let sources: Vec<_> = options.sources.iter().map(PathBuf::as_path).zip(&wal_dirs).collect();
    let [(source, wal_dir)] = sources.as_slice() else {
        return open_cluster(&sources, open_options).map(Box::new);
    };
    match open(source, wal_dir, open_options)? {
        Found::V2(opened) => Ok(opened),
        Found::V3File(map) => {
            let message = "found a v3 database: v2 keys are in .snap and WAL files; give the data directory";
            Err(Error::new(Reason::UnsupportedFormat, message).in_file(map.path()))
        }
        Found::V3Only(_) => {
            let message = "nothing to convert: no .snap file and no WAL, only a v3 database (if the WAL lives elsewhere, \
                           give --wal-dir DIR)";
            Err(Error::new(Reason::NothingToConvert, message).in_file(source))
        }
    }
}

fn replay_options(options: &ConvertOptions) -> ReplayOptions {
    ReplayOptions {
        tail: match options.tail {
            TailPolicy::Auto => TailRule::Auto,
            TailPolicy::Committed => TailRule::Committed,
            TailPolicy::All => TailRule::All,
            TailPolicy::Fail => TailRule::Fail,
        },
        up_to: options.up_to_index.map(RaftIndex),
        padded_names: match options.in_order_names {
            InOrderNames::Auto => None,
            InOrderNames::Plain => Some(false),
            InOrderNames::Padded => Some(true),
        },
    }
}

fn refuse_removed(opened: &Opened, recovered: &mut Recovered<'_>, options: &ConvertOptions) -> Result<()> {
    let Some(metadata) = opened.wal().and_then(Wal::metadata) else { return Ok(()) };
    if options.allow_removed
        || opened.members.len() > 1
        || !membership::was_removed(&mut recovered.replay.tree, metadata.node_id)
    {
        return Ok(());
    }
    let message = format!(
        "member {} was removed from its cluster: convert a live member, or give --allow-removed to take what it last knew",
        metadata.node_id
    );
    Err(Error::new(Reason::MemberRemoved, message).in_file(opened.path()))
}

fn policy(options: &ConvertOptions, report: &Report) -> Result<Policy> {
    let as_of: Timestamp =
        report.as_of.parse().map_err(|_| Error::new(Reason::Internal, "the report's instant cannot be read"))?;
    Ok(Policy { drop_hidden: options.hidden == Keep::Drop, mark_empty_dirs: options.dirs == Dirs::Marker, as_of })
}

fn refuse_nothing(options: &ConvertOptions, opened: &Opened, plan: &Plan) -> Result<()> {
    if !plan.rows.is_empty() || options.allow_empty {
        return Ok(());
    }
    let message = if plan.inventory.keys.keys == 0 {
        "nothing to convert: the source holds no v2 key (--allow-empty writes an empty database)".to_string()
    } else {
        let keys = counted(plan.inventory.keys.keys, "v2 key", "v2 keys");
        format!("nothing to convert: the options leave none of {keys} (--allow-empty writes an empty database)")
    };
    Err(Error::new(Reason::NothingToConvert, message).in_file(opened.path()))
}

fn refuse_strict(options: &ConvertOptions, report: &Report) -> Result<()> {
    let objections = report.strict_objections();
    match objections.first() {
        Some(first) if options.strict => {
            let more = objections.len() - 1;
            let more = if more == 0 { String::new() } else { format!(" (and {more} more)") };
            Err(Error::new(Reason::Strict, format!("--strict refuses: {first}{more}")))
        }
        _ => Ok(()),
    }
}

fn balance(plan: &Plan) -> Balance {
    Balance {
        source: plan.inventory.keys,
        written: plan.written,
        dropped: plan.dropped,
        expired: Count::default(),
        excluded: Count::default(),
    }
}

/// The books: every source key is written or has a reason, and there are as many rows as the books say.
fn check_balance(balance: &Balance, ordered: &Ordered, markers: u64) -> Result<()> {
    if balance.holds() && ordered.rows.len() as u64 == balance.written.keys + markers {
        return Ok(());
    }
    let message = format!(
        "the books do not balance: {} keys in the source, {} to be written, {} left out, {} rows and {markers} of them markers",
        balance.source.keys,
        balance.written.keys,
        balance.source.keys.saturating_sub(balance.written.keys),
        ordered.rows.len()
    );
    Err(Error::new(Reason::Unbalanced, message))
}

/// A snapshot file is the same whichever member it is from, and restoring it sets both anyway; a backend continues where
/// this member's log stands (FORMATS 9.8).
fn raft_position(
    options: &ConvertOptions,
    opened: &Opened,
    recovered: &Recovered<'_>,
    backend: &Backend,
) -> (RaftIndex, Term) {
    if options.to == To::Snapshot {
        return (RaftIndex(1), Term(1));
    }
    let applied = recovered.replay.applied.max(backend.consistent_index.unwrap_or(RaftIndex(0)));
    let entry = opened.wal().and_then(|wal| wal.at(applied));
    let term = entry.map_or(opened.choice.term(), |entry| entry.term);
    (applied, term)
}

fn output_facts(options: &ConvertOptions, v2_index: u64, written: &Written) -> OutputFacts {
    let revision = u64::try_from(written.revision.0).unwrap_or(0);
    OutputFacts {
        bytes: written.digested.bytes,
        sha256: hex(&written.digested.sha256),
        db_bytes: written.digested.db_bytes,
        db_sha256: hex(&written.digested.db_sha256),
        v2_index,
        revision,
        compact_revision: revision,
        hash_kv: written.hash_kv,
        status_hash: written.status_hash,
        leases: 0,
        verified: options.verify && !options.dry_run,
    }
}
