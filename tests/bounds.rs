//! Bounds of memory and time on sources that are hostile or merely unlucky: small files that ask for much. Each test builds a data
//! directory, runs the binary, and looks at what the run took.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

#[path = "bounds/harness.rs"]
mod harness;
#[path = "bounds/interrupted.rs"]
mod interrupted;
#[path = "bounds/paths.rs"]
mod paths;
#[path = "bounds/reports.rs"]
mod reports;
#[path = "bounds/values.rs"]
mod values;
