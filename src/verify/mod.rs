//! The check of a v3 database: the structure of the bbolt file, the invariants of its mvcc store, and a summary of its
//! content.
//!
//! `check` runs all of them. They read the file alone. `compare` compares a file with the expected content, pair by pair;
//! `expected` has a sum of this content, which saves the comparison. Must not know pages that are being written.

mod check;
mod compare;
mod differences;
mod expected;
mod hash_at;
mod index;
mod invariants;
mod key_bucket;
mod plain_keys;
mod presence;
mod replicated;
mod summary;
mod v2v3;

pub use check::{
    carried, digest, store, structure, summarize, summarize_watched, verify, verify_content, verify_watched,
};
pub use compare::compare;
pub use differences::{Listing, list};
pub use expected::Expected;
pub use hash_at::{HashAt, hash_kv_at};
pub use index::index_bytes;
pub use presence::{V3Content, v3_content};
pub use replicated::replicated_hash;
pub use summary::{Member, Sha256Check, V3Summary};
pub use v2v3::V2v3Tree;
