//! Logs in every state that a crash, a purge or a received snapshot leaves.
//!
//! The logs come from `fuzzing/log`, in both dialects.

use super::*;
use crate::error::Reason;
use crate::fuzzing::log::{Dialect, ENTRY, Log, NORMAL};

const BOTH: [Dialect; 2] = [Dialect::Unpadded, Dialect::Padded];

/// Three segments: entries 1 to 3, 4 to 6, 7 to 9, with a hard state after each.
fn three(dialect: Dialect) -> Log {
    let mut log = Log::new(dialect, 0xa, 0xc);
    for index in 1..=9 {
        if index % 3 == 1 && index > 1 {
            log.cut(index, Some([1, 0xa, index - 1]));
        }
        log.entry(NORMAL, 1, index, Some(&[b'x'; 40]));
        if index % 3 == 0 {
            log.state(1, 0xa, index);
        }
    }
    log
}

fn read(log: &Log) -> Result<Wal> {
    Wal::of_bytes(log.named())
}

fn indexes(wal: &Wal) -> Vec<u64> {
    wal.entries().iter().map(|entry| entry.index.0).collect()
}

fn first_and_last(wal: &Wal) -> Option<(u64, u64)> {
    wal.range().map(|(first, last)| (first.0, last.0))
}

#[test]
fn a_sound_log_is_read_whole() {
    for dialect in BOTH {
        let wal = read(&three(dialect)).unwrap();
        assert_eq!(indexes(&wal), (1..=9).collect::<Vec<_>>());
        assert_eq!(
            (wal.commit(), wal.snapshots().len(), wal.marks().padded.is_some()),
            (RaftIndex(9), 1, dialect == Dialect::Padded)
        );
        assert!(wal.holes().is_empty() && matches!(wal.end(), End::Clean));
        assert!(wal.continues(RaftIndex(0)) && wal.continues(RaftIndex(7)) && wal.continues(RaftIndex(u64::MAX)));
        assert_eq!((wal.spans().len(), wal.history().len(), wal.unproven().count()), (1, 9, 0));
    }
}

#[test]
fn a_later_entry_replaces_its_index_and_all_after_it() {
    let mut log = three(Dialect::Padded);
    for (index, term) in [(10, 1), (11, 1), (12, 1), (11, 2), (12, 3), (12, 4)] {
        log.entry(NORMAL, term, index, None);
    }
    let wal = read(&log).unwrap();
    assert_eq!(indexes(&wal), (1..=12).collect::<Vec<_>>());
    let terms: Vec<u64> = wal.entries().iter().skip(9).map(|entry| entry.term.0).collect();
    assert_eq!((terms, wal.overwritten()), (vec![1, 2, 4], 3));
    // A new leader can replace even the first entry, or one before it.
    log.entry(NORMAL, 5, 1, None);
    assert_eq!(indexes(&read(&log).unwrap()), [1]);
}

#[test]
fn a_term_that_falls_is_damage() {
    let mut log = three(Dialect::Padded);
    log.entry(NORMAL, 2, 10, None);
    log.entry(NORMAL, 1, 11, None);
    let error = read(&log).unwrap_err();
    assert_eq!((error.reason(), error.offset().is_some()), (Reason::Damaged, true));
}

#[test]
fn after_a_received_snapshot_the_log_begins_anew() {
    let mut log = three(Dialect::Unpadded);
    log.snapshot(50, 2);
    log.state(2, 0xb, 50);
    log.entry(NORMAL, 2, 51, None);
    log.entry(NORMAL, 2, 52, None);
    let wal = read(&log).unwrap();
    assert_eq!(indexes(&wal), [51, 52]);
    assert_eq!(wal.snapshots().last(), Some(&SnapRecord { index: RaftIndex(50), term: Term(2), configured: false }));
    assert!(!wal.continues(RaftIndex(9)) && !wal.continues(RaftIndex(49)) && wal.continues(RaftIndex(50)));
    let history: Vec<u64> = wal.history().iter().map(|entry| entry.index.0).collect();
    assert_eq!(history, (1..=9).chain(51..=52).collect::<Vec<_>>());
}

