//! Files for other programs, beside the v3 file or in its place: the index map, and exports.
//!
//! Stands where `output` does on the one-way road, and uses it: formats of files, told by plain numbers and bytes. Must not
//! know trees, pages and threads; `pipeline` brings the pairs.

pub mod index_map;
mod redb_file;
