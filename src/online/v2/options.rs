//! Options of a source, as plain values.

use std::path::PathBuf;
use std::time::Duration;

/// Where v2 data is, and how to reach it.
#[derive(Debug, Clone, Default)]
pub struct V2Options {
    /// The data directory of a member.
    pub dir: Option<PathBuf>,
    /// The directory of its log, if that is another one.
    pub wal_dir: Option<PathBuf>,
    /// URLs of the v2 API. With a directory, they only commit entries and tell the index of the cluster.
    pub endpoints: Vec<String>,
    /// Certificates of authorities, in PEM form.
    pub cacert: Option<PathBuf>,
    /// The certificate of the client, in PEM form.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// User and password.
    pub user: Option<(String, String)>,
    /// For how long a failed request is tried again.
    pub retry_for: Duration,
    /// Gets a line when requests begin to be tried again, and one when the cluster answers again.
    pub tell: Option<fn(&str)>,
}
