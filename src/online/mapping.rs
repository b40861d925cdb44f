//! The index map of a migration: from the v2 index of each key to the v3 revision that it got (docs/index-map.md).
//!
//! Several keys of one transaction have one revision. etcd shows no sub revisions, so these are counted in the order of
//! keys. Must not know how the pairs were found.

use std::borrow::Cow;
use std::path::Path;

use crate::error::Result;
use crate::export::index_map::{Entry, Facts, Origin, compare, write as write_map};
use crate::ids::{Revision, V2Index};
use crate::interrupt::Interrupt;
use crate::online::verify::{Mapped, Verified};
use crate::options::Revisions;
use crate::output::naming::Before;
use crate::output::sidecar::Sidecar;

/// Writes an index map of these pairs, and reads it back. `earlier` is the map that it may replace.
///
/// # Errors
/// The file exists, or cannot be written; an interruption.
pub fn write(
    path: &Path,
    earlier: Before,
    mut pairs: Vec<Mapped>,
    found: &Verified,
    interrupt: Interrupt<'_>,
) -> Result<()> {
    interrupt.sort_by(&mut pairs, |one, two| (one.v3.1, &one.v3.0).cmp(&(two.v3.1, &two.v3.0)))?;
    let mut before = (0, 0);
    let entries = pairs.into_iter().map(|pair| {
        let (v3_key, revision) = pair.v3;
        before = (revision, if before.0 == revision { before.1 + 1 } else { 0 });
        let node = Origin { index: pair.v2.1, key: Cow::Owned(pair.v2.0), dir: false };
        Ok(Entry {
            revision: Revision(revision),
            sub: before.1,
            deleted: false,
            key: Cow::Owned(v3_key),
            node: Some(node),
        })
    });
    let facts = Facts {
        etcdlift: env!("CARGO_PKG_VERSION").into(),
        numbering: Revisions::Dense,
        v2_index: V2Index(found.v2_index),
        revision: Revision(1),
        compact_revision: Revision(0),
        // A running cluster has no hash.
        output_sha256: String::new(),
    };
    let out = Sidecar::create(path, earlier)?;
    let entries: Vec<Result<Entry<'static>>> = entries.collect();
    let written =
        write_map(out.temp_path(), facts, vec![entries.into_iter()], interrupt).map_err(|e| e.in_file(path))?;
    compare(out.temp_path(), &written, interrupt)?;
    out.sync()?;
    out.name().map(drop)?;
    Ok(())
}
