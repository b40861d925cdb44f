//! `--skip-existing`: whether an existing output is what this run would make.
//!
//! The report of the earlier run must have the same hashes of source files, the same options, and the present hash of
//! the output. Reads that report and the output. Must not know how either is made.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::model::{OutputFacts, Report};
use crate::error::{Error, Reason, Result};
use crate::interrupt::Interrupt;
use crate::output::naming::{ANOTHER_NAME, NOT_REGULAR};
use crate::output::snapshot::hex;

/// The hint for an output that differs.
pub(crate) const NOT_EQUAL: &str = "--skip-existing accepts only an equal output; --overwrite replaces it";

/// Compares an existing output with what the run of `now` would make; `now` must have options and source files. Returns
/// the earlier report if both are equal; `None` if no output exists.
///
/// # Errors
/// [`Reason::OutputExists`] if the output exists but is not shown to be equal; the output cannot be read; an
/// interruption.
pub(crate) fn find(now: &Report, interrupt: Interrupt<'_>) -> Result<Option<Report>> {
    let output = &now.options.output;
    match fs::symlink_metadata(output) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(Reason::OutputFailed, output, "look for an existing output", e)),
        Ok(_) => {}
    }
    if !now.options.to.is_directory() {
        require_regular(output)?;
    }
    let differs = |what: &str| {
        let error = Error::new(Reason::OutputExists, format!("the output exists, and {what}"));
        Err(error.in_file(output).hint(NOT_EQUAL))
    };
    let Some(path) = &now.options.report else { return differs("no report is named to compare it with") };
    if fs::symlink_metadata(path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
        return differs("its report does not exist");
    }
    require_regular(path)?;
    let failed = |e| Error::io(Reason::OutputExists, path, "read the report of the existing output", e);
    let text = fs::read(path).map_err(failed)?;
    let Ok(earlier) = serde_json::from_slice::<Report>(&text) else {
        return differs("its report cannot be read by this version");
    };
    if let Some(what) = difference(&earlier, now) {
        return differs(what);
    }
    let Some(facts) = &earlier.output else { return differs("its report names no output") };
    for (path, bytes, sha256) in facts.files_at(output) {
        require_regular(&path)?;
        // The size alone distinguishes most other files, without the time to read them.
        if fs::metadata(&path).is_ok_and(|found| found.len() != bytes)
            || sha256_of(&path, interrupt)? != (bytes, sha256)
        {
            let what = format!("{} is not the file that its report describes", path.display());
            return differs(if path == *output { "it is not the file that its report describes" } else { &what });
        }
    }
    match extra_file(output, facts) {
        Err(e) => return Err(Error::io(Reason::OutputExists, output, "list its files", e)),
        Ok(Some(path)) => return differs(&format!("{} is not a file that its report describes", path.display())),
        Ok(None) => {}
    }
    // The source and the output are those of the earlier run; time, options and paths are those of this run.
    Ok(Some(Report {
        skipped: true,
        started: now.started.clone(),
        options: now.options.clone(),
        source_files: now.source_files.clone(),
        stages: now.stages.clone(),
        ..earlier
    }))
}

/// Returns a file of an output directory that the report does not describe, if there is one.
///
/// # Errors
/// The operating system fails.
pub(crate) fn extra_file(output: &Path, facts: &OutputFacts) -> io::Result<Option<PathBuf>> {
    if facts.files.is_empty() {
        return Ok(None);
    }
    let known: HashSet<PathBuf> = facts.files_at(output).into_iter().map(|(path, ..)| path).collect();
    let mut open = vec![output.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder)? {
            let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
            if kind.is_dir() {
                open.push(path);
            } else if !known.contains(&path) {
                return Ok(Some(path));
            }
        }
    }
    Ok(None)
}

/// Refuses anything except a regular file: a read of a pipe may block, and a device has no end.
fn require_regular(path: &Path) -> Result<()> {
    let found = fs::metadata(path).map_err(|e| Error::io(Reason::OutputExists, path, "read", e))?;
    if found.is_file() {
        Ok(())
    } else {
        Err(Error::new(Reason::OutputExists, NOT_REGULAR).in_file(path).hint(ANOTHER_NAME))
    }
}

