//! A whole conversion in memory, compared with a plain map.
//!
//! Bytes become requests, and requests become a log, with or without a snapshot. The log passes through every stage
//! from `source` to `verify`. Must not know files of the output: the database stays in memory. The expected content
//! comes from `model`, never from `v2store`.

use std::collections::HashSet;
use std::path::Path;

use super::input::Input;
use super::log::{self, Dialect, Log};
use super::model::Model;
use crate::bolt::{self, Db};
use crate::error::Result;
use crate::ids::{ByteOffset, RaftIndex, Term, V2Index};
use crate::image::Content;
use crate::interrupt::Interrupt;
use crate::mvcc::{KeyValue, RevisionKey, schema};
use crate::options::Expired;
use crate::source::map::Map;
use crate::source::open::Opened;
use crate::source::raft::{Method, Request};
use crate::source::snap::Snapshot;
use crate::source::start::Start;
use crate::source::wal::Wal;
use crate::transform::plan::plan;
use crate::transform::policy::Policy;
use crate::transform::revisions::{Numbering, Order, Pairs, order};
use crate::v2store::dialect::Version;
use crate::v2store::recover::recover;
use crate::v2store::replay::{ReplayOptions, read_table};
use crate::v2store::tree::Tree;
use crate::verify::{self};

const NODE: u64 = 0xa1;
const OTHER: u64 = 0xb2;
const VERSIONS: [&str; 7] = ["", "2.0.0", "2.1.0", "2.2.0", "2.3.0", "3.4.0", "3.5.0"];

/// Converts any bytes, read as the history of a cluster.
pub fn convert(data: &[u8]) {
    let history = History::generate(Input(data));
    let (expected, opened) = (history.expected(), history.opened());
    let table = read_table(&opened).unwrap();
    let options = ReplayOptions { version: Some(history.server()), ..ReplayOptions::default() };
    let mut recovered = recover(&opened, &table, None, &options).unwrap();
    assert_eq!(recovered.replay.applied, RaftIndex(history.applied()));
    assert_eq!(recovered.v2_index().0, expected.index);
    let index = recovered.v2_index();
    let file = database(&mut recovered.replay.tree, index).unwrap();
    compare(&file, &expected);
}

/// Converts a tree into a verified database.
///
/// # Errors
/// The indexes cannot be revisions.
pub(super) fn database(tree: &mut Tree<'_>, index: V2Index) -> Result<Vec<u8>> {
    let as_of = jiff::Timestamp::UNIX_EPOCH;
    let mut policy = Policy { mark_empty_dirs: true, expired: Expired::Keep, ..Policy::everything(as_of) };
    let mut plan = plan(tree, &mut policy, Interrupt::default()).unwrap();
    plan.refuse(tree, &policy).unwrap();
    let tree = &*tree;
    let how = Order {
        numbering: Numbering::Keep,
        v2_index: index,
        bump: 0,
        leases_in_use: &HashSet::new(),
        interrupt: Interrupt::default(),
    };
    let ordered = order(tree, &mut plan, &how)?;
    let meta = schema::Meta {
        consistent_index: RaftIndex(1),
        term: Term(1),
        scheduled_compact: Some(ordered.current),
        finished_compact: Some(ordered.current),
    };
    let content = Content::new(Pairs { tree, ordered: &ordered }, &meta).unwrap();
    let expected = verify::Expected::of(&content);
    let buckets = content.buckets();
    let hashed = expected.hashed(buckets.iter().find(|bucket| bucket.name == schema::KEY).unwrap().rows);
    let mut buckets = buckets.clone();
    buckets.iter_mut().filter(|bucket| bucket.name == schema::KEY).for_each(|keys| keys.rows = &hashed);
    let file = bolt::image(&buckets).unwrap();
    verify::verify(&file).unwrap();
    verify::compare(&file, &content, Interrupt::default()).unwrap();
    verify::verify_content(&file, &expected, Interrupt::default()).unwrap();
    Ok(file)
}

type Row = (Vec<u8>, Vec<u8>, u64, u64);

