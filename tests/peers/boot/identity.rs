//! The identity of a new cluster: tokens that keep clusters apart, and members taken from the source.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use super::check::{Content, until};
use super::{make, options};
use crate::common::cluster::seats;
use crate::common::convert::Inspected;
use crate::common::dump::Dump;
use crate::common::peers::{self, Version};
use crate::common::protobuf::{bytes_of, number_of};
use crate::common::run::read_json;
use crate::common::{corpus, scratch, v2files};
use crate::test_name;

/// Two clusters of one source with the same URLs: a member of one that comes to the other is refused, and changes nothing.
#[test]
fn clusters_with_different_tokens_refuse_each_other() {
    let test = test_name!();
    let (Some(peers), Some(scenario)) = (peers::require(test), corpus::scenario(test, "v2.3.8-b")) else { return };
    for version in [Version::V3_4, Version::V3_7] {
        let temp = scratch::temp();
        let seats = seats(&["a", "b", "c"]);
        let [one, two] = ["one", "two"].map(|token| {
            let options = [&options(&scenario)[..], &["--initial-cluster-token".into(), token.into()]].concat();
            make(&[scenario.data_dir("m0.etcd")], &temp.path().join(token), &seats, &options)
        });
        assert_ne!(one.cluster_id(), two.cluster_id());
        assert!(seats.iter().all(|seat| one.id(&seat.name) != two.id(&seat.name)));
        assert_eq!(one.hash_kv(), two.hash_kv());

        let mut cluster = one.cluster(&peers, version, None);
        cluster.members[2].data_dir = two.data_dir("c");
        (0..3).for_each(|at| cluster.spawn(at, &[]));
        (0..2).for_each(|at| cluster.wait(at));
        until("refusal", || {
            let mut lines = cluster.lines().into_iter();
            let refused = lines.any(|(_, line)| line.contains("cluster ID mismatch"));
            if refused { Ok(()) } else { Err("no log has a line about the IDs of the clusters".into()) }
        });
        let content = Content::of(&scenario, "m0.etcd");
        assert_eq!(cluster.ctl(0).put("/etcdlift/one", "x"), content.revision + 1);
        // Without a leader it serves no client, and the majority's write does not reach it.
        assert!(!cluster.serves(2));
        cluster.crash();
        assert_eq!(Inspected::of(&two.data_dir("c").join("member/snap/db")).hash_kv, two.hash_kv());
    }
}

/// Names and peer URLs are those of the source's members. Another token gives new IDs; the old token gives the old ones, with a
/// warning.
#[test]
fn members_come_from_the_source() {
    let test = test_name!();
    let (Some(peers), Some(scenario)) = (peers::require(test), corpus::scenario(test, "v3.4.23-f")) else { return };
    let truth = read_json(&scenario.dir.join("truth.json"));
    let old: BTreeMap<&str, &Value> =
        truth["members"].as_array().unwrap().iter().map(|member| (member["name"].as_str().unwrap(), member)).collect();
    let temp = scratch::temp();
    let with = |folder: &str, more: &[&str]| {
        let more = ["--members-from-source"].iter().chain(more).map(ToString::to_string);
        let options = options(&scenario).into_iter().chain(more).collect::<Vec<_>>();
        make(&[scenario.data_dir("m1.etcd")], &temp.path().join(folder), &[], &options)
    };
    let all = with("all", &["--all-members", "--initial-cluster-token", "new"]);
    let own = with("own", &["--initial-cluster-token", "new"]);
    let same = with("same", &["--all-members"]);
    let listed = |report: &Value| report["output"]["members"].as_array().unwrap().clone();
    let warned = |report: &Value| report["warnings"].to_string().contains("same-cluster-id");
    // Without --all-members it is the directory of the member that the source belongs to.
    let alone = listed(&own.report);
    assert_eq!((alone.len(), &alone[0]["name"]), (1, &"m1".into()));
    assert_eq!(own.cluster_id(), all.cluster_id());
    // The old cluster had the token that is the default.
    assert_eq!(json!(same.cluster_id()), truth["cluster_id"]);
    assert!(warned(&same.report) && !warned(&all.report) && !warned(&own.report));
    for member in listed(&same.report) {
        assert_eq!(member["id"], old[member["name"].as_str().unwrap()]["id"]);
    }
    assert_eq!(listed(&all.report).len(), old.len());
    for member in listed(&all.report) {
        let name = member["name"].as_str().unwrap();
        assert_eq!(member["peer_urls"], old[name]["peerURLs"]);
        assert_ne!(member["id"], old[name]["id"]);
        let dir = all.out.join(name);
        let segment = fs::read(dir.join("member/wal/0000000000000000-0000000000000000.wal")).unwrap();
        let records: Vec<&[u8]> = v2files::frames(&segment).into_iter().map(|(_, at)| &segment[at]).collect();
        let metadata = bytes_of(records[1], 3).unwrap();
        let id = |text: &Value| u64::from_str_radix(text.as_str().unwrap(), 16).ok();
        let ids = (number_of(metadata, 1), number_of(metadata, 2));
        assert_eq!(ids, (id(&member["id"]), id(&all.report["output"]["cluster_id"])));
        let dump = Dump::of(&peers, &dir.join("member/snap/db"));
        for other in listed(&all.report) {
            let pair = dump.other("members", other["id"].as_str().unwrap().as_bytes()).unwrap();
            let pair: Value = serde_json::from_slice(pair).unwrap();
            let expected = json!({"id": id(&other["id"]), "name": other["name"], "peerURLs": other["peer_urls"]});
            assert_eq!(pair, expected);
        }
        assert_eq!(Inspected::of(&dir.join("member/snap/db")).hash_kv, all.hash_kv());
    }
}
