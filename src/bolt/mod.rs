//! bbolt files: written in two phases, read and checked. Knows nothing of etcd.

mod emit;
pub mod format;
mod layout;
mod rows;

pub use emit::{Extent, META_PAGES_LEN, emit, image, meta_pages};
pub use layout::{Layout, layout};
pub use rows::{Bucket, OwnedRows, Rows};
