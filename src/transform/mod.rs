//! From the v2 tree to what stands in v3: which nodes become keys, at which revisions, and what is counted on the way.
//!
//! Knows policies and numbers; not how a pair is encoded, nor any page.

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
