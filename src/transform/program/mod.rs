//! `--transformer PROG`: a program of the operator's that makes the v3 pairs.
//!
//! FORMATS 12.1 and 12.2; CLI.md. `nodes` says what is sent, `migrate` and `json_lines` are the two wire formats, `process`
//! runs the programs, `answers` judges what comes back, `dialogue` puts them together. Must not know pages and files.

mod answers;
mod dialogue;
mod json_lines;
mod migrate;
mod nodes;
mod process;
mod rows;

pub use answers::{Answers, Pair};
pub use dialogue::{Task, transform};
pub use nodes::{Choice, Listing, listing};
pub use rows::{Written, replace};
