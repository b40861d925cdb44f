//! etcdlift against the real programs: what it writes must be what the v2
//! server held, sound to bbolt and etcdutl, and a store that etcd 3.4 to 3.7
//! restore, serve and go on with.
//!
//! Needs what `tests/peers/build` makes and the corpus; a test that lacks one
//! says `SKIPPED`. The expectations come from `truth.json` (written down from
//! the servers that made the corpus) and from a live etcd 3.4, never from
//! etcdlift itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs, thread};

use crate::common::convert::{Converted, convert, convert_to, options};
use crate::common::corpus::{self, Scenario};
use crate::common::dump::{BUCKETS, Dump};
use crate::common::etcdctl::Etcdctl;
use crate::common::peers::{self, Peers, Version};
use crate::common::rows::{self, Row};
use crate::common::run::all_well;
use crate::common::server::{Boot, Server};
use crate::common::truth::Truth;
use crate::common::{scratch, v2files, v2keys};
use crate::test_name;

/// One writer or several, with and without snapshots, with auth, with members
/// that came and went, and backups.
const KINDS: [&str; 5] = ["a", "b", "d", "e", "h"];

/// For the tests that start servers: a directory of each line of releases and
/// of each kind with more than one way to be read.
const SERVED: [(&str, &str); 5] = [
    ("v2.0.13-b", "m0.etcd"),
    ("v2.3.8-e", "m3.etcd"),
    ("v3.3.27-h", "live.etcd"),
    ("v3.4.23-d", "m0.etcd"),
    ("v3.5.16-b", "m0.etcd"),
];

#[test]
fn every_directory_gives_what_its_server_held() {
    let Some((peers, scenarios)) = everything(test_name!()) else {
        return;
    };
    let mut wrong = Vec::new();
    for (scenario, data_dir) in each(&scenarios) {
        let converted = convert(scenario, data_dir);
        let mut say = |what: String| wrong.push(format!("{}/{data_dir}: {what}", scenario.name));
        if !may_end_with(scenario, converted.output.status) {
            say(converted.output.story());
            continue;
        }
        for path in &converted.touched {
            say(format!("the source was changed: {}", path.display()));
        }
        let dump = Dump::of(&peers, &converted.snapshot);
        let expected = expected(scenario, data_dir);
        rows::differences(&expected, &dump.rows()).into_iter().for_each(&mut say);
        faults(&dump, &rows::lease_lengths(scenario, data_dir), scenario.truth.auth_enabled())
            .into_iter()
            .for_each(&mut say);
        auth_faults(&dump, &scenario.truth).into_iter().for_each(&mut say);
        let inspected = converted.inspect();
        let keys = (inspected.keys, inspected.leases);
        let leases = expected.iter().map(|row| row.lease).max().unwrap_or(0);
        if keys != (expected.len() as u64, leases.cast_unsigned()) {
            say(format!("inspect says {inspected:?}"));
        }
        let index = scenario.truth.etcd_index_of(data_dir);
        if inspected.revision != index {
            say(format!("revision {} is not v2 index {index}", inspected.revision));
        }
    }
    all_well(&wrong);
}

