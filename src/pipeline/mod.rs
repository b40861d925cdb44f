//! The paved path: the stages in their order, and the threads they run on. Only this folder knows threads.
//!
//! `load` reads a source into a tree, `prepare` decides what is written (with `existing`, `kept` and `late` for v3 data that the
//! source has already), `write` turns that into a file, `facts` says it in the report's words; `convert` and `inspect` put them
//! together.

mod clock;
mod completeness;
mod convert;
mod duplicates;
mod existing;
mod export;
mod facts;
mod hashes;
mod index_map;
mod inspect;
mod kept;
mod late;
mod ledger;
mod listed;
mod load;
mod log;
mod memory;
mod nothing;
mod prepare;
mod program;
mod progress;
mod salvage;
mod skip_existing;
mod targets;
mod twins;
mod verify;
mod versions;
mod write;

pub use convert::{Fault, Outcome, Staged, convert, convert_observed, convert_with, stage};
#[cfg(not(feature = "sled"))]
pub use export::NO_SLED;
pub use export::export;
pub use inspect::inspect;
pub use log::inspect_wal;
pub use progress::Observer;
pub use targets::targets;
pub use verify::verify;

pub use crate::interrupt::Interrupted;
