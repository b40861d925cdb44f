//! What the stages found, in the words of the report: facts, warnings, losses. Decides nothing.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::ids::RaftIndex;
use crate::options::{AuthPolicy, ConvertOptions};
use crate::report::facts::{AuthFacts, ExpiredKey, Oversized, Part, TailWrite};
use crate::report::table::{counted, first_of, short};
use crate::report::{self, Count, Report, SourceFacts, Tail};
use crate::source::live::Access;
use crate::source::open::{Member, Opened};
use crate::source::wal::{End, Wal};
use crate::transform::auth::{Auth, AuthNames};
use crate::transform::lease::MAX_SECONDS;
use crate::transform::order::Ordered;
use crate::transform::plan::{self, Plan, Policy};
use crate::v2store::membership;
use crate::v2store::overlay::{NodeRef, Tree};
use crate::v2store::path;
use crate::v2store::recover::{self, Recovered};

/// The source, how the state was found, and what may be missing from it.
pub(super) fn source(report: &mut Report, opened: &Opened, recovered: &mut Recovered<'_>) {
    report.source = source_facts(opened, recovered);
    report.tail = tail(&recovered.tail);
    passed_over(report, opened, recovered.replay.applied);
    log_state(report, opened, recovered);
    backup(report, opened, recovered);
    let index = recovered.replay.applied;
    let v2_index = recovered.v2_index();
    if opened.wal().is_none() {
        let message = format!("state at raft index {index}, v2 index {v2_index}; later writes are not in this file");
        report.warn("snapshot-only", message);
    }
    if opened.is_live() {
        let message = format!(
            "an etcd is running on it: state at raft index {index}, v2 index {v2_index}; later writes are not in this output"
        );
        report.warn("live", message);
    }
    let voters = &recovered.replay.voters.voters;
    let given = opened.members.iter().filter_map(Member::id).filter(|id| voters.contains(id)).count();
    let (voters, majority) = (voters.len(), given > voters.len() / 2);
    if opened.wal().is_some() && voters > 1 && !majority && !recovered.backup {
        let (given, they) = if given == 1 { ("one".to_string(), "it") } else { (given.to_string(), "they") };
        let message =
            format!("{given} of {voters} voters: {they} may be behind; give the others too (raft index {index})");
        report.warn("one-of-several-voters", message);
    }
    if !recovered.replay.ambiguous_expiries.is_empty() {
        let message = format!(
            "{} a directory and a node below it expired at the same instant: etcd itself counts one or two indexes then, so \
             later indexes may differ by one each",
            counted(recovered.replay.ambiguous_expiries.len() as u64, "time", "times")
        );
        report.warn("ambiguous-expiry", message);
    }
}

pub(super) fn source_facts(opened: &Opened, recovered: &mut Recovered<'_>) -> SourceFacts {
    let snapshot = opened.choice.snapshot.as_ref();
    let wal = opened.wal();
    let range = wal.and_then(Wal::range);
    let metadata = wal.and_then(Wal::metadata);
    let layout = opened.start().and_then(|member| member.layout);
    let replay = &mut recovered.replay;
    let kind = match (layout, wal, snapshot, recovered.backup) {
        (None, ..) => "snap-file",
        (.., true) => "backup",
        (_, Some(_), None, _) => "wal-only",
        _ => "data-dir",
    };
    SourceFacts {
        kind: kind.to_string(),
        layout: layout.map(|layout| layout.word().to_string()),
        cluster_version: membership::cluster_version(&mut replay.tree),
        replay_rules: Some(replay.version.to_string()),
        snapshot_file: snapshot.map(|s| s.path().display().to_string()),
        snapshot_term: snapshot.map(|s| s.term.0),
        snapshot_index: snapshot.map(|s| s.index.0),
        segments: wal.map_or(0, |wal| wal.files().count() as u64),
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
        members: members(recovered),
    }
}

/// What was taken from which of several sources.
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
            start: at == opened.choice.member,
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

/// Snapshots that were not used. One beyond what was applied held more than there is now.
fn passed_over(report: &mut Report, opened: &Opened, applied: RaftIndex) {
    for passed in &opened.choice.passed_over {
        let path = passed.path.display().to_string();
        // An error about the file names it, too.
        let why = passed.why.strip_prefix(&path).and_then(|why| why.strip_prefix(": ")).unwrap_or(&passed.why);
        let message = format!("{path} was not used: {why}");
        if passed.index > applied {
            let message =
                format!("{message}; it held the state at raft index {}, the output that at {applied}", passed.index);
            report.lose("older-snapshot", message);
        } else {
            report.warn("snapshot-passed-over", message);
        }
    }
}

