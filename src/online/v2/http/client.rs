//! Requests to the v2 API of a cluster: TLS, login, and the next endpoint if one fails, also within an answer.
//!
//! Must not know what an answer contains.

use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

use base64::Engine;
use jiff::Timestamp;
use tempfile::SpooledTempFile;
use ureq::http::Response;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use super::super::options::V2Options;
use crate::error::{Error, Reason, Result};
use crate::ids::V2Index;
use crate::interrupt::Interrupt;
use crate::online::outage::Outage;

const CONNECT: Duration = Duration::from_secs(5);
/// The server collects a whole state before it answers.
const FIRST_BYTE: Duration = Duration::from_secs(120);
const READ: Duration = Duration::from_secs(30);
/// Rounds over all endpoints before the first connection counts as impossible.
const FIRST_ROUNDS: usize = 2;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Answers that end too early after which a request has its whole time again, because each can take long.
const PARTIAL: usize = 3;
/// Bytes of an answer that are read between two tests for an interruption.
const CHUNK: usize = 1 << 16;
/// Bytes of an answer that stay in memory.
const IN_MEMORY: usize = 16 << 20;

/// A connection to a cluster. Clones share the connections.
#[derive(Debug, Clone)]
pub(super) struct Client {
    agent: Agent,
    endpoints: Vec<String>,
    /// Number of the endpoint that is used.
    at: usize,
    /// The user, and the header with its password.
    login: Option<(String, String)>,
    retry_for: Duration,
    tell: Option<fn(&str)>,
    outage: Arc<Outage>,
    interrupt: Interrupt<'static>,
}

/// A request without an answer.
struct Failure {
    error: Error,
    /// Whether it can pass.
    passes: bool,
    /// Whether no connection was made.
    unconnected: bool,
    /// Whether a part of the answer came.
    partial: bool,
}

/// A successful answer, or one that the caller decides about.
pub(super) struct Answer {
    pub(super) url: String,
    pub(super) response: Response<Body>,
}

