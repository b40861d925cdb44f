//! `--transformer PROG`: a program of the operator that makes the v3 pairs.
//!
//! docs/formats.md 12.1 and 12.2; docs/transformers.md. `listing` selects the nodes to send, and `process` runs the
//! programs. `migrate` and `json_lines` are the two wire formats. `responses` checks the answers, `session` combines
//! all of these, and `plan_rows` changes the plan. Must not know pages and files.

mod json_lines;
mod listing;
mod migrate;
mod plan_rows;
mod process;
mod responses;
mod session;

pub use listing::{Choice, Listing, listing};
pub use plan_rows::{Written, replace};
pub use responses::{Answers, Pair};
pub use session::{Task, transform};
