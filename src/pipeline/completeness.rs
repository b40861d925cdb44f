//! Is anything missing? What each given log says of its gaps and of its end, and whether the other members make up for it
//! (FORMATS 4.9, E 8).
//!
//! A committed entry stands in the logs of a majority. So as many whole logs of voters as intersect every majority hold all that
//! is committed, whatever the other logs lack. Decides about warnings, losses and a refusal; must not know what an entry does.

use crate::count::counted;
use crate::error::{Error, Kind, Reason};
use crate::ids::RaftIndex;
use crate::notice::Code;
use crate::report::Notice;
use crate::source::entries::{End, Hole};
use crate::source::live_copy::Access;
use crate::source::member::{Member, WHAT_TO_DO};
use crate::source::open::Opened;
use crate::source::wal::{LastSegment, Wal};
use crate::v2store::dialect::Version;
use crate::v2store::replay::Recovered;

/// Bytes that a server of 3.0 or later gives a segment before it writes to it; from 2.1 on, the size at which a segment is
/// closed (FORMATS 4.1, E 8).
const SEGMENT_BYTES: u64 = 64_000_000;

/// What the logs say of what may be missing.
#[derive(Debug, Default)]
pub(super) struct Completeness {
    /// What is no loss.
    pub(super) warnings: Vec<Notice>,
    /// What the output may lack.
    pub(super) losses: Vec<Notice>,
    /// Why nothing is to be written, without `--salvage`.
    pub(super) refusal: Option<Error>,
    /// Whether as many whole logs of voters are given as prove that they hold all that is committed.
    pub(super) proven: bool,
}

/// Something that a log shows of itself.
struct Sign {
    code: Code,
    message: String,
    weight: Weight,
}

/// What a sign means for the member's log.
enum Weight {
    /// The log is whole all the same.
    Harmless,
    /// Damage that hides nothing the output needs.
    NotNeeded,
    /// Its end may be missing.
    EndMissing,
    /// Records in it cannot be read, or there is none at all: the error says which.
    Damaged(Reason),
}

/// Looks at all logs, and weighs what they lack against what the others have.
pub(super) fn assess(opened: &Opened, recovered: &Recovered<'_>) -> Completeness {
    let view = View { opened, start: opened.start.index(), applied: recovered.replay.applied };
    // 2.0 begins a segment with each snapshot, whatever the size of the last one.
    let below = recovered.versions.interval.below;
    let closes_segments = below.is_none_or(|below| below > Version::new(2, 1, 0));
    let signs: Vec<Vec<Sign>> = opened.members.iter().map(|member| view.signs(member, closes_segments)).collect();
    let is_whole =
        |signs: &[Sign]| signs.iter().all(|sign| matches!(sign.weight, Weight::Harmless | Weight::NotNeeded));
    let voters = &recovered.replay.voters.voters;
    let votes = |member: &Member| member.id().is_some_and(|id| voters.contains(&id));
    let whole = opened.members.iter().zip(&signs).filter(|(member, signs)| votes(member) && is_whole(signs)).count();
    let proven = whole > 0 && whole * 2 >= voters.len();
    let mut found = Completeness { proven, ..Completeness::default() };
    for sign in signs.into_iter().flatten() {
        found.take(sign, opened, (whole, voters.len()));
    }
    found
}

