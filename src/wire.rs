//! The protobuf wire format: a reader that walks the fields of one message without copies, and a writer into a buffer
//! of the computed size.
//!
//! Implements the varint and length-delimited encoding that docs/formats.md uses (conventions, sections 2, 4, 5 and 9).
//! A group is an error, because no etcd message has one. Must not know what the fields mean.

use crate::error::{Error, Reason};
use crate::ids::ByteOffset;

/// Bytes that are not a protobuf message, with the offset of the first wrong byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireError {
    /// The offset, from the base of the reader.
    pub offset: ByteOffset,
    /// What was expected there.
    pub expected: &'static str,
}

/// The expectation for a length that extends beyond its message, which shows a truncated message.
pub const LENGTH_WITHIN: &str = "a length within the message";

impl From<WireError> for Error {
    fn from(e: WireError) -> Error {
        Error::new(Reason::Damaged, format!("expected {}, found other bytes", e.expected)).at(e.offset)
    }
}

/// The value of one field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2.
    Bytes(&'a [u8]),
    /// Wire type 5.
    Fixed32(u32),
}

/// One field of a message: its number, value and offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// Field number, 1 to 2^29 - 1.
    pub number: u32,
    /// The value.
    pub value: Value<'a>,
    /// Offset of the field's tag, from the base of the reader.
    pub offset: ByteOffset,
    /// Offset of the value's first byte (after the length of a length-delimited field).
    pub value_offset: ByteOffset,
}

impl<'a> Field<'a> {
    /// Returns the value of a varint field.
    ///
    /// # Errors
    /// The field has another wire type.
    #[inline]
    pub fn varint(&self) -> Result<u64, WireError> {
        match self.value {
            Value::Varint(v) => Ok(v),
            _ => Err(WireError { offset: self.offset, expected: "a varint field" }),
        }
    }

    /// Returns the value of a length-delimited field.
    ///
    /// # Errors
    /// The field has another wire type.
    #[inline]
    pub fn bytes(&self) -> Result<&'a [u8], WireError> {
        match self.value {
            Value::Bytes(v) => Ok(v),
            _ => Err(WireError { offset: self.offset, expected: "a length-delimited field" }),
        }
    }
}

/// A reader of the fields of one message.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
    offset: ByteOffset,
}

impl<'a> Reader<'a> {
    /// Creates a reader of one whole message whose first byte is at offset `base` of its file.
    #[inline]
    pub fn new(message: &'a [u8], base: ByteOffset) -> Self {
        Reader { rest: message, offset: base }
    }

    /// Returns the offset of the next unread byte.
    pub fn offset(&self) -> ByteOffset {
        self.offset
    }

    /// Reads the next field. Returns `None` at the end of the message.
    ///
    /// # Errors
    /// The bytes are not a field, or it extends beyond the message.
    // Copied to each caller, which then needs no whole `Field` in memory: twice as fast for short fields.
    #[inline(always)]
    pub fn field(&mut self) -> Result<Option<Field<'a>>, WireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let offset = self.offset;
        let tag = self.varint()?;
        let number = match u32::try_from(tag >> 3) {
            Ok(n) if (1..1 << 29).contains(&n) => n,
            _ => return Err(WireError { offset, expected: "a field number" }),
        };
        let mut value_offset = self.offset;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let len_offset = self.offset;
                let len = self.varint()?;
                let len = usize::try_from(len).ok().filter(|len| *len <= self.rest.len());
                let len = len.ok_or(WireError { offset: len_offset, expected: LENGTH_WITHIN })?;
                value_offset = self.offset;
                Value::Bytes(self.take(len)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(WireError { offset, expected: "a wire type" }),
        };
        Ok(Some(Field { number, value, offset, value_offset }))
    }

    /// Reads the next element of a packed list of varints. Returns `None` at its end.
    ///
    /// # Errors
    /// The bytes are not a varint.
    pub fn packed_varint(&mut self) -> Result<Option<u64>, WireError> {
        if self.rest.is_empty() { Ok(None) } else { self.varint().map(Some) }
    }

    #[inline(always)]
    fn varint(&mut self) -> Result<u64, WireError> {
        // Most tags and numbers take one byte.
        if let Some((byte @ 0..0x80, rest)) = self.rest.split_first() {
            self.rest = rest;
            self.offset += 1;
            return Ok(u64::from(*byte));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64, WireError> {
        let error = WireError { offset: self.offset, expected: "a varint" };
        let mut value = 0u64;
        for (i, byte) in self.rest.iter().take(10).enumerate() {
            let bits = u64::from(byte & 0x7f);
            if i == 9 && bits > 1 {
                return Err(error);
            }
            value |= bits << (7 * i);
            if byte & 0x80 == 0 {
                self.take(i + 1)?;
                return Ok(value);
            }
        }
        Err(error)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, rest) =
            self.rest.split_first_chunk::<N>().ok_or(WireError { offset: self.offset, expected: "more bytes" })?;
        self.rest = rest;
        self.offset += N as u64;
        Ok(*head)
    }

    #[inline]
    fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) =
            self.rest.split_at_checked(len).ok_or(WireError { offset: self.offset, expected: "more bytes" })?;
        self.rest = rest;
        self.offset += len as u64;
        Ok(head)
    }
}

/// A reader of a message whose fields ascend, as all encoders write them. A caller that gets `None` reads the message with a
/// [`Reader`], which also says what is wrong.
#[derive(Debug, Clone, Copy)]
pub struct Ascending<'a> {
    rest: &'a [u8],
}

