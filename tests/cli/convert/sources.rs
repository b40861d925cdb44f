//! Paths that are no etcd data, no v2 data or no complete source: refused, and the message names the kind.
//!
//! Uses files and directories that are made here, and the demo directory under several names.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::kit::{Case, DEMO_SNAP, DEMO_WAL, demo, one_line};
use crate::common::run::{Output, etcdlift, etcdlift_path};
use crate::common::scratch::copy_tree;
use crate::common::skip::{Need, skip};
use crate::test_name;

#[test]
fn a_path_without_etcd_data_is_refused() {
    let case = Case::new();
    let refused = |name: &str, reason: &str, words: &[&str]| case.run(&case.path(name), &[]).refused(5, reason, words);
    refused("missing", "source-missing", &["missing: ", "no such file or directory"]);
    case.file("file", "hello");
    refused("file/below", "source-missing", &["file/below: ", "no such file or directory"]);
    fs::create_dir(case.path("empty")).unwrap();
    refused("empty", "source-empty", &["empty: ", "found an empty one"]);
    case.file("nothing", "");
    refused("nothing", "source-empty", &["an empty file"]);
    case.file("nothing.snap", "");
    refused("nothing.snap", "source-empty", &["an empty file"]);
    refused("file", "not-etcd-data", &["a .snap file or a data directory", "neither"]);
    case.file("folder/readme", "hello");
    refused("folder", "not-etcd-data", &["found readme"]);
    case.file("hollow/member/wal/0.tmp", "");
    refused("hollow", "source-empty", &["hollow: ", "found neither"]);
    symlink("nirvana", case.path("dangling")).unwrap();
    refused("dangling", "source-missing", &["no such file or directory"]);
}

#[test]
fn etcd_data_that_is_no_v2_data_is_refused_with_its_kind() {
    let case = Case::new();
    for name in ["conf", "log", "snapshot/1_90.ss"] {
        case.file(&format!("old.etcd/{name}"), "{}");
    }
    case.run(&case.path("old.etcd"), &[]).refused(5, "unsupported-format", &["etcd 0.4", "etcd 2.0 on a copy"]);
    case.file("proxy.etcd/proxy/cluster", "{}");
    case.run(&case.path("proxy.etcd"), &[]).refused(5, "unsupported-format", &["proxy", "contains no keys"]);
}

#[test]
fn a_v3_file_is_refused_and_told_where_v2_keys_are() {
    let case = Case::new();
    let words = ["found a v3 database", ".snap and WAL files"];
    case.run(&demo().join("member/snap/db"), &[]).refused(5, "unsupported-format", &words);
    let made = case.run(&demo(), &[]);
    made.converted(0);
    let snapshot = case.path("v3.snapshot");
    fs::rename(case.out(), &snapshot).unwrap();
    case.run(&snapshot, &[]).refused(5, "unsupported-format", &words);
}

#[test]
fn a_v3_only_directory_has_nothing_to_convert() {
    let case = Case::new();
    case.file("v3.etcd/member/snap/db", fs::read(demo().join("member/snap/db")).unwrap());
    let words = ["v3.etcd: ", "nothing to convert", "name it with --wal-dir"];
    case.run(&case.path("v3.etcd"), &[]).refused(4, "nothing-to-convert", &words);
}

#[test]
fn a_snapshot_without_its_log_needs_a_word_from_the_operator() {
    let case = Case::new();
    let source = case.demo();
    let elsewhere = case.path("wal");
    fs::rename(source.join("member/wal"), &elsewhere).unwrap();
    let words = ["no WAL", "--wal-dir DIR", "--wal-dir none"];
    case.run(&source, &[]).refused(5, "wal-missing", &words);
    fs::create_dir(source.join("member/wal")).unwrap();
    case.run(&source, &[]).refused(5, "wal-missing", &words);

    let alone = case.run(&source, &["--wal-dir", "none"]);
    alone.converted(0);
    assert_eq!(alone.report()["output"]["revision"], 39);
    assert_eq!(alone.notices("warnings")[0], "snapshot-only");
    fs::remove_file(case.out()).unwrap();
    let whole = case.run(&source, &["--wal-dir", elsewhere.to_str().unwrap()]);
    whole.converted(0);
    assert_eq!(whole.report()["output"]["revision"], 51);
}

#[test]
fn a_wal_dir_that_holds_no_log_is_refused() {
    let case = Case::new();
    let source = case.demo();
    let refused = |source: &Path, dir: PathBuf, reason: &str, words: &[&str]| {
        case.run(source, &["--wal-dir", dir.to_str().unwrap()]).refused(5, reason, words);
    };
    refused(&source, case.path("missing"), "source-missing", &["missing: ", "no such file or directory"]);
    refused(&source, case.file("file", "x"), "not-etcd-data", &["file: ", "found a file"]);
    refused(&source, demo().join("member"), "wal-missing", &["member: ", "found none"]);
    // The log would be left out without a word.
    refused(&source.join(DEMO_SNAP), demo().join("member/wal"), "unsupported-format", &["data directory"]);
}

