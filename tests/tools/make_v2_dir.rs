//! Writes a v2 data directory of any size for measurements: a `.snap` with KEYS keys, then a log of ENTRIES writes.
//!
//! `cargo run --release --example make_v2_dir -- DIR [KEYS [VALUE_BYTES [ENTRIES [json]]]]`. The defaults are a million
//! keys of 256 bytes and no entries; with `json`, values are JSON with many escapes. The same arguments give the same bytes. A real etcd 3.4 and `etcdctl migrate` read the
//! directory too.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a tool for tests"
)]

#[path = "large_store.rs"]
mod large_store;

use std::path::PathBuf;

use large_store::{Shape, Values};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some(dir) = args.first().map(PathBuf::from) else {
        println!("usage: cargo run --release --example make_v2_dir -- DIR [KEYS [VALUE_BYTES [ENTRIES [json]]]]");
        return;
    };
    let number = |at: usize, default: u64| args.get(at).map_or(default, |text| text.parse().expect("a number"));
    let plain = Shape::default();
    let (keys, value_bytes, entries) = (number(1, plain.keys), number(2, plain.value_bytes), number(3, plain.entries));
    let values = if args.get(4).is_some_and(|values| values == "json") { Values::Json } else { Values::Plain };
    let len = Shape { keys, value_bytes, entries, values, ..plain }.write(&dir);
    println!("{keys} keys, {len} bytes of JSON, {entries} log entries: {}", dir.display());
}
