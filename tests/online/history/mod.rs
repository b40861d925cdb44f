//! Histories of applications that move from v2 to v3 while they run, judged.
//!
//! `ETCDLIFT_ONLINE_SEEDS` selects the seeds: a count (`100`) or a range (`40..60`). A failure prints its seed and the history
//! of each key in question.

mod apps;
mod checker;
mod job;
mod naive;
mod ops;
mod register;
mod servers;
mod workload;

use std::time::Instant;

pub(crate) use apps::{Process, swap};
pub(crate) use job::start as start_job;
pub(crate) use workload::Programs;

use checker::{Found, Violation, check};
use ops::{Client, History, Kind, Op};
use workload::{Plan, run, run_naive};

use crate::common::peers;
use crate::common::random::seeds;
use crate::test_name;

const SEEDS: &str = "ETCDLIFT_ONLINE_SEEDS";
const NAIVE_SEEDS: u64 = 2;

#[test]
fn applications_move_and_nothing_is_lost() {
    let Some(peers) = peers::require(test_name!()) else { return };
    let programs = Programs::build(&peers);
    for seed in seeds(SEEDS, 0..5) {
        let (plan, started) = (Plan::new(seed), Instant::now());
        let history = run(&peers, &programs, &plan);
        let ran = started.elapsed();
        let found = check(&history);
        assert!(found.is_empty(), "{plan:?}, unknown {:?}\n{}", history.unknown, story(&history, &found));
        let operations: usize = history.keys.values().map(Vec::len).sum();
        let (listed, unknown, judged) = (history.listed.len(), history.only_unknown(), started.elapsed() - ran);
        let conflicts = format!("{listed} conflicts listed, {unknown} writes in unknown ranges");
        eprintln!("{plan:?}: {operations} operations, {conflicts}; {ran:.1?}, judged in {judged:.1?}");
    }
}

/// The recipe of the guide fails in the same run, before the same judge.
#[test]
fn the_recipe_of_the_guide_brings_deleted_keys_back() {
    let Some(peers) = peers::require(test_name!()) else { return };
    let seeds = seeds(SEEDS, 0..NAIVE_SEEDS);
    let mut older = 0;
    for seed in seeds.start..seeds.end.min(seeds.start + 10) {
        let plan = Plan::new(seed);
        let history = run_naive(&peers, &plan);
        let found = check(&history);
        let is_older = |found: &&Found| matches!(found.violation, Violation::Older | Violation::Stale);
        older += found.iter().filter(is_older).count();
        // Deleted in v3 by a client that follows the recipe.
        let deleted = |op: &Op| op.kind == Kind::Delete && matches!(op.client, Client::Moved(_));
        let back = found.iter().find(|found| found.violation == Violation::Back && found.ops.iter().any(deleted));
        let Some(back) = back else { panic!("{plan:?}: no deleted key comes back\n{}", story(&history, &found)) };
        eprintln!("{plan:?}: {} violations, {older} of old values so far, among them: {back}", found.len());
    }
    assert!(older > 0, "no client reads a value that is older than one before");
}

fn story(history: &History, found: &[Found]) -> String {
    let mut keys: Vec<&str> = found.iter().map(|found| found.key.as_str()).collect();
    keys.dedup();
    let mut text: String = found.iter().map(|found| format!("{found}\n")).collect();
    for key in keys {
        text += &format!("history of {key}:\n{}\n", history.story(key));
    }
    text
}
