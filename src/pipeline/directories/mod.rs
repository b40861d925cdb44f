//! The outputs that etcd boots: the directories of a new cluster (`--to data-dir`), or of the members of the source (`--to member`)
//! (docs/formats.md 11).
//!
//! All of them are in one directory, which gets its name when everything is on disk. The database is written once; other members get
//! copies. Must not know what the database contains.

pub(super) mod boot;
mod continued;
pub(super) mod files;
pub(super) mod layout;
mod new_cluster;
mod replaceable;

use std::path::{Path, PathBuf};

use continued::ContinuedMember;
use files::Writer;
use layout::{DB, SNAP, WAL};
pub(super) use replaceable::replaceable;

use super::context::Context;
use super::merge::preserved::Preserved;
use super::replay::Replayed;
use super::write::{Output, Written};
use crate::data_dir::{self, Cluster, Member};
use crate::error::{Error, Reason, Result};
use crate::ids::{ClusterId, RaftIndex, Term};
use crate::image::Pair;
use crate::mvcc::schema;
use crate::options::{ConvertOptions, To};
use crate::output::snapshot::hex;
use crate::output::staged_dir::{Before, Folder};
use crate::report::{Notice, Notices, OutputFacts, OutputMember, SourceFile};

/// The members that boot from the output.
#[derive(Debug)]
pub(super) enum Members {
    /// Those of a new cluster.
    New(Cluster, Vec<Member>),
    /// Members of the source.
    Continued(ClusterId, Vec<ContinuedMember>),
}

/// Checks the options of the directories before any work.
///
/// # Errors
/// [`Reason::Usage`] if they contradict each other.
pub(super) fn check(options: &ConvertOptions) -> Result<()> {
    new_cluster::check(options)?;
    if options.to == To::Member { continued::check(options) } else { Ok(()) }
}

/// Refuses losses after which a member must not continue.
///
/// # Errors
/// [`Reason::CannotContinue`].
pub(super) fn refuse_losses(options: &ConvertOptions, losses: &[Notice]) -> Result<()> {
    if options.to == To::Member { continued::refuse_losses(losses) } else { Ok(()) }
}

/// Returns the members that boot from the output; `None` if it is one file. `found` gets what the operator must know before they
/// start.
///
/// # Errors
/// [`Reason::Usage`]; the members in the source cannot form a cluster, or cannot continue.
pub(super) fn members(
    context: &Context<'_>,
    replayed: &mut Replayed<'_>,
    position: (RaftIndex, Term),
    found: &mut Notices,
) -> Result<Option<Members>> {
    let options = context.options;
    match options.to {
        To::Snapshot | To::Backend => Ok(None),
        To::DataDir => {
            let (cluster, written) = new_cluster::resolve(options, replayed)?;
            new_cluster::report(&cluster, written.len(), context.as_of, replayed, found);
            Ok(Some(Members::New(cluster, written)))
        }
        To::Member => {
            let (id, members) = continued::members(context, replayed, position)?;
            continued::report_tail(replayed, found);
            Ok(Some(Members::Continued(id, members)))
        }
    }
}

impl Members {
    /// Returns the raft index and term of the database, if the members determine them. A new cluster begins after the entries that
    /// add its members.
    pub(super) fn raft_position(&self) -> Option<(RaftIndex, Term)> {
        match self {
            Members::New(cluster, _) => Some((cluster.last_index(), data_dir::FIRST_TERM)),
            Members::Continued(..) => None,
        }
    }

    /// Returns the buckets that describe the cluster, in place of those of preserved v3 data.
    ///
    /// # Errors
    /// [`Reason::Internal`].
    pub(super) fn buckets(
        &self,
        replayed: &mut Replayed<'_>,
        preserved: Option<&Preserved<'_>>,
    ) -> Result<Vec<(&'static [u8], Vec<Pair>)>> {
        match self {
            Members::New(cluster, _) => Ok(vec![(schema::MEMBERS, cluster.bucket()?)]),
            Members::Continued(..) => continued::buckets(replayed, preserved),
        }
    }

    /// Returns each directory of the output: the member, and the path of the directory in the output.
    fn directories(&self, options: &ConvertOptions) -> Vec<(OutputMember, PathBuf)> {
        let of = |name: &str, id: String, peer_urls: &[String], is_learner, own: bool| {
            let dir = if own { PathBuf::from(name) } else { PathBuf::new() };
            // An empty path would end the directory in a slash.
            let directory = if own { options.output.join(name) } else { options.output.clone() };
            let directory = directory.display().to_string();
            let member = OutputMember { name: name.into(), id, directory, peer_urls: peer_urls.to_vec(), is_learner };
            (member, dir)
        };
        match self {
            Members::New(_, written) => {
                let all = options.cluster.all_members;
                written.iter().map(|m| of(&m.name, m.id.to_string(), &m.peer_urls, m.is_learner, all)).collect()
            }
            Members::Continued(_, members) => {
                let several = options.sources.len() > 1;
                members.iter().map(|m| of(&m.name, m.id.to_string(), &m.peer_urls, m.is_learner, several)).collect()
            }
        }
    }
}

/// The destination of an output.
pub(super) enum Destination<'n> {
    /// One file.
    File,
    /// Directories of members.
    Directories(Directories<'n>),
}

/// The directories of members in progress.
pub(super) struct Directories<'n> {
    members: &'n Members,
    /// `None` in a dry run.
    folder: Option<Folder>,
    dirs: Vec<(OutputMember, PathBuf)>,
    /// The database of the first of them.
    db: PathBuf,
}

