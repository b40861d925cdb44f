//! What `verify` found in a v3 file, as data. Knows nothing of how it is printed.

use serde::Serialize;

use super::inspection::V3Facts;

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
    /// What is wrong or not as it should be, one line each; empty for a file that is as it should be.
    pub differences: Vec<String>,
}
