//! Output files: the checked, atomic writer, and the form of a snapshot file.
//!
//! Knows bytes, offsets and checksums; nothing of pages, keys or etcd beyond the sha256 trailer.

pub mod beside;
pub mod folder;
pub mod naming;
pub mod sink;
pub mod snapshot;
pub mod targets;

pub use sink::{Sink, SinkOptions};
pub use snapshot::{Digest, Digested};
