//! etcdlift takes etcd v2 data and writes a verified etcd v3 backend, offline.

pub mod bolt;
pub mod cli;
pub mod error;
#[doc(hidden)]
pub mod fuzzing;
pub mod ids;
pub mod limits;
pub mod mvcc;
pub mod options;
pub mod output;
pub mod pipeline;
mod proto;
pub mod report;
pub mod source;
pub mod transform;
pub mod v2store;
pub mod verify;
pub mod wire;
