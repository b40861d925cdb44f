//! Several paths to one file, and paths into the source: refused before any work.
//!
//! Converts the demo directory with links, other spellings and the same file for two options.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::kit::{Case, DEMO_SNAP, demo, one_line};
use crate::common::run::{Output, etcdlift, etcdlift_path, run};
use crate::common::scratch::names;

const OPTIONS: [(&str, &str); 4] =
    [("-o", "output"), ("--report", "report"), ("--ledger", "ledger"), ("--index-map", "index map")];

fn convert(source: &Path, options: &[(&str, &Path)], more: &[&str]) -> Output {
    let mut args = vec!["convert".into(), source.as_os_str().to_owned()];
    for (option, path) in options {
        args.extend([option.into(), path.as_os_str().to_owned()]);
    }
    etcdlift(args.into_iter().chain(more.iter().map(Into::into)))
}

fn refused(output: &Output, words: &[&str]) {
    assert_eq!((output.status, output.stderr.lines().count()), (5, 1), "{}", output.story());
    assert!(words.iter().all(|word| output.stderr.contains(word)), "{words:?}: {}", output.story());
}

#[test]
fn no_two_options_name_one_file() {
    let case = Case::new();
    let out = case.path("out");
    let here = std::env::current_dir().unwrap();
    symlink("new", out.join("dangling")).unwrap();
    symlink(&out, case.path("other")).unwrap();
    let before = names(&out);
    // The way back up to the root, and down again.
    let up: PathBuf = here.components().skip(1).map(|_| "..").collect();
    let relative = up.join(out.strip_prefix("/").unwrap()).join("new");
    let new = out.join("new");
    let spellings = [new.clone(), out.join("../out/./new"), relative, case.path("other/new"), out.join("dangling")];
    for (at, (option, what)) in OPTIONS.iter().enumerate() {
        for (other_option, other) in &OPTIONS[at + 1..] {
            for spelling in &spellings {
                let report = case.report();
                let _ = fs::remove_file(&report);
                let mut options = vec![(*option, new.as_path()), (*other_option, spelling)];
                if *option != "-o" {
                    options.push(("-o", Path::new("nowhere/out.db")));
                }
                let has_report = options.iter().any(|(option, _)| *option == "--report");
                if !has_report {
                    options.push(("--report", &report));
                }
                let output = convert(&demo(), &options, &[]);
                refused(&output, &[what, other, "are the same file"]);
                assert_eq!(names(&out), before, "{}", output.story());
                // A report of its own says so as well.
                assert_eq!(report.exists(), !has_report, "{}", output.story());
                if !has_report {
                    let report: Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
                    assert_eq!((&report["reason"], &report["exit_status"]), (&"same-file".into(), &5.into()));
                }
            }
        }
    }
}