#[test]
fn bbolt_and_etcdutl_accept_every_output() {
    let Some((peers, scenarios)) = everything(test_name!()) else {
        return;
    };
    let mut wrong = Vec::new();
    for (scenario, data_dir) in each(&scenarios) {
        let Some(converted) = usable(scenario, data_dir) else {
            wrong.push(format!("{}/{data_dir}: no output", scenario.name));
            continue;
        };
        let mut say = |what: String| wrong.push(format!("{}/{data_dir}: {what}", scenario.name));
        let check = peers.check(&converted.snapshot);
        if check.status != 0 {
            say(check.story());
        }
        let inspected = converted.inspect();
        let rows = expected(scenario, data_dir);
        let last = rows.iter().map(|row| row.modified).max().unwrap_or(0);
        let size = fs::metadata(&converted.snapshot).unwrap().len() - 32;
        for version in Version::WITH_ETCDUTL {
            let status = peers.status(version, &converted.snapshot);
            if status.status != 0 {
                say(status.story());
                continue;
            }
            let json = status.json();
            if json["hash"].as_u64() != Some(inspected.status_hash) {
                say(format!("{version} says {json}, inspect {inspected:?}"));
            }
            if json["revision"].as_i64() != Some(last) || json["totalSize"].as_u64() != Some(size) {
                say(format!("{version} says {json}; {last} and {size} are right"));
            }
            // 3.5 counts the pairs of all buckets.
            let keys = json["totalKey"].as_u64();
            if version != Version::V3_5 && keys != Some(rows.len() as u64) {
                say(format!("{version} says {json}; there are {} keys", rows.len()));
            }
        }
    }
    all_well(&wrong);
}

#[test]
fn etcd_3_4_restores_and_serves_it() {
    restored_and_served(test_name!(), Version::V3_4);
}

#[test]
fn etcd_3_5_restores_and_serves_it() {
    restored_and_served(test_name!(), Version::V3_5);
}

#[test]
fn etcd_3_6_restores_and_serves_it() {
    restored_and_served(test_name!(), Version::V3_6);
}

#[test]
fn etcd_3_7_restores_and_serves_it() {
    restored_and_served(test_name!(), Version::V3_7);
}

/// The directories that are not among those above, each on one release in turn; with `ETCDLIFT_BOOT_ALL=1` on all.
#[test]
fn every_other_directory_is_restored_and_served_too() {
    let Some((peers, scenarios)) = everything(test_name!()) else {
        return;
    };
    let versions = [Version::V3_4, Version::V3_5, Version::V3_6, Version::V3_7];
    let others: Vec<_> = each(&scenarios)
        .filter(|(scenario, data_dir)| !SERVED.contains(&(scenario.name.as_str(), *data_dir)))
        .collect();
    let all = std::env::var_os("ETCDLIFT_BOOT_ALL").is_some_and(|value| value == "1");
    let turn = |at: usize| versions.iter().enumerate().filter(move |(turn, _)| all || at % 4 == *turn).map(|(_, v)| *v);
    let runs: Vec<_> =
        others.iter().enumerate().flat_map(|(at, of)| turn(at).map(move |version| (version, of))).collect();
    let next = AtomicUsize::new(0);
    // As many as servers may run at once.
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let take = || runs.get(next.fetch_add(1, Ordering::Relaxed)).copied();
                while let Some((version, (scenario, data_dir))) = take() {
                    restored_and_served_of(&peers, version, scenario, data_dir);
                }
            });
        }
    });
    assert!(others.len() >= corpus::at_least(20, 3), "{}", others.len());
}

#[test]
fn output_is_the_same_for_any_number_of_jobs() {
    let test = test_name!();
    for (name, data_dir) in SERVED {
        let Some(scenario) = corpus::scenario(test, name) else {
            return;
        };
        let temp = scratch::temp();
        let outputs = ["1", "2", "8"].map(|jobs| {
            let mut options = options(&scenario.truth);
            options.extend(["--jobs".to_owned(), jobs.to_owned()]);
            let folder = temp.path().join(jobs);
            let converted = convert_to(&scenario.data_dir(data_dir), &folder, options);
            let status = converted.output.status;
            assert!(may_end_with(&scenario, status), "{}", converted.output.story());
            fs::read(converted.snapshot).unwrap()
        });
        assert!(outputs.iter().all(|output| *output == outputs[0]), "{name}/{data_dir}: the bytes depend on --jobs");
    }
}

#[test]
fn live_members_give_one_snapshot() {
    let Some(scenarios) = corpus::of_kinds(test_name!(), &["e"]) else {
        return;
    };
    for scenario in scenarios {
        let live = scenario.live();
        assert!(live.len() >= 3, "{}: {live:?}", scenario.name);
        let outputs: Vec<_> = live.iter().map(|name| read(&scenario, name)).collect();
        for (name, output) in live.iter().zip(&outputs) {
            let same = *output == outputs[0];
            assert!(same, "{}: {name} differs from {}", scenario.name, live[0]);
        }
    }
}

