//! The paths that a run writes, compared with each other and with what it reads, before any work.
//!
//! Paths are compared by identity: device and inode of an existing file, after symbolic links. For a new file, that is
//! device and inode of its directory, and its name. Must not know the purpose of the files.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::naming::directory_of;
use crate::error::{Error, Reason, Result};

/// Maximum number of symbolic links to follow before a path counts as a dead end.
const MAX_LINKS: usize = 40;

/// Folders of a source that contain its files; each can be a symbolic link.
const FOLDERS: [&str; 6] = ["", "member", "snap", "wal", "member/snap", "member/wal"];

/// Maximum number of recorded folders of all sources.
const MAX_FOLDERS: usize = 1000;

/// The paths in the options of one run.
#[derive(Debug, Default)]
pub struct Targets {
    written: Vec<Target>,
    read: Vec<Target>,
    /// Source files and folders.
    source_files: HashSet<(u64, u64)>,
    source_folders: HashSet<(u64, u64)>,
    /// Folders that a link in a source folder leads to: no file is written directly into them.
    linked_folders: HashSet<(u64, u64)>,
}

#[derive(Debug)]
struct Target {
    what: &'static str,
    path: PathBuf,
    identity: Identity,
    /// Whether it is a directory that appears as a whole.
    is_directory: bool,
}

/// The identity of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Identity {
    /// An existing file, by device and inode.
    Existing(u64, u64),
    /// A new name in an existing directory.
    New(u64, u64, OsString),
    /// A path whose directory does not exist.
    Nowhere(PathBuf),
}

impl Targets {
    /// Adds a file to write; `what` names it in messages.
    pub fn write(&mut self, what: &'static str, path: &Path) {
        self.written.push(Target::new(what, path));
    }

    /// Adds a directory to write, which appears as a whole: nothing else is written into it.
    pub fn write_directory(&mut self, what: &'static str, path: &Path) {
        self.written.push(Target { is_directory: true, ..Target::new(what, path) });
    }

    /// Adds a file that is read but is not a source: a program, a list of rules.
    pub fn read(&mut self, what: &'static str, path: &Path) {
        self.read.push(Target::new(what, path));
    }

