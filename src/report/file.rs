//! A report on disk: written whole or not at all.
//!
//! A regular file gets its new content through a temporary file and a rename; a pipe or a device is written to as it is.
//! Knows nothing of what stands in a report.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Error, Reason, Result};
use crate::output::sink::directory_of;

/// The JSON text of a report or an inspection, indented, with a newline at its end.
///
/// # Errors
/// A value cannot be JSON; an internal error.
pub fn to_json(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut json = serde_json::to_vec_pretty(value)
        .map_err(|e| Error::new(Reason::Internal, format!("cannot write the report as JSON: {e}")))?;
    json.push(b'\n');
    Ok(json)
}

/// Checks before the work begins that a report can be written to `path`.
///
/// # Errors
/// `path` is a directory, or its directory cannot take a file ([`Reason::OutputFailed`]).
pub fn probe(path: &Path) -> Result<()> {
    match place(path)? {
        Place::Special => Ok(()),
        Place::Regular(file) => temporary(&file).map(drop).map_err(|e| failed(path, e)),
    }
}

/// Writes a report to `path`, replacing an earlier one.
///
/// # Errors
/// The operating system fails ([`Reason::OutputFailed`]); an earlier report is still there then.
pub fn write(path: &Path, json: &[u8]) -> Result<()> {
    match place(path)? {
        Place::Special => fs::OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(json)),
        Place::Regular(file) => temporary(&file).and_then(|mut temp| {
            temp.write_all(json)?;
            temp.as_file().sync_all()?;
            temp.persist(&file).map_err(|e| e.error)?;
            Ok(())
        }),
    }
    .map_err(|e| failed(path, e))
}

enum Place {
    /// A regular file, or nothing yet; symbolic links are followed.
    Regular(PathBuf),
    /// A pipe, a terminal, a device.
    Special,
}

fn place(path: &Path) -> Result<Place> {
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => Err(failed(path, io::Error::from(io::ErrorKind::IsADirectory))),
        Ok(meta) if !meta.is_file() => Ok(Place::Special),
        Ok(_) => fs::canonicalize(path).map(Place::Regular).map_err(|e| failed(path, e)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Place::Regular(path.to_path_buf())),
        Err(e) => Err(failed(path, e)),
    }
}

fn temporary(path: &Path) -> io::Result<tempfile::NamedTempFile> {
    tempfile::Builder::new().prefix(".etcdlift-").suffix(".tmp").tempfile_in(directory_of(path))
}

fn failed(path: &Path, e: io::Error) -> Error {
    Error::io(Reason::OutputFailed, path, "write the report", e)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_replaces_an_earlier_one_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("r.json"), dir.path().join("link"));
        std::os::unix::fs::symlink(&file, &link).unwrap();
        fs::write(&file, "old").unwrap();
        probe(&link).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"old");
        write(&link, b"new").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_device_is_written_to_and_not_replaced() {
        probe(Path::new("/dev/null")).unwrap();
        write(Path::new("/dev/null"), b"x").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn a_place_that_cannot_take_it_is_known_beforehand() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path().to_path_buf(), dir.path().join("no/r.json")] {
            assert_eq!(probe(&path).unwrap_err().reason(), Reason::OutputFailed);
        }
    }
}
