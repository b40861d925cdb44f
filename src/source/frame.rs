//! One frame of a WAL segment: length field, record and padding (docs/formats.md 4.1, 4.2, 4.7).
//!
//! No checksum covers the length field and the record type, and etcd stops silently at damage in them. So this reader
//! accepts only what etcd can have written: reserved bits, padding bytes, field order and the inner length must all
//! agree. Must not know what the data of a record means.

use crate::count::bytes;
use crate::error::{Error, Reason, Result};
use crate::ids::ByteOffset;
use crate::limits;
use crate::wire::Reader;

/// The type of a record (docs/formats.md 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordType {
    /// The ids of the member and the cluster.
    Metadata,
    /// A raft entry.
    Entry,
    /// A raft hard state.
    State,
    /// The running checksum at the end of the previous segment.
    Crc,
    /// The record of a snapshot that was taken or received.
    Snapshot,
}

impl RecordType {
    /// Returns the number of the type in a record.
    pub const fn number(self) -> u8 {
        match self {
            RecordType::Metadata => 1,
            RecordType::Entry => 2,
            RecordType::State => 3,
            RecordType::Crc => 4,
            RecordType::Snapshot => 5,
        }
    }
}

/// A complete record. Its checksum is not checked here, because the chain continues across segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The type of the data.
    pub kind: RecordType,
    /// CRC-32C of all data since the beginning of the log.
    pub crc: u32,
    /// The message; `None` if the field is absent.
    pub data: Option<&'a [u8]>,
    /// Offset of the data's first byte in the segment.
    pub data_offset: ByteOffset,
    /// Length of the record in bytes, without length field and padding.
    pub len: u64,
}

/// The content at one offset of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A record; `next` is the offset after its padding.
    Record {
        /// The record.
        record: Record<'a>,
        /// Offset of the next frame.
        next: ByteOffset,
        /// Whether the frame has padding, which proves a writer of 3.0 or later.
        padded: bool,
    },
    /// The end: the end of the file, or only zeros up to it.
    End,
}

/// The reason why a frame cannot be read.
#[derive(Debug)]
pub enum Unreadable {
    /// A frame whose write was apparently interrupted, with only zeros after it. In the last segment this is the end of
    /// the log.
    Torn(Error),
    /// Any other damage.
    Damaged(Error),
}

impl Unreadable {
    /// Returns the error of both variants.
    pub fn into_error(self) -> Error {
        match self {
            Unreadable::Torn(e) | Unreadable::Damaged(e) => e,
        }
    }
}

impl From<Error> for Unreadable {
    fn from(e: Error) -> Unreadable {
        Unreadable::Damaged(e)
    }
}

const FRAME_HEAD: u64 = 8;
const SECTOR: usize = 512;

/// Reads the frame at `offset` of a segment.
///
/// # Errors
/// [`Unreadable::Torn`] or [`Unreadable::Damaged`], with the offset and what was expected there.
pub fn read_frame(segment: &[u8], offset: ByteOffset) -> Result<Frame<'_>, Unreadable> {
    let rest = from(segment, offset);
    let Some((head, body)) = rest.split_first_chunk::<8>() else {
        if all_zero(rest) {
            return Ok(Frame::End);
        }
        return Err(Unreadable::Torn(damaged(offset, "expected the length of a record, found the end of the file")));
    };
    let length = Length::parse(u64::from_le_bytes(*head), offset)?;
    let Some(length) = length else {
        if all_zero(body) {
            return Ok(Frame::End);
        }
        return Err(damaged(offset, "expected a record, found a length of zero with more data after it").into());
    };
    let whole = usize::try_from(length.record + length.padding).ok().and_then(|whole| body.split_at_checked(whole));
    let Some((frame, after)) = whole else {
        return Err(short_frame(body, &length, offset));
    };
    let (record, padding) = frame.split_at_checked(frame.len() - length.padding as usize).unwrap_or((frame, &[]));
    match parse_record(record, offset + FRAME_HEAD) {
        Ok(parsed) if all_zero(padding) => {
            let next = offset + FRAME_HEAD + frame.len() as u64;
            Ok(Frame::Record { record: parsed, next, padded: length.padded })
        }
        Ok(_) => Err(damaged(offset, "expected zero padding after a record, found other bytes").into()),
        Err(error) => Err(unreadable(error, frame, after, &length, offset)),
    }
}

/// The position where reading continues after damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resumed {
    /// Offset of the first proven record.
    pub offset: ByteOffset,
    /// The checksum that its chain continues from: that of the record before it.
    pub crc: u32,
}

