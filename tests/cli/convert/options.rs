//! What each option of `convert` does to the output.
//!
//! Uses the demo directory, and small sources that are made here. One test needs the real bbolt.

use std::fs;

use super::kit::{Case, DEMO_SNAP, demo, meta, rows};
use crate::common::peers;
use crate::common::rows::Row;
use crate::common::run::{etcdlift, read_json};
use crate::common::v2files::snap;
use crate::common::v2store::{leaf, leaf_until, store};
use crate::test_name;

/// The demo converted with these options.
fn made(options: &[&str]) -> (Case, Vec<Row>) {
    let case = Case::new();
    let rows = case.run(&demo(), options).converted(0);
    (case, rows)
}

fn keys(rows: &[Row]) -> Vec<String> {
    let mut keys: Vec<String> = rows.iter().map(|row| String::from_utf8(row.key.clone()).unwrap()).collect();
    keys.sort();
    keys
}

#[test]
fn to_backend_is_the_database_without_its_trailer() {
    let (snapshot, expected) = made(&[]);
    let (backend, rows) = made(&["--to", "backend"]);
    assert_eq!(rows, expected);
    let (with, without) = (fs::read(snapshot.out()).unwrap(), fs::read(backend.out()).unwrap());
    assert_eq!((with.len(), without.len() % 4096), (without.len() + 32, 0));
    assert_eq!((meta(&snapshot.out(), "consistent_index"), meta(&snapshot.out(), "term")), (1, 1));
    // It continues at the end of this member's log.
    assert_eq!((meta(&backend.out(), "consistent_index"), meta(&backend.out(), "term")), (55, 2));
}

#[test]
fn bbolt_accepts_both_forms() {
    let Some(peers) = peers::require(test_name!()) else { return };
    for form in ["snapshot", "backend"] {
        let (case, _) = made(&["--to", form]);
        let check = peers.check(&case.out());
        assert_eq!(check.status, 0, "{}", check.story());
    }
}

#[test]
fn the_target_version_changes_the_next_step_and_no_byte() {
    let case = Case::new();
    let outputs = ["3.4", "3.5", "3.6", "3.7"].map(|version| {
        let run = case.run(&demo(), &["--target-version", version]);
        run.converted(0);
        let tool = if version == "3.4" { "ETCDCTL_API=3 etcdctl snapshot restore" } else { "etcdutl snapshot restore" };
        assert!(run.output.stderr.contains(tool), "{}", run.output.story());
        let bytes = run.bytes();
        fs::remove_file(&run.out).unwrap();
        bytes
    });
    assert!(outputs.iter().all(|output| *output == outputs[0]));
}

#[test]
fn hidden_drop_leaves_out_hidden_keys_and_counts_them() {
    let case = Case::new();
    let run = case.run(&demo(), &["--hidden", "drop"]);
    let kept = keys(&run.converted(0));
    let (_, all) = made(&[]);
    let gone: Vec<String> = keys(&all).into_iter().filter(|key| !kept.contains(key)).collect();
    assert_eq!(gone, ["/_internal/lock", "/services/_leader"]);
    assert_eq!((kept.len(), &run.report()["balance"]["dropped"]["keys"]), (17, &2.into()));
}

#[test]
fn nothing_left_is_status_4_unless_an_empty_database_is_wanted() {
    let case = Case::new();
    let hidden = case.file("hidden.snap", snap(store(9, &leaf("_a", 8, "x")).as_bytes(), 9));
    let words = ["nothing to convert", "none of 1 v2 key", "--allow-empty"];
    case.run(&hidden, &["--hidden", "drop"]).refused(4, "nothing-to-convert", &words);
    let empty = case.file("empty.snap", snap(store(9, "").as_bytes(), 9));
    case.run(&empty, &[]).refused(4, "nothing-to-convert", &["holds no v2 key", "--allow-empty"]);
    let run = case.run(&empty, &["--allow-empty"]);
    assert!(run.converted(0).is_empty());
    assert_eq!(run.report()["output"]["revision"], 9);
}

