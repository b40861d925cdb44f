//! Opens a source of v2 data. Must not know v3.

use std::path::PathBuf;
use std::time::Duration;

use super::V2;
use crate::error::{Error, Reason, Result};
use crate::interrupt::Interrupt;

/// Where v2 data is.
#[derive(Debug, Clone, Default)]
pub struct V2Options {
    /// A data directory.
    pub dir: Option<PathBuf>,
    /// Its log, if it is elsewhere.
    pub wal_dir: Option<PathBuf>,
    /// Endpoints of the v2 API.
    pub endpoints: Vec<String>,
    /// Certificate authorities.
    pub cacert: Option<PathBuf>,
    /// The client's certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// User and password.
    pub user: Option<(String, String)>,
    /// For how long a failed request is tried again.
    pub retry_for: Duration,
}

/// Opens a source.
///
/// # Errors
/// This build has none.
pub fn open(_: &V2Options, _: Interrupt<'static>) -> Result<Box<dyn V2>> {
    Err(Error::new(Reason::Internal, "this build has no source of v2 data"))
}
