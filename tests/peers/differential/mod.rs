//! A random client drives a real etcd 3.4 over the v2 API, and for every fifth seed a 3.5 too, which has rules of its
//! own (docs/formats.md 6.2); what etcdlift then makes of its files must be, node by node, what the API said last.
//!
//! All operations that v2 has, odd names and bytes, hidden keys, TTLs that run out on the way, snapshots forced by a
//! small `--snapshot-count`, restarts, and a stop that is a crash half of the time; in a test of its own, an upgrade
//! under the log. `ETCDLIFT_DIFFERENTIAL_SEEDS` says how many seeds (`500`) or which (`100..600`). A seed determines
//! the requests, not when nodes expire; the files for the analysis of a difference are in a folder that the failure
//! names. Needs the peers, not the corpus.

mod client;
mod compare;
mod listing;
mod session;
mod upgrade;
mod words;

use std::io::Write;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs, thread};

use session::{Session, Tally};

use crate::common::peers::{self, Peers, Version};
use crate::common::random::seeds;
use crate::common::run::all_well;
use crate::common::scratch;
use crate::test_name;

/// Seeds where nothing else is asked for.
const SEEDS: Range<u64> = 0..15;

/// As many as servers may run at once.
const WORKERS: usize = 2;

#[test]
fn conversion_equals_the_answers_of_the_api() {
    let Some(peers) = peers::require(test_name!()) else {
        return;
    };
    let runs = runs();
    let next = AtomicUsize::new(0);
    let results = Mutex::new((Tally::default(), Vec::new()));
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some((version, seed)) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = run(&peers, *version, *seed);
                    let mut results = results.lock().unwrap();
                    match result {
                        Ok(tally) => results.0 = std::mem::take(&mut results.0).plus(tally),
                        Err(story) => {
                            say(&story);
                            results.1.push(story);
                        }
                    }
                }
            });
        }
    });
    let (tally, failures) = results.into_inner().unwrap();
    say(&format!("differential: {} seeds with differences, {tally:?}", failures.len()));
    all_well(&failures);
    if tally.seeds >= 25 {
        all_well(&missing(&tally));
    }
}

/// What many seeds must have met: without it, that they passed says little.
fn missing(tally: &Tally) -> Vec<String> {
    let actions = ["set", "create", "update", "compareAndSwap", "delete", "compareAndDelete", "get"];
    // Not found, compare failed, not a file, not a directory, exists, root, not empty.
    let codes = ["100", "101", "102", "104", "105", "107", "108"];
    let outcomes = actions.into_iter().chain(codes).filter(|outcome| !tally.outcomes.contains_key(*outcome));
    let Tally { expired, restarts, kills, from_snapshot, .. } = *tally;
    let counts = [("expired nodes", expired), ("restarts", restarts), ("kills", kills), ("snapshots", from_snapshot)];
    let counts = counts.into_iter().filter(|(_, count)| *count == 0).map(|(what, _)| what);
    outcomes.chain(counts).map(|what| format!("no request met {what}")).collect()
}

/// Every seed on 3.4, and every fifth on 3.5.
fn runs() -> Vec<(Version, u64)> {
    let of = |seed| [(Version::V3_4, seed)].into_iter().chain((seed % 5 == 0).then_some((Version::V3_5, seed)));
    seeds("ETCDLIFT_DIFFERENTIAL_SEEDS", SEEDS).flat_map(of).collect()
}

fn run(peers: &Peers, version: Version, seed: u64) -> Result<Tally, String> {
    let temp = scratch::temp();
    let folder = temp.path().join("seed");
    fs::create_dir(&folder).unwrap();
    Session::new(peers, version, seed, &folder).run()
}

/// Not `eprintln!`: the test harness hides that of a test which passes.
fn say(what: &str) {
    let _ = std::io::stderr().write_all(format!("{what}\n").as_bytes());
}
