//! The identity of a new cluster: tokens that keep clusters apart, and members taken from the source.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use super::check::{self, Content, until};
use super::{attempt, make, options};
use crate::common::cluster::seats;
use crate::common::corpus;
use crate::common::dump::Dump;
use crate::common::peers::{self, Version};
use crate::common::protobuf::{bytes_of, number_of};
use crate::common::run::etcdlift;
use crate::common::{scratch, v2files};
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
        // Neither the majority's write nor its leader reaches the member of the other cluster.
        check::has_rows(&cluster, 2, &content);
        let status = cluster.ctl(2).status();
        assert!(status["leader"].as_u64().unwrap_or(0) == 0, "{status}");
    }
}

/// Names and peer URLs are those of the source's members, and the IDs are new.
#[test]
fn members_come_from_the_source() {
    let test = test_name!();
    let (Some(peers), Some(scenario)) = (peers::require(test), corpus::scenario(test, "v3.4.23-f")) else { return };
    let truth: Value = serde_json::from_slice(&fs::read(scenario.dir.join("truth.json")).unwrap()).unwrap();
    let old: BTreeMap<&str, &Value> =
        truth["members"].as_array().unwrap().iter().map(|member| (member["name"].as_str().unwrap(), member)).collect();
    let source = scenario.data_dir("m1.etcd");
    let with = |more: &[&str], folder: &str| {
        let options = [&options(&scenario)[..], &["--members-from-source".into()], &more.iter().map(|word| (*word).into()).collect::<Vec<_>>()].concat();
        let temp = scratch::temp();
        let (output, made) = attempt(&[source.clone()], &temp.path().join(folder), &[], &options);
        assert_eq!(output.status, 0, "{}", output.story());
        (temp, made.unwrap())
    };
    let (_temp, all) = with(&["--all-members"], "all");
    let (_other, own) = with(&[], "own");
    let listed = |report: &Value| report["output"]["members"].as_array().unwrap().clone();
    assert_eq!(listed(&all.report).len(), 3);
    // Without --all-members it is the directory of the member that the source belongs to.
    let alone = listed(&own.report);
    assert_eq!((alone.len(), &alone[0]["name"]), (1, &"m1".into()));
    assert_eq!(own.cluster_id(), all.cluster_id());
    assert_ne!(json!(all.cluster_id()), truth["cluster_id"]);
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
        let inspected = etcdlift(["inspect".as_ref(), dir.join("member/snap/db").as_os_str(), "--json".as_ref()]);
        assert_eq!(inspected.success().json()["hash_kv"], all.report["output"]["hash_kv"]);
    }
}
