//! Rules that give one name to several v2 keys, and directories whose names rules change.

use proptest::prelude::*;

use super::*;
use crate::options::rules::{Pattern, Rename};

/// `/a`, `/b` and `/c` all become `/n`.
fn mapped(once: bool) -> CopyOptions {
    let rename = |from: &str| Rename { from: Pattern::Prefix(from.into()), to: "/n".into() };
    let rules = Rules { rename: ["/a", "/b", "/c"].map(rename).to_vec(), ..Rules::default() };
    CopyOptions { job: job(rules), ..options(once) }
}

fn mapped_once(kv: &Memory, mut source: Source) {
    copy(&context(kv), &mut source, &mapped(true), &Counters::default()).unwrap();
}

fn listed(kv: &Memory) -> Vec<(Why, u64, String)> {
    conflicts(kv).into_iter().map(|conflict| (conflict.why, conflict.index, conflict.key)).collect()
}

#[test]
fn a_first_copy_with_one_name_for_two_keys_is_refused() {
    let (kv, store) = (Memory::default(), Store::default());
    store.set("/a/x", "a");
    store.set("/b/x", "b");
    for _ in 0..2 {
        let error = copy(&context(&kv), &mut store.directory(), &mapped(true), &Counters::default()).unwrap_err();
        assert_eq!(error.reason(), Reason::RulesFailed);
    }
    store.delete("/b/x");
    mapped_once(&kv, store.directory());
    assert_eq!(kv.value("/n/x").as_deref(), Some("a"));
}

#[test]
fn the_first_key_has_a_name_and_the_next_one_gets_it() {
    for source in [Store::directory, |store: &Store| store.source(true)] {
        let (kv, store) = (Memory::default(), Store::default());
        store.set("/b/x", "b");
        mapped_once(&kv, source(&store));
        let mut expected = Vec::new();
        with_job_of(&kv, source(&store), &mapped(false), |wait| {
            for value in ["a1", "a2"] {
                let index = store.set("/a/x", value);
                wait(index);
                expected.push((Why::NameTaken, index, "/a/x".to_string()));
                assert_eq!(kv.value("/n/x").as_deref(), Some("b"));
            }
            wait(store.set("/b/x", "b2"));
            assert_eq!(kv.value("/n/x").as_deref(), Some("b2"));
        });
        // A job that starts again reads `/a/x` first.
        with_job_of(&kv, source(&store), &mapped(false), |wait| {
            assert_eq!(kv.value("/n/x").as_deref(), Some("b2"));
            let found = verify(&context(&kv), &mut source(&store), &keys(), &mut |_| Ok(())).unwrap();
            assert_eq!((found.equal, found.differing), (1, 1));
            wait(store.delete("/b"));
            assert_eq!(kv.value("/n/x").as_deref(), Some("a2"));
            wait(store.set("/a/x", "a3"));
            assert_eq!(kv.value("/n/x").as_deref(), Some("a3"));
            wait(store.delete("/a/x"));
            assert_eq!(kv.value("/n/x"), None);
        });
        assert_eq!(listed(&kv), expected);
    }
}

/// The key that has the name goes while no job runs.
#[test]
fn a_name_that_is_free_goes_to_the_next_key_after_a_restart() {
    let (kv, store) = (Memory::default(), Store::default());
    store.set("/a/x", "a");
    mapped_once(&kv, store.directory());
    store.set("/b/x", "b");
    store.set("/later", "x");
    mapped_once(&kv, store.directory());
    assert_eq!(kv.value("/n/x").as_deref(), Some("a"));
    store.delete("/a/x");
    mapped_once(&kv, store.directory());
    assert_eq!(kv.value("/n/x").as_deref(), Some("b"));
    let found = verify(&context(&kv), &mut store.directory(), &keys(), &mut |_| Ok(())).unwrap();
    assert_eq!((found.equal, found.differing), (2, 0));
}

/// The key whose turn it is gets the name, wherever the job dies between the two.
#[test]
fn a_name_that_changes_its_key_while_a_job_dies() {
    for (runs, die) in [true, false].into_iter().flat_map(|runs| (1..40).map(move |die| (runs, die))) {
        let (kv, store) = (Memory::default(), Store::default());
        store.set("/a/x", "a");
        mapped_once(&kv, store.directory());
        with_job_of(&kv, store.directory(), &mapped(false), |wait| {
            store.set("/b/x", "b");
            store.set("/c/x", "c");
            // The value of the first key is right as of a later index than those of the keys that wait.
            wait(store.set("/a/x", "again"));
        });
        assert_eq!(kv.value("/n/x").as_deref(), Some("again"));
        if !runs {
            store.delete("/a/x");
        }
        with_job_that_dies(&kv, &store, store.directory(), die, |_| {
            if runs {
                store.set("/go", "x");
                let follows = || kv.value("/go").is_some();
                (0..100).take_while(|_| !follows()).for_each(|_| thread::sleep(Duration::from_micros(200)));
                store.delete("/a/x");
            }
        });
        mapped_once(&kv, store.directory());
        assert_eq!(kv.value("/n/x").as_deref(), Some("b"), "runs: {runs}, dies after {die}");
        assert!(listed(&kv).iter().any(|(why, _, key)| (*why, key.as_str()) == (Why::NameTaken, "/c/x")));
    }
}

