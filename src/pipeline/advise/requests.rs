//! The topics of the log: what clients asked for, and what they do with a key over time.
//!
//! Entries are seen once, in the order of the log, with their effect if they were replayed. Only requests to keys and directories of
//! clients count. Must not know the tree.

use std::collections::BTreeSet;

use hashbrown::HashMap;

use super::nodes::{QUEUE, shown};
use super::tallies::Tallies;
use crate::error::Result;
use crate::options::REQUEST_LIMIT;
use crate::report::advice::{Basis, Topic};
use crate::source::raft::{Entry, EntryKind, Method, Proposal, Request, parse_proposal};
use crate::transform::plan::REQUEST_OVERHEAD;
use crate::transform::policy::NAMESPACE;
use crate::v2store::apply::Effect;
use crate::v2store::path;

/// A TTL of up to this number of seconds is short for a lease.
pub(super) const SHORT_SECONDS: i64 = 5;

/// Number of writes from which on a key has a pattern.
const PATTERN: u32 = 3;

/// Errors of v2: the node is a directory, or a component of its path is a file.
const FILE_OR_DIRECTORY: [u16; 2] = [102, 104];

/// The requests that were seen.
pub(super) struct Requests<'f> {
    found: &'f mut Tallies,
    /// What clients did with each node, by its key.
    nodes: HashMap<Vec<u8>, Use>,
    /// The time of the last SYNC, in UNIX nanoseconds: the clock of the log.
    clock: Option<i64>,
    entries: u64,
    range: Option<(u64, u64)>,
    requests: u64,
}

/// What clients did with a node.
#[derive(Debug, Clone, Copy, Default)]
struct Use {
    /// The topics of its requests: a bit for each.
    topics: u64,
    /// Number of PUTs and DELETEs.
    writes: u32,
    /// Of these, the writes with a comparison, and those that only create.
    compared: u32,
    /// Of these, the writes with a TTL.
    with_ttl: u32,
    /// Number of POSTs.
    posts: u32,
}

