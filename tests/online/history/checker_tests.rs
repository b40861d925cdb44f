//! Hand-made histories: each kind of violation is found, and what etcd may rightly do is not called a violation.

use super::super::ops::{Client, History, Kind, Op, V2Answer};
use super::{Violation, check, rules};

const KEY: &str = "/app/a";

/// A history of one key. Times are in ms.
#[derive(Default)]
struct Made(History);

impl Made {
    fn op(mut self, client: Client, start: u64, end: Option<u64>, kind: Kind) -> Self {
        let end = end.map(|end| end * 1000);
        self.0.add(KEY, Op { client, kind, start: start * 1000, end, v2: None });
        self
    }

    fn v2(mut self, client: Client, times: (u64, u64), kind: Kind, index: u64, previous: Option<&str>) -> Self {
        let v2 = Some(V2Answer { index, previous: previous.map(String::from) });
        self.0.add(KEY, Op { client, kind, start: times.0 * 1000, end: Some(times.1 * 1000), v2 });
        self
    }

    fn listed(mut self, index: u64) -> Self {
        self.0.listed.insert((KEY.into(), index));
        self
    }

    /// `a` is in v2 from the start.
    fn with_a() -> Self {
        Self::default().v2(Client::First, (0, 1), put("a"), 3, None)
    }

    fn finds(self, violation: Violation) {
        let found: Vec<Violation> = check(&self.0).iter().map(|found| found.violation).collect();
        assert!(found.contains(&violation), "{found:?} in\n{}", self.0.story(KEY));
        let has_order = matches!(violation, Violation::Unlisted | Violation::ForNothing);
        assert!(found.contains(&Violation::NoOrder) || has_order, "{found:?}");
    }

    fn passes(self) {
        let found = check(&self.0);
        assert!(found.is_empty(), "{} in\n{}", found[0], self.0.story(KEY));
    }

    /// Only the search for an order finds it.
    fn has_no_order(self) {
        assert!(rules(&self.0).is_empty(), "{:?}", rules(&self.0));
        let found: Vec<Violation> = check(&self.0).iter().map(|found| found.violation).collect();
        assert_eq!(found, [Violation::NoOrder], "in\n{}", self.0.story(KEY));
    }
}

fn put(value: &str) -> Kind {
    Kind::Put { value: value.into(), ttl: None }
}

fn put_for(value: &str, seconds: u64) -> Kind {
    Kind::Put { value: value.into(), ttl: Some(seconds) }
}

fn read(value: &str) -> Kind {
    Kind::Read(Some(value.into()))
}

fn swap(expected: Option<&str>, value: &str) -> Kind {
    Kind::Swap { expected: expected.map(String::from), value: value.into() }
}

const ABSENT: Kind = Kind::Read(None);
const ONE: Client = Client::Moved(1);
const TWO: Client = Client::Moved(2);
const OLD: Client = Client::V2(9);

#[test]
fn a_value_that_nobody_wrote() {
    Made::with_a().op(ONE, 10, Some(20), read("b")).finds(Violation::NeverWritten);
    Made::with_a().op(ONE, 10, Some(20), read("b")).op(TWO, 30, Some(40), put("b")).finds(Violation::NeverWritten);
}

#[test]
fn a_deleted_key_comes_back() {
    let deleted = || Made::with_a().op(ONE, 10, Some(20), Kind::Delete);
    deleted().op(TWO, 30, Some(40), read("a")).finds(Violation::Back);
    deleted().op(Client::Last, 100, Some(110), read("a")).finds(Violation::Back);
    deleted().op(TWO, 30, Some(40), ABSENT).op(Client::Last, 100, Some(110), ABSENT).passes();
    // They overlap, or the delete has no answer.
    deleted().op(TWO, 15, Some(40), read("a")).passes();
    Made::with_a().op(ONE, 10, None, Kind::Delete).op(TWO, 30, Some(40), read("a")).passes();
    let unknown = Made::with_a().op(ONE, 10, None, Kind::Delete).op(TWO, 30, Some(40), ABSENT);
    unknown.op(TWO, 50, Some(60), read("a")).finds(Violation::Back);
}

#[test]
fn an_expired_key_comes_back() {
    let expired = || Made::default().op(ONE, 0, Some(5), put_for("t", 2)).op(TWO, 2010, Some(2020), ABSENT);
    expired().op(TWO, 2030, Some(2040), read("t")).finds(Violation::Back);
    expired().op(Client::Last, 3000, Some(3001), ABSENT).passes();
    // It came up late, or never.
    Made::default().op(ONE, 0, Some(5), put_for("t", 2)).op(TWO, 9000, Some(9010), read("t")).passes();
    // Too early.
    Made::default().op(ONE, 0, Some(5), put_for("t", 2)).op(TWO, 1500, Some(1510), ABSENT).has_no_order();
    // What v2 has below a lease that ended.
    Made::with_a()
        .op(ONE, 10, Some(20), put_for("t", 2))
        .op(TWO, 2500, Some(2510), ABSENT)
        .op(TWO, 2600, Some(2610), read("a"))
        .finds(Violation::Stale);
}

#[test]
fn a_read_is_older_than_one_before() {
    let made = Made::with_a().op(ONE, 10, Some(100), put("b")).op(TWO, 20, Some(30), read("b"));
    made.op(TWO, 40, Some(50), read("a")).finds(Violation::Older);
}

