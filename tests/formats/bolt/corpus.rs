//! Databases that real etcd servers wrote: they pass the check, and their hashes are those that the servers reported.
//!
//! Reads the unpacked databases below `../shared/corpus/public` and below the directory that `ETCDLIFT_CORPUS` names.

use std::path::{Path, PathBuf};

use etcdlift::internals::bolt::{Db, Strictness, check};

/// Every `member/snap/db` of the corpora that are there.
fn databases() -> Vec<PathBuf> {
    let public = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus/public");
    let mut found = Vec::new();
    for root in [Some(public), std::env::var_os("ETCDLIFT_CORPUS").map(PathBuf::from)].into_iter().flatten() {
        if !root.is_dir() {
            eprintln!("SKIPPED: {}: not there", root.display());
        }
        find(&root, 0, &mut found);
    }
    found.sort();
    found
}

fn find(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.ends_with("snap/db") {
            found.push(path);
        } else if depth < 8 && path.is_dir() {
            find(&path, depth + 1, found);
        }
    }
}

#[test]
fn real_databases_are_sound() {
    for path in databases() {
        let file = std::fs::read(&path).unwrap();
        let db = Db::open(&file).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let found = check(&db, Strictness::Any);
        assert!(found.is_sound(), "{}: {:?}", path.display(), found.findings);
        let mut pairs = 0;
        for bucket in &db.root() {
            let bucket = bucket.unwrap();
            pairs += 1;
            for pair in &db.open_bucket(&bucket).unwrap() {
                let pair = pair.unwrap();
                assert_eq!(db.bucket(bucket.key).unwrap().unwrap().get(pair.key).unwrap(), Some(pair));
                pairs += 1;
            }
        }
        assert_eq!(found.pairs, pairs, "{}", path.display());
        let summary = etcdlift::internals::verify::summarize(&file).unwrap();
        assert_eq!(summary.all_pairs + db.root().iter().count() as u64, pairs, "{}", path.display());
    }
}

/// Numbers that real servers print for it: `etcdutl snapshot status` 3.5 and 3.7, `endpoint hashkv` of 3.7 booted on
/// it.
#[test]
fn hashes_of_a_compacted_database() {
    let name = "v3db-aidezone-java-components@58e46d1/member/snap/db";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus/public").join(name);
    let Ok(file) = std::fs::read(&path) else {
        eprintln!("SKIPPED: {name}: not there");
        return;
    };
    let summary = etcdlift::internals::verify::summarize(&file).unwrap();
    assert_eq!(summary.findings, []);
    assert_eq!((summary.hash_kv, summary.status_hash), (2_144_894_150, 0xcdbb_fbef));
    assert_eq!((summary.revision.0, summary.keys, summary.all_pairs), (3888, 14, 1089));
    assert_eq!(summary.compacted.map(|revision| revision.0), Some(2829));
}
