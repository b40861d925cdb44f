//! The last step of a file: its name. Before it, every file is complete and on disk under a temporary name. A name can
//! be taken back.
//!
//! A replaced file has a second, temporary name until all files of a run have their names, so that a failure restores
//! it. Must not know what the files are.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use tempfile::TempPath;

use crate::error::{Error, Reason, Result};
use crate::source::lock;
use crate::source::watch::Identity;

/// Prefix and suffix of every temporary name.
const PREFIX: &str = ".etcdlift-";
const SUFFIX: &str = ".tmp";

/// A file under its final name.
#[derive(Debug)]
pub struct Named {
    path: PathBuf,
    /// Device and inode of the file.
    file: Option<(u64, u64)>,
    replaced: Replaced,
}

#[derive(Debug)]
enum Replaced {
    Nothing,
    /// The file that had the name before, under a temporary one.
    File(TempPath),
}

/// The state of a path before a run writes to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Before {
    /// Nothing, or something that may not give way: the name must be free.
    #[default]
    Nothing,
    /// This regular file, in its present state.
    File(Identity),
}

impl Before {
    /// Examines a path. Without `overwrite`, no file may be replaced.
    ///
    /// # Errors
    /// [`Reason::OutputExists`] if something other than a regular file exists; [`Reason::Locked`] if another process
    /// has locked it; [`Reason::OutputFailed`] if it cannot be examined.
    pub fn at(path: &Path, overwrite: bool) -> Result<Before> {
        if !overwrite {
            return Ok(Before::Nothing);
        }
        let found = match fs::symlink_metadata(path) {
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Before::Nothing);
            }
            found => found.map_err(|e| Error::io(Reason::OutputFailed, path, "examine the existing file", e))?,
        };
        if !found.is_file() {
            return Err(Error::new(Reason::OutputExists, NOT_REGULAR).in_file(path).hint(ANOTHER_NAME));
        }
        let in_use = lock::is_locked(path);
        if in_use.map_err(|e| Error::io(Reason::OutputFailed, path, "see whether another process has locked it", e))? {
            return Err(locked(path));
        }
        Ok(Before::File(Identity::of(&found)))
    }

    /// Checks that the file which gives way is as it was, or that the name is free still.
    ///
    /// # Errors
    /// Another process has written it ([`Reason::OutputExists`]) or locked it ([`Reason::Locked`]).
    pub fn check(self, path: &Path) -> Result<()> {
        let is_as_before = match self {
            Before::Nothing => fs::symlink_metadata(path).is_err(),
            Before::File(_) => Before::at(path, true)? == self,
        };
        if is_as_before { Ok(()) } else { Err(appeared(path)) }
    }
}

/// The message for a target that is neither a file nor a directory.
pub(crate) const NOT_REGULAR: &str = "it exists and is not a regular file";

/// The hint for a target that must not be replaced.
pub(crate) const ANOTHER_NAME: &str = "give another name";

/// Returns a builder of temporary files: hidden, and readable only by their owner.
pub fn temporary() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX).suffix(SUFFIX);
    builder
}

impl Named {
    /// Renames a temporary file to `path`, in place of the previous file.
    ///
    /// # Errors
    /// [`Reason::OutputExists`] if the previous file changed; [`Reason::Locked`] if another process has locked it;
    /// [`Reason::OutputFailed`]. Then nothing has changed.
    pub fn give(temp: TempPath, path: &Path, before: Before) -> Result<Named> {
        let failed = |e: io::Error| match e.kind() {
            io::ErrorKind::AlreadyExists => appeared(path),
            _ => Error::io(Reason::OutputFailed, path, "rename", e),
        };
        let file = fs::symlink_metadata(&temp).ok().map(|found| Identity::of(&found).file);
        let Before::File(_) = before else {
            temp.persist_noclobber(path).map_err(|e| failed(e.error))?;
            return Ok(Named { path: path.to_path_buf(), file, replaced: Replaced::Nothing });
        };
        before.check(path)?;
        let replaced = match exchange(&temp, path) {
            Ok(()) => {
                // Another process may have come first after all: then its file is the one that was taken out.
                if let Err(e) = still(&temp, path, before) {
                    if let Err(e) = exchange(&temp, path) {
                        // The other process's file stays under the temporary name.
                        let _ = temp.keep();
                        return Err(failed(e));
                    }
                    return Err(e);
                }
                temp
            }
            // The file system or the operating system cannot exchange two names.
            Err(e) if e.kind() != io::ErrorKind::NotFound => Named::set_aside(temp, path).map_err(failed)?,
            Err(_) => return Err(appeared(path)),
        };
        Ok(Named { path: path.to_path_buf(), file, replaced: Replaced::File(replaced) })
    }

