//! Measures the program on large sources, beside the limit: the time to read the source once, and to write and sync as
//! many bytes as the output has.
//!
//! `cargo run --release --example measure -- [RUNS [SET...]]` prints the tables of docs/measurements.md. Without names it
//! takes every set. `tests/peers/build` gives `etcdctl migrate`. [`runs_of`] says which sets have fewer runs.
//!
//! A round has one run of each kind: the limit, the program, the program without the option that the set is about, the
//! program with `--no-verify`. Each round begins with the second kind of the round before, so that each kind comes to each place,
//! and no kind follows itself. No run finds the output of another one: each is removed first. The source is in the page cache. Ratios
//! compare runs of one round. Three numbers are min / median / max. [`COLUMNS`] says what the columns are.

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

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use etcdlift::internals::bolt::Db;
use large_store::{Shape, Values};
use process::{Cost, Spread, build, files, limit, refuse, run, runs};

/// The set that the goals of others refer to.
const BACKEND: &str = "backend";
/// The name that asks for the table of `etcdctl migrate`.
const MIGRATE: &str = "migrate";
const RULES: &str = "[[rename]]\nprefix = \"/bench\"\nto = \"/moved\"\n";

/// The columns of the table, and what they are.
const COLUMNS: [(&str, &str); 16] = [
    ("set", "the name of the set"),
    ("runs", "the number of rounds"),
    ("source", "bytes of the source that are not in a hole, as those of a preallocated segment are"),
    ("output", "bytes of the output"),
    ("of pairs", "the size of the output, divided by that of its encoded pairs with their elements in pages"),
    ("limit, s", "wall time of the limit. It reads holes too"),
    ("etcdlift, s", "wall time of the program"),
    ("times the limit", "wall time of the program, divided by that of the limit"),
    ("goal", "the goal of the set, the figure that counts, and whether it meets the goal"),
    (
        "without the option: times CPU",
        "CPU time, divided by that of a run without the option of the set, or without its log",
    ),
    ("times wall", "the same of wall time"),
    ("check", "the share of the wall time that `--no-verify` saves, in percent; see `Round::check`"),
    ("CPU, s", "CPU time of the program, in user and in kernel mode"),
    ("RssAnon, MiB", "the most private memory in any run, seen every 5 ms"),
    ("VmHWM, MiB", "the peak of resident memory in any run, mapped files included"),
    ("source MB/s", "the column `source`, divided by the median wall time"),
];

/// A source, and the options of its conversion.
struct Set {
    name: &'static str,
    /// `None`: the shape of the set before.
    shape: Option<Shape>,
    to: &'static str,
    /// Options that half of the runs have. `INDEX_MAP` and `RULES` are names of files.
    more: &'static [&'static str],
    goal: Goal,
}

/// What a set has to meet.
#[derive(Clone, Copy)]
enum Goal {
    /// At most so many times the limit, by the median.
    Limit(f64),
    /// At most so many times less source per second than the set [`BACKEND`].
    Rate(f64),
    /// At most so many times the CPU time of runs without the option, by the median.
    Option(f64),
    /// At most so many microseconds an entry of the log, by the median: the time beyond that of the same source without a
    /// log. The stage `open`, which reads the log, does not count.
    Entry(f64),
    /// At most so many times the time, and so many times the private memory, of the set [`BACKEND`].
    Growth(f64, f64),
}

fn sets() -> Vec<Set> {
    let plain = Shape::default();
    let set = |name, shape, goal| Set { name, shape: Some(shape), to: "backend", more: &[], goal };
    let same = |name, more, goal| Set { name, shape: None, to: "backend", more, goal };
    let rate = Goal::Rate(3.0);
    vec![
        set(BACKEND, plain, Goal::Limit(2.0)),
        Set { to: "snapshot", ..same("snapshot", &[], Goal::Limit(2.5)) },
        same("index-map", &["--index-map", "INDEX_MAP"], Goal::Option(1.3)),
        same("rules", &["--rules", "RULES"], rate),
        set("log-100k", Shape { entries: 100_000, ..plain }, Goal::Entry(1.0)),
        set("json-values", Shape { values: Values::Json, ..plain }, Goal::Limit(3.0)),
        set("ttl", Shape { ttl: true, ..plain }, rate),
        set("one-directory", Shape { per_directory: 1_000_000, ..plain }, rate),
        set("200-levels", Shape { keys: 300_000, levels: 200, ..plain }, rate),
        set("500-of-1MB", Shape { keys: 500, value_bytes: 1 << 20, ..plain }, rate),
        set("history-97%", Shape { keys: 30_000, history_bytes: 400 << 20, ..plain }, rate),
        set("10M-of-256B", Shape { keys: 10_000_000, ..plain }, Goal::Growth(11.0, 10.0)),
        set("10M-of-20B", Shape { keys: 10_000_000, value_bytes: 20, ..plain }, rate),
    ]
}

