//! A source that an etcd is running on.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd;

use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};
use nix::libc;

use super::common::peers::{self, Version};
use super::common::server::{Boot, Server};
use super::files::copy_sparse;
use super::kit::{Case, DEMO_WAL, demo, one_line};
use crate::test_name;

const WORDS: [&str; 2] = ["an etcd is running on it", "stop it, or convert a copy"];

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
    copy_sparse(&demo(), &data_dir);
    let server = Server::start(&Boot { enable_v2: true, ..Boot::new(&peers, Version::V3_4, &data_dir) });
    // Its log may change meanwhile, so the source is not compared.
    let out = case.out();
    let args = ["convert".as_ref(), data_dir.as_os_str(), "-o".as_ref(), out.as_os_str()];
    let output = super::common::run::etcdlift(args);
    assert_eq!(output.status, 5, "{}", output.story());
    one_line(&output, &WORDS);
    assert!(!out.exists());
    server.stop();
    case.run(&data_dir, &[]).converted(0);
}
