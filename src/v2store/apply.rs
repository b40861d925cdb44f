//! Replay of the log onto the tree: each entry has the effect that a server with the given rules would produce
//! (docs/formats.md 6).
//!
//! Failed requests change nothing and take no index, as in etcd. Knows requests and configuration changes. Must not
//! know where they were read from, or why these rules hold.

use std::borrow::Cow;
use std::hash::BuildHasher;
use std::sync::LazyLock;

use hashbrown::{DefaultHashBuilder, HashSet};
use jiff::Timestamp;
use memchr::memmem;

use crate::error::{Error, Reason, Result};
use crate::ids::{ByteOffset, RaftIndex, V2Index};
use crate::proto::etcd::ClusterMemberAttrSet;
use crate::source::internal_request::V3Request;
use crate::source::raft::{Entry, EntryKind, Method, Proposal, Request, parse_conf_change, parse_proposal};
use crate::v2store::dialect::Rules;
use crate::v2store::membership::{self, Attributes, Members, Voters};
use crate::v2store::path;
use crate::v2store::tree::{Missing, NewNode, Tree, Value};
use crate::{display, limits};

/// The effect of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The entry changed the tree, or the index.
    Changed,
    /// etcd refused the entry with this error code of the v2 API.
    Refused(u16),
    /// No effect: a no-op, a read, a v3 request.
    None,
}

const KEY_NOT_FOUND: u16 = 100;
const TEST_FAILED: u16 = 101;
const NOT_FILE: u16 = 102;
const NOT_DIR: u16 = 104;
const NODE_EXIST: u16 = 105;
const ROOT_READ_ONLY: u16 = 107;
const DIR_NOT_EMPTY: u16 = 108;
/// A configuration change that does not fit the present members.
const CONF_CHANGE_REJECTED: u16 = 400;

/// A replay: applies entries to a tree.
#[derive(Debug)]
pub struct Replay<'m> {
    /// The current tree.
    pub tree: Tree<'m>,
    /// The current raft configuration.
    pub voters: Voters,
    members: Members,
    /// The rules of the replay.
    pub rules: Rules,
    /// The raft index of the last applied entry.
    pub applied: RaftIndex,
    /// The time of the latest SYNC entry: the clock of the cluster at the end of the log.
    pub last_sync: Option<Timestamp>,
    /// Entries where a directory and a node below it expired at the same instant (docs/formats.md 6.6).
    pub ambiguous_expiries: Vec<RaftIndex>,
    /// Number of attribute writes for members that the store does not list.
    pub unknown_members: u64,
    /// Entries that may change v3 keys, leases, users or roles. A v3 backend may or may not contain their effects.
    pub v3_writes: Vec<(RaftIndex, V3Request<'m>)>,
    /// In-order names and the requests that use them, if the caller wants them.
    pub names: Option<InOrderNames>,
}

