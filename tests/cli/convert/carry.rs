//! TTLs and key rules: what the options `--ttl`, `--expired`, `--as-of`, `--map` and the others make of keys in the
//! output.
//!
//! Uses the demo directory, and small sources that are made here.

use std::fs;

use serde_json::Value;

use super::kit::{Case, Run, demo, one_line};
use crate::common::rows::Row;
use crate::common::run::etcdlift;
use crate::common::v2files::snap;
use crate::common::v2store::{leaf, leaf_until, store, store_with_events};

/// A store with a TTL on `/t` and `/e`, and an event that proves 2020-01-01T00:00:00Z.
fn with_ttls(case: &Case) -> std::path::PathBuf {
    let children = [
        leaf_until("e", 5, "1", "2019-12-31T23:59:59Z"),
        leaf_until("t", 6, "2", "2020-01-01T00:01:00Z"),
        leaf_until("u", 7, "3", "2020-01-01T00:01:00.5Z"),
        leaf("z", 8, "4"),
    ];
    let event = r#"null,{"action":"set","node":{"key":"/1/t","expiration":"2020-01-01T00:01:00Z","ttl":60}}"#;
    let text = store_with_events(9, &children.join(","), event);
    case.file("ttl.snap", snap(text.as_bytes(), 9))
}

fn names(rows: &[Row]) -> Vec<String> {
    rows.iter().map(|row| String::from_utf8(row.key.clone()).unwrap()).collect()
}

/// Runs, and makes room for the next output.
fn rows(case: &Case, source: &std::path::Path, options: &[&str]) -> (Run, Vec<Row>) {
    let run = case.run(source, options);
    let rows = run.converted(0);
    fs::remove_file(case.out()).unwrap();
    (run, rows)
}

#[test]
fn last_write_is_what_the_data_proves() {
    let case = Case::new();
    let source = with_ttls(&case);
    let (run, found) = rows(&case, &source, &["--as-of", "last-write"]);
    assert_eq!(names(&found), ["/t", "/u", "/z"]);
    assert_eq!(found.iter().map(|row| row.lease).collect::<Vec<_>>(), [1, 2, 0]);
    let report = run.report();
    assert_eq!(report["as_of"], "2020-01-01T00:00:00Z");
    assert_eq!(report["as_of_evidence"], "the snapshot's event history");
    assert!(run.output.stderr.contains("2020-01-01T00:00:00Z (the snapshot's event history)\n"));
    assert_eq!(report["contents"]["expired_keys"][0]["key"], "/e");
    // A log's SYNC entries prove it as well.
    let (run, found) = rows(&case, &demo(), &["--as-of", "last-write"]);
    assert_eq!(found.len(), 19);
    assert!(run.report()["as_of_evidence"].as_str().unwrap().contains("SYNC"), "{}", run.report());
    // Nothing is proven, and there are TTLs.
    let text = fs::read(&source).unwrap();
    let without = store(9, &leaf_until("t", 6, "2", "2030-01-01T00:00:00Z"));
    assert!(!text.is_empty());
    let bare = case.file("bare.snap", snap(without.as_bytes(), 9));
    let words = ["1 key has a TTL", "--as-of now"];
    case.run(&bare, &["--as-of", "last-write"]).refused(5, "time-unknown", &words);
    let (_, found) =
        rows(&case, &case.file("c.snap", snap(store(9, &leaf("t", 6, "")).as_bytes(), 9)), &["--as-of", "last-write"]);
    assert_eq!(found.len(), 1);
}

#[test]
fn ttl_policies_and_what_has_expired() {
    let case = Case::new();
    let source = with_ttls(&case);
    let as_of = ["--as-of", "2020-01-01T00:00:00Z"];
    let run = |options: &[&str]| rows(&case, &source, &[&as_of, options].concat());
    let leases = |found: &[Row]| found.iter().map(|row| row.lease).collect::<Vec<_>>();
    let (_, found) = run(&["--ttl", "permanent"]);
    assert_eq!((names(&found), leases(&found)), (["/t", "/u", "/z"].map(String::from).to_vec(), vec![0, 0, 0]));
    let (balance, found) = run(&["--ttl", "drop", "--ttl", "/u=fixed:5s"]);
    assert_eq!((names(&found), leases(&found)), (["/u", "/z"].map(String::from).to_vec(), vec![1, 0]));
    assert_eq!(balance.report()["balance"]["dropped"]["keys"], 1);
    assert_eq!(balance.report()["output"]["lease_list"][0]["ttl"], 5);
    let (kept, found) = run(&["--expired", "keep"]);
    assert_eq!((found.len(), leases(&found)), (4, vec![1, 2, 3, 0]));
    assert_eq!(kept.report()["output"]["lease_list"][0]["ttl"], 2);
    assert_eq!(kept.report()["contents"]["expired_keys"].as_array().unwrap().len(), 1);
    case.run(&source, &[&as_of[..], &["--ttl", "fail"]].concat()).refused(5, "ttl-present", &["2 keys", "/t"]);
    let (unused, _) = run(&["--ttl", "/nothing=drop"]);
    assert_eq!(unused.notices("warnings").iter().filter(|code| **code == "unused-rule").count(), 1);
    let strict = [&as_of[..], &["--expired", "keep", "--strict", "--ttl", "/nothing=drop"]].concat();
    case.run(&source, &strict).refused(5, "strict", &["1 expired key"]);
}

