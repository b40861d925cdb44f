//! Puts the results of the stages into the report: what the source is, its content, warnings and losses.
//!
//! Decides nothing.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::completeness::{self, Completeness};
use super::versions;
use crate::count::counted;
use crate::display::{first_of, lossy, short};
use crate::error::Error;
use crate::ids::RaftIndex;
use crate::notice::Code;
use crate::options::{AuthPolicy, ConvertOptions};
use crate::report::facts::{AuthFacts, ExpiredKey, Oversized, Part, SalvageStart, SourceKind, TailWrite};
use crate::report::{self, Count, Report, SourceFacts, Tail};
use crate::source::dir::Layout;
use crate::source::entries::End;
use crate::source::member::Member;
use crate::source::open::{Attempt, Opened, Outcome};
use crate::source::wal::Wal;
use crate::transform::auth::{Auth, AuthNames};
use crate::transform::inventory::FirstElements;
use crate::transform::lease::MAX_SECONDS;
use crate::transform::plan::Plan;
use crate::transform::policy::{NAMESPACE, Policy};
use crate::transform::revisions::Ordered;
use crate::v2store::replay::Recovered;
use crate::v2store::tree::{NodeRef, Tree};
use crate::v2store::{membership, path, replay};

/// Reports the source, the proof of its state, and what may be missing. Returns the reason why only `--salvage` may use the
/// state, if there is one.
#[must_use]
pub(super) fn source(report: &mut Report, opened: &Opened, recovered: &mut Recovered<'_>) -> Option<Error> {
    report.source = source_facts(opened, recovered);
    versions::facts(&mut report.source, &recovered.versions);
    versions::notices(report, &recovered.versions);
    report.tail = tail(&recovered.tail);
    let completeness = completeness::assess(opened, recovered);
    passed_over(report, opened, recovered.replay.applied, completeness.proven);
    let refusal = log_state(report, opened, recovered, completeness);
    backup(report, opened, recovered);
    let index = recovered.replay.applied;
    let v2_index = recovered.v2_index();
    if opened.wal().is_none() {
        let message = format!("state at raft index {index}, v2 index {v2_index}; later writes are not in this file");
        report.warn(Code::SnapshotOnly, message);
    }
    if opened.start_member().is_some_and(|member| member.layout == Some(Layout::Log)) {
        let message = "only the log was read; a data directory also has snapshots and a v3 database";
        report.warn(Code::LogOnly, message);
    }
    if opened.is_live() {
        let message = format!(
            "an etcd is running on the source: the output has its state at raft index {index}, v2 index {v2_index}, and no later \
             writes"
        );
        report.warn(Code::Live, message);
    }
    let voters = &recovered.replay.voters.voters;
    let given = opened.members.iter().filter_map(Member::id).filter(|id| voters.contains(id)).count();
    let (voters, majority) = (voters.len(), given > voters.len() / 2);
    if opened.wal().is_some() && voters > 1 && !majority && !recovered.backup {
        let (given, they) = if given == 1 { ("one".to_string(), "it") } else { (given.to_string(), "they") };
        let message =
            format!("{given} of {voters} voters: {they} may be behind; name the others too (raft index {index})");
        report.warn(Code::OneOfSeveralVoters, message);
    }
    if !recovered.replay.ambiguous_expiries.is_empty() {
        let message = format!(
            "{} a directory and a node below it expired at the same instant: etcd counts one or two indexes for both, so \
             later indexes may differ by one for each",
            counted(recovered.replay.ambiguous_expiries.len() as u64, "time", "times")
        );
        report.warn(Code::AmbiguousExpiry, message);
    }
    refusal
}

