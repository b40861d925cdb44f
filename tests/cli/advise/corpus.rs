//! Real directories: what `advise` finds in the tree is what the server showed, and what it finds in the log is what another
//! reader of the log finds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{advise, number};
use crate::common::protobuf::{Field, bytes_of, fields, number_of};
use crate::common::run::{all_well, etcdlift, read_json};
use crate::common::truth::Node;
use crate::common::{corpus, v2files};
use crate::test_name;

/// The topics that each kind of request of the corpus's client uses, if the server took it as far as its log.
const WORKLOAD: [(&str, &[&str]); 19] = [
    ("cadbad", &["compare-and-delete"]),
    ("cadi", &["compare-and-delete", "compare-index"]),
    ("cadv", &["compare-and-delete"]),
    ("casboth", &["compare-and-swap", "compare-index"]),
    ("casi", &["compare-and-swap", "compare-index"]),
    ("casv", &["compare-and-swap"]),
    ("create", &["create-only"]),
    ("deldir", &["directory-delete"]),
    ("mkdir", &["create-directory"]),
    ("mkdirttl", &["create-directory", "ttl-directory"]),
    ("post", &["in-order-key", "queue"]),
    ("postttl", &["in-order-key", "ttl-key"]),
    ("qget", &["quorum-read"]),
    ("rdel", &["recursive-delete"]),
    ("rich-badutf8", &["invalid-utf8"]),
    ("rich-post", &["in-order-key", "queue"]),
    ("setttl", &["ttl-key"]),
    ("short", &["ttl-key"]),
    ("update", &["update-only"]),
];

/// A log, read without etcdlift: the entries by index, and the highest commit index.
#[derive(Default)]
struct Log {
    entries: BTreeMap<u64, (u64, Vec<u8>)>,
    commit: u64,
}

impl Log {
    fn read(wal: &Path) -> Log {
        let mut log = Log::default();
        let mut segments: Vec<PathBuf> = fs::read_dir(wal).unwrap().map(|entry| entry.unwrap().path()).collect();
        segments.retain(|path| path.extension().is_some_and(|end| end == "wal"));
        segments.sort();
        for segment in segments {
            let bytes = fs::read(segment).unwrap();
            for (_, record) in v2files::frames(&bytes) {
                let Some(record) = bytes.get(record) else { break };
                let data = bytes_of(record, 3).unwrap_or_default();
                match number_of(record, 1) {
                    Some(2) => {
                        let index = number_of(data, 3).unwrap();
                        let kind = number_of(data, 1).unwrap_or(0);
                        // A new leader replaces what follows.
                        log.entries.split_off(&index);
                        log.entries.insert(index, (kind, bytes_of(data, 4).unwrap_or_default().to_vec()));
                    }
                    Some(3) => log.commit = log.commit.max(number_of(data, 3).unwrap_or(0)),
                    _ => {}
                }
            }
        }
        log
    }

    /// The number of requests of each topic up to a raft index.
    fn requests(&self, last: u64) -> BTreeMap<&'static str, u64> {
        let mut found = BTreeMap::new();
        for (_, data) in self.entries.range(..=last).map(|(_, entry)| entry).filter(|(kind, _)| *kind == 0) {
            topics_of(data).into_iter().for_each(|topic| *found.entry(topic).or_default() += 1);
        }
        found
    }
}