fn difference(earlier: &Report, now: &Report) -> Option<&'static str> {
    let hashes = |report: &Report| -> Vec<(u64, String)> {
        let mut hashes: Vec<_> = report.source_files.iter().map(|file| (file.bytes, file.sha256.clone())).collect();
        // Members may be given in another order.
        hashes.sort();
        hashes
    };
    let program = |report: &Report| report.transformed.as_ref().and_then(|made| made.program_sha256.clone());
    if earlier.schema != now.schema || earlier.etcdlift != now.etcdlift {
        Some("its report is of another version of etcdlift")
    } else if !earlier.options.same_effect(&now.options) {
        Some("it was made with other options")
    } else if program(earlier) != program(now) {
        Some("it was made with another transformer")
    } else if hashes(earlier) != hashes(now) {
        Some("it was made from other source files")
    } else {
        None
    }
}

/// Returns size and sha256 of a file. Reads it in pieces.
///
/// # Errors
/// [`Reason::OutputExists`] if the file cannot be read, so that it cannot be compared; an interruption.
fn sha256_of(path: &Path, interrupt: Interrupt<'_>) -> Result<(u64, String)> {
    let failed = |e| Error::io(Reason::OutputExists, path, "read the existing output", e);
    let mut file = File::open(path).map_err(failed)?;
    let mut sha256 = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0u64;
    loop {
        interrupt.ask()?;
        let len = match file.read(&mut buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            read => read.map_err(failed)?,
        };
        if len == 0 {
            return Ok((bytes, hex(&sha256.finalize())));
        }
        sha256.update(buffer.get(..len).unwrap_or_default());
        bytes += len as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{ConvertOptions, Keep};
    use crate::output::report_file;
    use crate::report::facts::SourceFile;
    use crate::report::model::OutputFacts;

    /// Makes an output of 3 bytes with the report of its run. Returns the report of a run that begins now.
    fn existing(dir: &Path) -> Report {
        let mut options = ConvertOptions::new("src", dir.join("out.db"));
        options.report = Some(dir.join("r.json"));
        options.skip_existing = true;
        let mut now = Report::new(&options);
        now.source_files.push(SourceFile { path: "src".into(), bytes: 1, sha256: "ab".into(), hashed_bytes: None });
        fs::write(&options.output, "abc").unwrap();
        let mut earlier = now.clone();
        earlier.options.sources = vec!["elsewhere".into()];
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".into();
        earlier.output = Some(OutputFacts { bytes: 3, sha256, ..Default::default() });
        fs::write(dir.join("r.json"), report_file::to_json(&earlier).unwrap()).unwrap();
        now
    }

    fn refusal(now: &Report) -> String {
        let error = find(now, Interrupt::default()).unwrap_err();
        assert_eq!(error.reason(), Reason::OutputExists);
        error.to_string()
    }

    #[test]
    fn an_equal_output_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let now = existing(dir.path());
        let found = find(&now, Interrupt::default()).unwrap().unwrap();
        assert!(found.skipped);
        assert_eq!(found.options, now.options);
        assert_eq!(found.output.unwrap().bytes, 3);
    }

    #[test]
    fn without_an_output_there_is_nothing_to_skip() {
        let dir = tempfile::tempdir().unwrap();
        let now = existing(dir.path());
        fs::remove_file(&now.options.output).unwrap();
        assert!(find(&now, Interrupt::default()).unwrap().is_none());
    }

    #[test]
    fn any_difference_refuses_and_says_which() {
        let dir = tempfile::tempdir().unwrap();
        let now = existing(dir.path());
        let mut other = now.clone();
        other.options.hidden = Keep::Drop;
        assert!(refusal(&other).contains("other options"));
        let mut other = now.clone();
        other.source_files.clear();
        assert!(refusal(&other).contains("other source files"));
        fs::write(&now.options.output, "abd").unwrap();
        assert!(refusal(&now).contains("not the file"));
        fs::write(dir.path().join("r.json"), "{").unwrap();
        assert!(refusal(&now).contains("cannot be read"));
        fs::remove_file(dir.path().join("r.json")).unwrap();
        assert!(refusal(&now).contains("report does not exist"));
    }
}
