//! Carries the changes of v2 in their order, batch by batch, with the progress in the same transaction.
//!
//! A batch has each key once. A directory that went takes its whole subtree in v3 with it. Must not know the source.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::count::counted;
use crate::error::{Error, Reason, Result};
use crate::ids::V2Index;
use crate::interrupt::Interrupt;
use crate::online::carry::{Carrier, Item};
use crate::online::decide::Seen;
use crate::online::names::{Name, Names};
use crate::online::reading::Message;
use crate::online::reconcile::item_of;
use crate::online::session::State;
use crate::online::state::{Conflict, Phase, Progress, Why, count, now, put_json};
use crate::online::v2::{Change, Effect, Head};
use crate::online::v3::{Op, Scan, Txn, scan_readable};
use crate::transform::rules::is_below;

/// How long the progress waits at most while there are no changes of keys that are copied.
const IDLE: Duration = Duration::from_millis(500);

/// How long `--once` waits for the commit index without a word.
const UNCOMMITTED: Duration = Duration::from_secs(5);

/// Why following ended.
#[derive(Debug)]
pub enum End {
    /// Everything is carried, and `--once` asked for no more.
    CaughtUp(Head),
    /// Changes are lost, and the state follows.
    Lost(String),
    /// A directory went, and its names in v3 are unknown: the state must be read again.
    Unclear,
}

