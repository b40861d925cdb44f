//! A real etcd server on a data directory, on this machine alone, for a
//! bounded time.
//!
//! At most two run at once in a process, or one cluster; starting another
//! waits. A cluster of `cluster.rs` or `members_cluster.rs` counts as two. A
//! server is stopped when its value is dropped, and by a watchdog of its own if
//! the test process is killed.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::peers::{Peers, Version};
use super::ports::free_address;
use super::run::bounded;
use super::tls::Certificates;
use super::{http, scratch};

const LIFE_SECONDS: u32 = 150;
const START_SECONDS: u64 = 60;
const PORT_SECONDS: u64 = 100;
const STOP_SECONDS: u64 = 20;

/// How to start one.
#[derive(Clone, Debug)]
pub struct Boot {
    pub etcd: PathBuf,
    pub data_dir: PathBuf,
    pub name: String,
    /// `http://127.0.0.1:PORT`, where other members expect this one; a free port without it.
    pub peer_url: Option<String>,
    /// 3.4 and 3.5.
    pub enable_v2: bool,
    pub force_new_cluster: bool,
    /// Whether no other server of this process may run at the same time: for tests that measure time.
    pub alone: bool,
    /// Clients speak TLS, and need a certificate of the same authority.
    pub tls: Option<Certificates>,
    /// Further arguments.
    pub args: Vec<String>,
}

impl Boot {
    pub fn new(peers: &Peers, version: Version, data_dir: &Path) -> Self {
        Self {
            etcd: peers.etcd(version),
            data_dir: data_dir.to_owned(),
            name: "default".into(),
            peer_url: None,
            enable_v2: false,
            force_new_cluster: false,
            alone: false,
            tls: None,
            args: Vec::new(),
        }
    }

