//! A `.snap` file: the checksummed container and the raft snapshot in it (docs/formats.md 2.1, 2.2).
//!
//! The JSON of the v2 store is borrowed from the map. Must not know what the JSON means, which `v2store` knows.

use std::ops::Range;
use std::path::Path;

use crate::count::bytes;
use crate::error::{Error, Reason, Result};
use crate::ids::{ByteOffset, MemberId, RaftIndex, Term};
use crate::interrupt::Interrupt;
use crate::source::map::Map;
use crate::wire::{Field, LENGTH_WITHIN, Reader, WireError};

/// A raft configuration: voters and learners (docs/formats.md 2.2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfState {
    /// Voting members, in the order of the file.
    pub voters: Vec<MemberId>,
    /// Learners (3.4 and later).
    pub learners: Vec<MemberId>,
}

/// A snapshot with a correct checksum.
#[derive(Debug)]
pub struct Snapshot {
    map: Map,
    json: Range<usize>,
    /// Raft index of the last entry in the snapshot.
    pub index: RaftIndex,
    /// Term of that entry.
    pub term: Term,
    /// The raft configuration at that entry.
    pub conf_state: ConfState,
}

impl Snapshot {
    /// Checks the checksum and the raft metadata of a `.snap` file.
    ///
    /// # Errors
    /// [`Reason::Damaged`] with the byte offset, for every file that etcd would refuse to load (docs/formats.md 2.1);
    /// an interruption.
    pub fn of(mut map: Map, interrupt: Interrupt<'_>) -> Result<Snapshot> {
        let path = map.path().to_path_buf();
        let Parsed { json, index, term, conf_state } = read(&mut map, interrupt).map_err(|e| e.in_file(&path))?;
        Ok(Snapshot { map, json, index, term, conf_state })
    }

    /// Returns the v2 store as JSON.
    pub fn json(&self) -> &[u8] {
        self.map.bytes().get(self.json.clone()).unwrap_or_default()
    }

    /// Returns the offset of the first byte of the JSON in the file.
    pub fn json_offset(&self) -> ByteOffset {
        ByteOffset::from(self.json.start)
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        self.map.path()
    }

    /// Returns the whole file.
    pub fn map(&self) -> &Map {
        &self.map
    }
}

/// The parsed content of a `.snap` file.
#[derive(Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Byte range of the v2 store JSON in the file.
    pub json: Range<usize>,
    /// Raft index of the last entry in the snapshot.
    pub index: RaftIndex,
    /// Term of that entry.
    pub term: Term,
    /// The raft configuration.
    pub conf_state: ConfState,
}

/// Parses the bytes of a `.snap` file.
///
/// # Errors
/// As [`Snapshot::of`].
pub fn parse(bytes: &[u8]) -> Result<Parsed> {
    read(&mut Map::held(Path::new("memory"), bytes.to_vec()), Interrupt::default())
}

fn read(map: &mut Map, interrupt: Interrupt<'_>) -> Result<Parsed> {
    let body = container(map.bytes())?;
    let found = map.checksum(body.range.clone(), interrupt)?;
    if u64::from(found) != body.crc {
        let message = format!("expected snapshot data with CRC-32C {:08x}, found {found:08x}", body.crc);
        return Err(damaged(ByteOffset::from(body.range.start), message));
    }
    let base = body.range.start as u64;
    raft_snapshot(map.bytes().get(body.range).unwrap_or_default(), ByteOffset(base))
}

/// The data of a `.snap` file, with its recorded checksum.
struct Body {
    range: Range<usize>,
    crc: u64,
}

fn container(bytes: &[u8]) -> Result<Body> {
    if bytes.is_empty() {
        return Err(damaged(ByteOffset(0), "expected a snapshot, found an empty file"));
    }
    let (mut crc, mut data) = (0, None);
    let mut reader = Reader::new(bytes, ByteOffset(0));
    while let Some(field) = reader.field().map_err(|e| truncated(e, bytes.len()))? {
        match field.number {
            1 => crc = field.varint()?,
            2 => data = Some(field),
            _ => {}
        }
    }
    let data =
        data.ok_or_else(|| damaged(ByteOffset(0), "expected a snapshot container, found no data field in it"))?;
    let body = data.bytes()?;
    if body.is_empty() || crc == 0 {
        return Err(damaged(data.offset, "expected snapshot data with a checksum, found an empty snapshot"));
    }
    // The offset is in a slice in memory, so it fits.
    let start = usize::try_from(data.value_offset).unwrap_or(usize::MAX);
    Ok(Body { range: start..start.saturating_add(body.len()), crc })
}

