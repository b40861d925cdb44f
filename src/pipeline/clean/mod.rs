//! `clean`: copies of members without v2 content, with the same identity and the same v3 data (docs/formats.md 11.2a).
//!
//! `member` decides what becomes of one source, `identity` reads who the member is, `changes` compares its configuration changes with
//! the backend, `copy` writes its directory and reads it back.
//! The output appears whole, after `check` finds nothing in it, or not at all. Must not know the command line.

mod changes;
mod copy;
mod identity;
mod member;
mod migrated;
mod names;
mod removed;
mod steps;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use member::Plan;

use super::check::{open_member, require_version};
use super::directories::described as described_files;
use super::directories::files::Writer;
use super::{Interrupted, targets};
use crate::error::{Error, Reason, Result};
use crate::interrupt::Interrupt;
use crate::notice::Code;
use crate::options::{CleanOptions, WalDir};
use crate::output::naming;
use crate::output::report_file::to_json;
use crate::output::sidecar::Sidecar;
use crate::output::staged_dir::Folder;
use crate::report::Notice;
use crate::report::cleaning::{CleanedMember, Cleaning};
use crate::source::open::{OpenOptions, Opened};
use crate::source::watch::Watch;

/// Copies members without v2 content. `unwritten` gets the error of a report that says how the run failed.
///
/// # Errors
/// A source is damaged, in use, or has no v3 data; the sources are not one cluster; the output exists or cannot be written; the copy
/// does not pass its check. Then no file of the run remains, except the report.
pub fn clean(
    options: &CleanOptions,
    interrupted: Interrupted<'_>,
    unwritten: &mut dyn FnMut(&Error),
) -> Result<Cleaning> {
    let wal_dirs = options.wal_dirs.len();
    if options.sources.is_empty() || (wal_dirs > 0 && wal_dirs != options.sources.len()) {
        let message = "expected at least 1 source, and as many log directories as sources or none";
        return Err(Error::new(Reason::Usage, message));
    }
    targets::check_clean_report(options)?;
    let result = run(options, interrupted);
    if let (Err(error), Some(path)) = (&result, &options.report)
        && let Err(failure) = report_failure(options, path, error)
    {
        unwritten(&failure);
    }
    result
}

/// Writes the report of a run that has failed.
fn report_failure(options: &CleanOptions, path: &Path, error: &Error) -> Result<()> {
    // Links may have changed since the run began.
    targets::check_clean_report(options)?;
    report(path, &Cleaning::failed(options, error))?.name().map(drop)
}

fn run(options: &CleanOptions, interrupted: Interrupted<'_>) -> Result<Cleaning> {
    let before = targets::check_clean(options, Vec::new())?;
    let watch: Arc<Watch> = Arc::default();
    let open_options =
        OpenOptions { watch: Arc::clone(&watch), interrupt: Interrupt::new(interrupted), ..OpenOptions::default() };
    let staged = stage(options, before, &open_options, interrupted).map_err(member::advised);
    let Staged { folder, files, cleaning } = watch.settle(staged)?;
    let mut named = Vec::new();
    let finish = || {
        for file in files {
            named.push(file.name()?);
        }
        watch.check()?;
        targets::check_clean(options, watch.files())?;
        folder.name()
    };
    match finish() {
        Ok(()) => Ok(cleaning),
        Err(error) => {
            named.into_iter().rev().for_each(naming::Named::undo);
            Err(error)
        }
    }
}

/// An output that is whole and checked, under temporary names.
struct Staged {
    folder: Folder,
    files: Vec<Sidecar>,
    cleaning: Cleaning,
}

