//! Sources with v2 and v3 data: the new cluster has the v3 keys with their revisions and, after a merge, the v2 keys too.
//!
//! By default four sources with v2 data are merged for `every_source_after_a_merge`, each for one version. With `ETCDLIFT_BOOT_ALL=1`
//! every one is, for 3.6 and 3.7.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;

use super::check::{self, until};
use super::{logs, make};
use crate::common::cluster::{Cluster, seats};
use crate::common::peers::{self, Peers, Version};
use crate::common::rows::Row;
use crate::common::run::{etcdlift, read_json};
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

const MERGE: [&str; 4] = ["--existing", "merge", "--on-conflict", "take-v2"];

#[test]
fn v2_and_v3_keys_after_a_merge() {
    for_each(test_name!(), |peers, version, dir, user| {
        let truth = read_json(&dir.join("truth.json"));
        // Three members where no user slows them down.
        let names: &[&str] = if user.is_none() { &["a", "b", "c"] } else { &["solo"] };
        boots(peers, version, dir, user, names, &MERGE, &|rows, revision, report| {
            let last = truth["v3"]["get"]["header"]["revision"].as_u64().unwrap();
            merged(rows, revision, last, &v2_values(&truth), Some(&v3_rows(&truth)));
            assert_eq!(report["existing"]["revision"], last);
        });
    });
}

/// Compares what a server has after a merge with v2 keys and, if they are known, v3 keys up to the revision `last`.
fn merged(rows: &[Row], revision: u64, last: u64, v2: &BTreeMap<String, String>, v3: Option<&[Row]>) {
    assert_eq!(revision, last + v2.len() as u64);
    let (from_v2, from_v3): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.modified > last as i64);
    let found: BTreeMap<&[u8], &[u8]> = from_v2.iter().map(|row| (&row.key[..], &row.value[..])).collect();
    let expected: BTreeMap<&[u8], &[u8]> = v2.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes())).collect();
    assert!(found == expected, "the v2 keys differ");
    if let Some(v3) = v3 {
        let only_v3: Vec<&Row> = v3.iter().filter(|row| !expected.contains_key(&row.key[..])).collect();
        assert_eq!(from_v3, only_v3);
    }
    assert!(!from_v3.is_empty());
}

