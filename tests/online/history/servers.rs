//! The etcd servers of a run: v2 on three members of 3.4, v3 in the same cluster or in one of another release.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::common::cluster::{Cluster, Seat, initial_cluster, seats};
use crate::common::etcdctl::Etcdctl;
use crate::common::peers::{Peers, Version};
use crate::common::random::Random;
use crate::common::scratch;

/// Running servers.
pub(super) struct Servers {
    clusters: Vec<(Cluster, Vec<String>)>,
    dirs: Vec<PathBuf>,
    temp: TempDir,
}

impl Servers {
    /// Starts v2, and a destination of this release if it is not the same cluster.
    pub(super) fn start(peers: &Peers, destination: Option<Version>, snapshot_count: u64) -> Self {
        let temp = scratch::temp();
        let v2 = Cluster::new(peers, Version::V3_4, 3, None);
        let v3 = destination.map(|version| v2.second(version));
        let v2_args = ["--enable-v2".to_owned(), format!("--snapshot-count={snapshot_count}")];
        let mut servers = Self { clusters: vec![], dirs: vec![], temp };
        servers.begin(v2, "old", &v2_args);
        if let Some(v3) = v3 {
            servers.begin(v3, "new", &[]);
        }
        servers
    }

    fn begin(&mut self, mut cluster: Cluster, name: &str, args: &[String]) {
        let names: Vec<String> = (0..3).map(|at| format!("{name}{at}")).collect();
        let seats: Vec<Seat> = seats(&names.iter().map(String::as_str).collect::<Vec<_>>());
        for seat in &seats {
            let dir = self.temp.path().join(&seat.name);
            cluster.add(seat, &dir);
            self.dirs.push(dir);
        }
        let mut args = args.to_vec();
        args.push(format!("--initial-cluster={}", initial_cluster(&seats)));
        cluster.start(&args.iter().map(String::as_str).collect::<Vec<_>>());
        self.clusters.push((cluster, args));
    }

    /// The addresses of v2.
    pub(super) fn v2(&self) -> Vec<SocketAddr> {
        addresses(&self.clusters[0].0)
    }

    /// The addresses of v3.
    pub(super) fn v3(&self) -> Vec<SocketAddr> {
        addresses(&self.clusters.last().unwrap().0)
    }

    /// The data directory of the first member of v2.
    pub(super) fn v2_dir(&self) -> &Path {
        &self.dirs[0]
    }

    /// Whether v3 is another cluster than v2.
    pub(super) fn are_two(&self) -> bool {
        self.clusters.len() == 2
    }

    pub(super) fn ctl(&self) -> Etcdctl {
        self.clusters.last().unwrap().0.ctl(0)
    }

    /// Number of members of all clusters.
    pub(super) fn members(&self) -> usize {
        self.dirs.len()
    }

    /// Ends a member as a crash would, and starts it again.
    pub(super) fn crash(&mut self, member: usize) {
        let (cluster, args) = &mut self.clusters[member / 3];
        let at = member % 3;
        cluster.kill(at);
        cluster.spawn(at, &args.iter().map(String::as_str).collect::<Vec<_>>());
        cluster.wait(at);
    }
}

fn addresses(cluster: &Cluster) -> Vec<SocketAddr> {
    cluster.members.iter().map(|member| member.seat.client).collect()
}

/// The members in some order.
pub(super) fn order(random: &mut Random, members: usize) -> Vec<usize> {
    random.some(&(0..members).collect::<Vec<_>>(), members)
}
