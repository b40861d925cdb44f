//! A cluster of real etcd servers on this machine alone, each with a data directory of its own, for a bounded time.
//!
//! The peer URLs of a cluster are part of its data directories, so the ports are chosen before these exist. While a cluster of
//! several members runs, no other server of this process does. Dropping a cluster ends its servers.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::etcdctl::Etcdctl;
use super::peers::{Peers, Version};
use super::ports::free_address;
use super::run::bounded;
use super::scratch;
use super::server::{SLOTS, Slot, crash, end, is_own, tail, wait_until_healthy};

const LIFE_SECONDS: u32 = 150;
const START_SECONDS: u64 = 60;

/// A member's name and addresses.
#[derive(Clone, Debug)]
pub struct Seat {
    pub name: String,
    pub peer: SocketAddr,
    pub client: SocketAddr,
}

impl Seat {
    pub fn peer_url(&self) -> String {
        format!("http://{}", self.peer)
    }

    pub fn client_url(&self) -> String {
        format!("http://{}", self.client)
    }
}

/// One for each name, with ports of its own.
pub fn seats(names: &[&str]) -> Vec<Seat> {
    let seat = |name: &&str| Seat { name: (*name).into(), peer: free_address(), client: free_address() };
    names.iter().map(seat).collect()
}

/// The value of `--initial-cluster`.
pub fn initial_cluster(seats: &[Seat]) -> String {
    let pairs: Vec<String> = seats.iter().map(|seat| format!("{}={}", seat.name, seat.peer_url())).collect();
    pairs.join(",")
}

/// A member of a cluster, running or not.
#[derive(Debug)]
pub struct Member {
    pub seat: Seat,
    pub data_dir: PathBuf,
    child: Option<Child>,
    /// What it is writing.
    log: PathBuf,
    /// What it wrote in each life before, up to the moment when it was told to end.
    said: Vec<String>,
}

/// Running servers.
#[derive(Debug)]
pub struct Cluster {
    peers: Peers,
    version: Version,
    user: Option<String>,
    pub members: Vec<Member>,
    temp: TempDir,
    slot: Arc<Slot>,
}

impl Cluster {
    /// A cluster without members, which will start with so many.
    pub fn new(peers: &Peers, version: Version, members: usize, user: Option<&str>) -> Self {
        let slot = Slot::take(if members == 1 { 1 } else { SLOTS });
        let user = user.map(String::from);
        Self { peers: peers.clone(), version, user, members: Vec::new(), temp: scratch::temp(), slot: Arc::new(slot) }
    }

    /// A cluster without members that runs at the same time as this one, in its slots.
    pub fn second(&self, version: Version) -> Self {
        let (peers, slot) = (self.peers.clone(), Arc::clone(&self.slot));
        Self { peers, version, user: None, members: Vec::new(), temp: scratch::temp(), slot }
    }

    /// Adds a member that does not run yet. Returns its number.
    pub fn add(&mut self, seat: &Seat, data_dir: &Path) -> usize {
        let log = self.temp.path().join(format!("log-{}", self.members.len()));
        let (seat, data_dir) = (seat.clone(), data_dir.to_owned());
        self.members.push(Member { seat, data_dir, child: None, log, said: Vec::new() });
        self.members.len() - 1
    }

    /// Starts a member.
    pub fn spawn(&mut self, at: usize, args: &[&str]) {
        let member = &mut self.members[at];
        assert!(member.child.is_none(), "{} runs", member.seat.name);
        let (peer, client) = (member.seat.peer_url(), member.seat.client_url());
        let mut command = bounded(&self.peers.etcd(self.version), LIFE_SECONDS);
        command.args(["--name", &member.seat.name, "--data-dir"]).arg(&member.data_dir);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        if self.version == Version::V3_4 {
            // The default of all later releases.
            command.args(["--logger", "zap"]);
        }
        let log = File::create(&member.log).unwrap();
        command.args(args).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        member.child = Some(command.spawn().unwrap());
    }

    /// Waits until a member says that it is healthy.
    ///
    /// # Panics
    /// With the end of its log, if it never does.
    pub fn wait(&mut self, at: usize) {
        let member = &mut self.members[at];
        let child = member.child.as_mut().unwrap();
        if let Err(failure) = wait_until_healthy(child, member.seat.client, &member.log) {
            panic!("etcd {}, member {}: {failure}\n{}", self.version, member.seat.name, tail(&member.now()));
        }
    }

    /// Waits until a member listens to clients. A learner is never healthy.
    ///
    /// # Panics
    /// With the end of its log, if it never does.
    pub fn wait_for_port(&mut self, at: usize) {
        let member = &mut self.members[at];
        let child = member.child.as_mut().unwrap();
        let deadline = Instant::now() + Duration::from_secs(START_SECONDS);
        while !is_own(&member.log) {
            let ended = child.try_wait().unwrap().is_some() || Instant::now() > deadline;
            assert!(!ended, "etcd {}, {}: it never listens\n{}", self.version, member.seat.name, tail(&member.now()));
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The numbers of the members that run.
    pub fn running(&self) -> impl Iterator<Item = usize> {
        (0..self.members.len()).filter(|at| self.members[*at].child.is_some())
    }

    /// Whether a member listens to clients.
    pub fn serves(&self, at: usize) -> bool {
        is_own(&self.members[at].log)
    }

    /// Starts all members and waits until all are healthy.
    pub fn start(&mut self, args: &[&str]) {
        (0..self.members.len()).for_each(|at| self.spawn(at, args));
        (0..self.members.len()).for_each(|at| self.wait(at));
    }

    /// Stops a member as an operator would.
    pub fn stop(&mut self, at: usize) {
        let mut child = self.members[at].ends();
        end(&mut child);
    }

    /// Ends a member as a crash would.
    pub fn kill(&mut self, at: usize) {
        let member = &mut self.members[at];
        assert!(crash(&mut member.ends()), "{} had ended\n{}", member.seat.name, tail(&member.now()));
    }

    /// Ends all members as a power failure would.
    pub fn crash(&mut self) {
        (0..self.members.len()).for_each(|at| self.kill(at));
    }

    /// `NAME:PASSWORD` of the user that asks.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// etcdctl against one member.
    pub fn ctl(&self, at: usize) -> Etcdctl {
        Etcdctl::at(&self.peers, self.members[at].seat.client, self.user())
    }

    /// What all members have written, up to the moment when each was told to end: its name and a line.
    pub fn lines(&self) -> Vec<(String, String)> {
        let mut lines = Vec::new();
        for member in &self.members {
            let now = member.child.as_ref().map(|_| member.now());
            for text in member.said.iter().chain(&now) {
                lines.extend(text.lines().map(|line| (member.seat.name.clone(), line.to_owned())));
            }
        }
        lines
    }
}

impl Member {
    fn now(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Takes the process, which is to end now.
    fn ends(&mut self) -> Child {
        self.said.push(self.now());
        self.child.take().unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A leader that is told to stop would wait for followers that have stopped.
        for child in self.members.iter_mut().filter_map(|member| member.child.as_mut()) {
            if matches!(child.try_wait(), Ok(None)) {
                crash(child);
            }
        }
    }
}
