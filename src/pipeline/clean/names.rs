//! The names of the directories of several members. Must not know paths.

use std::collections::BTreeSet;

use super::member::Plan;
use crate::ids::MemberId;
use crate::options::check_name;

/// Returns the name of each directory: that of the member, or its ID if another member has the name or it is no name for a directory.
/// The order of the sources does not matter.
pub(super) fn directories(plans: &[&Plan]) -> Vec<String> {
    let mut known: BTreeSet<(MemberId, &str)> = plans.iter().map(|plan| (plan.id, plan.name())).collect();
    for plan in plans {
        let listed = plan.identity.members.iter().map(|member| (member.id, member.name.as_str()));
        known.extend(listed.filter(|(_, name)| !name.is_empty()));
    }
    let is_usable = |id: MemberId, name: &str| {
        let is_taken =
            |(other, theirs): &(MemberId, &str)| (*other != id && *theirs == name) || other.to_string() == name;
        check_name(name).is_ok() && !known.iter().any(is_taken)
    };
    let name = |plan: &&Plan| match is_usable(plan.id, plan.name()) {
        true => plan.name().to_string(),
        false => plan.id.to_string(),
    };
    plans.iter().map(name).collect()
}
