//! An export as a sled database, a directory. Its trees have the names of the tables of a redb export.
//!
//! The records are bincode 2 in its standard configuration. A node has `dir`, `created_index`, `modified_index`,
//! `expiration` (seconds and nanoseconds since 1970, if it has one) and `value`. A pair has `create_revision`,
//! `mod_revision`, `version`, `lease` and `value`. Only with the feature `sled`. Must not know where the records come
//! from.

use std::path::Path;

use bincode::Encode;

use super::record::{Record, Records, What, since_1970};
use crate::error::{Error, Reason, Result};

/// Maximum size of sled's cache in bytes.
const CACHE: u64 = 64 << 20;

#[derive(Encode)]
struct Node<'a> {
    dir: bool,
    created_index: u64,
    modified_index: u64,
    expiration: Option<(i64, u32)>,
    value: &'a [u8],
}

#[derive(Encode)]
struct Pair<'a> {
    create_revision: i64,
    mod_revision: i64,
    version: i64,
    lease: i64,
    value: &'a [u8],
}

/// Writes an export into an empty directory.
///
/// # Errors
/// The directory cannot be written.
pub fn write(path: &Path, records: &dyn Records) -> Result<()> {
    let database = open(path)?;
    let meta = database.open_tree("meta").map_err(failed)?;
    for (name, text) in &records.facts() {
        meta.insert(name, text.as_str()).map_err(failed)?;
    }
    let tree = database.open_tree(records.kind().table()).map_err(failed)?;
    records.each(&mut |record| {
        tree.insert(&*record.key, encode(record)?).map_err(failed)?;
        Ok(())
    })?;
    database.flush().map(drop).map_err(failed)
}

/// Reads an export back and compares all of it with the expected content.
///
/// # Errors
/// [`Reason::VerifyFailed`] if the content differs.
pub fn compare(path: &Path, records: &dyn Records) -> Result<()> {
    let differs =
        |what: &str| Error::new(Reason::VerifyFailed, format!("{what} is not what was written into the export"));
    let unreadable = |e: sled::Error| differs(&format!("the sled database ({e})"));
    let database = open(path)?;
    let mut found = database.open_tree("meta").map_err(unreadable)?.iter();
    for (name, text) in records.facts() {
        match found.next().transpose().map_err(unreadable)? {
            Some((key, value)) if &*key == name.as_bytes() && &*value == text.as_bytes() => {}
            _ => return Err(differs("the tree meta")),
        }
    }
    if found.next().is_some() {
        return Err(differs("the tree meta"));
    }
    let mut found = database.open_tree(records.kind().table()).map_err(unreadable)?.iter();
    let mut number = 0u64;
    records.each(&mut |record| {
        number += 1;
        match found.next().transpose().map_err(unreadable)? {
            Some((key, value)) if *key == *record.key && *value == *encode(record)? => Ok(()),
            _ => Err(differs(&format!("record {number}"))),
        }
    })?;
    if found.next().is_some() { Err(differs("the tree's end")) } else { Ok(()) }
}

fn open(path: &Path) -> Result<sled::Db> {
    sled::Config::new().path(path).cache_capacity(CACHE).flush_every_ms(None).open().map_err(failed)
}

fn encode(record: &Record<'_>) -> Result<Vec<u8>> {
    let config = bincode::config::standard();
    match &record.what {
        What::Node { created, modified, expiration, value } => {
            let node = Node {
                dir: value.is_none(),
                created_index: created.0,
                modified_index: modified.0,
                expiration: expiration.map(since_1970),
                value: value.as_deref().unwrap_or_default(),
            };
            bincode::encode_to_vec(node, config)
        }
        What::Pair { create, modified, version, lease, value } => {
            let pair =
                Pair { create_revision: create.0, mod_revision: modified.0, version: *version, lease: lease.0, value };
            bincode::encode_to_vec(pair, config)
        }
    }
    .map_err(|e| Error::new(Reason::Internal, format!("cannot encode a record: {e}")))
}

fn failed(e: sled::Error) -> Error {
    if let sled::Error::Io(e) = &e {
        return Error::of_output("write the sled database", e);
    }
    Error::new(Reason::OutputFailed, format!("cannot write the sled database: {e}"))
}
