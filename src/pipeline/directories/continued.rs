//! The members of `--to member`: each continues on its own log and snapshots, with the database in place (docs/formats.md 11.1).
//!
//! All of them continue from one raft index. A log whose commit index is below it gets a hard state, after the entries that it
//! lacks: what the leader would send. Must not know what the database contains.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::files::Writer;
use super::layout::{SNAP, WAL};
use crate::count::counted;
use crate::data_dir::{self, Member as NewMember};
use crate::error::{Error, Reason, Result};
use crate::ids::{ClusterId, MemberId, RaftIndex, Term};
use crate::image::Pair;
use crate::mvcc::schema;
use crate::notice::Code;
use crate::options::{ConvertOptions, Target, check_name};
use crate::pipeline::context::Context;
use crate::pipeline::merge::preserved::Preserved;
use crate::pipeline::old_version;
use crate::pipeline::replay::Replayed;
use crate::report::{Notice, Notices, SourceFile};
use crate::source::dir::Layout;
use crate::source::member::Member;
use crate::source::raft::HardState;
use crate::source::wal::Wal;
use crate::v2store::membership;

/// The hint for members that cannot continue.
const NEW_CLUSTER: &str = "make a new cluster instead: give --to data-dir, or leave --to out";

/// A member of the source that continues.
#[derive(Debug)]
pub(in crate::pipeline) struct ContinuedMember {
    pub(super) name: String,
    pub(super) id: MemberId,
    pub(super) peer_urls: Vec<String>,
    pub(super) is_learner: bool,
    /// The files to copy: `.snap` files, and the segments of the log.
    snapshots: Vec<PathBuf>,
    /// Segments that etcd set aside when it repaired the log: they show that a short segment is whole.
    repaired: Vec<PathBuf>,
    segments: Vec<PathBuf>,
    /// Records to write after the last one: the offset in the last segment, and their frames.
    records: Option<(u64, Vec<u8>)>,
}

/// Checks the options before any work.
///
/// # Errors
/// [`Reason::Usage`].
pub(super) fn check(options: &ConvertOptions) -> Result<()> {
    let usage = |message: &str| Err(Error::new(Reason::Usage, message));
    if options.target > Target::V3_5 {
        let message =
            "--to member needs --target-version 3.4 or 3.5: later releases refuse v2 data in the log of a member";
        return usage(message).map_err(|e: Error| e.hint(NEW_CLUSTER));
    }
    let excluded = [
        ("--salvage", options.salvage),
        ("--allow-live", options.allow_live),
        ("--allow-removed", options.allow_removed),
        ("--up-to-index", options.up_to_index.is_some()),
    ];
    match excluded.iter().find(|(_, given)| *given) {
        Some((option, _)) => {
            usage(&format!("--to member excludes {option}: the member continues with all that its log contains"))
        }
        None => Ok(()),
    }
}

/// Refuses a loss after which a member must not continue: it would come back to its cluster without what it has confirmed.
///
/// # Errors
/// [`Reason::CannotContinue`].
pub(super) fn refuse_losses(losses: &[Notice]) -> Result<()> {
    // What etcd leaves out or repairs itself when it starts.
    let allowed = [Code::TailLeftOut, Code::V3TailLeftOut, Code::TornTail, Code::SourceVersionUnknown];
    match losses.iter().find(|loss| !allowed.contains(&loss.code)) {
        Some(loss) => Err(refused(format!("the copy of a member is incomplete: {}", loss.message))),
        None => Ok(()),
    }
}

