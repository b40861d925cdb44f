//! A report on disk: its path, the existing file there, and an atomic write.
//!
//! The report is written under a temporary name and gets its name together with the output. A pipe or a device is
//! refused. Of an earlier report, only its output is read. Must not know what else a report says.

use std::fs::{self, File};
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::display::write_indented_json;
use crate::error::{Error, Reason, Result};
use crate::options::ConvertOptions;
use crate::output::naming::{ANOTHER_NAME, Before, NOT_REGULAR};
use crate::output::sidecar::Sidecar;
use crate::output::targets::followed;

/// Returns the JSON text of a report or an inspection, indented, with a newline at its end.
///
/// # Errors
/// [`Reason::Internal`] if a value cannot be JSON.
pub fn to_json(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut json = Vec::new();
    write_indented_json(&mut json, value)
        .map_err(|e| Error::new(Reason::Internal, format!("cannot write the report as JSON: {e}")))?;
    json.push(b'\n');
    Ok(json)
}

/// The destination of a run's report.
#[derive(Debug)]
pub struct Place {
    /// The path as the operator named it.
    path: PathBuf,
    /// The path after all links.
    file: PathBuf,
    earlier: Earlier,
    /// The existing file, if it may be replaced.
    before: Before,
}

/// The existing file.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Earlier {
    Nothing,
    /// A report of a run without an output, or an empty file.
    NoOutput,
    /// A report of a run whose output has this SHA-256.
    Output(String),
}

impl Place {
    /// Examines the destination of the report before the work begins. Returns `None` if the run has no report file.
    ///
    /// # Errors
    /// [`Reason::OutputFailed`] if the path is a directory, or a file cannot be created in its directory.
    /// [`Reason::OutputExists`] if it is a file without a report, a report that the options do not allow to replace, a
    /// pipe or a device. [`Reason::Locked`] if another process has locked it.
    pub fn of(options: &ConvertOptions) -> Result<Option<Place>> {
        let Some(path) = &options.report else { return Ok(None) };
        let (file, earlier) = match fs::metadata(path) {
            Ok(found) if found.is_dir() => return Err(failed(path, io::Error::from(io::ErrorKind::IsADirectory))),
            Ok(found) if !found.is_file() => {
                let hint = "give another name, or `-` for standard output";
                return Err(Error::new(Reason::OutputExists, NOT_REGULAR).in_file(path).hint(hint));
            }
            Ok(_) => (fs::canonicalize(path).map_err(|e| failed(path, e))?, earlier(path)?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => (followed(path), Earlier::Nothing),
            Err(e) => return Err(failed(path, e)),
        };
        let replace = may_replace(options, &earlier).map_err(|e| e.in_file(path))?;
        let before = Before::at(&file, replace)?;
        let place = Place { path: path.clone(), file, earlier, before };
        // A destination that cannot be written is refused before the work.
        place.begin().map(drop)?;
        Ok(Some(place))
    }

    /// Returns the path as the operator named it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether to write the report of a run whose output has this SHA-256, or that has no output. The report of
    /// an output is not replaced by that of a run without one, or by one with the same output.
    ///
    /// # Errors
    /// [`Reason::OutputExists`] if it must be replaced, but the options do not allow that.
    pub fn takes(&self, sha256: Option<&str>) -> Result<bool> {
        match (&self.earlier, sha256) {
            (Earlier::Nothing | Earlier::NoOutput, _) => Ok(true),
            (Earlier::Output(_), None) => Ok(false),
            (Earlier::Output(_), Some(_)) if self.before != Before::Nothing => Ok(true),
            (Earlier::Output(earlier), Some(now)) if earlier == now => Ok(false),
            (Earlier::Output(_), Some(_)) => {
                let message = "the report is that of another output than this run makes";
                let error = Error::new(Reason::OutputExists, message).in_file(&self.path);
                Err(error.hint("remove it, or give another name"))
            }
        }
    }

    /// Writes a report completely; only its final name is missing.
    ///
    /// # Errors
    /// [`Reason::OutputFailed`]; the existing file is unchanged.
    pub fn write(&self, json: &[u8]) -> Result<Sidecar> {
        let mut file = self.begin()?;
        let write = |out: &mut dyn Write| out.write_all(json).and_then(|()| out.flush());
        file.write(|out| write(out).map_err(|e| failed(&self.path, e)))?;
        file.sync()?;
        Ok(file)
    }

    fn begin(&self) -> Result<Sidecar> {
        Sidecar::begin(&self.file, self.before).map_err(|e| failed(&self.path, e))
    }
}

/// Returns whether a run may replace the existing report. Refuses a run that would have to, but may not.
fn may_replace(options: &ConvertOptions, earlier: &Earlier) -> Result<bool> {
    match earlier {
        Earlier::Nothing => Ok(false),
        _ if options.overwrite => Ok(true),
        // Nothing was written yet: this run is the next attempt.
        Earlier::NoOutput if options.skip_existing => Ok(true),
        // The output is compared with it.
        Earlier::Output(_) if options.skip_existing => Ok(false),
        _ => Err(Error::new(Reason::OutputExists, "the report exists").hint("give --overwrite to replace it")),
    }
}

/// The fields that every report of etcdlift has, of any version.
#[derive(Deserialize)]
struct Stub {
    #[serde(rename = "schema")]
    _schema: u32,
    #[serde(rename = "etcdlift")]
    _etcdlift: String,
    #[serde(rename = "started")]
    _started: String,
    #[serde(rename = "exit_status")]
    _exit_status: u8,
    options: StubOptions,
    #[serde(default)]
    output: Option<StubOutput>,
}

#[derive(Deserialize)]
struct StubOutput {
    sha256: String,
}

#[derive(Deserialize)]
struct StubOptions {
    #[serde(default)]
    dry_run: bool,
}

fn earlier(path: &Path) -> Result<Earlier> {
    let unreadable = |e| Error::io(Reason::OutputExists, path, "read the existing file", e);
    let file = File::open(path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.len() == 0 {
        return Ok(Earlier::NoOutput);
    }
    match serde_json::from_reader::<_, Stub>(BufReader::new(file)) {
        Ok(Stub { output: Some(output), options, .. }) if !options.dry_run => Ok(Earlier::Output(output.sha256)),
        Ok(_) => Ok(Earlier::NoOutput),
        Err(e) if e.is_io() => Err(unreadable(e.into())),
        Err(_) => {
            let message = "the file is no report of etcdlift, and is never replaced by one";
            Err(Error::new(Reason::OutputExists, message).in_file(path).hint(ANOTHER_NAME))
        }
    }
}

fn failed(path: &Path, e: io::Error) -> Error {
    Error::io(Reason::OutputFailed, path, "write the report", e)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{OutputFacts, Report};

    /// Returns the report of a run with or without an output.
    fn report(output: bool, dry_run: bool) -> Vec<u8> {
        let mut report = Report::new(&ConvertOptions { dry_run, ..ConvertOptions::new("a", "b") });
        report.output = output.then(|| OutputFacts { sha256: "00ff".into(), ..OutputFacts::default() });
        to_json(&report).unwrap()
    }

    fn options(report: &Path, overwrite: bool) -> ConvertOptions {
        ConvertOptions { report: Some(report.to_path_buf()), overwrite, ..ConvertOptions::new("a", "b") }
    }

    fn refusal(options: &ConvertOptions) -> String {
        let error = Place::of(options).unwrap_err();
        assert_eq!(error.reason(), Reason::OutputExists, "{error}");
        format!("{} ({})", error.message(), error.hint_text().unwrap())
    }

    fn put(place: &Place, json: &[u8]) {
        drop(place.write(json).unwrap().name().unwrap());
    }

    #[test]
    fn a_report_replaces_an_earlier_one_where_that_is_allowed_and_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("r.json"), dir.path().join("link"));
        std::os::unix::fs::symlink("r.json", &link).unwrap();
        put(&Place::of(&options(&link, false)).unwrap().unwrap(), &report(true, false));
        assert_eq!(fs::read(&file).unwrap(), report(true, false), "the link leads there");
        assert_eq!(refusal(&options(&link, false)), "the report exists (give --overwrite to replace it)");
        let place = Place::of(&options(&link, true)).unwrap().unwrap();
        assert!(place.takes(Some("00")).unwrap() && !place.takes(None).unwrap());
        put(&place, b"new");
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn only_reports_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("r.json");
        let with_more = [&report(true, false)[..], b"{}"].concat();
        for text in [&b"notes"[..], b"{}", b"[]", br#"{"schema":1,"output":null}"#, &with_more] {
            fs::write(&file, text).unwrap();
            for overwrite in [false, true] {
                assert!(refusal(&options(&file, overwrite)).contains("no report of etcdlift"));
            }
        }
        fs::write(&file, "").unwrap();
        assert!(refusal(&options(&file, false)).contains("--overwrite"));
        assert!(Place::of(&options(&file, true)).unwrap().unwrap().takes(None).unwrap());
    }

