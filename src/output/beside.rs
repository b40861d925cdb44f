//! Files that are made beside the output: each gets its name together with it, or not at all.
//!
//! A temporary file in the same directory takes the content and is synced; when the output is about to get its name, these
//! get theirs, and lose them again if the output does not. Must not know what stands in them.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::sink::{directory_of, refuse_existing};
use crate::error::{Error, Reason, Result};

/// A file in the making.
#[derive(Debug)]
pub struct Beside {
    path: PathBuf,
    overwrite: bool,
    temp: NamedTempFile,
}

/// A file that has its name.
#[derive(Debug)]
pub struct Named {
    path: PathBuf,
    replaced: bool,
}

impl Beside {
    /// Begins a file that will be called `path`.
    ///
    /// # Errors
    /// It exists ([`Reason::OutputExists`]), or its directory cannot be written ([`Reason::OutputFailed`]).
    pub fn create(path: &Path, overwrite: bool) -> Result<Beside> {
        refuse_existing(path, overwrite)?;
        let temp = tempfile::Builder::new().prefix(".etcdlift-").suffix(".tmp").tempfile_in(directory_of(path));
        let temp = temp.map_err(|e| failed(path, "create a temporary file beside it", e))?;
        Ok(Beside { path: path.to_path_buf(), overwrite, temp })
    }

    /// The name that it will have.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The temporary file, for whoever writes by path.
    pub fn temp_path(&self) -> &Path {
        self.temp.path()
    }

    /// Writes the content.
    ///
    /// # Errors
    /// What `write` returned, with the file named; the operating system fails ([`Reason::OutputFailed`]).
    pub fn write(&mut self, write: impl FnOnce(&mut dyn io::Write) -> Result<()>) -> Result<()> {
        let mut writer = BufWriter::with_capacity(1 << 20, self.temp.as_file_mut());
        write(&mut writer)?;
        io::Write::flush(&mut writer).map_err(|e| failed(&self.path, "write", e))
    }

    /// An error of writing this file.
    pub fn failed(&self, e: io::Error) -> Error {
        failed(&self.path, "write", e)
    }

    /// Gives the file its name; all of it is on disk then.
    ///
    /// # Errors
    /// Another file has that name by now, or the operating system fails.
    pub fn name(self) -> Result<Named> {
        let Beside { path, overwrite, temp } = self;
        // Whoever wrote by path may have replaced what the handle is open on.
        File::open(temp.path()).and_then(|file| file.sync_all()).map_err(|e| failed(&path, "sync", e))?;
        let replaced = overwrite && path.exists();
        if overwrite {
            temp.persist(&path).map_err(|e| failed(&path, "rename", e.error))?;
        } else {
            temp.persist_noclobber(&path).map_err(|e| {
                let e = e.error;
                let exists = e.kind() == io::ErrorKind::AlreadyExists;
                let reason = if exists { Reason::OutputExists } else { Reason::OutputFailed };
                Error::io(reason, &path, "rename", e)
            })?;
        }
        Ok(Named { path, replaced })
    }
}

impl Named {
    /// Syncs the directory, so that the name is on disk as well; where that fails, the file is taken away again.
    ///
    /// # Errors
    /// The operating system fails.
    pub fn settle(self) -> Result<()> {
        let synced = File::open(directory_of(&self.path)).and_then(|directory| directory.sync_all());
        synced.map_err(|e| failed(&self.path, "sync its directory", e)).inspect_err(|_| self.undo())
    }

    /// Takes the file away again, unless it has replaced another one.
    pub fn undo(&self) {
        if !self.replaced {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn failed(path: &Path, action: &str, e: io::Error) -> Error {
    Error::io(Reason::OutputFailed, path, action, e)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> usize {
        fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn it_is_there_when_it_has_its_name_and_gone_when_undone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let mut file = Beside::create(&path, false).unwrap();
        let hello = |writer: &mut dyn io::Write| writer.write_all(b"hello").map_err(|e| failed(Path::new(""), "", e));
        file.write(hello).unwrap();
        assert!(!path.exists());
        let named = file.name().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"hello");
        assert_eq!(Beside::create(&path, false).unwrap_err().reason(), Reason::OutputExists);
        named.undo();
        assert_eq!(names(dir.path()), 0);
        drop(Beside::create(&path, false).unwrap());
        assert_eq!(names(dir.path()), 0);
    }

    #[test]
    fn one_that_replaced_another_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        fs::write(&path, "old").unwrap();
        let named = Beside::create(&path, true).unwrap().name().unwrap();
        named.undo();
        assert_eq!(fs::read(&path).unwrap(), b"");
    }
}