fn truncated(e: WireError, len: usize) -> Error {
    if e.expected != LENGTH_WITHIN {
        let message = format!("expected a .snap file of etcd, with {} here, found other bytes", e.expected);
        return damaged(e.offset, message);
    }
    damaged(
        e.offset,
        format!("expected a longer file by the length here, found {}: the file is truncated", bytes(len as u64)),
    )
}

fn raft_snapshot(body: &[u8], base: ByteOffset) -> Result<Parsed> {
    let (mut json, mut metadata) = (None, None);
    let mut reader = Reader::new(body, base);
    while let Some(field) = reader.field()? {
        match field.number {
            1 => json = Some(field),
            2 => metadata = Some(field),
            _ => {}
        }
    }
    let metadata = metadata.ok_or_else(|| damaged(base, "expected raft metadata in the snapshot, found none"))?;
    let mut parsed = parse_metadata(&metadata)?;
    let json = json.ok_or_else(|| damaged(base, "expected a v2 store in the snapshot, found none"))?;
    let len = json.bytes()?.len();
    // The offset is in a slice in memory, so it fits.
    let start = usize::try_from(json.value_offset).unwrap_or(usize::MAX);
    parsed.json = start..start.saturating_add(len);
    Ok(parsed)
}

fn parse_metadata(metadata: &Field<'_>) -> Result<Parsed> {
    let mut parsed = Parsed { json: 0..0, index: RaftIndex(0), term: Term(0), conf_state: ConfState::default() };
    let mut reader = Reader::new(metadata.bytes()?, metadata.value_offset);
    while let Some(field) = reader.field()? {
        match field.number {
            1 => parsed.conf_state = parse_conf_state(field.bytes()?, field.value_offset)?,
            2 => parsed.index = RaftIndex(field.varint()?),
            3 => parsed.term = Term(field.varint()?),
            _ => {}
        }
    }
    Ok(parsed)
}

fn parse_conf_state(bytes: &[u8], base: ByteOffset) -> Result<ConfState, WireError> {
    let mut state = ConfState::default();
    let mut reader = Reader::new(bytes, base);
    while let Some(field) = reader.field()? {
        let list = match field.number {
            1 => &mut state.voters,
            2 => &mut state.learners,
            _ => continue,
        };
        // etcd writes these unpacked; a packed list is valid protobuf too.
        match field.value {
            crate::wire::Value::Bytes(packed) => {
                let mut packed = Reader::new(packed, field.value_offset);
                while let Some(id) = packed.packed_varint()? {
                    list.push(MemberId(id));
                }
            }
            _ => list.push(MemberId(field.varint()?)),
        }
    }
    Ok(state)
}

fn damaged(offset: ByteOffset, message: impl Into<String>) -> Error {
    Error::new(Reason::Damaged, message).at(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// docs/formats.md appendix A, vector 3.
    const VECTOR: &[u8] = &[
        0x08, 0x95, 0xe3, 0xba, 0xf5, 0x0b, 0x12, 0x0e, 0x0a, 0x02, 0x7b, 0x7d, 0x12, 0x08, 0x0a, 0x02, 0x08, 0x05,
        0x10, 0x07, 0x18, 0x02,
    ];

    #[test]
    fn reads_the_test_vector() {
        let parsed = parse(VECTOR).unwrap();
        assert_eq!((parsed.index, parsed.term), (RaftIndex(7), Term(2)));
        assert_eq!(parsed.conf_state.voters, [MemberId(5)]);
        assert_eq!(&VECTOR[parsed.json], b"{}");
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_an_error() {
        for i in 0..VECTOR.len() * 8 {
            let mut bytes = VECTOR.to_vec();
            bytes[i / 8] ^= 1 << (i % 8);
            assert_eq!(parse(&bytes).unwrap_err().reason(), Reason::Damaged, "bit {i}");
        }
        for len in 0..VECTOR.len() {
            assert_eq!(parse(&VECTOR[..len]).unwrap_err().reason(), Reason::Damaged, "cut at {len}");
        }
    }
}
