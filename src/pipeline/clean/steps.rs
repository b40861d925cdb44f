//! The commands that follow a run: check, start, and the swap of the directories.
//!
//! etcdlift prints them and runs none. Must not know how a copy was made.

use std::path::{Component, Path, PathBuf, absolute};

use super::member::Plan;
use crate::data_dir::SEGMENT_NAME;
use crate::options::{CleanOptions, WalDir};
use crate::report::cleaning::{Cleaning, Swap};
use crate::report::next_steps::{option, quoted};

/// Returns the commands to run next.
pub(super) fn next(options: &CleanOptions, cleaning: &Cleaning, plans: &[&Plan]) -> Vec<String> {
    let directories = cleaning.members.iter().map(|member| quoted(Path::new(&member.directory)));
    let directories: Vec<String> = directories.collect();
    let check = format!("etcdlift check {} --target-version {}", directories.join(" "), options.target);
    let starting = cleaning.members.iter().zip(plans).filter(|(_, plan)| !plan.is_removed());
    let start = starting.map(|(member, _)| {
        let name = if member.name.is_empty() { &member.member_id } else { &member.name };
        format!("etcd {} --data-dir {}", option("--name", name), quoted(Path::new(&member.directory)))
    });
    std::iter::once(check).chain(start).collect()
}

/// Returns the commands that put each copy in the place of its source: stop, move aside, move in, start.
pub(super) fn in_place(options: &CleanOptions, cleaning: &Cleaning, plans: &[&Plan]) -> Vec<Swap> {
    let members = cleaning.members.iter().zip(plans).enumerate();
    let starting = members.filter(|(_, (_, plan))| !plan.is_removed());
    let swap = |(at, (member, plan)): (usize, (&crate::report::cleaning::CleanedMember, &&Plan))| {
        let (source, copy) = (full(&plan.path), full(Path::new(&member.directory)));
        // The source can be the `member` folder of a data directory.
        let is_whole = source.join("member").is_dir();
        let (copy, own_log) = if is_whole { (copy, "member/wal") } else { (copy.join("member"), "wal") };
        let mut commands = vec!["systemctl stop etcd".to_string(), moved(&source, &aside(&source))];
        commands.push(moved(&copy, &source));
        if let Some(WalDir::Dir(log)) = options.wal_dirs.get(at) {
            commands.extend(move_log(&source, Path::new(own_log), &full(log)));
        }
        commands.push("systemctl start etcd".to_string());
        Swap { member_id: member.member_id.clone(), name: member.name.clone(), commands }
    };
    starting.map(swap).collect()
}

/// Returns the commands that move the new log, after the swap, to the place where etcd finds its log.
fn move_log(source: &Path, own_log: &Path, log: &Path) -> Vec<String> {
    let made = source.join(own_log);
    let Some(inside) = inside(log, source) else {
        return vec![moved(log, &aside(log)), moved(&made, log)];
    };
    // The old log was moved aside with the source.
    let place = source.join(&inside);
    if inside == own_log {
        return Vec::new();
    }
    let folder = |path: &Path| format!("mkdir -p {}", quoted(path));
    if inside.starts_with(own_log) || own_log.starts_with(&inside) {
        // A directory cannot be moved into itself, or over one that is not empty.
        return vec![folder(&place), moved(&made.join(SEGMENT_NAME), &place.join(SEGMENT_NAME))];
    }
    let parent = place.parent().filter(|parent| *parent != source);
    parent.map(folder).into_iter().chain([moved(&made, &place)]).collect()
}

/// Returns the place of a log inside the source; `None` if the log stays where it is when the source is renamed.
fn inside(log: &Path, source: &Path) -> Option<PathBuf> {
    let own = entry(source);
    let by_name = log.ancestors().find(|ancestor| entry(ancestor) == own);
    if let Some(rest) = by_name.and_then(|ancestor| log.strip_prefix(ancestor).ok()) {
        return Some(rest.to_path_buf());
    }
    // A link that is renamed leaves its directory in place.
    if source.is_symlink() {
        return None;
    }
    let (log, source) = (log.canonicalize().ok()?, source.canonicalize().ok()?);
    log.strip_prefix(source).ok().map(Path::to_path_buf)
}

/// Returns the directory entry that a rename of this path changes. Only its parent is resolved.
fn entry(path: &Path) -> PathBuf {
    match (path.parent().map(Path::canonicalize), path.file_name()) {
        (Some(Ok(parent)), Some(name)) => parent.join(name),
        _ => path.canonicalize().unwrap_or_else(|_| path.to_path_buf()),
    }
}

fn full(path: &Path) -> PathBuf {
    let path: PathBuf = absolute(path).unwrap_or_else(|_| path.to_path_buf());
    // Without a slash at its end, and without `..`.
    let path: PathBuf = path.components().collect();
    if path.components().any(|part| part == Component::ParentDir) { entry(&path) } else { path }
}

/// Returns the path for a directory that is moved aside.
fn aside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".with-v2");
    path.with_file_name(name)
}

fn moved(from: &Path, to: &Path) -> String {
    format!("mv -T {} {}", quoted(from), quoted(to))
}
