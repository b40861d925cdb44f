//! The report: where it goes, what it contains, and that every exit status but 2 has one.
//!
//! Uses the demo directory, and small sources that are made here.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::kit::{Case, DEMO_SNAP, DEMO_WAL, demo, one_line};
use crate::common::run::{Output, etcdlift, etcdlift_path, run};
use crate::common::scratch::names;
use crate::common::v2files::{put_request, snap, write_snapshot, write_wal};
use crate::common::v2store::{leaf, store};

fn convert(source: &Path, out: &Path, options: &[&str]) -> Output {
    let args = ["convert".as_ref(), source.as_os_str(), "-o".as_ref(), out.as_os_str()];
    etcdlift(args.into_iter().chain(options.iter().map(AsRef::as_ref)))
}

#[test]
fn a_dash_is_standard_output() {
    let case = Case::new();
    let output = convert(&demo(), &case.out(), &["--report", "-"]);
    let report = output.json();
    assert_eq!((output.status, &report["reason"], &report["schema"]), (0, &Value::Null, &1.into()));
    assert!(output.stderr.contains("COMPLETE, exit status 0: "), "{}", output.story());
    let output = convert(&case.path("missing"), &case.path("out/2.db"), &["--report", "-"]);
    assert_eq!((output.status, &output.json()["reason"]), (5, &"source-missing".into()));
    one_line(&output, &["missing: "]);
}

#[test]
fn a_refused_run_still_reports_what_the_source_contains() {
    let case = Case::new();
    for (options, reason) in [(["--ttl", "fail"], "ttl-present"), (["--include", "/none"], "nothing-to-convert")] {
        let output = convert(&demo(), &case.out(), &[&options[..], &["--report", "-"]].concat());
        let report = output.json();
        assert_eq!(report["reason"], reason, "{}", output.story());
        assert_eq!((&report["contents"]["keys"], &report["contents"]["ttl"]["keys"]), (&19.into(), &1.into()));
        assert_eq!((&report["source"]["v2_index"], &report["output"]), (&51.into(), &Value::Null));
    }
}

#[test]
fn a_failed_replay_still_reports_what_the_files_contain() {
    let case = Case::new();
    let source = case.path("source");
    let snapshot = write_snapshot(&source, store(3, &leaf("a", 3, "1")).into_bytes(), 7, 2, 1, 3);
    let not_a_request = vec![0xff; 9];
    write_wal(&source, &snapshot, 1, 5, [put_request(1, "/1/b", b"2"), not_a_request].into_iter());
    let output = convert(&source, &case.out(), &["--report", "-"]);
    let report = output.json();
    assert_eq!((output.status, &report["reason"]), (3, &"damaged".into()), "{}", output.story());
    let found = &report["source"];
    assert_eq!((&found["snapshot_index"], &found["last_entry"]), (&7.into(), &9.into()), "{found}");
    assert_eq!((&found["member_id"], &found["raft_index"]), (&"1".into(), &Value::Null), "{found}");
}

#[test]
fn it_says_what_was_read_and_what_was_made() {
    let case = Case::new();
    let run = case.run(&demo(), &["--as-of", "2030-01-01T00:00:00Z"]);
    run.converted(0);
    let report = run.report();
    let bytes = run.bytes();
    assert_eq!(report["output"]["bytes"], bytes.len());
    assert_eq!(report["output"]["verified"], true);
    let files = report["source_files"].as_array().unwrap();
    let paths: Vec<&str> = files.iter().map(|file| file["path"].as_str().unwrap()).collect();
    for (name, path) in [DEMO_SNAP, DEMO_WAL, "member/snap/db"].iter().zip(&paths) {
        assert!(path.ends_with(name), "{path}");
    }
    assert_eq!(files[0]["bytes"], fs::metadata(demo().join(DEMO_SNAP)).unwrap().len());
    let inspected = etcdlift(["inspect".as_ref(), case.out().as_os_str(), "--json".as_ref()]).success().json();
    for (of_inspect, of_report) in [("revision", "revision"), ("hash_kv", "hash_kv"), ("status_hash", "status_hash")] {
        assert_eq!(inspected[of_inspect], report["output"][of_report], "{of_inspect}");
    }
    assert_eq!((&inspected["keys"], &inspected["sha256"]), (&report["balance"]["written"]["keys"], &"good".into()));
}

