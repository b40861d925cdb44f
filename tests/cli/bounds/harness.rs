//! Data directories of any content, and runs of etcdlift whose memory and time are measured.
//!
//! The other files of this folder use it. Only the child process is measured, never this one.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::common::run::etcdlift_path;
use crate::common::{scratch, v2files};

/// A MiB.
pub(crate) const MIB: u64 = 1 << 20;

/// What every run holds: the segment as a server preallocates it, of which each page is looked at, and the program.
pub(crate) const BASE: u64 = 61 * MIB + 24 * MIB;

/// A run that takes longer is killed.
const SECONDS: u64 = 60;

/// What a run took and left.
#[derive(Debug)]
pub(crate) struct Run {
    /// The exit status; -1 if a signal ended it.
    pub(crate) status: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    /// The most memory that it held at a time, mapped files included, in bytes.
    pub(crate) memory: u64,
    /// Seconds of processor time, of all threads.
    pub(crate) cpu: f64,
}

impl Run {
    /// # Panics
    /// If the run ended with another status, or took more; `memory` is what it may hold besides [`BASE`].
    pub(crate) fn within(self, status: i32, memory: u64, cpu: f64) -> Run {
        let memory = BASE + memory;
        let Run { memory: taken, cpu: seconds, .. } = self;
        let head: String = self.stderr.chars().take(2000).collect();
        assert_eq!(self.status, status, "{taken} bytes, {seconds} s\n{head}");
        assert!(taken <= memory, "expected at most {memory} bytes of memory, found {taken}\n{head}");
        assert!(seconds <= cpu, "expected at most {cpu} s, found {seconds}\n{head}");
        self
    }
}

/// Runs etcdlift to its end, at most a minute.
pub(crate) fn run<A: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = A>) -> Run {
    let mut command = Command::new(etcdlift_path());
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let out = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        out.read_to_end(&mut bytes).unwrap();
        bytes
    });
    let err = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        err.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let proc = PathBuf::from(format!("/proc/{}", child.id()));
    let (started, mut memory, mut cpu) = (Instant::now(), 0, 0.0);
    let status = loop {
        // Both only grow, so the last look before the end counts.
        memory = peak(&proc).unwrap_or(memory);
        cpu = seconds(&proc).unwrap_or(cpu);
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if started.elapsed() > Duration::from_secs(SECONDS) {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    Run { status: status.code().unwrap_or(-1), stdout: out.join().unwrap(), stderr: err.join().unwrap(), memory, cpu }
}

/// The most memory that a process has held, in bytes.
fn peak(proc: &Path) -> Option<u64> {
    let status = fs::read_to_string(proc.join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// The processor time of a process, user and system. A tick is 10 ms.
fn seconds(proc: &Path) -> Option<f64> {
    let stat = fs::read_to_string(proc.join("stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut ticks = fields.split(' ').skip(11).take(2).map(|field| field.parse::<f64>().ok());
    Some((ticks.next()?? + ticks.next()??) / 100.0)
}

/// A data directory, and room for outputs.
pub(crate) struct Source {
    place: TempDir,
}

impl Source {
    /// One with this store in its snapshot, and these requests in its log.
    pub(crate) fn new(store: String, requests: impl Iterator<Item = Vec<u8>>) -> Source {
        let place = scratch::temp();
        let dir = place.path().join("in");
        let snapshot = v2files::write_snapshot(&dir, store.into_bytes(), 10, 2, 7, 10);
        v2files::write_wal(&dir, &snapshot, 7, 9, requests);
        Source { place }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.place.path().join("in")
    }

    /// The name of a file in the same folder.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Runs `convert` with more options.
    pub(crate) fn convert(&self, options: &[&str]) -> Run {
        let _ = fs::remove_file(self.at("out"));
        let (source, out, report) = (self.path(), self.at("out"), self.at("report"));
        let mut args: Vec<&str> = vec!["convert", source.to_str().unwrap(), "-o", out.to_str().unwrap()];
        args.extend(["--overwrite", "--report", report.to_str().unwrap()]);
        args.extend(options);
        run(args)
    }

    /// The report of the last conversion.
    pub(crate) fn report(&self) -> Value {
        serde_json::from_slice(&fs::read(self.at("report")).unwrap()).unwrap()
    }

    /// Bytes of the snapshot.
    pub(crate) fn snapshot_bytes(&self) -> u64 {
        fs::read_dir(self.path().join("member/snap")).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum()
    }
}
