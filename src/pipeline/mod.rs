//! The stages of a run in their order, and the thread pool that they run on.
//!
//! `read` opens and parses a source. `prepare` decides what is written; `merge` handles v3 data that the source already has.
//! `write` makes the file, `sidecars` the files that go with it. `diagnostics` fills in the report. `convert`, `inspect`,
//! `export` and `verify` call the stages. Must not know the command line or the terminal.

mod as_of;
mod completeness;
mod convert;
mod diagnostics;
mod duplicates;
mod export;
mod hashes;
mod inspect;
mod inspect_wal;
mod listed;
mod memory;
mod merge;
mod nothing_to_convert;
mod prepare;
mod progress;
mod read;
mod replay_options;
mod salvage;
mod same_snapshot;
mod sidecars;
mod skip_existing;
mod targets;
mod transformer;
mod verify;
mod versions;
mod write;

pub use convert::{Fault, Outcome, Staged, convert, convert_observed, convert_with, stage};
#[cfg(not(feature = "sled"))]
pub use export::NO_SLED;
pub use export::export;
pub use inspect::inspect;
pub use inspect_wal::inspect_wal;
pub use progress::Observer;
pub use targets::targets;
pub use verify::verify;

pub use crate::interrupt::Interrupted;