impl<'m> Replay<'m> {
    /// Creates a replay that begins with this tree and configuration.
    pub fn new(tree: Tree<'m>, voters: Voters, rules: Rules, applied: RaftIndex) -> Replay<'m> {
        Replay {
            tree,
            voters,
            members: Members::default(),
            rules,
            applied,
            last_sync: None,
            ambiguous_expiries: Vec::new(),
            unknown_members: 0,
            v3_writes: Vec::new(),
            names: None,
        }
    }

    /// Applies the next entry.
    ///
    /// # Errors
    /// [`Reason::Damaged`] with the raft index, if the data of the entry cannot be read: etcd itself would stop there.
    pub fn apply(&mut self, entry: &Entry<'m>) -> Result<Effect> {
        self.apply_parsed(entry, None)
    }

    /// Applies the next entry like [`Replay::apply`]. `proposal` is its content, if that is known.
    ///
    /// # Errors
    /// As [`Replay::apply`].
    pub(super) fn apply_parsed(&mut self, entry: &Entry<'m>, proposal: Option<Proposal<'m>>) -> Result<Effect> {
        let effect = self.entry(entry, proposal).map_err(|e| e.context(format!("raft entry {}", entry.index)))?;
        self.applied = entry.index;
        Ok(effect)
    }

    fn entry(&mut self, entry: &Entry<'m>, proposal: Option<Proposal<'m>>) -> Result<Effect> {
        match entry.kind {
            EntryKind::Normal => {}
            EntryKind::ConfChange => {
                let change = parse_conf_change(entry.data, entry.data_offset)?;
                let (tree, members, voters) = (&mut self.tree, &mut self.members, &mut self.voters);
                let accepted = membership::apply_conf_change(tree, members, voters, &change, self.rules)?;
                return Ok(if accepted { Effect::Changed } else { Effect::Refused(CONF_CHANGE_REJECTED) });
            }
            EntryKind::ConfChangeV2 => {
                let message = "expected no joint configuration change, which no etcd proposes";
                return Err(Error::new(Reason::Damaged, message).at(entry.data_offset));
            }
        }
        let proposal = proposal.map_or_else(|| parse_proposal(entry.data, entry.data_offset), Ok)?;
        match proposal {
            Proposal::Empty => Ok(Effect::None),
            Proposal::V3(request) => {
                if request.writes() {
                    self.v3_writes.push((entry.index, request));
                }
                Ok(Effect::None)
            }
            Proposal::V2(request) => self.request(&request, entry),
            Proposal::ClusterVersionSet(message) => {
                let version = version_in(message)?.to_vec();
                membership::put(&mut self.tree, "/0/version", version);
                Ok(Effect::Changed)
            }
            Proposal::MemberAttributesSet(message) => self.attributes_message(message),
        }
    }

    fn request(&mut self, request: &Request<'m>, entry: &Entry<'m>) -> Result<Effect> {
        // A component takes at least two bytes.
        if request.path.len() / 2 >= limits::MAX_PATH_COMPONENTS
            && path::components(request.path).count() > limits::MAX_PATH_COMPONENTS
        {
            return Err(damaged(format!("expected a path of at most {} components", limits::MAX_PATH_COMPONENTS)));
        }
        let request = Prepared {
            path: path::clean(request.path),
            expiry: instant(request.expiration),
            refresh: request.refresh == Some(true) && self.rules.has(Rules::REFRESH),
            request,
        };
        let compares = request.request.prev_index > 0 || !request.request.prev_value.is_empty();
        let update = !compares || !self.rules.has(Rules::COMPARED_UPDATES);
        if let Some(names) = &mut self.names {
            names.see(&request.path, entry.index);
        }
        let outcome = match (request.request.method, request.request.prev_exist) {
            (Method::Post, _) => self.create(&request, true),
            (Method::Put, Some(true)) if update => self.update(&request),
            (Method::Put, Some(false)) => self.create(&request, false),
            (Method::Put, _) if compares => self.compare_and_swap(&request),
            (Method::Put, _) => return self.plain_put(&request),
            (Method::Delete, _) if compares => self.compare_and_delete(&request),
            (Method::Delete, _) => self.delete(&request),
            (Method::Sync, _) => {
                let expired = self.sync(request.request.time, entry.index);
                return Ok(if expired > 0 { Effect::Changed } else { Effect::None });
            }
            _ => return Ok(Effect::None),
        };
        if outcome.is_ok() {
            self.members.written(&mut self.tree, &request.path);
        }
        Ok(match outcome {
            Ok(()) => Effect::Changed,
            Err(code) => Effect::Refused(code),
        })
    }

    /// Applies a plain PUT. Some of them are writes of the server itself (docs/formats.md 6.8).
    fn plain_put(&mut self, request: &Prepared<'_, 'm>) -> Result<Effect> {
        let raw = request.request.path;
        if is_attributes_path(raw) && self.rules.has(Rules::REMOVED_ATTRIBUTES) {
            return self.attributes_put(request);
        }
        let outcome = if raw == b"/0/version" && self.rules.has(Rules::RE_ENCODED_ATTRIBUTES) {
            let value = request.request.val.to_vec();
            membership::put(&mut self.tree, "/0/version", value);
            Ok(())
        } else {
            self.set(request)
        };
        if outcome.is_ok() {
            self.members.written(&mut self.tree, &request.path);
        }
        Ok(match outcome {
            Ok(()) => Effect::Changed,
            Err(code) => Effect::Refused(code),
        })
    }

    fn attributes_put(&mut self, request: &Prepared<'_, 'm>) -> Result<Effect> {
        let (dir, _) = path::split(&request.path);
        let Some(id) = membership::parse_id(path::split(dir).1) else {
            return Err(damaged("expected a member id in the path of the attributes, found none"));
        };
        if membership::was_removed(&mut self.tree, id) {
            return Ok(Effect::None);
        }
        if !self.members.contain(&mut self.tree, id) {
            self.unknown_members += 1;
        }
        if !self.rules.has(Rules::RE_ENCODED_ATTRIBUTES) {
            return Ok(self.set(request).map_or_else(Effect::Refused, |()| Effect::Changed));
        }
        let attributes: Attributes = serde_json::from_slice(request.request.val)
            .map_err(|e| damaged(format!("expected a member's attributes as JSON, {}", display::json_fault(&e))))?;
        self.put_attributes(id, &attributes);
        Ok(Effect::Changed)
    }

    fn attributes_message(&mut self, message: &[u8]) -> Result<Effect> {
        use protobuf::Message;
        let message = ClusterMemberAttrSet::parse_from_bytes(message)
            .map_err(|_| damaged("expected a member's attributes as a protobuf message, found something else"))?;
        let id = crate::ids::MemberId(message.member_id());
        if membership::was_removed(&mut self.tree, id) {
            return Ok(Effect::None);
        }
        let attributes = Attributes {
            name: message.member_attributes.name().to_string(),
            client_urls: message.member_attributes.client_urls.clone(),
        };
        self.put_attributes(id, &attributes);
        Ok(Effect::Changed)
    }

    fn put_attributes(&mut self, id: crate::ids::MemberId, attributes: &Attributes) {
        let json = serde_json::to_vec(attributes).unwrap_or_default();
        membership::put(&mut self.tree, &membership::attributes_path(id), json);
    }

    /// Returns the number of expired nodes; a subtree counts once.
    fn sync(&mut self, time: i64, index: RaftIndex) -> u64 {
        let Some(now) = timestamp(time) else { return 0 };
        self.last_sync = self.last_sync.max(Some(now));
        let (expired, ambiguous) = self.tree.expire(now);
        if ambiguous {
            self.ambiguous_expiries.push(index);
        }
        expired
    }
}

/// Returns the word of the v2 API for what a successful request does; `None` if it changes nothing.
pub fn action(request: &Request<'_>, rules: Rules) -> Option<&'static str> {
    let compares = request.prev_index > 0 || !request.prev_value.is_empty();
    let update = !compares || !rules.has(Rules::COMPARED_UPDATES);
    Some(match (request.method, request.prev_exist) {
        (Method::Post, _) | (Method::Put, Some(false)) => "create",
        (Method::Put, Some(true)) if update => "update",
        (Method::Put, _) if compares => "compareAndSwap",
        (Method::Put, _) => "set",
        (Method::Delete, _) if compares => "compareAndDelete",
        (Method::Delete, _) => "delete",
        (Method::Sync, _) => "expire",
        _ => return None,
    })
}

/// In-order names that the log created, and later requests that use them. A client learns such a name from the server
/// that created it, so the name exists under the rules of that server.
#[derive(Debug, Clone, Default)]
pub struct InOrderNames {
    hasher: DefaultHashBuilder,
    /// Hashes of the paths.
    made: HashSet<u64>,
    /// Entries that use one, in the order of the log.
    pub used: Vec<RaftIndex>,
}

impl InOrderNames {
    fn make(&mut self, path: &[u8]) {
        let hash = self.hashes(path).last().map(|(hash, _)| hash);
        self.made.extend(hash);
    }

    /// Records a path if it, or a directory above it, may be such a name.
    fn see(&mut self, path: &[u8], index: RaftIndex) {
        if self.made.is_empty() {
            return;
        }
        let named = |name: &[u8]| name.iter().all(u8::is_ascii_digit);
        if self.hashes(path).any(|(hash, name)| named(name) && self.made.contains(&hash)) {
            self.used.push(index);
        }
    }

    /// Returns the hash and name of each directory of a clean path and of the path itself. Each hash continues the one
    /// before it.
    fn hashes<'p>(&self, path: &'p [u8]) -> impl Iterator<Item = (u64, &'p [u8])> {
        path::components(path).scan(0u64, |above, name| {
            *above = self.hasher.hash_one((*above, name));
            Some((*above, name))
        })
    }
}

/// A request with the data that every operation needs.
struct Prepared<'r, 'm> {
    request: &'r Request<'m>,
    path: Cow<'m, [u8]>,
    expiry: Option<Timestamp>,
    refresh: bool,
}

/// The operations of the store (docs/formats.md 6.2). `Err` is the error code of etcd; then nothing is changed.
impl<'m> Replay<'m> {
    fn create(&mut self, request: &Prepared<'_, 'm>, unique: bool) -> Result<(), u16> {
        let mut path = request.path.clone();
        if unique {
            let next = self.tree.current_index.0 + 1;
            let padded = self.rules.has(Rules::PADDED_NAMES);
            let name = if padded { format!("{next:020}") } else { next.to_string() };
            let path = path.to_mut();
            path.push(b'/');
            path.extend_from_slice(name.as_bytes());
        }
        let path = path::clean(&path);
        self.writable(&path)?;
        match self.tree.lookup(&path) {
            Ok(_) => return Err(NODE_EXIST),
            Err(Missing::NotDir) => return Err(NOT_DIR),
            Err(Missing::NotFound) => {}
        }
        self.put_new(&path, request, request.request.val.into())?;
        if let Some(names) = self.names.as_mut().filter(|_| unique) {
            names.make(&path);
        }
        Ok(())
    }

