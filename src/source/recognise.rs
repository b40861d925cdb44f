//! Recognition of files and directories that operators give instead of etcd data: archives, pointers of Git LFS and
//! git-annex, a directory one level too high or too low.
//!
//! Names what was found and what to give instead. Reads first bytes and names only. Must not know which command looks,
//! or what it expects beyond the words of its message.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::{Error, Reason, Result};

/// A file that replaces etcd data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Foreign {
    what: &'static str,
    advice: &'static str,
}

/// Number of first bytes to read: the header of a tar archive.
const HEAD: u64 = 512;

const UNPACK: &str = "unpack it, and give the data directory or the .snap file in it";
const LFS: &str = "run `git lfs pull` in its repository to get the file";
const ANNEX: &str = "run `git annex get` in its repository to get the file";

/// Kinds of foreign files: name, offset of the magic bytes, magic bytes, advice. No file of etcd begins with any of
/// them: a `.snap` begins with 08, a segment with the length of a small record, a database with the page number 0.
const KINDS: [(&str, usize, &[u8], &str); 13] = [
    ("gzip-compressed data", 0, b"\x1f\x8b\x08", UNPACK),
    ("zstd-compressed data", 0, b"\x28\xb5\x2f\xfd", UNPACK),
    ("xz-compressed data", 0, b"\xfd7zXZ\0", UNPACK),
    ("bzip2-compressed data", 0, b"BZh", UNPACK),
    ("lz4-compressed data", 0, b"\x04\x22\x4d\x18", UNPACK),
    ("lzip-compressed data", 0, b"LZIP", UNPACK),
    ("data compressed by `compress`", 0, b"\x1f\x9d", UNPACK),
    ("a zip archive", 0, b"PK\x03\x04", UNPACK),
    ("an empty zip archive", 0, b"PK\x05\x06", UNPACK),
    ("a 7z archive", 0, b"7z\xbc\xaf\x27\x1c", UNPACK),
    ("a tar archive", 257, b"ustar", UNPACK),
    ("a Git LFS pointer instead of the file", 0, b"version https://git-lfs.github.com/spec/", LFS),
    ("a git-annex pointer instead of the file", 0, b"/annex/objects/", ANNEX),
];

/// Returns the kind of a file by its first bytes, if it is not a file of etcd.
pub fn foreign(head: &[u8]) -> Option<Foreign> {
    let begins = |at: usize, magic: &[u8]| head.get(at..).is_some_and(|rest| rest.starts_with(magic));
    let kind = KINDS.iter().find(|(_, at, magic, _)| begins(*at, magic))?;
    Some(Foreign { what: kind.0, advice: kind.3 })
}

impl Foreign {
    /// Builds the refusal of `path`, where `expected` was expected.
    pub fn refuse(self, path: &Path, expected: &str) -> Error {
        let message = format!("expected {expected}, found {}", self.what);
        Error::new(Reason::NotEtcd, message).in_file(path).hint(self.advice)
    }
}

/// Refuses a foreign file where `expected` is expected. A missing or unreadable file is no error here: the code that
/// needs it reports it.
///
/// # Errors
/// [`Reason::NotEtcd`] with the kind of the file; [`Reason::PermissionDenied`].
pub fn refuse_foreign(path: &Path, expected: &str) -> Result<()> {
    if is_annex_link(path) {
        let what = "a git-annex link to a file that does not exist here";
        return Err(Foreign { what, advice: ANNEX }.refuse(path, expected));
    }
    // Checked before the open: opening a FIFO would wait for a writer.
    if !fs::metadata(path).is_ok_and(|metadata| metadata.is_file()) {
        return Ok(());
    }
    let mut head = Vec::new();
    match File::open(path).and_then(|file| file.take(HEAD).read_to_end(&mut head)) {
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            Err(Error::io(Reason::Unreadable, path, "open", e))
        }
        _ => foreign(&head).map_or(Ok(()), |found| Err(found.refuse(path, expected))),
    }
}

/// Returns whether the path is a symbolic link into the object store of git-annex without the object.
fn is_annex_link(path: &Path) -> bool {
    fs::read_link(path).is_ok_and(|target| target.to_string_lossy().contains(".git/annex/objects/"))
        && fs::metadata(path).is_err()
}

/// Maximum number of entries of a directory to examine. No operator stores more data directories in one directory.
const MAX_ENTRIES: usize = 1000;

/// Maximum number of data directories in a message.
const NAMED: usize = 10;

