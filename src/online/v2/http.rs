//! The v2 API of a running cluster as a source of v2 data.
//!
//! The API does not list hidden keys, and a watch of everything does not show them; a source that needs them is the data directory.
//! A listing is read to its end before its first node is used, so one whose connection ends is read again. JSON replaces bytes that are not
//! UTF-8. A watch does not show that a TTL was refreshed, so nodes with a TTL are read again. Must not know files.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::options::V2Options;
use super::{Change, Effect, Head, Next, Node, V2};
use crate::error::{Error, Reason, Result};
use crate::ids::V2Index;
use crate::interrupt::Interrupt;

mod client;
mod event;
mod listing;
#[cfg(test)]
mod scripted;
mod time;
mod timed;
mod watch;

use client::Client;
use event::Meaning;
use timed::Timed;
use watch::{Found, Watch};

/// A cluster with the v2 API. Has no hidden keys.
#[derive(Debug)]
pub struct Http {
    client: Client,
    watch: Option<Watch>,
    /// All changes up to this index were delivered, or are in the state.
    at: V2Index,
    /// The index of the state that was read last.
    state: V2Index,
    timed: Timed,
    /// The index of the cluster, and when it was read last.
    known: (V2Index, Option<Instant>),
    /// Where the watch was when the cluster was found to have more, and when that was.
    late: Option<(V2Index, Instant)>,
    lost: Option<String>,
    /// The keys of the state and the changes, if they are to be named when a directory goes.
    keys: Option<BTreeSet<Vec<u8>>>,
}

/// The code of the API for a path below a file.
const NOT_A_DIRECTORY: u64 = 104;
/// Events taken at once.
const EVENTS: usize = 1024;
/// Nodes with a TTL that are read again at once.
const REREAD: usize = 64;
/// How often the index of the cluster is read while nothing happens.
const ASK: Duration = Duration::from_secs(1);
/// How long a watch may stay at an index that the cluster has passed.
const LATE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 5 });
/// A change of an expiry that rounding to seconds explains.
const ROUNDING: jiff::SignedDuration = jiff::SignedDuration::from_millis(1500);

impl Http {
    /// Prepares the connection; nothing is sent yet.
    ///
    /// # Errors
    /// [`Reason::Usage`] or [`Reason::FileMissing`] for options that cannot be used.
    pub fn open(options: &V2Options, interrupt: Interrupt<'static>) -> Result<Http> {
        let client = Client::new(options, interrupt)?;
        Ok(Http::at(client, V2Index(0)))
    }

    fn at(client: Client, at: V2Index) -> Http {
        let (watch, timed, late, lost, keys) = (None, Timed::default(), None, None, None);
        Http { client, watch, at, state: at, timed, known: (at, None), late, lost, keys }
    }

    /// Reads through the log of the cluster, which commits every entry before the read. Returns the index of the store then.
    ///
    /// # Errors
    /// No endpoint answers; the login is refused.
    pub fn quorum_read(&mut self) -> Result<V2Index> {
        self.nowhere().map(|(index, _)| index)
    }

    /// Reads a key that need not exist. Returns the index of the store, and the cluster.
    fn nowhere(&mut self) -> Result<(V2Index, Option<String>)> {
        let mut answer = self.client.get("/v2/keys/_etcdlift?quorum=true", None)?;
        let found = (answer.index()?, answer.header("X-Etcd-Cluster-Id").map(str::to_string));
        // A read answer leaves its connection for the next request.
        answer.error();
        Ok(found)
    }

    /// Reads a node with everything below it.
    fn read(
        &mut self,
        path: &[u8],
        recursive: bool,
        each: &mut dyn FnMut(listing::Listed) -> Result<()>,
    ) -> Result<Option<V2Index>> {
        let target = if recursive { "?recursive=true&sorted=false&quorum=true" } else { "?quorum=true" };
        let client::Whole { mut answer, at, body } =
            self.client.get_whole(&format!("/v2/keys{}{target}", escaped(path)))?;
        match answer.response.status().as_u16() {
            200 => {}
            404 => return Ok(None),
            _ => {
                let error = answer.error();
                if error.error_code == NOT_A_DIRECTORY {
                    return Ok(None);
                }
                return Err(client::unreachable(&answer.url, &error.text()));
            }
        }
        let index = answer.index()?;
        listing::read(body, at, each).map_err(|e| e.in_file(Path::new(&answer.url)))?;
        Ok(Some(index))
    }

