//! The work that a source asks for: at four times the size it takes less than eight times the processor time.
//!
//! Each test makes a source that once took time as the square of its size, at two sizes, and compares processor time
//! alone: a busy machine changes no result.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::run::{etcdlift_path, wait_with_time};
use crate::common::scratch;
use crate::common::v2files::{self, ADD_NODE, CONF_CHANGE, NORMAL, Snapshot, UPDATE_NODE};
use crate::common::v2store::{Node, escaped, joined, store_of};

const MEMBER: u64 = 7;

/// Below this, the time that every run takes hides how it grows.
const FLOOR: Duration = Duration::from_millis(100);

/// Converts the source that `make` writes, at a size and at four times that size, and compares the processor time.
fn grows_like_the_source(size: usize, make: impl Fn(&Path, usize) -> Vec<OsString>) {
    let time = |size: usize| {
        let dir = scratch::temp();
        let options = make(dir.path(), size);
        let stderr = dir.path().join("stderr");
        let mut child = Command::new(etcdlift_path())
            .arg("convert")
            .arg(dir.path().join("source"))
            .arg("-o")
            .arg(dir.path().join("out.db"))
            .args(options)
            .stdout(Stdio::null())
            .stderr(fs::File::create(&stderr).unwrap())
            .spawn()
            .unwrap();
        let (status, used) = wait_with_time(&mut child);
        assert!(status.success(), "{status}: {}", fs::read_to_string(stderr).unwrap());
        used
    };
    let (small, large) = (time(size), time(4 * size));
    println!("{size}: {small:?}, {}: {large:?}", 4 * size);
    assert!(large < 8 * small.max(FLOOR), "{size}: {small:?}, {}: {large:?}", 4 * size);
}

fn dir(path: &str, children: &str) -> String {
    Node::dir(path, 0, children).child()
}

fn file(path: &str, value: &str) -> String {
    Node::file(path, 5, &escaped(value)).child()
}

/// Writes a source: a snapshot, and a log without entries.
fn snapshot(dir: &Path, children: &str) -> Snapshot {
    let store = store_of(5, children, "null").into_bytes();
    let snapshot = v2files::write_snapshot(&dir.join("source"), store, 9, 2, MEMBER, 5);
    entries(dir, &snapshot, std::iter::empty());
    snapshot
}

fn entries(dir: &Path, snapshot: &Snapshot, entries: impl Iterator<Item = (u64, Vec<u8>)>) {
    v2files::write_entries(&dir.join("source"), snapshot, MEMBER, 1, entries);
}

