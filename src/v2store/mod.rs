//! The v2 tree: read from a snapshot's JSON into a flat table, changed by the log in a small overlay, with the exact
//! effects that etcd's own store has (docs/formats.md 3 and 6).
//!
//! Knows nothing of files, and nothing of v3.

pub mod apply;
mod choose_rules;
pub mod dialect;
pub mod difference;
pub mod evidence;
pub mod json;
pub mod membership;
pub mod path;
pub mod recover;
pub mod replay;
pub mod tree;

pub mod table;
pub mod text;
pub mod versions;
