//! Sources with v2 and v3 data: the new cluster has the v3 keys with their revisions and, after a merge, the v2 keys too.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::check::{self, until};
use super::{logs, make};
use crate::common::cluster::{Cluster, seats};
use crate::common::peers::{self, Peers, Version};
use crate::common::rows::Row;
use crate::common::run::read_json;
use crate::common::{corpus, etcdctl, scratch};
use crate::test_name;

#[test]
fn v3_keys_alone() {
    for_each(test_name!(), |peers, version, dir, user| {
        let truth = read_json(&dir.join("truth.json"));
        boots(peers, version, dir, user, &["solo"], &["--existing", "keep-v3"], &|rows, revision, _| {
            assert_eq!(rows, v3_rows(&truth));
            assert_eq!(Some(revision), truth["v3"]["get"]["header"]["revision"].as_u64());
        });
    });
}

#[test]
fn v2_and_v3_keys_after_a_merge() {
    let merge = ["--existing", "merge", "--on-conflict", "take-v2"];
    for_each(test_name!(), |peers, version, dir, user| {
        let truth = read_json(&dir.join("truth.json"));
        // Three members where no user slows them down.
        let names: &[&str] = if user.is_none() { &["a", "b", "c"] } else { &["solo"] };
        boots(peers, version, dir, user, names, &merge, &|rows, revision, report| {
            let last = truth["v3"]["get"]["header"]["revision"].as_u64().unwrap();
            let (v2, v3) = (v2_values(&truth), v3_rows(&truth));
            assert_eq!(revision, last + v2.len() as u64);
            let (from_v2, from_v3): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.modified > last as i64);
            let found: BTreeMap<&[u8], &[u8]> = from_v2.iter().map(|row| (&row.key[..], &row.value[..])).collect();
            let expected: BTreeMap<&[u8], &[u8]> =
                v2.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes())).collect();
            assert!(found == expected, "the v2 keys differ");
            let only_v3: Vec<&Row> = v3.iter().filter(|row| !expected.contains_key(&row.key[..])).collect();
            assert_eq!(from_v3, only_v3);
            assert!(!from_v2.is_empty() && !from_v3.is_empty(), "{report}");
        });
    });
}

/// Runs a test on two sources, one of them with users, and the oldest and the newest target.
fn for_each(test: &str, run: impl Fn(&Peers, Version, &Path, Option<&str>)) {
    let Some(peers) = peers::require(test) else { return };
    for (name, user) in [("v3.4.23-m12", None), ("v3.5.16-m10", Some("root:r00t-pw"))] {
        let Some(dir) = corpus::mixed(test, name) else { continue };
        for version in [Version::V3_4, Version::V3_7] {
            eprintln!("{name} on etcd {version}");
            run(&peers, version, &dir, user);
        }
    }
}

/// What a test asks of the keys and the revision after the start, with the report.
type Right<'r> = &'r dyn Fn(&[Row], u64, &Value);

fn boots(
    peers: &Peers,
    version: Version,
    dir: &Path,
    user: Option<&str>,
    names: &[&str],
    options: &[&str],
    right: Right<'_>,
) {
    let temp = scratch::temp();
    let truth = read_json(&dir.join("truth.json"));
    let target = version.to_string();
    let as_of = ["--as-of", truth["captured_at"].as_str().unwrap(), "--target-version", &target];
    let options: Vec<String> = as_of.iter().chain(options).map(ToString::to_string).collect();
    let made = make(&[dir.join("m0.etcd")], temp.path(), &seats(names), &options);

    let mut cluster = made.cluster(peers, version, user);
    cluster.start(&[]);
    check::leader(&cluster);
    check::members(&cluster, &made, &[]);
    let (rows, revision) = cluster.ctl(0).all();
    right(&rows, revision, &made.report);
    assert_eq!(check::hash_kv(&cluster), made.hash_kv());
    for at in cluster.running() {
        let own = || if cluster.ctl(at).own() == (rows.clone(), revision) { Ok(()) } else { Err(at.to_string()) };
        until("the keys of a member", own);
    }
    old_leases(&truth, &cluster, &rows);

    assert_eq!(cluster.ctl(0).put("/etcdlift/mixed", "x"), revision + 1);
    cluster.crash();
    cluster.start(&[]);
    assert_eq!(cluster.ctl(names.len() - 1).del("/etcdlift/mixed"), (revision + 2, 1));
    let (again, _) = cluster.ctl(0).all();
    assert!(again == rows);
    let _ = check::hash_kv(&cluster);
    check::no_alarm(&cluster);
    logs::blame_nothing(&cluster, version);
}

/// The leases of v3 have their IDs and times, and the keys that the merge did not change.
fn old_leases(truth: &Value, cluster: &Cluster, rows: &[Row]) {
    for lease in truth["v3"]["leases"].as_array().unwrap() {
        let id = lease["id"].as_i64().unwrap();
        let (granted, _, mut keys) = cluster.ctl(0).time_to_live(id);
        let attached = rows.iter().filter(|row| row.lease == id).map(|row| row.key.clone());
        keys.sort();
        assert_eq!((Some(granted), keys), (lease["granted-ttl"].as_i64(), attached.collect()), "lease {id}");
    }
}

fn v3_rows(truth: &Value) -> Vec<Row> {
    truth["v3"]["get"]["kvs"].as_array().unwrap().iter().map(etcdctl::row).collect()
}

fn v2_values(truth: &Value) -> BTreeMap<String, String> {
    let files = truth["v2"]["nodes"].as_array().unwrap().iter().filter(|node| node["dir"] == false);
    files
        .map(|node| (node["key"].as_str().unwrap().into(), node["value"].as_str().unwrap_or_default().into()))
        .collect()
}
