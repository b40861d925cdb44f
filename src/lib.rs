//! etcdlift takes etcd v2 data (a `.snap` file, a copied data directory with its write-ahead log, a backup) and writes a
//! verified etcd v3 backend (bbolt and mvcc) that etcd 3.4 to 3.7 opens. Offline: no etcd runs, the source is never written.
//!
//! The road goes one way, and a module uses only what stands to its left (and the leaves `count`, `display`, `error`, `interrupt`,
//! `limits`, `ids`, `time`, `wire`):
//!
//! ```text
//! source ──► v2store ──► transform ──► mvcc ──► bolt ──► output
//! (disk)     (the tree)  (v2 → v3)     (schema)  (pages)  (files)
//!                │                                  ▲
//!                └────────────── verify ────────────┘      report, cli: on top
//! ```
//!
//! [`export`] stands where `output` does: files for other programs. `bolt` knows nothing of etcd (what it stores implements
//! its `Rows`), `v2store` nothing of v3; only [`pipeline`] knows threads, and only `source::map` holds `unsafe`.
//!
//! # The paved path
//!
//! ```no_run
//! use etcdlift::options::ConvertOptions;
//! use etcdlift::pipeline::{Outcome, convert};
//! use etcdlift::report::Report;
//!
//! # fn main() -> etcdlift::error::Result<()> {
//! let options = ConvertOptions::new("default.etcd", "snapshot.db");
//! let mut report = Report::new(&options);
//! let outcome = convert(&options, &mut report, &|| Ok(()))?;
//! assert_eq!(outcome, Outcome::Complete);
//! # Ok(())
//! # }
//! ```

pub mod bolt;
pub mod cli;
pub mod count;
pub mod display;
pub mod error;
pub mod export;
#[doc(hidden)]
pub mod fuzzing;
pub mod ids;
pub mod image;
pub mod interrupt;
pub mod limits;
pub mod mvcc;
pub mod named_file;
pub mod options;
pub mod output;
pub mod pipeline;
mod proto;
pub mod report;
pub mod source;
pub mod time;
pub mod transform;
pub mod transformer;
pub mod v2store;
pub mod verify;
pub mod wire;
