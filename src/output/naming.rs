//! The last step of a file: its name. Every file is whole and on disk under a temporary name before; a name can be taken back.
//!
//! What is replaced keeps a second, temporary name until all files of a run have theirs, so that a failure restores it. Must
//! not know what the files are.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use tempfile::TempPath;

/// Prefix and suffix of every temporary name.
const PREFIX: &str = ".etcdlift-";
const SUFFIX: &str = ".tmp";

/// A file that has its name.
#[derive(Debug)]
pub struct Named {
    path: PathBuf,
    replaced: Replaced,
}

#[derive(Debug)]
enum Replaced {
    Nothing,
    /// The file that had the name before, under a temporary one. `None`: the file system gives a file no second name.
    File(Option<TempPath>),
}

/// A builder of temporary files: hidden, and only their owner may read them.
pub fn temporary() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX).suffix(SUFFIX);
    builder
}

impl Named {
    /// Gives a temporary file the name `path`, in place of the file that has it where `overwrite` allows that.
    ///
    /// # Errors
    /// Without `overwrite`, something has that name ([`io::ErrorKind::AlreadyExists`]); the operating system fails. Then
    /// nothing has changed.
    pub fn give(temp: TempPath, path: &Path, overwrite: bool) -> io::Result<Named> {
        let replaced = if overwrite && fs::symlink_metadata(path).is_ok() {
            let second = temporary().make_in(directory_of(path), |second| fs::hard_link(path, second));
            Replaced::File(second.ok().map(tempfile::NamedTempFile::into_temp_path))
        } else {
            Replaced::Nothing
        };
        let named = if overwrite { temp.persist(path) } else { temp.persist_noclobber(path) };
        named.map_err(|e| e.error)?;
        Ok(Named { path: path.to_path_buf(), replaced })
    }

    /// The name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Syncs the directory, so that the name is on disk as well.
    ///
    /// # Errors
    /// The operating system fails.
    pub fn sync(&self) -> io::Result<()> {
        sync_directory_of(&self.path)
    }

    /// Takes the name back: what had it before has it again, or nothing.
    pub fn undo(self) {
        // Whoever calls this has an error to tell already, and a failure here changes nothing about it.
        let _ = match self.replaced {
            Replaced::Nothing => fs::remove_file(&self.path),
            Replaced::File(Some(second)) => second.persist(&self.path).map_err(|e| e.error),
            Replaced::File(None) => Ok(()),
        };
        let _ = sync_directory_of(&self.path);
    }
}

/// Syncs the directory that a path is in.
///
/// # Errors
/// The operating system fails.
pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    match File::open(directory_of(path))?.sync_all() {
        // Some network file systems have no sync of a directory.
        Err(e) if e.raw_os_error() == Some(Errno::EINVAL as i32) => Ok(()),
        synced => synced,
    }
}

/// The directory that a path is in.
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
        let named = Named::give(temp(dir.path(), "new"), &path, false).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        named.sync().unwrap();
        named.undo();
        assert_eq!(names(dir.path()), Vec::<String>::new());
    }

    #[test]
    fn what_was_replaced_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "old").unwrap();
        let error = Named::give(temp(dir.path(), "new"), &path, false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        Named::give(temp(dir.path(), "new"), &path, true).unwrap().undo();
        assert_eq!((fs::read(&path).unwrap(), names(dir.path())), (b"old".to_vec(), vec!["f".to_string()]));
        drop(Named::give(temp(dir.path(), "new"), &path, true).unwrap());
        assert_eq!((fs::read(&path).unwrap(), names(dir.path())), (b"new".to_vec(), vec!["f".to_string()]));
    }
}
