//! `etcdlift online` with a real v2 source and real v3 clusters: kills, foreign keys, conflicts, and the way to the end.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::http;
use crate::common::peers::{self, Version};
use crate::common::run::{etcdlift, etcdlift_path};
use crate::pair::{Job, Pair, set, wait_for};

#[test]
fn a_job_killed_at_any_moment_goes_on() {
    let Some(peers) = peers::require("online::copy") else { return };
    for version in [Version::V3_4, Version::V3_5, Version::V3_6, Version::V3_7] {
        let pair = Pair::start(&peers, version, &[]);
        let v2 = pair.v2.client_address();
        (0..300).for_each(|number| set(v2, &format!("/k/{number}"), "first"));
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut number = 0;
                while !done.load(Ordering::Relaxed) {
                    set(v2, &format!("/k/{}", number % 300), &number.to_string());
                    number += 1;
                }
            });
            for wait in [30, 120, 400, 800] {
                let job = pair.job(&["--lock-ttl", "2s"]);
                thread::sleep(Duration::from_millis(wait));
                job.kill();
            }
            done.store(true, Ordering::Relaxed);
        });
        pair.delete("/k/7");
        let once = pair.online("copy", &["--once", "--lock-ttl", "2s"]).success();
        assert!(once.stderr.contains("COMPLETE"), "{}", once.story());
        let verified = pair.online("verify", &["--json"]).success().json();
        assert_eq!((verified["equal"].as_u64(), verified["differing"].as_u64()), (Some(299), Some(0)), "{verified}");
        let status = pair.online("status", &["--json"]).success().json();
        assert_eq!((status["lag_entries"].as_u64(), status["conflicts"].as_u64()), (Some(0), Some(0)), "{status}");
        assert_eq!(pair.v3_keys().len(), 299);
    }
}

#[test]
fn what_v3_leads_stays_and_the_whole_way_to_the_end() {
    let Some(peers) = peers::require("online::copy") else { return };
    let pair = Pair::start(&peers, Version::V3_6, &[]);
    for key in ["/moved", "/foreign", "/plain", "/dir/a", "/dir/b"] {
        pair.set(key, "v2");
    }
    let answer = http::put_form(pair.v2.client_address(), "/v2/keys/timed", "value=t&ttl=100").unwrap();
    assert!(answer.status < 300);
    pair.ctl().put("/foreign", "v3");
    let job = pair.job(&[]);
    wait_for("the copy", || pair.v3_keys().len() == 6);
    let timed = pair.ctl().all().0.into_iter().find(|row| row.key == b"/timed").unwrap();
    assert!((90..=101).contains(&pair.ctl().time_to_live(timed.lease).0), "the lease has the time that is left");
    // A second job is refused, and says whose the lock is.
    let second = pair.online("copy", &["--lock-ttl", "2s"]);
    assert_eq!(second.status, 5, "{}", second.story());
    assert!(second.stderr.contains("has the lock of this migration"), "{}", second.story());
    pair.ctl().txn("\nput /moved v3\nput etcdlift/online/moved//moved \"\"\n\n\n");
    pair.set("/moved", "late");
    pair.set("/foreign", "late");
    pair.set("/plain", "new");
    pair.delete("/dir");
    wait_for("the changes", || !pair.v3_keys().contains_key("/dir/b") && pair.v3_keys()["/plain"] == "new");
    let keys = pair.v3_keys();
    assert_eq!((keys["/moved"].as_str(), keys["/foreign"].as_str()), ("v3", "v3"));
    let (status, text) = job.stop();
    assert_eq!((status, text.contains("STOPPED")), (143, true), "{text}");
    let listed = pair.online("status", &["--conflicts", "-"]).success().text();
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert_eq!(pair.online("finish", &[]).status, 5, "the switch is off");
    pair.online("switch", &["--quiet-for", "1s"]).success();
    let refused = pair.online("finish", &[]);
    assert!(refused.status == 5 && refused.stderr.contains("--accept-conflicts"), "{}", refused.story());
    pair.online("finish", &["--accept-conflicts"]).success();
    let names: Vec<Vec<u8>> = pair.ctl().all().0.into_iter().map(|row| row.key).collect();
    let expected: [&[u8]; 5] = [b"/foreign", b"/moved", b"/plain", b"/timed", b"etcdlift/switch"];
    assert_eq!(names, expected);
}

