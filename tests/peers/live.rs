//! `--allow-live`: conversions of a directory that a real etcd 3.4 is writing to all the time, while it cuts segments,
//! takes snapshots and purges both. A client writes /seq/1, /seq/2 and so on, one after the other: whatever is
//! converted must hold 1 to k without a hole, and k is at least what was acknowledged before the conversion began.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use etcdlift::internals::bolt::Db;
use etcdlift::internals::mvcc::{KeyValue, schema};
use serde_json::Value;

use crate::common::peers::{self, Version};
use crate::common::run::{Output, etcdlift};
use crate::common::scratch;
use crate::common::server::{Boot, Server};
use crate::connection::{Call, Connection};
use crate::test_name;

/// Small writes, as many as the server takes: the log's end is nearly always being written.
#[test]
fn a_prefix_while_a_client_writes() {
    under_load(test_name!(), 100, &["--snapshot-count", "50"], |_, after| {
        after.iter().any(|name| name.ends_with(".snap"))
    });
}

/// Big values: segments of 64 MB are cut, and all but one of them purged, while they are read. etcd purges twice a
/// minute.
#[test]
fn a_prefix_while_segments_are_cut_and_purged() {
    let args = ["--snapshot-count", "500", "--max-snapshots", "1", "--max-wals", "1"];
    under_load(test_name!(), BIG, &args, |before, after| after.iter().all(|name| !before.contains(name)));
}

const BIG: usize = 20_000;

/// At least so many conversions, for at most so long.
const CONVERSIONS: u32 = 25;
const SECONDS: u64 = 100;

/// Converts again and again while a client writes values of that many bytes, until the names of segments and snapshots
/// have changed enough.
fn under_load(test: &str, value: usize, args: &[&str], enough: impl Fn(&[String], &[String]) -> bool) {
    let Some(peers) = peers::require(test) else { return };
    let temp = scratch::temp();
    let data_dir = temp.path().join("default.etcd");
    let args = args.iter().map(ToString::to_string).collect();
    let server = Server::start(&Boot { enable_v2: true, args, ..Boot::new(&peers, Version::V3_4, &data_dir) });
    let (acknowledged, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let address = server.client_address();
    let before = names(&data_dir.join("member"));
    let begun = Instant::now();
    thread::scope(|scope| {
        let client = scope.spawn(|| write(address, value, &acknowledged, &stop));
        let watched = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_for(|| acknowledged.load(Ordering::SeqCst) > 200);
            for number in 1.. {
                let least = acknowledged.load(Ordering::SeqCst);
                let out = temp.path().join("out.db");
                let report = temp.path().join("report.json");
                let run = convert(&data_dir, &out, &report);
                assert!(!client.is_finished(), "the client has stopped");
                assert_eq!(run.status, 0, "conversion {number}: {}", run.story());
                check(&out, &report, least, value);
                if number % 5 == 1 {
                    check_export(&data_dir, &temp.path().join("out.ndjson"), least);
                }
                if number == 2 {
                    check_upgrade(&data_dir);
                }
                fs::remove_file(&out).unwrap();
                fs::remove_file(&report).unwrap();
                let after = names(&data_dir.join("member"));
                if number >= CONVERSIONS && enough(&before, &after) {
                    break;
                }
                assert!(
                    begun.elapsed() < Duration::from_secs(SECONDS),
                    "{number} conversions: {before:?} -> {after:?}"
                );
            }
        }));
        stop.store(true, Ordering::SeqCst);
        client.join().unwrap();
        if let Err(panic) = watched {
            std::panic::resume_unwind(panic);
        }
    });
    server.stop();
}

/// /seq/N is created in order; the value says N. Old big ones are emptied again, so that snapshots stay small.
fn write(address: SocketAddr, value: usize, acknowledged: &AtomicU64, stop: &AtomicBool) {
    let mut connection = Connection::open(address).unwrap();
    for n in 1.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let put = |n: u64, text: String| Call::new("PUT", format!("/seq/{n}").as_bytes()).with("value", text);
        let answer = connection.ask(&put(n, format!("{n}:{}", "v".repeat(value)))).unwrap();
        assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
        acknowledged.store(n, Ordering::SeqCst);
        if value == BIG && n > 10 {
            let answer = connection.ask(&put(n - 10, format!("{}:", n - 10))).unwrap();
            assert_eq!(answer.status, 200);
        }
    }
}

