//! Generated protobuf messages (rust-protobuf 3.7.2), for messages that are read or written rarely, and the oracle that
//! tests hold the hand-written codec in `wire` against.
//!
//! `etcd.proto` is the source; `etcd.rs` is what protobuf-codegen 3.7.2 makes of it with its pure parser:
//! `protobuf_codegen::Codegen::new().pure().include("src/proto").input("src/proto/etcd.proto").out_dir("src/proto")`.
//! The frequent messages (WAL records, entries, requests, key-values) never go through here: generated code copies
//! every bytes field. Must not know what a message means.

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
pub(crate) mod etcd;