pub(super) fn source_facts(opened: &Opened, recovered: &mut Recovered<'_>) -> SourceFacts {
    let snapshot = opened.start.snapshot.as_ref();
    let wal = opened.wal();
    let range = wal.and_then(Wal::range);
    let metadata = wal.and_then(Wal::metadata);
    let layout = opened.start_member().and_then(|member| member.layout);
    let replay = &mut recovered.replay;
    let kind = match (layout, wal, snapshot, recovered.backup) {
        (None, ..) => SourceKind::SnapFile,
        (.., true) => SourceKind::Backup,
        (_, Some(_), None, _) => SourceKind::WalOnly,
        _ => SourceKind::DataDir,
    };
    SourceFacts {
        kind,
        layout,
        cluster_version: membership::cluster_version(&mut replay.tree),
        snapshot_file: snapshot.map(|s| s.path().display().to_string()),
        snapshot_term: snapshot.map(|s| s.term.0),
        snapshot_index: snapshot.map(|s| s.index.0),
        segments: wal.map_or(0, |wal| wal.maps().count() as u64),
        first_entry: range.map(|(first, _)| first.0),
        last_entry: range.map(|(_, last)| last.0),
        commit: wal.and_then(Wal::hard_state).map(|state| state.commit.0),
        effective_commit: Some(replay.applied.0),
        commit_evidence: Some(recovered.commit_by.phrase().to_string()),
        raft_index: Some(replay.applied.0),
        v2_index: Some(replay.tree.current_index.0),
        last_sync: replay.last_sync.map(|at| at.to_string()),
        torn_tail: wal.and_then(|wal| match wal.end() {
            End::Torn { offset, .. } => Some(*offset),
            End::Clean | End::Damaged(_) => None,
        }),
        cluster_id: metadata.map(|m| m.cluster_id.to_string()),
        member_id: metadata.map(|m| m.node_id.to_string()),
        voters: replay.voters.voters.iter().map(ToString::to_string).collect(),
        parts: parts(opened, recovered),
        salvage_starts: opened.attempts.iter().map(salvage_start).collect(),
        members: members(recovered),
        ..SourceFacts::default()
    }
}

fn salvage_start(start: &Attempt) -> SalvageStart {
    let (raft_index, keys, not_replayed) = match &start.outcome {
        Outcome::Reached(raft_index, keys) => (Some(raft_index.0), Some(*keys), None),
        Outcome::Failed(why) => (None, None, Some(why.to_string())),
        Outcome::NotTried => (None, None, Some("too many starts: only the most promising were tried".to_string())),
    };
    SalvageStart {
        snapshot_file: start.path.as_ref().map(|path| path.display().to_string()),
        from: start.start.0,
        raft_index,
        keys,
        not_replayed,
        chosen: start.chosen,
    }
}

/// Lists what was taken from each of several sources.
fn parts(opened: &Opened, recovered: &Recovered<'_>) -> Vec<Part> {
    if opened.members.len() < 2 {
        return Vec::new();
    }
    let part = |(at, member): (usize, &Member)| {
        let wal = member.wal.as_ref();
        Part {
            path: member.path.display().to_string(),
            member_id: wal.and_then(Wal::metadata).map_or(String::new(), |metadata| metadata.node_id.to_string()),
            commit: wal.map_or(0, |wal| wal.commit().0),
            last_entry: wal.and_then(Wal::range).map_or(0, |(_, last)| last.0),
            start: at == opened.start.member,
            entries_taken: recovered.taken_from.get(at).copied().unwrap_or(0),
        }
    };
    opened.members.iter().enumerate().map(part).collect()
}

fn members(recovered: &mut Recovered<'_>) -> Vec<report::Member> {
    let members = membership::list(&mut recovered.replay.tree);
    let member = |m: membership::MemberFacts| report::Member {
        id: m.id.to_string(),
        name: m.name,
        peer_urls: m.peer_urls,
        client_urls: m.client_urls,
    };
    members.into_iter().map(member).collect()
}

/// Returns a clause for a message that a source holds nothing; empty unless the source is possibly incomplete.
pub(super) fn possibly_incomplete(report: &Report) -> String {
    let first = report.losses.first().map(|loss| format!("; the source is possibly incomplete: {}", loss.message));
    first.unwrap_or_default()
}

