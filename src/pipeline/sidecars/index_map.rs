//! `--index-map`: the v2 node that each pair of the output comes from, read from the written file (docs/index-map.md).
//!
//! The file has the pairs with their revisions and names; the plan has their nodes. A pair that is not in the plan is
//! preserved v3 data. If the source has none, the totals do not add up. Must not know the tables of the map:
//! `export/index_map` has them.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::bolt::{Damage, Db, PARTS, Pair, Part};
use crate::error::{Error, Reason, Result};
use crate::export::index_map::{Entry, Facts, Origin, compare, write as write_map};
use crate::ids::Revision;
use crate::mvcc::{KeyValue, RevisionKey, schema};
use crate::options::Revisions;
use crate::output::Digested;
use crate::output::sidecar::Sidecar;
use crate::output::snapshot::hex;
use crate::pipeline::context::Context;
use crate::pipeline::number::Numbered;
use crate::pipeline::totals::unbalanced;
use crate::transform::plan::Row;
use crate::transform::revisions::{Numbering, Pairs};
use crate::v2store::path;

/// The size in bytes of the leaf pages that one thread encodes at once. With [`PAGES_BYTES`], it bounds the memory for
/// keys.
const GROUP_BYTES: u64 = 4 << 20;

/// About the size in bytes of the leaf pages of the parts that make a group.
const PAGES_BYTES: usize = 1 << 20;

/// Number of rows whose nodes are read ahead at once.
const AHEAD: usize = 64;

/// Writes the index map of a conversion into `out`, from the output on disk, and reads it back unless the options
/// disable that. `is_compared`: the output is known to have the content of the plan.
///
/// # Errors
/// [`Reason::Unbalanced`] if the pairs of the output differ from the plan (of an output that was compared, only their number
/// and their revisions are tested); the map cannot be written, or differs when
/// it is read back; an interruption.
pub(in crate::pipeline) fn write(
    out: &Sidecar,
    numbered: &Numbered<'_>,
    file: &[u8],
    digested: &Digested,
    is_compared: bool,
    context: &Context<'_>,
) -> Result<()> {
    let (options, interrupt) = (context.options, context.interrupt);
    let db = Db::open(file).map_err(damaged)?;
    let plan = Plan { pairs: numbered.pairs(), preserved: numbered.preserved_pairs(), is_compared };
    let groups = groups(&db, &plan)?;
    interrupt.expect(groups.iter().flatten().map(|part| part.bytes).sum());
    let counted = |part: &Part<'_>| interrupt.done(part.bytes);
    let entries = |parts: Vec<_>| parts.into_iter().inspect(counted).flat_map(|part| plan.entries(part));
    let groups = groups.into_iter().map(entries).collect();
    let compact_revision = compact_revision(&db)?;
    let numbering = match numbered.ordered.numbering {
        Numbering::Keep => Revisions::Keep,
        Numbering::Dense(_) => Revisions::Dense,
    };
    let facts = Facts {
        etcdlift: env!("CARGO_PKG_VERSION").into(),
        numbering,
        v2_index: numbered.v2_index(),
        // The revision that etcd computes at its start, unless a pair has a higher one.
        revision: compact_revision.max(Revision(1)),
        compact_revision,
        output_sha256: hex(&digested.sha256),
    };
    interrupt.ask()?;
    let written = write_map(out.temp_path(), facts, groups, interrupt).map_err(|e| e.in_file(out.path()))?;
    interrupt.ask()?;
    if options.verify { compare(out.temp_path(), &written, interrupt) } else { Ok(()) }
}

/// Returns the pairs of the output in groups for the threads, which together have as many pairs as the plan says.
fn groups<'a>(db: &Db<'a>, plan: &Plan<'_, '_>) -> Result<Vec<Vec<Part<'a>>>> {
    let (mut groups, mut group, mut bytes, mut pairs) = (Vec::new(), Vec::new(), 0, 0);
    let bucket = db.bucket(schema::KEY).map_err(damaged)?;
    let wanted = PARTS.max(db.body().len() / PAGES_BYTES);
    for part in bucket.map_or(Ok(Vec::new()), |bucket| bucket.parts(wanted)).map_err(damaged)? {
        pairs = part.first + part.len;
        bytes += part.bytes;
        group.push(part);
        if bytes >= GROUP_BYTES {
            groups.push(std::mem::take(&mut group));
            bytes = 0;
        }
    }
    groups.push(group);
    match pairs.cmp(&(plan.preserved + plan.pairs.ordered.rows.len() as u64)) {
        Ordering::Less => Err(unbalanced("the output ends before the last pair of the plan")),
        Ordering::Equal => Ok(groups),
        Ordering::Greater => Err(unplanned()),
    }
}