/// The rounds of a set: at most two of those that take minutes.
fn runs_of(name: &str, runs: usize) -> usize {
    if name.starts_with("10M") || name == MIGRATE { runs.min(2) } else { runs }
}

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let (runs, wanted) = (runs(args.first().map(String::as_str)), args.get(1..).unwrap_or_default());
    let known: Vec<&str> = sets().iter().map(|set| set.name).chain([MIGRATE]).collect();
    if let Some(name) = wanted.iter().find(|name| !known.contains(&name.as_str())) {
        refuse(&format!("no set is named {name:?}; the sets are {}", known.join(", ")));
    }
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    let program = build();
    let temp = tempfile::tempdir_in(env::current_dir().unwrap().join("target")).unwrap();
    fs::write(temp.path().join("rules.toml"), RULES).unwrap();
    let (source, twin) = (temp.path().join("source.etcd"), temp.path().join("twin.etcd"));
    let (mut made, mut on_disk, mut backend) = (None, None, None);
    COLUMNS.iter().for_each(|(name, meaning)| println!("- {name}: {meaning}"));
    println!("\n| {} |\n{}|", COLUMNS.map(|(name, _)| name).join(" | "), "|---".repeat(COLUMNS.len()));
    for set in sets() {
        made = set.shape.map(|shape| (set.name, shape)).or(made);
        if !is_wanted(set.name) {
            continue;
        }
        let (name, shape) = made.expect("the first set has a shape");
        if on_disk != Some(name) {
            write(&shape, &source);
            let _ = fs::remove_dir_all(&twin);
            on_disk = Some(name);
        }
        if shape.entries > 0 {
            write(&Shape { entries: 0, ..shape }, &twin);
        }
        let (to, more, folder) = (set.to, set.more, temp.path());
        let case = Case { program: &program, source: &source, twin: twin.exists().then_some(&twin), to, more, folder };
        let measured = case.measure(runs_of(set.name, runs));
        println!("{}", measured.row(&set, &shape, backend.as_ref()));
        if set.name == BACKEND {
            backend = Some(measured);
        }
    }
    if is_wanted(MIGRATE) {
        migrate(&program, &source, temp.path(), runs_of(MIGRATE, runs));
    }
}

/// Writes a source, and waits for the disk, which would delay the first runs.
fn write(shape: &Shape, source: &Path) {
    let _ = fs::remove_dir_all(source);
    shape.write(source);
    nix::unistd::sync();
}

struct Case<'c> {
    program: &'c Path,
    source: &'c Path,
    /// The same source without a log.
    twin: Option<&'c PathBuf>,
    to: &'c str,
    more: &'c [&'c str],
    folder: &'c Path,
}

/// A run of the program.
struct Run {
    cost: Cost,
    /// The wall time of all stages in the report, in seconds.
    stages: f64,
    /// The wall time of `open`, which reads the log.
    open: f64,
}

/// One run of each kind.
struct Round {
    /// The seconds of the limit.
    limit: f64,
    run: Run,
    /// With `--no-verify`.
    unverified: Run,
    /// Without the option that the set is about, or without its log.
    without: Option<Run>,
}

impl Round {
    /// The share of the verification in the wall time: 1 - without / with, where "without" is a run with `--no-verify`.
    ///
    /// It counts all that this option leaves out: the stage `verify`, and what the verification adds to other stages, such
    /// as the hashes of rows in `write`. A run with `--no-verify` computes HashKV and the hash of `snapshot status` from the
    /// rows, which a verified run computes while it reads the output. That work is in no stage. So the time by which the
    /// run outside of its stages is longer than that of the verified run is subtracted: these hashes count as a part of
    /// the verification. Noise may make the share negative.
    fn check(&self) -> f64 {
        let outside = |run: &Run| run.cost.wall - run.stages;
        let hashes = outside(&self.unverified) - outside(&self.run);
        1.0 - (self.unverified.cost.wall - hashes) / self.run.cost.wall
    }
}

/// The rounds of a set.
struct Measured {
    rounds: Vec<Round>,
    source_bytes: u64,
    output_bytes: u64,
    pair_bytes: u64,
}

