//! Any bytes as the segments of a log.
//!
//! They are read once unchanged, and once with every checksum corrected, so that the code after the checksum also runs.
//! A log that can be read is also replayed. Must not know what an entry should do: indexes and counts must fit,
//! contents are not compared.

use super::log::{CRC, Dialect, Log};
use crate::ids::{ByteOffset, RaftIndex};
use crate::source::dir::SegmentName;
use crate::source::frame::{Frame, RecordType, read_frame};
use crate::source::open::Opened;
use crate::source::wal::Wal;
use crate::v2store::recover::recover;
use crate::v2store::replay::{ReplayOptions, read_table};

/// The separator between two segments. It cannot be a valid length field.
pub const SEAM: &[u8] = b"--cut--\xff";

/// Reads any bytes as the segments of a log.
pub fn segment(data: &[u8]) {
    let parts: Vec<&[u8]> = split(data);
    let name = |seq: usize| SegmentName { seq: seq as u64, index: RaftIndex(0), path: format!("{seq}.wal").into() };
    read(parts.iter().enumerate().map(|(seq, part)| (name(seq), part.to_vec())).collect());
    if let Some(corrected) = correct(&parts) {
        read(corrected.named());
    }
}

fn split(data: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let mut start = 0;
    for seam in memchr::memmem::find_iter(data, SEAM).take(8) {
        parts.push(&data[start..seam]);
        start = seam + SEAM.len();
    }
    parts.push(&data[start..]);
    parts
}

/// Returns the same records with correct checksums, up to the first invalid frame of each segment.
fn correct(parts: &[&[u8]]) -> Option<Log> {
    let mut log: Option<Log> = None;
    for part in parts {
        let mut offset = ByteOffset(0);
        while let Ok(Frame::Record { record, next, padded }) = read_frame(part, offset) {
            let dialect = if padded { Dialect::Padded } else { Dialect::Unpadded };
            let log = log.get_or_insert_with(|| Log::headless(dialect, 1, 2));
            match (offset, record.kind) {
                (ByteOffset(0), _) => log.cut(0, None),
                (_, RecordType::Crc) => log.frame(CRC, record.crc, record.data),
                (_, RecordType::Metadata) => {}
                (_, RecordType::Entry) => log.record(2, record.data),
                (_, RecordType::State) => log.record(3, record.data),
                (_, RecordType::Snapshot) => log.record(5, record.data),
            }
            offset = next;
        }
    }
    log
}

fn read(segments: Vec<(SegmentName, Vec<u8>)>) {
    let bytes: usize = segments.iter().map(|(_, bytes)| bytes.len()).sum();
    let Ok(wal) = Wal::of_bytes(segments) else { return };
    assert!(wal.entries().len() <= bytes / 8, "more entries than fit into the bytes");
    for pair in wal.entries().windows(2) {
        assert_eq!(pair[1].index.0, pair[0].index.0 + 1, "entries without a gap");
        assert!(pair[1].term >= pair[0].term, "terms that do not fall");
    }
    for reference in wal.entries() {
        let entry = wal.entry(reference).unwrap();
        assert_eq!((entry.index, entry.term, entry.kind), (reference.index, reference.term, reference.kind));
        assert_eq!(wal.at(entry.index).unwrap().index, entry.index);
    }
    let Ok(opened) = Opened::of_log(wal) else { return };
    let table = read_table(&opened).unwrap();
    if let Ok(recovered) = recover(&opened, &table, None, &ReplayOptions::default()) {
        let count = opened.wal().unwrap().entries().len() as u64;
        assert_eq!(recovered.applied_entries + recovered.tail.entries, count);
    }
}
