//! What a process costs, and what the machine needs at least: shared by the tools that measure.
//!
//! Must not know what is measured.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// Builds the program, and returns its path.
pub(super) fn build() -> PathBuf {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo).args(["build", "--release", "--bin", "etcdlift"]).status().unwrap();
    assert!(status.success(), "the program could not be built");
    // The examples are in a folder beside it.
    env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("etcdlift")
}

/// What a process took.
#[derive(Clone, Copy)]
pub(super) struct Cost {
    pub(super) wall: f64,
    pub(super) cpu: f64,
    /// The most private memory that was seen, in bytes.
    pub(super) memory: u64,
}

/// Runs a process to its end. No other child of this process runs at that time.
pub(super) fn run(command: &mut Command) -> Cost {
    let (started, before) = (Instant::now(), cpu(UsageWho::RUSAGE_CHILDREN));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let status_file = format!("/proc/{}/status", child.id());
    let watched = thread::spawn(move || {
        let mut most = 0;
        while let Ok(text) = fs::read_to_string(&status_file) {
            let Some(line) = text.lines().find_map(|line| line.strip_prefix("RssAnon:")) else { break };
            let kib: u64 = line.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0);
            most = most.max(kib << 10);
            thread::sleep(Duration::from_millis(5));
        }
        most
    });
    let status = child.wait().unwrap();
    let wall = started.elapsed().as_secs_f64();
    assert!(matches!(status.code(), Some(0 | 8)), "{command:?}: {status}");
    Cost { wall, cpu: cpu(UsageWho::RUSAGE_CHILDREN) - before, memory: watched.join().unwrap() }
}

/// Runs work in this process. `memory` of the result is 0.
pub(super) fn measured(work: impl FnOnce()) -> Cost {
    let (started, before) = (Instant::now(), cpu(UsageWho::RUSAGE_SELF));
    work();
    Cost { wall: started.elapsed().as_secs_f64(), cpu: cpu(UsageWho::RUSAGE_SELF) - before, memory: 0 }
}

fn cpu(of: UsageWho) -> f64 {
    let usage = getrusage(of).unwrap();
    (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e6
}

/// The regular files below a directory. A segment has its preallocated size, most of which is a hole.
pub(super) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// Reads these files once, then writes and syncs so many bytes. Returns the seconds.
pub(super) fn limit(read: &[PathBuf], write: &Path, mut bytes: u64) -> f64 {
    let mut buffer = vec![1; 4 << 20];
    let started = Instant::now();
    for path in read {
        let mut file = File::open(path).unwrap();
        while file.read(&mut buffer).unwrap() > 0 {}
    }
    let mut file = File::create(write).unwrap();
    while bytes > 0 {
        let len = bytes.min(buffer.len() as u64);
        file.write_all(&buffer[..len as usize]).unwrap();
        bytes -= len;
    }
    file.sync_all().unwrap();
    let seconds = started.elapsed().as_secs_f64();
    fs::remove_file(write).unwrap();
    seconds
}

/// The smallest, the middle and the largest of some values.
pub(super) struct Spread {
    pub(super) min: f64,
    pub(super) median: f64,
    pub(super) max: f64,
}

impl Spread {
    pub(super) fn of(mut values: Vec<f64>) -> Spread {
        values.sort_by(f64::total_cmp);
        Spread { min: values[0], median: values[values.len() / 2], max: values[values.len() - 1] }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} / {:.2} / {:.2}", self.min, self.median, self.max)
    }
}
