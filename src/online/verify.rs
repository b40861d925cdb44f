//! `online verify`: every v2 key against v3, and every key of the job against v2. Must not write.
//!
//! v2 changes meanwhile, and the job carries it. So differences are looked at again until the job has passed the index of
//! the state, or no longer moves.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

use crate::error::{Error, Reason, Result};
use crate::ids::V2Index;
use crate::online::copy::Context;
use crate::online::decide::Seen;
use crate::online::names::{Content, Name, Names, shown};
use crate::online::own::Own;
use crate::online::session::state_of;
use crate::online::state::{self, Job, Keys};
use crate::online::v2::{Head, Node, V2};
use crate::online::v3::{Got, Op, Pair, Scan, read_in_groups, scan};
use crate::words::words;

/// How long differences are looked at again at most.
const LONGEST: Duration = Duration::from_secs(60);

/// How long differences can stay while the progress does not move.
const PATIENCE: Duration = Duration::from_secs(10);

/// Keys of one read.
const READ: usize = 60;

/// Bytes of v2 values that are compared at a time: an answer has about as many.
const READ_BYTES: usize = 16 << 20;

/// Differences that a result names.
pub const SHOWN: usize = 100;

words! {
    /// How a key differs.
    #[derive(PartialOrd, Ord)]
    pub enum Difference {
        /// v2 has it, v3 has not, and v2 leads.
        Missing = "missing",
        /// v3 has another value of the job, or only one of both expires.
        Different = "different",
        /// The job wrote it, and v2 has it not.
        Extra = "extra",
        /// Somebody else wrote it, and it has no marker.
        Foreign = "foreign",
    }
}

/// A key that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Differing {
    /// How.
    pub what: Difference,
    /// The v2 path; that of an extra key is its v3 name.
    pub key: String,
    /// The v3 key.
    pub v3_key: String,
    /// The v2 index of its last change.
    pub v2_index: Option<u64>,
    /// The v3 revision.
    pub v3_revision: Option<i64>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Verified {
    /// The v2 index of the state.
    pub v2_index: u64,
    /// The v2 index that the job has reached.
    pub v3_index: Option<u64>,
    /// Keys with equal values.
    pub equal: u64,
    /// Keys that v3 leads.
    pub moved: u64,
    /// Keys that rules and policies leave out.
    pub left_out: u64,
    /// Number of keys that differ.
    pub differing: u64,
    /// The first of them.
    pub differences: Vec<Differing>,
}

/// A key that v3 has from v2: for the index map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapped {
    /// The v2 path and its modified index.
    pub v2: (Vec<u8>, V2Index),
    /// The v3 key and its revision.
    pub v3: (Vec<u8>, i64),
}

/// Compares v2 and v3. `each` gets every key when it is found equal.
///
/// # Errors
/// [`Reason::StateMissing`] without a migration; those of the source and the store; an interruption.
pub fn verify(
    context: &Context<'_>,
    v2: &mut dyn V2,
    keys: &Keys,
    each: &mut dyn FnMut(Mapped) -> Result<()>,
) -> Result<Verified> {
    let job = state::read(context.kv, keys)?.job.ok_or_else(missing)?;
    require_source(&job, v2)?;
    let mut names = Names::new(&job, keys)?;
    let mut look = Look::new(context, keys, &mut names, None)?;
    let head = look.whole(v2, each)?;
    let mut result = look.found;
    let mut differing = look.differing;
    result.v2_index = head.index.0;
    let (began, mut moved_at, mut last) = (Instant::now(), Instant::now(), None);
    loop {
        let progress = state::read(context.kv, keys)?.progress.map(|(progress, _)| progress.v2_index);
        if progress != last {
            (last, moved_at) = (progress, Instant::now());
        }
        let is_reached = progress.unwrap_or(0) >= result.v2_index;
        if differing.is_empty()
            || is_reached && moved_at.elapsed() > Duration::from_secs(1)
            || moved_at.elapsed() > PATIENCE
            || began.elapsed() > LONGEST
        {
            break;
        }
        context.interrupt.ask()?;
        std::thread::sleep(Duration::from_millis(200));
        let mut only = HashMap::<_, HashSet<_>>::new();
        for (key, path) in differing.into_keys() {
            only.entry(key).or_default().insert(path);
        }
        let mut look = Look::new(context, keys, &mut names, Some(only))?;
        let head = look.whole(v2, each)?;
        result.equal += look.found.equal;
        result.moved += look.found.moved;
        result.v2_index = head.index.0;
        differing = look.differing;
    }
    result.v3_index = last;
    result.differing = differing.len() as u64;
    result.differences = differing.into_values().take(SHOWN).collect();
    Ok(result)
}

/// Checks that a source is that of the migration.
///
/// # Errors
/// [`Reason::StateDiffers`]; those of the source.
pub fn require_source(job: &Job, v2: &mut dyn V2) -> Result<()> {
    let given = Job { source: v2.cluster()?, hidden_keys: v2.shows_hidden_keys(), ..job.clone() };
    match job.difference(&given) {
        Some(difference) => {
            let message = format!("the state in v3 is that of a migration with {difference}");
            Err(Error::new(Reason::StateDiffers, message).hint("give the source that `etcdlift online copy` has"))
        }
        None => Ok(()),
    }
}

/// Returns the error for a prefix without a migration.
pub fn missing() -> Error {
    Error::new(Reason::StateMissing, "v3 has no state of a migration")
        .hint("run `etcdlift online copy`, or check --state-prefix")
}

/// A key as v3 should have it.
struct Expected {
    node: Node,
    /// The v3 key.
    key: Vec<u8>,
    value: Vec<u8>,
    /// Whether it needs a lease.
    expires: bool,
}

