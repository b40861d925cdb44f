//! The written file against the tree it was made from: every pair, in order, byte for byte.
//!
//! Takes keys and values from the tree by another way than the writer does (whole and decoded, not copied into pages), and
//! revisions from the nodes themselves. Knows both stores; not how the file was laid out.

use crate::bolt::{Db, Pair};
use crate::error::{Error, Reason, Result};
use crate::ids::{LeaseId, Revision};
use crate::mvcc::{KeyValue, RevisionKey, schema};
use crate::transform::order::{Numbering, Ordered};
use crate::transform::plan::Row;
use crate::v2store::overlay::Tree;
use crate::v2store::path;

/// Holds the `key` bucket of a file against the rows that were to be written.
///
/// # Errors
/// [`Reason::VerifyFailed`] with the offset and the key of the first pair that differs, is missing, or is too much.
pub fn compare(file: &[u8], tree: &Tree<'_>, ordered: &Ordered, interrupted: &dyn Fn() -> Result<()>) -> Result<()> {
    let damaged = |e: crate::bolt::Damage| e.into_error(Reason::VerifyFailed);
    let db = Db::open(file).map_err(damaged)?;
    let bucket = db.bucket(schema::KEY).map_err(damaged)?;
    let bucket = bucket.ok_or_else(|| Error::new(Reason::VerifyFailed, "expected a bucket `key`, found none"))?;
    let mut pairs = bucket.iter();
    for (i, row) in ordered.rows.iter().enumerate() {
        if i.is_multiple_of(1 << 16) {
            interrupted()?;
        }
        let pair = pairs.next().transpose().map_err(damaged)?;
        let pair =
            pair.ok_or_else(|| failed(tree, row, "expected its pair in the output, found the end of the bucket"))?;
        compare_pair(tree, ordered, row, &pair).map_err(|e| e.at(pair.offset))?;
    }
    match pairs.next() {
        None => Ok(()),
        Some(Ok(pair)) => {
            Err(Error::new(Reason::VerifyFailed, "expected the end of the bucket `key`, found one more pair")
                .at(pair.offset))
        }
        Some(Err(e)) => Err(damaged(e)),
    }
}

fn compare_pair(tree: &Tree<'_>, ordered: &Ordered, row: &Row, pair: &Pair<'_>) -> Result<()> {
    let expected_key = RevisionKey { main: row.main, sub: i64::from(row.sub), tombstone: false };
    if RevisionKey::decode(pair.key) != Some(expected_key) || pair.key.len() != 17 {
        return Err(failed(tree, row, &format!("expected it at revision {}, found another", row.main)));
    }
    let found = KeyValue::decode(pair.value, pair.value_offset()).map_err(|e| failed(tree, row, e.expected))?;
    let path = tree.path(row.node);
    let mut key = path::user_key(&path).to_vec();
    if row.marker {
        key.push(b'/');
    }
    if found.key != key {
        let found = String::from_utf8_lossy(found.key).into_owned();
        return Err(failed(tree, row, &format!("expected its name, found {found:?}")));
    }
    let value = if row.marker { Default::default() } else { tree.value(row.node) };
    if found.value != &*value {
        return Err(failed(tree, row, "expected its value, found another"));
    }
    let modified = tree.modified(row.node).0.cast_signed();
    let created = tree.created(row.node).0.cast_signed().min(modified);
    let (create, modify) = match ordered.numbering {
        Numbering::Keep => (created, modified),
        Numbering::Dense => (row.main.0, row.main.0),
    };
    let numbers = (found.create_revision, found.mod_revision, found.version, found.lease);
    if numbers != (Revision(create), Revision(modify), 1, LeaseId(0)) {
        let (create_found, modify_found) = (found.create_revision, found.mod_revision);
        let message = format!("expected the revisions {create} and {modify}, found {create_found} and {modify_found}");
        return Err(failed(tree, row, &message));
    }
    Ok(())
}

fn failed(tree: &Tree<'_>, row: &Row, what: &str) -> Error {
    let path = tree.path(row.node);
    let key = String::from_utf8_lossy(path::user_key(&path)).into_owned();
    Error::new(Reason::VerifyFailed, format!("key {key:?}: {what}"))
}
