//! Reading of v2 data from disk: files, frames and checksums, and the selection of the start snapshot.
//!
//! Knows bytes, raft and the file layouts of etcd (docs/formats.md 1, 2, 4 and 5). Must not know the v2 tree or the
//! content of v3 requests beyond what `internal_request` names.
//! Every file is opened read-only and mapped, or copied if an etcd is running. Only `map` contains `unsafe`.

pub mod cluster;
pub mod detect;
pub mod dir;
pub mod entries;
pub mod evidence;
pub mod frame;
pub mod growing;
pub mod internal_request;
pub mod live_copy;
pub mod lock;
pub mod map;
pub mod member;
pub mod open;
pub mod owner;
pub mod raft;
pub mod recognise;
mod scan;
pub mod snap;
pub mod start;
pub mod wal;
pub mod watch;
