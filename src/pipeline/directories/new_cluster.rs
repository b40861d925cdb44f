//! The cluster of `--to data-dir`: from the options, or from the members in the source.
//!
//! Must not know which files a member gets.

use std::path::Path;

use jiff::Timestamp;

use super::files::Writer;
use super::layout::{SNAP, WAL};
use crate::data_dir::{self, Cluster, Member};
use crate::display::short;
use crate::error::{Error, Reason, Result};
use crate::ids::MemberId;
use crate::notice::Code;
use crate::options::{ConvertOptions, InitialCluster, PeerUrls, To, check_name};
use crate::pipeline::replay::Replayed;
use crate::report::{Notice, Notices};
use crate::source::wal::Wal;
use crate::v2store::membership::{self, MemberFacts};

/// Reports what the operator must know before the members start. `written` is the number of members with a directory.
pub(super) fn report(
    cluster: &Cluster,
    written: usize,
    as_of: Option<Timestamp>,
    replayed: &Replayed<'_>,
    found: &mut Notices,
) {
    let all = cluster.members().len();
    if written < all {
        // All members must have the same content, so TTLs must count against the same instant.
        let as_of = as_of.map_or("last-write".to_string(), |at| at.to_string());
        let message = format!("the output has the directories of {written} of {all} members");
        found.warnings.push(Notice::new(Code::OtherMembers, message).hint(format!(
            "write the others from the same source with the same options and --as-of {as_of}, or all at once with --all-members"
        )));
    }
    let id = cluster.id;
    if replayed.opened.wal().and_then(Wal::metadata).is_some_and(|metadata| metadata.cluster_id == id) {
        let message = format!(
            "the new cluster has the ID {id} of the old one: a member of the old cluster that still runs could join it"
        );
        found.warnings.push(Notice::new(Code::SameClusterId, message).hint("give another --initial-cluster-token"));
    }
}

/// Writes the log and the `.snap` file of a member into its directory.
///
/// # Errors
/// As [`Writer::write`].
pub(super) fn write(writer: Writer<'_>, root: &Path, cluster: &Cluster, member: &Member) -> Result<()> {
    let segment = data_dir::first_segment(cluster, member)?;
    writer.write(&root.join(WAL).join(data_dir::SEGMENT_NAME), &segment, data_dir::PREALLOCATED)?;
    writer.write(&root.join(SNAP).join(data_dir::snap_name(cluster)), &data_dir::snap_file(cluster)?, 0)
}

/// Checks the options of a new cluster before any work.
///
/// # Errors
/// [`Reason::Usage`] if they contradict each other.
pub(in crate::pipeline) fn check(options: &ConvertOptions) -> Result<()> {
    if options.preserve_owner && !options.to.is_directory() {
        return Err(usage("--preserve-owner needs --to data-dir or --to member".into()));
    }
    if options.to != To::DataDir {
        return match options.cluster == Default::default() {
            true => Ok(()),
            false => Err(usage("options of a new cluster need --to data-dir".into())),
        };
    }
    let members = options.cluster.members().map_err(usage)?;
    members.map_or(Ok(()), |members| of(options, &members, &options.cluster.learners).map(drop))
}

/// Returns the new cluster, and the members whose directories are written, in the order of their names.
///
/// # Errors
/// [`Reason::Usage`]; [`Reason::MembersUnusable`] if the members in the source cannot form a cluster.
pub(super) fn resolve(options: &ConvertOptions, replayed: &mut Replayed<'_>) -> Result<(Cluster, Vec<Member>)> {
    match options.cluster.members().map_err(usage)? {
        Some(members) => of(options, &members, &options.cluster.learners),
        None => from_source(options, replayed).map_err(|e| e.in_file(replayed.opened.path())),
    }
}

fn of(options: &ConvertOptions, members: &InitialCluster, learners: &[String]) -> Result<(Cluster, Vec<Member>)> {
    let written = options.cluster.written(members).map_err(usage)?;
    let member = |(name, urls): (&String, &PeerUrls)| {
        Member::new(name, urls.urls(), learners.contains(name), &options.cluster.token)
    };
    let cluster = Cluster::new(members.0.iter().map(member).collect())?;
    let written = written.into_iter().filter_map(|name| cluster.named(name).cloned()).collect();
    Ok((cluster, written))
}

fn from_source(options: &ConvertOptions, replayed: &mut Replayed<'_>) -> Result<(Cluster, Vec<Member>)> {
    let learners = replayed.recovered.replay.voters.learners.clone();
    let found = membership::list(&mut replayed.recovered.replay.tree);
    if found.is_empty() {
        return Err(unusable("the source has no members".into()));
    }
    let mut members = InitialCluster(Default::default());
    for member in &found {
        let urls = usable(member)?;
        if members.0.insert(member.name.clone(), urls).is_some() {
            return Err(unusable(format!("two members have the name {}", short(&member.name))));
        }
    }
    let names = |id: &MemberId| found.iter().find(|member| member.id == *id).map(|member| member.name.clone());
    let learners: Vec<String> = learners.iter().filter_map(names).collect();
    let own = replayed.opened.wal().and_then(Wal::metadata).and_then(|metadata| names(&metadata.node_id));
    let mut chosen = options.clone();
    if !options.cluster.all_members && options.cluster.name.is_none() {
        // The directory is for the member that the source belongs to.
        chosen.cluster.name = own;
    }
    of(&chosen, &members, &learners)
}

/// Returns the peer URLs of a member that a new cluster can have.
fn usable(member: &MemberFacts) -> Result<PeerUrls> {
    let id = member.id;
    if member.name.is_empty() {
        return Err(unusable(format!("member {id} has no name, because it never started")));
    }
    check_name(&member.name).map_err(unusable)?;
    if membership::is_made_up(&member.name, &member.peer_urls) {
        return Err(unusable("the source is a backup, in which one made-up member replaces all others".into()));
    }
    PeerUrls::new(&member.peer_urls).map_err(|e| unusable(format!("member {id}: {e}")))
}

fn unusable(message: String) -> Error {
    Error::new(Reason::MembersUnusable, message).hint("name the members of the new cluster with --initial-cluster")
}

fn usage(message: String) -> Error {
    Error::new(Reason::Usage, message).hint("`etcdlift convert --help` describes the options of a new cluster")
}
