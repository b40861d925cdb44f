//! Whether anything is missing: the gaps and the end of each given log, and what the other members make up for
//! (docs/formats.md 4.9, 4.10).
//!
//! A majority of the voters has each committed entry. So if enough logs of voters are whole to intersect every
//! majority, they hold every committed entry, whatever the other logs lack. Decides about warnings, losses and a
//! refusal. Must not know what an entry does.

use crate::count::counted;
use crate::error::{Error, Kind, Reason};
use crate::ids::{ByteOffset, RaftIndex};
use crate::notice::Code;
use crate::report::Notice;
use crate::source::dir::SnapName;
use crate::source::entries::{End, Hole};
use crate::source::live_copy::Access;
use crate::source::member::{Member, WHAT_TO_DO};
use crate::source::open::Opened;
use crate::source::wal::{LastSegment, Wal};
use crate::v2store::dialect::Version;
use crate::v2store::replay::Recovered;

/// The number of bytes that a server of 3.0 or later preallocates for a segment. From 2.1 on, a server closes a segment
/// at this size (docs/formats.md 4.1, 4.10).
const SEGMENT_BYTES: u64 = 64_000_000;

/// The diagnostics of the logs: what may be missing.
#[derive(Debug, Default)]
pub(super) struct Completeness {
    /// Findings that are no loss.
    pub(super) warnings: Vec<Notice>,
    /// Findings after which the output may lack something.
    pub(super) losses: Vec<Notice>,
    /// The reason to write nothing without `--salvage`.
    pub(super) refusal: Option<Error>,
    /// Whether enough whole logs of voters are given to prove that they hold every committed entry.
    pub(super) proven: bool,
}

/// A finding about one log.
struct Finding {
    code: Code,
    message: String,
    hint: Option<String>,
    severity: Severity,
}

impl Finding {
    fn new(code: Code, message: String, severity: Severity) -> Finding {
        Finding { code, message, hint: None, severity }
    }
}

/// What a finding means for the member's log.
enum Severity {
    /// The log is whole.
    Harmless,
    /// Damage that hides nothing the output needs.
    NotNeeded,
    /// The end of the log may be missing.
    EndMissing,
    /// The log is missing, or records in it cannot be read: the reason says which.
    Damaged(Reason),
}

/// Examines all logs, and compares what each lacks with what the others have.
pub(super) fn assess(opened: &Opened, recovered: &Recovered<'_>) -> Completeness {
    let view = View { opened, start: opened.start.index(), applied: recovered.replay.applied };
    // 2.0 begins a segment with each snapshot, whatever the size of the previous segment.
    let below = recovered.versions.interval.below;
    let closes_segments = below.is_none_or(|below| below > Version::new(2, 1, 0));
    let findings: Vec<Vec<Finding>> =
        opened.members.iter().map(|member| view.findings(member, closes_segments)).collect();
    let is_whole = |findings: &[Finding]| {
        findings.iter().all(|finding| matches!(finding.severity, Severity::Harmless | Severity::NotNeeded))
    };
    let voters = &recovered.replay.voters.voters;
    let votes = |member: &Member| member.id().is_some_and(|id| voters.contains(&id));
    let whole =
        opened.members.iter().zip(&findings).filter(|(member, findings)| votes(member) && is_whole(findings)).count();
    let proven = whole > 0 && whole * 2 >= voters.len();
    let mut completeness = Completeness { proven, ..Completeness::default() };
    for finding in findings.into_iter().flatten() {
        completeness.take(finding, opened, (whole, voters.len()));
    }
    completeness
}

/// Finds what shows that the end of a member's log is missing in the copy. For servers of 3.4 and later, which ignore a snapshot
/// without a record.
pub(super) fn end_missing(member: &Member, wal: &Wal) -> Vec<Notice> {
    if member.access() == Access::Live {
        return Vec::new();
    }
    let by_size = wal.last_segment().and_then(|segment| last_segment(member, wal, segment, true));
    let beyond = snapshot_beyond(member, wal, |name| !is_interrupted(member, wal, name));
    let findings = [by_size, unread_segments(member, wal), beyond].into_iter().flatten();
    let is_missing = |finding: &Finding| matches!(finding.severity, Severity::EndMissing);
    let notice = |Finding { code, message, hint, .. }: Finding| Notice { code, message, hint };
    findings.filter(is_missing).map(notice).collect()
}