fn log_state(report: &mut Report, opened: &Opened, recovered: &Recovered<'_>) {
    // What one of several members lacks may be in the output all the same.
    let filled = if opened.members.len() > 1 { recovered.replay.applied } else { RaftIndex(0) };
    for member in &opened.members {
        if let Some(wal) = &member.wal {
            log_end(report, member, wal);
            cut_copy(report, member, wal, filled);
        } else if opened.members.len() > 1 {
            let message = format!("{}: its log is gone: nothing was taken from it", member.path.display());
            report.warn("log-gone", message);
        }
    }
    for damage in &opened.salvaged {
        let message = format!("went on past damage, with nothing that stands behind it in the log: {damage}");
        report.lose("salvaged", message);
    }
    if let Some(missing) = &recovered.not_found {
        let code = if opened.salvage { "salvaged" } else { "cut-copy" };
        report.lose(code, format!("went on without what is missing: {missing}"));
    }
    if let Some(first) = report.tail.writes.first() {
        let message = format!(
            "{} in the log above raft index {} left out, because nothing here proves a commit (the first: {} {}); if a client \
             was told of success, convert with --tail all",
            counted(report.tail.v2_writes, "v2 write", "v2 writes"),
            recovered.replay.applied,
            first.method,
            short(&first.key)
        );
        report.lose("tail-left-out", message);
    }
    if recovered.replay.unknown_members > 0 {
        let message = format!(
            "{} for members that the store does not know, where etcd itself would stop",
            counted(recovered.replay.unknown_members, "attribute write", "attribute writes")
        );
        report.warn("unknown-member", message);
    }
}

fn log_end(report: &mut Report, member: &Member, wal: &Wal) {
    for damage in wal.damage() {
        report.warn(
            "damage-not-needed",
            format!("the log up to the next segment is damaged and was not needed: {damage}"),
        );
    }
    match wal.end() {
        End::Clean => {}
        // Said of the whole source: later writes are not in it.
        End::Torn { .. } if member.access == Access::Live => {}
        End::Torn { segment, offset } => {
            let message = format!(
                "{}: byte {offset}: the last record was cut short by a crash and does not count",
                segment.display()
            );
            report.warn("torn-tail", message);
        }
        End::Damaged(damage) => {
            report.warn("damage-filled", format!("what this log lacks was taken from another member: {damage}"));
        }
    }
}

/// Bytes that a server of 3.0 or later makes a segment before it writes to it (FORMATS 4.1).
const PREALLOCATED: u64 = 64_000_000;

/// Signs that the copy was cut short: a last segment below its preallocated size, a snapshot beyond the end of the log.
fn cut_copy(report: &mut Report, member: &Member, wal: &Wal, filled: RaftIndex) {
    if member.access == Access::Live {
        return;
    }
    if let (End::Clean, Some((path, len))) = (wal.end(), wal.last_segment())
        && wal.last_is_preallocated()
        && len < PREALLOCATED
    {
        let message = format!(
            "{}: byte {len}: the last segment ends here, where a server preallocates {PREALLOCATED} bytes: the copy may have \
             been cut short",
            path.display()
        );
        report.lose("cut-copy", message);
    }
    let last = wal.range().map_or(RaftIndex(0), |(_, last)| last).max(wal.commit());
    if let Some(name) = member.snapshots.last().filter(|name| name.index > last && !wal.snapshots().is_empty()) {
        let message = format!(
            "{}: the snapshot is at raft index {}, and the log ends at {last}: a part of the log may be missing",
            name.path.display(),
            name.index
        );
        if name.index <= filled {
            report.warn("cut-copy", format!("{message}, which the other members have"));
        } else {
            report.lose("cut-copy", message);
        }
    }
}

fn tail(tail: &recover::Tail) -> Tail {
    Tail {
        entries: tail.entries,
        v2_writes: tail.writes.len() as u64,
        writes: tail.writes.iter().map(write_line).collect(),
    }
}

fn write_line(write: &recover::TailWrite) -> TailWrite {
    TailWrite {
        raft_index: write.index.0,
        term: write.term.0,
        method: text(&write.method),
        key: text(write.path.strip_prefix(plan::NAMESPACE).unwrap_or(&write.path)),
        value_bytes: write.value_len as u64,
    }
}

