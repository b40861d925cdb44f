//! TTLs on real servers: what has a TTL in v2 hangs on a lease in v3, and goes when its time is up.
//!
//! The tree is written by hand, with expirations relative to the instant that `--as-of` names. Needs the peers; without
//! them the tests say `SKIPPED`.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::convert::convert_to;
use crate::common::etcdctl::Etcdctl;
use crate::common::peers::{self, Version};
use crate::common::run::all_well;
use crate::common::server::{Boot, Server};
use crate::common::v2store::{NEVER, Node, store_of};
use crate::common::{scratch, v2files};
use crate::test_name;

const AS_OF: &str = "2020-01-01T00:00:00Z";

/// A key: its path, its own expiration, and the seconds that it must live for; 0 for ever.
const FILES: [(&str, &str, i64); 9] = [
    ("/1/dir/none", NEVER, 14),
    ("/1/dir/later", "2020-01-01T01:00:00Z", 14),
    ("/1/dir/sooner", "2020-01-01T00:00:08Z", 8),
    ("/1/dir/sub/none", NEVER, 14),
    ("/1/_hidden/key", "2020-01-01T00:00:13.0001Z", 14),
    ("/1/own", "2020-01-01T00:00:20Z", 20),
    ("/1/short", "2020-01-01T00:00:00.3Z", 2),
    ("/1/long", "2030-01-01T00:00:00Z", 315_619_200),
    ("/1/stays", NEVER, 0),
];
const DIRS: [(&str, &str); 4] =
    [("/1/dir", "2020-01-01T00:00:14Z"), ("/1/dir/sub", NEVER), ("/1/_hidden", NEVER), ("/1/gone", AS_OF)];

#[test]
fn keys_go_when_their_time_is_up_on_3_4() {
    go_in_time(test_name!(), Version::V3_4);
}

#[test]
fn keys_go_when_their_time_is_up_on_3_5() {
    go_in_time(test_name!(), Version::V3_5);
}

#[test]
fn keys_go_when_their_time_is_up_on_3_6() {
    go_in_time(test_name!(), Version::V3_6);
}

#[test]
fn keys_go_when_their_time_is_up_on_3_7() {
    go_in_time(test_name!(), Version::V3_7);
}

fn go_in_time(test: &str, version: Version) {
    let Some(peers) = peers::require(test) else { return };
    let temp = scratch::temp();
    let source = temp.path().join("v2");
    v2files::write_snapshot(&source, store().into_bytes(), 40, 2, 7, 30);
    let converted = convert_to(&source, &temp.path().join("out"), ["--wal-dir", "none", "--as-of", AS_OF]);
    assert_eq!(converted.output.status, 0, "{}", converted.output.story());
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&converted.report).unwrap()).unwrap();
    assert_eq!(report["balance"]["expired"]["keys"], 1, "{report}");
    let printed: BTreeMap<i64, i64> =
        report["output"]["lease_list"].as_array().unwrap().iter().fold(BTreeMap::new(), |mut all, lease| {
            all.insert(lease["id"].as_i64().unwrap(), lease["ttl"].as_i64().unwrap());
            all
        });
    let lengths: Vec<i64> = printed.values().copied().collect();
    assert_eq!(lengths, [2, 8, 14, 20, 315_619_200]);

    let data_dir = temp.path().join("restored");
    peers.restore(version, &converted.snapshot, &data_dir).success();
    let began = Instant::now();
    let server = Server::start(&Boot { alone: true, ..Boot::new(&peers, version, &data_dir) });
    // The leader was elected between these two.
    let ready = Instant::now();
    let ctl = Etcdctl::new(&peers, &server);
    let gone = watch_them_go(&ctl, &printed, ready);
    let mut wrong = Vec::new();
    for (path, _, seconds) in FILES {
        let key = path.strip_prefix("/1").unwrap();
        match (gone.get(key), seconds) {
            (None, 0 | 315_619_200) => {}
            (Some(at), seconds) if seconds > 0 => {
                let (after_ready, after_began) = (at.duration_since(ready), at.duration_since(began));
                let allowed = Duration::from_secs(seconds.unsigned_abs());
                let slack = Duration::from_secs(2);
                if after_began + slack < allowed || after_ready > allowed + slack {
                    wrong.push(format!("{key} went {after_ready:?} after the start, not {seconds} s"));
                }
            }
            (at, _) => wrong.push(format!("{key}: gone at {at:?}, expected {seconds} s")),
        }
    }
    all_well(&wrong);
    let together: Vec<_> = ["/dir/none", "/dir/later", "/dir/sub/none", "/_hidden/key"].map(|key| gone[key]).to_vec();
    assert!(together.iter().all(|at| *at == together[0]), "{together:?}");
    server.stop();
}

/// When each key was first seen to be gone. On the way: every lease names its keys, and a put that keeps the lease
/// works.
fn watch_them_go(ctl: &Etcdctl, printed: &BTreeMap<i64, i64>, ready: Instant) -> BTreeMap<String, Instant> {
    let (rows, _) = ctl.all();
    for (id, length) in printed.iter().filter(|(_, length)| **length > 2) {
        let (granted, left, mut keys) = ctl.time_to_live(*id);
        assert!(granted == *length && (length - 6..=*length).contains(&left), "{id}: {granted} {left}");
        let mut attached: Vec<_> = rows.iter().filter(|row| row.lease == *id).map(|row| row.key.clone()).collect();
        keys.sort();
        attached.sort();
        assert_eq!(keys, attached, "lease {id}");
        assert!(!keys.is_empty());
        for key in &keys {
            ctl.put_ignoring_lease(str::from_utf8(key).unwrap(), "changed");
        }
    }
    let after = ctl.all().0;
    for row in rows.iter().filter(|row| printed.get(&row.lease).is_some_and(|length| *length > 2)) {
        let now = after.iter().find(|now| now.key == row.key).unwrap();
        assert_eq!((now.lease, now.version, &now.value[..]), (row.lease, 2, &b"changed"[..]), "{}", now.show());
    }
    let mut gone = BTreeMap::new();
    while ready.elapsed() < Duration::from_secs(24) {
        let (rows, _) = ctl.all();
        let now = Instant::now();
        for (path, ..) in FILES {
            let key = path.strip_prefix("/1").unwrap();
            if !rows.iter().any(|row| row.key == key.as_bytes()) {
                gone.entry(key.to_string()).or_insert(now);
            }
        }
        thread::sleep(Duration::from_millis(100));
    }
    gone
}

/// The store of a v2 server with those nodes, and one that has expired.
fn store() -> String {
    let mut files = FILES.map(|(path, expiry, _)| (path, expiry)).to_vec();
    files.push(("/1/gone/key", NEVER));
    store_of(30, &dir("/1", NEVER, &files), "null")
}

fn dir(path: &str, expiry: &str, files: &[(&str, &str)]) -> String {
    let mut children = Vec::new();
    let is_here = |child: &str| child.rsplit_once('/').is_some_and(|(parent, _)| parent == path);
    for (child, expiry) in files {
        if is_here(child) {
            let index = 3 + files.iter().position(|file| file.0 == *child).unwrap();
            children.push(Node::file(child, index as u64, "v").expires(expiry).child());
        }
    }
    for (child, expiry) in DIRS {
        if is_here(child) {
            children.push(dir(child, expiry, files));
        }
    }
    Node::dir(path, 2, &children.join(",")).expires(expiry).child()
}
