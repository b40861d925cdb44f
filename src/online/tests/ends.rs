//! Commands that end a migration, while others run and after a part of others.

use super::*;
use crate::online::state::Head as StateHead;
use crate::online::v3::{Keep, Kv, Reply, Txn};

/// Runs `switch`, and something else while it waits until v2 is quiet.
fn switch_during(kv: &Memory, store: &Store, force: bool, meanwhile: impl Fn() + Sync) -> Result<()> {
    let tell = |line: &str| {
        if line.starts_with("waiting until v2") {
            meanwhile();
        }
    };
    let context = Context { kv, interrupt: Interrupt::default(), tell: &tell };
    let options = SwitchOptions { force, quiet_for: Duration::from_millis(50) };
    switch(&context, &mut store.source(true), &keys(), options).map(drop)
}

fn copied() -> (Memory, Store) {
    let (kv, store) = (Memory::default(), Store::default());
    for key in ["/a", "/b"] {
        store.set(key, "v2");
    }
    once(&kv, &mut store.source(true));
    (kv, store)
}

#[test]
fn a_switch_is_not_put_after_an_undo_that_ran_meanwhile() {
    for force in [false, true] {
        for again in [false, true] {
            let (kv, store) = copied();
            let meanwhile = || {
                undo(&context(&kv), &mut store.source(true), &keys(), LIMITS, 1).unwrap();
                if again {
                    once(&kv, &mut store.source(true));
                }
            };
            let error = switch_during(&kv, &store, force, meanwhile).unwrap_err();
            assert_eq!(error.reason(), Reason::StateDiffers, "{error}");
            assert_ne!(kv.value(SWITCH_KEY).as_deref(), Some("true"));
        }
    }
}

#[test]
fn a_switch_is_not_put_while_another_command_ends_the_migration() {
    for (command, is_refused) in [("undo", true), ("finish", true), ("copy", false)] {
        let (kv, store) = copied();
        let lock = format!(r#"{{"command":"{command}","host":"h","pid":1,"started":"now"}}"#);
        let result = switch_during(&kv, &store, true, || kv.put("etcdlift/online/lock", &lock));
        assert_eq!(result.err().map(|error| error.reason()), is_refused.then_some(Reason::JobRunning), "{command}");
    }
}

#[test]
fn a_switch_waits_until_v2_is_quiet() {
    let (kv, store) = copied();
    with_job(&kv, &store, |_| {
        let (done, last) = (AtomicBool::new(false), Mutex::new(Instant::now()));
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..20 {
                    store.set("/a", "more");
                    *last.lock().unwrap() = Instant::now();
                    thread::sleep(Duration::from_millis(40));
                }
                done.store(true, Ordering::Relaxed);
            });
            let quiet_for = Duration::from_millis(400);
            let options = SwitchOptions { quiet_for, ..SwitchOptions::default() };
            switch(&context(&kv), &mut store.source(true), &keys(), options).unwrap();
            assert!(done.load(Ordering::Relaxed) && last.lock().unwrap().elapsed() >= quiet_for);
        });
    });
    assert_eq!((kv.value("/a").as_deref(), kv.value(SWITCH_KEY).as_deref()), (Some("more"), Some("true")));
}

/// A source of which the cluster knows more.
struct Lagging(Source, u64);

impl V2 for Lagging {
    fn cluster(&mut self) -> Result<String> {
        self.0.cluster()
    }

    fn state(&mut self, each: &mut dyn FnMut(Node) -> Result<()>) -> Result<Head> {
        self.0.state(each)
    }

    fn next(&mut self, wait: Duration) -> Result<Next> {
        self.0.next(wait)
    }

    fn cluster_index(&mut self) -> Result<Option<V2Index>> {
        match self.1 {
            0 => Err(Error::new(Reason::Unreachable, "no endpoint answers")),
            index => Ok(Some(V2Index(index))),
        }
    }
}

#[test]
fn a_switch_asks_what_the_cluster_has_and_the_source_has_not() {
    let (kv, store) = copied();
    let switch = |index, force| {
        let options = SwitchOptions { force, ..SwitchOptions::default() };
        switch(&context(&kv), &mut Lagging(store.source(true), index), &keys(), options).map(|done| done.v2_index)
    };
    let reason = |result: Result<u64>| result.unwrap_err().reason();
    assert_eq!((reason(switch(3, false)), reason(switch(0, false))), (Reason::Lagging, Reason::Unreachable));
    assert_eq!(kv.value(SWITCH_KEY), None);
    assert_eq!(switch(2, false).unwrap(), 2);
}

