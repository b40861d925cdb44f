//! How a run of `etcdlift clean` ends that does not succeed: its report, and what a signal leaves. Also the owner of a copy.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::run::{etcdlift, etcdlift_path, read_json};
use crate::common::scratch;
use crate::common::skip::{Need, skip};
use crate::convert::signals::listens;
use crate::test_name;

const FIXTURE: &str = "fixtures/upgrade-check/input/default.etcd";

/// A place for one run: a copy of the fixture, and a folder for what the run writes.
struct Place {
    temp: tempfile::TempDir,
    source: PathBuf,
}

impl Place {
    fn new() -> Place {
        let temp = scratch::temp();
        let source = temp.path().join("source");
        scratch::copy_tree(Path::new(FIXTURE), &source);
        fs::create_dir(temp.path().join("made")).unwrap();
        Place { temp, source }
    }

    fn made(&self, name: &str) -> PathBuf {
        self.temp.path().join("made").join(name)
    }

    fn names(&self) -> Vec<String> {
        scratch::names(&self.made(""))
    }

    fn args(&self, options: &[&str]) -> Vec<String> {
        let path = |path: PathBuf| path.display().to_string();
        let args = ["clean".into(), path(self.source.clone()), "-o".into(), path(self.made("out"))];
        let report = ["--report".into(), path(self.made("report.json"))];
        args.into_iter().chain(report).chain(options.iter().map(ToString::to_string)).collect()
    }
}

#[test]
fn a_failed_run_reports_its_error() {
    let place = Place::new();
    let run = etcdlift(place.args(&["--require-migrated", "--json"]));
    assert_eq!((run.status, run.stdout.len()), (5, 0), "{}", run.story());
    let report = read_json(&place.made("report.json"));
    let (error, hint) = run.stderr.split_once("\nhint: ").unwrap();
    let expected = json!({
        "etcdlift": env!("CARGO_PKG_VERSION"),
        "exit_status": 5,
        "reason": "not-migrated",
        "error": error.strip_prefix("etcdlift: error: ").unwrap(),
        "hint": hint.trim_end(),
        "target_version": "3.6",
        "output": place.made("out").display().to_string(),
        "cluster_id": "",
        "members": [],
        "files": [],
        "warnings": [],
        "losses": [],
        "next_steps": [],
    });
    assert_eq!(report, expected);
    assert_eq!(place.names(), ["report.json"]);
    // A run that succeeds has none of these words.
    fs::remove_file(place.made("report.json")).unwrap();
    etcdlift(place.args(&[])).success();
    let report = read_json(&place.made("report.json"));
    for word in ["reason", "error", "hint"] {
        assert_eq!(report.get(word), None);
    }
}

#[test]
fn every_refusal_has_a_report_if_its_path_can_be_used() {
    let reason = |report: &Value| (report["reason"].as_str().unwrap().to_string(), report["exit_status"].clone());
    // The output exists.
    let place = Place::new();
    fs::write(place.made("out"), "mine").unwrap();
    assert_eq!(etcdlift(place.args(&[])).status, 5);
    assert_eq!(reason(&read_json(&place.made("report.json"))), ("output-exists".into(), 5.into()));
    // The source does not exist, or is damaged.
    let place = Place::new();
    fs::remove_dir_all(&place.source).unwrap();
    assert_eq!(etcdlift(place.args(&[])).status, 5);
    assert_eq!(reason(&read_json(&place.made("report.json"))), ("source-missing".into(), 5.into()));
    let place = Place::new();
    let segment = place.source.join("member/wal/0000000000000000-0000000000000000.wal");
    scratch::edit(&segment, |bytes| bytes[200] ^= 1);
    assert_eq!(etcdlift(place.args(&[])).status, 3);
    assert_eq!(reason(&read_json(&place.made("report.json"))), ("damaged".into(), 3.into()));
    // The ledger is the report: then neither can be written.
    let place = Place::new();
    let report = place.made("report.json").display().to_string();
    assert_eq!(etcdlift(place.args(&["--ledger", &report])).status, 5);
    assert!(place.names().is_empty());
    // An existing report stays, and a wrong command line has no report.
    fs::write(&report, "mine").unwrap();
    assert_eq!(etcdlift(place.args(&[])).status, 5);
    assert_eq!(fs::read(&report).unwrap(), b"mine");
    fs::remove_file(&report).unwrap();
    assert_eq!(etcdlift(place.args(&["--wal-dir", "a", "--wal-dir", "b"])).status, 2);
    assert!(place.names().is_empty());
}

