//! Compare-and-swap of a client in migration mode, between the steps of a v2 client and of the job.

use proptest::prelude::*;

use super::*;
use crate::online::v3::{Compare, Kv, Op, Txn};

const KEY: &str = "/d/k";
const MARKER: &str = "etcdlift/online/moved//d/k";
const DELETED: &str = "etcdlift/online/deleted";

/// A client that swaps, as docs/online.md says: the revisions of its first transaction, and what it read from v2.
#[derive(Default)]
struct Swap {
    first: Option<BTreeMap<&'static str, i64>>,
    /// The v2 index of the read.
    read: Option<u64>,
}

impl Swap {
    fn look(kv: &Memory) -> Swap {
        let revision = |key| (key, kv.get(key).map_or(0, |pair| pair.modified));
        let first = [KEY, MARKER, SWITCH_KEY, DELETED].map(revision);
        Swap { first: Some(first.into_iter().collect()), read: None }
    }

    fn read(&mut self, store: &Store) {
        self.read = Some(store.state().1);
    }

    /// Writes. Returns the v2 index of the read if it succeeds.
    fn write(self, kv: &Memory) -> Option<u64> {
        let (first, index) = self.first.zip(self.read)?;
        let mut keys = vec![KEY, MARKER, SWITCH_KEY];
        keys.extend((first[KEY] == 0).then_some(DELETED));
        let when = keys.into_iter().map(|key| Compare::modified(key.as_bytes(), first[key])).collect();
        let then = vec![Op::put(KEY, "swapped"), Op::put(MARKER, "")];
        // A key that has moved is another case: v3 has the answer.
        let is_free = first[MARKER] == 0;
        (is_free && kv.txn(&Txn { when, then, otherwise: Vec::new() }).unwrap().succeeded).then_some(index)
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Set,
    SetWithTtl,
    Delete,
    DeleteDirectory,
    /// The lease of the key ends.
    LeaseEnds,
    /// The job carries everything.
    CatchUp,
    Look,
    Read,
    Write,
}

/// A run: `true` with a job.
type Part = (bool, Vec<Step>);

/// Runs the steps. No change of the key after the read of a swap that succeeded is lost silently.
/// Returns the number of swaps that succeeded, with each kind of source.
fn run(parts: &[Part]) -> [usize; 2] {
    [run_with(parts, Store::directory), run_with(parts, |store| store.source(true))]
}

fn run_with(parts: &[Part], source: impl Fn(&Store) -> Source) -> usize {
    let (kv, store) = (Memory::default(), Store::default());
    // An index to wait for.
    store.set("/first", "x");
    once(&kv, &mut source(&store));
    let (mut swap, mut since) = (Swap::default(), Vec::new());
    for (job, steps) in parts {
        let mut all = |wait: &dyn Fn(u64)| {
            for step in steps {
                one(*step, &kv, &store, wait, &mut swap, &mut since);
            }
        };
        match job {
            true => with_job_of(&kv, source(&store), &options(false), |wait| all(wait)),
            false => all(&|_| {}),
        }
    }
    once(&kv, &mut source(&store));
    let listed: Vec<u64> = conflicts(&kv).into_iter().map(|conflict| conflict.index).collect();
    for read in &since {
        for index in (read + 1..=store.state().1).filter(|index| changes(&store, *index)) {
            assert!(listed.contains(&index), "a swap of what v2 had at {read} passed over the change {index}");
        }
    }
    since.len()
}

/// Whether an index changed the key: a delete of a missing key changes nothing.
fn changes(store: &Store, index: u64) -> bool {
    let log = store.log.lock().unwrap();
    let at = |index: u64| state_of(&log[..index as usize]).remove(KEY.as_bytes()).map(|node| node.modified);
    at(index) != at(index - 1)
}

fn one(step: Step, kv: &Memory, store: &Store, wait: &dyn Fn(u64), swap: &mut Swap, since: &mut Vec<u64>) {
    match step {
        Step::Set => assert!(store.set(KEY, "v") > 0),
        Step::SetWithTtl => {
            store.set(KEY, "v");
            store.expires(KEY, Some(jiff::Timestamp::now() + jiff::SignedDuration::from_secs(600)));
        }
        Step::Delete => assert!(store.delete(KEY) > 0),
        Step::DeleteDirectory => assert!(store.delete("/d") > 0),
        Step::LeaseEnds => {
            kv.get(KEY).filter(|pair| pair.lease != 0).into_iter().for_each(|pair| kv.expire(pair.lease));
        }
        Step::CatchUp => wait(store.state().1),
        Step::Look => *swap = Swap::look(kv),
        Step::Read => swap.read(store),
        Step::Write => since.extend(std::mem::take(swap).write(kv)),
    }
}

use Step::*;

/// The key was there and is deleted again: its revision is 0 before and after.
#[test]
fn a_swap_does_not_bring_a_deleted_key_back() {
    let cases: [&[Part]; 8] = [
        // The key was missing, came and went, in v3 perhaps only.
        &[(true, vec![Look, Read, Set, CatchUp, Delete, CatchUp, Write])],
        &[(true, vec![Look, Read, SetWithTtl, CatchUp, LeaseEnds, Write])],
        // The job writes and deletes the key.
        &[(true, vec![Look, Set, CatchUp, Read, Delete, CatchUp, Write])],
        // The job finds nothing to delete.
        &[(false, vec![Look, Set, Read, Delete]), (true, vec![CatchUp, Write])],
        &[(true, vec![Look, Set, Read, DeleteDirectory, CatchUp, Write])],
        // The deletion is only in the history of v2.
        &[(true, vec![Look, Set, CatchUp]), (false, vec![Read, Delete]), (true, vec![CatchUp, Write])],
        // A lease ends in v3 after another value was carried.
        &[(true, vec![Look, Set, CatchUp, Read, SetWithTtl, CatchUp, LeaseEnds, Write])],
        &[(true, vec![Look, Set, Read]), (false, vec![SetWithTtl]), (true, vec![CatchUp, LeaseEnds, Write])],
    ];
    for case in cases {
        assert_eq!(run(case), [0, 0], "{case:?}");
    }
}

#[test]
fn a_swap_of_what_did_not_change_succeeds() {
    for steps in [
        vec![Set, CatchUp, Look, Read, Write],
        vec![Look, Read, Write],
        vec![Set, CatchUp, Delete, CatchUp, Look, Read, Write],
        vec![Look, Read, Set, Delete, CatchUp, Look, Read, Write],
    ] {
        assert_eq!(run(&[(true, steps)]), [1, 1]);
    }
    assert_eq!(run(&[(false, vec![Set, Look, Read, Write])]), [1, 1]);
}

fn part() -> impl Strategy<Value = Part> {
    let step = prop_oneof![
        2 => Just(Set), 1 => Just(SetWithTtl), 2 => Just(Delete), 1 => Just(DeleteDirectory), 1 => Just(LeaseEnds),
        3 => Just(CatchUp), 2 => Just(Look), 2 => Just(Read), 2 => Just(Write),
    ];
    (prop::bool::weighted(0.7), prop::collection::vec(step, 1..8))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_change_after_the_read_of_a_swap_is_lost(steps in prop::collection::vec(part(), 1..4)) {
        run(&[&[(true, vec![Look, Set])], &steps[..]].concat());
    }
}
