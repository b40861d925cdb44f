//! The files in the directories of members: each is written once, synced and read back.
//!
//! Must not know what a file contains, or which members there are.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, chown};
use std::path::{Path, PathBuf};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use sha2::{Digest, Sha256};

use crate::error::{Error, Reason, Result};
use crate::interrupt::{self, Interrupt};
use crate::output::snapshot::hex;
use crate::report::SourceFile;

/// A writer of the files of an output. Its errors name the output, not the temporary directory.
#[derive(Clone, Copy)]
pub(in crate::pipeline) struct Writer<'a> {
    pub(in crate::pipeline) output: &'a Path,
    pub(in crate::pipeline) interrupt: Interrupt<'a>,
}

/// A function that passes the pieces of a file on, in order.
type Fill<'f> = &'f mut dyn FnMut(&mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>;

/// The bytes to copy at a time.
const PIECE: u64 = 64 << 20;

impl Writer<'_> {
    /// Creates a directory and those above it.
    ///
    /// # Errors
    /// The operating system fails.
    pub(in crate::pipeline) fn create_dir(self, path: &Path) -> Result<()> {
        fs::create_dir_all(path).map_err(|e| self.failed("create its directories", e))
    }

    /// Writes a new file, with zeros after the bytes up to the size `len`.
    ///
    /// # Errors
    /// [`Reason::VerifyFailed`] if it is read back with other bytes; the operating system fails.
    pub(in crate::pipeline) fn write(self, path: &Path, bytes: &[u8], len: u64) -> Result<()> {
        let failed = |e| self.failed("write a file of a member", e);
        let mut file = File::create_new(path).map_err(failed)?;
        file.write_all(bytes).and_then(|()| file.set_len(len.max(bytes.len() as u64))).map_err(failed)?;
        self.check_written(&file, path, bytes, 0)
    }

    /// Writes a new file piece by piece, with zeros after the pieces up to the size `len`. Takes no more memory than a piece.
    ///
    /// # Errors
    /// As [`Writer::write`]; that of `fill`.
    pub(in crate::pipeline) fn stream(self, path: &Path, len: u64, fill: Fill<'_>) -> Result<()> {
        let failed = |e| self.failed("write a file of a member", e);
        let mut file = File::create_new(path).map_err(failed)?;
        let (mut sha256, mut written) = (Sha256::new(), 0u64);
        fill(&mut |piece| {
            self.interrupt.ask()?;
            sha256.update(piece);
            written = written.saturating_add(piece.len() as u64);
            file.write_all(piece).map_err(failed)
        })?;
        file.set_len(len.max(written)).and_then(|()| file.sync_all()).map_err(failed)?;
        forget(&file);
        let failed = |e| self.failed("read a file of a member back", e);
        let (mut back, mut rest) = (Sha256::new(), File::open(path).map_err(failed)?.take(written));
        let mut buffer = vec![0; interrupt::CHUNK];
        loop {
            self.interrupt.ask()?;
            let len = rest.read(&mut buffer).map_err(failed)?;
            if len == 0 {
                break;
            }
            back.update(buffer.get(..len).unwrap_or_default());
        }
        if back.finalize() == sha256.finalize() { Ok(()) } else { Err(self.differs(path)) }
    }

    /// Writes bytes at `offset` of an existing file, and zeros after them up to its end.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub(in crate::pipeline) fn continue_at(self, path: &Path, offset: u64, bytes: &[u8]) -> Result<()> {
        let failed = |e| self.failed("continue the log of a member", e);
        let file = File::options().write(true).open(path).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        // The rest is a torn record, or zeros.
        file.set_len(offset).and_then(|()| file.write_all_at(bytes, offset)).map_err(failed)?;
        file.set_len(len.max(offset.saturating_add(bytes.len() as u64))).map_err(failed)?;
        self.check_written(&file, path, bytes, offset)
    }

    fn check_written(self, file: &File, path: &Path, bytes: &[u8], offset: u64) -> Result<()> {
        let failed = |e| self.failed("read a file of a member back", e);
        file.sync_all().map_err(failed)?;
        forget(file);
        let mut found = vec![0; bytes.len()];
        File::open(path).and_then(|file| file.read_exact_at(&mut found, offset)).map_err(failed)?;
        if found == bytes { Ok(()) } else { Err(self.differs(path)) }
    }

    /// Copies a file and reads the copy back. The kernel shares the blocks of the two files where the file system can.
    ///
    /// # Errors
    /// [`Reason::VerifyFailed`] if the copy does not have this sha256; the operating system fails; an interruption.
    pub(in crate::pipeline) fn copy(self, from: &Path, to: &Path, sha256: &str) -> Result<()> {
        let failed = |e| self.failed("copy a file of a member", e);
        let mut source = File::open(from).map_err(|e| Error::io(Reason::Unreadable, from, "copy", e))?;
        let mut target = File::create_new(to).map_err(failed)?;
        loop {
            self.interrupt.ask()?;
            if io::copy(&mut (&mut source).take(PIECE), &mut target).map_err(failed)? == 0 {
                break;
            }
        }
        target.sync_all().map_err(failed)?;
        forget(&target);
        if self.describe(to)?.sha256 == sha256 { Ok(()) } else { Err(self.differs(to)) }
    }

    /// Returns the size and the sha256 of a file.
    ///
    /// # Errors
    /// The operating system fails; an interruption.
    pub(in crate::pipeline) fn describe(self, path: &Path) -> Result<SourceFile> {
        let failed = |e| self.failed("read a file of a member back", e);
        let mut file = File::open(path).map_err(failed)?;
        let (mut hasher, mut buffer, mut bytes) = (Sha256::new(), vec![0; interrupt::CHUNK], 0u64);
        loop {
            self.interrupt.ask()?;
            let len = file.read(&mut buffer).map_err(failed)?;
            if len == 0 {
                return Ok(SourceFile { bytes, sha256: hex(&hasher.finalize()), ..SourceFile::default() });
            }
            bytes = bytes.saturating_add(len as u64);
            hasher.update(buffer.get(..len).unwrap_or_default());
        }
    }

    /// Gives every file and directory below `path` the owner and group of `source`.
    ///
    /// # Errors
    /// The process may not do that.
    pub(in crate::pipeline) fn give_to_owner_of(self, source: &Path, path: &Path) -> Result<()> {
        let mut open = vec![path.to_path_buf()];
        while let Some(path) = open.pop() {
            self.give_one_to_owner_of(source, &path)?;
            if path.is_dir() {
                open.extend(list(&path).map_err(|e| self.failed("list its files", e))?);
            }
        }
        Ok(())
    }

    /// Gives one file or directory the owner and group of `source`.
    ///
    /// # Errors
    /// As [`Writer::give_to_owner_of`].
    pub(in crate::pipeline) fn give_one_to_owner_of(self, source: &Path, path: &Path) -> Result<()> {
        let owner = fs::metadata(source).map_err(|e| Error::io(Reason::Unreadable, source, "look at its owner", e))?;
        let given = chown(path, Some(owner.uid()), Some(owner.gid()));
        let hint = "run etcdlift as root, or leave out --preserve-owner";
        given.map_err(|e| self.failed("give it the owner of the source", e).hint(hint))
    }

    fn differs(self, path: &Path) -> Error {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let message = format!("the file {name} of a member differs from what was written");
        Error::new(Reason::VerifyFailed, message).in_file(self.output)
    }

    fn failed(self, action: &str, e: io::Error) -> Error {
        Error::io(Reason::OutputFailed, self.output, action, e)
    }
}

/// Drops a synced file from the cache, so that it is read back from disk. A file system may ignore this.
fn forget(file: &File) {
    let _ = posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
}

/// Returns the paths in a directory.
pub(in crate::pipeline) fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect()
}
