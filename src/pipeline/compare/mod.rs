//! `compare`: whether the members of a cluster have converged, by their files alone.
//!
//! `reading` replays each member by itself, up to what that member knows to be committed. `logs` compares the entries, `states`
//! the trees and the v3 backends. `judge` puts the findings into words and decides. A damaged member does not hide the others.
//! Equality is claimed only where it is proven. Must not know how a report prints.

mod found;
mod judge;
mod logs;
mod reading;
mod states;

use found::{Found, Given};
use reading::{Reading, Source};

use super::Interrupted;
use super::inspect::open_options;
use crate::error::{Error, Reason, Result};
use crate::ids::{MemberId, RaftIndex};
use crate::interrupt::Interrupt;
use crate::notice::Code;
use crate::options::CompareOptions;
use crate::report::comparison::{ComparedMember, ComparedV3, Comparison, Status};
use crate::report::{Notice, SourceFacts, SourceKind};
use crate::source::cluster;
use crate::source::open::OpenOptions;
use crate::source::wal::Wal;

/// Compares the members of a cluster.
///
/// # Errors
/// A source that is not the data directory of a member with its log; [`Reason::NotOneCluster`]; if no source can be read, the
/// error of the first; an interruption.
pub fn compare(options: &CompareOptions, interrupted: Interrupted<'_>) -> Result<Comparison> {
    let interrupt = Interrupt::new(interrupted);
    let wal_dirs = options.wal_dirs.len();
    if options.sources.len() < 2 || (wal_dirs > 0 && wal_dirs != options.sources.len()) {
        let message = "expected at least 2 sources, and as many log directories as sources or none";
        return Err(Error::new(Reason::Usage, message));
    }
    let open_options = open_options(options.allow_live, interrupt);
    let wal_dirs = (0..).map(|at| options.wal_dirs.get(at));
    let sources: Vec<Source<'_>> =
        options.sources.iter().zip(wal_dirs).map(|(path, wal_dir)| Source { path, wal_dir }).collect();
    let compared = compare_sources(&sources, options, &open_options);
    open_options.watch.settle(compared)
}