impl Completeness {
    fn take(&mut self, sign: Sign, opened: &Opened, (whole, voters): (usize, usize)) {
        let proven = self.proven;
        let Sign { code, message, weight } = sign;
        let notice = |code: Code, message: String| Notice::new(code, message);
        match weight {
            // Who asks for salvage is told of all that was skipped.
            Weight::NotNeeded if opened.salvage && (opened.members.len() == 1 || !proven) => {
                self.losses.push(notice(Code::Salvaged, message));
            }
            Weight::NotNeeded if !proven => {
                let message = format!("{message}; a damaged member of several does not prove that nothing is missing");
                self.losses.push(notice(Code::DamagedLog, message));
            }
            Weight::Harmless | Weight::NotNeeded => self.warnings.push(notice(code, message)),
            _ if proven => {
                let message = format!("{message}; the logs of the other members prove that nothing is missing");
                self.warnings.push(notice(code, message));
            }
            Weight::EndMissing => self.losses.push(notice(code, message)),
            Weight::Damaged(_) if opened.salvage => self.losses.push(notice(Code::Salvaged, message)),
            Weight::Damaged(reason) => {
                let message = match voters {
                    0 => format!("{message}; who votes is not known, so nothing proves that the other logs are enough"),
                    _ => format!(
                        "{message}; {} of {} would prove that nothing is missing, found {whole}",
                        counted(voters.div_ceil(2) as u64, "whole log", "whole logs"),
                        counted(voters as u64, "voter", "voters")
                    ),
                };
                self.losses.push(notice(code, message.clone()));
                let error = Error::new(reason, message);
                let error = if error.kind() == Kind::Damaged { error.hint(WHAT_TO_DO) } else { error };
                // The same one, in whatever order the members are given.
                let rank = |error: &Error| (error.kind().exit_code(), error.to_string());
                if self.refusal.as_ref().is_none_or(|other| rank(&error) < rank(other)) {
                    self.refusal = Some(error);
                }
            }
        }
    }
}

/// The source, and what of it was used.
struct View<'a> {
    opened: &'a Opened,
    start: RaftIndex,
    applied: RaftIndex,
}

impl View<'_> {
    fn is_alone(&self) -> bool {
        self.opened.members.len() == 1
    }

    fn signs(&self, member: &Member, closes_segments: bool) -> Vec<Sign> {
        let Some(wal) = &member.wal else {
            return if self.is_alone() { Vec::new() } else { vec![log_gone(member)] };
        };
        let mut signs: Vec<Sign> = wal.holes().iter().map(|hole| self.hole(hole)).collect();
        if let End::Damaged(error) = wal.end() {
            signs.push(self.damaged_end(wal, error));
        }
        if member.access() != Access::Live {
            signs.extend(wal.last_segment().and_then(|segment| last_segment(member, wal, segment, closes_segments)));
            signs.extend(unread_segments(member, wal));
            signs.extend(self.snapshot_beyond(member, wal));
        }
        signs
    }

    /// Records are lost, and others follow them.
    fn hole(&self, hole: &Hole) -> Sign {
        let Hole { error, before, remains, next } = hole;
        let not_needed = |message: String| Sign { code: Code::DamageNotNeeded, message, weight: Weight::NotNeeded };
        let next = next.unwrap_or(RaftIndex(u64::MAX));
        if next.0 <= self.start.0.saturating_add(1) {
            return not_needed(format!(
                "the damaged part of the log is older than the snapshot and was not needed: {error}"
            ));
        }
        if *before >= self.applied && self.is_alone() && !self.opened.salvage {
            return not_needed(format!(
                "the damaged part of the log is newer than the state that was asked for: {error}"
            ));
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
            return Sign { code: Code::DamageFilled, message, weight: Weight::NotNeeded };
        }
        let message = format!("later log entries were dropped because of damage: {error}");
        Sign { code: Code::DamagedLog, message, weight: Weight::Damaged(Reason::Damaged) }
    }

    fn damaged_end(&self, wal: &Wal, error: &Error) -> Sign {
        let last = wal.last().map_or(RaftIndex(0), |(_, last)| last);
        let (code, message) = if last < self.applied && !self.is_alone() {
            let from = last.0.max(self.start.0).saturating_add(1);
            (Code::DamageFilled, format!("entries after {} were taken from another member: {error}", from - 1))
        } else {
            (Code::DamagedLog, format!("what followed in this log after raft index {last} is not known: {error}"))
        };
        Sign { code, message, weight: Weight::Damaged(Reason::Damaged) }
    }

    /// A snapshot at the end of the log or beyond it, whose record the log does not have.
    fn snapshot_beyond(&self, member: &Member, wal: &Wal) -> Option<Sign> {
        let last = wal.last().map_or(RaftIndex(0), |(_, last)| last).max(wal.commit());
        let name = member.snapshots.last().filter(|_| !wal.snapshots().is_empty())?;
        let recorded = wal.snapshots().iter().any(|record| record.index == name.index);
        if name.index < last || (name.index == last && recorded) {
            return None;
        }
        let message = format!(
            "{}: the snapshot is at raft index {}, and the log ends at {last} without a record of it: a part of the log may be \
             missing",
            name.path.display(),
            name.index
        );
        Some(Sign { code: Code::CutCopy, message, weight: Weight::EndMissing })
    }
}

