//! The job against stores in memory: random clients of v2 and v3, and a job that is killed again and again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::carry::Counters;
use super::copy::{Context, CopyOptions, copy};
use super::finish::finish;
use super::names::tests::job;
use super::reconcile::Pace;
use super::session::Limits;
use super::state::{self, Conflict, Keys, STATE_PREFIX, SWITCH_KEY, Why};
use super::switch::{SwitchOptions, switch};
use super::undo::undo;
use super::v2::{Change, Effect, Head, Next, Node, V2};
use super::v3::memory::Memory;
use super::verify::{Difference, verify};
use crate::error::{Error, Reason, Result};
use crate::ids::V2Index;
use crate::interrupt::Interrupt;
use crate::options::Rules;
use crate::transform::rules::is_below;

mod ends;
mod owners;
mod swap;

const LIMITS: Limits = Limits { operations: 128, bytes: 1 << 20 };

/// A v2 store: its log is all that ever happened.
#[derive(Clone, Default)]
struct Store {
    log: Arc<Mutex<Vec<Change>>>,
}

impl Store {
    fn set(&self, path: &str, value: &str) -> u64 {
        let mut log = self.log.lock().unwrap();
        let index = V2Index(log.len() as u64 + 1);
        let (path, value) = (path.into(), value.into());
        let node = Node { path, value, created: index, modified: index, expiry: None };
        log.push(Change { index, action: "set", effect: Effect::Set(node) });
        index.0
    }

    /// Changes when a key expires, without an index.
    fn expires(&self, path: &str, at: Option<jiff::Timestamp>) {
        for change in &mut *self.log.lock().unwrap() {
            if let Effect::Set(node) = &mut change.effect
                && node.path == path.as_bytes()
            {
                node.expiry = at;
            }
        }
    }

    /// Deletes a key, or a directory with what is below it.
    fn delete(&self, path: &str) -> u64 {
        let mut log = self.log.lock().unwrap();
        let index = V2Index(log.len() as u64 + 1);
        let is_dir = state_of(&log).keys().any(|key| is_below(path.as_bytes(), key) && key != path.as_bytes());
        let effect = if is_dir { Effect::GoneDir(path.into()) } else { Effect::Gone(path.into()) };
        log.push(Change { index, action: "delete", effect });
        index.0
    }

    fn state(&self) -> (BTreeMap<Vec<u8>, Node>, u64) {
        let log = self.log.lock().unwrap();
        (state_of(&log), log.len() as u64)
    }

    /// A source like the v2 API, with or without the events of the past.
    fn source(&self, history: bool) -> Source {
        Source { store: self.clone(), at: 0, history, lose: false, names: false, names_past: false }
    }

    /// A source like a data directory, which names the keys that go with their directory.
    fn directory(&self) -> Source {
        Source { names: true, names_past: true, ..self.source(true) }
    }

    /// Returns a change with the names of all its keys.
    fn named(&self, change: Change) -> Vec<Change> {
        let Effect::GoneDir(path) = &change.effect else { return vec![change] };
        let before = state_of(&self.log.lock().unwrap()[..change.index.0 as usize - 1]);
        let below = before.into_keys().filter(|key| is_below(path, key));
        below.map(|key| Change { effect: Effect::Gone(key), ..change }).collect()
    }
}

fn state_of(log: &[Change]) -> BTreeMap<Vec<u8>, Node> {
    let mut state: BTreeMap<Vec<u8>, Node> = BTreeMap::new();
    for change in log {
        match &change.effect {
            Effect::Set(node) => drop(state.insert(node.path.clone(), node.clone())),
            Effect::Gone(path) => drop(state.remove(path)),
            Effect::GoneDir(path) => state.retain(|key, _| !is_below(path, key)),
        }
    }
    state
}

struct Source {
    store: Store,
    at: usize,
    history: bool,
    lose: bool,
    /// Whether it names the keys that go with their directory; in the past too.
    names: bool,
    names_past: bool,
}

impl V2 for Source {
    fn cluster(&mut self) -> Result<String> {
        Ok("cluster".into())
    }

    fn name_keys(&mut self) {
        self.names = true;
    }

    fn state(&mut self, each: &mut dyn FnMut(Node) -> Result<()>) -> Result<Head> {
        let (state, index) = self.store.state();
        self.at = index as usize;
        state.into_values().try_for_each(each)?;
        Ok(Head { index: V2Index(index), ..Head::default() })
    }

