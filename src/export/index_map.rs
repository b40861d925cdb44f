//! The index map: from v2 indexes to v3 revisions and back, for `etcdlift lookup` (docs/index-map.md).
//!
//! A redb file with these tables, numbers unsigned:
//!
//! ```text
//! meta        name -> text                                  schema, etcdlift, numbering, v2_index, revision,
//!                                                           compact_revision, output_sha256
//! v2_indexes  (v2 index, revision, sub revision) -> v3 key  of every pair that comes from a v2 node
//! revisions   (revision, sub revision)                      of every pair of the output
//!               -> (flags, v2 index, v3 key, v2 key)
//! v3_keys     (v3 key, revision, sub revision) -> ()        of every pair of the output
//! v2_keys     (v2 key, revision, sub revision) -> ()        of the pairs whose v2 key is another than their v3 key
//!
//! |flags       1 comes from a v2 node · 2 of a directory · 4 deletes the key · 8 the v2 key equals the v3 key, and is left out here
//! ```
//!
//! The v2 index is the node's modified index. Must not know trees and pages: the pairs come from `pipeline`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use redb::{ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableError};

use super::redb_file::{self, damaged, fill};
use crate::error::{Error, Reason, Result};
use crate::ids::{Revision, V2Index};
use crate::interrupt::Interrupt;
use crate::options::Revisions;

const META: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");
const V2_INDEXES: TableDefinition<'_, (u64, u64, u64), &[u8]> = TableDefinition::new("v2_indexes");
const REVISIONS: TableDefinition<'_, (u64, u64), Stored<'static>> = TableDefinition::new("revisions");
const V3_KEYS: TableDefinition<'_, (&[u8], u64, u64), ()> = TableDefinition::new("v3_keys");
const V2_KEYS: TableDefinition<'_, (&[u8], u64, u64), ()> = TableDefinition::new("v2_keys");

/// Flags, v2 index, v3 key, v2 key.
type Stored<'a> = (u8, u64, &'a [u8], &'a [u8]);

/// The number of the layout that this version writes and reads.
const SCHEMA: &str = "1";

const FROM_V2: u8 = 1;
const DIR: u8 = 2;
const DELETED: u8 = 4;
const SAME_NAME: u8 = 8;

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

/// A pair of the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its main revision.
    pub revision: Revision,
    /// Its sub revision.
    pub sub: u64,
    /// Whether it deletes its key.
    pub deleted: bool,
    /// The v3 key.
    pub key: Cow<'a, [u8]>,
    /// The v2 node that it comes from; `None` for v3's own pairs and for pairs that a transformer added.
    pub node: Option<Origin<'a>>,
}

/// The v2 node that a pair comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin<'a> {
    /// Its modified index.
    pub index: V2Index,
    /// The v2 key.
    pub key: Cow<'a, [u8]>,
    /// Whether it is an empty directory, and the pair its marker.
    pub dir: bool,
}

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

/// Returns whether a file is an index map of any version, by its `meta` table.
pub fn is_index_map(path: &Path) -> bool {
    let names_an_output = |database: &redb::Database| {
        let transaction = database.begin_read().map_err(damaged)?;
        let meta = transaction.open_table(META).map_err(damaged)?;
        Ok(meta.get("output_sha256").map_err(damaged)?.is_some())
    };
    redb_file::is_redb(path).unwrap_or(false) && redb_file::peek(path, names_an_output).unwrap_or(false)
}