#[test]
fn changes_of_moved_keys_while_no_job_runs_are_listed() {
    let Some(peers) = peers::require("online::copy") else { return };
    for by_directory in [true, false] {
        let pair = Pair::start(&peers, Version::V3_6, &[]);
        for key in ["/set", "/deleted", "/dir/below", "/plain"] {
            pair.set(key, "v2");
        }
        let run = |command: &str, more: &[&str]| {
            let mut arguments = pair.arguments(command, more);
            if by_directory {
                let dir = pair.temp.path().join("v2").display().to_string();
                arguments.splice(2..4, [dir]);
            }
            etcdlift(arguments)
        };
        let mut copy = pair.arguments("copy", &["--lock-ttl", "2s"]);
        if by_directory {
            copy.splice(2..4, [pair.temp.path().join("v2").display().to_string()]);
        }
        let mut command = Command::new(etcdlift_path());
        let job = Job(command.args(copy).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        wait_for("the copy", || pair.v3_keys().len() == 4);
        // Until the progress is written, which is the place to go on from.
        thread::sleep(Duration::from_secs(1));
        job.kill();
        for key in ["/set", "/deleted", "/dir/below"] {
            pair.ctl().txn(&format!("\nput {key} v3\nput etcdlift/online/moved/{key} \"\"\n\n\n"));
        }
        pair.set("/set", "late");
        pair.delete("/deleted");
        pair.delete("/dir");
        pair.set("/plain", "late");
        let once = run("copy", &["--once", "--lock-ttl", "2s"]);
        assert!(once.status == 8 && once.stderr.contains("except 3 changes listed"), "{}", once.story());
        let listed = run("status", &["--conflicts", "-"]).success().text();
        assert_eq!(listed.lines().count(), 3, "{listed}");
        for key in ["/set", "/deleted", "/dir/below"] {
            assert!(listed.contains(&format!("\"{key}\"")), "{key}: {listed}");
        }
        assert!(!listed.contains("unknown-deletions"), "{listed}");
        assert_eq!(pair.v3_keys()["/plain"], "late");
        if by_directory {
            continue;
        }
        (0..1100).for_each(|number| pair.set("/plain", &number.to_string()));
        assert_eq!(run("copy", &["--once", "--lock-ttl", "2s"]).status, 8);
        let listed = run("status", &["--conflicts", "-"]).success().text();
        assert!(listed.contains("unknown-deletions"), "the history of the server is gone: {listed}");
    }
}

#[test]
fn an_undo_leaves_what_applications_wrote() {
    let Some(peers) = peers::require("online::copy") else { return };
    let pair = Pair::start(&peers, Version::V3_7, &[]);
    (0..100).for_each(|number| pair.set(&format!("/{number}"), "v2"));
    pair.online("copy", &["--once"]).success();
    pair.online("switch", &[]).success();
    pair.ctl().put("/1", "normal");
    pair.ctl().del("/2");
    pair.online("undo", &[]).success();
    assert_eq!(pair.v3_keys(), BTreeMap::from([("/1".to_string(), "normal".to_string())]));
    let rows = pair.ctl().all().0;
    let markers = rows.iter().filter(|row| row.key.starts_with(b"etcdlift/online/moved/"));
    assert_eq!(markers.count(), 2);
}

#[test]
fn the_index_map_has_the_revisions_that_the_keys_got() {
    let Some(peers) = peers::require("online::copy") else { return };
    let pair = Pair::start(&peers, Version::V3_6, &[]);
    (0..300).for_each(|number| pair.set(&format!("/k/{number}"), "v2"));
    pair.online("copy", &["--once"]).success();
    pair.set("/k/7", "again");
    pair.delete("/k/8");
    pair.online("copy", &["--once"]).success();
    pair.ctl().txn("\nput /k/9 v3\nput etcdlift/online/moved//k/9 \"\"\n\n\n");
    let map = pair.temp.path().join("map.redb").display().to_string();
    pair.online("verify", &["--index-map", &map]).success();
    let rows = pair.ctl().all().0;
    let mut found = 0;
    for row in rows.iter().filter(|row| row.key.starts_with(b"/k/") && row.key != b"/k/9") {
        let key = String::from_utf8(row.key.clone()).unwrap();
        let answer = http::get(pair.v2.client_address(), &format!("/v2/keys{key}")).unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        let index = answer["node"]["modifiedIndex"].as_u64().unwrap();
        if found % 30 == 0 || key == "/k/7" {
            let looked = etcdlift(["lookup", &map, "--v2-index", &index.to_string(), "--json"]).success().json();
            let text = looked.to_string();
            assert!(text.contains(&format!("\"{key}\"")) && text.contains(&row.modified.to_string()), "{text}");
        }
        found += 1;
    }
    assert_eq!(found, 298);
    assert_eq!(etcdlift(["lookup", &map, "--key", "/k/9", "--json"]).status, 4, "v3 leads it");
}

#[test]
fn endpoints_of_another_cluster_are_refused_for_a_directory() {
    let Some(peers) = peers::require("online::copy") else { return };
    // Both have a v2 API.
    let pair = Pair::start(&peers, Version::V3_4, &["--enable-v2"]);
    pair.set("/a", "v2");
    let dir = pair.temp.path().join("v2").display().to_string();
    let with = |endpoints: String| {
        let mut arguments = pair.arguments("copy", &["--once"]);
        arguments.splice(2..4, [dir.clone(), "--v2-endpoints".into(), endpoints]);
        etcdlift(arguments)
    };
    let refused = with(pair.v3_url());
    assert_eq!(refused.status, 5, "{}", refused.story());
    assert!(refused.stderr.contains("--v2-endpoints are of v2 cluster"), "{}", refused.story());
    assert!(pair.ctl().all().0.iter().all(|row| row.key.ends_with(b"/lock")));
    with(pair.v2_url()).success();
    assert_eq!(pair.v3_keys().len(), 1);
}
