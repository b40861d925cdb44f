//! Is this file what it should be? The structure of the bbolt file, the invariants of the mvcc store in it, and a summary
//! of what a v3 database holds.

mod content;
mod index;
mod keys;
mod listing;
mod source;
mod store;
mod summary;
mod v2v3;

pub use content::{V3Content, v3_content};
pub use index::index_bytes;
pub use listing::{Listing, list};
pub use source::compare;
pub use summary::{
    Member, Sha256State, V3Summary, carried, digest, store, structure, summarize, summarize_watched, verify,
    verify_watched,
};
pub use v2v3::V2v3Tree;
