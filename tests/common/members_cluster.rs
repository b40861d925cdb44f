//! Several real etcd servers as one cluster, on the peer URLs that their data directories have.
//!
//! These ports are fixed, so one cluster runs at a time on this machine: a lock on a file holds back other processes too. Must not
//! know what the directories contain.

use std::env;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use nix::fcntl::{Flock, FlockArg};

use super::server::{Boot, Server, Slot};

/// A running cluster; the members are in the order in which they were given.
#[derive(Debug)]
pub struct Cluster {
    // Before the locks: fields are dropped in this order.
    servers: Vec<Option<Server>>,
    boots: Vec<Boot>,
    slot: Arc<Slot>,
    _ports: Flock<File>,
}

impl Cluster {
    /// Starts all members and waits until each is healthy.
    ///
    /// # Panics
    /// With the end of a log, if one never is.
    pub fn start(boots: Vec<Boot>) -> Self {
        let slot = Arc::new(Slot::all());
        let path = env::temp_dir().join("etcdlift-tests-corpus-ports.lock");
        let file = File::options().create(true).append(true).open(path).unwrap();
        let ports = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error).unwrap();
        let servers = Server::start_all(&boots, &slot).into_iter().map(Some).collect();
        Self { servers, boots, slot, _ports: ports }
    }

    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().flatten()
    }

    pub fn server(&self, at: usize) -> &Server {
        self.servers[at].as_ref().unwrap()
    }

    /// Stops a member as an operator would, and starts it on this program.
    pub fn upgrade(&mut self, at: usize, etcd: PathBuf) {
        self.servers[at].take().unwrap().stop();
        self.boots[at].etcd = etcd;
        self.begin(at);
    }

    /// Ends a member as a crash would, and starts it again.
    pub fn crash(&mut self, at: usize) {
        self.servers[at].take().unwrap().kill();
        self.begin(at);
    }

    /// Starts one more member.
    pub fn add(&mut self, boot: Boot) {
        self.boots.push(boot);
        self.servers.push(None);
        self.begin(self.boots.len() - 1);
    }

    fn begin(&mut self, at: usize) {
        self.servers[at] = Server::start_all(&self.boots[at..=at], &self.slot).pop();
    }
}
