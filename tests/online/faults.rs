//! Faults of both clusters: each has its one line, and loses nothing.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::peers::{self, Version};
use crate::common::ports::free_address;
use crate::common::run::etcdlift;
use crate::pair::{Pair, wait_for};

/// Revokes the lease of a key, with all keys that have it.
fn revoke_lease_of(pair: &Pair, key: &str) {
    let row = pair.ctl().all().0.into_iter().find(|row| row.key == key.as_bytes()).unwrap();
    assert_ne!(row.lease, 0, "{key}");
    pair.ctl().does(&["lease", "revoke", &format!("{:x}", row.lease)]);
}

#[test]
fn a_lock_that_is_gone_ends_the_job_and_the_next_goes_on() {
    let Some(peers) = peers::require("online::faults") else { return };
    let pair = Pair::start(&peers, Version::V3_5, &[]);
    pair.set("/a", "v2");
    // Without changes, the lease that cannot be kept alive ends the job.
    for (revoked, changes) in [(false, true), (true, true), (true, false)] {
        let mut job = pair.job(&[]);
        let value = format!("{revoked} {changes}");
        pair.set("/a", &value);
        wait_for("the copy", || pair.v3_keys().get("/a") == Some(&value));
        // Until the progress is written.
        thread::sleep(Duration::from_secs(1));
        match revoked {
            true => revoke_lease_of(&pair, "etcdlift/online/lock"),
            false => drop(pair.ctl().del("etcdlift/online/lock")),
        }
        let revision = pair.ctl().all().1;
        if changes {
            pair.set("/a", "late");
        }
        let (status, text) = job.end();
        assert_eq!((status, text.matches("etcdlift: error:").count()), (5, 1), "{text}");
        assert!(text.contains("the lock is lost") && text.contains("hint: run the command again"), "{text}");
        assert_eq!(pair.ctl().all().1, revision, "nothing was written since");
        pair.online("copy", &["--once"]).success();
        assert_eq!(pair.v3_keys()["/a"], if changes { "late" } else { &value });
        pair.online("verify", &[]).success();
    }
}

#[test]
fn keys_whose_lease_is_revoked_are_named_and_come_back() {
    let Some(peers) = peers::require("online::faults") else { return };
    let pair = Pair::start(&peers, Version::V3_6, &[]);
    let timed = |key: &str, seconds: u64| {
        pair.ask_v2("PUT", &format!("/v2/keys{key}"), &format!("value=v&ttl={seconds}"));
    };
    let job = pair.job(&[]);
    pair.set("/plain", "v2");
    let began = Instant::now();
    (0..5).for_each(|number| timed(&format!("/t/{number}"), 200));
    wait_for("the copy", || pair.v3_keys().len() == 6);
    while pair.v3_keys().len() > 1 {
        let key = pair.v3_keys().into_keys().find(|key| key.starts_with("/t/")).unwrap();
        revoke_lease_of(&pair, &key);
    }
    // They end in the same seconds as those before, so the job takes the leases that it knows.
    let left = 200 - began.elapsed().as_secs();
    (0..7).for_each(|number| timed(&format!("/u/{number}"), left + number - 3));
    wait_for("the later keys", || pair.v3_keys().len() == 8);
    timed("/t/1", 150);
    wait_for("the key that changes", || pair.v3_keys().contains_key("/t/1"));
    let verified = pair.online("verify", &["--json"]);
    assert_eq!(verified.status, 7, "{}", verified.story());
    let named = verified.json();
    assert_eq!((named["differing"].as_u64(), named["equal"].as_u64()), (Some(4), Some(9)), "{named}");
    assert_eq!(named["differences"][0]["what"], "missing", "{named}");
    let refused = pair.online("switch", &[]);
    assert!(refused.status == 5 && refused.stderr.contains("4 keys of v3 differ"), "{}", refused.story());
    let (status, text) = job.stop();
    assert!(status == 143 && !text.contains("lease not found"), "{text}");
    pair.online("copy", &["--once"]).success();
    pair.online("verify", &[]).success();
    for row in pair.ctl().all().0.into_iter().filter(|row| row.key.starts_with(b"/t/") || row.key.starts_with(b"/u/")) {
        let left = pair.ctl().time_to_live(row.lease).1;
        assert!((100..=205).contains(&left), "{left}");
    }
}

#[test]
fn no_space_is_named_and_loses_nothing() {
    let Some(peers) = peers::require("online::faults") else { return };
    let pair = Pair::start(&peers, Version::V3_5, &["--quota-backend-bytes", "3000000"]);
    // What takes the space is not of the job: values that are written again and again.
    let large = "x".repeat(60_000);
    for _ in 0..30 {
        pair.ctl().put("theirs", &large);
    }
    let value = |number: usize| format!("{number}{}", &large[..25_000]);
    (0..60).for_each(|number| pair.set(&format!("/large/{number}"), &value(number)));
    // Slowly: etcd learns the size of its file only when it commits, 10 times a second.
    let slowly = ["--in-flight", "1", "--max-txn-ops", "24", "--rate-limit", "50"];
    let once = [&["--once", "--lock-ttl", "2s"][..], &slowly].concat();
    let full = pair.online("copy", &once);
    assert_eq!(full.status, 5, "{}", full.story());
    assert!(
        full.stderr.contains("database space exceeded") && full.stderr.contains("alarm disarm"),
        "{}",
        full.story()
    );
    assert_eq!(full.stderr.matches("etcdlift: error:").count(), 1, "{}", full.story());
    // The space ends in the middle of the copy.
    let copied = pair.v3_keys();
    assert!((1..60).contains(&copied.len()), "{}", copied.len());
    assert_eq!(pair.online("copy", &once).status, 5, "the alarm is on");
    // v2 goes on meanwhile.
    let last = copied.into_keys().rfind(|key| key != "/large/0").unwrap();
    pair.set(&last, "new");
    pair.delete("/large/0");
    pair.set("/large/60", "late");
    // As the hint says.
    let revision = pair.ctl().all().1;
    pair.ctl().compaction(revision);
    pair.ctl().defrag();
    pair.ctl().does(&["alarm", "disarm"]);
    let done = pair.online("copy", &once).success();
    assert!(done.stderr.contains("COMPLETE"), "{}", done.story());
    let mut expected: BTreeMap<_, _> = (1..60).map(|number| (format!("/large/{number}"), value(number))).collect();
    expected.extend([(last, "new".to_string()), ("/large/60".to_string(), "late".to_string())]);
    assert!(pair.v3_keys() == expected, "v3 has what v2 has: {:?}", pair.v3_keys().keys());
    pair.online("verify", &[]).success();
    let status = pair.online("status", &["--json"]).success().json();
    assert_eq!(status["conflicts"].as_u64(), Some(0), "{status}");
    pair.online("switch", &[]).success();
}

#[test]
fn a_closed_port_has_one_line() {
    let closed = free_address().to_string();
    let began = Instant::now();
    let refused = etcdlift(["online", "status", "--endpoints", &closed]);
    assert_eq!(refused.status, 5, "{}", refused.story());
    let expected = format!("etcdlift: error: http://{closed}: cannot connect: Connection refused (os error 111)\n");
    assert!(refused.stderr.starts_with(&expected), "{}", refused.story());
    assert!(began.elapsed() < Duration::from_secs(10));
}
