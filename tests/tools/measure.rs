//! Measures the program on large sources, beside the limit: the time to read the source once, and to write and sync as
//! many bytes as the output has.
//!
//! `cargo run --release --example measure -- [RUNS [SET...]]` prints the tables of docs/measurements.md. Without names it
//! takes every set. Each run of the limit is followed by one of the program, so that a ratio compares neighbours. The files
//! are in the page cache. `tests/peers/build` gives `etcdctl migrate`, which runs once on a copy.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a tool for tests"
)]

#[path = "large_store.rs"]
mod large_store;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use etcdlift::internals::bolt::Db;
use large_store::{Shape, Values};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// A source, and the options of its conversion. `None`: the shape of the set before.
struct Set {
    name: &'static str,
    shape: Option<Shape>,
    options: &'static [&'static str],
}

const RULES: &str = "[[rename]]\nprefix = \"/bench\"\nto = \"/moved\"\n";

fn sets() -> Vec<Set> {
    let plain = Shape::default();
    let backend: &[&str] = &["--to", "backend"];
    let set = |name, shape| Set { name, shape: Some(shape), options: backend };
    let same = |name, options| Set { name, shape: None, options };
    vec![
        set("backend", plain),
        same("snapshot", &["--to", "snapshot"]),
        same("index-map", &["--to", "backend", "--index-map", "INDEX_MAP"]),
        same("rules", &["--to", "backend", "--rules", "RULES"]),
        set("log-100k", Shape { entries: 100_000, ..plain }),
        set("json-values", Shape { values: Values::Json, ..plain }),
        set("ttl", Shape { ttl: true, ..plain }),
        set("one-directory", Shape { per_directory: 1_000_000, ..plain }),
        set("200-levels", Shape { keys: 300_000, levels: 200, ..plain }),
        set("500-of-1MB", Shape { keys: 500, value_bytes: 1 << 20, ..plain }),
        set("history-97%", Shape { keys: 30_000, history_bytes: 400 << 20, ..plain }),
        set("10M-of-256B", Shape { keys: 10_000_000, ..plain }),
        set("10M-of-20B", Shape { keys: 10_000_000, value_bytes: 20, ..plain }),
    ]
}

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let runs: usize = args.first().map_or(5, |text| text.parse().expect("a number of runs"));
    let wanted = args.get(1..).unwrap_or_default();
    let program = build();
    let temp = tempfile::tempdir_in(env::current_dir().unwrap().join("target")).unwrap();
    let rules = temp.path().join("rules.toml");
    fs::write(&rules, RULES).unwrap();
    println!(
        "| set | source | output | of pairs | limit, s | etcdlift, s | times the limit | check | CPU, s | RssAnon, MiB | MB/s |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    let source = temp.path().join("source.etcd");
    let mut made = None;
    for Set { name, shape, options } in sets() {
        made = shape.or(made);
        if !wanted.is_empty() && !wanted.iter().any(|wanted| wanted == name) {
            continue;
        }
        if shape.is_some() || !source.exists() {
            let _ = fs::remove_dir_all(&source);
            made.expect("the first set has a shape").write(&source);
        }
        let options = options.iter().map(|option| match *option {
            "INDEX_MAP" => temp.path().join("index.redb"),
            "RULES" => rules.clone(),
            option => PathBuf::from(option),
        });
        let case = Case { program: &program, source: &source, options: options.collect(), folder: temp.path() };
        println!("{}", case.row(name, runs));
    }
    let _ = fs::remove_dir_all(&source);
    if wanted.is_empty() {
        migrate(&source);
    }
}

/// Builds the program, and returns its path.
fn build() -> PathBuf {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo).args(["build", "--release", "--bin", "etcdlift"]).status().unwrap();
    assert!(status.success(), "the program could not be built");
    // The examples are in a folder beside it.
    env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("etcdlift")
}

struct Case<'c> {
    program: &'c Path,
    source: &'c Path,
    options: Vec<PathBuf>,
    folder: &'c Path,
}

/// What a process took.
#[derive(Clone, Copy)]
struct Cost {
    wall: f64,
    cpu: f64,
    /// The most private memory that was seen, in bytes.
    memory: u64,
    /// The share of the time in which the output was read back and checked; 0 for other programs.
    check: f64,
}

