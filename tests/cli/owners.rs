//! The log of another cluster, or of a member without the snapshot: every command that joins a snapshot with a log refuses it.
//!
//! The matrix joins the snapshots of each cluster of the corpus with the log of every other one. By default it takes a sample;
//! `ETCDLIFT_OWNER_ALL=1` takes all pairs. What is legitimate stays so: the other tests of this folder convert it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::random::Random;
use crate::common::run::{Output, all_well, etcdlift};
use crate::common::v2files::{self, ADD_NODE, CONF_CHANGE, Log, NORMAL, conf_change, put_request};
use crate::common::v2store::{leaf, store};
use crate::common::{corpus, scratch};
use crate::test_name;

const DEMO: &str = "fixtures/demo/input/default.etcd";
const UPGRADE: &str = "fixtures/upgrade-check/input/default.etcd";

/// The pairs of a run without `ETCDLIFT_OWNER_ALL`.
const SAMPLE: usize = 150;

/// A log as the command line names it.
fn wal(data_dir: &str) -> String {
    format!("{data_dir}/member/wal")
}

fn refused(run: &Output, words: &[&str]) {
    assert_eq!(run.status, 5, "{}", run.story());
    for word in words {
        assert!(run.stderr.contains(word), "{word}: {}", run.story());
    }
}

#[test]
fn every_command_refuses_the_log_of_another_cluster() {
    let temp = scratch::temp();
    let out = temp.path().join("out");
    let out = out.to_str().unwrap();
    let other = wal(DEMO);
    let log = ["--wal-dir", &other];
    let db = format!("{UPGRADE}/member/snap/db");
    let commands: [&[&str]; 13] = [
        &["convert", UPGRADE, "-o", out],
        &["convert", UPGRADE, "-o", out, "--salvage"],
        &["convert", UPGRADE, "-o", out, "--up-to-index", "5"],
        &["convert", UPGRADE, "-o", out, "--dry-run"],
        &["convert", UPGRADE, "-o", out, "--existing", "drop-v3", "--tail", "all"],
        &["verify", &db, "--source", UPGRADE],
        &["export", UPGRADE, "-o", out, "--format", "ndjson"],
        &["inspect", UPGRADE],
        &["inspect", UPGRADE, "--wal"],
        &["compare", UPGRADE, DEMO, "--wal-dir", &other],
        &["check", UPGRADE],
        &["check", UPGRADE, "--target-version", "3.7"],
        &["clean", UPGRADE, "-o", out],
    ];
    for command in commands {
        let run = etcdlift([command, &log[..]].concat());
        refused(&run, &["the log fixtures/demo/input/default.etcd/member/wal is of member ", " in cluster "]);
        refused(&run, &["0000000000000002-000000000000001f.snap is of a cluster with the members bdae9bbc11dd390d"]);
        refused(&run, &["hint: give the log of this member with --wal-dir"]);
        assert!(!Path::new(out).exists(), "{}", run.story());
    }
}

#[test]
fn a_backend_of_another_cluster_is_refused_too() {
    let temp = scratch::temp();
    let source = temp.path().join("mixed-up");
    scratch::copy_tree(&Path::new(UPGRADE).join("member/snap"), &source.join("member/snap"));
    scratch::copy_tree(&Path::new(DEMO).join("member/wal"), &source.join("member/wal"));
    fs::remove_file(source.join("member/snap/0000000000000002-000000000000001f.snap")).unwrap();
    for command in ["convert", "inspect", "check", "export"] {
        let out = temp.path().join("out");
        let options = ["-o", out.to_str().unwrap()];
        let options = if matches!(command, "convert" | "export") { &options[..] } else { &[] };
        let format = if command == "export" { &["--format", "ndjson"][..] } else { &[] };
        let run = etcdlift([&[command, source.to_str().unwrap()], options, format].concat());
        refused(&run, &["member/snap/db is of a cluster with the members ", "hint: copy the whole data directory"]);
    }
}

/// A cluster of one member on the default URLs: every such cluster has these IDs.
const DEFAULT: u64 = 0xce2a_822c_ea30_bfca;

