//! What a running cluster says, against what it should: members, leader, keys, leases, hashes, users.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::Made;
use crate::common::cluster::Cluster;
use crate::common::corpus::Scenario;
use crate::common::http;
use crate::common::peers::Version;
use crate::common::rows::{self, Row, differences};
use crate::common::run::all_well;

/// How long a member may take to have what the others have.
const SECONDS: u64 = 30;

/// What every member should hold.
#[derive(Clone, Debug)]
pub(super) struct Content {
    pub(super) rows: Vec<Row>,
    pub(super) revision: u64,
    /// The seconds of each lease, by ID.
    pub(super) leases: BTreeMap<i64, i64>,
}

impl Content {
    /// What a directory of the corpus gives.
    pub(super) fn of(scenario: &Scenario, data_dir: &str) -> Self {
        Self {
            rows: rows::expected(scenario, data_dir),
            revision: scenario.truth.etcd_index_of(data_dir),
            leases: (1..).zip(rows::lease_lengths(scenario, data_dir)).collect(),
        }
    }
}

/// Repeats a question until the answer is right, and shows the last answer if it never is.
pub(super) fn until<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + Duration::from_secs(SECONDS);
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(wrong) => assert!(Instant::now() < deadline, "{what}: {wrong}"),
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// The member list is that of the report, with the client URLs that the servers announced, and so is the ID of the cluster.
pub(super) fn members(cluster: &Cluster, made: &Made, learners: &[&str]) {
    let mut expected: Vec<Value> = Vec::new();
    for seat in &made.seats {
        expected.push(json!({
            "name": seat.name, "id": made.id(&seat.name), "peer": [seat.peer_url()], "client": [seat.client_url()],
            "learner": learners.contains(&seat.name.as_str()),
        }));
    }
    until("member list", || {
        let answer = cluster.ctl(0).json(&["member", "list"]);
        assert_eq!(hex(&answer["header"]["cluster_id"]), made.cluster_id());
        let found = listed(&answer);
        if found == expected { Ok(()) } else { Err(format!("{found:?} is not {expected:?}")) }
    });
}

/// The members by name, in the form of [`members`].
pub(super) fn listed(answer: &Value) -> Vec<Value> {
    let member = |member: &Value| {
        json!({
            "name": member["name"], "id": hex(&member["ID"]), "peer": member["peerURLs"], "client": member["clientURLs"],
            "learner": member["isLearner"] == true,
        })
    };
    let mut found: Vec<Value> = answer["members"].as_array().unwrap().iter().map(member).collect();
    found.sort_by_key(|member| member["name"].as_str().map(String::from));
    found
}

pub(super) fn hex(id: &Value) -> String {
    format!("{:x}", id.as_u64().unwrap())
}

/// All members that run follow one of them, and none reports an error.
pub(super) fn leader(cluster: &Cluster) {
    until("leader", || {
        let answers: Vec<Value> = cluster.running().map(|at| cluster.ctl(at).status()).collect();
        let leaders: BTreeSet<Option<u64>> = answers.iter().map(|status| status["leader"].as_u64()).collect();
        let errors = answers.iter().any(|status| status["errors"].as_array().is_some_and(|errors| !errors.is_empty()));
        let leads = |status: &Value| leaders.contains(&status["header"]["member_id"].as_u64());
        let right = leaders.len() == 1 && answers.iter().any(leads) && !errors;
        if right { Ok(()) } else { Err(format!("{answers:?}")) }
    });
}

/// The cluster runs with the features of its release, and the database has the schema of it.
pub(super) fn versions(cluster: &Cluster, version: Version) {
    let expected = format!("{version}.0");
    until("cluster version", || {
        let address = cluster.members[0].seat.client;
        let answer: Value = serde_json::from_slice(&http::get(address, "/version").unwrap().body).unwrap();
        if answer["etcdcluster"] == expected.as_str() { Ok(()) } else { Err(answer.to_string()) }
    });
    if matches!(version, Version::V3_6 | Version::V3_7) {
        until("storage version", || {
            let status = cluster.ctl(0).status();
            if status["storageVersion"] == expected.as_str() { Ok(()) } else { Err(status.to_string()) }
        });
    }
}

/// Every member has these keys and this revision, and the leader these leases.
pub(super) fn content(cluster: &Cluster, content: &Content) {
    for at in 0..cluster.members.len() {
        has_rows(cluster, at, content);
    }
    leases(cluster, content);
}

