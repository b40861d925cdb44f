//! Numbers and bytes of a block: a writer that appends to a vector, and a reader that checks every length. Must not
//! know what they mean.

/// Appends a number in 7 bits a byte, the lowest first. All bytes but the last have the highest bit set.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a length and that many bytes.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A reader of the bytes of a block. Each method returns `None` if the bytes are not as expected.
#[derive(Debug, Clone)]
pub(super) struct Bytes<'b>(pub(super) &'b [u8]);

impl<'b> Bytes<'b> {
    /// Reads one byte.
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    /// Reads a number of 4 bytes, the lowest byte first.
    pub(super) fn u32(&mut self) -> Option<u32> {
        let (bytes, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*bytes))
    }

    /// Reads what [`put_varint`] writes.
    pub(super) fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// Reads what [`put_bytes`] writes.
    pub(super) fn bytes(&mut self) -> Option<&'b [u8]> {
        let len = usize::try_from(self.varint()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }
}

/// Maps a difference to a number that is small if the difference is small, whatever its sign.
pub(super) fn zigzag(difference: u64) -> u64 {
    (difference << 1) ^ (difference.cast_signed() >> 63).cast_unsigned()
}

/// Returns the difference of a number that [`zigzag`] returned.
pub(super) fn unzigzag(number: u64) -> u64 {
    (number >> 1) ^ (number & 1).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_and_bytes_are_read_as_they_were_written(numbers: Vec<(u64, u32)>, text: Vec<u8>) {
            let numbers: Vec<u64> = numbers.into_iter().map(|(number, shift)| number >> (shift % 64)).collect();
            let mut out = Vec::new();
            for number in &numbers {
                put_varint(&mut out, *number);
                put_varint(&mut out, zigzag(*number));
                put_bytes(&mut out, &text);
            }
            let mut bytes = Bytes(&out);
            for number in numbers {
                prop_assert_eq!(bytes.varint(), Some(number));
                prop_assert_eq!(bytes.varint().map(unzigzag), Some(number));
                prop_assert_eq!(bytes.bytes(), Some(&text[..]));
            }
            prop_assert!(bytes.0.is_empty() && bytes.byte().is_none() && bytes.varint().is_none());
        }
    }

    #[test]
    fn small_differences_are_small_numbers() {
        assert_eq!([0, u64::MAX, 1, 2u64.wrapping_neg()].map(zigzag), [0, 1, 2, 3]);
    }

    #[test]
    fn a_number_above_64_bits_and_a_length_beyond_the_end_are_refused() {
        assert_eq!(Bytes(&[0xff; 11]).varint(), None);
        let mut most = [0xff; 10];
        most[9] = 1;
        assert_eq!(Bytes(&most).varint(), Some(u64::MAX));
        most[9] = 2;
        assert_eq!(Bytes(&most).varint(), None);
        assert_eq!(Bytes(&[2, 7]).bytes(), None);
        assert_eq!(Bytes(&[1, 2, 3]).u32(), None);
    }
}
