//! `--to data-dir` on real servers: etcd 3.4 to 3.7 start from what `convert` wrote, without a restore, and go on with it.
//!
//! Needs what `tests/peers/build` makes and the corpus; a test that lacks one says `SKIPPED`. The expectations come from
//! `truth.json`, from the servers' own tools, and, for IDs and the hash, from the report.

mod check;
mod compare;
mod fill;
mod identity;
mod learners;
mod logs;
mod matrix;
mod mixed;
mod work;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::cluster::{Cluster, Seat, initial_cluster};
use crate::common::corpus::Scenario;
use crate::common::peers::{Peers, Version};
use crate::common::run::{etcdlift, read_json};

const VERSIONS: [Version; 4] = [Version::V3_4, Version::V3_5, Version::V3_6, Version::V3_7];

/// The directories of a new cluster.
struct Made {
    /// `OUT`.
    out: PathBuf,
    seats: Vec<Seat>,
    report: Value,
}

/// Converts into `folder/out`: one member into that directory, several into directories below it.
fn make(sources: &[PathBuf], folder: &Path, seats: &[Seat], options: &[String]) -> Made {
    fs::create_dir_all(folder).unwrap();
    let (out, report) = (folder.join("out"), folder.join("report.json"));
    let mut args: Vec<OsString> = vec!["convert".into(), "--to".into(), "data-dir".into(), "-o".into()];
    args.extend([out.clone().into(), "--report".into(), report.clone().into()]);
    args.extend(sources.iter().map(Into::into));
    args.extend(options.iter().map(Into::into));
    if !seats.is_empty() {
        args.extend(["--initial-cluster".into(), initial_cluster(seats).into()]);
    }
    if seats.len() > 1 {
        args.push("--all-members".into());
    }
    etcdlift(args).success();
    Made { out, seats: seats.to_vec(), report: read_json(&report) }
}

impl Made {
    /// The data directory of a member.
    fn data_dir(&self, name: &str) -> PathBuf {
        if self.seats.len() == 1 { self.out.clone() } else { self.out.join(name) }
    }

    /// The cluster of all members, not started yet.
    fn cluster(&self, peers: &Peers, version: Version, user: Option<&str>) -> Cluster {
        let mut cluster = Cluster::new(peers, version, self.seats.len(), user);
        for seat in &self.seats {
            cluster.add(seat, &self.data_dir(&seat.name));
        }
        cluster
    }

    /// The ID of a member, as the report has it.
    fn id(&self, name: &str) -> String {
        let members = self.report["output"]["members"].as_array().unwrap();
        members.iter().find(|member| member["name"] == name).unwrap()["id"].as_str().unwrap().into()
    }

    fn cluster_id(&self) -> &str {
        self.report["output"]["cluster_id"].as_str().unwrap()
    }

    /// The consistency hash of all members, as the report has it.
    fn hash_kv(&self) -> u64 {
        self.report["output"]["hash_kv"].as_u64().unwrap()
    }
}

/// Options that make the outcome depend on the source alone. Authentication is on where v2 had it.
fn options(scenario: &Scenario) -> Vec<String> {
    let mut options = vec!["--as-of", &scenario.truth.captured_at];
    options.extend(scenario.truth.source_version());
    if scenario.truth.auth_enabled() {
        options.extend(["--guest", "drop"]);
    }
    options.into_iter().map(String::from).collect()
}
