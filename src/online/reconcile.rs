//! The copy of the whole state: a first copy, and what a job does that starts again or has lost changes.
//!
//! Batches of keys go to several threads. A first copy expects that v3 has nothing, and asks only where that is wrong. Must
//! not know the source.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::error::{Error, Reason, Result};
use crate::ids::V2Index;
use crate::interrupt::Interrupt;
use crate::online::carry::{Carrier, Item, Value};
use crate::online::names::{Content, Name, Names, shown};
use crate::online::owners::{Owners, Place, hash};
use crate::online::reading::Message;
use crate::online::session::State;
use crate::online::state::Why;
use crate::online::v2::{Head, Node};
use crate::online::v3::{Op, Pair, Scan, scan};

/// How to copy.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Batches that are written at the same time.
    pub in_flight: usize,
    /// Keys per second at most.
    pub rate_limit: Option<u64>,
}

/// The changes that a copy of the state takes part in.
#[derive(Debug, Clone, Copy)]
pub struct Before {
    /// Later changes were made while the migration ran.
    pub since: V2Index,
    /// Whether everything was carried once. Before, two v2 keys with one name end the job, as they end a conversion.
    pub followed: bool,
}

/// Copies the state that the source sends. `owners` is there if two v2 keys can have one name.
///
/// # Errors
/// [`Reason::RulesFailed`] if two v2 keys get one name in a first copy; those of the source and the store; an interruption.
pub fn reconcile(
    carrier: &Carrier<'_, '_>,
    (names, owners): (&mut Names, &mut Option<Owners>),
    source: &Receiver<Message>,
    before: Before,
    pace: Pace,
    interrupt: Interrupt<'_>,
) -> Result<Head> {
    let again = !carrier.session.own().is_empty();
    // A name that changes its owner is not equal by its index.
    let until = if owners.is_some() { before.since } else { V2Index(u64::MAX) };
    let known =
        Known { wanted: again, hashes: HashSet::new(), owners, later: Vec::new(), next: Vec::new(), taken: Vec::new() };
    let pool = Pool { failed: Mutex::new(None), stop: AtomicBool::new(false) };
    let (send, receive) = sync_channel::<Vec<Item>>(pace.in_flight);
    let receive = Mutex::new(receive);
    let (head, mut known) = thread::scope(|scope| {
        for _ in 0..pace.in_flight.max(1) {
            scope.spawn(|| pool.work(carrier, &receive, again, until));
        }
        let mut feeder = Feeder { carrier, names, known, before, pace, send, batch: Vec::new(), bytes: 0, sent: 0 };
        let head = feeder.feed(source, &pool, interrupt);
        if head.is_err() {
            pool.stop.store(true, Ordering::Relaxed);
        }
        Ok::<_, Error>((head, feeder.known))
    })?;
    if let Some(error) = pool.failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let head = head?;
    // After the values: a job that starts again before writes them again.
    std::mem::take(&mut known.next).into_iter().try_for_each(|record| carrier.session.put(vec![record]))?;
    std::mem::take(&mut known.taken).into_iter().try_for_each(|item| taken(carrier, known.owners, item))?;
    if again && !carrier.session.switch().on {
        delete_others(carrier, &known, head.index, interrupt)?;
    }
    Ok(head)
}

/// The threads that write.
struct Pool {
    failed: Mutex<Option<Error>>,
    stop: AtomicBool,
}

impl Pool {
    fn work(&self, carrier: &Carrier<'_, '_>, batches: &Mutex<Receiver<Vec<Item>>>, again: bool, until: V2Index) {
        loop {
            let batch = batches.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(batch) = batch else { return };
            // The sender must not wait for ever, so batches are taken after a failure too.
            if self.stop.load(Ordering::Relaxed) {
                continue;
            }
            let as_of = batch.iter().map(|item| item.at.0).max().unwrap_or_default().min(until);
            let states = if again { carrier.look(&batch) } else { not_there(carrier, &batch) };
            if let Err(error) = states.and_then(|states| carrier.carry(&batch, states, as_of, None)) {
                self.stop.store(true, Ordering::Relaxed);
                self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        }
    }

    fn check(&self) -> Result<()> {
        if !self.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        Err(failed.unwrap_or_else(|| Error::new(Reason::Internal, "a thread stopped without a reason")))
    }
}

/// Returns the states of keys that v3 does not have as far as the job knows: the transaction that puts them compares that.
fn not_there(carrier: &Carrier<'_, '_>, batch: &[Item]) -> Result<Vec<State>> {
    if batch.iter().any(Item::can_go) {
        carrier.session.look_before_deletions(&[])?;
    }
    Ok(vec![State::ABSENT; batch.len()])
}

/// The names in v2.
struct Known<'f> {
    wanted: bool,
    /// The names as hashes of 128 bits, if they have no owners.
    hashes: HashSet<u128>,
    owners: &'f mut Option<Owners>,
    /// Keys whose name another one had in an earlier run.
    later: Vec<Item>,
    /// The records of those that get it.
    next: Vec<Op>,
    /// Those that still wait.
    taken: Vec<Item>,
}

