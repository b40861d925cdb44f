//! Sources that are not whole data directories: a log alone, a log with holes, a database that cannot be read; and
//! which start `--salvage` takes.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::case::{Case, report};
use crate::common::run::etcdlift;
use crate::test_name;

fn files(dir: &Path, end: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|found| found == end));
    files.sort();
    files
}

/// A log that begins at its first entry says all.
#[test]
fn a_log_alone_converts() {
    for scenario in ["v3.4.23-a", "v3.3.27-a"] {
        let Some(case) = Case::require(test_name!(), scenario) else { return };
        let wal = case.scenario.data_dir("m0.etcd").join("member/wal");
        let segments = files(&wal, "wal");
        assert_eq!(segments.len(), 1, "{scenario}");
        for source in [&wal, &segments[0]] {
            let (output, out) = case.convert(&[source], &[]);
            assert_eq!(output.status, 0, "{}", output.story());
            assert!(case.is_truth("m0.etcd", &out), "{source:?}");
            assert_eq!(report(&out)["source"]["layout"], "log");
        }
    }
}

#[test]
fn a_part_of_a_log_is_shown_and_not_converted() {
    let Some(case) = Case::require(test_name!(), "v2.0.13-b") else { return };
    let wal = case.copy("m0.etcd").join("member/wal");
    let segments = files(&wal, "wal");
    assert!(segments.len() > 2);
    let (output, out) = case.convert(&[&segments[0]], &[]);
    assert_eq!(output.status, 8, "{}", output.story());
    assert!(output.stderr.contains("follows the named one"), "{}", output.story());
    assert!(!case.is_truth("m0.etcd", &out));
    fs::remove_file(&segments[0]).unwrap();
    for source in [&wal, &segments[1]] {
        let (output, out) = case.convert(&[source], &[]);
        assert_eq!((output.status, out.exists()), (3, false), "{}", output.story());
        assert!(output.stderr.contains("give the data directory"), "{}", output.story());
        let args = ["inspect", source.to_str().unwrap(), "--wal", "--json"];
        let lines = etcdlift(args).success().text();
        let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
        assert!(first["raft_index"].as_u64().unwrap() > 1, "{first}");
        assert_eq!(first["effect"], "unknown");
    }
}

/// The newest snapshot is sound, and damage below it costs nothing; without the snapshot an older start reaches less
/// far.
#[test]
fn salvage_takes_the_start_that_reaches_furthest() {
    let Some(case) = Case::require(test_name!(), "v3.4.23-b") else { return };
    let source = case.copy("m0.etcd");
    let snapshots = files(&source.join("member/snap"), "snap");
    let index = |path: &Path| u64::from_str_radix(&path.file_stem().unwrap().to_str().unwrap()[17..], 16).unwrap();
    let (newest, older) = (index(&snapshots[snapshots.len() - 1]), index(&snapshots[snapshots.len() - 2]));
    // The entry in the middle between the two newest snapshots.
    let lines = etcdlift(["inspect", source.to_str().unwrap(), "--wal", "--json"]).success().text();
    let line = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let hurt =
        line.filter(|line| line["bytes"] != 0).find(|line| line["raft_index"].as_u64() > Some(older.midpoint(newest)));
    let (hurt, segment) = (hurt.unwrap(), files(&source.join("member/wal"), "wal").remove(0));
    let mut bytes = fs::read(&segment).unwrap();
    bytes[usize::try_from(hurt["offset"].as_u64().unwrap()).unwrap() + 1] ^= 1;
    fs::write(&segment, bytes).unwrap();

    let (output, out) = case.convert(&[&source], &["--salvage"]);
    assert_eq!(output.status, 8, "{}", output.story());
    assert!(case.is_truth("m0.etcd", &out), "nothing above the snapshot is damaged");
    let starts = report(&out)["source"]["salvage_starts"].as_array().unwrap().clone();
    let chosen: Vec<&Value> = starts.iter().filter(|start| start["chosen"] == true).collect();
    assert_eq!((chosen.len(), chosen[0]["from"].as_u64()), (1, Some(newest)), "{starts:?}");
    assert!(starts.iter().all(|start| start["raft_index"].as_u64() <= chosen[0]["raft_index"].as_u64()), "{starts:?}");
    assert!(starts.len() > 2 && output.stderr.contains("possible start"), "{}", output.story());

    // etcd renames a snapshot that it cannot load; this one is sound.
    let broken = snapshots.last().unwrap().with_extension("snap.broken");
    fs::rename(snapshots.last().unwrap(), &broken).unwrap();
    let (output, _) = case.convert(&[&source], &[]);
    assert_eq!(output.status, 3, "{}", output.story());
    let (output, out) = case.convert(&[&source], &["--salvage"]);
    assert_eq!(output.status, 8, "{}", output.story());
    assert!(case.is_truth("m0.etcd", &out));
    fs::remove_file(&broken).unwrap();
    let (output, out) = case.convert(&[&source], &["--salvage"]);
    assert_eq!(output.status, 8, "{}", output.story());
    let reached = report(&out)["source"]["raft_index"].as_u64().unwrap();
    assert!(reached >= older && reached < hurt["raft_index"].as_u64().unwrap(), "{reached}");
    let advice = output.stderr.contains("--tail all");
    assert!(!advice, "entries after the damage cannot be taken: {}", output.story());
}

/// The v2 keys do not need the v3 backend, whatever is wrong with it.
#[test]
fn a_database_that_cannot_be_read_does_not_block_v2_keys() {
    let Some(case) = Case::require(test_name!(), "v3.4.23-a") else { return };
    let source = case.copy("m0.etcd");
    let db = source.join("member/snap/db");
    let whole = fs::read(&db).unwrap();
    let damaged: [(&str, Vec<u8>, i32); 4] = [
        ("empty", Vec::new(), 0),
        ("zeros", vec![0; 20_480], 5),
        ("truncated", whole[..5_000].to_vec(), 5),
        ("other bytes", vec![0xa5; 20_480], 5),
    ];
    for (what, bytes, status) in damaged {
        fs::write(&db, bytes).unwrap();
        let (output, out) = case.convert(&[&source], &[]);
        assert_eq!((output.status, out.exists()), (status, status == 0), "{what}: {}", output.story());
        assert!(status == 0 || output.stderr.contains("--existing drop-v3"), "{what}: {}", output.story());
        let (output, out) = case.convert(&[&source], &["--existing", "drop-v3"]);
        assert_eq!(output.status, 0, "{what}: {}", output.story());
        assert!(case.is_truth("m0.etcd", &out), "{what}");
        assert_eq!(output.stderr.contains("cannot be read"), status != 0, "{what}: {}", output.story());
        let export = case.dir.path().join(format!("{}.ndjson", what.replace(' ', "-")));
        etcdlift(["export", source.to_str().unwrap(), "-o", export.to_str().unwrap()]).success();
        etcdlift(["inspect", source.to_str().unwrap()]).success();
    }
}