/// Reports the snapshots that were not used. A snapshot beyond the last applied entry held more than the output, which is a loss.
fn passed_over(report: &mut Report, opened: &Opened, applied: RaftIndex, proven: bool) {
    for passed in &opened.start.passed_over {
        let path = passed.path.display().to_string();
        // An error about the file already names it.
        let why = passed.why.strip_prefix(&path).and_then(|why| why.strip_prefix(": ")).unwrap_or(&passed.why);
        let message = format!("{path} was not used: {why}");
        if passed.index > applied {
            let message =
                format!("{message}; its state is at raft index {}, that of the output at {applied}", passed.index);
            report.lose(Code::OlderSnapshot, message);
        } else if passed.damaged && !proven && opened.wal().is_some() {
            let message = format!("{message}; a damaged member of several does not prove that nothing is missing");
            report.lose(Code::DamagedSnapshot, message);
        } else {
            report.warn(Code::SnapshotPassedOver, message);
        }
    }
}

fn log_state(
    report: &mut Report,
    opened: &Opened,
    recovered: &Recovered<'_>,
    completeness: Completeness,
) -> Option<Error> {
    let Completeness { warnings, losses, refusal, .. } = completeness;
    report.warnings.extend(warnings);
    report.losses.extend(losses);
    let start = opened.start.snapshot.as_ref().map(|snapshot| snapshot.path());
    if let Some(broken) = start.filter(|path| opened.salvage && path.extension().is_some_and(|end| end == "broken")) {
        report.lose(Code::Salvaged, format!("started from {}, whose state the log does not confirm", broken.display()));
    }
    if opened.salvage && opened.members.iter().all(|member| member.wal.is_none()) {
        report.lose(
            Code::Salvaged,
            "the log is missing: the state is that of the snapshot, and later entries are unknown",
        );
    }
    if let Some(missing) = &recovered.not_found {
        let code = if opened.salvage { Code::Salvaged } else { Code::CutCopy };
        report.lose(code, format!("skipped what is missing: {missing}"));
    }
    if let Some(first) = report.tail.writes.first() {
        let writes = counted(report.tail.v2_writes, "v2 write", "v2 writes");
        let (applied, named) = (recovered.replay.applied, format!("{} {}", first.method, short(&first.key)));
        let is_cut_off = |wal: &Wal| wal.hole_above(applied).is_some();
        let cut_off = opened.members.iter().filter_map(|member| member.wal.as_ref()).any(is_cut_off);
        if opened.salvage && (cut_off || recovered.not_found.is_some()) {
            let message = format!(
                "{writes} in the log after raft index {applied} dropped, because earlier entries are lost (the first: {named})"
            );
            report.lose(Code::Salvaged, message);
        } else {
            let message = format!(
                "{writes} in the log after raft index {applied} left out, because nothing proves a commit (the first: {named}); if \
                 a client was told of success, convert with --tail all"
            );
            report.lose(Code::TailLeftOut, message);
        }
    }
    if recovered.replay.unknown_members > 0 {
        let message = format!(
            "{} for members that the store does not know; etcd would stop there",
            counted(recovered.replay.unknown_members, "attribute write", "attribute writes")
        );
        report.warn(Code::UnknownMember, message);
    }
    refusal
}

fn tail(tail: &replay::Tail) -> Tail {
    Tail {
        entries: tail.entries,
        v2_writes: tail.writes.len() as u64,
        writes: tail.writes.iter().map(write_line).collect(),
    }
}

fn write_line(write: &replay::TailWrite) -> TailWrite {
    TailWrite {
        raft_index: write.index.0,
        term: write.term.0,
        method: write.method.to_string(),
        key: lossy(write.path.strip_prefix(NAMESPACE).unwrap_or(&write.path)),
        value_bytes: write.value_len as u64,
    }
}

