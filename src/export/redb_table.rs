//! An export as a redb file: one table by key, and one with metadata.
//!
//! ```text
//! meta             name -> text                  etcdlift, kind (v2, v3), schema, records, and v2_index or revision
//! nodes or pairs   key -> the compact form that `record` defines
//! ```
//!
//! Must not know where the records come from.

use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::record::Records;
use super::redb_file::{self, CACHE, damaged, failed, fill};
use crate::error::{Error, Reason, Result};
use crate::interrupt::Interrupt;

const META: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");

fn records_table(records: &dyn Records) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(records.kind().table())
}

/// Writes an export into an empty file.
///
/// # Errors
/// The file cannot be written; the records are not in the order of their keys ([`Reason::Internal`]); an interruption.
pub fn write(path: &Path, records: &dyn Records, interrupt: Interrupt<'_>) -> Result<()> {
    redb_file::create(path, CACHE, interrupt, |database| write_into(database, records))
}

fn write_into(database: &Database, records: &dyn Records) -> Result<()> {
    let transaction = database.begin_write().map_err(failed)?;
    let mut facts = records.facts();
    facts.sort_unstable();
    fill(&transaction, META, |put| facts.iter().try_for_each(|(name, text)| put(name, text)))?;
    fill(&transaction, records_table(records), |put| {
        let mut value = Vec::new();
        records.each(&mut |record| {
            value.clear();
            record.encode(&mut value);
            put(&record.key, &value)
        })
    })?;
    transaction.commit().map_err(failed)
}

/// Reads an export back and compares all of it with the expected content.
///
/// # Errors
/// [`Reason::VerifyFailed`] if the content differs; an interruption.
pub fn compare(path: &Path, records: &dyn Records, interrupt: Interrupt<'_>) -> Result<()> {
    let differs =
        |what: &str| Error::new(Reason::VerifyFailed, format!("{what} of the export differs from what was written"));
    redb_file::read(path, CACHE, interrupt, |database| {
        let transaction = database.begin_read().map_err(damaged)?;
        let table = transaction.open_table(META).map_err(damaged)?;
        let mut facts = records.facts().into_iter();
        for row in table.iter().map_err(damaged)? {
            let (name, text) = row.map_err(damaged)?;
            if facts.next().is_none_or(|fact| (fact.0, fact.1.as_str()) != (name.value(), text.value())) {
                return Err(differs("the table meta"));
            }
        }
        if facts.next().is_some() {
            return Err(differs("the table meta"));
        }
        let table = transaction.open_table(records_table(records)).map_err(damaged)?;
        let mut found = table.iter().map_err(damaged)?;
        let (mut number, mut value) = (0u64, Vec::new());
        records.each(&mut |record| {
            number += 1;
            value.clear();
            record.encode(&mut value);
            match found.next().transpose().map_err(damaged)? {
                Some((key, found)) if key.value() == &*record.key && found.value() == &value[..] => Ok(()),
                _ => Err(differs(&format!("record {number}"))),
            }
        })?;
        if found.next().is_some() { Err(differs("the end of the table")) } else { Ok(()) }
    })
    .map_err(|e| if e.reason() == Reason::Damaged { differs(e.message()).in_file(path) } else { e })
}
