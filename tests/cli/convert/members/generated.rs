//! Members that a model of raft wrote: logs that lag or conflict, in several segments, with snapshots and without.
//!
//! `ETCDLIFT_MEMBER_SEEDS` selects the clusters.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use etcdlift::internals::fuzzing::log::Dialect;
use etcdlift::internals::ids::RaftIndex;
use etcdlift::internals::source::dir::SegmentName;
use etcdlift::internals::source::wal::Wal;

use super::cluster::{Cluster, Style, write};
use super::{convert, segments};
use crate::common::random::{Random, seeds};
use crate::common::run::etcdlift;
use crate::common::scratch;
use crate::convert::kit;

/// An entry: term, type, data.
type Entry = (u64, u64, Vec<u8>);

/// A log as etcd reads it.
struct Log {
    entries: BTreeMap<u64, Entry>,
    /// Term, vote, commit.
    state: [u64; 3],
    commit: u64,
    last_term: u64,
}

impl Log {
    fn read(data_dir: &Path) -> Log {
        let named = |path: PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap();
            let number = |at: usize| u64::from_str_radix(&name[at..at + 16], 16).unwrap();
            let (seq, index, bytes) = (number(0), RaftIndex(number(17)), fs::read(&path).unwrap());
            (SegmentName { seq, index, path }, bytes)
        };
        let wal = Wal::of_bytes(segments(data_dir).into_iter().map(named).collect()).unwrap();
        let entries = wal.history().into_iter().map(|reference| {
            let entry = wal.entry(reference).unwrap();
            (entry.index.0, (entry.term.0, entry.kind.number(), entry.data.to_vec()))
        });
        let state = wal.hard_state().map_or([0; 3], |state| [state.term.0, state.vote.0, state.commit.0]);
        let last_term = wal.last().map_or(0, |(term, _)| term.0);
        Log { entries: entries.collect(), state, commit: wal.commit().0, last_term }
    }
}

#[test]
fn logs_get_the_entries_and_the_hard_state_that_they_lack() {
    let (mut made, mut appended, mut refused) = (0, 0, 0);
    for seed in seeds("ETCDLIFT_MEMBER_SEEDS", 0..40) {
        let mut random = Random::new(seed);
        let padded = random.chance(10);
        let dialect = if padded { Dialect::Padded } else { Dialect::Unpadded };
        let version = if padded { (3, 4) } else { (2, 3) };
        let style = Style { dialect, state_first: false, record_after_state: !padded, lazy_commit: true, version };
        let mut cluster = Cluster::new(style, random.pick(&[1, 3, 3, 3, 5]));
        for _ in 0..random.between(40, 200) {
            cluster.step(&mut random);
        }
        match continued(&cluster, seed) {
            Some(records) => (made, appended) = (made + 1, appended + records),
            None => refused += 1,
        }
    }
    eprintln!("{made} clusters, {appended} members with new records, {refused} refused");
    assert!(made > refused && appended > 0, "{made} {appended} {refused}");
}

/// Converts a cluster; returns the number of members whose log got records, or `None` for a refusal.
fn continued(cluster: &Cluster, seed: u64) -> Option<usize> {
    let temp = scratch::temp();
    let ids: Vec<String> = cluster.members.iter().map(|member| format!("{:x}", member.id)).collect();
    let sources: Vec<PathBuf> = ids.iter().map(|id| temp.path().join(format!("{id}.etcd"))).collect();
    cluster.members.iter().zip(&sources).for_each(|(member, path)| write(cluster.style, member, path));
    let before = scratch::fingerprint(temp.path());
    let out = temp.path().join("out");
    let output = convert(&sources, &out, &["--allow-empty"]);
    let story = format!("seed {seed}: {}", output.story());
    if output.status == 5 {
        let known = ["which no other log has", "is after the state at", "would prove"];
        assert!(known.iter().any(|words| output.stderr.contains(words)), "{story}");
        return None;
    }
    assert!([0, 8].contains(&output.status), "{story}");
    let unchanged = before.iter().skip(1).all(|(path, state)| scratch::fingerprint(path).get(path) == Some(state));
    assert!(unchanged, "{story}");
    let dir = |id: &String| if ids.len() == 1 { out.clone() } else { out.join(id) };
    let dirs: Vec<PathBuf> = ids.iter().map(dir).collect();
    let applied = kit::meta(&dirs[0].join("member/snap/db"), "consistent_index");
    let logs: Vec<Log> = sources.iter().map(|path| Log::read(path)).collect();
    // A wrong entry of this index is not committed, so it has a lower term.
    let term = logs.iter().filter_map(|log| log.entries.get(&applied)).map(|entry| entry.0).max();
    let has_it = |log: &&Log| log.entries.get(&applied).is_some_and(|entry| Some(entry.0) == term);
    let full = logs.iter().filter(has_it).max_by_key(|log| log.entries.len());
    let mut appended = 0;
    for ((source, dir), old) in sources.iter().zip(&dirs).zip(&logs) {
        files_are_copies(source, dir, &story);
        let new = Log::read(dir);
        appended += usize::from(new.state != old.state);
        check(old, &new, full, applied, &story);
        assert_eq!(fs::read(dir.join("member/snap/db")).unwrap(), fs::read(dirs[0].join("member/snap/db")).unwrap());
    }
    etcdlift(["verify".as_ref(), out.as_os_str()]).success();
    other_order_and_again(&sources, &dirs, &out, temp.path(), &story);
    Some(appended)
}

