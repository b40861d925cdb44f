//! What a run may replace: nothing without `--overwrite`, and no file of a successful run by a run without an output.
//!
//! Converts the demo directory over an output, a report, a ledger and an index map of an earlier run.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::kit::{AS_OF, Case, DEMO_WAL, demo};
use crate::common::run::{Output, etcdlift, read_json};
use crate::common::scratch::{edit, names};

/// A conversion of the demo with every file that one can make, in `out`.
struct Files {
    case: Case,
    made: Vec<(PathBuf, Vec<u8>)>,
}

const NAMES: [(&str, &str); 4] =
    [("-o", "out.db"), ("--report", "r.json"), ("--ledger", "l.ndjson"), ("--index-map", "i.redb")];

impl Files {
    fn new() -> Files {
        let mut files = Files { case: Case::new(), made: Vec::new() };
        assert_eq!(files.run(&demo(), &[]).status, 0);
        files.made = NAMES.iter().map(|(_, name)| (files.at(name), fs::read(files.at(name)).unwrap())).collect();
        files
    }

    fn at(&self, name: &str) -> PathBuf {
        self.case.path("out").join(name)
    }

    fn run(&self, source: &Path, options: &[&str]) -> Output {
        self.run_to(source, &NAMES, options)
    }

    /// Runs with these files in `out`.
    fn run_to(&self, source: &Path, files: &[(&str, &str)], options: &[&str]) -> Output {
        let mut args: Vec<String> = vec!["convert".into(), source.to_str().unwrap().into()];
        for (option, name) in files {
            args.extend([option.to_string(), self.at(name).to_str().unwrap().into()]);
        }
        args.extend(["--as-of", AS_OF].iter().chain(options).map(ToString::to_string));
        etcdlift(args)
    }

    /// Asserts that every file is as the first run made it, and no other is there.
    fn unchanged(&self, output: &Output) {
        for (path, bytes) in &self.made {
            assert!(fs::read(path).unwrap() == *bytes, "{} changed: {}", path.display(), output.story());
        }
        assert_eq!(names(&self.case.path("out")), ["i.redb", "l.ndjson", "out.db", "r.json"], "{}", output.story());
    }

    fn report(&self) -> Value {
        read_json(&self.at("r.json"))
    }
}

#[test]
fn nothing_is_replaced_unless_told_so() {
    let files = Files::new();
    for (at, (option, name)) in NAMES.iter().enumerate() {
        for more in [&[][..], &["--dry-run"], &["--salvage"]] {
            // Of the four files one exists.
            let others = ["2.db", "2.json", "2.ndjson", "2.redb"];
            let mut named: Vec<(&str, &str)> =
                NAMES.iter().zip(others).map(|((option, _), name)| (*option, name)).collect();
            named[at] = (option, name);
            let output = files.run_to(&demo(), &named, more);
            assert_eq!(output.status, 5, "{}", output.story());
            let says = |words: &str| output.stderr.lines().next().unwrap().contains(words);
            assert!(says(name) && says("exists") && output.stderr.contains("--overwrite"), "{}", output.story());
            if *option != "--report" {
                // This run's own report is a new one.
                let report: Value = serde_json::from_slice(&fs::read(files.at("2.json")).unwrap()).unwrap();
                assert_eq!((&report["reason"], &report["output"]), (&"output-exists".into(), &Value::Null));
                fs::remove_file(files.at("2.json")).unwrap();
            }
            files.unchanged(&output);
        }
    }
    // It is said before anything is read.
    let output = files.run(&files.case.path("missing"), &[]);
    assert_eq!((output.status, output.stderr.contains("r.json: the report exists")), (5, true), "{}", output.story());
    files.unchanged(&output);
}

#[test]
fn overwrite_replaces_all_of_them_at_once() {
    let files = Files::new();
    let output = files.run(&demo(), &["--overwrite", "--hidden", "drop"]).success();
    for (path, bytes) in &files.made {
        assert!(fs::read(path).unwrap() != *bytes, "{} is the old one: {}", path.display(), output.story());
    }
    assert_eq!(files.report()["balance"]["dropped"]["keys"], 2);
    assert_eq!(names(&files.case.path("out")).len(), 4);
}