    /// Adds the changes that an event means.
    fn event(&mut self, event: event::Event, at: Timestamp, changes: &mut Vec<Change>) -> Result<()> {
        let index = event.index();
        if index <= self.at {
            return Ok(());
        }
        self.at = index;
        let unknown = || Error::new(Reason::UnsupportedFormat, format!("expected a known action at v2 index {index}"));
        let (action, meaning) = event.meaning(at).ok_or_else(unknown)?;
        let change = |effect| Change { index, action, effect };
        match meaning {
            Meaning::Gone { path, dir: false } => {
                self.timed.remove(&path);
                self.keys.as_mut().map(|keys| keys.remove(&path));
                changes.push(change(Effect::Gone(path)));
            }
            Meaning::Gone { path, dir: true } => {
                self.timed.remove(&path);
                match &mut self.keys {
                    None => changes.push(change(Effect::GoneDir(path))),
                    Some(keys) => changes.extend(take_below(keys, &path).map(|path| change(Effect::Gone(path)))),
                }
            }
            Meaning::Set(node) => {
                self.keys.as_mut().map(|keys| keys.insert(node.path.clone()));
                self.timed.set(&node.path, node.expiry, &node.value, false);
                changes.push(change(Effect::Set(self.effective(node))));
            }
            Meaning::Dir { path, expiry, was_file, was_dir } => {
                let known = self.timed.get(&path).filter(|known| known.dir).map(|known| known.expiry);
                self.timed.set(&path, expiry, b"", true);
                if was_file {
                    self.keys.as_mut().map(|keys| keys.remove(&path));
                    changes.push(change(Effect::Gone(path)));
                } else if was_dir
                    && !same(known, expiry)
                    && let Err(e) = self.below(&path, index, action, changes)
                {
                    self.timed.set(&path, known, b"", true);
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    fn effective(&self, mut node: Node) -> Node {
        node.expiry = node.expiry.into_iter().chain(self.timed.above(&node.path)).min();
        node
    }

    /// Adds every key below a directory, because all expire at another time. A key that changed later has an event of its own.
    fn below(&mut self, path: &[u8], index: V2Index, action: &'static str, changes: &mut Vec<Change>) -> Result<()> {
        let mut found = Vec::new();
        self.read(path, true, &mut |listed| {
            if !listed.dir && listed.node.modified <= index {
                found.push((listed.node, listed.own));
            }
            Ok(())
        })?;
        for (node, own) in found {
            let node = self.effective(Node { expiry: own, ..node });
            changes.push(Change { index, action, effect: Effect::Set(node) });
        }
        Ok(())
    }

    /// Reads nodes again whose TTL comes to its end, and adds those that were refreshed.
    fn refreshed(&mut self, changes: &mut Vec<Change>) -> Result<()> {
        for _ in 0..REREAD {
            let Some((path, known)) = self.timed.take_due() else { break };
            let mut found = None;
            self.read(&path, false, &mut |listed| {
                found.get_or_insert(listed);
                Ok(())
            })?;
            let Some(found) = found.filter(|found| found.dir == known.dir) else {
                // Its event is on the way.
                self.timed.set(&path, None, b"", known.dir);
                continue;
            };
            // Another value has an event on the way, perhaps after others of this key.
            let is_other = !found.dir && !known.has_value(&found.node.value);
            if is_other || same(Some(known.expiry), found.own) {
                self.timed.again(&path);
                continue;
            }
            self.timed.set(&path, found.own, &found.node.value, found.dir);
            let index = self.at;
            if found.dir {
                self.below(&path, index, "update", changes)?;
            } else {
                let node = self.effective(Node { path, expiry: found.own, ..found.node });
                changes.push(Change { index, action: "update", effect: Effect::Set(node) });
            }
        }
        Ok(())
    }

    fn seen(&self) -> Head {
        // The API says how many seconds are left, whatever the clocks.
        Head { index: self.at, raft: None, uncommitted: self.known.0.0.saturating_sub(self.at.0), clock_ahead: 0 }
    }

    /// Takes what the watch found. Returns why changes are lost.
    fn take(&mut self, deadline: Instant, changes: &mut Vec<Change>) -> Result<Option<String>> {
        let Some(watch) = &self.watch else { return Ok(Some("the state was not read".to_string())) };
        let (found, position) = watch.take(EVENTS, deadline);
        for found in found {
            match found {
                Found::Event(event, at) => self.event(*event, at, changes)?,
                Found::Lost(why) => return Ok(Some(why)),
                Found::Failed(e) => return Err(e),
            }
        }
        self.at = self.at.max(position.unwrap_or(self.at));
        Ok(None)
    }

    /// Returns the changes until the deadline, and why later ones are lost.
    fn changes(&mut self, deadline: Instant) -> Result<(Vec<Change>, Option<String>)> {
        let mut changes = Vec::new();
        loop {
            self.client.ask()?;
            self.refreshed(&mut changes)?;
            let soon = Instant::now() + Duration::from_millis(if changes.is_empty() { 100 } else { 0 });
            let lost = self.take(deadline.min(soon), &mut changes)?;
            if !changes.is_empty() || lost.is_some() {
                return Ok((changes, lost));
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        if self.known.1.is_none_or(|asked| asked.elapsed() >= ASK) {
            self.known = (self.quorum_read()?, Some(Instant::now()));
            self.leave_late_member()?;
        }
        Ok((changes, None))
    }

    /// Watches at the member that answered last, if the watch does not come to the index of the cluster: its member may have
    /// no connection to the others, and does not say so.
    fn leave_late_member(&mut self) -> Result<()> {
        let is_late = self.known.0 > self.at;
        self.late = match self.late.filter(|(at, _)| is_late && *at == self.at) {
            Some((_, since)) if since.elapsed() >= LATE => {
                self.watch = Some(Watch::start(self.client.clone(), V2Index(self.at.0 + 1))?);
                None
            }
            Some(late) => Some(late),
            None => is_late.then(|| (self.at, Instant::now())),
        };
        Ok(())
    }
}

impl V2 for Http {
    fn shows_hidden_keys(&self) -> bool {
        false
    }

    fn cluster(&mut self) -> Result<String> {
        let (_, id) = self.nowhere()?;
        id.ok_or_else(|| {
            Error::new(Reason::NotEtcd, "expected the header X-Etcd-Cluster-Id from the v2 endpoint, found none")
        })
    }

    fn name_keys(&mut self) {
        self.keys = Some(BTreeSet::new());
    }

    fn state(&mut self, each: &mut dyn FnMut(Node) -> Result<()>) -> Result<Head> {
        (self.watch, self.lost, self.timed) = (None, None, Timed::default());
        // The watch begins before the state is read, which can take longer than the server keeps events.
        let before = self.quorum_read()?;
        let watch = Watch::start(self.client.clone(), V2Index(before.0 + 1))?;
        let (mut timed, mut keys) = (Timed::default(), self.keys.take().map(|_| BTreeSet::new()));
        let read = self.read(b"/", true, &mut |listing::Listed { node, dir, own }| {
            if own.is_some() {
                timed.set(&node.path, own, &node.value, dir);
            }
            if dir {
                return Ok(());
            }
            keys.as_mut().map(|keys| keys.insert(node.path.clone()));
            each(node)
        });
        self.keys = keys;
        let index = read?;
        let none = || Error::new(Reason::NotEtcd, "expected the keys of the v2 API, found none");
        self.at = index.ok_or_else(none)?;
        self.state = self.at;
        (self.watch, self.timed, self.known) = (Some(watch), timed, (self.at, None));
        Ok(self.seen())
    }

    fn head(&mut self) -> Result<Head> {
        (self.watch, self.lost, self.timed) = (None, None, Timed::default());
        self.at = self.quorum_read()?;
        self.watch = Some(Watch::start(self.client.clone(), V2Index(self.at.0 + 1))?);
        self.known = (self.at, None);
        Ok(self.seen())
    }

    fn cluster_index(&mut self) -> Result<Option<V2Index>> {
        let index = self.quorum_read()?;
        self.known = (self.known.0.max(index), Some(Instant::now()));
        Ok(Some(index))
    }

    fn since(&mut self, index: V2Index, each: &mut dyn FnMut(Change) -> Result<()>) -> Result<bool> {
        // A reader that was there: its watch gives what it would have been told.
        let mut past = Http::at(self.client.clone(), index);
        past.watch = Some(Watch::start(self.client.clone(), V2Index(index.0.saturating_add(1)))?);
        while past.at < self.state {
            self.client.ask()?;
            let mut changes = Vec::new();
            let lost = past.take(Instant::now() + Duration::from_millis(100), &mut changes)?;
            changes.retain(|change| change.index <= self.state);
            changes.into_iter().try_for_each(&mut *each)?;
            if lost.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn next(&mut self, wait: Duration) -> Result<Next> {
        if let Some(why) = &self.lost {
            return Ok(Next::Lost(why.clone()));
        }
        let before = self.at;
        let (changes, lost) = match self.changes(Instant::now() + wait) {
            Ok(found) => found,
            Err(e) => {
                // What was taken but not returned comes again, except the names of keys that went with their directory.
                self.at = before;
                if self.keys.is_some() {
                    (self.watch, self.lost) = (None, Some(e.to_string()));
                } else if self.watch.is_some() {
                    self.watch = Some(Watch::start(self.client.clone(), V2Index(before.0 + 1))?);
                }
                return Err(e);
            }
        };
        if let Some(why) = lost {
            self.watch = None;
            self.lost = Some(why.clone());
            // What came before the loss is delivered first.
            if changes.is_empty() {
                return Ok(Next::Lost(why));
            }
        }
        let head = self.seen();
        Ok(if changes.is_empty() { Next::Quiet(head) } else { Next::Changes { changes, head } })
    }
}

/// Takes the keys at or below a path.
fn take_below(keys: &mut BTreeSet<Vec<u8>>, path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let below = [path.strip_suffix(b"/").unwrap_or(path), b"/"].concat();
    let mut found: Vec<Vec<u8>> =
        keys.range(below.clone()..).take_while(|key| key.starts_with(&below)).cloned().collect();
    found.extend(keys.get(path).cloned());
    for key in &found {
        keys.remove(key);
    }
    found.into_iter()
}

/// Returns whether two expiries differ by no more than rounding.
fn same(a: Option<Timestamp>, b: Option<Timestamp>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.duration_since(b).abs() <= ROUNDING,
        (a, b) => a.is_none() && b.is_none(),
    }
}

/// Returns a path as a part of a URL.
fn escaped(path: &[u8]) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'_' | b'-' | b'~' => out.push(char::from(*byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::scripted::{Answer, event, server};
    use super::*;

    /// A member without a connection to the others answers no read through the log, but has watches that say nothing.
    #[test]
    fn a_member_that_lost_the_others_is_left() {
        let alone = server(|target| {
            let watch = target.contains("wait=true");
            // A stream that says nothing does not end at once.
            std::thread::sleep(Duration::from_millis(if watch { 50 } else { 0 }));
            let status = if watch { "200 OK" } else { "503 Service Unavailable" };
            Some(Answer { status, index: 5, body: String::new() })
        });
        let watched = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&watched);
        let other = server(move |target| {
            let answer = |status, body| Some(Answer { status, index: 9, body });
            match target.contains("wait=true") {
                true if count.fetch_add(1, Ordering::Relaxed) == 0 => answer("200 OK", event(9)),
                true => answer("200 OK", String::new()),
                false => answer("404 Not Found", String::from("{}")),
            }
        });
        let endpoints = vec![alone, other];
        let options = V2Options { endpoints, retry_for: Duration::from_secs(5), ..V2Options::default() };
        let mut source = Http::at(Client::new(&options, Interrupt::default()).unwrap(), V2Index(5));
        source.watch = Some(Watch::start(source.client.clone(), V2Index(6)).unwrap());
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            assert!(Instant::now() < until, "the change of the cluster comes");
            match source.next(Duration::from_millis(200)).unwrap() {
                Next::Changes { changes, .. } => {
                    assert_eq!(changes.iter().map(|change| change.index.0).collect::<Vec<_>>(), [9]);
                    break;
                }
                Next::Quiet(head) => assert_eq!(head.index, V2Index(5)),
                Next::Lost(why) => panic!("{why}"),
            }
        }
        assert!(watched.load(Ordering::Relaxed) > 0);
    }
}
