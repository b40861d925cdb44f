//! Tests that run the program `etcdlift` and read what an operator sees: exit status, messages, files.
//!
//! Most tests need neither peers nor the corpus. One that lacks them prints `SKIPPED`. Tests run as threads of one
//! process: what a test measures or limits belongs to its child processes, never to this process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod advise;
mod bounds;
mod check;
mod clean;
mod clean_ends;
#[path = "../common/mod.rs"]
mod common;
mod compare;
mod convert;
mod export;
mod hostile;
mod index_map;
mod inspect_wal;
mod interrupted;
mod ledger;
mod owners;
mod quadratic;
mod surface;
mod verify;
mod versions;
mod wrong_log;