/// Writes a log of the default cluster from its first entry on. `None` leaves a raft index empty.
fn default_log(data_dir: &Path, last: u64, term: u64, value: impl Fn(u64) -> Option<(String, String)>) -> PathBuf {
    let member = format!(r#"{{"id":{DEFAULT},"peerURLs":["http://localhost:2380"]}}"#);
    let entry = |index: u64| match value(index) {
        _ if index == 1 => (CONF_CHANGE, 1, conf_change(ADD_NODE, DEFAULT, &member)),
        Some((path, value)) => (NORMAL, term, put_request(index, &format!("/1{path}"), value.as_bytes())),
        None => (NORMAL, term, Vec::new()),
    };
    let entries = (1..=last).map(entry).collect();
    let log = Log { node_id: DEFAULT, cluster_id: 0x7e27, start: (0, 0), entries, commit: last, padded: true };
    v2files::write_log(data_dir, &log)
}

/// The store at the snapshot: the key /a has the value of its last write.
fn default_store(value: &str) -> Vec<u8> {
    store(9, &leaf("a", 9, value)).into_bytes()
}

#[test]
fn clusters_with_equal_ids_are_told_apart_by_their_writes() {
    let temp = scratch::temp();
    for (name, term, writes, is_refused) in [
        ("own", 2, &[(9, "/a", "mine")][..], false),
        ("written again", 2, &[(8, "/a", "other"), (9, "/a", "mine")], false),
        ("below", 2, &[(8, "/a/b", "fails"), (9, "/a", "mine")], false),
        ("later", 2, &[(9, "/a", "mine"), (12, "/a", "new")], false),
        ("another value", 2, &[(9, "/a", "theirs")], true),
        ("another key", 2, &[(9, "/b", "theirs")], true),
        ("under a key", 2, &[(7, "/z", "theirs"), (9, "/a/b", "fails")], true),
        // The entry at the raft index of the snapshot, and those before it, are of another term: etcd does without such a file.
        ("another term", 1, &[(9, "/a", "mine")], false),
    ] {
        let source = temp.path().join(name);
        v2files::write_snapshot(&source, default_store("mine"), 10, 2, DEFAULT, 9);
        default_log(&source, 14, term, |index| {
            let write = writes.iter().find(|(at, ..)| *at == index);
            write.map(|(_, path, value)| ((*path).to_string(), (*value).to_string()))
        });
        let out = temp.path().join(format!("{name}.db"));
        let run = etcdlift(["convert", source.to_str().unwrap(), "-o", out.to_str().unwrap()]);
        match is_refused {
            true => refused(
                &run,
                &["is of member ce2a822cea30bfca in cluster 7e27", "0000000000000002-000000000000000a.snap"],
            ),
            false => assert_eq!(run.status, 0, "{name}: {}", run.story()),
        }
        assert_eq!(out.exists(), !is_refused, "{name}");
        if name == "another term" {
            assert!(run.stderr.contains("was not used: "), "{}", run.story());
            // Nobody puts such a log and such a file together by `--wal-dir` unless by mistake.
            let log = temp.path().join("log");
            fs::rename(source.join("member/wal"), &log).unwrap();
            fs::remove_file(&out).unwrap();
            let args = ["convert", source.to_str().unwrap(), "--wal-dir", log.to_str().unwrap(), "-o"];
            refused(&etcdlift([&args[..], &[out.to_str().unwrap()]].concat()), &["is not of its history"]);
        }
    }
}

#[test]
fn a_member_that_the_log_never_adds_is_of_another_cluster() {
    let temp = scratch::temp();
    let source = temp.path().join("source");
    v2files::write_snapshot_of(&source, default_store("mine"), 10, 2, &[DEFAULT, 0xb], 9);
    default_log(&source, 14, 2, |_| None);
    let out = temp.path().join("out.db");
    let run = etcdlift(["convert", source.to_str().unwrap(), "-o", out.to_str().unwrap()]);
    refused(&run, &["has the member b at raft index 10, and no entry up to there adds it"]);
}

/// A data directory of the corpus, and where its log is.
#[derive(Clone, Debug)]
struct Directory {
    /// Like `v3.4.23-e/m0.etcd`.
    name: String,
    /// Like `v3.4.23-e`: directories of one scenario are members of one cluster, or copies.
    cluster: String,
    path: PathBuf,
    wal: Option<PathBuf>,
    has_snapshot: bool,
}

/// Every data directory of the corpora, unpacked for this test.
fn directories() -> Vec<Directory> {
    let mut clusters: Vec<PathBuf> = Vec::new();
    clusters.extend(corpus::all(test_name!()).into_iter().flatten().map(|scenario| scenario.dir.clone()));
    clusters.extend(corpus::runs(test_name!()).into_iter().flatten());
    clusters.extend(corpus::MIXED.iter().filter_map(|name| corpus::mixed(test_name!(), name)));
    let public = corpus::public(test_name!()).into_iter().flat_map(|dir| fs::read_dir(dir).unwrap());
    clusters.extend(public.map(|entry| entry.unwrap().path()).filter(|path| path.join("member").exists()));
    clusters.sort();
    clusters.iter().flat_map(|cluster| of_cluster(cluster)).collect()
}

fn of_cluster(cluster: &Path) -> Vec<Directory> {
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_string();
    let truth = fs::read(cluster.join("truth.json")).map(|text| serde_json::from_slice(&text).unwrap());
    let truth: serde_json::Value = truth.unwrap_or_default();
    let mut paths: Vec<PathBuf> = fs::read_dir(cluster).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.push(cluster.to_path_buf());
    paths.retain(|path| path.join("member").is_dir());
    paths.sort();
    let directory = |path: PathBuf| {
        let own = path.join("member/wal");
        let apart = truth["data_dirs"][name(&path)]["wal_dir"].as_str().map(|wal| cluster.join(wal));
        Directory {
            name: if path == *cluster { name(cluster) } else { format!("{}/{}", name(cluster), name(&path)) },
            cluster: name(cluster),
            wal: [Some(own), apart].into_iter().flatten().find(|wal| wal.is_dir()),
            has_snapshot: has_snapshot(&path),
            path,
        }
    };
    paths.into_iter().map(directory).collect()
}

fn has_snapshot(data_dir: &Path) -> bool {
    let entries = fs::read_dir(data_dir.join("member/snap")).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).any(|path| path.extension().is_some_and(|end| end == "snap"))
}