#[test]
fn dirs_marker_writes_a_key_for_an_empty_directory() {
    let (_, with) = made(&["--dirs", "marker"]);
    let (_, without) = made(&[]);
    let markers: Vec<&Row> = with.iter().filter(|row| !without.contains(row)).collect();
    assert_eq!(markers.len(), 1);
    let marker = markers[0];
    assert_eq!((&marker.key[..], &marker.value[..]), (&b"/locks/"[..], &b""[..]));
    assert_eq!(with.len(), without.len() + 1);
}

#[test]
fn dense_revisions_go_from_2_in_the_order_of_the_old_ones() {
    let (case, dense) = made(&["--revisions", "dense"]);
    let (_, kept) = made(&[]);
    let revisions: Vec<i64> = dense.iter().map(|row| row.modified).collect();
    assert_eq!(revisions, (2..=20).collect::<Vec<i64>>());
    assert!(dense.iter().all(|row| row.create == row.modified));
    let names = |rows: &[Row]| rows.iter().map(|row| (row.key.clone(), row.value.clone())).collect::<Vec<_>>();
    assert_eq!(names(&dense), names(&kept));
    assert_eq!(read_json(&case.report())["output"]["revision"], 20);
}

#[test]
fn bump_revision_raises_what_v3_goes_on_from() {
    let (case, bumped) = made(&["--bump-revision", "1000"]);
    assert_eq!(bumped, made(&[]).1);
    let output = &read_json(&case.report())["output"];
    assert_eq!((&output["revision"], &output["compact_revision"]), (&1051.into(), &1051.into()));
    assert_eq!(meta(&case.out(), "finishedCompactRev"), 1051);
    assert_eq!(meta(&case.out(), "scheduledCompactRev"), 1051);
    for far in ["4611686018427387904", "18446744073709551615"] {
        let case = Case::new();
        case.run(&demo(), &["--bump-revision", far]).refused(5, "index-range", &["2^62"]);
    }
}

#[test]
fn a_dry_run_tells_the_same_and_writes_nothing() {
    let case = Case::new();
    let dry = case.run(&demo(), &["--dry-run"]);
    assert_eq!(dry.output.status, 0, "{}", dry.output.story());
    assert!(dry.output.stderr.starts_with("COMPLETE, exit status 0, dry run: "), "{}", dry.output.story());
    assert!(!case.out().exists());
    let real = case.run(&demo(), &[]);
    real.converted(0);
    let (mut told, mut true_one) = (dry.report()["output"].clone(), real.report()["output"].clone());
    assert_eq!((&told["verified"], &true_one["verified"]), (&false.into(), &true.into()));
    told["verified"] = true_one["verified"].take();
    true_one["verified"] = told["verified"].clone();
    assert_eq!(told, true_one);
    assert_eq!(dry.report()["balance"], real.report()["balance"]);
}

