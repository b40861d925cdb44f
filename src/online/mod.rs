//! Online migration: copies v2 data into a running v3 cluster, and follows its changes (docs/online.md).
//!
//! Needs the feature `online`.

pub mod v2;
pub mod v3;