impl Known<'_> {
    fn add(&mut self, item: &Item) -> Place {
        if let Some(owners) = self.owners {
            return owners.place(item);
        }
        if self.wanted {
            self.hashes.insert(hash(&item.key));
        }
        Place::Own
    }

    fn has(&self, name: &[u8]) -> bool {
        self.owners.as_ref().map_or_else(|| self.hashes.contains(&hash(name)), |owners| owners.has(name))
    }
}

/// Makes batches of nodes.
struct Feeder<'f, 's, 'k> {
    carrier: &'f Carrier<'s, 'k>,
    names: &'f mut Names,
    known: Known<'f>,
    before: Before,
    pace: Pace,
    send: SyncSender<Vec<Item>>,
    batch: Vec<Item>,
    bytes: usize,
    sent: u64,
}

impl Feeder<'_, '_, '_> {
    fn feed(&mut self, source: &Receiver<Message>, pool: &Pool, interrupt: Interrupt<'_>) -> Result<Head> {
        let began = Instant::now();
        loop {
            interrupt.ask()?;
            pool.check()?;
            self.carrier.session.check()?;
            let Ok(message) = source.recv_timeout(Duration::from_millis(100)) else { continue };
            match message {
                Message::Nodes(nodes) => {
                    for node in nodes {
                        self.node(node, began, pool, interrupt)?;
                    }
                }
                Message::State(head) => {
                    self.later(began, pool, interrupt)?;
                    self.flush();
                    return Ok(head);
                }
                Message::Failed(error) => return Err(error),
                _ => {}
            }
        }
    }

    fn node(&mut self, node: Node, began: Instant, pool: &Pool, interrupt: Interrupt<'_>) -> Result<()> {
        let counters = self.carrier.counters;
        counters.seen.fetch_add(1, Ordering::Relaxed);
        let change = node.modified > self.before.since;
        let Some(item) = item_of(self.carrier, self.names, node, "set", change)? else { return Ok(()) };
        match self.known.add(&item) {
            Place::Own => self.add(item, began, pool, interrupt),
            _ if !self.before.followed => {
                let (path, key) = (shown(&item.path), shown(&item.key));
                let message = format!("{path}: another v2 key already has its v3 name {key}");
                Err(Error::new(Reason::RulesFailed, message).hint("change --map, or leave out one of them"))
            }
            Place::Later => {
                self.known.later.push(item);
                Ok(())
            }
            Place::Taken => taken(self.carrier, self.known.owners, item),
        }
    }

    /// Adds the keys that can have the name of another one, which has not come.
    fn later(&mut self, began: Instant, pool: &Pool, interrupt: Interrupt<'_>) -> Result<()> {
        if let Some(owners) = self.known.owners {
            owners.all_seen();
        }
        for item in std::mem::take(&mut self.known.later) {
            match self.known.add(&item) {
                Place::Own => {
                    let keys = &self.carrier.session.keys;
                    self.known.next.extend(self.known.owners.as_ref().map(|owners| owners.record(keys, &item.key)));
                    self.add(Item { anyway: true, ..item }, began, pool, interrupt)?;
                }
                _ => self.known.taken.push(item),
            }
        }
        Ok(())
    }

    fn add(&mut self, item: Item, began: Instant, pool: &Pool, interrupt: Interrupt<'_>) -> Result<()> {
        let session = self.carrier.session;
        let size = session.size_of(&item.key, item.value.as_ref().map_or(0, |value| value.bytes.len()));
        if self.batch.len() >= session.keys_at_once() || self.bytes + size > session.limits.bytes {
            self.flush();
            pool.check()?;
            interrupt.ask()?;
        }
        self.bytes += size;
        self.batch.push(item);
        self.wait(began, interrupt)
    }

    fn flush(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        self.bytes = 0;
        if !batch.is_empty() {
            // It fails only if all threads ended, and `Pool::check` says why.
            let _ = self.send.send(batch);
        }
    }

    /// Waits so that no more keys a second are sent than allowed.
    fn wait(&mut self, began: Instant, interrupt: Interrupt<'_>) -> Result<()> {
        self.sent += 1;
        let Some(rate) = self.pace.rate_limit else { return Ok(()) };
        let due = Duration::from_secs_f64(self.sent as f64 / rate.max(1) as f64);
        while let Some(left) = due.checked_sub(began.elapsed()).filter(|left| *left > Duration::from_millis(5)) {
            if left > Duration::from_millis(50) {
                self.flush();
            }
            interrupt.ask()?;
            thread::sleep(left.min(Duration::from_millis(100)));
        }
        Ok(())
    }
}

