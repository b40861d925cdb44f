//! The event history of a snapshot and the first elements of paths: bounded, however many a source has.
//!
//! The snapshots are made here, with millions of events or elements.

use std::fmt::Write;

use super::harness::{MIB, Source};
use crate::common::v2store::{Node, leaf, store, store_with_events};

#[test]
fn a_history_of_millions_of_events_is_read_one_by_one() {
    let source = Source::new(
        store_with_events(10, &leaf("a", 5, "v"), &format!("{}null", "{},".repeat(8_000_000))),
        [].into_iter(),
    );
    let options = ["--as-of", "last-write", "--memory-limit", "100MiB"];
    source.convert(&options).within(0, source.snapshot_bytes() + 20 * MIB, 5.0);
}

#[test]
fn the_report_lists_the_first_elements_that_hold_most() {
    let mut children = String::new();
    for number in 0..200_000 {
        write!(children, "{},", leaf(&format!("k{number:06}"), 5, "v")).unwrap();
    }
    let two = ["/1/z/a", "/1/z/b"].map(|path| Node::file(path, 5, "v").child()).join(",");
    children.push_str(&Node::dir("/1/z", 5, &two).child());
    let source = Source::new(store(10, &children), [].into_iter());
    source.convert(&[]).within(0, 4 * source.snapshot_bytes(), 5.0);
    let report = source.report();
    let listed = report["contents"]["first_elements"].as_object().unwrap();
    assert_eq!((listed.len(), &listed["z"]["keys"]), (1000, &2.into()));
    assert!(listed.contains_key("k000000") && listed.contains_key("k000998") && !listed.contains_key("k000999"));
    let others = &report["contents"]["other_elements"];
    assert_eq!((&others["elements"], &others["keys"]), (&199_001.into(), &199_001.into()));
    assert!(std::fs::metadata(source.at("report")).unwrap().len() < MIB);
}
