//! `etcdlift compare`: what it says of members that have converged, that are behind, that contradict each other, and of copies
//! that prove less.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::run::{Output, all_well, bounded, etcdlift, etcdlift_path, read_json, run};
use crate::common::v2files::{self, CONF_CHANGE, Log, NORMAL, Request};
use crate::common::v2store::{self, Node, joined, leaf};
use crate::common::{corpus, scratch};
use crate::test_name;

const CLUSTER: u64 = 0xc1;
const IDS: [u64; 3] = [0xa0, 0xa1, 0xa2];

/// Entries of the bootstrap of three members: three configuration changes, and the attributes of each.
const BOOTSTRAP: u64 = 6;

type Entry = (u64, u64, Vec<u8>);

fn peer_url(member: usize) -> String {
    format!("http://10.0.0.{}:2380", member + 1)
}

fn bootstrap() -> Vec<Entry> {
    let add = |at: usize| {
        let json = format!(r#"{{"id":{},"peerURLs":["{}"],"name":"m{at}"}}"#, IDS[at], peer_url(at));
        (CONF_CHANGE, 1, v2files::conf_change(v2files::ADD_NODE, IDS[at], &json))
    };
    let publish = |at: usize| {
        let json = format!(r#"{{"name":"m{at}","clientURLs":["http://10.0.0.{}:2379"]}}"#, at + 1);
        let path = format!("/0/members/{:x}/attributes", IDS[at]);
        (NORMAL, 2, v2files::put_request(at as u64 + 1, &path, json.as_bytes()))
    };
    (0..3).map(add).chain((0..3).map(publish)).collect()
}

fn put(key: &str, value: &str) -> Entry {
    (NORMAL, 2, v2files::put_request(7, &format!("/1{key}"), value.as_bytes()))
}

/// The first entry of a new leader.
fn empty(term: u64) -> Entry {
    (NORMAL, term, Vec::new())
}

/// A member of the cluster: its log has the bootstrap and these entries, of which `committed` are committed.
fn log(member: usize, entries: &[Entry], committed: usize) -> Log {
    Log {
        node_id: IDS[member],
        cluster_id: CLUSTER,
        start: (0, 0),
        entries: [bootstrap(), entries.to_vec()].concat(),
        commit: BOOTSTRAP + committed as u64,
        padded: false,
    }
}

struct Dirs(tempfile::TempDir);

impl Dirs {
    fn new() -> Dirs {
        Dirs(scratch::temp())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn member(&self, member: usize, entries: &[Entry], committed: usize) -> PathBuf {
        let path = self.at(&format!("m{member}.etcd"));
        v2files::write_log(&path, &log(member, entries, committed));
        path
    }
}

fn compare(sources: &[&Path], options: &[&str]) -> Output {
    let sources = sources.iter().map(|path| path.as_os_str());
    let args = std::iter::once("compare".as_ref()).chain(sources).chain(options.iter().map(AsRef::as_ref));
    etcdlift(args)
}

/// Compares, with the text and the JSON.
fn both(sources: &[&Path], status: i32) -> (Output, Value) {
    let before: Vec<_> = sources.iter().map(|path| scratch::fingerprint(path)).collect();
    let (text, json) = (compare(sources, &[]), compare(sources, &["--json"]));
    assert_eq!((text.status, json.status), (status, status), "{}", text.story());
    assert_eq!(text.stderr, json.stderr);
    assert_eq!(json.json()["exit_status"], status);
    let after: Vec<_> = sources.iter().map(|path| scratch::fingerprint(path)).collect();
    assert_eq!(before, after, "a source was changed");
    let json = json.json();
    (text, json)
}

fn says(output: &Output, words: &[&str]) {
    let text = output.text().split_whitespace().collect::<Vec<_>>().join(" ");
    for word in words {
        assert!(text.contains(word), "{word}: {}", output.story());
    }
}

fn puts(count: usize) -> Vec<Entry> {
    (0..count).map(|n| put(&format!("/k{n}"), &format!("v{n}"))).collect()
}

#[test]
fn equal_members_have_converged() {
    let dirs = Dirs::new();
    let members: Vec<PathBuf> = (0..3).map(|at| dirs.member(at, &puts(4), 4)).collect();
    let (text, json) = both(&[&members[0], &members[1], &members[2]], 0);
    assert!(
        text.text().starts_with("CONVERGED, exit status 0: the 3 members have the same content\n"),
        "{}",
        text.story()
    );
    assert_eq!(text.stderr, "");
    says(&text, &["voters: 3 of 3 read", "etcdlift convert", "m0.etcd -o snapshot.db"]);
    assert_eq!((&json["verdict"], &json["common_index"]), (&"converged".into(), &10.into()));
    assert_eq!(json["convert"], members[0].to_str().unwrap());
    for line in json["members"].as_array().unwrap() {
        assert_eq!(line["status"], "equal");
        assert_eq!((&line["last_term"], &line["v2_index"]), (&2.into(), &10.into()));
        assert_eq!(line["content_hash"], json["members"][0]["content_hash"]);
    }
    let quiet = compare(&[&members[0], &members[1]], &["-q"]);
    assert_eq!(quiet.text().lines().count(), 1, "{}", quiet.story());
}

/// The guide of etcd allows the members to differ by one entry that changes nothing.
#[test]
fn an_empty_entry_more_is_allowed_and_said() {
    let dirs = Dirs::new();
    let one = dirs.member(0, &[puts(2), vec![empty(3)]].concat(), 3);
    let two = dirs.member(1, &puts(2), 2);
    let (text, json) = both(&[&one, &two], 0);
    let first = "CONVERGED except for empty entries, exit status 0: at most 1 entry without effect, which the migration guide of \
                 etcd allows\n";
    assert!(text.text().starts_with(first), "{}", text.story());
    says(&text, &["1 entry behind", "without effect (1 empty)"]);
    assert_eq!(json["verdict"], "converged-except-empty-entries");
    assert_eq!(json["members"][1]["status"], "equal-except-empty-entries");
    assert_eq!(json["members"][0]["content_hash"], json["members"][1]["content_hash"]);
    // Several entries without effect change nothing either, and the text says what the guide allows.
    let reads = |count: usize| vec![(NORMAL, 2, Request::new("QGET", "/1/k0").bytes()); count];
    let many = dirs.member(2, &[puts(2), vec![empty(3)], reads(0)].concat(), 3);
    both(&[&one, &many, &two], 0);
    let three = dirs.at("three");
    v2files::write_log(&three, &log(0, &[puts(2), reads(3)].concat(), 5));
    let (text, _) = both(&[&three, &two], 0);
    says(
        &text,
        &["at most 3 entries without effect, none of which changes data; the migration guide of etcd allows 1"],
    );
}

#[test]
fn a_member_behind_is_named_with_its_entries_and_nodes() {
    let dirs = Dirs::new();
    let entries = [puts(3), vec![put("/k1", "new"), put("/late", "x"), empty(2)]].concat();
    let (ahead, equal) = (dirs.member(0, &entries, 6), dirs.member(1, &entries, 6));
    let behind = dirs.member(2, &entries[..3], 3);
    let (text, json) = both(&[&behind, &ahead, &equal], 7);
    let path = behind.to_str().unwrap();
    let expected =
        format!("DIFFER, exit status 7: {path}: 3 entries behind {} (2 v2 writes, 1 empty)\n", ahead.display());
    assert!(text.text().starts_with(&expected), "{}", text.story());
    assert!(text.stderr.starts_with(&format!("etcdlift: error: {path}: 3 entries behind ")), "{}", text.story());
    says(
        &text,
        &[
            "/k1: another value, another created index, another modified index /late: missing",
            "common index: 9, the same content in all members",
        ],
    );
    let line = &json["members"][0];
    assert_eq!((&line["status"], &line["behind"], &line["lacks"]), (&"behind".into(), &3.into(), &3.into()));
    assert_eq!((&line["differing_nodes"], &line["nodes"][1]["key"]), (&2.into(), &"/late".into()));
    assert_eq!(line["nodes"][1]["differs"], serde_json::json!(["missing"]));
    assert_eq!(json["convert"], ahead.to_str().unwrap());
    // The same entries in the log, without their commit: behind, and the log says so.
    let knows_less = dirs.at("knows-less");
    v2files::write_log(&knows_less, &log(2, &entries, 3));
    let (text, json) = both(&[&ahead, &knows_less], 7);
    says(&text, &["3 entries behind", "its log has these entries, and not their commit"]);
    assert_eq!(json["members"][1]["lacks"], 0);
}

#[test]
fn another_entry_of_one_index_and_term_is_a_divergence() {
    let dirs = Dirs::new();
    let other = [puts(2), vec![put("/k2", "other")]].concat();
    let (one, two) = (dirs.member(0, &puts(3), 3), dirs.member(1, &other, 3));
    let (text, json) = both(&[&one, &two], 7);
    let words = "raft entry 9 of term 2 has another content than in";
    says(&text, &[words, "the last entry in common is 8", "--force-new-cluster", "/k2: another value"]);
    says(&text, &["nothing tells which member is right"]);
    assert_eq!((&json["members"][1]["status"], json.get("convert")), (&"diverged".into(), None));
    // Two of three voters agree.
    let three = dirs.member(2, &puts(3), 3);
    for sources in [[&two, &one, &three], [&one, &two, &three]] {
        let (text, json) = both(&sources.map(|path| path.as_path()), 7);
        assert_eq!(json["convert"], if sources[0] == &two { &one } else { sources[0] }.to_str().unwrap());
        says(&text, &["DIFFER", "m1.etcd: raft entry 9 of term 2 has another content"]);
    }
    // A prefix of both histories supports neither.
    let prefix = dirs.at("prefix");
    v2files::write_log(&prefix, &log(2, &puts(1), 1));
    for sources in [[&prefix, &one, &two], [&one, &two, &prefix]] {
        let (text, json) = both(&sources.map(|path| path.as_path()), 7);
        says(&text, &["m1.etcd: raft entry 9", "nothing tells which member is right"]);
        assert_eq!(json["reference"], one.to_str().unwrap());
    }
    // Committed entries of other terms.
    let terms = dirs.at("terms");
    let later = |(kind, _, data): &Entry| (*kind, 3, data.clone());
    v2files::write_log(&terms, &log(1, &[puts(2), puts(3)[2..].iter().map(later).collect()].concat(), 3));
    let (text, _) = both(&[&one, &terms], 7);
    says(&text, &["raft entry 9 has term 3, and term 2 in"]);
}

/// A snapshot of three voters at this index, and a log that begins after it.
fn from_snapshot(path: &Path, member: usize, (index, v2_index): (u64, u64), children: &str, entries: &[Entry]) {
    let attributes = |at: usize| {
        let dir = format!("/0/members/{:x}", IDS[at]);
        let raft = format!(r#"{{"peerURLs":["{}"]}}"#, peer_url(at));
        let published = format!(r#"{{"name":"m{at}","clientURLs":["http://10.0.0.{}:2379"]}}"#, at + 1);
        let (raft_path, attributes) = (format!("{dir}/raftAttributes"), format!("{dir}/attributes"));
        let (raft, published) = (v2store::escaped(&raft), v2store::escaped(&published));
        let nodes = [Node::file(&raft_path, 1, &raft).child(), Node::file(&attributes, 4, &published).child()];
        Node::dir(&dir, 1, &joined(nodes)).child()
    };
    let members = Node::dir("/0/members", 1, &joined((0..3).map(attributes))).child();
    let root = joined([Node::dir("/0", 0, &members).child(), Node::dir("/1", 0, children).child()]);
    let store = v2store::store_of(v2_index, &root, "null");
    v2files::write_snapshot_of(path, store.into_bytes(), index, 2, &IDS, v2_index);
    let commit = index + entries.len() as u64;
    let log = Log { start: (index, 2), entries: entries.to_vec(), commit, ..log(member, &[], 0) };
    v2files::write_log(path, &log);
}

fn leaves(values: &[&str]) -> String {
    joined((0..).zip(values).map(|(n, value)| leaf(&format!("k{n}"), BOOTSTRAP + 1 + n, value)))
}

#[test]
fn another_value_in_the_tree_is_a_divergence() {
    let dirs = Dirs::new();
    let (one, two, three) = (dirs.at("m0.etcd"), dirs.at("m1.etcd"), dirs.at("m2.etcd"));
    from_snapshot(&one, 0, (8, 8), &leaves(&["v0", "v1"]), &[]);
    from_snapshot(&two, 1, (8, 8), &leaves(&["v0", "other"]), &[put("/k9", "x")]);
    let (text, json) = both(&[&one, &two], 7);
    says(&text, &["DIFFER", "the content at the common index differs", "1 node differs", "/k1: another value"]);
    assert_eq!((&json["members"][0]["status"], &json["common_index"]), (&"diverged".into(), &8.into()));
    assert_eq!(json["members"][0]["nodes_compared_at"], serde_json::json!([8, 8]));
    // The log of another member leads to the same content as the snapshot.
    v2files::write_log(&three, &log(2, &puts(2), 2));
    let (_, json) = both(&[&one, &three], 0);
    assert_eq!(json["members"][0]["snapshot_index"], 8);
}

#[test]
fn other_views_of_the_membership_are_named() {
    let dirs = Dirs::new();
    let (one, two) = (dirs.at("m0.etcd"), dirs.at("m1.etcd"));
    from_snapshot(&one, 0, (8, 8), &leaves(&["v0", "v1"]), &[]);
    from_snapshot(&two, 1, (8, 8), &leaves(&["v0", "v1"]), &[]);
    both(&[&one, &two], 0);
    let snapshot = two.join("member/snap/0000000000000002-0000000000000008.snap");
    let json = v2store::store_of(8, "", "null");
    let store = json.replace(
        r#""Children":{}"#,
        &format!(r#""Children":{{{}}}"#, Node::dir("/1", 0, &leaves(&["v0", "v1"])).child()),
    );
    fs::remove_file(&snapshot).unwrap();
    v2files::write_snapshot_of(&two, store.into_bytes(), 8, 2, &IDS[..2], 8);
    let (text, _) = both(&[&one, &two], 7);
    says(&text, &["lists member a0 (m0), and it does not", "its voters are a0, a1, and those of", "are a0, a1, a2"]);
}

#[test]
fn a_member_that_starts_beyond_the_common_index_is_compared_later() {
    let dirs = Dirs::new();
    let (beyond, equal, behind) = (dirs.at("m0.etcd"), dirs.at("m1.etcd"), dirs.at("m2.etcd"));
    from_snapshot(&beyond, 0, (9, 9), &leaves(&["v0", "v1", "v2"]), &[put("/k3", "v3")]);
    v2files::write_log(&equal, &log(1, &puts(4), 4));
    v2files::write_log(&behind, &log(2, &puts(1), 1));
    // It has the same committed state as another member, which can be replayed to the common index.
    let (text, json) = both(&[&equal, &beyond], 0);
    assert_eq!(json["common_index"], 10, "{}", text.story());
    let (text, json) = both(&[&equal, &beyond, &behind], 7);
    let lines = &json["members"];
    assert_eq!((&lines[1]["status"], &lines[2]["status"]), (&"equal".into(), &"behind".into()), "{}", text.story());
    assert!(lines[1]["common_hash"].is_null() && lines[1]["no_common_hash"].is_string(), "{lines:#}");
    says(&text, &["common index: 7, the same content in the members that can be replayed to it"]);
    // Nothing proves that the states were equal at the common index.
    let (text, json) = both(&[&beyond, &behind], 7);
    says(&text, &["the content at raft index 7 cannot be compared, because", "cannot be replayed to it: "]);
    assert_eq!((&json["members"][1]["status"], &json["members"][1]["behind"]), (&"behind".into(), &3.into()));
    assert_eq!(
        json["members"][1]["entries"],
        serde_json::json!({"v2_writes": 1, "v3": 0, "conf_changes": 0, "sync": 0, "quorum_reads": 0, "empty": 0, "unknown": 2})
    );
}

#[test]
fn members_of_other_clusters_and_one_member_twice_are_refused() {
    let dirs = Dirs::new();
    let one = dirs.member(0, &puts(1), 1);
    let foreign = dirs.at("foreign");
    v2files::write_log(&foreign, &Log { cluster_id: 0xc2, ..log(1, &puts(1), 1) });
    for (other, words) in
        [(&foreign, "expected a member of cluster c1, found one of cluster c2"), (&one, "found member a0 again")]
    {
        let output = compare(&[&one, other], &[]);
        assert_eq!((output.status, output.text().len()), (5, 0), "{}", output.story());
        assert!(output.stderr.contains(words), "{}", output.story());
    }
    let missing = compare(&[&one, &dirs.at("missing")], &[]);
    assert!(missing.status == 5 && missing.stderr.contains("no such file"), "{}", missing.story());
    assert_eq!(compare(&[&one], &[]).status, 2);
    assert_eq!(compare(&[&one, &foreign], &["--wal-dir", "a"]).status, 2);
    let file = dirs.at("a.snap");
    fs::write(&file, v2files::snap(v2store::store(9, &leaf("a", 3, "v")).as_bytes(), 9)).unwrap();
    let output = compare(&[&one, &file], &[]);
    assert!(
        output.status == 5 && output.stderr.contains("expected the data directory of a member"),
        "{}",
        output.story()
    );
}

/// Before 3.0, a truncated record can be a crash or a truncated copy. Since then, the preallocated segment tells.
#[test]
fn a_torn_tail_proves_equality_only_in_a_preallocated_segment() {
    let dirs = Dirs::new();
    let (one, torn) = (dirs.member(0, &puts(3), 3), dirs.at("torn"));
    let segment = v2files::write_log(&torn, &log(1, &puts(4), 4));
    let longer = fs::read(&segment).unwrap();
    v2files::write_log(&torn, &log(1, &puts(3), 3));
    // The record of one more entry, without its last bytes.
    let frames = v2files::frames(&longer);
    let (start, record) = &frames[frames.len() - 2];
    let bytes = [fs::read(&segment).unwrap(), longer[*start..record.end - 5].to_vec()].concat();
    fs::write(&segment, &bytes).unwrap();
    let (text, json) = both(&[&one, &torn], 7);
    assert!(text.text().starts_with("NOT PROVEN, exit status 7: "), "{}", text.story());
    says(&text, &["the last record is truncated, by a crash or because the copy stopped early"]);
    assert_eq!(json["members"][1]["status"], "not-proven");

    let (one, two) = (dirs.at("padded-one"), dirs.at("padded-two"));
    v2files::write_log(&one, &Log { padded: true, ..log(0, &puts(3), 3) });
    let segment = v2files::write_log(&two, &Log { padded: true, ..log(1, &puts(3), 3) });
    let (_, json) = both(&[&one, &two], 0);
    assert_eq!(json["warnings"], serde_json::json!([]));
    // A copy without the preallocated end.
    fs::File::options().write(true).open(&segment).unwrap().set_len(1 << 20).unwrap();
    let (text, json) = both(&[&one, &two], 7);
    says(&text, &["NOT PROVEN", "the copy is probably truncated"]);
    assert_eq!(json["convert"], one.to_str().unwrap());
}

#[test]
fn a_damaged_copy_does_not_hide_the_others() {
    let dirs = Dirs::new();
    let (one, two, damaged) = (dirs.member(0, &puts(3), 3), dirs.member(1, &puts(3), 3), dirs.member(2, &puts(3), 3));
    let segment = damaged.join("member/wal/0000000000000000-0000000000000000.wal");
    scratch::edit(&segment, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x40;
    });
    let (text, json) = both(&[&damaged, &one, &two], 7);
    assert!(text.text().starts_with("NOT PROVEN, exit status 7: "), "{}", text.story());
    says(&text, &[segment.to_str().unwrap(), "not read: a2 (m2)", "common index: 9, the same content in all members"]);
    let lines = &json["members"];
    assert_eq!((&lines[0]["status"], &lines[1]["status"]), (&"unreadable".into(), &"equal".into()));
    assert!(lines[0]["error"].as_str().unwrap().contains("byte "), "{lines:#}");
    assert_eq!(json["convert"], one.to_str().unwrap());
    // Two logs show a difference, with any third one.
    let behind = dirs.at("behind");
    v2files::write_log(&behind, &log(1, &puts(1), 1));
    let (text, json) = both(&[&damaged, &one, &behind], 7);
    assert_eq!(json["verdict"], "differ");
    assert_eq!(text.text().lines().next().unwrap().matches("2 entries behind").count(), 1, "{}", text.story());
    // One member alone is compared with nothing.
    let (text, _) = both(&[&damaged, &one], 7);
    says(&text, &["NOT PROVEN", "nothing to compare with"]);
    let output = compare(&[&damaged, &damaged], &[]);
    assert!(output.status == 3 && output.stdout.is_empty(), "{}", output.story());
}

#[test]
fn the_logs_of_a_majority_decide_the_tail() {
    let dirs = Dirs::new();
    let entries = [puts(3), vec![put("/tail", "x")]].concat();
    let members: Vec<PathBuf> = (0..3).map(|at| dirs.member(at, &entries, 3)).collect();
    let (text, json) = both(&[&members[0], &members[1]], 0);
    says(&text, &["log tail: entry 10 is committed: a majority of the voters holds it", "PUT /tail at raft index 10"]);
    says(&text, &["with the others: their logs together prove what is committed"]);
    let command = json["next_step"].as_str().unwrap();
    assert!(command.contains("m0.etcd") && command.contains("m1.etcd"), "{command}");
    // The third member lacks the entry that two hold.
    let third = dirs.at("third");
    v2files::write_log(&third, &log(2, &entries[..3], 3));
    let (text, json) = both(&[&members[0], &members[1], &third], 7);
    says(&text, &["1 entry behind the cluster (1 v2 write)"]);
    assert_eq!((&json["members"][2]["behind"], &json["members"][2]["lacks"]), (&0.into(), &1.into()));
    // One of two holds it: the third decides.
    let (text, json) = both(&[&members[0], &third], 7);
    says(&text, &["NOT PROVEN", "entry 10 (1 v2 write): not decided; the data of more voters would decide"]);
    assert_eq!(json["tail"]["more_members_decide"], true);
    // One of three holds it.
    let second = dirs.at("second");
    v2files::write_log(&second, &log(1, &entries[..3], 3));
    let (text, json) = both(&[&members[0], &second, &third], 0);
    says(&text, &["CONVERGED", "entry 10 (1 v2 write): not committed, because at most 1 of 3 voters hold them"]);
    assert_eq!(json["tail"]["rest"], "not-committed");
}

/// A lock on a segment, as a running etcd has it.
#[test]
fn the_logs_of_a_running_etcd_decide_nothing() {
    let dirs = Dirs::new();
    let entries = [puts(3), vec![put("/tail", "x")]].concat();
    let members: Vec<PathBuf> = (0..3).map(|at| dirs.member(at, &entries, 3)).collect();
    let sources: Vec<&Path> = members.iter().map(PathBuf::as_path).collect();
    let segment = fs::File::open(members[0].join("member/wal/0000000000000000-0000000000000000.wal")).unwrap();
    segment.lock().unwrap();
    let refused = compare(&sources, &[]);
    assert!(refused.status == 5 && refused.stderr.contains("an etcd is running on it"), "{}", refused.story());
    let output = compare(&sources, &["--allow-live"]).success();
    says(
        &output,
        &["entry 10 (1 v2 write): not decided while an etcd is running", "they were read one after the other"],
    );
    says(&output, &["-o snapshot.db", "--allow-live"]);
}

#[test]
fn a_removed_member_is_named() {
    let dirs = Dirs::new();
    let remove = (CONF_CHANGE, 2, v2files::conf_change(1, IDS[2], ""));
    let entries = [puts(2), vec![remove, put("/k2", "x")]].concat();
    let (one, two) = (dirs.member(0, &entries, 4), dirs.member(1, &entries, 4));
    let removed = dirs.member(2, &entries[..3], 3);
    both(&[&one, &two], 0);
    let (text, json) = both(&[&removed, &one, &two], 7);
    says(&text, &["m2.etcd: this member was removed from the cluster: leave it out", "voters: 2 of 2 read"]);
    assert_eq!((&json["members"][0]["status"], json["convert"].as_str()), (&"removed".into(), one.to_str()));
}

/// Databases that etcdlift made stand for the v3 backends.
#[test]
fn v3_backends_are_compared_by_hash() {
    let dirs = Dirs::new();
    let database = |name: &str, values: &[&str]| {
        let (source, out) = (dirs.at(&format!("{name}.snap")), dirs.at(&format!("{name}.db")));
        fs::write(&source, v2files::snap(v2store::store(99, &leaves(values)).as_bytes(), BOOTSTRAP + 1)).unwrap();
        let args = [
            "convert".as_ref(),
            source.as_os_str(),
            "-o".as_ref(),
            out.as_os_str(),
            "--to".as_ref(),
            "backend".as_ref(),
        ];
        etcdlift(args.into_iter().chain(["--revisions".as_ref(), "dense".as_ref()])).success();
        out
    };
    let with = |member: usize, database: &Path| {
        let path = dirs.member(member, &puts(1), 1);
        fs::create_dir_all(path.join("member/snap")).unwrap();
        fs::copy(database, path.join("member/snap/db")).unwrap();
        path
    };
    let (one, other) = (database("one", &["a", "b"]), database("other", &["a", "c"]));
    let (first, second) = (with(0, &one), with(1, &one));
    let (_, json) = both(&[&first, &second], 0);
    assert_eq!(json["members"][0]["v3"]["common_hash_kv"], json["members"][1]["v3"]["hash_kv"]);
    let (text, _) = both(&[&first, &with(1, &other)], 7);
    says(&text, &["DIFFER", "HashKV at revision 3 is"]);
    let less = with(1, &database("less", &["a"]));
    let (text, _) = both(&[&first, &less], 7);
    says(
        &text,
        &[
            "the v3 backend at consistent index 7 has revision 2, and 3 in",
            "HashKV: not comparable:",
            "is at revision 2, and another member has compacted the history up to 3",
        ],
    );
    fs::remove_file(less.join("member/snap/db")).unwrap();
    let (text, _) = both(&[&first, &less], 7);
    says(&text, &["NOT PROVEN", "the v3 backend is missing, and"]);
    fs::write(less.join("member/snap/db"), [7; 9000]).unwrap();
    let (text, _) = both(&[&first, &less], 7);
    says(&text, &["NOT PROVEN", "the v3 backend cannot be "]);
}

#[test]
fn logs_can_be_in_directories_of_their_own() {
    let dirs = Dirs::new();
    let mut args = Vec::new();
    for at in 0..2 {
        let path = dirs.at(&format!("m{at}"));
        from_snapshot(&path, at, (8, 8), &leaves(&["v0", "v1"]), &[put("/k9", "x")]);
        fs::rename(path.join("member/wal"), dirs.at(&format!("wal {at}"))).unwrap();
        args.push(path);
    }
    let (wal_0, wal_1) = (dirs.at("wal 0"), dirs.at("wal 1"));
    let (wal_0, wal_1) = (wal_0.to_str().unwrap(), wal_1.to_str().unwrap());
    let output = compare(&[&args[0], &args[1]], &["--wal-dir", wal_0, "--wal-dir", wal_1, "--json"]).success();
    let command = output.json()["next_step"].as_str().unwrap().to_string();
    assert!(command.ends_with(&format!("-o snapshot.db --wal-dir '{wal_0}'")), "{command}");
    compare(&[&args[0], &args[1]], &["--wal-dir", wal_0, "--wal-dir", wal_1, "--allow-live"]).success();
    let output = compare(&[&args[0], &args[1]], &[]);
    assert_eq!(output.status, 5, "{}", output.story());
}

/// Whatever one wrong byte does to a copy, it is never taken for an equal member with another content.
#[test]
fn a_flipped_byte_is_never_an_internal_error_or_a_false_equality() {
    let dirs = Dirs::new();
    let (one, other) = (dirs.member(0, &puts(3), 3), dirs.member(1, &puts(3), 3));
    let sound = compare(&[&one, &other], &["--json"]).success().json()["members"][1]["content_hash"].clone();
    let segment = other.join("member/wal/0000000000000000-0000000000000000.wal");
    let bytes = fs::read(&segment).unwrap();
    let mut wrong = Vec::new();
    for at in (0..bytes.len()).step_by(7) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(&segment, damaged).unwrap();
        let output = compare(&[&one, &other], &["--json"]);
        let is_right = match output.status {
            0 => output.json()["members"][1]["content_hash"] == sound,
            5 | 7 => true,
            _ => false,
        };
        if !is_right {
            wrong.push(format!("byte {at}: {}", output.story()));
        }
    }
    all_well(&wrong);
}

#[test]
fn the_corpus_is_judged_as_it_was_made() {
    let cases = [
        ("v3.4.23-e", &["m0.etcd", "m2.etcd", "m3.etcd"][..], 0, &["CONVERGED, exit status 0"][..]),
        ("v3.4.23-e", &["m0.etcd", "m1.etcd", "m2.etcd", "m3.etcd"], 7, &["m1.etcd: this member was removed"]),
        (
            "v3.4.23-f",
            &["m0.etcd", "m1.etcd", "m2.etcd"],
            7,
            &[
                "m2.etcd: 452 entries behind",
                "common index: 282, the same content in all members",
                "m0.etcd -o snapshot.db",
                "not committed",
            ],
        ),
        ("v3.4.23-f", &["m0.etcd", "m1.etcd"], 0, &["CONVERGED, exit status 0", "(2 SYNC): not decided"]),
        (
            "v3.4.23-g2",
            &["m0.etcd", "m1.etcd", "m2.etcd"],
            0,
            &["CONVERGED except for empty entries", "1 SYNC", "7 v2 writes, 2 SYNC): not committed"],
        ),
        ("v3.4.23-g2", &["m0.etcd", "m1.etcd"], 7, &["NOT PROVEN", "the data of more voters would decide"]),
        (
            "v3.4.23-p",
            &["m0.etcd", "m1.etcd", "m2.etcd"],
            0,
            &["CONVERGED, exit status 0", "entry 322 is committed: a majority of the voters holds it", "PUT /p/k39"],
        ),
    ];
    for (name, members, status, words) in cases {
        let Some(scenario) = corpus::scenario(test_name!(), name) else { return };
        let paths: Vec<PathBuf> = members.iter().map(|member| scenario.data_dir(member)).collect();
        let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
        let (text, _) = both(&paths, status);
        says(&text, words);
    }
}

/// A real server printed HashKV of the removed member at its last revision. The others have it in their history.
#[test]
fn v3_data_of_the_corpus_has_the_hash_that_the_server_printed() {
    let Some(dir) = corpus::mixed(test_name!(), "v3.5.16-m9") else { return };
    let truth = read_json(&dir.join("truth.json"));
    let printed = |member: &str| truth["data_dirs"][member]["v3"]["hashkv"][0]["HashKV"]["hash"].clone();
    let members = ["m0.etcd", "m1.etcd", "m2.etcd", "m3.etcd"];
    let paths = members.map(|member| dir.join(member));
    let (text, json) = both(&[&paths[0], &paths[1], &paths[2], &paths[3]], 7);
    says(&text, &["m2.etcd: this member was removed from the cluster", "98 v3 requests"]);
    for (line, member) in json["members"].as_array().unwrap().iter().zip(members) {
        assert_eq!(line["v3"]["hash_kv"], printed(member), "{member}");
        assert_eq!(line["v3"]["common_hash_kv"], printed("m2.etcd"), "{member}");
    }
    let (text, _) = both(&[&paths[0], &paths[1], &paths[3]], 0);
    says(&text, &["CONVERGED, exit status 0: the 3 members have the same content"]);
}

#[test]
fn backups_have_ids_of_their_own() {
    let Some(scenario) = corpus::scenario(test_name!(), "v3.4.23-h") else { return };
    let output = compare(&[&scenario.data_dir("offline.etcd"), &scenario.data_dir("live.etcd")], &[]);
    assert_eq!(output.status, 5, "{}", output.story());
    assert!(output.stderr.contains("hint: `etcdctl backup` gives a copy new IDs"), "{}", output.story());
}

#[test]
fn a_damaged_copy_of_the_corpus_does_not_hide_the_others() {
    let Some(scenario) = corpus::scenario(test_name!(), "v3.4.23-f") else { return };
    let temp = scratch::temp();
    let damaged = temp.path().join("m1.etcd");
    scratch::copy_tree(&scenario.data_dir("m1.etcd"), &damaged);
    let segment = damaged.join("member/wal/0000000000000000-0000000000000000.wal");
    scratch::edit(&segment, |bytes| bytes[20_000] ^= 1);
    let (one, three) = (scenario.data_dir("m0.etcd"), scenario.data_dir("m2.etcd"));
    let (text, json) = both(&[&one, &damaged, &three], 7);
    says(&text, &["m2.etcd: 452 entries behind", "not read: 38e16fcee8d51f2f (m1)"]);
    let statuses: Vec<&str> = (0..3).map(|at| json["members"][at]["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["equal", "unreadable", "behind"]);
}

#[test]
fn members_of_3_4_without_any_v3_backend_are_not_proven_equal() {
    let Some(scenario) = corpus::scenario(test_name!(), "v3.4.23-p") else { return };
    let temp = scratch::temp();
    let copies = ["m0.etcd", "m1.etcd", "m2.etcd"].map(|member| {
        let copy = temp.path().join(member);
        scratch::copy_tree(&scenario.data_dir(member), &copy);
        fs::remove_file(copy.join("member/snap/db")).unwrap();
        copy
    });
    let (text, _) = both(&copies.each_ref().map(PathBuf::as_path), 7);
    says(&text, &["NOT PROVEN", "the v3 backend is missing, and the cluster version is 3.4.0"]);
}

/// The members in `fixtures/members`, for documents and golden files. `BLESS=1` writes them.
#[test]
fn the_fixture_of_three_members_is_as_written_here() {
    let values = [("/config/motd", "hello"), ("/config/limits", "10"), ("/services/web/1", "10.0.0.7:80")];
    let mut entries: Vec<Entry> = values.iter().map(|(key, value)| put(key, value)).collect();
    entries.extend([put("/config/motd", "good morning"), put("/services/web/2", "10.0.0.8:80"), empty(3)]);
    let dirs = Dirs::new();
    for (at, count) in [6, 6, 3].into_iter().enumerate() {
        let made = dirs.member(at, &entries[..count], count).join("member/wal/0000000000000000-0000000000000000.wal");
        let file = PathBuf::from(format!("fixtures/members/m{at}.etcd/member/wal")).join(made.file_name().unwrap());
        if std::env::var_os("BLESS").is_some_and(|value| value == "1") {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::copy(&made, &file).unwrap();
        }
        assert!(
            fs::read(&made).unwrap() == fs::read(&file).unwrap_or_default(),
            "{}: run with BLESS=1",
            file.display()
        );
    }
}

/// Runs the next step as `compare` prints it, with the members that it names.
fn paste(sources: &[&Path], status: i32, folder: &Path) -> (String, Output) {
    let (text, json) = both(sources, status);
    let printed = text.text().split_once("\nnext:\n").unwrap_or_else(|| panic!("{}", text.story())).1.to_string();
    let step = json["next_step"].as_str().unwrap();
    let words = |command: &str| command.replace("\\\n", " ").split_whitespace().map(String::from).collect::<Vec<_>>();
    assert_eq!(words(&printed), words(step));
    let mut shell = bounded(Path::new("bash"), 60);
    let path = Path::new(etcdlift_path()).parent().unwrap().display().to_string();
    shell.env("PATH", format!("{path}:/usr/bin:/bin")).current_dir(folder);
    (step.to_string(), run(shell.args(["-c", &printed])))
}

#[test]
fn the_next_step_can_be_pasted() {
    let cases = [
        ("v3.4.23-e", &["m0.etcd", "m2.etcd", "m3.etcd"][..], 0),
        ("v3.4.23-f", &["m0.etcd", "m1.etcd", "m2.etcd"], 7),
        ("v3.4.23-p", &["m0.etcd", "m1.etcd", "m2.etcd"], 0),
    ];
    for (name, members, status) in cases {
        let Some(scenario) = corpus::scenario(test_name!(), name) else { return };
        let paths: Vec<PathBuf> = members.iter().map(|member| scenario.data_dir(member)).collect();
        let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
        let temp = scratch::temp();
        let (step, output) = paste(&paths, status, temp.path());
        assert!(!step.contains("--existing"), "{step}");
        output.success();

        // The same members with v3 data, of other names than the v2 keys.
        let out = temp.path().join("it's");
        let mut args = vec!["convert", "-o", out.to_str().unwrap(), "--to", "member", "--strip-leading-slash"];
        args.extend(["--as-of", &scenario.truth.captured_at]);
        args.extend(paths.iter().map(|path| path.to_str().unwrap()));
        etcdlift(args).success();
        let mut members: Vec<PathBuf> = scratch::names(&out).iter().map(|name| out.join(name)).collect();
        if status == 7 {
            // The member that is behind, and has no v3 data.
            members.pop();
            members.push(paths[2].to_path_buf());
        }
        let members: Vec<&Path> = members.iter().map(PathBuf::as_path).collect();
        let folder = scratch::temp();
        let (step, output) = paste(&members, status, folder.path());
        assert!(step.ends_with(" --existing merge"), "{step}");
        output.success();
        let made = etcdlift(["verify".as_ref(), folder.path().join("snapshot.db").as_os_str()]).success();
        assert!(made.text().contains("v3 keys:"), "{}", made.story());
    }
}
