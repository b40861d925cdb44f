//! Damage to the source, one place at a time: every bit flipped, every length cut, every sector lost. What comes out is
//! the tree of the undamaged source, or the tree of the records that are whole, or an error; never another tree.
//!
//! What each test met is counted, and printed even where it passes.

mod outcome;
mod source;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;

use etcdlift::error::Reason;
use etcdlift::internals::fuzzing::log::{self, Dialect, Log};
use etcdlift::internals::fuzzing::model::Model;
use etcdlift::internals::source::raft::{Method, Request};
use outcome::{Outcome, Tree, read};
use source::{Shape, SourceDir, shapes};

/// Outcomes by their kind, for the test's output.
#[derive(Default)]
struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    fn add(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    fn print(&self, test: &str, shape: &Shape, of: &str) {
        let total: u64 = self.0.values().sum();
        // Not `println!`: the test harness hides that of a test which passes.
        let line = format!("{test}: {shape}: {total} {of}: {:?}\n", self.0);
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

/// Every bit where the tests are optimised; else one bit of each byte, at ever another place.
const FLIP_STEP: usize = if cfg!(debug_assertions) { 9 } else { 1 };

#[test]
fn every_bit_flipped() {
    for_each_shape(|shape| {
        let dir = SourceDir::new(shape);
        let sound = read(dir.path()).unwrap();
        assert_eq!(sound.tree, dir.expected(), "{shape}: undamaged");
        for file in dir.files() {
            let mut counts = Counts::default();
            for bit in (0..file.used * 8).step_by(FLIP_STEP) {
                let (at, byte) = (bit / 8, file.bytes[bit / 8]);
                dir.write_byte(&file.path, at, byte ^ 1 << (bit % 8));
                let place = format!("{shape}: {}: bit {bit} (byte {at})", file.path.display());
                counts.add(judge_flip(&place, read(dir.path()), &sound));
                dir.write_byte(&file.path, at, byte);
            }
            counts.print("flips", shape, file.name());
        }
        assert_eq!(read(dir.path()).unwrap(), sound, "{shape}: restored");
    });
}

/// All shapes, at the same time.
fn for_each_shape(test: impl Fn(&Shape) + Sync) {
    std::thread::scope(|scope| {
        for shape in shapes() {
            let test = &test;
            scope.spawn(move || test(&shape));
        }
    });
}

fn judge_flip(place: &str, read: Result<Outcome, etcdlift::error::Error>, sound: &Outcome) -> &'static str {
    match read {
        Err(error) => {
            assert!(error.file().is_some(), "{place}: an error that names no file: {error}");
            if error.offset().is_some() { "error with offset" } else { "error with file" }
        }
        Ok(outcome) if outcome.tree == sound.tree => {
            if outcome.notes.is_empty() {
                "same"
            } else {
                "same, with a warning"
            }
        }
        Ok(outcome) => panic!(
            "{place}: another tree, with {:?}; v2 index {} for {}",
            outcome.notes, outcome.tree.index, sound.tree.index
        ),
    }
}

#[test]
fn every_length() {
    for_each_shape(|shape| {
        let dir = SourceDir::new(shape);
        let last = dir.last_segment();
        let mut counts = Counts::default();
        for len in 0..=last.used {
            dir.write(&last.path, &last.bytes[..len]);
            let expected = dir.expected_after(len);
            let place = format!("{shape}: cut at byte {len}");
            counts.add(judge_cut(&place, read(dir.path()), expected, dir.whole_before(len), len));
        }
        counts.print("cuts", shape, "lengths");
    });
}

#[test]
fn every_lost_sector() {
    for_each_shape(|shape| {
        let dir = SourceDir::new(shape);
        let last = dir.last_segment();
        let mut counts = Counts::default();
        for len in (0..=last.used).step_by(512) {
            for tail in [last.bytes.len() - len, 1, 511, 512, 8192] {
                let mut bytes = last.bytes[..len].to_vec();
                bytes.resize(len + tail, 0);
                dir.write(&last.path, &bytes);
                let place = format!("{shape}: {tail} zeros from byte {len}");
                counts.add(judge_cut(&place, read(dir.path()), dir.expected_after(len), dir.whole_before(len), len));
            }
        }
        counts.print("zeros", shape, "tails");
    });
}

/// What a cut may lead to: the tree of the whole records, and the offset of a truncated one in a warning; or an
/// error.
fn judge_cut(
    place: &str,
    read: Result<Outcome, etcdlift::error::Error>,
    expected: Option<Tree>,
    whole: usize,
    len: usize,
) -> &'static str {
    let outcome = match read {
        Ok(outcome) => outcome,
        Err(error) => {
            assert!(error.file().is_some(), "{place}: an error that names no file: {error}");
            // The records that are whole say themselves that more are missing, or are too few to be a log.
            assert!(expected.is_none(), "{place}: an error where the whole records are enough: {error}");
            return "error";
        }
    };
    let Some(expected) = expected else { panic!("{place}: a tree where the log commits what was cut off") };
    assert_eq!(outcome.tree, expected, "{place}: another tree");
    match outcome.torn {
        None if whole == len => "whole",
        Some(offset) => {
            assert_eq!(offset, whole as u64, "{place}: another offset");
            "torn"
        }
        // Of a record of 256 bytes only the length's low byte is left, which is zero.
        None => "whole, as far as can be seen",
    }
}

/// Such an index once overflowed with the first request of the log.
#[test]
fn an_index_that_no_log_can_go_on_from() {
    let mut model = Model::new((3, 4));
    model.index = u64::MAX;
    let mut log = Log::new(Dialect::Padded, 1, 2);
    log.snapshot(1, 1);
    log.entry(
        log::NORMAL,
        1,
        2,
        Some(&log::request(&Request { method: Method::Put, path: b"/1/a", ..Request::default() })),
    );
    log.state(1, 1, 2);
    let dir = tempfile::tempdir().unwrap();
    let (snap, wal) = (dir.path().join("member/snap"), dir.path().join("member/wal"));
    [&snap, &wal].into_iter().for_each(|folder| fs::create_dir_all(folder).unwrap());
    fs::write(snap.join(log::snap_file(1, 1)), log::snap(model.json().as_bytes(), 1, 1, &[1])).unwrap();
    fs::write(wal.join(log::segment_file(0, 0)), &log.segments()[0].bytes).unwrap();
    assert_eq!(read(dir.path()).unwrap_err().reason(), Reason::IndexRange);
}