/// Returns the members of the source, which continue at this raft index.
///
/// # Errors
/// [`Reason::CannotContinue`] if the target cannot start on one of them.
pub(super) fn members(
    context: &Context<'_>,
    replayed: &mut Replayed<'_>,
    (applied, term): (RaftIndex, Term),
) -> Result<(ClusterId, Vec<ContinuedMember>)> {
    let opened = replayed.opened;
    let version = membership::cluster_version(&mut replayed.recovered.replay.tree);
    refuse_version(context.options.target, version.as_deref()).map_err(|e| e.in_file(opened.path()))?;
    let learners = &replayed.recovered.replay.voters.learners;
    let is_learner = |id| learners.contains(&id);
    let mut known: HashMap<MemberId, membership::MemberFacts> = HashMap::new();
    let mut out: Vec<ContinuedMember> = Vec::new();
    let listed = membership::list(&mut replayed.recovered.replay.tree);
    known.extend(listed.into_iter().map(|member| (member.id, member)));
    // Two logs with the same entry have the same entries before it; each may begin at another index.
    let leading = opened.members.iter().filter_map(|member| member.wal.as_ref());
    let leading: Vec<&Wal> = leading.filter(|wal| wal.at(applied).is_some_and(|entry| entry.term == term)).collect();
    let names: Vec<String> = known.values().map(|member| member.name.clone()).collect();
    let ids: Vec<String> = known.keys().map(ToString::to_string).collect();
    let mut cluster_id = ClusterId(0);
    for member in &opened.members {
        let in_member = |e: Error| e.in_file(&member.path);
        let (wal, id) = continuing_log(member, replayed.recovered.backup).map_err(in_member)?;
        cluster_id = wal.metadata().map_or(cluster_id, |metadata| metadata.cluster_id);
        let facts = known.remove(&id).ok_or_else(|| in_member(not_in_cluster(id)))?;
        if let Some(later) = member.snapshots.iter().find(|snap| snap.index > applied) {
            let message = format!("its snapshot at raft index {} is after the state at {applied}", later.index);
            return Err(refused(message).in_file(&later.path));
        }
        // The names of directories must not depend on the order of the sources.
        let is_unique = names.iter().filter(|name| **name == facts.name).count() == 1 && !ids.contains(&facts.name);
        let usable = check_name(&facts.name).is_ok() && is_unique;
        out.push(ContinuedMember {
            name: if usable { facts.name } else { id.to_string() },
            id,
            peer_urls: facts.peer_urls,
            is_learner: is_learner(id),
            snapshots: member.snapshots.iter().map(|snap| snap.path.clone()).collect(),
            repaired: repaired(member),
            segments: wal.maps().map(|map| map.path().to_path_buf()).collect(),
            records: missing_records(wal, &leading, applied).map_err(in_member)?,
        });
    }
    if let Some(missing) = known.into_values().min_by_key(|member| member.id) {
        let name = if missing.name.is_empty() { missing.id.to_string() } else { missing.name };
        let message = format!(
            "member {name} is missing: the members of a cluster must get the same v3 data, so they continue together"
        );
        let error = Error::new(Reason::CannotContinue, message).in_file(opened.path());
        return Err(
            error.hint("give the directories of all members in one run; or make a new cluster with --to data-dir")
        );
    }
    if context.options.target == Target::V3_5 {
        refuse_old_version(context, replayed, applied)?;
    }
    Ok((cluster_id, out))
}

/// Reports v2 writes in the log that the database does not have, and that the cluster can still commit.
pub(super) fn report_tail(replayed: &Replayed<'_>, found: &mut Notices) {
    let recovered = &replayed.recovered;
    if recovered.tail.writes.is_empty() {
        return;
    }
    let message = format!(
        "the log of the members has v2 writes after raft index {}: the next leader may commit them, and then v2 has them and v3 does not",
        recovered.replay.applied
    );
    found
        .losses
        .push(Notice::new(Code::TailLeftOut, message).hint("--tail all commits them on all members, in v2 and in v3"));
}

/// Refuses a cluster version of 2.x that etcd 3.5 finds when it starts: it would not serve v3.
fn refuse_old_version(context: &Context<'_>, replayed: &Replayed<'_>, applied: RaftIndex) -> Result<()> {
    let Replayed { opened, table, .. } = replayed;
    let Some(old) = old_version::found_at_start(opened, table, applied, context.interrupt)? else { return Ok(()) };
    let path = opened.members.get(old.member).map_or(opened.path(), |member| &member.path);
    let message = format!("etcd 3.5 would not serve v3 (\"not capable\"): the member has {old}");
    let hint = "give --target-version 3.4, and let each member take a snapshot before you upgrade it to 3.5; or make a new cluster \
                with --to data-dir";
    Err(Error::new(Reason::CannotContinue, message).in_file(path).hint(hint))
}

