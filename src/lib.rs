//! etcdlift converts etcd v2 data into a verified etcd v3 database (bbolt and mvcc) that etcd 3.4 to 3.7 opens.
//!
//! The source is a `.snap` file, a copied data directory with its write-ahead log, or a backup. No etcd runs, and the source is
//! never written.
//!
//! The entry points are [`convert()`], [`inspect()`], [`compare()`], [`check()`], [`advise()`], [`clean()`], [`verify()`], [`export()`] and [`lookup()`].
//! [`Run`] has the same functions with progress and interruption. ARCHITECTURE.md describes the modules, which are private.
//!
//! ```no_run
//! use etcdlift::options::ConvertOptions;
//!
//! # fn main() -> etcdlift::error::Result<()> {
//! let conversion = etcdlift::convert(&ConvertOptions::new("default.etcd", "snapshot.db"))?;
//! println!("{} keys", conversion.report.balance.written.keys);
//! # Ok(())
//! # }
//! ```
//!
//! Features: `cli` (default) is the command line and its dependencies. `sled` adds exports to sled, whose crates are
//! unmaintained. `online` adds the online migration; its build needs `protoc`. `internals` opens the modules to tests and fuzz targets, without any promise of stability.

// Without `internals`, items that only tests and fuzz targets use are neither reachable nor used.
#![cfg_attr(not(all(feature = "cli", feature = "internals")), allow(unreachable_pub, dead_code, unused_imports))]

mod bolt;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
mod count;
mod data_dir;
mod display;
pub mod error;
mod export;
mod facade;
#[cfg(feature = "internals")]
mod fuzzing;
mod ids;
mod image;
mod interrupt;
mod limits;
mod mvcc;
mod named_file;
mod notice;
#[cfg(feature = "online")]
mod online;
pub mod options;
mod output;
mod pipeline;
mod proto;
pub mod report;
mod source;
mod time;
mod transform;
mod transformer;
mod v2store;
mod verify;
mod wire;
mod words;

pub use facade::{Conversion, Query, Run, advise, check, clean, compare, convert, export, inspect, lookup, verify};
pub use interrupt::Interrupted;
pub use notice::Code;
pub use pipeline::{Activity, Observer, Outcome};

/// The modules, for tests and fuzz targets.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub mod bolt {
        pub use crate::bolt::*;
    }
    pub mod count {
        pub use crate::count::*;
    }
    pub mod data_dir {
        pub use crate::data_dir::*;
    }
    pub mod display {
        pub use crate::display::*;
    }
    pub mod export {
        pub use crate::export::*;
    }
    pub mod fuzzing {
        pub use crate::fuzzing::*;
    }
    pub mod ids {
        pub use crate::ids::*;
    }
    pub mod image {
        pub use crate::image::*;
    }
    pub mod interrupt {
        pub use crate::interrupt::*;
    }
    pub mod limits {
        pub use crate::limits::*;
    }
    pub mod mvcc {
        pub use crate::mvcc::*;
    }
    pub mod named_file {
        pub use crate::named_file::*;
    }
    pub mod notice {
        pub use crate::notice::*;
    }
    #[cfg(feature = "online")]
    pub mod online {
        pub use crate::online::*;
    }
    pub mod output {
        pub use crate::output::*;
    }
    pub mod pipeline {
        pub use crate::pipeline::*;
    }
    #[cfg(feature = "cli")]
    pub mod signals {
        pub use crate::cli::signals::*;
    }
    pub mod source {
        pub use crate::source::*;
    }
    pub mod time {
        pub use crate::time::*;
    }
    pub mod transform {
        pub use crate::transform::*;
    }
    pub mod transformer {
        pub use crate::transformer::*;
    }
    pub mod v2store {
        pub use crate::v2store::*;
    }
    pub mod verify {
        pub use crate::verify::*;
    }
    pub mod wire {
        pub use crate::wire::*;
    }
}
