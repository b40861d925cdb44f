//! Reading v2 data from disk: which files there are, their frames and checksums, and what of them counts.
//!
//! Knows bytes, raft and etcd's file layouts (FORMATS 1, 2, 4 and 5); nothing of the v2 tree and nothing of v3. Every
//! file is opened read-only and mapped, or copied where an etcd is running on it; only `map` holds `unsafe`.

pub mod cluster;
pub mod detect;
pub mod dir;
pub mod entries;
pub mod evidence;
pub mod frame;
pub mod internal_request;
pub mod live_copy;
pub mod lock;
pub mod map;
pub mod member;
pub mod open;
pub mod raft;
pub mod recognise;
mod scan;
pub mod snap;
pub mod start;
pub mod wal;
pub mod watch;