#[test]
fn rules_choose_and_rename() {
    let case = Case::new();
    let children: Vec<String> =
        ["a", "ab", "a-b", "b", "c"].iter().zip(3..).map(|(name, index)| leaf(name, index, "djE=")).collect();
    let source = case.file("rules.snap", snap(store(9, &children.join(",")).as_bytes(), 9));
    let run = |options: &[&str]| rows(&case, &source, options);
    let (report, found) = run(&["--include", "/a", "--include", "/b", "--map", "/a=/x/y", "--strip-leading-slash"]);
    assert_eq!(names(&found), ["x/y", "b"]);
    assert_eq!(report.report()["balance"]["excluded"]["keys"], 3);
    assert!(report.output.stderr.contains("renamed keys:"), "{}", report.output.story());
    let (_, found) = run(&["--exclude", "/c", "--include", "/"]);
    assert_eq!(names(&found), ["/a", "/ab", "/a-b", "/b"]);
    let (_, found) = run(&["--include", "/", "--exclude", "/c"]);
    assert_eq!(found.len(), 5);
    let (warned, _) = run(&["--exclude", "/nothing", "--map", "/none=/x"]);
    assert_eq!(warned.notices("warnings").iter().filter(|code| **code == "unused-rule").count(), 2);
    let words = ["strict", "2 rules that matched nothing"];
    case.run(&source, &["--exclude", "/nothing", "--map", "/none=/x", "--strict"]).refused(5, words[0], &words[1..]);
    case.run(&source, &["--include", "/nothing"]).refused(4, "nothing-to-convert", &["leave none of 5 v2 keys"]);
    case.run(&source, &["--map", "/a=/b"]).refused(5, "rules-failed", &["two keys", "/a", "/b"]);
    case.run(&source, &["--map", "/a="]).refused(5, "rules-failed", &["/a", "its name empty"]);

    let rules = "strip-leading-slash = true\n[[choose]]\nexclude-regex = \"^/[bc]$\"\n\
                 [[rename]]\nregex = \"^/a(.)\"\nto = \"/new${1}\"\n[[value]]\nprefix = \"/ab\"\ndecode = \"base64\"\n";
    let file = case.file("rules.toml", rules);
    let (_, found) = run(&["--rules", file.to_str().unwrap()]);
    assert_eq!(names(&found), ["a", "newb", "new-b"]);
    assert_eq!(found.iter().map(|row| &row.value[..]).collect::<Vec<_>>(), [&b"djE="[..], b"v1", b"djE="]);
    // What is typed comes first.
    let (_, found) = run(&["--include", "/b", "--rules", file.to_str().unwrap(), "--map", "/b=/q"]);
    assert_eq!(names(&found), ["q"]);
    fs::write(&file, "[[value]]\nprefix = \"/a\"\ndecode = \"base64\"\n").unwrap();
    let bad = case.file("bad.snap", snap(store(9, &leaf("a", 3, "?secret?")).as_bytes(), 9));
    let refused = case.run(&bad, &["--rules", file.to_str().unwrap()]);
    refused.refused(5, "rules-failed", &["/a", "expected base64"]);
    assert!(!refused.output.stderr.contains("secret"));
    let args = ["convert", "x", "-o", "y", "--rules", file.to_str().unwrap()];
    fs::write(&file, "nonsense").unwrap();
    let output = etcdlift(args);
    assert_eq!(output.status, 2);
    one_line(&output, &["rules.toml: ", "line 1"]);
}

#[test]
fn markers_are_renamed_with_their_directories() {
    let case = Case::new();
    let (_, found) = rows(
        &case,
        &demo(),
        &[
            "--dirs",
            "marker",
            "--include",
            "/locks",
            "--map",
            "/locks=/mutex",
            "--as-of",
            "2026-12-01T00:00:00Z",
            "--allow-empty",
        ],
    );
    assert_eq!(names(&found), ["/mutex/"]);
}

#[test]
fn the_request_limit_lists_and_never_drops() {
    let case = Case::new();
    let (run, found) = rows(&case, &demo(), &["--request-limit", "560", "--as-of", "2026-12-01T00:00:00Z"]);
    assert_eq!(found.len(), 19);
    let Value::Array(listed) = &run.report()["contents"]["oversized"] else { panic!("{}", run.report()) };
    assert!(!listed.is_empty() && listed.len() < 19, "{listed:?}");
}
