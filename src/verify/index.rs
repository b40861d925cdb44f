//! The last change of every user key, like the key index of etcd, with the minimum that the checks need.
//!
//! docs/formats.md section 9.8, 2 and 3. A slot has 16 bytes: the offset of the change's value in the file, its length,
//! and 30 bits of the key's hash. So the table grows without reading keys again. Must not know what is checked with it.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::ids::ByteOffset;
use crate::mvcc::KeyValue;

const TOMBSTONE: u32 = 1 << 31;
const LEASED: u32 = 1 << 30;
const HASH: u32 = LEASED - 1;

/// The last change of every key so far.
pub(super) struct KeyIndex<'a> {
    file: &'a [u8],
    slots: HashTable<Slot>,
    hasher: DefaultHashBuilder,
    live: u64,
    leased: bool,
}

/// The last change of one key.
#[derive(Clone, Copy)]
struct Slot {
    offset: ByteOffset,
    len: u32,
    tag: u32,
}

/// A change, before the next one of the same key.
pub(super) struct Change<'a> {
    pub(super) tombstone: bool,
    pub(super) kv: KeyValue<'a>,
    /// Offset of its value in the file.
    pub(super) offset: ByteOffset,
}

/// Returns the memory of an index of `keys` keys in bytes at its last growth, when both tables exist.
pub fn index_bytes(keys: u64) -> u64 {
    // A table is at most seven eighths full, and has a control byte for each slot.
    let slots = (keys.saturating_mul(8) / 7 + 1).checked_next_power_of_two().unwrap_or(u64::MAX);
    slots.saturating_mul(size_of::<Slot>() as u64 + 1) / 2 * 3
}

impl<'a> KeyIndex<'a> {
    /// Creates an empty index over values in `file`.
    pub(super) fn new(file: &'a [u8]) -> Self {
        KeyIndex { file, slots: HashTable::new(), hasher: DefaultHashBuilder::default(), live: 0, leased: false }
    }

    /// Records a change whose decoded value is `kv`, at `offset`, with a length of `len` bytes. Returns the previous
    /// change of the same key.
    pub(super) fn note(&mut self, change: &Change<'a>, len: usize) -> Option<Change<'a>> {
        let Change { kv, offset, tombstone } = *change;
        let mut tag = self.hash(kv.key);
        if tombstone {
            tag |= TOMBSTONE;
        } else {
            self.live += 1;
            if kv.lease.0 != 0 {
                tag |= LEASED;
                self.leased = true;
            }
        }
        // No value has 4 GiB: lengths in the file are u32.
        let slot = Slot { offset, len: u32::try_from(len).unwrap_or(u32::MAX), tag };
        let file = self.file;
        match self.slots.find_mut(spread(tag), |other| other.is_of(file, tag, kv.key)) {
            Some(found) => {
                let before = found.change(file);
                *found = slot;
                self.live -= before.as_ref().map_or(0, |before| u64::from(!before.tombstone));
                before
            }
            None => {
                self.slots.insert_unique(spread(tag), slot, |slot| spread(slot.tag));
                None
            }
        }
    }

    /// Returns the number of live keys.
    pub(super) fn live(&self) -> u64 {
        self.live
    }

    /// Returns whether the change at `offset` is the last one of its key and not a deletion.
    pub(super) fn is_live_change(&self, key: &[u8], offset: ByteOffset) -> bool {
        let tag = self.hash(key);
        let slot = self.slots.find(spread(tag), |slot| slot.is_of(self.file, tag, key));
        slot.is_some_and(|slot| slot.offset == offset && slot.tag & TOMBSTONE == 0)
    }

    /// Returns the last change of every live key.
    pub(super) fn live_changes(&self) -> impl Iterator<Item = Change<'a>> {
        self.slots.iter().filter(|slot| slot.tag & TOMBSTONE == 0).filter_map(|slot| slot.change(self.file))
    }

    /// Returns the keys with a lease.
    pub(super) fn leased(&self) -> impl Iterator<Item = Change<'a>> {
        let slots = self.leased.then(|| self.slots.iter().filter(|slot| slot.tag & LEASED != 0));
        slots.into_iter().flatten().filter_map(|slot| slot.change(self.file))
    }

    fn hash(&self, key: &[u8]) -> u32 {
        (self.hasher.hash_one(key) >> 34) as u32
    }
}

impl Slot {
    fn is_of(&self, file: &[u8], tag: u32, key: &[u8]) -> bool {
        self.tag & HASH == tag & HASH && self.change(file).is_some_and(|change| change.kv.key == key)
    }

    fn change<'a>(&self, file: &'a [u8]) -> Option<Change<'a>> {
        let start = usize::try_from(self.offset).ok()?;
        let value = file.get(start..)?.get(..usize::try_from(self.len).ok()?)?;
        let kv = KeyValue::decode(value, self.offset).ok()?;
        Some(Change { tombstone: self.tag & TOMBSTONE != 0, kv, offset: self.offset })
    }
}

/// Hashes a tag for the table, which uses both the low and the high bits.
fn spread(tag: u32) -> u64 {
    u64::from(tag & HASH).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
