//! `truth.json`: what the real server of a corpus scenario said it held, just
//! before it was stopped. The corpus's own README defines the fields.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};

#[derive(Debug, Deserialize)]
pub struct Truth {
    /// Like `2.3.8`.
    pub version: String,
    pub scenario: String,
    pub nodes: Vec<Node>,
    /// RFC 3339.
    pub captured_at: String,
    pub etcd_index: u64,
    pub auth: Option<Auth>,
    #[serde(default)]
    pub hidden_paths_tried: Vec<String>,
    #[serde(default)]
    pub raw_utf8_writes: Vec<RawWrite>,
    pub data_dirs: BTreeMap<String, DataDir>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    pub key: String,
    pub dir: bool,
    /// Files only.
    pub value: Option<String>,
    pub created_index: u64,
    pub modified_index: u64,
    /// RFC 3339, where the node has a TTL of its own.
    pub expiration: Option<String>,
    #[serde(default)]
    pub hidden: bool,
}

#[derive(Debug, Deserialize)]
pub struct Auth {
    pub enabled: bool,
    pub users: BTreeMap<String, serde_json::Value>,
    pub roles: BTreeMap<String, serde_json::Value>,
}

/// A request whose key or value was not valid UTF-8, as it was sent.
#[derive(Debug, Deserialize)]
pub struct RawWrite {
    #[serde(rename = "key_b64", deserialize_with = "base64_bytes")]
    pub key: Vec<u8>,
    #[serde(rename = "value_b64", deserialize_with = "base64_bytes")]
    pub value: Vec<u8>,
    pub status: u16,
    #[serde(rename = "modifiedIndex")]
    pub modified_index: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub struct DataDir {
    pub role: Option<String>,
    #[serde(default)]
    pub expect: Expect,
    /// With [`Expect::Own`].
    pub nodes: Option<Vec<Node>>,
    /// With [`Expect::Own`].
    pub etcd_index: Option<u64>,
    pub wal_dir: Option<String>,
    pub restart_check: Option<RestartCheck>,
}

/// Which nodes a data directory should give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    #[default]
    Truth,
    Own,
}

/// What a server of the same version made of a copy.
#[derive(Debug, Deserialize)]
pub struct RestartCheck {
    #[serde(default)]
    pub started: bool,
    pub matches_truth: Option<bool>,
    /// Counts what the restart itself wrote, too.
    pub etcd_index: Option<u64>,
}

/// Directories whose log does not tell 2.3.6 from 2.3.7, and where that matters: a `refresh=true` with a condition.
/// Without `--source-version` they end with status 8.
const UNDECIDED: [(&str, &str); 3] = [("2.3.8", "a"), ("2.3.8", "e"), ("2.3.8", "h")];

impl Truth {
    /// `--source-version` where nothing but the operator can tell the version.
    pub fn source_version(&self) -> Vec<&str> {
        match UNDECIDED.contains(&(self.version.as_str(), self.scenario.as_str())) {
            true => vec!["--source-version", &self.version],
            false => Vec::new(),
        }
    }

    /// The nodes that the directory called `name` should give.
    pub fn nodes_of(&self, name: &str) -> &[Node] {
        let dir = &self.data_dirs[name];
        match (dir.expect, &dir.nodes) {
            (Expect::Own, Some(nodes)) => nodes,
            (Expect::Own, None) => panic!("{name} has no nodes of its own"),
            (Expect::Truth, _) => &self.nodes,
        }
    }

    /// The v2 index that the directory called `name` had at capture.
    pub fn etcd_index_of(&self, name: &str) -> u64 {
        let dir = &self.data_dirs[name];
        match dir.expect {
            Expect::Own => dir.etcd_index.unwrap(),
            Expect::Truth => self.etcd_index,
        }
    }

    pub fn auth_enabled(&self) -> bool {
        self.auth.as_ref().is_some_and(|auth| auth.enabled)
    }
}

impl DataDir {
    /// A server of the same version refused this directory's truth: it shows
    /// something else.
    pub fn differs_after_restart(&self) -> bool {
        let check = self.restart_check.as_ref();
        check.is_some_and(|check| check.started && check.matches_truth == Some(false))
    }

    pub fn is_removed(&self) -> bool {
        self.role.as_deref() == Some("removed member")
    }
}

fn base64_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD.decode(text).map_err(serde::de::Error::custom)
}
