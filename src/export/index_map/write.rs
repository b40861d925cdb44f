//! Writes a map, and reads it back.
//!
//! Parts of the pairs are encoded on all threads, and the blocks go into the file in order. Every block is decoded
//! again at once, and compared with the pairs that it was made of. Reading back compares the SHA-256 of every table. So
//! what is in the file is what the pairs say, row by row. The bytes do not depend on the number of threads. Must not
//! know where the pairs come from.

use std::path::Path;

use rayon::prelude::*;
use redb::{Key, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, Value, WriteTransaction};
use sha2::{Digest, Sha256};

use super::block::{Rows, Writer};
use super::entry::Entry;
use super::meta::{CACHE, Facts, HASH, Hash, KEY_HASHES, META, PAIRS, PlacesTable, REVISIONS, V2_INDEXES};
use super::places::{self, Place, Places};
use crate::error::{Error, Reason, Result};
use crate::export::redb_file::{self, damaged, failed, fill};
use crate::ids::Revision;
use crate::interrupt::Interrupt;

/// Parts that are encoded at the same time, for each thread.
const PARTS_PER_THREAD: usize = 2;

/// Names of the tables.
const TABLES: [&str; 5] = ["meta", "pairs", "revisions", "v2_indexes", "key_hashes"];

/// What was written, to be compared with the file.
#[derive(Debug)]
pub struct Written {
    /// The hash of each of [`TABLES`].
    hashes: [TableHash; TABLES.len()],
}

/// Writes a map into an empty file. The parts together are the pairs of the output, by revision. The current revision
/// is at least that of the last pair.
///
/// # Errors
/// The file cannot be written; the pairs are not in order ([`Reason::Internal`]); that of a part; an interruption.
pub fn write<'e, P>(path: &Path, facts: Facts, parts: Vec<P>, interrupt: Interrupt<'_>) -> Result<Written>
where
    P: Iterator<Item = Result<Entry<'e>>> + Send,
{
    write_hashed(path, facts, parts, HASH, interrupt)
}

/// Does the same as [`write`] with another hash of keys.
pub(super) fn write_hashed<'e, P>(
    path: &Path,
    mut facts: Facts,
    parts: Vec<P>,
    hash: Hash,
    interrupt: Interrupt<'_>,
) -> Result<Written>
where
    P: Iterator<Item = Result<Entry<'e>>> + Send,
{
    redb_file::create(path, CACHE, interrupt, |database| {
        let transaction = database.begin_write().map_err(failed)?;
        let mut lists = Lists::default();
        let pairs = write_pairs(&transaction, parts, hash, &mut lists, interrupt)?;
        facts.revision = lists.last.map_or(facts.revision, |(last, _)| facts.revision.max(last));
        let meta = write_meta(&transaction, &facts)?;
        let Lists { revisions, mut indexes, mut keys, .. } = lists;
        let revisions = write_places(&transaction, REVISIONS, revisions.into_iter())?;
        interrupt.sort_by(&mut indexes, Ord::cmp)?;
        let indexes = write_places(&transaction, V2_INDEXES, indexes.into_iter())?;
        interrupt.sort_by(&mut keys, Ord::cmp)?;
        let keys = write_places(&transaction, KEY_HASHES, keys.into_iter().map(HashPlace::place))?;
        interrupt.ask()?;
        transaction.commit().map_err(failed)?;
        // redb doubles a file that grows, and leaves pages free.
        database.compact().map_err(failed)?;
        Ok(Written { hashes: [meta, pairs, revisions, indexes, keys] })
    })
}

/// Reads a map back and compares all of it with what was written.
///
/// # Errors
/// [`Reason::VerifyFailed`] if the content differs; an interruption.
pub fn compare(path: &Path, written: &Written, interrupt: Interrupt<'_>) -> Result<()> {
    redb_file::read(path, CACHE, interrupt, |database| {
        let transaction = database.begin_read().map_err(damaged)?;
        let found = [
            hash_of(&transaction, META, interrupt)?,
            hash_of(&transaction, PAIRS, interrupt)?,
            hash_of(&transaction, REVISIONS, interrupt)?,
            hash_of(&transaction, V2_INDEXES, interrupt)?,
            hash_of(&transaction, KEY_HASHES, interrupt)?,
        ];
        for (table, (written, found)) in TABLES.iter().zip(written.hashes.iter().zip(&found)) {
            if written != found {
                let message = format!("the index map's table {table} differs from what was written");
                return Err(Error::new(Reason::VerifyFailed, message));
            }
        }
        Ok(())
    })
    .map_err(|e| match e.reason() {
        Reason::Interrupted(_) => e,
        _ => Error::new(Reason::VerifyFailed, e.message()).in_file(e.file().unwrap_or(path)),
    })
}

