//! The cluster of `--to data-dir`: from the options, or from the members in the source.
//!
//! Must not know which files a member gets.

use jiff::Timestamp;

use super::replay::Replayed;
use crate::data_dir::{Cluster, Member};
use crate::display::short;
use crate::error::{Error, Reason, Result};
use crate::ids::MemberId;
use crate::notice::Code;
use crate::options::{ConvertOptions, InitialCluster, PeerUrls, To, check_name};
use crate::report::Notices;
use crate::source::wal::Wal;
use crate::v2store::membership::{self, MemberFacts};

/// The cluster that boots from the output.
#[derive(Debug, Clone)]
pub(super) struct NewCluster {
    pub(super) cluster: Cluster,
    /// The members whose directories are written, in the order of their names.
    pub(super) written: Vec<Member>,
}

impl NewCluster {
    /// Reports what the operator must know before the members start.
    pub(super) fn report(&self, as_of: Option<Timestamp>, replayed: &Replayed<'_>, found: &mut Notices) {
        let (all, written) = (self.cluster.members().len(), self.written.len());
        if written < all {
            // All members must have the same content, so TTLs must count against the same instant.
            let as_of = as_of.map_or("last-write".to_string(), |at| at.to_string());
            let message = format!(
                "the directories of {written} of {all} members: write the others from the same source with the same options and \
                 --as-of {as_of}, or all at once with --all-members"
            );
            found.warn(Code::OtherMembers, message);
        }
        let id = self.cluster.id;
        if replayed.opened.wal().and_then(Wal::metadata).is_some_and(|metadata| metadata.cluster_id == id) {
            let message = format!(
                "the new cluster has the ID {id} of the old one: a member of the old cluster that still runs could join it; give \
                 another --initial-cluster-token"
            );
            found.warn(Code::SameClusterId, message);
        }
    }
}

/// Checks the options of a new cluster before any work.
///
/// # Errors
/// [`Reason::Usage`] if they contradict each other.
pub(super) fn check(options: &ConvertOptions) -> Result<()> {
    if options.to != To::DataDir {
        return match options.cluster == Default::default() && !options.preserve_owner {
            true => Ok(()),
            false => Err(usage("options of a new cluster need --to data-dir".into())),
        };
    }
    let members = options.cluster.members().map_err(usage)?;
    members.map_or(Ok(()), |members| of(options, &members, &options.cluster.learners).map(drop))
}

/// Returns the new cluster; `None` for an output that is one file.
///
/// # Errors
/// [`Reason::Usage`]; [`Reason::MembersUnusable`] if the members in the source cannot form a cluster.
pub(super) fn resolve(options: &ConvertOptions, replayed: &mut Replayed<'_>) -> Result<Option<NewCluster>> {
    if options.to != To::DataDir {
        return Ok(None);
    }
    match options.cluster.members().map_err(usage)? {
        Some(members) => of(options, &members, &options.cluster.learners).map(Some),
        None => from_source(options, replayed).map(Some).map_err(|e| e.in_file(replayed.opened.path())),
    }
}

fn of(options: &ConvertOptions, members: &InitialCluster, learners: &[String]) -> Result<NewCluster> {
    let written = options.cluster.written(members).map_err(usage)?;
    let member = |(name, urls): (&String, &PeerUrls)| {
        Member::new(name, urls.urls(), learners.contains(name), &options.cluster.token)
    };
    let cluster = Cluster::new(members.0.iter().map(member).collect())?;
    let written = written.into_iter().filter_map(|name| cluster.named(name).cloned()).collect();
    Ok(NewCluster { cluster, written })
}

fn from_source(options: &ConvertOptions, replayed: &mut Replayed<'_>) -> Result<NewCluster> {
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
    Error::new(Reason::Usage, message)
}