/// Lists a key whose name another one has, and lets it wait. After the switch, changes are listed as such.
///
/// # Errors
/// [`Reason::LockLost`]; those of the store.
pub fn taken(carrier: &Carrier<'_, '_>, owners: &mut Option<Owners>, item: Item) -> Result<()> {
    let session = carrier.session;
    let Some(owners) = owners else { return Ok(()) };
    let one = std::slice::from_ref(&item);
    match session.switch().on {
        true if item.change => carrier.refuse(one, Why::AfterSwitch, None)?,
        true => {}
        // With the owner, so that the next run knows who had the name first.
        false => carrier.refuse(one, Why::NameTaken, Some(&owners.record(&session.keys, &item.key)))?,
    }
    owners.wait(item);
    Ok(())
}

/// Returns the item of a node; `None` if it is left out. A node that cannot be written is listed as a conflict.
///
/// # Errors
/// [`Reason::TtlPresent`]; [`Reason::LockLost`]; those of the store.
pub fn item_of(
    carrier: &Carrier<'_, '_>,
    names: &mut Names,
    node: Node,
    action: &'static str,
    change: bool,
) -> Result<Option<Item>> {
    let now = Timestamp::now();
    let left_out = || {
        carrier.counters.left_out.fetch_add(1, Ordering::Relaxed);
    };
    let mut item = Item {
        path: Vec::new(),
        key: Vec::new(),
        value: None,
        at: (node.modified, action),
        earlier: Vec::new(),
        change,
        anyway: false,
    };
    let why = match names.name(&node.path) {
        Name::LeftOut => {
            left_out();
            return Ok(None);
        }
        Name::Unusable(key) => {
            item.key = key;
            Some(Why::UnusableName)
        }
        Name::Key(key) => {
            item.key = key;
            match names.content(&node, now)? {
                Content::Value { value, seconds } => {
                    let ends = seconds.map(|seconds| now.as_second().saturating_add(seconds));
                    item.value = Some(Value { bytes: value, ends });
                    None
                }
                Content::LeftOut => {
                    left_out();
                    return Ok(None);
                }
                Content::Unusable(why) => Some(why),
            }
        }
    };
    item.path = node.path;
    let Some(why) = why else { return Ok(Some(item)) };
    carrier.refuse(std::slice::from_ref(&item), why, None)?;
    Ok(None)
}

/// Deletes the job's own keys that v2 has not, and forgets revisions that no key has.
fn delete_others(carrier: &Carrier<'_, '_>, known: &Known<'_>, index: V2Index, interrupt: Interrupt<'_>) -> Result<()> {
    let session = carrier.session;
    let (mut live, mut until) = (HashSet::new(), i64::MAX);
    scan(session.kv, Scan::prefix(b""), |pairs| {
        interrupt.ask()?;
        until = until.min(session.own().latest());
        let mut gone = Vec::new();
        for pair in pairs.iter().filter(|pair| !session.keys.is_own_name(&pair.key)) {
            if session.own().as_of(pair.modified).is_none() {
                continue;
            }
            live.insert(pair.modified);
            if !known.has(&pair.key) {
                gone.push(absent(pair, index));
            }
        }
        for chunk in gone.chunks(session.keys_at_once()) {
            carrier.carry(chunk, carrier.look(chunk)?, index, None)?;
        }
        Ok(())
    })?;
    let groups = session.own().prune(&live, until, &session.keys);
    groups.into_iter().try_for_each(|operations| session.put(operations))
}

/// The item of a key that v2 has not as of this index.
fn absent(pair: &Pair, index: V2Index) -> Item {
    // Nothing of the job is right as of a later index, so the key goes in any case.
    let at = (V2Index(index.0.saturating_add(1)), "delete");
    Item { key: pair.key.clone(), change: false, ..Item::gone(pair.key.clone(), at) }
}
