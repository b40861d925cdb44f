//! `etcdlift clean` and real servers: etcd 3.5, 3.6 and then 3.7 start on the copies of real directories with v2 and v3 data. They hold
//! what etcd 3.5 held when the directories were captured, and they accept writes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::common::etcdctl::{Etcdctl, row};
use crate::common::members_cluster::Cluster;
use crate::common::peers::{self, Peers, Version};
use crate::common::rows::Row;
use crate::common::run::{all_well, bounded, etcdlift, read_json, run};
use crate::common::server::{Boot, Server};
use crate::common::{corpus, scratch};
use crate::test_name;

/// What the servers said when a directory was captured.
struct Truth {
    v3: Value,
    /// `NAME:PASSWORD` of root and of another user.
    users: Option<(String, String)>,
}

impl Truth {
    fn new(truth: &Value) -> Self {
        let passwords = &truth["passwords"]["v3"];
        let user = |name: &str| passwords[name].as_str().map(|password| format!("{name}:{password}"));
        // m9 has users, and authentication is off.
        let is_on = truth["v3"]["auth_status"].as_str().is_some_and(|text| text.contains("true"));
        Self { v3: truth["v3"].clone(), users: user("root").zip(user("bob")).filter(|_| is_on) }
    }

    fn client(&self, peers: &Peers, server: &Server) -> Etcdctl {
        let root = self.users.as_ref().map(|(root, _)| root.as_str());
        Etcdctl::at(peers, server.client_address(), root)
    }

    fn hash(&self) -> &Value {
        &self.v3["hashkv"][0]["HashKV"]["hash"]
    }

    fn rows(get: &Value) -> Vec<Row> {
        get["kvs"].as_array().into_iter().flatten().map(row).collect()
    }

    /// Compares all of it with a server that has not been written to. `running` are the members that run, with their client URLs:
    /// a server replaces its own at its start.
    fn compare(&self, client: &Etcdctl, running: &[(&str, String)], wrong: &mut Vec<String>) {
        let mut equal = |what: &str, is_equal: bool| {
            if !is_equal {
                wrong.push(what.to_string());
            }
        };
        equal("HashKV", self.hash().as_u64() == Some(client.hash_kv()));
        equal("keys", client.all().0 == Self::rows(&self.v3["get"]));
        for moment in self.v3["history"].as_array().unwrap() {
            let revision = moment["rev"].as_u64().or(moment["revision"].as_u64()).unwrap();
            let found = client.all_at(revision);
            equal(&format!("keys at revision {revision}"), found == Some(Self::rows(&moment["get"])));
        }
        let below = self.v3["below_compaction"]["rev"].as_u64().unwrap();
        equal("compaction", client.all_at(below).is_none());
        let sorted = |mut values: Vec<Value>| {
            values.sort_by_key(ToString::to_string);
            values
        };
        let ids = |list: &Value| sorted(list["leases"].as_array().cloned().unwrap_or_default());
        equal("leases", ids(&client.json(&["lease", "list"])) == ids(&self.v3["lease_list"]));
        for lease in self.v3["leases"].as_array().unwrap() {
            let (granted, _, mut keys) = client.time_to_live(lease["id"].as_i64().unwrap());
            let expected = lease["keys"].as_array().into_iter().flatten();
            let mut expected: Vec<_> = expected.map(|key| STANDARD.decode(key.as_str().unwrap()).unwrap()).collect();
            keys.sort();
            expected.sort();
            equal("a lease", (granted, keys) == (lease["granted-ttl"].as_i64().unwrap(), expected));
        }
        for (kind, field) in [("users", "roles"), ("roles", "perm")] {
            for (name, of_name) in self.v3[kind].as_object().into_iter().flatten() {
                let found = client.json(&[kind.trim_end_matches('s'), "get", name]);
                // 3.6 answers that root may do all, whatever is stored.
                let is_root = (kind, name.as_str()) == ("roles", "root");
                let may_all = is_root && found[field] == serde_json::json!([{"permType": 2, "range_end": "AA=="}]);
                equal(name, found[field] == of_name[field] || may_all);
            }
        }
        equal("alarms", client.json(&["alarm", "list"])["alarms"].is_null());
        let expected = self.members(&self.v3["member_list"], running);
        // A server publishes its client URLs soon after its start.
        let found = || self.members(&client.json(&["member", "list"]), &[]);
        let deadline = Instant::now() + Duration::from_secs(10);
        while found() != expected && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(200));
        }
        equal("members", found() == expected);
    }

    /// The members of a list: ID, name, peer URLs, client URLs, whether it is a learner.
    fn members(&self, list: &Value, running: &[(&str, String)]) -> Vec<Value> {
        let member = |member: &Value| {
            let url = running.iter().find(|(name, _)| member["name"] == *name).map(|(_, url)| serde_json::json!([url]));
            let client_urls = url.unwrap_or_else(|| member["clientURLs"].clone());
            let is_learner = member["isLearner"].as_bool().unwrap_or(false);
            serde_json::json!([member["ID"], member["name"], member["peerURLs"], client_urls, is_learner])
        };
        let mut members: Vec<Value> = list["members"].as_array().unwrap().iter().map(member).collect();
        members.sort_by_key(ToString::to_string);
        members
    }
}

