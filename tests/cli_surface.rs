//! The command line as a stranger meets it: help, version, completions, manual pages, wrong usage. No conversion here.

#![allow(clippy::unwrap_used)]

use std::process::{Command, Output, Stdio};

fn etcdlift(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_etcdlift")).args(args).stdin(Stdio::null()).output().unwrap()
}

fn stdout(args: &[&str]) -> String {
    let output = etcdlift(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn version_names_the_package() {
    assert_eq!(stdout(&["--version"]), format!("etcdlift {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn help_lists_the_commands_that_exist() {
    let help = stdout(&["--help"]);
    for name in ["convert", "inspect", "verify", "export", "lookup", "completions", "man"] {
        assert!(help.contains(&format!("\n  {name} ")), "{name}: {help}");
    }
    for later in ["compare", "check", "clean"] {
        assert!(!help.contains(&format!("\n  {later} ")), "{later} is not there yet");
    }
    assert!(help.contains("Exit status:"));
}

#[test]
fn help_of_convert_names_each_default() {
    let help = stdout(&["convert", "--help"]);
    for default in ["snapshot", "3.7", "now", "keep", "drop", "0"] {
        assert!(help.contains(&format!("[default: {default}]")), "{default}");
    }
}

#[test]
fn completions_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(stdout(&["completions", shell]).contains("target-version"), "{shell}");
    }
}

#[test]
fn manual_pages_are_roff() {
    let page = stdout(&["man"]);
    assert!(page.contains(".TH etcdlift 1") && page.contains("etcdlift\\-convert(1)"), "{page}");
    assert!(stdout(&["man", "convert"]).contains("\\-\\-wal\\-dir"));
}

#[test]
fn wrong_usage_is_status_2_and_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.db");
    let out = out.to_str().unwrap();
    let source = env!("CARGO_MANIFEST_DIR");
    for args in [
        &[][..],
        &["transmogrify"],
        &["convert"],
        &["convert", source],
        &["convert", "-o", out],
        &["convert", source, "-o", out, "--to", "data-dir"],
        &["convert", source, "-o", out, "--jobs", "none"],
        &["convert", source, "-o", out, "--skip-existing"],
        &["convert", source, "-o", "-"],
        &["convert", source, "-o", out, "--ledger", "-"],
        &["convert", source, "-o", out, "--index-map", "-"],
        &["export", source, "-o", "-", "--format", "redb"],
        &["inspect"],
        &["inspect", source, "-w", "yaml"],
        &["inspect", source, "--json", "-w", "table"],
        &["completions", "tcsh"],
        &["man", "woman"],
    ] {
        let output = etcdlift(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn nothing_is_written_into_a_source() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().to_str().unwrap();
    let inside = dir.path().join("out.db");
    let output = etcdlift(&["convert", source, "-o", inside.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(5));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("out.db: the output would be written into the source"), "{message}");
    assert_eq!(message.lines().count(), 1);
}

#[test]
fn a_report_that_cannot_be_written_is_known_before_the_work() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let output = etcdlift(&["convert", &at("source"), "-o", &at("out.db"), "--report", &at("missing/report.json")]);
    assert_eq!(output.status.code(), Some(6));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("missing/report.json: cannot write the report"), "{message}");
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_etcdlift"))
        .args(["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
}
