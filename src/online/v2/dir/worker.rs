//! The thread that reads a directory: opens it, answers, and opens it again when memory or the log require that.
//!
//! Must not know how a log is decoded or applied.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::thread;
use std::time::{Duration, Instant};

use super::super::{Head, Next, Node};
use super::arena::Arena;
use super::ask::{Ask, Missed, Part};
use super::changes::{self, KEYS};
use super::follow::{Follower, HOLD, Step};
use super::past::Past;
use crate::error::{Error, Reason, Result};
use crate::ids::{ClusterId, RaftIndex, V2Index};
use crate::interrupt::Interrupt;
use crate::source::growing::{GrowingLog, LogPlace};
use crate::source::live_copy;
use crate::source::open::{Found, OpenOptions, Opened, open};
use crate::v2store::dialect::Rules;
use crate::v2store::recover::recover;
use crate::v2store::replay::{ReplayOptions, read_table_watched};

/// Bytes of requests that the tree may refer to. Then the directory is opened again, which frees what the tree no longer needs.
const MAX_HELD: usize = 64 << 20;
/// How often the log is looked at while nothing happens.
const LOOK: Duration = Duration::from_millis(25);
/// Attempts to open a directory whose segments are purged meanwhile.
const ATTEMPTS: u32 = 5;
/// Nodes sent at once, and the bytes of their paths and values.
const NODES: usize = 256;
const NODE_BYTES: usize = 1 << 20;

struct Worker<'a> {
    place: LogPlace,
    asks: &'a Receiver<Ask>,
    interrupt: Interrupt<'static>,
    cluster: Option<ClusterId>,
    /// The rules with which the state was replayed.
    rules: Option<Rules>,
    /// The last entry whose changes were delivered; `None` before the state was read, and after changes were lost.
    delivered: Option<RaftIndex>,
    /// The last entry and the index of the state that was sent last.
    state: Option<(RaftIndex, V2Index)>,
    /// Why changes were lost.
    lost: Option<String>,
    /// The question that the next session answers.
    pending: Option<Ask>,
}

/// Answers until nobody can ask any more.
pub(super) fn run(place: LogPlace, asks: &Receiver<Ask>, interrupt: Interrupt<'static>) {
    let (cluster, rules, delivered, state, lost, pending) = (None, None, None, None, None, None);
    let mut worker = Worker { place, asks, interrupt, cluster, rules, delivered, state, lost, pending };
    while let Some(ask) = worker.pending.take().or_else(|| asks.recv().ok()) {
        match ask {
            Ask::Cluster(reply) => {
                let _ = reply.send(worker.cluster().map(|id| id.to_string()));
            }
            Ask::State(reply) => {
                (worker.delivered, worker.lost) = (None, None);
                if let Err(e) = worker.session(None, Ask::State(reply.clone())) {
                    let _ = reply.send(Err(e));
                }
            }
            Ask::Head(reply) => {
                (worker.delivered, worker.lost) = (None, None);
                if let Err(e) = worker.session(None, Ask::Head(reply.clone())) {
                    let _ = reply.send(Err(e));
                }
            }
            Ask::Since(index, reply) => worker.missed(index, &reply, &mut || {}),
            Ask::Next(wait, reply) => {
                let Some(delivered) = worker.delivered else {
                    let why = "the state was not read";
                    let _ = reply.send(Ok(Next::Lost(worker.lost.clone().unwrap_or_else(|| why.to_string()))));
                    continue;
                };
                match worker.session(Some(delivered), Ask::Next(wait, reply.clone())) {
                    Err(e) if is_lost(&e) => worker.lose(e.to_string(), &reply),
                    Err(e) => drop(reply.send(Err(e))),
                    Ok(()) => {}
                }
            }
        }
    }
}

/// Returns whether an error means that the files begin after the entry, or do not lead to it.
fn is_lost(e: &Error) -> bool {
    matches!(
        e.reason(),
        Reason::IndexNotReached | Reason::Gap | Reason::NotReached | Reason::CommitBeyondLog | Reason::TwoHistories
    )
}