/// Reports a backup. A backup by 3.3 or later lacks entries that raised the index, so writes after its snapshot replay
/// differently from what the cluster served (docs/formats.md 1.4).
fn backup(report: &mut Report, opened: &Opened, recovered: &Recovered<'_>) {
    let Some(wal) = opened.wal().filter(|_| recovered.backup) else { return };
    report.warn(Code::Backup, "made by `etcdctl backup`: writes after the backup are not in it");
    if opened.start_member().is_none_or(|member| member.db.is_none()) {
        return;
    }
    let mut writes = 0u64;
    for reference in wal.entries().iter().filter(|entry| entry.index > opened.start.index()) {
        let Ok(entry) = wal.entry(reference) else { continue };
        if entry.index > recovered.replay.applied {
            continue;
        }
        let Some(write) = replay::write_in(&entry) else { continue };
        writes += 1;
        if write.depends_on_index {
            report.uncertain.push(write_line(&write));
        }
    }
    if writes > 0 {
        let message = format!(
            "this backup was made by etcdctl 3.3 or later and has {} after its snapshot, {} \
             (listed in the report): a server started on it may serve other indexes than the cluster did; convert the \
             data directory that it was made from, if it still exists",
            counted(writes, "v2 write", "v2 writes"),
            counted(
                report.uncertain.len() as u64,
                "of them an in-order key or index compare",
                "of them in-order keys or index compares"
            )
        );
        report.lose(Code::BackupRenumbered, message);
    }
}

/// Reports the names of users and roles.
pub(super) fn auth_names(report: &mut Report, names: &AuthNames) {
    report.contents.auth_enabled = names.enabled;
    report.contents.users.clone_from(&names.users);
    report.contents.roles.clone_from(&names.roles);
}

/// Reports which users, roles and permissions the output has, and which it lacks.
pub(super) fn auth(report: &mut Report, options: &ConvertOptions, auth: &Auth) {
    let policy = options.auth;
    report.auth = AuthFacts {
        enabled: auth.enabled,
        users: auth.users.len() as u64,
        roles: auth.roles.len() as u64,
        permissions: auth.roles.iter().map(|role| role.permissions.len() as u64).sum(),
        guest_dropped: auth.guest_dropped,
        widened: auth.widened.clone(),
        cut: auth.cut.clone(),
        matched_nothing: auth.matched_nothing.clone(),
    };
    let contents = &report.contents;
    let there = !contents.users.is_empty() || !contents.roles.is_empty();
    let was_on = contents.auth_enabled == Some(true);
    if policy == AuthPolicy::Ignore && there {
        let (users, roles) = (contents.users.len() as u64, contents.roles.len() as u64);
        let open = if was_on { ": authentication is on in v2, and v3 will be open to everyone" } else { "" };
        let message = format!(
            "{} ({}) and {} ({}) are left out{open}",
            counted(users, "v2 user", "v2 users"),
            first_of(&contents.users),
            counted(roles, "role", "roles"),
            first_of(&contents.roles)
        );
        report.warn(Code::AuthLeftOut, message);
    }
    if policy == AuthPolicy::UsersOnly && was_on {
        report
            .warn(Code::AuthOff, "authentication is on in v2 and will be off in v3: `etcdctl auth enable` turns it on");
    }
    if auth.guest_dropped {
        let message = "anonymous clients had rights by the role guest and lose them: v3 clients must log in";
        report.warn(Code::GuestDropped, message);
    }
    if !auth.widened.is_empty() {
        let names: Vec<String> = auth.widened.iter().map(|name| short(name)).collect();
        let message = format!(
            "{} more in v3 than in v2, because etcd 2.1 honours only the first existing role of a user: {}",
            counted(names.len() as u64, "user may do", "users may do"),
            names.join(", ")
        );
        report.warn(Code::RolesWiden, message);
    }
    if options.transformer.is_some() && auth.roles.iter().any(|role| !role.permissions.is_empty()) {
        let message = "permissions apply to the v2 names of keys: if the transformer renames a key, roles can lose or gain \
                       access to it";
        report.warn(Code::PermissionsByV2Names, message);
    }
    if !auth.cut.is_empty() {
        let count = counted(auth.cut.len() as u64, "permission covers", "permissions cover");
        let message = format!("{count} fewer keys, because rules leave keys out: {}", first_of(&auth.cut));
        report.warn(Code::PermissionsCut, message);
    }
    if !auth.matched_nothing.is_empty() {
        let count = counted(auth.matched_nothing.len() as u64, "permission is", "permissions are");
        let message = format!("{count} left out, because no v2 key can match: {}", first_of(&auth.matched_nothing));
        report.warn(Code::PermissionsWithoutKeys, message);
    }
}

