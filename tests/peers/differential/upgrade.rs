//! An upgrade under the log: three members of 3.4, one of them lost for good, the other two restarted with 3.5 on their
//! files.
//!
//! The cluster version stays 3.4, because the lost member cannot be asked, and the rules are those of 3.5: each server
//! replays its whole log by its own (docs/formats.md 6.11).

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::client::Client;
use super::compare::Converted;
use super::listing::Listing;
use crate::common::peers::{self, Peers, Version};
use crate::common::ports::free_address;
use crate::common::random::Random;
use crate::common::run::{all_well, bounded};
use crate::common::{http, scratch};
use crate::connection::{Call, Connection};
use crate::test_name;

const LIFE_SECONDS: u32 = 100;
const START_SECONDS: u64 = 30;

/// Requests before and after the upgrade.
const REQUESTS: usize = 80;

#[test]
fn two_members_are_upgraded_after_one_is_lost() {
    let Some(peers) = peers::require(test_name!()) else { return };
    let temp = scratch::temp();
    let mut cluster = Cluster::new(&peers, temp.path());
    cluster.start_all(Version::V3_4);
    let mut client = Client::new(Random::new(11));
    let mut connection = cluster.connect(0);
    // A directory whose TTL is updated by both: 3.5 refuses, and takes back what 3.4 did, with the index that it cost.
    set_directory(&mut connection);
    drive(&mut connection, &mut client);
    update_directory(&mut connection, 200);

    cluster.kill(2);
    for member in [1, 0] {
        cluster.stop(member);
        cluster.start(member, Version::V3_5);
        cluster.wait_until_healthy(member);
    }
    let mut connection = cluster.connect(0);
    client.restarted();
    update_directory(&mut connection, 400);
    drive(&mut connection, &mut client);
    let version = http::get(cluster.members[0].client, "/version").unwrap();
    let version = String::from_utf8(version.body).unwrap();
    assert!(version.contains(r#""etcdserver":"3.5."#) && version.contains(r#""etcdcluster":"3.4.0""#), "{version}");
    let listing = Listing::read(&mut connection, &client.touched).unwrap();
    let directory = listing.nodes.iter().find(|node| node.key == DIRECTORY).unwrap();
    assert!(directory.dir && directory.expiration.is_some(), "{directory:?}");
    cluster.stop(1);
    cluster.stop(0);

    let end = Timestamp::now();
    for member in [0, 1] {
        let folder = temp.path().join(format!("converted-{member}"));
        let converted = Converted::of(&peers, &cluster.members[member].data_dir, &folder, end).unwrap();
        assert!(converted.rules().starts_with("3.5"), "{}", converted.rules());
        all_well(&converted.differences(&listing, end));
    }
}

const DIRECTORY: &str = "/upgraded";

fn set_directory(connection: &mut Connection) {
    let call = Call::new("PUT", DIRECTORY.as_bytes()).with("dir", "true").with("ttl", "100000");
    assert_eq!(connection.ask(&call).unwrap().status, 201);
}

fn update_directory(connection: &mut Connection, ttl: u32) {
    let call = Call::new("PUT", DIRECTORY.as_bytes()).with("dir", "true").with("prevExist", "true");
    connection.ask(&call.with("ttl", (ttl * 1000).to_string())).unwrap();
}

fn drive(connection: &mut Connection, client: &mut Client) {
    for _ in 0..REQUESTS {
        let call = client.next();
        let response = connection.ask(&call).unwrap();
        client.learn(&call, &response);
    }
}

/// Three members, some of them running.
struct Cluster {
    peers: Peers,
    members: Vec<Member>,
}

struct Member {
    name: String,
    client: SocketAddr,
    peer: SocketAddr,
    data_dir: PathBuf,
    log: PathBuf,
    running: Option<Child>,
}

impl Cluster {
    fn new(peers: &Peers, folder: &Path) -> Self {
        let member = |number: usize| Member {
            name: format!("m{number}"),
            client: free_address(),
            peer: free_address(),
            data_dir: folder.join(format!("m{number}.etcd")),
            log: folder.join(format!("m{number}.log")),
            running: None,
        };
        Self { peers: peers.clone(), members: (0..3).map(member).collect() }
    }

    fn start_all(&mut self, version: Version) {
        for member in 0..self.members.len() {
            self.start(member, version);
        }
        for member in 0..self.members.len() {
            self.wait_until_healthy(member);
        }
    }

    fn start(&mut self, member: usize, version: Version) {
        let all: Vec<String> = self.members.iter().map(|m| format!("{}=http://{}", m.name, m.peer)).collect();
        let mut command = bounded(&self.peers.etcd(version), LIFE_SECONDS);
        let Member { name, client, peer, data_dir, log, running } = &mut self.members[member];
        let (client, peer) = (format!("http://{client}"), format!("http://{peer}"));
        command.args(["--name", name, "--enable-v2", "--snapshot-count", "100000"]).arg("--data-dir").arg(data_dir);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &all.join(","), "--heartbeat-interval", "20", "--election-timeout", "200"]);
        let log = File::options().create(true).append(true).open(log).unwrap();
        *running = Some(command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    }

    /// Waits until it answers and knows a leader.
    fn wait_until_healthy(&self, member: usize) {
        let Member { client, log, .. } = &self.members[member];
        let deadline = Instant::now() + Duration::from_secs(START_SECONDS);
        loop {
            let healthy = http::get(*client, "/health").is_ok_and(|response| {
                response.status == 200 && String::from_utf8_lossy(&response.body).contains(r#""health":"true""#)
            });
            if healthy {
                return;
            }
            assert!(Instant::now() < deadline, "{}", fs::read_to_string(log).unwrap_or_default());
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn connect(&self, member: usize) -> Connection {
        Connection::open(self.members[member].client).unwrap()
    }

    fn stop(&mut self, member: usize) {
        if let Some(child) = self.members[member].running.take() {
            end(child);
        }
    }

    /// Kills a member and deletes its files, like the loss of a machine.
    fn kill(&mut self, member: usize) {
        let child = self.members[member].running.take().unwrap();
        // The child is the watchdog, and the server its only child.
        let pid = child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let server: u32 = children.trim().parse().unwrap();
        signal("KILL", server);
        end(child);
        fs::remove_dir_all(&self.members[member].data_dir).unwrap();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in 0..self.members.len() {
            self.stop(member);
        }
    }
}

fn end(mut child: Child) {
    if matches!(child.try_wait(), Ok(None)) {
        signal("TERM", child.id());
    }
    let _ = child.wait();
}

fn signal(name: &str, pid: u32) {
    let kill = ["-c", "kill -\"$1\" \"$2\" 2>/dev/null", "sh", name, &pid.to_string()];
    let _ = Command::new("sh").args(kill).status();
}
