//! The places of pairs: the block of pairs for each value of something that pairs are searched by (docs/index-map.md,
//! "Blocks of places").
//!
//! A list of places is sorted, and of consecutive places with one block only the first is stored. So the pairs with a
//! value are in the blocks of the places with that value, or in the block of the last place below it. Must not know
//! what a value is.

use std::collections::BTreeSet;

use super::block::{BLOCK_BYTES, COUNT_BYTES};
use super::bytes::{Bytes, put_varint};
use crate::error::{Error, Reason, Result};

/// A value and the number of a block with a pair that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub(super) value: u64,
    pub(super) block: u32,
}

/// Drops each place whose block is that of the place before it. The places are sorted.
pub(super) fn starts(places: impl Iterator<Item = Place>) -> impl Iterator<Item = Place> {
    let mut before = None;
    places.filter(move |place| before.replace(place.block) != Some(place.block))
}

/// A writer of blocks of places.
#[derive(Debug)]
pub(super) struct Writer {
    bytes: Vec<u8>,
    rows: u32,
    first: Option<Place>,
    value: u64,
}

impl Writer {
    /// Bytes of the longest row.
    const ROW: usize = 10 + 5;

    /// Creates a writer whose first block is empty.
    pub(super) fn new() -> Writer {
        Writer { bytes: vec![0; COUNT_BYTES], rows: 0, first: None, value: 0 }
    }

    /// Adds a place, which is after all others. If the block has no room for it, the place begins the next block, and
    /// the full block is returned with its first place.
    pub(super) fn push(&mut self, place: Place) -> Option<(Place, Vec<u8>)> {
        let full = if self.bytes.len() + Writer::ROW > BLOCK_BYTES { self.finish() } else { None };
        self.first.get_or_insert(place);
        put_varint(&mut self.bytes, place.value.wrapping_sub(self.value));
        put_varint(&mut self.bytes, place.block.into());
        self.value = place.value;
        self.rows += 1;
        full
    }

    /// Ends the block, and begins the next. Returns `None` for a block without places.
    pub(super) fn finish(&mut self) -> Option<(Place, Vec<u8>)> {
        let Writer { mut bytes, rows, first, .. } = std::mem::replace(self, Writer::new());
        bytes.get_mut(..COUNT_BYTES)?.copy_from_slice(&rows.to_le_bytes());
        Some((first?, bytes))
    }
}

/// A reader of a block of places.
#[derive(Debug)]
pub(super) struct Places<'b> {
    bytes: Bytes<'b>,
    left: u32,
    before: Option<Place>,
}

impl<'b> Places<'b> {
    /// Begins to read a block.
    ///
    /// # Errors
    /// [`Reason::Damaged`].
    pub(super) fn new(block: &'b [u8]) -> Result<Places<'b>> {
        let mut bytes = Bytes(block);
        let left = bytes.u32().ok_or_else(damaged)?;
        Ok(Places { bytes, left, before: None })
    }

    fn read(&mut self) -> Option<Place> {
        let difference = self.bytes.varint()?;
        let value = self.before.map_or(0, |before| before.value).checked_add(difference)?;
        let place = Place { value, block: u32::try_from(self.bytes.varint()?).ok()? };
        (self.before < Some(place)).then_some(place)
    }
}

impl Iterator for Places<'_> {
    type Item = Result<Place>;

    fn next(&mut self) -> Option<Result<Place>> {
        if self.left == 0 {
            let rest = std::mem::take(&mut self.bytes.0);
            return (!rest.is_empty()).then(|| Err(damaged()));
        }
        self.left -= 1;
        self.before = self.read();
        if self.before.is_none() {
            *self = Places { bytes: Bytes(&[]), left: 0, before: None };
        }
        Some(self.before.ok_or_else(damaged))
    }
}

/// The blocks of pairs in which a value is searched.
#[derive(Debug)]
pub(super) struct Search {
    value: u64,
    below: Option<u32>,
    equal: BTreeSet<u32>,
}

impl Search {
    /// Begins the search for a value.
    pub(super) fn new(value: u64) -> Search {
        Search { value, below: None, equal: BTreeSet::new() }
    }

    /// Searches the next block of places: the first is the last that begins below the value, if there is one; the
    /// others are those that begin with it.
    ///
    /// # Errors
    /// [`Reason::Damaged`].
    pub(super) fn read(&mut self, block: &[u8]) -> Result<()> {
        for place in Places::new(block)? {
            let place = place?;
            match place.value.cmp(&self.value) {
                std::cmp::Ordering::Less => self.below = Some(place.block),
                std::cmp::Ordering::Equal => drop(self.equal.insert(place.block)),
                std::cmp::Ordering::Greater => break,
            }
        }
        Ok(())
    }

    /// Returns the numbers of the blocks, in order.
    pub(super) fn blocks(mut self) -> BTreeSet<u32> {
        self.equal.extend(self.below);
        self.equal
    }
}

fn damaged() -> Error {
    Error::new(Reason::Damaged, "expected a block of places, found other bytes")
}
