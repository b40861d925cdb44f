//! Sources, opened: every file mapped or copied, no etcd running on it unless that is allowed, the logs read, the snapshot
//! chosen.
//!
//! Ties the other files of this folder together; the v2 tree begins where this ends.

use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Reason, Result};
use crate::ids::{MemberId, RaftIndex};
use crate::source::choose::{Choice, choose};
use crate::source::cluster;
use crate::source::dir::{DataDir, Layout, SnapName, Source, WalDir, detect, detect_member};
use crate::source::live::{self, Access};
use crate::source::lock;
use crate::source::map::Map;
use crate::source::snap::Snapshot;
use crate::source::wal::{End, Wal};

/// A convertible source: one member's data, or several members' of one cluster.
#[derive(Debug)]
pub struct Opened {
    /// The members, as they were named.
    pub members: Vec<Member>,
    /// Where the replay starts.
    pub choice: Choice,
    /// Whether to go on past damage, to the last sound record before it.
    pub salvage: bool,
    /// Damage that was passed over, because that was asked for.
    pub salvaged: Vec<Error>,
}

/// One member's data.
#[derive(Debug)]
pub struct Member {
    /// The path as it was named.
    pub path: PathBuf,
    /// A directory's layout; `None` for a lone `.snap` file.
    pub layout: Option<Layout>,
    /// How its files were read: whether an etcd was running on it.
    pub access: Access,
    /// The log; `None` for a lone snapshot.
    pub wal: Option<Wal>,
    /// `.snap` files, oldest first.
    pub snapshots: Vec<SnapName>,
    /// The v3 backend, `snap/db`.
    pub db: Option<Map>,
    /// Backends that came with a snapshot from a leader and may not have taken the place of `db` yet (FORMATS 2.4).
    pub received_dbs: Vec<(RaftIndex, Map)>,
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

/// How to open a source.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenOptions {
    /// Start from a snapshot at or below this raft index.
    pub up_to: Option<RaftIndex>,
    /// Go on past damage, to the last sound record before it.
    pub salvage: bool,
    /// Read a directory that an etcd is running on.
    pub allow_live: bool,
}

/// Opens a source.
///
/// # Errors
/// A refusal if it is not etcd data or an etcd is running on it; damage with file, offset and what was expected.
pub fn open(path: &Path, wal_dir: &WalDir, options: OpenOptions) -> Result<Found> {
    let settled = |found: &Found| match found {
        Found::V2(opened) => opened.is_settled(),
        Found::V3File(_) | Found::V3Only(_) => true,
    };
    let attempt = || open_once(path, wal_dir, options);
    if options.allow_live { live::again(attempt, settled) } else { attempt() }
}

fn open_once(path: &Path, wal_dir: &WalDir, options: OpenOptions) -> Result<Found> {
    let access = if options.allow_live { Access::Copied } else { Access::AtRest };
    let opened = match detect(path, wal_dir)? {
        Source::V3File(path) => return access.open_db(&path).map(Found::V3File),
        Source::V3Only(path) => return access.open_db(&path).map(Found::V3Only),
        Source::Snapshot(path) => lone_snapshot(path, access)?,
        Source::Directory(dir) => one_member(member(dir, options)?, options)?,
    };
    Ok(Found::V2(Box::new(opened)))
}

/// Opens several members' data directories as one source.
///
/// # Errors
/// As [`open`]; and [`Reason::NotOneCluster`] if they are not different members of one cluster, [`Reason::NotReached`] if
/// their logs together do not reach what is committed.
pub fn open_cluster(sources: &[(&Path, &WalDir)], options: OpenOptions) -> Result<Opened> {
    let attempt = || open_cluster_once(sources, options);
    if options.allow_live { live::again(attempt, Opened::is_settled) } else { attempt() }
}

fn open_cluster_once(sources: &[(&Path, &WalDir)], options: OpenOptions) -> Result<Opened> {
    let mut members = Vec::new();
    for (path, wal_dir) in sources {
        let Some(dir) = detect_member(path, wal_dir)? else {
            let message = "several sources must be data directories with a WAL, one of each member";
            return Err(Error::new(Reason::NotOneCluster, message).in_file(path));
        };
        let member = member(dir, options)?;
        members.push(if member.has_empty_log() { member.without_files() } else { member });
    }
    cluster::check(&members)?;
    let choice = cluster::choose(&members, options.up_to)?;
    Ok(Opened { members, choice, salvage: options.salvage, salvaged: Vec::new() })
}

fn lone_snapshot(path: PathBuf, access: Access) -> Result<Opened> {
    let snapshot = Snapshot::of(access.open(&path)?)?;
    let name = SnapName { term: snapshot.term, index: snapshot.index, path: path.clone() };
    let choice = Choice { snapshot: Some(snapshot), member: 0, passed_over: Vec::new() };
    let member =
        Member { path, layout: None, access, wal: None, snapshots: vec![name], db: None, received_dbs: Vec::new() };
    Ok(Opened { members: vec![member], choice, salvage: false, salvaged: Vec::new() })
}

