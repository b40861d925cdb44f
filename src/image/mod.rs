//! The content of a v3 database: every bucket with its rows, in the order in which bbolt stores them.
//!
//! Takes numbered rows of the plan, leases, users, roles and preserved v3 data, and gives `bolt` one list of buckets.
//! Encodes with `mvcc`. Must not know pages, files, or the reason for a row.

mod auth;
mod auth_merge;
mod content;
mod key_rows;

pub use auth::auth_buckets;
pub use auth_merge::{AuthState, Named};
pub use content::{Content, Pair};
pub use key_rows::{KeyRows, Stored};
