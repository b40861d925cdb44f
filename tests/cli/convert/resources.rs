//! What a long run shows on a terminal, and `--memory-limit`.
//!
//! The sources are made here, large enough for a run of some seconds. The terminal is that of `script`.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use std::{fs, thread};

use etcdlift::options::ConvertOptions;
use etcdlift::{Activity, Observer, Run};

use super::kit::Case;
use super::signals::{big, big_leaves};
use crate::common::run::etcdlift_path;
use crate::common::skip::{Need, skip};
use crate::common::v2files;
use crate::common::v2store::{leaf, store};
use crate::test_name;

const ERASE: &str = "\r\u{1b}[K";

#[test]
fn a_long_run_on_a_terminal_shows_what_it_is_at_and_a_clean_summary() {
    let Some(text) = on_a_terminal(test_name!(), "auto") else { return };
    let (line, summary) = text.rsplit_once(ERASE).unwrap_or_else(|| panic!("no line: {text:?}"));
    assert!(line.starts_with("\retcdlift: "), "{text:?}");
    assert!(!line.contains('\n'), "it is one line: {text:?}");
    assert!(summary.starts_with("COMPLETE") && summary.contains("300000 keys"), "{text:?}");
}

#[test]
fn progress_never_shows_none() {
    let Some(text) = on_a_terminal(test_name!(), "never") else { return };
    assert!(text.starts_with("COMPLETE") && !text.contains('\u{1b}'), "{text:?}");
}

/// What a conversion that is held up for more than a second writes to a terminal.
fn on_a_terminal(test: &str, progress: &str) -> Option<String> {
    if Command::new("script").arg("--version").output().is_err() {
        skip(test, Need::Machine, "there is no `script` to make a terminal");
        return None;
    }
    let case = Case::new();
    let source = big(&case);
    let program = etcdlift_path();
    let (source, out) = (source.display(), case.out());
    let words = format!(
        "exec '{program}' convert '{source}' -o '{}' --jobs 1 --progress {progress} --color never",
        out.display()
    );
    let mut script = Command::new("timeout");
    script.args(["-k", "5", "120", "script", "-qefc", &words, "/dev/null"]);
    script.env("TERM", "xterm").env_remove("CI").stdin(Stdio::null()).stdout(Stdio::piped());
    let child = script.spawn().unwrap();
    hold_up(child.id(), &case.path("out"));
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n");
    assert!(output.status.success(), "{text}");
    Some(text)
}

/// Stops the conversion below this process for a while, once it writes.
fn hold_up(ancestor: u32, out: &Path) {
    let begun = Instant::now();
    while fs::read_dir(out).unwrap().next().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it never writes");
        thread::sleep(Duration::from_millis(1));
    }
    let line: Vec<u32> = std::iter::successors(Some(ancestor), |pid| child_of(*pid)).collect();
    let kill =
        |name: &str, pid: &u32| Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().unwrap();
    assert!(kill("STOP", line.last().unwrap()).success());
    thread::sleep(Duration::from_millis(1200));
    // Those above may have stopped with it.
    assert!(line.iter().rev().all(|pid| kill("CONT", pid).success()));
}

