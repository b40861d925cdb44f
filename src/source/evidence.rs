//! Evidence in the form of the records about the servers that wrote them (docs/formats.md 3.2, 4.1, 4.5, 5.1, 6.11).
//!
//! The scan calls it once for each record. Of each kind it stores the last piece of evidence, because the last server
//! counts. Knows bytes and positions. Must not know which versions write which form.

use crate::ids::{RaftIndex, Term};
use crate::source::raft::{Entry, EntryKind, HardState, SnapRecord};

/// The evidence in a log, each piece with the last entry read before it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Marks {
    /// The last frame whose length is not a multiple of 8: whether it is padded.
    pub frame: Option<(bool, RaftIndex)>,
    /// The first padded frame.
    pub padded: Option<RaftIndex>,
    /// The last entry without data: whether it has an empty data field.
    pub empty_data: Option<(bool, RaftIndex)>,
    /// The last hard state of a new term that follows the first entry of that term.
    pub state_after_entry: Option<RaftIndex>,
    /// The last snapshot record: whether it contains the raft configuration.
    pub configured: Option<(bool, RaftIndex)>,
    /// The highest index so far, in file order.
    at: RaftIndex,
    /// Whether the log begins with the entry of a migration from 0.4.
    migrated: bool,
    /// The highest term of a hard state.
    state_term: Term,
    /// The highest term of an entry.
    entry_term: Term,
}

/// The kinds of evidence without their places: if they change, the servers may have other rules.
pub type Forms = [Option<bool>; 5];

impl Marks {
    /// Returns the kinds of evidence.
    pub fn forms(&self) -> Forms {
        let form = |mark: Option<(bool, RaftIndex)>| mark.map(|(form, _)| form);
        let (padded, after) = (self.padded.map(|_| true), self.state_after_entry.map(|_| true));
        [form(self.frame), padded, form(self.empty_data), after, form(self.configured)]
    }

    /// Returns whether a migration from 0.4 wrote the beginning of the log.
    pub fn is_migrated(&self) -> bool {
        self.migrated
    }

    /// Records the entry with which a migration from 0.4 begins a log. Returns false if the entry cannot be one.
    pub fn migration(&mut self) -> bool {
        let first = self.at == RaftIndex(0) && !self.migrated;
        self.migrated |= first;
        first
    }

    /// Records a frame of `len` bytes, without padding.
    pub fn frame(&mut self, len: u64, padded: bool) {
        if !len.is_multiple_of(8) {
            self.frame = Some((padded, self.at));
        }
        if padded {
            self.padded.get_or_insert(self.at);
        }
    }

    /// Records an entry with these bytes.
    pub fn entry(&mut self, entry: &Entry<'_>, bytes: &[u8]) {
        self.at = self.at.max(entry.index);
        self.entry_term = self.entry_term.max(entry.term);
        if entry.kind == EntryKind::Normal && entry.data.is_empty() {
            self.empty_data = Some((bytes.ends_with(EMPTY_DATA), self.at));
        }
    }

    /// Records a hard state.
    pub fn state(&mut self, state: &HardState) {
        if state.term > self.state_term && state.term <= self.entry_term {
            self.state_after_entry = Some(self.at);
        }
        self.state_term = self.state_term.max(state.term);
    }

    /// Records a snapshot record. The first one of a new log has no configuration in any version.
    pub fn snapshot(&mut self, record: &SnapRecord) {
        if record.index > RaftIndex(0) {
            self.configured = Some((record.configured, self.at));
        }
    }
}

/// An empty data field of an entry. An entry without that field ends with the varint of its index, which never ends
/// with a zero byte.
const EMPTY_DATA: &[u8] = &[0x22, 0];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ByteOffset;
    use crate::source::raft::parse_entry;

    fn entry(bytes: &[u8]) -> Marks {
        let mut marks = Marks::default();
        marks.entry(&parse_entry(bytes, ByteOffset(0)).unwrap(), bytes);
        marks
    }

    #[test]
    fn an_empty_field_for_data_is_seen() {
        assert_eq!(entry(&[8, 0, 16, 2, 24, 5, 0x22, 0]).empty_data, Some((true, RaftIndex(5))));
        assert_eq!(entry(&[8, 0, 16, 2, 24, 5]).empty_data, Some((false, RaftIndex(5))));
        // An index with the value of the field's tag.
        assert_eq!(entry(&[8, 0, 16, 2, 24, 0x22]).empty_data, Some((false, RaftIndex(0x22))));
        assert_eq!(entry(&[8, 0, 16, 2, 24, 5, 0x22, 1, 0]).empty_data, None);
    }

    #[test]
    fn a_hard_state_after_the_first_entry_of_its_term_is_seen() {
        let state = |term| HardState { term: Term(term), ..HardState::default() };
        let mut before = Marks::default();
        before.state(&state(2));
        before.entry(&parse_entry(&[8, 0, 16, 2, 24, 5], ByteOffset(0)).unwrap(), &[]);
        before.state(&state(2));
        assert_eq!(before.state_after_entry, None);
        let mut after = entry(&[8, 0, 16, 2, 24, 5]);
        after.state(&state(2));
        assert_eq!(after.state_after_entry, Some(RaftIndex(5)));
    }

    #[test]
    fn the_last_frame_counts() {
        let mut marks = Marks::default();
        marks.frame(16, false);
        assert_eq!((marks.frame, marks.padded), (None, None));
        marks.frame(13, true);
        marks.frame(13, false);
        assert_eq!((marks.frame, marks.padded), (Some((false, RaftIndex(0))), Some(RaftIndex(0))));
    }
}