/// Skips one record with unreadable fields. This works if its length is readable and its data leads to the checksum of
/// the next record. `crc` is the checksum before it; `budget` is the number of bytes that may still be hashed.
pub fn after_damaged_head(segment: &[u8], offset: ByteOffset, crc: u32, budget: &mut u64) -> Option<Resumed> {
    let (head, body) = from(segment, offset).split_first_chunk::<8>()?;
    let length = Length::parse(u64::from_le_bytes(*head), offset).ok()??;
    let record = body.get(..usize::try_from(length.record).ok()?)?;
    let next = offset + FRAME_HEAD + length.record + length.padding;
    let (after, _) = record_at(segment, next).filter(|(after, _)| after.kind != RecordType::Crc)?;
    // Type, checksum (at most 5 bytes) and length (at most 5 bytes) come before the data.
    let heads = 5..=14usize.min(record.len());
    let after_data = after.data.unwrap_or_default();
    for data in heads.filter_map(|head| record.get(head..)) {
        *budget = budget.checked_sub((data.len() + after_data.len()) as u64)?;
        let crc = crc32c::crc32c_append(crc, data);
        if crc32c::crc32c_append(crc, after_data) == after.crc {
            return Some(Resumed { offset: next, crc });
        }
    }
    None
}

/// Returns the number of bytes that the frame at `offset` occupies by its length field, even if they are not a record.
pub fn frame_bytes(segment: &[u8], offset: ByteOffset) -> u64 {
    let rest = from(segment, offset);
    let length = rest.first_chunk::<8>().and_then(|head| Length::parse(u64::from_le_bytes(*head), offset).ok()?);
    length.map_or(0, |length| length.record.saturating_add(FRAME_HEAD).min(rest.len() as u64))
}

/// Returns the number of bytes of the frame at `offset` with length field and padding; `None` if the length field is unreadable.
pub fn frame_len(segment: &[u8], offset: ByteOffset) -> Option<u64> {
    let head = from(segment, offset).first_chunk::<8>()?;
    let length = Length::parse(u64::from_le_bytes(*head), offset).ok()??;
    Some(FRAME_HEAD + length.record + length.padding)
}

/// Finds the first two records after `damaged` where the checksum of the first leads to that of the second.
///
/// Reading continues with the first record if the bytes before it are one complete record with a damaged length.
/// Otherwise it continues with the second. `crc` is the checksum before it. Any bytes can look like a record, so
/// `budget` limits the number of bytes hashed without success.
pub fn find_records(segment: &[u8], damaged: ByteOffset, crc: u32, budget: &mut u64) -> Option<Resumed> {
    let first = usize::try_from(damaged + 1 + FRAME_HEAD).ok()?;
    // A record begins with the tag of its type.
    for at in memchr::memchr_iter(0x08, segment.get(first..)?) {
        let offset = ByteOffset::from(first + at - FRAME_HEAD as usize);
        let Some((before, next)) = record_at(segment, offset) else { continue };
        let Some((after, _)) = record_at(segment, next) else { continue };
        if after.kind == RecordType::Crc {
            continue;
        }
        let data = after.data.unwrap_or_default();
        *budget = budget.checked_sub(data.len() as u64)?;
        if crc32c::crc32c_append(before.crc, data) == after.crc {
            let whole = whole_record(segment, damaged, offset, crc);
            let first = whole.map(|crc| Resumed { offset, crc });
            return Some(first.unwrap_or(Resumed { offset: next, crc: before.crc }));
        }
    }
    None
}

/// Returns the checksum of the record between two offsets, if it is complete. At most 7 bytes of padding follow it.
fn whole_record(segment: &[u8], start: ByteOffset, end: ByteOffset, crc: u32) -> Option<u32> {
    let body = usize::try_from(start + FRAME_HEAD).ok()?..usize::try_from(end).ok()?;
    let body = segment.get(body)?;
    (0..8).find_map(|padding| {
        let (record, rest) = body.split_at_checked(body.len().checked_sub(padding)?)?;
        let record = parse_record(record, start + FRAME_HEAD).ok().filter(|_| all_zero(rest))?;
        (crc32c::crc32c_append(crc, record.data.unwrap_or_default()) == record.crc).then_some(record.crc)
    })
}