/// A key that waits for others with its name is listed with the index that v2 gave it.
#[test]
fn a_change_of_a_moved_name_is_listed_with_its_own_index() {
    let (kv, store) = (Memory::default(), Store::default());
    store.set("/b/x", "b");
    mapped_once(&kv, store.directory());
    let index = store.set("/c/x", "c");
    mapped_once(&kv, store.directory());
    store.delete("/c/x");
    store.delete("/b/x");
    mapped_once(&kv, store.directory());
    kv.put_moved("/n/x", "v3");
    let late = store.set("/a/x", "a");
    store.set("/later", "x");
    mapped_once(&kv, store.directory());
    assert_eq!(kv.value("/n/x").as_deref(), Some("v3"));
    let expected = [(Why::NameTaken, index, "/c/x".to_string()), (Why::Moved, late, "/a/x".to_string())];
    assert_eq!(listed(&kv), expected);
}

#[test]
fn undo_and_finish_with_one_name_for_two_keys() {
    let (kv, store) = (Memory::default(), Store::default());
    store.set("/a/x", "a");
    mapped_once(&kv, store.directory());
    store.set("/b/x", "b");
    mapped_once(&kv, store.directory());
    let forced = SwitchOptions { force: true, ..SwitchOptions::default() };
    switch(&context(&kv), &mut store.directory(), &keys(), forced).unwrap();
    kv.delete("/n/x");
    let back = undo(&context(&kv), &mut store.directory(), &keys(), LIMITS, 1).unwrap();
    assert_eq!((back.deleted, back.marked), (0, 1));
    assert!(kv.keys("etcdlift/online/owner").is_empty());
    // As in any first copy.
    let error = copy(&context(&kv), &mut store.directory(), &mapped(true), &Counters::default()).unwrap_err();
    assert_eq!(error.reason(), Reason::RulesFailed);
    store.delete("/a");
    mapped_once(&kv, store.directory());
    store.set("/c/x", "c");
    mapped_once(&kv, store.directory());
    switch(&context(&kv), &mut store.directory(), &keys(), forced).unwrap();
    finish(&context(&kv), &keys(), true, 1, &mut || Ok(())).unwrap();
    assert_eq!(kv.keys("etcdlift/"), [SWITCH_KEY]);
}

/// The v2 API names no key of a directory that goes. While the job runs it knows them; else it says what it does not know.
#[test]
fn a_directory_with_mapped_names_that_goes() {
    for (source, knows) in [(Store::directory as fn(&Store) -> Source, true), (|store| store.source(true), false)] {
        let (kv, store) = (Memory::default(), Store::default());
        for key in ["/a/x", "/a/y", "/b/z"] {
            store.set(key, "v");
        }
        mapped_once(&kv, source(&store));
        let mut gone = 0;
        with_job_of(&kv, source(&store), &mapped(false), |wait| {
            kv.put("/n/only-v3", "x");
            kv.put_moved("/n/x", "v3");
            gone = store.delete("/a");
            wait(gone);
        });
        assert_eq!(kv.keys("/"), ["/n/only-v3", "/n/x", "/n/z"]);
        assert_eq!(listed(&kv), [(Why::Moved, gone, "/a/x".into())]);
        kv.put_moved("/n/z", "v3");
        let late = store.delete("/b");
        mapped_once(&kv, source(&store));
        let expected = if knows { (Why::Moved, late, "/b/z") } else { (Why::UnknownKeys, late, "/b") };
        assert_eq!(listed(&kv)[1..], [(expected.0, expected.1, expected.2.to_string())]);
    }
}

/// A progress that covers a part of an index would lose the rest of its changes.
#[test]
fn changes_of_one_index_are_passed_together() {
    for die in 1..12 {
        let (kv, store) = (Memory::default(), Store::default());
        let keys: Vec<String> = (0..150).map(|number| format!("/a/{number:03}")).collect();
        keys.iter().for_each(|key| assert!(store.set(key, "v") > 0));
        once(&kv, &mut store.directory());
        keys.iter().for_each(|key| kv.put_moved(key, "v3"));
        let counters = Counters::default();
        let index = thread::scope(|scope| {
            let job = scope.spawn(|| copy(&context(&kv), &mut store.directory(), &options(false), &counters).map(drop));
            while counters.index.load(Ordering::Relaxed) < 150 {
                thread::sleep(Duration::from_millis(1));
            }
            // Until it follows.
            thread::sleep(Duration::from_millis(20));
            kv.die_after(die);
            let index = store.delete("/a");
            while !job.is_finished() {
                store.set("/tick", "x");
                thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(job.join().unwrap().unwrap_err().reason(), Reason::Unreachable);
            index
        });
        kv.die_after(0);
        once(&kv, &mut store.directory());
        let found: Vec<(Why, u64, String)> = keys.iter().map(|key| (Why::Moved, index, key.clone())).collect();
        assert_eq!(listed(&kv), found, "after {die}");
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Set(usize),
    Delete(usize),
    DeleteDirectory(usize),
    CatchUp,
}

const PATHS: [&str; 7] = ["/a/x", "/a/y", "/b/x", "/b/y", "/c/x", "/c/d/x", "/b/d/x"];
const DIRECTORIES: [&str; 4] = ["/a", "/b", "/c", "/b/d"];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..PATHS.len()).prop_map(Step::Set),
        3 => (0..PATHS.len()).prop_map(Step::Delete),
        1 => (0..DIRECTORIES.len()).prop_map(Step::DeleteDirectory),
        3 => Just(Step::CatchUp),
    ]
}

