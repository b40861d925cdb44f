//! Turns the v2 tree into the content of v3: selects the nodes, assigns revisions and leases, counts keys and bytes.
//!
//! Knows policies and numbers. Must not know how a pair is encoded, or pages.

pub mod auth;
pub mod collisions;
pub mod conflicts;
pub mod inventory;
pub mod lease;
mod patterns;
pub mod permissions;
pub mod plan;
pub mod policy;
pub mod revisions;
pub mod rules;
pub mod widening;