/// A job that follows.
pub struct Follower<'f, 's, 'k> {
    /// Carries items.
    pub carrier: &'f Carrier<'s, 'k>,
    /// The names of keys.
    pub names: &'f mut Names,
    /// Ends as soon as everything is carried.
    pub once: bool,
    /// Gets lines for the operator.
    pub tell: &'f (dyn Fn(&str) + Sync),
    /// Where the source is.
    pub head: Head,
    /// The progress in v3: its index, and when it was written.
    pub written: (V2Index, Instant),
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
            interrupt.ask()?;
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
            if !self.flush(&mut batch)? {
                return Ok(End::Unclear);
            }
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

    /// Lists the changes that a job which did not run has missed, where v3 leads the key.
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
        let Some(item) = self.item(change)? else { return Ok(()) };
        list(carrier, std::slice::from_ref(&item))?;
        match self.names.below(&item.path).filter(|_| item.value.is_none()) {
            Some(prefix) => subtree(carrier, self.names, &item, &prefix, |items| list(carrier, items)),
            None => Ok(()),
        }
    }

    /// Lists that deletions of moved keys can be unknown.
    fn unknown(&mut self, since: V2Index) -> Result<()> {
        let session = self.carrier.session;
        // Clients that use v3 alone write no markers.
        if since == V2Index(0) || !session.switch().on && count(session.kv, &session.keys, "moved/")? == 0 {
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
                for change in changes {
                    let (index, path) = (change.index, change.effect.path().to_vec());
                    if let Some(item) = self.item(change)? {
                        let size = self.size(&item);
                        if self.must_flush(batch, &item, &path, size) && !self.flush(batch)? {
                            return Ok(Some(End::Unclear));
                        }
                        batch.add(item, size);
                    }
                    batch.last = index;
                }
                self.head = head;
                self.carrier.counters.head.store(head.index.0, Ordering::Relaxed);
            }
            Message::Quiet(head) => self.head = head,
            Message::Lost(why) => return Ok(Some(End::Lost(why))),
            Message::Failed(error) => return Err(error),
            _ => {}
        }
        Ok(None)
    }

    /// Returns the item of a change; `None` if it is left out.
    fn item(&mut self, change: Change) -> Result<Option<Item>> {
        let counters = self.carrier.counters;
        counters.seen.fetch_add(1, Ordering::Relaxed);
        match change.effect {
            Effect::Set(mut node) => {
                node.modified = change.index;
                let path = node.path.clone();
                let named = matches!(self.names.name(&path), Name::Key(_));
                let item = item_of(self.carrier, self.names, node, change.action, true)?;
                // An expired value, or one that a policy leaves out, replaces what was there.
                Ok(item.or_else(|| named.then(|| self.gone(path, change.index, change.action))))
            }
            Effect::Gone(path) => Ok(Some(self.gone(path, change.index, change.action))),
        }
    }

    fn gone(&mut self, path: Vec<u8>, index: V2Index, action: &'static str) -> Item {
        let key = match self.names.name(&path) {
            Name::Key(key) => key,
            // Below it can be keys that are not left out.
            Name::LeftOut | Name::Unusable(_) => self.carrier.session.keys.nothing(&path),
        };
        Item { path, key, value: None, at: (index, action), earlier: Vec::new(), change: true }
    }

    fn size(&self, item: &Item) -> usize {
        self.carrier.session.size_of(&item.key, item.value.as_ref().map_or(0, |value| value.bytes.len()))
    }

    fn must_flush(&self, batch: &Batch, item: &Item, path: &[u8], size: usize) -> bool {
        let session = self.carrier.session;
        let full = batch.items.len() >= session.keys_at_once() || batch.bytes + size > session.limits.bytes;
        full && !batch.places.contains_key(&item.key) || !batch.items.is_empty() && batch.is_related(path, item)
    }

    /// Carries a batch. Returns whether that was possible.
    fn flush(&mut self, batch: &mut Batch) -> Result<bool> {
        let Batch { items, last, .. } = std::mem::take(batch);
        if items.is_empty() {
            return Ok(true);
        }
        let states = self.carrier.look(&items)?;
        // An own key was no directory. What a v3 client wrote there says nothing about v2.
        let unclear = |(item, state): (&Item, _)| item.value.is_none() && !matches!(state, Seen::Own(_));
        let trees: Vec<Item> = items
            .iter()
            .zip(states.iter().map(|state| state.seen))
            .filter(|pair| unclear(*pair))
            .map(|(item, _)| item.clone())
            .collect();
        if !self.trees(&trees, last)? {
            return Ok(false);
        }
        let head = Head { index: last, raft: self.head.raft, ..Head::default() };
        let progress = self.progress_of(head)?;
        self.carrier.carry(&items, states, last, Some(&progress))?;
        self.written(last);
        Ok(true)
    }

    /// Removes the subtrees of directories that went. Returns whether their names are known.
    fn trees(&mut self, items: &[Item], as_of: V2Index) -> Result<bool> {
        let session = self.carrier.session;
        let mut prefixes = Vec::new();
        for item in items {
            match self.names.below(&item.path) {
                None => return Ok(false),
                Some(prefix) => prefixes.push((item, prefix)),
            }
        }
        for chunk in prefixes.chunks(session.limits.operations) {
            let scans = chunk.iter().map(|(_, prefix)| Op::Scan(Scan { limit: 1, ..Scan::prefix(prefix) }));
            let reply = match session.kv.txn(&Txn::read(scans.collect())) {
                // Rules can leave out what the user may not read.
                Err(denied) if denied.reason() == Reason::V3Denied => None,
                other => Some(other?),
            };
            for (at, (item, prefix)) in chunk.iter().enumerate() {
                if reply.as_ref().is_none_or(|reply| reply.at(at).one().is_some()) {
                    let carrier = self.carrier;
                    let carry = |items: &[Item]| carrier.carry(items, carrier.look(items)?, as_of, None);
                    subtree(carrier, self.names, item, prefix, carry)?;
                }
            }
        }
        Ok(true)
    }

    /// Writes the progress if it has changed, or if the source waits for any write of its own cluster.
    fn progress(&mut self, head: Head, at_once: bool) -> Result<()> {
        let (index, at) = self.written;
        let due = at_once || at.elapsed() >= IDLE;
        if due && (at_once || head.index > index || head.uncommitted > 0) {
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
    let states = carrier.look(items)?;
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

    /// Returns whether a path that goes is above or below one of the batch, so that their order counts.
    fn is_related(&self, path: &[u8], item: &Item) -> bool {
        let below = |above: &[u8], path: &[u8]| above != path && is_below(above, path);
        self.items.iter().any(|other| {
            item.value.is_none() && below(path, &other.path) || other.value.is_none() && below(&other.path, path)
        })
    }
}
