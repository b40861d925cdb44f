//! What the logs of healthy servers may contain at the levels warn and above. Any other such line fails the test: it could blame
//! the data.
//!
//! The logs end where a server is told to end, so nothing of its shutdown is in them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::VERSIONS;
use crate::common::cluster::Cluster;
use crate::common::peers::Version;
use crate::common::run::all_well;

/// A message that may occur.
struct Allowed {
    versions: &'static [Version],
    /// A part of it, or of `MESSAGE: ERROR`.
    text: &'static str,
    reason: &'static str,
}

const fn allowed(versions: &'static [Version], text: &'static str, reason: &'static str) -> Allowed {
    Allowed { versions, text, reason }
}

const ONLY_3_4: &[Version] = &[Version::V3_4];
const FROM_3_5: &[Version] = &[Version::V3_5, Version::V3_6, Version::V3_7];

const STARTS: &str = "members start and stop one after the other, and the others notice";
const QUORUM: &str =
    "a member that was added but has not started yet counts for the quorum, and so does one that has stopped";
const SLOW: &str = "the disk and the processors of a test machine are shared";

const ALLOWED: [Allowed; 29] = [
    allowed(&VERSIONS, "simple token is not cryptographically signed", "the default of --auth-token"),
    allowed(FROM_3_5, "Running http and grpc server on single port", "the default, about which it warns"),
    allowed(ONLY_3_4, "established TCP streaming connection with remote peer", "3.4 warns of success, too"),
    allowed(&VERSIONS, "closed TCP streaming connection with remote peer", STARTS),
    allowed(&VERSIONS, "lost TCP streaming connection with remote peer", STARTS),
    allowed(ONLY_3_4, "stopped TCP streaming connection with remote peer", STARTS),
    allowed(&VERSIONS, "peer became inactive (message send to peer failed)", STARTS),
    allowed(&VERSIONS, "failed to find remote peer in cluster", STARTS),
    allowed(&VERSIONS, "failed to dial", STARTS),
    allowed(&VERSIONS, "failed to process Raft message: context canceled", STARTS),
    allowed(&VERSIONS, "prober detected unhealthy status", STARTS),
    allowed(&VERSIONS, "failed to reach the peer URL", STARTS),
    allowed(&VERSIONS, "failed to get version", STARTS),
    allowed(FROM_3_5, "failed to get downgrade enabled status", QUORUM),
    allowed(FROM_3_5, "failed to convert response", "an answer to the same question that is an error, not a number"),
    allowed(FROM_3_5, "stepped down to follower since quorum is not active", QUORUM),
    allowed(FROM_3_5, "waiting for ReadIndex response took too long, retrying", QUORUM),
    allowed(&VERSIONS, "timed out waiting for read index response", QUORUM),
    allowed(
        &VERSIONS,
        "failed to publish local member to cluster through raft",
        "a member that joins tries before it is connected",
    ),
    allowed(&VERSIONS, "rejecting member add request; local member has not been connected", STARTS),
    allowed(&VERSIONS, "rejecting member promote request", "the test asks until the learner is in sync"),
    allowed(&VERSIONS, "invalid authentication was requested", "the test tries wrong passwords"),
    allowed(&VERSIONS, "serving /health false", "asked before there is a leader"),
    allowed(&VERSIONS, "/health error", "asked before there is a leader"),
    allowed(&VERSIONS, "apply request took too long", SLOW),
    allowed(&VERSIONS, "request stats", SLOW),
    allowed(&VERSIONS, "slow fdatasync", SLOW),
    allowed(&VERSIONS, "leader failed to send out heartbeat on time", SLOW),
    allowed(&VERSIONS, "leader is overloaded likely from slow disk", SLOW),
];

/// Fails if a member of the cluster has said anything else than what a healthy one says.
pub(super) fn blame_nothing(cluster: &Cluster, version: Version) {
    let mut wrong = BTreeMap::new();
    for (name, line) in cluster.lines() {
        if let Some(message) = complaint(version, &line) {
            // One line of each kind.
            wrong.entry(message).or_insert_with(|| format!("etcd {version}, {name}: {line}"));
        }
    }
    all_well(&wrong.into_values().collect::<Vec<_>>());
}

/// The message of a line that no healthy server writes.
fn complaint(version: Version, line: &str) -> Option<String> {
    let Ok(entry) = serde_json::from_str::<Value>(line) else {
        return (!line.trim().is_empty()).then(|| line.to_owned());
    };
    let text = |name: &str| entry[name].as_str().unwrap_or_default();
    let (level, message) = (text("level"), format!("{}: {}", text("msg"), text("error")));
    let may = |one: &Allowed| one.versions.contains(&version) && message.contains(one.text);
    match level {
        "debug" | "info" => None,
        "warn" | "error" if ALLOWED.iter().any(may) => None,
        _ => Some(message),
    }
}

#[test]
fn a_line_that_blames_the_data_is_one() {
    let of = |version, line: &str| complaint(version, line).is_some();
    let warn = r#"{"level":"warn","msg":"simple token is not cryptographically signed"}"#;
    assert!(!of(Version::V3_4, warn) && of(Version::V3_4, &warn.replace("warn", "panic")));
    let port = r#"{"level":"warn","msg":"Running http and grpc server on single port"}"#;
    assert!(!of(Version::V3_5, port) && of(Version::V3_4, port));
    assert!(!of(Version::V3_4, r#"{"level":"info","msg":"x"}"#) && !of(Version::V3_4, ""));
    for line in [r#"{"level":"warn","msg":"simple"}"#, "panic: runtime error", "{}"] {
        assert!(of(Version::V3_4, line), "{line}");
    }
    assert!(ALLOWED.iter().all(|one| !one.reason.is_empty()));
}