fn compare(file: &[u8], expected: &Model) {
    let db = Db::open(file).unwrap();
    let mut found: Vec<Row> = Vec::new();
    for pair in &db.bucket(schema::KEY).unwrap().unwrap() {
        let pair = pair.unwrap();
        let marker = KeyValue::decode(pair.value, ByteOffset(0)).unwrap().key.ends_with(b"/");
        if marker {
            continue;
        }
        let revision = RevisionKey::decode(pair.key).unwrap();
        let kv = KeyValue::decode(pair.value, ByteOffset(0)).unwrap();
        assert_eq!((revision.main, kv.version), (kv.mod_revision, 1));
        let (create, modify) = (kv.create_revision.0.cast_unsigned(), kv.mod_revision.0.cast_unsigned());
        found.push((kv.key.to_vec(), kv.value.to_vec(), create, modify));
    }
    found.sort();
    let files = expected.nodes.iter().filter_map(|(path, node)| {
        let key = path.strip_prefix(b"/1").filter(|key| key.starts_with(b"/"))?;
        Some((key.to_vec(), node.value.clone()?, node.created, node.modified))
    });
    let mut files: Vec<Row> = files.collect();
    files.sort();
    assert_eq!(found, files);
}

/// The history of a cluster, with its log.
struct History {
    version: (u32, u32),
    log: Log,
    /// Request `i` is at raft index `first + i`; earlier entries add the members and the version.
    requests: Vec<Write>,
    first: u64,
    commit: u64,
    only_voter: bool,
    version_text: &'static str,
    /// The number of requests that the snapshot includes.
    snapshot: Option<usize>,
    term: u64,
}

impl History {
    /// Returns the newest patch release of the minor version whose rules the model follows.
    fn server(&self) -> Version {
        Version::new(self.version.0, self.version.1, u32::MAX)
    }

    fn generate(mut input: Input<'_>) -> History {
        let dialect = input.pick(&[Dialect::Padded, Dialect::Unpadded]);
        let version_text = input.pick(&VERSIONS);
        let only_voter = !input.one_in(3);
        let floor = if dialect == Dialect::Padded { (3, 0) } else { (2, 0) };
        let number = |at: usize| version_text.split('.').nth(at).and_then(|n| n.parse().ok());
        let version = number(0).zip(number(1)).unwrap_or(floor).max(floor);
        let mut log = Log::new(dialect, NODE, 2);
        let mut first = 1;
        for node in [NODE, OTHER].into_iter().take(if only_voter { 1 } else { 2 }) {
            let change = log::conf_change(0, node, &log::member_json(node, node as u16));
            log.entry(log::CONF_CHANGE, 1, first, Some(&change));
            first += 1;
        }
        log.state(1, 0, first - 1);
        if !version_text.is_empty() {
            log.entry(log::NORMAL, 1, first, Some(&log::request(&version_put(version_text))));
            first += 1;
        }
        log.state(1, NODE, first - 1);
        let mut history = History {
            version,
            log,
            requests: Vec::new(),
            first,
            commit: first - 1,
            only_voter,
            version_text,
            snapshot: None,
            term: 1,
        };
        while !input.is_empty() && history.requests.len() < 200 {
            history.step(&mut input);
        }
        history
    }

    fn last(&self) -> u64 {
        self.first + self.requests.len() as u64 - 1
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() {
            0..=9 => {
                self.commit = self.last();
                self.log.state(self.term, NODE, self.commit);
            }
            10..=13 => self.log.cut(self.last() + 1, Some([self.term, NODE, self.commit])),
            14..=17 => {
                // The first entry of a new leader overwrites uncommitted entries.
                self.term += 1;
                let keep = self.commit + u64::from(input.byte()) % (self.last() - self.commit + 1);
                self.requests.truncate((keep + 1 - self.first) as usize);
                self.write(input);
            }
            18..=19 if self.snapshot.is_none() => {
                self.commit = self.last();
                self.log.state(self.term, NODE, self.commit);
                self.snapshot = Some(self.requests.len());
                self.log.snapshot(self.commit, self.term);
            }
            _ => self.write(input),
        }
    }

    fn write(&mut self, input: &mut Input<'_>) {
        let write = write(input);
        let bytes = log::request(&write.request());
        self.requests.push(write);
        self.log.entry(log::NORMAL, self.term, self.last(), Some(&bytes));
    }

