//! Faults of both clusters: each has its one line, and loses nothing.

use std::time::{Duration, Instant};

use crate::common::peers::{self, Version};
use crate::common::ports::free_address;
use crate::common::run::etcdlift;
use crate::pair::{Pair, wait_for};

#[test]
fn a_revoked_lock_ends_the_job_and_no_space_is_named() {
    let Some(peers) = peers::require("online::copy") else { return };
    let pair = Pair::start(&peers, Version::V3_5, &["--quota-backend-bytes", "3000000"]);
    pair.set("/a", "v2");
    let mut job = pair.job(&[]);
    wait_for("the copy", || pair.v3_keys().len() == 1);
    pair.ctl().del("etcdlift/online/lock");
    pair.set("/a", "late");
    let (status, text) = job.end();
    assert_eq!((status, pair.v3_keys()["/a"].as_str()), (5, "v2"), "{text}");
    assert!(text.contains("the lock is lost") && text.contains("hint: run the command again"), "{text}");
    let large = "x".repeat(60_000);
    (0..150).for_each(|number| pair.set(&format!("/large/{number}"), &large));
    let full = pair.online("copy", &["--once", "--lock-ttl", "2s", "--in-flight", "1"]);
    assert_eq!(full.status, 5, "{}", full.story());
    assert!(
        full.stderr.contains("database space exceeded") && full.stderr.contains("alarm disarm"),
        "{}",
        full.story()
    );
    assert_eq!(full.stderr.matches("etcdlift: error:").count(), 1, "{}", full.story());
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
