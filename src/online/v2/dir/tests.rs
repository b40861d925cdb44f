//! A follower delivers the same changes however the log grows under it: byte by byte, torn by a crash, cut into segments.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;

use nix::fcntl::{Flock, FlockArg};
use proptest::prelude::*;

use super::super::{Change, Effect, Head, Next, Node, V2};
use super::Dir;
use crate::fuzzing::log::{CONF_CHANGE, Dialect, Log, NORMAL, conf_change, member_json, request, segment_file};
use crate::interrupt::Interrupt;
use crate::source::raft::{Method, Request};

/// A log, and how it came to be.
struct Written {
    log: Log,
    dialect: Dialect,
    /// The end of the part that a reader finds first: a frame of the first segment.
    first: usize,
}

/// A step of the cluster.
#[derive(Debug, Clone)]
enum Act {
    Put {
        path: usize,
        value: usize,
        exists: Option<bool>,
        expires: u64,
        dir: bool,
        refresh: bool,
    },
    Compare {
        path: usize,
        value: usize,
        prev: usize,
    },
    Delete {
        path: usize,
        recursive: bool,
        dir: bool,
    },
    Post {
        path: usize,
    },
    Sync {
        at: u64,
    },
    /// The commit index moves to the end of the log.
    Commit,
    Cut,
    /// A new term; its leader replaces so many entries that are not committed.
    Term {
        replaced: u64,
    },
    Snapshot,
    Empty,
}

const PATHS: [&str; 9] = ["/1/a", "/1/b", "/1/d", "/1/d/a", "/1/d/b", "/1/d/e", "/1/d/e/f", "/1/_h/x", "/0/x"];
const VALUES: [&str; 4] = ["", "x", "y", "a value that is longer than others, for frames of several lengths"];
/// Seconds from this instant on.
const BEGIN: u64 = 1_600_000_000;

fn nanoseconds(second: u64) -> i64 {
    i64::try_from((BEGIN + second) * 1_000_000_000).unwrap()
}

fn act() -> impl Strategy<Value = Act> {
    let (path, value) = (0..PATHS.len(), 0..VALUES.len());
    let expires = prop_oneof![2 => Just(0u64), 1 => 1..60u64];
    let flags = (prop::option::of(any::<bool>()), prop::bool::weighted(0.2), prop::bool::weighted(0.15));
    prop_oneof![
        8 => (path.clone(), value.clone(), expires, flags).prop_map(|(path, value, expires, (exists, dir, refresh))| {
            Act::Put { path, value: if dir { 0 } else { value }, exists, expires, dir, refresh }
        }),
        2 => (path.clone(), value.clone(), value).prop_map(|(path, value, prev)| Act::Compare { path, value, prev }),
        3 => (path.clone(), any::<bool>(), any::<bool>()).prop_map(|(path, recursive, dir)| Act::Delete { path, recursive, dir }),
        1 => path.prop_map(|path| Act::Post { path }),
        1 => (1..60u64).prop_map(|at| Act::Sync { at }),
        3 => Just(Act::Commit),
        1 => Just(Act::Cut),
        1 => (0..4u64).prop_map(|replaced| Act::Term { replaced }),
        1 => Just(Act::Snapshot),
        1 => Just(Act::Empty),
    ]
}

fn encoded(act: &Act) -> Option<Vec<u8>> {
    let of = |method, path: usize| Request {
        method,
        path: PATHS[path].as_bytes(),
        refresh: Some(false),
        ..Request::default()
    };
    Some(request(&match *act {
        Act::Put { path, value, exists, expires, dir, refresh } => Request {
            val: VALUES[value].as_bytes(),
            prev_exist: exists,
            expiration: if expires > 0 { nanoseconds(expires) } else { 0 },
            dir,
            refresh: Some(refresh && !dir),
            ..of(Method::Put, path)
        },
        Act::Compare { path, value, prev } => {
            Request { val: VALUES[value].as_bytes(), prev_value: VALUES[prev].as_bytes(), ..of(Method::Put, path) }
        }
        Act::Delete { path, recursive, dir } => Request { recursive, dir, ..of(Method::Delete, path) },
        Act::Post { path } => Request { val: b"posted", ..of(Method::Post, path) },
        Act::Sync { at } => Request { method: Method::Sync, time: nanoseconds(at), ..Request::default() },
        _ => return None,
    }))
}

