//! What the replay found: the kind of the source, the proof of its state, and what may be missing.
//!
//! `completeness` judges the logs, and `versions` the rules of the replay; the other warnings and losses are worded
//! here. Must not know the plan or the content of the v3 backend.

use super::Findings;
use crate::count::counted;
use crate::display::{lossy, short};
use crate::error::Error;
use crate::ids::RaftIndex;
use crate::notice::Code;
use crate::options::SourceVersion;
use crate::pipeline::completeness::{self, Completeness};
use crate::pipeline::versions;
use crate::report::facts::{Part, SalvageStart, SourceKind, TailWrite};
use crate::report::{Notice, Notices, Report, SourceFacts, Tail};
use crate::source::dir::Layout;
use crate::source::entries::End;
use crate::source::member::Member;
use crate::source::open::{Attempt, Opened, Outcome};
use crate::source::wal::Wal;
use crate::transform::policy::NAMESPACE;
use crate::v2store::replay::Recovered;
use crate::v2store::{membership, replay};

/// What the replay found about the source.
#[derive(Debug, Default)]
pub(in crate::pipeline) struct SourceFindings {
    pub(in crate::pipeline) source: SourceFacts,
    pub(in crate::pipeline) tail: Tail,
    /// Writes with a possibly different effect than in the cluster.
    pub(in crate::pipeline) uncertain: Vec<TailWrite>,
    pub(in crate::pipeline) notices: Notices,
}

impl Findings for SourceFindings {
    fn add_to(self, report: &mut Report) {
        (report.source, report.tail, report.uncertain) = (self.source, self.tail, self.uncertain);
        report.add(self.notices);
    }
}

impl SourceFindings {
    /// Returns a clause for a message that a source holds nothing; empty unless the source is possibly incomplete.
    pub(in crate::pipeline) fn possibly_incomplete(&self) -> String {
        let first = self.notices.losses.first();
        first.map_or(String::new(), |loss| format!("; the source is possibly incomplete: {}", loss.message))
    }
}

/// Describes the source, the proof of its state, and what may be missing. Returns the reason why only `--salvage` may
/// use the state, if there is one. `named` is the version of `--source-version`.
#[must_use]
pub(in crate::pipeline) fn source(
    opened: &Opened,
    recovered: &mut Recovered<'_>,
    named: Option<SourceVersion>,
) -> (SourceFindings, Option<Error>) {
    let mut source = source_facts(opened, recovered);
    versions::facts(&mut source, &recovered.versions);
    let notices = versions::notices(&recovered.versions, &source.other_rules, named);
    let mut found = SourceFindings { source, notices, tail: tail(&recovered.tail), uncertain: Vec::new() };
    let completeness = completeness::assess(opened, recovered);
    passed_over(&mut found, opened, recovered.replay.applied, completeness.proven);
    let refusal = log_state(&mut found, opened, recovered, completeness);
    backup(&mut found, opened, recovered);
    let index = recovered.replay.applied;
    let v2_index = recovered.v2_index();
    if opened.wal().is_none() {
        let message = format!("state at raft index {index}, v2 index {v2_index}; later writes are not in this file");
        found.notices.warn(Code::SnapshotOnly, message);
    }
    if opened.start_member().is_some_and(|member| member.layout == Some(Layout::Log)) {
        let message = "only the log was read; a data directory also has snapshots and a v3 database";
        found
            .notices
            .warnings
            .push(Notice::new(Code::LogOnly, message).hint("name the data directory if it still exists"));
    }
    if opened.is_live() {
        let message = format!(
            "an etcd is running on the source: the output has its state at raft index {index}, v2 index {v2_index}, and no later \
             writes"
        );
        found.notices.warn(Code::Live, message);
    }
    let voters = &recovered.replay.voters.voters;
    let given = opened.members.iter().filter_map(Member::id).filter(|id| voters.contains(id)).count();
    let (voters, majority) = (voters.len(), given > voters.len() / 2);
    if opened.wal().is_some() && voters > 1 && !majority && !recovered.backup {
        let (given, they) = if given == 1 { ("one".to_string(), "it") } else { (given.to_string(), "they") };
        let message = format!("{given} of {voters} voters: {they} may lack writes after raft index {index}");
        found
            .notices
            .warnings
            .push(Notice::new(Code::OneOfSeveralVoters, message).hint("name the directories of the other members too"));
    }
    if !recovered.replay.ambiguous_expiries.is_empty() {
        let message = format!(
            "{} a directory and a node below it expired at the same instant: etcd counts one or two indexes for both, so \
             later indexes may differ by one for each",
            counted(recovered.replay.ambiguous_expiries.len() as u64, "time", "times")
        );
        found.notices.warn(Code::AmbiguousExpiry, message);
    }
    (found, refusal)
}

