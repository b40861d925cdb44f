//! Files for other programs, beside the v3 file or in its place: the index map, and exports.
//!
//! Stands where `output` does on the one-way road, and uses it: formats of files, told by plain numbers and bytes. Must not
//! know trees, pages and threads; `pipeline` brings what is written.

pub mod index_map;
pub mod ndjson;
pub mod record;
mod redb_file;
pub mod redb_table;
#[cfg(feature = "sled")]
pub mod sled_dir;