/// The topics of a request to a key; none of any other entry.
fn topics_of(data: &[u8]) -> Vec<&'static str> {
    let mut numbers = BTreeMap::new();
    let mut texts = BTreeMap::new();
    if data.is_empty() || bytes_of_or_none(data, 2).is_none() {
        return Vec::new();
    }
    for (field, value) in fields(data) {
        match value {
            Field::Number(number) => drop(numbers.insert(field, number)),
            Field::Bytes(bytes) => drop(texts.insert(field, bytes)),
        }
    }
    let number = |field| numbers.get(&field).copied().unwrap_or(0);
    let text = |field| texts.get(&field).copied().unwrap_or_default();
    let (method, path) = (text(2), text(3));
    if !(path.starts_with(b"/1/") || path == b"/1") {
        return Vec::new();
    }
    let exist = numbers.get(&8).map(|exist| *exist != 0);
    let (dir, recursive, expires) = (number(5) != 0, number(12) != 0, number(9) != 0);
    let compares = number(7) > 0 || !text(6).is_empty();
    match method {
        b"POST" => [
            ("in-order-key", true),
            ("create-directory", dir),
            ("ttl-key", expires && !dir),
            ("ttl-directory", expires && dir),
        ]
        .into_iter()
        .filter_map(|(topic, applies)| applies.then_some(topic))
        .collect(),
        b"PUT" => {
            let swaps = compares && exist != Some(false);
            let all = [
                ("create-directory", dir && exist != Some(true)),
                ("compare-and-swap", swaps),
                ("compare-index", swaps && number(7) > 0),
                ("create-only", exist == Some(false)),
                ("update-only", exist == Some(true)),
                ("ttl-key", expires && !dir),
                ("ttl-directory", expires && dir),
                ("refresh", number(17) != 0),
            ];
            all.into_iter().filter_map(|(topic, applies)| applies.then_some(topic)).collect()
        }
        b"DELETE" if compares && number(7) > 0 => vec!["compare-and-delete", "compare-index"],
        b"DELETE" if compares => vec!["compare-and-delete"],
        b"DELETE" if recursive => vec!["recursive-delete"],
        b"DELETE" if dir => vec!["directory-delete"],
        b"QGET" if number(13) != 0 => vec!["quorum-read", "sorted-read"],
        b"QGET" => vec!["quorum-read"],
        _ => Vec::new(),
    }
}

/// The method of a bare v2 request; v3 requests have a message in this field, or none.
fn bytes_of_or_none(data: &[u8], field: u64) -> Option<&[u8]> {
    const METHODS: [&[u8]; 5] = [b"POST", b"PUT", b"DELETE", b"QGET", b"SYNC"];
    // A v3 request begins with its header, a message in field 100.
    let starts_as_v2 = data.first() == Some(&0x08);
    starts_as_v2.then(|| bytes_of(data, field)).flatten().filter(|word| METHODS.contains(word))
}

/// Topics whose requests the other reader counts.
const COUNTED: [&str; 14] = [
    "in-order-key",
    "create-directory",
    "recursive-delete",
    "directory-delete",
    "compare-and-swap",
    "compare-and-delete",
    "compare-index",
    "create-only",
    "update-only",
    "ttl-key",
    "ttl-directory",
    "refresh",
    "quorum-read",
    "sorted-read",
];

fn compare_log(name: &str, advice: &Value, log: &Log, wrong: &mut Vec<String>) -> u64 {
    let last = advice["basis"]["last_entry"].as_u64().unwrap_or(0);
    if last < log.commit {
        wrong.push(format!("{name}: read up to entry {last}, the commit index is {}", log.commit));
    }
    let expected = log.requests(last);
    for topic in COUNTED {
        let (found, expected) = (number(advice, topic, "requests"), expected.get(topic).copied().unwrap_or(0));
        if found != expected {
            wrong.push(format!("{name}: {topic}: expected {expected} requests, found {found}"));
        }
    }
    expected.values().sum()
}

