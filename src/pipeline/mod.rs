//! The stages of a run in their order, and the thread pool that they run on.
//!
//! `read` hashes and parses a source, `backend` reads its v3 data. `stages` decides what is written: `replay`, then
//! `plan` with `merge` for existing v3 data, then `number`. Each of them returns its result with its findings
//! (`diagnostics`). `write` makes the file, `sidecars` the files that go with it. `convert`, `verify` and
//! `skip_existing` call all stages, `export` calls the first; `inspect`, `compare`, `check` and `clean` do not. `context` has
//! what every stage gets. Must not know the command line or the terminal.

mod advise;
mod as_of;
mod backend;
mod check;
mod clean;
mod clock;
mod compare;
mod completeness;
mod context;
mod convert;
mod diagnostics;
mod directories;
mod duplicates;
mod event_history;
mod export;
mod hashes;
mod inspect;
mod inspect_wal;
mod listed;
mod memory;
mod merge;
mod nothing_to_convert;
mod number;
mod old_version;
mod owner;
mod plan;
mod read;
mod replay;
mod replay_options;
mod reporter;
mod salvage;
mod same_snapshot;
mod sidecars;
mod skip_existing;
mod stages;
mod targets;
mod totals;
mod transformer;
mod verify;
mod versions;
mod write;

pub use advise::advise;
pub use check::check;
pub use clean::clean;
pub use compare::compare;
pub use context::{Activity, Observer};
pub use convert::{Fault, Outcome, Staged, convert, convert_observed, convert_with, stage};
pub use export::export;
#[cfg(not(feature = "sled"))]
pub use export::no_sled;
pub use inspect::inspect;
pub use inspect_wal::inspect_wal;
pub use reporter::{Reporter, Told};
#[cfg(feature = "online")]
pub(crate) use targets::sidecar as sidecar_before;
pub use targets::targets;
pub use verify::verify;

pub use crate::interrupt::Interrupted;
