//! `etcdlift clean` and configuration changes of etcd 3.4, which writes members into the backend before the consistent index. etcd 3.6
//! ignores such a change, so `clean` refuses the directory until etcd 3.5 has run on it.

use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::common::cluster::{Cluster, Seat, initial_cluster, seats};
use crate::common::etcdctl::Etcdctl;
use crate::common::http;
use crate::common::peers::{self, Peers, Version};
use crate::common::run::{Output, etcdlift};
use crate::common::scratch;
use crate::common::server::{Boot, Server};
use crate::test_name;

const HINT: &str = "hint: start etcd 3.5 on the source once, stop it cleanly, and clean again";

fn clean(source: &Path, out: &Path) -> Output {
    etcdlift(["clean", source.to_str().unwrap(), "-o", out.to_str().unwrap()])
}

#[track_caller]
fn refused(run: &Output) {
    assert_eq!(run.status, 5, "{}", run.story());
    for words in ["etcd 3.6 would ignore the configuration change of raft entry ", HINT] {
        assert!(run.stderr.contains(words), "{}", run.story());
    }
}

/// The ID of the learner that a server adds.
fn add_learner(client: &Etcdctl) -> String {
    let added = client.json(&["member", "add", "x", "--learner", "--peer-urls", "http://127.0.0.1:9"]);
    format!("{:x}", added["member"]["ID"].as_u64().unwrap())
}

#[test]
fn a_change_without_a_v3_write_after_it_is_refused() {
    let Some(peers) = peers::require(test_name!()) else { return };
    let temp = scratch::temp();
    let source = temp.path().join("source");
    let boot = Boot { enable_v2: true, ..Boot::new(&peers, Version::V3_4, &source) };
    let server = Server::start(&boot);
    let client = Etcdctl::new(&peers, &server);
    let cleaned = |name: &str| {
        // The server writes its backend every 100 ms.
        thread::sleep(Duration::from_millis(500));
        let copy = temp.path().join(name);
        scratch::copy_tree(&source, &copy);
        clean(&copy, &temp.path().join(format!("{name}.out")))
    };
    client.put("a", "1");
    let learner = add_learner(&client);
    http::put_form(server.client_address(), "/v2/keys/a", "value=1").unwrap();
    refused(&cleaned("added"));
    client.put("a", "2");
    let run = cleaned("added and written").success();
    assert!(!run.text().contains("members-differ"), "{}", run.story());
    client.does(&["member", "remove", &learner]);
    refused(&cleaned("removed"));
    client.put("a", "3");
    cleaned("removed and written").success();
    let learner = add_learner(&client);
    client.does(&["member", "remove", &learner]);
    cleaned("added and removed").success();
    server.stop();
}

fn cluster(peers: &Peers, version: Version, seats: &[Seat], dirs: &Path) -> Cluster {
    let mut cluster = Cluster::new(peers, version, seats.len(), None);
    for seat in seats {
        cluster.add(seat, &dirs.join(&seat.name));
    }
    let initial = initial_cluster(seats);
    let v2: &[&str] = if version != Version::V3_6 { &["--enable-v2", "--strict-reconfig-check=false"] } else { &[] };
    cluster.start(&[&["--initial-cluster", initial.as_str()], v2].concat());
    cluster
}

#[test]
fn a_new_voter_counts_after_a_start_of_3_5() {
    let Some(peers) = peers::require(test_name!()) else { return };
    let temp = scratch::temp();
    let (sources, out) = (temp.path().join("sources"), temp.path().join("out"));
    std::fs::create_dir(&sources).unwrap();
    std::fs::create_dir(&out).unwrap();
    let seats = seats(&["a", "b", "c"]);
    let mut old = cluster(&peers, Version::V3_4, &seats, &sources);
    old.ctl(0).put("a", "1");
    old.ctl(0).does(&["member", "add", "x", "--peer-urls", "http://127.0.0.1:9"]);
    http::put_form(seats[0].client, "/v2/keys/a", "value=1").unwrap();
    thread::sleep(Duration::from_millis(500));
    (0..3).for_each(|at| old.stop(at));
    drop(old);
    for seat in &seats {
        refused(&clean(&sources.join(&seat.name), &out.join(&seat.name)));
    }
    let mut newer = cluster(&peers, Version::V3_5, &seats, &sources);
    (0..3).for_each(|at| newer.stop(at));
    drop(newer);
    for seat in &seats {
        let run = clean(&sources.join(&seat.name), &out.join(&seat.name)).success();
        assert!(!run.text().contains("members-differ"), "{}", run.story());
    }
    let mut cluster = cluster(&peers, Version::V3_6, &seats, &out);
    cluster.ctl(0).put("a", "2");
    cluster.stop(2);
    let put = cluster.ctl(0).attempt(&["--command-timeout=4s", "put", "a", "3"]);
    assert_ne!(put.status, 0, "2 of 4 voters decided: {}", put.story());
}
