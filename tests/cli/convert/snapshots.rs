//! Damaged `.snap` files: alone, with a log that replaces them, and with a log that does not.
//!
//! Uses snapshots that are made here, and copies of the demo directory.

use std::fs;

use super::kit::{Case, DEMO_SNAP, DEMO_WAL, demo};
use crate::common::scratch::edit;
use crate::common::v2files::snap;
use crate::common::v2store::{leaf, store};

#[test]
fn a_sound_one_made_by_hand_converts() {
    let case = Case::new();
    let run = case.run(&case.file("a.snap", snap(store(9, &leaf("a", 8, "x")).as_bytes(), 9)), &[]);
    let rows = run.converted(0);
    let row = &rows[0];
    assert_eq!((rows.len(), &row.key[..], &row.value[..]), (1, &b"/a"[..], &b"x"[..]));
    assert_eq!((row.create, row.modified, row.version, row.lease), (8, 8, 1, 0));
    assert_eq!(run.report()["output"]["revision"], 9);
    assert_eq!(run.notices("warnings"), ["snapshot-only"]);
    // By its content, under any name.
    let renamed = case.path("backup-2016");
    fs::rename(case.path("a.snap"), &renamed).unwrap();
    fs::remove_file(case.out()).unwrap();
    assert_eq!(case.run(&renamed, &[]).converted(0), rows);
}

#[test]
fn every_cut_and_every_flipped_bit_is_damage_with_an_offset() {
    let case = Case::new();
    let sound = fs::read(demo().join(DEMO_SNAP)).unwrap();
    for len in [1, 7, 20, 200, sound.len() / 2, sound.len() - 1] {
        let source = case.file("cut.snap", &sound[..len]);
        case.run(&source, &[]).refused(3, "damaged", &["cut.snap: byte "]);
    }
    for at in [0, 2, 6, 9, 12, 200, sound.len() / 2, sound.len() - 1] {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x10;
        let source = case.file("flipped.snap", bytes);
        case.run(&source, &[]).refused(3, "damaged", &["flipped.snap: byte "]);
    }
}

/// Of more starts than are replayed, the report names those that were not; the newest is the best all the same.
#[test]
fn salvage_says_which_starts_it_did_not_replay() {
    let case = Case::new();
    let source = case.path("dir");
    fs::create_dir_all(source.join("snap")).unwrap();
    for index in 9..49 {
        let name = format!("snap/{:016x}-{index:016x}.snap", 2);
        fs::write(source.join(name), snap(store(9, &leaf(&format!("k{index}"), 8, "v")).as_bytes(), index)).unwrap();
    }
    let run = case.run(&source, &["--salvage", "--wal-dir", "none"]);
    let rows = run.converted(8);
    assert_eq!((rows.len(), &rows[0].key[..]), (1, &b"/k48"[..]));
    let starts = run.report()["source"]["salvage_starts"].as_array().unwrap();
    let from: Vec<u64> = starts.iter().map(|start| start["from"].as_u64().unwrap()).collect();
    assert_eq!(from, (9..49).rev().collect::<Vec<u64>>());
    for (place, start) in starts.iter().enumerate() {
        assert_eq!((&start["keys"] == 1, start["not_replayed"].is_null()), (place < 32, place < 32), "{start}");
        assert_eq!(start["chosen"], place == 0);
    }
}

#[test]
fn a_cut_one_is_called_cut() {
    let case = Case::new();
    let sound = fs::read(demo().join(DEMO_SNAP)).unwrap();
    let source = case.file("cut.snap", &sound[..9000]);
    case.run(&source, &[]).refused(3, "damaged", &["9000 bytes", "the file is truncated"]);
}

