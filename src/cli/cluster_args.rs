//! The options of `convert` for a new cluster: `--to data-dir`.
//!
//! Turns what was typed into values of the library. Must not know which files a member has.

use super::exit::usage;
use crate::error::Result;
use crate::options::{ClusterOptions, InitialCluster, PeerUrls};

/// The heading of these options in the help.
const HEADING: &str = "New cluster (--to data-dir)";

/// The new cluster, as typed.
#[derive(Debug, clap::Args)]
pub(super) struct ClusterArgs {
    /// Name of the member whose directory to write [default: default]
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    name: Option<String>,

    /// All members of the new cluster [default: NAME=http://localhost:2380]
    ///
    /// This option, --name, --initial-cluster-token and --initial-advertise-peer-urls mean what they mean for `etcdutl
    /// snapshot restore`. The IDs of the cluster and of its members are the same as after such a restore.
    #[arg(long, value_name = "NAME=PEER_URL,...", help_heading = HEADING)]
    initial_cluster: Option<InitialCluster>,

    /// Token that makes the IDs of the new cluster unique [default: etcd-cluster]
    #[arg(long, value_name = "TOKEN", help_heading = HEADING)]
    initial_cluster_token: Option<String>,

    /// Peer URLs of the member [default: those in --initial-cluster]
    #[arg(long, value_name = "PEER_URL,...", help_heading = HEADING)]
    initial_advertise_peer_urls: Option<PeerUrls>,

    /// Name of a member that does not vote; give the option once for each learner
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    learner: Vec<String>,

    /// Write the directory of every member: OUT/NAME
    ///
    /// All databases have the same bytes.
    #[arg(long, help_heading = HEADING)]
    all_members: bool,

    /// Take names, peer URLs and learners from the members in SOURCE
    ///
    /// Give a new --initial-cluster-token. Otherwise members of the old cluster could join.
    /// Without --name, OUT is the directory of the member that SOURCE belongs to.
    #[arg(long, conflicts_with_all = ["initial_cluster", "initial_advertise_peer_urls", "learner"], help_heading = HEADING)]
    members_from_source: bool,

    /// Give the files the owner and group of SOURCE
    #[arg(long, help_heading = HEADING)]
    pub(super) preserve_owner: bool,
}

impl ClusterArgs {
    /// Returns the values of the library.
    ///
    /// # Errors
    /// The token is empty.
    pub(super) fn resolve(&self) -> Result<ClusterOptions> {
        let mut options = ClusterOptions::default();
        if let Some(token) = &self.initial_cluster_token {
            if token.is_empty() {
                return Err(usage("--initial-cluster-token is empty"));
            }
            options.token.clone_from(token);
        }
        options.name.clone_from(&self.name);
        options.initial_cluster.clone_from(&self.initial_cluster);
        options.advertise_peer_urls.clone_from(&self.initial_advertise_peer_urls);
        options.learners.clone_from(&self.learner);
        (options.all_members, options.members_from_source) = (self.all_members, self.members_from_source);
        Ok(options)
    }
}