impl Worker<'_> {
    fn lose(&mut self, why: String, reply: &SyncSender<Result<Next>>) {
        self.delivered = None;
        let _ = reply.send(Ok(Next::Lost(why.clone())));
        self.lost = Some(why);
    }

    /// Returns the cluster of the log.
    fn cluster(&mut self) -> Result<ClusterId> {
        if let Some(id) = self.cluster {
            return Ok(id);
        }
        let read = || {
            let mut log = GrowingLog::open(&self.place, RaftIndex(u64::MAX))?;
            if let Some(log) = &mut log {
                log.grow(self.interrupt)?;
            }
            Ok(log.and_then(|log| log.cluster()))
        };
        let found = live_copy::again(read, Option::is_some)?;
        let none = || {
            Error::new(Reason::WalMissing, "expected a write-ahead log with records, found none")
                .in_file(&self.place.dir)
        };
        let id = found.ok_or_else(none)?;
        self.cluster = Some(id);
        Ok(id)
    }

    /// Opens the directory, at the last entry or after this one, and answers from it.
    ///
    /// # Errors
    /// Before the first answer: the directory cannot be read, or does not lead to that entry.
    fn session(&mut self, after: Option<RaftIndex>, ask: Ask) -> Result<()> {
        let expected = self.cluster()?;
        for attempt in 1.. {
            let arena = Arena::default();
            let opened = open_at(&self.place, after, self.interrupt)?;
            let found = opened.wal().and_then(|wal| wal.metadata()).map(|metadata| metadata.cluster_id);
            if found != Some(expected) {
                let message = format!("expected the log of cluster {expected}, found another cluster's");
                return Err(Error::new(Reason::NotOneCluster, message).in_file(&self.place.dir));
            }
            let table = read_table_watched(&opened, self.interrupt)?;
            let options = ReplayOptions { up_to: after, interrupt: self.interrupt, ..ReplayOptions::default() };
            let recovered = recover(&opened, &table, None, &options).map_err(|e| e.in_file(opened.path()))?;
            let forms = opened.wal().map(|wal| wal.marks().forms()).unwrap_or_default();
            let rules = recovered.replay.rules;
            if after.is_some() && self.rules != Some(rules) {
                let message =
                    "expected the etcd version of the state that was read, found that the log proves another one";
                return Err(Error::new(Reason::TwoHistories, message).in_file(&self.place.dir));
            }
            self.rules = Some(rules);
            let Some(log) = GrowingLog::open(&self.place, recovered.replay.applied)? else {
                if attempt < ATTEMPTS {
                    continue;
                }
                let message = format!(
                    "expected raft entry {} in the log, found that it begins later",
                    recovered.replay.applied.0 + 1
                );
                return Err(Error::new(Reason::Gap, message).in_file(&self.place.dir));
            };
            let mut follower = Follower::new(recovered.replay, log, forms, arena.end(), self.interrupt);
            self.answer(&mut follower, &arena, ask);
            return Ok(());
        }
        Ok(())
    }

    /// Sends the changes after an index up to the state. Calls `hold` often.
    fn missed(&self, since: V2Index, reply: &SyncSender<Result<Missed>>, hold: &mut dyn FnMut()) {
        let mut held = Instant::now();
        let mut send = |part| {
            send_held(reply, part, &mut held, || {
                hold();
                Ok(())
            })
        };
        let all = match self.state.zip(self.rules) {
            None => Ok(false),
            Some(((applied, index), rules)) => {
                let past = Past { place: &self.place, rules, applied, index, interrupt: self.interrupt };
                let open = |to| open_at(&self.place, Some(to), self.interrupt);
                past.replay(since, &open, &mut |changes| {
                    let nobody = |_| Error::new(Reason::Internal, "nobody reads");
                    send(Missed::Changes(changes)).map_err(nobody)
                })
            }
        };
        match all {
            Err(e) if matches!(e.reason(), Reason::Interrupted(_)) => drop(reply.send(Err(e))),
            // Files that cannot be read any more do not have all.
            all => drop(send(Missed::All(all.unwrap_or(false)))),
        }
    }

    /// Answers questions until the directory must be opened again.
    fn answer(&mut self, follower: &mut Follower<'_>, arena: &Arena, first: Ask) {
        let opened_at = follower.replay.applied;
        let mut next = Some(first);
        // Whether the state is as it was opened, and no older than what was said before.
        let (mut is_first, mut is_fresh) = (true, true);
        loop {
            let ask = match next.take() {
                Some(ask) => ask,
                None => match self.asks.recv_timeout(HOLD) {
                    Ok(ask) => ask,
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        // The next question gets the error, if it is still one.
                        let _ = follower.log.hold();
                        continue;
                    }
                },
            };
            match ask {
                Ask::State(reply) if is_fresh && follower.replay.applied == opened_at => {
                    is_fresh = false;
                    match send_state(follower, &reply) {
                        Ok(index) => (self.delivered, self.state) = (Some(opened_at), Some((opened_at, index))),
                        Err(Unsent::NobodyReads) => {}
                        Err(Unsent::Failed(e)) => drop(reply.send(Err(e))),
                    }
                }
                Ask::Head(reply) => match head(follower, arena, is_first) {
                    Ok(Some(head)) => {
                        self.delivered = Some(follower.replay.applied);
                        let _ = reply.send(Ok(head));
                    }
                    Ok(None) => {
                        self.pending = Some(Ask::Head(reply));
                        return;
                    }
                    Err(e) => {
                        let _ = reply.send(Err(e));
                        return;
                    }
                },
                Ask::Since(index, reply) => self.missed(index, &reply, &mut || drop(follower.hold())),
                Ask::Next(..) if self.delivered.is_none() => {
                    self.pending = Some(ask);
                    return;
                }
                Ask::State(_) => {
                    self.pending = Some(ask);
                    return;
                }
                Ask::Cluster(reply) => drop(reply.send(self.cluster().map(|id| id.to_string()))),
                Ask::Next(wait, reply) => {
                    is_fresh = false;
                    let deadline = Instant::now() + wait;
                    match next_changes(follower, arena, deadline) {
                        Ok(Seen::Next(next)) => {
                            self.delivered = Some(follower.replay.applied);
                            let _ = reply.send(Ok(next));
                        }
                        Ok(Seen::Full) => return self.reopen(follower, deadline, reply),
                        Ok(Seen::Broken(why)) if follower.replay.applied == opened_at => {
                            self.lose(why, &reply);
                            return;
                        }
                        Ok(Seen::Broken(_)) => return self.reopen(follower, deadline, reply),
                        Err(e) if is_lost(&e) => {
                            self.lose(e.to_string(), &reply);
                            return;
                        }
                        Err(e) => {
                            let _ = reply.send(Err(e));
                            return;
                        }
                    }
                }
            }
            is_first = false;
        }
    }

    fn reopen(&mut self, follower: &Follower<'_>, deadline: Instant, reply: SyncSender<Result<Next>>) {
        self.delivered = Some(follower.replay.applied);
        self.pending = Some(Ask::Next(deadline.saturating_duration_since(Instant::now()), reply));
    }
}