/// What an older source has was replaced or deleted since.
#[test]
fn a_source_with_a_lower_index_than_v3_is_refused() {
    for undone in [false, true] {
        let (kv, store) = copied();
        let older = Store::default();
        older.set("/a", "v2");
        store.delete("/a");
        once(&kv, &mut store.source(true));
        if undone {
            undo(&context(&kv), &mut store.source(true), &keys(), LIMITS, 1).unwrap();
        }
        let before = kv.keys("");
        let copied = copy(&context(&kv), &mut older.source(true), &options(true), &Counters::default());
        let error = copied.unwrap_err();
        assert_eq!(error.reason(), Reason::StateDiffers, "{error}");
        assert!(error.message().contains("v2 index 1, and v3 has everything up to index 3"), "{error}");
        assert_eq!(kv.keys(""), before);
        // One that catches up is waited for.
        let late = older.clone();
        thread::scope(|scope| {
            scope.spawn(move || {
                thread::sleep(Duration::from_millis(300));
                late.set("/b", "v2");
                late.delete("/a");
            });
            once(&kv, &mut older.source(true));
        });
        assert_eq!((kv.value("/a"), kv.value("/b").as_deref()), (None, Some("v2")));
    }
}

/// A finish that dies after any transaction leaves nothing that another command would take for a migration.
#[test]
fn after_a_part_of_a_finish_only_a_finish_goes_on() {
    let mut parts = 0;
    for die in 1..40 {
        let (kv, store) = copied();
        kv.put_moved("/a", "v3");
        kv.delete_moved("/a");
        switch(&context(&kv), &mut store.source(true), &keys(), SwitchOptions::default()).unwrap();
        store.set("/a", "late");
        once(&kv, &mut store.source(true));
        kv.die_after(die);
        let _ = finish(&context(&kv), &keys(), true, 1, &mut || Ok(()));
        kv.die_after(0);
        let state: StateHead = state::read(&kv, &keys()).unwrap();
        if state.job.is_some() && state.progress.is_none() {
            parts += 1;
            let undone = undo(&context(&kv), &mut store.source(true), &keys(), LIMITS, 1).map(drop);
            let copied = copy(&context(&kv), &mut store.source(true), &options(true), &Counters::default()).map(drop);
            let forced = SwitchOptions { force: true, ..SwitchOptions::default() };
            let switched = switch(&context(&kv), &mut store.source(true), &keys(), forced);
            assert!(switched.unwrap().before, "it is on");
            for refused in [undone, copied] {
                let error = refused.unwrap_err();
                assert_eq!(error.reason(), Reason::StateDiffers, "after {die}");
                assert!(error.message().contains("`finish` did not end"), "after {die}: {error}");
            }
        } else {
            let whole =
                kv.keys("etcdlift/online/moved/").len() == 1 && !kv.keys("etcdlift/online/conflict/").is_empty();
            assert!(state.job.is_none() || whole, "after {die}: {:?}", kv.keys("etcdlift/"));
        }
        finish(&context(&kv), &keys(), true, 1, &mut || Ok(())).unwrap();
        assert_eq!(kv.keys("etcdlift/"), ["etcdlift/switch"], "after {die}");
        assert_eq!(kv.value("/a"), None, "a deleted key does not come back");
    }
    assert!(parts > 3, "{parts} of the ends were within the work");
}

#[test]
fn a_copy_keeps_to_its_rate() {
    let (kv, store) = (Memory::default(), Store::default());
    for number in 0..60 {
        store.set(&format!("/{number}"), "v");
    }
    let mut limited = options(true);
    limited.pace.rate_limit = Some(100);
    let began = Instant::now();
    copy(&context(&kv), &mut store.source(true), &limited, &Counters::default()).unwrap();
    let took = began.elapsed();
    assert!((Duration::from_millis(500)..Duration::from_secs(5)).contains(&took), "{took:?}");
}

