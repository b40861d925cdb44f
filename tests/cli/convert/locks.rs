//! A source that an etcd is running on: refused, or read with `--allow-live`.
//!
//! The locks are set here on copies of the demo directory. One test needs a real etcd.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};
use nix::libc;

use super::kit::{Case, DEMO_WAL, demo, one_line};
use crate::common::peers::{self, Version};
use crate::common::scratch::copy_tree;
use crate::common::server::{Boot, Server};
use crate::common::v2files::frames;
use crate::test_name;

const WORDS: [&str; 2] = ["an etcd is running on it", "stop that etcd, or convert a copy"];

/// As etcd 2.x locks its log, and bbolt its file.
#[test]
fn a_flock_is_seen() {
    let case = Case::new();
    let source = case.demo();
    for name in [DEMO_WAL, "member/snap/db"] {
        let file = File::open(source.join(name)).unwrap();
        let held = Flock::lock(file, FlockArg::LockExclusiveNonblock).unwrap();
        case.run(&source, &[]).refused(5, "locked", &[name, WORDS[0], WORDS[1]]);
        held.unlock().unwrap();
    }
    case.run(&source, &[]).converted(0);
}

/// As etcd 3.x locks its log.
#[test]
fn an_open_file_description_lock_is_seen() {
    let case = Case::new();
    let source = case.demo();
    let file = OpenOptions::new().write(true).open(source.join(DEMO_WAL)).unwrap();
    let lock = libc::flock { l_type: libc::F_WRLCK as _, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
    fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&lock)).unwrap();
    case.run(&source, &[]).refused(5, "locked", &[DEMO_WAL, WORDS[0], WORDS[1]]);
    drop(file);
    case.run(&source, &[]).converted(0);
}

/// A log elsewhere is locked elsewhere.
#[test]
fn a_lock_on_a_log_elsewhere_is_seen() {
    let case = Case::new();
    let source = case.demo();
    let wal = case.path("wal");
    fs::rename(source.join("member/wal"), &wal).unwrap();
    let segment = wal.join(DEMO_WAL.rsplit('/').next().unwrap());
    let held = Flock::lock(File::open(segment).unwrap(), FlockArg::LockExclusiveNonblock).unwrap();
    case.run(&source, &["--wal-dir", wal.to_str().unwrap()]).refused(5, "locked", &WORDS);
    held.unlock().unwrap();
}

#[test]
fn a_running_etcd_is_refused() {
    let Some(peers) = peers::require(test_name!()) else { return };
    let case = Case::new();
    let data_dir = case.path("running.etcd");
    copy_tree(&demo(), &data_dir);
    let server = Server::start(&Boot { enable_v2: true, ..Boot::new(&peers, Version::V3_4, &data_dir) });
    // Its log may change meanwhile, so the source is not compared.
    let out = case.out();
    let args = ["convert".as_ref(), data_dir.as_os_str(), "-o".as_ref(), out.as_os_str()];
    let output = crate::common::run::etcdlift(args);
    assert_eq!(output.status, 5, "{}", output.story());
    one_line(&output, &WORDS);
    assert!(!out.exists());
    server.stop();
    case.run(&data_dir, &[]).converted(0);
}

/// The last record is partly written, up to any byte: the records before it count, and nothing else.
#[test]
fn a_prefix_is_read_wherever_the_writing_stands() {
    let case = Case::new();
    let source = case.demo();
    let whole = case.run(&source, &[]).converted(0);
    fs::remove_file(case.out()).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(source.join(DEMO_WAL)).unwrap();
    let held = Flock::lock(file.try_clone().unwrap(), FlockArg::LockExclusiveNonblock).unwrap();
    let bytes = fs::read(source.join(DEMO_WAL)).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1;
    // No server makes it that short; nothing depends on it.
    file.set_len(written + 5000).unwrap();
    let mut fewest = whole.len();
    for missing in (0..40).chain((40..300).step_by(7)) {
        let zeros = vec![0; missing];
        file.write_all_at(&zeros, written - missing as u64).unwrap();
        let live = case.run(&source, &["--allow-live"]);
        let rows = live.converted(0);
        assert_eq!(live.notices("warnings"), ["live"], "{missing} bytes are missing");
        fewest = fewest.min(rows.len());
        fs::remove_file(case.out()).unwrap();
    }
    assert!(fewest < whole.len(), "no record of a key was cut");
    held.unlock().unwrap();
}

/// A running etcd excuses a half written end, nothing else.
#[test]
fn damage_is_damage_while_an_etcd_runs() {
    let case = Case::new();
    let source = case.demo();
    let file = OpenOptions::new().read(true).write(true).open(source.join(DEMO_WAL)).unwrap();
    let held = Flock::lock(file.try_clone().unwrap(), FlockArg::LockExclusiveNonblock).unwrap();
    // After the snapshot.
    let records = frames(&fs::read(source.join(DEMO_WAL)).unwrap());
    let at = records[records.len() - 4].1.end as u64 - 3;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    case.run(&source, &["--allow-live"]).refused(3, "damaged", &[DEMO_WAL, "byte "]);
    held.unlock().unwrap();
}

/// Without one, the option changes nothing but how files are read.
#[test]
fn at_rest_allow_live_makes_the_same() {
    let case = Case::new();
    let source = case.demo();
    let mapped = case.run(&source, &[]);
    mapped.converted(0);
    let bytes = mapped.bytes();
    fs::remove_file(case.out()).unwrap();
    let copied = case.run(&source, &["--allow-live"]);
    copied.converted(0);
    assert_eq!(copied.notices("warnings"), mapped.notices("warnings"));
    assert!(copied.bytes() == bytes);
}
