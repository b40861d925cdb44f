//! A run that is interrupted ends with the signal's status and leaves nothing.
//!
//! The sources are large snapshots that are made here, so that a signal arrives while the run reads or writes.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use serde_json::Value;

use super::kit::{Case, demo};
use crate::common::run::etcdlift_path;
use crate::common::scratch::names;
use crate::common::v2files::snap;
use crate::common::v2store::{leaf, store};

#[test]
fn sigint_while_reading_is_130() {
    interrupted("INT", 130, |child, _| listens(child));
}

#[test]
fn sigterm_while_writing_is_143() {
    interrupted("TERM", 143, |_, out| !names(out).is_empty());
}

#[test]
fn a_terminal_that_hangs_up_is_129() {
    interrupted("HUP", 129, |child, _| listens(child));
}

#[test]
fn an_earlier_output_stays() {
    let case = Case::new();
    case.run(&demo(), &[]).converted(0);
    let before = [case.out(), case.report()].map(|path| fs::read(path).unwrap());
    let source = big(&case);
    let mut command = Command::new(etcdlift_path());
    command.arg("convert").arg(source).arg("-o").arg(case.out()).arg("--report").arg(case.report());
    let mut child = command.args(["--jobs", "1", "--overwrite"]).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while names(&case.path("out")).len() < 2 {
        assert!(begun.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none(), "it never writes");
        thread::sleep(Duration::from_millis(1));
    }
    let kill = Command::new("sh").args(["-c", &format!("kill -TERM {}", child.id())]).status();
    assert!(kill.unwrap().success());
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(143), "{text}");
    assert!(text.lines().last().unwrap().contains("report.json: this run's report is not written"), "{text}");
    assert!(before == [case.out(), case.report()].map(|path| fs::read(path).unwrap()), "{text}");
    assert_eq!(names(&case.path("out")), ["out.db"]);
}

/// As under nohup, and as a shell starts what runs behind `&`.
#[test]
fn ignored_signals_do_not_interrupt() {
    let case = Case::new();
    let source = big(&case);
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP INT; exec \"$@\"", "sh", etcdlift_path(), "convert"]);
    let mut child = command.arg(source).arg("-o").arg(case.out()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while !listens(&child) {
        assert!(begun.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none(), "it never listens");
        thread::sleep(Duration::from_millis(1));
    }
    for signal in ["HUP", "INT", "HUP", "INT"] {
        let kill = Command::new("sh").args(["-c", &format!("kill -{signal} {}", child.id())]).status();
        assert!(kill.unwrap().success());
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

/// `ulimit -f`: the signal that comes with it would end the process and leave the temporary file.
#[test]
fn a_file_that_may_not_grow_has_no_room() {
    let case = Case::new();
    let source = case.demo();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -f 1; exec \"$@\"", "sh", etcdlift_path(), "convert"]);
    let output = command.arg(source).arg("-o").arg(case.out()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(5), "{text}");
    assert!(text.starts_with("etcdlift: error: ") && text.contains("out.db: ") && text.lines().count() == 1, "{text}");
    assert!(names(&case.path("out")).is_empty());
}

/// Pipes that nobody reads from, and that nobody writes to.
#[test]
fn a_run_that_waits_can_be_interrupted() {
    let case = Case::new();
    let source = big(&case);
    let out = case.out();
    case.run(&case.demo(), &[]).converted(0);
    let pipe = case.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Open for both, so that there is a writer, which writes nothing.
    let _writer = fs::File::options().read(true).write(true).open(&pipe).unwrap();
    let (file, pipe) = (out.to_str().unwrap(), pipe.to_str().unwrap());
    let source = source.to_str().unwrap();
    for args in
        [vec!["export", source, "-o", "-"], vec!["inspect", source, "--keys"], vec!["verify", file, "--report", pipe]]
    {
        let mut command = Command::new(etcdlift_path());
        let mut child = command.args(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // It prints until the pipe is full, or reads the report that never comes.
        thread::sleep(Duration::from_secs(6));
        assert!(child.try_wait().unwrap().is_none(), "{args:?} does not wait");
        let kill = Command::new("sh").args(["-c", &format!("kill -TERM {}", child.id())]).status();
        assert!(kill.unwrap().success());
        let begun = Instant::now();
        while child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < Duration::from_secs(1), "{args:?} does not end");
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(child.wait().unwrap().code(), Some(143), "{args:?}");
    }
}

/// Any second signal ends the process at once, wherever it is.
#[test]
fn a_second_signal_of_another_number_ends_the_process() {
    let case = Case::new();
    let program = super::harm::executable(&case, "slow", "#!/bin/sh\ntrap '' TERM INT\ncat >/dev/null\nsleep 60\n");
    let mut command = Command::new(etcdlift_path());
    command.arg("convert").arg(case.demo()).arg("-o").arg(case.out());
    let mut child = command.args(["--transformer", &program]).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while !listens(&child) {
        assert!(begun.elapsed() < Duration::from_secs(60));
        thread::sleep(Duration::from_millis(1));
    }
    let kill = Command::new("sh").args(["-c", &format!("kill -INT {0}; kill -TERM {0}", child.id())]).status();
    assert!(kill.unwrap().success());
    let code = child.wait().unwrap().code();
    assert!(matches!(code, Some(130 | 143)) && begun.elapsed() < Duration::from_secs(30), "{code:?}");
}

fn interrupted(signal: &str, status: i32, when: impl Fn(&Child, &Path) -> bool) {
    let case = Case::new();
    let source = big(&case);
    let mut command = Command::new(etcdlift_path());
    command.arg("convert").arg(source).arg("-o").arg(case.out()).arg("--report").arg(case.report());
    let mut child = command.args(["--jobs", "1"]).stderr(Stdio::piped()).spawn().unwrap();
    let out = case.path("out");
    let mut signalled = false;
    let begun = Instant::now();
    let ended = loop {
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        if !signalled && when(&child, &out) {
            let kill = Command::new("sh").args(["-c", &format!("kill -{signal} {}", child.id())]).status();
            assert!(kill.unwrap().success());
            signalled = true;
        }
        if begun.elapsed() > Duration::from_secs(120) {
            child.kill().unwrap();
            panic!("it does not end; signalled: {signalled}");
        }
        thread::sleep(Duration::from_millis(1));
    };
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(signalled, "it was over before: {text}");
    assert_eq!(ended.code(), Some(status), "{text}");
    assert!(text.starts_with("etcdlift: error: interrupted") && text.lines().count() == 1, "{text}");
    assert!(names(&out).is_empty());
    let report: Value = serde_json::from_slice(&fs::read(case.report()).unwrap()).unwrap();
    assert_eq!((&report["reason"], &report["exit_status"]), (&"interrupted".into(), &status.into()));
}

/// Some hundred megabytes: enough to be caught at work.
pub(crate) fn big(case: &Case) -> std::path::PathBuf {
    case.file("big.snap", snap(store(300_002, &big_leaves()).as_bytes(), 9))
}

/// Whether the process already catches SIGTERM: before that, a signal ends it.
pub(crate) fn listens(child: &Child) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0");
    u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << 14) != 0
}

/// 300,000 keys with values of 256 bytes.
pub(crate) fn big_leaves() -> String {
    let value = "v".repeat(256);
    (0..300_000).map(|n| leaf(&format!("k{n:06}"), 2 + n, &value)).collect::<Vec<_>>().join(",")
}