fn not_in_cluster(id: MemberId) -> Error {
    let message = format!("member {id} is not in its cluster: it was removed, or is not yet added");
    Error::new(Reason::CannotContinue, message).hint("leave its directory out")
}

fn repaired(member: &Member) -> Vec<PathBuf> {
    let aside = member.unread_segments.iter().filter(|segment| member.is_renamed(segment));
    aside.map(|segment| segment.path.clone()).collect()
}

/// Refuses a version that the target does not continue (docs/formats.md 9.6, 11.1).
fn refuse_version(target: Target, version: Option<&str>) -> Result<()> {
    let minor = version.and_then(|version| version.strip_prefix("3.")?.split('.').next()?.parse::<u32>().ok());
    let found = version.map_or("unknown".to_string(), |version| format!("{version:?}"));
    match (target, minor) {
        (Target::V3_5, None) => {
            let message = format!("etcd 3.5 cannot continue a member whose cluster version is {found}, not 3.x");
            let hint = "give --target-version 3.4, and upgrade to 3.5 later; or make a new cluster with --to data-dir";
            Err(Error::new(Reason::CannotContinue, message).hint(hint))
        }
        (Target::V3_4, Some(5)) => {
            let message = format!("the cluster version is {found}, and etcd 3.4 refuses to start on a later version");
            Err(Error::new(Reason::CannotContinue, message).hint("give --target-version 3.5"))
        }
        (_, Some(minor)) if minor > 5 => {
            let message = format!("the cluster version is {found}, and etcd 3.5 refuses to start on a later version");
            Err(Error::new(Reason::CannotContinue, message).hint(NEW_CLUSTER))
        }
        _ => Ok(()),
    }
}

/// Returns the log of a member that can continue, and the ID of the member.
fn continuing_log(member: &Member, is_backup: bool) -> Result<(&Wal, MemberId)> {
    if is_backup {
        return Err(refused("the source is a backup, which is not the directory of a member".into()));
    }
    if member.layout.is_none_or(|layout| layout == Layout::Log) {
        return Err(refused("expected the data directory of a member, found a part of one".into()));
    }
    let Some((wal, id)) = member.wal.as_ref().zip(member.id()) else {
        return Err(refused("the log of the member is missing".into()));
    };
    if !wal.holes().is_empty() || matches!(wal.end(), crate::source::entries::End::Damaged(_)) {
        return Err(refused("the log of the member is damaged".into()));
    }
    Ok((wal, id))
}

/// Returns the records that a log needs so that its commit index is `applied`: the entries that it lacks, and a hard state. `leading`
/// are the logs that have the last of them.
fn missing_records(wal: &Wal, leading: &[&Wal], applied: RaftIndex) -> Result<Option<(u64, Vec<u8>)>> {
    let state = wal.hard_state().unwrap_or(HardState { term: Term(0), vote: MemberId(0), commit: RaftIndex(0) });
    let commit = wal.commit();
    let Some(last) = wal.last_segment() else { return Err(refused("the log of the member is missing".into())) };
    if commit >= applied && state.commit >= applied {
        return Ok(None);
    }
    let term_at = |wal: &Wal, index| wal.at(index).map(|entry| entry.term);
    let mut entries = Vec::new();
    for index in (commit.0.saturating_add(1)..=applied.0).map(RaftIndex) {
        let own = term_at(wal, index);
        let known = leading.iter().find_map(|leading| Some((leading, leading.at(index)?)));
        let Some((leading, entry)) = known else {
            let missing = applied.0.saturating_sub(index.0).saturating_add(1);
            let missing = counted(missing, "entry", "entries");
            let message = format!("the member lacks {missing} up to raft index {applied}, which no other log has");
            return Err(refused(message).hint("start the cluster, wait until the member has them, and stop it again"));
        };
        // Once one entry is replaced, raft drops those after it.
        if !entries.is_empty() || own != Some(entry.term) {
            entries.push(leading.entry(entry)?);
        }
    }
    // A crash can lose the hard state of the last entries; a term must not be used twice.
    let own_last = wal.last().map_or(Term(0), |(term, _)| term);
    let term = entries.last().map_or(own_last, |entry| entry.term.max(own_last)).max(state.term);
    // The member has not voted in a term that it did not know.
    let vote = if term > state.term { MemberId(0) } else { state.vote };
    let state = HardState { term, vote, commit: applied };
    Ok(Some((last.records_end.0, data_dir::continuation(last.crc, &entries, state)?)))
}

