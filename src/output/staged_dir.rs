//! An output that is a directory: it gets its name only when it is whole, checked and on disk.
//!
//! A temporary directory beside it takes the files; whatever goes wrong before the rename, it is removed. Must not know what
//! the files are.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::naming::{directory_of, sync_directory_of, temporary};
use super::sink::require_directory;
use crate::error::{Error, Reason, Result};

/// A directory in the making.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    temp: TempDir,
}

/// Checks that a directory may be called `path`: there is nothing of that name, or an empty directory.
///
/// # Errors
/// Something is there ([`Reason::OutputExists`]), or its directory is not ([`Reason::OutputFailed`]).
pub fn refuse_existing(path: &Path) -> Result<()> {
    let found = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return require_directory(path),
        Err(e) => return Err(failed(path, "look for an existing output", e)),
        Ok(found) => found,
    };
    if !found.is_dir() {
        let message = "the output is a directory, and a file of that name exists: name another one";
        return Err(Error::new(Reason::OutputExists, message).in_file(path));
    }
    if fs::read_dir(path).map_err(|e| failed(path, "look into it", e))?.next().is_some() {
        let message =
            "the output exists and is not empty: remove it first, which etcdlift never does, or name another one";
        return Err(Error::new(Reason::OutputExists, message).in_file(path));
    }
    Ok(())
}

impl Folder {
    /// Begins a directory that will be called `path`.
    ///
    /// # Errors
    /// As [`refuse_existing`].
    pub fn create(path: &Path) -> Result<Folder> {
        refuse_existing(path)?;
        let temp = temporary().tempdir_in(directory_of(path));
        Ok(Folder {
            path: path.to_path_buf(),
            temp: temp.map_err(|e| failed(path, "create a directory beside it", e))?,
        })
    }

    /// The temporary directory, which only its owner can enter.
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

    /// Gives the directory its name, once it is synced.
    ///
    /// # Errors
    /// Something has that name by now, or the operating system fails. Then the name is as it was.
    pub fn name(self) -> Result<()> {
        let Folder { path, temp } = self;
        let replaced = path.exists();
        // It does not take the place of a file, nor of a directory with something in it.
        fs::rename(temp.path(), &path).map_err(|e| match e.kind() {
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                Error::io(Reason::OutputExists, &path, "rename", e)
            }
            _ => failed(&path, "rename", e),
        })?;
        if let Err(e) = sync_directory_of(&path) {
            // Back to the temporary name, under which it is removed.
            if fs::rename(&path, temp.path()).is_ok() && replaced {
                let _ = fs::create_dir(&path);
            }
            return Err(failed(&path, "sync its directory", e));
        }
        let _ = temp.keep();
        Ok(())
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
        let folder = Folder::create(&path).unwrap();
        fs::create_dir(folder.temp_path().join("sub")).unwrap();
        fs::write(folder.temp_path().join("sub/f"), "hello").unwrap();
        assert!(!path.exists());
        assert_eq!(folder.sync().unwrap(), 5);
        folder.name().unwrap();
        assert_eq!((mode(&path), mode(&path.join("sub/f"))), (0o700, 0o600));
        drop(Folder::create(&dir.path().join("other")).unwrap());
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
            assert_eq!(Folder::create(path).unwrap_err().reason(), Reason::OutputExists);
        }
        assert_eq!(Folder::create(&dir.path().join("no/out")).unwrap_err().reason(), Reason::OutputFailed);
        Folder::create(&empty).unwrap().name().unwrap();
        // Something that appears meanwhile is kept.
        let late = Folder::create(&empty).unwrap();
        fs::write(empty.join("theirs"), "").unwrap();
        assert_eq!(late.name().unwrap_err().reason(), Reason::OutputExists);
        assert!(empty.join("theirs").exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }
}
