//! What the report lists, and where it looks for it.

use std::fmt::Write;

use super::harness::{MIB, Source, leaf, store};

#[test]
fn a_history_of_millions_of_events_is_read_one_by_one() {
    let source = Source::new(store(&leaf("a", "v"), &format!("{}null", "{},".repeat(8_000_000))), [].into_iter());
    let options = ["--as-of", "last-write", "--memory-limit", "100MiB"];
    source.convert(&options).within(0, source.snapshot_bytes() + 20 * MIB, 5.0);
}

#[test]
fn the_report_lists_the_first_elements_that_hold_most() {
    let mut children = String::new();
    for number in 0..200_000 {
        write!(children, "{},", leaf(&format!("k{number:06}"), "v")).unwrap();
    }
    let two =
        leaf("z/a", "v").replacen("\"z/a\"", "\"a\"", 1) + "," + &leaf("z/b", "v").replacen("\"z/b\"", "\"b\"", 1);
    write!(children, r#""z":{{"Path":"/1/z","CreatedIndex":5,"ModifiedIndex":5,"Children":{{{two}}}}}"#).unwrap();
    let source = Source::new(store(&children, ""), [].into_iter());
    source.convert(&[]).within(0, 4 * source.snapshot_bytes(), 5.0);
    let report = source.report();
    let listed = report["contents"]["first_elements"].as_object().unwrap();
    assert_eq!((listed.len(), &listed["z"]["keys"]), (1000, &2.into()));
    assert!(listed.contains_key("k000000") && listed.contains_key("k000998") && !listed.contains_key("k000999"));
    let others = &report["contents"]["other_elements"];
    assert_eq!((&others["elements"], &others["keys"]), (&199_001.into(), &199_001.into()));
    assert!(std::fs::metadata(source.at("report")).unwrap().len() < MIB);
}
