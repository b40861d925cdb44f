//! The paved path: the stages in their order, and the threads they run on. Only this folder knows threads.
//!
//! `load` reads a source into a tree, `prepare` decides what is written (with `existing`, `kept` and `late` for v3 data that the
//! source has already), `write` turns that into a file, `facts` says it in the report's words; `convert` and `inspect` put them
//! together.

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
