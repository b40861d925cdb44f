//! One member of a comparison: its committed state by its own files, and its state at an earlier raft index.
//!
//! Each read opens the files again and replays the log alone, so that at most two trees exist at a time. Must not know the
//! other members.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Reason, Result};
use crate::ids::{MemberId, RaftIndex, V2Index};
use crate::notice::Code;
use crate::options::{TailPolicy, WalDir};
use crate::pipeline::backend::{self, Backend};
use crate::pipeline::diagnostics;
use crate::pipeline::inspect::v3_facts;
use crate::pipeline::merge::decide::has_v3_data;
use crate::pipeline::owner;
use crate::pipeline::replay::removes_itself;
use crate::report::inspection::V3Facts;
use crate::report::{Notice, SourceFacts};
use crate::source::live_copy::Access;
use crate::source::map::Map;
use crate::source::member::Member;
use crate::source::open::{Found, OpenOptions, Opened, open};
use crate::source::wal::Wal;
use crate::v2store::content_hash::{ContentHash, content_hash};
use crate::v2store::dialect::{RuleSet, Version};
use crate::v2store::membership;
use crate::v2store::recover::recover;
use crate::v2store::replay::{Recovered, ReplayOptions, read_table_watched};

/// The findings after which a copy may lack the end of the member's log.
const INCOMPLETE: [Code; 4] = [Code::CutCopy, Code::LogGone, Code::OlderSnapshot, Code::TornTail];

/// The findings that only concern a conversion of one member alone.
const OF_ONE_MEMBER: [Code; 3] = [Code::OneOfSeveralVoters, Code::TailLeftOut, Code::Live];

/// A source as the operator named it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'o> {
    pub(super) path: &'o Path,
    pub(super) wal_dir: Option<&'o WalDir>,
}

/// The open files of a member, and its committed state.
#[derive(Debug)]
pub(super) struct Reading {
    opened: Box<Opened>,
    pub(super) state: State,
}

/// The committed state of a member.
#[derive(Debug)]
pub(super) struct State {
    pub(super) facts: SourceFacts,
    /// The findings about the files.
    pub(super) warnings: Vec<Notice>,
    /// Why the copy is possibly incomplete.
    pub(super) incomplete: Option<String>,
    /// The raft index of the state.
    pub(super) applied: RaftIndex,
    pub(super) v2_index: V2Index,
    pub(super) hash: ContentHash,
    pub(super) voters: BTreeSet<MemberId>,
    /// The members that its store lists as removed.
    pub(super) removed: Vec<MemberId>,
    /// Whether an entry of its log removes it.
    pub(super) removes_itself: bool,
    /// The rules of the replay.
    pub(super) rules: RuleSet,
    /// The v3 backend: its path, and its content, or the error that prevents reading it.
    pub(super) backend: Option<(PathBuf, Result<V3Facts>)>,
    /// Whether the backend or the log has v3 data.
    pub(super) has_v3_data: bool,
}

/// Returns whether an error means that the copy of a member is damaged, so that the others can still be compared.
pub(super) fn is_damage(error: &Error) -> bool {
    error.kind() == Kind::Damaged || matches!(error.reason(), Reason::SourceEmpty | Reason::WalMissing)
}

/// Reads a member up to its commit index. `version` decides the rules of the replay; `None`: as its log shows.
///
/// # Errors
/// The source is not the data directory of a member with its log, or is damaged.
pub(super) fn read(source: Source<'_>, version: Option<Version>, options: &OpenOptions<'_>) -> Result<Reading> {
    let opened = open_member(source, options)?;
    let state = replay(&opened, None, version, options, |opened, backend, recovered| {
        describe(opened, backend, recovered, options)
    })
    .map_err(|e| e.in_file(source.path))?;
    Ok(Reading { opened, state })
}