/// Describes what the opened files say of themselves, before a replay.
pub(in crate::pipeline) fn opened_facts(opened: &Opened) -> SourceFacts {
    let snapshot = opened.start.snapshot.as_ref();
    let wal = opened.wal();
    let range = wal.and_then(Wal::range);
    let metadata = wal.and_then(Wal::metadata);
    let layout = opened.start_member().and_then(|member| member.layout);
    let kind = match (layout, wal, snapshot) {
        (None, ..) => SourceKind::SnapFile,
        (_, Some(_), None) => SourceKind::WalOnly,
        _ => SourceKind::DataDir,
    };
    SourceFacts {
        kind,
        layout,
        snapshot_file: snapshot.map(|s| s.path().display().to_string()),
        snapshot_term: snapshot.map(|s| s.term.0),
        snapshot_index: snapshot.map(|s| s.index.0),
        segments: wal.map_or(0, |wal| wal.maps().count() as u64),
        first_entry: range.map(|(first, _)| first.0),
        last_entry: range.map(|(_, last)| last.0),
        commit: wal.and_then(Wal::hard_state).map(|state| state.commit.0),
        torn_tail: wal.and_then(|wal| match wal.end() {
            End::Torn { offset, .. } => Some(offset.0),
            End::Clean | End::Damaged(_) => None,
        }),
        cluster_id: metadata.map(|m| m.cluster_id.to_string()),
        member_id: metadata.map(|m| m.node_id.to_string()),
        salvage_starts: opened.attempts.iter().map(salvage_start).collect(),
        ..SourceFacts::default()
    }
}

