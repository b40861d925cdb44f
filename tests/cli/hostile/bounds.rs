//! The memory and CPU time that a run may use, by the size of its source.
//!
//! A run is started under these limits, and its use is measured when it ends.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::run::{etcdlift_path, wait_with_time};

/// The bounds of one run.
#[derive(Debug)]
pub(super) struct Bounds {
    /// Bytes of private memory.
    pub(super) memory: u64,
    /// Seconds of processor time.
    pub(super) seconds: f64,
}

/// A run that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Its exit status; 128 and the number of the signal that ended it.
    pub(super) status: i32,
    pub(super) stderr: String,
    pub(super) seconds: f64,
}

impl Bounds {
    /// For memory, what the program takes with its threads, 16 times the source (a key of a few bytes has a node, a row
    /// and a place in an index), and 400 bytes for each component of the longest path: a node of the live tree. For
    /// time, a few times what an ordinary source of that size takes on a slow machine.
    pub(super) fn of(source: &Path, components: usize) -> Bounds {
        let bytes = size(source);
        let memory = (64 << 20) + 16 * bytes + 400 * components as u64;
        Bounds { memory, seconds: 0.5 + bytes as f64 / f64::from(1 << 20) }
    }

    /// The time that the bytes of an output take more, which may be larger than the source: 20 ns each.
    pub(super) fn allow(&mut self, output: &Path) {
        self.seconds += size(output) as f64 / 50e6;
    }
}

/// Bytes on disk: holes take none.
fn size(path: &Path) -> u64 {
    let found = fs::metadata(path).unwrap();
    if found.is_dir() {
        return fs::read_dir(path).unwrap().map(|entry| size(&entry.unwrap().path())).sum();
    }
    (found.blocks() * 512).min(found.len())
}

/// Runs etcdlift with these arguments. A program that asks for more memory than the bounds gets none, and is aborted;
/// the kernel ends it some time after the limit.
pub(super) fn run(args: &[String], bounds: &Bounds) -> Ended {
    // With an output of the largest size that is allowed.
    let seconds = (2.0 * bounds.seconds).ceil() as u64 + 30;
    let script = format!("ulimit -d {}; ulimit -t {seconds}; exec \"$@\"", bounds.memory / 1024);
    let mut child = Command::new("timeout")
        .args(["-k", "5", "120", "sh", "-c", &script, "sh", etcdlift_path()])
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = Vec::new();
    child.stderr.take().unwrap().read_to_end(&mut stderr).unwrap();
    let (status, time) = wait_with_time(&mut child);
    let status = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ended { status, stderr: String::from_utf8_lossy(&stderr).into_owned(), seconds: time.as_secs_f64() }
}