#[test]
fn a_switch_of_another_migration_says_nothing_of_this_one() {
    let (kv, store) = copied();
    let other = Keys::new("other/", SWITCH_KEY);
    let others = CopyOptions { keys: other.clone(), ..options(true) };
    let copy_other = || copy(&context(&kv), &mut store.source(true), &others, &Counters::default());
    copy_other().unwrap();
    switch(&context(&kv), &mut store.source(true), &keys(), SwitchOptions::default()).unwrap();
    let (before, forced) = (kv.keys(""), SwitchOptions { force: true, ..SwitchOptions::default() });
    let refused = [
        copy_other().map(drop),
        switch(&context(&kv), &mut store.source(true), &other, forced).map(drop),
        undo(&context(&kv), &mut store.source(true), &other, LIMITS, 1).map(drop),
        finish(&context(&kv), &other, true, 1, &mut || Ok(())).map(drop),
    ];
    for result in refused {
        let error = result.unwrap_err();
        assert_eq!(error.reason(), Reason::StateDiffers, "{error}");
        assert!(error.message().starts_with("etcdlift/switch: the value is `true`, but"), "{error}");
    }
    // Neither does its undo.
    kv.put(SWITCH_KEY, "undo");
    let undone = undo(&context(&kv), &mut store.source(true), &other, LIMITS, 1).map(drop);
    let switched = switch(&context(&kv), &mut store.source(true), &other, forced).map(drop);
    for result in [copy_other().map(drop), undone, switched] {
        let error = result.unwrap_err();
        assert!(error.message().starts_with("etcdlift/switch: the value is `undo`, but"), "{error}");
    }
    kv.put(SWITCH_KEY, "true");
    assert_eq!(kv.keys(""), before);
    // Its own end is as ever, and twice the same.
    for was_on in [false, true] {
        let on = switch(&context(&kv), &mut store.source(true), &keys(), SwitchOptions::default()).unwrap();
        assert!(on.before || was_on);
    }
    finish(&context(&kv), &keys(), false, 1, &mut || Ok(())).unwrap();
    assert_eq!(kv.keys("etcdlift/"), [SWITCH_KEY]);
}

#[test]
fn only_keys_of_etcdlift_are_below_the_prefix() {
    for key in ["etcdlift/online/a", "etcdlift/online/job2/x", "etcdlift/online/own", "etcdlift/online/zzz"] {
        let (kv, store) = (Memory::default(), Store::default());
        store.set("/a", "v2");
        kv.put(key, "theirs");
        let error =
            copy(&context(&kv), &mut store.source(true), &options(true), &Counters::default()).map(drop).unwrap_err();
        assert_eq!(error.reason(), Reason::StateDiffers, "{error}");
        assert!(error.message().starts_with(&format!("{key}: expected only keys of etcdlift")), "{error}");
    }
    // Those of clients can be there before the job, and the switch.
    let (kv, store) = (Memory::default(), Store::default());
    store.set("/a", "v2");
    ["moved//a", "deleted"].iter().for_each(|name| kv.put(&format!("etcdlift/online/{name}"), ""));
    let inside = Keys::new(STATE_PREFIX, "etcdlift/online/switch");
    kv.put("etcdlift/online/switch", "false");
    let of = |switch: &Keys| CopyOptions {
        keys: switch.clone(),
        job: state::Job { switch_key: String::from_utf8(switch.switch.clone()).unwrap(), ..options(true).job },
        ..options(true)
    };
    copy(&context(&kv), &mut store.source(true), &of(&inside), &Counters::default()).unwrap();
    switch(&context(&kv), &mut store.source(true), &inside, SwitchOptions::default()).unwrap();
    // What comes below the prefix later is not the state's.
    let theirs = [
        "etcdlift/online/deleted-items/1",
        "etcdlift/online/jobs",
        "etcdlift/online/switch",
        "etcdlift/online/switched/x",
    ];
    theirs.iter().filter(|key| !key.ends_with("switch")).for_each(|key| kv.put(key, "theirs"));
    finish(&context(&kv), &inside, true, 1, &mut || Ok(())).unwrap();
    assert_eq!(kv.keys("etcdlift/"), theirs);
}

#[test]
fn an_idle_job_renews_its_progress() {
    let (kv, store) = copied();
    let progress = || kv.value("etcdlift/online/progress").unwrap();
    let time = |progress: &str| serde_json::from_str::<state::Progress>(progress).unwrap().time;
    with_job(&kv, &store, |_| {
        thread::sleep(Duration::from_millis(300));
        let before = progress();
        let until = Instant::now() + Duration::from_secs(20);
        while time(&progress()) == time(&before) {
            assert!(Instant::now() < until, "{before}");
            thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(progress(), before.replace(&time(&before), &time(&progress())), "only the time is another");
    });
}

/// A store that accepts few operations in a transaction.
struct Few<'k>(&'k Memory, usize);

