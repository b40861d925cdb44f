//! The check of an mvcc store: stores that are sound, each broken invariant, and a wrong SHA-256.
//!
//! The stores are made here, one with everything that etcd allows.

use std::collections::{BTreeMap, BTreeSet};

use etcdlift::error::Reason;
use etcdlift::internals::bolt::{Bucket, Db, OwnedRows, Rows, image};
use etcdlift::internals::ids::{LeaseId, RaftIndex, Revision, Term};
use etcdlift::internals::mvcc::{HashKv, KeyValue, Lease, RevisionKey, schema};
use etcdlift::internals::verify::{Sha256Check, V3Content, hash_kv_at, summarize, v3_content, verify};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// A store to be written, wrong ones too.
#[derive(Clone, Default)]
struct Store(BTreeMap<&'static [u8], Pairs>);

impl Store {
    /// All ten buckets, and what `meta` must hold.
    fn new(compacted: Option<i64>) -> Self {
        let mut store = Store(schema::BUCKETS.iter().map(|name| (*name, Vec::new())).collect());
        let compacted = compacted.map(Revision);
        let meta = schema::Meta {
            consistent_index: RaftIndex(7),
            term: Term(2),
            scheduled_compact: compacted,
            finished_compact: compacted,
        };
        store.0.insert(schema::META, meta.pairs());
        store
    }

    fn add(&mut self, bucket: &'static [u8], key: &[u8], value: &[u8]) -> &mut Self {
        self.0.entry(bucket).or_default().push((key.to_vec(), value.to_vec()));
        self
    }

    fn put(&mut self, main: i64, key: &[u8], change: impl FnOnce(&mut KeyValue<'_>)) -> &mut Self {
        let mut kv = KeyValue {
            key,
            create_revision: Revision(main),
            mod_revision: Revision(main),
            version: 1,
            value: b"value",
            lease: LeaseId(0),
        };
        change(&mut kv);
        let mut value = vec![0; kv.encoded_len()];
        kv.encode(&mut value).unwrap();
        self.add(schema::KEY, &RevisionKey::put(Revision(main), 0).to_bytes(), &value)
    }

    fn delete(&mut self, main: i64, key: &[u8]) -> &mut Self {
        let kv = KeyValue { key, ..KeyValue::default() };
        let mut value = vec![0; kv.encoded_len()];
        kv.encode(&mut value).unwrap();
        let bucket_key = [RevisionKey::put(Revision(main), 0).to_bytes().as_slice(), b"t"].concat();
        self.add(schema::KEY, &bucket_key, &value)
    }

    /// A put with this create revision and version, or a deletion.
    fn change(&mut self, main: i64, key: &[u8], put: Option<(i64, i64)>) -> &mut Self {
        match put {
            Some((create, version)) => {
                self.put(main, key, |kv| (kv.create_revision, kv.version) = (Revision(create), version))
            }
            None => self.delete(main, key),
        }
    }

    fn lease(&mut self, id: i64) -> &mut Self {
        let lease = Lease { id: LeaseId(id), ttl: 60, remaining_ttl: 0 };
        self.add(schema::LEASE, &lease.key(), &lease.encode().unwrap())
    }

    fn file(&self) -> Vec<u8> {
        let rows: Vec<_> = self.0.iter().map(|(name, pairs)| (*name, OwnedRows::new(pairs.clone()))).collect();
        let buckets: Vec<_> = rows.iter().map(|(name, rows)| Bucket { name, rows: rows as &dyn Rows }).collect();
        image(&buckets).unwrap()
    }

    fn findings(&self) -> Vec<String> {
        summarize(&self.file()).unwrap().findings.into_iter().map(|finding| finding.message).collect()
    }
}

fn snapshot(file: &[u8]) -> Vec<u8> {
    [file, Sha256::digest(file).as_slice()].concat()
}

#[test]
fn the_store_of_appendix_a6() {
    let mut store = Store::new(None);
    store.put(2, b"/foo", |kv| kv.value = b"bar");
    let file = snapshot(&store.file());
    let summary = verify(&file).unwrap();
    assert_eq!(summary.hash_kv, 2_129_653_055);
    assert_eq!((summary.revision, summary.keys, summary.pairs, summary.all_pairs), (Revision(2), 1, 1, 3));
    assert_eq!((summary.consistent_index, summary.term), (Some(RaftIndex(7)), Some(Term(2))));
    assert_eq!((summary.sha256, summary.total_size), (Some(Sha256Check::Good), file.len() as u64 - 32));
    assert_eq!(summarize(&file).unwrap(), summary);
}

#[test]
fn an_empty_store() {
    let summary = verify(&Store::new(None).file()).unwrap();
    assert_eq!((summary.revision, summary.last_key_revision), (Revision(1), Revision(0)));
    assert_eq!((summary.hash_kv, summary.sha256), (0x40a4_756d, Some(Sha256Check::None)));
    assert_eq!(verify(&Store::new(Some(40)).file()).unwrap().revision, Revision(40));
}

#[test]
fn a_wrong_sha256_is_found() {
    let mut file = snapshot(&Store::new(None).file());
    *file.last_mut().unwrap() ^= 1;
    assert_eq!(verify(&file).unwrap_err().reason(), Reason::VerifyFailed);
    let summary = summarize(&file).unwrap();
    assert_eq!((summary.sha256, summary.findings.len()), (Some(Sha256Check::Mismatch), 1));
}

#[test]
fn a_history_with_all_that_is_allowed_has_no_findings() {
    let mut store = Store::new(Some(3));
    store.lease(5).lease(6);
    store.put(2, b"a", |kv| kv.version = 9);
    store.put(4, b"a", |kv| (kv.create_revision, kv.version, kv.lease) = (Revision(2), 10, LeaseId(5)));
    store.delete(5, b"a").put(6, b"a", |_| ()).delete(7, b"first sight").put(8, b"b", |kv| kv.lease = LeaseId(6));
    store.add(schema::AUTH_USERS, b"root", b"\x0a\x04root").add(schema::AUTH_ROLES, b"r", b"\x0a\x01r");
    store.add(schema::MEMBERS, b"1f", br#"{"id":31,"peerURLs":["http://p"],"name":"n"}"#);
    let summary = verify(&store.file()).unwrap();
    assert_eq!((summary.keys, summary.pairs, summary.tombstones), (2, 6, 2));
    assert_eq!((summary.leases, summary.users, summary.roles), (2, 1, 1));
    assert_eq!((summary.members[0].id.0, summary.members[0].name.as_str()), (31, "n"));
    let file = store.file();
    let content = V3Content {
        keys: 2,
        changes: 6,
        leases: 2,
        users: 1,
        roles: 1,
        consistent_index: Some(RaftIndex(7)),
        term: Some(Term(2)),
        conf_state: false,
        used: true,
        v2v3: Vec::new(),
    };
    assert_eq!(v3_content(&Db::open(&file).unwrap()).unwrap(), content);
    let nothing = image(&[]).unwrap();
    assert!(v3_content(&Db::open(&nothing).unwrap()).unwrap().is_empty());
}

#[test]
fn each_violated_invariant_is_a_finding() {
    type Breaks = fn(&mut Store);
    let cases: [(&str, Breaks); 24] = [
        ("bucket alarm is missing", |s| {
            s.0.remove(schema::ALARM);
        }),
        ("bucket meta is missing", |s| {
            s.0.remove(schema::META);
        }),
        ("not a revision", |s| {
            s.add(schema::KEY, b"short", b"");
        }),
        ("not a revision", |s| {
            s.add(schema::KEY, &[0xff; 17], b"");
        }),
        ("in its value", |s| {
            s.add(schema::KEY, &RevisionKey::put(Revision(2), 0).to_bytes(), b"\xff");
        }),
        ("the key is empty", |s| {
            s.put(2, b"", |_| ());
        }),
        ("modification revision", |s| {
            s.put(2, b"k", |kv| kv.mod_revision = Revision(3));
        }),
        ("creation revision", |s| {
            s.put(2, b"k", |kv| kv.create_revision = Revision(3));
        }),
        ("creation revision", |s| {
            s.put(2, b"k", |kv| kv.create_revision = Revision(0));
        }),
        ("version is 0", |s| {
            s.put(2, b"k", |kv| kv.version = 0);
        }),
        ("lease 5 does not exist", |s| {
            s.put(2, b"k", |kv| kv.lease = LeaseId(5));
        }),
        ("lease is negative", |s| {
            s.put(2, b"k", |kv| kv.lease = LeaseId(-5));
        }),
        ("revision 0", |s| {
            s.put(0, b"k", |_| ());
        }),
        ("not above", |s| {
            s.put(2, b"k", |_| ()).delete(2, b"l");
        }),
        ("does not follow", |s| {
            s.put(2, b"k", |_| ()).put(3, b"k", |_| ());
        }),
        ("does not follow", |s| {
            s.delete(2, b"k").delete(3, b"k");
        }),
        ("does not follow", |s| {
            s.delete(2, b"k").put(3, b"k", |kv| kv.version = 2);
        }),
        ("not a lease", |s| {
            s.lease(-1);
        }),
        ("not a lease", |s| {
            s.add(schema::LEASE, b"12345678", b"\x08\x01\x10\x05");
        }),
        ("finished that was not scheduled", |s| s.0.get_mut(schema::META).unwrap().retain(|(k, _)| k[0] != b's')),
        ("is not a revision", |s| s.0.get_mut(schema::META).unwrap()[1].1.truncate(3)),
        ("not a number of 8 bytes", |s| s.0.get_mut(schema::META).unwrap()[0].1.truncate(3)),
        ("not of that name", |s| {
            s.add(schema::AUTH_USERS, b"a", b"\x0a\x01b");
        }),
        ("not of that name", |s| {
            s.add(schema::MEMBERS, b"20", br#"{"id":31}"#);
        }),
    ];
    for (message, breaks) in cases {
        let mut store = Store::new(Some(1));
        breaks(&mut store);
        let findings = store.findings();
        assert!(findings.iter().any(|finding| finding.contains(message)), "{message}: {findings:?}");
        let error = verify(&store.file()).unwrap_err();
        assert_eq!(error.reason(), Reason::VerifyFailed, "{message}");
    }
}

#[test]
fn findings_are_bounded() {
    let mut store = Store::new(None);
    for main in 2..1000 {
        store.put(main, b"k", |kv| kv.version = 0);
    }
    let summary = summarize(&store.file()).unwrap();
    assert_eq!(summary.findings.len(), 100);
    assert!(summary.more_findings > 800);
}

/// What happens to one of a few keys at each revision: a put or, if it is there, a deletion.
fn histories() -> impl Strategy<Value = (Vec<(u8, bool)>, Option<usize>)> {
    (prop::collection::vec((0u8..5, prop::bool::weighted(0.35)), 0..40), prop::option::of(0usize..45))
}

/// A change: its revision, its key, and create revision and version of a put.
type Change = (i64, u8, Option<(i64, i64)>);

/// The changes of a history from revision 2 on, and the live keys at its end.
fn changes(history: Vec<(u8, bool)>) -> (Vec<Change>, BTreeMap<u8, (i64, i64)>) {
    let mut versions: BTreeMap<u8, (i64, i64)> = BTreeMap::new();
    let mut changes = Vec::new();
    for (key, delete) in history {
        let main = changes.len() as i64 + 2;
        let put = match (versions.get(&key).copied(), delete) {
            (Some(_), true) => None,
            (Some((create, version)), false) => Some((create, version + 1)),
            (None, _) => Some((main, 1)),
        };
        match put {
            Some(put) => drop(versions.insert(key, put)),
            None => drop(versions.remove(&key)),
        }
        changes.push((main, key, put));
    }
    (changes, versions)
}

proptest! {
    /// A member that went on has the HashKV of a member that stopped earlier, whatever was compacted there.
    #[test]
    fn hash_kv_at_a_revision_is_that_of_a_store_that_ends_there(
        (history, compacted) in histories(),
        stop in 0usize..42,
    ) {
        let (changes, _) = changes(history);
        let revision = (stop as i64 + 1).min(changes.len() as i64 + 1);
        let compacted = compacted.map(|at| at as i64 + 1).filter(|at| *at <= revision);
        let store = |compacted, to: i64| {
            let mut store = Store::new(compacted);
            for (main, key, put) in changes.iter().filter(|(main, ..)| *main <= to) {
                store.change(*main, &[b'k', *key], *put);
            }
            store.file()
        };
        let (whole, earlier) = (store(None, i64::MAX), summarize(&store(compacted, revision)).unwrap());
        let db = Db::open(&whole).unwrap();
        let found = hash_kv_at(&db, Revision(revision), compacted.map(Revision)).unwrap();
        prop_assert_eq!((found.hash, earlier.revision), (earlier.hash_kv, Revision(revision)));
        prop_assert_eq!(found.is_stable, earlier.keys > 0 || compacted.is_none());
    }

    /// HashKV against docs/formats.md 10.1 in its plainest form, on histories of which a compaction has taken nothing,
    /// all, or some of what it may.
    #[test]
    fn hash_kv_does_not_depend_on_how_far_a_compaction_got(
        (history, compacted) in histories(),
        taken in prop::collection::vec(any::<bool>(), 40),
    ) {
        let (changes, versions) = changes(history);
        let current = changes.len() as i64 + 1;
        let compacted = compacted.map(|at| at as i64 + 1).filter(|at| *at >= 1 && *at <= current);
        let last: BTreeMap<u8, i64> = changes.iter().map(|(main, key, _)| (*key, *main)).collect();
        let keep: BTreeSet<i64> = last.iter().filter(|(key, _)| versions.contains_key(key)).map(|(_, main)| *main).collect();
        // What a compaction at `compacted` must leave: the last change of each key up to it, and all above it.
        let mut needed: BTreeMap<u8, i64> = BTreeMap::new();
        for (main, key, _) in changes.iter().filter(|(main, ..)| Some(*main) <= compacted) {
            needed.insert(*key, *main);
        }
        let mut store = Store::new(compacted);
        let mut expected = HashKv::new();
        for (at, (main, key, put)) in changes.iter().enumerate() {
            let (user, revision) = ([b'k', *key], RevisionKey::put(Revision(*main), 0));
            let below = Some(*main) <= compacted;
            store.change(*main, &user, *put);
            let (bucket_key, value) = store.0[schema::KEY].last().unwrap().clone();
            let skipped = below && !keep.is_empty() && !keep.contains(main) || put.is_none() && Some(*main) == compacted;
            if !skipped {
                expected.update(&bucket_key, &value);
            }
            prop_assert!(bucket_key.starts_with(&revision.to_bytes()));
            // Without KEEP, HashKV includes the rest of compacted changes, so this case takes nothing away.
            if below && taken[at] && needed[key] != *main && !keep.is_empty() {
                store.0.get_mut(schema::KEY).unwrap().pop();
            }
        }
        let summary = summarize(&store.file()).unwrap();
        prop_assert_eq!(summary.hash_kv, expected.finish());
        prop_assert_eq!(summary.keys, versions.len() as u64);
        prop_assert_eq!(summary.revision, Revision(current));
    }
}

#[test]
fn every_single_bit_of_a_backend_matters_without_a_sha256() {
    let mut store = Store::new(Some(9));
    store.lease(5).add(schema::AUTH_USERS, b"root", b"\x0a\x04root");
    for main in 2..9 {
        store.put(main, format!("/key/{main}").as_bytes(), |kv| kv.lease = LeaseId(main % 2 * 5));
    }
    store.put(10, b"big", |kv| kv.value = &[b'x'; 5000]);
    let mut file = store.file();
    let sound = verify(&file).unwrap();
    // Every bit of headers and elements, a few of data and padding.
    for bit in (0..file.len() * 8).filter(|bit| bit / 8 % 4096 < 192 || bit % 29 == 0) {
        file[bit / 8] ^= 1 << (bit % 8);
        let _ = summarize(&file);
        match verify(&file) {
            Ok(summary) => assert_ne!(summary.status_hash, sound.status_hash, "bit {bit}"),
            Err(error) => assert_eq!(error.reason(), Reason::VerifyFailed, "bit {bit}"),
        }
        file[bit / 8] ^= 1 << (bit % 8);
    }
}
