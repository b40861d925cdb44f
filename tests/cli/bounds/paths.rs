//! Paths of many components: created, removed, converted, refused and listed within bounds of memory and time.
//!
//! The sources are made here: a small log whose requests create deep directories.

use super::harness::{MIB, Source, run};
use crate::common::v2files::Request;
use crate::common::v2store::store;

fn deep(name: &str, levels: usize) -> String {
    format!("/1/{name}{}", "/d".repeat(levels))
}

fn put(path: &str) -> Vec<u8> {
    Request::new("PUT", path).value(b"v").bytes()
}

fn delete(path: &str) -> Vec<u8> {
    Request::new("DELETE", path).recursive().bytes()
}

#[test]
fn a_path_of_100_000_components_is_made_and_removed() {
    let requests = [put(&deep("a", 100_000)), put("/1/b"), delete("/1/a")];
    let source = Source::new(store(10, ""), requests.into_iter());
    source.convert(&[]).within(0, 60 * MIB, 3.0);
    assert_eq!(source.report()["contents"]["keys"], 1);
}

/// 1 MiB, the most that a server takes: 524,288 components.
#[test]
fn the_deepest_path_that_a_server_takes_is_converted_and_verified() {
    let source = Source::new(store(10, ""), [put(&deep("a", 524_286)), put("/1/b")].into_iter());
    source.convert(&["--dirs", "marker"]).within(0, 220 * MIB, 5.0);
    let (path, out, report) = (source.path(), source.at("out"), source.at("report"));
    let path = path.to_str().unwrap();
    let keys = run(["inspect", path, "--keys", "--json"]).within(0, 220 * MIB, 5.0);
    assert!(keys.stdout.len() > MIB as usize);
    let files = [out.to_str().unwrap(), "--report", report.to_str().unwrap(), "--source", path];
    run([&["verify"], &files[..]].concat()).within(0, 220 * MIB, 5.0);
}

/// A path in the log may make more directories than an entry is reckoned with.
#[test]
fn deep_paths_are_refused_before_they_take_more_memory_than_is_allowed() {
    let source = Source::new(store(10, ""), [put(&deep("a", 500_000)), put("/1/b")].into_iter());
    let run = source.convert(&["--memory-limit", "60MiB", "--jobs", "1"]).within(5, 0, 5.0);
    assert!(run.stderr.contains("--memory-limit leaves room for"), "{}", run.stderr);
}

#[test]
fn deep_paths_that_come_and_go_take_the_memory_of_one() {
    let round = |at: usize| [put(&deep(&format!("r{at}"), 2000)), delete(&format!("/1/r{at}"))];
    let source = Source::new(store(10, ""), (0..1000).flat_map(round).chain([put("/1/b")]));
    source.convert(&[]).within(0, 20 * MIB, 5.0);
}

/// Every directory has its own line: 36 MB of them, of which no more than a part is held at a time.
#[test]
fn deep_directories_are_listed_one_by_one() {
    let source = Source::new(store(10, ""), [put(&deep("a", 6000)), put("/1/b")].into_iter());
    let ledger = source.at("ledger");
    source.convert(&["--ledger", ledger.to_str().unwrap()]).within(0, 20 * MIB, 3.0);
    let (path, out) = (source.path(), source.at("export"));
    let args = ["export", path.to_str().unwrap(), "-o", out.to_str().unwrap()];
    run(args).within(0, 20 * MIB, 3.0);
    assert!(std::fs::metadata(out).unwrap().len() > 34 * MIB);
}
