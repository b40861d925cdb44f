//! A connection to a real cluster. A request goes to one endpoint, and to the next after a fault that can pass.
//!
//! The methods block: a small async runtime is inside, and any number of threads can use one connection. A request is
//! tried again with growing pauses. One line says when that begins, and one when it is over. Must not know what the
//! keys mean.

use std::fs;
use std::future::Future;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use tokio::runtime::{Builder, Runtime};

use super::answers;
use super::faults::{Fault, Then, judge, timed_out};
use super::options::V3Options;
use super::rights;
use super::txn::{Keep, Kv, Op, Reply, Scan, Txn};
use crate::error::{Error, Reason, Result};
use crate::interrupt::Interrupt;
use crate::online::outage::Outage;

/// Pauses between tries: the first, and the longest.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Time for a connection to one endpoint.
const CONNECT: Duration = Duration::from_secs(3);

/// Rounds over all endpoints before the first connection counts as impossible.
const FIRST_ROUNDS: usize = 2;

/// Maximum size of an answer in bytes: a page of keys, or the values of one batch.
const ANSWER: usize = 256 << 20;

/// Where operating systems have their certificate authorities.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

const UNNAMED: &str = "without --user, etcdlift cannot ask which keys it may read: give --user and its password, or the right \
                       to read all keys";

/// A cluster that answers.
pub struct Connection<'a> {
    options: V3Options,
    tls: Option<TlsOptions>,
    current: Mutex<Current>,
    outage: Outage,
    interrupt: Interrupt<'a>,
    tell: &'a (dyn Fn(&str) + Sync),
    runtime: Runtime,
}

/// The endpoint in use.
#[derive(Default)]
struct Current {
    at: usize,
    /// Counts the changes of the endpoint, so that several threads change it once.
    number: u64,
    client: Option<Client>,
    without_user: bool,
}

impl<'a> Connection<'a> {
    /// Connects to a cluster. `tell` gets lines for the operator.
    ///
    /// # Errors
    /// No endpoint can be reached, wrong certificates or passwords.
    pub fn open(
        options: V3Options,
        interrupt: Interrupt<'a>,
        tell: &'a (dyn Fn(&str) + Sync),
    ) -> Result<Connection<'a>> {
        let failed = |e| Error::new(Reason::Internal, format!("cannot start threads: {e}"));
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(failed)?;
        let tls = tls(&options)?;
        let (current, outage) = (Mutex::default(), Outage::default());
        let connection = Connection { options, tls, current, outage, interrupt, tell, runtime };
        connection.txn(&Txn::read(vec![Op::Look(b"etcdlift".to_vec())])).map(drop).or_else(|error| {
            // A user with few rights is still a user.
            if error.reason() == Reason::V3Denied { Ok(()) } else { Err(error) }
        })?;
        Ok(connection)
    }

    /// Runs a request until it succeeds, cannot succeed, or the time is over.
    fn run<T, F>(&self, again: bool, call: impl Fn(Client) -> F) -> Result<T>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let (began, mut pause, mut tries, mut log_ins) = (Instant::now(), PAUSE, 0, 0);
        loop {
            let sent = Instant::now();
            let (number, url, result) = self.once(&call);
            let fault = match result {
                Ok(done) => {
                    self.over(sent);
                    return Ok(done);
                }
                Err(fault) => fault,
            };
            tries += 1;
            let error = fault.error.context(url);
            match fault.then {
                Then::GiveUp => return Err(error),
                Then::WithoutUser if !self.current().without_user => {
                    self.current().without_user = true;
                    self.change(number, 0);
                    continue;
                }
                Then::LogIn if log_ins < 3 => {
                    log_ins += 1;
                    self.change(number, 0);
                    continue;
                }
                Then::LogIn | Then::WithoutUser => return Err(error),
                Then::Again => self.change(number, 1),
            }
            let first = !self.outage.ever_answered() && fault.unconnected;
            let patience = if first { tries < FIRST_ROUNDS * self.options.endpoints.len() } else { true };
            if !again || !patience || began.elapsed() + pause > self.options.retry_for {
                return Err(error);
            }
            if !first {
                self.begins(&error, sent);
            }
            self.wait(pause)?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Runs a request once. Returns the number and the URL of the endpoint too.
    fn once<T, F>(&self, call: impl Fn(Client) -> F) -> (u64, String, Result<T, Fault>)
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let (number, at) = {
            let current = self.current();
            (current.number, current.at)
        };
        let url = self.options.url(at);
        let client = match self.client(number, &url) {
            Ok(client) => client,
            Err(fault) => return (number, url, Err(fault)),
        };
        let timeout = self.options.request_timeout;
        let result = self.runtime.block_on(async { tokio::time::timeout(timeout, call(client)).await });
        let result = match result {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(judge(&error)),
            Err(_) => Err(timed_out()),
        };
        (number, url, result)
    }

    /// Returns the client of the endpoint; connects and logs in if there is none.
    fn client(&self, number: u64, url: &str) -> Result<Client, Fault> {
        if let Some(client) = self.current().client.clone() {
            return Ok(client);
        }
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CONNECT)
            .with_keep_alive(Duration::from_secs(10), Duration::from_secs(5))
            .with_keep_alive_while_idle(false)
            .with_auto_token_refresh(true);
        if let Some(tls) = self.tls.clone().filter(|_| url.starts_with("https://")) {
            options = options.with_tls(tls);
        }
        if let Some(login) = self.options.login.as_ref().filter(|_| !self.current().without_user) {
            options = options.with_user(&login.user, &login.password);
        }
        let timeout = self.options.request_timeout;
        let connect = async { tokio::time::timeout(timeout, Client::connect([url], Some(options))).await };
        let client = match self.runtime.block_on(connect) {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => return Err(judge(&error)),
            Err(_) => return Err(timed_out()),
        };
        let mut current = self.current();
        if current.number == number {
            current.client = Some(client.clone());
        }
        Ok(client)
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops the client that failed, and goes `step` endpoints further.
    fn change(&self, number: u64, step: usize) {
        let mut current = self.current();
        if current.number == number {
            current.number += 1;
            current.at = (current.at + step) % self.options.endpoints.len().max(1);
            current.client = None;
        }
    }

    /// Says once that requests are tried again.
    fn begins(&self, error: &Error, sent: Instant) {
        if self.outage.failed(sent) {
            let seconds = self.options.retry_for.as_secs();
            (self.tell)(&format!("{error}; trying again for {seconds} s"));
        }
    }

    fn over(&self, sent: Instant) {
        if let Some(time) = self.outage.answered(sent) {
            (self.tell)(&format!("the cluster answers again, after {:.1} s", time.as_secs_f64()));
        }
    }

    fn wait(&self, pause: Duration) -> Result<()> {
        let until = Instant::now() + pause;
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.interrupt.ask()?;
            thread::sleep(left.min(Duration::from_millis(100)));
        }
        self.interrupt.ask()
    }
}