#[test]
fn every_way_to_name_a_directory_gives_the_same_bytes() {
    let case = Case::new();
    let (link, flat) = (case.path("link"), case.demo().join("member"));
    symlink(demo(), &link).unwrap();
    let odd = case.path("odd").join(OsStr::from_bytes(b"n\xff\n\"l"));
    copy_tree(&demo(), &odd);
    let mut slash = demo().into_os_string();
    slash.push("/");
    let outputs: Vec<Vec<u8>> = [demo(), slash.into(), link, flat, odd]
        .iter()
        .map(|source| {
            let run = case.run(source, &["--as-of", "2026-12-01T00:00:00Z"]);
            run.converted(0);
            assert!(run.output.stderr.lines().count() > 10, "{}", run.output.story());
            fs::remove_file(case.out()).unwrap();
            run.report()["output"]["sha256"].as_str().unwrap().into()
        })
        .collect();
    assert!(outputs.iter().all(|output| *output == outputs[0]), "{outputs:?}");
}

#[test]
fn a_name_with_a_line_break_keeps_the_message_on_one_line() {
    let case = Case::new();
    let source = case.path("a\nb");
    case.run(&source, &[]).refused(5, "source-missing", &["a\\nb: "]);
    fs::create_dir(&source).unwrap();
    case.run(&source, &[]).refused(5, "source-empty", &["a\\nb: "]);
}

#[test]
fn pipes_are_refused_and_not_waited_for() {
    let case = Case::new();
    let pipe = |path: PathBuf| {
        let _ = fs::remove_file(&path);
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        path
    };
    let source = pipe(case.path("pipe"));
    case.run(&source, &[]).refused(5, "not-etcd-data", &["pipe: "]);
    let source = pipe(case.path("pipe.snap"));
    case.run(&source, &[]).refused(5, "not-etcd-data", &["pipe.snap: "]);
    let source = case.demo();
    for name in [DEMO_WAL, "member/snap/db"] {
        pipe(source.join(name));
        case.run(&source, &[]).refused(3, "unreadable", &[name, "expected a regular file"]);
        fs::remove_file(source.join(name)).unwrap();
        fs::copy(demo().join(name), source.join(name)).unwrap();
    }
    pipe(source.join(DEMO_SNAP));
    let run = case.run(&source, &[]);
    run.converted(0);
    assert_eq!(run.notices("warnings")[0], "snapshot-passed-over");
}

#[test]
fn unreadable_files_are_named() {
    let temp = tempfile::tempdir().unwrap();
    fs::set_permissions(temp.path(), Permissions::from_mode(0o777)).unwrap();
    let source = temp.path().join("default.etcd");
    copy_tree(&demo(), &source);
    for name in ["", "member", "member/snap", DEMO_WAL, "member/snap/db"] {
        let locked = source.join(name);
        let mode = fs::metadata(&locked).unwrap().mode();
        fs::set_permissions(&locked, Permissions::from_mode(0o000)).unwrap();
        let out = temp.path().join("out.db");
        let args = ["convert".as_ref(), source.as_os_str(), "-o".as_ref(), out.as_os_str()];
        let Some(output) = as_nobody(test_name!(), &args) else { return };
        fs::set_permissions(&locked, Permissions::from_mode(mode)).unwrap();
        assert_eq!(output.status, 5, "{name}: {}", output.story());
        let uid = fs::metadata("/proc/self").unwrap().uid();
        let owner = format!("owned by uid {uid} and gid ");
        let process = format!("mode 0000; this process runs as uid {}", if uid == 0 { 65534 } else { uid });
        let words = [locked.to_str().unwrap().trim_end_matches('/'), "Permission denied", &owner, &process];
        one_line(&output, &words);
        assert_eq!(crate::common::scratch::names(temp.path()), ["default.etcd"]);
    }
}

/// Runs etcdlift as a user whom permission bits bind.
pub(crate) fn as_nobody(test: &str, args: &[&OsStr]) -> Option<Output> {
    const NOBODY: u32 = 65534;
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return Some(etcdlift(args));
    }
    let mut command = Command::new(etcdlift_path());
    match command.args(args).uid(NOBODY).gid(NOBODY).current_dir("/").output() {
        Ok(output) => Some(Output {
            command: format!("{args:?} as nobody"),
            status: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }),
        Err(error) => {
            skip(test, Need::Machine, &format!("etcdlift cannot be run as another user: {error}"));
            None
        }
    }
}