/// Returns the buckets that describe the cluster, from the v2 store (docs/formats.md 9.6). Before 3.5, the database need not have
/// every member: a server writes there what it applies itself, and reads nothing from it. What is not in the v2 store is preserved:
/// members that were removed earlier, and a downgrade.
///
/// # Errors
/// [`Reason::Internal`].
pub(super) fn buckets(
    replayed: &mut Replayed<'_>,
    preserved: Option<&Preserved<'_>>,
) -> Result<Vec<(&'static [u8], Vec<Pair>)>> {
    let kept = |bucket: &[u8]| preserved.map_or(Vec::new(), |preserved| preserved.pairs_of(bucket).to_vec());
    let tree = &mut replayed.recovered.replay.tree;
    let learners = &replayed.recovered.replay.voters.learners;
    let member = |facts: membership::MemberFacts| {
        let is_learner = learners.contains(&facts.id);
        let (id, name, peer_urls, client_urls) = (facts.id, facts.name, facts.peer_urls, facts.client_urls);
        NewMember { id, peer_urls, is_learner, name, client_urls }
    };
    let members: Vec<NewMember> = membership::list(tree).into_iter().map(member).collect();
    let removed = membership::removed(tree).into_iter().map(|id| (id.to_string().into_bytes(), b"removed".to_vec()));
    let mut removed: Vec<Pair> = removed.chain(kept(schema::MEMBERS_REMOVED)).collect();
    removed.sort();
    removed.dedup_by(|one, other| one.0 == other.0);
    // A version of 2.x would keep 3.5 from ever serving v3.
    let version = membership::cluster_version(tree).filter(|version| version.starts_with("3."));
    let version = version.map(|version| (schema::CLUSTER_VERSION.to_vec(), version.into_bytes()));
    let mut cluster = kept(schema::CLUSTER);
    cluster.retain(|(key, _)| key != schema::CLUSTER_VERSION);
    cluster.extend(version);
    cluster.sort();
    Ok(vec![
        (schema::CLUSTER, cluster),
        (schema::MEMBERS, data_dir::member_rows(&members)?),
        (schema::MEMBERS_REMOVED, removed),
    ])
}

impl ContinuedMember {
    /// Writes the snapshots and the log of the member into its directory.
    ///
    /// # Errors
    /// A copy differs from the file that was read; the operating system fails.
    pub(super) fn write(&self, writer: Writer<'_>, root: &Path, read: &[SourceFile]) -> Result<()> {
        let copy = |from: &Path, to: &str| {
            let path = from.display().to_string();
            let known = read.iter().find(|file| file.path == path && file.hashed_bytes.is_none());
            let sha256 =
                known.map_or_else(|| writer.describe(from).map(|file| file.sha256), |file| Ok(file.sha256.clone()))?;
            let to = root.join(to).join(from.file_name().unwrap_or_default());
            writer.copy(from, &to, &sha256).map(|()| to)
        };
        for snapshot in &self.snapshots {
            copy(snapshot, SNAP)?;
        }
        for segment in &self.repaired {
            copy(segment, WAL)?;
        }
        let mut last = None;
        for segment in &self.segments {
            last = Some(copy(segment, WAL)?);
        }
        match (last, &self.records) {
            (Some(segment), Some((offset, frames))) => writer.continue_at(&segment, *offset, frames),
            _ => Ok(()),
        }
    }
}

fn refused(message: String) -> Error {
    Error::new(Reason::CannotContinue, message).hint(NEW_CLUSTER)
}