/// Compares a log with what raft would have appended.
fn check(old: &Log, new: &Log, full: Option<&Log>, applied: u64, story: &str) {
    if old.commit >= applied && old.state[2] >= applied {
        assert_eq!((&new.entries, new.state), (&old.entries, old.state), "{story}");
        return;
    }
    let full = full.unwrap();
    let differs =
        |index: &u64| old.entries.get(index).map(|entry| entry.0) != full.entries.get(index).map(|entry| entry.0);
    let mut expected = old.entries.clone();
    let mut term = old.state[0].max(old.last_term);
    if let Some(first) = (old.commit + 1..=applied).find(differs) {
        expected.split_off(&first);
        expected.extend((first..=applied).filter_map(|index| Some((index, full.entries.get(&index)?.clone()))));
        term = term.max(full.entries[&applied].0);
    }
    let from = new.entries.keys().next().copied().unwrap_or(0);
    expected.retain(|index, _| *index >= from);
    assert!(new.entries == expected, "{story}");
    let vote = if term > old.state[0] { 0 } else { old.state[1] };
    assert_eq!(new.state, [term, vote, applied], "{story}");
}

/// All files but the last segment are equal; that one begins with the records of the source.
fn files_are_copies(source: &Path, dir: &Path, story: &str) {
    for name in scratch::names(&source.join("member/snap")).iter().filter(|name| name.ends_with(".snap")) {
        let of = |dir: &Path| fs::read(dir.join("member/snap").join(name)).unwrap();
        assert!(of(source) == of(dir), "{name}: {story}");
    }
    let (old, new) = (segments(source), segments(dir));
    assert_eq!(old.len(), new.len(), "{story}");
    for (at, (old, new)) in old.iter().zip(&new).enumerate() {
        let (before, after) = (fs::read(old).unwrap(), fs::read(new).unwrap());
        let is_last = at + 1 == segments(source).len();
        let end = if is_last { before.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1 } else { before.len() };
        assert!(after.len() >= before.len() && after[..end] == before[..end], "{}: {story}", old.display());
    }
}

/// Another order of the sources gives the same files, and the output has the v2 tree of the source.
fn other_order_and_again(sources: &[PathBuf], dirs: &[PathBuf], out: &Path, temp: &Path, story: &str) {
    let mut turned = sources.to_vec();
    turned.reverse();
    let other = temp.join("other");
    convert(&turned, &other, &["--allow-empty"]);
    for dir in dirs {
        let twin = other.join(dir.strip_prefix(out).unwrap());
        for part in ["member/snap", "member/wal"] {
            for name in scratch::names(&dir.join(part)) {
                let file = |root: &Path| fs::read(root.join(part).join(&name)).unwrap();
                assert!(file(dir) == file(&twin), "{name}: {story}");
            }
        }
    }
    let snapshot = |sources: &[PathBuf], name: &str| {
        let path = temp.join(name);
        let mut args = vec!["convert", "-o", path.to_str().unwrap(), "--existing", "drop-v3", "--allow-empty"];
        args.extend(["--as-of", "2026-01-01T00:00:00Z"]);
        args.extend(sources.iter().map(|path| path.to_str().unwrap()));
        let output = etcdlift(args);
        assert!([0, 8].contains(&output.status), "{} {story}", output.story());
        fs::read(&path).unwrap()
    };
    assert!(snapshot(sources, "one.db") == snapshot(dirs, "two.db"), "{story}");
}
