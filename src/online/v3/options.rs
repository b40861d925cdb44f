//! The endpoints of a cluster, the certificates and the user. Must not know how a command line spells them.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// How to reach a cluster.
#[derive(Debug, Clone)]
pub struct V3Options {
    /// URLs or `HOST:PORT`; not empty.
    pub endpoints: Vec<String>,
    /// Certificates.
    pub tls: Tls,
    /// The user, if the cluster asks for one.
    pub login: Option<Login>,
    /// How long a request is tried again.
    pub retry_for: Duration,
    /// How long one try of a request may take.
    pub request_timeout: Duration,
}

/// Files of certificates, in PEM.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// Certificate authorities; without it, those of the operating system.
    pub cacert: Option<PathBuf>,
    /// The client's certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// A user with a password, which `Debug` does not show.
#[derive(Clone)]
pub struct Login {
    /// The name.
    pub user: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

impl V3Options {
    /// Returns an endpoint as a URL: `https` if there are certificates, unless it says something else.
    pub(super) fn url(&self, at: usize) -> String {
        let endpoint = self.endpoints.get(at % self.endpoints.len().max(1)).map_or("", String::as_str);
        let endpoint = endpoint.trim_end_matches('/');
        match endpoint.contains("://") {
            true => endpoint.to_string(),
            false if self.tls.is_given() => format!("https://{endpoint}"),
            false => format!("http://{endpoint}"),
        }
    }
}

impl Tls {
    fn is_given(&self) -> bool {
        self.cacert.is_some() || self.cert.is_some() || self.key.is_some()
    }
}
