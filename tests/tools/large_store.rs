//! Large v2 data directories for measurements: a `.snap` of a given shape, then a log of writes.
//!
//! The same shape gives the same bytes. A real etcd 3.4 and `etcdctl migrate` read the directories too. Must not know what
//! is measured.

#[allow(dead_code, unreachable_pub, reason = "shared with the tests, which use more of it")]
#[path = "../common/protobuf.rs"]
mod protobuf;
#[allow(dead_code, unreachable_pub, reason = "shared with the tests, which use more of it")]
#[path = "../common/v2files.rs"]
mod v2files;

use std::fmt::Write;
use std::path::Path;

const MEMBER: u64 = 1;
const TERM: u64 = 2;
const NO_EXPIRY: &str = "0001-01-01T00:00:00Z";
/// Years after any measurement, so that no key has expired.
const EXPIRY: &str = "2099-01-02T03:04:05.678901234Z";

/// What a directory holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) keys: u64,
    pub(super) value_bytes: u64,
    /// Number of keys in one directory.
    pub(super) per_directory: u64,
    /// Number of directories above each key, besides `bench` and its own.
    pub(super) levels: usize,
    pub(super) values: Values,
    /// Whether each key has a TTL.
    pub(super) ttl: bool,
    /// Bytes of the values in the history of the watchers.
    pub(super) history_bytes: u64,
    /// Number of entries in the log.
    pub(super) entries: u64,
}

/// The text of the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Values {
    /// Letters and digits, which JSON writes as they are.
    Plain,
    /// JSON in JSON: quotes, and the characters that Go escapes.
    Json,
}

impl Default for Shape {
    fn default() -> Self {
        Shape {
            keys: 1_000_000,
            value_bytes: 256,
            per_directory: 1000,
            levels: 0,
            values: Values::Plain,
            ttl: false,
            history_bytes: 0,
            entries: 0,
        }
    }
}

impl Shape {
    /// Writes the directory. Returns the number of bytes of JSON in its snapshot.
    pub(super) fn write(&self, dir: &Path) -> usize {
        // The member's node and the key of each index: indexes 1 to KEYS + 1.
        let v2_index = self.keys + 1;
        let mut random = Random(42);
        let store = self.store(v2_index, &mut random);
        let len = store.len();
        let snapshot = v2files::write_snapshot(dir, store, v2_index + 2, TERM, MEMBER, v2_index);
        let requests = (0..self.entries).map(|i| {
            let key = random.next() % (self.keys + self.keys / 10 + 1);
            let mut value = String::new();
            random.text(self.value_bytes, &mut value);
            v2files::put_request(i + 1, &format!("{}/{}", self.parent(key), name(key)), value.as_bytes())
        });
        v2files::write_wal(dir, &snapshot, MEMBER, 7, requests);
        len
    }

    /// The directory of a key.
    fn parent(&self, key: u64) -> String {
        format!("/1/bench/d{:05}{}", key / self.per_directory, "/l".repeat(self.levels))
    }