impl Completeness {
    fn take(&mut self, finding: Finding, opened: &Opened, (whole, voters): (usize, usize)) {
        let proven = self.proven;
        let Finding { code, message, hint, severity } = finding;
        let notice = |code: Code, message: String| Notice { code, message, hint: hint.clone() };
        match severity {
            // `--salvage` reports everything that was skipped.
            Severity::NotNeeded if opened.salvage && (opened.members.len() == 1 || !proven) => {
                self.losses.push(notice(Code::Salvaged, message));
            }
            Severity::NotNeeded if !proven => {
                let message = format!("{message}; a damaged member of several does not prove that nothing is missing");
                self.losses.push(notice(Code::DamagedLog, message));
            }
            Severity::Harmless | Severity::NotNeeded => self.warnings.push(notice(code, message)),
            _ if proven => {
                let message = format!("{message}; the logs of the other members prove that nothing is missing");
                self.warnings.push(notice(code, message));
            }
            Severity::EndMissing => self.losses.push(notice(code, message)),
            Severity::Damaged(_) if opened.salvage => self.losses.push(notice(Code::Salvaged, message)),
            Severity::Damaged(reason) => {
                let message = match voters {
                    0 => format!("{message}; the voters are unknown, so nothing proves that the other logs are enough"),
                    _ => format!(
                        "{message}; {} of {} would prove that nothing is missing, found {whole}",
                        counted(voters.div_ceil(2) as u64, "whole log", "whole logs"),
                        counted(voters as u64, "voter", "voters")
                    ),
                };
                self.losses.push(notice(code, message.clone()));
                let error = Error::new(reason, message);
                let error = if error.kind() == Kind::Damaged { error.hint(WHAT_TO_DO) } else { error };
                // The refusal must not depend on the order of the members.
                let rank = |error: &Error| (error.kind().exit_code(), error.to_string());
                if self.refusal.as_ref().is_none_or(|other| rank(&error) < rank(other)) {
                    self.refusal = Some(error);
                }
            }
        }
    }
}

/// The source, and the indexes between which its log was used.
struct View<'a> {
    opened: &'a Opened,
    start: RaftIndex,
    applied: RaftIndex,
}

impl View<'_> {
    fn is_alone(&self) -> bool {
        self.opened.members.len() == 1
    }

    fn findings(&self, member: &Member, closes_segments: bool) -> Vec<Finding> {
        let Some(wal) = &member.wal else {
            return if self.is_alone() { Vec::new() } else { vec![log_gone(member)] };
        };
        let mut findings: Vec<Finding> = wal.holes().iter().map(|hole| self.hole(hole)).collect();
        if let End::Damaged(error) = wal.end() {
            findings.push(self.damaged_end(wal, error));
        }
        if member.access() != Access::Live {
            findings.extend(wal.last_segment().and_then(|segment| last_segment(member, wal, segment, closes_segments)));
            findings.extend(unread_segments(member, wal));
            findings.extend(snapshot_beyond(member, wal, |_| true));
        }
        findings
    }

    /// Describes a hole: records are lost, and readable records follow.
    fn hole(&self, hole: &Hole) -> Finding {
        let Hole { error, before, remains, next } = hole;
        let not_needed = |message: String| Finding::new(Code::DamageNotNeeded, message, Severity::NotNeeded);
        let next = next.unwrap_or(RaftIndex(u64::MAX));
        if next.0 <= self.start.0.saturating_add(1) {
            return not_needed(format!(
                "the damaged part of the log is older than the snapshot and was not needed: {error}"
            ));
        }
        if *before >= self.applied && self.is_alone() && !self.opened.salvage {
            return not_needed(format!("the damaged part of the log is newer than the requested state: {error}"));
        }
        let lost = (remains.0.max(self.start.0).saturating_add(1), next.0.saturating_sub(1));
        // A replay of one log alone never crosses a gap.
        if lost.0 > lost.1 || (self.is_alone() && lost.1 <= self.applied.0) {
            return not_needed(format!("damage in the log hides no entry: {error}"));
        }
        if lost.1 <= self.applied.0 {
            let entries = if lost.0 == lost.1 {
                format!("entry {}", lost.0)
            } else {
                format!("entries {} to {}", lost.0, lost.1)
            };
            let message = format!("the logs of other members have what damage hides ({entries}): {error}");
            return Finding::new(Code::DamageFilled, message, Severity::NotNeeded);
        }
        let message = format!("later log entries were dropped because of damage: {error}");
        Finding::new(Code::DamagedLog, message, Severity::Damaged(Reason::Damaged))
    }

    fn damaged_end(&self, wal: &Wal, error: &Error) -> Finding {
        let last = wal.last().map_or(RaftIndex(0), |(_, last)| last);
        let (code, message) = if last < self.applied && !self.is_alone() {
            let from = last.0.max(self.start.0).saturating_add(1);
            (Code::DamageFilled, format!("entries after {} were taken from another member: {error}", from - 1))
        } else {
            (Code::DamagedLog, format!("later entries of this log, after raft index {last}, are unknown: {error}"))
        };
        Finding::new(code, message, Severity::Damaged(Reason::Damaged))
    }
}