impl Kv for Few<'_> {
    fn txn(&self, txn: &Txn) -> Result<Reply> {
        if txn.then.len() > self.1 {
            return Err(Error::new(Reason::RequestTooLarge, "too many operations in txn request"));
        }
        self.0.txn(txn)
    }

    fn grant(&self, seconds: i64) -> Result<i64> {
        self.0.grant(seconds)
    }

    fn keep_alive(&self, lease: i64) -> Result<Keep> {
        self.0.keep_alive(lease)
    }

    fn revoke(&self, lease: i64) -> Result<()> {
        self.0.revoke(lease)
    }

    fn cluster(&self) -> Result<u64> {
        self.0.cluster()
    }
}

#[test]
fn verify_and_switch_with_a_server_that_accepts_few_operations() {
    let (kv, store) = (Memory::default(), Store::default());
    for number in 0..100 {
        store.set(&format!("/{number}"), "v2");
    }
    once(&kv, &mut store.source(true));
    kv.put_moved("/7", "v3");
    for operations in [5, 8, 63, 119] {
        let few = Few(&kv, operations);
        let context = Context { kv: &few, interrupt: Interrupt::default(), tell: &|_| {} };
        let mut mapped = Vec::new();
        let found = verify(&context, &mut store.source(true), &keys(), &mut |pair| {
            mapped.push(pair.v3.0);
            Ok(())
        });
        let found = found.unwrap();
        assert_eq!((found.equal, found.moved, found.differing), (99, 1, 0));
        mapped.sort();
        mapped.dedup();
        assert_eq!(mapped.len(), 99);
    }
    let few = Few(&kv, 5);
    let context = Context { kv: &few, interrupt: Interrupt::default(), tell: &|_| {} };
    switch(&context, &mut store.source(true), &keys(), SwitchOptions::default()).unwrap();
}

#[test]
fn a_key_that_is_carried_during_the_comparison_is_in_the_index_map() {
    let (kv, store) = copied();
    let index = store.set("/a", "new");
    let mapped = Mutex::new(Vec::new());
    thread::scope(|scope| {
        scope.spawn(|| {
            // The first look finds the old value.
            thread::sleep(Duration::from_millis(300));
            once(&kv, &mut store.source(true));
        });
        let each = &mut |pair: crate::online::verify::Mapped| {
            mapped.lock().unwrap().push(pair);
            Ok(())
        };
        let found = verify(&context(&kv), &mut store.source(true), &keys(), each).unwrap();
        assert_eq!((found.equal, found.differing), (2, 0));
    });
    let mut mapped = mapped.into_inner().unwrap();
    mapped.sort_by(|a, b| a.v3.0.cmp(&b.v3.0));
    let found: Vec<_> = mapped.iter().map(|pair| (&pair.v3.0[..], pair.v2.1, pair.v3.1)).collect();
    let revision = |key: &str| kv.get(key).unwrap().modified;
    assert_eq!(found, [(&b"/a"[..], V2Index(index), revision("/a")), (b"/b", V2Index(2), revision("/b"))]);
}

/// An undo that dies after any transaction: v3 has a part of the keys then, so clients must not be switched to it.
#[test]
fn after_a_part_of_an_undo_nothing_is_switched_before_all_is_copied() {
    let mut parts = 0;
    for die in 1.. {
        let (kv, store) = copied();
        for number in 0..300 {
            store.set(&format!("/{number}"), "v2");
        }
        once(&kv, &mut store.source(true));
        kv.die_after(die);
        let ended = undo(&context(&kv), &mut store.source(true), &keys(), LIMITS, 1).is_ok();
        kv.die_after(0);
        let left = kv.keys("/").len();
        let is_part = left < 302 && kv.get("etcdlift/online/job").is_some();
        parts += usize::from(is_part);
        if is_part && parts == 1 {
            let forced = SwitchOptions { force: true, ..SwitchOptions::default() };
            let error = switch(&context(&kv), &mut store.source(true), &keys(), forced).unwrap_err();
            assert_eq!(error.reason(), Reason::Lagging, "after {die}: {error}");
        }
        if is_part {
            // Either way goes on: back, or on again.
            once(&kv, &mut store.source(true));
            assert_eq!(kv.keys("/").len(), 302, "after {die}");
            switch(&context(&kv), &mut store.source(true), &keys(), SwitchOptions::default()).unwrap();
        }
        if ended {
            break;
        }
    }
    assert!(parts > 2, "{parts} of the ends were within the work");
}