/// Returns the record at this offset and the offset of the next frame, if its fields fit its length.
fn record_at(segment: &[u8], offset: ByteOffset) -> Option<(Record<'_>, ByteOffset)> {
    let (head, body) = from(segment, offset).split_first_chunk::<8>()?;
    // A cheap test that most bytes fail: a length below 4 GiB with padding flags, a one-byte type, the tag of a
    // checksum.
    let likely = matches!(head, [.., 0, 0, 0, 0 | 0x81..=0x87]) && matches!(body, [0x08, 1..=5, 0x10, ..]);
    if !likely {
        return None;
    }
    let length = Length::parse(u64::from_le_bytes(*head), offset).ok()??;
    let frame = body.get(..usize::try_from(length.record.checked_add(length.padding)?).ok()?)?;
    let (record, padding) = frame.split_at_checked(usize::try_from(length.record).ok()?)?;
    let parsed = parse_record(record, offset + FRAME_HEAD).ok().filter(|_| all_zero(padding))?;
    Some((parsed, offset + FRAME_HEAD + frame.len() as u64))
}

/// Returns whether a record with a wrong checksum looks torn: at least one whole sector of it was never written, and
/// only zeros follow in the segment (docs/formats.md 4.7).
pub fn looks_torn(segment: &[u8], offset: ByteOffset, next: ByteOffset) -> bool {
    let body = offset + FRAME_HEAD;
    let frame = from(segment, body).get(..(next - body) as usize).unwrap_or_default();
    before_zero_sector(frame, body).is_some() && all_zero(from(segment, next))
}

/// Returns whether an unreadable frame was being written: all bytes before `written` are present, and only zeros
/// follow.
pub fn is_being_written(segment: &[u8], offset: ByteOffset, written: ByteOffset) -> bool {
    let Some((head, body)) = from(segment, offset).split_first_chunk::<8>() else { return true };
    let body_offset = offset + FRAME_HEAD;
    if body_offset > written {
        return true;
    }
    let Ok(Some(length)) = Length::parse(u64::from_le_bytes(*head), offset) else { return false };
    let there = usize::try_from(written - body_offset).unwrap_or(usize::MAX).min(body.len());
    length.record + length.padding > written - body_offset
        && head_agrees(body.get(..there).unwrap_or_default(), length.record)
}

/// The length field of a frame (docs/formats.md 4.1).
struct Length {
    record: u64,
    padding: u64,
    padded: bool,
}

impl Length {
    /// Returns `None` for zero, which is never the length of a record.
    fn parse(field: u64, offset: ByteOffset) -> Result<Option<Length>> {
        let record = field & 0x00ff_ffff_ffff_ffff;
        let padding = (8 - record % 8) % 8;
        let length = match field >> 56 {
            _ if field == 0 => return Ok(None),
            // No padding: a frame of 2.x, or one of 3.0 and later that needs none.
            0 => Length { record, padding: 0, padded: false },
            flags if padding != 0 && flags == 0x80 | padding => Length { record, padding, padded: true },
            _ => return Err(damaged(offset, format!("expected the length of a record, found {field:#018x}"))),
        };
        if record > limits::MAX_RECORD {
            let message = format!(
                "expected a record of at most {}, found a length of {}",
                bytes(limits::MAX_RECORD),
                bytes(record)
            );
            return Err(damaged(offset, message));
        }
        Ok(Some(length))
    }
}

/// Reports a frame that extends beyond the end of the file. It is torn, unless the rest of it shows damage.
fn short_frame(body: &[u8], length: &Length, offset: ByteOffset) -> Unreadable {
    let missing = (length.record + length.padding).saturating_sub(body.len() as u64);
    let message = format!(
        "expected a record of {}, found the end of the file with {} missing",
        bytes(length.record),
        bytes(missing)
    );
    let error = damaged(offset, message);
    let written = before_zero_sector(body, offset + FRAME_HEAD).unwrap_or(body);
    if head_agrees(written, length.record) { Unreadable::Torn(error) } else { Unreadable::Damaged(error) }
}

/// Reports a complete frame without a record.
fn unreadable(error: Error, frame: &[u8], after: &[u8], length: &Length, offset: ByteOffset) -> Unreadable {
    let written = before_zero_sector(frame, offset + FRAME_HEAD);
    match written {
        Some(head) if all_zero(after) && head_agrees(head, length.record) => {
            Unreadable::Torn(error.context("a record that a crash truncated"))
        }
        _ => Unreadable::Damaged(error),
    }
}

