//! `--to data-dir` and `--to member` killed at every step: the output does not exist, or it is whole.
//!
//! A tracer counts the system calls that change files, and kills etcdlift directly before one of them: before the first
//! in the first run, before the second in the second, until a run ends by itself.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::kit::{AS_OF, Case, demo};
use crate::common::run::etcdlift;
use crate::common::scratch::{fingerprint, names};
use crate::common::skip::{Need, skip};
use crate::test_name;

/// The files of a directory, by path, with their length and a hash.
pub(crate) type Tree = BTreeMap<PathBuf, (u64, u32)>;

/// The directories of two members of a new cluster.
const NEW_CLUSTER: [&str; 5] =
    ["--to", "data-dir", "--all-members", "--initial-cluster", "a=http://10.0.0.1:2380,b=http://10.0.0.2:2380"];

#[test]
fn a_new_directory_is_absent_or_whole() {
    is_absent_or_whole(test_name!(), &NEW_CLUSTER);
}

#[test]
fn the_directory_of_a_member_is_absent_or_whole() {
    is_absent_or_whole(test_name!(), &["--to", "member"]);
}

fn is_absent_or_whole(test: &str, options: &[&str]) {
    let case = Case::new();
    let out = case.path("out/new");
    let whole = made(&case.path("out/reference"), options);
    let steps = kill_at_every_step(test, &out, options, |step| {
        assert!(!out.exists() || tree(&out) == whole, "step {step}: a part of the output has its name");
        let existed = fs::remove_dir_all(&out).is_ok();
        // What a killed run left is in nobody's way.
        if step % 16 == 0 {
            assert_eq!(made(&out, options), whole);
            fs::remove_dir_all(&out).unwrap();
        }
        existed
    });
    let Some(existed) = steps else { return };
    // The directory gets its name near the end, and not before.
    let after = existed.iter().filter(|existed| **existed).count();
    assert!((1..=12).contains(&after) && existed.is_sorted(), "{existed:?}");
}

#[test]
fn a_directory_that_is_replaced_is_the_old_or_the_new_one() {
    let case = Case::new();
    let out = case.path("out/new");
    let old = [&NEW_CLUSTER[..], &["--initial-cluster-token", "old"]].concat();
    let (before, whole) = (made(&out, &old), made(&case.path("out/reference"), &NEW_CLUSTER));
    let steps = kill_at_every_step(test_name!(), &out, &[&NEW_CLUSTER[..], &["--overwrite"]].concat(), |step| {
        let found = tree(&out);
        assert!(found == before || found == whole, "step {step}: {:?}", found.keys());
        if found == whole {
            fs::remove_dir_all(&out).unwrap();
            made(&out, &old);
        }
        found == whole
    });
    let Some(replaced) = steps else { return };
    // After the exchange the old directory is removed, file by file.
    assert!(replaced.contains(&true) && replaced.is_sorted(), "{replaced:?}");
}

/// Converts the demo into directories, again and again, and kills each run one step later. Returns
/// what `check` said after each kill; `None` after a note that the test skips.
fn kill_at_every_step(
    test: &str,
    out: &Path,
    options: &[&str],
    mut check: impl FnMut(usize) -> bool,
) -> Option<Vec<bool>> {
    let before = fingerprint(&demo());
    let mut said = Vec::new();
    for step in 1..2000 {
        let end = match killed_before(step, &command(out, options)) {
            Ok(end) => end,
            Err(errno @ (Errno::EPERM | Errno::EACCES)) => {
                skip(test, Need::Machine, &format!("a program cannot be traced here: {errno}"));
                return None;
            }
            Err(errno) => panic!("{errno}"),
        };
        if let End::Itself(status) = end {
            assert_eq!(status, 0);
            eprintln!("{step} steps");
            assert!(step > 40);
            check(step);
            assert!(fingerprint(&demo()) == before, "the source was changed");
            return Some(said);
        }
        said.push(check(step));
        remove_leftovers(out);
    }
    panic!("no run ends by itself");
}

/// A killed run leaves its temporary directory, which has another name.
fn remove_leftovers(out: &Path) {
    let parent = out.parent().unwrap();
    for name in names(parent) {
        let path = parent.join(&name);
        if path != out && name != "reference" {
            assert!(name.starts_with('.'), "{name}");
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
    }
}

fn command(out: &Path, options: &[&str]) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["convert".into(), demo().into(), "-o".into(), out.into()];
    words.extend(["--as-of", AS_OF, "--jobs", "1"].map(Into::into));
    words.extend(options.iter().map(Into::into));
    words
}