/// One look at v2 and v3.
struct Look<'l> {
    context: &'l Context<'l>,
    keys: &'l Keys,
    names: &'l mut Names,
    own: Own,
    /// The v3 keys to look at, each with the v2 paths that differed, or an empty one; all without it.
    only: Option<HashMap<Vec<u8>, HashSet<Vec<u8>>>>,
    seen: HashSet<Vec<u8>>,
    batch: Vec<Expected>,
    bytes: usize,
    found: Verified,
    /// By v3 key and v2 path.
    differing: BTreeMap<(Vec<u8>, Vec<u8>), Differing>,
}

impl<'l> Look<'l> {
    fn new(
        context: &'l Context<'l>,
        keys: &'l Keys,
        names: &'l mut Names,
        only: Option<HashMap<Vec<u8>, HashSet<Vec<u8>>>>,
    ) -> Result<Look<'l>> {
        let own = Own::load(context.kv, keys)?;
        let (seen, batch, found, differing) = Default::default();
        Ok(Look { context, keys, names, own, only, seen, batch, bytes: 0, found, differing })
    }

    fn whole(&mut self, v2: &mut dyn V2, each: &mut dyn FnMut(Mapped) -> Result<()>) -> Result<Head> {
        let now = Timestamp::now();
        let head = v2.state(&mut |node| {
            self.context.interrupt.ask()?;
            self.node(node, now, each)
        })?;
        self.compare(each)?;
        self.others()?;
        Ok(head)
    }

    fn node(&mut self, node: Node, now: Timestamp, each: &mut dyn FnMut(Mapped) -> Result<()>) -> Result<()> {
        let Name::Key(key) = self.names.name(&node.path) else {
            self.found.left_out += 1;
            return Ok(());
        };
        let differed = |paths: &HashSet<Vec<u8>>| paths.contains(&node.path) || paths.contains(&Vec::new());
        if self.only.as_ref().is_some_and(|only| !only.get(&key).is_some_and(differed)) {
            self.seen.insert(key);
            return Ok(());
        }
        let Content::Value { value, seconds } = self.names.content(&node, now)? else {
            self.found.left_out += 1;
            return Ok(());
        };
        self.seen.insert(key.clone());
        self.bytes += value.len();
        self.batch.push(Expected { node, key, value, expires: seconds.is_some() });
        if self.batch.len() >= READ || self.bytes > READ_BYTES { self.compare(each) } else { Ok(()) }
    }

    fn compare(&mut self, each: &mut dyn FnMut(Mapped) -> Result<()>) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        self.bytes = 0;
        if batch.is_empty() {
            return Ok(());
        }
        let reads = batch.iter().flat_map(|one| [Op::Get(one.key.clone()), Op::Get(self.keys.moved(&one.key))]);
        // A key and its marker are read at one revision.
        let got = read_in_groups(self.context.kv, &reads.collect::<Vec<_>>(), 2)?;
        for (at, Expected { node, key, value, expires }) in batch.into_iter().enumerate() {
            let one = |at: usize| got.get(at).and_then(Got::one);
            let (pair, marker) = (one(2 * at), one(2 * at + 1));
            let state = state_of(&self.own, pair, marker);
            let what = match (state.is_moved(), state.seen, pair) {
                (true, ..) => {
                    self.found.moved += 1;
                    continue;
                }
                (_, Seen::Own(_), Some(pair)) if pair.value == value && (pair.lease != 0) == expires => {
                    self.found.equal += 1;
                    each(Mapped { v2: (node.path, node.modified), v3: (key, pair.modified) })?;
                    continue;
                }
                (_, Seen::Absent, _) => Difference::Missing,
                (_, Seen::Own(_), _) => Difference::Different,
                (_, Seen::Foreign, _) => Difference::Foreign,
            };
            let differing = Differing {
                what,
                key: shown(&node.path).into_owned(),
                v3_key: shown(&key).into_owned(),
                v2_index: Some(node.modified.0),
                v3_revision: pair.map(|pair| pair.modified),
            };
            self.differing.insert((key, node.path), differing);
        }
        Ok(())
    }

    /// Finds keys of the job that v2 has not.
    fn others(&mut self) -> Result<()> {
        let Look { context, keys, own, only, seen, differing, .. } = self;
        scan(context.kv, Scan::prefix(b""), |pairs| {
            context.interrupt.ask()?;
            let wanted = |pair: &&Pair| {
                !keys.is_own_name(&pair.key)
                    && own.as_of(pair.modified).is_some()
                    && !seen.contains(&pair.key)
                    && only.as_ref().is_none_or(|only| only.contains_key(&pair.key))
            };
            for pair in pairs.iter().filter(wanted) {
                let key = shown(&pair.key).into_owned();
                let v3_revision = Some(pair.modified);
                let differing_now =
                    Differing { what: Difference::Extra, v3_key: key.clone(), key, v2_index: None, v3_revision };
                differing.insert((pair.key.clone(), Vec::new()), differing_now);
            }
            Ok(())
        })?;
        let marked: Vec<Vec<u8>> = differing
            .iter()
            .filter(|(_, one)| one.what == Difference::Extra)
            .map(|((key, _), _)| key.clone())
            .collect();
        // The marker of an extra key says that v3 leads it.
        for chunk in marked.chunks(READ) {
            let reads: Vec<Op> = chunk.iter().map(|key| Op::Look(keys.moved(key))).collect();
            let got = read_in_groups(context.kv, &reads, 1)?;
            let moved = chunk.iter().zip(&got).filter(|(_, got)| got.one().is_some());
            moved.for_each(|(key, _)| drop(differing.remove(&(key.clone(), Vec::new()))));
        }
        Ok(())
    }
}
