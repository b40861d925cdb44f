//! Requests to the v2 API of a cluster: TLS, login, and the next endpoint if one fails.
//!
//! Must not know what an answer contains.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use ureq::http::Response;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use super::super::options::V2Options;
use crate::error::{Error, Reason, Result};
use crate::ids::V2Index;
use crate::interrupt::Interrupt;

const CONNECT: Duration = Duration::from_secs(5);
/// The server collects a whole state before it answers.
const FIRST_BYTE: Duration = Duration::from_secs(120);
const READ: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A connection to a cluster. Clones share the connections.
#[derive(Debug, Clone)]
pub(super) struct Client {
    agent: Agent,
    endpoints: Vec<String>,
    /// Number of the endpoint that is used.
    at: usize,
    login: Option<String>,
    retry_for: Duration,
    interrupt: Interrupt<'static>,
}

/// A successful answer, or one that the caller decides about.
pub(super) struct Answer {
    pub(super) url: String,
    pub(super) response: Response<Body>,
}

/// An error of the v2 API.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ApiError {
    #[serde(default)]
    pub(super) error_code: u64,
    #[serde(default)]
    pub(super) message: String,
    #[serde(default)]
    pub(super) cause: String,
}

impl Client {
    /// Prepares connections.
    ///
    /// # Errors
    /// [`Reason::Usage`] for endpoints, certificates or keys that cannot be used; [`Reason::FileMissing`].
    pub(super) fn new(options: &V2Options, interrupt: Interrupt<'static>) -> Result<Client> {
        let endpoints: Vec<String> =
            options.endpoints.iter().map(|url| url.trim_end_matches('/').to_string()).collect();
        if endpoints.is_empty() {
            return Err(Error::new(Reason::Usage, "expected at least one v2 endpoint, found none"));
        }
        if let Some(url) = endpoints.iter().find(|url| !url.starts_with("http://") && !url.starts_with("https://")) {
            let error = Error::new(Reason::Usage, format!("expected a URL as v2 endpoint, found {url}"));
            return Err(error.hint("write it as http://HOST:2379 or https://HOST:2379"));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(5)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(FIRST_BYTE))
            .timeout_per_read(Some(READ))
            .tls_config(tls(options)?)
            .user_agent("etcdlift")
            .build();
        let encode = |(user, password): &(String, String)| {
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
        };
        let login = options.user.as_ref().map(encode);
        Ok(Client { agent: config.into(), endpoints, at: 0, login, retry_for: options.retry_for, interrupt })
    }

