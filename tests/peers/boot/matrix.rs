//! Sources of five releases on four targets, as one member and as three: everything that a new cluster has to do.
//!
//! By default each target gets some sources, and each source release at least two targets. With `ETCDLIFT_BOOT_ALL=1` every
//! source runs on every target in both sizes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;
use std::{env, fs};

use serde_json::Value;

use super::check::{self, Content};
use super::{logs, make, options, work};
use crate::common::cluster::seats;
use crate::common::corpus::{self, Scenario};
use crate::common::peers::{self, Peers, Version};
use crate::common::scratch;
use crate::test_name;

/// One writer without and with snapshots, one with users, and three members.
const SOURCES: [&str; 16] = [
    "v2.0.13-a",
    "v2.0.13-b",
    "v2.3.8-a",
    "v2.3.8-b",
    "v2.3.8-d",
    "v2.3.8-e",
    "v3.3.27-a",
    "v3.3.27-b",
    "v3.3.27-d",
    "v3.3.27-e",
    "v3.4.23-a",
    "v3.4.23-b",
    "v3.4.23-d",
    "v3.4.23-e",
    "v3.5.16-a",
    "v3.5.16-b",
];

/// The default for a target: sources as one member, and as three.
type Part = (&'static [&'static str], &'static [&'static str]);

#[test]
fn on_3_4() {
    run(test_name!(), Version::V3_4, (&["v2.0.13-a", "v2.3.8-b"], &["v3.4.23-b"]));
}

#[test]
fn on_3_5() {
    run(test_name!(), Version::V3_5, (&["v3.5.16-a"], &["v3.3.27-e"]));
}

#[test]
fn on_3_6() {
    run(test_name!(), Version::V3_6, (&["v3.5.16-b"], &["v2.0.13-b", "v3.4.23-d"]));
}

#[test]
fn on_3_7() {
    run(test_name!(), Version::V3_7, (&["v3.3.27-a"], &["v2.3.8-e"]));
}

fn run(test: &str, version: Version, (one, three): Part) {
    let Some(peers) = peers::require(test) else { return };
    let all = env::var_os("ETCDLIFT_BOOT_ALL").is_some_and(|value| value == "1");
    let (one, three) = if all { (&SOURCES[..], &SOURCES[..]) } else { (one, three) };
    for (names, sources) in [(&["solo"][..], one), (&["a", "b", "c"], three)] {
        for source in sources {
            let Some(scenario) = corpus::scenario(test, source) else { continue };
            let begun = Instant::now();
            boots(&peers, version, &scenario, names);
            eprintln!("{source} on etcd {version}, members {names:?}: {} ms", begun.elapsed().as_millis());
        }
    }
}

fn boots(peers: &Peers, version: Version, scenario: &Scenario, names: &[&str]) {
    eprintln!("{} on etcd {version}, members {names:?}", scenario.name);
    let temp = scratch::temp();
    let live = scenario.live();
    let sources: Vec<PathBuf> = live.iter().map(|name| scenario.data_dir(name)).collect();
    let made = make(&sources, temp.path(), &seats(names), &options(scenario));
    let mut content = Content::of(scenario, live[0]);
    let passwords = passwords(scenario);
    let user = passwords.get("root").map(|password| format!("root:{password}"));

    let mut cluster = made.cluster(peers, version, user.as_deref());
    cluster.start(&[]);
    check::leader(&cluster);
    check::members(&cluster, &made, &[]);
    check::content(&cluster, &content);
    assert_eq!(check::hash_kv(&cluster), made.hash_kv());
    check::users(&cluster, 0..names.len(), &passwords);

    work::use_it(&cluster, &mut content);
    check::content(&cluster, &content);
    check::hash_kv(&cluster);
    work::save(peers, version, &cluster, &content, temp.path());
    check::versions(&cluster, version);
    work::join(&mut cluster, &content, temp.path());
    check::users(&cluster, names.len()..names.len() + 1, &passwords);
    work::restart(&mut cluster, version, &mut content);
    check::no_alarm(&cluster);
    logs::blame_nothing(&cluster, version);
}

/// The password of each user that v2 had.
fn passwords(scenario: &Scenario) -> BTreeMap<String, String> {
    let Some(auth) = &scenario.truth.auth else { return BTreeMap::new() };
    let truth: Value = serde_json::from_slice(&fs::read(scenario.dir.join("truth.json")).unwrap()).unwrap();
    let password = |name: &String| truth["passwords"][name].as_str().map(String::from);
    auth.users.keys().filter_map(|name| Some((name.clone(), password(name)?))).collect()
}
