//! The selection of the start, for logs and snapshots in all states.
//!
//! The logs and snapshots come from `fuzzing/log` and `fuzzing/model`.

use std::fs;

use super::*;
use crate::fuzzing::log::{self, Dialect, Log, NORMAL};
use crate::fuzzing::model::Model;

/// A directory of snapshots and a log, built by the test.
struct Fixture {
    dir: tempfile::TempDir,
    names: Vec<SnapName>,
}

impl Fixture {
    /// Snapshots at these indexes, all of term 1.
    fn new(indexes: &[u64]) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let json = Model::new((3, 4)).json();
        let name = |index: &u64| {
            let path = dir.path().join(log::snap_file(1, *index));
            fs::write(&path, log::snap(json.as_bytes(), *index, 1, &[0xa])).unwrap();
            SnapName { term: Term(1), index: RaftIndex(*index), path }
        };
        let names = indexes.iter().map(name).collect();
        Fixture { dir, names }
    }

    fn damage(&self, number: usize) {
        let path = &self.names[number].path;
        let mut bytes = fs::read(path).unwrap();
        bytes[20] ^= 1;
        fs::write(path, bytes).unwrap();
    }

    fn choose(&self, log: &Log) -> Result<Start> {
        self.choose_with(Wal::of_bytes(log.named()).unwrap())
    }

    fn choose_with(&self, wal: Wal) -> Result<Start> {
        self.choose_recorded(wal, false)
    }

    fn choose_recorded(&self, wal: Wal, recorded: bool) -> Result<Start> {
        choose(&[Member { snapshots: self.names.clone(), ..Member::of_log(wal) }], None, recorded, Interrupt::default())
    }
}

/// Entries `first` to 20, records of snapshots, all committed; the segments cut before 11.
fn log(first: u64, records: &[u64]) -> Log {
    let mut log = Log::headless(Dialect::Padded, 0xa, 0xc);
    log.cut(first.saturating_sub(u64::from(first == 1)), None);
    for index in first..=20 {
        if index == 11 {
            log.cut(11, Some([1, 0xa, 10]));
        }
        log.entry(NORMAL, 1, index, None);
        if records.contains(&index) {
            log.snapshot(index, 1);
        }
    }
    log.state(1, 0xa, 20);
    log
}

fn chosen(start: Result<Start>) -> (u64, Vec<u64>) {
    let start = start.unwrap();
    (start.index().0, start.passed_over.iter().map(|passed| passed.index.0).collect())
}

#[test]
fn the_newest_that_the_log_confirms() {
    let snapshots = Fixture::new(&[5, 15]);
    assert_eq!(chosen(snapshots.choose(&log(1, &[5, 15]))), (15, vec![]));
    assert_eq!(chosen(snapshots.choose(&log(1, &[5]))), (5, vec![15]));
    assert_eq!(chosen(snapshots.choose(&log(1, &[]))), (0, vec![15, 5]));
    assert_eq!(chosen(Fixture::new(&[]).choose(&log(1, &[]))), (0, vec![]));
}

#[test]
fn a_damaged_one_falls_back_only_where_the_log_reaches() {
    let snapshots = Fixture::new(&[5, 15]);
    snapshots.damage(1);
    assert_eq!(chosen(snapshots.choose(&log(1, &[5, 15]))), (5, vec![15]));
    assert_eq!(chosen(snapshots.choose(&log(6, &[15]))), (5, vec![15]), "continued, without a record");
    assert_eq!(snapshots.choose(&log(7, &[15])).unwrap_err().reason(), Reason::Damaged);
    snapshots.damage(0);
    assert_eq!(chosen(snapshots.choose(&log(1, &[5, 15]))), (0, vec![15, 5]));
    let error = snapshots.choose(&log(2, &[5, 15])).unwrap_err();
    assert!(error.file().is_some() && error.reason() == Reason::Damaged, "{error}");
}

#[test]
fn a_name_that_the_content_belies_is_not_believed() {
    let snapshots = Fixture::new(&[15]);
    let other = Fixture::new(&[14]);
    fs::copy(&other.names[0].path, &snapshots.names[0].path).unwrap();
    assert_eq!(chosen(snapshots.choose(&log(1, &[14, 15]))), (0, vec![15]));
    assert!(snapshots.dir.path().exists());
}