    /// Returns the last applied raft index. Only with one voter is the end of the log committed without a commit index.
    fn applied(&self) -> u64 {
        if self.only_voter { self.last() } else { self.commit }
    }

    fn at_start(&self) -> Model {
        let mut model = Model::new(self.version);
        for node in [NODE, OTHER].into_iter().take(if self.only_voter { 1 } else { 2 }) {
            model.add_member(node, &format!("{{\"peerURLs\":[\"http://localhost:{node}\"]}}"));
        }
        if !self.version_text.is_empty() {
            model.apply(&version_put(self.version_text));
        }
        model
    }

    fn at_snapshot(&self) -> Option<Model> {
        let mut model = self.at_start();
        self.requests.get(..self.snapshot?)?.iter().for_each(|write| model.apply(&write.request()));
        Some(model)
    }

    fn expected(&self) -> Model {
        let mut model = self.at_snapshot().map_or_else(|| self.at_start(), |model| model.after_snapshot());
        let applied = (self.applied() + 1 - self.first) as usize;
        self.requests[self.snapshot.unwrap_or(0)..applied].iter().for_each(|write| model.apply(&write.request()));
        model
    }

    fn opened(&self) -> Opened {
        let snapshot = self.at_snapshot().map(|model| {
            let voters: &[u64] = if self.only_voter { &[NODE] } else { &[NODE, OTHER] };
            let index = self.first - 1 + self.snapshot.unwrap() as u64;
            let file = log::snap(model.json().as_bytes(), index, 1, voters);
            Snapshot::of(Map::held(Path::new("memory.snap"), file), Interrupt::default()).unwrap()
        });
        let start = Start { snapshot, member: 0, passed_over: Vec::new() };
        Opened::held(start, Wal::of_bytes(self.log.named()).unwrap())
    }
}

fn version_put(version: &'static str) -> Request<'static> {
    Request { method: Method::Put, path: b"/0/version", val: version.as_bytes(), ..Request::default() }
}

const NAMES: [&[u8]; 12] =
    [b"a", b"b", b"c", b"_h", b"q", b"a\xff", b"a\xfe", b"\xe2\x80\xa8<&>", b"\"\\\n", b"..", b"", b"a\xef\xbf\xbd"];
const VALUES: [&[u8]; 8] =
    [b"", b"v", b"w", b"\xff\0\xc3", b"<\"\\>", b"\xf0\x9f\x98\x80", b"\\ufffd", b"long value 0123456789"];
const INSTANTS: [i64; 8] =
    [0, 1_500_000_000_000_000_000, 1_500_000_000_000_000_001, 1_600_000_000_123_000_000, 1, -5, i64::MIN, i64::MAX];

/// A request that owns its path.
struct Write {
    path: Vec<u8>,
    rest: Request<'static>,
}

impl Write {
    fn request(&self) -> Request<'_> {
        Request { path: &self.path, ..self.rest }
    }
}

fn write(input: &mut Input<'_>) -> Write {
    let method =
        input.pick(&[Method::Put, Method::Put, Method::Put, Method::Post, Method::Delete, Method::Sync, Method::Qget]);
    let mut path = b"/1".to_vec();
    for _ in 0..input.byte() % 5 {
        path.push(b'/');
        path.extend_from_slice(input.pick(&NAMES));
    }
    let flags = input.byte();
    let flag = |bit: u8| flags & 1 << bit != 0;
    let instant = if flag(0) { input.pick(&INSTANTS) } else { 0 };
    let rest = Request {
        method,
        path: b"",
        val: input.pick(&VALUES),
        dir: flag(1) && flag(2),
        prev_value: if flag(3) { input.pick(&VALUES) } else { b"" },
        prev_index: if flag(4) && flag(3) { u64::from(input.byte() % 16) } else { 0 },
        prev_exist: (flag(5) && flag(6)).then_some(flag(2)),
        expiration: instant,
        recursive: flag(4),
        sorted: false,
        time: instant,
        refresh: flag(7).then_some(true),
    };
    Write { path, rest }
}
