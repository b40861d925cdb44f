//! The evidence in a source about the version of the server that started last, and the entries on which versions differ
//! (docs/formats.md 6.11).
//!
//! One pass over the entries before the replay. Every bound here is checked against the source code of etcd and against
//! the corpus of real directories. Knows requests and files. Must not know how bounds combine, which `dialect` knows.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::ids::{MemberId, RaftIndex};
use crate::source::dir::Layout;
use crate::source::member::Member;
use crate::source::open::Opened;
use crate::source::raft::{
    ConfChange, ConfChangeKind, Entry, EntryKind, Method, Proposal, Request, parse_conf_change, parse_proposal,
};
use crate::source::wal::Wal;
use crate::v2store::apply::{is_attributes_path, version_in};
use crate::v2store::dialect::{Evidence, Limit, Place, Rules, Version};
use crate::v2store::replay::{BATCH, BackendProof, ReplayInput, read_ahead};
use crate::v2store::table::Table;
use crate::v2store::tree::Tree;
use crate::v2store::{membership, path};

/// The result of the pass.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The bounds of the version.
    pub(super) evidence: Evidence,
    /// The rules that make a difference for an entry of the log.
    pub(super) exercised: Rules,
    /// The members in the v3 backend, if the server that started last changed a learner in it.
    pub(super) members: Option<(u64, RaftIndex)>,
}

/// Examines the files of the source and all entries above `start`. Entries above `up_to` are evidence, but are not
/// replayed.
///
/// # Errors
/// The bytes of an entry changed since the first read; an interruption.
pub(super) fn gather(input: &ReplayInput<'_, '_>) -> Result<Found> {
    let ReplayInput { opened, table, backend, options, .. } = *input;
    let mut scan = Scan::new(opened, &mut Tree::new(table), input.up_to());
    let mut last = opened.start.index();
    for batch in input.committed.chunks(BATCH) {
        read_ahead(opened, batch);
        for located in batch {
            options.interrupt.ask()?;
            if let Some(wal) = opened.members.get(located.member).and_then(|member| member.wal.as_ref()) {
                scan.entry(&wal.entry(&located.entry)?);
                last = located.entry.index;
            }
        }
    }
    for wal in opened.members.iter().filter_map(|member| member.wal.as_ref()) {
        for reference in wal.entries().iter().filter(|entry| entry.index > last) {
            options.interrupt.ask()?;
            scan.entry(&wal.entry(reference)?);
        }
    }
    Ok(scan.finish(opened, table, backend))
}

/// A cluster version, and the entry that set it.
type Set = (Version, RaftIndex);

/// The state of the pass.
struct Scan {
    up_to: RaftIndex,
    /// Paths of the attributes of the given members.
    own_attributes: BTreeSet<Vec<u8>>,
    members: BTreeSet<MemberId>,
    removed: bool,
    learners: bool,
    /// The last update of a member while a learner existed.
    learner_updated: Option<RaftIndex>,
    cluster_version: Option<Set>,
    lowered: Option<RaftIndex>,
    started: Option<RaftIndex>,
    /// The last change of the members.
    changed: RaftIndex,
    /// The last entry without data: the first entry of a leader.
    elected: Option<RaftIndex>,
    /// The last request that is not one that a server makes at its start.
    served: Option<RaftIndex>,
    refresh: Option<RaftIndex>,
    v3_request: Option<(u32, RaftIndex)>,
    exercised: Rules,
}

impl Scan {
    fn new(opened: &Opened, tree: &mut Tree<'_>, up_to: RaftIndex) -> Scan {
        let start = opened.start.index();
        let ids = opened.members.iter().filter_map(Member::id);
        let version = membership::cluster_version(tree).and_then(|text| Version::parse(text.as_bytes()));
        let removed = tree.lookup(b"/0/removed_members").is_ok_and(|dir| tree.has_children(dir));
        let learners = opened.start.snapshot.as_ref().is_some_and(|s| !s.conf_state.learners.is_empty());
        Scan {
            up_to,
            own_attributes: ids.map(|id| membership::attributes_path(id).into_bytes()).collect(),
            members: membership::member_ids(tree).into_iter().collect(),
            removed,
            learners,
            learner_updated: None,
            cluster_version: version.map(|version| (version, start)),
            lowered: None,
            started: None,
            changed: start,
            elected: None,
            served: None,
            refresh: None,
            v3_request: None,
            exercised: Rules::default(),
        }
    }

