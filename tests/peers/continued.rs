//! `--to member` on real servers: the members of a source boot as the same cluster, with the v3 data in place.
//!
//! Each server gets the peer URL of its member, so the clusters of the corpus run one at a time (`common/cluster.rs`).
//! `ETCDLIFT_CONTINUE_ALL=1` adds the releases and directories that the default leaves out. Needs the peers and the corpus.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::common::corpus::{self, Scenario};
use crate::common::etcdctl::Etcdctl;
use crate::common::members_cluster::Cluster;
use crate::common::peers::{self, Peers, Version};
use crate::common::rows::{self, Row};
use crate::common::run::{all_well, etcdlift, read_json};
use crate::common::server::{Boot, Server};
use crate::common::{http, scratch, v2files, v2keys};
use crate::test_name;

/// The seconds that the shortest lease of an output has.
const LEASE_SECONDS: i64 = 15;

/// The members of a scenario, converted.
struct Made {
    peers: Peers,
    scenario: Arc<Scenario>,
    temp: tempfile::TempDir,
    report: Value,
    version: Version,
    /// The instant from which TTLs count.
    as_of: String,
}

/// Both parts, or `None` after a note that `test` skips.
fn require(test: &str, name: &str) -> Option<(Peers, Arc<Scenario>)> {
    Some((peers::require(test)?, corpus::scenario(test, name)?))
}

fn everything() -> bool {
    env::var_os("ETCDLIFT_CONTINUE_ALL").is_some_and(|value| value == "1")
}

impl Made {
    /// Converts the live members of a scenario.
    fn new((peers, scenario): (Peers, Arc<Scenario>), version: Version) -> Self {
        let sources: Vec<PathBuf> = scenario.live().iter().map(|name| scenario.data_dir(name)).collect();
        let as_of = scenario.truth.captured_at.clone();
        Self::of(peers, scenario, version, &sources, as_of)
    }

    /// As [`Made::new`], shortly before the first key expires.
    fn with_short_lease((peers, scenario): (Peers, Arc<Scenario>), version: Version) -> Self {
        let sources: Vec<PathBuf> = scenario.live().iter().map(|name| scenario.data_dir(name)).collect();
        let left = rows::lease_lengths(&scenario, scenario.live()[0])[0];
        let captured: Timestamp = scenario.truth.captured_at.parse().unwrap();
        let as_of = captured + SignedDuration::from_secs(left - LEASE_SECONDS);
        Self::of(peers, scenario, version, &sources, as_of.to_string())
    }

    fn of(peers: Peers, scenario: Arc<Scenario>, version: Version, sources: &[PathBuf], as_of: String) -> Self {
        let temp = scratch::temp();
        let (out, report) = (temp.path().join("out"), temp.path().join("report.json"));
        let target = version.to_string();
        let mut args: Vec<OsString> = vec!["convert".into()];
        args.extend(sources.iter().map(Into::into));
        args.extend(["-o".into(), out.clone().into(), "--report".into(), report.clone().into()]);
        // A log in a directory of its own; the output has it in the usual place.
        let logs = scenario.live().into_iter().filter_map(|name| scenario.truth.data_dirs[name].wal_dir.as_deref());
        logs.for_each(|log| args.extend(["--wal-dir".into(), scenario.data_dir(log).into()]));
        let options = ["--to", "member", "--target-version", &target, "--as-of", &as_of, "--auth", "users-only"];
        args.extend(options.into_iter().chain(scenario.truth.source_version()).map(Into::into));
        etcdlift(args).success();
        etcdlift(["verify".as_ref(), out.as_os_str(), "--report".as_ref(), report.as_os_str()]).success();
        let report = read_json(&report);
        Self { peers, scenario, temp, report, version, as_of }
    }

