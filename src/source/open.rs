//! The open sources: all files mapped or copied, the locks tested, the logs read, the start snapshot selected.
//!
//! Combines the other files of this folder. Must not know the v2 tree.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Kind, Reason, Result};
use crate::ids::RaftIndex;
use crate::interrupt::Interrupt;
use crate::source::detect::{Source, detect, detect_member};
use crate::source::dir::{DataDir, Layout, SnapName, WalDir};
use crate::source::live_copy::{self, Access, Files};
use crate::source::map::Map;
use crate::source::member::{Member, WHAT_TO_DO};
use crate::source::snap::Snapshot;
use crate::source::start::{SalvageStart, Start, choose, salvage_starts};
use crate::source::wal::Wal;
use crate::source::watch::Watch;
use crate::source::{cluster, lock};

/// A convertible source: the data of one member, or of several members of one cluster.
#[derive(Debug)]
pub struct Opened {
    /// The members, in the order of the command line.
    pub members: Vec<Member>,
    /// The start of the replay.
    pub start: Start,
    /// Whether no snapshot leads to the log, so that only its entries can be shown.
    pub log_only: bool,
    /// Whether to skip damage, and to use the last sound record before it otherwise.
    pub salvage: bool,
    /// With `salvage`, the starts that were not selected, because they lead less far or are older.
    pub other_starts: Vec<SalvageStart>,
    /// With `salvage`, the result of a replay from each start, in the order of the attempts.
    pub attempts: Vec<Attempt>,
}

/// A start of a damaged source, and the result of a replay from it.
#[derive(Debug)]
pub struct Attempt {
    /// The snapshot file; `None` for the log from its first entry.
    pub path: Option<PathBuf>,
    /// Raft index after which the replay starts.
    pub start: RaftIndex,
    /// The result of the replay.
    pub outcome: Outcome,
    /// Whether this start was selected.
    pub chosen: bool,
}

/// The result of a replay from a start of a damaged source.
#[derive(Debug)]
pub enum Outcome {
    /// The replay ended at this raft index, with this number of keys.
    Reached(RaftIndex, u64),
    /// The replay failed with this error.
    Failed(Error),
    /// The start was not tried, because enough others promised more.
    NotTried,
}

/// The detected content of a path.
#[derive(Debug)]
pub enum Found {
    /// v2 data.
    V2(Box<Opened>),
    /// A v3 backend or snapshot file.
    V3File(Map),
    /// The v3 backend of a directory without v2 data.
    V3Only(Map),
}

impl Found {
    /// Checks that the files still have the bytes of the first read.
    ///
    /// # Errors
    /// [`Reason::ChangedWhileReading`].
    pub fn check_bytes(&self, interrupt: Interrupt<'_>) -> Result<()> {
        match self {
            Found::V2(opened) => opened.check_bytes(interrupt),
            Found::V3File(map) | Found::V3Only(map) => map.check_bytes(interrupt),
        }
    }
}

/// Options to open a source.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions<'a> {
    /// Records each opened file.
    pub watch: Arc<Watch>,
    /// Start from a snapshot at or below this raft index.
    pub up_to: Option<RaftIndex>,
    /// Start from a snapshot that the log has a committed record of, as etcd 3.4 and later do. A newer one is ignored.
    pub recorded_snapshots: bool,
    /// Skip damage, and use the last sound record before it otherwise.
    pub salvage: bool,
    /// Read a directory while an etcd is running on it.
    pub allow_live: bool,
    /// Open a log even if no snapshot leads to it, to show its entries only.
    pub log_only: bool,
    /// Do not open v3 backends.
    pub no_backends: bool,
    /// Ends the reading of logs and snapshots.
    pub interrupt: Interrupt<'a>,
}

/// Opens a source.
///
/// # Errors
/// A refusal if the source is not etcd data or an etcd is running on it; damage with file, offset and what was
/// expected.
pub fn open(path: &Path, wal_dir: Option<&WalDir>, options: &OpenOptions<'_>) -> Result<Found> {
    let settled = |found: &Found| match found {
        Found::V2(opened) => opened.is_settled(),
        Found::V3File(_) | Found::V3Only(_) => true,
    };
    let attempt = || open_once(path, wal_dir, options);
    if options.allow_live { live_copy::again(attempt, settled) } else { attempt() }
}