    fn since(&mut self, index: V2Index, each: &mut dyn FnMut(Change) -> Result<()>) -> Result<bool> {
        if self.history {
            let log = self.store.log.lock().unwrap()[index.0 as usize..self.at].to_vec();
            let named = |change| if self.names_past { self.store.named(change) } else { vec![change] };
            log.into_iter().flat_map(named).try_for_each(each)?;
        }
        Ok(self.history)
    }

    fn next(&mut self, wait: Duration) -> Result<Next> {
        let until = Instant::now() + wait.min(Duration::from_millis(20));
        loop {
            let log = self.store.log.lock().unwrap();
            let mut changes: Vec<Change> = log[self.at..].iter().take(7).cloned().collect();
            if std::mem::take(&mut self.lose) {
                return Ok(Next::Lost("the test says so".into()));
            }
            drop(log);
            if let Some(index) = changes.last().map(|last| last.index) {
                self.at = index.0 as usize;
                if self.names {
                    changes = changes.into_iter().flat_map(|change| self.store.named(change)).collect();
                }
                let head = Head { index, ..Head::default() };
                return Ok(if changes.is_empty() { Next::Quiet(head) } else { Next::Changes { head, changes } });
            }
            if Instant::now() > until {
                return Ok(Next::Quiet(Head { index: V2Index(self.at as u64), ..Head::default() }));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn options(once: bool) -> CopyOptions {
    CopyOptions {
        job: job(Rules::default()),
        keys: keys(),
        once,
        pace: Pace { in_flight: 4, rate_limit: None },
        limits: LIMITS,
        lock_seconds: 1,
    }
}

fn keys() -> Keys {
    Keys::new(STATE_PREFIX, SWITCH_KEY)
}

fn context(kv: &Memory) -> Context<'_> {
    Context { kv, interrupt: Interrupt::default(), tell: &|_| {} }
}

fn once(kv: &Memory, source: &mut Source) -> Head {
    copy(&context(kv), source, &options(true), &Counters::default()).unwrap()
}

fn conflicts(kv: &Memory) -> Vec<Conflict> {
    let mut all = Vec::new();
    state::conflicts(kv, &keys(), |conflict| {
        all.push(conflict);
        Ok(())
    })
    .unwrap();
    all
}

/// The TTL of a directory changes without the index of the keys below it.
#[test]
fn a_second_copy_repairs_leases() {
    let (kv, store) = (Memory::default(), Store::default());
    let until = |seconds| Some(jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds));
    store.set("/svc/a", "x");
    store.set("/svc/b", "x");
    store.expires("/svc/a", until(600));
    once(&kv, &mut store.source(true));
    let leases = || ["/svc/a", "/svc/b"].map(|key| kv.get(key).unwrap().lease != 0);
    assert_eq!(leases(), [true, false]);
    store.expires("/svc/a", None);
    store.expires("/svc/b", until(600));
    let found = verify(&context(&kv), &mut store.source(true), &keys(), &mut |_| Ok(())).unwrap();
    assert_eq!((found.equal, found.differing), (0, 2));
    once(&kv, &mut store.source(true));
    assert_eq!(leases(), [false, true]);
    let found = verify(&context(&kv), &mut store.source(true), &keys(), &mut |_| Ok(())).unwrap();
    assert_eq!((found.equal, found.differing), (2, 0));
}

#[test]
fn a_switch_that_is_on_already_is_refused() {
    let (kv, store) = (Memory::default(), Store::default());
    store.set("/a", "x");
    kv.put(SWITCH_KEY, "true");
    let error = copy(&context(&kv), &mut store.source(true), &options(true), &Counters::default()).unwrap_err();
    assert_eq!(error.reason(), Reason::StateDiffers);
    assert!(kv.keys("/a").is_empty() && kv.keys(STATE_PREFIX).is_empty(), "{:?}", kv.keys(STATE_PREFIX));
}

/// A key that the switch did not have is not taken for one that was deleted after it.
#[test]
fn undo_does_not_hide_what_was_never_copied() {
    let (kv, store) = (Memory::default(), Store::default());
    store.set("/kept", "x");
    store.set("/locks/a", "x");
    store.expires("/locks/a", Some(jiff::Timestamp::now() + jiff::SignedDuration::from_secs(600)));
    let mut options = options(true);
    options.job.ttl = vec![crate::options::TtlRule { prefix: None, policy: crate::options::TtlPolicy::Drop }];
    copy(&context(&kv), &mut store.source(true), &options, &Counters::default()).unwrap();
    switch(&context(&kv), &mut store.source(true), &keys(), SwitchOptions::default()).unwrap();
    kv.delete("/kept");
    undo(&context(&kv), &mut store.source(true), &keys(), LIMITS, 1).unwrap();
    assert_eq!(kv.keys("etcdlift/online/moved/"), ["etcdlift/online/moved//kept"]);
    assert_eq!(kv.value(SWITCH_KEY).as_deref(), Some("false"));
}

#[test]
fn undo_does_not_hide_what_v2_got_after_the_switch() {
    let (kv, store) = (Memory::default(), Store::default());
    store.set("/kept", "x");
    once(&kv, &mut store.source(true));
    switch(&context(&kv), &mut store.source(true), &keys(), SwitchOptions::default()).unwrap();
    kv.delete("/kept");
    let late = store.set("/late", "x");
    once(&kv, &mut store.source(true));
    assert_eq!(conflicts(&kv).iter().map(|c| (c.why, c.index)).collect::<Vec<_>>(), [(Why::AfterSwitch, late)]);
    undo(&context(&kv), &mut store.source(true), &keys(), LIMITS, 1).unwrap();
    assert_eq!(kv.keys("etcdlift/online/moved/"), ["etcdlift/online/moved//kept"]);
    once(&kv, &mut store.source(true));
    assert_eq!(kv.value("/late").as_deref(), Some("x"), "v2 leads it again");
}

#[test]
fn another_kind_of_source_is_refused() {
    struct Api(Source);
    impl V2 for Api {
        fn cluster(&mut self) -> Result<String> {
            self.0.cluster()
        }
        fn shows_hidden_keys(&self) -> bool {
            false
        }
        fn state(&mut self, each: &mut dyn FnMut(Node) -> Result<()>) -> Result<Head> {
            self.0.state(each)
        }
        fn next(&mut self, wait: Duration) -> Result<Next> {
            self.0.next(wait)
        }
    }
    let (kv, store) = (Memory::default(), Store::default());
    store.set("/_hidden/a", "x");
    once(&kv, &mut store.source(true));
    let api = || Api(store.source(true));
    let copied = copy(&context(&kv), &mut api(), &options(true), &Counters::default()).map(drop);
    let verified = verify(&context(&kv), &mut api(), &keys(), &mut |_| Ok(())).map(drop);
    let undone = undo(&context(&kv), &mut api(), &keys(), LIMITS, 1).map(drop);
    let switched = switch(&context(&kv), &mut api(), &keys(), SwitchOptions::default()).map(drop);
    for result in [copied, verified, undone, switched] {
        assert_eq!(result.unwrap_err().reason(), Reason::StateDiffers);
    }
    assert_eq!(kv.value("/_hidden/a").as_deref(), Some("x"));
}

#[test]
fn a_copy_has_every_key_and_a_second_one_what_changed() {
    let (kv, store) = (Memory::default(), Store::default());
    for number in 0..1000 {
        store.set(&format!("/k/{number}"), &format!("v{number}"));
    }
    assert_eq!(once(&kv, &mut store.source(true)).index, V2Index(1000));
    assert_eq!(kv.keys("/k/").len(), 1000);
    store.set("/k/1", "new");
    store.delete("/k/2");
    store.set("/other", "x");
    once(&kv, &mut store.source(false));
    assert_eq!(kv.value("/k/1").as_deref(), Some("new"));
    assert_eq!((kv.value("/k/2"), kv.value("/other").as_deref()), (None, Some("x")));
    let found = verify(&context(&kv), &mut store.source(false), &keys(), &mut |_| Ok(())).unwrap();
    assert_eq!((found.equal, found.differing), (1000, 0));
    assert!(conflicts(&kv).is_empty());
    assert!(kv.value("etcdlift/online/lock").is_none());
}

#[test]
fn what_v3_leads_is_never_touched_and_changes_that_meet_it_are_listed() {
    let (kv, store) = (Memory::default(), Store::default());
    for key in ["/a", "/b", "/c", "/dir/x", "/dir/y"] {
        store.set(key, "v2");
    }
    kv.put("/c", "foreign");
    once(&kv, &mut store.source(false));
    kv.put_moved("/a", "v3");
    kv.put_moved("/dir/x", "v3");
    let a = store.set("/a", "lost");
    let dir = store.delete("/dir");
    once(&kv, &mut store.source(true));
    assert_eq!(kv.value("/a").as_deref(), Some("v3"));
    assert_eq!((kv.value("/dir/x").as_deref(), kv.value("/dir/y")), (Some("v3"), None));
    assert_eq!(kv.value("/c").as_deref(), Some("foreign"));
    assert!(kv.get("etcdlift/online/moved//c").is_some());
    let found: Vec<(Why, u64, String)> =
        conflicts(&kv).into_iter().map(|conflict| (conflict.why, conflict.index, conflict.key)).collect();
    let expected = [(Why::Foreign, 3, "/c".into()), (Why::Moved, a, "/a".into()), (Why::Moved, dir, "/dir/x".into())];
    assert_eq!(found, expected);
}

#[test]
fn a_directory_that_goes_takes_its_subtree() {
    let (kv, store) = (Memory::default(), Store::default());
    for number in 0..200 {
        store.set(&format!("/dir/{number}/x"), "v");
    }
    store.set("/dirt", "v");
    with_job(&kv, &store, |wait| {
        kv.put_moved("/dir/7/x", "v3");
        kv.put("/dir/foreign", "v3");
        wait(store.delete("/dir"));
        wait(store.set("/dir/again", "v"));
    });
    assert_eq!(kv.keys("/dir"), ["/dir/7/x", "/dir/again", "/dir/foreign", "/dirt"]);
    let found: Vec<(Why, String)> = conflicts(&kv).into_iter().map(|c| (c.why, c.key)).collect();
    assert_eq!(found, [(Why::Moved, "/dir/7/x".into()), (Why::Foreign, "/dir/foreign".into())]);
}

/// Runs a job beside `work`, which gets a function that waits until the job has reached an index.
fn with_job(kv: &Memory, store: &Store, work: impl FnOnce(&dyn Fn(u64))) {
    with_job_of(kv, store.source(true), &options(false), work);
}

fn with_job_of(kv: &Memory, source: Source, options: &CopyOptions, work: impl FnOnce(&dyn Fn(u64))) {
    let store = source.store.clone();
    let mut source = source;
    /// Ends the job if the work panics, too.
    struct Stop<'s>(&'s AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    let ask = || match stop.load(Ordering::Relaxed) {
        true => Err(Error::new(Reason::Interrupted(15), "stop")),
        false => Ok(()),
    };
    let counters = Counters::default();
    thread::scope(|scope| {
        let job = scope.spawn(|| {
            let context = Context { interrupt: Interrupt::new(&ask), ..context(kv) };
            copy(&context, &mut source, options, &counters).unwrap_err().reason()
        });
        let wait = |index| {
            let until = Instant::now() + Duration::from_secs(20);
            while counters.index.load(Ordering::Relaxed) < index && !job.is_finished() {
                assert!(Instant::now() < until, "the job does not reach {index}");
                thread::sleep(Duration::from_millis(2));
            }
        };
        let stops = Stop(&stop);
        let index = store.state().1;
        wait(index);
        work(&wait);
        drop(stops);
        assert_eq!(job.join().unwrap(), Reason::Interrupted(15));
    });
}

#[test]
fn switch_undo_and_finish() {
    let (kv, store) = (Memory::default(), Store::default());
    for key in ["/a", "/b", "/c"] {
        store.set(key, "v2");
    }
    let context = context(&kv);
    let off = |force| SwitchOptions { force, ..SwitchOptions::default() };
    assert_eq!(
        switch(&context, &mut store.source(false), &keys(), off(false)).unwrap_err().reason(),
        Reason::StateMissing
    );
    once(&kv, &mut store.source(false));
    kv.put_moved("/a", "v3");
    assert_eq!(finish(&context, &keys(), false, 1, &mut || Ok(())).unwrap_err().reason(), Reason::NotSwitched);
    let done = switch(&context, &mut store.source(false), &keys(), off(false)).unwrap();
    assert_eq!((done.before, done.later, kv.value("etcdlift/switch").as_deref()), (false, 0, Some("true")));
    // Normal mode: no markers.
    kv.put("/b", "normal");
    kv.delete("/c");
    kv.put("/new", "normal");
    let back = undo(&context, &mut store.source(false), &keys(), LIMITS, 1).unwrap();
    assert_eq!((back.deleted, back.marked), (0, 3));
    assert_eq!(kv.keys("etcdlift/online/moved/").len(), 4);
    assert_eq!((kv.value("/b").as_deref(), kv.value("/c")), (Some("normal"), None));
    assert_eq!(kv.value("etcdlift/switch").as_deref(), Some("false"));
    // And once more to the end.
    once(&kv, &mut store.source(false));
    assert_eq!(kv.value("/c"), None, "a deleted key does not come back");
    switch(&context, &mut store.source(false), &keys(), off(false)).unwrap();
    let late = store.set("/a", "late");
    once(&kv, &mut store.source(true));
    assert_eq!(conflicts(&kv).iter().map(|c| (c.why, c.index)).collect::<Vec<_>>(), [(Why::AfterSwitch, late)]);
    assert_eq!(finish(&context, &keys(), false, 1, &mut || Ok(())).unwrap_err().reason(), Reason::ConflictsOpen);
    finish(&context, &keys(), true, 1, &mut || Ok(())).unwrap();
    assert_eq!(kv.keys("etcdlift/"), ["etcdlift/switch"]);
    assert_eq!(kv.keys("/"), ["/a", "/b", "/new"]);
}

#[test]
fn an_undo_before_the_switch_removes_what_the_job_wrote() {
    let (kv, store) = (Memory::default(), Store::default());
    for number in 0..300 {
        store.set(&format!("/{number}"), "v");
    }
    once(&kv, &mut store.source(false));
    kv.put_moved("/7", "v3");
    kv.put("/8", "foreign");
    let back = undo(&context(&kv), &mut store.source(false), &keys(), LIMITS, 1).unwrap();
    assert_eq!((back.deleted, back.marked), (298, 1));
    assert_eq!(kv.keys("/"), ["/7", "/8"]);
}

#[test]
fn a_switch_is_refused_while_v3_lags_or_differs() {
    let (kv, store) = (Memory::default(), Store::default());
    store.set("/a", "v2");
    once(&kv, &mut store.source(false));
    kv.delete("/a");
    let found = verify(&context(&kv), &mut store.source(false), &keys(), &mut |_| Ok(())).unwrap();
    assert_eq!(found.differences[0].what, Difference::Missing);
    let error = switch(&context(&kv), &mut store.source(false), &keys(), SwitchOptions::default()).unwrap_err();
    assert_eq!(error.reason(), Reason::NotClean);
    let forced = SwitchOptions { force: true, ..SwitchOptions::default() };
    assert!(!switch(&context(&kv), &mut store.source(false), &keys(), forced).unwrap().before);
}

#[test]
fn an_undo_that_was_interrupted_must_end_first() {
    let (kv, store) = (Memory::default(), Store::default());
    store.set("/a", "v2");
    once(&kv, &mut store.source(false));
    switch(&context(&kv), &mut store.source(false), &keys(), SwitchOptions::default()).unwrap();
    // Deleted in normal mode, so without a marker. Then an undo that was killed.
    kv.delete("/a");
    kv.put(SWITCH_KEY, "undo");
    let copied = copy(&context(&kv), &mut store.source(false), &options(true), &Counters::default());
    let switched = switch(&context(&kv), &mut store.source(false), &keys(), SwitchOptions::default());
    assert_eq!(
        (copied.unwrap_err().reason(), switched.unwrap_err().reason()),
        (Reason::StateDiffers, Reason::StateDiffers)
    );
    undo(&context(&kv), &mut store.source(false), &keys(), LIMITS, 1).unwrap();
    once(&kv, &mut store.source(false));
    assert_eq!(kv.value("/a"), None, "a deleted key does not come back");
}

#[test]
fn a_switch_waits_until_all_is_copied() {
    let (kv, store) = (Memory::default(), Store::default());
    store.set("/a", "v2");
    once(&kv, &mut store.source(false));
    // A job that was killed after the last key of the copy.
    let progress = kv.value("etcdlift/online/progress").unwrap();
    kv.put("etcdlift/online/progress", &progress.replace("following", "copying"));
    // Nor in any other case: an undo could not tell what was never copied from what was deleted.
    for force in [false, true] {
        let options = SwitchOptions { force, ..SwitchOptions::default() };
        let error = switch(&context(&kv), &mut store.source(false), &keys(), options).unwrap_err();
        assert_eq!(error.reason(), Reason::Lagging, "{error}");
        assert_eq!(kv.value(SWITCH_KEY), None);
    }
    once(&kv, &mut store.source(false));
    switch(&context(&kv), &mut store.source(false), &keys(), SwitchOptions::default()).unwrap();
}

#[test]
fn an_undo_after_a_part_of_a_finish_is_refused() {
    let (kv, store) = (Memory::default(), Store::default());
    store.set("/a", "v2");
    once(&kv, &mut store.source(false));
    kv.delete("etcdlift/online/progress");
    let undone = undo(&context(&kv), &mut store.source(false), &keys(), LIMITS, 1);
    assert_eq!(undone.unwrap_err().reason(), Reason::StateDiffers);
}

#[test]
fn another_migration_is_refused() {
    let (kv, store) = (Memory::default(), Store::default());
    store.set("/a", "v2");
    once(&kv, &mut store.source(false));
    let rules = Rules { strip_leading_slash: true, ..Rules::default() };
    let other = CopyOptions { job: job(rules), ..options(true) };
    let error = copy(&context(&kv), &mut store.source(false), &other, &Counters::default()).unwrap_err();
    assert_eq!(error.reason(), Reason::StateDiffers);
}

/// A generator that is the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Clients of v2 and v3, a job that dies at random requests, answers that are lost, and changes that are lost. In the end,
/// every key is what its leader says, and every change of v2 that met a moved key is listed.
#[test]
fn a_killed_job_loses_nothing() {
    for seed in 1..=40 {
        let mut random = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let (kv, store) = (Memory::default(), Store::default());
        let source = || if seed % 2 == 0 { store.directory() } else { store.source(true) };
        kv.twice.store(random.below(9), Ordering::Relaxed);
        let mut moved: BTreeMap<String, Option<String>> = BTreeMap::new();
        let mut met: Vec<(u64, String)> = Vec::new();
        let key = |random: &mut Random| format!("/{}/{}", random.below(4), random.below(12));
        for number in 0..60 {
            store.set(&key(&mut random), &number.to_string());
        }
        once(&kv, &mut store.source(false));
        for round in 0..12 {
            kv.die_after(5 + random.below(60));
            let dead = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    let mut source = source();
                    source.lose = seed % 3 == 0;
                    let ended = copy(&context(&kv), &mut source, &options(false), &Counters::default());
                    assert_eq!(ended.unwrap_err().reason(), Reason::Unreachable);
                    dead.store(true, Ordering::Relaxed);
                });
                let mut number = 0;
                while !dead.load(Ordering::Relaxed) {
                    number += 1;
                    let (key, value) = (key(&mut random), format!("{round}.{number}"));
                    match random.below(12) {
                        0 => {
                            kv.put_moved(&key, &value);
                            moved.insert(key, Some(value));
                        }
                        1 => {
                            kv.delete_moved(&key);
                            moved.insert(key, None);
                        }
                        2 => {
                            let (dir, (before, _)) = (format!("/{}", random.below(4)), store.state());
                            let index = store.delete(&dir);
                            let below = before.into_keys().filter(|key| is_below(dir.as_bytes(), key));
                            // The v2 API does not name the keys; those that v3 has no more are not listed.
                            let below = below.map(|key| String::from_utf8(key).unwrap()).filter(|_| seed % 2 == 0);
                            met.extend(
                                below.filter(|key| moved.get(key).is_some_and(Option::is_some)).map(|key| (index, key)),
                            );
                        }
                        3 | 4 => {
                            let index = store.delete(&key);
                            if moved.get(&key).is_some_and(Option::is_some) {
                                met.push((index, key));
                            }
                        }
                        _ => {
                            let index = store.set(&key, &value);
                            if moved.contains_key(&key) {
                                met.push((index, key));
                            }
                        }
                    }
                    thread::sleep(Duration::from_micros(random.below(300)));
                }
            });
        }
        kv.die_after(0);
        once(&kv, &mut source());
        let (state, _) = store.state();
        for key in (0..48).map(|number| format!("/{}/{}", number / 12, number % 12)) {
            let v2 = state.get(key.as_bytes()).map(|node| String::from_utf8(node.value.clone()).unwrap());
            let expected = moved.get(&key).cloned().unwrap_or(v2);
            assert_eq!(kv.value(&key), expected, "seed {seed}: {key}");
        }
        let listed: Vec<(u64, String)> = conflicts(&kv).into_iter().map(|c| (c.index, c.key)).collect();
        for one in &met {
            assert!(listed.contains(one), "seed {seed}: {one:?} is not listed");
        }
        assert!(conflicts(&kv).iter().all(|conflict| conflict.why == Why::Moved), "seed {seed}");
        let found = verify(&context(&kv), &mut store.source(false), &keys(), &mut |_| Ok(())).unwrap();
        assert_eq!(found.differing, 0, "seed {seed}: {found:?}");
    }
}