fn log_gone(member: &Member) -> Sign {
    let message = format!("{}: its log is missing, and nothing was taken from it", member.path.display());
    Sign { code: Code::LogGone, message, weight: Weight::Damaged(Reason::MemberIncomplete) }
}

/// What the size of the last segment says (FORMATS E 8).
fn last_segment(member: &Member, wal: &Wal, segment: LastSegment<'_>, closes_segments: bool) -> Option<Sign> {
    let LastSegment { name, len, records_end, preallocated } = segment;
    let path = name.path.display();
    let torn = match wal.end() {
        End::Clean => None,
        End::Torn { offset, .. } => Some(*offset),
        End::Damaged(_) => return None,
    };
    let repaired = member.unread_segments.iter().any(|broken| broken.seq == name.seq && member.is_renamed(broken));
    let end_missing = |code, message: String| Some(Sign { code, message, weight: Weight::EndMissing });
    if let Some(offset) = torn.filter(|_| !preallocated || (repaired && len < SEGMENT_BYTES)) {
        let message = format!(
            "{path}: byte {offset}: the last record is truncated: by a crash, or because the copy stopped early; compare the size \
             of the original file with {len} bytes"
        );
        return end_missing(Code::TornTail, message);
    }
    if preallocated && len < SEGMENT_BYTES && !repaired {
        let message = format!(
            "{path}: byte {len}: the last segment ends here, where etcd preallocates {SEGMENT_BYTES} bytes: the copy is probably \
             truncated"
        );
        return end_missing(Code::CutCopy, message);
    }
    if records_end >= SEGMENT_BYTES && (preallocated || closes_segments) {
        let message = format!(
            "{path}: byte {records_end}: the records of the last segment reach {SEGMENT_BYTES} bytes, after which etcd begins \
             another segment: the next one is missing"
        );
        return end_missing(Code::CutCopy, message);
    }
    if let Some(offset) = torn {
        let message = format!("{path}: byte {offset}: the last record was truncated by a crash and does not count");
        return Some(Sign { code: Code::TornTail, message, weight: Weight::Harmless });
    }
    (preallocated && len < SEGMENT_BYTES).then(|| {
        let message = format!("{path}: etcd repaired this segment once and kept its copy as .wal.broken");
        Sign { code: Code::Repaired, message, weight: Weight::Harmless }
    })
}

/// A segment that was renamed, or that follows the one that was named, and that the log lacks.
fn unread_segments(member: &Member, wal: &Wal) -> Option<Sign> {
    let last = wal.last_segment()?.name;
    let lacking = member.unread_segments.iter().find(|segment| segment.seq > last.seq)?;
    let message = match member.is_renamed(lacking) {
        true => "the segment was renamed and is not read; name it .wal again in a copy, and convert that",
        false => "the segment follows the one that was given and is not read; give the directory",
    };
    let message = format!("{}: {message}", lacking.path.display());
    Some(Sign { code: Code::CutCopy, message, weight: Weight::EndMissing })
}
