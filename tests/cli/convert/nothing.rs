//! Exit status 4 says why there is nothing: what the source holds instead of keys, where its keys went, and what helps.
//!
//! Uses the demo directory with options that leave no key, and small sources without keys that are made here.

use super::kit::{Case, DEMO_SNAP, demo};
use crate::common::v2files::snap;
use crate::common::v2store::{Node, escaped, joined, leaf, leaf_until, store, store_of};

const EMPTY: &str = "nothing-to-convert";

/// `leaf` with an expiration.
fn mortal(name: &str, index: u64, at: &str) -> String {
    leaf_until(name, index, "x", at)
}

#[test]
fn all_keys_expired_name_the_last_write_and_the_options_that_help() {
    let case = Case::new();
    let children = [mortal("a", 5, "2020-01-02T00:00:00Z"), mortal("b", 6, "2020-01-03T00:00:00Z")].join(",");
    let bare = case.file("bare.snap", snap(store(9, &children).as_bytes(), 9));
    let run = case.run(&bare, &[]);
    run.refused(4, EMPTY, &["all 2 v2 keys have expired as of", "proves no time of a write", "--expired keep"]);
    assert!(!run.output.stderr.contains("--as-of last-write"), "{}", run.output.story());

    // An event of the history proves when it was: its expiration minus its TTL.
    let event = r#"{"action":"set","node":{"key":"/a","value":"x","expiration":"2020-01-02T00:00:00Z","ttl":86400,"modifiedIndex":5,"createdIndex":5}}"#;
    let text = store(9, &children)
        .replace(r#""Events":[]"#, &format!(r#""Events":[{event}]"#))
        .replace(r#""Size":0"#, r#""Size":1"#);
    let proven = case.file("proven.snap", snap(text.as_bytes(), 9));
    let words =
        ["all 2 v2 keys have expired as of 2026-12-01", "2020-01-01T00:00:00Z", "--as-of last-write", "--expired keep"];
    case.run(&proven, &[]).refused(4, EMPTY, &words);
    let run = case.run(&proven, &["--as-of", "last-write"]);
    assert_eq!(run.converted(0).len(), 2);
    std::fs::remove_file(case.out()).unwrap();

    let one = case.file("one.snap", snap(store(9, &mortal("a", 5, "2020-01-02T00:00:00Z")).as_bytes(), 9));
    case.run(&one, &[]).refused(4, EMPTY, &["the only v2 key has expired"]);
}

#[test]
fn directories_alone_are_counted() {
    let case = Case::new();
    let dir = Node::dir("/1/d", 3, "").child();
    let source = case.file("dirs.snap", snap(store(9, &dir).as_bytes(), 9));
    case.run(&source, &[]).refused(4, EMPTY, &["holds no v2 key, only 1 directory", "--dirs marker"]);
    assert_eq!(case.run(&source, &["--dirs", "marker"]).converted(0).len(), 1);
}

#[test]
fn users_alone_are_counted() {
    let case = Case::new();
    let user =
        r#"{"user":"bob","password":"$2a$10$gmpdxBt/VUJ8CkYIjCXBQuIVUr/6Iuhe2LtXGW39ahqHVNm20BC9O","roles":null}"#;
    let users = Node::dir("/2/users", 3, &Node::file("/2/users/bob", 3, &escaped(user)).child()).child();
    let auth = Node::dir("/2", 3, &users).child();
    let text = store_of(9, &joined([auth, Node::dir("/1", 9, "").child()]), "null");
    let source = case.file("users.snap", snap(text.as_bytes(), 9));
    case.run(&source, &[]).refused(4, EMPTY, &["holds no v2 key, only 1 v2 user", "with the users and roles alone"]);
}

#[test]
fn the_options_that_left_each_key_out_are_named() {
    let case = Case::new();
    let children = [leaf("_h", 5, "x"), leaf("x", 6, "x"), mortal("t", 7, "2020-01-02T00:00:00Z")].join(",");
    let source = case.file("mixed.snap", snap(store(9, &children).as_bytes(), 9));
    let words = [
        "leave none of 3 v2 keys: 1 expired as of 2026-12-01",
        "1 excluded by a rule",
        "1 hidden and dropped by --hidden drop",
        "--expired keep",
    ];
    case.run(&source, &["--exclude", "/x", "--hidden", "drop"]).refused(4, EMPTY, &words);
    let words = ["leave none of 3 v2 keys", "3 matched by no include"];
    let run = case.run(&source, &["--include", "/nothing"]);
    run.refused(4, EMPTY, &words);
    assert!(!run.output.stderr.contains("--expired"), "{}", run.output.story());
}

#[test]
fn before_the_first_write_the_first_write_is_named() {
    let case = Case::new();
    let source = case.demo();
    std::fs::remove_file(source.join(DEMO_SNAP)).unwrap();
    std::fs::remove_file(source.join("member/snap/db")).unwrap();
    // The raft index of the first write of a key, from the log itself.
    let listed =
        crate::common::run::etcdlift(["inspect", "--wal", "--json", "--kind", "write", source.to_str().unwrap()]);
    let first =
        listed.text().lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()).find_map(|line| {
            line["key"]
                .as_str()
                .is_some_and(|key| !key.starts_with("/0/"))
                .then(|| line["raft_index"].as_u64().unwrap())
        });
    let first = first.unwrap_or_else(|| panic!("{}", listed.story()));
    let before = (first - 1).to_string();
    let words = [&format!("holds no v2 key at raft index {before}")[..], &format!("log is at raft index {first}")];
    case.run(&source, &["--up-to-index", &before]).refused(4, EMPTY, &words);
    assert_eq!(case.run(&source, &["--up-to-index", &first.to_string()]).converted(0).len(), 1);
    assert!(demo().is_dir());
}
