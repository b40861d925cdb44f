//! Who a member is at the consistent index of its v3 backend: the members, the raft configuration, the version.
//!
//! The v2 store has the members, so the log is replayed up to that index. Servers before 3.6 write names and client URLs only there.
//! The backend has the configuration since 3.5, and all attributes since 3.6 (docs/formats.md 9.6, 9.7). Must not know what is written.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;

use super::changes::Membership;
use crate::bolt::{Damage, Db};
use crate::data_dir::Member;
use crate::error::{Error, Kind, Reason, Result};
use crate::ids::{MemberId, RaftIndex, Term};
use crate::mvcc::schema;
use crate::options::WalDir;
use crate::pipeline::backend::Backend;
use crate::pipeline::check::open_member;
use crate::source::map::Map;
use crate::source::open::OpenOptions;
use crate::source::snap::ConfState;
use crate::v2store::membership::{self, parse_id};
use crate::v2store::recover::recover;
use crate::v2store::replay::{ReplayOptions, read_table_watched};

/// The membership at the consistent index.
#[derive(Debug, Clone, Default)]
pub(super) struct Identity {
    pub(super) members: Vec<Member>,
    pub(super) removed: Vec<MemberId>,
    pub(super) conf_state: ConfState,
    pub(super) version: Option<String>,
    /// The term of the last applied entry, if the backend has it.
    pub(super) term: Option<Term>,
    /// Whether the bucket `members` has other members than the raft configuration.
    pub(super) differs: bool,
    /// The members in the bucket `members`, and the removed ones.
    pub(super) in_backend: (Vec<Member>, Vec<MemberId>),
}

impl Identity {
    /// Returns the membership of the cluster, and the same raft configuration with the members of the backend.
    pub(super) fn memberships(&self) -> [Membership; 2] {
        let (members, removed) = &self.in_backend;
        [(&self.members, &self.removed), (members, removed)]
            .map(|(members, removed)| Membership::new(members, removed, &self.conf_state))
    }
}

/// The raft configuration in a backend. etcd writes it as JSON.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Configuration {
    voters: Option<Vec<u64>>,
    learners: Option<Vec<u64>>,
    voters_outgoing: Option<Vec<u64>>,
    learners_next: Option<Vec<u64>>,
}