/// Returns whether a crash can have left a snapshot before its record was in the log: the log reaches its raft index, or the backend
/// that a leader sent with it has not replaced `db` yet.
fn is_interrupted(member: &Member, wal: &Wal, name: &SnapName) -> bool {
    let is_reached = wal.last().is_some_and(|(_, last)| name.index <= last);
    is_reached || member.received_dbs.iter().any(|(index, _)| *index == name.index)
}

/// Finds a snapshot at the end of the log or beyond it that has no record in the log, among those that count.
fn snapshot_beyond(member: &Member, wal: &Wal, counts: impl Fn(&SnapName) -> bool) -> Option<Finding> {
    let last = wal.last().map_or(RaftIndex(0), |(_, last)| last).max(wal.commit());
    let name = member.snapshots.iter().rfind(|name| counts(name)).filter(|_| !wal.snapshots().is_empty())?;
    let recorded = wal.snapshots().iter().any(|record| record.index == name.index);
    if name.index < last || (name.index == last && recorded) {
        return None;
    }
    let message = format!(
        "{}: the snapshot is at raft index {}, and the log ends at {last} without a record of it: part of the log may be \
         missing",
        name.path.display(),
        name.index
    );
    Some(Finding::new(Code::CutCopy, message, Severity::EndMissing))
}

fn log_gone(member: &Member) -> Finding {
    let message = format!("{}: its log is missing, and nothing was taken from it", member.path.display());
    Finding::new(Code::LogGone, message, Severity::Damaged(Reason::MemberIncomplete))
}

/// Judges the end of the log by the size of the last segment (docs/formats.md 4.10).
fn last_segment(member: &Member, wal: &Wal, segment: LastSegment<'_>, closes_segments: bool) -> Option<Finding> {
    let LastSegment { name, len, records_end, preallocated, .. } = segment;
    let path = name.path.display();
    let torn = match wal.end() {
        End::Clean => None,
        End::Torn { offset, .. } => Some(*offset),
        End::Damaged(_) => return None,
    };
    let repaired = member.unread_segments.iter().any(|broken| broken.seq == name.seq && member.is_renamed(broken));
    let end_missing = |code, message: String| Some(Finding::new(code, message, Severity::EndMissing));
    if let Some(offset) = torn.filter(|_| !preallocated || (repaired && len < SEGMENT_BYTES)) {
        let message = format!(
            "{path}: byte {offset}: the last record is truncated, by a crash or because the copy stopped early"
        );
        let hint = format!("compare the size of the original file with {len} bytes");
        return end_missing(Code::TornTail, message).map(|finding| Finding { hint: Some(hint), ..finding });
    }
    if preallocated && len < SEGMENT_BYTES && !repaired {
        let message = format!(
            "{path}: byte {len}: the last segment ends here, but etcd preallocates {SEGMENT_BYTES} bytes: the copy is probably \
             truncated"
        );
        return end_missing(Code::CutCopy, message);
    }
    if records_end >= ByteOffset(SEGMENT_BYTES) && (preallocated || closes_segments) {
        let message = format!(
            "{path}: byte {records_end}: the last segment is full ({SEGMENT_BYTES} bytes), so etcd began another segment, which \
             is missing"
        );
        return end_missing(Code::CutCopy, message);
    }
    if let Some(offset) = torn {
        let message = format!("{path}: byte {offset}: a crash truncated the last record, which does not count");
        return Some(Finding::new(Code::TornTail, message, Severity::Harmless));
    }
    (preallocated && len < SEGMENT_BYTES).then(|| {
        let message = format!("{path}: etcd repaired this segment once, and its copy is the file .wal.broken");
        Finding::new(Code::Repaired, message, Severity::Harmless)
    })
}

/// Finds a later segment that the log lacks: it was renamed, or it follows the segment that the operator named.
fn unread_segments(member: &Member, wal: &Wal) -> Option<Finding> {
    let last = wal.last_segment()?.name;
    let lacking = member.unread_segments.iter().find(|segment| segment.seq > last.seq)?;
    let (message, hint) = match member.is_renamed(lacking) {
        true => ("the segment was renamed and is not read", "rename it back to .wal in a copy of the directory"),
        false => ("the segment follows the named one and is not read", "name the directory"),
    };
    let message = format!("{}: {message}", lacking.path.display());
    let finding = Finding::new(Code::CutCopy, message, Severity::EndMissing);
    Some(Finding { hint: Some(hint.to_string()), ..finding })
}