/// A source with v2 data: the scenario, its data directories, whether they are as old as their truth, and the user of v3.
type Source = (&'static str, &'static [&'static str], Age, Option<&'static str>);

#[derive(Clone, Copy, PartialEq)]
enum Age {
    /// The truth describes it.
    Last,
    /// The member was removed before that.
    Earlier,
}

/// Every directory of corpus-mixed with v2 keys or users, and all members of a cluster at once.
const SOURCES: [Source; 15] = [
    ("v3.5.16-m11", &["m0.etcd"], Age::Last, None),
    ("v3.5.16-m9", &["m0.etcd", "m1.etcd", "m2.etcd", "m3.etcd"], Age::Last, None),
    ("v3.5.16-m6", &["m0.etcd"], Age::Last, None),
    ("v3.5.16-m9", &["m2.etcd"], Age::Earlier, None),
    // By default only those above.
    ("v3.4.23-m12", &["m0.etcd"], Age::Last, None),
    ("v3.5.16-m2", &["m0.etcd"], Age::Last, None),
    ("v3.5.16-m3", &["m0.etcd"], Age::Last, None),
    ("v3.5.16-m3b", &["m0.etcd"], Age::Last, None),
    ("v3.5.16-m6b", &["m0.etcd"], Age::Last, None),
    ("v3.5.16-m7", &["m0.etcd"], Age::Last, None),
    ("v3.5.16-m9", &["m0.etcd"], Age::Last, None),
    ("v3.5.16-m9", &["m1.etcd"], Age::Last, None),
    ("v3.5.16-m9", &["m3.etcd"], Age::Last, None),
    ("v3.5.16-m10", &["m0.etcd"], Age::Last, Some("root:r00t-pw")),
    ("v3.5.16-m13", &["m0.etcd"], Age::Last, None),
];
const DEFAULT: usize = 4;

#[test]
fn every_source_after_a_merge() {
    let Some(peers) = peers::require(test_name!()) else { return };
    let all = env::var_os("ETCDLIFT_BOOT_ALL").is_some_and(|value| value == "1");
    let versions = [Version::V3_6, Version::V3_7];
    let part = if all { SOURCES.len() } else { DEFAULT };
    for (at, source) in SOURCES.iter().enumerate().take(part) {
        let Some(dir) = corpus::mixed(test_name!(), source.0) else { return };
        for version in versions.into_iter().filter(|version| all || *version == versions[at % 2]) {
            let begun = Instant::now();
            boots_merged(&peers, version, &dir, *source);
            eprintln!("{} {:?} on etcd {version}: {} ms", source.0, source.1, begun.elapsed().as_millis());
        }
    }
}

/// Every scenario that has v2 keys or users is among the sources.
#[test]
fn the_list_of_sources_is_complete() {
    for name in corpus::MIXED {
        let Some(dir) = corpus::mixed(test_name!(), name) else { return };
        let truth = read_json(&dir.join("truth.json"));
        let has_users = truth["v2"]["auth"]["users"].as_object().is_some_and(|users| !users.is_empty());
        let is_source = !v2_values(&truth).is_empty() || has_users;
        for member in truth["data_dirs"].as_object().unwrap().keys().filter(|_| is_source) {
            let is_it = |source: &&Source| source.0 == name && source.1 == [member.as_str()];
            assert!(SOURCES.iter().any(|source| is_it(&source)), "{name} {member}");
        }
        assert_eq!(is_source, SOURCES.iter().any(|source| source.0 == name), "{name}");
    }
}

fn boots_merged(peers: &Peers, version: Version, dir: &Path, (_, members, age, user): Source) {
    let truth = read_json(&dir.join("truth.json"));
    let sources: Vec<PathBuf> = members.iter().map(|member| dir.join(member)).collect();
    let mut options = MERGE.map(String::from).to_vec();
    // Of m7, only the users are v2 data; of m9, one member was removed.
    options.extend(["--allow-empty", "--allow-removed"].map(String::from));
    if let Some(wal) = truth["data_dirs"][members[0]]["wal_dir"].as_str() {
        options.extend(["--wal-dir".into(), dir.join(wal).display().to_string()]);
    }
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let right = |rows: &[Row], revision: u64, report: &Value| match age {
        Age::Last => {
            let last = truth["v3"]["get"]["header"]["revision"].as_u64().unwrap();
            merged(rows, revision, last, &v2_values(&truth), Some(&v3_rows(&truth)));
        }
        Age::Earlier => {
            let last = truth["data_dirs"][members[0]]["after_stop"]["db_snapshot_status"]["revision"].as_u64().unwrap();
            let v2 = exported(&sources[0]);
            assert!(v2.len() > 100);
            merged(rows, revision, last, &v2, None);
            assert_eq!(report["existing"]["revision"], last);
        }
    };
    let truth = (age == Age::Last).then_some(&truth);
    let users = boots_from(peers, version, (dir, &sources, truth), user, &["solo"], &options, &right);
    if dir.ends_with("v3.5.16-m7") {
        assert_eq!(users, ["ann", "ben", "root"]);
    }
}

/// The v2 keys that `export` finds.
fn exported(source: &Path) -> BTreeMap<String, String> {
    let lines =
        etcdlift(["export".as_ref(), source.as_os_str(), "-o".as_ref(), "-".as_ref(), "--allow-removed".as_ref()]);
    let lines = lines.success().text();
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let files = lines.filter(|line| line["value"].is_string());
    files.map(|line| (line["key"].as_str().unwrap().into(), line["value"].as_str().unwrap().into())).collect()
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
    let truth = read_json(&dir.join("truth.json"));
    boots_from(peers, version, (dir, &[dir.join("m0.etcd")], Some(&truth)), user, names, options, right);
}

/// Converts sources, boots the result, and uses it. Without a truth, the leases are not compared. Returns the users.
fn boots_from(
    peers: &Peers,
    version: Version,
    (dir, sources, truth): (&Path, &[PathBuf], Option<&Value>),
    user: Option<&str>,
    names: &[&str],
    options: &[&str],
    right: Right<'_>,
) -> Vec<String> {
    let temp = scratch::temp();
    let captured = read_json(&dir.join("truth.json"))["captured_at"].as_str().unwrap().to_string();
    let target = version.to_string();
    let as_of = ["--as-of", &captured, "--target-version", &target];
    let options: Vec<String> = as_of.iter().chain(options).map(ToString::to_string).collect();
    let made = make(sources, temp.path(), &seats(names), &options);

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
    if let Some(truth) = truth {
        old_leases(truth, &cluster, &rows);
    }
    let users = cluster.ctl(0).json(&["user", "list"]);
    let users =
        users["users"].as_array().into_iter().flatten().map(|user| user.as_str().unwrap().to_string()).collect();

    assert_eq!(cluster.ctl(0).put("/etcdlift/mixed", "x"), revision + 1);
    cluster.crash();
    cluster.start(&[]);
    assert_eq!(cluster.ctl(names.len() - 1).del("/etcdlift/mixed"), (revision + 2, 1));
    let (again, _) = cluster.ctl(0).all();
    assert!(again == rows);
    let _ = check::hash_kv(&cluster);
    check::no_alarm(&cluster);
    logs::blame_nothing(&cluster, version);
    users
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
