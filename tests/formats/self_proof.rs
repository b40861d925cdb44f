//! The replay proven on the corpus alone: where a data directory holds two snapshots and the log between them, the log
//! must lead from the older one to exactly the tree that the server itself wrote into the newer one.
//!
//! Whole trees are compared, with the members and the auth data next to the user's keys: paths, values, created and
//! modified indexes, expiry times, and the store's own index. A log that begins with its first entry must lead from
//! nothing to each snapshot as well. Needs the corpus; the directory in `fixtures` is proven without it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

use etcdlift::error::Reason;
use etcdlift::internals::ids::{RaftIndex, V2Index};
use etcdlift::internals::interrupt::Interrupt;
use etcdlift::internals::source::dir::WalDir;
use etcdlift::internals::source::live_copy;
use etcdlift::internals::source::open::{Found, OpenOptions, Opened, open};
use etcdlift::internals::source::snap::Snapshot;
use etcdlift::internals::source::start::Start;
use etcdlift::internals::v2store::json;
use etcdlift::internals::v2store::membership::Voters;
use etcdlift::internals::v2store::recover::recover;
use etcdlift::internals::v2store::replay::{ReplayOptions, read_table};
use etcdlift::internals::v2store::tree::{NodeRef, Tree};
use jiff::Timestamp;

use crate::common::corpus;
use crate::common::run::all_well;
use crate::common::text::lossy;
use crate::test_name;

/// Everything that a snapshot says of a node.
#[derive(Debug, PartialEq)]
struct Node {
    dir: bool,
    value: String,
    created: V2Index,
    modified: V2Index,
    expiry: Option<Timestamp>,
}

/// A whole store, as a snapshot of it would have it.
#[derive(Debug)]
struct State {
    nodes: BTreeMap<String, Node>,
    current_index: V2Index,
    voters: Voters,
}

/// What was proven.
#[derive(Debug, Default)]
struct Proven {
    /// Pairs of snapshots.
    pairs: u64,
    /// Snapshots that the whole log leads to.
    from_nothing: u64,
    entries: u64,
    nodes: u64,
    wrong: Vec<String>,
}

#[test]
fn the_log_leads_from_each_snapshot_to_every_newer_one() {
    let test = test_name!();
    let (Some(scenarios), Some(public)) = (corpus::all(test), corpus::public(test)) else {
        return;
    };
    let mut proven = Proven::default();
    for scenario in scenarios {
        for (name, dir) in &scenario.truth.data_dirs {
            let wal_dir = dir.wal_dir.as_ref().map(|wal| WalDir::Dir(scenario.dir.join(wal)));
            proven.directory(&scenario.data_dir(name), wal_dir.as_ref());
        }
    }
    proven.directory(&public.join("jteso-envoy@536f1d3"), None);
    all_well(&proven.wrong);
    say(test, &proven);
    let (pairs, from_nothing) = (corpus::at_least(78, 1) as u64, corpus::at_least(59, 5) as u64);
    assert!(
        proven.pairs >= pairs && proven.from_nothing >= from_nothing,
        "far less than the corpus allows: {proven:?}"
    );
}

#[test]
fn the_whole_log_leads_to_the_snapshot_in_the_fixture() {
    let mut proven = Proven::default();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/demo/input/default.etcd");
    proven.directory(&dir, None);
    all_well(&proven.wrong);
    say(test_name!(), &proven);
    assert_eq!((proven.pairs, proven.from_nothing), (0, 1));
}

impl Proven {
    /// All pairs of one data directory, as far as its log reaches.
    fn directory(&mut self, path: &Path, wal_dir: Option<&WalDir>) {
        let mut opened = match open(path, wal_dir, &OpenOptions::default()) {
            Ok(Found::V2(opened)) => *opened,
            Ok(found) => panic!("{}: {found:?}", path.display()),
            // A backup of a running 2.0 server has an empty log.
            Err(error) if error.reason() == Reason::SourceEmpty => return,
            Err(error) => panic!("{error}"),
        };
        let names = &opened.start_member().unwrap().snapshots;
        let snapshots = || names.iter().map(|name| snapshot(&name.path));
        let newer: Vec<_> = snapshots().map(|snapshot| (snapshot.index, state_of(&snapshot))).collect();
        let older: Vec<_> = snapshots().collect();
        self.from_nothing += self.leads_from(&mut opened, None, &newer);
        for snapshot in older {
            self.pairs += self.leads_from(&mut opened, Some(snapshot), &newer);
        }
    }

