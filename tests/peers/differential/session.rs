//! One seed: a server, a client that drives it, restarts, an end, the conversion, the comparison.
//!
//! Needs a real etcd 3.4 or 3.5: these still have the v2 API.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io, thread};

use jiff::Timestamp;

use super::client::Client;
use super::compare::Converted;
use super::listing::{Listing, is_ambiguous};
use crate::common::peers::{Peers, Version};
use crate::common::random::Random;
use crate::common::scratch;
use crate::common::server::{Boot, Server};
use crate::connection::{Call, Connection};

/// What one seed, or several, came to.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) seeds: u64,
    pub(super) requests: u64,
    /// What came of those that were not for the listing: actions, and error codes.
    pub(super) outcomes: BTreeMap<String, u64>,
    /// Nodes that expired while the client was at it.
    pub(super) expired: u64,
    /// Nodes in the last listings.
    pub(super) nodes: u64,
    pub(super) restarts: u64,
    pub(super) kills: u64,
    /// Seeds that began from a snapshot.
    pub(super) from_snapshot: u64,
    /// Nodes that expired between the listing and the end.
    pub(super) expired_late: u64,
    /// Seeds where a server that reads its own files again serves something else than before, because a snapshot cannot
    /// keep bytes that are not UTF-8, or may have. There the restarted server is right.
    pub(super) arbitrated: u64,
}

impl Tally {
    #[must_use]
    pub(super) fn plus(mut self, other: Self) -> Self {
        for (outcome, count) in other.outcomes {
            *self.outcomes.entry(outcome).or_default() += count;
        }
        Self {
            outcomes: self.outcomes,
            seeds: self.seeds + other.seeds,
            requests: self.requests + other.requests,
            expired: self.expired + other.expired,
            nodes: self.nodes + other.nodes,
            restarts: self.restarts + other.restarts,
            kills: self.kills + other.kills,
            from_snapshot: self.from_snapshot + other.from_snapshot,
            expired_late: self.expired_late + other.expired_late,
            arbitrated: self.arbitrated + other.arbitrated,
        }
    }
}

/// How a seed's server is run.
#[derive(Debug)]
struct Plan {
    boot: Boot,
    requests: usize,
    /// Before which requests the server is restarted.
    restarts: Vec<usize>,
    /// Before which requests the client waits, so that nodes expire.
    pauses: Vec<usize>,
    /// Requests at the end with a TTL of a second, and a wait after the listing.
    mortals: Option<usize>,
}

impl Plan {
    fn new(peers: &Peers, version: Version, data_dir: &Path, random: &mut Random) -> Self {
        let requests = random.between(110, 170);
        let snapshot_count = if random.chance(75) { random.between(10, 200) } else { 100_000 };
        let restarts = match random.below(20) {
            0 => 2,
            1..8 => 1,
            _ => 0,
        };
        let pauses = random.between(2, 5);
        // Elections are quick, so that a server is up at once.
        let args = ["--heartbeat-interval", "10", "--election-timeout", "100", "--snapshot-count"];
        let mut args: Vec<String> = args.map(str::to_owned).to_vec();
        args.push(snapshot_count.to_string());
        Self {
            boot: Boot { enable_v2: true, args, ..Boot::new(peers, version, data_dir) },
            requests,
            restarts: (0..restarts).map(|_| random.between(10, requests - 1)).collect(),
            pauses: (0..pauses).map(|_| random.between(10, requests - 1)).collect(),
            mortals: random.chance(40).then(|| random.between(1, 6)),
        }
    }
}

/// What is left of a seed's run, to be looked at if it fails.
#[derive(Debug)]
pub(super) struct Session<'a> {
    peers: &'a Peers,
    version: Version,
    seed: u64,
    random: Random,
    folder: PathBuf,
    log: String,
    tally: Tally,
}

impl<'a> Session<'a> {
    pub(super) fn new(peers: &'a Peers, version: Version, seed: u64, folder: &Path) -> Self {
        let tally = Tally { seeds: 1, ..Tally::default() };
        let (random, folder) = (Random::new(seed), folder.to_owned());
        Self { peers, version, seed, random, folder, log: String::new(), tally }
    }

    /// Runs it.
    ///
    /// # Errors
    /// The differences, in words, and the folder of the files.
    pub(super) fn run(mut self) -> Result<Tally, String> {
        let result = catch_unwind(AssertUnwindSafe(|| self.drive_and_compare()));
        let result = result.unwrap_or_else(|panic| Err(text(&*panic)));
        result.map_err(|story| self.keep(&story))?;
        Ok(self.tally)
    }

    fn data_dir(&self) -> PathBuf {
        self.folder.join("default.etcd")
    }

