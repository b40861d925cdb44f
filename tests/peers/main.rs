//! Tests that compare etcdlift with real etcd programs. `tests/peers/build` builds these programs.
//!
//! Many tests need the corpus too. A test that lacks peers or the corpus prints `SKIPPED`. At most two servers, or one
//! cluster, run at a time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod auth;
mod boot;
mod case;
mod check;
mod clean;
mod clean_changes;
mod clean_crash;
mod clean_live;
mod cluster_versions;
#[path = "../common/mod.rs"]
mod common;
mod connection;
mod continued;
mod continued_sources;
mod differential;
mod incomplete;
mod leases;
mod live;
mod members;
mod merge;
mod next_steps;
mod releases;
mod restart;
mod runs;
