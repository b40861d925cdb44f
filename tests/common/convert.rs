//! etcdlift on the corpus: one conversion for each data directory and test
//! process, with options that make the outcome depend on the source alone.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde_json::Value;

use super::corpus::Scenario;
use super::run::{Output, etcdlift, read_json};
use super::scratch;
use super::truth::Truth;

/// A finished conversion.
#[derive(Debug)]
pub struct Converted {
    /// The snapshot file, where there is one.
    pub snapshot: PathBuf,
    pub report: PathBuf,
    pub output: Output,
    /// Files of the source that are not as they were before.
    pub touched: Vec<PathBuf>,
}

impl Converted {
    /// The report.
    pub fn report(&self) -> Value {
        read_json(&self.report)
    }

    /// `etcdlift inspect OUT --json`.
    pub fn inspect(&self) -> Inspected {
        Inspected::of(&self.snapshot)
    }
}

/// The numbers that etcdlift gives for a v3 file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inspected {
    pub revision: u64,
    pub keys: u64,
    pub leases: u64,
    pub hash_kv: u64,
    pub status_hash: u64,
}

impl Inspected {
    pub fn of(file: &Path) -> Self {
        let args = ["inspect".as_ref(), file.as_os_str(), "--json".as_ref()];
        let output = etcdlift(args).success();
        let json: Value = output.json();
        let number = |name: &str| match json[name].as_u64() {
            Some(number) => number,
            None => panic!("{name} is {} in {}", json[name], output.story()),
        };
        Self {
            revision: number("revision"),
            keys: number("keys"),
            leases: number("leases"),
            hash_kv: number("hash_kv"),
            status_hash: number("status_hash"),
        }
    }
}

/// Converts a data directory of a scenario, or returns the conversion made
/// before.
pub fn convert(scenario: &Scenario, data_dir: &str) -> Arc<Converted> {
    type Slot = Arc<OnceLock<Arc<Converted>>>;
    static DONE: Mutex<BTreeMap<String, Slot>> = Mutex::new(BTreeMap::new());
    let name = format!("{}-{data_dir}", scenario.name);
    let slot = {
        let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
        done.entry(name.clone()).or_default().clone()
    };
    let converted = slot.get_or_init(|| {
        let to = scratch::dir().join("converted").join(name);
        let source = scenario.data_dir(data_dir);
        let before = scratch::fingerprint(&source);
        let converted = convert_to(&source, &to, options(&scenario.truth));
        let after = scratch::fingerprint(&source);
        let touched = before
            .iter()
            .chain(&after)
            .filter(|(path, state)| before.get(*path) != Some(state) || after.get(*path) != Some(state))
            .map(|(path, _)| path.clone())
            .collect();
        Arc::new(Converted { touched, ..converted })
    });
    converted.clone()
}

/// Converts any source into `snapshot.db` in a new folder.
pub fn convert_to<A: Into<OsString>>(source: &Path, folder: &Path, options: impl IntoIterator<Item = A>) -> Converted {
    fs::create_dir_all(folder).unwrap();
    let snapshot = folder.join("snapshot.db");
    let report = folder.join("report.json");
    let mut args: Vec<OsString> = vec!["convert".into(), source.into()];
    args.extend(["-o".into(), snapshot.clone().into()]);
    args.extend(["--report".into(), report.clone().into()]);
    args.extend(options.into_iter().map(Into::into));
    Converted { output: etcdlift(args), snapshot, report, touched: Vec::new() }
}

/// TTLs are counted at the instant of capture, when every node of the truth
/// was alive. Authentication stays off, so that the tests need not log in.
pub fn options(truth: &Truth) -> Vec<String> {
    let mut options = vec!["--as-of", &truth.captured_at, "--auth", "users-only"];
    options.extend(truth.source_version());
    options.into_iter().map(String::from).collect()
}
