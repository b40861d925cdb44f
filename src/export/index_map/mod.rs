//! The index map: from v2 indexes to v3 revisions and back, for `etcdlift lookup`.
//!
//! A redb file whose values are blocks of many rows. docs/index-map.md describes the tables, the blocks and the flags
//! of a row. The v2 index of a row is the modified index of its node. [`write`] makes the file, [`compare`] reads it
//! back, and [`lookup`] answers a query. Must not know trees and pages: the pairs come from `pipeline`.

mod block;
mod bytes;
mod entry;
mod lookup;
mod meta;
mod places;
#[cfg(test)]
mod tests;
mod write;

pub use entry::{Entry, Origin};
pub use lookup::{Found, Query, lookup};
pub use meta::{Facts, is_index_map, is_of_output};
pub use write::{Written, compare, write};