/// What the owner of each name is, as long as a job sees every change.
#[derive(Default)]
struct Model(BTreeMap<String, Vec<&'static str>>);

impl Model {
    fn name(path: &str) -> String {
        format!("/n{}", &path[2..])
    }

    fn set(&mut self, path: &'static str) {
        let wanting = self.0.entry(Model::name(path)).or_default();
        if !wanting.contains(&path) {
            wanting.push(path);
            // The others wait in the order of their paths.
            wanting[1..].sort_unstable();
        }
    }

    fn delete(&mut self, gone: &str) {
        for wanting in self.0.values_mut() {
            wanting.retain(|path| !is_below(gone.as_bytes(), path.as_bytes()));
        }
    }
}

/// What the job does while the steps of a part happen.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Job {
    Follows,
    DoesNotRun,
    /// It ends after so many transactions.
    Dies(u64),
}

fn job_of_a_part() -> impl Strategy<Value = Job> {
    prop_oneof![6 => Just(Job::Follows), 2 => Just(Job::DoesNotRun), 4 => (4..40u64).prop_map(Job::Dies)]
}

/// Runs a job that dies, and the steps beside it.
fn with_job_that_dies(
    kv: &Memory,
    store: &Store,
    mut source: Source,
    transactions: u64,
    steps: impl FnOnce(&dyn Fn(u64)),
) {
    kv.die_after(transactions);
    let dead = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let ended = copy(&context(kv), &mut source, &mapped(false), &Counters::default());
            assert_eq!(ended.unwrap_err().reason(), Reason::Unreachable);
            dead.store(true, Ordering::Relaxed);
        });
        steps(&|_| thread::sleep(Duration::from_micros(500)));
        while !dead.load(Ordering::Relaxed) {
            store.set("/first", "x");
            thread::sleep(Duration::from_micros(200));
        }
    });
    kv.die_after(0);
}

fn run(parts: &[(Job, Vec<Step>)], source: fn(&Store) -> Source) {
    let (kv, store) = (Memory::default(), Store::default());
    // An index to wait for.
    store.set("/first", "x");
    mapped_once(&kv, source(&store));
    let mut model = Model::default();
    for (job, steps) in parts {
        let mut all = |wait: &dyn Fn(u64)| {
            for step in steps {
                match *step {
                    Step::Set(at) => {
                        store.set(PATHS[at], &format!("{at}.{}", store.state().1));
                        model.set(PATHS[at]);
                    }
                    Step::Delete(at) => {
                        store.delete(PATHS[at]);
                        model.delete(PATHS[at]);
                    }
                    Step::DeleteDirectory(at) => {
                        store.delete(DIRECTORIES[at]);
                        model.delete(DIRECTORIES[at]);
                    }
                    Step::CatchUp => wait(store.state().1),
                }
            }
            wait(store.state().1);
        };
        match *job {
            Job::Follows => with_job_of(&kv, source(&store), &mapped(false), |wait| all(wait)),
            Job::DoesNotRun => all(&|_| {}),
            Job::Dies(transactions) => with_job_that_dies(&kv, &store, source(&store), transactions, |wait| all(wait)),
        }
    }
    let always = parts.iter().all(|(job, _)| *job == Job::Follows);
    mapped_once(&kv, source(&store));
    let (state, listed) = (store.state().0, listed(&kv));
    let value = |path: &str| String::from_utf8(state[path.as_bytes()].value.clone()).unwrap();
    for (name, wanting) in &model.0 {
        let found = kv.value(name);
        let owner = wanting.iter().find(|path| Some(value(path)) == found);
        assert_eq!(owner.is_some(), found.is_some(), "{name}: {found:?} is of nobody");
        assert_eq!(owner.is_some(), !wanting.is_empty(), "{name}: {wanting:?}");
        if always {
            assert_eq!(owner, wanting.first(), "{name}");
        }
        for other in wanting.iter().filter(|path| Some(*path) != owner) {
            let one = (Why::NameTaken, state[other.as_bytes()].modified.0, other.to_string());
            assert!(listed.contains(&one), "{one:?} is not in {listed:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_name_has_the_value_of_one_key_and_the_others_are_listed(
        parts in prop::collection::vec((job_of_a_part(), prop::collection::vec(step(), 1..12)), 1..5),
        exact in any::<bool>(),
    ) {
        run(&parts, if exact { Store::directory } else { |store| store.source(true) });
    }
}