/// One member has these keys and this revision, by its own account.
pub(super) fn has_rows(cluster: &Cluster, at: usize, content: &Content) {
    let name = &cluster.members[at].seat.name;
    let rows = until(name, || {
        let (rows, revision) = cluster.ctl(at).own();
        let expected = content.revision;
        if revision == expected { Ok(rows) } else { Err(format!("revision {revision} is not {expected}")) }
    });
    all_well(&differences(&content.rows, &rows));
}

fn leases(cluster: &Cluster, content: &Content) {
    let address = cluster.members[0].seat.client;
    let token = cluster.user().and_then(|user| user.split_once(':'));
    let token = token.map(|(name, password)| authenticate(address, name, password).unwrap());
    let ask = |target: &str, body: Value| -> Value {
        let response = http::post(address, target, token.as_deref(), &body.to_string()).unwrap();
        assert_eq!(response.status, 200, "{target} {body}: {}", String::from_utf8_lossy(&response.body));
        serde_json::from_slice(&response.body).unwrap()
    };
    let number = |value: &Value| value.as_str().unwrap().parse::<i64>().unwrap();
    let listed = ask("/v3/lease/leases", json!({}));
    let listed = listed["leases"].as_array().into_iter().flatten().map(|lease| number(&lease["ID"]));
    let expected: BTreeSet<i64> = content.leases.keys().copied().collect();
    assert_eq!(listed.collect::<BTreeSet<i64>>(), expected);
    for (id, seconds) in &content.leases {
        let answer = ask("/v3/lease/timetolive", json!({"ID": id.to_string(), "keys": true}));
        let left = number(&answer["TTL"]);
        assert!(number(&answer["grantedTTL"]) == *seconds && (1..=*seconds).contains(&left), "lease {id}: {answer}");
        let keys = answer["keys"].as_array().into_iter().flatten();
        let keys: BTreeSet<Vec<u8>> = keys.map(|key| STANDARD.decode(key.as_str().unwrap()).unwrap()).collect();
        let rows = content.rows.iter().filter(|row| row.lease == *id);
        assert_eq!(keys, rows.map(|row| row.key.clone()).collect(), "lease {id}");
    }
}

/// The consistency hash, which all members agree on at the same revision.
pub(super) fn hash_kv(cluster: &Cluster) -> u64 {
    let hashes = until("hash", || {
        let answer = cluster.ctl(0).json(&["endpoint", "hashkv", "--cluster"]);
        let answers = answer.as_array().unwrap();
        let revisions: BTreeSet<u64> =
            answers.iter().map(|one| one["HashKV"]["header"]["revision"].as_u64().unwrap()).collect();
        let same = answers.len() == cluster.members.len() && revisions.len() == 1;
        if same { Ok(answers.clone()) } else { Err(answer.to_string()) }
    });
    let found: BTreeSet<u64> = hashes.iter().map(|one| one["HashKV"]["hash"].as_u64().unwrap()).collect();
    assert_eq!(found.len(), 1, "{hashes:?}");
    *found.first().unwrap()
}

/// Every user logs in at these members with the password of v2, and at the first of them with no other.
pub(super) fn users(cluster: &Cluster, members: Range<usize>, passwords: &BTreeMap<String, String>) {
    for at in members.clone() {
        for (name, password) in passwords {
            let log_in = |password: &str| authenticate(cluster.members[at].seat.client, name, password).is_some();
            assert!(log_in(password), "{name} cannot log in at {}", cluster.members[at].seat.name);
            assert!(at > members.start || !log_in(&format!("{password}x")), "{name} logs in with any password");
        }
    }
}

fn authenticate(address: SocketAddr, name: &str, password: &str) -> Option<String> {
    let body = json!({"name": name, "password": password}).to_string();
    let response = http::post(address, "/v3/auth/authenticate", None, &body).unwrap();
    let answer: Value = serde_json::from_slice(&response.body).unwrap();
    answer["token"].as_str().map(String::from)
}

/// No member has raised an alarm.
pub(super) fn no_alarm(cluster: &Cluster) {
    let answer = cluster.ctl(0).json(&["alarm", "list"]);
    assert!(answer["alarms"].as_array().is_none_or(Vec::is_empty), "{answer}");
}
