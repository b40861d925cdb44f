//! Output files: the checked, atomic writer, and the form of a snapshot file.
//!
//! Knows bytes, offsets and checksums; nothing of pages, keys or etcd beyond the sha256 trailer.

pub mod naming;
pub mod report_file;
pub mod sidecar;
pub mod sink;
pub mod snapshot;
pub mod staged_dir;
pub mod targets;

pub use sink::{Sink, SinkOptions};
pub use snapshot::{Digest, Digested};
