//! What `compare` may say of some members' directories: nothing that the simulated cluster contradicts.

use std::path::Path;

use etcdlift::error::Kind;
use etcdlift::options::CompareOptions;
use etcdlift::report::Comparison;
use etcdlift::report::comparison::{ComparedMember, Rest, Status, Verdict};

use super::cluster::Cluster;
use super::judge::Given;

/// Compares, and says what kind of outcome it was.
///
/// # Errors
/// Why the outcome is wrong.
pub(super) fn converge(cluster: &Cluster, given: &[Given]) -> Result<String, String> {
    let hurt = given.iter().any(|given| given.damage.is_some());
    let comparison = match etcdlift::compare(&CompareOptions::new(given.iter().map(|given| given.path.clone()))) {
        Ok(comparison) => comparison,
        Err(error) if hurt && error.kind() == Kind::Damaged => return Ok("refused".to_string()),
        // A copy whose log was taken away, and its snapshots with it or not.
        Err(error) if hurt && error.kind() == Kind::Refused => return Ok("refused".to_string()),
        Err(error) => return Err(format!("{error:?}")),
    };
    for (line, given) in comparison.members.iter().zip(given) {
        member(cluster, line, given)?;
    }
    tail(cluster, &comparison, given)?;
    let read = comparison.members.iter().filter(|line| line.error.is_none());
    let states: Vec<_> = read.filter_map(|line| Some(nodes(cluster, line.raft_index?))).collect();
    let equal = states.windows(2).all(|pair| pair[0] == pair[1]);
    let same_index = comparison.members.windows(2).all(|pair| pair[0].raft_index == pair[1].raft_index);
    match comparison.verdict {
        Verdict::Converged | Verdict::ExceptEmptyEntries if !equal => Err("the states differ".to_string()),
        Verdict::Converged if !same_index => Err("the raft indexes differ".to_string()),
        Verdict::Converged | Verdict::ExceptEmptyEntries
            if given.iter().any(Given::is_hurt) && !is_whole(&comparison) =>
        {
            Err("a damaged copy proves nothing".to_string())
        }
        Verdict::Differ if !hurt && same_index && comparison.tail.range.is_none() => {
            Err(format!("nothing differs: {:?}", comparison.reasons))
        }
        verdict => Ok(format!("{}{verdict}", if hurt { "damaged: " } else { "" })),
    }
}

/// Whether every member was read, to at least what its files committed.
fn is_whole(comparison: &Comparison) -> bool {
    comparison.members.iter().all(|line| line.error.is_none())
}

fn member(cluster: &Cluster, line: &ComparedMember, given: &Given) -> Result<(), String> {
    let at = format!("m{}", given.member);
    let Some(index) = line.raft_index else {
        return if given.damage.is_some() { Ok(()) } else { Err(format!("{at}: {:?}", line.error)) };
    };
    let committed = cluster.committed.len() as u64;
    if index > committed || (given.damage.is_none() && index < cluster.members[given.member].written_commit()) {
        return Err(format!("{at}: read to {index} of {committed}"));
    }
    let expected = cluster.state_after(cluster.committed[..index as usize].iter()).index;
    if line.v2_index != Some(expected) {
        return Err(format!("{at}: v2 index {:?} at {index}, expected {expected}", line.v2_index));
    }
    // There is one history.
    match line.status {
        Status::Diverged | Status::Removed => Err(format!("{at}: {} {:?}", line.status, line.findings)),
        _ => Ok(()),
    }
}

/// An entry that is never committed was never acknowledged. A committed one survives every election.
fn tail(cluster: &Cluster, comparison: &Comparison, given: &[Given]) -> Result<(), String> {
    let reference = comparison.members.iter().find(|line| line.path == comparison.reference).unwrap();
    let decided = comparison.tail.committed_to.or(reference.raft_index).unwrap();
    let committed = cluster.committed.len() as u64;
    if comparison.tail.rest == Rest::NotCommitted && committed > decided {
        return Err(format!("entries after {decided} were committed, up to {committed}"));
    }
    if decided <= committed {
        return Ok(());
    }
    let holder = given.iter().find(|given| cluster.members[given.member].entry_on_disk(decided).is_some()).unwrap();
    match super::judge::electable_hold(cluster, holder.member, decided) {
        true => Ok(()),
        false => Err(format!("entries up to {decided} may still be replaced")),
    }
}

type Nodes = (u64, Vec<(Vec<u8>, Option<Vec<u8>>, u64, u64)>);

/// The keys after so many committed entries, and the v2 index.
fn nodes(cluster: &Cluster, index: u64) -> Nodes {
    let model = cluster.state_after(cluster.committed[..index as usize].iter());
    let keys = model.nodes.iter().filter(|(path, _)| Path::new(std::str::from_utf8(path).unwrap()).starts_with("/1"));
    (model.index, keys.map(|(path, node)| (path.clone(), node.value.clone(), node.created, node.modified)).collect())
}
