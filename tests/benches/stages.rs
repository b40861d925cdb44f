//! Benches of single stages: `cargo bench --bench stages`.
//!
//! The sources are those of `tests/tools/large_store.rs`, of one size. `tests/tools/measure.rs` measures whole runs, with files and
//! threads. Must not know how a stage works.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a tool for tests"
)]

#[allow(unreachable_pub, reason = "shared with the examples")]
#[path = "../tools/large_store.rs"]
mod large_store;

use std::collections::HashSet;
use std::fs;
use std::hint::black_box;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use etcdlift::internals::bolt::{self, Bucket, Db};
use etcdlift::internals::ids::{RaftIndex, Term};
use etcdlift::internals::image::Content;
use etcdlift::internals::interrupt::Interrupt;
use etcdlift::internals::mvcc::schema;
use etcdlift::internals::source::dir::SegmentName;
use etcdlift::internals::source::open::{Found, OpenOptions, Opened, open};
use etcdlift::internals::source::wal::Wal;
use etcdlift::internals::transform::plan::plan;
use etcdlift::internals::transform::policy::Policy;
use etcdlift::internals::transform::revisions::{Numbering, Order, Pairs, order};
use etcdlift::internals::v2store::json;
use etcdlift::internals::v2store::recover::recover;
use etcdlift::internals::v2store::replay::{ReplayOptions, read_table};
use etcdlift::internals::verify::{self, Expected};
use large_store::{Shape, Values};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// 50,000 keys of 256 bytes: about 23 MB of JSON.
const KEYS: u64 = 50_000;

/// The bytes that one thread of a conversion encodes at a time.
const EXTENT_BYTES: u64 = 1 << 20;

fn main() {
    divan::main();
}

/// A source by its name.
#[derive(Clone, Copy, Debug)]
enum Source {
    Plain,
    Escapes,
    History,
    Log,
}

impl Source {
    fn shape(self) -> Shape {
        let plain = Shape { keys: KEYS, ..Shape::default() };
        match self {
            Source::Plain => plain,
            Source::Escapes => Shape { values: Values::Json, ..plain },
            // 97 % of a small real store.
            Source::History => Shape { keys: KEYS / 50, history_bytes: 20 << 20, ..plain },
            Source::Log => Shape { keys: KEYS / 5, entries: KEYS, ..plain },
        }
    }

    fn open(self) -> (TempDir, Opened) {
        let dir = tempfile::tempdir().unwrap();
        self.shape().write(dir.path());
        match open(dir.path(), None, &OpenOptions::default()).unwrap() {
            Found::V2(opened) => (dir, *opened),
            other => panic!("expected v2 data, found {other:?}"),
        }
    }
}

/// Passes a content, and the database file with it, to a bench.
fn with_content(work: impl FnOnce(&Content<'_, '_>, &[u8])) {
    let (_dir, opened) = Source::Plain.open();
    let table = read_table(&opened).unwrap();
    let mut recovered = recover(&opened, &table, None, &ReplayOptions::default()).unwrap();
    let v2_index = recovered.v2_index();
    let tree = &mut recovered.replay.tree;
    let interrupt = Interrupt::default();
    let mut plan = plan(tree, &mut Policy::everything(jiff::Timestamp::UNIX_EPOCH), interrupt).unwrap();
    let tree = &*tree;
    let leases_in_use = &HashSet::new();
    let how = Order { numbering: Numbering::Keep, v2_index, bump: 0, leases_in_use, interrupt };
    let ordered = order(tree, &mut plan, &how).unwrap();
    let meta = schema::Meta {
        consistent_index: RaftIndex(1),
        term: Term(1),
        scheduled_compact: Some(ordered.current),
        finished_compact: Some(ordered.current),
    };
    let content = Content::new(Pairs { tree, ordered: &ordered }, &meta).unwrap();
    let file = bolt::image(&content.buckets()).unwrap();
    work(&content, &file);
}

/// The store of a snapshot, from JSON to the table.
#[divan::bench(args = [Source::Plain, Source::Escapes, Source::History])]
fn parse(bencher: Bencher<'_, '_>, source: Source) {
    let (_dir, opened) = source.open();
    let document = opened.start.snapshot.as_ref().unwrap().json();
    let read = || json::read(black_box(document)).unwrap().len();
    bencher.counter(BytesCount::of_slice(document)).bench(read);
}

/// The segments of the log, to entries by reference.
#[divan::bench]
fn wal_read(bencher: Bencher<'_, '_>) {
    let (dir, _) = Source::Log.open();
    let path = dir.path().join("member/wal/0000000000000000-0000000000000000.wal");
    let mut bytes = fs::read(&path).unwrap();
    // The rest of a preallocated segment takes no time to read.
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| (last + 1).next_multiple_of(8));
    bytes.truncate(end);
    let name = SegmentName { seq: 0, index: RaftIndex(0), path };
    let segments = || vec![(name.clone(), bytes.clone())];
    let read = |segments| Wal::of_bytes(segments).unwrap().entries().len();
    bencher.counter(BytesCount::of_slice(&bytes)).with_inputs(segments).bench_values(read);
}

/// The entries of the log, applied to the store of the snapshot.
#[divan::bench]
fn replay(bencher: Bencher<'_, '_>) {
    let (_dir, opened) = Source::Log.open();
    let table = read_table(&opened).unwrap();
    let replay = || recover(&opened, &table, None, &ReplayOptions::default()).unwrap().applied_entries;
    bencher.counter(ItemsCount::new(KEYS)).bench(replay);
}