    fn command(&self, Addresses { client, health, peer }: Addresses) -> Command {
        let mut command = bounded(&self.etcd, LIFE_SECONDS);
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let (client, peer) = (format!("{scheme}://{client}"), format!("http://{peer}"));
        let peer = self.peer_url.clone().unwrap_or(peer);
        assert!(peer.starts_with("http://127.0.0.1:"), "{peer}");
        command.arg("--data-dir").arg(&self.data_dir);
        command.args(["--name", &self.name]);
        command.args(["--listen-client-urls", &client]);
        command.args(["--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer]);
        command.args(["--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("{}={peer}", self.name)]);
        if self.enable_v2 {
            command.arg("--enable-v2");
        }
        if self.force_new_cluster {
            command.arg("--force-new-cluster");
        }
        if let Some(tls) = &self.tls {
            command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(&tls.ca);
            command.arg("--cert-file").arg(&tls.cert).arg("--key-file").arg(&tls.key);
            command.args(["--listen-metrics-urls", &format!("http://{health}")]);
        }
        command.args(&self.args);
        command
    }
}

/// Where a server listens. With TLS, its health has an address of its own, without TLS.
#[derive(Clone, Copy, Debug)]
struct Addresses {
    client: SocketAddr,
    health: SocketAddr,
    peer: SocketAddr,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    child: Child,
    client: SocketAddr,
    health: SocketAddr,
    log: PathBuf,
    // After the child: fields are dropped in this order.
    _temp: TempDir,
    _slot: Arc<Slot>,
}

impl Server {
    /// Starts a server and waits until it says that it is healthy.
    ///
    /// # Panics
    /// With the end of its log, if it never does.
    pub fn start(boot: &Boot) -> Self {
        let slot = Arc::new(Slot::take(if boot.alone { SLOTS } else { 1 }));
        Self::start_all(std::slice::from_ref(boot), &slot).remove(0)
    }

    /// Starts a server that may end by itself.
    ///
    /// # Errors
    /// Its log, if it ended.
    pub fn try_start(boot: &Boot) -> Result<Self, String> {
        let slot = Arc::new(Slot::take(1));
        loop {
            let mut server = Self::spawn(boot, &slot);
            let Err(failure) = wait_until_healthy(&mut server.child, server.health, &server.log) else {
                return Ok(server);
            };
            let text = server.log();
            assert!(failure.starts_with("it ended"), "{boot:?}: {failure}\n{}", tail(&text));
            if !lacked_a_port(&text) {
                return Err(text);
            }
        }
    }

    /// Starts servers that need each other, in the slots that the caller holds, and waits until each is healthy.
    ///
    /// A connection may hold the port that a server needs: one of another process, or one between two of these servers. So all
    /// are ended and started again. A closed connection keeps its port for a minute.
    ///
    /// # Panics
    /// With the end of a log, if one never is.
    pub fn start_all(boots: &[Boot], slot: &Arc<Slot>) -> Vec<Self> {
        let deadline = Instant::now() + Duration::from_secs(PORT_SECONDS);
        loop {
            let mut servers: Vec<Self> = boots.iter().map(|boot| Self::spawn(boot, slot)).collect();
            let Err((at, failure)) = wait_for_all(&mut servers) else { return servers };
            let text = servers[at].log();
            if Instant::now() > deadline || !lacked_a_port(&text) {
                panic!("{:?}: {failure}\n{}", boots[at], tail(&text));
            }
            drop(servers);
            thread::sleep(Duration::from_millis(300));
        }
    }

    fn spawn(boot: &Boot, slot: &Arc<Slot>) -> Self {
        let temp = scratch::temp();
        let log = temp.path().join("log");
        let (child, Addresses { client, health, .. }) = spawn(boot, &log);
        Self { child, client, health, log, _temp: temp, _slot: Arc::clone(slot) }
    }

    pub fn client_address(&self) -> SocketAddr {
        self.client
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Stops it as an operator would.
    pub fn stop(self) {}

    /// Ends it as a crash would, without a chance to write anything more.
    ///
    /// # Panics
    /// If the server has ended already.
    pub fn kill(mut self) {
        assert!(crash(&mut self.child), "it had ended\n{}", tail(&self.log()));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Kills a server: the child is the watchdog, and the server its only child. Returns whether it ran.
pub fn crash(child: &mut Child) -> bool {
    let pid = child.id();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let server = children.trim();
    let ran = server.parse::<u32>().is_ok();
    if ran {
        signal("KILL", server);
    }
    let _ = child.wait();
    ran
}

fn spawn(boot: &Boot, log: &Path) -> (Child, Addresses) {
    let (client, peer) = (free_address(), free_address());
    let health = if boot.tls.is_some() { free_address() } else { client };
    let addresses = Addresses { client, health, peer };
    let log = File::create(log).unwrap();
    let mut command = boot.command(addresses);
    let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    (child, addresses)
}

/// Waits until each is healthy. The error has the place of the one that is not.
fn wait_for_all(servers: &mut [Server]) -> Result<(), (usize, String)> {
    let deadline = Instant::now() + Duration::from_secs(START_SECONDS);
    let mut waiting: Vec<usize> = (0..servers.len()).collect();
    while let Some(&first) = waiting.first() {
        for at in waiting.clone() {
            let server = &mut servers[at];
            if is_healthy(&mut server.child, server.health, &server.log).map_err(|failure| (at, failure))? {
                waiting.retain(|other| *other != at);
            }
        }
        if Instant::now() > deadline {
            return Err((first, format!("not healthy after {START_SECONDS} s")));
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

pub(super) fn wait_until_healthy(child: &mut Child, client: SocketAddr, log: &Path) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(START_SECONDS);
    while Instant::now() < deadline {
        if is_healthy(child, client, log)? {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(50));
    }
    Err(format!("not healthy after {START_SECONDS} s"))
}

/// Whether a server says so. An error if it ended.
fn is_healthy(child: &mut Child, client: SocketAddr, log: &Path) -> Result<bool, String> {
    if let Some(status) = child.try_wait().unwrap() {
        return Err(format!("it ended with {status}"));
    }
    let healthy = http::get(client, "/health").is_ok_and(|response| {
        let body = String::from_utf8_lossy(&response.body).replace(' ', "");
        response.status == 200 && body.contains("\"health\":\"true\"")
    });
    // Where another process took the port, it is that one which answers.
    Ok(healthy && is_own(log))
}

fn lacked_a_port(log: &str) -> bool {
    log.contains("address already in use")
}

/// Every release says so once it has its ports; 3.4 in other words if it logs JSON.
pub(super) fn is_own(log: &Path) -> bool {
    const SAYS: [&str; 2] = ["ready to serve client requests", "serving client traffic insecurely"];
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    SAYS.iter().any(|words| text.contains(words))
}

/// Asks it to end. The child is the watchdog: it passes the signal on, and
/// kills the server if that does not end it within five seconds.
pub(super) fn end(child: &mut Child) {
    if matches!(child.try_wait(), Ok(None)) {
        signal("TERM", &child.id().to_string());
    }
    let deadline = Instant::now() + Duration::from_secs(STOP_SECONDS);
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() > deadline {
            let _ = child.kill();
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn signal(name: &str, pid: &str) {
    let kill = ["-c", "kill -\"$1\" \"$2\" 2>/dev/null", "sh", name, pid];
    let _ = Command::new("sh").args(kill).status();
}

pub(super) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// The right to run a server: one slot, or all of them.
#[derive(Debug)]
pub struct Slot(u32);

/// Servers that run at the same time.
pub(super) const SLOTS: u32 = 2;

static FREE: Mutex<u32> = Mutex::new(SLOTS);
static FREED: Condvar = Condvar::new();

impl Slot {
    /// Takes all slots, for the servers of one cluster.
    pub fn all() -> Self {
        Self::take(SLOTS)
    }

    /// Takes all slots in one step: two tests that each hold one never wait for each other.
    pub(super) fn take(slots: u32) -> Self {
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = FREED.wait_while(free, |free| *free < slots);
        *waited.unwrap_or_else(PoisonError::into_inner) -= slots;
        Self(slots)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *FREE.lock().unwrap_or_else(PoisonError::into_inner) += self.0;
        FREED.notify_all();
    }
}
