//! The floor of each stage of a conversion: the time of the simplest program that reads, computes and writes what the
//! stage cannot avoid, on all cores. It parses nothing, plans nothing, and knows where everything is.
//!
//! `cargo run --release --example floors -- [RUNS [json | snapshot | log]]` prints the tables of docs/measurements.md: 1,000,000
//! keys of 256 bytes; with values of JSON; as a snapshot file; with 100,000 log entries on top. Runs of the limit, of the program and of the floors alternate. No run finds the output of another one: each is removed
//! first. The source is in the page cache.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a tool for tests"
)]

#[allow(dead_code, reason = "shared with `measure`, which uses more of it")]
#[path = "large_store.rs"]
mod large_store;
#[allow(dead_code, reason = "shared with `measure`, which uses more of it")]
#[path = "process.rs"]
mod process;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::BuildHasher;
use std::hint::black_box;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::{env, thread};

use etcdlift::internals::interrupt::Interrupt;
use etcdlift::internals::source::open::{Found, OpenOptions, open};
use etcdlift::internals::source::raft::{Proposal, parse_proposal};
use etcdlift::internals::source::wal::Wal;
use etcdlift::internals::v2store::json;
use etcdlift::internals::v2store::table::NodeId;
use etcdlift::internals::v2store::text::{decode_into, scan};
use etcdlift::internals::v2store::tree::{NodeRef, Tree};
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use large_store::{Shape, Values};
use nix::fcntl::{FallocateFlags, fallocate};
use process::{Cost, Spread, build, files, limit, measured, refuse, run, runs};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

/// Bytes that a thread encodes, writes, reads back and checks at a time.
const EXTENT_BYTES: usize = 1 << 20;

/// Rows whose first bytes are read before the first of them is used.
const AHEAD: usize = 64;

/// Log entries, each with a lookup of a name.
const ENTRIES: usize = 100_000;

/// The stage with a floor only if there is a log.
const REPLAY: (&str, &[Floor]) = (
    "replay",
    &[(
        "index all names by known hashes; parse each entry once, look its name up, make a node; on one core",
        |facts| facts.replay(),
    )],
);

/// The other stages that have a floor, and the floors of each. The rest of a report has none.
const STAGES: [(&str, &[Floor]); 6] = [
    ("open", &[("CRC-32C of the source", |facts| facts.crc32c())]),
    ("read", &[("find each quote and backslash", |facts| facts.quotes())]),
    ("plan", &[("sort the rows by revision", |facts| facts.sort())]),
    (
        "write",
        &[("gather the rows, decode escapes by etcdlift's own decoder, hash each row, CRC-32, write, sync", |facts| {
            facts.write()
        })],
    ),
    (
        "verify",
        &[("read back, CRC-32 of pages, CRC-32C of pairs, hash each pair, sort the hashes of the keys", |facts| {
            facts.verify()
        })],
    ),
    ("check source", &[("CRC-32C of the source", |facts| facts.crc32c())]),
];

/// The row of the floor that the program computes beside its stages.
const HASHES: &str = "hashes";

/// What the table does not say itself.
const HEADING: &str = "Times are min / median / max. CPU times are those of the whole process. Threads that hash the \
source run beside the stages, from `read` on until they are done, so the CPU time of those stages of etcdlift contains \
them. The CPU time of `write` also contains the sha256 of the output. The floors of the stages contain neither: the row \
`hashes` has both. A stage without a floor has `-`.";

/// What a floor does, and the work.
type Floor = (&'static str, fn(&Facts<'_>));

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (runs, values, form) = match args.as_slice() {
        [] | [_] => (runs(args.first().copied()), Values::Plain, "backend"),
        [count, "json"] => (runs(Some(count)), Values::Json, "backend"),
        [count, "snapshot"] => (runs(Some(count)), Values::Plain, "snapshot"),
        [count, "log"] => (runs(Some(count)), Values::Plain, "backend"),
        _ => refuse(&format!("expected [RUNS [json | snapshot | log]], found {args:?}")),
    };
    let entries = if args.get(1) == Some(&"log") { ENTRIES as u64 } else { 0 };
    let program = build();
    let temp = tempfile::tempdir_in(env::current_dir().unwrap().join("target")).unwrap();
    let source = temp.path().join("source.etcd");
    Shape { values, entries, ..Shape::default() }.write(&source);
    let Found::V2(opened) = open(&source, None, &OpenOptions::default()).unwrap() else { panic!("v2 data") };
    let document = opened.start.snapshot.as_ref().unwrap().json();
    let table = json::read_watched(document, Interrupt::default()).unwrap();
    let tree = Tree::new(&table);
    let is_key = |id: &NodeId| !table.node(*id).is_dir() && table.path(&table.node(*id)).starts_with(b"/1/");
    let keys = (0..table.len() as u32).map(NodeId).filter(is_key);
    let hasher = DefaultHashBuilder::default();
    let mut rows: Vec<Row> = keys
        .map(|id| {
            let key = place(document, &table.path(&table.node(id)));
            let (raw, value_len) = value(document, key.end);
            let hash = hasher.hash_one(&document[key.clone()]);
            Row { revision: tree.modified(NodeRef::Base(id)).0, key, raw, value_len, hash }
        })
        .collect();
    let unordered = rows.clone();
    rows.sort_unstable_by_key(|row| row.revision);
    let file = &temp.path().join("floor");
    let wal = opened.wal().filter(|_| entries > 0);
    let facts = Facts { document, source: &source, form, wal, file, rows: &rows, unordered: &unordered, hasher };
    facts.measure(&program, runs, temp.path()).print();
}