    /// Replays from one snapshot to all that are newer. Returns to how many the log reached.
    fn leads_from(&mut self, opened: &mut Opened, older: Option<Snapshot>, newer: &[(RaftIndex, State)]) -> u64 {
        opened.start = Start { snapshot: older, member: 0, passed_over: Vec::new() };
        let from = opened.start.index();
        let Some(wal) = opened.wal().filter(|wal| wal.continues(from)) else { return 0 };
        let Some(last) = wal.range().map(|(_, last)| last) else { return 0 };
        let table = read_table(opened).unwrap();
        let mut reached = 0;
        for (to, expected) in newer.iter().filter(|(to, _)| *to > from && *to <= last) {
            let options = ReplayOptions { up_to: Some(*to), ..ReplayOptions::default() };
            let recovered = recover(opened, &table, None, &options);
            let mut replay = recovered.unwrap_or_else(|error| panic!("{error}")).replay;
            let found = State::of(&mut replay.tree, replay.voters);
            let place = format!("{}, raft index {from} to {to}", opened.path().display());
            self.wrong.extend(expected.differences(&found).into_iter().map(|what| format!("{place}: {what}")));
            self.entries += to.0 - from.0;
            self.nodes += expected.nodes.len() as u64;
            reached += 1;
        }
        reached
    }
}

fn state_of(snapshot: &Snapshot) -> State {
    let table = json::read(snapshot.json()).unwrap_or_else(|error| panic!("{}: {error}", snapshot.path().display()));
    State::of(&mut Tree::new(&table), Voters::from(&snapshot.conf_state))
}

impl State {
    /// Names and values as a snapshot can hold them. Of siblings whose names become the same, the last in the order of
    /// their bytes stays, with its subtree: Go writes them in that order, and reads the last.
    fn of(tree: &mut Tree<'_>, voters: Voters) -> State {
        let root = tree.lookup(b"/").unwrap();
        let mut nodes = BTreeMap::new();
        let mut open = vec![(String::new(), root)];
        while let Some((path, node)) = open.pop() {
            let children: BTreeMap<_, _> =
                tree.children(node).into_iter().map(|(name, child)| (lossy(&name), child)).collect();
            open.extend(children.into_iter().map(|(name, child)| (format!("{path}/{name}"), child)));
            nodes.insert(path, Node::of(tree, node));
        }
        State { nodes, current_index: tree.current_index, voters }
    }

    fn differences(&self, found: &State) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.current_index != found.current_index {
            wrong.push(format!("index {} expected, {} found", self.current_index, found.current_index));
        }
        if self.voters != found.voters {
            wrong.push(format!("{:?} expected, {:?} found", self.voters, found.voters));
        }
        let paths: BTreeSet<_> = self.nodes.keys().chain(found.nodes.keys()).collect();
        for path in paths {
            let (expected, found) = (self.nodes.get(path), found.nodes.get(path));
            if expected != found {
                wrong.push(format!("{path:?}: {expected:?} expected, {found:?} found"));
            }
        }
        wrong.truncate(5);
        wrong
    }
}

impl Node {
    fn of(tree: &Tree<'_>, node: NodeRef) -> Node {
        Node {
            dir: tree.is_dir(node),
            value: lossy(&tree.value(node)),
            created: tree.created(node),
            modified: tree.modified(node),
            expiry: tree.expiry(node),
        }
    }
}

/// Not `eprintln!`: the test harness hides that of a test which passes.
fn say(test: &str, proven: &Proven) {
    let Proven { pairs, from_nothing, entries, nodes, .. } = proven;
    let line = format!(
        "{test}: {pairs} pairs of snapshots and {from_nothing} from nothing; {entries} entries replayed, {nodes} nodes \
         compared\n"
    );
    let _ = std::io::stderr().write_all(line.as_bytes());
}

fn snapshot(path: &Path) -> Snapshot {
    Snapshot::of(live_copy::map(path).unwrap(), Interrupt::default()).unwrap()
}
