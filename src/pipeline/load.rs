//! From files to the tree: open, hash, parse, replay. Shared by `convert` and `inspect`.

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::Interrupted;
use crate::bolt::Db;
use crate::error::{Error, Reason, Result};
use crate::ids::RaftIndex;
use crate::options::WalDir;
use crate::output::snapshot::hex;
use crate::report::SourceFile;
use crate::report::table::counted;
use crate::source::dir;
use crate::source::map::Map;
use crate::source::open::Opened;
use crate::v2store::recover::read_table;
use crate::v2store::table::Table;
use crate::verify::{V3Content, v3_content};

/// Bytes hashed between two questions whether the run was interrupted.
const HASH_CHUNK: usize = 16 << 20;

/// Where the log is, in the words of the source.
pub(super) fn wal_dir(option: Option<&WalDir>) -> dir::WalDir {
    match option {
        None => dir::WalDir::Default,
        Some(WalDir::None) => dir::WalDir::None,
        Some(WalDir::Dir(path)) => dir::WalDir::At(path.clone()),
    }
}

/// Reads the snapshot's store and hashes the source's files, side by side.
pub(super) fn read_and_hash<'m>(
    opened: &'m Opened,
    interrupted: Interrupted<'_>,
) -> Result<(Table<'m>, Vec<SourceFile>)> {
    let (table, files) = rayon::join(|| read_table(opened), || hash_files(opened, interrupted));
    // A run that was interrupted says so, whatever else went wrong.
    let files = files?;
    Ok((table?, files))
}

fn hash_files(opened: &Opened, interrupted: Interrupted<'_>) -> Result<Vec<SourceFile>> {
    opened
        .files()
        .into_par_iter()
        .map(|(path, bytes)| {
            let path = path.display().to_string();
            Ok(SourceFile { path, bytes: bytes.len() as u64, sha256: hash(bytes, interrupted)? })
        })
        .collect()
}

/// sha256 in lower-case hex.
pub(super) fn hash(bytes: &[u8], interrupted: Interrupted<'_>) -> Result<String> {
    let mut sha256 = Sha256::new();
    for chunk in bytes.chunks(HASH_CHUNK) {
        interrupted()?;
        sha256.update(chunk);
    }
    Ok(hex(&sha256.finalize()))
}

/// What the source's v3 backend holds, where it has one.
#[derive(Debug, Default)]
pub(super) struct Backend {
    pub(super) content: V3Content,
    pub(super) consistent_index: Option<RaftIndex>,
}

/// Looks into the v3 backend of a data directory: the one that came with the chosen snapshot, if that is newer than `db`
/// (FORMATS 2.4).
pub(super) fn backend(opened: &Opened) -> Result<Backend> {
    let Some(member) = opened.start() else { return Ok(Backend::default()) };
    let own = member.db.as_ref().map(content).transpose()?.unwrap_or_default();
    let behind = own.consistent_index.is_none_or(|index| index < opened.choice.index());
    let received = member.received_dbs.iter().find(|(index, _)| *index == opened.choice.index());
    match received.filter(|_| behind) {
        Some((_, received)) => content(received),
        None => Ok(own),
    }
}

fn content(map: &Map) -> Result<Backend> {
    let failed = |e: crate::bolt::Damage| e.into_error(Reason::Damaged).context("v3 backend").in_file(map.path());
    let db = Db::open(map.bytes()).map_err(failed)?;
    let content = v3_content(&db).map_err(failed)?;
    let consistent_index = content.consistent_index.filter(|index| *index > RaftIndex(0));
    Ok(Backend { content, consistent_index })
}

impl Backend {
    /// What of v3 data there is, in words; `None` where there is none.
    pub(super) fn describe(&self) -> Option<String> {
        let V3Content { keys, leases, users, roles, .. } = self.content;
        let found =
            [(keys, "key", "keys"), (leases, "lease", "leases"), (users, "user", "users"), (roles, "role", "roles")];
        let parts: Vec<String> = found
            .iter()
            .filter(|(count, ..)| *count > 0)
            .map(|(count, one, many)| counted(*count, one, many))
            .collect();
        if parts.is_empty() { None } else { Some(parts.join(", ")) }
    }

    /// Refuses a source with v3 data, in the backend or in log entries that it has not applied.
    pub(super) fn refuse_v3(&self, opened: &Opened, v3_writes: &[RaftIndex]) -> Result<()> {
        let applied = self.consistent_index.unwrap_or(RaftIndex(0));
        let only_in_log = v3_writes.iter().filter(|index| **index > applied).count();
        let mut found = self.describe().map(|what| format!("{what} in its v3 backend")).unwrap_or_default();
        if only_in_log > 0 {
            let and = if found.is_empty() { "" } else { " and " };
            found = format!("{found}{and}{} in its log", counted(only_in_log as u64, "v3 write", "v3 writes"));
        }
        if found.is_empty() {
            return Ok(());
        }
        let message = format!("the source holds v3 data too ({found}), which this version cannot carry over");
        Err(Error::new(Reason::V3Present, message).in_file(opened.path()))
    }
}