    /// Adds a source: a file, or a directory and every file in it. A part of a data directory protects the whole
    /// directory. A file elsewhere protects the other etcd files in its folder, but not the folder.
    pub fn source(&mut self, path: &Path) {
        let Ok(found) = fs::metadata(path) else { return };
        let real = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        let folder = if found.is_dir() { real.as_path() } else { directory_of(&real) };
        if let Some(root) = data_directory_of(folder) {
            self.add_data_directory(root);
        }
        if found.is_dir() {
            FOLDERS.iter().for_each(|name| self.add_folder(&path.join(name)));
            // A link leads into another data directory, all of which is a source then.
            for part in FOLDERS.iter().filter_map(|name| path.join(name).canonicalize().ok()) {
                data_directory_of(&part).into_iter().for_each(|root| self.add_data_directory(root));
            }
            self.add_folders_below(&real);
            return;
        }
        self.source_files.insert(id(&found));
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let of_etcd =
                |name: &str| name == "db" || [".snap", ".wal", ".broken", ".db"].iter().any(|end| name.ends_with(end));
            if entry.file_name().to_str().is_some_and(of_etcd)
                && let Some(found) = fs::metadata(entry.path()).ok().filter(|found| !found.is_dir())
            {
                self.source_files.insert(id(&found));
            }
        }
    }

    /// Adds the parts of a data directory, and the directory itself where nothing but `member` makes it one.
    fn add_data_directory(&mut self, root: &Path) {
        let parts = FOLDERS.iter().skip(usize::from(!root.join("member").is_dir()));
        parts.for_each(|name| self.add_folder(&root.join(name)));
    }

    /// Folders of any name: one of them may be mounted elsewhere. A directory that has more of them is no data
    /// directory.
    fn add_folders_below(&mut self, folder: &Path) {
        let mut open = vec![folder.to_path_buf()];
        while let Some(folder) = open.pop().filter(|_| self.source_folders.len() < MAX_FOLDERS) {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir())
                    && let Ok(found) = entry.metadata()
                {
                    self.source_folders.insert(id(&found));
                    open.push(entry.path());
                }
            }
        }
    }

    fn add_folder(&mut self, folder: &Path) {
        if let Some(found) = fs::metadata(folder).ok().filter(Metadata::is_dir) {
            self.source_folders.insert(id(&found));
            self.add_files_of(folder);
        }
    }

    /// Adds source files by device and inode, as they were opened.
    pub fn source_files(&mut self, files: impl IntoIterator<Item = (u64, u64)>) {
        self.source_files.extend(files);
    }

    /// Adds the files in a folder, which can have other names: a hard link, or a symbolic link from the source.
    fn add_files_of(&mut self, folder: &Path) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let Some(found) = fs::metadata(&path).ok().filter(|found| !found.is_dir()) else { continue };
            self.source_files.insert(id(&found));
            if entry.file_type().is_ok_and(|kind| kind.is_symlink())
                && let Some(folder) = path.canonicalize().ok().and_then(|real| fs::metadata(directory_of(&real)).ok())
            {
                self.linked_folders.insert(id(&folder));
            }
        }
    }

    /// Refuses two paths to one file, and a file inside an output directory. Also refuses a path that is a source, or a file inside one.
    ///
    /// # Errors
    /// [`Reason::SameFile`], [`Reason::IntoSource`]; those of [`Targets::check_spelling`].
    pub fn check(&self) -> Result<()> {
        self.check_spelling()?;
        self.written.iter().try_for_each(|target| self.check_one(target))
    }

    /// Refuses the path of a file that can only be that of a directory.
    ///
    /// # Errors
    /// [`Reason::Usage`].
    pub fn check_spelling(&self) -> Result<()> {
        match self.written.iter().find(|target| !target.is_directory && is_spelled_as_directory(&target.path)) {
            Some(Target { what, path, .. }) => {
                let message = format!("the {what} is one file, but its path names a directory");
                Err(Error::new(Reason::Usage, message).in_file(path).hint("name a file: remove the last `/`"))
            }
            None => Ok(()),
        }
    }

    /// Checks only the path with this name, like [`Targets::check`].
    ///
    /// # Errors
    /// As [`Targets::check`].
    pub fn check_named(&self, what: &str) -> Result<()> {
        self.written.iter().filter(|target| target.what == what).try_for_each(|target| self.check_one(target))
    }

    fn check_one(&self, target: &Target) -> Result<()> {
        let Target { what, path, identity, .. } = target;
        let same = |other: &&Target| other.identity == *identity && other.what != *what;
        if let Some(other) = self.written.iter().chain(&self.read).find(same) {
            let message = format!("the {what} and the {} are the same file", other.what);
            return Err(Error::new(Reason::SameFile, message).in_file(path));
        }
        let outputs = self.written.iter().filter(|other| other.is_directory && other.what != *what);
        if let Some(other) = outputs.into_iter().find(|other| other.contains(path)) {
            let message = format!("the {what} would be in the {}, which is a directory of its own", other.what);
            return Err(Error::new(Reason::SameFile, message).in_file(path).hint("name a file in another directory"));
        }
        let own = match identity {
            Identity::Existing(device, inode) => self.source_files.contains(&(*device, *inode)),
            Identity::New(..) | Identity::Nowhere(_) => false,
        };
        if own || self.is_inside(path) {
            let message = format!("the {what} would be written into the source, which is never changed");
            return Err(Error::new(Reason::IntoSource, message).in_file(path));
        }
        Ok(())
    }

    /// Returns whether a path is a folder of a source, or goes through one.
    fn is_inside(&self, path: &Path) -> bool {
        if self.source_folders.is_empty() {
            return false;
        }
        let end = followed(path);
        let is_one = |path: &Path, of: &HashSet<_>| fs::metadata(path).is_ok_and(|found| of.contains(&id(&found)));
        if is_one(directory_of(&end), &self.linked_folders) {
            return true;
        }
        let real = end.canonicalize().or_else(|_| directory_of(&end).canonicalize()).unwrap_or(end);
        real.ancestors().any(|path| is_one(path, &self.source_folders))
    }
}

impl Target {
    fn new(what: &'static str, path: &Path) -> Target {
        Target { what, path: path.to_path_buf(), identity: Identity::of(path), is_directory: false }
    }

    /// Returns whether another path leads into this one.
    fn contains(&self, path: &Path) -> bool {
        let end = followed(path);
        let real = match (directory_of(&end).canonicalize(), end.file_name()) {
            (Ok(directory), Some(name)) => directory.join(name),
            _ => plain(&end),
        };
        real.ancestors().skip(1).any(|above| Identity::of(above) == self.identity)
    }
}

