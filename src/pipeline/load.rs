//! From files to the tree: open, hash, parse, replay. Shared by `convert` and `inspect`.

use std::cmp::Reverse;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::{Interrupted, Observer, facts};
use crate::bolt::Db;
use crate::error::{Reason, Result};
use crate::ids::RaftIndex;
use crate::options::WalDir;
use crate::output::snapshot::hex;
use crate::report::SourceFile;
use crate::report::table::{counted, short};
use crate::source::dir;
use crate::source::map::Map;
use crate::source::open::{Member, Opened};
use crate::source::recognise;
use crate::v2store::recover::{BackendProof, read_table};
use crate::v2store::table::Table;
use crate::verify::{V2v3Tree, V3Content, v3_content};

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
    observer: &dyn Observer,
    interrupted: Interrupted<'_>,
) -> Result<(Table<'m>, Vec<SourceFile>)> {
    let bytes = opened.files().iter().map(|(_, bytes)| bytes.len() as u64).sum();
    observer.stage("reading", Some(bytes));
    let asked = || {
        observer.advance(HASH_CHUNK as u64);
        interrupted()
    };
    let (table, files) = rayon::join(|| read_table(opened), || hash_files(opened, &asked));
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
pub(super) struct Backend<'m> {
    pub(super) content: V3Content,
    pub(super) consistent_index: Option<RaftIndex>,
    /// The file, and which of the members it is of.
    pub(super) map: Option<&'m Map>,
    member: usize,
}

/// Looks into the v3 backends of the data directories, of which the one that is furthest on counts: they differ in nothing
/// else.
pub(super) fn backend(opened: &Opened) -> Result<Backend<'_>> {
    let mut found: Vec<Backend<'_>> = opened
        .members
        .iter()
        .enumerate()
        .map(|(at, member)| backend_of(member, opened.choice.index()).map(|found| Backend { member: at, ..found }))
        .collect::<Result<_>>()?;
    // Of equals the one of the lowest id, whatever the order in which they were named.
    let id = |found: &Backend<'_>| opened.members.get(found.member).and_then(Member::id);
    found.sort_by_key(|found| (Reverse(found.map.is_some()), Reverse(found.consistent_index), id(found)));
    Ok(found.into_iter().next().unwrap_or_default())
}

/// The backend that came with the chosen snapshot, if that is newer than `db` (FORMATS 2.4).
fn backend_of(member: &Member, start: RaftIndex) -> Result<Backend<'_>> {
    let own = member.db.as_ref().map(content).transpose()?.unwrap_or_default();
    let behind = own.consistent_index.is_none_or(|index| index < start);
    let received = member.received_dbs.iter().find(|(index, _)| *index == start);
    match received.filter(|_| behind) {
        Some((_, received)) => content(received),
        None => Ok(own),
    }
}

fn content(map: &Map) -> Result<Backend<'_>> {
    if let Some(found) = recognise::foreign(map.bytes()) {
        return Err(found.refuse(map.path(), "a v3 backend"));
    }
    let failed = |e: crate::bolt::Damage| e.into_error(Reason::Damaged).context("v3 backend").in_file(map.path());
    let db = Db::open(map.bytes()).map_err(failed)?;
    let content = v3_content(&db).map_err(failed)?;
    let consistent_index = content.consistent_index.filter(|index| *index > RaftIndex(0));
    Ok(Backend { content, consistent_index, map: Some(map), member: 0 })
}

/// A v2 tree inside v3, in words.
pub(super) fn v2v3_words(tree: &V2v3Tree) -> String {
    let prefix = short(&facts::text(&tree.prefix));
    format!("a v2 tree of `etcd --experimental-enable-v2v3 {prefix}` ({})", counted(tree.keys, "key", "keys"))
}

/// What a v3 database holds, in words.
pub(super) fn describe_v3(map: &Map) -> Result<String> {
    Ok(content(map)?.describe().unwrap_or_else(|| "nothing in it".to_string()))
}

impl Backend<'_> {
    /// What it proves to be committed.
    pub(super) fn applied(&self) -> Option<BackendProof> {
        Some(BackendProof { member: self.member, index: self.consistent_index? })
    }

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
        let trees = self.content.v2v3.iter().map(|tree| format!("among them {}", v2v3_words(tree)));
        if parts.is_empty() { None } else { Some(parts.into_iter().chain(trees).collect::<Vec<_>>().join(", ")) }
    }
}
