//! What `verify` found in a v3 file, as data. Knows nothing of how it is printed.

use serde::Serialize;

use super::inspection::V3Facts;
use super::model::Notice;

/// What was checked in a v3 file, what is in it, and what is wrong with it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Verification {
    /// The path that was given.
    pub path: String,
    /// sha256 of the whole file, in lower-case hex.
    #[serde(rename = "file_sha256")]
    pub sha256: String,
    /// What it holds.
    #[serde(flatten)]
    pub facts: V3Facts,
    /// What was looked at: `structure`, `store`, `sha256` (where there is a trailer), `report`, `source`.
    pub checked: Vec<&'static str>,
    /// Keys that differ from the source, of which `differences` has the first.
    #[serde(skip_serializing_if = "is_zero")]
    pub differing_keys: u64,
    /// What an operator should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Notice>,
    /// What is wrong or not as it should be, one line each; empty for a file that is as it should be.
    pub differences: Vec<String>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}
