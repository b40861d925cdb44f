//! What the integration tests share: the corpus and what it should hold, the
//! real etcd programs, and ways to run them and etcdlift.
//!
//! Nothing here uses etcdlift as a library: what a test expects comes from
//! `truth.json`, from real servers, or from the files read by other code.
//! A test crate takes what it needs, so much of this is unused in each.

#![allow(dead_code, missing_docs, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod cluster;
pub mod convert;
pub mod corpus;
pub mod dump;
pub mod etcdctl;
pub mod golden;
pub mod http;
pub mod members_cluster;
pub mod peers;
pub mod ports;
pub mod protobuf;
pub mod random;
pub mod rows;
pub mod run;
pub mod scratch;
pub mod server;
pub mod skip;
pub mod text;
pub mod tls;
pub mod truth;
pub mod upgrade;
pub mod v2files;
pub mod v2keys;
pub mod v2store;