/// The oracle itself, on a directory whose truth is known.
#[test]
fn the_oracle_lists_what_the_truth_holds() {
    let test = test_name!();
    let Some(peers) = peers::require(test) else {
        return;
    };
    for name in ["v2.3.8-b", "v3.4.23-b"] {
        let Some(scenario) = corpus::scenario(test, name) else {
            return;
        };
        let truth = &scenario.truth;
        let hidden = &truth.hidden_paths_tried;
        let listing = v2keys::serve_copy(&peers, &scenario.data_dir("m0.etcd"), hidden);
        let expected: Vec<Row> = truth
            .nodes
            .iter()
            .filter(|node| !node.dir)
            .map(Row::of_node)
            // `etcdctl migrate` drops keys that have expired since the listing.
            .filter(|row| !mortal(truth, &row.key) || listing.rows.contains(row))
            .collect();
        assert!(expected.iter().any(|row| row.key.windows(2).any(|pair| pair == b"/_")));
        all_well(&rows::differences(&expected, &listing.rows));
        assert!(listing.etcd_index > truth.etcd_index);
    }
}

#[test]
fn public_jteso_envoy_is_what_a_real_server_serves() {
    let test = test_name!();
    let (Some(peers), Some(public)) = (peers::require(test), corpus::public(test)) else {
        return;
    };
    let source = public.join("jteso-envoy@536f1d3");
    let listing = v2keys::serve_copy(&peers, &source, &[]);
    assert!(!listing.rows.is_empty());
    let temp = scratch::temp();
    let converted = convert_to(&source, temp.path(), ["--jobs", "2"]);
    assert_eq!(converted.output.status, 0, "{}", converted.output.story());
    let dump = Dump::of(&peers, &converted.snapshot);
    all_well(&rows::differences(&listing.rows, &dump.rows()));
}

/// Its WAL was too big for the corpus, so the server gets a minimal one.
#[test]
fn public_kube_vproxy_kqe_is_what_a_real_server_serves() {
    const NODE: u64 = 0xce2a_822c_ea30_bfca;
    const CLUSTER: u64 = 0x7e27_6521_22e8_b2ae;
    let test = test_name!();
    let (Some(peers), Some(public)) = (peers::require(test), corpus::public(test)) else {
        return;
    };
    let source = public.join("kube-vproxy-kqe@46fdf5b");
    let temp = scratch::temp();
    let copy = temp.path().join("copy");
    scratch::copy_tree(&source, &copy);
    let newest = v2files::newest_snapshot(&copy).unwrap();
    assert_eq!(newest.voters, [NODE]);
    v2files::write_minimal_wal(&copy, &newest, NODE, CLUSTER);
    let listing = v2keys::serve_copy(&peers, &copy, &[]);
    assert!(!listing.rows.is_empty() && listing.etcd_index >= newest.v2_index);

    let converted = convert_to(&source, temp.path(), ["--wal-dir", "none"]);
    // 8 is right too: later writes are not in it.
    let output = &converted.output;
    assert!(matches!(output.status, 0 | 8), "{}", output.story());
    let dump = Dump::of(&peers, &converted.snapshot);
    all_well(&rows::differences(&listing.rows, &dump.rows()));
    assert!(converted.inspect().revision >= newest.v2_index);
}

