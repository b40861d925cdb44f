//! `check` and `clean` with the log of another member. What can be known is refused; what can be right is not.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::run::{Output, etcdlift};
use crate::common::upgrade::{self, MEMBER};
use crate::common::v2files::{self, CONF_CHANGE, NORMAL, conf_change};
use crate::common::{corpus, scratch};
use crate::test_name;

const ADD: u64 = 0;
/// A member that neither the snapshots nor the backend list.
const STRANGER: u64 = 7;
/// The last entry; the backend is at 42.
const LAST: u64 = 46;

/// Runs `check` for both versions and `clean`, and returns their outputs. Nothing is left of a refused copy.
fn all_with(source: &Path, wal_dir: Option<&Path>) -> Vec<Output> {
    let temp = scratch::temp();
    let out = temp.path().join("out");
    let log: Vec<&str> = wal_dir.iter().flat_map(|dir| ["--wal-dir", dir.to_str().unwrap()]).collect();
    let run = |args: &[&str]| etcdlift([&[args[0], source.to_str().unwrap()], &args[1..], &log[..]].concat());
    let runs =
        vec![run(&["check"]), run(&["check", "--target-version", "3.7"]), run(&["clean", "-o", out.to_str().unwrap()])];
    assert_eq!(out.exists(), runs[2].status == 0, "{}", runs[2].story());
    runs
}

fn refused(source: &Path, wal_dir: Option<&Path>, words: &[&str]) {
    for run in all_with(source, wal_dir) {
        assert_eq!(run.status, 5, "{}", run.story());
        for word in words {
            assert!(run.stderr.contains(word), "{word}: {}", run.story());
        }
    }
}

#[test]
fn a_log_of_another_cluster_is_refused() {
    let names = ["v3.5.16-m1", "v3.5.16-m15", "v3.4.23-m12", "v3.5.16-m9"];
    let dirs: Vec<PathBuf> = names.iter().filter_map(|name| corpus::mixed(test_name!(), name)).collect();
    if dirs.len() < names.len() {
        return;
    }
    let sources: Vec<PathBuf> = dirs.iter().map(|dir| dir.join("m0.etcd")).collect();
    let temp = scratch::temp();
    for (at, source) in sources.iter().enumerate() {
        for other in (0..sources.len()).filter(|other| *other != at) {
            let log = temp.path().join("log");
            scratch::copy_tree(&sources[other].join("member/wal"), &log);
            let words = [" is of member ", " is of a cluster with the members "];
            refused(source, Some(&log), &[words[0], words[1], "hint: give the log of this member with --wal-dir"]);
            fs::remove_dir_all(&log).unwrap();
        }
    }
    // The same without the option: someone copied the log into the wrong directory.
    let mixed_up = temp.path().join("mixed-up");
    scratch::copy_tree(&sources[0].join("member/snap"), &mixed_up.join("member/snap"));
    scratch::copy_tree(&sources[1].join("member/wal"), &mixed_up.join("member/wal"));
    refused(&mixed_up, None, &[" is of member ", "hint: copy the whole data directory of one member"]);
    dirs.iter().for_each(|dir| fs::remove_dir_all(dir).unwrap());
}

#[test]
fn a_log_of_the_same_cluster_without_the_snapshots_is_refused() {
    let Some(dir) = corpus::mixed(test_name!(), "v3.5.16-m9") else { return };
    let source = dir.join("m0.etcd");
    refused(
        &source,
        Some(&dir.join("m3.etcd/member/wal")),
        &["m3.etcd/member/wal is of member ", " is of a cluster with the members "],
    );
    // Members that took the same snapshots have the same files, but for the log. The copy is the member of the log.
    let swapped = all_with(&source, Some(&dir.join("m1.etcd/member/wal")));
    assert_eq!(swapped[2].status, 0, "{}", swapped[2].story());
    assert!(swapped[2].text().contains("m1 (48949b96b6b8498f)"), "{}", swapped[2].story());
    fs::remove_dir_all(dir).unwrap();
}

/// Writes a data directory whose log begins with entry 1, is of the stranger, and has these members added.
fn with_changes(data_dir: &Path, changes: &[(u64, u64)]) {
    upgrade::write(data_dir, &upgrade::cases().into_iter().find(|case| case.expect[0].status == 0).unwrap());
    fs::remove_dir_all(data_dir.join("member/wal")).unwrap();
    for path in fs::read_dir(data_dir.join("member/snap")).unwrap().map(|entry| entry.unwrap().path()) {
        if !path.ends_with("db") {
            fs::remove_file(path).unwrap();
        }
    }
    let start = v2files::Snapshot { index: 0, ..v2files::read_snapshot(&upgrade_snapshot()) };
    let entry = |index: u64| match changes.iter().find(|(at, _)| *at == index) {
        Some((_, id)) => {
            let member = format!(r#"{{"id":{id},"peerURLs":["http://127.0.0.1:{id}"]}}"#);
            (CONF_CHANGE, conf_change(ADD, *id, &member))
        }
        None => (NORMAL, Vec::new()),
    };
    v2files::write_entries(data_dir, &start, STRANGER, 0xc1, (1..=LAST).map(entry));
}

fn upgrade_snapshot() -> PathBuf {
    v2files::newest_snapshot(Path::new("fixtures/upgrade-check/input/default.etcd")).unwrap().path
}

#[test]
fn a_member_that_the_backend_does_not_list_yet_is_no_stranger() {
    let temp = scratch::temp();
    for (name, changes, is_refused) in [
        // It joined before the entries that the backend has applied, and the backend knows nothing of it.
        ("joined", &[(3, STRANGER)][..], true),
        ("two", &[(2, 8), (3, STRANGER)], true),
        // It joins after them.
        ("later", &[(44, STRANGER)], false),
        // It has not read the entry that adds it.
        ("new", &[], false),
        // The log adds a member that the backend lists, so it is a log of that cluster.
        ("listed", &[(2, MEMBER), (3, STRANGER)], false),
    ] {
        let source = temp.path().join(name);
        with_changes(&source, changes);
        match is_refused {
            true => refused(&source, None, &[" is of member 7 in cluster c1"]),
            false => {
                for run in all_with(&source, None).iter().take(2) {
                    assert_eq!(run.status, 0, "{name}: {}", run.story());
                }
            }
        }
    }
}