    /// How to start each member.
    fn boots(&self) -> Vec<Boot> {
        let members = self.report["output"]["members"].as_array().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_string();
        let boot = |member: &Value| {
            let data_dir = PathBuf::from(text(&member["directory"]));
            assert!(data_dir.starts_with(self.temp.path()));
            let single = members.len() == 1;
            Boot {
                name: text(&member["name"]),
                peer_url: (!single).then(|| text(&member["peer_urls"][0])),
                enable_v2: true,
                args: self.args(),
                ..Boot::new(&self.peers, self.version, &data_dir)
            }
        };
        members.iter().map(boot).collect()
    }

    /// etcd 3.5 stays without v3 if it finds both a cluster version of 2.x and one of 3.x in a log, so 3.4 takes a snapshot first.
    fn args(&self) -> Vec<String> {
        let args: &[&str] = if self.scenario.version()[0] == 2 { &["--snapshot-count", "10"] } else { &[] };
        args.iter().map(ToString::to_string).collect()
    }

    fn rows(&self) -> Vec<Row> {
        rows::expected_at(&self.scenario, self.scenario.live()[0], &self.as_of)
    }

    fn ctl(&self, server: &Server) -> Etcdctl {
        Etcdctl::new(&self.peers, server)
    }

    /// Checks a member that nobody has written to: who it is, its v3 data, its hash, its leases, its v2 keys.
    fn check(&self, at: usize, server: &Server, expected: &[Row]) {
        let (ctl, output) = (self.ctl(server), &self.report["output"]);
        let (rows, revision) = ctl.all();
        all_well(&rows::differences(expected, &rows));
        assert_eq!(Some(revision), output["revision"].as_u64());
        assert_eq!(Some(ctl.hash_kv()), output["hash_kv"].as_u64(), "{output}");
        let header = &ctl.status()["header"];
        let id = |value: &Value| format!("{:x}", value.as_u64().unwrap());
        assert_eq!(id(&header["cluster_id"]), output["cluster_id"].as_str().unwrap());
        assert_eq!(id(&header["member_id"]), output["members"][at]["id"].as_str().unwrap());
        self.check_v2(server);
    }

    /// Every v2 key without a TTL is served; those with one may have expired since the capture.
    fn check_v2(&self, server: &Server) {
        if self.version == Version::V3_5 && self.scenario.version() < vec![3, 5] {
            return self.check_v2_values(server);
        }
        let truth = &self.scenario.truth;
        let served = v2keys::list(server, &truth.hidden_paths_tried).rows;
        let mut expected: Vec<Row> = self.rows_of_v2();
        expected.retain(|row| !is_mortal(&self.scenario, &row.key));
        assert!(!expected.is_empty());
        let served: Vec<Row> = served.into_iter().filter(|row| !is_mortal(&self.scenario, &row.key)).collect();
        all_well(&rows::differences(&expected, &served));
    }

    /// Without indexes: etcd 3.5 refuses a request in the log that 3.4 accepts (docs/formats.md, appendix E 1),
    /// so the indexes after it, and names made of them, are lower.
    fn check_v2_values(&self, server: &Server) {
        let served = v2keys::list(server, &self.scenario.truth.hidden_paths_tried).rows;
        let mut expected = self.rows_of_v2();
        expected.retain(|row| !is_mortal(&self.scenario, &row.key) && !row.key.windows(5).any(|part| part == b"queue"));
        assert!(expected.len() > 50, "{}", expected.len());
        let missing = expected
            .iter()
            .filter(|row| !served.iter().any(|other| (&other.key, &other.value) == (&row.key, &row.value)));
        all_well(&missing.map(Row::show).collect::<Vec<_>>());
    }

    fn rows_of_v2(&self) -> Vec<Row> {
        let nodes = self.scenario.truth.nodes_of(self.scenario.live()[0]);
        nodes.iter().filter(|node| !node.dir).map(Row::of_node).collect()
    }
}

/// Does the key, or a directory that it is in, have a TTL?
fn is_mortal(scenario: &Scenario, key: &[u8]) -> bool {
    let nodes = scenario.truth.nodes_of(scenario.live()[0]);
    nodes.iter().filter(|node| node.expiration.is_some()).any(|node| {
        let rest = key.strip_prefix(node.key.as_bytes());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    })
}