/// Where a row is in the document.
#[derive(Clone)]
struct Row {
    revision: u64,
    key: Range<usize>,
    /// The value, with its escapes.
    raw: Range<usize>,
    /// Bytes of the decoded value.
    value_len: usize,
    /// The hash of the name.
    hash: u64,
}

impl Row {
    /// Bytes in the output.
    fn bytes(&self) -> usize {
        self.key.len() + self.value_len
    }
}

fn place(document: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr() as usize - document.as_ptr() as usize;
    assert!(start + part.len() <= document.len(), "a name with escapes");
    start..start + part.len()
}

/// Where the value after a path is, and its decoded length.
fn value(document: &[u8], after: usize) -> (Range<usize>, usize) {
    const FIELD: &[u8] = b"\"Value\":\"";
    let start = after + memchr::memmem::find(&document[after..], FIELD).unwrap() + FIELD.len();
    let scanned = scan(&document[start..], true).unwrap();
    (start..start + scanned.raw_len, scanned.len)
}

struct Facts<'f> {
    document: &'f [u8],
    source: &'f Path,
    /// The form of the output: `--to`.
    form: &'static str,
    /// The log, if it has a floor.
    wal: Option<&'f Wal>,
    file: &'f Path,
    /// In the order of revisions.
    rows: &'f [Row],
    /// In the order of the document.
    unordered: &'f [Row],
    /// That of the names.
    hasher: DefaultHashBuilder,
}

/// The times of all rounds.
#[derive(Default)]
struct Times {
    /// The stages in the order of the report: wall time and CPU time in seconds.
    stages: Vec<(String, Vec<(f64, f64)>)>,
    /// The whole run minus its stages: wall time and CPU time in seconds. A stage has whole milliseconds, rounded down.
    outside: Vec<(f64, f64)>,
    floors: BTreeMap<&'static str, Vec<Cost>>,
    limits: Vec<f64>,
    whole: Vec<Cost>,
}

impl Times {
    fn add_run(&mut self, whole: Cost, report: &Path) {
        let report: serde_json::Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
        let mut outside = (whole.wall, whole.cpu);
        for stage in report["stages"].as_array().unwrap() {
            let seconds = |field: &str| stage[field].as_f64().unwrap() / 1000.0;
            let (name, times) = (stage["name"].as_str().unwrap(), (seconds("ms"), seconds("cpu_ms")));
            outside = (outside.0 - times.0, outside.1 - times.1);
            match self.stages.iter_mut().find(|(known, _)| known == name) {
                Some((_, known)) => known.push(times),
                None => self.stages.push((name.to_owned(), vec![times])),
            }
        }
        self.outside.push(outside);
        self.whole.push(whole);
    }

    fn print(&self) {
        println!(
            "{HEADING}\n\n| stage | etcdlift, s | its CPU time, s | floor, s | its CPU time, s | what the floor does |"
        );
        println!("|---|---|---|---|---|---|");
        for (name, times) in &self.stages {
            let parts =
                STAGES.iter().chain([&REPLAY]).find(|(stage, _)| stage == name && self.floors.contains_key(stage));
            let what: Vec<&str> = parts.iter().flat_map(|(_, parts)| parts.iter().map(|(what, _)| *what)).collect();
            println!("| {name} | {} | {} |", both(times), self.floor(name, &what.join("; ")));
        }
        let beside = "beside the stages | in their CPU time";
        println!(
            "| {HASHES} | {beside} | {} |",
            self.floor(HASHES, "sha256 of source and output, of a snapshot twice")
        );
        let outside = "start and end of the process, names of the files";
        println!("| outside the stages | {} | {} |", both(&self.outside), self.floor("", outside));
        let cores = thread::available_parallelism().unwrap().get() as f64;
        let floor_cpu: f64 = self.floors.values().map(|costs| Spread::of(cpu(costs)).median).sum();
        println!(
            "| all | {} | {} | {:.2} | {floor_cpu:.2} | CPU time on {cores} cores, all busy |",
            Spread::of(wall(&self.whole)),
            Spread::of(cpu(&self.whole)),
            floor_cpu / cores
        );
        println!("\nlimit: {} s", Spread::of(self.limits.clone()));
    }

