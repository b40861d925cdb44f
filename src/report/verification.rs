//! The result of `verify` for a v3 file, as data. Must not know how it is printed.

use serde::Serialize;

use super::inspection::V3Facts;
use super::model::Notice;
use crate::words::words;

words! {
    /// A check of a v3 file.
    pub enum Check {
        /// The pages and their order.
        Structure = "structure",
        /// What an etcd requires of keys, leases, users and roles.
        Store = "store",
        /// The sha256 of a trailer.
        Sha256 = "sha256",
        /// The numbers of a report.
        Report = "report",
        /// The content of the source.
        Source = "source",
    }
}

/// The checks of a v3 file, its content, and its differences.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Verification {
    /// The path as the operator named it.
    pub path: String,
    /// The sha256 of the whole file, in lower-case hex.
    #[serde(rename = "file_sha256")]
    pub sha256: String,
    /// The content of the file.
    #[serde(flatten)]
    pub facts: V3Facts,
    /// The checks that ran.
    pub checked: Vec<Check>,
    /// The number of keys that differ from the source; `differences` has the first of them.
    #[serde(skip_serializing_if = "is_zero")]
    pub differing_keys: u64,
    /// The warnings.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Notice>,
    /// The findings and differences, one line each; empty for a file without any.
    pub differences: Vec<String>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}