impl<'f> Requests<'f> {
    /// Starts with no requests.
    pub(super) fn new(found: &'f mut Tallies) -> Requests<'f> {
        Requests { found, nodes: HashMap::new(), clock: None, entries: 0, range: None, requests: 0 }
    }

    /// Counts the topics of an entry. `effect` is unknown if the snapshot contains the entry.
    ///
    /// # Errors
    /// [`Reason::Damaged`](crate::error::Reason::Damaged) if the entry is no request.
    pub(super) fn see(&mut self, entry: &Entry<'_>, effect: Option<Effect>) -> Result<()> {
        self.entries += 1;
        let first = self.range.map_or(entry.index.0, |(first, _)| first);
        self.range = Some((first, entry.index.0));
        if entry.kind != EntryKind::Normal {
            return Ok(());
        }
        let Proposal::V2(request) = parse_proposal(entry.data, entry.data_offset)? else { return Ok(()) };
        if request.method == Method::Sync {
            self.clock = self.clock.max(Some(request.time));
            if effect == Some(Effect::Changed) {
                self.found.requests(Topic::Expiry, 1, 0);
            }
        } else if matches!(request.method, Method::Post | Method::Put | Method::Delete | Method::Qget) {
            self.request(&request, effect);
        }
        Ok(())
    }

    /// Finds the patterns, and returns what was read. `queues` are directories that look like queues in the tree.
    pub(super) fn end(self, mut queues: BTreeSet<Vec<u8>>) -> Basis {
        let mut nodes: Vec<(&[u8], Use)> = self.nodes.iter().map(|(key, node)| (key.as_slice(), *node)).collect();
        nodes.sort_unstable_by_key(|(key, _)| *key);
        for (key, node) in nodes {
            if u64::from(node.posts) >= QUEUE {
                queues.insert(key.to_vec());
            }
            if node.posts > 0 && queues.contains(key) {
                self.found.requests(Topic::Queue, u64::from(node.posts), 0);
            }
            if let Some(topic) = node.pattern() {
                self.found.add(topic, || shown(key));
                self.found.requests(topic, u64::from(node.writes), 0);
            }
        }
        for key in queues {
            self.found.add(Topic::Queue, || shown(&key));
        }
        let (first_entry, last_entry) = self.range.unzip();
        Basis { log_entries: self.entries, first_entry, last_entry, requests: self.requests, ..Basis::default() }
    }

    fn request(&mut self, request: &Request<'_>, effect: Option<Effect>) {
        let clean = path::clean(request.path);
        let Some(key) = clean.strip_prefix(NAMESPACE).filter(|key| matches!(key.first(), None | Some(b'/'))) else {
            return;
        };
        self.requests += 1;
        let refused = u64::from(matches!(effect, Some(Effect::Refused(_))));
        let node = self.nodes.entry_ref(key).or_default();
        node.count(request);
        let topics = Conditions::of(request).topics(request);
        let others = [
            (self.clock.is_some_and(|clock| is_short(request, clock)), Topic::ShortTtl),
            (*request.path != *clean, Topic::UncleanPath),
            (request.is_write() && is_large(key, request.val), Topic::LargeValue),
            (
                matches!(effect, Some(Effect::Refused(code)) if FILE_OR_DIRECTORY.contains(&code)),
                Topic::FileOrDirectory,
            ),
        ];
        for (_, topic) in topics.into_iter().chain(others).filter(|(applies, _)| *applies) {
            self.found.requests(topic, 1, refused);
            let bit = 1u64 << topic as u32;
            if node.topics & bit == 0 {
                node.topics |= bit;
                if !is_of_state(topic) {
                    self.found.count(topic, 1);
                }
                self.found.example(topic, || shown(key));
            }
        }
    }
}

/// Returns whether the count of a topic is that of the tree.
fn is_of_state(topic: Topic) -> bool {
    matches!(topic, Topic::InOrderKey | Topic::LargeValue | Topic::TtlKey | Topic::TtlDirectory)
}

/// Returns whether a write has a short TTL. The clock is at most as late as the request, so the TTL is at most the difference.
fn is_short(request: &Request<'_>, clock: i64) -> bool {
    let left = request.expiration.saturating_sub(clock);
    request.is_write() && request.expiration != 0 && left > 0 && left <= SHORT_SECONDS * 1_000_000_000
}

/// Returns whether a v3 request with this key and value exceeds the default limit of a server.
fn is_large(key: &[u8], value: &[u8]) -> bool {
    REQUEST_OVERHEAD.saturating_add((key.len() + value.len()) as u64) > REQUEST_LIMIT
}

/// The conditions of a request.
#[derive(Debug, Clone, Copy)]
struct Conditions {
    /// A PUT with a comparison.
    swaps: bool,
    /// A DELETE with a comparison.
    deletes: bool,
    /// A PUT of a node that must not exist.
    creates: bool,
}

impl Conditions {
    /// Returns the conditions. A PUT of a node that must not exist compares nothing (docs/formats.md 6.2).
    fn of(request: &Request<'_>) -> Conditions {
        let is_put = request.method == Method::Put;
        let creates = is_put && request.prev_exist == Some(false);
        let compares = request.prev_index > 0 || !request.prev_value.is_empty();
        Conditions {
            swaps: is_put && !creates && compares,
            deletes: request.method == Method::Delete && compares,
            creates,
        }
    }

