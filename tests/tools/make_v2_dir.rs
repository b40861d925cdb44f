//! Writes a v2 data directory of any size for measurements: a `.snap` with KEYS keys, then a log of ENTRIES writes.
//!
//! `cargo run --release --example make_v2_dir -- DIR [KEYS [VALUE_BYTES [ENTRIES]]]`. The defaults are a million keys
//! of 256 bytes and no entries. The same arguments give the same bytes. A real etcd 3.4 and `etcdctl migrate` read the
//! directory too.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a tool for tests"
)]

#[allow(dead_code, unreachable_pub, reason = "shared with the tests, which use more of it")]
#[path = "../common/protobuf.rs"]
mod protobuf;
#[allow(dead_code, unreachable_pub, reason = "shared with the tests, which use more of it")]
#[path = "../common/v2files.rs"]
mod v2files;

use std::fmt::Write;
use std::path::PathBuf;

const MEMBER: u64 = 1;
const TERM: u64 = 2;
const PER_DIRECTORY: u64 = 1000;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some(dir) = args.first().map(PathBuf::from) else {
        println!("usage: cargo run --release --example make_v2_dir -- DIR [KEYS [VALUE_BYTES [ENTRIES]]]");
        return;
    };
    let number = |at: usize, default: u64| args.get(at).map_or(default, |text| text.parse().expect("a number"));
    let (keys, value_bytes, entries) = (number(1, 1_000_000), number(2, 256), number(3, 0));
    let mut random = Random(42);
    // The member's node and the key of each index: indexes 1 to KEYS + 1.
    let v2_index = keys + 1;
    let store = store(keys, value_bytes, v2_index, &mut random);
    println!("{keys} keys, {} bytes of JSON, {entries} log entries: {}", store.len(), dir.display());
    let snapshot = v2files::write_snapshot(&dir, store, v2_index + 2, TERM, MEMBER, v2_index);
    let requests = (0..entries).map(|i| {
        let key = random.next() % (keys + keys / 10 + 1);
        let mut value = String::new();
        random.text(value_bytes, &mut value);
        v2files::put_request(i + 1, &format!("/1{}", name(key)), value.as_bytes())
    });
    v2files::write_wal(&dir, &snapshot, MEMBER, 7, requests);
}

fn name(key: u64) -> String {
    format!("/bench/d{:05}/k{key:09}", key / PER_DIRECTORY)
}

/// The store as Go's encoder would write it, siblings sorted.
fn store(keys: u64, value_bytes: u64, v2_index: u64, random: &mut Random) -> Vec<u8> {
    const TIME: &str = r#""ExpireTime":"0001-01-01T00:00:00Z""#;
    let mut out = String::with_capacity((keys * (value_bytes + 200)) as usize);
    let node = |out: &mut String, path: &str, index: u64| {
        write!(out, r#"{{"Path":"{path}","CreatedIndex":{index},"ModifiedIndex":{index},{TIME},"Value":""#)
            .expect("memory");
    };
    let dir = |out: &mut String, path: &str, index: u64| {
        node(out, path, index);
        out.push_str(r#"","Children":{"#);
    };
    let comma = |out: &mut String| {
        if !out.ends_with('{') {
            out.push(',');
        }
    };
    out.push_str(r#"{"Root":"#);
    dir(&mut out, "/", 0);
    out.push_str(r#""0":"#);
    dir(&mut out, "/0", 0);
    out.push_str(r#""members":"#);
    dir(&mut out, "/0/members", 1);
    out.push_str(r#""1":"#);
    dir(&mut out, "/0/members/1", 1);
    out.push_str(r#""raftAttributes":"#);
    node(&mut out, "/0/members/1/raftAttributes", 1);
    out.push_str(r#"{\"peerURLs\":[\"http://127.0.0.1:2380\"]}","Children":null}}}}}}},"1":"#);
    dir(&mut out, "/1", 0);
    out.push_str(r#""bench":"#);
    dir(&mut out, "/1/bench", 2);
    // Indexes in no order of the names, each once: the step shares no factor with the number of keys.
    let step = [7919, 7907, 7901].into_iter().find(|step| !keys.is_multiple_of(*step)).unwrap_or(1);
    for first in (0..keys).step_by(PER_DIRECTORY as usize) {
        comma(&mut out);
        let parent = format!("d{:05}", first / PER_DIRECTORY);
        write!(out, "\"{parent}\":").expect("memory");
        dir(&mut out, &format!("/1/bench/{parent}"), 2);
        for key in first..keys.min(first + PER_DIRECTORY) {
            comma(&mut out);
            write!(out, "\"k{key:09}\":").expect("memory");
            let index = 2 + (u128::from(key) * step as u128 % u128::from(keys)) as u64;
            node(&mut out, &format!("/1{}", name(key)), index);
            random.text(value_bytes, &mut out);
            out.push_str(r#"","Children":null}"#);
        }
        out.push_str("}}");
    }
    write!(out, r#"}}}}}}}}}}}},"CurrentIndex":{v2_index},"CurrentVersion":2}}"#).expect("memory");
    out.into_bytes()
}

/// xorshift64*: enough for values that do not compress, the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn text(&mut self, bytes: u64, out: &mut String) {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        for _ in 0..bytes {
            out.push(char::from(LETTERS[(self.next() >> 58) as usize]));
        }
    }
}