fn written(dialect: Dialect, voters: u64, acts: &[Act]) -> Written {
    let mut log = Log::new(dialect, 1, 0xc);
    let (mut index, mut commit) = (0, 0);
    let mut terms = BTreeMap::new();
    for voter in 1..=voters {
        index += 1;
        let member = member_json(voter, 2380 + u16::try_from(voter).unwrap());
        log.entry(CONF_CHANGE, 1, index, Some(&conf_change(0, voter, &member)));
    }
    // The rules are selected by what the first part proves.
    index += 1;
    let version = if dialect == Dialect::Padded { "3.4.0" } else { "2.3.0" };
    let (method, refresh) = (Method::Put, Some(false));
    let version = Request { method, path: b"/0/version", val: version.as_bytes(), refresh, ..Request::default() };
    log.entry(NORMAL, 1, index, Some(&request(&version)));
    log.state(1, 1, index);
    let mut term = 2;
    index += 1;
    log.entry(NORMAL, term, index, None);
    log.state(term, 1, index);
    log.snapshot(index, term);
    terms.insert(index, term);
    commit = commit.max(index);
    let first = log.segments()[0].bytes.len();
    for act in acts {
        match act {
            Act::Commit => {
                commit = index;
                log.state(term, 1, commit);
            }
            Act::Cut => log.cut(index + 1, Some([term, 1, commit])),
            Act::Term { replaced } if voters > 1 => {
                term += 1;
                index = index.saturating_sub(*replaced).max(commit) + 1;
                log.entry(NORMAL, term, index, None);
            }
            Act::Term { .. } => {}
            Act::Snapshot => log.snapshot(commit, terms.get(&commit).copied().unwrap_or(1)),
            Act::Empty => {
                index += 1;
                log.entry(NORMAL, term, index, None);
            }
            request => {
                index += 1;
                log.entry(NORMAL, term, index, encoded(request).as_deref());
            }
        }
        terms.insert(index, term);
    }
    index += 1;
    log.entry(NORMAL, term, index, None);
    log.state(term, 1, index);
    Written { log, dialect, first }
}

/// A data directory in which the log grows.
struct Growing<'w> {
    written: &'w Written,
    temp: tempfile::TempDir,
    file: Flock<File>,
    segment: usize,
    at: usize,
}

const PREALLOCATED: u64 = 20_000;

/// No frame is longer. A log that grows by less between two crashes would never get beyond such a frame.
const LONGEST: usize = 400;

impl<'w> Growing<'w> {
    fn new(written: &'w Written) -> Self {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir_all(temp.path().join("member/wal")).unwrap();
        fs::create_dir_all(temp.path().join("member/snap")).unwrap();
        let file = Self::create(written, temp.path(), 0);
        let mut growing = Growing { written, temp, file, segment: 0, at: 0 };
        growing.grow(written.first);
        growing
    }

    fn create(written: &Written, dir: &std::path::Path, segment: usize) -> Flock<File> {
        let name = segment_file(segment as u64, written.log.segments()[segment].index);
        let path = dir.join("member/wal").join(name);
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(path).unwrap();
        if written.dialect == Dialect::Padded {
            file.set_len(PREALLOCATED).unwrap();
        }
        // As a running etcd does, which may be writing a record.
        Flock::lock(file, FlockArg::LockExclusiveNonblock).unwrap()
    }

