//! A run: servers, applications, the job, and what happens to them. It returns the history; `checker.rs` judges it.
//!
//! The seed determines the plan of a run: where v2 is read, which release v3 has, what each client asks for, and what is
//! killed in which order. When each thing happens depends on the machine.

use std::env;
use std::ops::Range;
use std::path::Path;
use std::process::Command as Program;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::apps::{self, Application, Clock, Process, Released, Running, V2Write, drive, drive_v2, keys, write_v2};
use super::job::{self, Job};
use super::naive::{self, Naive, NaiveJob};
use super::ops::{Client, History, Kind, Op};
use super::servers::{Servers, order};
use crate::common::peers::{Peers, Version};
use crate::common::random::Random;
use crate::common::run::etcdlift_path;

const MOVED: usize = 4;
const V2_ONLY: usize = 3;
/// At least; until every member was restarted.
const MIGRATION: Duration = Duration::from_millis(4000);
const NORMAL: Duration = Duration::from_millis(500);
/// The cluster of v2, or one of this release.
const DESTINATIONS: [Option<Version>; 3] = [None, Some(Version::V3_6), Some(Version::V3_5)];

/// What a seed determines. Twelve seeds in a row have every combination of destination, source and undo; the first five
/// have the rarest: the v2 API with 3.6, and an undo of each source.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    /// The release of the destination, if it is not the cluster of v2.
    destination: Option<Version>,
    from_directory: bool,
    undo: bool,
    snapshot_count: u64,
}

impl Plan {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        Self {
            seed,
            destination: DESTINATIONS[(seed % 3) as usize],
            from_directory: (seed / 3).is_multiple_of(2),
            // Every second combination of the first two, and the others in the next six seeds.
            undo: (seed + seed / 6) % 2 == 1,
            snapshot_count: random.pick(&[100, 100_000]),
        }
    }
}

/// The programs of `fixtures/online-app`: Go, and Rust as cargo builds it.
pub(crate) struct Programs {
    go: std::path::PathBuf,
    rust: std::path::PathBuf,
}

impl Programs {
    /// Builds the Rust one like the test itself.
    pub(crate) fn build(peers: &Peers) -> Self {
        let folder = Path::new(etcdlift_path()).parent().unwrap();
        let mut cargo = Program::new(env!("CARGO"));
        // What cargo tells a test. Build scripts of dependencies read it, and would run again each time.
        for (name, _) in env::vars_os() {
            if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
                cargo.env_remove(name);
            }
        }
        // With the features of this test, so that the library is not built once more.
        let features = if cfg!(feature = "sled") { "online,sled" } else { "online" };
        cargo.args(["build", "--quiet", "--locked", "--features", features, "--example", "online_app", "--target-dir"]);
        cargo.arg(folder.parent().unwrap()).current_dir(env!("CARGO_MANIFEST_DIR"));
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success());
        Self { go: peers.online_app(), rust: folder.join("examples/online_app") }
    }

    pub(crate) fn both(&self) -> [&Path; 2] {
        [&self.go, &self.rust]
    }
}

/// The applications of a run.
struct Applications {
    seed: u64,
    clock: Clock,
    released: Arc<Released>,
    history: History,
    moved: Vec<Running>,
    v2_only: Vec<Running>,
    /// Clients that have been started.
    started: usize,
}

impl Applications {
    /// Writes the first values to v2.
    fn begin(plan: &Plan, servers: &Servers) -> Self {
        let (mut random, clock) = (Random::new(plan.seed ^ 0xf125), Clock::start());
        let mut history = History::default();
        for key in keys().iter().filter(|_| random.chance(75)) {
            let kind = Kind::Put { value: format!("first{key}"), ttl: None };
            let start = clock.now();
            let V2Write::Done(answer) = write_v2(servers.v2()[0], key, &kind) else { panic!("v2 refuses {key}") };
            let (end, v2) = (Some(clock.now()), Some(answer));
            history.add(key, Op { client: Client::First, kind, start, end, v2 });
        }
        let released = Arc::new(Released::new(clock));
        Self { seed: plan.seed, clock, released, history, moved: vec![], v2_only: vec![], started: 0 }
    }

    fn start_moved(&mut self, app: Box<dyn Application>) {
        self.started += 1;
        self.moved.push(drive(app, self.started, self.seed, Arc::clone(&self.released)));
    }

    fn start_v2_only(&mut self, servers: &Servers) {
        for _ in 0..V2_ONLY {
            self.started += 1;
            self.v2_only.push(drive_v2(servers.v2(), self.started, self.seed, self.clock));
        }
    }

    fn stop_v2_only(&mut self) {
        self.v2_only.drain(..).for_each(|client| self.history.merge(client.stop()));
    }

    /// Stops all, and reads what v3 has at the end.
    fn end(mut self, servers: &Servers) -> History {
        self.stop_v2_only();
        self.moved.drain(..).for_each(|client| self.history.merge(client.stop()));
        let start = self.clock.now();
        let rows = servers.ctl().all().0;
        let end = Some(self.clock.now());
        for key in keys() {
            let row = rows.iter().find(|row| row.key == key.as_bytes());
            let value = row.map(|row| String::from_utf8(row.value.clone()).unwrap());
            self.history.add(&key, Op { client: Client::Last, kind: Kind::Read(value), start, end, v2: None });
        }
        let others = rows.iter().filter(|row| !row.key.starts_with(apps::DIR.as_bytes()));
        let others: Vec<_> = others.map(|row| String::from_utf8_lossy(&row.key)).collect();
        assert_eq!(others, [job::SWITCH], "what is left in v3");
        self.history
    }
}

