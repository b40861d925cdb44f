//! `inspect --wal`: each entry once, with its effect, and the filters `--kind`, `--from-index` and `--to-index`.
//!
//! Lists the log of the demo directory.

use serde_json::Value;

use crate::common::run::etcdlift;

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/demo/input/default.etcd");

fn lines(options: &[&str]) -> Vec<Value> {
    let args = ["inspect", DEMO, "--wal", "--json"].iter().chain(options);
    let output = etcdlift(args).success();
    output.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn shows_each_entry_once_with_what_it_did() {
    let all = lines(&[]);
    let indexes: Vec<u64> = all.iter().map(|line| line["raft_index"].as_u64().unwrap()).collect();
    assert_eq!(indexes, (1..=55).collect::<Vec<_>>());
    // The snapshot is at 41; what came before it is not replayed.
    assert!(all[..41].iter().all(|line| line["effect"] == "in the snapshot" && line.get("v2_index").is_none()));
    let refused: Vec<_> = all.iter().filter(|line| line["effect"] == "refused 101").collect();
    assert_eq!(refused.len(), 1);
    assert_eq!((&refused[0]["key"], &refused[0]["value_bytes"]), (&"/counter".into(), &5.into()));
    let last_write = &all[53];
    assert_eq!((&last_write["key"], &last_write["effect"]), (&"/last".into(), &"changed".into()));
    assert_eq!(last_write["v2_index"], 51);
}

#[test]
fn filters_by_kind_and_by_index() {
    let kinds = |options: &[&str]| -> Vec<String> {
        lines(options).iter().map(|line| line["kind"].as_str().unwrap().to_string()).collect()
    };
    assert_eq!(kinds(&["--kind", "post"]), ["post"; 4]);
    assert_eq!(kinds(&["--kind", "conf-change", "--kind", "qget"]), ["conf-change", "qget"]);
    assert_eq!(lines(&["--from-index", "50", "--to-index", "52"]).len(), 3);
    assert_eq!(kinds(&["--kind", "write", "--from-index", "52"]), ["delete", "put", "put"]);
    let both = etcdlift(["inspect", DEMO, "--kind", "put"]);
    assert_eq!(both.status, 2, "--kind is for --wal: {}", both.story());
}

#[test]
fn the_table_has_one_line_for_each_entry() {
    let output = etcdlift(["inspect", DEMO, "--wal"]).success();
    let text = output.text();
    assert_eq!(text.lines().count(), 55);
    assert!(text.lines().any(|line| line.contains("refused 101") && line.contains("\"/counter\"")), "{text}");
}