#[test]
fn a_correct_checksum_of_a_damaged_store_is_damage() {
    let case = Case::new();
    let sound = store(9, &leaf("a", 8, "x"));
    let deep = |levels: usize| format!("{}{}", r#""x":{"Children":{"#.repeat(levels), "}}".repeat(levels));
    let stores = [
        ("empty", String::new()),
        ("cut", sound[..sound.len() / 2].to_owned()),
        ("half a string", sound[..sound.find("CreatedIndex").unwrap() + 5].to_owned()),
        ("too deep", store(9, &deep(10_001))),
        ("brackets", "[".repeat(1_000_000)),
        ("another document", r#"{"apiVersion":"v1","items":[]}"#.to_owned()),
        ("a list", "[1,2,3]".to_owned()),
        ("null", "null".to_owned()),
        ("a number for the root", r#"{"Root":1}"#.to_owned()),
        ("something after it", format!("{sound} x")),
        ("no JSON", "\u{1}\u{2}\u{3}".to_owned()),
        ("an index below zero", sound.replace(r#""ModifiedIndex":8"#, r#""ModifiedIndex":-8"#)),
        ("an index of 2^64", sound.replace(r#""ModifiedIndex":8"#, r#""ModifiedIndex":18446744073709551616"#)),
    ];
    for (name, store) in stores {
        let source = case.file("bad.snap", snap(store.as_bytes(), 9));
        eprintln!("{name}");
        case.run(&source, &[]).refused(3, "damaged", &["bad.snap: byte ", "expected "]);
    }
}

#[test]
fn an_index_that_cannot_be_a_revision_asks_for_dense_numbers() {
    let case = Case::new();
    let long = "k".repeat(5000);
    for (index, name) in [(1, "low"), (1 << 63, "high"), (1, long.as_str())] {
        let store = store(1 << 63, &leaf(name, index, "x"));
        let source = case.file("odd.snap", snap(store.as_bytes(), 9));
        let run = case.run(&source, &[]);
        run.refused(5, "index-range", &["--revisions dense"]);
        assert!(run.output.stderr.len() < 600, "{}", run.output.story());
        assert_eq!(case.run(&source, &["--revisions", "dense"]).converted(0)[0].modified, 2);
        fs::remove_file(case.out()).unwrap();
    }
}

#[test]
fn a_log_that_reaches_back_makes_up_for_a_damaged_one() {
    let case = Case::new();
    let sound = case.run(&demo(), &[]);
    let rows = sound.converted(0);
    fs::remove_file(case.out()).unwrap();
    let source = case.demo();
    edit(&source.join(DEMO_SNAP), |bytes| bytes[300] ^= 1);
    let run = case.run(&source, &[]);
    assert_eq!(run.converted(0), rows);
    assert_eq!(run.notices("warnings")[0], "snapshot-passed-over");
    let said = run.output.stderr.lines().find(|line| line.contains("was not used")).unwrap().to_owned();
    assert!(said.contains("byte 10: expected") && said.matches(".snap").count() == 1, "{said}");
    // Without the log there is nothing else.
    let out = case.path("out/second.db");
    let run = case.run_to(&source, &out, &["--wal-dir", "none"]);
    run.refused_with_files(3, "damaged", &[DEMO_SNAP, "byte 10"], &["out.db"]);
}

#[test]
fn an_older_snapshot_serves_where_the_newest_is_damaged() {
    let case = Case::new();
    let source = case.demo();
    let newest = "member/snap/0000000000000002-000000000000002a.snap";
    fs::write(source.join(newest), "not a snapshot").unwrap();
    let run = case.run(&source, &[]);
    run.converted(0);
    assert_eq!(run.notices("warnings")[0], "snapshot-passed-over");
    assert!(run.report()["source"]["snapshot_file"].as_str().unwrap().ends_with(DEMO_SNAP));

    // Alone, the older one is an older state, and that is worth a status.
    let out = case.path("out/second.db");
    let run = case.run_to(&source, &out, &["--wal-dir", "none"]);
    assert_eq!(run.output.status, 8, "{}", run.output.story());
    assert_eq!((&run.report()["reason"], run.notices("losses")[0]), (&"older-snapshot".into(), "older-snapshot"));
    let out = case.path("out/third.db");
    let run = case.run_to(&source, &out, &["--wal-dir", "none", "--strict"]);
    run.refused_with_files(5, "strict", &["--strict", "was not used"], &["out.db", "second.db"]);
}

#[test]
fn a_log_that_does_not_reach_back_cannot_make_up_for_it() {
    let case = Case::new();
    let source = case.demo();
    cut_log_before(&source.join(DEMO_WAL), 45);
    edit(&source.join(DEMO_SNAP), |bytes| bytes[300] ^= 1);
    case.run(&source, &[]).refused(3, "damaged", &[".snap: byte 10: expected"]);
    fs::remove_file(source.join(DEMO_SNAP)).unwrap();
    case.run(&source, &[]).refused(3, "gap", &["raft entry"]);
}

#[test]
fn a_gap_between_snapshot_and_log_is_refused() {
    let case = Case::new();
    let source = case.demo();
    cut_log_before(&source.join(DEMO_WAL), 45);
    case.run(&source, &[]).refused(3, "gap", &[".wal: ", "raft entry 42", "has none before 45"]);
}

/// Makes a log that begins with this raft entry, with the checksums that a server would have written.
fn cut_log_before(path: &std::path::Path, first: u64) {
    edit(path, |bytes| {
        *bytes = crate::common::v2files::rewritten(bytes, |entry| entry.is_none_or(|index| index >= first))
    });
}