fn stage(
    options: &CleanOptions,
    before: targets::CleanPlaces,
    open_options: &OpenOptions<'_>,
    interrupted: Interrupted<'_>,
) -> Result<Staged> {
    let mut members: Vec<(Box<Opened>, Plan)> = Vec::new();
    for (path, wal_dir) in sources(options) {
        let opened = open_member(path, wal_dir, open_options)?;
        require_version(path, &opened, options.target, open_options)?;
        let plan = member::plan((path, wal_dir), &opened, options.target, open_options)?;
        members.push((opened, plan));
    }
    let plans: Vec<&Plan> = members.iter().map(|(_, plan)| plan).collect();
    require_one_cluster(&plans)?;
    let newest = members.iter().max_by_key(|(_, plan)| (!plan.is_removed(), plan.state.commit));
    if let Some((opened, _)) = newest.filter(|_| options.require_migrated) {
        migrated::require(opened, open_options)?;
    }
    let dirs: Vec<PathBuf> = match plans.as_slice() {
        [_] => vec![PathBuf::new()],
        several => names::directories(several).into_iter().map(PathBuf::from).collect(),
    };
    let folder = Folder::create(&options.output, before.directory)?;
    let writer = Writer { output: &options.output, interrupt: open_options.interrupt };
    let mut cleaning = Cleaning::new(options);
    for ((opened, plan), dir) in members.iter().zip(&dirs) {
        let root = folder.temp_path().join(dir);
        let entries = copy::write(writer, opened, plan, &root)?;
        copy::require_clean(opened, plan, &root, options.target, interrupted)
            .map_err(|e| e.in_file(&options.output))?;
        if options.preserve_owner {
            writer.give_to_owner_of(&plan.path, &root)?;
        }
        cleaning.cluster_id = plan.cluster.to_string();
        cleaning.members.push(described(plan, opened, entries, &named(&options.output, dir)));
        cleaning.warnings.extend(plan.warnings.iter().cloned());
    }
    if let Some(source) = options.sources.first().filter(|_| options.preserve_owner) {
        writer.give_one_to_owner_of(source, folder.temp_path())?;
    }
    folder.sync()?;
    for dir in &dirs {
        cleaning.files.extend(described_files(writer, folder.temp_path(), dir)?);
    }
    cleaning.warnings.extend(other_members(&plans));
    cleaning.next_steps = steps::next(options, &cleaning, &plans);
    if options.in_place_plan {
        cleaning.in_place_plan = steps::in_place(options, &cleaning, &plans);
    }
    let mut files = Vec::new();
    if let Some(path) = &options.save_v2 {
        let (exported, file) = removed::save(path, options, &plans, open_options)?;
        cleaning.saved_keys = Some(exported.keys);
        cleaning.warnings.extend(exported.warnings);
        cleaning.losses = exported.losses;
        files.extend(file);
    }
    if let Some(path) = &options.ledger {
        files.push(removed::ledger(path, &plans, open_options)?);
    }
    cleaning.judge();
    if let Some(path) = &options.report {
        files.push(report(path, &cleaning)?);
    }
    Ok(Staged { folder, files, cleaning })
}

fn report(path: &Path, cleaning: &Cleaning) -> Result<Sidecar> {
    let mut file = Sidecar::create(path, Default::default())?;
    let json = to_json(cleaning)?;
    file.write(|out| out.write_all(&json).map_err(|e| Error::io(Reason::OutputFailed, path, "write the report", e)))?;
    file.sync().map(|()| file)
}

/// Returns each source with its log directory.
fn sources(options: &CleanOptions) -> impl Iterator<Item = (&Path, Option<&WalDir>)> {
    options.sources.iter().enumerate().map(|(at, path)| (path.as_path(), options.wal_dirs.get(at)))
}

/// Refuses sources that are not different members of one cluster.
fn require_one_cluster(plans: &[&Plan]) -> Result<()> {
    for (at, plan) in plans.iter().enumerate() {
        for earlier in plans.iter().take(at) {
            let what = if earlier.cluster != plan.cluster {
                format!(
                    "the source is of cluster {}, and {} of {}",
                    plan.cluster,
                    earlier.path.display(),
                    earlier.cluster
                )
            } else if earlier.id == plan.id {
                format!("the source is member {}, and so is {}", plan.id, earlier.path.display())
            } else {
                continue;
            };
            let hint = "give the directories of different members of one cluster, or clean one by one";
            return Err(Error::new(Reason::NotOneCluster, what).hint(hint).in_file(&plan.path));
        }
    }
    Ok(())
}

/// Returns the path of a directory in the output. An empty path would end it in a slash.
fn named(output: &Path, dir: &Path) -> PathBuf {
    if dir.as_os_str().is_empty() { output.to_path_buf() } else { output.join(dir) }
}

fn described(plan: &Plan, opened: &Opened, entries: u64, directory: &Path) -> CleanedMember {
    let last = opened.wal().and_then(|wal| wal.last()).map_or(plan.index, |(_, last)| last);
    let mut member = CleanedMember {
        source: plan.path.display().to_string(),
        directory: directory.display().to_string(),
        name: plan.name().to_string(),
        member_id: plan.id.to_string(),
        raft_index: plan.index.0,
        term: plan.term.0,
        last_entry: last.0,
        commit: plan.state.commit.0,
        entries,
        ..CleanedMember::default()
    };
    member.count(&plan.nodes, &plan.replaced);
    member
}

/// Returns a warning about members whose directories are not given.
fn other_members(plans: &[&Plan]) -> Option<Notice> {
    let newest = plans.iter().max_by_key(|plan| plan.index)?;
    let is_given = |id| plans.iter().any(|plan| plan.id == id);
    let missing = newest.identity.members.iter().filter(|member| !is_given(member.id));
    let names: Vec<String> = missing
        .map(|member| if member.name.is_empty() { member.id.to_string() } else { member.name.clone() })
        .collect();
    if names.is_empty() {
        return None;
    }
    let message = format!("the cluster also has the members {}", crate::display::first_of(&names));
    Some(Notice::new(Code::OtherMembers, message).hint("clean their directories too, now or later"))
}