    #[test]
    fn one_of_a_run_without_an_output_gives_way_to_any() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("r.json");
        for text in [report(false, false), report(true, true)] {
            fs::write(&file, text).unwrap();
            assert!(refusal(&options(&file, false)).contains("--overwrite"));
            assert!(Place::of(&options(&file, true)).unwrap().unwrap().takes(None).unwrap());
            let retry = ConvertOptions { skip_existing: true, ..options(&file, false) };
            assert!(Place::of(&retry).unwrap().unwrap().takes(None).unwrap());
        }
    }

    #[test]
    fn skip_existing_compares_with_a_report_and_does_not_lose_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("r.json");
        fs::write(&file, report(true, false)).unwrap();
        let skip = ConvertOptions { skip_existing: true, ..options(&file, false) };
        let place = Place::of(&skip).unwrap().unwrap();
        assert!(!place.takes(None).unwrap() && !place.takes(Some("00ff")).unwrap());
        let error = place.takes(Some("00fe")).unwrap_err();
        assert_eq!(error.reason(), Reason::OutputExists);
        assert!(error.message().contains("another output"), "{error}");
    }

    #[test]
    fn a_device_is_refused() {
        for overwrite in [false, true] {
            assert!(refusal(&options(Path::new("/dev/null"), overwrite)).contains("not a regular file"));
        }
    }

    #[test]
    fn one_that_another_run_has_written_meanwhile_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("r.json");
        for text in [None, Some(report(false, false))] {
            if let Some(text) = text {
                fs::write(&file, text).unwrap();
            }
            let place = Place::of(&options(&file, true)).unwrap().unwrap();
            fs::write(&file, report(true, false)).unwrap();
            let error = place.write(&report(false, false)).unwrap().name().unwrap_err();
            assert_eq!(error.reason(), Reason::OutputExists);
            assert_eq!(fs::read(&file).unwrap(), report(true, false));
        }
    }

    #[test]
    fn a_place_that_cannot_take_it_is_known_beforehand() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path().to_path_buf(), dir.path().join("no/r.json")] {
            assert_eq!(Place::of(&options(&path, true)).unwrap_err().reason(), Reason::OutputFailed);
        }
        assert!(Place::of(&ConvertOptions::new("a", "b")).unwrap().is_none());
    }
}