/// What the nodes that a server showed say of each topic.
fn of_nodes(nodes: &[Node]) -> BTreeMap<&'static str, u64> {
    let parents: BTreeSet<&str> =
        nodes.iter().filter_map(|node| node.key.rsplit_once('/')).map(|(dir, _)| dir).collect();
    let mut found = BTreeMap::new();
    for node in nodes {
        let name = node.key.rsplit('/').next().unwrap();
        let is_post = name.bytes().all(|byte| byte.is_ascii_digit()) && name.parse() == Ok(node.created_index);
        let has_ttl = node.expiration.is_some();
        let is_empty = !parents.contains(node.key.as_str());
        for (topic, applies) in [
            ("directory", node.dir && !is_empty),
            ("empty-directory", node.dir && is_empty),
            ("hidden-key", !node.dir && node.key.contains("/_")),
            ("in-order-key", is_post),
            ("empty-value", !node.dir && node.value.as_deref() == Some("")),
            ("ttl-key", !node.dir && has_ttl),
            ("ttl-directory", node.dir && has_ttl),
        ] {
            *found.entry(topic).or_default() += u64::from(applies);
        }
    }
    found
}

#[test]
fn every_directory_names_what_its_workload_used() {
    let Some(scenarios) = corpus::all(test_name!()) else { return };
    let mut wrong = Vec::new();
    let (mut directories, mut requests, mut words) = (0, 0, 0);
    for scenario in &scenarios {
        let raw = read_json(&scenario.dir.join("truth.json"));
        for (dir, facts) in &scenario.truth.data_dirs {
            let name = format!("{}/{dir}", scenario.name);
            let path = scenario.data_dir(dir);
            let wal = facts.wal_dir.as_ref().map(|wal| scenario.data_dir(wal));
            let wal_dir = wal.as_ref().map(|wal| vec!["--wal-dir", wal.to_str().unwrap()]).unwrap_or_default();
            let advice = advise(&[&path], &[&wal_dir[..], &["--json"]].concat()).success().json();
            let log = Log::read(&wal.unwrap_or_else(|| path.join("member/wal")));
            requests += compare_log(&name, &advice, &log, &mut wrong);
            directories += 1;
            if facts.is_removed() {
                continue;
            }
            for (topic, expected) in of_nodes(scenario.truth.nodes_of(dir)) {
                let found = number(&advice, topic, "count");
                if found != expected {
                    wrong.push(format!("{name}: {topic}: expected a count of {expected}, found {found}"));
                }
            }
            let whole = advice["basis"]["first_entry"] == 1;
            for (word, topics) in WORKLOAD.iter().filter(|_| whole) {
                let used = raw["workload"][word]
                    .as_object()
                    .is_some_and(|statuses| statuses.contains_key("200") || statuses.contains_key("201"));
                for topic in topics.iter().filter(|_| used) {
                    words += 1;
                    if super::finding(&advice, topic).is_none() {
                        wrong.push(format!("{name}: the workload has {word}, and {topic} is not found"));
                    }
                }
            }
        }
    }
    all_well(&wrong);
    assert!(directories >= corpus::at_least(48, 10), "{directories} directories");
    assert!(requests >= corpus::at_least(5000, 500) as u64 && words >= corpus::at_least(500, 50), "{requests} {words}");
}

#[test]
fn users_and_roles_are_those_of_the_server() {
    let Some(scenarios) = corpus::of_kinds(test_name!(), &["d"]) else { return };
    for scenario in &scenarios {
        let auth = scenario.truth.auth.as_ref().unwrap();
        let advice = advise(&[&scenario.data_dir("m0.etcd")], &["--json"]).success().json();
        assert_eq!(number(&advice, "user", "count"), auth.users.len() as u64, "{}", scenario.name);
        let patterns = |role: &Value| -> BTreeSet<String> {
            let kv = &role["permissions"]["kv"];
            let lists = [&kv["read"], &kv["write"]].into_iter().filter_map(Value::as_array);
            lists.flatten().map(|pattern| pattern.as_str().unwrap().to_string()).collect()
        };
        let stored = auth.roles.iter().filter(|(name, _)| *name != "root");
        let wildcards: u64 =
            stored.map(|(_, role)| patterns(role).iter().filter(|pattern| pattern.ends_with('*')).count() as u64).sum();
        assert_eq!(number(&advice, "wildcard-permission", "count"), wildcards, "{}", scenario.name);
        let guest = auth.roles.get("guest").map_or(0, |role| patterns(role).len() as u64);
        assert!(auth.enabled && guest > 0, "{}", scenario.name);
        assert_eq!(number(&advice, "guest-access", "count"), guest, "{}", scenario.name);
    }
}

