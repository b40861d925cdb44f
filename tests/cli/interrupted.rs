//! A conversion that is interrupted at any time leaves its report and nothing else.
//!
//! The source is a large snapshot that is made here. The signal comes at many moments of the run.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::run::{etcdlift_path, read_json};
use crate::common::scratch::{self, names};
use crate::common::v2files;
use crate::common::v2store::{joined, leaf, store};

const KEYS: u64 = 60_000;

/// A data directory that takes a moment to convert.
fn source(dir: &Path) -> std::path::PathBuf {
    let value = "x".repeat(1024);
    let store = store(KEYS + 1, &joined((0..KEYS).map(|key| leaf(&format!("{key:06}"), key + 2, &value))));
    let data_dir = dir.join("source");
    let snapshot = v2files::write_snapshot(&data_dir, store.into_bytes(), KEYS + 5, 2, 1, KEYS + 1);
    v2files::write_minimal_wal(&data_dir, &snapshot, 1, 7);
    data_dir
}

/// Starts a conversion into `dir`, signals it when `ready` says so, and tells its exit status.
fn interrupt(source: &Path, dir: &Path, signal: &str, ready: &dyn Fn(Duration) -> bool) -> Option<i32> {
    let out = dir.join("out");
    fs::create_dir(&out).unwrap();
    let mut child = Command::new(etcdlift_path())
        .arg("convert")
        .arg(source)
        .arg("-o")
        .arg(out.join("out.db"))
        .arg("--report")
        .arg(dir.join("report.json"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while !ready(begun.elapsed()) && running(&mut child) {
        assert!(begun.elapsed() < Duration::from_secs(120), "nothing happens");
        std::thread::sleep(Duration::from_micros(200));
    }
    let kill = ["-c", "kill -$0 $1", signal, &child.id().to_string()].map(str::to_owned);
    Command::new("sh").args(kill).stderr(Stdio::null()).status().unwrap();
    child.wait().unwrap().code()
}

fn running(child: &mut Child) -> bool {
    child.try_wait().unwrap().is_none()
}

fn assert_only_a_report(dir: &Path, expected: i32) {
    assert!(names(&dir.join("out")).is_empty());
    let report = read_json(&dir.join("report.json"));
    assert_eq!((&report["reason"], &report["output"]), (&"interrupted".into(), &serde_json::Value::Null));
    assert_eq!(report["exit_status"], expected);
    assert_eq!(names(dir), ["out", "report.json"]);
}

fn snapshot_of(source: &Path) -> Vec<u8> {
    fs::read(&v2files::newest_snapshot(source).unwrap().path).unwrap()
}

/// The signal may come before etcdlift listens, or when all is done: then the next try is made a little later.
fn interrupted_run(signal: &str, expected: i32, ready: &dyn Fn(&Path, u32, Duration) -> bool) {
    let place = scratch::temp();
    let source = source(place.path());
    let before = snapshot_of(&source);
    for attempt in 1..=20 {
        let dir = scratch::temp();
        match interrupt(&source, dir.path(), signal, &|elapsed| ready(dir.path(), attempt, elapsed)) {
            Some(0) | None => continue,
            code => assert_eq!(code, Some(expected)),
        }
        assert_only_a_report(dir.path(), expected);
        assert!(snapshot_of(&source) == before, "the source was changed");
        return;
    }
    panic!("no run was interrupted");
}

#[test]
fn while_the_output_is_written() {
    interrupted_run("TERM", 143, &|dir, _, _| !names(&dir.join("out")).is_empty());
}

#[test]
fn while_the_source_is_read() {
    interrupted_run("INT", 130, &|_, attempt, elapsed| elapsed > Duration::from_millis(10) * attempt);
}
