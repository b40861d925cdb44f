//! `--transformer PROG`: a program of the operator's that makes the v3 pairs.
//!
//! docs/formats.md 12.1 and 12.2; CLI.md. `nodes` says what is sent, `migrate` and `json_lines` are the two wire formats, `process`
//! runs the programs, `answers` judges what comes back, `dialogue` puts them together. Must not know pages and files.

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