/// What a follower found until its deadline.
enum Seen {
    Next(Next),
    /// The tree refers to too many bytes, or the rules must be selected again.
    Full,
    Broken(String),
}

fn next_changes(follower: &mut Follower<'_>, arena: &Arena, deadline: Instant) -> Result<Seen> {
    loop {
        if arena.len() > MAX_HELD {
            return Ok(Seen::Full);
        }
        match follower.step()? {
            Step::More(changes) if changes.is_empty() => {}
            Step::More(changes) => return Ok(Seen::Next(Next::Changes { changes, head: follower.head()? })),
            Step::Broken(why) => return Ok(Seen::Broken(why)),
            Step::Evidence => return Ok(Seen::Full),
            Step::End => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(Seen::Next(Next::Quiet(follower.head()?)));
                }
                thread::sleep(LOOK.min(left));
                if let Some(why) = follower.hold()? {
                    return Ok(Seen::Broken(why));
                }
            }
        }
    }
}

/// Goes to the end of the log. `None` if the directory must be opened again for that.
fn head(follower: &mut Follower<'_>, arena: &Arena, is_there: bool) -> Result<Option<Head>> {
    if is_there {
        return follower.head().map(Some);
    }
    loop {
        match next_changes(follower, arena, Instant::now())? {
            Seen::Next(Next::Changes { .. }) => {}
            Seen::Next(Next::Quiet(head)) => return Ok(Some(head)),
            Seen::Next(Next::Lost(_)) | Seen::Full | Seen::Broken(_) => return Ok(None),
        }
    }
}