    /// Examines an entry. The replay reports an unreadable one.
    fn entry(&mut self, entry: &Entry<'_>) {
        match entry.kind {
            EntryKind::Normal => {}
            EntryKind::ConfChange => {
                if let Ok(change) = parse_conf_change(entry.data, entry.data_offset) {
                    self.conf_change(&change, entry.index);
                }
                return;
            }
            EntryKind::ConfChangeV2 => return,
        }
        match parse_proposal(entry.data, entry.data_offset) {
            Ok(Proposal::Empty) => self.elected = Some(entry.index),
            Ok(Proposal::V2(request)) => self.request(&request, entry.index),
            Ok(Proposal::V3(request)) => {
                self.v3_request = Some((request.field, entry.index));
                self.served = Some(entry.index);
            }
            Ok(Proposal::ClusterVersionSet(message)) => {
                if let Ok(text) = version_in(message) {
                    self.set_version(text, entry.index);
                }
            }
            Ok(Proposal::MemberAttributesSet(_)) | Err(_) => {}
        }
    }

    fn exercise(&mut self, rules: Rules, index: RaftIndex, when: bool) {
        if when && index <= self.up_to {
            self.exercised = self.exercised.and(rules);
        }
    }

    fn conf_change(&mut self, change: &ConfChange<'_>, index: RaftIndex) {
        self.changed = index;
        match change.kind {
            ConfChangeKind::RemoveNode => {
                self.members.remove(&change.node_id);
                self.removed = true;
            }
            ConfChangeKind::AddLearnerNode => {
                self.members.insert(change.node_id);
                self.learners = true;
                self.exercise(Rules::ONE_LEARNER, index, true);
            }
            ConfChangeKind::AddNode => {
                self.members.insert(change.node_id);
            }
            ConfChangeKind::UpdateNode if self.learners => {
                self.learner_updated = Some(index);
                self.exercise(Rules::LASTING_LEARNERS, index, true);
            }
            ConfChangeKind::UpdateNode => {}
        }
    }

    fn set_version(&mut self, text: &[u8], index: RaftIndex) {
        let Some(version) = Version::parse(text) else { return };
        if self.cluster_version.is_some_and(|(before, _)| version < before) {
            self.lowered = Some(index);
        }
        self.cluster_version = Some((version, index));
    }

    fn request(&mut self, request: &Request<'_>, index: RaftIndex) {
        if request.refresh.is_some() {
            self.refresh = Some(index);
        }
        let plain = request.method == Method::Put
            && request.prev_exist.is_none()
            && request.prev_index == 0
            && request.prev_value.is_empty();
        if plain && request.path == b"/0/version" {
            return self.set_version(request.val, index);
        }
        if plain && is_attributes_path(request.path) {
            return self.attributes(request, index);
        }
        self.served = Some(index);
        if !request.is_write() {
            return;
        }
        let compares = request.prev_index > 0 || !request.prev_value.is_empty();
        let (put, refresh) = (request.method == Method::Put, request.refresh == Some(true));
        let update = put && request.prev_exist == Some(true);
        let namespace = matches!(path::clean(request.path).as_ref(), b"/0" | b"/1");
        self.exercise(Rules::READ_ONLY_NAMESPACES, index, namespace);
        self.exercise(Rules::COMPARED_UPDATES, index, update && compares);
        self.exercise(Rules::PADDED_NAMES, index, request.method == Method::Post);
        self.exercise(Rules::REFRESH, index, put && refresh);
        self.exercise(Rules::REFRESH_IN_SWAPS, index, put && refresh && compares);
        self.exercise(Rules::FIXED_DIRECTORIES, index, update && request.val.is_empty());
    }

    /// Examines a write of member attributes, or of a key with such a path.
    fn attributes(&mut self, request: &Request<'_>, index: RaftIndex) {
        if self.own_attributes.contains(request.path) {
            self.started = Some(index);
        }
        let name = request.path.strip_prefix(b"/0/members/").and_then(|rest| rest.strip_suffix(b"/attributes"));
        let id = name.and_then(membership::parse_id);
        let of_member = id.is_some_and(|id| membership::attributes_path(id).as_bytes() == request.path);
        let odd = !of_member || request.dir || request.expiration != 0;
        self.exercise(Rules::REMOVED_ATTRIBUTES, index, odd || self.removed);
        self.exercise(Rules::RE_ENCODED_ATTRIBUTES, index, odd);
    }

