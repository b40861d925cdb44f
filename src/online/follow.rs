//! Carries the changes of v2 in their order, batch by batch, with the progress in the same transaction.
//!
//! A batch has each key once. A directory that went without the names of its keys takes its whole subtree in v3 with it. Must not know
//! the source.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::count::counted;
use crate::error::{Error, Reason, Result};
use crate::ids::V2Index;
use crate::interrupt::Interrupt;
use crate::online::carry::{Carrier, Item};
use crate::online::names::{Name, Names};
use crate::online::owners::{Owners, Released};
use crate::online::reading::Message;
use crate::online::reconcile::{item_of, taken};
use crate::online::session::State;
use crate::online::state::{Conflict, Phase, Progress, Why, now, put_json};
use crate::online::v2::{Change, Effect, Head};
use crate::online::v3::{Op, Scan, Txn, scan_readable};

/// How long the progress waits at most while there are no changes of keys that are copied.
const IDLE: Duration = Duration::from_millis(500);

/// How old the progress becomes while nothing happens: `status` counts a lag from its time.
const RENEW: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });

/// Seconds by which a clock may be fast without a word.
const FAST: u64 = 5;

/// How long `--once` waits for the commit index without a word.
const UNCOMMITTED: Duration = Duration::from_secs(5);

/// Why following ended.
#[derive(Debug)]
pub enum End {
    /// Everything is carried, and `--once` asked for no more.
    CaughtUp(Head),
    /// Changes are lost, and the state follows.
    Lost(String),
}

/// A job that follows.
pub struct Follower<'f, 's, 'k> {
    /// Carries items.
    pub carrier: &'f Carrier<'s, 'k>,
    /// The names of keys.
    pub names: &'f mut Names,
    /// Which key has a name, if two can have one.
    pub owners: &'f mut Option<Owners>,
    /// Ends as soon as everything is carried.
    pub once: bool,
    /// Gets lines for the operator.
    pub tell: &'f (dyn Fn(&str) + Sync),
    /// Where the source is.
    pub head: Head,
    /// The progress in v3: its index, and when it was written.
    pub written: (V2Index, Instant),
    /// Whether it was said that the clock is fast.
    pub told_of_clock: bool,
}

/// Changes that are carried together.
#[derive(Default)]
struct Batch {
    items: Vec<Item>,
    places: HashMap<Vec<u8>, usize>,
    bytes: usize,
    /// The index of the last change, with those that are left out.
    last: V2Index,
}

/// What follows from a change.
#[derive(Default)]
struct Follows {
    /// Its item, if the key has its name.
    item: Option<Item>,
    /// The key that gets the name, and the record of that.
    next: Option<(Item, Op)>,
}

impl From<Item> for Follows {
    fn from(item: Item) -> Follows {
        Follows { item: Some(item), next: None }
    }
}