/// Returns a message and a hint for a directory without `member`, `snap` and `wal`, if a data directory is near it.
pub fn misplaced(path: &Path, names: &[String]) -> Option<(String, String)> {
    if names.iter().any(|name| name.ends_with(".wal") || name.ends_with(".snap")) || is_snap_folder(path, names) {
        let above = data_dir_above(path).map_or(String::new(), |above| format!(", {}", above.display()));
        let message = "expected a data directory, found a `wal` or `snap` folder of one".to_string();
        return Some((message, format!("give the directory above it{above}")));
    }
    let inside: Vec<String> = names
        .iter()
        .take(MAX_ENTRIES)
        .map(|name| path.join(name))
        .filter(|path| is_data_dir(path))
        .map(shown)
        .collect();
    match inside.as_slice() {
        [] => None,
        [one] => {
            let message = "expected a data directory, found a directory that contains one".to_string();
            Some((message, format!("give {one}")))
        }
        several => {
            let mut list = several.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
            if several.len() > NAMED {
                list.push_str(&format!(" and {} more", several.len() - NAMED));
            }
            Some((
                format!("expected a data directory, found a directory that contains {} of them", several.len()),
                format!("give one of them, or all that are members of one cluster: {list}"),
            ))
        }
    }
}

fn shown(path: PathBuf) -> String {
    path.display().to_string()
}

/// Returns whether the directory is a `snap` folder; it may contain a v3 backend only.
fn is_snap_folder(path: &Path, names: &[String]) -> bool {
    names.iter().any(|name| name == "db") && full(path).file_name().is_some_and(|name| name == "snap")
}

fn is_data_dir(path: &Path) -> bool {
    ["member/snap", "member/wal", "snap", "wal"].iter().any(|below| path.join(below).is_dir())
}

/// Returns the data directory that contains a `wal` or `snap` folder.
fn data_dir_above(folder: &Path) -> Option<PathBuf> {
    let folder = full(folder);
    let name = folder.file_name()?;
    if name != "wal" && name != "snap" {
        return None;
    }
    let above = folder.parent()?;
    let root = if above.file_name().is_some_and(|name| name == "member") { above.parent()? } else { above };
    (!root.as_os_str().is_empty()).then(|| root.to_path_buf())
}

/// Returns the absolute path, unless the name alone is sufficient.
fn full(path: &Path) -> PathBuf {
    let named = path.parent().is_some_and(|parent| !parent.as_os_str().is_empty());
    if named { path.to_path_buf() } else { std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn archives_and_pointers_are_known_by_their_first_bytes() {
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        let lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n";
        for (head, word) in [
            (&b"\x1f\x8b\x08\0\0"[..], "gzip"),
            (b"\x28\xb5\x2f\xfd\0", "zstd"),
            (b"\xfd7zXZ\0\0", "xz"),
            (b"BZh91AY&SY", "bzip2"),
            (b"PK\x03\x04\x14", "zip"),
            (&tar, "tar"),
            (lfs, "git lfs pull"),
            (b"/annex/objects/SHA256E-s12--00.snap\n", "git annex get"),
        ] {
            let error = foreign(head).unwrap().refuse(Path::new("a"), "a .snap file");
            let (line, hint) = (error.to_string(), error.hint_text().unwrap());
            assert!(line.starts_with("a: expected a .snap file, found "), "{line}");
            assert!(line.contains(word) || hint.contains(word), "{line}: {hint}");
        }
        // A snapshot, a segment, a database, text, nothing.
        for head in [&b"\x08\xb4\x90"[..], b"\x04\0\0\0\0\0\0\0\x08\x04", &[0; 512], b"hello", b""] {
            assert_eq!(foreign(head), None);
        }
    }

    #[test]
    fn missing_files_are_no_error_here() {
        let dir = tempfile::tempdir().unwrap();
        assert!(refuse_foreign(&dir.path().join("a"), "").is_ok());
        assert!(refuse_foreign(dir.path(), "").is_ok());
        symlink("../.git/annex/objects/xx/yy/SHA256E-s12--00/SHA256E-s12--00", dir.path().join("link")).unwrap();
        let error = refuse_foreign(&dir.path().join("link"), "a .snap file").unwrap_err();
        assert!(error.hint_text().unwrap().contains("git annex get"), "{error}");
    }

    #[test]
    fn the_directory_that_was_meant_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str| fs::create_dir_all(dir.path().join(name)).unwrap();
        let said = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            misplaced(dir.path(), &names).map(|(message, hint)| format!("{message}: {hint}"))
        };
        make("m0.etcd/member/wal");
        make("m1.etcd/wal");
        make("other");
        assert_eq!(said(&["other"]), None);
        let one = said(&["m0.etcd", "other"]).unwrap();
        assert!(one.ends_with(&format!("give {}", dir.path().join("m0.etcd").display())), "{one}");
        let two = said(&["m0.etcd", "m1.etcd"]).unwrap();
        assert!(two.contains("contains 2 of them") && two.contains("m0.etcd, ") && two.ends_with("m1.etcd"), "{two}");
        let above = |folder: &str| data_dir_above(Path::new(folder));
        assert_eq!(above("a/member/snap"), Some(PathBuf::from("a")));
        assert_eq!(above("a/wal"), Some(PathBuf::from("a")));
        assert_eq!(above("a/b"), None);
    }
}
