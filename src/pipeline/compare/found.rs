//! What a comparison works on: the members that were read, and what the comparison of all pairs found.
//!
//! Must not know how a finding is judged.

use super::reading::{Reading, Source};
use crate::ids::RaftIndex;
use crate::source::cluster::Contradiction;

/// The members that can be read, and what the others' errors say.
pub(super) struct Given<'o> {
    /// The sources of the members that were read, in the order of the command line.
    pub(super) sources: Vec<Source<'o>>,
    /// The positions of these sources on the command line.
    pub(super) positions: Vec<usize>,
    pub(super) readings: Vec<Reading>,
}

/// What the comparison of all pairs found.
pub(super) struct Found {
    /// For each member: the content hash at the common index, or why it has none.
    pub(super) common: Vec<std::result::Result<String, String>>,
    /// For each member: where its log contradicts that of the reference.
    pub(super) contradictions: Vec<Option<Contradiction>>,
    /// For each member that cannot be replayed to the common index: the later index at which it was compared with the
    /// reference, and whether the content is equal there.
    pub(super) compared_later: Vec<Option<(RaftIndex, bool)>>,
    /// The position of the reference among the members that were read.
    pub(super) reference: usize,
    /// For each pair of members: whether history or content contradict each other.
    pub(super) contradict: Vec<Vec<bool>>,
}

impl Found {
    /// Returns whether the history or the content of two members contradict each other.
    pub(super) fn contradict(&self, one: usize, other: usize) -> bool {
        self.contradict.get(one).and_then(|of| of.get(other)).copied().unwrap_or(false)
    }
}

impl Given<'_> {
    /// Returns the members whose logs do not contradict that of the reference, and their positions on the command line.
    pub(super) fn in_history_of_reference<'g>(
        &'g self,
        found: &'g Found,
    ) -> impl Iterator<Item = (&'g Reading, usize)> {
        let members = self.readings.iter().zip(&self.positions).zip(&found.contradictions);
        members
            .filter(|(_, contradiction)| contradiction.is_none())
            .map(|((reading, position), _)| (reading, *position))
    }

    /// Returns whether a member was removed from the cluster, by any store or by its own log.
    pub(super) fn is_removed(&self, reading: &Reading) -> bool {
        let listed = |id| self.readings.iter().any(|other| other.state.removed.contains(&id));
        reading.state.removes_itself || reading.id().is_some_and(listed)
    }
}
