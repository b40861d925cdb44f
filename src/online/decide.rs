//! The table of decisions: one v2 key, against what v3 has. Pure. Must not know how v3 is read or written.

use crate::ids::V2Index;
use crate::online::state::Why;

/// What v3 has of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Nothing.
    Absent,
    /// A value of the job, right as of this v2 index.
    Own(V2Index),
    /// A value of somebody else.
    Foreign,
}

/// The marker of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marker {
    /// v2 leads.
    Absent,
    /// v3 leads. The client had read v2 up to this index, if it says so.
    Present(Option<V2Index>),
}

/// What v2 says of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The index of its last change.
    pub index: V2Index,
    /// Whether it has a value.
    pub value: bool,
    /// Whether this change was made while the migration ran, so that it must not be lost silently.
    pub change: bool,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Write the value.
    Put,
    /// Delete the key.
    Delete,
    /// v3 has it, or something newer.
    Nothing,
    /// v3 keeps what it has, and the change is a conflict.
    Conflict(Why),
    /// v3 keeps what it has and gets a marker. It is a conflict, except where a first copy finds the same value.
    Mark {
        /// Whether an equal value is no conflict.
        unless_equal: bool,
    },
}

/// Decides.
pub fn decide(seen: Seen, marker: Marker, wanted: Wanted) -> Decision {
    match (marker, seen) {
        (Marker::Present(Some(read)), _) if read >= wanted.index => Decision::Nothing,
        (Marker::Present(_), _) if wanted.change => Decision::Conflict(Why::Moved),
        (Marker::Present(_), _) => Decision::Nothing,
        (Marker::Absent, Seen::Absent) if wanted.value => Decision::Put,
        (Marker::Absent, Seen::Absent) => Decision::Nothing,
        // A change says more than what was copied at the same index: a TTL that was refreshed, or that of a directory.
        (Marker::Absent, Seen::Own(as_of)) if as_of > wanted.index || as_of == wanted.index && !wanted.change => {
            Decision::Nothing
        }
        (Marker::Absent, Seen::Own(_)) if wanted.value => Decision::Put,
        (Marker::Absent, Seen::Own(_)) => Decision::Delete,
        (Marker::Absent, Seen::Foreign) => Decision::Mark { unless_equal: !wanted.change },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every row of the table: what v3 has, the marker, the index of v2 relative to it, value, change.
    #[test]
    fn every_case_has_its_decision() {
        let markers = [Marker::Absent, Marker::Present(None), Marker::Present(Some(V2Index(5)))];
        let seen = [Seen::Absent, Seen::Own(V2Index(5)), Seen::Foreign];
        let mut counts = [0; 5];
        for marker in markers {
            for seen in seen {
                for index in [4, 5, 6].map(V2Index) {
                    for (value, change) in [(false, false), (false, true), (true, false), (true, true)] {
                        let got = decide(seen, marker, Wanted { index, value, change });
                        let moved = marker != Marker::Absent;
                        let known = marker == Marker::Present(Some(V2Index(5))) && index <= V2Index(5);
                        let expected = match seen {
                            _ if moved && (!change || known) => Decision::Nothing,
                            _ if moved => Decision::Conflict(Why::Moved),
                            Seen::Absent if value => Decision::Put,
                            Seen::Absent => Decision::Nothing,
                            Seen::Own(_) if index < V2Index(5) || index == V2Index(5) && !change => Decision::Nothing,
                            Seen::Own(_) if value => Decision::Put,
                            Seen::Own(_) => Decision::Delete,
                            Seen::Foreign => Decision::Mark { unless_equal: !change },
                        };
                        assert_eq!(got, expected, "{marker:?} {seen:?} {index} {value} {change}");
                        let kind = match got {
                            Decision::Put => 0,
                            Decision::Delete => 1,
                            Decision::Nothing => 2,
                            Decision::Conflict(_) => 3,
                            Decision::Mark { .. } => 4,
                        };
                        counts[kind] += 1;
                    }
                }
            }
        }
        assert!(counts.iter().all(|count| *count > 0) && counts.iter().sum::<i32>() == 108, "{counts:?}");
    }

    /// What must never happen, said on its own.
    #[test]
    fn a_moved_or_foreign_key_is_never_written() {
        for marker in [Marker::Absent, Marker::Present(None)] {
            for seen in [Seen::Absent, Seen::Own(V2Index(9)), Seen::Foreign] {
                for index in (0..20).map(V2Index) {
                    for value in [true, false] {
                        let got = decide(seen, marker, Wanted { index, value, change: true });
                        let writes = matches!(got, Decision::Put | Decision::Delete);
                        assert!(!writes || marker == Marker::Absent && seen != Seen::Foreign);
                        let newer = seen == Seen::Own(V2Index(9)) && index < V2Index(9);
                        assert!(!writes || !newer, "older data over newer");
                    }
                }
            }
        }
    }
}