fn clean(sources: &[PathBuf], wal_dir: Option<&Path>, out: &Path) {
    let mut args = vec!["clean".to_string()];
    args.extend(sources.iter().map(|path| path.display().to_string()));
    args.extend(["-o".to_string(), out.display().to_string()]);
    args.extend(wal_dir.iter().flat_map(|wal| ["--wal-dir".to_string(), wal.display().to_string()]));
    etcdlift(args).success();
}

/// Writes, compacts and defragments.
fn write(client: &Etcdctl) {
    let revision = client.put("written/after", "clean");
    client.put_with_new_lease("written/lease", "", 3600);
    client.del("written/after");
    client.compaction(revision);
    client.defrag();
    assert!(client.attempt(&["get", "written/lease"]).success().text().contains("kvs"));
}

#[test]
fn servers_hold_the_same_v3_data() {
    let Some(peers) = peers::require(test_name!()) else { return };
    let mut wrong = Vec::new();
    for name in corpus::MIXED.iter().filter(|name| !name.ends_with("-m9")) {
        let Some(dir) = corpus::mixed(test_name!(), name) else { return };
        let json = read_json(&dir.join("truth.json"));
        let truth = Truth::new(&json);
        let wal = json["data_dirs"]["m0.etcd"]["wal_dir"].as_str().map(|wal| dir.join(wal));
        let temp = scratch::temp();
        let copy = temp.path().join("clean.etcd");
        clean(&[dir.join("m0.etcd")], wal.as_deref(), &copy);
        let judged = temp.path().join("judged");
        scratch::copy_tree(&copy, &judged);
        let mut tool = bounded(&peers.etcdutl(Version::V3_5), 60);
        let said = run(tool.args(["check", "v2store", "--data-dir"]).arg(&judged));
        if said.status != 0 {
            wrong.push(format!("{name}: {}", said.story()));
        }
        for version in [Version::V3_5, Version::V3_6] {
            let data_dir = temp.path().join(version.to_string());
            scratch::copy_tree(&copy, &data_dir);
            let boot = |version| Boot { name: "m0".into(), ..Boot::new(&peers, version, &data_dir) };
            let server = match Server::try_start(&boot(version)) {
                Ok(server) => server,
                Err(log) => {
                    wrong.push(format!("{name} on {version}: {log}"));
                    continue;
                }
            };
            let client = truth.client(&peers, &server);
            let mut found = Vec::new();
            truth.compare(&client, &[("m0", url(&server))], &mut found);
            wrong.extend(found.iter().map(|what| format!("{name} on {version}: {what}")));
            if let Some((_, user)) = &truth.users {
                let user = Etcdctl::at(&peers, server.client_address(), Some(user));
                user.does(&["get", "--prefix", "/registry/"]);
                assert_ne!(user.attempt(&["get", "written"]).status, 0);
            }
            write(&client);
            let (rows, hash) = (client.all(), client.hash_kv());
            server.stop();
            // The same version again, and then the next one.
            let later: &[Version] = if version == Version::V3_6 { &[Version::V3_6, Version::V3_7] } else { &[version] };
            for later in later {
                let server = Server::start(&boot(*later));
                let client = truth.client(&peers, &server);
                if (client.all(), client.hash_kv()) != (rows.clone(), hash) {
                    wrong.push(format!("{name} on {version}, then {later}: other data after a restart"));
                }
                server.stop();
            }
        }
        fs::remove_dir_all(dir).unwrap();
    }
    all_well(&wrong);
}

/// The client URL of a server.
fn url(server: &Server) -> String {
    format!("http://{}", server.client_address())
}

/// The boots of the members of m9, on their own peer URLs.
fn boots(peers: &Peers, version: Version, truth: &Truth, out: &Path, names: &[&str]) -> Vec<Boot> {
    let boot = |name: &&str| {
        let members = truth.v3["member_list"]["members"].as_array().unwrap();
        let member = members.iter().find(|member| member["name"] == *name).unwrap();
        let peer_url = member["peerURLs"][0].as_str().map(String::from);
        Boot { name: (*name).into(), peer_url, ..Boot::new(peers, version, &out.join(name)) }
    };
    names.iter().map(boot).collect()
}