fn member(dir: DataDir, options: OpenOptions) -> Result<Member> {
    let access = match (check_locks(&dir), options.allow_live) {
        (Ok(()), false) => Access::AtRest,
        (Ok(()), true) => Access::Copied,
        (Err(e), true) if e.reason() == Reason::Locked => Access::Live,
        (Err(e), _) => return Err(e),
    };
    // In this order where an etcd is running: the log, read last, knows all that was listed and read before it.
    let db = dir.db.as_deref().map(|path| access.open_db(path)).transpose()?;
    let received = dir.received_dbs.iter().map(|(index, path)| Ok((*index, access.open(path)?)));
    let received_dbs = received.collect::<Result<_>>()?;
    let wal = dir.segments.as_deref().map(|names| Wal::read(names, access)).transpose()?;
    if access == Access::Copied {
        // An etcd that was started meanwhile: then this is read as its files are.
        check_locks(&dir)?;
    }
    Ok(Member { path: dir.root, layout: Some(dir.layout), access, wal, snapshots: dir.snapshots, db, received_dbs })
}

fn check_locks(dir: &DataDir) -> Result<()> {
    for segment in dir.segments.iter().flatten() {
        lock::check_segment(&segment.path)?;
    }
    dir.db.as_deref().map_or(Ok(()), lock::check_db)
}

/// What can be done about a damaged source.
pub(crate) const WHAT_TO_DO: &str =
    "take another copy, give the other members too, or go on to the last sound record with --salvage";

/// One member alone: its damage is an error, unless it is to be salvaged.
fn one_member(mut member: Member, options: OpenOptions) -> Result<Opened> {
    if member.has_empty_log() {
        let message = "expected a write-ahead log with records, found an empty one: its creation was interrupted, or it is a \
                       backup that etcdctl 2.0 made of a running server";
        return Err(Error::new(Reason::SourceEmpty, message).in_file(&member.path));
    }
    let mut salvaged = Vec::new();
    loop {
        if let Some(damage) = member.wal.as_mut().and_then(Wal::take_damage) {
            if !options.salvage {
                return Err(damage.advise(WHAT_TO_DO));
            }
            salvaged.push(damage);
        }
        match choose(&member.snapshots, member.wal.as_ref(), options.up_to, member.access) {
            Ok(choice) => return Ok(Opened { members: vec![member], choice, salvage: options.salvage, salvaged }),
            Err(error) => {
                let fell_back = options.salvage && member.wal.as_mut().is_some_and(Wal::fall_back);
                if !fell_back {
                    let error = error.in_file(&member.path);
                    let damaged = error.kind() == Kind::Damaged && !options.salvage;
                    return Err(if damaged { error.advise(WHAT_TO_DO) } else { error });
                }
            }
        }
    }
}

impl Member {
    /// Its id, where its log says it.
    pub fn id(&self) -> Option<MemberId> {
        Some(self.wal.as_ref()?.metadata()?.node_id)
    }

    /// Whether there is a log, and nothing in it.
    fn has_empty_log(&self) -> bool {
        self.wal.as_ref().is_some_and(|wal| wal.metadata().is_none() && !matches!(wal.end(), End::Damaged(_)))
    }

    /// One of several members whose log is gone: nothing says of which cluster its other files are, so they are not used.
    fn without_files(self) -> Member {
        Member { wal: None, snapshots: Vec::new(), db: None, received_dbs: Vec::new(), ..self }
    }
}

impl Opened {
    /// One member without a directory: its log and its snapshot are in memory.
    pub fn held(choice: Choice, wal: Wal) -> Opened {
        let member = Member {
            path: PathBuf::from("memory"),
            layout: None,
            access: Access::AtRest,
            wal: Some(wal),
            snapshots: Vec::new(),
            db: None,
            received_dbs: Vec::new(),
        };
        Opened { members: vec![member], choice, salvage: false, salvaged: Vec::new() }
    }

    /// Whether an etcd was running on any of it.
    pub fn is_live(&self) -> bool {
        self.members.iter().any(|member| member.access == Access::Live)
    }

    /// Nothing was passed over that may only have been half there.
    fn is_settled(&self) -> bool {
        // 2.0 writes first how far the log is committed, and then the log.
        let reaches = |wal: &Wal| wal.range().is_none_or(|(_, last)| last >= wal.commit());
        self.choice.passed_over.is_empty()
            && self.salvaged.is_empty()
            && self.members.iter().filter_map(|member| member.wal.as_ref()).all(reaches)
    }

    /// The member that the replay starts from; of none, a member without data.
    pub fn start(&self) -> Option<&Member> {
        self.members.get(self.choice.member)
    }

    /// Where the start is, for errors.
    pub fn path(&self) -> &Path {
        self.start().map_or(Path::new(""), |member| &member.path)
    }

    /// The log of the member that the replay starts from.
    pub fn wal(&self) -> Option<&Wal> {
        self.start().and_then(|member| member.wal.as_ref())
    }

    /// The files that the result depends on, with their bytes: the chosen snapshot, the segments, the v3 backends.
    pub fn files(&self) -> Vec<(&Path, &[u8])> {
        let mut files: Vec<_> = self.choice.snapshot.iter().map(|s| (s.path(), s.file())).collect();
        for member in &self.members {
            files.extend(member.wal.iter().flat_map(Wal::files));
            let received = member.received_dbs.iter().map(|(_, map)| map);
            files.extend(member.db.iter().chain(received).map(|map| (map.path(), map.bytes())));
        }
        files
    }
}