    /// Writes so many more bytes. Returns whether there are more.
    fn grow(&mut self, mut count: usize) -> bool {
        let segments = self.written.log.segments();
        while count > 0 {
            let bytes = &segments[self.segment].bytes;
            let part = &bytes[self.at..bytes.len().min(self.at.saturating_add(count))];
            self.file.write_all_at(part, self.at as u64).unwrap();
            (self.at, count) = (self.at + part.len(), count - part.len());
            if self.at < bytes.len() {
                continue;
            }
            if self.segment + 1 == segments.len() {
                return false;
            }
            self.file.set_len(bytes.len() as u64).unwrap();
            (self.segment, self.at) = (self.segment + 1, 0);
            self.file = Self::create(self.written, self.temp.path(), self.segment);
            // A segment appears with its first records.
            let head = segments[self.segment].ends[1];
            self.file.write_all_at(&segments[self.segment].bytes[..head], 0).unwrap();
            self.at = head;
            count = count.saturating_sub(head);
        }
        true
    }

    /// Crashes: what is written of the last frame is removed, and then written again.
    fn crash(&mut self) {
        let ends = &self.written.log.segments()[self.segment].ends;
        let end = ends.iter().rev().find(|end| **end <= self.at).copied().unwrap_or(0);
        match self.written.dialect {
            Dialect::Padded => self.file.write_all_at(&vec![0; self.at - end], end as u64).unwrap(),
            Dialect::Unpadded => self.file.set_len(end as u64).unwrap(),
        }
        self.at = end;
    }
}

/// A reader, and what it was told.
struct Reader {
    dir: Dir,
    state: BTreeMap<Vec<u8>, Node>,
    changes: Vec<Change>,
    head: Head,
}

impl Reader {
    fn open(growing: &Growing<'_>) -> Self {
        let dir = Dir::open(growing.temp.path(), None, Interrupt::default()).unwrap();
        let mut reader = Reader { dir, state: BTreeMap::new(), changes: Vec::new(), head: Head::default() };
        let state = &mut reader.state;
        reader.head = reader
            .dir
            .state(&mut |node| {
                state.insert(node.path.clone(), node);
                Ok(())
            })
            .unwrap();
        reader
    }

    fn catch_up(&mut self) {
        loop {
            match self.dir.next(std::time::Duration::ZERO).unwrap() {
                Next::Changes { changes, head } => {
                    self.changes.extend(changes);
                    self.head = head;
                }
                Next::Quiet(head) => {
                    self.head = head;
                    return;
                }
                Next::Lost(why) => panic!("{why}"),
            }
        }
    }

    fn applied(&self) -> BTreeMap<Vec<u8>, Node> {
        let mut keys = self.state.clone();
        for change in &self.changes {
            match &change.effect {
                Effect::Set(node) => drop(keys.insert(node.path.clone(), node.clone())),
                Effect::Gone(path) => assert!(keys.remove(path).is_some(), "{path:?} is no key"),
                Effect::GoneDir(path) => panic!("{path:?} without the names of its keys"),
            }
        }
        keys
    }
}

/// Grows a log in these parts and checks what a reader is told. A part of zero bytes is a crash.
fn check(written: &Written, parts: &[usize]) {
    for segment in written.log.segments() {
        let lens = segment.ends.windows(2).map(|ends| ends[1] - ends[0]);
        assert!(lens.max().is_none_or(|longest| longest <= LONGEST), "a frame is too long for the test");
    }
    let mut growing = Growing::new(written);
    let mut reader = Reader::open(&growing);
    let begun = reader.head;
    let mut parts = parts.iter().cycle();
    loop {
        let more = match parts.next() {
            Some(0) => {
                growing.crash();
                true
            }
            Some(part) => growing.grow(*part),
            None => growing.grow(usize::MAX),
        };
        reader.catch_up();
        if !more {
            break;
        }
    }
    let mut at_once = Growing::new(written);
    let mut other = Reader::open(&at_once);
    at_once.grow(usize::MAX);
    other.catch_up();
    assert_eq!(reader.changes, other.changes);
    assert_eq!(reader.head, other.head);
    let mut whole = Reader::open(&at_once);
    assert_eq!(reader.head, whole.head);
    assert_eq!(whole.dir.head().unwrap(), whole.head);
    let mut missed = Vec::new();
    let all = whole.dir.since(begun.index, &mut |change| {
        missed.push(change);
        Ok(())
    });
    assert_eq!((all.unwrap(), &missed), (true, &reader.changes));
    assert_eq!(reader.applied(), whole.state);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_growth_of_a_log_gives_the_same_changes(
        acts in prop::collection::vec(act(), 1..60),
        is_padded: bool,
        only_voter: bool,
        parts in prop::collection::vec(prop_oneof![1 => Just(0usize), 8 => 1..300usize], 1..12),
    ) {
        let dialect = if is_padded { Dialect::Padded } else { Dialect::Unpadded };
        let parts: Vec<usize> = [LONGEST].into_iter().chain(parts).collect();
        check(&written(dialect, if only_voter { 1 } else { 3 }, &acts), &parts);
    }
}

