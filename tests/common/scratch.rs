//! One folder for what a test process leaves lying: unpacked archives,
//! converted files, data directories of servers.
//!
//! It lies in cargo's folder for test files and carries the process id.
//! Statics are never dropped, so each process sweeps up after dead ones.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;

const PREFIX: &str = "etcdlift-tests-";

/// The folder of this process.
pub fn dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
        sweep(parent);
        let dir = parent.join(format!("{PREFIX}{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        dir
    })
}

/// A folder that goes when the value does.
pub fn temp() -> TempDir {
    TempDir::new_in(dir()).unwrap()
}

/// Copies a folder, files and folders only. Runs of zeros become holes.
pub fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            // Not `fs::copy`: it would copy read-only permission bits too.
            write_sparse(&mut File::open(entry.path()).unwrap(), &target).unwrap();
        }
    }
}

/// Changes a file in place.
pub fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    write_sparse(&mut &bytes[..], path).unwrap();
}

/// Writes a file. Runs of zeros become holes: a WAL segment is 64 MB, nearly all of them preallocated zeros.
pub fn write_sparse(from: &mut impl Read, path: &Path) -> io::Result<()> {
    const CHUNK: usize = 1 << 16;
    static ZEROS: [u8; CHUNK] = [0; CHUNK];
    let mut to = File::create(path)?;
    let mut chunk = Vec::with_capacity(CHUNK);
    loop {
        chunk.clear();
        let read = from.by_ref().take(CHUNK as u64).read_to_end(&mut chunk)?;
        if read == 0 {
            let length = to.stream_position()?;
            return to.set_len(length);
        }
        if chunk == ZEROS[..read] {
            to.seek(SeekFrom::Current(read as i64))?;
        } else {
            to.write_all(&chunk)?;
        }
    }
}

/// The names in a folder, sorted.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Every path from this one on with what changes when it is written to: size, times of change, mode.
pub fn fingerprint(path: &Path) -> BTreeMap<PathBuf, [i64; 6]> {
    let mut found = BTreeMap::new();
    let mut todo = vec![path.to_owned()];
    while let Some(path) = todo.pop() {
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if meta.is_dir() {
            todo.extend(fs::read_dir(&path).into_iter().flatten().map(|entry| entry.unwrap().path()));
        }
        let size = i64::try_from(meta.size()).unwrap();
        let state = [size, meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec(), i64::from(meta.mode())];
        found.insert(path, state);
    }
    found
}

fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else {
            continue;
        };
        if !Path::new("/proc").join(pid).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