fn open_once(path: &Path, wal_dir: Option<&WalDir>, options: &OpenOptions<'_>) -> Result<Found> {
    let access = if options.allow_live { Access::Copied } else { Access::AtRest };
    let files = Files::new(access, &options.watch);
    let opened = match detect(path, wal_dir)? {
        Source::V3File(path) => return files.open_db(&path, options.interrupt).map(Found::V3File),
        Source::V3Only(path) => return files.open_db(&path, options.interrupt).map(Found::V3Only),
        Source::Snapshot(path) => lone_snapshot(path, files, options.interrupt)?,
        Source::Directory(dir) => one_member(member(dir, wal_dir, options)?, options)?,
    };
    Ok(Found::V2(Box::new(opened)))
}

/// Opens the data directories of several members as one source.
///
/// # Errors
/// As [`open`]; [`Reason::NotOneCluster`] if they are not different members of one cluster; [`Reason::NotReached`] if
/// their logs together do not contain all committed entries.
pub fn open_cluster(sources: &[(&Path, Option<&WalDir>)], options: &OpenOptions<'_>) -> Result<Opened> {
    let attempt = || open_cluster_once(sources, options);
    if options.allow_live { live_copy::again(attempt, Opened::is_settled) } else { attempt() }
}

fn open_cluster_once(sources: &[(&Path, Option<&WalDir>)], options: &OpenOptions<'_>) -> Result<Opened> {
    let mut members = Vec::new();
    for (path, wal_dir) in sources {
        let Some(dir) = detect_member(path, *wal_dir)? else {
            let message = "expected several data directories with a WAL, one for each member, found something else";
            let error = Error::new(Reason::NotOneCluster, message).in_file(path);
            return Err(error.hint("name the data directory of each member, or one source alone"));
        };
        let member = member(dir, *wal_dir, options)?;
        // Without a log, the cluster of the other files is unknown.
        let gone = member.has_empty_log();
        members.push(if gone {
            Member { layout: member.layout, ..Member::without_files(member.path) }
        } else {
            member
        });
    }
    cluster::check(members.iter())?;
    cluster::check_histories(&members, options.interrupt)?;
    opened(members, options)
}

fn lone_snapshot(path: PathBuf, files: Files, interrupt: Interrupt<'_>) -> Result<Opened> {
    let snapshot = Snapshot::of(files.open_snapshot(&path, interrupt)?, interrupt)?;
    let name = SnapName { term: snapshot.term, index: snapshot.index, path: path.clone() };
    let start = Start { snapshot: Some(snapshot), member: 0, passed_over: Vec::new() };
    let member = Member { files, snapshots: vec![name], ..Member::without_files(path) };
    Ok(Opened::at(vec![member], start))
}

fn member(mut dir: DataDir, wal_dir: Option<&WalDir>, options: &OpenOptions<'_>) -> Result<Member> {
    let access = match (check_locks(&dir), options.allow_live) {
        (Ok(()), false) => Access::AtRest,
        (Ok(()), true) => Access::Copied,
        (Err(e), true) if e.reason() == Reason::Locked => Access::Live,
        (Err(e), _) => return Err(e),
    };
    let files = Files::new(access, &options.watch);
    if options.no_backends {
        (dir.db, dir.received_dbs) = (None, Vec::new());
    }
    if access == Access::AtRest {
        options.watch.directory(dir.clone(), wal_dir.cloned());
    }
    // The order matters while an etcd is running: the log is read last, so it covers all files that were listed and
    // read before.
    let db = dir.db.as_deref().map(|path| files.open_db(path, options.interrupt)).transpose()?;
    let received = dir.received_dbs.iter().map(|(index, path)| Ok((*index, files.open_db(path, options.interrupt)?)));
    let received_dbs = received.collect::<Result<_>>()?;
    let wal = dir.segments.as_deref().map(|names| Wal::read(names, &files, options.interrupt)).transpose()?;
    if access != Access::Live {
        // An etcd that started meanwhile: if that is allowed, the attempt is repeated as the files require.
        check_locks(&dir)?;
    }
    Ok(Member {
        path: dir.root,
        layout: Some(dir.layout),
        files,
        wal,
        unread_segments: dir.unread_segments,
        snapshots: dir.snapshots,
        broken_snapshots: dir.broken_snapshots,
        db,
        received_dbs,
    })
}

fn check_locks(dir: &DataDir) -> Result<()> {
    for segment in dir.segments.iter().flatten() {
        lock::check_segment(&segment.path)?;
    }
    dir.db.as_deref().map_or(Ok(()), lock::check_db)
}

