//! `--index-map`: the v2 node that each pair of the output comes from, read from the written file (docs/index-map.md).
//!
//! The file has the pairs with their revisions and names; the plan has their nodes. A pair that is not in the plan is
//! preserved v3 data. If the source has none, the totals do not add up. Must not know the tables of the map:
//! `export/index_map` has them.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::bolt::{Damage, Db, Pair};
use crate::error::{Error, Reason, Result};
use crate::export::index_map::{Entry, Facts, Origin, compare, write as write_map};
use crate::ids::Revision;
use crate::interrupt::Interrupt;
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

/// Writes the index map of a conversion into `out`, from the output on disk, and reads it back unless the options
/// disable that.
///
/// # Errors
/// [`Reason::Unbalanced`] if the pairs of the output differ from the plan; the map cannot be written, or differs when
/// it is read back; an interruption.
pub(in crate::pipeline) fn write(
    out: &Sidecar,
    numbered: &Numbered<'_>,
    file: &[u8],
    digested: &Digested,
    context: &Context<'_>,
) -> Result<()> {
    let (options, interrupt) = (context.options, context.interrupt);
    let db = Db::open(file).map_err(damaged)?;
    let entries = entries(&db, numbered.pairs(), options.existing.keeps_v3(), interrupt)?;
    let last = entries.last().map_or(Revision(1), |entry| entry.revision);
    let compact_revision = compact_revision(&db)?;
    let numbering = match numbered.ordered.numbering {
        Numbering::Keep => Revisions::Keep,
        Numbering::Dense(_) => Revisions::Dense,
    };
    let facts = Facts {
        etcdlift: env!("CARGO_PKG_VERSION").into(),
        numbering,
        v2_index: numbered.v2_index(),
        // The revision that etcd computes at its start.
        revision: last.max(compact_revision).max(Revision(1)),
        compact_revision,
        output_sha256: hex(&digested.sha256),
    };
    interrupt.ask()?;
    write_map(out.temp_path(), &facts, &entries, interrupt).map_err(|e| e.in_file(out.path()))?;
    interrupt.ask()?;
    if options.verify { compare(out.temp_path(), &facts, &entries, interrupt) } else { Ok(()) }
}

/// Returns the pairs of the output with their nodes. Rows and file are both in the order of revisions.
fn entries<'a>(db: &Db<'a>, pairs: Pairs<'a, '_>, others: bool, interrupt: Interrupt<'_>) -> Result<Vec<Entry<'a>>> {
    let mut entries = Vec::with_capacity(pairs.ordered.rows.len());
    let mut rows = pairs.ordered.rows.iter().peekable();
    let bucket = db.bucket(schema::KEY).map_err(damaged)?;
    for pair in bucket.iter().flat_map(|bucket| bucket.iter()) {
        if entries.len().is_multiple_of(1 << 16) {
            interrupt.ask()?;
        }
        let pair = pair.map_err(damaged)?;
        let (revision, kv) = decode(&pair)?;
        let planned = rows.peek().map(|row| (row.main, i64::from(row.sub)).cmp(&(revision.main, revision.sub)));
        let row = match planned {
            Some(Ordering::Equal) => rows.next(),
            Some(Ordering::Greater) | None if others => None,
            Some(Ordering::Less) => return Err(unbalanced("a pair of the plan is missing in the output")),
            Some(Ordering::Greater) | None => {
                return Err(unbalanced("the output has a pair that is not in the plan"));
            }
        };
        if row.is_some_and(|row| *kv.key != *pairs.key(row)) {
            return Err(unbalanced("the output has another key at the revision of a planned pair"));
        }
        entries.push(Entry {
            revision: revision.main,
            sub: revision.sub.cast_unsigned(),
            deleted: revision.tombstone,
            key: Cow::Borrowed(kv.key),
            node: row.and_then(|row| origin(pairs, row)),
        });
    }
    if rows.next().is_some() {
        return Err(unbalanced("the output ends before the last pair of the plan"));
    }
    Ok(entries)
}

/// Returns the node of a row; `None` for a pair that a transformer added.
fn origin<'a>(pairs: Pairs<'a, '_>, row: &Row) -> Option<Origin<'a>> {
    if pairs.is_added(row) {
        return None;
    }
    let key = match pairs.tree.path(row.node) {
        Cow::Borrowed(path) => Cow::Borrowed(path::user_key(path)),
        Cow::Owned(path) => Cow::Owned(path::user_key(&path).to_vec()),
    };
    Some(Origin { index: pairs.tree.modified(row.node), key, dir: row.marker })
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