    /// Replaces a file where names cannot be exchanged: the file gets a second name first, or another one instead.
    fn set_aside(temp: TempPath, path: &Path) -> io::Result<TempPath> {
        let directory = directory_of(path);
        let linked = temporary().make_in(directory, |second| fs::hard_link(path, second));
        let is_moved = linked.is_err();
        let second = match linked {
            Ok(second) => second.into_temp_path(),
            Err(_) => {
                let second = temporary().tempfile_in(directory)?.into_temp_path();
                fs::rename(path, &second)?;
                second
            }
        };
        match temp.persist(path) {
            Ok(()) => Ok(second),
            Err(e) => {
                // Back to its name, if it lost it.
                if is_moved && let Err(e) = second.persist_noclobber(path) {
                    // Without a name of its own, the file stays under the temporary one.
                    let _ = e.path.keep();
                }
                Err(e.error)
            }
        }
    }

    /// Returns the name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Syncs the directory, so that the name is on disk.
    ///
    /// # Errors
    /// The operating system fails.
    pub fn sync(&self) -> io::Result<()> {
        sync_directory_of(&self.path)
    }

    /// Takes the name back and restores the previous file.
    pub fn undo(self) {
        let now = fs::symlink_metadata(&self.path).ok().map(|found| Identity::of(&found).file);
        if now != self.file {
            // Another run has replaced it meanwhile.
            return;
        }
        // The caller already has an error to report, and a failure here does not change it.
        let _ = match self.replaced {
            Replaced::Nothing => fs::remove_file(&self.path),
            Replaced::File(second) => second.persist(&self.path).map_err(|e| {
                // The previous file stays under its temporary name.
                let _ = e.path.keep();
                e.error
            }),
        };
        let _ = sync_directory_of(&self.path);
    }
}

/// Exchanges two names at once.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(super) fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    Ok(renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE)?)
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) fn exchange(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Checks that the file which was taken out of `path` is the one that was there before, and that no process uses it.
fn still(taken_out: &Path, path: &Path, before: Before) -> Result<()> {
    let found = fs::symlink_metadata(taken_out).ok().map(|found| Identity::of(&found));
    match (before, found) {
        (Before::File(expected), Some(found)) if found.is_same_content(&expected) => {}
        _ => return Err(appeared(path)),
    }
    if lock::is_locked(taken_out).unwrap_or(true) { Err(locked(path)) } else { Ok(()) }
}

fn locked(path: &Path) -> Error {
    let message = "another process has locked the file, which may be in use; it is not replaced";
    Error::new(Reason::Locked, message).in_file(path)
}

fn appeared(path: &Path) -> Error {
    let message = "another process has written the file since this run began; it is not replaced";
    Error::new(Reason::OutputExists, message).in_file(path)
}

/// Syncs the directory that contains a path.
///
/// # Errors
/// The operating system fails.
pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    match File::open(directory_of(path))?.sync_all() {
        // Some network file systems cannot sync a directory.
        Err(e) if e.raw_os_error() == Some(Errno::EINVAL as i32) => Ok(()),
        synced => synced,
    }
}

