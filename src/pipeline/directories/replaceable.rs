//! Whether a directory may be replaced: etcdlift made it, and no etcd has opened it since.
//!
//! The first transaction of an etcd changes the meta pages of the database. Must not know which run made the directory.

use std::fs;
use std::path::{Path, PathBuf};

use super::files::list;
use super::layout::{DB, SNAP, WAL};
use crate::bolt::Db;
use crate::error::{Error, Reason, Result};
use crate::source::{live_copy, lock};

/// Checks that a directory may be replaced.
///
/// # Errors
/// [`Reason::OutputExists`]; [`Reason::Locked`] if a process has locked one of the files.
pub(in crate::pipeline) fn replaceable(path: &Path) -> Result<()> {
    let mut roots = vec![path.to_path_buf()];
    if !path.join("member").is_dir() {
        roots = files_of(path, path)?;
    }
    for root in &roots {
        require_names(path, root, &["member"])?;
        require_names(path, &root.join("member"), &["snap", "wal"])?;
        for file in files_of(path, &root.join(SNAP))?.into_iter().chain(files_of(path, &root.join(WAL))?) {
            let name = name(&file);
            let known = name == "db" || [".snap", ".wal", ".wal.broken"].iter().any(|end| is_numbered(&name, end));
            if !known || !fs::symlink_metadata(&file).is_ok_and(|found| found.is_file()) {
                return Err(refuse(path, &format!("has another file, {name}")));
            }
            if lock::is_locked(&file).unwrap_or(true) {
                let message =
                    "another process has locked a file of the directory, which may be in use; it is not replaced";
                return Err(Error::new(Reason::Locked, message).in_file(path));
            }
        }
        if !is_as_written(&root.join(DB)) {
            return Err(refuse(path, "an etcd has opened it, or its database cannot be read"));
        }
    }
    Ok(())
}

/// Returns whether a file has a name of etcd: two numbers of 16 hexadecimal digits, and this end.
fn is_numbered(name: &str, end: &str) -> bool {
    let numbers = name.strip_suffix(end).and_then(|numbers| numbers.split_once('-'));
    let is_number = |text: &str| text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    numbers.is_some_and(|(one, two)| is_number(one) && is_number(two))
}

/// Returns whether a database has had no transaction since etcdlift wrote it.
fn is_as_written(db: &Path) -> bool {
    let Ok(map) = live_copy::map(db) else { return false };
    Db::open(map.bytes()).is_ok_and(|db| {
        let mut ids: Vec<u64> = db.metas().iter().flatten().map(|meta| meta.txid).collect();
        ids.sort_unstable();
        ids == [0, 1]
    })
}

fn require_names(path: &Path, dir: &Path, names: &[&str]) -> Result<()> {
    let is_dir = fs::symlink_metadata(dir).is_ok_and(|found| found.is_dir());
    if is_dir && files_of(path, dir)?.iter().all(|file| names.contains(&name(file).as_str())) {
        return Ok(());
    }
    Err(refuse(path, "is not one that etcdlift makes"))
}

fn files_of(path: &Path, dir: &Path) -> Result<Vec<PathBuf>> {
    list(dir).map_err(|e| Error::io(Reason::OutputFailed, path, "list its files", e))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn refuse(path: &Path, what: &str) -> Error {
    let message = format!(
        "the directory exists, and {what}; --overwrite replaces only what etcdlift made and no etcd has opened"
    );
    Error::new(Reason::OutputExists, message).in_file(path).hint("move it away, or give another name")
}