    fn drive_and_compare(&mut self) -> Result<(), String> {
        let plan = Plan::new(self.peers, self.version, &self.data_dir(), &mut self.random);
        self.note(format!("{plan:?}"));
        let mut client = Client::new(Random::new(self.seed ^ 0x5eed));
        let mut running = Some(Server::start(&plan.boot));
        let driven = self.drive(&plan, &mut client, &mut running);
        let server = running.unwrap();
        let mut connection = driven.map_err(|error| format!("{error}\n{}", server.log()))?;
        let listing = Listing::read(&mut connection, &client.touched)?;
        self.tally.requests += connection.asked;
        self.tally.outcomes = client.outcomes.clone();
        self.tally.expired = client.expired;
        self.tally.nodes = listing.nodes.len() as u64;
        self.note(format!("{listing:#?}"));
        if plan.mortals.is_some() {
            thread::sleep(Duration::from_millis(self.random.between(0, 1800) as u64));
        }
        self.end(server);
        self.compare(&plan, &client, &listing, Timestamp::now())
    }

    /// Sends all requests, to the server that runs and to those that take its place.
    fn drive(&mut self, plan: &Plan, client: &mut Client, running: &mut Option<Server>) -> io::Result<Connection> {
        let mut connection = Connection::open(running.as_ref().unwrap().client_address())?;
        for number in 0..plan.requests {
            if plan.pauses.contains(&number) {
                thread::sleep(Duration::from_millis(self.random.between(200, 900) as u64));
            }
            if plan.restarts.contains(&number) {
                self.tally.requests += connection.asked;
                self.tally.restarts += 1;
                self.end(running.take().unwrap());
                let server = running.insert(Server::start(&plan.boot));
                connection = Connection::open(server.client_address())?;
                client.restarted();
            }
            let call = client.next();
            self.send(client, &mut connection, &call)?;
        }
        for _ in 0..plan.mortals.unwrap_or(0) {
            let call = client.next_mortal();
            self.send(client, &mut connection, &call)?;
        }
        Ok(connection)
    }

    fn send(&mut self, client: &mut Client, connection: &mut Connection, call: &Call) -> io::Result<()> {
        let response = connection.ask(call)?;
        self.note(format!("{call:?}\n  {} {}", response.status, String::from_utf8_lossy(&response.body)));
        client.learn(call, &response);
        Ok(())
    }

    fn end(&mut self, server: Server) {
        if self.random.chance(50) {
            self.note("killed".into());
            self.tally.kills += 1;
            server.kill();
        } else {
            self.note("stopped".into());
            server.stop();
        }
    }

    fn compare(&mut self, plan: &Plan, client: &Client, listing: &Listing, end: Timestamp) -> Result<(), String> {
        let converted = Converted::of(self.peers, &self.data_dir(), &self.folder, end)?;
        self.tally.from_snapshot = u64::from(converted.snapshot_index > 0);
        self.tally.expired_late = converted.v2_index().saturating_sub(listing.etcd_index);
        let mut wrong = converted.differences(listing, end);
        wrong.extend(converted.wrong_bytes(&client.written));
        // Read from a snapshot, keys are no longer what they were; and of two keys that look alike, nobody can tell
        // from outside which one expired.
        let unclear = converted.snapshot_index > 0 || is_ambiguous(&listing.nodes);
        if !wrong.is_empty() && client.sent_bad_bytes && unclear {
            self.note(format!("before a restart: {}", wrong.join("\n")));
            self.tally.arbitrated = 1;
            let again = self.list_again(plan, client)?;
            self.note(format!("after a restart: {again:#?}"));
            wrong = converted.differences_after_restart(&again, listing, Timestamp::now());
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }

    /// What a server serves that starts on a copy of the files.
    fn list_again(&self, plan: &Plan, client: &Client) -> Result<Listing, String> {
        let copy = self.folder.join("copy.etcd");
        scratch::copy_tree(&self.data_dir(), &copy);
        let server = Server::start(&Boot { data_dir: copy, ..plan.boot.clone() });
        let mut connection = Connection::open(server.client_address()).map_err(|error| error.to_string())?;
        Listing::read(&mut connection, &client.touched)
    }

    fn note(&mut self, line: String) {
        self.log.push_str(&line);
        self.log.push('\n');
    }

    /// Moves the files to where they are not swept away.
    fn keep(&self, story: &str) -> String {
        let kept =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("differential-{}-seed-{}", self.version, self.seed));
        let _ = fs::remove_dir_all(&kept);
        let moved = fs::rename(&self.folder, &kept).and_then(|()| fs::write(kept.join("log.txt"), &self.log));
        let place = match moved {
            Ok(()) => format!("kept in {}", kept.display()),
            Err(error) => format!("could not be kept: {error}"),
        };
        format!("etcd {}, seed {}, {place}\n{story}", self.version, self.seed)
    }
}

fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
}