/// Reads the membership of a source at `index`.
///
/// # Errors
/// The backend or the log is damaged; the configuration cannot be expressed; an interruption.
pub(super) fn read(
    (path, wal_dir): (&Path, Option<&WalDir>),
    (backend, map): (&Backend<'_>, &Map),
    index: RaftIndex,
    options: &OpenOptions<'_>,
) -> Result<Identity> {
    let stored = of_backend(map, options).map_err(|e| e.in_file(map.path()))?;
    let up_to = OpenOptions { up_to: Some(index), ..options.clone() };
    let mut found = match replayed(path, wal_dir, backend, &up_to) {
        // A request that no server applies. Since 3.5, the backend has the members too, if not all of their attributes.
        Err(e) if e.kind() == Kind::Damaged && stored.term.is_some() && !stored.members.is_empty() => stored.clone(),
        found => found?,
    };
    for member in &mut found.members {
        let Some(stored) = stored.members.iter().find(|stored| stored.id == member.id) else { continue };
        if member.name.is_empty() {
            member.name.clone_from(&stored.name);
        }
        if member.client_urls.is_empty() {
            member.client_urls.clone_from(&stored.client_urls);
        }
    }
    if !stored.conf_state.voters.is_empty() {
        found.conf_state = stored.conf_state;
    }
    found.version = stored.version.or(found.version);
    found.term = stored.term;
    let ids = |members: &[Member], learners| -> Vec<MemberId> {
        members.iter().filter(|member| member.is_learner == learners).map(|member| member.id).collect()
    };
    if found.conf_state.voters.is_empty() {
        found.conf_state = ConfState { voters: ids(&found.members, false), learners: ids(&found.members, true) };
    }
    if found.conf_state.voters.is_empty() {
        let message = "the raft configuration has no voter at the consistent index of the v3 backend";
        return Err(Error::new(Reason::CannotContinue, message).in_file(map.path()));
    }
    let set = |ids: &[MemberId]| ids.iter().copied().collect::<BTreeSet<_>>();
    let ConfState { voters, learners } = &found.conf_state;
    let (stored_voters, stored_learners) = (ids(&stored.members, false), ids(&stored.members, true));
    found.differs = (set(&stored_voters), set(&stored_learners)) != (set(voters), set(learners));
    found.in_backend = (stored.members, stored.removed);
    Ok(found)
}

fn of_backend(map: &Map, options: &OpenOptions<'_>) -> Result<Identity> {
    let damaged = |e: Damage| e.into_error(Reason::V3Unreadable);
    let db = Db::open(map.bytes()).map_err(damaged)?.watched(options.interrupt);
    let bucket = |name: &[u8]| db.bucket(name).map_err(damaged);
    let mut found = Identity::default();
    for pair in bucket(schema::MEMBERS)?.iter().flat_map(|bucket| bucket.iter()) {
        let pair = pair.map_err(damaged)?;
        found.members.push(Member::parse(pair.value).ok_or_else(|| {
            let message = "expected a member as JSON in the bucket `members`, found something else";
            Error::new(Reason::V3Unreadable, message).at(pair.value_offset())
        })?);
    }
    for pair in bucket(schema::MEMBERS_REMOVED)?.iter().flat_map(|bucket| bucket.iter()) {
        found.removed.extend(parse_id(pair.map_err(damaged)?.key));
    }
    let get = |name: &[u8], key: &[u8]| match bucket(name)? {
        Some(bucket) => bucket.get(key).map_err(damaged),
        None => Ok(None),
    };
    let version = get(schema::CLUSTER, schema::CLUSTER_VERSION)?;
    found.version = version.map(|pair| String::from_utf8_lossy(pair.value).into_owned());
    let term = get(schema::META, schema::TERM)?.and_then(|pair| pair.value.try_into().ok().map(u64::from_be_bytes));
    found.term = term.filter(|term| *term > 0).map(Term);
    if let Some(pair) = get(schema::META, schema::CONF_STATE)? {
        found.conf_state = configuration(pair.value).map_err(|e| e.at(pair.value_offset()))?;
    }
    Ok(found)
}

fn configuration(value: &[u8]) -> Result<ConfState> {
    let refuse = |message: &str| Error::new(Reason::V3Unreadable, message);
    let found: Configuration = serde_json::from_slice(value)
        .map_err(|_| refuse("expected the raft configuration as JSON in the key `confState`, found something else"))?;
    // etcd changes one member at a time, so it never has a joint configuration.
    if [&found.voters_outgoing, &found.learners_next].iter().any(|ids| ids.as_ref().is_some_and(|ids| !ids.is_empty()))
    {
        return Err(refuse("the raft configuration is a joint one, which etcd never writes"));
    }
    let ids = |ids: Option<Vec<u64>>| ids.unwrap_or_default().into_iter().map(MemberId).collect();
    Ok(ConfState { voters: ids(found.voters), learners: ids(found.learners) })
}

/// Replays the log up to an index, for what the v2 store says of the members.
fn replayed(
    path: &Path,
    wal_dir: Option<&WalDir>,
    backend: &Backend<'_>,
    options: &OpenOptions<'_>,
) -> Result<Identity> {
    let opened = open_member(path, wal_dir, options)?;
    let table = read_table_watched(&opened, options.interrupt)?;
    let replay = ReplayOptions { up_to: options.up_to, interrupt: options.interrupt, ..ReplayOptions::default() };
    let recovered = recover(&opened, &table, backend.applied(), &replay);
    let mut recovered = recovered.map_err(|e| e.in_file(opened.path()))?;
    let voters = recovered.replay.voters.clone();
    let tree = &mut recovered.replay.tree;
    let member = |facts: membership::MemberFacts| Member {
        id: facts.id,
        is_learner: voters.learners.contains(&facts.id),
        peer_urls: facts.peer_urls,
        name: facts.name,
        client_urls: facts.client_urls,
    };
    let members = membership::list(tree).into_iter().map(member).collect();
    let conf_state = ConfState {
        voters: voters.voters.iter().copied().collect(),
        learners: voters.learners.iter().copied().collect(),
    };
    let (removed, version) = (membership::removed(tree), membership::cluster_version(tree));
    opened.check_bytes(options.interrupt)?;
    Ok(Identity { members, removed, conf_state, version, ..Identity::default() })
}