impl Case<'_> {
    fn measure(&self, runs: usize) -> Measured {
        let source = files(&self.source.join("member"));
        // Before the first round: the source is in the page cache, and the size of the output is known.
        self.convert(self.source, self.more);
        let output = self.folder.join("out.db");
        let output_bytes = fs::metadata(&output).unwrap().len();
        Measured {
            source_bytes: source.iter().map(|path| data_bytes(path)).sum(),
            output_bytes,
            pair_bytes: pair_bytes(&output),
            rounds: (0..runs).map(|round| self.round(round, &source, output_bytes)).collect(),
        }
    }

    fn round(&self, round: usize, source: &[PathBuf], output_bytes: u64) -> Round {
        let (mut limits, mut run, mut without, mut unverified) = (None, None, None, None);
        let mut kinds: [&mut dyn FnMut(); 4] = [
            &mut || limits = Some(self.limit(source, output_bytes)),
            &mut || run = Some(self.convert(self.source, self.more)),
            &mut || {
                without = match self.twin {
                    Some(twin) => Some(self.convert(twin, self.more)),
                    None => (!self.more.is_empty()).then(|| self.convert(self.source, &[])),
                }
            },
            &mut || unverified = Some(self.convert(self.source, &[self.more, &["--no-verify"]].concat())),
        ];
        let first = round % kinds.len();
        kinds.rotate_left(first);
        kinds.into_iter().for_each(|kind| kind());
        Round { limit: limits.unwrap(), run: run.unwrap(), unverified: unverified.unwrap(), without }
    }

    /// Removes what a run wrote, also from the page cache.
    fn clear(&self) {
        for name in ["out.db", "index.redb"] {
            let _ = fs::remove_file(self.folder.join(name));
        }
    }

    fn limit(&self, source: &[PathBuf], output_bytes: u64) -> f64 {
        self.clear();
        limit(source, &self.folder.join("limit"), output_bytes)
    }

    fn convert(&self, source: &Path, more: &[&str]) -> Run {
        self.clear();
        let (report, output) = (self.folder.join("report.json"), self.folder.join("out.db"));
        let mut command = Command::new(self.program);
        command.arg("convert").arg(source).arg("-o").arg(output).args(["--quiet", "--to", self.to]);
        command.args(more.iter().map(|option| match *option {
            "INDEX_MAP" => self.folder.join("index.redb"),
            "RULES" => self.folder.join("rules.toml"),
            option => PathBuf::from(option),
        }));
        let cost = run(command.arg("--report").arg(&report).arg("--overwrite"));
        let report: serde_json::Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
        let stages = report["stages"].as_array().unwrap();
        let seconds = |stage: &serde_json::Value| stage["ms"].as_f64().unwrap() / 1000.0;
        let open = stages.iter().filter(|stage| stage["name"] == "open").map(seconds).sum();
        Run { cost, stages: stages.iter().map(seconds).sum(), open }
    }
}

impl Measured {
    fn row(&self, set: &Set, shape: &Shape, backend: Option<&Measured>) -> String {
        let without = |value: fn(&Cost) -> f64| match self.rounds.iter().all(|round| round.without.is_none()) {
            true => "-".to_owned(),
            false => self.times_without(value).to_string(),
        };
        let check = self.spread(|round| round.check() * 100.0);
        let cells = [
            set.name.to_owned(),
            self.rounds.len().to_string(),
            format!("{} MB", self.source_bytes / 1_000_000),
            format!("{} MB", self.output_bytes / 1_000_000),
            format!("{:.3}", self.output_bytes as f64 / self.pair_bytes as f64),
            self.spread(|round| round.limit).to_string(),
            self.wall().to_string(),
            self.times_the_limit().to_string(),
            [self.goal(set.goal, shape, backend), self.common_goals(shape)].join("; "),
            without(|cost| cost.cpu),
            without(|cost| cost.wall),
            format!("{:.0} / {:.0} / {:.0} %", check.min, check.median, check.max),
            self.spread(|round| round.run.cost.cpu).to_string(),
            mib(self.private()),
            mib(self.rounds.iter().map(|round| round.run.cost.peak).max().unwrap_or(0)),
            format!("{:.0}", self.rate()),
        ];
        format!("| {} |", cells.join(" | "))
    }

    /// The goals of every set: private memory, and the size of the output.
    fn common_goals(&self, shape: &Shape) -> String {
        let most = 64e6 + 100.0 * shape.keys as f64;
        let (memory, size) = (self.private() as f64, self.output_bytes as f64 / self.pair_bytes as f64);
        let memory = format!("RssAnon {:.0} of {:.0} MB, {}", memory / 1e6, most / 1e6, is_met(memory <= most));
        format!("{memory}; size of pairs {size:.3} of 1.05, {}", is_met(size <= 1.05))
    }