/// The places of all pairs, in memory until they are sorted.
#[derive(Default)]
struct Lists {
    /// Places of revisions: the first row of each block.
    revisions: Vec<Place>,
    indexes: Vec<Place>,
    keys: Vec<HashPlace>,
    /// Main and sub revision of the last pair.
    last: Option<(Revision, u64)>,
}

impl Lists {
    /// Adds the places of a part, whose blocks follow these blocks.
    fn add(&mut self, part: &Encoded) -> Result<()> {
        if part.first.is_some_and(|first| self.last.is_some_and(|last| first <= last)) {
            return Err(Error::new(Reason::Internal, "expected pairs in the order of their revisions"));
        }
        self.last = part.last.or(self.last);
        // There is one such place for each block.
        let before = self.revisions.len();
        if u32::try_from(before + part.blocks.len()).is_err() {
            return Err(Error::new(Reason::Internal, "an index map has more than 2^32 blocks"));
        }
        let before = before as u32;
        let moved = |place: &Place| Place { block: place.block + before, ..*place };
        self.revisions.extend(part.revisions.iter().map(moved));
        self.indexes.extend(part.indexes.iter().map(moved));
        self.keys.extend(part.keys.iter().map(|place| HashPlace(place.0 + u64::from(before))));
        Ok(())
    }
}

/// The place of a hash in half the memory: 32 bits of the hash, then 32 bits of the block.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct HashPlace(u64);

impl HashPlace {
    fn new(hash: u32, block: u32) -> HashPlace {
        HashPlace(u64::from(hash) << 32 | u64::from(block))
    }

    fn place(self) -> Place {
        Place { value: self.0 >> 32, block: self.0 as u32 }
    }
}

/// The blocks of consecutive pairs, and the places of these pairs by blocks that count from 0.
#[derive(Default)]
struct Encoded {
    blocks: Vec<Vec<u8>>,
    revisions: Vec<Place>,
    indexes: Vec<Place>,
    keys: Vec<HashPlace>,
    first: Option<(Revision, u64)>,
    last: Option<(Revision, u64)>,
}

impl Encoded {
    fn new<'e>(
        pairs: impl Iterator<Item = Result<Entry<'e>>>,
        hash: Hash,
        interrupt: Interrupt<'_>,
    ) -> Result<Encoded> {
        let mut part = Encoded::default();
        let (mut writer, mut entries) = (Writer::new(), Vec::new());
        for (number, entry) in pairs.enumerate() {
            interrupt.ask_at(number)?;
            let entry = entry?;
            if let Some(block) = writer.push(&entry)? {
                part.end(block, &entries)?;
                entries.clear();
            }
            part.add_places(&entry, entries.is_empty(), hash);
            entries.push(entry);
        }
        writer.finish().map_or(Ok(()), |block| part.end(block, &entries))?;
        Ok(part)
    }

    fn add_places(&mut self, entry: &Entry<'_>, first_of_block: bool, hash: Hash) {
        let block = self.blocks.len() as u32;
        let place = (entry.revision, entry.sub);
        self.first.get_or_insert(place);
        self.last = Some(place);
        if first_of_block {
            self.revisions.push(Place { value: entry.revision.0.cast_unsigned(), block });
        }
        if let Some(node) = &entry.node {
            self.indexes.push(Place { value: node.index.0, block });
        }
        self.keys.push(HashPlace::new(hash(&entry.key), block));
        if let Some(name) = entry.other_name() {
            self.keys.push(HashPlace::new(hash(name), block));
        }
    }

    /// Adds a block, which must say what its pairs say.
    fn end(&mut self, block: Vec<u8>, entries: &[Entry<'_>]) -> Result<()> {
        let (mut rows, mut expected) = (Rows::new(&block)?, entries.iter());
        while let Some(row) = rows.next()? {
            if expected.next() != Some(&row) {
                return Err(wrong_block());
            }
        }
        if expected.next().is_some() {
            return Err(wrong_block());
        }
        self.blocks.push(block);
        Ok(())
    }
}

