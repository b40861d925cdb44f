//! The commands that follow a run: check, start, and the swap of the directories.
//!
//! etcdlift prints them and runs none. Must not know how a copy was made.

use std::path::{Path, PathBuf, absolute};

use super::member::Plan;
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
            let log = full(log);
            commands.push(moved(&log, &aside(&log)));
            commands.push(moved(&source.join(own_log), &log));
        }
        commands.push("systemctl start etcd".to_string());
        Swap { member_id: member.member_id.clone(), name: member.name.clone(), commands }
    };
    starting.map(swap).collect()
}

fn full(path: &Path) -> PathBuf {
    let path: PathBuf = absolute(path).unwrap_or_else(|_| path.to_path_buf());
    // Without a slash at its end.
    path.components().collect()
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
