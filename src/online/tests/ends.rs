//! Commands that end a migration, while others run and after a part of others.

use super::*;
use crate::online::state::Head as StateHead;

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
            for refused in [undone, copied] {
                assert_eq!(refused.unwrap_err().reason(), Reason::StateDiffers, "after {die}");
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
