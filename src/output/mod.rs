//! Output files: the checked, atomic writer, and the form of a snapshot file.
//!
//! Knows bytes, offsets and checksums. Must not know pages or keys. Of etcd, it knows the SHA-256 trailer,
//! and `targets` the file names of a data directory.

pub mod flusher;
pub mod naming;
pub mod report_file;
pub mod sidecar;
pub mod sink;
pub mod snapshot;
pub mod staged_dir;
pub mod targets;

pub use sink::{Sink, SinkOptions};
pub use snapshot::{Digest, Digested};
