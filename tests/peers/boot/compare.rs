//! A directory that `convert` wrote, and one that the target's own tool restored from our snapshot file: the same cluster, the
//! same keys, the same hash. Every record, field and pair that differs is listed, and each difference has its reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::slice::from_ref;

use serde_json::Value;

use super::{VERSIONS, make, options};
use crate::common::cluster::{Seat, initial_cluster, seats};
use crate::common::convert::{Inspected, convert_to};
use crate::common::corpus::{self, Scenario};
use crate::common::dump::Dump;
use crate::common::peers::{self, Peers, Version};
use crate::common::protobuf::{Field, bytes_of, fields, number_of};
use crate::common::run::{all_well, bounded, run};
use crate::common::{scratch, v2files};
use crate::test_name;

const SEGMENT: &str = "member/wal/0000000000000000-0000000000000000.wal";
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
const DB: &str = "member/snap/db";

/// A difference that may be.
struct Allowed {
    /// The releases whose tool writes something else.
    versions: &'static [Version],
    /// The parts of its line, in this order; the line begins with the first.
    parts: &'static [&'static str],
    reason: &'static str,
}

const fn allowed(versions: &'static [Version], parts: &'static [&'static str], reason: &'static str) -> Allowed {
    Allowed { versions, parts, reason }
}

const ONLY_3_4: &[Version] = &[Version::V3_4];
const ONLY_3_7: &[Version] = &[Version::V3_7];
const FROM_3_6: &[Version] = &[Version::V3_6, Version::V3_7];

const ALLOWED: [Allowed; 10] = [
    allowed(
        &VERSIONS,
        &["mode member/snap/0", "snap: 100600 is not"],
        "only the owner may read our files; the umask decides about the tool's",
    ),
    allowed(&VERSIONS, &["size member/snap/0"], "the events and counters below"),
    allowed(
        &VERSIONS,
        &["store WatcherHub ", ": missing is not"],
        "past events, for v2 clients that watch; a server begins without any",
    ),
    allowed(&VERSIONS, &["store Stats ", ": missing is not"], "counters of v2 requests; a server begins at zero"),
    allowed(
        FROM_3_6,
        &["store Root Children 0 Children members Children ", "Index: "],
        "the tool adds the members in no order, we in the order of the log; nothing reads their v2 indexes",
    ),
    allowed(
        &VERSIONS,
        &["size member/snap/db: "],
        "the tool's own transaction lets the file grow; the pairs are the same",
    ),
    allowed(
        ONLY_3_4,
        &["members ", "is not missing"],
        "3.4 has the members in the store only; 3.6 and 3.7 need the bucket",
    ),
    allowed(
        ONLY_3_4,
        &["wal ", " snapshot conf_state ", "is not missing"],
        "3.4 writes none and skips it; later ones write it",
    ),
    allowed(ONLY_3_7, &["wal ", " entry data id: 0 is not missing"], "3.7 leaves out a zero, which means the same"),
    allowed(
        ONLY_3_7,
        &["", " conf_state auto_leave: 0 is not missing"],
        "3.7 leaves out a false, which means the same",
    ),
];

impl Allowed {
    fn covers(&self, version: Version, line: &str) -> bool {
        let mut rest = line;
        let mut found = |part: &&str| rest.split_once(*part).map(|(_, after)| rest = after).is_some();
        self.versions.contains(&version) && line.starts_with(self.parts[0]) && self.parts.iter().all(&mut found)
    }
}

#[test]
fn a_directory_differs_from_a_restored_one_in_known_points_only() {
    let test = test_name!();
    let Some(peers) = peers::require(test) else { return };
    let (mut wrong, mut used) = (BTreeSet::new(), BTreeSet::new());
    for (name, names) in [("v2.3.8-b", &["solo"][..]), ("v3.4.23-d", &["a", "b", "c"])] {
        let Some(scenario) = corpus::scenario(test, name) else { return };
        for version in VERSIONS {
            for line in differences(&peers, version, &scenario, names) {
                match ALLOWED.iter().position(|one| one.covers(version, &line)) {
                    Some(at) => drop(used.insert(at)),
                    None => drop(wrong.insert(format!("etcd {version}, {names:?}: {line}"))),
                }
            }
        }
    }
    all_well(&wrong.into_iter().collect::<Vec<_>>());
    for (at, Allowed { parts, reason, .. }) in ALLOWED.iter().enumerate() {
        let by_umask = parts[0].starts_with("mode");
        assert!(by_umask || used.contains(&at), "no directory differs in {parts:?}: {reason}");
    }
}

/// What differs between the directories of all members, each in one line.
fn differences(peers: &Peers, version: Version, scenario: &Scenario, names: &[&str]) -> Vec<String> {
    let temp = scratch::temp();
    let (seats, options) = (seats(names), options(scenario));
    let source = scenario.data_dir("m0.etcd");
    let made = make(from_ref(&source), temp.path(), &seats, &options);
    let file = convert_to(&source, &temp.path().join("file"), options);
    assert_eq!(file.output.status, 0, "{}", file.output.story());
    let mut found = Vec::new();
    for seat in &seats {
        let theirs = temp.path().join(format!("restored-{}", seat.name));
        restore(peers, version, &file.snapshot, &theirs, seat, &seats);
        let ours = made.data_dir(&seat.name);
        let hashes = [&ours, &theirs].map(|dir| Inspected::of(&dir.join(DB)).hash_kv);
        assert_eq!(hashes, [made.hash_kv(); 2], "etcd {version}, {}", seat.name);
        let [ours, theirs] = [ours, theirs].map(|dir| Facts::of(peers, &dir).0);
        assert_eq!(ours["wal 1 metadata node"], u64::from_str_radix(&made.id(&seat.name), 16).unwrap().to_string());
        assert_eq!(ours["wal 1 metadata cluster"], u64::from_str_radix(made.cluster_id(), 16).unwrap().to_string());
        let all: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
        let differ = all.into_iter().filter(|name| ours.get(*name) != theirs.get(*name));
        let show = |value: Option<&String>| value.map_or("missing".into(), |value| format!("{:.80}", value));
        found.extend(differ.map(|name| format!("{name}: {} is not {}", show(ours.get(name)), show(theirs.get(name)))));
    }
    found
}

fn restore(peers: &Peers, version: Version, snapshot: &Path, dir: &Path, seat: &Seat, seats: &[Seat]) {
    let program = match version {
        Version::V3_4 => peers.etcdctl_3_4(),
        _ => peers.etcdutl(version),
    };
    let mut command = bounded(&program, 60);
    command.env("ETCDCTL_API", "3").args(["snapshot", "restore"]).arg(snapshot).arg("--data-dir").arg(dir);
    command.args(["--name", &seat.name, "--initial-cluster", &initial_cluster(seats)]);
    run(command.args(["--initial-advertise-peer-urls", &seat.peer_url()])).success();
}

/// Everything in a data directory, one name for each value.
struct Facts(BTreeMap<String, String>);

impl Facts {
    fn of(peers: &Peers, dir: &Path) -> Self {
        let mut facts = Self(BTreeMap::new());
        facts.files(dir, "member");
        facts.segment(&fs::read(dir.join(SEGMENT)).unwrap());
        let snap = scratch::names(&dir.join("member/snap")).into_iter().find(|name| name.ends_with(".snap")).unwrap();
        facts.snap(&fs::read(dir.join("member/snap").join(snap)).unwrap());
        facts.database(peers, &dir.join(DB));
        facts
    }

    fn add(&mut self, name: impl Into<String>, value: impl ToString) {
        assert!(self.0.insert(name.into(), value.to_string()).is_none());
    }

    /// Names, sizes and permissions.
    fn files(&mut self, dir: &Path, path: &str) {
        let meta = fs::symlink_metadata(dir.join(path)).unwrap();
        self.add(format!("mode {path}"), format!("{:o}", meta.mode()));
        if meta.is_dir() {
            for name in scratch::names(&dir.join(path)) {
                self.files(dir, &format!("{path}/{name}"));
            }
        } else {
            self.add(format!("size {path}"), meta.len());
        }
    }

    /// The records of the log, and the zeros after them.
    fn segment(&mut self, bytes: &[u8]) {
        let frames = v2files::frames(bytes);
        let end = frames.last().unwrap().1.end.next_multiple_of(8);
        // Not byte by byte, which takes a while in a test.
        assert!(bytes[end..].chunks(ZEROS.len()).all(|chunk| *chunk == ZEROS[..chunk.len()]));
        let mut crc = 0;
        for (number, (_, record)) in frames.into_iter().enumerate() {
            let record = &bytes[record];
            let data = bytes_of(record, 3);
            crc = crc32c::crc32c_append(crc, data.unwrap_or_default());
            assert_eq!(number_of(record, 2), Some(u64::from(crc)));
            let (kind, names): (&str, &[&str]) = match number_of(record, 1).unwrap() {
                1 => ("metadata", &["node", "cluster"]),
                2 => ("entry", &["type", "term", "index", "data"]),
                3 => ("state", &["term", "vote", "commit"]),
                4 => ("checksum", &[]),
                5 => ("snapshot", &["index", "term", "conf_state"]),
                other => panic!("a record of type {other}"),
            };
            self.add(format!("wal {number}"), format!("{kind}, {} data", if data.is_some() { "with" } else { "no" }));
            self.message(&format!("wal {number} {kind}"), data.unwrap_or_default(), names);
        }
    }

    /// The fields of a message by these names; a configuration change and a raft configuration field by field, too.
    fn message(&mut self, prefix: &str, message: &[u8], names: &[&str]) {
        for (place, (number, field)) in fields(message).into_iter().enumerate() {
            let name = names.get(usize::try_from(number).unwrap() - 1).copied().unwrap_or("?");
            match (name, field) {
                ("voters" | "learners", Field::Number(value)) => self.add(format!("{prefix} {name} {place}"), value),
                (_, Field::Number(value)) => self.add(format!("{prefix} {name}"), value),
                ("data", Field::Bytes(bytes)) => {
                    self.message(&format!("{prefix} {name}"), bytes, &["id", "type", "node", "context"]);
                }
                ("conf_state", Field::Bytes(bytes)) => {
                    let names = ["voters", "learners", "voters_outgoing", "learners_next", "auto_leave"];
                    self.message(&format!("{prefix} {name}"), bytes, &names);
                }
                ("context", Field::Bytes(bytes)) => {
                    self.add(format!("{prefix} {name}"), String::from_utf8_lossy(bytes))
                }
                (_, Field::Bytes(bytes)) => panic!("{prefix} {name}: {bytes:?}"),
            }
        }
    }

    /// The `.snap` file: its raft metadata, and the v2 store value by value.
    fn snap(&mut self, file: &[u8]) {
        let data = bytes_of(file, 2).unwrap();
        assert_eq!(number_of(file, 1), Some(u64::from(crc32c::crc32c(data))));
        self.message("snap metadata", bytes_of(data, 2).unwrap(), &["conf_state", "index", "term"]);
        let store: Value = serde_json::from_slice(bytes_of(data, 1).unwrap()).unwrap();
        self.json("store", &store);
    }

    fn json(&mut self, path: &str, value: &Value) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                map.iter().for_each(|(name, value)| self.json(&format!("{path} {name}"), value));
            }
            _ => self.add(path, value),
        }
    }

    /// The buckets of the database, and all pairs.
    fn database(&mut self, peers: &Peers, file: &Path) {
        let dump = Dump::of(peers, file);
        self.add("buckets", dump.buckets.join(" "));
        for pair in &dump.keys {
            self.add(format!("key {}_{} {}", pair.main, pair.sub, pair.tombstone), format!("{:?}", pair.row));
        }
        for other in &dump.others {
            let name = format!("{} {}", other.bucket, other.key.escape_ascii());
            self.add(name, other.value.escape_ascii());
        }
    }
}
