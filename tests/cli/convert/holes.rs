//! Sparse files: a hole takes no room on disk, and neither memory nor time.
//!
//! Uses copies of the demo directory whose log gets a hole, at its end or before data.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use super::kit::{AS_OF, Case, DEMO_SNAP, DEMO_WAL, demo};
use crate::common::run::{Output, etcdlift_path, run};
use crate::common::scratch::names;

const HUGE: u64 = 10 << 30;

/// Five seconds of processor time, and 2 GB of addresses, of which the maps are a part.
fn bounded(args: &[&str], paths: &[&Path]) -> Output {
    let script = "ulimit -t 5; ulimit -v 2000000; exec \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh", etcdlift_path()]);
    command.arg(args[0]).args(paths).args(&args[1..]);
    run(&mut command)
}

fn grow(path: &Path, len: u64) {
    fs::File::options().write(true).open(path).unwrap().set_len(len).unwrap();
}

#[test]
fn a_long_hole_at_the_end_is_not_read() {
    let case = Case::new();
    let source = case.demo();
    let expected = case.run(&demo(), &["--to", "backend"]).bytes();
    for (name, huge) in [(DEMO_WAL, HUGE), ("member/snap/db", HUGE), (DEMO_WAL, 1 << 43)] {
        grow(&source.join(name), huge);
        for live in [None, Some("--allow-live")] {
            let _ = fs::remove_file(case.out());
            let _ = fs::remove_file(case.report());
            let (out, report) = (case.out(), case.report());
            let mut args = vec!["convert", "--as-of", AS_OF, "--to", "backend", "-o", out.to_str().unwrap()];
            args.extend(["--report", report.to_str().unwrap()].into_iter().chain(live));
            let output = bounded(&args, &[&source]);
            assert_eq!(output.status, 0, "{name}: {}", output.story());
            assert!(fs::read(case.out()).unwrap() == expected, "{name}: {}", output.story());
            let report: serde_json::Value = serde_json::from_slice(&fs::read(case.report()).unwrap()).unwrap();
            let files = report["source_files"].as_array().unwrap();
            let file = files.iter().find(|file| file["path"].as_str().unwrap().ends_with(name)).unwrap();
            assert_eq!(file["bytes"], huge, "{report}");
            assert!(file["hashed_bytes"].as_u64().unwrap() < 1 << 30, "{report}");
        }
        for args in [&["inspect"][..], &["inspect", "--allow-live"], &["inspect", "--wal"], &["export", "-o", "-"]] {
            let output = bounded(args, &[&source]);
            assert_eq!(output.status, 0, "{name}, {args:?}: {}", output.story());
        }
    }
    // A hole of a size that a server preallocates is hashed as any other tool hashes it.
    let source = case.path("preallocated.etcd");
    crate::common::scratch::copy_tree(&demo(), &source);
    grow(&source.join(DEMO_WAL), 200 << 20);
    let output = bounded(&["inspect", "--json"], &[&source]).success();
    let files = output.json()["source_files"].clone();
    let sum = run(Command::new("sha256sum").arg(source.join(DEMO_WAL))).success().text();
    assert!(files.to_string().contains(&sum[..64]) && !files.to_string().contains("hashed_bytes"), "{files}");
}

#[test]
fn a_long_hole_with_data_after_it_is_damage() {
    for name in [DEMO_WAL, DEMO_SNAP, "member/snap/db"] {
        let case = Case::new();
        let source = case.demo();
        let file = source.join(name);
        grow(&file, HUGE);
        fs::File::options().write(true).open(&file).unwrap().write_all_at(b"data", HUGE).unwrap();
        for more in [None, Some("--allow-live"), Some("--salvage")] {
            let out = case.out();
            let args: Vec<&str> = ["convert", "-o", out.to_str().unwrap()].into_iter().chain(more).collect();
            let output = bounded(&args, &[&source]);
            // The log makes up for the snapshot: it begins with its first entry.
            let made = name == DEMO_SNAP;
            assert_eq!(output.status, if made { 0 } else { 3 }, "{name} {more:?}: {}", output.story());
            assert!(output.stderr.contains("found holes of"), "{name} {more:?}: {}", output.story());
            assert_eq!(names(&case.path("out")).is_empty(), !made);
            let _ = fs::remove_file(&out);
        }
    }
}