#[test]
fn a_file_with_two_names_is_one_file() {
    let case = Case::new();
    let out = case.path("out");
    let made = [out.join("out.db"), out.join("r.json")];
    let first = convert(&demo(), &[("-o", &made[0]), ("--report", &made[1])], &[]).success();
    for (file, option, what) in [(&made[0], "--ledger", "ledger"), (&made[1], "--index-map", "index map")] {
        for (name, link) in [("soft", false), ("hard", true)] {
            let path = out.join(name);
            if link {
                fs::hard_link(file, &path).unwrap()
            } else {
                symlink(file, &path).unwrap()
            }
            let bytes = made.clone().map(|path| fs::read(path).unwrap());
            let options = [("-o", made[0].as_path()), ("--report", &made[1]), (option, &path)];
            let output = convert(&demo(), &options, &["--overwrite"]);
            assert_eq!(output.status, 5, "{}", output.story());
            assert!(
                output.stderr.contains(&format!("the {what}")) || output.stderr.contains(what),
                "{}",
                output.story()
            );
            assert!(output.stderr.contains("are the same file"), "{}", output.story());
            assert_eq!(bytes, made.clone().map(|path| fs::read(path).unwrap()), "{}", first.story());
            fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn an_output_never_replaces_a_source() {
    let case = Case::new();
    let rules = case.file("rules.toml", "strip-leading-slash = true\n");
    let program = case.file("program", "#!/bin/cat\n");
    for (option, path) in [("--rules", &rules), ("--transformer", &program)] {
        let before = fs::read(path).unwrap();
        for target in ["-o", "--ledger", "--report", "--index-map"] {
            let mut options = vec![(option, path.as_path()), (target, path.as_path())];
            if target != "-o" {
                options.push(("-o", Path::new("nowhere/out.db")));
            }
            refused(&convert(&demo(), &options, &["--overwrite"]), &["are the same file"]);
            assert_eq!(fs::read(path).unwrap(), before);
        }
    }
}

#[test]
fn nothing_is_written_into_a_source_or_over_a_file_of_it() {
    let case = Case::new();
    let source = case.demo();
    let out = case.path("out");
    symlink(&source, case.path("link")).unwrap();
    symlink(source.join("member/new"), out.join("dangling")).unwrap();
    fs::hard_link(source.join(DEMO_SNAP), out.join("hard")).unwrap();
    fs::rename(source.join("member/wal"), case.path("log")).unwrap();
    symlink(case.path("log"), source.join("member/wal")).unwrap();
    let segment = fs::read_dir(case.path("log")).unwrap().next().unwrap().unwrap().path();
    let paths = [
        source.join("new"),
        source.join("member/snap/db"),
        case.path("link/member/new"),
        out.join("../link/new"),
        out.join("dangling"),
        out.join("hard"),
        case.path("log/new"),
        segment,
        source.clone(),
    ];
    let before = names(&out);
    for source in [&source, &case.path("link")] {
        for path in &paths {
            for (option, what) in OPTIONS {
                let other = out.join("out.db");
                let mut options = vec![(option, path.as_path())];
                if option != "-o" {
                    options.push(("-o", &other));
                }
                let output = convert(source, &options, &["--overwrite"]);
                refused(&output, &[&format!("the {what} would be written into the source, which is never changed")]);
                assert_eq!(names(&out), before, "{}", output.story());
            }
            let args = ["export", source.to_str().unwrap(), "-o", path.to_str().unwrap(), "--overwrite"];
            refused(&etcdlift(args), &["the output would be written into the source"]);
        }
    }
    // A log that lives elsewhere, and the second of two members.
    let wal_dir = case.path("log");
    let output = convert(&demo(), &[("-o", &case.path("log/x")), ("--wal-dir", &wal_dir)], &[]);
    refused(&output, &["into the source"]);
    let args = ["convert", demo().to_str().unwrap(), source.to_str().unwrap(), "-o"].map(String::from);
    let inside = source.join("x").to_str().unwrap().to_string();
    refused(&etcdlift(args.into_iter().chain([inside])), &["into the source"]);
}

#[test]
fn a_dash_is_no_file() {
    let case = Case::new();
    let folder = case.path("out");
    let program = etcdlift_path();
    let command = |args: &[&str]| {
        let mut command = std::process::Command::new("timeout");
        command.args(["60", program]).args(args).current_dir(&folder);
        run(&mut command)
    };
    let demo = demo();
    let demo = demo.to_str().unwrap();
    for (args, option) in [
        (&["convert", demo, "-o", "-"][..], "--output -"),
        (&["convert", demo, "-o", "out.db", "--ledger", "-"], "--ledger -"),
        (&["convert", demo, "-o", "out.db", "--index-map", "-"], "--index-map -"),
        (&["export", demo, "-o", "-", "--format", "redb"], "standard output"),
    ] {
        let output = command(args);
        assert_eq!(output.status, 2, "{}", output.story());
        one_line(&output, &[option]);
        assert!(output.stdout.is_empty(), "{}", output.story());
        assert!(names(&case.path("out")).is_empty(), "{}", output.story());
    }
    assert!(command(&["export", demo, "-o", "-"]).success().text().lines().count() > 19);
    command(&["convert", demo, "-o", "./-"]).success();
    assert_eq!(names(&case.path("out")), ["-"]);
}
