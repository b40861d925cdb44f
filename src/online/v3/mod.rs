//! The v3 side of a migration: transactions of a running cluster, and its leases.
//!
//! `txn` has transactions as plain data, and the trait [`Kv`] that runs them. `connection` runs them on a real cluster: it
//! tries again what can pass, as `faults` says. `options` are the endpoints, certificates and the user, `rights` what a user
//! may read. Must not know v2.

mod answers;
mod connection;
mod faults;
#[cfg(test)]
pub mod memory;
mod options;
mod rights;
mod txn;

pub use connection::Connection;
pub use options::{Login, Tls, V3Options};
pub use txn::{
    Check, Compare, Got, Keep, Kv, Op, Pair, Reply, Scan, Txn, prefix_end, read_in_groups, scan, scan_readable,
};
