//! The files that the commands of `online` write. They never lie in a source, and replace nothing but a file of their own kind.
//!
//! Must not know what is in them.

use std::fs;
use std::io::Write;
use std::path::Path;

use crate::error::{Error, Reason, Result};
use crate::export::index_map::is_index_map;
use crate::output::naming::{ANOTHER_NAME, Before};
use crate::output::sidecar::Sidecar;
use crate::output::targets::Targets;
use crate::pipeline::sidecar_before;

/// Checks the path of an index map, before the work. Returns the earlier map that it may replace.
///
/// # Errors
/// [`Reason::IntoSource`], [`Reason::OutputExists`]; [`Reason::OutputFailed`] if its directory does not exist.
pub fn index_map(path: &Path, overwrite: bool, sources: &[&Path]) -> Result<Before> {
    outside("--index-map", path, sources)?;
    sidecar_before("index map", path, overwrite, is_index_map)
}

/// Writes a new file as a whole: it appears with all of its content, or not at all.
///
/// # Errors
/// [`Reason::IntoSource`], [`Reason::OutputExists`], [`Reason::OutputFailed`]; that of `write`.
pub fn new_file(
    option: &'static str,
    path: &Path,
    sources: &[&Path],
    write: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    outside(option, path, sources)?;
    if fs::symlink_metadata(path).is_ok() {
        return Err(Error::new(Reason::OutputExists, "the file exists").in_file(path).hint(ANOTHER_NAME));
    }
    let mut file = Sidecar::create(path, Before::Nothing)?;
    file.write(write)?;
    file.sync()?;
    file.name().map(drop)
}

fn outside(option: &'static str, path: &Path, sources: &[&Path]) -> Result<()> {
    let mut targets = Targets::default();
    sources.iter().for_each(|source| targets.source(source));
    targets.write(option, path);
    targets.check()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_file_is_replaced_or_put_into_a_source() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("default.etcd");
        fs::create_dir_all(source.join("member/snap")).unwrap();
        fs::create_dir_all(source.join("member/wal")).unwrap();
        let db = source.join("member/snap/db");
        fs::write(&db, "live").unwrap();
        let reason = |result: Result<()>| result.unwrap_err().reason();
        let write = |out: &mut dyn Write| out.write_all(b"x").map_err(|e| Error::of_output("write", &e));
        let new = |path: &Path| new_file("--conflicts", path, &[&source], write);
        for path in [&db, &source.join("member/wal/new"), &source.join("new")] {
            assert_eq!(reason(new(path)), Reason::IntoSource, "{path:?}");
            assert_eq!(reason(index_map(path, true, &[&source]).map(drop)), Reason::IntoSource, "{path:?}");
        }
        let other = dir.path().join("other");
        fs::write(&other, "theirs").unwrap();
        assert_eq!(reason(new(&other)), Reason::OutputExists);
        assert_eq!(reason(index_map(&other, true, &[&source]).map(drop)), Reason::OutputExists);
        assert_eq!((fs::read(&db).unwrap(), fs::read(&other).unwrap()), (b"live".to_vec(), b"theirs".to_vec()));
        let mine = dir.path().join("mine");
        new(&mine).unwrap();
        assert_eq!(fs::read(&mine).unwrap(), b"x");
        // A failure leaves no file.
        let failed = dir.path().join("failed");
        let error = Error::new(Reason::Internal, "no");
        assert_eq!(reason(new_file("--conflicts", &failed, &[], |_| Err(error))), Reason::Internal);
        assert!(!failed.exists());
    }
}
