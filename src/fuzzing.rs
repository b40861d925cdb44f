//! The entry points of the fuzz targets, and the generators of their inputs. Not part of the library's interface.
//!
//! Each target takes any bytes and fails only by a panic: the reader panicked, or an independent oracle (serde_json,
//! generated protobuf code, a plain map) disagrees with it. `tests/formats/fuzz_corpus.rs` runs the same functions on
//! the seeds. The tests of the log use the same writer. Must not know the command line: it calls the modules directly.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is how a fuzz target fails"
)]

mod convert;
mod input;
pub mod log;
mod messages;
pub mod model;
pub mod replay;
mod segment;
mod store;
mod text;

pub use convert::convert;
pub use messages::entry;
pub use replay::replay;
pub use segment::{SEAM, segment};
pub use store::{snap, store};
pub use text::{agree, text};

use crate::bolt::{Db, Strictness, check, format};
use crate::verify::{summarize, v3_content};

/// A fuzz target, which takes any bytes.
pub type Target = fn(&[u8]);

/// Every target by its name, for tests that replay seeds.
pub const TARGETS: [(&str, Target); 8] = [
    ("snap", snap),
    ("store", store),
    ("text", text),
    ("segment", segment),
    ("entry", entry),
    ("bolt", bolt),
    ("convert", convert),
    ("replay", replay),
];

/// Reads any bytes as a bbolt file: once unchanged, once with correct checksums in both meta pages.
pub fn bolt(data: &[u8]) {
    read_bolt(data);
    let mut corrected = data.to_vec();
    for page_size in [1024, 4096] {
        for page in [0, page_size] {
            let start = page + format::HEADER_LEN as usize;
            let Some(meta) = corrected.get_mut(start..start + format::META_LEN as usize) else { continue };
            let (meta_of, _) = format::Meta::decode((&*meta).try_into().unwrap());
            if meta_of.page_size as usize == page_size {
                meta.copy_from_slice(&meta_of.encode());
            }
        }
    }
    read_bolt(&corrected);
}

fn read_bolt(file: &[u8]) {
    let Ok(db) = Db::open(file) else { return };
    let (any, own) = (check(&db, Strictness::Any), check(&db, Strictness::Own));
    assert!(any.is_sound() || !own.is_sound(), "a finding for any file is also one for a file of etcdlift");
    let mut bytes = 0;
    for pair in &db.root() {
        let Ok(pair) = pair else { break };
        if let Ok(bucket) = db.open_bucket(&pair) {
            for pair in &bucket {
                let Ok(pair) = pair else { break };
                bytes += pair.record.len();
                if any.is_sound() {
                    assert_eq!(bucket.get(pair.key).unwrap(), Some(pair), "a lookup finds each pair of a walk");
                }
            }
            assert!(bytes <= 64 * file.len(), "a walk returns much more data than the file has");
        }
    }
    let (summary, content) = (summarize(file), v3_content(&db));
    if let (Ok(summary), Ok(content)) = (&summary, &content) {
        assert_eq!((summary.keys, summary.pairs, summary.leases), (content.keys, content.changes, content.leases));
    }
    assert!(summary.is_ok() || !any.is_sound() || content.is_err() || !own.is_sound());
}