fn made(out: &Path, options: &[&str]) -> Tree {
    etcdlift(command(out, options)).success();
    tree(out)
}

pub(crate) fn tree(dir: &Path) -> Tree {
    let mut found = Tree::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for name in names(&dir) {
            let path = dir.join(name);
            if path.is_dir() {
                open.push(path);
            } else {
                // The records of a segment are at its beginning, and 64 MB of zeros follow.
                let mut bytes = Vec::new();
                let file = File::open(&path).unwrap();
                let len = file.metadata().unwrap().len();
                file.take(1 << 20).read_to_end(&mut bytes).unwrap();
                found.insert(path, (len, crc32c::crc32c(&bytes)));
            }
        }
    }
    let strip = |(path, state): (PathBuf, _)| (path.strip_prefix(dir).unwrap().to_owned(), state);
    found.into_iter().map(strip).collect()
}

/// How a run ended.
pub(crate) enum End {
    Killed,
    Itself(i32),
}

/// Runs etcdlift, and kills it directly before the system call with this number among those that change files.
pub(crate) fn killed_before(step: usize, args: &[OsString]) -> Result<End, Errno> {
    // The shell waits until it is traced.
    let mut child = Command::new("sh")
        .args(["-c", "read go && exec \"$@\"", "sh", env!("CARGO_BIN_EXE_etcdlift")])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(child.id().cast_signed());
    let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_EXITKILL;
    let traced = ptrace::seize(pid, options).and_then(|()| ptrace::interrupt(pid));
    if let Err(errno) = traced {
        child.kill().unwrap();
        child.wait().unwrap();
        return Err(errno);
    }
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let end = follow(pid, step);
    // The tracer has waited for it.
    let _ = child.wait();
    end
}

/// Lets a traced process run to its end, or to this step.
fn follow(pid: Pid, step: usize) -> Result<End, Errno> {
    let (mut inside, mut steps) = (HashSet::new(), 0);
    loop {
        // Only the children of this thread: other tests have children of their own.
        let (thread, signal) = match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD))? {
            WaitStatus::Exited(ended, status) if ended == pid => return Ok(End::Itself(status)),
            WaitStatus::Signaled(ended, ..) if ended == pid => return Ok(End::Killed),
            WaitStatus::PtraceSyscall(thread) => {
                let enters = inside.insert(thread);
                if !enters {
                    inside.remove(&thread);
                } else if changes_files(pid, thread) {
                    steps += 1;
                    if steps == step {
                        kill(pid, Signal::SIGKILL)?;
                        continue;
                    }
                }
                (thread, None)
            }
            WaitStatus::PtraceEvent(thread, ..) => (thread, None),
            WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
            _ => continue,
        };
        // The thread may be gone: the process was killed.
        let _ = ptrace::syscall(thread, signal);
    }
}

/// Whether a thread is about to make a system call that changes files, or their data on disk.
fn changes_files(pid: Pid, thread: Pid) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/syscall")).unwrap_or_default();
    let words: Vec<&str> = text.split_whitespace().collect();
    let Some(Ok(number)) = words.first().map(|word| word.parse::<libc::c_long>()) else { return false };
    // `openat(directory, path, flags)`.
    let flags = words.get(3).and_then(|word| i32::from_str_radix(word.trim_start_matches("0x"), 16).ok());
    let creates = number == libc::SYS_openat && flags.is_some_and(|flags| flags & libc::O_CREAT != 0);
    creates || CHANGES.contains(&number) || CHANGES_ON_X86.contains(&number)
}

const CHANGES: [libc::c_long; 17] = [
    libc::SYS_write,
    libc::SYS_pwrite64,
    libc::SYS_writev,
    libc::SYS_sendfile,
    libc::SYS_copy_file_range,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_ioctl,
];

/// Calls that newer processors do not have.
#[cfg(target_arch = "x86_64")]
const CHANGES_ON_X86: [libc::c_long; 6] =
    [libc::SYS_mkdir, libc::SYS_rmdir, libc::SYS_unlink, libc::SYS_rename, libc::SYS_link, libc::SYS_chmod];
#[cfg(not(target_arch = "x86_64"))]
const CHANGES_ON_X86: [libc::c_long; 0] = [];
