//! Measures the program on large sources, beside the limit: the time to read the source once, and to write and sync as
//! many bytes as the output has.
//!
//! `cargo run --release --example measure -- [RUNS [SET...]]` prints the tables of docs/measurements.md. Without names it
//! takes every set. Each run of the limit is followed by one of the program, so that a ratio compares neighbours. The files
//! are in the page cache. `tests/peers/build` gives `etcdctl migrate`, of which the set `migrate` has at most two runs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a tool for tests"
)]

#[path = "large_store.rs"]
mod large_store;
#[allow(dead_code, reason = "shared with `floors`, which uses more of it")]
#[path = "process.rs"]
mod process;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use etcdlift::internals::bolt::Db;
use large_store::{Shape, Values};
use process::{Cost, Spread, build, files, limit, run};

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
    if wanted.is_empty() || wanted.iter().any(|wanted| wanted == "migrate") {
        migrate(&program, &source, temp.path(), runs.min(2));
    }
}

struct Case<'c> {
    program: &'c Path,
    source: &'c Path,
    options: Vec<PathBuf>,
    folder: &'c Path,
}

/// A run of the program.
struct Run {
    cost: Cost,
    /// The share of the time in which the output was read back and checked.
    check: f64,
}

impl Case<'_> {
    fn row(&self, name: &str, runs: usize) -> String {
        let snapshot = files(&self.source.join("member"));
        // Before the first pair: everything is in the page cache, and the size of the output is known.
        self.convert();
        let output = fs::metadata(self.output()).unwrap().len();
        let source: u64 = snapshot.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
        let pairs: Vec<(f64, Run)> = (0..runs)
            .map(|_| {
                let limit = limit(&snapshot, &self.folder.join("limit"), output);
                (limit, self.convert())
            })
            .collect();
        let spread = |values: &dyn Fn(&(f64, Run)) -> f64| Spread::of(pairs.iter().map(values).collect());
        let wall = spread(&|(_, run)| run.cost.wall);
        format!(
            "| {name} | {} MB | {} MB | {:.3} | {} | {wall} | {} | {:.0} % | {:.2} | {} | {:.0} |",
            source / 1_000_000,
            output / 1_000_000,
            output as f64 / pair_bytes(&self.output()) as f64,
            spread(&|(limit, _)| *limit),
            spread(&|(limit, run)| run.cost.wall / limit),
            spread(&|(_, run)| run.check).median * 100.0,
            spread(&|(_, run)| run.cost.cpu).median,
            pairs.iter().map(|(_, run)| run.cost.memory).max().unwrap_or(0) >> 20,
            source as f64 / 1e6 / wall.median,
        )
    }

    fn output(&self) -> PathBuf {
        self.folder.join("out.db")
    }

    fn convert(&self) -> Run {
        for name in ["out.db", "index.redb"] {
            let _ = fs::remove_file(self.folder.join(name));
        }
        let mut command = Command::new(self.program);
        let report = self.folder.join("report.json");
        command.arg("convert").arg(self.source).arg("-o").arg(self.output()).arg("--quiet").args(&self.options);
        let cost = run(command.arg("--report").arg(&report).arg("--overwrite"));
        Run { cost, check: share_of_check(&report) }
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

/// Runs `etcdctl migrate` of 3.4 on the first set, each time after a conversion. It writes into the source.
fn migrate(program: &Path, source: &Path, folder: &Path, runs: usize) {
    let home = env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let parent = env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from);
    let cache = env::var_os("ETCDLIFT_PEERS").map_or_else(|| parent.join("etcdlift-peers"), PathBuf::from);
    let etcdctl = cache.join("3.4/etcdctl");
    if !etcdctl.exists() {
        println!("\n`etcdctl migrate` was not measured: run tests/peers/build");
        return;
    }
    let pairs: Vec<(Cost, Cost)> = (0..runs)
        .map(|_| {
            let _ = fs::remove_dir_all(source);
            Shape::default().write(source);
            let options = ["--to", "backend"].map(PathBuf::from).to_vec();
            let converted = Case { program, source, options, folder }.convert().cost;
            let mut command = Command::new(&etcdctl);
            (converted, run(command.env("ETCDCTL_API", "3").arg("migrate").arg("--data-dir").arg(source)))
        })
        .collect();
    let spread = |value: fn(&(Cost, Cost)) -> f64| Spread::of(pairs.iter().map(value).collect());
    println!("\n| `etcdctl migrate`, s | CPU, s | RssAnon, MiB | etcdlift, s | times faster |\n|---|---|---|---|---|");
    println!(
        "| {} | {} | {} | {} | {} |",
        spread(|(_, migrate)| migrate.wall),
        spread(|(_, migrate)| migrate.cpu),
        pairs.iter().map(|(_, migrate)| migrate.memory).max().unwrap_or(0) >> 20,
        spread(|(etcdlift, _)| etcdlift.wall),
        spread(|(etcdlift, migrate)| migrate.wall / etcdlift.wall),
    );
}