#[test]
fn an_orphan_is_used_only_where_the_log_goes_on_after_it() {
    let orphan = Fixture::new(&[9]);
    assert_eq!(chosen(orphan.choose(&log(10, &[]))), (9, vec![]));
    assert_eq!(chosen(orphan.choose(&log(8, &[]))), (9, vec![]), "the log has the very entry");
    assert_eq!(orphan.choose(&log(11, &[])).unwrap_err().reason(), Reason::Gap);
    let other_term = {
        let mut log = Log::headless(Dialect::Padded, 0xa, 0xc);
        log.cut(8, None);
        (8..=20).for_each(|index| log.entry(NORMAL, 2, index, None));
        log.state(2, 0xa, 20);
        log
    };
    assert_eq!(orphan.choose(&other_term).unwrap_err().reason(), Reason::Damaged, "the log contradicts it");
}

#[test]
fn a_damaged_first_segment_is_made_up_for_by_a_snapshot_or_is_an_error() {
    for (snapshot, fits) in [(5, false), (9, false), (10, true), (15, true)] {
        let snapshots = Fixture::new(&[snapshot]);
        let mut segments = log(1, &[snapshot]).named();
        segments[0].1[2] ^= 1;
        let wal = Wal::of_bytes(segments).unwrap();
        let start = snapshots.choose_with(wal);
        if fits {
            assert_eq!(chosen(start), (snapshot, vec![]));
        } else {
            let error = start.unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::Damaged);
            assert!(error.file().is_some(), "{error}");
        }
    }
}

/// Regression: such a log was read as that of an empty store, or as one that ends with the snapshot.
#[test]
fn entries_lost_before_a_segment_without_any_are_missed() {
    let mut log = log(1, &[5]);
    log.cut(21, None);
    let mut segments = log.named();
    for bytes in segments.iter_mut().take(2).map(|(_, bytes)| bytes) {
        bytes[2] ^= 1;
    }
    for names in [Fixture::new(&[]), Fixture::new(&[5]), Fixture::new(&[19])] {
        let error = names.choose_with(Wal::of_bytes(segments.clone()).unwrap()).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Damaged, "{error}");
    }
    assert_eq!(chosen(Fixture::new(&[20]).choose_with(Wal::of_bytes(segments).unwrap())), (20, vec![]));
}

/// A snapshot contains committed state, so one beyond the end of the log is newer than the log.
#[test]
fn a_snapshot_beyond_the_log_is_the_start() {
    assert_eq!(chosen(Fixture::new(&[5, 30]).choose(&log(1, &[5]))), (30, vec![]));
    assert_eq!(chosen(Fixture::new(&[5, 20]).choose(&log(1, &[5]))), (20, vec![]));
    let mut later = log(1, &[5]);
    later.entry(NORMAL, 3, 21, None);
    later.state(3, 0xa, 21);
    assert_eq!(
        chosen(Fixture::new(&[5, 30]).choose(&later)),
        (5, vec![30]),
        "a committed entry of a later term is below it"
    );
}

#[test]
fn etcd_ignores_a_snapshot_without_a_record() {
    for (snapshots, log, expected) in [
        (Fixture::new(&[5, 30]), log(1, &[5]), (5, vec![30])),
        (Fixture::new(&[5, 20]), log(1, &[5]), (5, vec![20])),
        (Fixture::new(&[5, 20]), log(1, &[5, 20]), (20, vec![])),
        (Fixture::new(&[30]), log(1, &[]), (0, vec![30])),
    ] {
        assert_eq!(chosen(snapshots.choose_recorded(Wal::of_bytes(log.named()).unwrap(), true)), expected);
    }
}

/// etcd calls it a snapshot mismatch.
#[test]
fn a_snapshot_of_another_term_than_its_record_is_not_used() {
    let fixture = Fixture::new(&[10]);
    assert_eq!(chosen(fixture.choose(&log(11, &[]))), (10, vec![]));
    let mut log = log(11, &[]);
    log.snapshot(10, 2);
    let error = fixture.choose(&log).unwrap_err();
    assert_eq!(error.kind(), crate::error::Kind::Damaged, "{error}");
    assert!(
        error.to_string().contains("snapshot mismatch: the log's snapshot record of this index has term 2"),
        "{error}"
    );
}