/// Starts the members, checks each, and writes through each.
fn boots_as_the_same_cluster(made: &Made) -> Cluster {
    let cluster = Cluster::start(made.boots());
    let expected = made.rows();
    // The v3 checks need no lease; the short one runs out soon.
    for (at, server) in cluster.servers().enumerate() {
        made.check(at, server, &expected);
    }
    writes_replicate(made, &cluster, "first");
    cluster
}

/// Writes v2 and v3 keys through each member, and reads them from all.
fn writes_replicate(made: &Made, cluster: &Cluster, value: &str) {
    for (at, server) in cluster.servers().enumerate() {
        made.ctl(server).put(&format!("/continued/{at}"), value);
        let answer = http::put_form(server.client_address(), "/v2/keys/continued", &format!("value={value}{at}"));
        assert!(answer.unwrap().status < 300);
        for other in cluster.servers() {
            let rows = made.ctl(other).all().0;
            let key = format!("/continued/{at}").into_bytes();
            assert!(rows.iter().any(|row| row.key == key && row.value == value.as_bytes()));
            let read = http::get(other.client_address(), "/v2/keys/continued?quorum=true").unwrap();
            assert!(String::from_utf8_lossy(&read.body).contains(&format!("{value}{at}")));
        }
    }
    same_hash(made, cluster);
}

/// All members have one hash; a follower may apply a write a little later.
fn same_hash(made: &Made, cluster: &Cluster) {
    let begun = Instant::now();
    loop {
        let states: Vec<_> =
            cluster.servers().map(|server| made.ctl(server)).map(|ctl| (ctl.all(), ctl.hash_kv())).collect();
        if states.windows(2).all(|pair| pair[0] == pair[1]) {
            return;
        }
        let hashes: Vec<_> = states.iter().map(|((_, revision), hash)| (revision, hash)).collect();
        assert!(begun.elapsed() < Duration::from_secs(10), "{hashes:?}");
        thread::sleep(Duration::from_millis(200));
    }
}

/// The keys of the first lease vanish on all members, and no other key.
fn leases_run_out(made: &Made, cluster: &Cluster) {
    let (mortal, lasting): (Vec<Row>, Vec<Row>) = made.rows().into_iter().partition(|row| row.lease == 1);
    assert!(!mortal.is_empty());
    let granted = rows::lease_lengths_at(&made.scenario, made.scenario.live()[0], &made.as_of);
    assert_eq!(granted[0], LEASE_SECONDS);
    for server in cluster.servers() {
        let (ctl, last) = (made.ctl(server), granted.len());
        let (seconds, left, keys) = ctl.time_to_live(last as i64);
        let attached = lasting.iter().filter(|row| row.lease == last as i64).count();
        assert_eq!((seconds, keys.len()), (granted[last - 1], attached));
        assert!(left <= seconds && left > seconds - 120, "{left} of {seconds}");
    }
    let begun = Instant::now();
    let gone = |server: &Server| made.ctl(server).all().0.iter().all(|row| row.lease != 1);
    while !cluster.servers().all(gone) {
        // A new leader starts the leases again.
        assert!(begun.elapsed() < Duration::from_secs(3 * LEASE_SECONDS as u64), "the keys of a lease are still there");
        thread::sleep(Duration::from_millis(500));
    }
    for server in cluster.servers() {
        let mut left = made.ctl(server).all().0;
        left.retain(|row| !row.key.starts_with(b"/continued"));
        all_well(&rows::differences(&lasting, &left));
    }
    same_hash(made, cluster);
}