#[test]
fn a_run_that_makes_nothing_replaces_nothing_of_one_that_did() {
    let files = Files::new();
    let damaged = files.case.demo();
    edit(&damaged.join(DEMO_WAL), |bytes| bytes[9000] ^= 1);
    let missing = files.case.path("missing");
    let demo = demo();
    let more: [(&Path, &[&str], i32, &str); 6] = [
        (&demo, &["--dry-run"], 0, "was not written"),
        (&demo, &["--dry-run", "--hidden", "drop"], 0, "was not written"),
        (&missing, &[], 5, "missing: "),
        (&damaged, &[], 3, "wal: byte "),
        (&demo, &["--strict", "--exclude", "/none"], 5, "rule that matched nothing"),
        (&demo, &["--include", "/none"], 4, "nothing to convert"),
    ];
    for (source, options, status, words) in more {
        let output = files.run(source, &[options, &["--overwrite"]].concat());
        assert_eq!(output.status, status, "{}", output.story());
        assert!(output.stderr.contains(words), "{}", output.story());
        let last = output.stderr.lines().last().unwrap();
        assert!(last.contains("r.json: this run's report is not written"), "{}", output.story());
        files.unchanged(&output);
    }
}

#[test]
fn the_report_of_a_run_that_made_nothing_takes_overwrite_and_no_more() {
    let case = Case::new();
    let report = case.report();
    let run = |source: &Path, options: &[&str]| {
        let args =
            ["convert".as_ref(), source.as_os_str(), "-o".as_ref(), case.out().as_os_str()].map(ToOwned::to_owned);
        let more = ["--report".as_ref(), report.as_os_str()].map(ToOwned::to_owned);
        etcdlift(args.into_iter().chain(more).chain(options.iter().map(|option| option.into())))
    };
    let reason = || {
        let report: Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
        (report["exit_status"].as_i64().unwrap(), report["reason"].as_str().map(str::to_string))
    };
    let missing = case.path("missing");
    assert_eq!(run(&missing, &[]).status, 5);
    assert_eq!(reason(), (5, Some("source-missing".into())));
    assert_eq!(run(&demo(), &[]).status, 5);
    assert_eq!(reason(), (5, Some("source-missing".into())));
    assert_eq!(run(&demo(), &["--overwrite", "--dry-run"]).status, 0);
    assert_eq!(reason(), (0, None));
    assert_eq!(run(&missing, &["--overwrite"]).status, 5);
    assert_eq!(reason(), (5, Some("source-missing".into())));
    assert_eq!(run(&demo(), &["--overwrite"]).status, 0);
    assert_eq!(reason(), (0, None));
    assert!(case.out().exists());
}

#[test]
fn a_sidecar_file_replaces_one_of_its_kind_only() {
    let files = Files::new();
    let export = files.case.path("export.redb");
    let args =
        ["export", demo().to_str().unwrap(), "-o", export.to_str().unwrap(), "--format", "redb"].map(String::from);
    etcdlift(args).success();
    let notes = b"notes of mine\n".to_vec();
    let json = br#"{"schema": 1, "exit_status": 0}"#.to_vec();
    for (name, words, others) in [
        (
            "r.json",
            "no report of etcdlift",
            vec![notes.clone(), json, files.made[2].1.clone(), files.made[0].1.clone()],
        ),
        ("l.ndjson", "no ledger of etcdlift", vec![notes.clone(), files.made[1].1.clone(), files.made[3].1.clone()]),
        ("i.redb", "no index map of etcdlift", vec![notes, files.made[1].1.clone(), fs::read(&export).unwrap()]),
    ] {
        for other in others {
            fs::write(files.at(name), &other).unwrap();
            let output = files.run(&demo(), &["--overwrite"]);
            assert_eq!(output.status, 5, "{}", output.story());
            let first = output.stderr.lines().next().unwrap();
            assert!(first.contains(name) && first.contains(words), "{}", output.story());
            assert!(fs::read(files.at(name)).unwrap() == other, "{}", output.story());
            let made = files.made.iter().find(|(path, _)| *path == files.at(name)).unwrap();
            fs::write(&made.0, &made.1).unwrap();
            files.unchanged(&output);
        }
        // There is nothing to lose in an empty file.
        fs::write(files.at(name), "").unwrap();
        files.run(&demo(), &["--overwrite"]).success();
        // A report tells of its own time.
        fs::write(files.at("r.json"), &files.made[1].1).unwrap();
    }
}