fn source_facts(opened: &Opened, recovered: &mut Recovered<'_>) -> SourceFacts {
    let facts = opened_facts(opened);
    let replay = &mut recovered.replay;
    SourceFacts {
        kind: if recovered.backup && facts.layout.is_some() { SourceKind::Backup } else { facts.kind },
        cluster_version: membership::cluster_version(&mut replay.tree),
        effective_commit: Some(replay.applied.0),
        commit_evidence: Some(recovered.commit_by.phrase().to_string()),
        raft_index: Some(replay.applied.0),
        v2_index: Some(replay.tree.current_index.0),
        last_sync: replay.last_sync.map(|at| at.to_string()),
        voters: replay.voters.voters.iter().map(ToString::to_string).collect(),
        parts: parts(opened, recovered),
        members: members(recovered),
        ..facts
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

fn members(recovered: &mut Recovered<'_>) -> Vec<crate::report::Member> {
    let members = membership::list(&mut recovered.replay.tree);
    let learners = &recovered.replay.voters.learners;
    let member = |m: membership::MemberFacts| crate::report::Member {
        id: m.id.to_string(),
        name: m.name,
        peer_urls: m.peer_urls,
        client_urls: m.client_urls,
        is_learner: learners.contains(&m.id),
    };
    members.into_iter().map(member).collect()
}

/// Reports the snapshots that were not used. A snapshot beyond the last applied entry held more than the output, which
/// is a loss.
fn passed_over(found: &mut SourceFindings, opened: &Opened, applied: RaftIndex, proven: bool) {
    for passed in &opened.start.passed_over {
        let path = passed.path.display().to_string();
        // An error about the file already names it.
        let why = passed.why.strip_prefix(&path).and_then(|why| why.strip_prefix(": ")).unwrap_or(&passed.why);
        let message = format!("{path} was not used: {why}");
        if passed.index > applied {
            let message =
                format!("{message}; its state is at raft index {}, that of the output at {applied}", passed.index);
            found.notices.lose(Code::OlderSnapshot, message);
        } else if passed.damaged && !proven && opened.wal().is_some() {
            let message = format!("{message}; a damaged member of several does not prove that nothing is missing");
            found.notices.lose(Code::DamagedSnapshot, message);
        } else {
            found.notices.warn(Code::SnapshotPassedOver, message);
        }
    }
}

fn log_state(
    found: &mut SourceFindings,
    opened: &Opened,
    recovered: &Recovered<'_>,
    completeness: Completeness,
) -> Option<Error> {
    let Completeness { warnings, losses, refusal, .. } = completeness;
    found.notices.warnings.extend(warnings);
    found.notices.losses.extend(losses);
    let start = opened.start.snapshot.as_ref().map(|snapshot| snapshot.path());
    if let Some(broken) = start.filter(|path| opened.salvage && path.extension().is_some_and(|end| end == "broken")) {
        found
            .notices
            .lose(Code::Salvaged, format!("started from {}, whose state the log does not confirm", broken.display()));
    }
    if opened.salvage && opened.members.iter().all(|member| member.wal.is_none()) {
        found.notices.lose(
            Code::Salvaged,
            "the log is missing: the state is that of the snapshot, and later entries are unknown",
        );
    }
    if let Some(missing) = &recovered.not_found {
        let code = if opened.salvage { Code::Salvaged } else { Code::CutCopy };
        found.notices.lose(code, format!("continued past missing data: {missing}"));
    }
    if let Some(first) = found.tail.writes.first() {
        let writes = counted(found.tail.v2_writes, "v2 write", "v2 writes");
        let (applied, named) = (recovered.replay.applied, format!("{} {}", first.method, short(&first.key)));
        let is_cut_off = |wal: &Wal| wal.hole_above(applied).is_some();
        let cut_off = opened.members.iter().filter_map(|member| member.wal.as_ref()).any(is_cut_off);
        if opened.salvage && (cut_off || recovered.not_found.is_some()) {
            let message = format!(
                "{writes} in the log after raft index {applied} dropped, because earlier entries are lost (the first: {named})"
            );
            found.notices.lose(Code::Salvaged, message);
        } else {
            let message = format!(
                "{writes} in the log after raft index {applied} left out, because nothing proves a commit (the first: {named})"
            );
            let hint = "convert with --tail all if a client was told of success";
            found.notices.losses.push(Notice::new(Code::TailLeftOut, message).hint(hint));
        }
    }
    if recovered.replay.unknown_members > 0 {
        let message = format!(
            "{} for members that the store does not know; etcd would stop there",
            counted(recovered.replay.unknown_members, "attribute write", "attribute writes")
        );
        found.notices.warn(Code::UnknownMember, message);
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
        method: write.method,
        key: lossy(write.path.strip_prefix(NAMESPACE).unwrap_or(&write.path)),
        value_bytes: write.value_len as u64,
    }
}

/// Reports a backup. A backup by 3.3 or later lacks entries that raised the index. So writes after its snapshot replay
/// differently from what the cluster served (docs/formats.md 1.4).
fn backup(found: &mut SourceFindings, opened: &Opened, recovered: &Recovered<'_>) {
    let Some(wal) = opened.wal().filter(|_| recovered.backup) else { return };
    found.notices.warn(Code::Backup, "made by `etcdctl backup`: writes after the backup are not in it");
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
            found.uncertain.push(write_line(&write));
        }
    }
    if writes > 0 {
        let message = format!(
            "this backup was made by etcdctl 3.3 or later and has {} after its snapshot, {} \
             (listed in the report): a server started on it may serve other indexes than the cluster did",
            counted(writes, "v2 write", "v2 writes"),
            counted(
                found.uncertain.len() as u64,
                "of them an in-order key or index compare",
                "of them in-order keys or index compares"
            )
        );
        let hint = "convert the data directory that it was made from, if it still exists";
        found.notices.losses.push(Notice::new(Code::BackupRenumbered, message).hint(hint));
    }
}