#[test]
fn damage_in_an_early_segment_moves_the_beginning() {
    for dialect in BOTH {
        for damaged in 0..2 {
            let log = three(dialect);
            let mut segments = log.named();
            let bytes = &mut segments[damaged].1;
            let offset = log.segments()[damaged].ends[3];
            bytes[offset..].fill(0xa5);
            let wal = Wal::of_bytes(segments).unwrap();
            let first = [4, 7][damaged];
            assert_eq!((indexes(&wal).first(), wal.holes().len()), (Some(&first), 1));
            assert!(!wal.continues(RaftIndex(first - 2)) && wal.continues(RaftIndex(first - 1)));
            let hole = &wal.holes()[0];
            assert!(hole.error.offset().is_some() && hole.error.file().is_some(), "{hole:?}");
            assert_eq!(hole.next, Some(RaftIndex(first)));
        }
    }
}

#[test]
fn a_segment_whose_predecessor_lost_its_end_is_used_alone() {
    for dialect in BOTH {
        let log = three(dialect);
        let mut segments = log.named();
        // The cut is at the end of a record, so the segment itself looks complete.
        let end = log.segments()[1].ends[3];
        segments[1].1.truncate(end);
        let wal = Wal::of_bytes(segments).unwrap();
        assert_eq!((indexes(&wal), wal.holes().len()), (vec![7, 8, 9], 1));
        assert!(wal.holes()[0].error.to_string().contains("does not continue"), "{wal:?}");
    }
}

#[test]
fn damage_in_the_last_segment_is_an_error() {
    for dialect in BOTH {
        let mut segments = three(dialect).named();
        // The last record: nothing after it can prove that it alone is damaged.
        let bytes = &mut segments[2].1;
        let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        bytes[last] ^= 1;
        let error = Wal::of_bytes(segments).unwrap_err();
        assert_eq!(error.reason(), Reason::Damaged);
        assert!(error.offset().is_some() && error.file().is_some());
    }
}

#[test]
fn a_missing_segment_is_a_hole() {
    let mut segments = three(Dialect::Padded).named();
    segments.remove(1);
    let wal = Wal::of_bytes(segments).unwrap();
    assert_eq!((indexes(&wal), wal.holes().len(), wal.spans().len()), (vec![7, 8, 9], 1, 2));
    assert!(!wal.continues(RaftIndex(3)) && wal.continues(RaftIndex(6)));
    assert!(wal.holes()[0].error.to_string().contains("expected segment 0000000000000001"), "{wal:?}");
    assert_eq!(wal.spans()[0].committed, RaftIndex(3));
}

/// A crash during the cut of a segment leaves an empty file or the header alone.
#[test]
fn a_last_segment_without_entries_is_no_damage() {
    for dialect in BOTH {
        for records in 0..=2usize {
            let mut log = three(dialect);
            log.cut(10, None);
            let end = records.checked_sub(1).map_or(0, |last| log.segments()[3].ends[last]);
            let mut segments = log.named();
            segments[3].1.truncate(end);
            for zeros in [0, 4096] {
                segments[3].1.resize(end + zeros, 0);
                let wal = Wal::of_bytes(segments.clone()).unwrap();
                assert_eq!((first_and_last(&wal), wal.commit()), (Some((1, 9)), RaftIndex(9)), "{records} {zeros}");
                assert!(matches!(wal.end(), End::Clean));
            }
        }
    }
}

#[test]
fn an_empty_segment_with_a_successor_is_damage() {
    let mut segments = three(Dialect::Padded).named();
    segments[1].1.clear();
    let wal = Wal::of_bytes(segments).unwrap();
    assert_eq!((indexes(&wal), wal.holes().len()), (vec![7, 8, 9], 1));
}

#[test]
fn entries_lost_before_a_segment_without_any_are_missed() {
    for lost in 0..3 {
        let mut log = three(Dialect::Padded);
        log.cut(10, None);
        let mut segments = log.named();
        // Damaged, emptied, or missing.
        match lost {
            0 => segments[2].1.fill(0xa5),
            1 => segments[2].1.clear(),
            _ => drop(segments.remove(2)),
        }
        let wal = Wal::of_bytes(segments).unwrap();
        assert!(indexes(&wal).is_empty());
        assert!(!wal.continues(RaftIndex(0)) && !wal.continues(RaftIndex(8)) && wal.continues(RaftIndex(9)));
    }
}

