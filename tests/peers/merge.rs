//! `--existing merge`: v3 data that the source held already stay as they were, to the byte on disk and to the revision
//! on a real server, and the v2 keys follow above them.
//!
//! The directories are the corpus's with v2 and v3 data (scenarios i and x), and some that a real etcd 3.4 writes here.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::common::convert::{Converted, convert_to};
use crate::common::corpus::{self, Scenario};
use crate::common::dump::Dump;
use crate::common::etcdctl::Etcdctl;
use crate::common::http;
use crate::common::peers::{self, Peers, Version};
use crate::common::ports::free_address;
use crate::common::rows::{self, Row, differences};
use crate::common::run::{all_well, etcdlift};
use crate::common::scratch::{self, copy_tree};
use crate::common::server::{Boot, Server};
use crate::test_name;

/// Converts a directory of a scenario.
fn merge(scenario: &Scenario, folder: &Path, source: &Path, options: &[&str]) -> Converted {
    let as_of = ["--as-of", &scenario.truth.captured_at, "--existing", "merge"];
    convert_to(source, folder, [&as_of[..], options].concat())
}

fn refused(converted: &Converted, reason: &str, words: &[&str]) -> Value {
    let story = converted.output.story();
    let status = if reason == "gap" { 3 } else { 5 };
    let errors = converted.output.stderr.lines().filter(|line| !line.starts_with("hint: ")).count();
    assert_eq!((converted.output.status, errors), (status, 1), "{story}");
    assert!(words.iter().all(|word| converted.output.stderr.contains(word)), "{words:?}: {story}");
    assert!(!converted.snapshot.exists(), "{story}");
    let report = converted.report();
    assert_eq!(report["reason"], reason, "{story}");
    report
}

fn scenarios(test: &str) -> Option<(Peers, Vec<std::sync::Arc<Scenario>>)> {
    Some((peers::require(test)?, corpus::of_kinds(test, &["i"])?))
}

/// What the v2 tree gives, in the order of v2.
fn from_v2(scenario: &Scenario) -> Vec<Row> {
    let mut rows = rows::expected(scenario, "m0.etcd");
    rows.sort_by(|a, b| (a.modified, &a.key).cmp(&(b.modified, &b.key)));
    rows
}

/// The live keys of a database: each with its last change.
fn live(dump: &Dump) -> BTreeMap<Vec<u8>, Row> {
    let mut live = BTreeMap::new();
    for pair in &dump.keys {
        if pair.tombstone {
            live.remove(&pair.row.key);
        } else {
            live.insert(pair.row.key.clone(), pair.row.clone());
        }
    }
    live
}

/// The output has every pair of the source's database unchanged, and then the v2 keys, one revision each.
#[test]
fn v3_data_is_preserved_to_the_byte_and_v2_follows() {
    let Some((peers, scenarios)) = scenarios(test_name!()) else { return };
    for scenario in scenarios {
        let source = scenario.data_dir("m0.etcd");
        let before = Dump::of(&peers, &source.join("member/snap/db"));
        let had = live(&before);
        let last = before.keys.last().unwrap().main;
        for policy in ["keep-v3", "take-v2"] {
            let temp = scratch::temp();
            let ledger = temp.path().join("ledger");
            let options = ["--on-conflict", policy, "--ledger", ledger.to_str().unwrap()];
            let converted = merge(&scenario, temp.path(), &source, &options);
            assert_eq!(converted.output.status, 0, "{}", converted.output.story());
            let after = Dump::of(&peers, &converted.snapshot);
            let (kept, new) = after.keys.split_at(before.keys.len());
            let shown = |dump: &[crate::common::dump::Pair]| format!("{dump:?}");
            assert!(shown(kept) == shown(&before.keys), "{} {policy}: history", scenario.name);
            for bucket in ["lease", "auth", "authUsers", "authRoles"] {
                let there = before.others.iter().filter(|pair| pair.bucket == bucket);
                for pair in there {
                    assert_eq!(after.other(bucket, &pair.key), Some(&pair.value[..]), "{bucket} {:?}", pair.key);
                }
            }
            for mark in [&b"scheduledCompactRev"[..], b"finishedCompactRev"] {
                assert_eq!(after.other("meta", mark), before.other("meta", mark));
            }
            let mut expected = from_v2(&scenario);
            let both = expected.iter().filter(|row| had.contains_key(&row.key)).count();
            assert!(both > 0, "no key is in both");
            if policy == "keep-v3" {
                expected.retain(|row| !had.contains_key(&row.key));
            }
            let leases: BTreeMap<i64, i64> = leases_by_id(&expected, &scenario);
            for (row, revision) in expected.iter_mut().zip(last + 1..) {
                let old = had.get(&row.key);
                row.modified = revision;
                row.create = old.map_or(revision, |old| old.create);
                row.version = old.map_or(1, |old| old.version + 1);
                row.lease = leases.get(&row.lease).copied().unwrap_or(0);
            }
            let found: Vec<Row> = new.iter().map(|pair| pair.row.clone()).collect();
            all_well(&differences(&expected, &found));
            assert!(new.iter().all(|pair| !pair.tombstone && pair.sub == 0 && pair.main == pair.row.modified));

            let report = converted.report();
            let existing = &report["existing"];
            assert_eq!(existing["conflicts"].as_array().unwrap().len(), both);
            assert_eq!((&existing["changes"], &existing["revision"]), (&before.keys.len().into(), &last.into()));
            let text = fs::read_to_string(&ledger).unwrap();
            let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let kept = lines.iter().filter(|line| line["reason"] == "kept-v3").count();
            assert_eq!(kept, if policy == "keep-v3" { both } else { 0 });
            assert_eq!(lines.iter().filter(|line| line.get("revision").is_some()).count(), expected.len());
            let (out, made) = (converted.snapshot.to_str().unwrap(), converted.report.to_str().unwrap());
            etcdlift(["verify", out, "--report", made, "--source", source.to_str().unwrap()]).success();
            peers.check(&converted.snapshot).success();
            for version in Version::WITH_ETCDUTL {
                peers.status(version, &converted.snapshot).success();
            }
        }
    }
}

