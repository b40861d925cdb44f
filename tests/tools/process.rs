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
    /// The most private memory that was seen (`RssAnon`), in bytes.
    pub(super) private: u64,
    /// The peak of resident memory (`VmHWM`), in bytes. It includes mapped files, whose pages are in the page cache.
    pub(super) peak: u64,
}

impl std::ops::Add for Cost {
    type Output = Cost;

    /// The cost of one after the other.
    fn add(self, other: Cost) -> Cost {
        Cost {
            wall: self.wall + other.wall,
            cpu: self.cpu + other.cpu,
            private: self.private.max(other.private),
            peak: self.peak.max(other.peak),
        }
    }
}

/// Runs a process to its end. No other child of this process runs at that time.
pub(super) fn run(command: &mut Command) -> Cost {
    let (started, before) = (Instant::now(), cpu(UsageWho::RUSAGE_CHILDREN));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let status_file = format!("/proc/{}/status", child.id());
    let watched = thread::spawn(move || {
        let (mut private, mut peak) = (0, 0);
        while let Ok(text) = fs::read_to_string(&status_file) {
            let (Some(now), Some(most)) = (bytes(&text, "RssAnon:"), bytes(&text, "VmHWM:")) else { break };
            (private, peak) = (now.max(private), most.max(peak));
            thread::sleep(Duration::from_millis(5));
        }
        (private, peak)
    });
    let status = child.wait().unwrap();
    let wall = started.elapsed().as_secs_f64();
    assert!(matches!(status.code(), Some(0 | 8)), "{command:?}: {status}");
    let (private, peak) = watched.join().unwrap();
    Cost { wall, cpu: cpu(UsageWho::RUSAGE_CHILDREN) - before, private, peak }
}

/// A number of bytes in `/proc/PID/status`. `None` after the end of the process.
fn bytes(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// Runs work in this process. The memory of the result is 0.
pub(super) fn measured(work: impl FnOnce()) -> Cost {
    let (started, before) = (Instant::now(), cpu(UsageWho::RUSAGE_SELF));
    work();
    Cost { wall: started.elapsed().as_secs_f64(), cpu: cpu(UsageWho::RUSAGE_SELF) - before, private: 0, peak: 0 }
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

/// Reads these files once, holes included, then writes and syncs so many bytes to a new file. Returns the seconds.
///
/// For a fair comparison, neither this file nor an output of the program exists before.
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

/// Ends this process with a message about its arguments.
pub(super) fn refuse(message: &str) -> ! {
    eprintln!("error: {message}");
    std::process::exit(2)
}

/// The number of runs, by the first argument; 5 without one.
pub(super) fn runs(argument: Option<&str>) -> usize {
    let Some(text) = argument else { return 5 };
    let runs = text.parse().ok().filter(|runs| *runs > 0);
    runs.unwrap_or_else(|| refuse(&format!("expected a number of runs, found {text:?}")))
}

/// The smallest, the median and the largest of some values. The median of an even number is the mean of the middle two.
pub(super) struct Spread {
    pub(super) min: f64,
    pub(super) median: f64,
    pub(super) max: f64,
}

impl Spread {
    pub(super) fn of(mut values: Vec<f64>) -> Spread {
        values.sort_by(f64::total_cmp);
        let (len, last) = (values.len(), values.len() - 1);
        let median = (values[last / 2] + values[len / 2]) / 2.0;
        Spread { min: values[0], median, max: values[last] }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} / {:.2} / {:.2}", self.min, self.median, self.max)
    }
}
