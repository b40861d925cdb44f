//! The place of the output: an existing file there, what may be replaced, and where nothing can be written.
//!
//! Converts the demo directory into folders that are full, protected, or not empty.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use super::kit::{AS_OF, Case, demo, one_line};
use super::sources::as_nobody;
use crate::common::run::{etcdlift_path, run};
use crate::common::scratch::{copy_tree, names};
use crate::common::skip::{Need, skip};
use crate::test_name;

#[test]
fn an_output_is_the_owners_alone() {
    let case = Case::new();
    case.run(&demo(), &[]).converted(0);
    assert_eq!(fs::metadata(case.out()).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn an_output_that_exists_is_refused_and_stays() {
    let case = Case::new();
    fs::write(case.out(), "mine").unwrap();
    for option in ["--no-verify", "--dry-run"] {
        let run = case.run(&demo(), &[option]);
        run.refused_with_files(5, "output-exists", &["out.db: ", "--overwrite"], &["out.db"]);
    }
    assert_eq!(fs::read(case.out()).unwrap(), b"mine");
}

#[test]
fn overwrite_replaces_a_regular_file() {
    let case = Case::new();
    let fresh = case.run(&demo(), &[]);
    fresh.converted(0);
    let bytes = fresh.bytes();
    fs::write(case.out(), "old").unwrap();
    let again = case.run(&demo(), &["--overwrite"]);
    again.converted(0);
    assert!(again.bytes() == bytes);
    // A run that fails leaves the old one.
    case.run(&case.path("missing"), &["--overwrite"]).refused_with_files(5, "source-missing", &[], &["out.db"]);
    assert!(again.bytes() == bytes);
}

#[test]
fn overwrite_replaces_nothing_else() {
    let case = Case::new();
    let kept = case.file("kept", "mine");
    for (overwrite, words) in [(false, "not a regular file"), (true, "not a regular file")] {
        symlink(&kept, case.out()).unwrap();
        let options: &[&str] = if overwrite { &["--overwrite"] } else { &[] };
        case.run(&demo(), options).refused_with_files(5, "output-exists", &[words], &["out.db"]);
        fs::remove_file(case.out()).unwrap();
        fs::create_dir(case.out()).unwrap();
        case.run(&demo(), options).refused_with_files(
            5,
            "output-exists",
            &["is a directory", "name a file"],
            &["out.db"],
        );
        fs::remove_dir(case.out()).unwrap();
    }
    assert_eq!(fs::read(kept).unwrap(), b"mine");
}

#[test]
fn a_place_that_cannot_hold_a_file_is_refused() {
    let case = Case::new();
    case.file("file", "x");
    for (out, words) in [
        (case.path("missing/out.db"), ["missing: ", "No such file or directory"]),
        (case.path("file/out.db"), ["file: ", "found a file"]),
        ("/proc/etcdlift.db".into(), ["/proc/etcdlift.db: ", "cannot"]),
    ] {
        for option in ["--no-verify", "--dry-run"] {
            // /proc says that it can be written to.
            if option == "--no-verify" || !out.starts_with("/proc") {
                case.run_to(&demo(), &out, &[option]).refused(6, "output-failed", &words);
            }
        }
    }
}

#[test]
fn a_folder_without_write_permission_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    fs::set_permissions(temp.path(), Permissions::from_mode(0o755)).unwrap();
    let source = temp.path().join("default.etcd");
    copy_tree(&demo(), &source);
    fs::create_dir(temp.path().join("out")).unwrap();
    fs::set_permissions(temp.path().join("out"), Permissions::from_mode(0o555)).unwrap();
    let out = temp.path().join("out/out.db");
    for option in ["--no-verify", "--dry-run"] {
        let args = ["convert".as_ref(), source.as_os_str(), "-o".as_ref(), out.as_os_str(), option.as_ref()];
        let Some(output) = as_nobody(test_name!(), &args) else { return };
        assert_eq!(output.status, 6, "{}", output.story());
        one_line(&output, &["out.db: ", "Permission denied"]);
        assert!(names(&temp.path().join("out")).is_empty());
    }
}

#[test]
fn a_full_disk_is_known_before_the_first_byte() {
    let case = Case::new();
    let (out, report) = (case.path("out/out.db"), case.report());
    let script =
        r#"mount -t tmpfs -o size=12k tmpfs "$1" || exit 99; shift; "$@"; status=$?; ls -A "$0"; exit $status"#;
    for option in ["--no-verify", "--dry-run"] {
        let _ = fs::remove_file(&report);
        let mut command = Command::new("unshare");
        command.args(["--mount", "--map-root-user", "timeout", "60", "sh", "-c", script]);
        command.args([case.path("out"), case.path("out"), etcdlift_path().into()]);
        let args: [OsString; 7] = [
            "convert".into(),
            demo().into(),
            "-o".into(),
            out.clone().into(),
            "--report".into(),
            report.clone().into(),
            option.into(),
        ];
        let output = run(command.args(args));
        if output.status == 99 || output.stderr.starts_with("unshare") {
            return skip(test_name!(), Need::Machine, "a small file system cannot be mounted");
        }
        assert_eq!(output.status, 5, "{}", output.story());
        one_line(&output, &["out.db: no room for the output of 16416 bytes", "12288 bytes are free"]);
        assert_eq!(output.text(), "", "something was left behind");
        let report: serde_json::Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
        assert_eq!(report["reason"], "no-room");
    }
}

#[test]
fn skip_existing_leaves_an_equal_output_alone() {
    let case = Case::new();
    let first = case.run(&demo(), &["--jobs", "1"]);
    first.converted(0);
    let made = fs::metadata(case.out()).unwrap();
    let report = fs::read(case.report()).unwrap();
    let again = skipping(&case, &demo(), &["--jobs", "2"]);
    assert_eq!(again.status, 0, "{}", again.story());
    assert!(again.stderr.contains(", left unchanged: "), "{}", again.story());
    let now = fs::metadata(case.out()).unwrap();
    assert_eq!((made.ino(), made.mtime_nsec()), (now.ino(), now.mtime_nsec()));
    assert_eq!(fs::read(case.report()).unwrap(), report, "the report was rewritten");
    // With nothing there it is an ordinary run, and its output is the one that the report tells of.
    fs::remove_file(case.out()).unwrap();
    let made = skipping(&case, &demo(), &[]);
    assert_eq!((made.status, made.stderr.contains("describes the same output")), (0, true), "{}", made.story());
    assert!(fs::read(case.out()).unwrap().len() > 8192);
    // An output that would need another report is not made.
    fs::remove_file(case.out()).unwrap();
    let other = skipping(&case, &demo(), &["--hidden", "drop"]);
    assert_eq!(other.status, 5, "{}", other.story());
    assert!(other.stderr.contains("report.json: the report is that of another output"), "{}", other.story());
    assert!(names(&case.path("out")).is_empty());
    assert_eq!(fs::read(case.report()).unwrap(), report, "the report was rewritten");
}

/// `until etcdlift convert … --skip-existing; do sleep 60; done`
#[test]
fn skip_existing_can_be_repeated_until_it_succeeds() {
    let case = Case::new();
    for _ in 0..2 {
        let failed = skipping(&case, &case.path("default.etcd"), &[]);
        assert_eq!(failed.status, 5, "{}", failed.story());
        one_line(&failed, &["default.etcd: "]);
        let report: serde_json::Value = serde_json::from_slice(&fs::read(case.report()).unwrap()).unwrap();
        assert_eq!(report["reason"], "source-missing");
    }
    let source = case.demo();
    assert_eq!(skipping(&case, &source, &[]).success().status, 0);
    let report = fs::read(case.report()).unwrap();
    assert!(skipping(&case, &source, &[]).success().stderr.contains(", left unchanged: "));
    assert_eq!(fs::read(case.report()).unwrap(), report);
}

#[test]
fn skip_existing_refuses_an_output_that_differs() {
    let differs = |prepare: &dyn Fn(&Case), options: &[&str], words: &[&str]| {
        let case = Case::new();
        let source = case.demo();
        case.run(&source, &[]).converted(0);
        prepare(&case);
        let output = skipping(&case, &source, options);
        assert_eq!(output.status, 5, "{}", output.story());
        let mut lines = output.stderr.lines().filter(|line| !line.starts_with("hint: "));
        let first = lines.next().unwrap();
        assert!(words.iter().all(|word| first.contains(word)), "{}", output.story());
        let is_expected = |line: &str| line.contains("this run's report is not written") || line.starts_with("hint: ");
        assert!(lines.all(is_expected), "{}", output.story());
        assert_eq!(names(&case.path("out")), ["out.db"]);
    };
    differs(&|_| {}, &["--hidden", "drop"], &["made with other options"]);
    differs(&|case| fs::write(case.out(), "x").unwrap(), &[], &["not the file that its report describes"]);
    differs(&|case| fs::remove_file(case.report()).unwrap(), &[], &["its report does not exist"]);
    differs(&|case| fs::write(case.report(), "{}").unwrap(), &[], &["report.json: the file is no report of etcdlift"]);
    let other = |case: &Case| fs::remove_file(case.path("default.etcd/member/snap/db")).unwrap();
    differs(&other, &[], &["made from other source files"]);
}

fn skipping(case: &Case, source: &Path, options: &[&str]) -> crate::common::run::Output {
    let mut args: Vec<OsString> = vec!["convert".into(), source.into(), "-o".into(), case.out().into()];
    args.extend(["--report".into(), case.report().into(), "--skip-existing".into()]);
    args.extend(["--as-of".into(), AS_OF.into()]);
    args.extend(options.iter().map(Into::into));
    crate::common::run::etcdlift(args)
}

/// The last file to be opened is the output, to read it back: where that fails, the source is not to blame.
#[test]
fn an_output_that_cannot_be_read_back_is_no_damage_of_the_source() {
    let case = Case::new();
    let source = case.demo();
    let mut failed = 0;
    for files in 4..16 {
        let limit = format!("ulimit -n {files}; exec \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &limit, "sh", etcdlift_path(), "convert"]).arg(&source);
        let output = command.arg("-o").arg(case.out()).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        match output.status.code() {
            Some(0) => fs::remove_file(case.out()).unwrap(),
            Some(6) => {
                assert!(text.contains("out.db: ") && !text.contains(".etcdlift-"), "{text}");
                failed += 1;
            }
            status => assert!(text.contains("default.etcd"), "{status:?}: {text}"),
        }
        assert!(names(&case.path("out")).is_empty());
    }
    assert!(failed > 0, "it was always read back");
}
