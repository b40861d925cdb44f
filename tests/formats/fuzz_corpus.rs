//! Every seed of the fuzz targets, and every input that once failed, through the same entry points.
//!
//! The seeds are in `fuzz/corpus`, the inputs in `fuzz/regressions`. `BLESS=1` writes the seeds that are generated
//! here.

use std::fs;
use std::path::{Path, PathBuf};

use etcdlift::internals::bolt::{Bucket, OwnedRows, image};
use etcdlift::internals::fuzzing::model::Model;
use etcdlift::internals::fuzzing::replay::{PARTS, part};
use etcdlift::internals::fuzzing::{SEAM, TARGETS, log};
use etcdlift::internals::source::raft::{Method, Request};

use crate::common::golden::golden;

/// The files of one target in a folder of `fuzz/`, by name; none where there is no folder.
fn files(folder: &str, target: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(folder).join(target);
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_seed_and_every_regression() {
    for (name, target) in TARGETS {
        let seeds = files("corpus", name);
        assert!(!seeds.is_empty(), "the target {name} has no seeds");
        for path in seeds.into_iter().chain(files("regressions", name)) {
            println!("{}", path.display());
            target(&fs::read(&path).unwrap());
        }
    }
}

#[test]
fn every_cut_of_a_seed_and_every_byte_of_it_changed() {
    for (name, target) in TARGETS {
        for path in files("corpus", name).into_iter().filter(|path| fs::metadata(path).unwrap().len() < 1000) {
            let seed = fs::read(path).unwrap();
            for at in 0..seed.len() {
                target(&seed[..at]);
                let mut changed = seed.clone();
                changed[at] ^= 1 << (at % 8);
                target(&changed);
            }
        }
    }
}

/// Makes the seeds that do not come from real servers; `BLESS=1` makes them again.
#[test]
fn made_seeds_are_as_they_are_made() {
    let write =
        |target: &str, name: &str, bytes: &[u8]| golden(Path::new("fuzz/corpus").join(target).join(name), bytes);
    let put = |path, val| Request { method: Method::Put, path, val, ..Request::default() };
    let requests = [
        put(b"/1/a/b", b"value"),
        Request { prev_exist: Some(true), expiration: 1_500_000_000_000_000_000, ..put(b"/1/a/b", b"\xff") },
        Request { prev_value: b"\xff", prev_index: 3, ..put(b"/1/a/b", b"w") },
        Request { method: Method::Post, ..put(b"/1/q", b"job") },
        Request { dir: true, refresh: Some(true), ..put(b"/1/d", b"") },
        Request { method: Method::Delete, recursive: true, ..put(b"/1/d", b"") },
        Request { method: Method::Sync, time: 1_600_000_000_000_000_000, ..Request::default() },
        put(b"/0/version", b"3.4.0"),
        put(b"/0/members/a1/attributes", br#"{"name":"m","clientURLs":["http://c"]}"#),
    ];
    let mut model = Model::new((3, 4));
    for (i, request) in requests.iter().enumerate() {
        model.apply(request);
        write("entry", &format!("request-{i}"), &log::request(request));
    }
    write("entry", "conf-change", &log::conf_change(0, 0xa1, &log::member_json(0xa1, 2380)));
    write("entry", "entry", &[8, 0, 16, 2, 24, 9, 34, 3, b'a', b'b', b'c']);
    write("entry", "state", &[8, 2, 16, 0xa1, 1, 24, 9]);
    for (dialect, name) in [(log::Dialect::Unpadded, "unpadded"), (log::Dialect::Padded, "padded")] {
        let mut log = log::Log::new(dialect, 0xa1, 0xc);
        let member = log::conf_change(0, 0xa1, &log::member_json(0xa1, 2380));
        log.entry(log::CONF_CHANGE, 1, 1, Some(&member));
        log.state(1, 0, 1);
        for (index, request) in (2..).zip(&requests) {
            log.entry(log::NORMAL, 2, index, Some(&log::request(request)));
            if index == 5 {
                log.state(2, 0xa1, 5);
                log.snapshot(5, 2);
                log.cut(6, Some([2, 0xa1, 5]));
            }
        }
        log.entry(log::NORMAL, 3, 9, None);
        log.state(3, 0xa1, 9);
        let segments: Vec<&[u8]> = log.segments().iter().map(|segment| &segment.bytes[..]).collect();
        write("segment", name, &segments.join(SEAM));
        write("segment", &format!("{name}-first"), segments[0]);
    }
    let json = model.json();
    write("store", "model", json.as_bytes());
    write(
        "store",
        "escapes",
        br#"{"Root":{"Path":"/","Children":{"1":{"Path":"/1","Value":"\ud83d\ude00\u003c\n"}}}}"#,
    );
    for (name, letters, text) in [
        ("short", 0, r#"{\"a\":\"b\\\n\/\t\"}"#),
        ("unicode", 61, r"\u003cb\u0000\ufffd\uD83d\uDe00"),
        ("surrogate", 3, r"\ud83d\u0041\ude00"),
        ("bytes", 130, "a\u{e4}\u{20ac}\u{1f600}"),
        ("quote", 63, "\\\\\" \\n"),
        ("refused", 64, r"\n\u12g4"),
    ] {
        write("text", name, &[&[letters, 7], text.as_bytes()].concat());
    }
    write("snap", "model", &log::snap(json.as_bytes(), 9, 3, &[0xa1]));
    let pairs = |n: u8| OwnedRows::new((0..n).map(|i| (vec![0, i], vec![b'v'; usize::from(i) * 20])).collect());
    let (key, meta, none) = (pairs(40), pairs(3), pairs(0));
    let buckets = [("key", &key), ("lease", &none), ("meta", &meta)];
    let buckets = buckets.map(|(name, rows)| Bucket { name: name.as_bytes(), rows });
    write("bolt", "own", &image(&buckets).unwrap());
    let life = |seed: usize| (0..300).map(|i| (((i + 1) * (seed * 2 + 7919)) >> 3) as u8).collect::<Vec<u8>>();
    (0..14).for_each(|seed| write("convert", &format!("life-{seed}"), &life(seed)));
    hostile_seeds(&write);
}

/// Small sources that once took gigabytes or minutes.
fn hostile_seeds(write: &dyn Fn(&str, &str, &[u8])) {
    let node = |path: &str, value: &str, children: &str| {
        format!(r#"{{"Path":"{path}","ModifiedIndex":4,"CreatedIndex":3,"Value":"{value}","Children":{children}}}"#)
    };
    let store = |children: &str, history: &str| {
        let keys = node("/1", "", &format!("{{{children}}}"));
        let root = node("/", "", &format!(r#"{{"1":{keys}}}"#));
        format!(r#"{{"Root":{root},"WatcherHub":{{"EventHistory":{history}}},"CurrentIndex":9}}"#)
    };
    let many = |count: usize, item: &dyn Fn(usize) -> String| (0..count).map(item).collect::<Vec<_>>().join(",");
    let history = format!(r#"{{"Queue":{{"Events":[{}]}}}}"#, many(3000, &|_| "null".into()));
    let key = format!(r#""k":{}"#, node("/1/k", &r"\n\u0007".repeat(300), "null"));
    let mut deep = node(&format!("/1{}", "/d".repeat(60)), "v", "null");
    for depth in (1..60).rev() {
        deep = node(&format!("/1{}", "/d".repeat(depth)), "", &format!(r#"{{"d":{deep}}}"#));
    }
    let stores = [
        ("empty-history", store(&key, &history)),
        (
            "first-elements",
            store(&many(300, &|n| format!(r#""{n}":{}"#, node(&format!("/1/{n}"), "", "null"))), "null"),
        ),
        ("one-name", store(&many(300, &|_| format!(r#""\u{{fffd}}":{}"#, node("/1/\u{fffd}", "", "null"))), "null")),
        ("deep", store(&format!(r#""d":{deep}"#), "null")),
    ];
    for (name, json) in &stores {
        write("store", name, json.as_bytes());
        write("snap", name, &log::snap(json.as_bytes(), 9, 3, &[0xa1]));
    }
    let [request, change, snapshot] = PARTS;
    let put = |path: &[u8], val: &[u8]| log::request(&Request { method: Method::Put, path, val, ..Request::default() });
    let refresh =
        Request { method: Method::Put, path: b"/1/k", expiration: 1 << 60, refresh: Some(true), ..Request::default() };
    let remove = Request { method: Method::Delete, path: b"/1/a", recursive: true, dir: true, ..Request::default() };
    let deep = |depth: usize| format!("/1{}", "/a".repeat(depth)).into_bytes();
    let members: Vec<u8> = (0..200u64)
        .flat_map(|id| part(change, 0, &log::conf_change(0, 0x100 + id, &log::member_json(0x100 + id, 1))))
        .collect();
    let attributes: Vec<u8> = (0..50u64)
        .flat_map(|id| part(request, 6, &put(format!("/0/members/{:x}/attributes", 0x100 + id).as_bytes(), b"{}")))
        .collect();
    let refreshes = [part(snapshot, 0, stores[0].1.as_bytes()), part(request, 12, &log::request(&refresh))].concat();
    write("replay", "refreshes", &refreshes);
    write("replay", "deep-path", &part(request, 0, &put(&deep(30_000), b"v")));
    let churn = [part(request, 0, &put(&deep(2000), b"v")), part(request, 0, &log::request(&remove))].concat();
    write("replay", "deep-paths", &churn.repeat(20));
    write("replay", "members", &[members, attributes].concat());
    let post = Request { method: Method::Post, path: b"/1/q", val: b"job", ..Request::default() };
    write("replay", "in-order", &part(request, 13, &log::request(&post)));
    let sync = Request { method: Method::Sync, time: 1 << 61, ..Request::default() };
    write(
        "replay",
        "syncs",
        &[part(request, 0, &put(b"/1/k", b"v")), part(request, 14, &log::request(&sync))].concat(),
    );
}