#[test]
fn a_read_is_older_than_an_acknowledged_write() {
    Made::with_a().op(ONE, 10, Some(20), put("b")).op(TWO, 30, Some(40), read("a")).finds(Violation::Stale);
    Made::with_a().op(ONE, 10, None, put("b")).op(TWO, 30, Some(40), read("a")).passes();
}

#[test]
fn an_acknowledged_write_is_lost() {
    let written = || Made::with_a().op(ONE, 10, Some(20), put("b"));
    written().op(Client::Last, 100, Some(110), read("a")).finds(Violation::Lost);
    written().op(Client::Last, 100, Some(110), ABSENT).finds(Violation::Lost);
    written().op(Client::Last, 100, Some(110), read("b")).passes();
    // One of a v2-only client, which the job should have carried over.
    let made = Made::with_a().v2(OLD, (10, 20), put("b"), 4, Some("a"));
    made.op(Client::Last, 100, Some(110), read("a")).finds(Violation::Lost);
    // Two at the same time: either may be the last.
    for last in ["b", "c"] {
        written().op(TWO, 15, Some(25), put("c")).op(Client::Last, 100, Some(110), read(last)).passes();
    }
}

#[test]
fn a_write_to_v2_after_the_key_had_moved() {
    let made = || {
        let made = Made::with_a().op(ONE, 10, Some(20), put("b")).v2(OLD, (30, 40), put("c"), 4, Some("a"));
        made.op(Client::Last, 100, Some(110), read("b"))
    };
    made().finds(Violation::Unlisted);
    made().listed(4).passes();
    // Somebody saw it after the key had moved.
    made().listed(4).op(TWO, 50, Some(60), read("c")).finds(Violation::Older);
}

#[test]
fn a_listed_write_may_have_been_seen_before_the_key_moved() {
    let made = Made::with_a().v2(OLD, (10, 20), put("b"), 4, Some("a")).listed(4).op(TWO, 25, Some(28), read("b"));
    made.op(ONE, 30, Some(40), put("c")).op(Client::Last, 100, Some(110), read("c")).passes();
}

#[test]
fn a_write_to_v2_says_what_was_there() {
    let made = Made::with_a().op(ONE, 10, None, put("b")).v2(OLD, (30, 40), put("c"), 4, Some("x"));
    made.has_no_order();
}

#[test]
fn two_swaps_succeed_on_one_value() {
    let made = Made::with_a().op(ONE, 10, Some(20), swap(Some("a"), "b")).op(TWO, 12, Some(22), swap(Some("a"), "c"));
    made.has_no_order();
    let made = Made::with_a().op(ONE, 10, Some(20), swap(Some("a"), "b")).op(TWO, 12, Some(22), swap(Some("b"), "c"));
    made.op(Client::Last, 100, Some(110), read("c")).passes();
    Made::with_a().op(ONE, 10, Some(20), swap(None, "b")).has_no_order();
    Made::default().op(ONE, 10, Some(20), swap(None, "b")).op(TWO, 30, Some(40), read("b")).passes();
}

#[test]
fn a_swap_does_not_see_a_listed_write_of_its_own_time() {
    let made = |start, end| {
        let made = Made::with_a().op(ONE, 10, Some(50), swap(Some("a"), "c"));
        let made = made.v2(OLD, (start, end), put("b"), 4, Some("a")).listed(4);
        made.op(TWO, end + 1, Some(end + 3), read("b")).op(TWO, 60, Some(70), read("c"))
    };
    made(20, 30).passes();
    made(2, 5).has_no_order();
}

#[test]
fn many_writes_without_an_answer() {
    let mut made = Made::with_a();
    for at in 0..30 {
        made = made.op(Client::Moved(at), 10, None, put(&format!("u{at}")));
    }
    for at in 0..12 {
        let time = 100 + 10 * at;
        made = made.op(ONE, time, Some(time + 5), read(&format!("u{at}")));
    }
    made.op(ONE, 900, Some(910), read("u29")).passes();
}

#[test]
fn a_range_of_indexes_that_the_job_does_not_know_counts_as_listed() {
    let made = |unknown| {
        let mut made = Made::with_a().op(ONE, 10, Some(20), put("b")).v2(OLD, (30, 40), put("c"), 4, Some("a"));
        made.0.unknown.insert(unknown);
        made.op(Client::Last, 100, Some(110), read("b"))
    };
    made((3, 4)).passes();
    made((4, 9)).finds(Violation::Unlisted);
    made((1, 3)).finds(Violation::Unlisted);
}

#[test]
fn a_conflict_needs_a_client_that_moved_the_key() {
    let made = || Made::with_a().v2(Client::V2(0), (2, 3), put("b"), 4, Some("a"));
    let listed = |mut made: Made| {
        made.0.listed.insert((KEY.into(), 4));
        made.0.moved.insert((KEY.into(), 4));
        made
    };
    listed(made()).finds(Violation::ForNothing);
    listed(made().op(Client::Moved(0), 5, Some(6), read("b"))).finds(Violation::ForNothing);
    listed(made().op(Client::Moved(0), 5, Some(6), put("c"))).passes();
    listed(made().op(Client::Moved(0), 5, None, Kind::Delete)).passes();
    made().listed(4).passes();
}