    fn set(&mut self, request: &Prepared<'_, 'm>) -> Result<(), u16> {
        let found = match self.tree.lookup(&request.path) {
            Ok(node) => Some(node),
            Err(Missing::NotDir) => return Err(NOT_DIR),
            Err(Missing::NotFound) => None,
        };
        let value = match found {
            Some(node) if request.refresh => self.tree.shared_value(node),
            None if request.refresh => return Err(KEY_NOT_FOUND),
            _ => request.request.val.into(),
        };
        self.writable(&request.path)?;
        if found.is_some_and(|node| self.tree.is_dir(node)) {
            return Err(NOT_FILE);
        }
        self.put_new(&request.path, request, value)
    }

    fn put_new(&mut self, path: &[u8], request: &Prepared<'_, 'm>, value: Value<'m>) -> Result<(), u16> {
        let index = self.next();
        let node = NewNode {
            index,
            expiry: request.expiry.filter(|at| *at >= YEAR_2000),
            value: if request.request.dir { None } else { Some(value) },
        };
        self.tree.put(path, node).map_err(code)?;
        self.tree.current_index = index;
        Ok(())
    }

    fn update(&mut self, request: &Prepared<'_, 'm>) -> Result<(), u16> {
        self.writable(&request.path)?;
        let node = self.tree.lookup(&request.path).map_err(code)?;
        if self.tree.is_dir(node) && (!request.request.val.is_empty() || self.rules.has(Rules::FIXED_DIRECTORIES)) {
            return Err(NOT_FILE);
        }
        self.change(request, request.refresh);
        Ok(())
    }