/// The directories whose only snapshot is damaged: nothing in it can be compared.
const DAMAGED: [&str; 2] = ["v2.0.13-q7/old-leader-hurt.etcd", "v2.3.8-q7b/a-hurt.etcd"];

/// What no refusal names as the log of another member: another refusal, or a result with a loss, which `docs/guarantees.md` explains.
fn is_indistinguishable(snapshots: &Directory, run: &Output) -> bool {
    // A truncated log looks the same: the log ends before the snapshot, or before what the v3 backend has applied.
    let ends_before =
        run.status == 8 && run.stderr.contains("[cut-copy]") && run.stderr.contains("without a record of it");
    let lacks = run.status == 3 && run.stderr.contains("proves to be committed, found that the log ends at");
    let other_refusal = matches!(run.status, 3..=5);
    ends_before || lacks || other_refusal || (run.status == 8 && DAMAGED.contains(&snapshots.name.as_str()))
}

#[test]
fn no_log_of_another_corpus_cluster_gives_a_complete_output() {
    let directories = directories();
    let mut pairs: Vec<(&Directory, &Directory)> = Vec::new();
    for snapshots in directories.iter().filter(|directory| directory.has_snapshot) {
        let others = directories.iter().filter(|other| other.cluster != snapshots.cluster && other.wal.is_some());
        pairs.extend(others.map(|other| (snapshots, other)));
    }
    if std::env::var_os("ETCDLIFT_OWNER_ALL").is_none_or(|value| value != "1") {
        let mut random = Random::new(7);
        while pairs.len() > SAMPLE {
            pairs.swap_remove(random.below(pairs.len()));
        }
    }
    let temp = scratch::temp();
    let out = temp.path().join("out.db");
    let (mut wrong, mut counts) = (Vec::new(), BTreeMap::<(i32, bool), usize>::new());
    for (snapshots, log) in &pairs {
        let args = ["convert", "--dry-run", "--existing", "merge", "--allow-removed", "--allow-empty", "-o"];
        let mut args: Vec<&std::ffi::OsStr> = args.iter().map(AsRef::as_ref).collect();
        args.extend([out.as_os_str(), snapshots.path.as_os_str(), "--wal-dir".as_ref()]);
        args.push(log.wal.as_ref().unwrap().as_os_str());
        let run = etcdlift(args);
        let names_both = run.status == 5 && run.stderr.contains("the log ") && run.stderr.contains(" is of member ");
        *counts.entry((run.status, names_both)).or_default() += 1;
        if !names_both && !is_indistinguishable(snapshots, &run) {
            wrong.push(format!("{} with the log of {}: {}", snapshots.name, log.name, run.story()));
        }
    }
    eprintln!("{} pairs: {counts:?}", pairs.len());
    all_well(&wrong);
    let refused: usize = counts.iter().filter(|((_, names_both), _)| *names_both).map(|(_, count)| count).sum();
    assert!(refused * 100 >= pairs.len() * 90, "{counts:?}");
}