/// None of them holds a v2 key (a real etcd 3.4 lists none either) or is v2
/// data at all.
#[test]
fn other_public_files_end_with_one_line() {
    const EMPTY: (i32, &str) = (4, "nothing-to-convert");
    const OTHER: (i32, &str) = (5, "not-etcd-data");
    const UNSUPPORTED: (i32, &str) = (5, "unsupported-format");
    const CASES: [(&str, (i32, &str), &str); 18] = [
        ("bamboo@7cbb68a", EMPTY, "holds no v2 key"),
        ("etcd-TestNewWal@v3.7.0", OTHER, "a `wal` or `snap` folder"),
        ("etcd-TestNewWal@v3.7.0/TestNew.wal", OTHER, "found a WAL segment"),
        ("etcd-corrupted-backup@v3.4.0", OTHER, "expected a data directory (with"),
        ("etcd-corrupted-backup@v3.4.0/corrupted_backup.db", UNSUPPORTED, "v2 keys are in .snap and WAL files"),
        ("etcd-integration046@v2.0.0", UNSUPPORTED, "etcd 0.4"),
        ("etcd-integration046@v2.0.0/snapshot/1_90.ss", OTHER, "neither"),
        ("etcd-migrate-cmdlog@v2.0.0", OTHER, "expected a data directory (with"),
        ("etcd-migrate-cmdlog@v2.0.0/cmdlog", OTHER, "neither"),
        ("jteso-xchronos@ff388fe", EMPTY, "holds no v2 key"),
        ("kube-vproxy@46fdf5b", EMPTY, "holds no v2 key"),
        ("kube-vproxy@46fdf5b/member/snap/0000000000000003-0000000000002711.snap", EMPTY, "holds no v2 key"),
        ("kube-vproxy-kqe@46fdf5b", (5, "wal-missing"), "--wal-dir none"),
        ("supergiant-control@84814a2", EMPTY, "holds no v2 key"),
        ("teardown@b686f2c", EMPTY, "holds no v2 key"),
        ("v3db-aidezone-java-components@58e46d1", EMPTY, "only a v3 database"),
        ("v3db-balchua-etcd-embedded@45ab780", EMPTY, "only a v3 database"),
        ("SOURCES.tsv", OTHER, "neither"),
    ];
    let Some(public) = corpus::public(test_name!()) else {
        return;
    };
    let mut wrong = Vec::new();
    for (name, (status, reason), words) in CASES {
        let source = public.join(name);
        let temp = scratch::temp();
        let converted = convert_to(&source, temp.path(), ["--jobs", "2"]);
        let output = &converted.output;
        // A hint may follow on a line of its own.
        let (lines, hints): (Vec<&str>, Vec<&str>) =
            output.stderr.lines().filter(|line| !line.trim().is_empty()).partition(|line| !line.starts_with("hint: "));
        let line = lines.last().copied().unwrap_or_default();
        let said = line.contains(source.to_str().unwrap()) && output.stderr.contains(words) && hints.len() <= 1;
        if output.status != status || lines.len() != 1 || !said {
            wrong.push(format!("{status}, and one line with {words:?} expected: {}", output.story()));
        }
        if converted.snapshot.exists() {
            wrong.push(format!("{name}: there is an output"));
        }
        let report: serde_json::Value = serde_json::from_slice(&fs::read(&converted.report).unwrap()).unwrap();
        if report["reason"] != reason {
            wrong.push(format!("{name}: the reason is {}, not {reason}", report["reason"]));
        }
    }
    all_well(&wrong);
}

/// Restores each of a handful of snapshots with a release's own tool, and
/// uses the server that starts from it.
fn restored_and_served(test: &str, version: Version) {
    let Some(peers) = peers::require(test) else {
        return;
    };
    for (name, data_dir) in SERVED {
        let Some(scenario) = corpus::scenario(test, name) else {
            return;
        };
        restored_and_served_of(&peers, version, &scenario, data_dir);
    }
}

fn restored_and_served_of(peers: &Peers, version: Version, scenario: &Scenario, data_dir: &str) {
    eprintln!("{}/{data_dir} on etcd {version}", scenario.name);
    let converted =
        usable(scenario, data_dir).unwrap_or_else(|| panic!("{}", convert(scenario, data_dir).output.story()));
    serve(peers, version, &converted, &expected(scenario, data_dir), highest_index(scenario, data_dir));
}