/// Reports the content of the tree.
pub(super) fn contents(report: &mut Report, tree: &Tree<'_>, plan: &Plan, policy: &Policy) {
    let inventory = &plan.inventory;
    let contents = &mut report.contents;
    contents.keys = inventory.keys.keys;
    contents.bytes = inventory.keys.bytes;
    contents.directories = inventory.directories;
    contents.empty_directories = inventory.empty_directories;
    contents.hidden = inventory.hidden;
    contents.ttl = inventory.ttl;
    contents.expired = inventory.expired;
    contents.expired_keys = inventory.expired_keys.iter().map(|(node, at)| expired_key(tree, *node, *at)).collect();
    contents.renamed = plan.renamed;
    contents.decoded = plan.decoded;
    contents.replacements = inventory.replaced;
    contents.oversized =
        plan.oversized.iter().map(|(node, bytes)| Oversized { key: key_text(tree, *node), bytes: *bytes }).collect();
    contents.first_elements = first_elements(&inventory.first_elements);
    contents.other_elements = Some(inventory.first_elements.others()).filter(|others| others.elements > 0);
    if plan.expired.keys > 0 {
        let message = format!(
            "{} had expired as of {} and {} left out (listed in the report; --expired keep writes them)",
            counted(plan.expired.keys, "key", "keys"),
            report.as_of,
            if plan.expired.keys == 1 { "is" } else { "are" }
        );
        report.warn(Code::Expired, message);
    }
    if plan.beyond_leases > 0 {
        let message = format!(
            "{} with a TTL of more than {MAX_SECONDS} seconds, the longest TTL of a lease: written without a lease",
            counted(plan.beyond_leases, "key", "keys")
        );
        report.warn(Code::TtlTooLong, message);
    }
    for rule in policy.rules.unused().into_iter().map(String::from).chain(policy.ttl.unused()) {
        report.warn(Code::UnusedRule, format!("a rule matched nothing: {rule}"));
    }
}

fn expired_key(tree: &Tree<'_>, node: NodeRef, at: Timestamp) -> ExpiredKey {
    ExpiredKey { key: key_text(tree, node), expiration: at.to_string() }
}

/// Returns the v2 key of a node.
fn key_text(tree: &Tree<'_>, node: NodeRef) -> String {
    lossy(path::user_key(&tree.path(node)))
}

fn first_elements(elements: &FirstElements) -> BTreeMap<String, Count> {
    let mut out: BTreeMap<String, Count> = BTreeMap::new();
    for (name, counted) in elements.listed() {
        let entry = out.entry(lossy(name)).or_default();
        *entry = entry.plus(counted);
    }
    out
}

/// Reports what the numbering of the rows found.
pub(super) fn order(report: &mut Report, ordered: &Ordered) {
    if ordered.shared > 0 {
        let message = format!(
            "{} with the modified index of another key: they share a revision and differ in the sub revision",
            counted(ordered.shared, "key", "keys")
        );
        report.warn(Code::SharedIndex, message);
    }
    if ordered.created_after_modified > 0 {
        let message = format!(
            "{} with a created index above the modified index, which is written for both",
            counted(ordered.created_after_modified, "key", "keys")
        );
        report.warn(Code::CreatedAfterModified, message);
    }
}