impl Follower<'_, '_, '_> {
    /// Follows until the end.
    ///
    /// # Errors
    /// [`Reason::LockLost`](crate::error::Reason::LockLost); those of the source and the store; an interruption, with the
    /// progress written.
    pub fn follow(&mut self, source: &Receiver<Message>, interrupt: Interrupt<'_>) -> Result<End> {
        self.progress(self.head, true)?;
        let mut waits: Option<Instant> = None;
        loop {
            if let Err(error) = interrupt.ask() {
                // All messages so far are carried, also those that wrote nothing.
                if self.head.index > self.written.0 {
                    self.progress(self.head, true)?;
                }
                return Err(error);
            }
            self.carrier.session.check()?;
            self.carrier.session.fold()?;
            self.carrier.session.forget(interrupt)?;
            let first = match source.recv_timeout(Duration::from_millis(100)) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return Err(Error::new(Reason::Internal, "the source ended")),
            };
            let mut batch = Batch::default();
            let mut next = Some(first);
            let mut quiet = false;
            while let Some(message) = next.take() {
                quiet = matches!(message, Message::Quiet(_));
                if let Some(end) = self.message(message, &mut batch)? {
                    return Ok(end);
                }
                if batch.items.len() < self.carrier.session.keys_at_once() {
                    next = source.try_recv().ok();
                }
            }
            self.flush(&mut batch)?;
            self.progress(self.head, false)?;
            if self.once && quiet && self.head.uncommitted > 0 {
                let since = *waits.get_or_insert_with(Instant::now);
                if since.elapsed() > UNCOMMITTED {
                    // Once is enough.
                    waits = Instant::now().checked_add(Duration::from_secs(3600));
                    (self.tell)(&format!(
                        "waiting: {} in the log of v2 not known to be committed; --v2-endpoints helps",
                        counted(self.head.uncommitted, "write is", "writes are")
                    ));
                }
            }
            if self.once && quiet && self.head.uncommitted == 0 && self.written.0 >= self.head.index {
                return Ok(End::CaughtUp(self.head));
            }
        }
    }

    fn tell_of_clock(&mut self, ahead: u64) {
        if ahead >= FAST && !std::mem::replace(&mut self.told_of_clock, true) {
            (self.tell)(&format!(
                "warning: the clock of this machine is {ahead} s ahead of the v2 cluster: keys with a TTL end so much earlier in v3, or are missing"
            ));
        }
    }

    /// Lists the changes that a job which did not run has missed, where v3 leads the key. Called after
    /// [`Session::look_before_deletions`](crate::online::session::Session::look_before_deletions), so that no client moves a key later by what it read before one of these changes.
    ///
    /// # Errors
    /// As [`Follower::follow`].
    pub fn missed(&mut self, source: &Receiver<Message>, since: V2Index, interrupt: Interrupt<'_>) -> Result<()> {
        loop {
            interrupt.ask()?;
            match source.recv_timeout(Duration::from_millis(100)) {
                Ok(Message::Missed(changes)) => {
                    for change in changes {
                        self.missed_one(change)?;
                    }
                }
                Ok(Message::MissedAll(true)) => return Ok(()),
                Ok(Message::MissedAll(false)) => return self.unknown(since),
                Ok(Message::Failed(error)) => return Err(error),
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    /// Lists a missed change where v3 leads the key, or a key below it. The copy of the state has done the rest.
    fn missed_one(&mut self, change: Change) -> Result<()> {
        let carrier = self.carrier;
        if let Effect::GoneDir(path) = change.effect {
            let gone = Item::gone(path, (change.index, change.action));
            return match self.names.below(&gone.path) {
                Some(prefix) => subtree(carrier, self.names, &gone, &prefix, |items| list(carrier, items)),
                None if self.is_any_moved()? => carrier.refuse(&[gone], Why::UnknownKeys, None),
                None => Ok(()),
            };
        }
        match self.item(change)? {
            Some(item) => list(carrier, &[item]),
            None => Ok(()),
        }
    }

    /// Returns whether v3 leads any key.
    fn is_any_moved(&self) -> Result<bool> {
        let session = self.carrier.session;
        let first = Op::Scan(Scan { limit: 1, ..Scan::prefix(&session.keys.named("moved/")) });
        // Clients that use v3 alone write no markers.
        Ok(session.switch().on || session.kv.txn(&Txn::read(vec![first]))?.at(0).one().is_some())
    }

    /// Lists that deletions of moved keys can be unknown.
    fn unknown(&mut self, since: V2Index) -> Result<()> {
        let session = self.carrier.session;
        if since == V2Index(0) || !self.is_any_moved()? {
            return Ok(());
        }
        let conflict = Conflict {
            why: Why::Unknown,
            index: self.head.index.0,
            action: format!("after {since}"),
            key: String::new(),
            v3_key: String::new(),
            v3_revision: None,
            time: now(),
        };
        self.carrier.counters.conflicts.fetch_add(1, Ordering::Relaxed);
        session.put(vec![put_json(session.keys.conflict(self.head.index, b""), &conflict)?])
    }

    fn message(&mut self, message: Message, batch: &mut Batch) -> Result<Option<End>> {
        match message {
            Message::Changes(changes, head) => {
                let mut changes = changes.into_iter().peekable();
                while let Some(change) = changes.next() {
                    let index = change.index;
                    // Changes of one index are passed together: of keys that go with their directory.
                    let is_last = changes.peek().is_none_or(|next| next.index > index);
                    self.change(change, batch)?;
                    batch.last = if is_last { index } else { V2Index(index.0.saturating_sub(1)) };
                }
                self.head = head;
                self.tell_of_clock(head.clock_ahead);
                self.carrier.counters.head.store(head.index.0, Ordering::Relaxed);
            }
            Message::Quiet(head) => {
                self.head = head;
                self.tell_of_clock(head.clock_ahead);
            }
            Message::Lost(why) => return Ok(Some(End::Lost(why))),
            Message::Failed(error) => return Err(error),
            _ => {}
        }
        Ok(None)
    }

    fn change(&mut self, change: Change, batch: &mut Batch) -> Result<()> {
        if let Effect::GoneDir(path) = change.effect {
            // What is above or below it in the batch comes before it.
            self.flush(batch)?;
            return self.directory(path, (change.index, change.action));
        }
        let Some(item) = self.item(change)? else { return Ok(()) };
        let Follows { item, next } = self.owned(item)?;
        item.map_or(Ok(()), |item| self.add(item, batch))?;
        if let Some((next, record)) = next {
            // A job that starts again between the three finds a key that v3 does not have, and writes it.
            self.flush(batch)?;
            self.carrier.session.put(vec![record])?;
            self.add(next, batch)?;
        }
        Ok(())
    }

    fn add(&mut self, item: Item, batch: &mut Batch) -> Result<()> {
        let size = self.size(&item);
        if self.must_flush(batch, &item, size) {
            self.flush(batch)?;
        }
        batch.add(item, size);
        Ok(())
    }

    /// Returns the item of a change; `None` if it is left out.
    fn item(&mut self, change: Change) -> Result<Option<Item>> {
        let counters = self.carrier.counters;
        counters.seen.fetch_add(1, Ordering::Relaxed);
        let at = (change.index, change.action);
        match change.effect {
            Effect::Set(mut node) => {
                node.modified = change.index;
                let path = node.path.clone();
                let item = item_of(self.carrier, self.names, node, change.action, true)?;
                // An expired value, or one that a policy leaves out, replaces what was there.
                Ok(item.or_else(|| self.gone(path, at)))
            }
            Effect::Gone(path) | Effect::GoneDir(path) => {
                let item = self.gone(path, at);
                counters.left_out.fetch_add(u64::from(item.is_none()), Ordering::Relaxed);
                Ok(item)
            }
        }
    }

    fn gone(&mut self, path: Vec<u8>, at: (V2Index, &'static str)) -> Option<Item> {
        let Name::Key(key) = self.names.name(&path) else { return None };
        Some(Item { key, ..Item::gone(path, at) })
    }

    /// Returns what follows from an item for the owners of names.
    fn owned(&mut self, item: Item) -> Result<Follows> {
        let session = self.carrier.session;
        let Some(owners) = self.owners.as_mut().filter(|_| !session.switch().on) else { return Ok(item.into()) };
        if item.value.is_some() {
            if owners.claim(&item) {
                return Ok(item.into());
            }
            taken(self.carrier, self.owners, item)?;
            return Ok(Follows::default());
        }
        Ok(match owners.release(&item) {
            Released::Nothing => Follows::default(),
            Released::Name(None) => item.into(),
            Released::Name(Some(next)) => {
                let record = owners.record(&session.keys, &item.key);
                // It was listed when it got its value.
                let next = Item { at: item.at, change: false, ..*next };
                Follows { item: Some(item), next: Some((next, record)) }
            }
        })
    }

    fn size(&self, item: &Item) -> usize {
        self.carrier.session.size_of(&item.key, item.value.as_ref().map_or(0, |value| value.bytes.len()))
    }

    fn must_flush(&self, batch: &Batch, item: &Item, size: usize) -> bool {
        let session = self.carrier.session;
        match batch.places.get(&item.key).and_then(|place| batch.items.get(*place)) {
            Some(before) => before.path != item.path,
            None => batch.items.len() >= session.keys_at_once() || batch.bytes + size > session.limits.bytes,
        }
    }

    fn flush(&mut self, batch: &mut Batch) -> Result<()> {
        let Batch { items, last, .. } = std::mem::take(batch);
        let last = last.max(self.written.0);
        if items.is_empty() {
            return Ok(());
        }
        let states = self.carrier.look(&items)?;
        let head = Head { index: last, raft: self.head.raft, ..Head::default() };
        let progress = self.progress_of(head)?;
        self.carrier.carry(&items, states, last, Some(&progress))?;
        self.written(last);
        Ok(())
    }

    /// Removes what v3 has below a directory that went.
    fn directory(&mut self, path: Vec<u8>, at: (V2Index, &'static str)) -> Result<()> {
        let carrier = self.carrier;
        let Some(prefix) = self.names.below(&path) else {
            return Err(Error::new(Reason::Internal, "the source does not name the keys of a directory"));
        };
        let gone = Item::gone(path, at);
        // Keys that v3 does not have can go too.
        carrier.session.look_before_deletions(&[])?;
        let carry = |items: &[Item]| carrier.carry(items, carrier.look(items)?, at.0, None);
        subtree(carrier, self.names, &gone, &prefix, carry)?;
        self.progress(Head { index: at.0, raft: self.head.raft, ..Head::default() }, true)
    }

    /// Writes the progress if it has changed, or if the source waits for any write of its own cluster.
    fn progress(&mut self, head: Head, at_once: bool) -> Result<()> {
        let (index, at) = self.written;
        let due = at_once || at.elapsed() >= IDLE;
        let is_old = at.elapsed() >= RENEW;
        if due && (at_once || is_old || head.index > index || head.uncommitted > 0) {
            self.carrier.session.put(vec![self.progress_of(head)?])?;
            self.written(head.index.max(index));
        } else if self.once && head.index > index {
            self.carrier.session.put(vec![self.progress_of(head)?])?;
            self.written(head.index);
        }
        Ok(())
    }

    fn progress_of(&self, head: Head) -> Result<Op> {
        let index = head.index.max(self.written.0);
        put_json(self.carrier.session.keys.named("progress"), &Progress::now(Phase::Following, index, head.raft))
    }

    fn written(&mut self, index: V2Index) {
        self.written = (index, Instant::now());
        self.carrier.counters.index.store(index.0, Ordering::Relaxed);
    }
}

/// Lists items that v3 leads; all of them after the switch.
fn list(carrier: &Carrier<'_, '_>, items: &[Item]) -> Result<()> {
    let keys: Vec<&[u8]> = items.iter().map(|item| &*item.key).collect();
    let states = carrier.session.look(&keys)?;
    let on = carrier.session.switch().on;
    let listed = items.iter().cloned().zip(states).filter(|(_, state)| on || state.is_moved());
    let (items, states): (Vec<Item>, Vec<State>) = listed.unzip();
    carrier.carry(&items, states, V2Index(0), None)
}

/// Calls `each` with the keys that v3 has below a directory that went, as many at a time as one transaction can have.
fn subtree(
    carrier: &Carrier<'_, '_>,
    names: &mut Names,
    gone: &Item,
    prefix: &[u8],
    mut each: impl FnMut(&[Item]) -> Result<()>,
) -> Result<()> {
    let session = carrier.session;
    let path = gone.path.strip_suffix(b"/").unwrap_or(&gone.path);
    scan_readable(session.kv, Scan::prefix(prefix), |pairs| {
        let items = pairs.iter().filter(|pair| !session.keys.is_own_name(&pair.key)).map(|pair| {
            let rest = pair.key.get(prefix.len()..).unwrap_or_default();
            Item { path: [path, b"/", rest].concat(), key: pair.key.clone(), ..gone.clone() }
        });
        // Keys that rules leave out are not the job's.
        let items: Vec<Item> = items.filter(|item| names.name(&item.path) == Name::Key(item.key.clone())).collect();
        items.chunks(session.keys_at_once()).try_for_each(&mut each)
    })
}

impl Batch {
    fn add(&mut self, mut item: Item, size: usize) {
        self.bytes += size;
        match self.places.get(&item.key).and_then(|place| self.items.get_mut(*place)) {
            Some(before) => {
                item.earlier = std::mem::take(&mut before.earlier);
                item.earlier.push(before.at);
                *before = item;
            }
            None => {
                self.places.insert(item.key.clone(), self.items.len());
                self.items.push(item);
            }
        }
    }
}
