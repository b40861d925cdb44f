//! `inspect`: the content of a source or of a v3 file.
//!
//! Reads all of it, writes nothing. Has the findings of a conversion, but does not refuse: its warnings contain the
//! losses too. Must not know how the result is printed.

use jiff::Timestamp;

use super::backend::{self, v2v3_notices};
use super::diagnostics::{self, PlanFindings};
use super::directories::boot;
use super::read::{read_and_hash, source_file};
use super::{Interrupted, duplicates, owner};
use crate::bolt::Db;
use crate::count::counted;
use crate::display::lossy;
use crate::error::{Error, Reason, Result};
use crate::interrupt::Interrupt;
use crate::mvcc::{KeyValue, RevisionKey, schema};
use crate::notice::Code;
use crate::options::{Expired, InspectOptions};
use crate::report::inspection::{Facts, KeyLine, V2Facts, V3Facts, V3Kind};
use crate::report::{Inspection, Notice};
use crate::source::map::Map;
use crate::source::open::{Found, OpenOptions, Opened, open};
use crate::transform::auth;
use crate::transform::plan::plan;
use crate::transform::policy::Policy;
use crate::v2store::path;
use crate::v2store::recover::recover;
use crate::v2store::replay::ReplayOptions;
use crate::v2store::tree::Tree;
use crate::verify::{V3Summary, replicated_hash, summarize_watched, v3_content};

/// What becomes of v2 trees inside v3 data.
const NOT_SEPARATED: &str = "which no conversion separates";

/// Inspects a source.
///
/// # Errors
/// The source is not etcd data, is damaged, or cannot be read; an interruption.
pub fn inspect(options: &InspectOptions, interrupted: Interrupted<'_>) -> Result<Inspection> {
    let interrupt = Interrupt::new(interrupted);
    let open_options = open_options(options.allow_live, interrupt);
    let inspected = open(&options.source, options.wal_dir.as_ref(), &open_options).and_then(|found| {
        let inspection = match &found {
            Found::V2(opened) => inspect_v2(opened, options, interrupt)?,
            Found::V3File(map) | Found::V3Only(map) => inspect_v3(map, options, interrupt)?,
        };
        found.check_bytes(interrupt)?;
        Ok(inspection)
    });
    open_options.watch.settle(inspected)
}

