//! `etcdlift convert` as an operator meets it: what it refuses and in which words, what each option does to the output, and
//! that a failed run leaves nothing behind. Runs the binary; most of it needs neither peers nor the corpus.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

#[path = "convert/carry.rs"]
mod carry;
#[path = "convert/changing.rs"]
mod changing;
#[path = "convert/demo.rs"]
mod demo;
#[path = "convert/files.rs"]
mod files;
#[path = "convert/harm.rs"]
mod harm;
#[path = "convert/hidden.rs"]
mod hidden;
#[path = "convert/holes.rs"]
mod holes;
#[path = "convert/inputs.rs"]
mod inputs;
#[path = "convert/kit.rs"]
mod kit;
#[path = "convert/locks.rs"]
mod locks;
#[path = "convert/logs.rs"]
mod logs;
#[path = "convert/nothing.rs"]
mod nothing;
#[path = "convert/options.rs"]
mod options;
#[path = "convert/outputs.rs"]
mod outputs;
#[path = "convert/paths.rs"]
mod paths;
#[path = "convert/replacing.rs"]
mod replacing;
#[path = "convert/reports.rs"]
mod reports;
#[path = "convert/resources.rs"]
mod resources;
#[path = "convert/scenarios.rs"]
mod scenarios;
#[path = "convert/signals.rs"]
mod signals;
#[path = "convert/snapshots.rs"]
mod snapshots;
#[path = "convert/sources.rs"]
mod sources;
#[path = "convert/transformer.rs"]
mod transformer;
#[path = "convert/words.rs"]
mod words;
