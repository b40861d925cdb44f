//! An output directory, which gets its name only when it is complete, checked and on disk.
//!
//! A temporary directory in the same parent receives the files; a failure before the rename removes it. Must not know
//! what the files are.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::naming::{ANOTHER_NAME, directory_of, exchange, sync_directory_of, temporary};
use super::sink::require_directory;
use crate::error::{Error, Reason, Result};

/// A check that a directory may be replaced: etcdlift made it, and nothing has used it since.
pub type Replaceable = fn(&Path) -> Result<()>;

/// The state of a path before a run makes a directory there.
#[derive(Debug, Clone, Copy, Default)]
pub enum Before {
    /// Nothing, or an empty directory.
    #[default]
    Free,
    /// A directory that may be replaced, by device and inode.
    Directory((u64, u64), Replaceable),
}

/// An output directory in progress.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    temp: TempDir,
    before: Before,
}

/// Checks that a directory can have the name `path`: it does not exist, is an empty directory, or is one that may be replaced.
/// `hint` says what to do about another one.
///
/// # Errors
/// [`Reason::OutputExists`]; [`Reason::OutputFailed`] if its parent does not exist; those of `replaceable`.
pub fn refuse_existing(path: &Path, replaceable: Option<Replaceable>, hint: &str) -> Result<Before> {
    let refuse = |message: &str, hint: &str| Err(Error::new(Reason::OutputExists, message).in_file(path).hint(hint));
    if path.file_name().is_none() {
        let hint = "name a directory that does not exist, such as ./converted";
        return refuse("the output is a directory with a name of its own, and this path does not end in a name", hint);
    }
    let path = &without_slash(path);
    let found = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return require_directory(path).map(|()| Before::Free),
        Err(e) => return Err(failed(path, "look for an existing output", e)),
        Ok(found) => found,
    };
    if found.is_symlink() {
        return refuse("the output is a directory, but a symbolic link of that name exists", ANOTHER_NAME);
    }
    if !found.is_dir() {
        return refuse("the output is a directory, but a file of that name exists", ANOTHER_NAME);
    }
    if fs::metadata(directory_of(path)).is_ok_and(|above| above.dev() != found.dev()) {
        // No rename can replace it.
        return refuse(
            "the directory is a mount point, and the output gets its name by a rename",
            "name a directory in it",
        );
    }
    if fs::read_dir(path).map_err(|e| failed(path, "look into it", e))?.next().is_none() {
        return Ok(Before::Free);
    }
    match replaceable {
        Some(replaceable) => replaceable(path).map(|()| Before::Directory(id(&found), replaceable)),
        None => refuse("the output exists and is not empty", hint),
    }
}

/// Returns a path without a slash or `.` at its end, through which the operating system would follow a symbolic link.
fn without_slash(path: &Path) -> PathBuf {
    path.components().collect()
}

fn id(found: &fs::Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

impl Folder {
    /// Creates a directory with the future name `path`, in place of what that held when the run began.
    ///
    /// # Errors
    /// [`Reason::OutputExists`] if something else has that name by now; [`Reason::OutputFailed`].
    pub fn create(path: &Path, before: Before) -> Result<Folder> {
        let path = &without_slash(path);
        before.check(path)?;
        let temp = temporary().tempdir_in(directory_of(path));
        let temp = temp.map_err(|e| failed(path, "create a temporary directory in its parent", e))?;
        Ok(Folder { path: path.clone(), temp, before })
    }

    /// Returns the temporary directory, which only its owner can enter.
    pub fn temp_path(&self) -> &Path {
        self.temp.path()
    }

    /// Makes every file private and syncs all. Returns the bytes of the files.
    ///
    /// # Errors
    /// The operating system fails.
    pub fn sync(&self) -> Result<u64> {
        settle(self.temp.path()).map_err(|e| failed(&self.path, "sync", e))
    }

    /// Gives the directory its name, once it is synced. A directory that it replaces is removed.
    ///
    /// # Errors
    /// Something else has that name by now, or the operating system fails. Then the name is as it was.
    pub fn name(self) -> Result<()> {
        self.before.check(&self.path)?;
        match self.before {
            Before::Free => self.rename(),
            Before::Directory(_, replaceable) => self.exchange(replaceable),
        }
    }

    fn rename(self) -> Result<()> {
        let Folder { path, temp, .. } = self;
        let replaced = path.exists();
        fs::rename(temp.path(), &path).map_err(|e| match e.kind() {
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                Error::io(Reason::OutputExists, &path, "rename", e)
            }
            _ => failed(&path, "rename", e),
        })?;
        if let Err(e) = sync_directory_of(&path) {
            if fs::rename(&path, temp.path()).is_ok() && replaced {
                let _ = fs::create_dir(&path);
            }
            return Err(failed(&path, "sync its directory", e));
        }
        let _ = temp.keep();
        Ok(())
    }

    fn exchange(self, replaceable: Replaceable) -> Result<()> {
        let Folder { path, temp, .. } = self;
        let exchanged = exchange(temp.path(), &path);
        exchanged.map_err(|e| failed(&path, "exchange it with the new directory", e))?;
        // A process may have begun to use the old directory directly before.
        let checked = replaceable(temp.path())
            .map_err(|e| e.in_file(&path))
            .and_then(|()| sync_directory_of(&path).map_err(|e| failed(&path, "sync its directory", e)));
        if let Err(error) = checked {
            if exchange(temp.path(), &path).is_err() {
                // The old directory stays under the temporary name.
                let _ = temp.keep();
            }
            return Err(error);
        }
        Ok(())
    }
}