/// Leases that no key is left of are not written, so the others have lower ids than where nothing is left out.
fn leases_by_id(rows: &[Row], scenario: &Scenario) -> BTreeMap<i64, i64> {
    let used: std::collections::BTreeSet<i64> = rows.iter().map(|row| row.lease).filter(|id| *id > 0).collect();
    assert!(used.len() <= rows::lease_lengths(scenario, "m0.etcd").len());
    used.into_iter().zip(1..).collect()
}

#[test]
fn keys_in_both_are_refused_unless_told_and_all_are_named() {
    let Some((_, scenarios)) = scenarios(test_name!()) else { return };
    for scenario in scenarios {
        let temp = scratch::temp();
        let converted = merge(&scenario, temp.path(), &scenario.data_dir("m0.etcd"), &[]);
        let report = refused(&converted, "conflict", &["in v2 and in v3", "--on-conflict keep-v3"]);
        let named: Vec<&str> =
            report["existing"]["conflicts"].as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect();
        assert!(named.len() > 1 && named.iter().all(|key| converted.output.stderr.contains(key)), "{named:?}");
        // With other names for those of v2 there is nothing to decide.
        let folder = temp.path().join("renamed");
        let renamed =
            merge(&scenario, &folder, &scenario.data_dir("m0.etcd"), &["--map", "/=/v2/", "--auth", "ignore"]);
        assert_eq!(renamed.output.status, 0, "{}", renamed.output.story());
        assert_eq!(renamed.report()["existing"].get("conflicts"), None);
    }
}

#[test]
fn the_bytes_depend_on_nothing_but_the_source() {
    let Some(scenario) = corpus::scenario(test_name!(), "v3.4.23-i") else { return };
    let source = scenario.data_dir("m0.etcd");
    let bytes = |options: &[&str]| {
        let temp = scratch::temp();
        let converted = merge(&scenario, temp.path(), &source, &[&["--on-conflict", "take-v2"], options].concat());
        assert_eq!(converted.output.status, 0, "{}", converted.output.story());
        fs::read(&converted.snapshot).unwrap()
    };
    let one = bytes(&["--jobs", "1"]);
    assert!(one == bytes(&["--jobs", "2"]) && one == bytes(&["--jobs", "8"]));
    assert!(one == bytes(&["--transformer", "cat", "--transformer-protocol", "json-lines", "--auth", "ignore"]));
}

