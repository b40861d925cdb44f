//! `leasepb.Lease`: the keys and values of the `lease` bucket.
//!
//! docs/formats.md section 9.4. Must not know which keys have a lease, or how its length was computed.

use crate::error::Result;
use crate::ids::{ByteOffset, LeaseId};
use crate::wire::{Reader, WireError, Writer, varint_field_len};

/// A lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lease {
    /// Its id, which is also its key in the bucket.
    pub id: LeaseId,
    /// The granted time in seconds.
    pub ttl: i64,
    /// The remaining seconds at the last checkpoint; 0 for none.
    pub remaining_ttl: i64,
}

impl Lease {
    /// Returns its key in the `lease` bucket.
    pub fn key(&self) -> [u8; 8] {
        self.id.0.to_be_bytes()
    }

    /// Decodes the id in a key of the `lease` bucket.
    pub fn decode_key(key: &[u8]) -> Option<LeaseId> {
        <[u8; 8]>::try_from(key).ok().map(|key| LeaseId(i64::from_be_bytes(key)))
    }

    /// Returns its value in the `lease` bucket.
    ///
    /// # Errors
    /// [`Reason::Internal`](crate::error::Reason::Internal) for a wrong size computation, which cannot happen.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let fields = [(1, self.id.0), (2, self.ttl), (3, self.remaining_ttl)];
        let len = fields.iter().map(|(_, value)| varint_field_len(value.cast_unsigned())).sum();
        let mut buffer = vec![0; len];
        let mut writer = Writer::new(&mut buffer);
        for (number, value) in fields {
            writer.varint_field(number, value.cast_unsigned())?;
        }
        writer.finish()?;
        Ok(buffer)
    }

    /// Decodes a value whose first byte is at offset `base` of its file.
    ///
    /// # Errors
    /// The bytes are not such a message.
    pub fn decode(message: &[u8], base: ByteOffset) -> Result<Self, WireError> {
        let mut lease = Lease::default();
        let mut reader = Reader::new(message, base);
        while let Some(field) = reader.field()? {
            match field.number {
                1 => lease.id = LeaseId(field.varint()?.cast_signed()),
                2 => lease.ttl = field.varint()?.cast_signed(),
                3 => lease.remaining_ttl = field.varint()?.cast_signed(),
                _ => {}
            }
        }
        Ok(lease)
    }
}

#[cfg(test)]
mod tests {
    use protobuf::Message;

    use super::*;
    use crate::proto::etcd;

    proptest::proptest! {
        #[test]
        fn agrees_with_generated_code(id: i64, ttl: i64, remaining_ttl: i64) {
            let lease = Lease { id: LeaseId(id), ttl, remaining_ttl };
            let bytes = lease.encode().unwrap();
            proptest::prop_assert_eq!(Lease::decode(&bytes, ByteOffset(0)).unwrap(), lease);
            proptest::prop_assert_eq!(Lease::decode_key(&lease.key()), Some(lease.id));
            let oracle = etcd::Lease::parse_from_bytes(&bytes).unwrap();
            proptest::prop_assert_eq!((oracle.id(), oracle.ttl(), oracle.remaining_ttl()), (id, ttl, remaining_ttl));
        }
    }
}
