//! The v3 backend of a source: selects that of the newest member; what it contains, and what it proves about the log.
//!
//! Must not know what becomes of the data.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::bolt::Db;
use crate::count::counted;
use crate::display::{lossy, short};
use crate::error::{Error, Reason, Result};
use crate::ids::{MemberId, RaftIndex};
use crate::interrupt::Interrupt;
use crate::mvcc::schema;
use crate::notice::Code;
use crate::options::Existing;
use crate::report::Notice;
use crate::source::map::Map;
use crate::source::member::Member;
use crate::source::open::Opened;
use crate::source::owner::{self, Listed};
use crate::source::recognise;
use crate::v2store::membership;
use crate::v2store::replay::BackendProof;
use crate::verify::{V2v3Tree, V3Content, v3_content};

/// The content of the source's v3 backend, if it has one.
#[derive(Debug, Default)]
pub(super) struct Backend<'m> {
    pub(super) content: V3Content,
    pub(super) consistent_index: Option<RaftIndex>,
    /// The fingerprint of the members in it.
    members: Option<u64>,
    /// The members that the cluster has or had.
    pub(super) listed: Vec<MemberId>,
    /// The file.
    pub(super) map: Option<&'m Map>,
    /// The error if the backend cannot be read. The v2 keys do not need it.
    pub(super) unusable: Option<Error>,
    /// Index of the member that has it.
    member: usize,
}

/// Reads the v3 backends of the members, and returns the one with the highest consistent index. The others should have an
/// earlier state of the same data; a merge checks that.
///
/// # Errors
/// [`Reason::NotOneMember`] if one cannot be that of the member that wrote the log; an interruption.
pub(super) fn newest<'m>(opened: &'m Opened, interrupt: Interrupt<'_>) -> Result<Backend<'m>> {
    let of = |(at, member)| Backend { member: at, ..backend_of(member, opened.start.index(), interrupt) };
    let mut found: Vec<Backend<'_>> = opened.members.iter().enumerate().map(of).collect();
    // Among equals, the lowest id wins, so that the order of the sources does not matter.
    let id = |found: &Backend<'_>| opened.members.get(found.member).and_then(Member::id);
    found.sort_by_key(|found| {
        (found.unusable.is_some(), Reverse(found.map.is_some()), Reverse(found.consistent_index), id(found))
    });
    // An interrupted read looks like damage.
    interrupt.ask()?;
    found.iter().try_for_each(|backend| require_owner(opened, backend, interrupt))?;
    Ok(found.into_iter().next().unwrap_or_default())
}

/// Refuses a backend of another member than the log.
fn require_owner(opened: &Opened, backend: &Backend<'_>, interrupt: Interrupt<'_>) -> Result<()> {
    let (Some(member), Some(map)) = (opened.members.get(backend.member), backend.map) else { return Ok(()) };
    // The members of the start snapshot are not new to the cluster. A server that upgraded the data lists only some in the backend.
    let state = opened.start.snapshot.as_ref().map(|snapshot| snapshot.conf_state.clone()).unwrap_or_default();
    let mut members: BTreeSet<MemberId> = backend.listed.iter().copied().collect();
    if !members.is_empty() {
        members.extend(state.voters.into_iter().chain(state.learners));
    }
    let applied = backend.consistent_index.unwrap_or_default();
    owner::require_backend(member, &Listed { file: map.path(), members, applied }, interrupt)
}

/// Reads the v3 backends of the members other than that of `chosen`.
///
/// # Errors
/// An interruption.
pub(super) fn others<'m>(
    opened: &'m Opened,
    chosen: &Backend<'_>,
    interrupt: Interrupt<'_>,
) -> Result<Vec<Backend<'m>>> {
    let members = opened.members.iter().enumerate().filter(|(at, _)| *at != chosen.member);
    let of = |(at, member)| Backend { member: at, ..backend_of(member, opened.start.index(), interrupt) };
    let found = members.map(of).collect();
    interrupt.ask()?;
    Ok(found)
}

/// Reads a member's backend: the one received with the start snapshot if that is newer than `db` (docs/formats.md 2.4).
fn backend_of<'m>(member: &'m Member, start: RaftIndex, interrupt: Interrupt<'_>) -> Backend<'m> {
    let own = member.db.as_ref().map(|map| content(map, interrupt)).unwrap_or_default();
    let is_older = own.consistent_index.is_none_or(|index| index < start);
    let received = member.received_dbs.iter().find(|(index, _)| *index == start);
    match received.filter(|_| is_older) {
        Some((_, received)) => content(received, interrupt),
        None => own,
    }
}

/// Reads a backend. A file of 0 bytes is an empty database: etcd initialises it at its start.
fn content<'m>(map: &'m Map, interrupt: Interrupt<'_>) -> Backend<'m> {
    if map.bytes().is_empty() {
        return Backend::default();
    }
    if let Some(found) = recognise::foreign(map.bytes()) {
        return Backend {
            map: Some(map),
            unusable: Some(found.refuse(map.path(), "a v3 backend")),
            ..Backend::default()
        };
    }
    let db = Db::open(map.bytes()).map(|db| db.watched(interrupt));
    match db.and_then(|db| Ok((v3_content(&db)?, members(&db)?, listed(&db)?))) {
        Ok((content, members, listed)) => {
            let consistent_index = content.consistent_index.filter(|index| *index > RaftIndex(0));
            Backend { content, consistent_index, members, listed, map: Some(map), ..Backend::default() }
        }
        Err(damage) => {
            let error =
                damage.into_error(Reason::V3Unreadable).context("the v3 backend cannot be read").in_file(map.path());
            Backend { map: Some(map), unusable: Some(error), ..Backend::default() }
        }
    }
}