impl Case<'_> {
    fn row(&self, name: &str, runs: usize) -> String {
        let snapshot = files(&self.source.join("member"));
        // Before the first pair: everything is in the page cache, and the size of the output is known.
        self.convert();
        let output = fs::metadata(self.output()).unwrap().len();
        let source: u64 = snapshot.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
        let pairs: Vec<(f64, Cost)> = (0..runs)
            .map(|_| {
                let limit = limit(&snapshot, &self.folder.join("limit"), output);
                (limit, self.convert())
            })
            .collect();
        let spread = |values: &dyn Fn(&(f64, Cost)) -> f64| Spread::of(pairs.iter().map(values).collect());
        let wall = spread(&|(_, cost)| cost.wall);
        format!(
            "| {name} | {} MB | {} MB | {:.3} | {} | {wall} | {} | {:.0} % | {:.2} | {} | {:.0} |",
            source / 1_000_000,
            output / 1_000_000,
            output as f64 / pair_bytes(&self.output()) as f64,
            spread(&|(limit, _)| *limit),
            spread(&|(limit, cost)| cost.wall / limit),
            spread(&|(_, cost)| cost.check).median * 100.0,
            spread(&|(_, cost)| cost.cpu).median,
            pairs.iter().map(|(_, cost)| cost.memory).max().unwrap_or(0) >> 20,
            source as f64 / 1e6 / wall.median,
        )
    }

    fn output(&self) -> PathBuf {
        self.folder.join("out.db")
    }

    fn convert(&self) -> Cost {
        for name in ["out.db", "index.redb"] {
            let _ = fs::remove_file(self.folder.join(name));
        }
        let mut command = Command::new(self.program);
        let report = self.folder.join("report.json");
        command.arg("convert").arg(self.source).arg("-o").arg(self.output()).arg("--quiet").args(&self.options);
        let cost = run(command.arg("--report").arg(&report).arg("--overwrite"));
        Cost { check: share_of_check(&report), ..cost }
    }
}

/// The share of the verification in the time of all stages.
fn share_of_check(report: &Path) -> f64 {
    let report: serde_json::Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    let stages = report["stages"].as_array().unwrap();
    let millis = |stage: &serde_json::Value| stage["ms"].as_f64().unwrap();
    let check = stages.iter().find(|stage| stage["name"] == "verify").map_or(0.0, millis);
    check / stages.iter().map(millis).sum::<f64>()
}

/// The sum of all encoded pairs of a database: keys, values, and the 16 bytes of an element in a leaf page for each.
fn pair_bytes(path: &Path) -> u64 {
    let file = fs::read(path).unwrap();
    let db = Db::open(&file).unwrap();
    let buckets = db.root().iter().map(|bucket| db.open_bucket(&bucket.unwrap()).unwrap());
    buckets.flat_map(|bucket| bucket.iter()).map(|pair| pair.unwrap().record.len() as u64 + 16).sum()
}

/// The regular files below a directory. A segment has its preallocated size, most of which is a hole.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// Reads these files once, then writes and syncs so many bytes. Returns the seconds.
fn limit(read: &[PathBuf], write: &Path, mut bytes: u64) -> f64 {
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

/// Runs a process to its end. No other child of this process runs at that time.
fn run(command: &mut Command) -> Cost {
    let cpu = || {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
        (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e6
    };
    let (started, before) = (Instant::now(), cpu());
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
    Cost { wall, cpu: cpu() - before, memory: watched.join().unwrap(), check: 0.0 }
}

/// Runs `etcdctl migrate` of 3.4 on the first set.
fn migrate(source: &Path) {
    let home = env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let parent = env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from);
    let cache = env::var_os("ETCDLIFT_PEERS").map_or_else(|| parent.join("etcdlift-peers"), PathBuf::from);
    let etcdctl = cache.join("3.4/etcdctl");
    if !etcdctl.exists() {
        println!("\n`etcdctl migrate` was not measured: run tests/peers/build");
        return;
    }
    Shape::default().write(source);
    let cost = run(Command::new(etcdctl).env("ETCDCTL_API", "3").arg("migrate").arg("--data-dir").arg(source));
    println!("\n`etcdctl migrate`: {:.1} s, CPU {:.1} s, {} MiB", cost.wall, cost.cpu, cost.memory >> 20);
}

/// The smallest, the middle and the largest of some values.
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Spread {
        values.sort_by(f64::total_cmp);
        Spread { min: values[0], median: values[values.len() / 2], max: values[values.len() - 1] }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} / {:.2} / {:.2}", self.min, self.median, self.max)
    }
}
