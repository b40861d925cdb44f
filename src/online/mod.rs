//! Online migration: copies v2 data into a running v3 cluster, and follows its changes (docs/online.md).
//!
//! `v2` are the sources, `v3` is the cluster. `state` has the keys of a migration, `own` the revisions that the job wrote,
//! `lock` its lock, `session` its transactions, and `decide` the table of decisions. `copy` is the job: `reading` has the
//! thread of the source, `reconcile` the copy of the state, `follow` the changes, `carry` what both do, `names` the rules
//! for keys, and `owners` the keys of a name. `outage` says when a cluster stops answering. Needs the feature `online`.

pub mod carry;
pub mod copy;
pub mod decide;
pub mod files;
pub mod finish;
pub mod follow;
pub mod lock;
pub mod mapping;
pub mod names;
pub mod outage;
pub mod own;
pub mod owners;
pub mod reading;
pub mod reconcile;
pub mod session;
pub mod state;
pub mod status;
pub mod switch;
#[cfg(test)]
mod tests;
pub mod undo;
pub mod v2;
pub mod v3;
pub mod verify;