/// Returns whether the start of a record fits a record of `len` bytes. Its fields have lengths of their own, which
/// distinguish a damaged length field from a truncated record.
fn head_agrees(head: &[u8], len: u64) -> bool {
    let head = head.get(..usize::try_from(len).unwrap_or(usize::MAX).min(head.len())).unwrap_or_default();
    let mut at = 0;
    for (tag, what) in [(0x08, Head::Type), (0x10, Head::Crc), (0x1a, Head::DataLength)] {
        let Some(byte) = head.get(at) else {
            return matches!(what, Head::Type | Head::Crc) || at as u64 != len;
        };
        if *byte != tag {
            return false;
        }
        let (value, used) = match varint_prefix(head.get(at + 1..).unwrap_or_default()) {
            VarintPrefix::Whole(value, used) => (value, used),
            VarintPrefix::Truncated => return true,
            VarintPrefix::Invalid => return false,
        };
        at += 1 + used;
        match what {
            Head::Type if !(1..=5).contains(&value) => return false,
            // A checksum record ends here.
            Head::Type if value == 4 => return len <= 12,
            Head::DataLength => return (at as u64).checked_add(value) == Some(len),
            _ => {}
        }
    }
    true
}

enum Head {
    Type,
    Crc,
    DataLength,
}

enum VarintPrefix {
    Whole(u64, usize),
    Truncated,
    Invalid,
}

fn varint_prefix(bytes: &[u8]) -> VarintPrefix {
    let mut value = 0;
    for (i, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return VarintPrefix::Whole(value, i + 1);
        }
    }
    if bytes.len() < 10 { VarintPrefix::Truncated } else { VarintPrefix::Invalid }
}

/// Parses a `walpb.Record` in the one form that etcd writes: type, checksum, then data if present.
fn parse_record(bytes: &[u8], base: ByteOffset) -> Result<Record<'_>> {
    let mut reader = Reader::new(bytes, base);
    let (mut kind, mut crc, mut data) = (None, None, None);
    while let Some(field) = reader.field()? {
        match (field.number, kind, crc, data) {
            (1, None, None, None) => kind = Some(record_type(field.varint()?, field.offset)?),
            (2, Some(_), None, None) => {
                let value = field.varint()?;
                let value = u32::try_from(value)
                    .map_err(|_| damaged(field.offset, format!("expected a 32-bit checksum, found {value}")))?;
                crc = Some(value);
            }
            (3, Some(_), Some(_), None) => data = Some((field.bytes()?, field.value_offset)),
            (number, ..) => {
                return Err(damaged(field.offset, format!("expected a field of a record, found field {number}")));
            }
        }
    }
    let (Some(kind), Some(crc)) = (kind, crc) else {
        return Err(damaged(base, "expected a record with a type and a checksum, found it without"));
    };
    let (data, data_offset) = data.map_or((None, reader.offset()), |(data, offset)| (Some(data), offset));
    Ok(Record { kind, crc, data, data_offset, len: bytes.len() as u64 })
}

fn record_type(value: u64, offset: ByteOffset) -> Result<RecordType> {
    Ok(match value {
        1 => RecordType::Metadata,
        2 => RecordType::Entry,
        3 => RecordType::State,
        4 => RecordType::Crc,
        5 => RecordType::Snapshot,
        _ => return Err(damaged(offset, format!("expected a record type from 1 to 5, found {value}"))),
    })
}

/// Returns the part of a frame before its first all-zero sector, if it has one. Sectors count from the beginning of the
/// file.
fn before_zero_sector(frame: &[u8], offset: ByteOffset) -> Option<&[u8]> {
    let mut end = SECTOR - (offset.0 % SECTOR as u64) as usize;
    let mut start = 0;
    while start < frame.len() {
        if all_zero(frame.get(start..end.min(frame.len())).unwrap_or_default()) {
            return frame.get(..start);
        }
        (start, end) = (end, end + SECTOR);
    }
    None
}

fn from(segment: &[u8], offset: ByteOffset) -> &[u8] {
    usize::try_from(offset).ok().and_then(|at| segment.get(at..)).unwrap_or_default()
}

/// Returns whether every byte is zero; also true for no bytes.
pub fn all_zero(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<64>();
    chunks.iter().all(|chunk| *chunk == [0; 64]) && rest.iter().all(|byte| *byte == 0)
}