/// Waits until all servers have the revision of the first, and compares their HashKV.
fn require_equal(peers: &Peers, cluster: &Cluster) -> u64 {
    let clients: Vec<Etcdctl> = cluster.servers().map(|server| Etcdctl::new(peers, server)).collect();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let states: Vec<_> = clients.iter().map(|client| (client.own().1, client.hash_kv())).collect();
        if states.iter().all(|state| *state == states[0]) {
            return states[0].1;
        }
        assert!(Instant::now() < deadline, "the members differ: {states:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn members_start_as_one_cluster() {
    let Some(peers) = peers::require(test_name!()) else { return };
    let Some(dir) = corpus::mixed(test_name!(), "v3.5.16-m9") else { return };
    let truth = Truth::new(&read_json(&dir.join("truth.json")));
    for (version, next) in [(Version::V3_5, Version::V3_6), (Version::V3_6, Version::V3_7)] {
        let temp = scratch::temp();
        let out = temp.path().join("out");
        clean(&["m0.etcd", "m1.etcd", "m2.etcd", "m3.etcd"].map(|name| dir.join(name)), None, &out);
        let mut cluster = Cluster::start(boots(&peers, version, &truth, &out, &["m0", "m1"]));
        let compare = |cluster: &Cluster| {
            assert_eq!(Some(require_equal(&peers, cluster)), truth.hash().as_u64());
            let running: Vec<_> = ["m0", "m1", "m3"].into_iter().zip(cluster.servers().map(url)).collect();
            let mut wrong = Vec::new();
            truth.compare(&Etcdctl::new(&peers, cluster.server(1)), &running, &mut wrong);
            all_well(&wrong);
        };
        // The third member does not run, so its name and client URLs are those that the copies have. 3.6 reads them from the v3
        // backend, where 3.5 does not write all of them.
        if version == Version::V3_5 {
            compare(&cluster);
        }
        cluster.add(boots(&peers, version, &truth, &out, &["m3"]).remove(0));
        compare(&cluster);
        write(&Etcdctl::new(&peers, cluster.server(0)));
        cluster.crash(2);
        for at in 0..3 {
            cluster.upgrade(at, peers.etcd(next));
        }
        Etcdctl::new(&peers, cluster.server(2)).put("upgraded", "");
        require_equal(&peers, &cluster);
    }
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_member_that_is_cleaned_later_catches_up_and_a_new_one_joins() {
    let Some(peers) = peers::require(test_name!()) else { return };
    let Some(dir) = corpus::mixed(test_name!(), "v3.5.16-m9") else { return };
    let truth = Truth::new(&read_json(&dir.join("truth.json")));
    let temp = scratch::temp();
    let out = temp.path().join("out");
    fs::create_dir(&out).unwrap();
    for name in ["m1", "m0"] {
        clean(&[dir.join(format!("{name}.etcd"))], None, &out.join(name));
    }
    let mut cluster = Cluster::start(boots(&peers, Version::V3_6, &truth, &out, &["m0", "m1"]));
    let client = Etcdctl::new(&peers, cluster.server(0));
    assert_eq!(Some(require_equal(&peers, &cluster)), truth.hash().as_u64());
    write(&client);
    clean(&[dir.join("m3.etcd")], None, &out.join("m3"));
    cluster.add(boots(&peers, Version::V3_6, &truth, &out, &["m3"]).remove(0));
    require_equal(&peers, &cluster);
    // Its port is that of the member that was removed.
    let removed = read_json(&dir.join("truth.json"))["data_dirs"]["m2.etcd"]["v3"]["member_list"].clone();
    let member = removed["members"].as_array().and_then(|members| members.iter().find(|member| member["name"] == "m2"));
    let url = member.and_then(|member| member["peerURLs"][0].as_str()).unwrap_or("http://127.0.0.1:41072").to_string();
    // etcd wants all members to have been active for 5 seconds.
    let deadline = Instant::now() + Duration::from_secs(30);
    while client.attempt(&["member", "add", "m4", "--peer-urls", &url]).status != 0 {
        assert!(Instant::now() < deadline, "no member can be added");
        std::thread::sleep(Duration::from_secs(1));
    }
    let others = truth.v3["member_list"]["members"].as_array().unwrap().iter();
    let others = others
        .map(|member| format!("{}={}", member["name"].as_str().unwrap(), member["peerURLs"][0].as_str().unwrap()));
    let initial = others.chain([format!("m4={url}")]).collect::<Vec<_>>().join(",");
    let boot = Boot { name: "m4".into(), peer_url: Some(url), ..Boot::new(&peers, Version::V3_6, &out.join("m4")) };
    let args = ["--initial-cluster", &initial, "--initial-cluster-state", "existing"].map(String::from);
    cluster.add(Boot { args: args.to_vec(), ..boot });
    client.put("joined", "");
    require_equal(&peers, &cluster);
    fs::remove_dir_all(dir).unwrap();
}