/// The keys that are written, and their revisions.
#[divan::bench]
fn plan_and_order(bencher: Bencher<'_, '_>) {
    let (_dir, opened) = Source::Plain.open();
    let table = read_table(&opened).unwrap();
    let recover = || recover(&opened, &table, None, &ReplayOptions::default()).unwrap();
    let leases_in_use = &HashSet::new();
    bencher.counter(ItemsCount::new(KEYS)).with_inputs(recover).bench_local_values(|mut recovered| {
        let (v2_index, interrupt) = (recovered.v2_index(), Interrupt::default());
        let tree = &mut recovered.replay.tree;
        let mut plan = plan(tree, &mut Policy::everything(jiff::Timestamp::UNIX_EPOCH), interrupt).unwrap();
        let how = Order { numbering: Numbering::Keep, v2_index, bump: 0, leases_in_use, interrupt };
        order(tree, &mut plan, &how).unwrap().rows.len()
    });
}

/// The pages of every bucket, from the sizes of the pairs.
#[divan::bench]
fn layout(bencher: Bencher<'_, '_>) {
    with_content(|content, _| {
        let buckets = content.buckets();
        let layout = || bolt::layout(black_box(&buckets)).unwrap().file_len();
        bencher.counter(ItemsCount::new(KEYS)).bench(layout);
    });
}

/// Writes all pages into one buffer, part by part.
fn emit(bencher: Bencher<'_, '_>, buckets: &[Bucket<'_>], file: &[u8]) {
    let layout = bolt::layout(buckets).unwrap();
    let extents = layout.extents(EXTENT_BYTES);
    let longest = extents.iter().map(|extent| extent.byte_len()).max().unwrap();
    let mut buffer = vec![0; longest as usize];
    bencher.counter(BytesCount::of_slice(file)).bench_local(|| {
        for extent in &extents {
            let out = &mut buffer[..extent.byte_len() as usize];
            bolt::emit(&layout, buckets, extent, black_box(out)).unwrap();
        }
    });
}

/// All pages.
#[divan::bench]
fn encode(bencher: Bencher<'_, '_>) {
    with_content(|content, file| emit(bencher, &content.buckets(), file));
}

/// All pages, with the hash of each row for the verification.
#[divan::bench]
fn encode_and_hash(bencher: Bencher<'_, '_>) {
    with_content(|content, file| {
        let (expected, buckets) = (Expected::of(content), content.buckets());
        let keys = buckets.iter().find(|bucket| bucket.name == schema::KEY).unwrap();
        let hashed = expected.hashed(keys.rows);
        let mut buckets = buckets.clone();
        buckets.iter_mut().filter(|bucket| bucket.name == schema::KEY).for_each(|keys| keys.rows = &hashed);
        emit(bencher, &buckets, file);
    });
}

/// Every page and the order of all keys, as bbolt needs them.
#[divan::bench]
fn check_structure(bencher: Bencher<'_, '_>) {
    with_content(|_, file| {
        let db = Db::open(file).unwrap();
        bencher.counter(BytesCount::of_slice(file)).bench(|| verify::structure(black_box(&db)).unwrap().is_sound());
    });
}

/// The pairs of the bucket `key` and of all others, as mvcc needs them.
#[divan::bench]
fn check_store(bencher: Bencher<'_, '_>) {
    with_content(|_, file| {
        let db = Db::open(file).unwrap();
        bencher.counter(BytesCount::of_slice(file)).bench(|| verify::store(black_box(&db)).unwrap().hash_kv);
    });
}

/// The file with the planned content, by sums: what a conversion does after it has written.
#[divan::bench]
fn verify_by_sums(bencher: Bencher<'_, '_>) {
    with_content(|content, file| {
        let buckets = content.buckets();
        let layout = bolt::layout(&buckets).unwrap();
        let expected = || {
            let expected = Expected::of(content);
            let keys = buckets.iter().find(|bucket| bucket.name == schema::KEY).unwrap();
            let hashed = expected.hashed(keys.rows);
            let mut buckets = buckets.clone();
            buckets.iter_mut().filter(|bucket| bucket.name == schema::KEY).for_each(|keys| keys.rows = &hashed);
            for extent in layout.extents(EXTENT_BYTES) {
                bolt::emit(&layout, &buckets, &extent, &mut vec![0; extent.byte_len() as usize]).unwrap();
            }
            drop(buckets);
            drop(hashed);
            expected
        };
        let verify = |expected: Expected<'_, '_, '_>| {
            verify::verify_content(black_box(file), &expected, Interrupt::default()).unwrap().keys
        };
        bencher.counter(BytesCount::of_slice(file)).with_inputs(expected).bench_local_values(verify);
    });
}

/// The file with the planned content, pair by pair.
#[divan::bench]
fn compare(bencher: Bencher<'_, '_>) {
    with_content(|content, file| {
        let compare = || verify::compare(black_box(file), content, Interrupt::default()).unwrap();
        bencher.counter(BytesCount::of_slice(file)).bench(compare);
    });
}

/// The checksums: CRC-32C of snapshots and logs, CRC-32 of our own extents, SHA-256 of all files.
mod checksum {
    use super::*;

    const BYTES: usize = 16 << 20;

    fn of<T>(bencher: Bencher<'_, '_>, sum: impl Fn(&[u8]) -> T + Sync) {
        let bytes: Vec<u8> = (0..BYTES).map(|at| (at * 31) as u8).collect();
        bencher.counter(BytesCount::of_slice(&bytes)).bench(|| sum(black_box(&bytes)));
    }

    #[divan::bench]
    fn crc32c(bencher: Bencher<'_, '_>) {
        of(bencher, ::crc32c::crc32c);
    }

    #[divan::bench]
    fn crc32(bencher: Bencher<'_, '_>) {
        of(bencher, crc32fast::hash);
    }

    #[divan::bench]
    fn sha256(bencher: Bencher<'_, '_>) {
        of(bencher, |bytes| Sha256::digest(bytes));
    }
}