impl Before {
    /// Checks that the path is as it was.
    fn check(self, path: &Path) -> Result<()> {
        match self {
            Before::Free => refuse_existing(path, None, ANOTHER_NAME).map(drop),
            Before::Directory(expected, replaceable) => match fs::symlink_metadata(path) {
                Ok(found) if id(&found) == expected => replaceable(path),
                _ => {
                    let message = "another process has replaced the directory since this run began; it is not replaced";
                    Err(Error::new(Reason::OutputExists, message).in_file(path))
                }
            },
        }
    }
}

fn settle(directory: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            bytes += settle(&entry.path())?;
        } else {
            fs::set_permissions(entry.path(), Permissions::from_mode(0o600))?;
            let file = File::open(entry.path())?;
            file.sync_all()?;
            bytes += file.metadata()?.len();
        }
    }
    fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    File::open(directory)?.sync_all()?;
    Ok(bytes)
}

fn failed(path: &Path, action: &str, e: io::Error) -> Error {
    Error::io(Reason::OutputFailed, path, action, e)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn it_is_private_and_whole_when_it_has_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let folder = Folder::create(&path, Before::Free).unwrap();
        fs::create_dir(folder.temp_path().join("sub")).unwrap();
        fs::write(folder.temp_path().join("sub/f"), "hello").unwrap();
        assert!(!path.exists());
        assert_eq!(folder.sync().unwrap(), 5);
        folder.name().unwrap();
        assert_eq!((mode(&path), mode(&path.join("sub/f"))), (0o700, 0o600));
        drop(Folder::create(&dir.path().join("other"), Before::Free).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_an_empty_directory_gives_way() {
        let dir = tempfile::tempdir().unwrap();
        let (full, empty, file) = (dir.path().join("full"), dir.path().join("empty"), dir.path().join("file"));
        fs::create_dir_all(full.join("x")).unwrap();
        fs::create_dir(&empty).unwrap();
        fs::write(&file, "").unwrap();
        for path in [&full, &file] {
            assert_eq!(Folder::create(path, Before::Free).unwrap_err().reason(), Reason::OutputExists);
        }
        assert_eq!(
            Folder::create(&dir.path().join("no/out"), Before::Free).unwrap_err().reason(),
            Reason::OutputFailed
        );
        Folder::create(&empty, Before::Free).unwrap().name().unwrap();
        // A file that appears meanwhile is preserved.
        let late = Folder::create(&empty, Before::Free).unwrap();
        fs::write(empty.join("theirs"), "").unwrap();
        assert_eq!(late.name().unwrap_err().reason(), Reason::OutputExists);
        assert!(empty.join("theirs").exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_path_that_cannot_be_replaced_is_refused_before_any_work() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("empty/empty")).unwrap();
        std::os::unix::fs::symlink("empty", at("link")).unwrap();
        let paths = [
            (at("empty/empty/.."), "does not end in a name"),
            (PathBuf::from("."), "does not end in a name"),
            (PathBuf::from(".."), "does not end in a name"),
            (PathBuf::from("/"), "does not end in a name"),
            (at("link"), "a symbolic link of that name exists"),
            (at("link/"), "a symbolic link of that name exists"),
            (PathBuf::from("/proc"), "is a mount point"),
        ];
        for (path, words) in paths {
            let error = refuse_existing(&path, Some(is_ours), "").unwrap_err();
            assert!(error.message().contains(words), "{}: {error}", path.display());
            assert_eq!(error.reason(), Reason::OutputExists);
        }
        for name in ["new/", "new2/.", "empty/empty/", "./new3//"] {
            let before = refuse_existing(&at(name), None, "").unwrap();
            Folder::create(&at(name), before).unwrap().name().unwrap();
            assert!(at(name).is_dir(), "{name}");
        }
        assert!(
            fs::read_dir(dir.path()).unwrap().all(|entry| !entry
                .unwrap()
                .file_name()
                .to_string_lossy()
                .starts_with('.'))
        );
    }

    fn is_ours(path: &Path) -> Result<()> {
        match path.join("ours").exists() {
            true => Ok(()),
            false => Err(Error::new(Reason::OutputExists, "not ours").in_file(path)),
        }
    }

    #[test]
    fn a_directory_gives_way_only_while_it_is_ours() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("theirs"), "").unwrap();
        assert_eq!(refuse_existing(&path, Some(is_ours), "").unwrap_err().message(), "not ours");
        fs::write(path.join("ours"), "").unwrap();
        assert_eq!(refuse_existing(&path, None, "").unwrap_err().reason(), Reason::OutputExists);
        let before = refuse_existing(&path, Some(is_ours), "").unwrap();
        let late = Folder::create(&path, before).unwrap();
        let new = Folder::create(&path, before).unwrap();
        fs::write(new.temp_path().join("new"), "").unwrap();
        new.name().unwrap();
        assert!(path.join("new").exists() && !path.join("theirs").exists());
        assert_eq!(late.name().unwrap_err().reason(), Reason::OutputExists);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        fs::write(path.join("ours"), "").unwrap();
        let before = refuse_existing(&path, Some(is_ours), "").unwrap();
        let folder = Folder::create(&path, before).unwrap();
        fs::remove_file(path.join("ours")).unwrap();
        assert!(folder.name().is_err() && path.join("new").exists());
    }
}
