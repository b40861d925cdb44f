//! The tables of a map: their names and types, the table `meta` as [`Facts`], and whether a file is a map that this
//! version reads. Must not know the content of blocks.

use std::collections::BTreeMap;
use std::path::Path;

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableError};

use crate::error::{Error, Reason, Result};
use crate::export::redb_file::{self, damaged};
use crate::ids::{Revision, V2Index};
use crate::interrupt::Interrupt;
use crate::options::Revisions;

/// Facts by name.
pub(super) const META: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");

/// Blocks of pairs, numbered from 0.
pub(super) const PAIRS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("pairs");

/// Blocks of places, by the value and the block number of their first place.
pub(super) type PlacesTable = TableDefinition<'static, (u64, u64), &'static [u8]>;

/// Places of main revisions.
pub(super) const REVISIONS: PlacesTable = TableDefinition::new("revisions");

/// Places of v2 indexes.
pub(super) const V2_INDEXES: PlacesTable = TableDefinition::new("v2_indexes");

/// Places of the hashes of v3 keys and v2 keys.
pub(super) const KEY_HASHES: PlacesTable = TableDefinition::new("key_hashes");

/// Maximum size of redb's cache in bytes.
pub(super) const CACHE: usize = 16 << 20;

/// The number of the layout that this version writes and reads.
const SCHEMA: &str = "2";

/// A function that returns the hash of a key.
pub(super) type Hash = fn(&[u8]) -> u32;

/// The hash of keys in the table `key_hashes`.
pub(super) const HASH: Hash = crc32c::crc32c;

/// The output that a map belongs to, and the numbering of its revisions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// The version of etcdlift that wrote the map.
    pub etcdlift: String,
    /// The numbering: a v2 modified index is the v3 revision of the same number, or revisions are new numbers.
    pub numbering: Revisions,
    /// The v2 index of the converted state.
    pub v2_index: V2Index,
    /// The current revision of the output.
    pub revision: Revision,
    /// Revisions below this one count as compacted; 0 if there are none.
    pub compact_revision: Revision,
    /// SHA-256 of the output, in lower-case hexadecimal.
    pub output_sha256: String,
}

impl Facts {
    /// Returns the rows of the table `meta`, by name.
    pub(super) fn to_text(&self) -> [(&'static str, String); 7] {
        [
            ("compact_revision", self.compact_revision.to_string()),
            ("etcdlift", self.etcdlift.clone()),
            ("numbering", self.numbering.to_string()),
            ("output_sha256", self.output_sha256.clone()),
            ("revision", self.revision.to_string()),
            ("schema", SCHEMA.to_string()),
            ("v2_index", self.v2_index.to_string()),
        ]
    }

    fn from_text(all: &BTreeMap<String, String>) -> Option<Facts> {
        Some(Facts {
            etcdlift: all.get("etcdlift")?.clone(),
            numbering: Revisions::from_word(all.get("numbering")?)?,
            v2_index: V2Index(all.get("v2_index")?.parse().ok()?),
            revision: Revision(all.get("revision")?.parse().ok()?),
            compact_revision: Revision(all.get("compact_revision")?.parse().ok()?),
            output_sha256: all.get("output_sha256")?.clone(),
        })
    }
}

/// Returns whether a file is an index map of any version, by its `meta` table.
pub fn is_index_map(path: &Path) -> bool {
    let names_an_output = |database: &Database| {
        let transaction = database.begin_read().map_err(damaged)?;
        let meta = transaction.open_table(META).map_err(damaged)?;
        Ok(meta.get("output_sha256").map_err(damaged)?.is_some())
    };
    redb_file::is_redb(path).unwrap_or(false) && redb_file::peek(path, names_an_output).unwrap_or(false)
}

/// Whether a file is a sound index map of the output with this sha256.
///
/// # Errors
/// [`Reason::NotIndexMap`] if another version wrote it; [`Reason::Damaged`]; an I/O error; an interruption.
pub fn is_of_output(path: &Path, sha256: &str, interrupt: Interrupt<'_>) -> Result<bool> {
    redb_file::read(path, CACHE, interrupt, |database| {
        let transaction = database.begin_read().map_err(damaged)?;
        Ok(read_facts(&transaction)?.output_sha256 == sha256)
    })
}

/// Reads the table `meta`, and tests that the map has all tables.
///
/// # Errors
/// [`Reason::NotIndexMap`] for a sound redb file that is no index map, or one of another version; [`Reason::Damaged`].
pub(super) fn read_facts(transaction: &ReadTransaction) -> Result<Facts> {
    let all = read_meta(transaction)?;
    let schema = all.get("schema").filter(|_| all.contains_key("output_sha256"));
    if let Some(other) = schema.filter(|schema| *schema != SCHEMA) {
        let found = format!("one of schema {other:.20}, which another version of etcdlift reads");
        return Err(not_index_map(&found).hint("write it again with `convert`"));
    }
    if schema.is_none() || lacks(transaction.open_table(PAIRS))? {
        return Err(not_index_map("a redb file with other tables"));
    }
    for table in [REVISIONS, V2_INDEXES, KEY_HASHES] {
        if lacks(transaction.open_table(table))? {
            return Err(not_index_map("a redb file with other tables"));
        }
    }
    Facts::from_text(&all)
        .ok_or_else(|| Error::new(Reason::Damaged, "expected the metadata of an index map, found other data"))
}

/// Returns the rows of the table `meta`; none if there is no such table.
fn read_meta(transaction: &ReadTransaction) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    let table = match transaction.open_table(META) {
        Ok(table) => table,
        Err(TableError::Storage(e)) => return Err(damaged(e)),
        Err(_) => return Ok(all),
    };
    for row in table.iter().map_err(damaged)? {
        let (name, text) = row.map_err(damaged)?;
        all.insert(name.value().to_string(), text.value().to_string());
    }
    Ok(all)
}

/// Returns whether a table does not exist, or has other types.
fn lacks<T>(opened: std::result::Result<T, TableError>) -> Result<bool> {
    match opened {
        Ok(_) => Ok(false),
        Err(TableError::Storage(e)) => Err(damaged(e)),
        Err(_) => Ok(true),
    }
}

/// Returns the error for a file that is not an index map of this version.
pub(super) fn not_index_map(found: &str) -> Error {
    Error::new(Reason::NotIndexMap, format!("expected an index map of `convert --index-map`, found {found}"))
}