#[test]
fn members_of_a_cluster_show_its_state() {
    let Some(scenarios) = corpus::of_kinds(test_name!(), &["e", "f"]) else { return };
    for scenario in &scenarios {
        let members: Vec<PathBuf> = scenario.live().into_iter().map(|name| scenario.data_dir(name)).collect();
        let members: Vec<&Path> = members.iter().map(PathBuf::as_path).collect();
        let advice = advise(&members, &["--json"]).success().json();
        for (topic, expected) in of_nodes(&scenario.truth.nodes) {
            assert_eq!(number(&advice, topic, "count"), expected, "{}: {topic}", scenario.name);
        }
    }
}

#[test]
fn directories_of_single_rules_end_like_inspect() {
    let Some(folders) = corpus::runs(test_name!()) else { return };
    let mut wrong = Vec::new();
    let (mut ended, mut compared) = (0, 0);
    for folder in &folders {
        let truth = read_json(&folder.join("truth.json"));
        for (dir, facts) in truth["data_dirs"].as_object().unwrap() {
            let path = folder.join(dir);
            let name = format!("{}/{dir}", folder.file_name().unwrap().to_str().unwrap());
            let inspected = etcdlift(["inspect".as_ref(), path.as_os_str()]);
            let output = advise(&[&path], &["--json"]);
            if (output.status, &output.stderr) != (inspected.status, &inspected.stderr) {
                wrong.push(format!("{name}: {}\nbut {}", output.story(), inspected.story()));
            }
            ended += 1;
            // Damage is in the log of a copy only. Received snapshots replace entries, which the other reader does not know.
            let is_plain = facts["damage"].is_null() && !folder.to_str().unwrap().contains("-q7");
            if output.status == 0 && is_plain {
                compare_log(&name, &output.json(), &Log::read(&path.join("member/wal")), &mut wrong);
                compared += 1;
            }
        }
    }
    all_well(&wrong);
    assert!(
        ended >= corpus::at_least(40, 13) && compared >= corpus::at_least(15, 8),
        "{ended} ended, {compared} compared"
    );
}

#[test]
fn directories_with_v2_and_v3_data_name_their_v2_side() {
    let (mut wrong, mut compared, mut requests) = (Vec::new(), 0, 0);
    for name in corpus::MIXED {
        let Some(folder) = corpus::mixed(test_name!(), name) else { return };
        let truth = read_json(&folder.join("truth.json"));
        for (dir, facts) in truth["data_dirs"].as_object().unwrap() {
            let name = format!("{name}/{dir}");
            let wal = facts["wal_dir"].as_str().map(|wal| folder.join(wal));
            let wal_dir = wal.as_ref().map(|wal| vec!["--wal-dir", wal.to_str().unwrap()]).unwrap_or_default();
            let path = folder.join(dir);
            let advice = advise(&[&path], &[&wal_dir[..], &["--json"]].concat()).success().json();
            let log = Log::read(&wal.unwrap_or_else(|| path.join("member/wal")));
            requests += compare_log(&name, &advice, &log, &mut wrong);
            let nodes = if facts["v2_nodes"].is_null() { &truth["v2"]["nodes"] } else { &facts["v2_nodes"] };
            let nodes: Vec<Node> = serde_json::from_value(nodes.clone()).unwrap();
            for (topic, expected) in of_nodes(&nodes) {
                let found = number(&advice, topic, "count");
                if found != expected {
                    wrong.push(format!("{name}: {topic}: expected a count of {expected}, found {found}"));
                }
            }
            compared += 1;
        }
    }
    all_well(&wrong);
    assert!(compared >= 20 && requests >= 500, "{compared} directories, {requests} requests");
}
