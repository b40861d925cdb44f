//! `undo` and `finish` that are killed again and again: the last run leaves exactly what belongs in v3.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::common::http;
use crate::common::peers::{self, Version};
use crate::common::random::{Random, seeds};
use crate::common::rows::Row;
use crate::pair::{Job, Pair, set, wait_for};

const STATE: &str = "etcdlift/online/";
const MOVED: &str = "etcdlift/online/moved/";

/// Asks for a range through the gateway of v3, which is faster than `etcdctl`.
fn range(pair: &Pair, key: &str, prefix: bool) -> Value {
    let mut end = key.as_bytes().to_vec();
    if prefix {
        *end.last_mut().unwrap() += 1;
    }
    let mut body = json!({"key": STANDARD.encode(key), "keys_only": prefix, "count_only": prefix});
    if prefix {
        body["range_end"] = STANDARD.encode(end).into();
    }
    let answer = http::post(pair.v3.client_address(), "/v3/kv/range", None, &body.to_string()).unwrap();
    serde_json::from_slice(&answer.body).unwrap()
}

/// Counts the keys with a prefix.
fn count(pair: &Pair, prefix: &str) -> u64 {
    range(pair, prefix, true)["count"].as_str().map_or(0, |count| count.parse().unwrap())
}

fn value(pair: &Pair, key: &str) -> Option<String> {
    let found = range(pair, key, false)["kvs"][0]["value"].as_str().map(|value| STANDARD.decode(value).unwrap());
    found.map(|value| String::from_utf8(value).unwrap())
}

/// The part of the work after which a command is killed, in percent; `None` is a random time after its start.
const MOMENTS: [Option<u64>; 9] = [Some(0), None, Some(15), Some(30), None, Some(50), Some(70), Some(85), Some(95)];

/// Runs a command that is killed at [`MOMENTS`], while `done` says how much of `all` is done. A random time is at most
/// `longest` milliseconds. After each kill, `after` looks at what is
/// left.
fn kill_often(
    pair: &Pair,
    (command, more): (&str, &[&str]),
    (random, longest): (&mut Random, usize),
    (done, all): (&dyn Fn() -> u64, u64),
    after: &mut dyn FnMut(usize),
) {
    let all_arguments = pair.arguments(command, more);
    for (number, moment) in MOMENTS.into_iter().enumerate() {
        let mut job = Job::start(&all_arguments);
        let until = Instant::now() + Duration::from_secs(30);
        match moment {
            None => thread::sleep(Duration::from_millis(random.between(0, longest) as u64)),
            Some(percent) => {
                while done() <= all * percent / 100 && job.0.try_wait().unwrap().is_none() {
                    assert!(Instant::now() < until, "{command} at {percent} %: {} of {all}", done());
                }
                thread::sleep(Duration::from_micros(random.between(0, 3000) as u64));
            }
        }
        job.kill();
        after(number);
        wait_for("the end of the lock", || value(pair, "etcdlift/online/lock").is_none());
    }
}

/// What applications have in v3, and the keys that they moved.
#[derive(Default)]
struct Written {
    keys: BTreeMap<String, String>,
    touched: BTreeSet<String>,
}

impl Written {
    /// Writes or deletes keys as docs/online.md says.
    fn write<'k>(&mut self, pair: &Pair, keys: impl IntoIterator<Item = (&'k str, Option<&'k str>)>) {
        let (mut normal, mut moving) = (String::new(), String::new());
        for (key, value) in keys {
            self.touched.insert(key.to_string());
            let operation = match value {
                Some(value) => format!("put {key} {value}\n"),
                None => format!("del {key}\n"),
            };
            match value {
                Some(value) => drop(self.keys.insert(key.into(), value.into())),
                None => drop(self.keys.remove(key)),
            }
            normal += &operation;
            moving += &format!("{operation}put {MOVED}{key} \"\"\n");
        }
        pair.ctl().txn(&format!("value(\"etcdlift/switch\") = \"true\"\n\n{normal}\n{moving}\n"));
    }
}

/// Sets v2 keys, by several clients at once.
fn set_all(pair: &Pair, keys: &[String]) {
    let v2 = pair.v2.client_address();
    thread::scope(|scope| {
        for part in keys.chunks(keys.len().div_ceil(4)) {
            scope.spawn(move || part.iter().for_each(|key| set(v2, key, "v2")));
        }
    });
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}{number:04}")).collect()
}

