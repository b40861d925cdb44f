//! What the `dump` peer reads from a v3 backend or snapshot file.
//!
//! `dump` is a Go program with the real bbolt, so tests compare an output with a reader that is not etcdlift.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::peers::Peers;
use super::rows::Row;
use super::run::{bounded, run};

/// The ten buckets of an etcd v3 backend, in the order of the file.
pub const BUCKETS: [&str; 10] =
    ["alarm", "auth", "authRoles", "authUsers", "cluster", "key", "lease", "members", "members_removed", "meta"];

/// A whole file.
#[derive(Debug)]
pub struct Dump {
    pub buckets: Vec<String>,
    /// Bucket `key`, in the order of the file.
    pub keys: Vec<Pair>,
    /// Every other bucket.
    pub others: Vec<Other>,
}

/// A pair of bucket `key`.
#[derive(Debug)]
pub struct Pair {
    pub main: i64,
    pub sub: i64,
    pub tombstone: bool,
    pub row: Row,
}

/// A pair of any other bucket.
#[derive(Debug)]
pub struct Other {
    pub bucket: String,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

impl Dump {
    /// # Panics
    /// If the file cannot be read to its end.
    pub fn of(peers: &Peers, file: &Path) -> Self {
        let output = run(bounded(&peers.dump(), 60).arg(file)).success();
        let mut lines = output
            .stdout
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice::<Value>(line).unwrap());
        let first = lines.next().unwrap();
        let buckets = first["buckets"].as_array().unwrap().iter();
        let mut dump = Self {
            buckets: buckets.map(|name| name.as_str().unwrap().to_owned()).collect(),
            keys: Vec::new(),
            others: Vec::new(),
        };
        for line in lines {
            if line["bucket"] == "key" {
                dump.keys.push(pair(&line));
            } else {
                dump.others.push(Other {
                    bucket: line["bucket"].as_str().unwrap().to_owned(),
                    key: bytes(&line["k"]),
                    value: bytes(&line["v"]),
                });
            }
        }
        dump
    }

    pub fn rows(&self) -> Vec<Row> {
        self.keys.iter().map(|pair| pair.row.clone()).collect()
    }

    /// The value of a key in a bucket other than `key`.
    pub fn other(&self, bucket: &str, key: &[u8]) -> Option<&[u8]> {
        let mut others = self.others.iter();
        let found = others.find(|other| other.bucket == bucket && other.key == key);
        found.map(|other| other.value.as_slice())
    }
}

fn pair(line: &Value) -> Pair {
    Pair {
        main: number(&line["main"]),
        sub: number(&line["sub"]),
        tombstone: line["tombstone"].as_bool().unwrap(),
        row: Row {
            key: bytes(&line["key"]),
            value: bytes(&line["value"]),
            create: number(&line["create"]),
            modified: number(&line["mod"]),
            version: number(&line["version"]),
            lease: number(&line["lease"]),
        },
    }
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap()).unwrap()
}