/// Returns whether a path can only be that of a directory. Another check has the words for one that exists.
fn is_spelled_as_directory(path: &Path) -> bool {
    let bytes = path.as_os_str().as_encoded_bytes();
    let is_one = path.file_name().is_none() || bytes.ends_with(b"/") || bytes.ends_with(b"/.");
    is_one && !path.is_dir()
}

impl Identity {
    fn of(path: &Path) -> Identity {
        if let Ok(found) = fs::metadata(path) {
            let (device, inode) = id(&found);
            return Identity::Existing(device, inode);
        }
        let end = followed(path);
        match (fs::metadata(directory_of(&end)), end.file_name()) {
            (Ok(found), Some(name)) => {
                let (device, inode) = id(&found);
                Identity::New(device, inode, name.to_os_string())
            }
            _ => Identity::Nowhere(plain(&end)),
        }
    }
}

/// Returns the data directory that contains a folder named `member`, `snap` or `wal`.
fn data_directory_of(folder: &Path) -> Option<&Path> {
    let is_named =
        |path: &Path, names: &[&str]| names.iter().any(|name| path.file_name().is_some_and(|own| own == *name));
    if is_named(folder, &["member"]) {
        return folder.parent();
    }
    let above = folder.parent().filter(|_| is_named(folder, &["snap", "wal"]))?;
    if is_named(above, &["member"]) {
        return above.parent();
    }
    // The layout of 2.0.0. A folder of snapshots elsewhere can also have the name `snap`.
    (above.join("snap").is_dir() && above.join("wal").is_dir()).then_some(above)
}

/// Returns the target of the symbolic links at the end of a path, even if it does not exist.
pub fn followed(path: &Path) -> PathBuf {
    let mut path = path.to_path_buf();
    for _ in 0..MAX_LINKS {
        let Ok(to) = fs::read_link(&path) else { break };
        path = directory_of(&path).join(to);
    }
    path
}

/// Returns an absolute path without `.` and `..`, from its text alone: the file system is not asked.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()).components() {
        match component {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}

