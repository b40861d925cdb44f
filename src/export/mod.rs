//! Files for other programs: the index map, and exports.
//!
//! On the same level as `output`, which it uses. Knows file formats, plain numbers and bytes. Must not know trees,
//! pages and threads; `pipeline` supplies the content.

pub mod index_map;
pub mod ndjson;
pub mod record;
mod redb_file;
pub mod redb_table;
#[cfg(feature = "sled")]
pub mod sled_dir;