/// A backend that came with a snapshot from the leader takes the place of an older `db`.
#[test]
fn the_backend_that_came_with_the_snapshot_is_found() {
    let (Some(scenario), Some(other)) =
        (corpus::scenario(test_name!(), "v3.4.23-i"), corpus::scenario(test_name!(), "v3.4.23-x"))
    else {
        return;
    };
    let temp = scratch::temp();
    let copy = temp.path().join("copy");
    copy_tree(&scenario.data_dir("m0.etcd"), &copy);
    let snap = copy.join("member/snap");
    let newest = crate::common::v2files::newest_snapshot(&copy).unwrap();
    fs::rename(snap.join("db"), snap.join(format!("{:016x}.snap.db", newest.index))).unwrap();
    fs::copy(other.data_dir("m0.etcd").join("member/snap/db"), snap.join("db")).unwrap();
    let options = ["--on-conflict", "keep-v3"];
    let converted = merge(&scenario, &temp.path().join("a"), &copy, &options);
    assert_eq!(converted.output.status, 0, "{}", converted.output.story());
    let plain = merge(&scenario, &temp.path().join("b"), &scenario.data_dir("m0.etcd"), &options);
    assert!(fs::read(&converted.snapshot).unwrap() == fs::read(&plain.snapshot).unwrap());
    assert!(converted.report()["existing"]["path"].as_str().unwrap().ends_with(".snap.db"));
}

/// One that is behind the snapshot, with a hole in the log between them, may lack v3 writes that nobody can name.
#[test]
fn a_backend_before_a_hole_is_refused() {
    let Some(scenario) = corpus::scenario(test_name!(), "v3.4.23-i") else { return };
    let Some(other) = corpus::scenario(test_name!(), "v3.4.23-x") else { return };
    let temp = scratch::temp();
    let copy = temp.path().join("copy");
    copy_tree(&scenario.data_dir("m0.etcd"), &copy);
    fs::copy(other.data_dir("m0.etcd").join("member/snap/db"), copy.join("member/snap/db")).unwrap();
    let converted = merge(&scenario, &temp.path().join("a"), &copy, &["--wal-dir", "none"]);
    refused(&converted, "gap", &["the v3 backend is at raft index", "is missing"]);
    // The log has the entries between them, and they are named.
    let converted = merge(&scenario, &temp.path().join("b"), &copy, &[]);
    refused(&converted, "v3-late", &["v3 write"]);
}

#[test]
fn a_backend_ahead_of_the_v2_state_is_refused() {
    let Some(scenario) = corpus::scenario(test_name!(), "v3.4.23-i") else { return };
    let temp = scratch::temp();
    let options = ["--up-to-index", "605", "--on-conflict", "keep-v3"];
    let converted = merge(&scenario, temp.path(), &scenario.data_dir("m0.etcd"), &options);
    refused(&converted, "index-not-reached", &["is at raft index 606, the v2 keys are at 605"]);
}