impl Kv for Connection<'_> {
    fn txn(&self, txn: &Txn) -> Result<Reply> {
        let request = answers::request(txn);
        let response = self.run(true, |client: Client| {
            let (request, mut kv) = (request.clone(), client.kv_client().max_decoding_message_size(ANSWER));
            async move { kv.txn(request).await }
        })?;
        Ok(answers::reply(&response))
    }

    fn grant(&self, seconds: i64) -> Result<i64> {
        let grant = |mut client: Client| async move { client.lease_grant(seconds, None).await };
        Ok(self.run(true, grant)?.id())
    }

    fn keep_alive(&self, lease: i64) -> Result<Keep> {
        let call = |mut client: Client| async move { client.lease_keep_alive(lease).await.map(drop) };
        match self.run(false, call) {
            Ok(()) => Ok(Keep::Alive),
            Err(error) if error.reason() == Reason::LeaseGone => Ok(Keep::Gone),
            Err(error) => Err(error),
        }
    }

    fn revoke(&self, lease: i64) -> Result<()> {
        // A lease goes by itself. A command that ends because nobody answers does not wait for as long again.
        if self.outage.lasts() {
            return Err(Error::new(Reason::Unreachable, "the cluster does not answer"));
        }
        let call = |mut client: Client| async move { client.lease_revoke(lease).await.map(drop) };
        match self.run(true, call) {
            Err(error) if error.reason() == Reason::LeaseGone => Ok(()),
            other => other,
        }
    }

    fn cluster(&self) -> Result<u64> {
        let call = |mut client: Client| async move { client.get("etcdlift", None).await };
        let response = self.run(true, call)?;
        Ok(response.header().map_or(0, etcd_client::ResponseHeader::cluster_id))
    }

    fn readable(&self) -> Result<Vec<Scan>> {
        let Some(login) = &self.options.login else {
            // Only a certificate gives a user that is not named here.
            let message = "permission denied: the user of the certificate may not read all keys";
            return Err(Error::new(Reason::V3Denied, message).hint(UNNAMED));
        };
        let user = |mut client: Client| async move { client.user_get(login.user.as_str()).await };
        let mut permissions = Vec::new();
        for name in self.run(true, user)?.roles() {
            let role = |mut client: Client| async move { client.role_get(name.as_str()).await };
            let found = self.run(true, role)?.permissions();
            permissions.extend(found.iter().map(|one| (one.get_type(), one.key().to_vec(), one.range_end().to_vec())));
        }
        Ok(rights::readable(permissions))
    }
}

/// Reads the certificates, if an endpoint needs them.
fn tls(options: &V3Options) -> Result<Option<TlsOptions>> {
    let urls: Vec<String> = (0..options.endpoints.len()).map(|at| options.url(at)).collect();
    if let Some(url) = urls.iter().find(|url| !url.starts_with("https://") && !url.starts_with("http://")) {
        return Err(Error::new(Reason::Usage, format!("{url}: expected an endpoint with http or https")));
    }
    if urls.iter().all(|url| !url.starts_with("https://")) {
        return Ok(None);
    }
    let read = |path: &Path| fs::read(path).map_err(|e| Error::io(Reason::Usage, path, "read the certificate", e));
    let roots = match &options.tls.cacert {
        Some(path) => read(path)?,
        None => SYSTEM_ROOTS.iter().find_map(|path| fs::read(path).ok()).ok_or_else(|| {
            Error::new(Reason::Usage, "this system has no certificate authorities").hint("give --cacert")
        })?,
    };
    let mut tls = TlsOptions::new().ca_certificate(Certificate::from_pem(roots));
    match (&options.tls.cert, &options.tls.key) {
        (Some(cert), Some(key)) => tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?)),
        (None, None) => {}
        _ => return Err(Error::new(Reason::Usage, "--cert and --key go together")),
    }
    Ok(Some(tls))
}
