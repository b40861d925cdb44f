//! What a run shows while it takes long.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::common::skip::{Need, skip};
use super::kit::Case;
use super::signals::big;
use crate::test_name;

const ERASE: &str = "\r\u{1b}[K";

#[test]
fn a_long_run_on_a_terminal_shows_what_it_is_at_and_a_clean_summary() {
    let Some(text) = on_a_terminal(test_name!(), "auto") else { return };
    let (line, summary) = text.rsplit_once(ERASE).unwrap_or_else(|| panic!("no line: {text:?}"));
    assert!(line.starts_with("\retcdlift: "), "{text:?}");
    assert!(!line.contains('\n'), "it is one line: {text:?}");
    assert!(summary.starts_with("kind:") && summary.contains("300000 keys"), "{text:?}");
}

#[test]
fn progress_never_shows_none() {
    let Some(text) = on_a_terminal(test_name!(), "never") else { return };
    assert!(text.starts_with("kind:") && !text.contains('\u{1b}'), "{text:?}");
}

/// What a conversion that is held up for more than a second writes to a terminal.
fn on_a_terminal(test: &str, progress: &str) -> Option<String> {
    if Command::new("script").arg("--version").output().is_err() {
        skip(test, Need::Machine, "there is no `script` to make a terminal");
        return None;
    }
    let case = Case::new();
    let source = big(&case);
    let program = env!("CARGO_BIN_EXE_etcdlift");
    let (source, out) = (source.display(), case.out());
    let words = format!("exec '{program}' convert '{source}' -o '{}' --jobs 1 --progress {progress}", out.display());
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