/// Writes a map into an empty file. The entries are the pairs of the output, by revision.
///
/// # Errors
/// The file cannot be written; the entries are not in order ([`Reason::Internal`]); an interruption.
pub fn write(path: &Path, facts: &Facts, entries: &[Entry<'_>], interrupt: Interrupt<'_>) -> Result<()> {
    let text = facts.to_text();
    let mut text: Vec<(&str, &str)> = text.iter().map(|(name, text)| (*name, text.as_str())).collect();
    text.sort_unstable();
    redb_file::create(path, interrupt, |database| {
        fill(database, META, text, interrupt)?;
        fill(database, REVISIONS, entries.iter().map(|entry| (entry.place(), entry.record())), interrupt)?;
        fill(database, V2_INDEXES, by_index(entries, interrupt)?, interrupt)?;
        fill(database, V3_KEYS, by_v3_key(entries, interrupt)?.into_iter().map(|key| (key, ())), interrupt)?;
        fill(database, V2_KEYS, by_v2_key(entries, interrupt)?.into_iter().map(|key| (key, ())), interrupt)
    })
}

/// Reads a map back and compares all of it with the expected content.
///
/// # Errors
/// [`Reason::VerifyFailed`] if the content differs; an interruption.
pub fn compare(path: &Path, facts: &Facts, entries: &[Entry<'_>], interrupt: Interrupt<'_>) -> Result<()> {
    let differs = |table: &str| {
        let message = format!("the index map's table {table} differs from what was written");
        Err(Error::new(Reason::VerifyFailed, message))
    };
    redb_file::read(path, interrupt, |database| {
        let transaction = database.begin_read().map_err(damaged)?;
        if read_facts(&transaction)? != *facts {
            return differs("meta");
        }
        let table = transaction.open_table(REVISIONS).map_err(damaged)?;
        let mut expected = entries.iter();
        for (number, row) in table.iter().map_err(damaged)?.enumerate() {
            interrupt.ask_at(number)?;
            let (place, record) = row.map_err(damaged)?;
            let expected = expected.next().map(|entry| (entry.place(), entry.record()));
            if expected != Some((place.value(), record.value())) {
                return differs("revisions");
            }
        }
        if expected.next().is_some() {
            return differs("revisions");
        }
        let table = transaction.open_table(V2_INDEXES).map_err(damaged)?;
        let mut expected = by_index(entries, interrupt)?.into_iter();
        for (number, row) in table.iter().map_err(damaged)?.enumerate() {
            interrupt.ask_at(number)?;
            let (index, key) = row.map_err(damaged)?;
            if expected.next() != Some((index.value(), key.value())) {
                return differs("v2_indexes");
            }
        }
        if expected.next().is_some() {
            return differs("v2_indexes");
        }
        for (definition, name, keys) in
            [(V3_KEYS, "v3_keys", by_v3_key(entries, interrupt)?), (V2_KEYS, "v2_keys", by_v2_key(entries, interrupt)?)]
        {
            let table = transaction.open_table(definition).map_err(damaged)?;
            let mut expected = keys.into_iter();
            for (number, row) in table.iter().map_err(damaged)?.enumerate() {
                interrupt.ask_at(number)?;
                let (key, ()) = row.map(|(key, _)| (key, ())).map_err(damaged)?;
                if expected.next() != Some(key.value()) {
                    return differs(name);
                }
            }
            if expected.next().is_some() {
                return differs(name);
            }
        }
        Ok(())
    })
    .map_err(|e| match e.reason() {
        Reason::Interrupted(_) => e,
        _ => Error::new(Reason::VerifyFailed, e.message()).in_file(e.file().unwrap_or(path)),
    })
}

/// Searches a map.
///
/// # Errors
/// [`Reason::NotIndexMap`] if the file does not exist or is not an index map; [`Reason::Damaged`]; an I/O error.
pub fn lookup(path: &Path, query: &Query) -> Result<Found> {
    let none = |what: &str| {
        Error::new(Reason::NotIndexMap, format!("expected an index map of `convert --index-map`, found {what}"))
            .in_file(path)
    };
    if let Err(e) = std::fs::metadata(path) {
        return Err(Error::io(Reason::NotIndexMap, path, "read", e));
    }
    if !redb_file::is_redb(path)? {
        return Err(none("a file that is not a redb file"));
    }
    redb_file::read(path, Interrupt::default(), |database| {
        let transaction = database.begin_read().map_err(damaged)?;
        refuse_others(&transaction, none)?;
        let facts = read_facts(&transaction)?;
        let entries = read_entries(&transaction, &places(&transaction, query)?)?;
        Ok(Found { facts, entries })
    })
    .map_err(|e| if e.reason() == Reason::Damaged { e.hint("write it again with `convert`") } else { e })
}

/// Whether a file is a sound index map of the output with this sha256.
///
/// # Errors
/// As [`lookup`]; an interruption.
pub fn is_of_output(path: &Path, sha256: &str, interrupt: Interrupt<'_>) -> Result<bool> {
    redb_file::read(path, interrupt, |database| {
        let transaction = database.begin_read().map_err(damaged)?;
        Ok(read_facts(&transaction)?.output_sha256 == sha256)
    })
}

/// Refuses a sound redb file that is no index map, or one of another version.
fn refuse_others(transaction: &ReadTransaction, none: impl Fn(&str) -> Error) -> Result<()> {
    let schema = match transaction.open_table(META) {
        Ok(table) => table.get("schema").map_err(damaged)?.map(|text| text.value().to_string()),
        Err(TableError::Storage(e)) => return Err(damaged(e)),
        Err(_) => None,
    };
    for definition in [V3_KEYS, V2_KEYS] {
        if let Err(e) = transaction.open_table(definition) {
            return Err(match e {
                TableError::Storage(e) => damaged(e),
                _ => none("a redb file with other tables"),
            });
        }
    }
    match schema.as_deref() {
        Some(SCHEMA) => Ok(()),
        Some(other) => Err(none(&format!("one of schema {other:.20}, which another version of etcdlift reads"))),
        None => Err(none("a redb file with other tables")),
    }
}

/// Returns the revisions of the pairs that match.
fn places(transaction: &ReadTransaction, query: &Query) -> Result<Vec<(u64, u64)>> {
    let mut found = Vec::new();
    match query {
        Query::V2Index(index) => {
            let table = transaction.open_table(V2_INDEXES).map_err(damaged)?;
            for row in table.range((*index, 0, 0)..=(*index, u64::MAX, u64::MAX)).map_err(damaged)? {
                let (_, revision, sub) = row.map_err(damaged)?.0.value();
                found.push((revision, sub));
            }
        }
        Query::Revision(revision) => {
            let table = transaction.open_table(REVISIONS).map_err(damaged)?;
            for row in table.range((*revision, 0)..=(*revision, u64::MAX)).map_err(damaged)? {
                found.push(row.map_err(damaged)?.0.value());
            }
        }
        Query::Key(key) => {
            for definition in [V3_KEYS, V2_KEYS] {
                let table = transaction.open_table(definition).map_err(damaged)?;
                for row in table.range((&key[..], 0, 0)..=(&key[..], u64::MAX, u64::MAX)).map_err(damaged)? {
                    let (_, revision, sub) = row.map_err(damaged)?.0.value();
                    found.push((revision, sub));
                }
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn read_entries(transaction: &ReadTransaction, places: &[(u64, u64)]) -> Result<Vec<Entry<'static>>> {
    let table = transaction.open_table(REVISIONS).map_err(damaged)?;
    let wrong = |(revision, sub): (u64, u64), what: &str| {
        Error::new(Reason::Damaged, format!("expected revision {revision}, sub revision {sub}, found {what}"))
    };
    let entry = |place: &(u64, u64)| {
        let found = table.get(place).map_err(damaged)?.ok_or_else(|| wrong(*place, "no such pair"))?;
        let (flags, index, key, v2_key) = found.value();
        let revision = i64::try_from(place.0).map_err(|_| wrong(*place, "a revision above 2^63"))?;
        let node = (flags & FROM_V2 != 0).then(|| Origin {
            index: V2Index(index),
            key: Cow::Owned(if flags & SAME_NAME != 0 { key } else { v2_key }.to_vec()),
            dir: flags & DIR != 0,
        });
        let (deleted, key) = (flags & DELETED != 0, Cow::Owned(key.to_vec()));
        Ok(Entry { revision: Revision(revision), sub: place.1, deleted, key, node })
    };
    places.iter().map(entry).collect()
}

fn read_facts(transaction: &ReadTransaction) -> Result<Facts> {
    let table = transaction.open_table(META).map_err(damaged)?;
    let mut all = BTreeMap::new();
    for row in table.iter().map_err(damaged)? {
        let (name, text) = row.map_err(damaged)?;
        all.insert(name.value().to_string(), text.value().to_string());
    }
    Facts::from_text(&all)
        .ok_or_else(|| Error::new(Reason::Damaged, "expected the metadata of an index map, found other data"))
}

impl Facts {
    fn to_text(&self) -> [(&'static str, String); 7] {
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

impl Entry<'_> {
    fn place(&self) -> (u64, u64) {
        (self.revision.0.cast_unsigned(), self.sub)
    }

    fn record(&self) -> Stored<'_> {
        let mut flags = if self.deleted { DELETED } else { 0 };
        let Some(node) = &self.node else { return (flags, 0, &self.key, &[]) };
        flags |= FROM_V2 | if node.dir { DIR } else { 0 };
        let same = node.key == self.key;
        flags |= if same { SAME_NAME } else { 0 };
        (flags, node.index.0, &self.key, if same { &[] } else { &node.key })
    }
}

type ByIndex<'a> = ((u64, u64, u64), &'a [u8]);

fn by_index<'a>(entries: &'a [Entry<'_>], interrupt: Interrupt<'_>) -> Result<Vec<ByIndex<'a>>> {
    let of = |entry: &'a Entry<'_>| {
        let (revision, sub) = entry.place();
        entry.node.as_ref().map(|node| ((node.index.0, revision, sub), &*entry.key))
    };
    let mut all: Vec<_> = entries.iter().filter_map(of).collect();
    interrupt.sort_by(&mut all, Ord::cmp)?;
    Ok(all)
}

type ByKey<'a> = (&'a [u8], u64, u64);

fn by_v3_key<'a>(entries: &'a [Entry<'_>], interrupt: Interrupt<'_>) -> Result<Vec<ByKey<'a>>> {
    let mut all: Vec<ByKey<'a>> =
        entries.iter().map(|entry| (&*entry.key, entry.revision.0.cast_unsigned(), entry.sub)).collect();
    interrupt.sort_by(&mut all, Ord::cmp)?;
    Ok(all)
}

fn by_v2_key<'a>(entries: &'a [Entry<'_>], interrupt: Interrupt<'_>) -> Result<Vec<ByKey<'a>>> {
    let of = |entry: &'a Entry<'_>| {
        let node = entry.node.as_ref().filter(|node| node.key != entry.key)?;
        Some((&*node.key, entry.revision.0.cast_unsigned(), entry.sub))
    };
    let mut all: Vec<ByKey<'a>> = entries.iter().filter_map(of).collect();
    interrupt.sort_by(&mut all, Ord::cmp)?;
    Ok(all)
}