/// What the report says of the directories.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) cluster_id: Option<String>,
    pub(super) members: Vec<OutputMember>,
    pub(super) files: Vec<SourceFile>,
}

impl<'n> Destination<'n> {
    /// Prepares the directories of the output, if it is one. `before` is what its path held when the run began.
    ///
    /// # Errors
    /// The output exists; the operating system fails.
    pub(super) fn prepare(context: &Context<'_>, before: Before, members: Option<&'n Members>) -> Result<Self> {
        let Some(members) = members else { return Ok(Destination::File) };
        let (options, output) = (context.options, &context.options.output);
        let dirs = members.directories(options);
        let Some((_, first)) = dirs.first() else {
            return Err(Error::new(Reason::Internal, "no member has a directory"));
        };
        if options.dry_run {
            // A name that is free, in the directory that would be written.
            let db = if output.is_dir() { output.join("db") } else { output.clone() };
            return Ok(Destination::Directories(Directories { members, folder: None, dirs, db }));
        }
        let folder = Folder::create(output, before)?;
        let writer = Writer { output, interrupt: context.interrupt };
        for (_, dir) in &dirs {
            [SNAP, WAL].iter().try_for_each(|part| writer.create_dir(&folder.temp_path().join(dir).join(part)))?;
        }
        let db = folder.temp_path().join(first).join(DB);
        Ok(Destination::Directories(Directories { members, folder: Some(folder), dirs, db }))
    }

    /// Returns the path to which the database is written.
    pub(super) fn database<'p>(&'p self, options: &'p ConvertOptions) -> &'p Path {
        match self {
            Destination::File => &options.output,
            Destination::Directories(directories) => &directories.db,
        }
    }

    /// Returns the number of databases in the output.
    pub(super) fn copies(&self) -> u64 {
        match self {
            Destination::File => 1,
            Destination::Directories(directories) => directories.dirs.len() as u64,
        }
    }

    /// Completes the output around its database. `source_files` are the files that were read, with their hashes.
    ///
    /// # Errors
    /// A copy differs; the operating system fails.
    pub(super) fn finish(
        self,
        context: &Context<'_>,
        written: Written,
        source_files: &[SourceFile],
    ) -> Result<(Output, Made)> {
        match self {
            Destination::File => Ok((Output::File(written.into_sink()), Made::default())),
            Destination::Directories(directories) => directories.finish(context, written, source_files),
        }
    }
}

impl Directories<'_> {
    fn finish(self, context: &Context<'_>, written: Written, source_files: &[SourceFile]) -> Result<(Output, Made)> {
        let options = context.options;
        let writer = Writer { output: &options.output, interrupt: context.interrupt };
        let id = match self.members {
            Members::New(cluster, _) => cluster.id,
            Members::Continued(id, _) => *id,
        };
        let members = self.dirs.iter().map(|(member, _)| member.clone()).collect();
        let mut made = Made { cluster_id: Some(id.to_string()), members, files: Vec::new() };
        let sha256 = hex(&written.digested.sha256);
        let sink = written.into_sink();
        let Some(folder) = self.folder else { return Ok((Output::File(sink), made)) };
        sink.commit()?;
        for (at, (_, dir)) in self.dirs.iter().enumerate() {
            let root = folder.temp_path().join(dir);
            if at > 0 {
                writer.copy(&self.db, &root.join(DB), &sha256)?;
            }
            match self.members {
                Members::New(cluster, written) => {
                    if let Some(member) = written.get(at) {
                        new_cluster::write(writer, &root, cluster, member)?;
                    }
                }
                Members::Continued(_, members) => {
                    if let Some(member) = members.get(at) {
                        member.write(writer, &root, source_files)?;
                    }
                }
            }
            if let Some(source) = options.sources.get(at).or(options.sources.first()).filter(|_| options.preserve_owner)
            {
                writer.give_to_owner_of(source, &root)?;
            }
        }
        if let Some(source) = options.sources.first().filter(|_| options.preserve_owner) {
            writer.give_one_to_owner_of(source, folder.temp_path())?;
        }
        folder.sync()?;
        for (_, dir) in &self.dirs {
            made.files.extend(described(writer, folder.temp_path(), dir)?);
        }
        Ok((Output::Folder(folder), made))
    }
}

/// Describes the files of one directory, in the order of their paths.
///
/// # Errors
/// The operating system fails; an interruption.
pub(super) fn described(writer: Writer<'_>, folder: &Path, dir: &Path) -> Result<Vec<SourceFile>> {
    let mut files = Vec::new();
    for part in [SNAP, WAL] {
        let path = dir.join(part);
        let mut found = files::list(&folder.join(&path))
            .map_err(|e| Error::io(Reason::OutputFailed, writer.output, "list the files of a member", e))?;
        found.sort();
        for file in found {
            let path = path.join(file.file_name().unwrap_or_default()).display().to_string();
            files.push(SourceFile { path, ..writer.describe(&file)? });
        }
    }
    Ok(files)
}

/// Returns the path of the database of an existing output, or of its first member.
pub(super) fn first_database(options: &ConvertOptions, facts: &OutputFacts) -> PathBuf {
    let is_db = |file: &&SourceFile| file.path.ends_with(DB);
    match facts.files.iter().find(is_db) {
        Some(file) => options.output.join(&file.path),
        None => options.output.clone(),
    }
}
