//! The sidecar files of an output that are made from it: the ledger and the index map.

pub(super) mod index_map;
pub(super) mod ledger;
