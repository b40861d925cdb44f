//! Sidecar files of the output: each gets its name together with the output, or not at all.
//!
//! A temporary file in the same directory receives the content and is synced. The sidecar files get their names
//! directly before the output, and lose them if the output fails. Must not know their content.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::naming::{Before, Named, directory_of, temporary};
use crate::error::{Error, Reason, Result};

/// A sidecar file in progress.
#[derive(Debug)]
pub struct Sidecar {
    path: PathBuf,
    before: Before,
    temp: NamedTempFile,
}

impl Sidecar {
    /// Begins a file that will be called `path`, in place of what that held when the run began.
    ///
    /// # Errors
    /// Another process has written it since ([`Reason::OutputExists`]), or its directory cannot be written
    /// ([`Reason::OutputFailed`]).
    pub fn create(path: &Path, before: Before) -> Result<Sidecar> {
        before.check(path)?;
        Sidecar::begin(path, before).map_err(|e| failed(path, "create a temporary file in its directory", e))
    }

    /// Does the same as [`Sidecar::create`], without that check.
    ///
    /// # Errors
    /// Its directory cannot be written.
    pub fn begin(path: &Path, before: Before) -> io::Result<Sidecar> {
        let temp = temporary().tempfile_in(directory_of(path))?;
        Ok(Sidecar { path: path.to_path_buf(), before, temp })
    }

    /// Returns its future name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the temporary file, for code that writes by path.
    pub fn temp_path(&self) -> &Path {
        self.temp.path()
    }

    /// Writes the content.
    ///
    /// # Errors
    /// That of `write`, with the file; [`Reason::OutputFailed`].
    pub fn write(&mut self, write: impl FnOnce(&mut dyn io::Write) -> Result<()>) -> Result<()> {
        let mut writer = BufWriter::with_capacity(1 << 20, self.temp.as_file_mut());
        write(&mut writer)?;
        io::Write::flush(&mut writer).map_err(|e| failed(&self.path, "write", e))
    }

    /// Returns an error for a failed write of this file.
    pub fn failed(&self, e: io::Error) -> Error {
        failed(&self.path, "write", e)
    }

    /// Syncs the content to disk. After that, only the name is missing.
    ///
    /// # Errors
    /// The operating system fails.
    pub fn sync(&self) -> Result<()> {
        // Code that writes by path may have replaced the file while this handle was open.
        let synced = File::open(self.temp.path()).and_then(|file| file.sync_all());
        synced.map_err(|e| failed(&self.path, "sync", e))
    }

    /// Gives the file its name, and syncs the name to disk. The content must be synced before.
    ///
    /// # Errors
    /// Another file has that name now, or the operating system fails; then nothing has changed.
    pub fn name(self) -> Result<Named> {
        let Sidecar { path, before, temp } = self;
        let named = Named::give(temp.into_temp_path(), &path, before)?;
        match named.sync() {
            Ok(()) => Ok(named),
            Err(e) => {
                named.undo();
                Err(failed(&path, "sync its directory", e))
            }
        }
    }
}

fn failed(path: &Path, action: &str, e: io::Error) -> Error {
    Error::io(Reason::OutputFailed, path, action, e)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn names(dir: &Path) -> usize {
        fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn it_is_there_when_it_has_its_name_and_gone_when_undone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let mut file = Sidecar::create(&path, Before::Nothing).unwrap();
        let hello = |writer: &mut dyn io::Write| writer.write_all(b"hello").map_err(|e| failed(Path::new(""), "", e));
        file.write(hello).unwrap();
        file.sync().unwrap();
        assert!(!path.exists());
        let named = file.name().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"hello");
        assert_eq!(Sidecar::create(&path, Before::Nothing).unwrap_err().reason(), Reason::OutputExists);
        named.undo();
        assert_eq!(names(dir.path()), 0);
        drop(Sidecar::create(&path, Before::Nothing).unwrap());
        assert_eq!(names(dir.path()), 0);
    }

    #[test]
    fn one_that_replaced_another_gives_way_to_it_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        fs::write(&path, "old").unwrap();
        let named = Sidecar::create(&path, Before::at(&path, true).unwrap()).unwrap().name().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
        named.undo();
        assert_eq!((fs::read(&path).unwrap(), names(dir.path())), (b"old".to_vec(), 1));
    }

    #[test]
    fn one_that_appears_meanwhile_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let file = Sidecar::create(&path, Before::Nothing).unwrap();
        fs::write(&path, "theirs").unwrap();
        assert_eq!(file.name().unwrap_err().reason(), Reason::OutputExists);
        assert_eq!((fs::read(&path).unwrap(), names(dir.path())), (b"theirs".to_vec(), 1));
    }
}