/// The expected pairs of an output: preserved v3 data, and then the rows of the plan, in the order of their revisions.
#[derive(Clone, Copy)]
struct Plan<'a, 'm> {
    pairs: Pairs<'a, 'm>,
    preserved: u64,
    /// Whether the output is known to have the names of the plan. Then the names need not be read in the source, where they
    /// are in another order.
    is_compared: bool,
}

impl<'a> Plan<'a, '_> {
    /// Returns the pairs of a part with their nodes.
    fn entries<'f: 'a>(&self, part: Part<'f>) -> impl Iterator<Item = Result<Entry<'a>>> + use<'a, 'f, '_> {
        let first = part.first;
        (first..).zip(part.pairs).map(move |(number, pair)| {
            if number.is_multiple_of(AHEAD as u64) || number == first {
                self.read_ahead(number);
            }
            self.entry(number, &pair.map_err(damaged)?)
        })
    }

    /// Reads the nodes of the next rows ahead, and their names if these are needed.
    fn read_ahead(&self, number: u64) {
        let start = usize::try_from(number.saturating_sub(self.preserved)).unwrap_or(usize::MAX);
        let rows = start..start.saturating_add(AHEAD).min(self.pairs.ordered.rows.len());
        if self.is_compared { self.pairs.read_nodes_ahead(rows) } else { self.pairs.read_ahead(rows) }
    }

    fn entry<'f: 'a>(&self, number: u64, pair: &Pair<'f>) -> Result<Entry<'a>> {
        let (revision, kv) = decode(pair)?;
        let row = number.checked_sub(self.preserved).and_then(|row| usize::try_from(row).ok());
        let row = row.map(|row| self.pairs.ordered.rows.get(row).ok_or_else(unplanned)).transpose()?;
        if row.is_some_and(|row| (row.main, i64::from(row.sub)) != (revision.main, revision.sub)) {
            return Err(unbalanced("the output has another revision at the place of a planned pair"));
        }
        if row.is_some_and(|row| !self.is_compared && *kv.key != *self.pairs.key(row)) {
            return Err(unbalanced("the output has another key at the revision of a planned pair"));
        }
        Ok(Entry {
            revision: revision.main,
            sub: revision.sub.cast_unsigned(),
            deleted: revision.tombstone,
            key: Cow::Borrowed(kv.key),
            node: row.and_then(|row| origin(self.pairs, row, kv.key)),
        })
    }
}

/// Returns the node of a row with this v3 key; `None` for a pair that a transformer added.
fn origin<'a>(pairs: Pairs<'a, '_>, row: &Row, key: &'a [u8]) -> Option<Origin<'a>> {
    if pairs.is_added(row) {
        return None;
    }
    let (index, dir) = (pairs.tree.modified(row.node), row.marker);
    if pairs.has_name_of_node(row) {
        return Some(Origin { index, key: Cow::Borrowed(key), dir });
    }
    let key = match pairs.tree.path(row.node) {
        Cow::Borrowed(path) => Cow::Borrowed(path::user_key(path)),
        Cow::Owned(path) => Cow::Owned(path::user_key(&path).to_vec()),
    };
    Some(Origin { index, key, dir })
}

fn unplanned() -> Error {
    unbalanced("the output has a pair that is not in the plan")
}

fn decode<'a>(pair: &Pair<'a>) -> Result<(RevisionKey, KeyValue<'a>)> {
    let key = RevisionKey::decode(pair.key).ok_or_else(|| unbalanced("a pair of the output has no revision"))?;
    let kv = KeyValue::decode(pair.value, pair.value_offset()).map_err(|e| unbalanced(e.expected))?;
    Ok((key, kv))
}

/// Returns the revision at which the output is compacted; 0 for none.
fn compact_revision(db: &Db<'_>) -> Result<Revision> {
    let Some(meta) = db.bucket(schema::META).map_err(damaged)? else { return Ok(Revision(0)) };
    let mut compacted = Revision(0);
    for name in [schema::FINISHED_COMPACT, schema::SCHEDULED_COMPACT] {
        let mark = meta.get(name).map_err(damaged)?;
        let revision = mark.and_then(|mark| RevisionKey::decode(mark.value)).map(|mark| mark.main);
        compacted = compacted.max(revision.unwrap_or_default());
    }
    Ok(compacted)
}

fn damaged(e: Damage) -> Error {
    e.into_error(Reason::VerifyFailed)
}