/// The unapplied v3 entries are named, and the cure that is named with them works.
#[test]
fn v3_writes_that_stand_in_the_log_alone_refuse_a_merge_until_that_etcd_has_run_once() {
    let Some(scenarios) = corpus::of_kinds(test_name!(), &["x"]) else { return };
    let Some(peers) = peers::require(test_name!()) else { return };
    for scenario in scenarios {
        let source = scenario.data_dir("m0.etcd");
        let temp = scratch::temp();
        let converted = merge(&scenario, &temp.path().join("a"), &source, &[]);
        let words = ["committed but not applied to the v3 backend", "start that etcd once and stop it cleanly"];
        let report = refused(&converted, "v3-late", &words);
        let truth: Value = serde_json::from_slice(&fs::read(scenario.dir.join("truth.json")).unwrap()).unwrap();
        let text = |value: &Value| String::from_utf8(base64(value.as_str().unwrap())).unwrap();
        let before = live(&Dump::of(&peers, &source.join("member/snap/db")));
        let served: BTreeMap<String, i64> = truth["v3"]["kvs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|kv| (text(&kv["key"]), kv["mod_revision"].as_i64().unwrap()))
            .collect();
        let stale = served
            .iter()
            .filter(|(key, revision)| before.get(key.as_bytes()).is_none_or(|row| row.modified != **revision));
        let gone =
            before.keys().map(|key| String::from_utf8(key.clone()).unwrap()).filter(|key| !served.contains_key(key));
        let late: Vec<String> = stale.map(|(key, _)| key.clone()).chain(gone).collect();
        assert!(late.len() > 5, "{late:?}");
        let named: Vec<&str> = report["existing"]["late_writes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|write| write["name"].as_str().unwrap_or_default())
            .collect();
        for key in &late {
            assert!(named.contains(&key.as_str()) && converted.output.stderr.contains(key), "{key}: {named:?}");
        }

        let copy = temp.path().join("copy");
        copy_tree(&source, &copy);
        let version = if scenario.version()[1] == 5 { Version::V3_5 } else { Version::V3_4 };
        Server::start(&Boot { enable_v2: true, ..Boot::new(&peers, version, &copy) }).stop();
        let converted = merge(&scenario, &temp.path().join("b"), &copy, &[]);
        assert_eq!(converted.output.status, 0, "{}", converted.output.story());
        let found = live(&Dump::of(&peers, &converted.snapshot));
        for (key, revision) in &served {
            assert_eq!(found[key.as_bytes()].modified, *revision, "{key}");
        }
        // What has a TTL may have run out in the meantime.
        let mut v2 = rows::expected(&scenario, "m0.etcd");
        v2.retain(|row| row.lease == 0);
        assert!(v2.iter().all(|row| found.get(&row.key).is_some_and(|other| other.value == row.value)));
        assert!(found.len() >= served.len() + v2.len());
    }
}

fn base64(text: &str) -> Vec<u8> {
    use ::base64::Engine;
    ::base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

/// The full listing at every revision that v3 had, before and after; and what a server goes on with.
#[test]
fn a_real_server_lists_the_same_history_before_and_after() {
    let Some((peers, scenarios)) = scenarios(test_name!()) else { return };
    for scenario in scenarios {
        let source = scenario.data_dir("m0.etcd");
        let of_source = if scenario.version()[1] == 5 { Version::V3_5 } else { Version::V3_4 };
        let temp = scratch::temp();
        let copy = temp.path().join("copy");
        copy_tree(&source, &copy);
        let server = Server::start(&Boot { enable_v2: true, ..Boot::new(&peers, of_source, &copy) });
        let (before, leases, last) = {
            let ctl = Etcdctl::new(&peers, &server);
            let (_, last) = ctl.all();
            (history(&ctl, last), leases(&ctl), last)
        };
        server.stop();
        assert!(before.iter().any(Option::is_some) && !leases.is_empty());

        let converted = merge(&scenario, &temp.path().join("out"), &source, &["--on-conflict", "take-v2"]);
        assert_eq!(converted.output.status, 0, "{}", converted.output.story());
        let report = converted.report();
        let found = live(&Dump::of(&peers, &converted.snapshot));
        for version in [Version::V3_4, Version::V3_7] {
            let data_dir = temp.path().join(format!("restored-{version}"));
            peers.restore(version, &converted.snapshot, &data_dir).success();
            let server = Server::start(&Boot::new(&peers, version, &data_dir));
            let ctl = Etcdctl::new(&peers, &server);
            let (rows, revision) = ctl.all();
            assert_eq!(revision, report["output"]["revision"].as_u64().unwrap(), "etcd {version}");
            assert_eq!(ctl.hash_kv(), report["output"]["hash_kv"].as_u64().unwrap(), "etcd {version}");
            all_well(&differences(&found.values().cloned().collect::<Vec<_>>(), &rows));
            let after = history(&ctl, last);
            for (revision, (before, after)) in (1..).zip(before.iter().zip(&after)) {
                assert_eq!(before, after, "etcd {version}, revision {revision}");
            }
            let now = self::leases(&ctl);
            for (id, keys) in &leases {
                assert_eq!(now.get(id), Some(keys), "etcd {version}, lease {id:x}");
            }
            let next = ctl.put("/merged/put", "x");
            assert_eq!(next, revision + 1);
            ctl.compaction(next);
            ctl.defrag();
            drop(ctl);
            server.stop();
            let server = Server::start(&Boot::new(&peers, version, &data_dir));
            let (again, _) = Etcdctl::new(&peers, &server).all();
            assert_eq!(again.len(), rows.len() + 1, "etcd {version}");
        }
    }
}

/// All keys at each revision from 1 to `last`.
fn history(ctl: &Etcdctl, last: u64) -> Vec<Option<Vec<Row>>> {
    (1..=last).map(|revision| ctl.all_at(revision)).collect()
}

/// The keys of each lease that an earlier server granted: ids that it drew, not those that a conversion counts from 1.
fn leases(ctl: &Etcdctl) -> BTreeMap<i64, Vec<Vec<u8>>> {
    let (rows, _) = ctl.all();
    let ids: std::collections::BTreeSet<i64> =
        rows.iter().map(|row| row.lease).filter(|id| *id > i64::from(u32::MAX)).collect();
    ids.into_iter().map(|id| (id, ctl.time_to_live(id).2)).collect()
}

/// Users and roles of both sides, and a user root that both have with passwords of their own.
#[test]
fn users_of_both_can_log_in_afterwards() {
    let Some(peers) = peers::require(test_name!()) else { return };
    let temp = scratch::temp();
    let source = temp.path().join("source");
    let server = Server::start(&Boot { enable_v2: true, ..Boot::new(&peers, Version::V3_4, &source) });
    let put = |path: &str, body: Value| {
        let response = http::put(server.client_address(), path, &body.to_string()).unwrap();
        assert!(response.status < 300, "{path}: {}", String::from_utf8_lossy(&response.body));
    };
    http::put_form(server.client_address(), "/v2/keys/old/a", "value=1").unwrap();
    put("/v2/auth/users/root", json!({"user": "root", "password": "root-of-v2"}));
    put("/v2/auth/roles/reader", json!({"role": "reader", "permissions": {"kv": {"read": ["/old/*"], "write": []}}}));
    put("/v2/auth/users/anna", json!({"user": "anna", "password": "anna-of-v2", "roles": ["reader"]}));
    let ctl = Etcdctl::new(&peers, &server);
    ctl.put("/new/b", "2");
    ctl.add_user("root", "root-of-v3");
    ctl.does(&["user", "grant-role", "root", "root"]);
    ctl.add_user("bert", "bert-of-v3");
    ctl.does(&["role", "add", "writer"]);
    ctl.does(&["role", "grant-permission", "--prefix=true", "writer", "readwrite", "/new/"]);
    ctl.does(&["user", "grant-role", "bert", "writer"]);
    ctl.does(&["auth", "enable"]);
    drop(ctl);
    server.stop();

    let convert = |name: &str, options: &[&str]| {
        convert_to(&source, &temp.path().join(name), [&["--existing", "merge"], options].concat())
    };
    let report = refused(&convert("refused", &[]), "conflict", &["user root", "--on-conflict keep-v3"]);
    assert_eq!(report["existing"]["auth_conflicts"], json!(["user root"]));
    for (policy, root) in [("keep-v3", "root-of-v3"), ("take-v2", "root-of-v2")] {
        let converted = convert(policy, &["--on-conflict", policy]);
        assert_eq!(converted.output.status, 0, "{}", converted.output.story());
        assert!(
            converted.output.stderr.contains("users and roles in v2 and in v3 are"),
            "{}",
            converted.output.story()
        );
        for version in [Version::V3_4, Version::V3_7] {
            let data_dir = temp.path().join(format!("{policy}-{version}"));
            peers.restore(version, &converted.snapshot, &data_dir).success();
            let server = Server::start(&Boot::new(&peers, version, &data_dir));
            let may = |user: &str, password: &str, key: &str, write: bool| may(&server, user, password, key, write);
            let story = format!("etcd {version}, {policy}");
            assert_eq!(may("root", root, "/old/a", true), Some(true), "{story}");
            assert_eq!(may("root", if root == "root-of-v3" { "root-of-v2" } else { "root-of-v3" }, "/x", false), None);
            assert_eq!(may("anna", "anna-of-v2", "/old/a", false), Some(true), "{story}");
            assert_eq!(may("anna", "anna-of-v2", "/old/a", true), Some(false), "{story}");
            assert_eq!(may("anna", "anna-of-v2", "/new/b", false), Some(false), "{story}");
            assert_eq!(may("bert", "bert-of-v3", "/new/b", true), Some(true), "{story}");
            assert_eq!(may("bert", "bert-of-v3", "/old/a", false), Some(false), "{story}");
            assert_eq!(may("bert", "anna-of-v2", "/new/b", false), None, "{story}");
        }
    }
    // Without those of v2 nothing is in both.
    let converted = convert("ignore", &["--auth", "ignore"]);
    assert_eq!(converted.output.status, 0, "{}", converted.output.story());
    let (before, after) = (Dump::of(&peers, &source.join("member/snap/db")), Dump::of(&peers, &converted.snapshot));
    for pair in before.others.iter().filter(|pair| pair.bucket.starts_with("auth")) {
        assert_eq!(after.other(&pair.bucket, &pair.key), Some(&pair.value[..]), "{} {:?}", pair.bucket, pair.key);
    }
}

/// Whether a user may read, or write, a key; `None` if nobody logs in like that.
fn may(server: &Server, user: &str, password: &str, key: &str, write: bool) -> Option<bool> {
    use ::base64::Engine;
    let encode = |text: &str| ::base64::engine::general_purpose::STANDARD.encode(text);
    let body = json!({"name": user, "password": password}).to_string();
    let response = http::post(server.client_address(), "/v3/auth/authenticate", None, &body).unwrap();
    let answer: Value = serde_json::from_slice(&response.body).unwrap();
    let token = answer["token"].as_str()?.to_owned();
    let (target, body) = match write {
        true => ("/v3/kv/put", json!({"key": encode(key), "value": encode("x")})),
        false => ("/v3/kv/range", json!({"key": encode(key)})),
    };
    let response = http::post(server.client_address(), target, Some(&token), &body.to_string()).unwrap();
    Some(response.status == 200)
}

#[test]
fn merge_names_dropped_data() {
    let Some(scenarios) = corpus::of_kinds(test_name!(), &["i", "x"]) else { return };
    for scenario in scenarios {
        let source = scenario.data_dir("m0.etcd");
        let temp = scratch::temp();
        let options = ["--as-of", &scenario.truth.captured_at, "--existing", "drop-v3"];
        let converted = convert_to(&source, temp.path(), options);
        assert_eq!(converted.output.status, 0, "{}", converted.output.story());
        assert!(converted.output.stderr.contains("warning: v3 data of the source is left out"));
        let report = converted.report();
        assert_eq!(report["existing"]["kept"], false);
        assert!(report["existing"]["keys"].as_u64().unwrap() > 0);
        if let Some(peers) = peers::require(test_name!()) {
            all_well(&differences(
                &rows::expected(&scenario, "m0.etcd"),
                &Dump::of(&peers, &converted.snapshot).rows(),
            ));
        }
    }
}

/// A source without v3 data is converted like any other.
#[test]
fn without_v3_data_a_merge_is_a_plain_conversion() {
    let demo = PathBuf::from("fixtures/demo/input/default.etcd");
    let temp = scratch::temp();
    let as_of = ["--as-of", "2026-12-01T00:00:00Z"];
    let plain = convert_to(&demo, &temp.path().join("a"), as_of);
    let merged = convert_to(&demo, &temp.path().join("b"), [&as_of[..], &["--existing", "merge"]].concat());
    assert_eq!((plain.output.status, merged.output.status), (0, 0), "{}", merged.output.story());
    assert!(fs::read(&plain.snapshot).unwrap() == fs::read(&merged.snapshot).unwrap());
    assert_eq!(merged.report().get("existing"), None);
}

/// The output of `--existing keep-v3` is the v3 data of the source and nothing else, and every v2 key is accounted for.
#[test]
fn keep_v3_is_the_v3_data_alone() {
    let Some((peers, scenarios)) = scenarios(test_name!()) else { return };
    for scenario in scenarios {
        let source = scenario.data_dir("m0.etcd");
        let before = Dump::of(&peers, &source.join("member/snap/db"));
        let temp = scratch::temp();
        let (ledger, map) = (temp.path().join("ledger"), temp.path().join("map"));
        let files = ["--ledger", ledger.to_str().unwrap(), "--index-map", map.to_str().unwrap()];
        let options =
            [&["--as-of", &scenario.truth.captured_at, "--existing", "keep-v3", "--strict"], &files[..]].concat();
        let converted = convert_to(&source, temp.path(), options);
        assert_eq!(converted.output.status, 0, "{}", converted.output.story());
        assert!(converted.output.stderr.contains("by --existing keep-v3: "), "{}", converted.output.story());
        let after = Dump::of(&peers, &converted.snapshot);
        assert_eq!(format!("{:?}", after.keys), format!("{:?}", before.keys), "{}", scenario.name);
        for bucket in ["lease", "auth", "authUsers", "authRoles"] {
            let of = |dump: &Dump| -> Vec<_> {
                let pairs = dump.others.iter().filter(|pair| pair.bucket == bucket);
                pairs.map(|pair| (pair.key.clone(), pair.value.clone())).collect()
            };
            // A conversion writes what a server adds at its next start.
            if bucket == "auth" {
                of(&before).iter().for_each(|pair| assert!(of(&after).contains(pair)));
            } else {
                assert_eq!(of(&after), of(&before), "{bucket}");
            }
        }
        for mark in [&b"scheduledCompactRev"[..], b"finishedCompactRev"] {
            assert_eq!(after.other("meta", mark), before.other("meta", mark));
        }
        let report = converted.report();
        let balance = &report["balance"];
        assert_eq!((&balance["dropped"], &balance["written"]["keys"]), (&balance["source"], &0.into()), "{balance}");
        assert_eq!(report["existing"]["kept"], true);
        let text = fs::read_to_string(&ledger).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let named = lines.iter().filter(|line| line["reason"] == "v3-only").count() as u64;
        assert_eq!(named, balance["source"]["keys"].as_u64().unwrap());
        assert!(named > 0 && lines.iter().all(|line| line.get("revision").is_none()));
        let (out, made) = (converted.snapshot.to_str().unwrap(), converted.report.to_str().unwrap());
        etcdlift(["verify", out, "--report", made, "--source", source.to_str().unwrap()]).success();
        let asked = etcdlift(["lookup", map.to_str().unwrap(), "--key", "/nothing"]);
        assert_eq!(asked.status, 4, "{}", asked.story());
        peers.check(&converted.snapshot).success();
    }
}

#[test]
fn keep_v3_is_refused_where_there_is_none_or_not_all_of_it() {
    let temp = scratch::temp();
    let demo = PathBuf::from("fixtures/demo/input/default.etcd");
    let converted = convert_to(&demo, &temp.path().join("a"), ["--existing", "keep-v3"]);
    refused(&converted, "v3-missing", &["member/snap/db: the v3 backend of the source has no key"]);
    let snap = demo.join("member/snap/0000000000000002-0000000000000029.snap");
    let converted = convert_to(&snap, &temp.path().join("b"), ["--existing", "keep-v3"]);
    refused(&converted, "v3-missing", &["the source has no v3 backend"]);
    let Some(scenarios) = corpus::of_kinds(test_name!(), &["x"]) else { return };
    for scenario in scenarios {
        let options = ["--existing", "keep-v3"];
        let converted = convert_to(&scenario.data_dir("m0.etcd"), &temp.path().join(&scenario.name), options);
        refused(&converted, "v3-late", &["committed but not applied to the v3 backend"]);
    }
}

/// A directory that a real etcd 3.4 writes here.
fn written_by_3_4(peers: &Peers, data_dir: &Path, args: &[&str], write: impl FnOnce(&Server, &Etcdctl)) {
    let args = args.iter().map(ToString::to_string).collect();
    let server = Server::start(&Boot { enable_v2: true, args, ..Boot::new(peers, Version::V3_4, data_dir) });
    write(&server, &Etcdctl::new(peers, &server));
    server.stop();
}

fn put_v2(server: &Server, key: &str) {
    let answer = http::put_form(server.client_address(), &format!("/v2/keys{key}"), "value=x").unwrap();
    assert!(answer.status < 300, "{key}: {}", answer.status);
}

#[test]
fn a_source_with_v3_data_alone_says_how_much_and_keep_v3_takes_it() {
    let Some(peers) = peers::require(test_name!()) else { return };
    let temp = scratch::temp();
    let source = temp.path().join("source");
    written_by_3_4(&peers, &source, &[], |_, ctl| {
        ctl.put("/a", "1");
        ctl.put("/b", "2");
    });
    let plain = convert_to(&source, &temp.path().join("plain"), ["--jobs", "1"]);
    assert_eq!(plain.output.status, 4, "{}", plain.output.story());
    assert!(plain.output.stderr.contains("holds no v2 key, only v3 data (2 keys)"), "{}", plain.output.story());
    let kept = convert_to(&source, &temp.path().join("kept"), ["--existing", "keep-v3"]);
    assert_eq!(kept.output.status, 0, "{}", kept.output.story());
    assert_eq!(Dump::of(&peers, &kept.snapshot).rows().len(), 2);
}

/// Keys that `etcdctl migrate` wrote and v2 has deleted since are named; keys of v3 clients alone are no sign of it.
#[test]
fn keys_that_an_earlier_migrate_left_are_named() {
    let Some(peers) = peers::require(test_name!()) else { return };
    let temp = scratch::temp();
    let source = temp.path().join("source");
    written_by_3_4(&peers, &source, &[], |server, _| ["/a", "/b", "/d/c"].iter().for_each(|key| put_v2(server, key)));
    let mut migrate = crate::common::run::bounded(&peers.etcdctl_3_4(), 60);
    migrate.env("ETCDCTL_API", "3").args(["migrate", "--data-dir"]).arg(&source);
    crate::common::run::run(&mut migrate).success();
    written_by_3_4(&peers, &source, &[], |server, ctl| {
        for key in ["/b", "/d/c"] {
            let target = format!("http://{}/v2/keys{key}", server.client_address());
            let mut curl = crate::common::run::bounded(Path::new("curl"), 20);
            crate::common::run::run(curl.args(["-sf", "-X", "DELETE", &target])).success();
        }
        ctl.put("native", "x");
    });
    let options = ["--existing", "merge", "--on-conflict", "keep-v3"];
    let converted = convert_to(&source, &temp.path().join("out"), options);
    assert_eq!(converted.output.status, 0, "{}", converted.output.story());
    let said = "only in v3: 3 keys, 2 of them in the form of an earlier `etcdctl migrate`";
    let stderr = &converted.output.stderr;
    assert!(
        stderr.contains(said) && stderr.contains("/b, /d/c [only-in-v3]\nhint: --existing drop-v3"),
        "{}",
        converted.output.story()
    );
    let existing = &converted.report()["existing"];
    assert_eq!((&existing["only_in_v3"], &existing["left_by_migrate"]), (&3.into(), &json!(["/b", "/d/c"])));

    // Nothing is in both: v3 keys are v3's own.
    let other = temp.path().join("other");
    written_by_3_4(&peers, &other, &[], |server, ctl| {
        put_v2(server, "/a");
        ctl.put("/native", "x");
    });
    let converted = convert_to(&other, &temp.path().join("own"), ["--existing", "merge"]);
    assert_eq!(converted.output.status, 0, "{}", converted.output.story());
    assert!(!converted.output.stderr.contains("only in v3"), "{}", converted.output.story());
}

/// A v2 tree that a server stored inside v3.
#[test]
fn a_tree_of_enable_v2v3_is_named() {
    let Some(peers) = peers::require(test_name!()) else { return };
    let temp = scratch::temp();
    let source = temp.path().join("source");
    write_v2v3(&peers, &source, "/pfx", &["/a", "/d/c"]);
    let tree = "a v2 tree of `etcd --experimental-enable-v2v3 /pfx` (3 keys)";
    let plain = convert_to(&source, &temp.path().join("plain"), ["--jobs", "1"]);
    assert!(plain.output.status == 4 && plain.output.stderr.contains(tree), "{}", plain.output.story());
    let kept = convert_to(&source, &temp.path().join("kept"), ["--existing", "keep-v3"]);
    assert_eq!(kept.output.status, 0, "{}", kept.output.story());
    assert!(kept.output.stderr.contains(&format!("warning: v3 holds {tree}, which stays")), "{}", kept.output.story());
    assert_eq!(kept.report()["existing"]["v2v3"], json!([{"prefix": "/pfx", "keys": 3}]));
    for path in [&source, &source.join("member/snap/db"), &kept.snapshot] {
        let inspected = etcdlift(["inspect", path.to_str().unwrap()]).success();
        assert!(inspected.text().contains(tree), "{}", inspected.story());
    }
}

/// A 3.4 that keeps its v2 keys inside v3 answers no question for its health: it is up when it takes a key.
fn write_v2v3(peers: &Peers, data_dir: &Path, prefix: &str, keys: &[&str]) {
    let [client, peer] = [0, 1].map(|_| free_address());
    let mut command = crate::common::run::bounded(&peers.etcd(Version::V3_4), 60);
    command.args(["--enable-v2", "--experimental-enable-v2v3", prefix, "--name", "default"]);
    command.arg("--data-dir").arg(data_dir);
    for (option, address) in [("client-urls", client), ("peer-urls", peer)] {
        command.args([format!("--listen-{option}"), format!("http://{address}")]);
    }
    command.args(["--advertise-client-urls".to_string(), format!("http://{client}")]);
    command.args(["--initial-advertise-peer-urls".to_string(), format!("http://{peer}")]);
    command.args(["--initial-cluster".to_string(), format!("default=http://{peer}")]);
    let null = std::process::Stdio::null;
    let mut child = command.stdout(null()).stderr(null()).spawn().unwrap();
    let begun = std::time::Instant::now();
    for key in keys {
        let put =
            || http::put_form(client, &format!("/v2/keys{key}"), "value=x").is_ok_and(|answer| answer.status < 300);
        while !put() {
            assert!(begun.elapsed().as_secs() < 40, "it does not take {key}");
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    }
    // The watchdog passes the signal on.
    let kill = std::process::Command::new("sh").args(["-c", &format!("kill -TERM {}", child.id())]).status();
    assert!(kill.unwrap().success());
    child.wait().unwrap();
}

/// A store with a history is hashed without what its compaction takes away, whether the output is read back or not.
#[test]
fn the_hashes_are_those_of_the_file_where_it_is_not_read_back() {
    let Some((_, scenarios)) = scenarios(test_name!()) else { return };
    for scenario in scenarios {
        let source = scenario.data_dir("m0.etcd");
        for options in [&[][..], &["--bump-revision", "5"], &["--bump-revision", "5", "--existing", "keep-v3"]] {
            let hashes = |how: &str| {
                let temp = scratch::temp();
                let merge = ["--existing", "merge", "--on-conflict", "take-v2"];
                let merge = if options.contains(&"--existing") { &[][..] } else { &merge };
                let as_of = ["--as-of", &scenario.truth.captured_at, how];
                let converted = convert_to(&source, temp.path(), [&as_of[..], merge, options].concat());
                assert_eq!(converted.output.status, 0, "{}", converted.output.story());
                let output = &converted.report()["output"];
                (output["hash_kv"].clone(), output["status_hash"].clone())
            };
            let read_back = hashes("--progress=never");
            assert_eq!(hashes("--no-verify"), read_back, "{options:?}");
            assert_eq!(hashes("--dry-run"), read_back, "{options:?}");
        }
    }
}