#[test]
fn a_torn_record_ends_the_last_segment_and_damages_any_other() {
    for dialect in BOTH {
        let log = three(dialect);
        let ends = &log.segments()[2].ends;
        let (whole, end) = (ends[ends.len() - 2], ends[ends.len() - 1]);
        for len in whole + 1..end {
            let mut segments = log.named();
            segments[2].1.truncate(len);
            let wal = Wal::of_bytes(segments.clone()).unwrap();
            assert!(
                matches!(wal.end(), End::Torn { offset, .. } if *offset == ByteOffset(whole as u64)),
                "cut at {len}"
            );
            assert_eq!((first_and_last(&wal), wal.commit()), (Some((1, 9)), RaftIndex(6)));
            let mut segments = log.named();
            segments[1].1.truncate(len);
            assert_eq!(Wal::of_bytes(segments).unwrap().holes().len(), 1);
        }
    }
}

/// A record across the end of a sector, whose second sector was never written. It is torn wherever the sector ends in
/// it, also in its first fields, and whether or not the file continues.
#[test]
fn a_record_is_torn_wherever_a_sector_ends_in_it() {
    let mut tried = [0, 0];
    for (dialect, there) in BOTH.into_iter().flat_map(|d| (1..40).map(move |there| (d, there))) {
        let Some((start, segment)) = (300..500).find_map(|filler| with_record_at(dialect, filler, 504 - there)) else {
            continue;
        };
        tried[usize::from(dialect == Dialect::Padded)] += 1;
        for end in [513, 520, 1024, segment.1.len(), segment.1.len() + 512] {
            let mut bytes = segment.1[..512].to_vec();
            bytes.resize(end, 0);
            let wal = Wal::of_bytes(vec![(segment.0.clone(), bytes.clone())]).unwrap();
            assert!(
                matches!(wal.end(), End::Torn { offset, .. } if *offset == ByteOffset(start)),
                "{there} bytes, file of {end}"
            );
            assert_eq!(first_and_last(&wal), Some((1, 1)));
            bytes.resize(segment.1.len().max(end), 0);
            bytes.push(1);
            let error = Wal::of_bytes(vec![(segment.0.clone(), bytes)]).unwrap_err();
            assert!(error.offset() >= Some(ByteOffset(start)), "{there} bytes, more after it: {error}");
        }
    }
    // Some positions are skipped because the varint of the checksum is shorter there.
    assert!(tried[0] >= 30 && tried[1] >= 3, "{tried:?}");
}

/// Builds a record after one of `filler` bytes, if its frame begins at `start`; it is the last of its segment.
fn with_record_at(dialect: Dialect, filler: usize, start: usize) -> Option<(u64, (SegmentName, Vec<u8>))> {
    let mut log = Log::new(dialect, 1, 2);
    log.entry(NORMAL, 1, 1, Some(&vec![b'x'; filler]));
    let at = log.segments()[0].bytes.len();
    log.entry(NORMAL, 1, 2, Some(&[b'y'; 700]));
    (at == start).then(|| (at as u64, log.named().remove(0)))
}

#[test]
fn metadata_of_another_member_is_damage() {
    let mut segments = three(Dialect::Padded).named();
    let mut other = Log::headless(Dialect::Padded, 0xb, 0xc);
    other.cut(7, None);
    other.record(ENTRY, None);
    segments[2].1 = other.named().remove(0).1;
    assert_eq!(Wal::of_bytes(segments).unwrap_err().reason(), Reason::Damaged);
}

#[test]
fn only_files_of_the_exact_name_are_segments() {
    use crate::source::detect::{Source, detect};
    let dir = tempfile::tempdir().unwrap();
    let wal_dir = dir.path().join("member/wal");
    std::fs::create_dir_all(&wal_dir).unwrap();
    for (name, bytes) in three(Dialect::Padded).named() {
        std::fs::write(wal_dir.join(&name.path), bytes).unwrap();
    }
    for name in
        ["0.tmp", "1.tmp", "0000000000000003-000000000000000a.wal.tmp", "0000000000000002-0000000000000007.wal.broken"]
    {
        std::fs::write(wal_dir.join(name), b"not a segment").unwrap();
    }
    let Source::Directory(found) = detect(dir.path(), None).unwrap() else { panic!("a data directory") };
    let wal = Wal::read(&found.segments.unwrap(), &Files::default(), Interrupt::default()).unwrap();
    assert_eq!((first_and_last(&wal), wal.maps().count()), (Some((1, 9)), 3));
}