fn serve(peers: &Peers, version: Version, converted: &Converted, expected: &[Row], highest: u64) {
    let temp = scratch::temp();
    let data_dir = temp.path().join("restored");
    peers.restore(version, &converted.snapshot, &data_dir).success();
    let boot = Boot::new(peers, version, &data_dir);

    let server = Server::start(&boot);
    let ctl = Etcdctl::new(peers, &server);
    let (rows, revision) = ctl.all();
    all_well(&rows::differences(expected, &rows));
    let inspected = converted.inspect();
    assert_eq!(revision, inspected.revision);
    assert!(revision <= highest, "revision {revision}, v2 index {highest}");
    assert_eq!(ctl.hash_kv(), inspected.hash_kv);
    old_watch_is_refused(&ctl, revision);

    assert_eq!(ctl.put("/etcdlift/peer", "one"), revision + 1);
    assert_eq!(ctl.del("/etcdlift/peer"), (revision + 2, 1));
    let victim = expected.iter().find(|row| row.key.is_ascii() && !row.key.contains(&0)).unwrap();
    let key = str::from_utf8(&victim.key).unwrap();
    assert_eq!(ctl.del(key), (revision + 3, 1));
    ctl.compaction(revision + 3);
    ctl.defrag();
    let left: Vec<Row> = expected.iter().filter(|row| *row != victim).cloned().collect();
    all_well(&rows::differences(&left, &ctl.all().0));
    let hash = ctl.hash_kv();
    server.stop();

    let server = Server::start(&boot);
    let ctl = Etcdctl::new(peers, &server);
    assert_eq!(ctl.hash_kv(), hash);
    let (rows, again) = ctl.all();
    all_well(&rows::differences(&left, &rows));
    assert_eq!(again, revision + 3);
    assert_eq!(ctl.put(key, "again"), revision + 4);
}

/// A client that still holds a revision from before must hear that it is
/// gone, rather than wait for events that will not come.
fn old_watch_is_refused(ctl: &Etcdctl, revision: u64) {
    let watch = ctl.watch_from(1, 20);
    let said = format!("{}{}", watch.text(), watch.stderr);
    assert_ne!(watch.status, 124, "it waits: {}", watch.story());
    assert!(said.contains("compacted"), "{}", watch.story());
    let marked = format!("\"CompactRevision\":{revision}");
    assert!(said.contains(&marked), "{marked}: {}", watch.story());
}

/// The rows that a directory should give.
fn expected(scenario: &Scenario, data_dir: &str) -> Vec<Row> {
    let dir = &scenario.truth.data_dirs[data_dir];
    assert!(
        !dir.differs_after_restart(),
        "{}/{data_dir}: its own server shows something else than the truth",
        scenario.name
    );
    rows::expected(scenario, data_dir)
}

/// Does the key, or a directory that it is in, have a TTL?
fn mortal(truth: &Truth, key: &[u8]) -> bool {
    let mut mortals = truth.nodes.iter().filter(|node| node.expiration.is_some());
    mortals.any(|node| {
        let rest = key.strip_prefix(node.key.as_bytes());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    })
}

