//! The directories of `--to data-dir`: a database, a log and a `.snap` file for each member, in one directory that gets its name
//! when all of it is on disk (docs/formats.md 11.3).
//!
//! The database is written once; the other members get copies, which are read back. Must not know what the database contains.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use sha2::{Digest, Sha256};

use super::context::Context;
use super::new_cluster::NewCluster;
use super::read::source_file;
use super::targets::Places;
use super::write::{Output, Written};
use crate::bolt::Db;
use crate::data_dir::{self, Member};
use crate::error::{Error, Reason, Result};
use crate::interrupt::{self, Interrupt};
use crate::options::ConvertOptions;
use crate::output::snapshot::hex;
use crate::output::staged_dir::Folder;
use crate::report::{OutputFacts, OutputMember, SourceFile};
use crate::source::live_copy;

/// The folders of a member, and its database.
const SNAP: &str = "member/snap";
const WAL: &str = "member/wal";
const DB: &str = "member/snap/db";

/// The destination of an output.
pub(super) enum Destination {
    /// One file.
    File,
    /// Directories of members.
    Directories(MemberDirs),
}

/// The directories of members in progress.
pub(super) struct MemberDirs {
    /// `None` in a dry run.
    folder: Option<Folder>,
    new: NewCluster,
    /// Each member whose directory is written, and the path of the directory in the output.
    dirs: Vec<(Member, PathBuf)>,
    /// The database of the first of them.
    db: PathBuf,
}

impl Destination {
    /// Prepares the directories of the output, if it is one.
    ///
    /// # Errors
    /// The output exists; the operating system fails.
    pub(super) fn prepare(
        options: &ConvertOptions,
        places: &Places,
        cluster: Option<&NewCluster>,
    ) -> Result<Destination> {
        let Some(new) = cluster else { return Ok(Destination::File) };
        let dir =
            |member: &Member| if options.cluster.all_members { PathBuf::from(&member.name) } else { PathBuf::new() };
        let dirs: Vec<_> = new.written.iter().map(|member| (member.clone(), dir(member))).collect();
        let Some((_, first)) = dirs.first() else {
            return Err(Error::new(Reason::Internal, "no member has a directory"));
        };
        let output = &options.output;
        let (folder, db) = if options.dry_run {
            // A name that is free, in the directory that would be written.
            let db = if output.is_dir() { output.join("db") } else { output.clone() };
            (None, db)
        } else {
            let folder = Folder::create(output, places.directory)?;
            let db = folder.temp_path().join(first).join(DB);
            for (_, dir) in &dirs {
                for part in [SNAP, WAL] {
                    let path = folder.temp_path().join(dir).join(part);
                    fs::create_dir_all(path).map_err(|e| failed(output, "create its directories", e))?;
                }
            }
            (Some(folder), db)
        };
        Ok(Destination::Directories(MemberDirs { folder, new: new.clone(), dirs, db }))
    }

    /// Returns the path to which the database is written.
    pub(super) fn database<'p>(&'p self, options: &'p ConvertOptions) -> &'p Path {
        match self {
            Destination::File => &options.output,
            Destination::Directories(dirs) => &dirs.db,
        }
    }

    /// Returns the number of databases in the output.
    pub(super) fn copies(&self) -> u64 {
        match self {
            Destination::File => 1,
            Destination::Directories(dirs) => dirs.dirs.len() as u64,
        }
    }

    /// Completes the output around its database. Returns the files of the directories, if there are any.
    ///
    /// # Errors
    /// A copy differs; the operating system fails.
    pub(super) fn finish(self, context: &Context<'_>, written: Written) -> Result<(Output, Made)> {
        match self {
            Destination::File => Ok((Output::File(written.into_sink()), Made::default())),
            Destination::Directories(dirs) => dirs.finish(context, written),
        }
    }
}

/// What the report says of the directories.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) cluster_id: Option<String>,
    pub(super) members: Vec<OutputMember>,
    pub(super) files: Vec<SourceFile>,
}