/// An answer that came to its end.
pub(super) struct Whole {
    /// The head; also the body, if the status is not 200.
    pub(super) answer: Answer,
    /// An instant after the server read its clock.
    pub(super) at: Timestamp,
    /// The body, if the status is 200. A long one is in a temporary file without a name.
    pub(super) body: SpooledTempFile,
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
            let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
            (user.clone(), format!("Basic {text}"))
        };
        let (agent, login) = (config.into(), options.user.as_ref().map(encode));
        let (retry_for, tell, outage) = (options.retry_for, options.tell, Arc::default());
        Ok(Client { agent, endpoints, at: 0, login, retry_for, tell, outage, interrupt })
    }

    /// Sends a GET, to the next endpoints if it fails, for as long as the options say.
    ///
    /// # Errors
    /// [`Reason::Unreachable`] with the URL if no endpoint answers in time; [`Reason::LoginFailed`] and faults of TLS at once; an
    /// interruption.
    pub(super) fn get(&mut self, target: &str, idle: Option<Duration>) -> Result<Answer> {
        self.run(|client| client.once(target, idle))
    }

    /// Does the same as [`Client::get`], and reads the whole answer before it returns. If the connection ends within the answer, the
    /// request is sent again, so nobody sees a part of it.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(super) fn get_whole(&mut self, target: &str) -> Result<Whole> {
        self.run(|client| {
            let mut answer = client.once(target, None)?;
            let at = Timestamp::now();
            let body = match answer.response.status().as_u16() {
                200 => client.body(&mut answer)?,
                _ => SpooledTempFile::new(0),
            };
            Ok(Whole { answer, at, body })
        })
    }

    fn run<T>(&mut self, once: impl Fn(&Client) -> Result<T, Failure>) -> Result<T> {
        let (mut begun, mut partial) = (Instant::now(), 0);
        let (mut pause, mut rounds) = (FIRST_PAUSE, 0);
        loop {
            let mut sent = Instant::now();
            let mut last = None;
            for _ in 0..self.endpoints.len() {
                self.interrupt.ask()?;
                sent = Instant::now();
                let failure = match once(self) {
                    Ok(answer) => {
                        self.answered(sent);
                        return Ok(answer);
                    }
                    Err(failure) => failure,
                };
                self.at = (self.at + 1) % self.endpoints.len();
                if failure.partial && partial < PARTIAL {
                    (begun, partial) = (Instant::now(), partial + 1);
                }
                if !failure.passes || begun.elapsed() >= self.retry_for {
                    return Err(failure.error);
                }
                last = Some(failure);
            }
            rounds += 1;
            if let Some(failure) = last {
                let first = failure.unconnected && !self.outage.ever_answered();
                if first && rounds >= FIRST_ROUNDS {
                    return Err(failure.error);
                }
                if !first && self.outage.failed(sent) {
                    self.say(&format!("{}; trying again for {} s", failure.error, self.retry_for.as_secs()));
                }
            }
            self.pause(pause)?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn body(&self, answer: &mut Answer) -> Result<SpooledTempFile, Failure> {
        let kept = |e| {
            let error = Error::io(Reason::OutputFailed, &env::temp_dir(), "keep the answer of the v2 API", e);
            Failure::lasts(error.hint("set TMPDIR to a directory with room for all keys and values"))
        };
        let mut reader = answer.response.body_mut().as_reader();
        let (mut body, mut chunk, mut size) = (SpooledTempFile::new(IN_MEMORY), vec![0; CHUNK], 0);
        loop {
            self.interrupt.ask().map_err(Failure::lasts)?;
            let read = match reader.read(&mut chunk) {
                Ok(read) => read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    let error = unreachable(&answer.url, &format!("an answer ended after {size} bytes: {e}"));
                    return Err(Failure { error, passes: true, unconnected: false, partial: true });
                }
            };
            let part = chunk.get(..read).unwrap_or_default();
            if part.is_empty() {
                body.rewind().map_err(kept)?;
                return Ok(body);
            }
            body.write_all(part).map_err(kept)?;
            size += read;
        }
    }

    fn answered(&self, sent: Instant) {
        if let Some(time) = self.outage.answered(sent) {
            self.say(&format!("the v2 API answers again, after {:.1} s", time.as_secs_f64()));
        }
    }

    fn say(&self, line: &str) {
        if let Some(tell) = self.tell {
            tell(line);
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

    fn once(&self, target: &str, idle: Option<Duration>) -> Result<Answer, Failure> {
        let url = format!("{}{target}", self.endpoints.get(self.at).map_or("", String::as_str));
        let mut request = self.agent.get(&url);
        if let Some((_, login)) = &self.login {
            request = request.header("Authorization", login);
        }
        if let Some(idle) = idle {
            request = request.config().timeout_per_read(Some(idle)).build();
        }
        let response = request.call().map_err(|e| Failure::of(&url, &e))?;
        let mut answer = Answer { url, response };
        match answer.response.status().as_u16() {
            200 | 400 | 404 => Ok(answer),
            status @ (401 | 403) => Err(Failure::lasts(self.denied(status, &mut answer))),
            status => {
                let text = answer.error().text();
                let error = unreachable(&answer.url, &format!("status {status} {text}"));
                Err(Failure { error, passes: true, unconnected: false, partial: false })
            }
        }
    }

    /// The server has one answer for a wrong password and for a missing right.
    fn denied(&self, status: u16, answer: &mut Answer) -> Error {
        let text = answer.error().text();
        let (who, hint) = match &self.login {
            Some((user, _)) => {
                (format!("user {user}"), "check the password, and that the user may read `/*`, as root may")
            }
            None => ("a request without a user".to_string(), "give --v2-user: a user that may read `/*`, such as root"),
        };
        let error = Error::new(Reason::LoginFailed, format!("the v2 API refuses {who}: status {status} {text}"));
        error.in_file(Path::new(&answer.url)).hint(hint)
    }
}

impl Failure {
    fn lasts(error: Error) -> Failure {
        Failure { error, passes: false, unconnected: false, partial: false }
    }

    fn of(url: &str, error: &ureq::Error) -> Failure {
        let text = error.to_string();
        let text = text.strip_prefix("io: ").unwrap_or(&text);
        // A message of the server's TLS arrives as an error of the connection.
        let words = ["certificate", "fatal alert", "InvalidContentType", "HandshakeFailure", "corrupt message"];
        let is_tls = matches!(error, ureq::Error::Tls(_) | ureq::Error::Rustls(_) | ureq::Error::Pem(_))
            || words.iter().any(|word| text.contains(word));
        if is_tls {
            let error = Error::new(Reason::Unreachable, format!("TLS fails: {text}")).in_file(Path::new(url));
            let error = error.hint("check the scheme of --v2-endpoints, and --v2-cacert, --v2-cert and --v2-key");
            return Failure { unconnected: true, ..Failure::lasts(error) };
        }
        let unconnected = match error {
            ureq::Error::Io(e) => e.kind() == std::io::ErrorKind::ConnectionRefused,
            ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => true,
            _ => false,
        };
        Failure { error: unreachable(url, text), passes: true, unconnected, partial: false }
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
    let error = Error::new(Reason::Unreachable, format!("the v2 API does not answer: {why}")).in_file(Path::new(url));
    error.hint("check --v2-endpoints, and that the cluster has a leader; an endpoint with TLS needs `https`")
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