/// Returns the fingerprint of the members in a backend; `None` if it has none, or they cannot be read.
fn members(db: &Db<'_>) -> Result<Option<u64>, crate::bolt::Damage> {
    #[derive(serde::Deserialize)]
    struct Member {
        id: u64,
        #[serde(default, rename = "isLearner")]
        is_learner: bool,
    }
    let Some(bucket) = db.bucket(schema::MEMBERS)? else { return Ok(None) };
    let mut members = Vec::new();
    for pair in bucket.iter() {
        let Ok(member) = serde_json::from_slice::<Member>(pair?.value) else { return Ok(None) };
        members.push((MemberId(member.id), member.is_learner));
    }
    Ok((!members.is_empty()).then(|| membership::fingerprint(members)))
}

/// Returns the members in a backend, removed ones too.
///
/// # Errors
/// The damage in the file.
pub(super) fn listed(db: &Db<'_>) -> Result<Vec<MemberId>, crate::bolt::Damage> {
    let mut members = Vec::new();
    for name in [schema::MEMBERS, schema::MEMBERS_REMOVED] {
        let Some(bucket) = db.bucket(name)? else { continue };
        for pair in bucket.iter() {
            members.extend(membership::parse_id(pair?.key));
        }
    }
    Ok(members)
}

/// Describes a v2 tree inside v3.
fn v2v3_words(tree: &V2v3Tree) -> String {
    let prefix = short(&lossy(&tree.prefix));
    format!("a v2 tree of `etcd --experimental-enable-v2v3 {prefix}` ({})", counted(tree.keys, "key", "keys"))
}

/// Returns a warning for each v2 tree that a server stored inside v3.
pub(super) fn v2v3_notices(content: &V3Content, becomes: &str) -> impl Iterator<Item = Notice> {
    content
        .v2v3
        .iter()
        .map(move |tree| Notice::new(Code::V2v3Tree, format!("v3 holds {}, {becomes}", v2v3_words(tree))))
}

/// Describes the content of a v3 database.
pub(super) fn describe_v3(map: &Map, interrupt: Interrupt<'_>) -> Result<String> {
    let backend = content(map, interrupt);
    interrupt.ask()?;
    let described = backend.describe().unwrap_or_else(|| "nothing in it".to_string());
    backend.unusable.map_or(Ok(described), Err)
}

impl Backend<'_> {
    /// Returns what the backend proves: the committed entries, and the member that it belongs to.
    pub(super) fn applied(&self) -> Option<BackendProof> {
        self.map?;
        let V3Content { used, term, conf_state, .. } = self.content;
        let index = self.consistent_index.unwrap_or(RaftIndex(0));
        let (marked, members) = (term.is_some() || conf_state, self.members);
        Some(BackendProof { member: self.member, index, used, marked, term, members })
    }

    /// Refuses a backend that cannot be read, because it may hold v3 data.
    ///
    /// # Errors
    /// [`Reason::V3Unreadable`], unless `--existing drop-v3` leaves v3 data out.
    pub(super) fn refuse_unusable(&self, existing: Existing) -> Result<()> {
        match &self.unusable {
            None => Ok(()),
            Some(_) if existing == Existing::DropV3 => Ok(()),
            Some(error) => {
                let without = "--existing drop-v3 converts the v2 keys, which do not need the v3 backend";
                let hint = error.hint_text().map_or(without.to_string(), |hint| format!("{hint}, or {without}"));
                let refusal = Error::new(Reason::V3Unreadable, error.message()).hint(hint);
                let refusal = error.file().into_iter().fold(refusal, |refusal, file| refusal.in_file(file));
                Err(error.offset().into_iter().fold(refusal, Error::at))
            }
        }
    }

    /// Returns the warning that the backend cannot be read, if that is so.
    pub(super) fn unusable_notice(&self) -> Option<Notice> {
        self.unusable.as_ref().map(|error| Notice::new(Code::V3Unreadable, error.to_string()))
    }

    /// Describes the v3 data; `None` if the backend has none.
    pub(super) fn describe(&self) -> Option<String> {
        let V3Content { keys, leases, users, roles, .. } = self.content;
        let found =
            [(keys, "key", "keys"), (leases, "lease", "leases"), (users, "user", "users"), (roles, "role", "roles")];
        let parts: Vec<String> = found
            .iter()
            .filter(|(count, ..)| *count > 0)
            .map(|(count, one, many)| counted(*count, one, many))
            .collect();
        let trees = self.content.v2v3.iter().map(|tree| format!("among them {}", v2v3_words(tree)));
        if parts.is_empty() { None } else { Some(parts.into_iter().chain(trees).collect::<Vec<_>>().join(", ")) }
    }
}