/// One record with a wrong checksum and sound records after it: the log loses that record alone.
#[test]
fn after_one_damaged_record_the_log_goes_on() {
    for dialect in BOTH {
        let log = three(dialect);
        // Records 3 to 5 of the middle segment are entries 4 to 6.
        for record in 3..6 {
            for at_end in [true, false] {
                let mut segments = log.named();
                let (start, end) = (log.segments()[1].ends[record - 1], log.segments()[1].ends[record]);
                // A byte of the data, or of the checksum itself.
                let at = if at_end { start + 50 } else { start + 12 };
                assert!(at < end);
                segments[1].1[at] ^= 1;
                let wal = Wal::of_bytes(segments).unwrap();
                let index = record as u64 + 1;
                assert_eq!((indexes(&wal), wal.holes().len()), ((index + 1..=9).collect::<Vec<_>>(), 1));
                assert_eq!(wal.holes()[0].next, Some(RaftIndex(index + 1)));
                assert!(!wal.continues(RaftIndex(index - 1)) && wal.continues(RaftIndex(index)));
                assert_eq!(wal.commit(), RaftIndex(9));
            }
        }
    }
}

/// Damage in the frame of a record, which no checksum covers: length, type, the checksum itself. The log loses that
/// record and no other.
#[test]
fn a_damaged_frame_loses_one_record() {
    for dialect in BOTH {
        let log = three(dialect);
        for record in 3..6 {
            let (start, index) = (log.segments()[1].ends[record - 1], record as u64 + 1);
            for (byte, bit) in (0..14).flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
                let mut segments = log.named();
                segments[1].1[start + byte] ^= 1 << bit;
                let wal = Wal::of_bytes(segments).unwrap();
                let place = format!("{dialect:?}, record {record}, byte {byte}, bit {bit}: {:?}", wal.holes());
                assert_eq!(wal.holes().len(), 1, "{place}");
                assert_eq!(indexes(&wal), (index + 1..=9).collect::<Vec<_>>(), "{place}");
            }
        }
    }
}

/// If several records are overwritten, the first readable one proves the next.
#[test]
fn overwritten_records_lose_one_more() {
    for dialect in BOTH {
        let mut log = three(dialect);
        (10..=30).for_each(|index| log.entry(NORMAL, 1, index, Some(&[b'y'; 50])));
        log.state(1, 0xa, 30);
        let mut segments = log.named();
        // Records 7 to 27 of the last segment are entries 10 to 30.
        let ends = &log.segments()[2].ends;
        segments[2].1[ends[9] + 3..ends[12] - 9].fill(0xa5);
        let wal = Wal::of_bytes(segments).unwrap();
        assert_eq!((indexes(&wal), wal.holes().len()), ((17..=30).collect::<Vec<_>>(), 1), "{:?}", wal.holes());
        assert_eq!(wal.holes()[0].before, RaftIndex(12));
    }
}

/// Entries of a deposed leader beyond the snapshot that it received. The term at the index of the snapshot proves that
/// those up to it are not part of the history. Servers record the commit index before or after the snapshot.
#[test]
fn a_stale_tail_below_a_received_snapshot_does_not_count() {
    for state_first in [true, false] {
        let mut log = three(Dialect::Unpadded);
        (10..=30).for_each(|index| log.entry(NORMAL, 7, index, None));
        if state_first {
            log.state(8, 0xb, 20);
        }
        log.snapshot(20, 6);
        if !state_first {
            log.state(8, 0xb, 20);
        }
        // A leader of term 8 may have entries of term 6.
        log.entry(NORMAL, 6, 21, None);
        log.entry(NORMAL, 8, 22, None);
        log.state(8, 0xb, 22);
        let wal = read(&log).unwrap();
        assert_eq!(indexes(&wal), [21, 22]);
        let history: Vec<u64> = wal.history().iter().map(|entry| entry.index.0).collect();
        assert_eq!(history, (1..=9).chain(21..=22).collect::<Vec<_>>());
        assert_eq!(wal.unproven().map(|(entry, _)| entry.index.0).collect::<Vec<_>>(), (10..=20).collect::<Vec<_>>());
        assert!(wal.at(RaftIndex(15)).is_none() && !wal.continues(RaftIndex(9)) && wal.continues(RaftIndex(20)));
    }
}