/// Upgrades 3.4 to 3.5, one member at a time, with a write in between.
fn upgrades(made: &Made, cluster: &mut Cluster) {
    let before = made.ctl(cluster.server(0)).all().0;
    for at in 0..3 {
        cluster.upgrade(at, made.peers.etcd(Version::V3_5));
        put_after_an_election(&made.ctl(cluster.server((at + 1) % 3)), "/continued/0", &format!("upgrade {at}"));
    }
    let changed = |rows: Vec<Row>| rows.into_iter().filter(|row| row.key != b"/continued/0").collect::<Vec<_>>();
    let after = made.ctl(cluster.server(2)).all().0;
    all_well(&rows::differences(&changed(before), &changed(after)));
    wait_for_cluster_version(cluster, "3.5");
    writes_replicate(made, cluster, "upgraded");
    cluster.servers().for_each(|server| made.check_v2_values(server));
}

/// A member that stops may have been the leader.
fn put_after_an_election(ctl: &Etcdctl, key: &str, value: &str) {
    let begun = Instant::now();
    while !ctl.puts(key, value) {
        assert!(begun.elapsed() < Duration::from_secs(30), "no write succeeds");
        thread::sleep(Duration::from_millis(200));
    }
}

fn wait_for_cluster_version(cluster: &Cluster, version: &str) {
    let begun = Instant::now();
    let has_it = |server: &Server| {
        let answer = http::get(server.client_address(), "/version").unwrap();
        String::from_utf8_lossy(&answer.body).contains(&format!(r#""etcdcluster":"{version}."#))
    };
    while !cluster.servers().all(has_it) {
        assert!(begun.elapsed() < Duration::from_secs(40), "the cluster version is still below {version}");
        thread::sleep(Duration::from_millis(200));
    }
}

/// The whole life: boot, writes, leases, a crash, the upgrade.
#[test]
fn three_members_of_3_4_continue_and_are_upgraded() {
    let Some(found) = require(test_name!(), "v3.4.23-e") else { return };
    let made = Made::with_short_lease(found, Version::V3_4);
    let mut cluster = boots_as_the_same_cluster(&made);
    leases_run_out(&made, &cluster);
    cluster.crash(1);
    put_after_an_election(&made.ctl(cluster.server(0)), "/continued/0", "after a crash");
    writes_replicate(&made, &cluster, "after a crash");
    upgrades(&made, &mut cluster);
}

/// The cluster version is 2.3 until etcd 3.4 raises it.
#[test]
fn three_members_of_2_3_continue_and_are_upgraded() {
    let Some(found) = require(test_name!(), "v2.3.8-e") else { return };
    let made = Made::new(found, Version::V3_4);
    let mut cluster = boots_as_the_same_cluster(&made);
    wait_for_cluster_version(&cluster, "3.4");
    upgrades(&made, &mut cluster);
}

#[test]
fn three_members_of_3_3_continue_on_3_5() {
    let Some(found) = require(test_name!(), "v3.3.27-e") else { return };
    boots_as_the_same_cluster(&Made::new(found, Version::V3_5));
}

/// The other pairs of a source and a release, with leases that run out, and the upgrade.
#[test]
#[ignore = "takes minutes: a command in CONTRIBUTING.md runs it"]
fn the_whole_matrix_of_clusters_continues() {
    for (name, version) in [
        ("v2.3.8-e", Version::V3_4),
        ("v3.3.27-e", Version::V3_4),
        ("v3.3.27-e", Version::V3_5),
        ("v3.4.23-e", Version::V3_5),
    ] {
        let Some(found) = require(test_name!(), name) else { return };
        eprintln!("{name} on etcd {version}");
        let made = Made::with_short_lease(found, version);
        let mut cluster = boots_as_the_same_cluster(&made);
        leases_run_out(&made, &cluster);
        if version == Version::V3_4 {
            wait_for_cluster_version(&cluster, "3.4");
            upgrades(&made, &mut cluster);
        }
    }
}

/// The log of one member lacks 454 entries, which it gets.
#[test]
fn a_member_that_was_stopped_earlier_continues() {
    let Some(found) = require(test_name!(), "v3.4.23-f") else { return };
    boots_as_the_same_cluster(&Made::new(found, Version::V3_4));
}

/// 40 acknowledged writes, the last one after each commit index on disk.
#[test]
fn members_that_were_killed_at_once_have_all_acknowledged_writes() {
    let Some(found) = require(test_name!(), "v3.4.23-p") else { return };
    let made = Made::new(found, Version::V3_4);
    let cluster = Cluster::start(made.boots());
    for server in cluster.servers() {
        let acknowledged = |rows: Vec<Row>| rows.iter().filter(|row| row.value.starts_with(b"acked ")).count();
        let ctl = made.ctl(server);
        assert_eq!(acknowledged(ctl.all().0), 40);
        assert_eq!(acknowledged(v2keys::list(server, &[]).rows), 40);
        assert_eq!(Some(ctl.hash_kv()), made.report["output"]["hash_kv"].as_u64());
    }
    writes_replicate(&made, &cluster, "first");
}

/// The log of one member of three ends in a torn record, several entries before those of the others.
#[test]
fn a_member_with_a_torn_record_continues() {
    let Some((peers, scenario)) = require(test_name!(), "v3.4.23-e") else { return };
    let temp = scratch::temp();
    let mut sources: Vec<PathBuf> = scenario.live().iter().map(|name| scenario.data_dir(name)).collect();
    let torn = temp.path().join("torn.etcd");
    scratch::copy_tree(&sources[1], &torn);
    tear(&torn, 12);
    sources[1] = torn;
    let as_of = scenario.truth.captured_at.clone();
    let made = Made::of(peers, scenario, Version::V3_4, &sources, as_of);
    assert!(made.report["warnings"].to_string().contains("torn-tail"), "{}", made.report["warnings"]);
    boots_as_the_same_cluster(&made);
}

/// Overwrites the last records of a log, the first of them except for its length.
fn tear(data_dir: &Path, records: usize) {
    let segment = data_dir.join("member/wal/0000000000000000-0000000000000000.wal");
    scratch::edit(&segment, |bytes| {
        let frames = v2files::frames(bytes);
        let (_, record) = frames[frames.len() - records].clone();
        bytes[record.start..].fill(0);
    });
}

/// Single members of old releases, on 3.4; those with a cluster version of 3.x on 3.5 too.
#[test]
fn single_members_continue() {
    let (v3_4, v3_5) = (Version::V3_4, Version::V3_5);
    let mut singles = vec![("v2.0.13-b", v3_4), ("v2.1.3-b", v3_4), ("v2.2.5-b", v3_4), ("v3.4.23-gtorn", v3_4)];
    if everything() {
        singles.extend([("v2.0.13-a", v3_4), ("v2.3.8-b", v3_4), ("v3.0.17-b", v3_4), ("v3.4.23-w", v3_4)]);
        singles.extend([("v3.0.17-b", v3_5), ("v3.3.27-b", v3_5), ("v3.4.23-b", v3_5), ("v3.5.16-b", v3_5)]);
    }
    for (name, version) in singles {
        let Some(found) = require(test_name!(), name) else { return };
        eprintln!("{name} on etcd {version}");
        single_member_continues(&Made::new(found, version));
    }
}

fn single_member_continues(made: &Made) {
    let (boots, expected) = (made.boots(), made.rows());
    let server = Server::start(&boots[0]);
    let ctl = made.ctl(&server);
    let (rows, revision) = ctl.all();
    all_well(&rows::differences(&expected, &rows));
    assert_eq!(Some(ctl.hash_kv()), made.report["output"]["hash_kv"].as_u64());
    // etcd 3.4 names in-order keys in the log of 2.0 and 2.1 in its own way, so their v2 indexes differ.
    if made.scenario.version() >= vec![2, 2] {
        made.check_v2(&server);
    }
    assert_eq!(ctl.put("/continued", "v3"), revision + 1);
    let hash = ctl.hash_kv();
    server.kill();
    let server = Server::start(&boots[0]);
    let ctl = made.ctl(&server);
    assert_eq!((ctl.all().1, ctl.hash_kv()), (revision + 1, hash));
    assert_eq!(ctl.put("/continued", "again"), revision + 2);
    assert!(fs::metadata(boots[0].data_dir.join("member/snap/db")).is_ok());
}