fn wrong_block() -> Error {
    Error::new(Reason::Internal, "a block of the index map differs from its rows")
}

fn write_pairs<'e, P>(
    transaction: &WriteTransaction,
    parts: Vec<P>,
    hash: Hash,
    lists: &mut Lists,
    interrupt: Interrupt<'_>,
) -> Result<TableHash>
where
    P: Iterator<Item = Result<Entry<'e>>> + Send,
{
    let mut parts = parts.into_iter();
    let width = PARTS_PER_THREAD * rayon::current_num_threads().max(1);
    fill_hashed(transaction, PAIRS, |put| {
        let mut number = 0;
        while parts.len() > 0 {
            let wave: Vec<P> = parts.by_ref().take(width).collect();
            let wave = wave.into_par_iter().map(|part| Encoded::new(part, hash, interrupt));
            // The first error in the order of the pairs, whichever thread was first.
            let wave: Vec<Result<Encoded>> = wave.collect();
            for part in wave {
                let part = part?;
                lists.add(&part)?;
                for block in &part.blocks {
                    put(number, block)?;
                    number += 1;
                }
            }
        }
        Ok(())
    })
}

fn write_meta(transaction: &WriteTransaction, facts: &Facts) -> Result<TableHash> {
    let mut text = facts.to_text();
    text.sort_unstable();
    fill_hashed(transaction, META, |put| text.iter().try_for_each(|(name, text)| put(name, text)))
}

/// Writes sorted places. Every block is decoded at once, and compared with its places.
fn write_places(
    transaction: &WriteTransaction,
    table: PlacesTable,
    sorted: impl Iterator<Item = Place>,
) -> Result<TableHash> {
    fill_hashed(transaction, table, |put| {
        let (mut writer, mut rows) = (places::Writer::new(), Vec::new());
        let mut end = |(first, block): (Place, Vec<u8>), rows: &[Place]| {
            let mut expected = rows.iter();
            for place in Places::new(&block)? {
                if expected.next() != Some(&place?) {
                    return Err(wrong_block());
                }
            }
            if expected.next().is_some() {
                return Err(wrong_block());
            }
            put((first.value, first.block.into()), &block)
        };
        for place in places::starts(sorted) {
            if let Some(full) = writer.push(place) {
                end(full, &rows)?;
                rows.clear();
            }
            rows.push(place);
        }
        writer.finish().map_or(Ok(()), |block| end(block, &rows))
    })
}

/// The SHA-256 of the rows of a table.
#[derive(Debug, PartialEq, Eq)]
struct TableHash([u8; 32]);

#[derive(Default)]
struct Hasher(Sha256);

impl Hasher {
    fn row<K: Key, V: Value>(&mut self, key: &K::SelfType<'_>, value: &V::SelfType<'_>) {
        self.bytes(K::as_bytes(key).as_ref());
        self.bytes(V::as_bytes(value).as_ref());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn finish(self) -> TableHash {
        TableHash(self.0.finalize().into())
    }
}

/// Writes rows into an empty table, and returns their hash.
fn fill_hashed<K: Key + 'static, V: Value + 'static>(
    transaction: &WriteTransaction,
    table: TableDefinition<'_, K, V>,
    rows: impl FnOnce(&mut dyn FnMut(K::SelfType<'_>, V::SelfType<'_>) -> Result<()>) -> Result<()>,
) -> Result<TableHash> {
    let mut hasher = Hasher::default();
    fill(transaction, table, |put| {
        rows(&mut |key, value| {
            hasher.row::<K, V>(&key, &value);
            put(key, value)
        })
    })?;
    Ok(hasher.finish())
}

/// Returns the hash of the rows of a table.
fn hash_of<K: Key + 'static, V: Value + 'static>(
    transaction: &ReadTransaction,
    table: TableDefinition<'_, K, V>,
    interrupt: Interrupt<'_>,
) -> Result<TableHash> {
    let table = transaction.open_table(table).map_err(damaged)?;
    let mut hasher = Hasher::default();
    for row in table.iter().map_err(damaged)? {
        interrupt.ask()?;
        let (key, value) = row.map_err(damaged)?;
        hasher.row::<K, V>(&key.value(), &value.value());
    }
    Ok(hasher.finish())
}