/// Servers before 3.4.8 write the commit index of a received snapshot before its record. If the record is lost, entries
/// of an earlier term may be stale.
#[test]
fn a_hard_state_of_another_term_right_before_damage_proves_nothing() {
    for (term, committed) in [(7, 20), (8, 9)] {
        let mut log = three(Dialect::Padded);
        (10..=30).for_each(|index| log.entry(NORMAL, 7, index, None));
        log.state(term, 0xb, 20);
        log.snapshot(20, 6);
        log.entry(NORMAL, 8, 21, None);
        log.state(8, 0xb, 21);
        let mut segments = log.named();
        let ends = &log.segments()[2].ends;
        let at = ends[ends.len() - 4] + 12;
        segments[2].1[at] ^= 1;
        let wal = Wal::of_bytes(segments).unwrap();
        assert_eq!((wal.spans()[0].committed, wal.holes().len()), (RaftIndex(committed), 1), "term {term}");
    }
}

/// 2.0 writes the hard state before the entries that it commits. If these are torn, the entries of an earlier term that
/// they would have replaced are not committed.
#[test]
fn a_hard_state_before_a_torn_entry_of_its_term_does_not_commit_older_entries() {
    let mut log = Log::new(Dialect::Unpadded, 0xa, 0xc);
    log.state(1, 0xa, 4);
    (1..=9).for_each(|index| log.entry(NORMAL, if index < 6 { 1 } else { 2 }, index, Some(&[b'x'; 40])));
    log.state(3, 0xb, 6);
    log.entry(NORMAL, 3, 6, Some(&[b'y'; 40]));
    let whole = log.segments()[0].ends.clone();
    assert_eq!(read(&log).unwrap().commit(), RaftIndex(6));
    let mut segments = log.named();
    segments[0].1.truncate(whole[whole.len() - 2] + 20);
    let wal = Wal::of_bytes(segments).unwrap();
    assert!(matches!(wal.end(), End::Torn { .. }));
    assert_eq!((wal.commit(), wal.spans()[0].committed), (RaftIndex(4), RaftIndex(4)));
}

/// A crash can leave the record of a received snapshot without the commit index. Then the old log counts, as in etcd.
#[test]
fn a_snapshot_record_that_no_commit_confirms_changes_nothing() {
    let mut log = three(Dialect::Padded);
    (10..=30).for_each(|index| log.entry(NORMAL, 7, index, None));
    log.snapshot(20, 8);
    let wal = read(&log).unwrap();
    assert_eq!((indexes(&wal), wal.commit(), wal.unproven().count()), ((1..=30).collect::<Vec<_>>(), RaftIndex(9), 0));
}

/// The first frame whose length needs padding shows who created a segment; a checksum record alone often does not.
#[test]
fn the_writer_of_a_segment_is_known_by_its_frames() {
    for dialect in BOTH {
        let segment = read(&three(dialect)).unwrap();
        assert_eq!(segment.last_segment().unwrap().preallocated, dialect == Dialect::Padded);
    }
}

proptest::proptest! {
    /// Any sequence of saves: the log of a member that leads, follows, is deposed and receives snapshots.
    #[test]
    fn reading_returns_what_was_saved(
        saves in proptest::collection::vec((0u8..6, 0u64..8, 0usize..70), 1..60),
        padded: bool,
    ) {
        let mut log = Log::new(if padded { Dialect::Padded } else { Dialect::Unpadded }, 1, 2);
        let (mut entries, mut term, mut last): (Vec<(u64, u64, usize)>, _, _) = (Vec::new(), 1, 0);
        for (what, number, len) in saves {
            match what {
                0 => log.cut(last + 1, None),
                1 => {
                    // Deposed: entries of the new leader replace some of the last ones.
                    term += 1;
                    let first = entries.first().map_or(last + 1, |entry| entry.0);
                    let index = (last + 1).saturating_sub(number).max(first);
                    entries.retain(|entry| entry.0 < index);
                    last = index;
                    entries.push((index, term, len));
                    log.entry(NORMAL, term, index, Some(&vec![7; len]));
                }
                2 if number > 0 => {
                    last += number;
                    log.snapshot(last, term);
                    entries.clear();
                    last += 1;
                    entries.push((last, term, len));
                    log.entry(NORMAL, term, last, Some(&vec![7; len]));
                }
                _ => {
                    last += 1;
                    entries.push((last, term, len));
                    log.entry(NORMAL, term, last, Some(&vec![7; len]));
                }
            }
        }
        let wal = read(&log).unwrap();
        let found: Vec<_> = wal.entries().iter().map(|e| (e.index.0, e.term.0, wal.entry(e).unwrap().data.len())).collect();
        proptest::prop_assert_eq!(found, entries);
        proptest::prop_assert!(wal.holes().is_empty());
    }
}
