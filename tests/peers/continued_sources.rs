//! `--to member` from directories that the corpus does not have: with a learner, and with a backend that a leader has sent and that
//! has not replaced the old one. Real servers of 3.4 and 3.5 make them, and continue on the output.
//!
//! Needs the peers.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::cluster::{Cluster, Seat, initial_cluster, seats};
use crate::common::etcdctl::Etcdctl;
use crate::common::peers::{self, Peers, Version};
use crate::common::run::{etcdlift, read_json};
use crate::common::server::{Boot, Server};
use crate::common::{http, scratch};
use crate::test_name;

const VERSIONS: [Version; 2] = [Version::V3_4, Version::V3_5];
const V2: &str = "--enable-v2";

/// Converts members; returns the report.
fn convert(sources: &[&Path], out: &Path, version: Version) -> serde_json::Value {
    let (version, report) = (version.to_string(), out.with_extension("json"));
    let mut args = vec!["convert", "--to", "member", "--target-version", &version, "-o", out.to_str().unwrap()];
    args.extend(["--existing", "merge", "--report", report.to_str().unwrap()]);
    args.extend(sources.iter().map(|path| path.to_str().unwrap()));
    etcdlift(args).success();
    etcdlift(["verify".as_ref(), out.as_os_str(), "--report".as_ref(), report.as_os_str()]).success();
    read_json(&report)
}

fn put_v2(client: SocketAddr, key: &str) {
    let answer = http::put_form(client, &format!("/v2/keys/{key}"), "value=of v2").unwrap();
    assert!(answer.status < 300, "{}", String::from_utf8_lossy(&answer.body));
}

fn until(what: &str, done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
        thread::sleep(Duration::from_millis(200));
    }
}

/// A cluster of a voter and a learner, with a key of v2 and one of v3.
fn voter_and_learner(peers: &Peers, version: Version, seats: &[Seat], dirs: &[PathBuf]) {
    let mut cluster = Cluster::new(peers, version, 2, None);
    cluster.add(&seats[0], &dirs[0]);
    cluster.spawn(0, &[V2, "--initial-cluster", &initial_cluster(&seats[..1])]);
    cluster.wait(0);
    put_v2(seats[0].client, "of/v2");
    cluster.ctl(0).put("v3", "of v3");
    let add = ["member", "add", &seats[1].name, "--learner", "--peer-urls", &seats[1].peer_url()];
    until("member add", || cluster.ctl(0).attempt(&add).status == 0);
    cluster.add(&seats[1], &dirs[1]);
    let all = initial_cluster(seats);
    cluster.spawn(1, &[V2, "--initial-cluster", &all, "--initial-cluster-state", "existing"]);
    cluster.wait_for_port(1);
    until("the learner has the key", || cluster.ctl(1).own().0.len() == 1);
    cluster.stop(1);
    cluster.stop(0);
}

#[test]
fn a_learner_continues_as_one_and_can_be_promoted() {
    let Some(peers) = peers::require(test_name!()) else { return };
    for version in VERSIONS {
        let temp = scratch::temp();
        let seats = seats(&["voter", "learner"]);
        let dirs = ["voter", "learner"].map(|name| temp.path().join(format!("{name}.etcd")));
        voter_and_learner(&peers, version, &seats, &dirs);
        let out = temp.path().join("out");
        let report = convert(&[&dirs[0], &dirs[1]], &out, version);
        let members = report["output"]["members"].as_array().unwrap();
        let learner = members.iter().find(|member| member["name"] == "learner").unwrap();
        assert_eq!(learner["is_learner"], true, "{report}");

        let mut cluster = Cluster::new(&peers, version, 2, None);
        seats.iter().for_each(|seat| {
            let _ = cluster.add(seat, &out.join(&seat.name));
        });
        (0..2).for_each(|at| cluster.spawn(at, &[V2]));
        cluster.wait(0);
        cluster.wait_for_port(1);
        let listed = cluster.ctl(0).json(&["member", "list"]);
        let of = |name: &str| listed["members"].as_array().unwrap().iter().find(|one| one["name"] == name).cloned();
        assert_eq!(of("learner").unwrap()["isLearner"], true, "{listed}");
        let (rows, revision) = cluster.ctl(0).all();
        let keys: Vec<&[u8]> = rows.iter().map(|row| row.key.as_slice()).collect();
        assert_eq!(keys, [&b"/of/v2"[..], b"v3"]);
        assert_eq!(Some(cluster.ctl(0).hash_kv()), report["output"]["hash_kv"].as_u64());
        assert_eq!(cluster.ctl(0).put("after", "x"), revision + 1);
        until("the learner has the write", || cluster.ctl(1).own() == cluster.ctl(0).all());
        let id = learner["id"].as_str().unwrap();
        until("member promote", || cluster.ctl(0).attempt(&["member", "promote", id]).status == 0);
        cluster.wait(1);
        assert_eq!(cluster.ctl(1).put("after", "y"), revision + 2);
    }
}

/// What a member has after a crash between the two steps: the old database, and the received one (docs/formats.md 2.4).
fn crashed(peers: &Peers, version: Version, data_dir: &Path) {
    let start = || {
        let args = vec!["--snapshot-count".into(), "10".into()];
        Server::start(&Boot { enable_v2: true, args, ..Boot::new(peers, version, data_dir) })
    };
    let (snap, old) = (data_dir.join("member/snap"), data_dir.with_extension("old"));
    let server = start();
    put_v2(server.client_address(), "of/v2");
    Etcdctl::new(peers, &server).put("early", "x");
    server.stop();
    fs::copy(snap.join("db"), &old).unwrap();
    let server = start();
    for number in 0..25 {
        Etcdctl::new(peers, &server).put("late", &number.to_string());
    }
    server.stop();
    let newest = scratch::names(&snap).into_iter().filter(|name| name.ends_with(".snap")).max().unwrap();
    let index = newest.strip_suffix(".snap").unwrap().split_once('-').unwrap().1.to_string();
    fs::rename(snap.join("db"), snap.join(format!("{index}.snap.db"))).unwrap();
    fs::rename(old, snap.join("db")).unwrap();
}

#[test]
fn a_received_database_is_the_one_that_continues() {
    let Some(peers) = peers::require(test_name!()) else { return };
    for version in VERSIONS {
        let temp = scratch::temp();
        let (source, out, copy) = (temp.path().join("source"), temp.path().join("out"), temp.path().join("copy"));
        crashed(&peers, version, &source);
        let report = convert(&[&source], &out, version);
        assert!(!scratch::names(&out.join("member/snap")).iter().any(|name| name.ends_with(".snap.db")));

        // What the server itself makes of the directory.
        scratch::copy_tree(&source, &copy);
        let server = Server::start(&Boot { enable_v2: true, ..Boot::new(&peers, version, &copy) });
        let (expected, before) = Etcdctl::new(&peers, &server).all();
        assert!(expected.iter().any(|row| row.key == b"late" && row.value == b"24"));
        server.stop();

        let server = Server::start(&Boot { enable_v2: true, ..Boot::new(&peers, version, &out) });
        let ctl = Etcdctl::new(&peers, &server);
        let (mut rows, revision) = ctl.all();
        assert_eq!((revision, ctl.hash_kv()), (before + 1, report["output"]["hash_kv"].as_u64().unwrap()));
        let of_v2 = rows.iter().position(|row| row.key == b"/of/v2").unwrap();
        assert_eq!(rows.remove(of_v2).value, b"of v2");
        assert_eq!(rows, expected);
        assert_eq!(ctl.put("after", "x"), revision + 1);
    }
}