/// A backup by 3.3 or later lacks the entries that bumped the index, so writes behind its snapshot replay differently from
/// what the cluster served (FORMATS 1.4 d).
fn backup(report: &mut Report, opened: &Opened, recovered: &Recovered<'_>) {
    let Some(wal) = opened.wal().filter(|_| recovered.backup) else { return };
    report.warn("backup", "made by `etcdctl backup`: writes after it was made are not in it");
    if opened.start().is_none_or(|member| member.db.is_none()) {
        return;
    }
    let mut writes = 0u64;
    for reference in wal.after(opened.choice.index()).unwrap_or_default() {
        let Ok(entry) = wal.entry(reference) else { continue };
        if entry.index > recovered.replay.applied {
            continue;
        }
        let Some(write) = recover::write_in(&entry) else { continue };
        writes += 1;
        if write.depends_on_index {
            report.uncertain.push(write_line(&write));
        }
    }
    if writes > 0 {
        let message = format!(
            "this backup was made by etcdctl 3.3 or later and has {} after its snapshot, {} of them in-order keys or index \
             compares (listed in the report): it holds what a server started on it would serve, which may differ from what \
             the cluster served; convert the data directory it was made from, if you still have it",
            counted(writes, "v2 write", "v2 writes"),
            report.uncertain.len()
        );
        report.lose("backup-renumbered", message);
    }
}

/// Names of users and roles.
pub(super) fn auth_names(report: &mut Report, names: &AuthNames) {
    report.contents.auth_enabled = names.enabled;
    report.contents.users.clone_from(&names.users);
    report.contents.roles.clone_from(&names.roles);
}

/// What becomes of users and roles.
pub(super) fn auth(report: &mut Report, options: &ConvertOptions, auth: &Auth) {
    let policy = options.auth;
    report.auth = AuthFacts {
        enabled: auth.enabled,
        users: auth.users.len() as u64,
        roles: auth.roles.len() as u64,
        permissions: auth.roles.iter().map(|role| role.permissions.len() as u64).sum(),
        guest_dropped: auth.guest_dropped,
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
        report.warn("auth-left-out", message);
    }
    if policy == AuthPolicy::UsersOnly && was_on {
        report.warn("auth-off", "authentication is on in v2 and will be off in v3: `etcdctl auth enable` turns it on");
    }
    if auth.guest_dropped {
        let message = "anonymous clients had rights by the role guest and lose them: in v3 everyone has to log in";
        report.warn("guest-dropped", message);
    }
    if options.transformer.is_some() && auth.roles.iter().any(|role| !role.permissions.is_empty()) {
        let message = "permissions are carried over for the names of keys in v2: a transformer that names keys otherwise \
                       takes them out of reach, or into it";
        report.warn("permissions-by-v2-names", message);
    }
    if !auth.cut.is_empty() {
        let count = counted(auth.cut.len() as u64, "permission", "permissions");
        let message = format!("{count} lost keys that the rules leave out: {}", first_of(&auth.cut));
        report.warn("permissions-cut", message);
    }
    if !auth.matched_nothing.is_empty() {
        let count = counted(auth.matched_nothing.len() as u64, "permission", "permissions");
        let message = format!("{count} could match no v2 key and are left out: {}", first_of(&auth.matched_nothing));
        report.warn("permissions-without-keys", message);
    }
}

/// What the tree holds.
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
    if plan.expired.keys > 0 {
        let message = format!(
            "{} had expired as of {} and {} left out (listed in the report; --expired keep takes them)",
            counted(plan.expired.keys, "key", "keys"),
            report.as_of,
            if plan.expired.keys == 1 { "is" } else { "are" }
        );
        report.warn("expired", message);
    }
    if plan.beyond_leases > 0 {
        let message = format!(
            "{} with a TTL of more than {MAX_SECONDS} seconds, the longest that a lease can have: written without one",
            counted(plan.beyond_leases, "key", "keys")
        );
        report.warn("ttl-too-long", message);
    }
    for rule in policy.rules.unused().into_iter().map(String::from).chain(policy.ttl.unused()) {
        report.warn("unused-rule", format!("a rule matched nothing: {rule}"));
    }
}

fn expired_key(tree: &Tree<'_>, node: NodeRef, at: Timestamp) -> ExpiredKey {
    ExpiredKey { key: key_text(tree, node), expiration: at.to_string() }
}

/// The v2 key of a node.
fn key_text(tree: &Tree<'_>, node: NodeRef) -> String {
    text(path::user_key(&tree.path(node)))
}

fn first_elements(elements: &BTreeMap<Vec<u8>, Count>) -> BTreeMap<String, Count> {
    let mut out: BTreeMap<String, Count> = BTreeMap::new();
    for (name, counted) in elements {
        let entry = out.entry(text(name)).or_default();
        *entry = entry.plus(*counted);
    }
    out
}

/// What the order of rows showed.
pub(super) fn order(report: &mut Report, ordered: &Ordered) {
    if ordered.shared > 0 {
        let message = format!(
            "{} with the modified index of another: one revision, told apart by the sub revision",
            counted(ordered.shared, "key", "keys")
        );
        report.warn("shared-index", message);
    }
    if ordered.created_after_modified > 0 {
        let message = format!(
            "{} with a created index above the modified one, which is written for both",
            counted(ordered.created_after_modified, "key", "keys")
        );
        report.warn("created-after-modified", message);
    }
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
