//! Data directories of one cluster, written by hand.
//!
//! Must not know what a test expects of them.

use std::fs;
use std::path::{Path, PathBuf};

use etcdlift::internals::fuzzing::log::{
    CONF_CHANGE, Dialect, Log, NORMAL, conf_change, segment_file, snap, snap_file,
};
use serde_json::{Map, Value, json};

use crate::common::v2files::put_request;

/// The term of all entries.
pub(super) const TERM: u64 = 2;

/// A cluster whose log begins with its members; then come their names, the version, and 5 keys.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// The IDs and names of the members; one without a name has never published it.
    pub(super) members: Vec<(u64, &'static str)>,
    pub(super) version: Option<&'static str>,
    /// A cluster version before that; two keys come between them.
    pub(super) old_version: Option<&'static str>,
    pub(super) dialect: Dialect,
    /// The ID of a learner.
    pub(super) learner: Option<u64>,
}

impl Source {
    pub(super) fn new(members: &[(u64, &'static str)]) -> Self {
        Self {
            members: members.to_vec(),
            version: Some("2.3.0"),
            old_version: None,
            dialect: Dialect::Unpadded,
            learner: None,
        }
    }

    pub(super) fn entries(&self) -> Vec<(u64, Vec<u8>)> {
        let mut entries = Vec::new();
        for (id, _) in &self.members {
            let learner = self.learner == Some(*id);
            let is_learner = if learner { r#","isLearner":true"# } else { "" };
            let json = format!(r#"{{"id":{id},"peerURLs":["http://127.0.0.1:{id}"]{is_learner}}}"#);
            entries.push((CONF_CHANGE, conf_change(if learner { 3 } else { 0 }, *id, &json)));
        }
        for (id, name) in self.members.iter().filter(|(_, name)| !name.is_empty()) {
            let json = format!(r#"{{"name":"{name}","clientURLs":["http://127.0.0.1:1{id}"]}}"#);
            entries.push((NORMAL, put_request(*id, &format!("/0/members/{id:x}/attributes"), json.as_bytes())));
        }
        let put = |path: String, value: &str| (NORMAL, put_request(1, &path, value.as_bytes()));
        if let Some(version) = self.old_version {
            entries.push(put("/0/version".into(), version));
            entries.extend((0..2).map(|number| put(format!("/1/old{number}"), "value")));
        }
        entries.extend(self.version.map(|version| put("/0/version".into(), version)));
        for number in 0..5 {
            entries.push((NORMAL, put_request(1, &format!("/1/k{number}"), format!("value {number}").as_bytes())));
        }
        entries
    }

    /// The keys that the entries write: raft index, name, value.
    fn keys(&self) -> Vec<(u64, String, String)> {
        let named = self.members.iter().filter(|(_, name)| !name.is_empty());
        let mut index = (self.members.len() + named.count()) as u64;
        let mut keys = Vec::new();
        if self.old_version.is_some() {
            keys.extend((0..2).map(|number| (index + 2 + number, format!("old{number}"), "value".to_string())));
            index += 3;
        }
        index += u64::from(self.version.is_some());
        keys.extend((0..5).map(|number| (index + 1 + number, format!("k{number}"), format!("value {number}"))));
        keys
    }

    /// Writes the directory of a member that has all entries.
    pub(super) fn write(&self, dir: &Path, id: u64) -> PathBuf {
        self.write_some(dir, id, usize::MAX)
    }

    /// Writes the directory of a member that has so many entries, all of them committed.
    pub(super) fn write_some(&self, dir: &Path, id: u64, count: usize) -> PathBuf {
        let path = dir.join(format!("{id:x}.etcd"));
        let wal = path.join("member/wal");
        fs::create_dir_all(&wal).unwrap();
        fs::create_dir_all(path.join("member/snap")).unwrap();
        self.write_log(&self.log(id, count), &wal.join(segment_file(0, 0)));
        path
    }

    /// Writes the directory of a member that has all entries, and does not know that the last one is committed.
    pub(super) fn write_with_tail(&self, dir: &Path, id: u64) -> PathBuf {
        let path = self.write(dir, id);
        let mut log = Log::new(self.dialect, id, 0xc1);
        let last = self.add_entries(&mut log, usize::MAX);
        log.state(TERM, self.members[0].0, last - 1);
        self.write_log(&log, &path.join("member/wal").join(segment_file(0, 0)));
        path
    }

    fn log(&self, id: u64, count: usize) -> Log {
        let mut log = Log::new(self.dialect, id, 0xc1);
        let last = self.add_entries(&mut log, count);
        log.state(TERM, self.members[0].0, last);
        log
    }

    /// Returns the index of the last entry.
    fn add_entries(&self, log: &mut Log, count: usize) -> u64 {
        let mut last = 0;
        for (index, (kind, data)) in (1..).zip(self.entries().into_iter().take(count)) {
            log.entry(kind, TERM, index, Some(&data));
            last = index;
        }
        last
    }

    fn write_log(&self, log: &Log, file: &Path) {
        fs::write(file, &log.segments()[0].bytes).unwrap();
        if self.dialect == Dialect::Padded {
            fs::File::options().write(true).open(file).unwrap().set_len(64_000_000).unwrap();
        }
    }

    /// Adds a snapshot to the directory of a member that has all entries. `version` is the cluster version in it.
    pub(super) fn add_snapshot(&self, data_dir: &Path, id: u64, index: u64, version: Option<&str>) {
        let node = |path: &str, value: &str, children: Value| {
            json!({
                "Path": path, "CreatedIndex": 1, "ModifiedIndex": 1, "ExpireTime": "0001-01-01T00:00:00Z", "Value": value,
                "Children": children,
            })
        };
        let member = |(id, name): &(u64, &str)| {
            let path = format!("/0/members/{id:x}");
            let file = |name: &str, value: Value| node(&format!("{path}/{name}"), &value.to_string(), Value::Null);
            let attributes = json!({
                "raftAttributes": file("raftAttributes", json!({ "peerURLs": [format!("http://127.0.0.1:{id}")] })),
                "attributes": file("attributes", json!({ "name": name })),
            });
            (format!("{id:x}"), node(&path, "", attributes))
        };
        let members: Map<String, Value> = self.members.iter().map(member).collect();
        let mut zero = json!({ "members": node("/0/members", "", Value::Object(members)) });
        if let Some(version) = version {
            zero["version"] = node("/0/version", version, Value::Null);
        }
        let written = self.keys().into_iter().filter(|(at, ..)| *at <= index);
        let key = |(at, name, value): (u64, String, String)| {
            let mut file = node(&format!("/1/{name}"), &value, Value::Null);
            // Each entry is one change of the store.
            (file["CreatedIndex"], file["ModifiedIndex"]) = (at.into(), at.into());
            (name, file)
        };
        let keys: Map<String, Value> = written.map(key).collect();
        let root = node("/", "", json!({ "0": node("/0", "", zero), "1": node("/1", "", Value::Object(keys)) }));
        let store = json!({ "Root": root, "CurrentIndex": index, "CurrentVersion": 2 }).to_string();
        let voters: Vec<u64> = self.members.iter().map(|(id, _)| *id).collect();
        fs::write(
            data_dir.join("member/snap").join(snap_file(TERM, index)),
            snap(store.as_bytes(), index, TERM, &voters),
        )
        .unwrap();
        let mut log = self.log(id, usize::MAX);
        log.snapshot(index, TERM);
        self.write_log(&log, &data_dir.join("member/wal").join(segment_file(0, 0)));
    }

    /// Writes the directories of all members.
    pub(super) fn write_all(&self, dir: &Path) -> Vec<PathBuf> {
        self.members.iter().map(|(id, _)| self.write(dir, *id)).collect()
    }
}
