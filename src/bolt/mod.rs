//! bbolt files: a two-phase writer, a reader and a check (docs/formats.md 8).
//!
//! `layout` places every page, and `emit` encodes any range of pages. `read` and `check` share only `format` with the
//! writer. Must not know etcd: a caller supplies sorted pairs by the trait `Rows` and gives them their meaning.

mod check;
mod damage;
mod emit;
pub mod format;
mod layout;
mod page;
mod parts;
mod read;
mod rows;

pub use check::{Check, Strictness, check};
pub use damage::Damage;
pub use emit::{Extent, META_PAGES_LEN, emit, image, meta_pages};
pub use layout::{Layout, layout};
pub use parts::{PARTS, Part};
pub use read::{Cursor, Db, Pair, Tree};
pub use rows::{Bucket, OwnedRows, Rows};
