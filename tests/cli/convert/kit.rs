//! A run of `convert` in folders of its own, and what every run that refuses must keep to: one line, the right status
//! and reason, no output, nothing left behind, the source as it was.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use etcdlift::internals::bolt::Db;
use etcdlift::internals::mvcc::{KeyValue, schema};
use serde_json::Value;
use tempfile::TempDir;

use crate::common::rows::Row;
use crate::common::run::{Output, etcdlift};
use crate::common::scratch::{self, copy_tree, fingerprint, names};

pub(crate) const DEMO: &str = "fixtures/demo/input/default.etcd";
pub(crate) const DEMO_SNAP: &str = "member/snap/0000000000000002-0000000000000029.snap";
pub(crate) const DEMO_WAL: &str = "member/wal/0000000000000000-0000000000000000.wal";

/// When no key of the demo has expired.
pub(crate) const AS_OF: &str = "2026-12-01T00:00:00Z";

/// Folders for one test, gone when it ends.
pub(crate) struct Case {
    temp: TempDir,
}

impl Case {
    pub(crate) fn new() -> Self {
        let temp = scratch::temp();
        fs::create_dir(temp.path().join("out")).unwrap();
        Self { temp }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// Where the output goes.
    pub(crate) fn out(&self) -> PathBuf {
        self.path("out/out.db")
    }

    /// The directory at the output's path, or an empty one if there is none.
    pub(crate) fn out_if_any(&self) -> PathBuf {
        let empty = self.path("empty");
        fs::create_dir_all(&empty).unwrap();
        if self.out().is_dir() { self.out() } else { empty }
    }

    pub(crate) fn report(&self) -> PathBuf {
        self.path("report.json")
    }

    /// A copy of the demo that may be damaged.
    pub(crate) fn demo(&self) -> PathBuf {
        let copy = self.path("default.etcd");
        copy_tree(&demo(), &copy);
        copy
    }

    /// Makes a file and the folders above it.
    pub(crate) fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Converts into `out/out.db`, with a report.
    pub(crate) fn run(&self, source: &Path, options: &[&str]) -> Run {
        self.run_to(source, &self.out(), options)
    }

    /// Converts into a file of another name.
    pub(crate) fn run_to(&self, source: &Path, out: &Path, options: &[&str]) -> Run {
        let _ = fs::remove_file(self.report());
        let mut args: Vec<OsString> = vec!["convert".into(), source.into(), "-o".into(), out.into()];
        args.extend(["--report".into(), self.report().into()]);
        args.extend(options.iter().map(Into::into));
        if !options.contains(&"--as-of") {
            // The demo has a TTL, so the bytes depend on the instant.
            args.extend(["--as-of".into(), AS_OF.into()]);
        }
        let before = fingerprint(source);
        let output = etcdlift(args);
        let unchanged = before == fingerprint(source);
        assert!(unchanged, "the source was changed: {}", output.story());
        let report = fs::read(self.report()).ok().map(|json| serde_json::from_slice(&json).unwrap());
        Run { output, out: out.to_owned(), report, left: names(&self.path("out")) }
    }
}

/// A run that has ended.
pub(crate) struct Run {
    pub(crate) output: Output,
    pub(crate) out: PathBuf,
    report: Option<Value>,
    /// What lies in the folder of the output.
    left: Vec<String>,
}

impl Run {
    pub(crate) fn report(&self) -> &Value {
        self.report.as_ref().unwrap_or_else(|| panic!("no report: {}", self.output.story()))
    }

    /// Asserts a refusal that an operator can act on, and that it left nothing behind.
    pub(crate) fn refused(&self, status: i32, reason: &str, words: &[&str]) {
        self.refused_with_files(status, reason, words, &[]);
    }

    /// The same where these files were in the output's folder before.
    pub(crate) fn refused_with_files(&self, status: i32, reason: &str, words: &[&str], files: &[&str]) {
        let story = self.output.story();
        assert_eq!(self.output.status, status, "{story}");
        one_line(&self.output, words);
        assert!(self.output.stdout.is_empty(), "{story}");
        assert_eq!(self.left, files, "{story}");
        let report = self.report();
        assert_eq!(report["reason"], reason, "{story}");
        assert_eq!(report["exit_status"], status, "{story}");
        assert_eq!(report["output"], Value::Null, "{story}");
        let hint = report["hint"].as_str().map_or(String::new(), |hint| format!("hint: {hint}\n"));
        assert_eq!(format!("etcdlift: error: {}\n{hint}", report["error"].as_str().unwrap()), self.output.stderr);
    }

    /// Asserts an output, and no other file in its folder.
    pub(crate) fn converted(&self, status: i32) -> Vec<Row> {
        let story = self.output.story();
        assert_eq!(self.output.status, status, "{story}");
        assert_eq!(self.left, [self.out.file_name().unwrap().to_str().unwrap()], "{story}");
        assert_eq!(self.report()["exit_status"], status, "{story}");
        totals_add_up(self.report());
        rows(&self.out)
    }

    /// The codes of warnings and losses.
    pub(crate) fn notices(&self, field: &str) -> Vec<&str> {
        let notices = self.report()[field].as_array().unwrap().iter();
        notices.map(|notice| notice["code"].as_str().unwrap()).collect()
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        fs::read(&self.out).unwrap()
    }
}

/// One line on standard error, with a hint on a second line at most, that hold all of these words.
pub(crate) fn one_line(output: &Output, words: &[&str]) {
    let story = output.story();
    let text = &output.stderr;
    assert!(text.starts_with("etcdlift: error: ") && text.ends_with('\n'), "{story}");
    assert!(text.lines().skip(1).all(|line| line.starts_with("hint: ")) && text.lines().count() <= 2, "{story}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not said: {story}");
    }
}

pub(crate) fn totals_add_up(report: &Value) {
    let balance = &report["balance"];
    for unit in ["keys", "bytes"] {
        let count = |name: &str| balance[name][unit].as_u64().unwrap();
        let right = ["written", "expired", "excluded", "dropped"].map(count);
        assert_eq!(count("source"), right.iter().sum::<u64>(), "{unit}: {balance}");
        assert_eq!(count("source"), report["contents"][unit].as_u64().unwrap(), "{unit}: {report}");
    }
}

pub(crate) fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(DEMO)
}

/// The keys of a v3 file, in the order of their revisions.
pub(crate) fn rows(file: &Path) -> Vec<Row> {
    let bytes = fs::read(file).unwrap();
    let db = Db::open(&bytes).unwrap();
    let bucket = db.bucket(schema::KEY).unwrap().unwrap();
    let row = |kv: KeyValue<'_>| Row {
        key: kv.key.to_vec(),
        value: kv.value.to_vec(),
        create: kv.create_revision.0,
        modified: kv.mod_revision.0,
        version: kv.version,
        lease: kv.lease.0,
    };
    let pairs = bucket.iter().map(Result::unwrap);
    pairs.map(|pair| row(KeyValue::decode(pair.value, pair.value_offset()).unwrap())).collect()
}

/// A number in the `meta` bucket of a v3 file.
pub(crate) fn meta(file: &Path, name: &str) -> u64 {
    let bytes = fs::read(file).unwrap();
    let db = Db::open(&bytes).unwrap();
    let pair = db.bucket(schema::META).unwrap().unwrap().get(name.as_bytes()).unwrap().unwrap();
    u64::from_be_bytes(pair.value[..8].try_into().unwrap())
}