/// Opens one member alone. Its damage is an error without `--salvage`.
fn one_member(mut member: Member, options: &OpenOptions<'_>) -> Result<Opened> {
    if member.has_empty_log() && options.salvage && !member.snapshots.is_empty() {
        member = Member { wal: None, ..member };
    }
    if member.has_empty_log() {
        let message = "expected a write-ahead log with records, found an empty one (an interrupted creation, or a \
                       backup that etcdctl 2.0 made of a running server)";
        return Err(Error::new(Reason::SourceEmpty, message).in_file(&member.path));
    }
    if !options.salvage
        && !options.log_only
        && let Some(damage) = member.wal.as_mut().and_then(Wal::take_end_damage)
    {
        return Err(damage.hint(WHAT_TO_DO));
    }
    let (path, layout) = (member.path.clone(), member.layout);
    opened(vec![member], options).map_err(|error| {
        let error = error.in_file(&path);
        if layout == Some(Layout::Log) && error.reason() == Reason::Gap {
            return error.hint(
                "give the data directory that contains the log, because a log alone converts only from its first entry",
            );
        }
        let damaged = error.kind() == Kind::Damaged && !options.salvage;
        if damaged { error.hint(WHAT_TO_DO) } else { error }
    })
}

fn opened(members: Vec<Member>, options: &OpenOptions<'_>) -> Result<Opened> {
    if options.salvage {
        let mut starts = salvage_starts(&members, options.up_to, options.interrupt)?;
        let start = starts.remove(0).start;
        return Ok(Opened { salvage: true, other_starts: starts, ..Opened::at(members, start) });
    }
    match choose(&members, options.up_to, options.recorded_snapshots, options.interrupt) {
        Err(error) if options.log_only && !matches!(error.reason(), Reason::Interrupted(_) | Reason::NotOneMember) => {
            let start = Start { snapshot: None, member: 0, passed_over: Vec::new() };
            Ok(Opened { log_only: true, ..Opened::at(members, start) })
        }
        start => Ok(Opened::at(members, start?)),
    }
}

impl Opened {
    fn at(members: Vec<Member>, start: Start) -> Opened {
        Opened { members, start, log_only: false, salvage: false, other_starts: Vec::new(), attempts: Vec::new() }
    }

    /// Creates a source of one member without a directory: its log and its snapshot are in memory.
    pub fn held(start: Start, wal: Wal) -> Opened {
        let member = Member::of_log(wal);
        Opened::at(vec![member], start)
    }

    /// Creates a source from a log in memory, without a snapshot.
    ///
    /// # Errors
    /// As [`open`] if the log does not begin at its first entry.
    pub fn of_log(wal: Wal) -> Result<Opened> {
        opened(vec![Member::of_log(wal)], &OpenOptions::default())
    }

    /// Returns whether an etcd was running on any member.
    pub fn is_live(&self) -> bool {
        self.members.iter().any(|member| member.access() == Access::Live)
    }

    /// Returns whether nothing was passed over that may have been half written.
    fn is_settled(&self) -> bool {
        // 2.0 writes the commit index before the entries.
        let is_complete = |wal: &Wal| wal.range().is_none_or(|(_, last)| last >= wal.commit());
        self.start.passed_over.is_empty()
            && self.members.iter().filter_map(|member| member.wal.as_ref()).all(is_complete)
    }

    /// Returns the member with the start of the replay, or a member without data if no member has it.
    pub fn start_member(&self) -> Option<&Member> {
        self.members.get(self.start.member)
    }

    /// Returns the path of the start, for errors.
    pub fn path(&self) -> &Path {
        self.start_member().map_or(Path::new(""), |member| &member.path)
    }

    /// Returns the log of the member with the start of the replay.
    pub fn wal(&self) -> Option<&Wal> {
        self.start_member().and_then(|member| member.wal.as_ref())
    }

    /// Returns the files that the result depends on: the start snapshot, the segments, the v3 backends.
    pub fn maps(&self) -> Vec<&Map> {
        let mut maps: Vec<_> = self.start.snapshot.iter().map(Snapshot::map).collect();
        for member in &self.members {
            maps.extend(member.wal.iter().flat_map(Wal::maps));
            maps.extend(member.db.iter().chain(member.received_dbs.iter().map(|(_, map)| map)));
        }
        maps
    }

    /// Checks that these files still have the bytes of the first read.
    ///
    /// # Errors
    /// [`Reason::ChangedWhileReading`].
    pub fn check_bytes(&self, interrupt: Interrupt<'_>) -> Result<()> {
        self.maps().into_iter().try_for_each(|map| map.check_bytes(interrupt))
    }
}