/// What must not be in a file, besides wrong rows.
fn faults(dump: &Dump, leases: &[i64], auth: bool) -> Vec<String> {
    let mut faults = Vec::new();
    if dump.buckets != BUCKETS {
        faults.push(format!("the buckets are {:?}", dump.buckets));
    }
    for pair in &dump.keys {
        if pair.tombstone || pair.sub != 0 || pair.main != pair.row.modified {
            faults.push(format!("a pair that no v2 file gives: {pair:?}"));
        }
    }
    for other in &dump.others {
        let of_auth = auth && matches!(other.bucket.as_str(), "authUsers" | "authRoles");
        if !of_auth && !matches!(other.bucket.as_str(), "meta" | "auth" | "lease") {
            faults.push(format!("a pair that the keys alone do not give: {other:?}"));
        }
    }
    let found: Vec<_> = dump.others.iter().filter(|other| other.bucket == "lease").collect();
    let expected: Vec<_> = (1i64..).zip(leases).map(|(id, ttl)| (id.to_be_bytes().to_vec(), lease(id, *ttl))).collect();
    let same = found.iter().map(|pair| (&pair.key, &pair.value)).eq(expected.iter().map(|(key, value)| (key, value)));
    if !same {
        faults.push(format!("the leases {leases:?} are not {found:?}"));
    }
    for mark in ["scheduledCompactRev", "finishedCompactRev"] {
        if dump.other("meta", mark.as_bytes()).is_none() {
            faults.push(format!("meta has no {mark}"));
        }
    }
    // A restore sets both; equal trees must give equal bytes before it.
    for name in ["consistent_index", "term"] {
        let value = dump.other("meta", name.as_bytes());
        if value != Some(&1u64.to_be_bytes()) {
            faults.push(format!("meta has {value:?} for {name}"));
        }
    }
    faults
}

/// Users and roles are there by name, and authentication is off. What they may
/// do is another test's matter.
fn auth_faults(dump: &Dump, truth: &Truth) -> Vec<String> {
    let found = |bucket: &str| -> Vec<String> {
        let pairs = dump.others.iter().filter(|other| other.bucket == bucket);
        pairs.map(|pair| String::from_utf8_lossy(&pair.key).into_owned()).collect()
    };
    let auth = truth.auth.as_ref();
    let users: Vec<String> = auth.into_iter().flat_map(|auth| auth.users.keys().cloned()).collect();
    // v2 lists the role root, and stores none.
    let roles = auth.into_iter().flat_map(|auth| auth.roles.keys().cloned());
    let roles: Vec<String> = roles.filter(|role| role != "root").collect();
    [("authUsers", users), ("authRoles", roles), ("auth", Vec::new())]
        .into_iter()
        .filter(|(bucket, expected)| found(bucket) != *expected)
        .map(|(bucket, expected)| format!("{bucket}: expected {expected:?}, found {:?}", found(bucket)))
        .collect()
}

/// `leasepb.Lease`, by hand.
fn lease(id: i64, ttl: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (tag, number) in [(0x08, id), (0x10, ttl)] {
        bytes.push(tag);
        let mut rest = number.cast_unsigned();
        while rest >= 0x80 {
            bytes.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
            rest >>= 7;
        }
        bytes.push(u8::try_from(rest).unwrap());
    }
    bytes
}

/// The v2 index after a restart, which writes a little itself.
fn highest_index(scenario: &Scenario, data_dir: &str) -> u64 {
    let check = scenario.truth.data_dirs[data_dir].restart_check.as_ref();
    check.and_then(|check| check.etcd_index).unwrap()
}

/// A backup by 3.3 or later may not hold all that the cluster served.
fn may_end_with(scenario: &Scenario, status: i32) -> bool {
    let new_backup = scenario.kind() == "h" && scenario.version() >= vec![3, 3];
    status == 0 || (status == 8 && new_backup)
}

fn usable(scenario: &Scenario, data_dir: &str) -> Option<Arc<Converted>> {
    let converted = convert(scenario, data_dir);
    may_end_with(scenario, converted.output.status).then_some(converted)
}

fn read(scenario: &Scenario, data_dir: &str) -> Vec<u8> {
    let converted = convert(scenario, data_dir);
    fs::read(&converted.snapshot).unwrap_or_else(|_| panic!("{}", converted.output.story()))
}

fn everything(test: &str) -> Option<(Peers, Vec<Arc<Scenario>>)> {
    Some((peers::require(test)?, corpus::of_kinds(test, &KINDS)?))
}

fn each(scenarios: &[Arc<Scenario>]) -> impl Iterator<Item = (&Scenario, &str)> {
    scenarios.iter().flat_map(|scenario| {
        let live = scenario.live().into_iter();
        live.map(|name| (scenario.as_ref(), name))
    })
}