/// As in `docs/codes.md`: no room is a refusal, and another failure to write is not.
#[test]
fn a_full_disk_is_5_and_another_failure_is_6() {
    let place = Place::new();
    // `ulimit -f` in units of 512 bytes: enough for the report.
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -f 16; exec \"$@\"", "sh"]).arg(etcdlift_path()).args(place.args(&[]));
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), place.names()), (Some(5), vec!["report.json".to_string()]), "{said}");
    assert_eq!(read_json(&place.made("report.json"))["reason"], "no-room");
    let place = Place::new();
    // No user can make a file there.
    let run = etcdlift(place.args(&["--ledger", "/proc/self/ledger"]));
    assert_eq!(run.status, 6, "{}", run.story());
    assert_eq!(read_json(&place.made("report.json"))["reason"], "output-failed");
    assert!(!place.made("out").exists());
}

#[test]
fn sigint_is_130() {
    interrupted("INT", 130, &|child, _| listens(child));
}

#[test]
fn sigterm_while_the_copy_is_written_is_143() {
    interrupted("TERM", 143, &|_, place| !place.names().is_empty());
}

/// A run that is over before the signal arrives proves nothing, and is repeated.
fn interrupted(signal: &str, status: i32, when: &dyn Fn(&std::process::Child, &Place) -> bool) {
    let proven = (0..10).any(|_| is_interrupted(signal, status, when));
    assert!(proven, "each run was over before the signal");
}

fn is_interrupted(signal: &str, status: i32, when: &dyn Fn(&std::process::Child, &Place) -> bool) -> bool {
    let place = Place::new();
    // A database that takes a moment to copy. bbolt ignores what follows its last page.
    let db = File::options().write(true).open(place.source.join("member/snap/db")).unwrap();
    db.set_len(256 << 20).unwrap();
    let before = scratch::fingerprint(&place.source);
    let mut command = Command::new(etcdlift_path());
    let saved = [place.made("saved"), place.made("ledger")].map(|path| path.display().to_string());
    let args = place.args(&["--save-v2", &saved[0], "--ledger", &saved[1]]);
    let mut child = command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while !when(&child, &place) {
        assert!(begun.elapsed() < Duration::from_secs(60), "it has not begun");
        if let Some(ended) = child.try_wait().unwrap() {
            assert!(ended.success(), "{ended}");
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
    // Until it is waited for, its process id is its own.
    let kill = Command::new("sh").args(["-c", &format!("kill -{signal} {}", child.id())]).status();
    assert!(kill.is_ok());
    let output = child.wait_with_output().unwrap();
    if output.status.success() {
        return false;
    }
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(status), 0), "{text}");
    assert!(text.starts_with("etcdlift: error: interrupted") && text.lines().count() == 1, "{text}");
    assert_eq!(place.names(), ["report.json"]);
    let report = read_json(&place.made("report.json"));
    assert_eq!((&report["reason"], &report["exit_status"]), (&"interrupted".into(), &status.into()));
    assert_eq!(scratch::fingerprint(&place.source), before, "the source was changed");
    true
}

#[test]
fn the_owner_is_that_of_the_source() {
    let place = Place::new();
    let paths = scratch::fingerprint(&place.source).into_keys();
    if paths.map(|path| chown(path, Some(1234), Some(1235))).any(|given| given.is_err()) {
        return skip(test_name!(), Need::Machine, "only root can give a file to another user");
    }
    let own = fs::metadata(place.temp.path()).unwrap();
    for (options, owner) in [(&[][..], (own.uid(), own.gid())), (&["--preserve-owner"], (1234, 1235))] {
        etcdlift(place.args(options)).success();
        for path in scratch::fingerprint(&place.made("out")).into_keys() {
            let found = fs::metadata(&path).unwrap();
            assert_eq!((found.uid(), found.gid()), owner, "{}", path.display());
        }
        fs::remove_dir_all(place.made("out")).unwrap();
        fs::remove_file(place.made("report.json")).unwrap();
    }
}

/// Each member gets the owner of its own source, and the directory that has them that of the first.
#[test]
fn several_owners() {
    let Some(dir) = crate::common::corpus::mixed(test_name!(), "v3.5.16-m9") else { return };
    let temp = scratch::temp();
    let out = temp.path().join("out");
    let sources = [("m0", 1234), ("m1", 1236)].map(|(name, owner)| (dir.join(format!("{name}.etcd")), name, owner));
    if sources.iter().any(|(source, _, owner)| chown(source, Some(*owner), Some(*owner)).is_err()) {
        return skip(test_name!(), Need::Machine, "only root can give a file to another user");
    }
    let [one, two] = [0, 1].map(|at: usize| sources[at].0.display().to_string());
    etcdlift(["clean", &one, &two, "-o", out.to_str().unwrap(), "--preserve-owner"]).success();
    let owner = |path: &Path| fs::metadata(path).unwrap().uid();
    assert_eq!(owner(&out), 1234);
    for (_, name, expected) in &sources {
        for path in scratch::fingerprint(&out.join(name)).into_keys() {
            assert_eq!(owner(&path), *expected, "{}", path.display());
        }
    }
    fs::remove_dir_all(dir).unwrap();
}