/// Opens the directory, with a start at or below this entry.
fn open_at(place: &LogPlace, up_to: Option<RaftIndex>, interrupt: Interrupt<'_>) -> Result<Opened> {
    let options = OpenOptions { allow_live: true, no_backends: true, up_to, interrupt, ..OpenOptions::default() };
    match open(&place.dir, place.wal_dir.as_ref(), &options)? {
        Found::V2(opened) => Ok(*opened),
        Found::V3File(_) | Found::V3Only(_) => {
            let message = "expected the data directory of an etcd with v2 data, found v3 data only";
            Err(Error::new(Reason::UnsupportedFormat, message).in_file(&place.dir))
        }
    }
}

/// Why a part was not sent.
enum Unsent {
    NobodyReads,
    Failed(Error),
}

/// Sends the state, and returns its index.
fn send_state(follower: &mut Follower<'_>, reply: &SyncSender<Result<Part>>) -> Result<V2Index, Unsent> {
    let mut sender = Sender { reply, nodes: Vec::new(), bytes: 0, held: Instant::now() };
    if let Ok(root) = follower.replay.tree.lookup(KEYS) {
        let Follower { replay, log, .. } = follower;
        changes::walk(&replay.tree, root, |visit| match changes::node(&replay.tree, visit, None) {
            Some(node) => sender.add(node, log),
            None => Ok(()),
        })?;
        sender.flush(log)?;
    }
    let head: Head = follower.head().map_err(Unsent::Failed)?;
    sender.send(Part::End(head), &mut follower.log)?;
    Ok(head.index)
}

/// Sends a part as soon as the reader takes it. Meanwhile new segments are opened, so that a purge cannot take them.
fn send_held<T>(
    reply: &SyncSender<Result<T>>,
    part: T,
    held: &mut Instant,
    mut hold: impl FnMut() -> Result<()>,
) -> Result<(), Unsent> {
    let mut part = Ok(part);
    loop {
        if held.elapsed() > HOLD {
            *held = Instant::now();
            hold().map_err(Unsent::Failed)?;
        }
        match reply.try_send(part) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Disconnected(_)) => return Err(Unsent::NobodyReads),
            Err(TrySendError::Full(back)) => part = back,
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// The nodes that are not sent yet.
struct Sender<'r> {
    reply: &'r SyncSender<Result<Part>>,
    nodes: Vec<Node>,
    bytes: usize,
    held: Instant,
}

impl Sender<'_> {
    fn add(&mut self, node: Node, log: &mut GrowingLog) -> Result<(), Unsent> {
        self.bytes += node.path.len() + node.value.len();
        self.nodes.push(node);
        if self.nodes.len() >= NODES || self.bytes >= NODE_BYTES { self.flush(log) } else { Ok(()) }
    }

    fn flush(&mut self, log: &mut GrowingLog) -> Result<(), Unsent> {
        self.bytes = 0;
        let nodes = std::mem::take(&mut self.nodes);
        self.send(Part::Nodes(nodes), log)
    }

    fn send(&mut self, part: Part, log: &mut GrowingLog) -> Result<(), Unsent> {
        send_held(self.reply, part, &mut self.held, || log.hold().map(drop))
    }
}