/// Replays a member to a raft index and passes the result on.
///
/// # Errors
/// The files do not lead to the index, or are damaged; that of `work`.
pub(super) fn at<T>(
    source: Source<'_>,
    index: RaftIndex,
    version: Version,
    options: &OpenOptions<'_>,
    work: impl FnOnce(&mut Recovered<'_>) -> Result<T>,
) -> Result<T> {
    let options = OpenOptions { up_to: Some(index), ..options.clone() };
    let opened = open_member(source, &options)?;
    replay(&opened, Some(index), Some(version), &options, |_, _, recovered| work(recovered))
}

fn open_member(source: Source<'_>, options: &OpenOptions<'_>) -> Result<Box<Opened>> {
    match open(source.path, source.wal_dir, options)? {
        Found::V2(opened) if opened.wal().is_some() => Ok(opened),
        _ => {
            let message = "expected the data directory of a member with its log, found something else";
            let hint = "name the directory that etcd has as --data-dir, and give --wal-dir if its log is elsewhere";
            Err(Error::new(Reason::NotOneCluster, message).in_file(source.path).hint(hint))
        }
    }
}

fn replay<T>(
    opened: &Opened,
    up_to: Option<RaftIndex>,
    version: Option<Version>,
    options: &OpenOptions<'_>,
    work: impl FnOnce(&Opened, &Backend<'_>, &mut Recovered<'_>) -> Result<T>,
) -> Result<T> {
    let interrupt = options.interrupt;
    let table = read_table_watched(opened, interrupt)?;
    owner::require_content(opened, &table, interrupt)?;
    let backend = backend::newest(opened, interrupt)?;
    // What the member itself knows to be committed; the logs of all members decide about the rest.
    let tail = TailPolicy::Committed;
    let replay_options = ReplayOptions { tail, up_to, version, interrupt, ..ReplayOptions::default() };
    let mut recovered = recover(opened, &table, backend.applied(), &replay_options)?;
    work(opened, &backend, &mut recovered)
}

fn describe(
    opened: &Opened,
    backend: &Backend<'_>,
    recovered: &mut Recovered<'_>,
    options: &OpenOptions<'_>,
) -> Result<State> {
    let interrupt = options.interrupt;
    let (found, refusal) = diagnostics::source(opened, recovered, None);
    refusal.map_or(Ok(()), Err)?;
    let is_any = |notice: &Notice, codes: &[Code]| codes.contains(&notice.code);
    let incomplete = found.notices.losses.iter().find(|loss| is_any(loss, &INCOMPLETE));
    // etcd does not start on a damaged log, also if the damage hides nothing.
    let damaged = found.notices.warnings.iter().find(|warning| is_any(warning, &[Code::DamageNotNeeded]));
    let incomplete = incomplete.or(damaged).map(|notice| notice.message.clone());
    let mut warnings = [found.notices.losses, found.notices.warnings].concat();
    warnings.retain(|notice| !is_any(notice, &OF_ONE_MEMBER));
    warnings.extend(backend.unusable_notice());
    let of_backend = |map: &Map| {
        let facts = v3_facts(map, interrupt);
        interrupt.ask()?;
        Ok::<_, Error>((map.path().to_path_buf(), facts.map(|(facts, _)| facts)))
    };
    let db = backend.map.filter(|db| !db.bytes().is_empty()).map(of_backend).transpose()?;
    let has_v3_data = has_v3_data(opened, backend, recovered, interrupt)?;
    let tree = &mut recovered.replay.tree;
    let member = opened.start_member();
    let id = member.and_then(Member::id);
    Ok(State {
        facts: found.source,
        warnings,
        incomplete,
        applied: recovered.replay.applied,
        v2_index: tree.current_index,
        hash: content_hash(tree, interrupt)?,
        voters: recovered.replay.voters.voters.clone(),
        removed: membership::removed_ids(tree),
        removes_itself: match (member, id) {
            (Some(member), Some(id)) => removes_itself(member, id)?,
            _ => false,
        },
        rules: recovered.versions.used,
        backend: db,
        has_v3_data,
    })
}

impl Reading {
    /// Returns the files of the member.
    pub(super) fn member(&self) -> Option<&Member> {
        self.opened.start_member()
    }

    /// Returns the log.
    pub(super) fn wal(&self) -> Option<&Wal> {
        self.opened.wal()
    }

    /// Returns the id of the member.
    pub(super) fn id(&self) -> Option<MemberId> {
        self.member().and_then(Member::id)
    }

    /// Returns whether an etcd was running on the member.
    pub(super) fn is_live(&self) -> bool {
        self.member().is_some_and(|member| member.access() == Access::Live)
    }

    /// Returns the v3 backend that was read.
    pub(super) fn backend(&self) -> Option<&Map> {
        let (path, _) = self.state.backend.as_ref()?;
        let member = self.member()?;
        let received = member.received_dbs.iter().map(|(_, map)| map);
        member.db.iter().chain(received).find(|map| map.path() == path)
    }

    /// Returns the open files.
    pub(super) fn opened(&self) -> &Opened {
        &self.opened
    }
}
