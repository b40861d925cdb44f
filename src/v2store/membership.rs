//! Effects of configuration changes and member writes on the store, and the voters at the end (docs/formats.md 6.8,
//! 6.9).
//!
//! Member nodes are ordinary store content below `/0`, and each change takes indexes. They must be replayed for correct
//! indexes of user keys. Must not know the log: `apply` passes changes and writes one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher};

use hashbrown::{DefaultHashBuilder, HashMap};
use serde::{Deserialize, Serialize};

use crate::display;
use crate::error::{Error, Reason, Result};
use crate::ids::{MemberId, V2Index};
use crate::source::raft::{ConfChange, ConfChangeKind};
use crate::source::snap::ConfState;
use crate::v2store::dialect::Rules;
use crate::v2store::tree::{NewNode, NodeRef, Tree};

/// The raft configuration: voters and learners.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Voters {
    /// Voting members.
    pub voters: BTreeSet<MemberId>,
    /// Learners, which do not vote.
    pub learners: BTreeSet<MemberId>,
}

impl Voters {
    /// Returns the only voter of the cluster, which commits all its entries.
    pub fn only(&self) -> Option<MemberId> {
        self.voters.first().copied().filter(|_| self.voters.len() == 1)
    }
}

impl From<&ConfState> for Voters {
    fn from(state: &ConfState) -> Voters {
        Voters { voters: state.voters.iter().copied().collect(), learners: state.learners.iter().copied().collect() }
    }
}

/// A member as a configuration change encodes it (docs/formats.md 5.2).
#[derive(Debug, Deserialize)]
pub(crate) struct ProposedMember {
    #[serde(default)]
    id: u64,
    #[serde(default, rename = "peerURLs")]
    pub(crate) peer_urls: Option<Vec<String>>,
    #[serde(default, rename = "isLearner")]
    pub(crate) is_learner: bool,
    #[serde(default, rename = "isPromote")]
    pub(crate) is_promote: bool,
}

impl ProposedMember {
    /// Parses the member of a change other than a removal.
    pub(crate) fn parse(change: &ConfChange<'_>) -> Result<ProposedMember> {
        serde_json::from_slice(change.context).map_err(|e| {
            let found = display::json_fault(&e);
            Error::new(Reason::Damaged, format!("expected a member as JSON in a configuration change, {found}"))
        })
    }

