//! Tests of the online migration, with real etcd servers. `tests/peers/build` builds these programs.
//!
//! A test that lacks peers prints `SKIPPED`. At most two servers, or one cluster, run at a time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../common/mod.rs"]
mod common;
#[allow(dead_code, reason = "shared with the tests of peers, which use more of it")]
#[path = "../peers/connection.rs"]
mod connection;
mod copy;
mod faults;
mod history;
mod leader;
mod list;
mod options;
mod pair;
mod prompt;
mod rights;
mod swap;
mod undo;
mod v2;
mod v2_client;
