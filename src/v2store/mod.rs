//! The v2 tree: read from the JSON of a snapshot into a flat table, then changed by the log in a small overlay. Effects
//! equal those of etcd's own store (docs/formats.md 3 and 6).
//!
//! Must not know v3 data; `evidence` knows files, and which v3 marks prove a version.

pub mod apply;
mod choose_rules;
pub mod content_hash;
pub mod dialect;
pub mod difference;
pub mod evidence;
pub mod json;
pub mod membership;
mod name_hash;
pub mod path;
pub mod recover;
pub mod replay;
pub mod tree;

pub mod table;
pub mod text;
pub mod versions;