fn convert(data_dir: &Path, out: &Path, report: &Path) -> Output {
    let words = ["convert".as_ref(), data_dir.as_os_str(), "--allow-live".as_ref(), "-o".as_ref(), out.as_os_str()];
    etcdlift(words.into_iter().chain(["--report".as_ref(), report.as_os_str()]))
}

/// The keys of the snapshot, or the requests after it, stop etcd 3.6 at every moment.
fn check_upgrade(data_dir: &Path) {
    let words = ["check".as_ref(), data_dir.as_os_str(), "--allow-live".as_ref(), "--json".as_ref()];
    let checked = etcdlift(words);
    assert_eq!(checked.status, 7, "{}", checked.story());
    let source = &checked.json()["sources"][0];
    assert_eq!(source["warnings"][0]["code"], "live", "{}", checked.story());
    assert_eq!(source["losses"], serde_json::json!([]), "{}", checked.story());
}

/// 1 to k, each with a value that was written for it, and nothing else.
fn check(out: &Path, report: &Path, acknowledged: u64, value: usize) {
    let report: Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    let warnings: Vec<&str> =
        report["warnings"].as_array().unwrap().iter().map(|warning| warning["code"].as_str().unwrap()).collect();
    assert_eq!(warnings, ["live"], "{report}");
    let index = report["source"]["raft_index"].as_u64().unwrap();
    let message = report["warnings"][0]["message"].as_str().unwrap();
    assert!(message.contains(&format!("raft index {index},")), "{message}");

    let bytes = fs::read(out).unwrap();
    let db = Db::open(&bytes).unwrap();
    let bucket = db.bucket(schema::KEY).unwrap().unwrap();
    let mut found = BTreeMap::new();
    for pair in bucket.iter() {
        let pair = pair.unwrap();
        let kv = KeyValue::decode(pair.value, pair.value_offset()).unwrap();
        let n: u64 = std::str::from_utf8(kv.key).unwrap().strip_prefix("/seq/").unwrap().parse().unwrap();
        let (number, rest) = std::str::from_utf8(kv.value).unwrap().split_once(':').unwrap();
        assert_eq!(number, n.to_string());
        assert!(rest.is_empty() || rest.len() == value, "/seq/{n} has a value of {} bytes", rest.len());
        found.insert(n, rest.is_empty());
    }
    let last = *found.keys().next_back().unwrap();
    assert_eq!(found.len() as u64, last, "there is a hole below {last}");
    assert!(last >= acknowledged, "{acknowledged} were acknowledged, {last} are there");
    // What was emptied was emptied in order, too.
    let emptied = found.values().filter(|empty| **empty).count() as u64;
    assert!(found.iter().all(|(n, empty)| *empty == (*n <= emptied)), "the emptied ones have a hole");
    if value == BIG {
        assert!((last - 11..=last - 10).contains(&emptied), "{emptied} of {last} are empty");
    }
}

/// An export is a prefix as well, and says so.
fn check_export(data_dir: &Path, out: &Path, acknowledged: u64) {
    let words = ["export".as_ref(), data_dir.as_os_str(), "--allow-live".as_ref(), "-o".as_ref(), out.as_os_str()];
    let run = etcdlift(words).success();
    assert!(
        run.stderr.contains("warning: an etcd is running on the source: the output has its state at raft index "),
        "{}",
        run.story()
    );
    let mut found: Vec<u64> = Vec::new();
    for line in fs::read_to_string(out).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        found.extend(line["key"].as_str().unwrap().strip_prefix("/seq/").map(|n| n.parse::<u64>().unwrap()));
    }
    found.sort_unstable();
    let last = found.len() as u64;
    assert!(found.iter().copied().eq(1..=last), "there is a hole below {last}");
    assert!(last >= acknowledged, "{acknowledged} were acknowledged, {last} are there");
    fs::remove_file(out).unwrap();
}

/// The segments and snapshots of a member.
fn names(member: &Path) -> Vec<String> {
    let entries = ["snap", "wal"].into_iter().flat_map(|dir| fs::read_dir(member.join(dir)).unwrap());
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.ends_with(".wal") || name.ends_with(".snap"));
    names.sort();
    names
}

fn wait_for(what: impl Fn() -> bool) {
    let begun = Instant::now();
    while !what() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not happen");
        thread::sleep(Duration::from_millis(5));
    }
}
