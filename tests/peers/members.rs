//! Several members as one source: what the cluster would find committed after a restart, and damage in one made up for
//! by the others. Also what one member alone can say of its log's end.
//!
//! Needs the peers (a reader that is not ours) and the corpus; a test that lacks one says `SKIPPED`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::case::{Case, report};
use crate::common::v2store::{self, Node, leaf};
use crate::common::{corpus, peers, run, scratch, v2files};
use crate::test_name;

fn segment(data_dir: &Path) -> PathBuf {
    let wal = data_dir.join("member/wal");
    let mut names: Vec<_> = fs::read_dir(wal).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|end| end == "wal"));
    names.sort();
    names.pop().unwrap()
}

const ALL: [&str; 3] = ["m0.etcd", "m1.etcd", "m2.etcd"];

/// Whatever the order and whoever starts, members give the truth and the same bytes.
#[test]
fn a_cluster_gives_its_truth_and_one_file() {
    for (name, status) in [("v3.4.23-f", 0), ("v3.4.23-g3", 0), ("v3.4.23-g2", 8)] {
        let Some(case) = Case::require(test_name!(), name) else { return };
        let mut files = Vec::new();
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let names = order.map(|at: usize| ALL[at]);
            let (output, out) = case.convert(&case.members(&names), &[]);
            assert_eq!(output.status, status, "{name}: {}", output.story());
            assert!(case.is_truth("m1.etcd", &out), "{name} {names:?}");
            files.push(fs::read(out).unwrap());
        }
        assert!(files.windows(2).all(|pair| pair[0] == pair[1]), "{name}: the order makes a difference");
    }
}

/// Every choice of two or more members of every cluster in the corpus, in every order: the same end, and the same
/// bytes.
#[test]
fn the_order_of_sources_makes_no_difference() {
    let Some(peers) = peers::require(test_name!()) else { return };
    let Some(scenarios) = corpus::all(test_name!()) else { return };
    let mut runs = 0;
    for scenario in scenarios {
        let case = Case::new(peers.clone(), scenario);
        let names = case.scenario.live();
        for chosen in 0u32..1 << names.len() {
            let names: Vec<&str> = (0..names.len()).filter(|at| chosen >> at & 1 == 1).map(|at| names[at]).collect();
            if names.len() < 2 {
                continue;
            }
            let mut first = None;
            for order in orders(names.len()) {
                let names: Vec<&str> = order.iter().map(|at| names[*at]).collect();
                let (output, out) = case.convert(&case.members(&names), &[]);
                let reason = report(&out)["reason"].clone();
                let end = (output.status, reason, fs::read(&out).ok());
                let _ = fs::remove_file(&out);
                runs += 1;
                let first = first.get_or_insert_with(|| end.clone());
                assert!(*first == end, "{} {names:?}: {}", case.scenario.name, output.story());
            }
        }
    }
    assert!(runs >= corpus::at_least(30, 0), "{runs} runs");
    println!("{runs} runs");
}

/// The data directory of a member of a cluster of two, with these values put after one snapshot.
fn member_with(dir: &Path, id: u64, values: &[&str]) -> PathBuf {
    let path = dir.join(format!("m{id}.etcd"));
    let start = v2files::write_snapshot(&path, v2store::store(9, &leaf("a", 3, "v")).into_bytes(), 9, 2, 1, 9);
    let puts = (1..).zip(values).map(|(n, value)| v2files::put_request(n, "/1/k", value.as_bytes()));
    v2files::write_wal(&path, &start, id, 7, puts);
    path
}

/// `--force-new-cluster` goes on in the same term, so that nothing but the entries themselves tells two histories
/// apart.
#[test]
fn members_of_two_histories_are_refused_in_any_order() {
    let dir = scratch::temp();
    let one = member_with(dir.path(), 1, &["a", "b", "c"]);
    let two = member_with(dir.path(), 2, &["a", "b", "other", "d"]);
    let alike = member_with(dir.path(), 3, &["a", "b"]);
    let convert = |sources: &[&PathBuf]| {
        let out = dir.path().join("out.db");
        let mut args = vec!["convert", "-o", out.to_str().unwrap(), "--dry-run", "--as-of", "2026-01-01T00:00:00Z"];
        args.extend(sources.iter().map(|path| path.to_str().unwrap()));
        run::etcdlift(args)
    };
    for sources in [[&one, &two], [&two, &one]] {
        let output = convert(&sources);
        assert_eq!(output.status, 5, "{}", output.story());
        let words = ["different entries at raft index 12", "the last entry in common is 11", "m1.etcd", "m2.etcd"];
        assert!(words.iter().all(|word| output.stderr.contains(word)), "{}", output.story());
    }
    for sources in [[&one, &alike], [&alike, &two]] {
        let output = convert(&sources);
        assert!(!output.stderr.contains("different entries"), "{}", output.story());
    }
}

