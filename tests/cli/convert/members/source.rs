//! Data directories of one cluster, written by hand.
//!
//! Must not know what a test expects of them.

use std::fs;
use std::path::{Path, PathBuf};

use etcdlift::internals::fuzzing::log::{CONF_CHANGE, Dialect, Log, NORMAL, conf_change, segment_file};

use crate::common::v2files::put_request;

/// The term of all entries.
pub(super) const TERM: u64 = 2;

/// A cluster whose log begins with its members; then come their names, the version, and 5 keys.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// The IDs and names of the members; one without a name has never published it.
    pub(super) members: Vec<(u64, &'static str)>,
    pub(super) version: Option<&'static str>,
    pub(super) dialect: Dialect,
    /// The ID of a learner.
    pub(super) learner: Option<u64>,
}

impl Source {
    pub(super) fn new(members: &[(u64, &'static str)]) -> Self {
        Self { members: members.to_vec(), version: Some("2.3.0"), dialect: Dialect::Unpadded, learner: None }
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
        if let Some(version) = self.version {
            entries.push((NORMAL, put_request(1, "/0/version", version.as_bytes())));
        }
        for number in 0..5 {
            entries.push((NORMAL, put_request(1, &format!("/1/k{number}"), format!("value {number}").as_bytes())));
        }
        entries
    }

    /// Writes the directory of a member that has all entries.
    pub(super) fn write(&self, dir: &Path, id: u64) -> PathBuf {
        self.write_some(dir, id, usize::MAX)
    }

    /// Writes the directory of a member that has so many entries, all of them committed.
    pub(super) fn write_some(&self, dir: &Path, id: u64, count: usize) -> PathBuf {
        let mut log = Log::new(self.dialect, id, 0xc1);
        let (mut index, mut commit) = (0, 0);
        for (kind, data) in self.entries().into_iter().take(count) {
            index += 1;
            log.entry(kind, TERM, index, Some(&data));
            commit = index;
        }
        log.state(TERM, self.members[0].0, commit);
        let path = dir.join(format!("{id:x}.etcd"));
        let wal = path.join("member/wal");
        fs::create_dir_all(&wal).unwrap();
        fs::create_dir_all(path.join("member/snap")).unwrap();
        let file = wal.join(segment_file(0, 0));
        fs::write(&file, &log.segments()[0].bytes).unwrap();
        if self.dialect == Dialect::Padded {
            fs::File::options().write(true).open(file).unwrap().set_len(64_000_000).unwrap();
        }
        path
    }

    /// Writes the directories of all members.
    pub(super) fn write_all(&self, dir: &Path) -> Vec<PathBuf> {
        self.members.iter().map(|(id, _)| self.write(dir, *id)).collect()
    }
}