    fn finish(mut self, opened: &Opened, table: &Table<'_>, backend: Option<BackendProof>) -> Found {
        let mut evidence = Evidence { started: self.started, lowered: self.lowered, ..Evidence::default() };
        let backup = self.is_backup(opened);
        let start = opened.start.index();
        let sole =
            !backup && self.members.len() == 1 && self.elected.map_or(self.changed == start, |at| at > self.changed);
        if sole {
            // The server was elected before it published its attributes.
            evidence.started = self.started.min(self.elected);
        }
        self.cluster(&mut evidence, backup, sole);
        self.requests(&mut evidence);
        for wal in opened.members.iter().filter_map(|member| member.wal.as_ref()) {
            marks(&mut evidence, wal, backup);
        }
        snapshot(&mut evidence, opened, table);
        if !backup {
            if let Some(proof) = backend {
                self.backend(&mut evidence, opened, proof);
            }
            if opened.start_member().is_some_and(|member| member.layout == Some(Layout::Member)) {
                let proof = "the directory has the folder `member`, which 2.0.2 is the first to make";
                evidence.add(Limit::AtLeast(Version::new(2, 0, 2)), Place::End, proof, Some(opened.path().to_owned()));
            }
        }
        let members = backend.and_then(|proof| self.members_in(proof));
        Found { evidence, exercised: std::mem::take(&mut self.exercised), members }
    }

    /// Returns the members in the backend, if the server that started last left them. That needs all changes of members
    /// in the backend, and the last update of a learner by that server. Changes of an earlier server follow the rules
    /// of that server.
    fn members_in(&self, proof: BackendProof) -> Option<(u64, RaftIndex)> {
        let updated = self.learner_updated.filter(|at| self.started.is_none_or(|started| started < *at))?;
        let whole = proof.marked && self.changed <= proof.index;
        proof.members.filter(|_| whole).map(|members| (members, updated))
    }

    /// Returns whether `etcdctl backup` wrote the source: the records have its order, and the node id is not that of a
    /// member (docs/formats.md 1.4).
    fn is_backup(&self, opened: &Opened) -> bool {
        let in_order = opened.wal().is_some_and(Wal::has_backup_order);
        in_order && opened.start_member().and_then(Member::id).is_some_and(|id| !self.members.contains(&id))
    }

    fn cluster(&self, evidence: &mut Evidence, backup: bool, sole: bool) {
        if let Some((version, index)) = self.cluster_version {
            let line = Version { patch: 0, ..version };
            let proof = format!("the cluster version {version}: no member was older when it was set");
            evidence.add(Limit::AtLeast(line), Place::At(index), proof, None);
        }
        let served = self.served.filter(|served| self.elected.is_none_or(|elected| *served > elected));
        let Some(served) = served.filter(|_| !backup) else { return };
        let (limit, proof) = match (self.cluster_version, sole) {
            (Some((version, _)), true) => {
                let proof = format!(
                    "the cluster version {version}: the only member raises it to its own version as soon as it is elected"
                );
                (version.next_line(), proof)
            }
            (None, true) => (Version::new(2, 1, 0), format!("no cluster version: {SETS}")),
            (None, false) => {
                (Version::new(2, 2, 0), format!("no cluster version: {SETS}, and 2.2 does not follow a leader of 2.0"))
            }
            (Some(_), false) => return,
        };
        evidence.add(Limit::Below(limit), Place::At(served), proof, None);
    }

    fn requests(&self, evidence: &mut Evidence) {
        if let Some(index) = self.refresh {
            let proof = "a request with the field for `refresh`, which 2.3 is the first to write";
            evidence.add(Limit::AtLeast(Version::new(2, 3, 0)), Place::At(index), proof, None);
        }
        if let Some((field, index)) = self.v3_request {
            let version = match field {
                1302 => Version::new(3, 5, 0),
                11 => Version::new(3, 4, 0),
                1000.. => Version::new(3, 0, 0),
                _ => Version::new(2, 3, 0),
            };
            let proof = "a v3 request (InternalRaftRequest)";
            evidence.add(Limit::AtLeast(version), Place::At(index), proof, None);
        }
    }

