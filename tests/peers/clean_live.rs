//! `etcdlift clean` after a crash: clients write v2 and v3 keys to a real etcd 3.5 until all members are killed. Then each member is
//! cleaned, and etcd 3.6 holds every acknowledged v3 write.
//!
//! `ETCDLIFT_CLEAN_SEEDS=N` repeats it with N seeds for each size of the cluster.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::common::cluster::{Cluster, Seat, initial_cluster, seats};
use crate::common::peers::{self, Peers, Version};
use crate::common::random::seeds as seeds_of;
use crate::common::run::etcdlift;
use crate::common::{http, scratch};
use crate::test_name;

/// What a writer had acknowledged: v3 keys with their values.
type Acknowledged = BTreeMap<String, String>;

/// Writes v3 and v2 keys in turn until the server is gone.
fn write(server: SocketAddr, name: &str, stop: &AtomicBool) -> Acknowledged {
    let mut acknowledged = Acknowledged::new();
    for number in 0u32.. {
        let (key, value) = (format!("{name}/{}", number % 40), number.to_string());
        let json = format!(r#"{{"key":"{}","value":"{}"}}"#, STANDARD.encode(&key), STANDARD.encode(&value));
        match http::post(server, "/v3/kv/put", None, &json) {
            Ok(response) if response.status == 200 => acknowledged.insert(key, value),
            _ if stop.load(Ordering::SeqCst) => break,
            _ => continue,
        };
        let form = if number.is_multiple_of(3) { "value=v&ttl=900" } else { "value=v" };
        let _ = http::put_form(server, &format!("/v2/keys/{name}/{}", number % 50), form);
    }
    acknowledged
}

/// Runs a cluster of 3.5 under load and kills it. Returns what was acknowledged.
fn crashed(peers: &Peers, seats: &[Seat], dir: &Path, seed: u64) -> Acknowledged {
    let mut cluster = Cluster::new(peers, Version::V3_5, seats.len(), None);
    for seat in seats {
        cluster.add(seat, &dir.join(&seat.name));
    }
    let initial = initial_cluster(seats);
    let count = if seed.is_multiple_of(2) { "100" } else { "100000" };
    cluster.start(&["--enable-v2", "--initial-cluster", &initial, "--snapshot-count", count]);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|number| (seats[number % seats.len()].client, format!("w{number}")))
            .map(|(server, name)| {
                let stop = &stop;
                scope.spawn(move || write(server, &name, stop))
            })
            .collect();
        thread::sleep(Duration::from_millis(1500 + seed * 137 % 1000));
        stop.store(true, Ordering::SeqCst);
        cluster.crash();
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    })
}

fn compare(peers: &Peers, members: usize, seed: u64) {
    let names = ["a", "b", "c"];
    let seats = seats(&names[..members]);
    let temp = scratch::temp();
    let acknowledged = crashed(peers, &seats, temp.path(), seed);
    assert!(acknowledged.len() > 20, "{} writes", acknowledged.len());
    let out = temp.path().join("out");
    fs::create_dir(&out).unwrap();
    let sources: Vec<PathBuf> = seats.iter().map(|seat| temp.path().join(&seat.name)).collect();
    // All in one run, or one by one.
    let mut replaced = 0;
    let mut clean = |sources: &[PathBuf], to: &Path| {
        let mut args = vec!["clean".to_string(), "--json".into(), "-o".into(), to.display().to_string()];
        args.extend(sources.iter().map(|path| path.display().to_string()));
        let made = etcdlift(args).success().json();
        let counts =
            made["members"].as_array().unwrap().iter().flat_map(|member| member["replaced_requests"].as_object());
        replaced += counts.flat_map(|counts| counts.values().filter_map(Value::as_u64)).sum::<u64>();
    };
    if seed.is_multiple_of(2) && members > 1 {
        clean(&sources, &out);
    } else {
        for (source, seat) in sources.iter().zip(&seats) {
            clean(std::slice::from_ref(source), &out.join(&seat.name));
        }
    }
    let mut cluster = Cluster::new(peers, Version::V3_6, members, None);
    for seat in &seats {
        cluster.add(seat, &out.join(&seat.name));
    }
    cluster.start(&[]);
    let found: BTreeMap<Vec<u8>, Vec<u8>> =
        cluster.ctl(0).all().0.into_iter().map(|row| (row.key, row.value)).collect();
    for (key, value) in &acknowledged {
        let found = found.get(key.as_bytes()).map(|value| String::from_utf8_lossy(value).parse::<u32>().unwrap());
        // A later write of the same key may have been committed without its answer.
        let is_held = found.is_some_and(|found| found >= value.parse().unwrap());
        assert!(is_held, "seed {seed}, {members} members: {key} is {found:?}, and {value} was acknowledged");
    }
    cluster.ctl(0).put("after", "clean");
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let hashes: Vec<_> = (0..members).map(|at| (cluster.ctl(at).own().1, cluster.ctl(at).hash_kv())).collect();
        if hashes.iter().all(|hash| *hash == hashes[0]) {
            break;
        }
        assert!(Instant::now() < deadline, "seed {seed}: the members differ: {hashes:?}");
        thread::sleep(Duration::from_millis(200));
    }
    eprintln!("seed {seed}, {members} members: {} keys acknowledged, {replaced} requests replaced", acknowledged.len());
}

#[test]
fn no_acknowledged_write_is_lost() {
    let Some(peers) = peers::require(test_name!()) else { return };
    for seed in seeds_of("ETCDLIFT_CLEAN_SEEDS", 0..2) {
        compare(&peers, 1, seed);
        compare(&peers, 3, seed);
    }
}