#[test]
fn values_never_stand_in_it() {
    let case = Case::new();
    let secret = "correct-horse-battery-staple";
    let source = case.file("a.snap", snap(store(9, &leaf("a", 8, secret)).as_bytes(), 9));
    let run = case.run(&source, &[]);
    run.converted(0);
    assert!(!fs::read_to_string(case.report()).unwrap().contains(secret));
    assert!(!run.output.stderr.contains(secret));
}

#[test]
fn wrong_usage_makes_none() {
    let case = Case::new();
    let source = demo();
    let report = case.report();
    for options in [
        &["--as-of", "yesterday"][..],
        &["--as-of", "2016-05-04T12:00:00"],
        &["--jobs", "0"],
        &["--to", "tarball"],
        &["--hidden", "maybe"],
        &["--bump-revision", "-1"],
        &["--overwrite", "--skip-existing"],
        &["--target-version", "3.3"],
        &["--nonsense"],
    ] {
        let mut options = options.to_vec();
        options.extend(["--report", report.to_str().unwrap()]);
        let output = convert(&source, &case.out(), &options);
        assert_eq!(output.status, 2, "{}", output.story());
        assert!(output.stderr.starts_with("etcdlift: error: ") && output.stdout.is_empty(), "{}", output.story());
        assert!(!report.exists() && !case.out().exists(), "{}", output.story());
    }
    let mut folder = case.path("out/new").into_os_string();
    folder.push("/");
    let output = convert(&source, Path::new(&folder), &["--report", report.to_str().unwrap()]);
    assert_eq!(output.status, 2, "{}", output.story());
    one_line(&output, &["the output is one file, but its path names a directory"]);
    assert!(!report.exists());
}

#[test]
fn a_source_is_no_place_for_it() {
    let case = Case::new();
    let source = case.demo();
    let inside = source.join("report.json");
    let output = convert(&source, &case.out(), &["--report", inside.to_str().unwrap()]);
    assert_eq!(output.status, 5, "{}", output.story());
    one_line(&output, &["the report would be written into the source"]);
    let snap = source.join(DEMO_SNAP);
    let output = convert(&snap, &snap, &["--overwrite"]);
    assert_eq!(output.status, 5, "{}", output.story());
    assert!(!inside.exists() && !case.out().exists());
}

#[test]
fn without_its_report_no_output_appears() {
    let case = Case::new();
    let output = shell(r#"exec "$0" convert "$1" -o "$2" --report - >/dev/full"#, &case);
    assert_eq!(output.status, 5, "{}", output.story());
    one_line(&output, &["standard output: cannot write: No space left on device"]);
    assert!(names(&case.path("out")).is_empty());
}

/// Runs the binary as `$0` with the demo and the output's path.
fn shell(script: &str, case: &Case) -> Output {
    let mut command = Command::new("sh");
    run(command.args(["-c", script, etcdlift_path()]).args([demo(), case.out()]))
}

#[test]
fn closed_standard_streams_do_not_change_the_outcome() {
    for closed in [">&-", "2>&-", ">&- 2>&- <&-", "2>/dev/full"] {
        let case = Case::new();
        let script = format!(r#""$0" convert "$1" -o "$2" --report "$3" {closed}"#);
        let mut command = Command::new("sh");
        command.args(["-c", &script, etcdlift_path()]);
        command.args([demo(), case.out(), case.report()]).stdout(Stdio::null()).stderr(Stdio::null());
        assert_eq!(command.status().unwrap().code(), Some(0), "{closed}");
        assert!(case.out().exists() && case.report().exists(), "{closed}");
    }
}