#[test]
fn a_log_that_grows_byte_by_byte_gives_the_same_changes() {
    let put = |path, value| Act::Put { path, value, exists: None, expires: 0, dir: false, refresh: false };
    let dir = Act::Put { path: 2, value: 0, exists: Some(true), expires: 9, dir: true, refresh: false };
    let acts = [
        put(3, 1),
        put(4, 3),
        Act::Commit,
        put(0, 2),
        dir,
        Act::Term { replaced: 1 },
        put(0, 1),
        Act::Cut,
        Act::Commit,
        put(7, 3),
        Act::Delete { path: 2, recursive: true, dir: false },
        Act::Commit,
        put(6, 1),
        Act::Snapshot,
        Act::Sync { at: 50 },
    ];
    for dialect in [Dialect::Padded, Dialect::Unpadded] {
        for voters in [1, 3] {
            check(&written(dialect, voters, &acts), &[1]);
        }
    }
}

#[test]
fn damage_that_no_crash_explains_is_an_error_with_its_place() {
    let put = Act::Put { path: 0, value: 3, exists: None, expires: 0, dir: false, refresh: false };
    let written = written(Dialect::Padded, 1, &[put.clone(), put.clone(), put]);
    let mut growing = Growing::new(&written);
    let mut reader = Reader::open(&growing);
    growing.grow(usize::MAX);
    let end = written.log.segments()[0].ends.iter().rev().nth(3).copied().unwrap();
    growing.file.write_all_at(&[0xff; 8], end as u64 + 40).unwrap();
    let begun = std::time::Instant::now();
    let error = loop {
        match reader.dir.next(std::time::Duration::from_millis(100)) {
            Err(e) => break e,
            Ok(_) => assert!(begun.elapsed().as_secs() < 30, "no error"),
        }
    };
    let text = error.to_string();
    assert!(text.contains(&segment_file(0, 0)) && text.contains("expected data with CRC-32C"), "{text}");
}

#[test]
fn a_directory_with_another_log_is_lost_or_refused() {
    let put = |value| Act::Put { path: 0, value, exists: None, expires: 0, dir: false, refresh: false };
    let first = written(Dialect::Padded, 1, &[put(1), put(2), put(3)]);
    let mut growing = Growing::new(&first);
    let mut reader = Reader::open(&growing);
    growing.grow(usize::MAX);
    reader.catch_up();
    // The same cluster from its beginning, as a member that joined again.
    let name = growing.temp.path().join("member/wal").join(segment_file(0, 0));
    fs::remove_file(&name).unwrap();
    let other = written(Dialect::Padded, 1, &[]);
    fs::write(&name, &other.log.segments()[0].bytes).unwrap();
    let begun = std::time::Instant::now();
    loop {
        match reader.dir.next(std::time::Duration::from_millis(300)).unwrap() {
            Next::Lost(_) => break,
            _ => assert!(begun.elapsed().as_secs() < 20),
        }
    }
    let lost = reader.dir.next(std::time::Duration::ZERO).unwrap();
    assert!(matches!(lost, Next::Lost(_)), "until the state is read: {lost:?}");
}
