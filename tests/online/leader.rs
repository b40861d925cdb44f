//! Clusters that lose their leader, their majority, or their only member while the job works.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::common::cluster::{Cluster, initial_cluster, seats};
use crate::common::peers::{self, Peers, Version};
use crate::common::run::{Output, etcdlift};
use crate::common::scratch;
use crate::pair::{Job, set, wait_for};

/// A v2 member, and three of v3.
struct Servers {
    v2: Cluster,
    v3: Cluster,
    _temp: TempDir,
}

const KEYS: usize = 600;

impl Servers {
    fn start(peers: &Peers, version: Version) -> Self {
        let temp = scratch::temp();
        // One cluster of three takes all slots.
        let v2 = Cluster::new(peers, Version::V3_4, 3, None);
        let v3 = v2.second(version);
        let mut servers = Self { v2, v3, _temp: temp };
        let begin = |cluster: &mut Cluster, names: &[&str], args: &[&str]| {
            let seats = seats(names);
            for seat in &seats {
                cluster.add(seat, &servers._temp.path().join(&seat.name));
            }
            (0..names.len()).for_each(|at| spawn(cluster, at, args));
            (0..names.len()).for_each(|at| cluster.wait(at));
        };
        begin(&mut servers.v2, &["old"], &["--enable-v2"]);
        begin(&mut servers.v3, &["a", "b", "c"], &[]);
        (0..KEYS).for_each(|number| set(servers.v2(), &format!("/k/{number}"), "first"));
        servers
    }

    fn v2(&self) -> SocketAddr {
        self.v2.members[0].seat.client
    }

    /// The number of the leader.
    fn leader(&self) -> usize {
        let mut found = None;
        wait_for("a leader", || {
            found = self.v3.running().find(|at| {
                let status = self.v3.ctl(*at).status();
                status["leader"].as_u64() == status["header"]["member_id"].as_u64()
            });
            found.is_some()
        });
        found.unwrap()
    }

    fn restart(&mut self, at: usize) {
        spawn(&mut self.v3, at, &[]);
    }

    /// Arguments of a command. The job begins with the endpoint of this member.
    fn arguments(&self, command: &str, first: usize, more: &[&str]) -> Vec<String> {
        let order = (0..3).map(|at| self.v3.members[(first + at) % 3].seat.client_url());
        let endpoints = order.collect::<Vec<_>>().join(",");
        let v2 = format!("http://{}", self.v2());
        let all = ["online", command, "--v2-endpoints", &v2, "--endpoints", &endpoints];
        all.iter().chain(more).map(ToString::to_string).collect()
    }

    fn online(&self, command: &str, more: &[&str]) -> Output {
        etcdlift(self.arguments(command, self.v3.running().next().unwrap(), more))
    }

    /// Keys and values below `/` in v3.
    fn v3_keys(&self) -> BTreeMap<String, String> {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let rows = self.v3.ctl(self.v3.running().next().unwrap()).all().0;
        rows.into_iter().map(|row| (text(row.key), text(row.value))).filter(|(key, _)| key.starts_with('/')).collect()
    }

    /// v3 has what v2 has, and no change is listed.
    fn require_equal(&self) {
        let verified = self.online("verify", &["--json"]).success().json();
        assert_eq!(
            (verified["equal"].as_u64(), verified["differing"].as_u64()),
            (Some(KEYS as u64), Some(0)),
            "{verified}"
        );
        let status = self.online("status", &["--json"]).success().json();
        assert_eq!((status["lag_entries"].as_u64(), status["conflicts"].as_u64()), (Some(0), Some(0)), "{status}");
    }
}

fn spawn(cluster: &mut Cluster, at: usize, args: &[&str]) {
    let seats: Vec<_> = cluster.members.iter().map(|member| member.seat.clone()).collect();
    let all = format!("--initial-cluster={}", initial_cluster(&seats));
    cluster.spawn(at, &[args, &[&all]].concat());
}

/// Writes v2 until the work is done. Returns the number of writes.
fn writing(v2: SocketAddr, work: impl FnOnce()) -> usize {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut number = 0;
            while !done.load(Ordering::Relaxed) {
                set(v2, &format!("/k/{}", number % KEYS), &number.to_string());
                number += 1;
                thread::sleep(Duration::from_millis(5));
            }
            number
        });
        let end = Ends(&done);
        work();
        drop(end);
        writer.join().unwrap()
    })
}

/// Ends the writer, also after a panic.
struct Ends<'d>(&'d AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How often the job said that it waits, and that this is over.
fn lines(text: &str) -> (usize, usize) {
    (text.matches("; trying again for").count(), text.matches("the cluster answers again").count())
}

