//! Simulated clusters: elections, replication, crashes and snapshots as raft has them, then the members' directories,
//! some of them damaged. For every subset of the members the result is right, or refused, or says that it may not be
//! all.
//!
//! `ETCDLIFT_RAFT_SEEDS` says how many clusters, or which (`100..600`).

mod cluster;
mod converge;
mod damage;
mod judge;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use cluster::{Cluster, Style, write};
use etcdlift::internals::fuzzing::log::Dialect;
use judge::{Given, judge};

use crate::common::random::{Random, seeds};

const STYLES: [Style; 4] = [
    Style {
        dialect: Dialect::Unpadded,
        state_first: true,
        record_after_state: true,
        lazy_commit: false,
        version: (2, 0),
    },
    Style {
        dialect: Dialect::Unpadded,
        state_first: false,
        record_after_state: true,
        lazy_commit: true,
        version: (2, 3),
    },
    Style {
        dialect: Dialect::Padded,
        state_first: false,
        record_after_state: true,
        lazy_commit: true,
        version: (3, 3),
    },
    Style {
        dialect: Dialect::Padded,
        state_first: false,
        record_after_state: false,
        lazy_commit: true,
        version: (3, 4),
    },
];

/// Clusters that are tried where the environment does not say.
const SEEDS: u64 = 120;

/// Judges one choice of members; the last argument says whether to use `--salvage`.
type Judge = fn(&Cluster, &[Given], bool) -> Result<String, String>;

#[test]
fn every_subset_of_a_cluster_gives_what_it_proves() {
    every_subset("conversions", 1, SEEDS, judge);
}

/// What `compare` says of each choice of two or more members.
#[test]
fn no_comparison_of_members_contradicts_the_cluster() {
    every_subset("comparisons", 2, SEEDS / 2, |cluster, given, _| converge::converge(cluster, given));
}

/// Judges the subsets with at least so many members, of so many clusters by default.
fn every_subset(what: &str, least: usize, clusters: u64, judge: Judge) {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut wrong = Vec::new();
    for seed in seeds("ETCDLIFT_RAFT_SEEDS", 0..clusters) {
        one_cluster(seed, least, judge, &mut counts, &mut wrong);
        if wrong.len() > 5 {
            break;
        }
    }
    let total: u64 = counts.values().sum();
    let lines: Vec<String> = counts.iter().map(|(what, count)| format!("  {count:>6} {what}\n")).collect();
    let text = format!("raft: {total} {what}\n{}", lines.concat());
    let _ = std::io::stderr().write_all(text.as_bytes());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn one_cluster(seed: u64, least: usize, judge: Judge, counts: &mut BTreeMap<String, u64>, wrong: &mut Vec<String>) {
    let mut random = Random::new(seed);
    // Segments of 3.0 and later have 64 MB each, which takes time.
    let style = STYLES[random.pick(&[0, 0, 0, 1, 1, 1, 2, 3])];
    let size = random.pick(&[1, 3, 3, 3, 3, 5]);
    let mut cluster = Cluster::new(style, size);
    for _ in 0..random.between(40, 200) {
        cluster.step(&mut random);
    }
    let dir = tempfile::tempdir().unwrap();
    for subset in 1..1u32 << size {
        let chosen: Vec<usize> = (0..size as usize).filter(|at| subset & 1 << at != 0).collect();
        // Three members: all subsets. Five: 30 percent of them. Each undamaged, and with random damage.
        if (size == 5 && !random.chance(30)) || chosen.len() < least {
            continue;
        }
        for round in 0..3 {
            let folder = dir.path().join(format!("{subset}-{round}"));
            let mut given = Vec::new();
            for at in &chosen {
                let member = &cluster.members[*at];
                let path: PathBuf = folder.join(format!("m{at}.etcd"));
                write(style, member, &path);
                let hurt = round > 0 && random.chance(60);
                let damage = if hurt { damage::damage(style, member, &path, &mut random) } else { None };
                given.push(Given { member: *at, path, damage });
            }
            let salvage = round == 2 && random.chance(40);
            match judge(&cluster, &given, salvage) {
                Ok(what) => *counts.entry(what).or_default() += 1,
                Err(why) => wrong.push(format!("seed {seed}, {style:?}, {given:?}, salvage {salvage}: {why}")),
            }
            std::fs::remove_dir_all(folder).unwrap();
        }
    }
}