    /// Returns the ID of the member; that of the change if it has none.
    pub(crate) fn id(&self, change: &ConfChange<'_>) -> MemberId {
        if self.id == 0 { change.node_id } else { MemberId(self.id) }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct RaftAttributes {
    #[serde(default, rename = "peerURLs")]
    peer_urls: Option<Vec<String>>,
    #[serde(default, rename = "isLearner", skip_serializing_if = "std::ops::Not::not")]
    is_learner: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Attributes {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) name: String,
    #[serde(rename = "clientURLs", skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub(crate) client_urls: Vec<String>,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Applies a configuration change to the store and to the voters. Returns whether it was accepted. A rejected change
/// has no effect, in raft neither.
///
/// # Errors
/// [`Reason::Damaged`] if its member cannot be read.
pub fn apply_conf_change(
    tree: &mut Tree<'_>,
    members: &mut Members,
    voters: &mut Voters,
    change: &ConfChange<'_>,
    rules: Rules,
) -> Result<bool> {
    let id = change.node_id;
    if was_removed(tree, id) {
        return Ok(false);
    }
    members.read(tree);
    let known = members.get(tree, id);
    if change.kind == ConfChangeKind::RemoveNode {
        if known.is_none() {
            return Ok(false);
        }
        remove_member(tree, id);
        voters.voters.remove(&id);
        voters.learners.remove(&id);
        return Ok(true);
    }
    let member = ProposedMember::parse(change)?;
    let id = member.id(change);
    let taken = members.have_url_of(tree, id, member.peer_urls.iter().flatten());
    let learner = member.is_learner || change.kind == ConfChangeKind::AddLearnerNode;
    let attributes = |is_learner| RaftAttributes { peer_urls: member.peer_urls.clone(), is_learner };
    match (change.kind, known) {
        (ConfChangeKind::UpdateNode, Some(old)) if !taken => {
            // Before that rule, the change replaces all attributes, and it does not say that the member is a learner.
            let is_learner = if rules.has(Rules::LASTING_LEARNERS) { old.is_learner } else { member.is_learner };
            update_raft_attributes(tree, id, &attributes(is_learner));
        }
        (ConfChangeKind::UpdateNode, _) => return Ok(false),
        (_, Some(old)) if member.is_promote => {
            if !old.is_learner {
                return Ok(false);
            }
            let peer_urls = raft_attributes(tree, change.node_id).and_then(|attributes| attributes.peer_urls);
            update_raft_attributes(tree, id, &RaftAttributes { peer_urls, is_learner: false });
            voters.learners.remove(&id);
            voters.voters.insert(id);
        }
        (_, None) if !member.is_promote && !taken => {
            if learner && rules.has(Rules::ONE_LEARNER) && members.have_learner(tree) {
                return Ok(false);
            }
            create_raft_attributes(tree, id, &attributes(learner));
            let list = if learner { &mut voters.learners } else { &mut voters.voters };
            list.insert(id);
        }
        _ => return Ok(false),
    }
    members.get(tree, id);
    Ok(true)
}

/// The members of a store by peer URL. A change reads only the members that it concerns.
///
/// Each member is compared with the store before it counts, so removals by a request or a TTL need no notification.
/// Writes by a request do: see [`Members::written`].
#[derive(Debug, Default)]
pub struct Members {
    /// Whether the store was read, which the first change does.
    is_read: bool,
    known: HashMap<MemberId, Known>,
    /// Hashes of peer URLs, with the member of each.
    urls: BTreeSet<(u64, MemberId)>,
    learners: BTreeSet<MemberId>,
    hasher: DefaultHashBuilder,
}

/// The known raft attributes of a member.
#[derive(Debug)]
struct Known {
    /// The node that was read, with its modified index at that time: the pair is unique to a value.
    node: (NodeRef, V2Index),
    /// `None` if the value has no raft attributes.
    member: Option<KnownMember>,
    /// Hashes of its peer URLs.
    urls: Box<[u64]>,
}

#[derive(Debug, Clone, Copy)]
struct KnownMember {
    is_learner: bool,
}

impl Members {
    /// Records a successful request at this clean path.
    pub fn written(&mut self, tree: &mut Tree<'_>, path: &[u8]) {
        if !self.is_read {
            return;
        }
        let name = path.strip_prefix(b"/0/members/").and_then(|rest| rest.split(|byte| *byte == b'/').next());
        if let Some(id) = name.and_then(parse_id) {
            self.get(tree, id);
        }
    }

    /// Returns whether the store lists this member.
    pub fn contain(&mut self, tree: &mut Tree<'_>, id: MemberId) -> bool {
        self.get(tree, id).is_some()
    }

    fn read(&mut self, tree: &mut Tree<'_>) {
        if self.is_read {
            return;
        }
        self.is_read = true;
        let Ok(dir) = tree.lookup(b"/0/members") else { return };
        for (name, _) in tree.children(dir) {
            if let Some(id) = parse_id(&name) {
                self.get(tree, id);
            }
        }
    }

    /// Returns the member as the store has it now.
    fn get(&mut self, tree: &mut Tree<'_>, id: MemberId) -> Option<KnownMember> {
        let node = tree.lookup(raft_attributes_path(id).as_bytes()).ok();
        let node = node.map(|node| (node, tree.modified(node)));
        if let Some(known) = self.known.get(&id)
            && node == Some(known.node)
        {
            return known.member;
        }
        if let Some(old) = self.known.remove(&id) {
            self.learners.remove(&id);
            for url in old.urls {
                self.urls.remove(&(url, id));
            }
        }
        let node = node?;
        let attributes: Option<RaftAttributes> = serde_json::from_slice(&tree.value(node.0)).ok();
        let member = attributes.as_ref().map(|attributes| KnownMember { is_learner: attributes.is_learner });
        let urls = attributes.as_ref().and_then(|attributes| attributes.peer_urls.as_ref());
        let urls: Box<[u64]> = urls.into_iter().flatten().map(|url| self.hasher.hash_one(url)).collect();
        self.urls.extend(urls.iter().map(|url| (*url, id)));
        if member.is_some_and(|member| member.is_learner) {
            self.learners.insert(id);
        }
        self.known.insert(id, Known { node, member, urls });
        member
    }

    /// Returns whether another member has one of these peer URLs.
    fn have_url_of<'u>(
        &mut self,
        tree: &mut Tree<'_>,
        own: MemberId,
        mut urls: impl Iterator<Item = &'u String>,
    ) -> bool {
        urls.any(|url| {
            let url = self.hasher.hash_one(url);
            let mut from = Some(0);
            while let Some(first) = from
                && let Some(&(_, id)) = self.urls.range((url, MemberId(first))..=(url, MemberId(u64::MAX))).next()
            {
                if id != own {
                    self.get(tree, id);
                    if self.urls.contains(&(url, id)) {
                        return true;
                    }
                }
                from = id.0.checked_add(1);
            }
            false
        })
    }

    fn have_learner(&mut self, tree: &mut Tree<'_>) -> bool {
        while let Some(id) = self.learners.first().copied() {
            if self.get(tree, id).is_some_and(|member| member.is_learner) {
                return true;
            }
            self.learners.remove(&id);
        }
        false
    }
}

/// Returns the members in the store with their raft attributes. A child without them is not a member (docs/formats.md
/// 3.4).
fn members(tree: &mut Tree<'_>) -> Vec<(MemberId, RaftAttributes)> {
    let Ok(dir) = tree.lookup(b"/0/members") else { return Vec::new() };
    let mut members = Vec::new();
    for (name, _) in tree.children(dir) {
        let Some(id) = parse_id(&name) else { continue };
        if let Some(attributes) = raft_attributes(tree, id) {
            members.push((id, attributes));
        }
    }
    members
}

/// Returns the raft attributes of a member that the store lists.
fn raft_attributes(tree: &mut Tree<'_>, id: MemberId) -> Option<RaftAttributes> {
    let node = tree.lookup(raft_attributes_path(id).as_bytes()).ok()?;
    serde_json::from_slice(&tree.value(node)).ok()
}

/// Returns the ids of the members that the store lists.
pub fn member_ids(tree: &mut Tree<'_>) -> Vec<MemberId> {
    members(tree).into_iter().map(|(id, _)| id).collect()
}

/// Returns a hash of the members and of which of them are learners.
pub fn fingerprint(members: impl IntoIterator<Item = (MemberId, bool)>) -> u64 {
    let members: BTreeMap<MemberId, bool> = members.into_iter().collect();
    // Without a seed: the hash is the same in every process.
    let mut hasher = DefaultHasher::new();
    members.hash(&mut hasher);
    hasher.finish()
}

/// Returns the hash of the members that the store lists.
pub(super) fn fingerprint_of(tree: &mut Tree<'_>) -> u64 {
    fingerprint(members(tree).into_iter().map(|(id, attributes)| (id, attributes.is_learner)))
}

/// A member as the store describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberFacts {
    /// Its member id.
    pub id: MemberId,
    /// Its name; empty until it has started once.
    pub name: String,
    /// The URLs for other members.
    pub peer_urls: Vec<String>,
    /// The URLs for clients.
    pub client_urls: Vec<String>,
}

/// Returns the ids of the removed members that the store lists.
pub fn removed(tree: &mut Tree<'_>) -> Vec<MemberId> {
    let Ok(dir) = tree.lookup(b"/0/removed_members") else { return Vec::new() };
    tree.children(dir).into_iter().filter_map(|(name, _)| parse_id(&name)).collect()
}

/// Returns whether this is the one member that `etcdctl backup` puts in place of all others.
pub fn is_made_up(name: &str, peer_urls: &[String]) -> bool {
    name == "etcdctl-v2-backup" || peer_urls.iter().any(|url| url.contains("use-flag--force-new-cluster"))
}

/// Returns the members that the store lists, by id.
pub fn list(tree: &mut Tree<'_>) -> Vec<MemberFacts> {
    let members = members(tree);
    members
        .into_iter()
        .map(|(id, raft)| {
            let published = published_attributes(tree, id).unwrap_or_default();
            MemberFacts {
                id,
                name: published.name,
                peer_urls: raft.peer_urls.unwrap_or_default(),
                client_urls: published.client_urls,
            }
        })
        .collect()
}

/// Returns whether the store says that this member was removed from the cluster.
pub fn was_removed(tree: &mut Tree<'_>, id: MemberId) -> bool {
    tree.lookup(removed_path(id).as_bytes()).is_ok()
}

/// Returns the ids of the members that were removed from the cluster.
pub fn removed_ids(tree: &mut Tree<'_>) -> Vec<MemberId> {
    let Ok(dir) = tree.lookup(b"/0/removed_members") else { return Vec::new() };
    tree.children(dir).into_iter().filter_map(|(name, _)| parse_id(&name)).collect()
}

/// Returns the cluster version in the store: `MAJOR.MINOR.PATCH` (2.1 and later).
pub fn cluster_version(tree: &mut Tree<'_>) -> Option<String> {
    let node = tree.lookup(b"/0/version").ok()?;
    String::from_utf8(tree.value(node).into_owned()).ok()
}

fn published_attributes(tree: &mut Tree<'_>, id: MemberId) -> Option<Attributes> {
    let node = tree.lookup(attributes_path(id).as_bytes()).ok()?;
    serde_json::from_slice(&tree.value(node)).ok()
}

/// Parses hexadecimal digits like Go's `ParseUint(s, 16, 64)`.
pub(crate) fn parse_id(name: &[u8]) -> Option<MemberId> {
    let text = std::str::from_utf8(name).ok()?;
    if text.starts_with('+') {
        return None;
    }
    u64::from_str_radix(text, 16).ok().map(MemberId)
}

pub(crate) fn attributes_path(id: MemberId) -> String {
    format!("/0/members/{id}/attributes")
}

fn raft_attributes_path(id: MemberId) -> String {
    format!("/0/members/{id}/raftAttributes")
}

fn removed_path(id: MemberId) -> String {
    format!("/0/removed_members/{id}")
}

fn create_raft_attributes(tree: &mut Tree<'_>, id: MemberId, attributes: &RaftAttributes) {
    let json = serde_json::to_vec(attributes).unwrap_or_default();
    put(tree, &raft_attributes_path(id), json);
}

/// Updates raft attributes. Unlike a write, this retains the created index (docs/formats.md 6.9).
fn update_raft_attributes(tree: &mut Tree<'_>, id: MemberId, attributes: &RaftAttributes) {
    let json = serde_json::to_vec(attributes).unwrap_or_default();
    tree.current_index.0 += 1;
    tree.update(raft_attributes_path(id).as_bytes(), Some(json.into()), tree.current_index, None);
}

fn remove_member(tree: &mut Tree<'_>, id: MemberId) {
    if tree.remove(format!("/0/members/{id}").as_bytes()) {
        tree.current_index.0 += 1;
    }
    put(tree, &removed_path(id), Vec::new());
}

/// Applies one write of the server itself, which takes one index.
pub(crate) fn put(tree: &mut Tree<'_>, path: &str, value: Vec<u8>) {
    let index = V2Index(tree.current_index.0 + 1);
    let node = NewNode { index, expiry: None, value: Some(value.into()) };
    if tree.put(path.as_bytes(), node).is_ok() {
        tree.current_index = index;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v2store::dialect::Version;
    use crate::v2store::table::Table;

    /// Returns value, created and modified index of the member's raft attributes after each accepted change.
    fn attributes_after(changes: &[(ConfChangeKind, &str)]) -> Vec<(String, u64, u64)> {
        let table = Table::empty();
        let (mut tree, mut voters, mut members) = (Tree::new(&table), Voters::default(), Members::default());
        let after = changes.iter().map(|(kind, context)| {
            let change = ConfChange { kind: *kind, node_id: MemberId(10), context: context.as_bytes() };
            let rules = Rules::of(Version::new(3, 5, 33));
            assert!(apply_conf_change(&mut tree, &mut members, &mut voters, &change, rules).unwrap(), "{context}");
            let node = tree.lookup(b"/0/members/a/raftAttributes").unwrap();
            let value = String::from_utf8(tree.value(node).into_owned()).unwrap();
            (value, tree.created(node).0, tree.modified(node).0)
        });
        after.collect()
    }

    #[test]
    fn an_update_of_a_member_keeps_the_created_index() {
        let found = attributes_after(&[
            (ConfChangeKind::AddNode, r#"{"id":10,"peerURLs":["http://a"]}"#),
            (ConfChangeKind::UpdateNode, r#"{"id":10,"peerURLs":["http://b"]}"#),
        ]);
        let expected = [(r#"{"peerURLs":["http://a"]}"#, 1, 1), (r#"{"peerURLs":["http://b"]}"#, 1, 2)];
        assert_eq!(found, expected.map(|(value, created, modified)| (value.to_string(), created, modified)));
    }

    /// docs/formats.md 6.9: an update of the peer URLs of a learner, its promotion, and a second learner.
    #[test]
    fn an_update_of_a_learner_keeps_it_one_from_3_5_31_on() {
        let changes = [
            (ConfChangeKind::AddLearnerNode, 10, r#"{"id":10,"peerURLs":["http://a"],"isLearner":true}"#),
            (ConfChangeKind::UpdateNode, 10, r#"{"id":10,"peerURLs":["http://b"]}"#),
            (ConfChangeKind::AddLearnerNode, 11, r#"{"id":11,"peerURLs":["http://c"],"isLearner":true}"#),
            (ConfChangeKind::AddNode, 10, r#"{"id":10,"peerURLs":null,"isPromote":true}"#),
        ];
        let old = ([true, true, true, false], 3, vec![10, 11]);
        let new = ([true, true, false, true], 3, vec![]);
        let cases = [((3, 4, 45), old.clone()), ((3, 5, 30), old), ((3, 5, 31), new)];
        for ((major, minor, patch), (accepted, index, learners)) in cases {
            let table = Table::empty();
            let (mut tree, mut voters, mut members) = (Tree::new(&table), Voters::default(), Members::default());
            let rules = Rules::of(Version::new(major, minor, patch));
            let found = changes.map(|(kind, id, context)| {
                let change = ConfChange { kind, node_id: MemberId(id), context: context.as_bytes() };
                apply_conf_change(&mut tree, &mut members, &mut voters, &change, rules).unwrap()
            });
            let left: Vec<u64> = voters.learners.iter().map(|id| id.0).collect();
            assert_eq!((found, tree.current_index.0, left), (accepted, index, learners), "{major}.{minor}.{patch}");
        }
    }

    #[test]
    fn a_promotion_keeps_the_created_index() {
        let found = attributes_after(&[
            (ConfChangeKind::AddLearnerNode, r#"{"id":10,"peerURLs":["http://a"],"isLearner":true}"#),
            (ConfChangeKind::AddNode, r#"{"id":10,"peerURLs":["http://a"],"isPromote":true}"#),
        ]);
        let expected =
            [(r#"{"peerURLs":["http://a"],"isLearner":true}"#, 1, 1), (r#"{"peerURLs":["http://a"]}"#, 1, 2)];
        assert_eq!(found, expected.map(|(value, created, modified)| (value.to_string(), created, modified)));
    }
}