/// Returns the directory that contains a path.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temp(dir: &Path, text: &str) -> TempPath {
        let file = temporary().tempfile_in(dir).unwrap();
        fs::write(file.path(), text).unwrap();
        file.into_temp_path()
    }

    fn names(dir: &Path) -> Vec<String> {
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_new_name_is_taken_back_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let named = Named::give(temp(dir.path(), "new"), &path, Before::Nothing).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        named.sync().unwrap();
        named.undo();
        assert_eq!(names(dir.path()), Vec::<String>::new());
    }

    #[test]
    fn a_replaced_file_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "old").unwrap();
        let error = Named::give(temp(dir.path(), "new"), &path, Before::Nothing).unwrap_err();
        assert_eq!(error.reason(), Reason::OutputExists);
        Named::give(temp(dir.path(), "new"), &path, Before::at(&path, true).unwrap()).unwrap().undo();
        assert_eq!((fs::read(&path).unwrap(), names(dir.path())), (b"old".to_vec(), vec!["f".to_string()]));
        drop(Named::give(temp(dir.path(), "new"), &path, Before::at(&path, true).unwrap()).unwrap());
        assert_eq!((fs::read(&path).unwrap(), names(dir.path())), (b"new".to_vec(), vec!["f".to_string()]));
    }

    /// Where names cannot be exchanged, and where a file can have no second name either.
    #[test]
    fn a_replaced_file_comes_back_on_any_file_system() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "old").unwrap();
        let new = temp(dir.path(), "new");
        let file = fs::symlink_metadata(&new).ok().map(|found| Identity::of(&found).file);
        let replaced = Replaced::File(Named::set_aside(new, &path).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"new");
        Named { path: path.clone(), file, replaced }.undo();
        assert_eq!((fs::read(&path).unwrap(), names(dir.path())), (b"old".to_vec(), vec!["f".to_string()]));
        let gone = temp(dir.path(), "new");
        fs::remove_file(&gone).unwrap();
        assert!(Named::set_aside(gone, &path).is_err());
        assert_eq!((fs::read(&path).unwrap(), names(dir.path())), (b"old".to_vec(), vec!["f".to_string()]));
    }

    /// A process that came between the last look and the exchange: its file goes back to its name.
    #[test]
    fn a_moved_file_is_examined_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "old").unwrap();
        let before = Before::at(&path, true).unwrap();
        let new = temp(dir.path(), "new");
        exchange(&new, &path).unwrap();
        still(&new, &path, before).unwrap();
        fs::write(&new, "written").unwrap();
        assert_eq!(still(&new, &path, before).unwrap_err().reason(), Reason::OutputExists);
        let before = Before::File(Identity::of(&fs::symlink_metadata(&new).unwrap()));
        let held =
            nix::fcntl::Flock::lock(File::open(&new).unwrap(), nix::fcntl::FlockArg::LockSharedNonblock).unwrap();
        assert_eq!(still(&new, &path, before).unwrap_err().reason(), Reason::Locked);
        held.unlock().unwrap();
    }

    #[test]
    fn only_the_file_that_was_there_before_gives_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let appeared = |before| {
            let error = Named::give(temp(dir.path(), "new"), &path, before).unwrap_err();
            assert_eq!(error.reason(), Reason::OutputExists, "{error}");
        };
        let before = Before::at(&path, true).unwrap();
        assert_eq!(before, Before::Nothing);
        fs::write(&path, "theirs").unwrap();
        appeared(before);
        let before = Before::at(&path, true).unwrap();
        // Another run replaces it, or its owner writes into it.
        temp(dir.path(), "theirs").persist(&path).unwrap();
        appeared(before);
        let before = Before::at(&path, true).unwrap();
        fs::write(&path, "theirs too").unwrap();
        appeared(before);
        assert_eq!((fs::read(&path).unwrap(), names(dir.path())), (b"theirs too".to_vec(), vec!["f".to_string()]));
    }

    #[test]
    fn a_name_that_another_run_took_is_not_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let named = Named::give(temp(dir.path(), "mine"), &path, Before::Nothing).unwrap();
        temp(dir.path(), "theirs").persist(&path).unwrap();
        named.undo();
        assert_eq!(fs::read(&path).unwrap(), b"theirs");
    }

    #[test]
    fn a_locked_file_does_not_give_way() {
        use nix::fcntl::{Flock, FlockArg};
        let file = tempfile::NamedTempFile::new().unwrap();
        for lock in [FlockArg::LockExclusiveNonblock, FlockArg::LockSharedNonblock] {
            let before = Before::at(file.path(), true).unwrap();
            let held = Flock::lock(file.reopen().unwrap(), lock).unwrap();
            assert_eq!(Before::at(file.path(), true).unwrap_err().reason(), Reason::Locked);
            let directory = directory_of(file.path());
            let error = Named::give(temp(directory, "new"), file.path(), before).unwrap_err();
            assert_eq!(error.reason(), Reason::Locked);
            held.unlock().unwrap();
        }
    }
}