    fn goal(&self, goal: Goal, shape: &Shape, backend: Option<&Measured>) -> String {
        match (goal, backend) {
            (Goal::Limit(most), _) => {
                let times = self.times_the_limit().median;
                let check = self.spread(|round| round.check() * 100.0).median;
                let limit = format!("{most:.1} times the limit: {times:.2}, {}", is_met(times <= most));
                format!("{limit}; check 25 %: {check:.0}, {}", is_met(check <= 25.0))
            }
            (Goal::Entry(most), _) => {
                let rest = |run: &Run| run.cost.wall - run.open;
                let more = |round: &Round| rest(&round.run) - rest(round.without.as_ref().expect("a twin"));
                let time = self.spread(|round| more(round) * 1e6 / shape.entries as f64);
                format!("{most:.1} µs an entry: {time}, {}", is_met(time.median <= most))
            }
            (Goal::Option(most), _) => {
                let times = self.times_without(|cost| cost.cpu).median;
                format!("{most:.1} times the CPU time without: {times:.2}, {}", is_met(times <= most))
            }
            (Goal::Rate(most), Some(backend)) => {
                let times = backend.rate() / self.rate();
                format!("MB/s of `{BACKEND}` / {most:.1}: {times:.2}, {}", is_met(times <= most))
            }
            (Goal::Growth(most, most_memory), Some(backend)) => {
                let (wall, memory) = (self.wall().median / backend.wall().median, self.private() as f64);
                let memory = memory / backend.private() as f64;
                let met = is_met(wall <= most && memory <= most_memory);
                format!(
                    "to `{BACKEND}`: {wall:.1} of {most} times the wall time, {memory:.1} of {most_memory} times RssAnon, {met}"
                )
            }
            (_, None) => format!("unknown without the set `{BACKEND}`"),
        }
    }

    fn spread(&self, value: impl Fn(&Round) -> f64) -> Spread {
        Spread::of(self.rounds.iter().map(value).collect())
    }

    fn wall(&self) -> Spread {
        self.spread(|round| round.run.cost.wall)
    }

    fn times_the_limit(&self) -> Spread {
        self.spread(|round| round.run.cost.wall / round.limit)
    }

    /// The ratio to runs without the option.
    fn times_without(&self, value: fn(&Cost) -> f64) -> Spread {
        self.spread(|round| {
            value(&round.run.cost) / value(&round.without.as_ref().expect("the set has an option").cost)
        })
    }

    fn private(&self) -> u64 {
        self.rounds.iter().map(|round| round.run.cost.private).max().unwrap_or(0)
    }

    /// Millions of bytes of the source in a second.
    fn rate(&self) -> f64 {
        self.source_bytes as f64 / 1e6 / self.wall().median
    }
}

fn is_met(met: bool) -> &'static str {
    if met { "met" } else { "not met" }
}

fn mib(bytes: u64) -> String {
    (bytes >> 20).to_string()
}

/// The bytes of a file that are not in a hole. Blocks have 512 bytes here.
fn data_bytes(path: &Path) -> u64 {
    let metadata = fs::metadata(path).unwrap();
    metadata.len().min(metadata.blocks() * 512)
}

/// The sum of all encoded pairs of a database: keys, values, and the 16 bytes of an element in a leaf page for each.
fn pair_bytes(path: &Path) -> u64 {
    let file = fs::read(path).unwrap();
    let db = Db::open(&file).unwrap();
    let buckets = db.root().iter().map(|bucket| db.open_bucket(&bucket.unwrap()).unwrap());
    buckets.flat_map(|bucket| bucket.iter()).map(|pair| pair.unwrap().record.len() as u64 + 16).sum()
}

/// Runs `etcdctl migrate` of 3.4 on the first set, each time after a conversion. It writes into the source, so each round
/// has a new one.
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
            write(&Shape::default(), source);
            let case = Case { program, source, twin: None, to: "backend", more: &[], folder };
            let converted = case.convert(source, &[]).cost;
            case.clear();
            let mut command = Command::new(&etcdctl);
            (converted, run(command.env("ETCDCTL_API", "3").arg("migrate").arg("--data-dir").arg(source)))
        })
        .collect();
    println!("\n| program | runs | wall, s | CPU, s | RssAnon, MiB | VmHWM, MiB |\n|---|---|---|---|---|---|");
    let print = |name: &str, costs: Vec<Cost>| {
        let spread = |value: fn(&Cost) -> f64| Spread::of(costs.iter().map(value).collect());
        let most = |value: fn(&Cost) -> u64| mib(costs.iter().map(value).max().unwrap_or(0));
        let (wall, cpu) = (spread(|cost| cost.wall), spread(|cost| cost.cpu));
        println!("| {name} | {runs} | {wall} | {cpu} | {} | {} |", most(|cost| cost.private), most(|cost| cost.peak));
    };
    print("etcdlift convert", pairs.iter().map(|(etcdlift, _)| *etcdlift).collect());
    print("etcdctl migrate", pairs.iter().map(|(_, migrate)| *migrate).collect());
    let faster = pairs.iter().map(|(etcdlift, migrate)| migrate.wall / etcdlift.wall).collect();
    let faster = Spread::of(faster);
    let met = is_met(faster.median >= 150.0);
    println!("\nwall time of `etcdctl migrate`, divided by that of etcdlift: {faster}; 150: {met}");
}