#[test]
fn a_killed_leader_while_the_state_is_copied() {
    let Some(peers) = peers::require("online::leader") else { return };
    let mut servers = Servers::start(&peers, Version::V3_5);
    let leader = servers.leader();
    let job = Job::start(&servers.arguments("copy", leader, &["--rate-limit", "200", "--in-flight", "4"]));
    let v2 = servers.v2();
    let writes = writing(v2, || {
        wait_for("a part of the copy", || servers.v3_keys().len() > KEYS / 6);
        servers.v3.kill(leader);
        assert!(servers.v3_keys().len() < KEYS, "it copies");
        wait_for("the copy", || servers.v3_keys().len() == KEYS);
        servers.restart(leader);
        servers.v3.wait(leader);
    });
    assert!(writes > 100);
    servers.require_equal();
    let (status, text) = job.stop();
    assert_eq!((status, lines(&text)), (143, (1, 1)), "{text}");
}

#[test]
fn killed_leaders_while_changes_are_followed() {
    let Some(peers) = peers::require("online::leader") else { return };
    let mut servers = Servers::start(&peers, Version::V3_6);
    let leader = servers.leader();
    let job = Job::start(&servers.arguments("copy", leader, &["--lock-ttl", "3s"]));
    wait_for("the copy", || servers.v3_keys().len() == KEYS);
    let v2 = servers.v2();
    let mut at = leader;
    let follows = |servers: &Servers| {
        let now = servers.v3_keys();
        wait_for("a change", || servers.v3_keys() != now);
    };
    writing(v2, || {
        for _ in 0..3 {
            servers.v3.kill(at);
            follows(&servers);
            servers.restart(at);
            servers.v3.wait(at);
            follows(&servers);
            at = servers.leader();
        }
    });
    servers.require_equal();
    let (status, text) = job.stop();
    let (waits, over) = lines(&text);
    // A request to a follower can wait for the election without a fault.
    assert!(status == 143 && waits == over && (1..=3).contains(&waits), "{text}");
}

#[test]
fn a_lost_majority_ends_the_job_with_one_line_and_the_next_goes_on() {
    let Some(peers) = peers::require("online::leader") else { return };
    let mut servers = Servers::start(&peers, Version::V3_6);
    let leader = servers.leader();
    let arguments = servers.arguments("copy", leader, &["--retry-for", "3s", "--lock-ttl", "2s"]);
    let mut job = Job::start(&arguments);
    wait_for("the copy", || servers.v3_keys().len() == KEYS);
    let v2 = servers.v2();
    let follower = (leader + 1) % 3;
    writing(v2, || {
        let began = Instant::now();
        servers.v3.kill(leader);
        servers.v3.kill(follower);
        let (status, text) = job.end();
        assert_eq!((status, lines(&text)), (5, (1, 0)), "{text}");
        assert_eq!(text.matches("etcdlift: error:").count(), 1, "{text}");
        assert!(text.contains("hint: check"), "{text}");
        // A member without a leader answers after 7 seconds.
        assert!(began.elapsed() < Duration::from_secs(12), "{:?} {text}", began.elapsed());
    });
    servers.restart(leader);
    servers.restart(follower);
    servers.v3.wait(leader);
    servers.v3.wait(follower);
    let once = servers.online("copy", &["--once", "--lock-ttl", "2s"]).success();
    assert!(once.stderr.contains("COMPLETE"), "{}", once.story());
    servers.require_equal();
}

#[test]
fn a_lost_v2_member_has_its_lines_too() {
    let Some(peers) = peers::require("online::leader") else { return };
    let mut servers = Servers::start(&peers, Version::V3_6);
    let lines =
        |text: &str| (text.matches("; trying again for").count(), text.matches("the v2 API answers again").count());
    for comes_back in [true, false] {
        let mut job = Job::start(&servers.arguments("copy", 0, if comes_back { &[] } else { &["--retry-for", "2s"] }));
        set(servers.v2(), "/k/0", &format!("before {comes_back}"));
        wait_for("the copy", || servers.v3_keys().get("/k/0") == Some(&format!("before {comes_back}")));
        thread::sleep(Duration::from_secs(1));
        servers.v2.kill(0);
        thread::sleep(Duration::from_secs(2));
        if !comes_back {
            let (status, text) = job.end();
            assert_eq!((status, lines(&text)), (5, (1, 0)), "{text}");
            assert_eq!(text.matches("etcdlift: error:").count(), 1, "{text}");
            assert!(text.contains("the v2 API does not answer"), "{text}");
        }
        spawn(&mut servers.v2, 0, &["--enable-v2"]);
        servers.v2.wait(0);
        set(servers.v2(), "/k/0", &format!("after {comes_back}"));
        if comes_back {
            wait_for("the change", || servers.v3_keys()["/k/0"] == "after true");
            let (status, text) = job.stop();
            assert_eq!((status, lines(&text)), (143, (1, 1)), "{text}");
        }
    }
    // The job has released its lock: nobody waits for it.
    let once = servers.online("copy", &["--once"]).success();
    assert!(!once.stderr.contains("waiting for the lock"), "{}", once.story());
    servers.require_equal();
}