    fn topics(self, request: &Request<'_>) -> [(bool, Topic); 14] {
        let method = request.method;
        let (is_put, is_post) = (method == Method::Put, method == Method::Post);
        let deletes = method == Method::Delete && !self.deletes;
        let expires = (is_put || is_post) && request.expiration != 0;
        let must_exist = is_put && request.prev_exist == Some(true);
        [
            (is_post, Topic::InOrderKey),
            ((is_put && !must_exist || is_post) && request.dir, Topic::CreateDirectory),
            (deletes && request.recursive, Topic::RecursiveDelete),
            (deletes && !request.recursive && request.dir, Topic::DirectoryDelete),
            (self.swaps, Topic::CompareAndSwap),
            (self.deletes, Topic::CompareAndDelete),
            ((self.swaps || self.deletes) && request.prev_index > 0, Topic::CompareIndex),
            (self.creates, Topic::CreateOnly),
            (must_exist, Topic::UpdateOnly),
            (expires && !request.dir, Topic::TtlKey),
            (expires && request.dir, Topic::TtlDirectory),
            (is_put && request.refresh == Some(true), Topic::Refresh),
            (method == Method::Qget, Topic::QuorumRead),
            (method == Method::Qget && request.sorted, Topic::SortedRead),
        ]
    }
}

impl Use {
    fn count(&mut self, request: &Request<'_>) {
        let conditions = Conditions::of(request);
        match request.method {
            Method::Post => self.posts = self.posts.saturating_add(1),
            Method::Put | Method::Delete => {
                self.writes = self.writes.saturating_add(1);
                let compared = conditions.swaps || conditions.deletes || conditions.creates;
                self.compared = self.compared.saturating_add(u32::from(compared));
                let with_ttl = request.method == Method::Put && request.expiration != 0;
                self.with_ttl = self.with_ttl.saturating_add(u32::from(with_ttl));
            }
            _ => {}
        }
    }

    /// Returns what the writes of the node look like.
    fn pattern(self) -> Option<Topic> {
        let at_least_half = |count: u32| count >= self.writes - count.min(self.writes);
        if self.writes < PATTERN {
            None
        } else if at_least_half(self.compared) {
            Some(if self.with_ttl > 0 { Topic::Lock } else { Topic::OptimisticUpdate })
        } else {
            (self.with_ttl >= PATTERN && at_least_half(self.with_ttl)).then_some(Topic::Heartbeat)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put() -> Request<'static> {
        Request { method: Method::Put, path: b"/1/a", ..Request::default() }
    }

    fn topics(request: &Request<'_>) -> Vec<Topic> {
        let topics = Conditions::of(request).topics(request);
        topics.into_iter().filter(|(applies, _)| *applies).map(|(_, topic)| topic).collect()
    }

    #[test]
    fn a_creation_compares_nothing() {
        let compared = Request { prev_index: 7, prev_value: b"x", ..put() };
        assert_eq!(topics(&compared), [Topic::CompareAndSwap, Topic::CompareIndex]);
        assert_eq!(topics(&Request { prev_exist: Some(false), ..compared }), [Topic::CreateOnly]);
        let both = Request { prev_exist: Some(true), prev_index: 0, ..compared };
        assert_eq!(topics(&both), [Topic::CompareAndSwap, Topic::UpdateOnly]);
        let delete = Request { method: Method::Delete, recursive: true, dir: true, ..put() };
        assert_eq!(topics(&delete), [Topic::RecursiveDelete]);
        assert_eq!(topics(&Request { prev_index: 7, ..delete }), [Topic::CompareAndDelete, Topic::CompareIndex]);
        assert_eq!(topics(&put()), []);
    }

    #[test]
    fn a_pattern_needs_several_writes() {
        let pattern = |writes, compared, with_ttl| Use { writes, compared, with_ttl, ..Use::default() }.pattern();
        assert_eq!([pattern(2, 2, 2), pattern(3, 1, 2), pattern(7, 3, 3)], [None; 3]);
        assert_eq!([pattern(3, 2, 1), pattern(4, 2, 4)], [Some(Topic::Lock); 2]);
        assert_eq!(pattern(3, 2, 0), Some(Topic::OptimisticUpdate));
        assert_eq!([pattern(3, 1, 3), pattern(6, 0, 3)], [Some(Topic::Heartbeat); 2]);
    }

    #[test]
    fn a_ttl_is_short_by_the_clock_of_the_log() {
        let second = 1_000_000_000;
        let short = |expiration| is_short(&Request { expiration, ..put() }, 100 * second);
        assert!(short(101 * second) && short(105 * second));
        assert!(!short(105 * second + 1) && !short(100 * second) && !short(0) && !short(i64::MIN));
    }

    #[test]
    fn every_topic_has_a_bit() {
        assert!(Topic::ALL.len() <= 64);
    }
}
