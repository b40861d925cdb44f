//! Sources in every state: `advise` accepts and refuses what `inspect` does, and reads several members as one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::{DEMO, advise, json, words};
use crate::common::run::etcdlift;
use crate::common::{scratch, v2files};

const SEGMENT: &str = "member/wal/0000000000000000-0000000000000000.wal";

/// A copy of the demo.
fn copy() -> (tempfile::TempDir, PathBuf) {
    let temp = scratch::temp();
    let source = temp.path().join("default.etcd");
    scratch::copy_tree(Path::new(DEMO), &source);
    (temp, source)
}

/// The exit status of `advise`, which is that of `inspect`, and its error.
fn refused(source: &Path, options: &[&str]) -> (i32, String) {
    let output = advise(&[source], options);
    let inspected =
        etcdlift(["inspect".as_ref(), source.as_os_str()].into_iter().chain(options.iter().map(AsRef::as_ref)));
    assert_eq!(output.status, inspected.status, "{}\n{}", output.story(), inspected.story());
    assert_eq!(output.stderr, inspected.stderr);
    assert!(output.stdout.is_empty(), "{}", output.story());
    (output.status, output.stderr)
}

#[test]
fn what_inspect_refuses_is_refused() {
    let (temp, source) = copy();
    assert_eq!(refused(&temp.path().join("missing"), &[]).0, 5);
    let segment = source.join(SEGMENT);
    let good = fs::read(&segment).unwrap();
    // An entry after the snapshot.
    let entry = v2files::frames(&good).iter().nth_back(9).unwrap().1.start;
    let mut damaged = good.clone();
    damaged[entry + 8] ^= 1;
    fs::write(&segment, damaged).unwrap();
    assert_eq!(refused(&source, &[]).0, 3);
    fs::write(&segment, &good).unwrap();
    let held = Flock::lock(File::open(&segment).unwrap(), FlockArg::LockExclusiveNonblock).unwrap();
    let (status, error) = refused(&source, &[]);
    assert!(status == 5 && error.contains("an etcd is running"), "{error}");
    let live = advise(&[&source], &["--allow-live"]).success().text();
    assert!(live.contains("[live]"), "{live}");
    held.unlock().unwrap();
    fs::rename(source.join("member/wal"), temp.path().join("wal")).unwrap();
    assert_eq!(refused(&source, &[]).0, 5);
    let elsewhere = json(&source, &["--wal-dir", temp.path().join("wal").to_str().unwrap()]);
    assert_eq!(elsewhere["basis"]["log_entries"], 55);
    let alone = advise(&[&source], &["--wal-dir", "none"]).success().text();
    assert!(alone.contains("no entries: requests are unknown") && alone.contains("[snapshot-only]"), "{alone}");
}

#[test]
fn a_snapshot_file_has_no_log_but_a_history() {
    let snap = fs::read_dir(Path::new(DEMO).join("member/snap")).unwrap().map(|entry| entry.unwrap().path());
    let snap = snap.into_iter().find(|path| path.extension().is_some_and(|end| end == "snap")).unwrap();
    let advice = json(&snap, &[]);
    assert_eq!((&advice["basis"]["log_entries"], &advice["basis"]["events"]), (&0.into(), &36.into()));
    assert_eq!(super::number(&advice, "in-order-key", "events"), 4);
    assert_eq!(advice["warnings"][0]["code"], "snapshot-only");
}

#[test]
fn a_v3_database_has_no_v2_data() {
    let db = Path::new(DEMO).join("member/snap/db");
    let output = advise(&[&db], &[]);
    assert_eq!(output.status, 5, "{}", output.story());
    assert!(output.stderr.contains("found a v3 database, which has no v2 data"), "{}", output.story());
    assert!(output.stderr.contains("hint: name the data directory"), "{}", output.story());
}

#[test]
fn members_are_read_as_one_source() {
    let members = ["m0", "m1", "m2"].map(|name| PathBuf::from(format!("fixtures/members/{name}.etcd")));
    let members: Vec<&Path> = members.iter().map(PathBuf::as_path).collect();
    let output = advise(&members, &[]).success();
    assert!(output.text().starts_with("ADVICE: fixtures/members/m0.etcd and 2 more relies on"), "{}", output.story());
    let advice = advise(&members, &["-w", "json"]).success().json();
    assert_eq!(advice["sources"].as_array().unwrap().len(), 3);
    let twice = advise(&[members[0], members[0]], &[]);
    assert_eq!(twice.status, 5, "{}", twice.story());
    let dirs = advise(&members, &["--wal-dir", "x"]);
    assert!(dirs.status == 2 && dirs.stderr.contains("--wal-dir is given once for 3 sources"), "{}", dirs.story());
}

#[test]
fn a_log_that_lacks_its_end_is_a_warning() {
    let (_temp, source) = copy();
    let segment = source.join(SEGMENT);
    let good = fs::read(&segment).unwrap();
    // The last entries and the hard states after them are gone.
    fs::write(&segment, v2files::rewritten(&good, |entry| entry.is_none_or(|index| index <= 50))).unwrap();
    let output = advise(&[&source], &[]);
    let inspected = etcdlift(["inspect".as_ref(), source.as_os_str()]);
    assert_eq!((output.status, &output.stderr), (inspected.status, &inspected.stderr), "{}", words(&output.text()));
}
