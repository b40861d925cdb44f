//! `--to member` for etcd 3.5, from directories whose log still has a cluster version of 2.x: what etcd 3.5 does with them, and what
//! etcdlift says.
//!
//! Needs the peers and the corpus.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::etcdctl::Etcdctl;
use crate::common::peers::{self, Peers, Version};
use crate::common::run::{Output, etcdlift};
use crate::common::server::{Boot, Server};
use crate::common::{corpus, http, scratch};
use crate::test_name;

fn convert(source: &Path, out: &Path, version: Version, options: &[&str]) -> Output {
    let version = version.to_string();
    let mut args = vec!["convert", source.to_str().unwrap(), "-o", out.to_str().unwrap(), "--to", "member"];
    args.extend(["--target-version", &version, "--auth", "users-only"]);
    args.extend(options);
    etcdlift(args)
}

/// Starts a member, and waits until the cluster version is that of the server.
fn start(peers: &Peers, version: Version, data_dir: &Path, args: &[&str]) -> Server {
    let args = args.iter().map(ToString::to_string).collect();
    let server = Server::start(&Boot { name: "m0".into(), args, ..Boot::new(peers, version, data_dir) });
    let begun = Instant::now();
    let expected = format!(r#""etcdcluster":"{version}."#);
    while begun.elapsed() < Duration::from_secs(20) {
        let answer = http::get(server.client_address(), "/version").unwrap();
        if String::from_utf8_lossy(&answer.body).contains(&expected) {
            return server;
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("the cluster version is not {version}");
}

/// What a put through the v3 API answers, after some time for retries.
fn put(peers: &Peers, server: &Server) -> Output {
    Etcdctl::new(peers, server).attempt(&["put", "/etcdlift/probe", "x"])
}

fn refused(output: &Output, words: &str) {
    let story = output.story();
    assert_eq!(output.status, 5, "{story}");
    for words in [words, "etcd 3.5 would not serve v3", "\"2.3.0\"", "--target-version 3.4"] {
        assert!(output.stderr.contains(words), "{words}: {story}");
    }
}

/// etcd 3.4 has raised the cluster version from 2.3 to 3.4: etcd 3.5 sees both, and enables no v3. After a snapshot it sees one.
#[test]
fn a_log_with_a_cluster_version_of_2() {
    let (Some(peers), Some(scenario)) = (peers::require(test_name!()), corpus::scenario(test_name!(), "v2.3.8-a"))
    else {
        return;
    };
    let temp = scratch::temp();
    let at = |name: &str| temp.path().join(name);
    let source = scenario.data_dir("m0.etcd");
    convert(&source, &at("one"), Version::V3_4, &["--source-version", "2.3.8"]).success();
    start(&peers, Version::V3_4, &at("one"), &[]).stop();

    let keep = ["--existing", "keep-v3"];
    refused(&convert(&at("one"), &at("refused"), Version::V3_5, &keep), "in its log at raft index");
    scratch::copy_tree(&at("one"), &at("copy"));
    let server = start(&peers, Version::V3_5, &at("copy"), &[]);
    let output = put(&peers, &server);
    assert!(output.status != 0 && output.stderr.contains("not capable"), "{}", output.story());
    drop(server);

    let server = start(&peers, Version::V3_4, &at("one"), &["--snapshot-count", "10"]);
    (0..15).for_each(|_| assert_eq!(put(&peers, &server).status, 0));
    server.stop();
    convert(&at("one"), &at("two"), Version::V3_5, &keep).success();
    let server = start(&peers, Version::V3_5, &at("two"), &[]);
    assert_eq!(put(&peers, &server).status, 0);
}

/// The same with the version in the start snapshot.
#[test]
fn a_snapshot_with_a_cluster_version_of_2() {
    let (Some(peers), Some(scenario)) = (peers::require(test_name!()), corpus::scenario(test_name!(), "v2.3.8-b"))
    else {
        return;
    };
    let temp = scratch::temp();
    let (one, refusal) = (temp.path().join("one"), temp.path().join("refused"));
    convert(&scenario.data_dir("m0.etcd"), &one, Version::V3_4, &[]).success();
    start(&peers, Version::V3_4, &one, &[]).stop();
    refused(&convert(&one, &refusal, Version::V3_5, &["--existing", "keep-v3"]), "in its snapshot at raft index");
    let server = start(&peers, Version::V3_5, &one, &[]);
    let output = put(&peers, &server);
    assert!(output.status != 0 && output.stderr.contains("not capable"), "{}", output.story());
}

/// 2.0 has no cluster version. The first one in the log is of 3.x, which etcd 3.5 continues.
#[test]
fn a_log_without_a_cluster_version_before_3() {
    let (Some(peers), Some(scenario)) = (peers::require(test_name!()), corpus::scenario(test_name!(), "v2.0.13-b"))
    else {
        return;
    };
    let temp = scratch::temp();
    let (one, two) = (temp.path().join("one"), temp.path().join("two"));
    convert(&scenario.data_dir("m0.etcd"), &one, Version::V3_4, &[]).success();
    start(&peers, Version::V3_4, &one, &[]).stop();
    convert(&one, &two, Version::V3_5, &["--existing", "keep-v3"]).success();
    let server = start(&peers, Version::V3_5, &two, &[]);
    assert_eq!(put(&peers, &server).status, 0);
}