#[test]
fn neither_jobs_nor_verification_change_a_byte() {
    let case = Case::new();
    let value =
        |n: u64| if n.is_multiple_of(3) { r#"{\"a\":\"\u003cb\u003e\"}\n"#.repeat(20) } else { "v".repeat(400) };
    let big: Vec<String> = (0..20_000).map(|n| leaf(&format!("k{n:05}"), 2 + n * 7919 % 20_011, &value(n))).collect();
    let source = case.file("big.snap", snap(store(30_000, &big.join(",")).as_bytes(), 9));
    let (map, ledger) = (case.path("map.redb"), case.path("ledger.ndjson"));
    let sidecars = ["--index-map", map.to_str().unwrap(), "--ledger", ledger.to_str().unwrap()];
    for more in [&[][..], &sidecars] {
        let outputs = [&["--jobs", "1"][..], &["--jobs", "2"], &["--jobs", "8"], &["--no-verify"]].map(|options| {
            let run = case.run(&source, &[options, more].concat());
            assert_eq!(run.converted(0).len(), 20_000);
            let said = if options[0] == "--no-verify" {
                "COMPLETE, exit status 0, NOT verified: "
            } else {
                "COMPLETE, exit status 0: "
            };
            assert!(run.output.stderr.contains(said), "{}", run.output.story());
            let files = [&run.out, &map, &ledger].map(|path| fs::read(path).ok());
            assert_eq!(files.iter().flatten().count(), if more.is_empty() { 1 } else { 3 });
            [&run.out, &map, &ledger].into_iter().for_each(|path| drop(fs::remove_file(path)));
            (files, run.report()["output"]["hash_kv"].clone(), run.report()["output"]["status_hash"].clone())
        });
        assert!(outputs.iter().all(|output| output.1 == outputs[0].1 && output.2 == outputs[0].2));
        for (at, name) in ["the output", "the index map", "the ledger"].into_iter().enumerate() {
            assert!(outputs.iter().all(|output| output.0[at] == outputs[0].0[at]), "{name}, {more:?}");
        }
    }
}

#[test]
fn as_of_counts_what_has_expired() {
    let case = Case::new();
    for (instant, shown, expired) in [
        ("2099-06-01T00:00:00Z", "2099-06-01T00:00:00Z", 1),
        ("2099-06-01T01:30:00+02:00", "2099-05-31T23:30:00Z", 1),
        ("1999-12-31T23:59:59.5-08:00", "2000-01-01T07:59:59.5Z", 0),
    ] {
        let run = case.run(&demo(), &["--as-of", instant]);
        assert_eq!(run.converted(0).len(), 19 - expired);
        fs::remove_file(case.out()).unwrap();
        let report = run.report();
        assert_eq!((&report["as_of"], &report["contents"]["expired"]["keys"]), (&shown.into(), &expired.into()));
        let said = format!("1, {expired} expired as of {shown}\n");
        assert!(run.output.stderr.contains(&said), "{}", run.output.story());
        let listed = report["contents"]["expired_keys"].as_array().map_or(0, Vec::len);
        assert_eq!((listed, &report["balance"]["expired"]["keys"]), (expired, &expired.into()));
    }
}

#[test]
fn any_instant_of_rfc_3339_can_be_counted_from() {
    let expires = |name: &str, index: u64, at: &str| leaf_until(name, index, "x", at);
    let children = [
        expires("first", 3, "0000-01-01T00:00:00Z"),
        expires("soon", 4, "2026-12-01T00:01:00Z"),
        expires("nanoseconds", 5, "2262-04-11T23:47:16.854775807Z"),
        expires("late", 6, "9999-12-30T22:00:00.999999999Z"),
        expires("last", 7, "9999-12-31T23:59:59.999999999Z"),
        leaf("stays", 8, "x"),
    ];
    let case = Case::new();
    let source = case.file("a.snap", snap(store(9, &children.join(",")).as_bytes(), 9));
    let end = "9999-12-30T22:00:00.999999999Z";
    for (as_of, shown, left) in [
        ("9999-12-31T23:59:59Z", end, &["/stays"][..]),
        ("9999-12-31T23:59:59.999999999-12:00", end, &["/stays"]),
        ("9999-12-30T22:00:00Z", "9999-12-30T22:00:00Z", &["/last", "/late", "/stays"]),
        ("2026-12-01T00:00:00Z", "2026-12-01T00:00:00Z", &["/last", "/late", "/nanoseconds", "/soon", "/stays"]),
        ("0000-01-01T00:00:00-00:01", "0000-01-01T00:01:00Z", &["/last", "/late", "/nanoseconds", "/soon", "/stays"]),
        (
            "0000-01-01T00:00:00+00:01",
            "-000001-12-31T23:59:00Z",
            &["/first", "/last", "/late", "/nanoseconds", "/soon", "/stays"],
        ),
    ] {
        let run = case.run(&source, &["--as-of", as_of]);
        assert_eq!(keys(&run.converted(0)), left, "{as_of}");
        assert_eq!(run.report()["as_of"], shown);
        assert_eq!(run.report()["balance"]["expired"]["keys"], 6 - left.len());
        let verified =
            etcdlift(["verify".as_ref(), run.out.as_os_str(), "--report".as_ref(), case.report().as_os_str()]);
        verified.success();
        fs::remove_file(&run.out).unwrap();
    }
    for (policy, left) in [("keep", 6), ("drop", 1)] {
        let run = case.run(&source, &["--as-of", "9999-12-31T23:59:59Z", "--expired", policy]);
        assert_eq!(run.converted(0).len(), left);
        fs::remove_file(&run.out).unwrap();
    }
    let run = case.run(&demo(), &["--as-of", "9999-12-31T23:59:59Z"]);
    assert_eq!(run.converted(0).len(), 18);
}

#[test]
fn sizes_take_units() {
    let case = Case::new();
    let source = case.file("a.snap", snap(store(9, &leaf("a", 8, &"x".repeat(2000))).as_bytes(), 9));
    for (size, bytes, listed) in [("2k", 2048, true), ("2KiB", 2048, true), ("2kB", 2000, true), ("3000", 3000, false)]
    {
        let run = case.run(&source, &["--request-limit", size, "--memory-limit", "1 GiB"]);
        run.converted(0);
        let options = &run.report()["options"];
        assert_eq!((&options["request_limit"], &options["memory_limit"]), (&bytes.into(), &(1u64 << 30).into()));
        assert_eq!(!run.report()["contents"]["oversized"].is_null(), listed, "{size}");
        fs::remove_file(&run.out).unwrap();
    }
    case.run(&source, &["--memory-limit", "1KiB"]).refused(5, "memory-limit", &["--memory-limit allows 1024"]);
    for option in ["--memory-limit", "--request-limit"] {
        let help = etcdlift(["convert", "--help"]).success().text();
        let paragraph = help.split(option).nth(1).unwrap().split("\n      --").next().unwrap();
        assert!(paragraph.contains("<SIZE>") && paragraph.contains("KiB") || paragraph.contains("GiB"), "{paragraph}");
        for size in ["1X", "-1", "1.5MiB", "KiB", "16777216TiB"] {
            let output = etcdlift(["convert", source.to_str().unwrap(), "-o", "x", &format!("{option}={size}")]);
            assert_eq!(output.status, 2, "{}", output.story());
            assert!(output.stderr.contains("expected a size"), "{}", output.story());
        }
    }
}

#[test]
fn strict_refuses_what_would_be_a_note() {
    let case = Case::new();
    case.run(&demo(), &["--strict", "--as-of", "2099-01-01T00:00:00Z"]).refused(5, "strict", &["1 expired key\n"]);
    let strict = |children: &str, words: &[&str]| {
        let source = case.file("a.snap", snap(store(9, children).as_bytes(), 9));
        let run = case.run(&source, &["--strict"]);
        run.refused(5, "strict", words);
        assert_eq!(case.run(&source, &[]).converted(0).len(), 1);
        fs::remove_file(case.out()).unwrap();
    };
    strict(&leaf("a", 8, r"\ufffd"), &["--strict", "1 node with U+FFFD"]);
    strict(&leaf("a", 8, &"x".repeat(1_600_000)), &["--strict", "1 oversized key"]);
    // A source with nothing to object to.
    case.run(&demo(), &["--strict", "--as-of", "2000-01-01T00:00:00Z"]).converted(0);
}

#[test]
fn a_lone_snapshot_says_what_it_does_not_hold() {
    let case = Case::new();
    let run = case.run(&demo().join(DEMO_SNAP), &[]);
    assert_eq!(run.converted(0), rows(&run.out));
    let line = "warning: state at raft index 41, v2 index 39; later writes are not in this file [snapshot-only]";
    assert!(run.output.stderr.lines().any(|said| said == line), "{}", run.output.story());
}