    /// Examines the backend. A 3.5 server writes `meta/term` with every commit of its backend. 3.4.31 and later remove
    /// it when they take over; earlier servers leave it unchanged.
    fn backend(&self, evidence: &mut Evidence, opened: &Opened, proof: BackendProof) {
        const V3_5: Version = Version::new(3, 5, 0);
        let member = opened.members.get(proof.member);
        let file = member.and_then(|member| member.db.as_ref()).map(|db| db.path().to_owned());
        if !proof.marked {
            if proof.used {
                let text = "the v3 backend has no `meta/term`, which 3.5 writes with every commit";
                evidence.add(Limit::Below(V3_5), Place::End, text, file);
            }
            return;
        }
        let entry = member.and_then(|member| member.wal.as_ref()?.at(proof.index));
        let stale = entry.is_some_and(|entry| proof.term.is_some_and(|term| term < entry.term));
        let at = Place::At(proof.index);
        if stale {
            let text = "the v3 backend's `meta/term` is lower than the term at its consistent index: a server before 3.5 ran \
                        after one of 3.5";
            evidence.add(Limit::Below(V3_5), at, text, file);
        } else if self.started.is_none_or(|started| started <= proof.index) {
            let text = "the v3 backend has `meta/term` or `confState`, which 3.5 is the first to write";
            evidence.add(Limit::AtLeast(V3_5), at, text, file);
        }
    }
}

/// What every leader since 2.1 does.
const SETS: &str = "a leader of 2.1 or later sets one as soon as it is elected";

/// Examines the form of the log's records.
fn marks(evidence: &mut Evidence, wal: &Wal, backup: bool) {
    const V2_1: Version = Version::new(2, 1, 0);
    const V3_0: Version = Version::new(3, 0, 0);
    const V3_5: Version = Version::new(3, 5, 0);
    let marks = wal.marks();
    let file = || wal.last_segment().map(|segment| segment.name.path.clone());
    let mut add = |limit, at: RaftIndex, proof: &str, file: Option<PathBuf>| {
        evidence.add(limit, Place::At(at), proof, file);
    };
    if let Some((padded, at)) = marks.frame {
        let (limit, proof) = match padded {
            true => (Limit::AtLeast(V3_0), "padded frames in the log, which 3.0 is the first to write"),
            false => (Limit::Below(V3_0), "frames without padding at the end of the log, which 3.0 pads"),
        };
        add(limit, at, proof, file());
        if let Some(first) = marks.padded.filter(|_| !padded) {
            add(Limit::AtLeast(V3_0), first, "padded frames before the end of the log", None);
        }
    }
    if let Some((field, at)) = marks.empty_data {
        let (limit, proof) = match field {
            true => (Limit::Below(V2_1), "an entry without data has the field for it, which only 2.0 writes"),
            false => (Limit::AtLeast(V2_1), "an entry without data lacks the field for it, which 2.0 always writes"),
        };
        add(limit, at, proof, None);
    }
    // `etcdctl backup` writes all entries first, in every version.
    if let Some(at) = marks.state_after_entry.filter(|_| !backup) {
        add(Limit::AtLeast(V2_1), at, "a hard state after the entries of its term, which 2.0 writes before them", None);
    }
    if let Some((configured, at)) = marks.configured {
        let (limit, proof) = match configured {
            true => {
                (Limit::AtLeast(V3_5), "a snapshot record with the raft configuration, which 3.5 is the first to write")
            }
            false => (Limit::Below(V3_5), "a snapshot record without the raft configuration, which 3.5 always writes"),
        };
        add(limit, at, proof, None);
    }
}

/// Examines the form of the start snapshot.
fn snapshot(evidence: &mut Evidence, opened: &Opened, table: &Table<'_>) {
    /// The fields of the root node fit; keys and values follow.
    const ROOT: usize = 256;
    let Some(snapshot) = &opened.start.snapshot else { return };
    let (json, at) = (snapshot.json(), Place::At(snapshot.index));
    let file = |path: &Path| Some(path.to_owned());
    if memchr::memmem::find(json.get(..ROOT).unwrap_or(json), br#""ACL":""#).is_some() {
        let proof = "nodes of the snapshot have the field `ACL`, which only 2.0 writes";
        evidence.add(Limit::Below(Version::new(2, 1, 0)), at, proof, file(snapshot.path()));
    }
    if memchr::memmem::find(table.history(), br#""refresh":true"#).is_some() {
        let proof = "the snapshot's event history has the field `refresh`, which 2.3.6 is the first to write";
        evidence.add(Limit::AtLeast(Version::new(2, 3, 6)), at, proof, file(snapshot.path()));
    }
}
