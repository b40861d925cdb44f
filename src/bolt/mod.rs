//! bbolt files: a two-phase writer, a reader and a check. Must not know etcd.

mod check;
mod damage;
mod emit;
pub mod format;
mod layout;
mod page;
mod read;
mod rows;

pub use check::{Check, Strictness, check};
pub use damage::Damage;
pub use emit::{Extent, META_PAGES_LEN, emit, image, meta_pages};
pub use layout::{Layout, layout};
pub use read::{Cursor, Db, Pair, Tree};
pub use rows::{Bucket, OwnedRows, Rows};