/// Every order of so many.
fn orders(count: usize) -> Vec<Vec<usize>> {
    let mut orders = vec![Vec::new()];
    for next in 0..count {
        let longer =
            |order: Vec<usize>| (0..=order.len()).map(move |at| [&order[..at], &[next], &order[at..]].concat());
        orders = orders.into_iter().flat_map(longer).collect();
    }
    orders
}

/// Two members with a snapshot of one raft index and term.
#[test]
fn snapshots_of_one_index_that_differ_are_two_histories() {
    let dir = scratch::temp();
    let store = |value: &str, created: u64, watchers: u64| {
        let key = Node::file("/1/k", created, value).modified(9).child();
        let stats = format!(r#""Stats":{{"watchers":{watchers}}}"#);
        v2store::store(9, &key).replace(r#""Stats":{}"#, &stats)
    };
    let member = |name: &str, id: u64, store: String| {
        let path = dir.path().join(name);
        let snapshot = v2files::write_snapshot(&path, store.into_bytes(), 10, 2, 1, 9);
        v2files::write_minimal_wal(&path, &snapshot, id, 7);
        path
    };
    let one = member("one.etcd", 1, store("v", 8, 0));
    let convert = |sources: [&Path; 2], options: &[&str]| {
        let out = dir.path().join("out.db");
        let _ = fs::remove_file(&out);
        let sources = sources.map(Path::as_os_str);
        let args = ["convert".as_ref(), sources[0], sources[1], "-o".as_ref(), out.as_os_str()];
        run::etcdlift(args.into_iter().chain(options.iter().map(AsRef::as_ref)))
    };
    for (at, other) in [
        store("w", 8, 0),
        store("v", 7, 0),
        store("v", 8, 0).replace(r#""CurrentIndex":9"#, r#""CurrentIndex":10"#),
        store("v", 8, 0).replace("/1/k", "/1/j").replace("\"k\"", "\"j\""),
    ]
    .into_iter()
    .enumerate()
    {
        let two = member(&format!("two-{at}.etcd"), 2, other);
        for sources in [[&*one, &two], [&two, &one]] {
            for options in [&[][..], &["--salvage"]] {
                let output = convert(sources, options);
                assert_eq!(output.status, 5, "{}", output.story());
                let named = ["one.etcd", &format!("two-{at}.etcd"), "differs from that of another member"];
                assert!(named.iter().all(|word| output.stderr.contains(word)), "{}", output.story());
            }
        }
    }
    // What each member counts for itself is no part of the history.
    let two = member("two.etcd", 2, store("v", 8, 5));
    for sources in [[&*one, &two], [&two, &one]] {
        assert_eq!(convert(sources, &[]).status, 0, "{}", convert(sources, &[]).story());
    }
}

/// The writes of a deposed leader were never committed, however they are looked at.
#[test]
fn a_deposed_leader_s_writes_never_appear() {
    let Some(case) = Case::require(test_name!(), "v3.4.23-g2") else { return };
    for names in [&ALL[..1], &ALL, &["m0.etcd", "m1.etcd"], &["m1.etcd", "m2.etcd"]] {
        let (output, out) = case.convert(&case.members(names), &[]);
        assert!([0, 8].contains(&output.status), "{}", output.story());
        let rows = case.rows(&out);
        let bad = rows.iter().find(|row| row.value.windows(11).any(|window| window == b"UNCOMMITTED"));
        assert!(bad.is_none(), "{names:?}: {bad:?}");
        assert!(rows.iter().any(|row| row.key == b"/unc/del"), "{names:?}: /unc/del is gone");
    }
}

/// 40 acknowledged writes, then all three members killed: the last one is above every commit on disk.
#[test]
fn three_members_prove_the_last_acknowledged_write_and_one_lists_it() {
    let Some(case) = Case::require(test_name!(), "v3.4.23-p") else { return };
    let acked = |out: &Path| case.rows(out).iter().filter(|row| row.value.starts_with(b"acked ")).count();
    let (output, out) = case.convert(&case.members(&ALL), &[]);
    assert_eq!((output.status, acked(&out)), (0, 40), "{}", output.story());
    for name in ALL {
        let (output, out) = case.convert(&case.members(&[name]), &[]);
        assert_eq!((output.status, acked(&out)), (8, 39), "{}", output.story());
        let left_out = &report(&out)["tail"]["writes"];
        assert_eq!(left_out.as_array().unwrap().len(), 1, "{left_out}");
        assert_eq!(left_out[0]["key"], "/p/k39");
        let (output, out) = case.convert(&case.members(&[name]), &["--tail", "all"]);
        assert_eq!((output.status, acked(&out)), (0, 40), "{}", output.story());
        let (output, _) = case.convert(&case.members(&[name]), &["--tail", "fail"]);
        assert_eq!(output.status, 5, "{}", output.story());
    }
    // Two of three are a majority, and the highest term is their own.
    let (output, out) = case.convert(&case.members(&["m0.etcd", "m2.etcd"]), &[]);
    assert_eq!((output.status, acked(&out)), (0, 40), "{}", output.story());
}

#[test]
fn damage_in_one_member_is_made_up_for_by_the_others() {
    let Some(case) = Case::require(test_name!(), "v3.4.23-p") else { return };
    let (_, whole) = case.convert(&case.members(&ALL), &[]);
    let whole = fs::read(whole).unwrap();
    let damaged = case.copy("m0.etcd");
    let segment = segment(&damaged);
    for from in [100, 9_000, 60_000] {
        let mut bytes = fs::read(&segment).unwrap();
        bytes[from..from + 700].fill(0xa5);
        fs::write(&segment, bytes).unwrap();
        let mut sources = case.members(&ALL);
        sources[0].clone_from(&damaged);
        let (output, out) = case.convert(&sources, &[]);
        assert_eq!(output.status, 0, "{}", output.story());
        assert_eq!(fs::read(&out).unwrap(), whole, "damage at {from}");
        // What is after the damage was read from another member, and the report says from which.
        let parts = report(&out)["source"]["parts"].clone();
        let taken: Vec<u64> = (0..3).map(|at| parts[at]["entries_taken"].as_u64().unwrap()).collect();
        assert!(taken[1] + taken[2] > 0 && taken.iter().sum::<u64>() == 322, "{parts}");
        let (output, out) = case.convert(&sources[..1], &[]);
        assert_eq!((output.status, out.exists()), (3, false), "{}", output.story());
    }
}

/// After the damage the member may have voted in a later term: it holds the entry, and proves nothing by that.
#[test]
fn a_log_that_is_damaged_after_an_entry_is_no_witness_for_it() {
    let Some(case) = Case::require(test_name!(), "v3.4.23-p") else { return };
    let acked = |out: &Path| case.rows(out).iter().filter(|row| row.value.starts_with(b"acked ")).count();
    let damaged = case.copy("m0.etcd");
    let segment = segment(&damaged);
    let mut bytes = fs::read(&segment).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() / 8 * 8 + 8;
    bytes[end..end + 16].fill(0xa5);
    fs::write(&segment, bytes).unwrap();
    let mut sources = case.members(&["m0.etcd", "m2.etcd"]);
    sources[0].clone_from(&damaged);
    let (output, out) = case.convert(&sources, &[]);
    assert_eq!((output.status, out.exists()), (3, false), "{}", output.story());
    assert!(output.stderr.contains("2 whole logs of 3 voters would prove"), "{}", output.story());
    let (output, out) = case.convert(&sources, &["--salvage"]);
    assert_eq!((output.status, acked(&out)), (8, 39), "{}", output.story());
    assert_eq!(report(&out)["tail"]["writes"][0]["key"], "/p/k39");
    sources.extend(case.members(&["m1.etcd"]));
    let (output, out) = case.convert(&sources, &[]);
    assert_eq!((output.status, acked(&out)), (0, 40), "{}", output.story());
}

/// A log of one segment, gone altogether: in 3.4 with an acknowledged write above every commit, in both with snapshots
/// next to it or without.
#[test]
fn a_destroyed_log_is_made_up_for_by_the_others() {
    let ways: [fn(&Path); 4] = [
        |segment| fs::remove_file(segment).unwrap(),
        |segment| fs::remove_dir_all(segment.parent().unwrap()).unwrap(),
        |segment| fs::write(segment, "").unwrap(),
        |segment| fs::write(segment, vec![0; 100_000]).unwrap(),
    ];
    for name in ["v3.4.23-p", "v3.4.23-e", "v2.3.8-e"] {
        let Some(case) = Case::require(test_name!(), name) else { return };
        let sources = case.members(&case.scenario.live());
        let (output, whole) = case.convert(&sources, &[]);
        assert_eq!(output.status, 0, "{}", output.story());
        let whole = fs::read(whole).unwrap();
        for (way, destroy) in ways.iter().enumerate() {
            let whose = if way == 0 { sources.len() } else { 1 };
            for at in 0..whose {
                let copy = case.dir.path().join(format!("{way}-{at}.etcd"));
                scratch::copy_tree(&sources[at], &copy);
                destroy(&segment(&copy));
                let mut sources = sources.clone();
                sources[at] = copy;
                let (output, out) = case.convert(&sources, &[]);
                assert_eq!(output.status, 0, "{name}, member {at}, way {way}: {}", output.story());
                assert!(fs::read(&out).unwrap() == whole, "{name}, member {at}, way {way}");
                assert_eq!(report(&out)["warnings"][0]["code"], "log-gone");
                fs::remove_file(out).unwrap();
                fs::remove_dir_all(&sources[at]).unwrap();
            }
        }
    }
}

/// Damage after the snapshot, and a copy that ends before it.
#[test]
fn a_damaged_or_truncated_log_is_made_up_for_by_the_others() {
    let Some(case) = Case::require(test_name!(), "v3.4.23-e") else { return };
    let live = case.scenario.live();
    let (_, whole) = case.convert(&case.members(&live), &[]);
    let damaged = case.copy(live[0]);
    let segment = segment(&damaged);
    let bytes = fs::read(&segment).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let mut hurt = bytes.clone();
    hurt[end - 1500..end - 700].fill(0xa5);
    let whole = fs::read(whole).unwrap();
    for (bytes, code) in [(hurt, "damage-filled"), (bytes[..5_000].to_vec(), "cut-copy")] {
        fs::write(&segment, bytes).unwrap();
        let mut sources = case.members(&live);
        sources[0].clone_from(&damaged);
        let (output, out) = case.convert(&sources, &[]);
        assert_eq!(output.status, 0, "{}", output.story());
        assert!(fs::read(&out).unwrap() == whole, "{code}");
        let codes = report(&out)["warnings"].to_string();
        assert!(codes.contains(code), "{codes}");
    }
}

#[test]
fn members_without_any_log_are_refused() {
    let Some(case) = Case::require(test_name!(), "v3.4.23-e") else { return };
    let sources = ["m0.etcd", "m2.etcd"].map(|name| case.copy(name));
    sources.iter().for_each(|source| fs::remove_file(segment(source)).unwrap());
    let (output, out) = case.convert(&sources, &[]);
    assert_eq!((output.status, out.exists()), (5, false), "{}", output.story());
    assert_eq!(report(&out)["reason"], "source-empty");
    assert!(output.stderr.contains("in at least one directory"), "{}", output.story());
}

/// One log of three cannot know how far the others were.
#[test]
fn fewer_than_a_majority_may_be_behind() {
    let Some(case) = Case::require(test_name!(), "v3.4.23-f") else { return };
    let behind = |sources: &[PathBuf]| {
        let (output, out) = case.convert(sources, &[]);
        assert_eq!(output.status, 0, "{}", output.story());
        report(&out)["warnings"].to_string().contains("one of 3 voters: it may lack writes after")
    };
    let copy = case.copy("m0.etcd");
    fs::remove_file(segment(&copy)).unwrap();
    assert!(behind(&case.members(&["m1.etcd"])));
    assert!(!behind(&case.members(&["m1.etcd", "m2.etcd"])));
    // A member whose log is missing is a reason to ask for the third.
    let (output, out) = case.convert(&[copy, case.scenario.data_dir("m2.etcd")], &[]);
    assert_eq!((output.status, out.exists()), (5, false), "{}", output.story());
    assert_eq!(report(&out)["reason"], "member-incomplete");
}

/// Going on past damage ends at the last sound record, and says that it is not all.
#[test]
fn salvage_ends_before_the_damage_and_is_never_whole() {
    let Some(case) = Case::require(test_name!(), "v3.4.23-a") else { return };
    let damaged = case.copy("m0.etcd");
    let segment = segment(&damaged);
    let mut bytes = fs::read(&segment).unwrap();
    let middle = bytes.iter().rposition(|byte| *byte != 0).unwrap() / 2;
    bytes[middle] ^= 0x10;
    fs::write(&segment, bytes).unwrap();
    let (output, out) = case.convert(std::slice::from_ref(&damaged), &[]);
    assert_eq!((output.status, out.exists()), (3, false), "{}", output.story());
    let (output, out) = case.convert(&[damaged], &["--salvage"]);
    assert_eq!(output.status, 8, "{}", output.story());
    let (report, salvaged) = (report(&out), case.rows(&out));
    assert_eq!(report["losses"][0]["code"], "salvaged");
    // The same as the undamaged directory, stopped at that index.
    let index = report["source"]["raft_index"].as_u64().unwrap();
    assert!(index > 10, "{index}");
    let up_to = index.to_string();
    let (output, out) = case.convert(&case.members(&["m0.etcd"]), &["--up-to-index", &up_to]);
    assert_eq!(output.status, 0, "{}", output.story());
    assert_eq!(case.rows(&out), salvaged);
}

/// 2.0 writes the commit index before the entries themselves, so the log always ends below it.
#[test]
fn salvage_of_a_2_0_log_takes_what_is_there() {
    let Some(case) = Case::require(test_name!(), "v2.0.13-a") else { return };
    let damaged = case.copy("m0.etcd");
    let segment = segment(&damaged);
    let whole = fs::read(&segment).unwrap();
    let torn = whole[..whole.len() - 3].to_vec();
    let mut flipped = whole;
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x10;
    for (bytes, is_torn) in [(torn, true), (flipped, false)] {
        fs::write(&segment, bytes).unwrap();
        let (output, out) = case.convert(std::slice::from_ref(&damaged), &[]);
        assert_eq!((output.status, out.exists()), (3, false), "{}", output.story());
        assert!(output.stderr.contains(": byte ") && output.stderr.contains("--salvage"), "{}", output.story());
        let (output, out) = case.convert(std::slice::from_ref(&damaged), &["--salvage"]);
        assert_eq!(output.status, 8, "{}", output.story());
        let (salvaged, report) = (case.rows(&out), report(&out));
        let (index, commit) = (&report["source"]["raft_index"], &report["source"]["commit"]);
        let lost = if is_torn { commit.as_u64() } else { first_gap(&damaged) };
        assert_eq!(index.as_u64().map(|index| index + 1), lost, "{report}");
        assert!(index.as_u64() < commit.as_u64() && index.as_u64() > Some(100), "{index} {commit}");
        let known = |loss: &serde_json::Value| loss["code"] == "salvaged" || (is_torn && loss["code"] == "torn-tail");
        assert!(report["losses"].as_array().unwrap().iter().all(known), "{report}");
        let (output, out) = case.convert(&case.members(&["m0.etcd"]), &["--up-to-index", &index.to_string()]);
        assert_eq!(output.status, 0, "{}", output.story());
        assert_eq!(case.rows(&out), salvaged);
    }
}

/// The first entry that a log lacks between others. That it lacks any is an error, once the others are shown.
fn first_gap(data_dir: &Path) -> Option<u64> {
    let output = run::etcdlift(["inspect", data_dir.to_str().unwrap(), "--wal", "--json"]);
    assert_eq!(output.status, 3, "{}", output.story());
    let text = output.text();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let indexes: Vec<u64> = lines.map(|line| line["raft_index"].as_u64().unwrap()).collect();
    indexes.windows(2).find(|pair| pair[1] > pair[0] + 1).map(|pair| pair[0] + 1)
}

#[test]
fn sources_that_are_not_one_cluster_are_refused() {
    let Some(case) = Case::require(test_name!(), "v3.4.23-f") else { return };
    let Some(other) = corpus::scenario(test_name!(), "v3.4.23-g3") else { return };
    let member = case.scenario.data_dir("m0.etcd");
    for second in [other.data_dir("m0.etcd"), member.clone(), member.join("member/snap/db")] {
        let (output, out) = case.convert(&[member.clone(), second.clone()], &[]);
        assert_eq!((output.status, out.exists()), (5, false), "{second:?}: {}", output.story());
        assert_eq!(report(&out)["reason"], "not-one-cluster");
    }
}

#[test]
fn a_truncated_copy_is_named() {
    let Some(case) = Case::require(test_name!(), "v3.4.23-a") else { return };
    let copy = case.copy("m0.etcd");
    let segment = segment(&copy);
    let bytes = fs::read(&segment).unwrap();
    // Records end at a multiple of eight.
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() / 8 * 8 + 8;
    fs::write(&segment, &bytes[..end]).unwrap();
    let (output, out) = case.convert(&[copy], &[]);
    assert_eq!(output.status, 8, "{}", output.story());
    assert_eq!(report(&out)["losses"][0]["code"], "cut-copy");
    assert!(output.stderr.contains(&format!("byte {end}")), "{}", output.story());
}