    /// The last three cells of a row.
    fn floor(&self, stage: &str, what: &str) -> String {
        match self.floors.get(stage) {
            Some(costs) => format!("{} | {} | {what}", Spread::of(wall(costs)), Spread::of(cpu(costs))),
            None => format!("- | - | {what}"),
        }
    }
}

/// Two cells: wall time and CPU time.
fn both(times: &[(f64, f64)]) -> String {
    let (wall, cpu) = times.iter().copied().unzip();
    format!("{} | {}", Spread::of(wall), Spread::of(cpu))
}

fn wall(costs: &[Cost]) -> Vec<f64> {
    costs.iter().map(|cost| cost.wall).collect()
}

fn cpu(costs: &[Cost]) -> Vec<f64> {
    costs.iter().map(|cost| cost.cpu).collect()
}

impl Facts<'_> {
    fn measure(&self, program: &Path, runs: usize, folder: &Path) -> Times {
        let (output, report) = (folder.join("out.db"), folder.join("report.json"));
        let mut command = Command::new(program);
        command.arg("convert").arg(self.source).arg("-o").arg(&output).args(["--to", self.form, "--quiet"]);
        command.arg("--report").arg(&report).arg("--overwrite");
        // Before the first round: the source is in the page cache, and the size of the output is known.
        run(&mut command);
        let (source, bytes) = (files(&self.source.join("member")), fs::metadata(&output).unwrap().len());
        let clear = || [&output, self.file].iter().for_each(|path| drop(fs::remove_file(path)));
        let limit = || {
            clear();
            limit(&source, self.file, bytes)
        };
        let mut times = Times::default();
        for _ in 0..runs {
            times.limits.push(limit());
            clear();
            let whole = run(&mut command);
            times.add_run(whole, &report);
            self.measure_floors(&output, &mut times);
        }
        times
    }

    fn measure_floors(&self, output: &Path, times: &mut Times) {
        times.floors.entry(HASHES).or_default().push(measured(|| self.sha256(output)));
        fs::remove_file(output).unwrap();
        self.reserve();
        for (name, parts) in STAGES.into_iter().chain(self.wal.map(|_| REPLAY)) {
            let costs = parts.iter().map(|(_, work)| measured(|| work(self)));
            times.floors.entry(name).or_default().push(costs.reduce(|a, b| a + b).unwrap());
        }
    }

    /// Parts of the document, one for each megabyte.
    fn parts(&self) -> impl ParallelIterator<Item = &[u8]> {
        self.document.par_chunks(EXTENT_BYTES)
    }

    fn crc32c(&self) {
        black_box(self.parts().map(crc32c::crc32c).reduce(|| 0, |a, b| a ^ b));
    }

    fn quotes(&self) {
        // The compiler compares many bytes at once, also where most of them are escapes.
        let count = |part: &[u8]| part.iter().filter(|byte| matches!(byte, b'"' | b'\\')).count();
        black_box(self.parts().map(count).sum::<usize>());
    }

    fn sort(&self) {
        let mut keys: Vec<(u64, u32)> =
            self.unordered.par_iter().enumerate().map(|(at, row)| (row.revision, at as u32)).collect();
        keys.par_sort_unstable();
        black_box(keys);
    }

    /// What a log needs at least: a table of all names by their hash, and for each entry its request, a lookup of the name, and a
    /// changed node with its place. The hashes are known, as the program has them from the reading of the snapshot. The
    /// requests are parsed once, by etcdlift's own parser.
    fn replay(&self) {
        let Some(wal) = self.wal else { return };
        let name = |at: usize| &self.document[self.unordered[at].key.clone()];
        let mut table = HashTable::with_capacity(self.unordered.len());
        for (at, row) in self.unordered.iter().enumerate() {
            table.insert_unique(row.hash, at, |at| self.unordered[*at].hash);
        }
        let (mut changed, mut nodes) = (HashMap::new(), Vec::new());
        for reference in wal.entries() {
            let entry = wal.entry(reference).unwrap();
            let Ok(Proposal::V2(request)) = parse_proposal(entry.data, entry.data_offset) else { continue };
            let found = table.find(self.hasher.hash_one(request.path), |at| name(*at) == request.path);
            changed.insert(found.copied().unwrap_or(self.unordered.len() + nodes.len()), nodes.len());
            nodes.push((request.path, request.val, [reference.index.0; 10]));
        }
        assert!(nodes.len() >= ENTRIES && changed.len() > ENTRIES / 2);
        black_box((changed, nodes));
    }

    /// Extents of rows, with the place of each in the file.
    fn extents(&self) -> Vec<(&[Row], u64)> {
        let rows = EXTENT_BYTES / self.rows.first().map_or(1, Row::bytes);
        let mut at = 0;
        let sized = self.rows.chunks(rows).map(|rows| {
            let start = at;
            at += rows.iter().map(Row::bytes).sum::<usize>() as u64;
            (rows, start)
        });
        sized.collect()
    }

    /// Appends rows to a buffer, each after lines of the next ones were read. Returns the sum of their hashes.
    fn gather(&self, rows: &[Row], buffer: &mut Vec<u8>) -> u64 {
        let hasher = DefaultHashBuilder::default();
        let mut sum = 0u64;
        for some in rows.chunks(AHEAD) {
            let lines = |row: &Row| row.raw.clone().step_by(64).map(|at| u64::from(self.document[at])).sum::<u64>();
            black_box(some.iter().map(lines).sum::<u64>());
            for row in some {
                let (key, raw, start) =
                    (&self.document[row.key.clone()], &self.document[row.raw.clone()], buffer.len());
                buffer.extend_from_slice(key);
                if raw.len() == row.value_len {
                    buffer.extend_from_slice(raw);
                } else {
                    buffer.resize(start + row.bytes(), 0);
                    assert!(decode_into(raw, &mut buffer[start + key.len()..]));
                }
                sum = sum.wrapping_add(hasher.hash_one(buffer[start..].split_at(key.len())));
            }
        }
        sum
    }

    /// Makes the file of the floors, with room for everything, before the time counts.
    fn reserve(&self) {
        let _ = fs::remove_file(self.file);
        let file = File::create(self.file).unwrap();
        let bytes = self.rows.iter().map(|row| row.bytes() as u64).sum::<u64>();
        fallocate(file, FallocateFlags::empty(), 0, bytes.try_into().unwrap()).unwrap();
    }

    fn write(&self) {
        let file = File::options().write(true).open(self.file).unwrap();
        self.extents().par_iter().for_each_init(Vec::new, |buffer, (rows, start)| {
            buffer.clear();
            black_box((self.gather(rows, buffer), crc32fast::hash(buffer)));
            file.write_all_at(buffer, *start).unwrap();
        });
        file.sync_all().unwrap();
    }

    fn verify(&self) {
        let file = File::open(self.file).unwrap();
        let hasher = DefaultHashBuilder::default();
        let read = self.extents().into_par_iter().map_init(Vec::new, |buffer, (rows, start)| {
            buffer.resize(rows.iter().map(Row::bytes).sum(), 0);
            file.read_exact_at(buffer, start).unwrap();
            black_box(crc32fast::hash(buffer));
            black_box(crc32c::crc32c(buffer));
            let (mut rest, mut names, mut sum) = (&buffer[..], Vec::with_capacity(rows.len()), 0u64);
            for row in rows {
                let (key, after) = rest.split_at(row.key.len());
                let (value, after) = after.split_at(row.value_len);
                names.push(hasher.hash_one(key));
                sum = sum.wrapping_add(hasher.hash_one((key, value)));
                rest = after;
            }
            black_box(sum);
            names
        });
        let mut names: Vec<u64> = read.flatten_iter().collect();
        names.par_sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }

    fn sha256(&self, output: &Path) {
        let mut names = files(&self.source.join("member"));
        names.push(output.to_path_buf());
        if self.form == "snapshot" {
            // The hash at its end is compared with what is read back.
            names.push(output.to_path_buf());
        }
        names.par_iter().for_each(|path| {
            let (file, mut buffer, mut hash, mut at) =
                (File::open(path).unwrap(), vec![0; EXTENT_BYTES], Sha256::new(), 0);
            loop {
                let len = file.read_at(&mut buffer, at).unwrap();
                if len == 0 {
                    break;
                }
                hash.update(&buffer[..len]);
                at += len as u64;
            }
            black_box(hash.finalize());
        });
    }
}