    /// The store as Go's encoder would write it, siblings sorted.
    fn store(&self, v2_index: u64, random: &mut Random) -> Vec<u8> {
        let Shape { keys, per_directory, levels, .. } = *self;
        let each = self.value_bytes + 200 + 2 * levels as u64;
        let mut out = String::with_capacity((keys * each + self.history_bytes * 2) as usize);
        write_dir_of_member(&mut out);
        // Indexes in no order of the names, each once: the step shares no factor with the number of keys.
        let step = [7919, 7907, 7901].into_iter().find(|step| !keys.is_multiple_of(*step)).unwrap_or(1);
        for first in (0..keys).step_by(per_directory as usize) {
            comma(&mut out);
            let parent = self.parent(first);
            let mut path = String::from("/1/bench");
            for component in parent.split('/').skip(3) {
                write!(path, "/{component}").expect("memory");
                write!(out, "\"{component}\":").expect("memory");
                write_dir(&mut out, &path, 2);
            }
            for key in first..keys.min(first + per_directory) {
                comma(&mut out);
                let (name, expiry) = (name(key), if self.ttl { EXPIRY } else { NO_EXPIRY });
                write!(out, "\"{name}\":").expect("memory");
                let index = 2 + (u128::from(key) * u128::from(step) % u128::from(keys)) as u64;
                write_node(&mut out, &format!("{parent}/{name}"), index, expiry);
                self.value(random, &mut out);
                out.push_str(r#"","Children":null}"#);
            }
            (0..=levels).for_each(|_| out.push_str("}}"));
        }
        out.push_str("}}}}}}");
        if self.history_bytes > 0 {
            self.write_history(v2_index, random, &mut out);
        }
        write!(out, r#","CurrentIndex":{v2_index},"CurrentVersion":2}}"#).expect("memory");
        out.into_bytes()
    }

    fn value(&self, random: &mut Random, out: &mut String) {
        match self.values {
            Values::Plain => random.text(self.value_bytes, out),
            Values::Json => {
                let start = out.len();
                while out.len() - start < self.value_bytes as usize {
                    let at = out.len();
                    random.text(4, out);
                    let word = out.split_off(at);
                    write!(out, r#"{{\"{word}\":\"\u003c{word}\u003e\"}}\n"#).expect("memory");
                }
            }
        }
    }

    /// The last 1000 changes, as a store keeps them for watchers.
    fn write_history(&self, v2_index: u64, random: &mut Random, out: &mut String) {
        const EVENTS: u64 = 1000;
        out.push_str(r#","WatcherHub":{"EventHistory":{"Queue":{"Events":["#);
        for event in 0..EVENTS {
            if event > 0 {
                out.push(',');
            }
            let index = v2_index.saturating_sub(EVENTS - event).max(2);
            write!(out, r#"{{"action":"set","node":{{"key":"/bench/{}","value":""#, name(event)).expect("memory");
            random.text(self.history_bytes / EVENTS, out);
            write!(out, r#"","modifiedIndex":{index},"createdIndex":{index}}}}}"#).expect("memory");
        }
        write!(
            out,
            r#"],"Size":{EVENTS},"Front":0,"Back":0,"Capacity":{EVENTS}}},"StartIndex":2,"LastIndex":{v2_index}}}}}"#
        )
        .expect("memory");
    }
}

fn name(key: u64) -> String {
    format!("k{key:09}")
}

/// The start of a node, up to its value.
fn write_node(out: &mut String, path: &str, index: u64, expiry: &str) {
    write!(
        out,
        r#"{{"Path":"{path}","CreatedIndex":{index},"ModifiedIndex":{index},"ExpireTime":"{expiry}","Value":""#
    )
    .expect("memory");
}

fn write_dir(out: &mut String, path: &str, index: u64) {
    write_node(out, path, index, NO_EXPIRY);
    out.push_str(r#"","Children":{"#);
}

/// A comma before every child except the first.
fn comma(out: &mut String) {
    if !out.ends_with('{') {
        out.push(',');
    }
}

/// The root, the node of the only member, and the start of `/1/bench`.
fn write_dir_of_member(out: &mut String) {
    out.push_str(r#"{"Root":"#);
    write_dir(out, "/", 0);
    out.push_str(r#""0":"#);
    write_dir(out, "/0", 0);
    out.push_str(r#""members":"#);
    write_dir(out, "/0/members", 1);
    out.push_str(r#""1":"#);
    write_dir(out, "/0/members/1", 1);
    out.push_str(r#""raftAttributes":"#);
    write_node(out, "/0/members/1/raftAttributes", 1, NO_EXPIRY);
    out.push_str(r#"{\"peerURLs\":[\"http://127.0.0.1:2380\"]}","Children":null}}}}}}},"1":"#);
    write_dir(out, "/1", 0);
    out.push_str(r#""bench":"#);
    write_dir(out, "/1/bench", 2);
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