    /// Sends a GET, to the next endpoints if it fails, for as long as the options say.
    ///
    /// # Errors
    /// [`Reason::Unreadable`] with the URL if no endpoint answers in time; [`Reason::PermissionDenied`] at once; an interruption.
    pub(super) fn get(&mut self, target: &str, idle: Option<Duration>) -> Result<Answer> {
        let begun = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            for _ in 0..self.endpoints.len() {
                self.interrupt.ask()?;
                let failure = match self.once(target, idle) {
                    Ok(answer) => return Ok(answer),
                    Err(e) if e.reason() != Reason::Unreadable => return Err(e),
                    Err(e) => e,
                };
                self.at = (self.at + 1) % self.endpoints.len();
                if begun.elapsed() >= self.retry_for {
                    return Err(failure);
                }
            }
            self.pause(pause)?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Tests for an interruption.
    ///
    /// # Errors
    /// The interruption.
    pub(super) fn ask(&self) -> Result<()> {
        self.interrupt.ask()
    }

    fn pause(&self, pause: Duration) -> Result<()> {
        let end = Instant::now() + pause;
        while Instant::now() < end {
            self.interrupt.ask()?;
            thread::sleep(Duration::from_millis(50).min(end.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }

    fn once(&self, target: &str, idle: Option<Duration>) -> Result<Answer> {
        let url = format!("{}{target}", self.endpoints.get(self.at).map_or("", String::as_str));
        let mut request = self.agent.get(&url);
        if let Some(login) = &self.login {
            request = request.header("Authorization", login);
        }
        if let Some(idle) = idle {
            request = request.config().timeout_per_read(Some(idle)).build();
        }
        let response = request.call().map_err(|e| unreachable(&url, &e.to_string()))?;
        let mut answer = Answer { url, response };
        match answer.response.status().as_u16() {
            200 | 400 | 404 => Ok(answer),
            status @ (401 | 403) => {
                let error = answer.error();
                Err(denied(&answer.url, status, &error))
            }
            status => {
                let error = answer.error();
                Err(unreachable(&answer.url, &format!("status {status} {}", error.text())))
            }
        }
    }
}

impl Answer {
    /// Returns a header of the server.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// Returns the index of the store at the time of the answer.
    ///
    /// # Errors
    /// [`Reason::NotEtcd`] if the server is not an etcd with the v2 API.
    pub(super) fn index(&self) -> Result<V2Index> {
        let index = self.header("X-Etcd-Index").and_then(|index| index.parse().ok());
        let none = || {
            let error = Error::new(Reason::NotEtcd, "expected the header X-Etcd-Index, found none")
                .in_file(Path::new(&self.url));
            error.hint("name an etcd whose v2 API is on: 3.2 to 3.5 need --enable-v2")
        };
        index.map(V2Index).ok_or_else(none)
    }

    /// Reads an answer that is an error.
    pub(super) fn error(&mut self) -> ApiError {
        let text = self.response.body_mut().with_config().limit(1 << 16).read_to_string().unwrap_or_default();
        let plain = || ApiError { error_code: 0, message: text.chars().take(200).collect(), cause: String::new() };
        serde_json::from_str(&text).unwrap_or_else(|_| plain())
    }
}

impl ApiError {
    /// Returns the message with its cause, as one line.
    pub(super) fn text(&self) -> String {
        let text =
            if self.cause.is_empty() { self.message.clone() } else { format!("{}: {}", self.message, self.cause) };
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// Creates the error for an endpoint that does not answer.
pub(super) fn unreachable(url: &str, why: &str) -> Error {
    let error = Error::new(Reason::Unreadable, format!("the v2 API does not answer: {why}")).in_file(Path::new(url));
    error.hint("check the endpoints and certificates, and that the cluster has a leader")
}

fn denied(url: &str, status: u16, error: &ApiError) -> Error {
    let message = format!("the v2 API refuses the login: status {status} {}", error.text());
    let error = Error::new(Reason::PermissionDenied, message).in_file(Path::new(url));
    error.hint("give a user that may read every key, such as root")
}

fn tls(options: &V2Options) -> Result<TlsConfig> {
    let mut config = TlsConfig::builder();
    if let Some(path) = &options.cacert {
        let certs = certificates(path)?;
        config = config.root_certs(RootCerts::new_with_certs(&certs));
    }
    match (&options.cert, &options.key) {
        (Some(cert), Some(key)) => {
            let chain = certificates(cert)?;
            let pem = read(key)?;
            let key = PrivateKey::from_pem(&pem).map_err(|e| unusable(key, "a private key", &e.to_string()))?;
            config = config.client_cert(Some(ClientCert::new_with_certs(&chain, key)));
        }
        (None, None) => {}
        _ => return Err(Error::new(Reason::Usage, "a client certificate and its key must be given together")),
    }
    Ok(config.build())
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let pem = read(path)?;
    let mut found = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(cert) = item.map_err(|e| unusable(path, "certificates", &e.to_string()))? {
            found.push(cert);
        }
    }
    if found.is_empty() { Err(unusable(path, "certificates", "none")) } else { Ok(found) }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|e| Error::io(Reason::Usage, path, "read", e))
}

fn unusable(path: &Path, what: &str, found: &str) -> Error {
    Error::new(Reason::Usage, format!("expected {what} in PEM form, found {found}")).in_file(path)
}