fn compare_sources(
    sources: &[Source<'_>],
    options: &CompareOptions,
    open_options: &OpenOptions<'_>,
) -> Result<Comparison> {
    let mut comparison = Comparison::default();
    let given = read_all(sources, open_options, &mut comparison)?;
    let index = given.readings.iter().map(|reading| reading.state.applied).min().unwrap_or_default();
    comparison.common_index = index.0;
    let found = states::compare(&given, index, open_options)?;
    describe(&mut comparison, &given, &found);
    states::compare_backends(&mut comparison, &given, open_options.interrupt)?;
    compare_logs(&mut comparison, &given, &found, open_options.interrupt)?;
    judge::members(&mut comparison, &given, &found);
    states::list_nodes(&mut comparison, &given, &found, open_options)?;
    judge::verdict(&mut comparison, &given, &found, options);
    for reading in &given.readings {
        reading.opened().check_bytes(open_options.interrupt)?;
    }
    Ok(comparison)
}

/// Reads all members, by the rules of one version.
fn read_all<'o>(
    sources: &[Source<'o>],
    open_options: &OpenOptions<'_>,
    comparison: &mut Comparison,
) -> Result<Given<'o>> {
    let mut given = Given { sources: Vec::new(), positions: Vec::new(), readings: Vec::new() };
    let mut first_error = None;
    for (position, source) in sources.iter().enumerate() {
        let mut line = ComparedMember { path: source.path.display().to_string(), ..ComparedMember::default() };
        match reading::read(*source, None, open_options) {
            Ok(reading) => {
                given.sources.push(*source);
                given.positions.push(position);
                given.readings.push(reading);
            }
            Err(error) if reading::is_damage(&error) => {
                line.error = Some(error.to_string());
                first_error.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
        comparison.members.push(line);
    }
    match first_error {
        Some(error) if given.readings.is_empty() => return Err(error),
        _ => check_cluster(&given.readings)?,
    }
    // Servers of one cluster are restarted one by one with a new version, so the newest rules are those of the last start.
    let rules = given.readings.iter().map(|reading| reading.state.rules).max_by_key(|rules| rules.first);
    for (source, reading) in given.sources.iter().zip(&mut given.readings) {
        let Some(rules) = rules.filter(|rules| *rules != reading.state.rules) else { continue };
        let path = source.path.display();
        let own = reading.state.rules.label;
        let message = format!(
            "{path}: its log alone leads to the rules of etcd {own}; it is replayed by those of {}, as the other members",
            rules.label
        );
        comparison.warnings.push(Notice::new(Code::SourceVersionUnknown, message));
        *reading = reading::read(*source, Some(rules.first), open_options)?;
    }
    Ok(given)
}

/// Checks that the sources are different members of one cluster.
fn check_cluster(readings: &[Reading]) -> Result<()> {
    let is_backup = readings.iter().any(|reading| reading.state.facts.kind == SourceKind::Backup);
    cluster::check(readings.iter().filter_map(Reading::member)).map_err(|error| match is_backup {
        true => error
            .hint("`etcdctl backup` gives a copy new IDs; name the data directories that the backups were made from"),
        false => error,
    })
}

/// Writes the states into the comparison.
fn describe(comparison: &mut Comparison, given: &Given<'_>, found: &Found) {
    for ((position, reading), common) in given.positions.iter().zip(&given.readings).zip(&found.common) {
        let Some(line) = comparison.members.get_mut(*position) else { continue };
        let state = &reading.state;
        let SourceFacts { snapshot_index, last_entry, commit, member_id, members, voters, .. } = state.facts.clone();
        let own = members.iter().find(|member| Some(&member.id) == member_id.as_ref());
        line.status = Status::Equal;
        line.name = own.map(|member| member.name.clone()).filter(|name| !name.is_empty());
        (line.snapshot_index, line.last_entry, line.commit) = (snapshot_index, last_entry, commit);
        line.last_term = reading.wal().and_then(Wal::last).map(|(term, _)| term.0);
        (line.member_id, line.members, line.voters) = (member_id, members, voters);
        line.raft_index = Some(state.applied.0);
        line.v2_index = Some(state.v2_index.0);
        line.content_hash = Some(state.hash.to_string());
        match common {
            Ok(hash) => line.common_hash = Some(hash.clone()),
            Err(why) => line.no_common_hash = Some(why.clone()),
        }
        line.v3 = state.backend.as_ref().and_then(|(_, facts)| facts.as_ref().ok()).map(|facts| ComparedV3 {
            revision: facts.revision,
            compact_revision: facts.compact_revision,
            consistent_index: facts.consistent_index,
            pairs: facts.pairs,
            hash_kv: facts.hash_kv,
            replicated_hash: facts.replicated_hash,
            common_hash_kv: None,
        });
    }
    comparison.warnings.extend(warnings(given));
    if let (Some(reading), Some(source)) = (given.readings.get(found.reference), given.sources.get(found.reference)) {
        comparison.reference = source.path.display().to_string();
        comparison.cluster_id.clone_from(&reading.state.facts.cluster_id);
        comparison.voters.clone_from(&reading.state.facts.voters);
        let is_given = |id: &&MemberId| !given.readings.iter().any(|reading| reading.id().as_ref() == Some(*id));
        comparison.voters_not_read = reading.state.voters.iter().filter(is_given).map(ToString::to_string).collect();
    }
    if given.readings.iter().any(Reading::is_live) {
        let message =
            "an etcd is running on the sources: they were read one after the other, so a member may seem to be behind";
        comparison.warnings.push(Notice::new(Code::Live, message));
    }
}

/// Returns the findings about the files. One that does not name its file names its member, unless it concerns all.
fn warnings(given: &Given<'_>) -> Vec<Notice> {
    let mut warnings: Vec<Notice> = Vec::new();
    for (source, reading) in given.sources.iter().zip(&given.readings) {
        let path = source.path.display().to_string();
        for notice in &reading.state.warnings {
            let of_all = given.readings.iter().all(|reading| reading.state.warnings.contains(notice));
            let is_named = of_all || notice.message.contains(&path);
            let message = if is_named { notice.message.clone() } else { format!("{path}: {}", notice.message) };
            if !warnings.iter().any(|warning| warning.message == message) {
                warnings.push(Notice { message, ..notice.clone() });
            }
        }
    }
    warnings
}

/// Compares the logs: what each member lacks, and what becomes of the entries after the committed states.
fn compare_logs(comparison: &mut Comparison, given: &Given<'_>, found: &Found, interrupt: Interrupt<'_>) -> Result<()> {
    let Some(reference) = given.readings.get(found.reference) else { return Ok(()) };
    let committed = reference.state.applied;
    let in_history: Vec<(&Reading, usize)> = given.in_history_of_reference(found).collect();
    let members: Vec<_> = in_history.iter().filter_map(|(reading, _)| reading.member()).collect();
    let whole: Vec<bool> = in_history.iter().map(|(reading, _)| reading.state.incomplete.is_none()).collect();
    let cluster = logs::Cluster {
        members: &members,
        whole: &whole,
        voters: &reference.state.voters,
        committed,
        start: reference.opened().start.term(),
        is_live: given.readings.iter().any(Reading::is_live),
    };
    let (tail, holders) = logs::tail(&cluster, interrupt)?;
    let decided = RaftIndex(tail.committed_to.unwrap_or(committed.0));
    comparison.tail = tail;
    // The log that has the last committed entry supplies the entries that others lack.
    let holder = holders.and_then(|holders| in_history.iter().zip(holders).find(|(_, holds)| *holds));
    let holder = holder.map_or(reference, |((reading, _), _)| *reading);
    let mut supply: Vec<(&Wal, RaftIndex)> = holder.wal().map(|wal| (wal, decided)).into_iter().collect();
    supply.extend(in_history.iter().filter_map(|(reading, _)| Some((reading.wal()?, reading.state.applied))));
    for (reading, position) in &in_history {
        let Some(line) = comparison.members.get_mut(*position) else { continue };
        let applied = reading.state.applied;
        line.behind = committed.0.saturating_sub(applied.0);
        let has = match (reading.wal(), holder.wal()) {
            (Some(wal), Some(with)) => logs::agrees_to(wal, with, applied, decided, interrupt)?,
            _ => applied,
        };
        line.lacks = decided.0.saturating_sub(has.0);
        // A log with all committed entries lacks nothing, whether or not it knows their commit.
        let to = if line.lacks > 0 { decided } else { committed };
        line.entries = logs::kinds(&supply, applied, to, interrupt)?;
    }
    Ok(())
}