/// A directory with one key and this many members besides.
fn members(count: usize) -> String {
    let member = |id: usize| {
        let path = format!("/0/members/{id:x}");
        let urls = format!(r#"{{"peerURLs":["http://{id}"]}}"#);
        dir(&path, &file(&format!("{path}/raftAttributes"), &urls))
    };
    let members = joined((100..100 + count).map(member));
    [dir("/0", &dir("/0/members", &members)), dir("/1", &file("/1/a", "v"))].join(",")
}

fn options(words: &str) -> Vec<OsString> {
    words.split_whitespace().map(OsString::from).collect()
}

fn added(id: usize) -> (u64, Vec<u8>) {
    let member = format!(r#"{{"id":{id},"peerURLs":["http://{id}"]}}"#);
    (CONF_CHANGE, v2files::conf_change(ADD_NODE, id as u64, &member))
}

#[test]
fn members_that_the_log_adds() {
    grows_like_the_source(2_000, |dir, size| {
        let start = snapshot(dir, &members(1));
        entries(dir, &start, (200..200 + size).map(added));
        Vec::new()
    });
}

#[test]
fn updates_of_members_that_the_snapshot_has() {
    grows_like_the_source(2_000, |dir, size| {
        let start = snapshot(dir, &members(size));
        let update = |id| {
            let member = format!(r#"{{"id":{id},"peerURLs":["http://new-{id}"]}}"#);
            (CONF_CHANGE, v2files::conf_change(UPDATE_NODE, id as u64, &member))
        };
        entries(dir, &start, (100..100 + size).map(update));
        Vec::new()
    });
}

#[test]
fn attributes_of_members_that_the_snapshot_has() {
    grows_like_the_source(2_000, |dir, size| {
        let start = snapshot(dir, &members(size));
        let attributes = |id| {
            let path = format!("/0/members/{id:x}/attributes");
            (NORMAL, v2files::put_request(id as u64, &path, br#"{"name":"n"}"#))
        };
        entries(dir, &start, (100..100 + size).map(attributes));
        options("--source-version 3.4")
    });
}

/// This many keys below `/k`, and roles and users as given.
fn with_auth(dir_path: &Path, keys: usize, roles: impl Iterator<Item = String>, users: impl Iterator<Item = String>) {
    let keys = joined((0..keys).map(|at| file(&format!("/1/k/{at}"), "v")));
    let role = |(at, json): (usize, String)| file(&format!("/2/roles/r{at}"), &json);
    let user = |(at, json): (usize, String)| file(&format!("/2/users/u{at}"), &json);
    let auth = [
        dir("/2/roles", &joined(roles.enumerate().map(role))),
        dir("/2/users", &joined(users.enumerate().map(user))),
        file("/2/enabled", "false"),
    ];
    snapshot(dir_path, &[dir("/1", &dir("/1/k", &keys)), dir("/2", &auth.join(","))].join(","));
}

fn role(read: impl Iterator<Item = String>) -> String {
    let read = joined(read.map(|pattern| format!("{pattern:?}")));
    format!(r#"{{"permissions":{{"kv":{{"read":[{read}],"write":[]}}}}}}"#)
}

#[test]
fn roles_and_renamed_keys() {
    grows_like_the_source(4_000, |dir, size| {
        let of_one = |at| role([format!("/k/{at}"), format!("/none/{at}/*")].into_iter());
        with_auth(dir, size, (0..size).map(of_one), std::iter::empty());
        options("--map /k=/new")
    });
}

#[test]
fn users_of_a_large_role() {
    grows_like_the_source(4_000, |dir, size| {
        let large = role((0..size).map(|at| format!("/k/{at}")));
        let roles = [large.clone(), large].into_iter();
        with_auth(dir, 1, roles, (0..size).map(|_| r#"{"roles":["r0","r1"]}"#.to_string()));
        Vec::new()
    });
}

#[test]
fn roles_that_rules_rename() {
    grows_like_the_source(4_000, |dir, size| {
        with_auth(dir, 1, (0..size).map(|at| role([format!("/k/{at}/*")].into_iter())), std::iter::empty());
        rules(dir, (0..size).map(|at| format!("[[rename]]\nprefix = \"/k/{at}/\"\nto = \"/n/{at}\"\n")))
    });
}

fn rules(dir: &Path, rules: impl Iterator<Item = String>) -> Vec<OsString> {
    let path = dir.join("rules.toml");
    fs::write(&path, rules.collect::<String>()).unwrap();
    vec!["--rules".into(), path.into()]
}

fn rule_for_each_key(size: usize, rule: fn(usize) -> String) {
    grows_like_the_source(size, |dir, size| {
        with_auth(dir, size, std::iter::empty(), std::iter::empty());
        rules(dir, (0..size).map(rule))
    });
}

#[test]
fn rules_that_choose_keys() {
    rule_for_each_key(6_000, |at| format!("[[choose]]\ninclude = \"/k/{at}\"\n"));
}

#[test]
fn rules_that_rename_keys() {
    rule_for_each_key(6_000, |at| format!("[[rename]]\nprefix = \"/k/{at}\"\nto = \"/n/{at}\"\n"));
}

#[test]
fn rules_that_decode_values() {
    rule_for_each_key(6_000, |at| format!("[[value]]\nprefix = \"/other/k/{at}\"\ndecode = \"base64\"\n"));
}

#[test]
fn policies_for_ttls() {
    grows_like_the_source(6_000, |path, size| {
        let key = |at| Node::file(&format!("/1/k/{at}"), 5, "v").expires("2199-01-01T00:00:00Z").child();
        snapshot(path, &dir("/1", &dir("/1/k", &joined((0..size).map(key)))));
        rules(path, (0..size).map(|at| format!("[[ttl]]\nprefix = \"/k/{at}\"\npolicy = \"permanent\"\n")))
    });
}