/// Runs a plan with the real job.
pub(super) fn run(peers: &Peers, programs: &Programs, plan: &Plan) -> History {
    let mut servers = Servers::start(peers, plan.destination, plan.snapshot_count);
    let mut applications = Applications::begin(plan, &servers);
    let mut random = Random::new(plan.seed ^ 0xfa17);
    let mut job = Job::new(&servers, plan.from_directory);
    applications.start_v2_only(&servers);
    job.start();
    // As docs/online.md says: the job first, then the applications.
    job.wait_until_it_runs(&servers.ctl());
    applications.released.begin();
    for at in 0..MOVED {
        let program = if at % 2 == 0 { &programs.go } else { &programs.rust };
        let app = Process::start(program, &turned(servers.v3(), at), &turned(servers.v2(), at));
        applications.start_moved(Box::new(app));
    }
    disturb(&mut servers, &mut job, &mut random);
    switch(&mut applications, &servers, &mut job);
    if plan.undo {
        job.stop();
        job.run("undo", &[], true).success();
        thread::sleep(NORMAL);
        applications.start_v2_only(&servers);
        job.start();
        thread::sleep(Duration::from_millis(random.between(100, 1500) as u64));
        job.kill(random.chance(70).then(|| servers.ctl()).as_ref());
        job.start();
        thread::sleep(NORMAL);
        switch(&mut applications, &servers, &mut job);
    }
    applications.released.release_all();
    thread::sleep(NORMAL);
    job.stop();
    job.run("finish", &["--accept-conflicts"], false).success();
    thread::sleep(NORMAL);
    applications.end(&servers)
}

/// Kills the job at random moments, and every member once, one after the other.
fn disturb(servers: &mut Servers, job: &mut Job, random: &mut Random) {
    let mut members = order(random, servers.members());
    let (mut steps, end) = (Steps::default(), Instant::now() + MIGRATION);
    while Instant::now() < end || !members.is_empty() {
        thread::sleep(Duration::from_millis(random.between(50, 500) as u64));
        if random.chance(50) {
            let ctl = random.chance(70).then(|| servers.ctl());
            steps.next("kill the job");
            job.kill(ctl.as_ref());
            thread::sleep(Duration::from_millis(random.between(0, 300) as u64));
            steps.next("start the job");
            job.start();
        } else if let Some(member) = members.pop() {
            steps.next(&format!("crash member {member}, and wait for it"));
            servers.crash(member);
        }
        steps.next("sleep");
    }
}

/// What was done, and when. A failure prints it.
#[derive(Default)]
struct Steps(Vec<(Instant, String)>);

impl Steps {
    fn next(&mut self, step: &str) {
        self.0.push((Instant::now(), step.to_owned()));
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        for (at, step) in self.0.iter().filter(|_| thread::panicking()) {
            eprintln!("{:.1?} before the failure: {step}", at.elapsed());
        }
    }
}

/// Stops the v2-only clients, and switches.
fn switch(applications: &mut Applications, servers: &Servers, job: &mut Job) {
    applications.stop_v2_only();
    job.catch_up();
    let switched = job.run("switch", &[], true);
    // TTLs of v2 go on: one that ran out after the switch is listed, and that is status 8.
    assert!(matches!(switched.status, 0 | 8), "{}\nthe job:\n{}", switched.story(), job.log());
    thread::sleep(NORMAL);
    job::add_conflicts(&servers.ctl(), &mut applications.history);
}

/// Runs a plan with the recipe of the guide. Nothing is killed.
pub(super) fn run_naive(peers: &Peers, plan: &Plan) -> History {
    let servers = Servers::start(peers, plan.destination, plan.snapshot_count);
    let mut applications = Applications::begin(plan, &servers);
    let job = NaiveJob::start(servers.v2()[0], servers.v3()[0]);
    applications.released.release_all();
    for at in 0..MOVED {
        applications.start_moved(Box::new(Naive { v3: servers.v3()[at % 3], v2: servers.v2()[at % 3] }));
    }
    applications.start_v2_only(&servers);
    thread::sleep(MIGRATION / 2);
    applications.stop_v2_only();
    thread::sleep(NORMAL);
    job.stop();
    naive::switch(servers.v3()[0]);
    thread::sleep(NORMAL);
    applications.end(&servers)
}

/// The same addresses, beginning with another one.
fn turned<T>(mut list: Vec<T>, by: usize) -> Vec<T> {
    let by = by % list.len();
    list.rotate_left(by);
    list
}

#[test]
fn the_seeds_cover_the_combinations() {
    let plans = |seeds: Range<u64>| seeds.map(Plan::new).collect::<Vec<_>>();
    let few = plans(0..5);
    assert!(DESTINATIONS.iter().all(|destination| few.iter().any(|plan| plan.destination == *destination)), "{few:?}");
    assert!([true, false].iter().all(|dir| few.iter().any(|plan| plan.from_directory == *dir && plan.undo)), "{few:?}");
    assert!(few.iter().any(|plan| !plan.from_directory && plan.destination == Some(Version::V3_6)), "{few:?}");
    let many = plans(0..100);
    for destination in DESTINATIONS {
        for (from_directory, undo) in [(true, true), (true, false), (false, true), (false, false)] {
            let is_one = |plan: &&Plan| {
                (plan.destination, plan.from_directory, plan.undo) == (destination, from_directory, undo)
            };
            let count = many.iter().filter(is_one).count();
            assert!(count >= 8, "{destination:?}, directory {from_directory}, undo {undo}: {count} of 100 seeds");
        }
    }
}
