//! A source file as bytes: opened read-only, mapped into memory. The only file of the crate with `unsafe`. Bytes that are in
//! memory already can stand in for a file, so that whatever reads files reads those too.
//!
//! The map is private and never written. A file that another process truncates while it is mapped ends this process
//! with SIGBUS, before any output has its name: a source must be a copy or at rest, which `lock` checks.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::error::{Error, Reason, Result};

/// A regular file mapped read-only, or bytes in its place.
#[derive(Debug)]
pub struct Map {
    path: PathBuf,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Mapped(Mmap),
    /// Also an empty file, which cannot be mapped.
    Held(Vec<u8>),
}

impl Map {
    /// Opens and maps `path`.
    ///
    /// # Errors
    /// [`Reason::Unreadable`] if it is not a regular file or cannot be opened or mapped; [`Reason::SourceMissing`] and
    /// [`Reason::PermissionDenied`] where these are why.
    pub fn open(path: &Path) -> Result<Map> {
        let failed = |action| move |e| Error::io(Reason::Unreadable, path, action, e);
        // Asked before opening: opening a FIFO would wait for a writer.
        if !fs::metadata(path).map_err(failed("read"))?.is_file() {
            return Err(Error::new(Reason::Unreadable, "expected a regular file").in_file(path));
        }
        let file = File::open(path).map_err(failed("open"))?;
        let len = file.metadata().map_err(failed("read"))?.len();
        let content = if len == 0 {
            Content::Held(Vec::new())
        } else {
            // SAFETY: the map is read-only and private to this process. Its bytes are only ever read as `&[u8]`, which
            // any content is valid for. That no other process shrinks the file meanwhile cannot be enforced; the module
            // documentation says what happens then.
            Content::Mapped(unsafe { Mmap::map(&file) }.map_err(failed("map"))?)
        };
        Ok(Map { path: path.to_path_buf(), content })
    }

    /// Bytes in memory under the name of a file.
    pub fn held(path: &Path, bytes: Vec<u8>) -> Map {
        Map { path: path.to_path_buf(), content: Content::Held(bytes) }
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        match &self.content {
            Content::Mapped(map) => map,
            Content::Held(bytes) => bytes,
        }
    }

    /// Where the file is, for errors.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_files_and_refuses_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, b"").unwrap();
        assert_eq!(Map::open(&path).unwrap().bytes(), b"");
        fs::write(&path, b"abc").unwrap();
        assert_eq!(Map::open(&path).unwrap().bytes(), b"abc");
        assert_eq!(Map::open(dir.path()).unwrap_err().reason(), Reason::Unreadable);
        assert_eq!(Map::open(&dir.path().join("b")).unwrap_err().reason(), Reason::SourceMissing);
    }
}