fn child_of(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// What an observer was told: the bytes that each stage announced, and those that it processed.
#[derive(Default)]
struct Told(Mutex<Vec<(Activity, u64, u64)>>);

impl Observer for Told {
    fn stage(&self, activity: Activity) {
        self.0.lock().unwrap().push((activity, 0, 0));
    }

    fn expect(&self, bytes: u64) {
        self.0.lock().unwrap().last_mut().unwrap().1 += bytes;
    }

    fn advance(&self, bytes: u64) {
        self.0.lock().unwrap().last_mut().unwrap().2 += bytes;
    }
}

#[test]
fn each_stage_processes_the_bytes_that_it_announced() {
    let case = Case::new();
    let dir = case.path("big.etcd");
    let leaves: Vec<String> = (0..200_000).map(|n| leaf(&format!("k{n:06}"), 2 + n, &"v".repeat(50))).collect();
    let document = store(300_002, &leaves.join(","));
    let document_len = document.len() as u64;
    let start = v2files::write_snapshot(&dir, document.into_bytes(), 300_010, 2, 1, 300_002);
    v2files::write_wal(&dir, &start, 1, 7, (0..1000).map(|n| v2files::put_request(n + 1, "/1/more", &[b'v'; 300])));
    let mut options = ConvertOptions::new(&dir, case.out());
    options.ledger = Some(case.path("out").join("ledger.ndjson"));
    options.index_map = Some(case.path("out").join("map.redb"));
    let told = Told::default();
    Run::new().observed(&told).convert(&options).unwrap();
    let told = told.0.into_inner().unwrap();
    let names: Vec<Activity> = told.iter().map(|(activity, ..)| *activity).collect();
    assert_eq!(names, Activity::ALL);
    let output_len = fs::metadata(case.out()).unwrap().len();
    for (activity, announced, done) in told {
        // A stage may end within the last part that it would have counted.
        let (least, rest) = match activity {
            Activity::Opening | Activity::CheckingSource => (document_len, 0),
            Activity::Reading => (document_len, 1 << 20),
            Activity::Replaying => (300_000, 0),
            Activity::Planning => (document_len / 2, document_len / 2),
            Activity::Writing => (output_len - 32, 4 * 4096),
            // Pages are read more than once on the way to others.
            Activity::Verifying => (5 * (output_len - 32), output_len / 2),
            Activity::Ledger | Activity::IndexMap => (output_len / 2, 0),
            Activity::Finishing => (0, 0),
        };
        assert!(announced >= least, "{activity}: announced {announced}, expected {least}");
        assert!(done + rest >= announced, "{activity}: announced {announced}, done {done}");
        assert!(done <= announced + announced / 10, "{activity}: announced {announced}, done {done}");
    }
}

/// The memory that a refusal names is enough for the same run, with each kind of output.
#[test]
fn the_memory_that_is_named_is_enough() {
    let case = Case::new();
    let source = big(&case);
    let at = |name: &str| case.path("out").join(name).to_str().unwrap().to_string();
    let (map, ledger) = (at("i.redb"), at("l.ndjson"));
    // The same keys in a data directory, with a log: it may be copied before it is read, and compared with other
    // starts.
    let dir = case.path("big.etcd");
    let keys = store(300_002, &big_leaves());
    let start = v2files::write_snapshot(&dir, keys.into_bytes(), 300_010, 2, 1, 300_002);
    v2files::write_wal(&dir, &start, 1, 7, (0..10).map(|n| v2files::put_request(n + 1, "/1/more", b"v")));
    for (source, options) in [
        (&source, &["--jobs", "1"][..]),
        (&source, &["--jobs", "4", "--ledger", &ledger]),
        (&source, &["--jobs", "1", "--index-map", &map]),
        (&dir, &["--jobs", "1", "--salvage"]),
        (&dir, &["--jobs", "1", "--allow-live"]),
    ] {
        // Once the log is read, more may be known to be needed.
        let named_at = |limit: &str| {
            let refused = case.run(source, &[options, &["--memory-limit", limit]].concat());
            let named = refused.output.stderr.split("about ").nth(1).and_then(|rest| rest.split(' ').next());
            let _ = fs::remove_file(case.out());
            named.map(str::to_string)
        };
        let first = named_at("1MB").unwrap();
        let named = &named_at(&first).unwrap_or(first);
        for name in ["i.redb", "l.ndjson"] {
            let _ = fs::remove_file(case.path("out").join(name));
        }
        let mut command = Command::new(etcdlift_path());
        command.args(["convert".as_ref(), source.as_os_str(), "-o".as_ref(), case.out().as_os_str()]);
        let mut child = command.args(["--memory-limit", named]).args(options).stderr(Stdio::piped()).spawn().unwrap();
        let status = format!("/proc/{}/status", child.id());
        let mut most = 0;
        while child.try_wait().unwrap().is_none() {
            let text = fs::read_to_string(&status).unwrap_or_default();
            let anonymous = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
            let kib = anonymous.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            most = most.max(kib.unwrap_or(0) << 10);
            thread::sleep(Duration::from_millis(1));
        }
        let named: u64 = named.parse().unwrap();
        let output = child.wait_with_output().unwrap();
        let story = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(0 | 8)), "{options:?}: {named} bytes named: {story}");
        assert!(most > named / 4, "{options:?}: {most} of {named} bytes seen");
        assert!(most <= named, "{options:?}: {most} bytes, named were {named}");
        for name in ["out.db", "i.redb", "l.ndjson"] {
            let _ = fs::remove_file(case.path("out").join(name));
        }
    }
}

#[test]
fn more_memory_than_allowed_is_refused_before_the_work() {
    let case = Case::new();
    let source = big(&case);
    let words = ["big.snap: ", "bytes of memory", "the tree", "--memory-limit allows 30000000", "raise --memory-limit"];
    let refused = case.run(&source, &["--memory-limit", "30000000", "--jobs", "1"]);
    refused.refused(5, "memory-limit", &words);
    // Nothing was read but the checksum and the marks.
    assert!(refused.report()["source_files"].as_array().unwrap().is_empty());
    let named = refused.output.stderr.split("about ").nth(1).unwrap().split(' ').next().unwrap();
    let enough = case.run(&source, &["--memory-limit", named, "--jobs", "1"]);
    assert_eq!(enough.converted(0).len(), 300_000);
    let bytes = enough.bytes();
    fs::remove_file(case.out()).unwrap();
    let unlimited = case.run(&source, &[]);
    unlimited.converted(0);
    assert!(unlimited.bytes() == bytes, "the bytes depend on the limit");
}