#[test]
fn an_undo_killed_at_any_moment_ends_with_what_applications_wrote() {
    let Some(peers) = peers::require("online::undo") else { return };
    for seed in seeds("ONLINE_SEEDS", 0..1) {
        let (mut random, pair) = (Random::new(seed), Pair::start(&peers, Version::V3_6, &[]));
        let (gone, app, job) = (names("/gone/", 600), names("/app/", 200), names("/job/", 1600));
        [&gone, &app, &job].iter().for_each(|keys| set_all(&pair, keys));
        pair.online("copy", &["--once"]).success();
        let mut written = Written::default();
        // Some before the switch, with markers; most after it, without.
        let both = |key, number: usize| if number.is_multiple_of(5) { (key, None) } else { (key, Some("app")) };
        let some = app.iter().take(60).enumerate().map(|(number, key)| both(key.as_str(), number));
        written.write(&pair, some.collect::<Vec<_>>());
        pair.online("switch", &[]).success();
        let new = names("/new/", 60);
        for part in [&gone[..], &app[60..], &new].iter().flat_map(|keys| keys.chunks(60)) {
            written.write(&pair, part.iter().map(|key| (key.as_str(), (!key.starts_with("/gone")).then_some("app"))));
        }
        assert_eq!(count(&pair, MOVED), 60, "the switch is on");
        let rows = |pair: &Pair| -> BTreeMap<Vec<u8>, Row> {
            let all = pair.ctl().all().0.into_iter();
            all.filter(|row| row.key.starts_with(b"/app") || row.key.starts_with(b"/new"))
                .map(|row| (row.key.clone(), row))
                .collect()
        };
        let before = rows(&pair);
        let undone = |pair: &Pair| (count(pair, MOVED), count(pair, "/"));
        let (markers, keys) = undone(&pair);
        let done = || {
            let (now, left) = undone(&pair);
            (now - markers) + keys.saturating_sub(left)
        };
        // How many kills came while markers were put, and while keys were deleted.
        let (mut marking, mut deleting) = (0, 0);
        let all = (gone.len() + app.len() - 60 + new.len() + job.len()) as u64;
        let mut after = |number: usize| {
            let (now, left) = undone(&pair);
            match value(&pair, "etcdlift/switch").as_deref() {
                Some("undo") => marking += usize::from(now > markers),
                Some("false") => deleting += usize::from(left < keys && value(&pair, "etcdlift/online/job").is_some()),
                _ => {}
            }
            // Applications go on.
            let own = |first: usize| job[first + number].as_str();
            written
                .write(&pair, [(own(100), Some("between")), (own(700), None), (gone[number].as_str(), Some("again"))]);
        };
        let more = ["--lock-ttl", "2s", "--max-txn-ops", "16"];
        kill_often(&pair, ("undo", &more), (&mut random, 150), (&done, all), &mut after);
        println!("seed {seed}: {marking} kills while markers were put, {deleting} while keys were deleted");
        assert!(marking > 0 && deleting > 0, "seed {seed}: kills in the middle: {marking}, {deleting}");
        if value(&pair, "etcdlift/online/job").is_some() {
            pair.online("undo", &more).success();
        }
        assert_eq!(pair.v3_keys(), written.keys, "seed {seed}");
        assert_eq!(rows(&pair), before, "seed {seed}: what applications wrote is as they wrote it");
        let text = |row: Row| String::from_utf8(row.key).unwrap();
        let (moved, other): (Vec<_>, Vec<_>) = pair
            .ctl()
            .all()
            .0
            .into_iter()
            .map(text)
            .filter(|key| !key.starts_with('/'))
            .partition(|key| key.starts_with(MOVED));
        let moved: BTreeSet<String> = moved.iter().map(|key| key[MOVED.len()..].to_string()).collect();
        assert_eq!(moved, written.touched, "seed {seed}");
        let state = ["etcdlift/online/deleted", "etcdlift/online/progress", "etcdlift/switch"];
        assert_eq!(other, state, "seed {seed}");
        assert_eq!(value(&pair, "etcdlift/switch").as_deref(), Some("false"), "seed {seed}");
        // The migration can begin again: what nobody touched comes back.
        pair.online("copy", &["--once"]).success();
        let untouched = job.iter().filter(|key| !written.touched.contains(*key));
        written.keys.extend(untouched.map(|key| (key.clone(), "v2".to_string())));
        assert_eq!(pair.v3_keys(), written.keys, "seed {seed}");
    }
}

#[test]
fn a_finish_killed_at_any_moment_ends_without_state_and_with_all_keys() {
    let Some(peers) = peers::require("online::undo") else { return };
    for seed in seeds("ONLINE_SEEDS", 0..1) {
        let (mut random, pair) = (Random::new(seed), Pair::start(&peers, Version::V3_7, &[]));
        let (app, job) = (names("/app/", 6000), names("/job/", 300));
        set_all(&pair, &job);
        pair.online("copy", &["--once", "--max-txn-ops", "8"]).success();
        let mut written = Written::default();
        for (number, part) in app.chunks(60).enumerate() {
            written.write(&pair, part.iter().map(|key| (key.as_str(), (number % 5 > 0).then_some("app"))));
        }
        app.iter().step_by(400).for_each(|key| pair.set(key, "late"));
        assert_eq!(pair.online("copy", &["--once"]).status, 8, "each is a conflict");
        pair.online("switch", &[]).success();
        let others = |pair: &Pair| -> Vec<Row> {
            pair.ctl().all().0.into_iter().filter(|row| !row.key.starts_with(STATE.as_bytes())).collect()
        };
        let before = others(&pair);
        assert_eq!(before.len(), written.keys.len() + job.len() + 1);
        let all = count(&pair, STATE);
        assert!(all > 6000, "{all}");
        let done = || all.saturating_sub(count(&pair, STATE));
        let mut middle = 0;
        let mut after = |_| {
            // Without the lock.
            let left = count(&pair, STATE) - u64::from(value(&pair, "etcdlift/online/lock").is_some());
            middle += usize::from(left > 0 && left < all);
            assert_eq!(others(&pair), before, "seed {seed}");
        };
        let more = ["--lock-ttl", "2s", "--accept-conflicts"];
        kill_often(&pair, ("finish", &more), (&mut random, 40), (&done, all), &mut after);
        println!("seed {seed}: {middle} kills while the state was removed");
        assert!(middle > 0, "seed {seed}: no kill came in the middle");
        pair.online("finish", &more).success();
        assert_eq!(pair.ctl().all().0, before, "seed {seed}");
        assert_eq!(value(&pair, "etcdlift/switch").as_deref(), Some("true"), "seed {seed}");
    }
}