fn damaged(offset: ByteOffset, message: impl Into<String>) -> Error {
    Error::new(Reason::Damaged, message).at(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// docs/formats.md appendix A, vector 2: the frames of a new log as 3.0 and later write them.
    const PADDED: &str = "040000000000008408041000000000000e00000000000082080110a9f6f0ac0c1a04080110020000";
    const UNPADDED: &str = "0400000000000000080410000e00000000000000080110a9f6f0ac0c1a0408011002";

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    }

    #[test]
    fn reads_both_forms_of_the_test_vector() {
        for (text, is_padded, second) in [(PADDED, true, ByteOffset(16)), (UNPADDED, false, ByteOffset(12))] {
            let segment = hex(text);
            let Frame::Record { record, next, padded } = read_frame(&segment, ByteOffset(0)).unwrap() else { panic!() };
            assert_eq!(
                (record.kind, record.crc, record.data, next, padded),
                (RecordType::Crc, 0, None, second, is_padded)
            );
            let Frame::Record { record, next, .. } = read_frame(&segment, second).unwrap() else { panic!() };
            assert_eq!((record.kind, record.crc), (RecordType::Metadata, 0xc59c_3b29));
            assert_eq!(record.data, Some(&hex("08011002")[..]));
            assert_eq!(read_frame(&segment, next).unwrap(), Frame::End);
        }
    }

    #[test]
    fn a_cut_record_is_torn_and_a_damaged_length_is_not() {
        for text in [PADDED, UNPADDED] {
            let whole = hex(text);
            let second = if text == PADDED { 16 } else { 12 };
            for len in second + 1..whole.len() {
                let unreadable = read_frame(&whole[..len], ByteOffset::from(second)).unwrap_err();
                assert!(matches!(unreadable, Unreadable::Torn(_)), "cut at {len}");
            }
            // Each of the two frames follows the other, so none of them ends a log.
            for frame in [0, second] {
                for bit in 0..64 {
                    let mut bytes = whole.clone();
                    bytes.extend_from_slice(&whole);
                    bytes[frame + bit / 8] ^= 1 << (bit % 8);
                    let unreadable = read_frame(&bytes, ByteOffset(frame as u64)).unwrap_err();
                    assert!(
                        matches!(unreadable, Unreadable::Damaged(_)),
                        "frame at {frame}, bit {bit}: {unreadable:?}"
                    );
                }
            }
        }
    }

    /// The head of the record agrees with the length, as in a truncated record.
    #[test]
    fn a_length_that_no_record_has_is_damage() {
        for (len, torn) in [(100, true), (limits::MAX_RECORD, true), (limits::MAX_RECORD + 8, false), (1 << 55, false)]
        {
            let mut record = vec![0x08, 0x02, 0x10, 0x01, 0x1a];
            let mut rest = len - 5;
            while rest > 1 << (7 * (record.len() - 4)) {
                record.push(0);
                rest -= 1;
            }
            record.push(0);
            rest -= 1;
            let last = record.len() - 1;
            for (at, byte) in record[5..].iter_mut().enumerate() {
                *byte = (rest >> (7 * at)) as u8 & 0x7f | if at + 5 < last { 0x80 } else { 0 };
            }
            let segment = [&u64::to_le_bytes(len)[..], &record].concat();
            let unreadable = read_frame(&segment, ByteOffset(0)).unwrap_err();
            assert_eq!(matches!(unreadable, Unreadable::Torn(_)), torn, "{len}: {:?}", unreadable.into_error());
        }
    }

    /// For every possible partial view of a record in progress, and any number of zeros after it.
    #[test]
    fn a_record_seen_half_written_is_told_from_damage() {
        for text in [PADDED, UNPADDED] {
            let whole = hex(text);
            let second = if text == PADDED { 16 } else { 12 };
            for written in second + 1..whole.len() {
                for zeros in [0, 1, 8, 600] {
                    let mut bytes = whole[..written].to_vec();
                    bytes.resize(written + zeros, 0);
                    let end = ByteOffset::from(bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1);
                    let whole_record = matches!(read_frame(&bytes, ByteOffset::from(second)), Ok(Frame::Record { .. }));
                    let seen = whole_record || is_being_written(&bytes, ByteOffset::from(second), end);
                    assert!(seen, "{written} bytes and {zeros} zeros");
                }
            }
            // A complete but unreadable record is damaged.
            for bit in 0..(whole.len() - second) * 8 {
                let mut bytes = whole.clone();
                bytes.extend_from_slice(&whole);
                bytes[second + bit / 8] ^= 1 << (bit % 8);
                if bit / 8 < 8 || read_frame(&bytes, ByteOffset::from(second)).is_err() {
                    assert!(!is_being_written(&bytes, ByteOffset::from(second), bytes.len().into()), "bit {bit}");
                }
            }
        }
    }

    #[test]
    fn a_zero_length_ends_a_segment_only_before_zeros() {
        let mut segment = vec![0; 600];
        assert_eq!(read_frame(&segment, ByteOffset(0)).unwrap(), Frame::End);
        segment[599] = 1;
        assert!(matches!(read_frame(&segment, ByteOffset(0)), Err(Unreadable::Damaged(_))));
    }
}
