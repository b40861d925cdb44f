//! A search in a map: the places of what is asked for, and the blocks of pairs there. Must not know how a map is
//! written.

use std::collections::BTreeSet;
use std::path::Path;

use redb::{ReadTransaction, ReadableDatabase};

use super::block::Rows;
use super::entry::Entry;
use super::meta::{
    CACHE, Facts, HASH, Hash, KEY_HASHES, PAIRS, PlacesTable, REVISIONS, V2_INDEXES, not_index_map, read_facts,
};
use super::places::Search;
use crate::error::{Error, Reason, Result};
use crate::export::redb_file::{self, damaged};
use crate::interrupt::Interrupt;

/// The search for a lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// The pairs of nodes that v2 last changed at this index.
    V2Index(u64),
    /// The pairs at this revision.
    Revision(u64),
    /// The pairs with this name, in v3 or in v2.
    Key(Vec<u8>),
}

/// The result of a lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The output that the map belongs to.
    pub facts: Facts,
    /// The pairs, by revision.
    pub entries: Vec<Entry<'static>>,
}

/// Searches a map.
///
/// # Errors
/// [`Reason::NotIndexMap`] if the file does not exist or is not an index map; [`Reason::Damaged`]; an I/O error.
pub fn lookup(path: &Path, query: &Query) -> Result<Found> {
    lookup_hashed(path, query, HASH)
}

/// Does the same as [`lookup`] in a map with another hash of keys.
pub(super) fn lookup_hashed(path: &Path, query: &Query, hash: Hash) -> Result<Found> {
    if let Err(e) = std::fs::metadata(path) {
        return Err(Error::io(Reason::NotIndexMap, path, "read", e));
    }
    if !redb_file::is_redb(path)? {
        return Err(not_index_map("a file that is not a redb file").in_file(path));
    }
    redb_file::read(path, CACHE, Interrupt::default(), |database| {
        let transaction = database.begin_read().map_err(damaged)?;
        let facts = read_facts(&transaction)?;
        let blocks = match query {
            Query::V2Index(index) => blocks(&transaction, V2_INDEXES, *index),
            Query::Revision(revision) => blocks(&transaction, REVISIONS, *revision),
            Query::Key(key) => blocks(&transaction, KEY_HASHES, hash(key).into()),
        }?;
        Ok(Found { facts, entries: read_entries(&transaction, &blocks, query)? })
    })
    .map_err(|e| if e.reason() == Reason::Damaged { e.hint("write it again with `convert`") } else { e })
}

/// Returns the numbers of the blocks that may have pairs with this value.
fn blocks(transaction: &ReadTransaction, table: PlacesTable, value: u64) -> Result<BTreeSet<u32>> {
    let table = transaction.open_table(table).map_err(damaged)?;
    let mut search = Search::new(value);
    if let Some(row) = table.range(..(value, 0)).map_err(damaged)?.next_back() {
        search.read(row.map_err(damaged)?.1.value())?;
    }
    for row in table.range((value, 0)..=(value, u64::MAX)).map_err(damaged)? {
        search.read(row.map_err(damaged)?.1.value())?;
    }
    Ok(search.blocks())
}

/// Returns the pairs of these blocks that match.
fn read_entries(transaction: &ReadTransaction, blocks: &BTreeSet<u32>, query: &Query) -> Result<Vec<Entry<'static>>> {
    let table = transaction.open_table(PAIRS).map_err(damaged)?;
    let mut entries = Vec::new();
    for number in blocks {
        let block = table.get(u64::from(*number)).map_err(damaged)?;
        let missing = || Error::new(Reason::Damaged, format!("expected block {number} of the pairs, found none"));
        let block = block.ok_or_else(missing)?;
        let mut rows = Rows::new(block.value())?;
        while let Some(entry) = rows.next()? {
            if matches(&entry, query) {
                entries.push(entry.into_owned());
            }
        }
    }
    entries.sort_by_key(|entry| (entry.revision, entry.sub));
    Ok(entries)
}

fn matches(entry: &Entry<'_>, query: &Query) -> bool {
    match query {
        Query::V2Index(index) => entry.node.as_ref().is_some_and(|node| node.index.0 == *index),
        Query::Revision(revision) => entry.revision.0.cast_unsigned() == *revision,
        Query::Key(key) => *entry.key == **key || entry.other_name().is_some_and(|name| name == &key[..]),
    }
}