impl MemberDirs {
    fn finish(self, context: &Context<'_>, written: Written) -> Result<(Output, Made)> {
        let (options, interrupt) = (context.options, context.interrupt);
        let mut made = Made {
            cluster_id: Some(self.new.cluster.id.to_string()),
            members: self.dirs.iter().map(|(member, dir)| described(options, member, dir)).collect(),
            files: Vec::new(),
        };
        let sha256 = hex(&written.digested.sha256);
        let sink = written.into_sink();
        let Some(folder) = self.folder else { return Ok((Output::File(sink), made)) };
        sink.commit()?;
        for (member, dir) in &self.dirs {
            let root = folder.temp_path().join(dir);
            let db = root.join(DB);
            if db != self.db {
                copy(&self.db, &db, &sha256, options, interrupt)?;
            }
            let segment = data_dir::first_segment(&self.new.cluster, member)?;
            write_file(&root.join(WAL).join(data_dir::SEGMENT_NAME), &segment, Some(data_dir::PREALLOCATED), options)?;
            let snap = data_dir::snap_file(&self.new.cluster)?;
            write_file(&root.join(SNAP).join(data_dir::snap_name(&self.new.cluster)), &snap, None, options)?;
        }
        if options.preserve_owner {
            give_to_owner_of(options, folder.temp_path())?;
        }
        folder.sync()?;
        for (_, dir) in &self.dirs {
            let paths = [
                (DB.into(), Some(&sha256)),
                (format!("{SNAP}/{}", data_dir::snap_name(&self.new.cluster)), None),
                (format!("{WAL}/{}", data_dir::SEGMENT_NAME), None),
            ];
            for (path, known) in paths {
                let path = dir.join(path);
                let mut file = described_file(&folder.temp_path().join(&path), known, options, interrupt)?;
                file.path = path.display().to_string();
                made.files.push(file);
            }
        }
        Ok((Output::Folder(folder), made))
    }
}

fn described(options: &ConvertOptions, member: &Member, dir: &Path) -> OutputMember {
    // An empty path would end the directory in a slash.
    let directory = if dir.as_os_str().is_empty() { options.output.clone() } else { options.output.join(dir) };
    OutputMember {
        name: member.name.clone(),
        id: member.id.to_string(),
        directory: directory.display().to_string(),
        peer_urls: member.peer_urls.clone(),
        is_learner: member.is_learner,
    }
}

/// Describes a file. A hash that is known is not computed again.
fn described_file(
    path: &Path,
    known: Option<&String>,
    options: &ConvertOptions,
    interrupt: Interrupt<'_>,
) -> Result<SourceFile> {
    if let Some(sha256) = known {
        let found = fs::metadata(path).map_err(|e| failed(&options.output, "look at its database", e))?;
        return Ok(SourceFile { bytes: found.len(), sha256: sha256.clone(), ..SourceFile::default() });
    }
    let map = live_copy::map(path).map_err(|e| {
        let e = Error::new(Reason::OutputFailed, e.message()).in_file(&options.output);
        e.context("reading it back")
    })?;
    source_file(&map, interrupt)
}

/// Writes a file, with zeros after the bytes up to a size, and reads it back.
fn write_file(path: &Path, bytes: &[u8], len: Option<u64>, options: &ConvertOptions) -> Result<()> {
    let failed = |e| failed(&options.output, "write the files of a member", e);
    let mut file = File::create_new(path).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    if let Some(len) = len {
        file.set_len(len).map_err(failed)?;
    }
    file.sync_all().map_err(failed)?;
    forget(&file);
    let mut found = vec![0; bytes.len()];
    File::open(path).and_then(|mut file| file.read_exact(&mut found)).map_err(failed)?;
    if found == bytes { Ok(()) } else { Err(differs(options, path)) }
}

/// The bytes to copy at a time.
const PIECE: u64 = 64 << 20;

/// Copies the database and reads the copy back. The kernel shares the blocks of the two files where the file system can.
fn copy(from: &Path, to: &Path, sha256: &str, options: &ConvertOptions, interrupt: Interrupt<'_>) -> Result<()> {
    let failed = |e| failed(&options.output, "copy the database", e);
    let mut source = File::open(from).map_err(failed)?;
    let mut target = File::create_new(to).map_err(failed)?;
    loop {
        interrupt.ask()?;
        if io::copy(&mut (&mut source).take(PIECE), &mut target).map_err(failed)? == 0 {
            break;
        }
    }
    target.sync_all().map_err(failed)?;
    forget(&target);
    let mut copied = File::open(to).map_err(failed)?;
    copied.rewind().map_err(failed)?;
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; interrupt::CHUNK]);
    loop {
        interrupt.ask()?;
        let len = copied.read(&mut buffer).map_err(failed)?;
        if len == 0 {
            break;
        }
        hasher.update(buffer.get(..len).unwrap_or_default());
    }
    if hex(&hasher.finalize()) == sha256 { Ok(()) } else { Err(differs(options, to)) }
}