    fn compare_and_swap(&mut self, request: &Prepared<'_, 'm>) -> Result<(), u16> {
        self.writable(&request.path)?;
        self.compare(request)?;
        self.change(request, request.refresh && self.rules.has(Rules::REFRESH_IN_SWAPS));
        Ok(())
    }

    fn compare(&mut self, request: &Prepared<'_, 'm>) -> Result<(), u16> {
        let node = self.tree.lookup(&request.path).map_err(code)?;
        if self.tree.is_dir(node) {
            return Err(NOT_FILE);
        }
        let Request { prev_value, prev_index, .. } = request.request;
        let value_matches = prev_value.is_empty() || self.tree.has_value(node, prev_value);
        let index_matches = *prev_index == 0 || self.tree.modified(node) == V2Index(*prev_index);
        if value_matches && index_matches { Ok(()) } else { Err(TEST_FAILED) }
    }

    /// Changes value, index and TTL of an existing node. Unlike a new node, it retains a TTL in the past
    /// (docs/formats.md 6.2).
    fn change(&mut self, request: &Prepared<'_, 'm>, keep_value: bool) {
        let index = self.next();
        let value = if keep_value { None } else { Some(request.request.val.into()) };
        self.tree.update(&request.path, value, index, request.expiry);
        self.tree.current_index = index;
    }

