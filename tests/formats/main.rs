//! Tests of the library: file formats, replay, damage to files, and the rules that hold for the source code and the
//! documents.
//!
//! No test here needs peers. Tests run as threads of one process, so none of them changes what belongs to the process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod bolt;
#[path = "../common/mod.rs"]
mod common;
mod corruption;
mod docs;
mod fuzz_corpus;
mod modules;
mod raft;
mod reference;
mod replay_truth;
mod self_proof;