/// Drops a synced file from the cache, so that it is read back from disk. A file system may ignore this.
fn forget(file: &File) {
    let _ = posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
}

fn differs(options: &ConvertOptions, path: &Path) -> Error {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let message = format!("the file {name} of a member differs from what was written");
    Error::new(Reason::VerifyFailed, message).in_file(&options.output)
}

/// Gives every file and directory below `path` the owner and group of the first source.
fn give_to_owner_of(options: &ConvertOptions, path: &Path) -> Result<()> {
    let Some(source) = options.sources.first() else { return Ok(()) };
    let owner = fs::metadata(source).map_err(|e| Error::io(Reason::Unreadable, source, "look at its owner", e))?;
    let give = |path: &Path| {
        let given = chown(path, Some(owner.uid()), Some(owner.gid()));
        let hint = "run etcdlift as root, or leave out --preserve-owner";
        given.map_err(|e| failed(&options.output, "give it the owner of the source", e).hint(hint))
    };
    let mut open = vec![path.to_path_buf()];
    while let Some(path) = open.pop() {
        give(&path)?;
        if path.is_dir() {
            let entries = fs::read_dir(&path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
            let entries = entries.map_err(|e| failed(&options.output, "list its files", e))?;
            open.extend(entries.into_iter().map(|entry| entry.path()));
        }
    }
    Ok(())
}

/// Returns the path of the database of an existing output, or of its first member.
pub(super) fn first_database(options: &ConvertOptions, facts: &OutputFacts) -> PathBuf {
    match facts.members.first() {
        Some(member) if options.cluster.all_members => options.output.join(&member.name).join(DB),
        Some(_) => options.output.join(DB),
        None => options.output.clone(),
    }
}

/// Checks that a directory may be replaced: etcdlift made it, and no etcd has opened it since. The first transaction of an etcd
/// changes the meta pages.
///
/// # Errors
/// [`Reason::OutputExists`]; [`Reason::Locked`] if a process has locked one of the files.
pub(super) fn replaceable(path: &Path) -> Result<()> {
    let refuse = |what: &str| {
        let message = format!(
            "the directory exists, and {what}; --overwrite replaces only what etcdlift made and no etcd has opened"
        );
        Error::new(Reason::OutputExists, message).in_file(path).hint("move it away, or give another name")
    };
    let list = |dir: &Path| -> Result<Vec<PathBuf>> {
        let entries =
            fs::read_dir(dir).and_then(|entries| entries.map(|e| Ok(e?.path())).collect::<io::Result<Vec<_>>>());
        entries.map_err(|e| failed(path, "list its files", e))
    };
    let mut roots = vec![path.to_path_buf()];
    if !path.join("member").is_dir() {
        roots = list(path)?;
    }
    for root in &roots {
        let expected = |found: &[PathBuf], names: &[&str]| {
            found
                .iter()
                .all(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(|name| names.contains(&name)))
        };
        let is_dir = |path: &Path| fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
        if !is_dir(root)
            || !expected(&list(root)?, &["member"])
            || !expected(&list(&root.join("member"))?, &["snap", "wal"])
        {
            return Err(refuse("is not one that etcdlift makes"));
        }
        for file in list(&root.join(SNAP))?.into_iter().chain(list(&root.join(WAL))?) {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let known = name == "db" || name.ends_with(".snap") || name == data_dir::SEGMENT_NAME;
            if !known || !fs::symlink_metadata(&file).is_ok_and(|found| found.is_file()) {
                return Err(refuse(&format!("has another file, {name}")));
            }
            if crate::source::lock::is_locked(&file).unwrap_or(true) {
                let message =
                    "another process has locked a file of the directory, which may be in use; it is not replaced";
                return Err(Error::new(Reason::Locked, message).in_file(path));
            }
        }
        let map = live_copy::map(&root.join(DB)).map_err(|_| refuse("has no database that can be read"))?;
        let untouched = Db::open(map.bytes()).is_ok_and(|db| {
            let mut ids: Vec<u64> = db.metas().iter().flatten().map(|meta| meta.txid).collect();
            ids.sort_unstable();
            ids == [0, 1]
        });
        if !untouched {
            return Err(refuse("an etcd has opened it"));
        }
    }
    Ok(())
}

fn failed(path: &Path, action: &str, e: io::Error) -> Error {
    Error::io(Reason::OutputFailed, path, action, e)
}
