//! `etcdlift clean` and what a crash leaves: v3 writes that are only in the log, and a received snapshot whose record is not in the log.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::common::etcdctl::Etcdctl;
use crate::common::http;
use crate::common::peers::{self, Peers, Version};
use crate::common::run::{Output, etcdlift};
use crate::common::scratch;
use crate::common::server::{Boot, Server};
use crate::test_name;

fn boot(peers: &Peers, version: Version, data_dir: &Path, args: &[&str]) -> Boot {
    let enable_v2 = matches!(version, Version::V3_4 | Version::V3_5);
    let args = args.iter().map(ToString::to_string).collect();
    Boot { enable_v2, args, ..Boot::new(peers, version, data_dir) }
}

fn put_v2(server: &Server, key: &str) {
    http::put_form(server.client_address(), &format!("/v2/keys/{key}"), "value=1").unwrap();
}

fn run_on(command: &str, source: &Path, options: &[&str]) -> Output {
    etcdlift([&[command, source.to_str().unwrap()], options].concat())
}

#[track_caller]
fn says(run: &Output, status: i32, words: &[&str]) {
    assert_eq!(run.status, status, "{}", run.story());
    for words in words {
        assert!(format!("{}{}", run.text(), run.stderr).contains(words), "{words}: {}", run.story());
    }
}

/// The rows that a server has on a copy of a directory.
fn rows(peers: &Peers, version: Version, source: &Path) -> Vec<crate::common::rows::Row> {
    let temp = scratch::temp();
    let copy = temp.path().join("copy");
    scratch::copy_tree(source, &copy);
    let server = Server::start(&boot(peers, version, &copy, &[]));
    Etcdctl::new(peers, &server).all().0
}

/// Writes v2 keys, then one v3 key that is only in the log when the server is killed.
fn with_a_late_write(peers: &Peers, version: Version, source: &Path) {
    let server = Server::start(&boot(peers, version, source, &[]));
    put_v2(&server, "a");
    server.stop();
    let server = Server::start(&boot(peers, version, source, &["--backend-batch-interval", "100s"]));
    put_v2(&server, "b");
    Etcdctl::new(peers, &server).put("late", "1");
    server.kill();
}

#[test]
fn v3_writes_that_are_only_in_the_log() {
    let Some(peers) = peers::require(test_name!()) else { return };
    let temp = scratch::temp();
    let (source, out) = (temp.path().join("source"), temp.path().join("out"));
    let out_name = out.to_str().unwrap();
    with_a_late_write(&peers, Version::V3_5, &source);
    let checked = run_on("check", &source, &[]);
    let not_applied = "1 v3 write in the log is not applied to the v3 backend (which is at raft index ";
    says(&checked, 7, &[not_applied, "[v3-unapplied]", "hint: start etcd 3.5 on the source once", "etcdlift clean "]);
    assert!(!checked.text().contains("etcdlift convert "), "{}", checked.story());
    says(&run_on("clean", &source, &["-o", out_name]), 0, &[]);
    let expected = rows(&peers, Version::V3_5, &source);
    assert_eq!(expected.len(), 1);
    assert_eq!(rows(&peers, Version::V3_6, &out), expected);
    fs::remove_dir_all(&source).unwrap();
    fs::remove_dir_all(&out).unwrap();
    // The backend of 3.4 has no raft index before the first v3 write.
    with_a_late_write(&peers, Version::V3_4, &source);
    let checked = run_on("check", &source, &[]);
    says(&checked, 7, &["(which is at raft index 0)", "hint: start etcd 3.5 on the source once and stop it cleanly"]);
    assert!(!checked.text().contains("etcdlift c"), "{}", checked.story());
    let hint = "hint: start etcd 3.5 on the source once, stop it cleanly, and clean again";
    says(&run_on("clean", &source, &["-o", out_name]), 5, &["1 v3 write in the log is not applied", hint]);
    Server::start(&boot(&peers, Version::V3_5, &source, &[])).stop();
    says(&run_on("clean", &source, &["-o", out_name]), 0, &[]);
    assert_eq!(rows(&peers, Version::V3_6, &out), expected);
}

#[test]
fn a_received_snapshot_without_its_record_is_ignored() {
    let Some(peers) = peers::require(test_name!()) else { return };
    let temp = scratch::temp();
    let (source, later) = (temp.path().join("source"), temp.path().join("later"));
    let write = |data_dir: &Path, name: &str| {
        let server = Server::start(&boot(&peers, Version::V3_5, data_dir, &["--snapshot-count", "10"]));
        for number in 0..15 {
            put_v2(&server, &format!("{name}{number}"));
            Etcdctl::new(&peers, &server).put(&format!("{name}{number}"), "1");
        }
        thread::sleep(Duration::from_millis(500));
        server.stop();
    };
    write(&source, "a");
    scratch::copy_tree(&source, &later);
    write(&later, "b");
    let newest = crate::common::v2files::newest_snapshot(&later).unwrap();
    let name = newest.path.file_name().unwrap().to_str().unwrap();
    fs::copy(&newest.path, source.join("member/snap").join(name)).unwrap();
    let received = source.join(format!("member/snap/{:016x}.snap.db", newest.index));
    fs::copy(later.join("member/snap/db"), received).unwrap();
    let expected = rows(&peers, Version::V3_5, &source);
    assert_eq!(expected.len(), 15);
    let out = temp.path().join("out");
    let warning = format!("{name}: the log has no committed record of this snapshot, so etcd ignores it");
    let checked = run_on("check", &source, &[]);
    says(&checked, 7, &[&warning]);
    assert!(!checked.text().contains("loss:"), "{}", checked.story());
    says(&run_on("clean", &source, &["-o", out.to_str().unwrap()]), 0, &[&warning]);
    assert_eq!(rows(&peers, Version::V3_6, &out), expected);
}
