//! A source, opened: every file mapped, no etcd running on it, the log read, the snapshot chosen.
//!
//! Ties the other files of this folder together; the v2 tree begins where this ends.

use std::path::{Path, PathBuf};

use crate::error::{Error, Reason, Result};
use crate::source::choose::{Choice, choose};
use crate::source::dir::{DataDir, Layout, Source, WalDir, detect};
use crate::source::lock;
use crate::source::map::Map;
use crate::source::snap::Snapshot;
use crate::source::wal::Wal;

/// A convertible source.
#[derive(Debug)]
pub struct Opened {
    /// The path as it was named.
    pub path: PathBuf,
    /// A directory's layout; `None` for a lone `.snap` file.
    pub layout: Option<Layout>,
    /// Where the replay starts.
    pub choice: Choice,
    /// The log; `None` for a lone snapshot.
    pub wal: Option<Wal>,
    /// The v3 backends in the directory.
    pub dbs: Dbs,
    /// Names of all `.snap` files, oldest first.
    pub snapshots: Vec<PathBuf>,
}

/// The v3 backends of a directory (FORMATS 2.4).
#[derive(Debug, Default)]
pub struct Dbs {
    /// `snap/db`.
    pub db: Option<Map>,
    /// The backend that came with the chosen snapshot and may not have taken the place of `db` yet.
    pub received: Option<Map>,
}

/// What a path holds.
#[derive(Debug)]
pub enum Found {
    /// v2 data.
    V2(Box<Opened>),
    /// A v3 backend or snapshot file.
    V3File(Map),
    /// The v3 backend of a directory without v2 data.
    V3Only(Map),
}

/// Opens a source.
///
/// # Errors
/// A refusal if it is not etcd data or an etcd is running on it; damage with file, offset and what was expected.
pub fn open(path: &Path, wal_dir: &WalDir) -> Result<Found> {
    match detect(path, wal_dir)? {
        Source::V3File(path) => Map::open(&path).map(Found::V3File),
        Source::V3Only(path) => Map::open(&path).map(Found::V3Only),
        Source::Snapshot(path) => lone_snapshot(path).map(|opened| Found::V2(Box::new(opened))),
        Source::Directory(dir) => directory(dir).map(|opened| Found::V2(Box::new(opened))),
    }
}

fn lone_snapshot(path: PathBuf) -> Result<Opened> {
    let snapshot = Snapshot::open(&path)?;
    let choice = Choice { snapshot: Some(snapshot), passed_over: Vec::new() };
    Ok(Opened { snapshots: vec![path.clone()], path, layout: None, choice, wal: None, dbs: Dbs::default() })
}

fn directory(dir: DataDir) -> Result<Opened> {
    for segment in dir.segments.iter().flatten() {
        lock::check_segment(&segment.path)?;
    }
    if let Some(db) = &dir.db {
        lock::check_db(db)?;
    }
    let wal = dir.segments.as_deref().map(Wal::read).transpose()?;
    if let Some(wal) = &wal
        && wal.metadata.is_none()
        && wal.damage.is_empty()
    {
        let message = "expected a write-ahead log with records, found an empty one: its creation was interrupted, or it is a \
                       backup that etcdctl 2.0 made of a running server";
        return Err(Error::new(Reason::SourceEmpty, message).in_file(&dir.root));
    }
    let choice = choose(&dir.snapshots, wal.as_ref())?;
    let received = dir.received_dbs.iter().find(|(index, _)| *index == choice.index()).map(|(_, path)| path);
    let dbs = Dbs {
        db: dir.db.as_deref().map(Map::open).transpose()?,
        received: received.map(|path| Map::open(path)).transpose()?,
    };
    Ok(Opened {
        path: dir.root,
        layout: Some(dir.layout),
        choice,
        wal,
        dbs,
        snapshots: dir.snapshots.into_iter().map(|name| name.path).collect(),
    })
}

impl Opened {
    /// The files that the result depends on, with their bytes: the chosen snapshot, the segments, the v3 backends.
    pub fn files(&self) -> Vec<(&Path, &[u8])> {
        let snapshot = self.choice.snapshot.iter().map(|s| (s.path(), s.file()));
        let segments = self.wal.iter().flat_map(Wal::files);
        let dbs = [&self.dbs.db, &self.dbs.received].into_iter().flatten();
        let dbs = dbs.map(|map| (map.path(), map.bytes()));
        snapshot.chain(segments).chain(dbs).collect()
    }
}