/// Returns the options to open a source for an inspection.
pub(super) fn open_options(allow_live: bool, interrupt: Interrupt<'_>) -> OpenOptions<'_> {
    OpenOptions { allow_live, interrupt, ..OpenOptions::default() }
}

fn inspect_v2(opened: &Opened, options: &InspectOptions, interrupt: Interrupt<'_>) -> Result<Inspection> {
    let (table, source_files) = read_and_hash(opened, interrupt)?;
    owner::require_content(opened, &table, interrupt)?;
    let backend = backend::newest(opened, interrupt)?;
    let replay_options = ReplayOptions { interrupt, ..ReplayOptions::default() };
    let mut recovered = recover(opened, &table, backend.applied(), &replay_options)?;
    // An inspection has the same findings as a conversion, but does not refuse: the losses contain every reason to
    // refuse.
    let (state, _) = diagnostics::source(opened, &mut recovered, None);
    let mut found = PlanFindings::default();
    found.notices.warnings.extend(backend.unusable_notice());
    found.auth_names(&auth::names(&mut recovered.replay.tree));
    let mut policy = Policy { expired: Expired::Keep, ..Policy::everything(Timestamp::now()) };
    let plan = plan(&mut recovered.replay.tree, &mut policy, interrupt)?;
    found.contents(&recovered.replay.tree, &plan, &policy);
    duplicates::note(&mut found, opened, &table, interrupt)?;
    found.notices.warnings.extend(v2v3_notices(&backend.content, NOT_SEPARATED));
    let db = opened.start_member().and_then(|member| member.db.as_ref()).filter(|db| !db.bytes().is_empty());
    let db = db.filter(|_| backend.unusable.is_none()).map(|db| v3_facts(db, interrupt)).transpose()?;
    let (db, findings) = db.map_or((None, Vec::new()), |(facts, findings)| (Some(facts), findings));
    let tree = &recovered.replay.tree;
    let key_list = options.keys.then(|| {
        let mut lines: Vec<_> = plan.rows.iter().map(|row| v2_line(tree, row.node)).collect();
        lines.sort_by(|a, b| a.key.cmp(&b.key));
        lines
    });
    Ok(Inspection {
        path: options.source.display().to_string(),
        facts: Facts::V2(Box::new(V2Facts { source: state.source, contents: found.contents, tail: state.tail, db })),
        source_files,
        key_list,
        warnings: [state.notices.losses, state.notices.warnings, found.notices.warnings, findings].concat(),
    })
}

fn v2_line(tree: &Tree<'_>, node: crate::v2store::tree::NodeRef) -> KeyLine {
    KeyLine {
        key: lossy(path::user_key(&tree.path(node))),
        created: tree.created(node).0,
        modified: tree.modified(node).0,
        value_bytes: tree.value_len(node) as u64,
        expiration: tree.expiry(node).map(|at| at.to_string()),
    }
}

fn inspect_v3(map: &Map, options: &InspectOptions, interrupt: Interrupt<'_>) -> Result<Inspection> {
    interrupt.ask()?;
    let (facts, mut warnings) = v3_facts(map, interrupt)?;
    let db = Db::open(map.bytes()).map_err(|e| e.into_error(Reason::Damaged).in_file(map.path()))?;
    let db = db.watched(interrupt);
    // If the content cannot be read, the findings already say why.
    if let Ok(content) = v3_content(&db) {
        warnings.extend(v2v3_notices(&content, NOT_SEPARATED));
    }
    let file = source_file(map, interrupt)?;
    let key_list = if options.keys { Some(v3_lines(map, interrupt)?) } else { None };
    Ok(Inspection {
        path: options.source.display().to_string(),
        facts: Facts::V3(facts),
        source_files: vec![file],
        key_list,
        warnings,
    })
}

/// Summarises a v3 file. An interruption takes precedence over every other error.
pub(super) fn summary(map: &Map, interrupt: Interrupt<'_>) -> Result<V3Summary> {
    let summary = summarize_watched(map.bytes(), interrupt);
    interrupt.ask()?;
    summary.map_err(|e| e.in_file(map.path()))
}

/// Returns the content of a v3 file, and its findings.
pub(super) fn v3_facts(map: &Map, interrupt: Interrupt<'_>) -> Result<(V3Facts, Vec<Notice>)> {
    let summary = summary(map, interrupt)?;
    let db = Db::open(map.bytes()).map_err(|e| e.into_error(Reason::Damaged).in_file(map.path()))?;
    let V3Summary { hash_kv, status_hash, leases, users, roles, keys, pairs, .. } = summary;
    let finding = |finding: &crate::bolt::Damage| {
        let message = format!("{}: byte {}: {}", map.path().display(), finding.offset, finding.message);
        Notice::new(Code::Finding, message)
    };
    let mut findings: Vec<Notice> = summary.findings.iter().map(finding).collect();
    if summary.more_findings > 0 {
        let message = format!("and {}", counted(summary.more_findings, "more finding", "more findings"));
        findings.push(Notice::new(Code::Finding, message));
    }
    // Damage in these buckets is a finding already.
    let replicated_hash = replicated_hash(&db.watched(interrupt)).unwrap_or_default();
    interrupt.ask()?;
    let (members, cluster_version) = boot::membership(&db).unwrap_or_else(|e| {
        findings.push(Notice::new(Code::Finding, e.in_file(map.path()).to_string()));
        Default::default()
    });
    let unsigned = |revision: crate::ids::Revision| u64::try_from(revision.0).unwrap_or(0);
    let facts = V3Facts {
        kind: if db.trailer().is_some() { V3Kind::Snapshot } else { V3Kind::Db },
        bytes: map.bytes().len() as u64,
        db_bytes: summary.total_size,
        page_size: u64::from(db.meta().page_size),
        storage_version: summary.storage_version,
        consistent_index: summary.consistent_index.map(|index| index.0),
        cluster_version,
        members,
        revision: unsigned(summary.revision),
        compact_revision: summary.compacted.map(unsigned),
        keys,
        pairs,
        leases,
        users,
        roles,
        hash_kv,
        status_hash,
        replicated_hash,
        sha256: summary.sha256.unwrap_or_default(),
    };
    Ok((facts, findings))
}

/// Lists every change of every key, in the order of revisions.
fn v3_lines(map: &Map, interrupt: Interrupt<'_>) -> Result<Vec<KeyLine>> {
    let failed = |e: crate::bolt::Damage| e.into_error(Reason::Damaged).in_file(map.path());
    let db = Db::open(map.bytes()).map_err(failed)?;
    let Some(bucket) = db.bucket(schema::KEY).map_err(failed)? else { return Ok(Vec::new()) };
    let mut lines = Vec::new();
    for pair in bucket.iter() {
        interrupt.ask()?;
        let pair = pair.map_err(failed)?;
        let kv = KeyValue::decode(pair.value, pair.value_offset()).map_err(|e| Error::from(e).in_file(map.path()))?;
        let main = RevisionKey::decode(pair.key).map_or(0, |key| key.main.0);
        lines.push(KeyLine {
            key: lossy(kv.key),
            created: u64::try_from(kv.create_revision.0).unwrap_or(0),
            modified: u64::try_from(main).unwrap_or(0),
            value_bytes: kv.value.len() as u64,
            expiration: None,
        });
    }
    Ok(lines)
}