impl<'a> Ascending<'a> {
    /// Creates a reader of one whole message.
    pub fn new(message: &'a [u8]) -> Self {
        Ascending { rest: message }
    }

    /// Reads a varint field with this number, up to 15; 0 if another one is next.
    #[inline]
    pub fn varint(&mut self, number: u8) -> Option<u64> {
        if self.takes(number << 3) { self.number() } else { Some(0) }
    }

    /// Reads a length-delimited field with this number, up to 15; nothing if another one is next.
    #[inline]
    pub fn bytes(&mut self, number: u8) -> Option<&'a [u8]> {
        if !self.takes(number << 3 | 2) {
            return Some(&[]);
        }
        let len = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(bytes)
    }

    /// Returns whether the message has ended.
    pub fn has_ended(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    fn takes(&mut self, tag: u8) -> bool {
        match self.rest.split_first() {
            Some((found, rest)) if *found == tag => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// Reads a varint of up to nine bytes. Longer ones are rare.
    #[inline]
    fn number(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..63).step_by(7) {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

/// Returns the length of `value` as a varint: 1 to 10 bytes.
pub const fn varint_len(value: u64) -> usize {
    (63 - (value | 1).leading_zeros() as usize) / 7 + 1
}

/// Returns the length in bytes of a varint field with a one-byte tag; 0 for a zero, which proto3 leaves out.
pub const fn varint_field_len(value: u64) -> usize {
    if value == 0 { 0 } else { 1 + varint_len(value) }
}

/// Returns the length in bytes of a length-delimited field with a one-byte tag; 0 for an empty one, which proto3 leaves
/// out.
pub const fn bytes_field_len(len: usize) -> usize {
    if len == 0 { 0 } else { 1 + varint_len(len as u64) + len }
}

/// A writer of fields into a buffer of exactly the length of the message. A field that does not fit is an internal
/// error.
#[derive(Debug)]
pub struct Writer<'a> {
    rest: &'a mut [u8],
}

impl<'a> Writer<'a> {
    /// Creates a writer that fills `buffer` from its start.
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Writer { rest: buffer }
    }

    /// Writes a varint field; nothing for zero (proto3).
    ///
    /// # Errors
    /// The buffer is full.
    pub fn varint_field(&mut self, number: u32, value: u64) -> Result<(), Error> {
        if value == 0 {
            return Ok(());
        }
        self.varint(u64::from(number << 3))?;
        self.varint(value)
    }

    /// Writes the tag and length of a bytes field of `len` bytes. Returns the buffer for its bytes; empty for zero
    /// (proto3).
    ///
    /// # Errors
    /// The buffer is full.
    pub fn bytes_field(&mut self, number: u32, len: usize) -> Result<&'a mut [u8], Error> {
        if len == 0 {
            return Ok(&mut []);
        }
        self.varint(u64::from(number << 3 | 2))?;
        self.varint(len as u64)?;
        self.take(len)
    }

    /// Ends the message.
    ///
    /// # Errors
    /// The buffer is longer than the message: its size was computed wrongly.
    pub fn finish(self) -> Result<(), Error> {
        if self.rest.is_empty() { Ok(()) } else { Err(wrong_size()) }
    }

    fn varint(&mut self, mut value: u64) -> Result<(), Error> {
        let out = self.take(varint_len(value))?;
        let last = out.len().saturating_sub(1);
        for (i, byte) in out.iter_mut().enumerate() {
            *byte = (value & 0x7f) as u8 | if i < last { 0x80 } else { 0 };
            value >>= 7;
        }
        Ok(())
    }

    fn take(&mut self, len: usize) -> Result<&'a mut [u8], Error> {
        let (head, rest) = std::mem::take(&mut self.rest).split_at_mut_checked(len).ok_or_else(wrong_size)?;
        self.rest = rest;
        Ok(head)
    }
}

fn wrong_size() -> Error {
    Error::new(Reason::Internal, "a message does not have the size that was computed for it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_each_wire_type_with_offsets() {
        let message = [0x08, 0x96, 0x01, 0x12, 0x02, b'h', b'i', 0x1d, 1, 0, 0, 0, 0x21, 2, 0, 0, 0, 0, 0, 0, 0];
        let mut reader = Reader::new(&message, ByteOffset(100));
        let mut fields = Vec::new();
        while let Some(field) = reader.field().unwrap() {
            fields.push((field.number, field.value, field.offset.0, field.value_offset.0));
        }
        assert_eq!(
            fields,
            [
                (1, Value::Varint(150), 100, 101),
                (2, Value::Bytes(b"hi"), 103, 105),
                (3, Value::Fixed32(1), 107, 108),
                (4, Value::Fixed64(2), 112, 113)
            ]
        );
        assert_eq!(reader.offset(), ByteOffset(121));
    }

    #[test]
    fn rejects_what_is_no_field() {
        for bad in [&[0x00u8, 0][..], &[0x0b], &[0x12, 5, 1], &[0x08], &[0x08, 0xff], &[0xff; 11], &[0x1d, 1]] {
            assert!(Reader::new(bad, ByteOffset(0)).field().is_err(), "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn varints_round_trip(value: u64) {
            let mut buffer = vec![0; varint_field_len(value)];
            let mut writer = Writer::new(&mut buffer);
            writer.varint_field(3, value).unwrap();
            writer.finish().unwrap();
            let field = Reader::new(&buffer, ByteOffset(0)).field().unwrap();
            proptest::prop_assert_eq!(field.map_or(0, |f| f.varint().unwrap()), value);
        }
    }
}