fn id(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn check(written: &[(&'static str, PathBuf)], sources: &[PathBuf]) -> Result<(), (Reason, String)> {
        let mut targets = Targets::default();
        written.iter().for_each(|(what, path)| targets.write(what, path));
        sources.iter().for_each(|path| targets.source(path));
        targets.check().map_err(|e| (e.reason(), e.message().to_string()))
    }

    fn is_same(a: PathBuf, b: PathBuf) -> bool {
        match check(&[("report", a), ("ledger", b)], &[]) {
            Ok(()) => false,
            Err((reason, message)) => {
                assert_eq!(reason, Reason::SameFile);
                assert_eq!(message, "the report and the ledger are the same file");
                true
            }
        }
    }

    #[test]
    fn a_file_is_the_same_by_whatever_path() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        fs::write(at("file"), "").unwrap();
        fs::write(at("other"), "").unwrap();
        fs::hard_link(at("file"), at("hard")).unwrap();
        symlink("file", at("soft")).unwrap();
        symlink(dir.path(), at("sub/up")).unwrap();
        symlink("new", at("dangling")).unwrap();
        symlink("sub/../dangling", at("twice")).unwrap();
        for path in ["file", "hard", "soft", "sub/../file", "sub/up/file", "./file", "sub/up/sub/../soft"] {
            assert!(is_same(at("file"), at(path)), "{path}");
            assert!(!is_same(at("other"), at(path)) && !is_same(at("new"), at(path)), "{path}");
        }
        for path in ["new", "dangling", "twice", "sub/../new", "sub/up/new"] {
            assert!(is_same(at("new"), at(path)), "{path}");
            assert!(!is_same(at("sub/new"), at(path)), "{path}");
        }
        assert!(is_same(at("no/such/../x"), at("./no/x")));
        assert!(!is_same(at("no/x"), at("no/y")));
        symlink("loop", at("loop")).unwrap();
        assert!(!is_same(at("loop"), at("new")));
    }

    #[test]
    fn nothing_else_goes_into_an_output_directory() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("there/sub")).unwrap();
        symlink("there", at("link")).unwrap();
        symlink("new/dangling", at("soft")).unwrap();
        for (output, path, inside) in [
            ("there", "there/r", true),
            ("there/", "there/sub/r", true),
            ("there", "link/sub/../r", true),
            ("there", "there/no/such/r", true),
            ("there", "there/../r", false),
            ("there", "therein", false),
            ("there/sub", "there/r", false),
            ("new", "new/r", true),
            ("new/", "new/deep/r", true),
            ("new", "soft", true),
            ("link/new", "there/new/r", true),
            ("new", "newer", false),
            ("new", "there/../other/r", false),
        ] {
            let mut targets = Targets::default();
            targets.write_directory("output", &at(output));
            targets.write("report", &at(path));
            let found = targets.check_named("report").map_err(|e| (e.reason(), e.message().to_string()));
            let message = "the report would be in the output, which is a directory of its own".to_string();
            assert_eq!(found, if inside { Err((Reason::SameFile, message)) } else { Ok(()) }, "{output} {path}");
            assert!(targets.check_named("output").is_ok());
        }
    }

    #[test]
    fn a_file_is_not_spelled_as_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        for (name, reason) in [("r/", Some(Reason::Usage)), ("r/.", Some(Reason::Usage)), ("r", None), ("", None)] {
            let path = dir.path().join(name);
            let found = check(&[("report", path)], &[]).err().map(|(reason, _)| reason);
            assert_eq!(found, reason, "{name:?}");
        }
    }

    #[test]
    fn nothing_goes_into_a_source() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("src/member/snap")).unwrap();
        fs::create_dir_all(at("log")).unwrap();
        fs::create_dir_all(at("out")).unwrap();
        fs::create_dir_all(at("new")).unwrap();
        fs::write(at("src/member/snap/db"), "x").unwrap();
        fs::write(at("log/0.wal"), "x").unwrap();
        fs::write(at("elsewhere.snap"), "x").unwrap();
        symlink(at("log"), at("src/member/wal")).unwrap();
        symlink(at("elsewhere.snap"), at("src/member/snap/1.snap")).unwrap();
        symlink(at("src"), at("link")).unwrap();
        symlink("src/member/new", at("dangling")).unwrap();
        fs::hard_link(at("src/member/snap/db"), at("hard")).unwrap();
        for path in [
            "src",
            "src/new",
            "src/member/snap/db",
            "link/new",
            "log/new",
            "log/0.wal",
            "elsewhere.snap",
            "hard",
            "dangling",
        ] {
            for source in ["src", "link"] {
                let (reason, message) = check(&[("output", at(path))], &[at(source)]).unwrap_err();
                assert_eq!(reason, Reason::IntoSource, "{path}");
                assert_eq!(message, "the output would be written into the source, which is never changed");
            }
        }
        // The folder of `elsewhere.snap`, which the source links to, contains source data too.
        for (path, inside) in [("new", true), ("new/../srcs", true), ("out/new", false), ("no/such", false)] {
            assert_eq!(check(&[("output", at(path))], &[at("src")]).is_err(), inside, "{path}");
        }
        // A part of a data directory protects the whole directory. A single file does not protect its folder.
        for source in ["src/member/snap/db", "src/member/snap", "src/member/wal", "src/member", "log/0.wal"] {
            let part = source != "log/0.wal" && source != "src/member/wal";
            for (path, refused) in [
                ("hard", part),
                ("src/member/snap/db", part),
                ("src/member/snap/new", part),
                ("log/0.wal", true),
                ("log/new", source != "log/0.wal"),
                ("out/new", false),
            ] {
                assert_eq!(check(&[("output", at(path))], &[at(source)]).is_err(), refused, "{path} of {source}");
            }
        }
        // Another snapshot in the folder of the named one.
        fs::write(at("other.snap"), "x").unwrap();
        assert!(check(&[("output", at("other.snap"))], &[at("elsewhere.snap")]).is_err());
        assert_eq!(check(&[("output", at("new.db"))], &[at("elsewhere.snap")]), Ok(()));
        assert_eq!(check(&[("output", at("out/new"))], &[at("missing")]), Ok(()));
    }

    #[test]
    fn targets_never_replace_sources() {
        let dir = tempfile::tempdir().unwrap();
        let rules = dir.path().join("rules.toml");
        fs::write(&rules, "").unwrap();
        let mut targets = Targets::default();
        targets.write("output", &rules);
        targets.write("report", &dir.path().join("r"));
        targets.read("rules file", &rules);
        assert_eq!(targets.check().unwrap_err().message(), "the output and the rules file are the same file");
        assert!(targets.check_named("report").is_ok() && targets.check_named("output").is_err());
    }
}
