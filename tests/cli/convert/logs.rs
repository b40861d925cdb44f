//! A damaged write-ahead log: for damage before its end, the message names the file and the byte.
//!
//! Uses copies of the demo directory, each with one kind of damage.

use std::fs;

use super::kit::{Case, DEMO_SNAP, DEMO_WAL, demo};
use crate::common::scratch::edit;
use crate::common::v2files::{frames, rewritten};

/// Breaks one frame in the middle of the demo's log, where no snapshot replaces what it hides, and expects these words.
fn damaged(change: impl FnOnce(&mut Vec<u8>, usize, std::ops::Range<usize>), words: &[&str]) {
    let case = Case::new();
    let source = case.demo();
    fs::remove_file(source.join(DEMO_SNAP)).unwrap();
    let mut place = String::new();
    edit(&source.join(DEMO_WAL), |bytes| {
        let (at, record) = frames(bytes)[30].clone();
        place = format!("{DEMO_WAL}: byte {}", at / 100);
        change(bytes, at, record);
    });
    let words: Vec<&str> = words.iter().copied().chain([place.as_str()]).collect();
    case.run(&source, &[]).refused(3, "damaged", &words);
}

#[test]
fn a_wrong_checksum() {
    damaged(|bytes, _, record| bytes[record.end - 3] ^= 1, &["expected data with CRC-32C"]);
}

#[test]
fn a_length_that_is_too_short() {
    damaged(|bytes, at, _| bytes[at] ^= 0x40, &["expected "]);
}

#[test]
fn a_length_beyond_the_file() {
    damaged(|bytes, at, _| bytes[at + 4] = 9, &["expected a record of at most", "found a length of"]);
}

#[test]
fn a_length_of_zero_with_more_data_after_it() {
    damaged(|bytes, at, _| bytes[at..at + 8].fill(0), &["a length of zero with more data after it"]);
}

#[test]
fn a_type_that_does_not_exist() {
    damaged(|bytes, _, record| bytes[record.start + 1] = 9, &["expected a record type from 1 to 5, found 9"]);
}

#[test]
fn a_type_of_another_kind_of_record() {
    damaged(|bytes, _, record| bytes[record.start + 1] ^= 1, &["expected "]);
}

#[test]
fn an_empty_log_is_not_taken_for_an_old_state() {
    for len in [0, 1 << 20] {
        let case = Case::new();
        let source = case.demo();
        edit(&source.join(DEMO_WAL), |bytes| *bytes = vec![0; len]);
        case.run(&source, &[]).refused(5, "source-empty", &["a write-ahead log with records"]);
    }
}

#[test]
fn a_log_that_is_something_else() {
    let case = Case::new();
    let source = case.demo();
    edit(&source.join(DEMO_WAL), |bytes| {
        bytes.iter_mut().for_each(|byte| *byte = byte.wrapping_mul(7).wrapping_add(13))
    });
    case.run(&source, &[]).refused(3, "damaged", &[".wal: byte 0: expected"]);
    fs::remove_file(source.join(DEMO_WAL)).unwrap();
    fs::create_dir(source.join(DEMO_WAL)).unwrap();
    case.run(&source, &[]).refused(3, "unreadable", &[".wal: expected a regular file"]);
}

#[test]
fn a_log_cut_below_what_was_applied_is_refused() {
    let case = Case::new();
    let source = case.demo();
    edit(&source.join(DEMO_WAL), |bytes| bytes.truncate(frames(bytes)[40].0 + 20));
    // The snapshot is newer than all that is left of the log.
    let run = case.run(&source, &[]);
    run.converted(8);
    assert_eq!(run.report()["source"]["raft_index"], 41);
    assert!(run.report()["losses"].to_string().contains("the log ends at 19 without a record of it"));
    let case = Case::new();
    let source = case.demo();
    edit(&source.join(DEMO_WAL), |bytes| bytes.truncate(frames(bytes)[40].0 + 20));
    fs::remove_file(source.join(DEMO_SNAP)).unwrap();
    let words = [".wal: byte ", "truncated: expected raft entries up to", "a part of the log is missing", "--salvage"];
    case.run(&source, &[]).refused(3, "commit-beyond-log", &words);
    let run = case.run(&source, &["--salvage"]);
    run.converted(8);
    let losses = run.report()["losses"].to_string();
    assert!(losses.contains("continued past missing data") && losses.contains("consistent index"), "{losses}");
}

#[test]
fn a_record_cut_by_a_crash_is_left_out_and_said() {
    let case = Case::new();
    let source = case.demo();
    // Its length had reached the disk, the sector with the rest had not.
    edit(&source.join(DEMO_WAL), |bytes| {
        let (_, record) = frames(bytes).pop().unwrap();
        bytes[record].fill(0);
    });
    let run = case.run(&source, &[]);
    run.converted(0);
    assert_eq!(run.notices("warnings")[0], "torn-tail");
    let line = run.output.stderr.lines().find(|line| line.starts_with("warning: ")).unwrap();
    assert!(line.contains(".wal: byte ") && line.contains("a crash truncated"), "{line}");
}

#[test]
fn a_damaged_v3_backend_is_named() {
    let case = Case::new();
    let source = case.demo();
    let db = source.join("member/snap/db");
    edit(&db, |bytes| bytes.truncate(5000));
    case.run(&source, &[]).refused(5, "v3-unreadable", &["member/snap/db: byte ", "v3 backend", "--existing drop-v3"]);
    // An etcd that was killed at its first start leaves such a file.
    fs::write(&db, "").unwrap();
    case.run(&source, &[]).converted(0);
}

#[test]
fn a_snapshot_under_the_name_of_another_is_not_used() {
    let case = Case::new();
    let source = case.demo();
    let other = source.join("member/snap/0000000000000002-0000000000000028.snap");
    fs::rename(source.join(DEMO_SNAP), other).unwrap();
    let run = case.run(&source, &[]);
    run.converted(0);
    assert_eq!(run.notices("warnings")[0], "snapshot-passed-over");
    assert_eq!(run.report()["output"]["revision"], 51);
}

#[test]
fn the_demo_log_is_what_these_tests_think_it_is() {
    let log = fs::read(demo().join(DEMO_WAL)).unwrap();
    let rewritten = rewritten(&log, |_| true);
    let (records, rest) = log.split_at(rewritten.len());
    assert!(records == rewritten && rest.iter().all(|byte| *byte == 0));
}
