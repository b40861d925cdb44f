//! Reads a source: hashes its files, and parses its snapshot. All commands share it.
//!
//! Must not know what becomes of the data.

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::{Activity, Observer};
use crate::error::Result;
use crate::interrupt::{self, Interrupt};
use crate::limits;
use crate::output::snapshot::hex;
use crate::report::SourceFile;
use crate::source::map::Map;
use crate::source::open::Opened;
use crate::v2store::replay::read_table_watched;
use crate::v2store::table::Table;

/// A source that was read.
#[derive(Clone, Copy)]
pub(super) struct Source<'m> {
    pub(super) opened: &'m Opened,
    /// The store of the start snapshot.
    pub(super) table: &'m Table<'m>,
    /// The maximum number of bytes for the changes of one replay; `None` without `--memory-limit`.
    pub(super) changes_limit: Option<u64>,
}

/// Reads the snapshot's store and hashes the source's files, in parallel.
pub(super) fn read_and_hash<'m>(
    opened: &'m Opened,
    observer: &dyn Observer,
    interrupt: Interrupt<'_>,
) -> Result<(Table<'m>, Vec<SourceFile>)> {
    let bytes = opened.maps().iter().map(|map| map.bytes().len() as u64).sum();
    observer.stage(Activity::Reading, Some(bytes));
    let asked = || {
        observer.advance(interrupt::CHUNK as u64);
        interrupt.ask()
    };
    let (table, files) =
        rayon::join(|| read_table_watched(opened, interrupt), || hash_files(opened, Interrupt::new(&asked)));
    // An interruption takes precedence over every other error.
    let files = files?;
    Ok((table?, files))
}

fn hash_files(opened: &Opened, interrupt: Interrupt<'_>) -> Result<Vec<SourceFile>> {
    opened.maps().into_par_iter().map(|map| source_file(map, interrupt)).collect()
}

/// Describes a file by its path, size and sha256. Does not read a long hole at its end.
pub(super) fn source_file(map: &Map, interrupt: Interrupt<'_>) -> Result<SourceFile> {
    let mut sha256 = Sha256::new();
    for chunk in map.bytes().chunks(interrupt::CHUNK) {
        interrupt.ask()?;
        sha256.update(chunk);
    }
    let (read, bytes) = (map.bytes().len() as u64, map.file_len());
    let is_whole = bytes - read <= limits::MAX_HOLES;
    if is_whole {
        let zeros = [0; 1 << 16];
        let mut rest = usize::try_from(bytes - read).unwrap_or(0);
        while let Some(part) = zeros.get(..rest.min(zeros.len())).filter(|part| !part.is_empty()) {
            interrupt.ask()?;
            sha256.update(part);
            rest -= part.len();
        }
    }
    Ok(SourceFile {
        path: map.path().display().to_string(),
        bytes,
        sha256: hex(&sha256.finalize()),
        hashed_bytes: (!is_whole).then_some(read),
    })
}