    fn delete(&mut self, request: &Prepared<'_, 'm>) -> Result<(), u16> {
        self.writable(&request.path)?;
        let node = self.tree.lookup(&request.path).map_err(code)?;
        if self.tree.is_dir(node) {
            if !request.request.dir && !request.request.recursive {
                return Err(NOT_FILE);
            }
            if self.tree.has_children(node) && !request.request.recursive {
                return Err(DIR_NOT_EMPTY);
            }
        }
        self.remove(request)
    }

    fn compare_and_delete(&mut self, request: &Prepared<'_, 'm>) -> Result<(), u16> {
        self.compare(request)?;
        self.remove(request)
    }

    fn remove(&mut self, request: &Prepared<'_, 'm>) -> Result<(), u16> {
        if !self.tree.remove(&request.path) {
            return Err(KEY_NOT_FOUND);
        }
        self.tree.current_index = self.next();
        Ok(())
    }

    fn writable(&self, path: &[u8]) -> Result<(), u16> {
        let namespace = matches!(path, b"/0" | b"/1") && self.rules.has(Rules::READ_ONLY_NAMESPACES);
        if path == b"/" || namespace { Err(ROOT_READ_ONLY) } else { Ok(()) }
    }

    fn next(&self) -> V2Index {
        V2Index(self.tree.current_index.0 + 1)
    }
}

/// 2000-01-01T00:00:00Z: a new node with an earlier expiration has no TTL (docs/formats.md 6.2).
const YEAR_2000: Timestamp = Timestamp::constant(946_684_800, 0);

fn instant(nanoseconds: i64) -> Option<Timestamp> {
    if nanoseconds == 0 { None } else { timestamp(nanoseconds) }
}

/// Converts nanoseconds: every `i64` is in the range of jiff.
fn timestamp(nanoseconds: i64) -> Option<Timestamp> {
    Timestamp::from_nanosecond(i128::from(nanoseconds)).ok()
}

fn code(missing: Missing) -> u16 {
    match missing {
        Missing::NotFound => KEY_NOT_FOUND,
        Missing::NotDir => NOT_DIR,
    }
}

/// Returns whether a path contains `/0/members/HEX/attributes` at any position: the pattern of etcd has no anchors
/// (docs/formats.md 6.8).
pub(crate) fn is_attributes_path(path: &[u8]) -> bool {
    const MEMBERS: &[u8] = b"/0/members/";
    static FINDER: LazyLock<memmem::Finder<'_>> = LazyLock::new(|| memmem::Finder::new(MEMBERS));
    FINDER.find_iter(path).any(|at| {
        let rest = path.get(at + MEMBERS.len()..).unwrap_or_default();
        let digits = rest.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        (1..=16).contains(&digits) && rest.get(digits..).is_some_and(|rest| rest.starts_with(b"/attributes"))
    })
}

/// Returns the version in a `ClusterVersionSetRequest`, its only field.
pub(crate) fn version_in(message: &[u8]) -> Result<&[u8]> {
    let mut reader = crate::wire::Reader::new(message, ByteOffset(0));
    match reader.field()? {
        Some(field) if field.number == 1 => Ok(field.bytes()?),
        _ => Err(damaged("expected a cluster version, found none")),
    }
}

fn damaged(message: impl Into<String>) -> Error {
    Error::new(Reason::Damaged, message)
}

#[cfg(test)]
mod tests;
