//! `mvccpb.KeyValue`: the value in the `key` bucket for a revision.
//!
//! docs/formats.md section 9.2. The encoding is canonical (ascending fields, no defaults, shortest varints), because
//! HashKV covers the stored bytes. The decoder copies nothing and skips unknown fields, like etcd's. Must not know
//! pages or buckets.

use crate::error::Result;
use crate::ids::{ByteOffset, LeaseId, Revision};
use crate::wire::{Ascending, Reader, WireError, Writer, bytes_field_len, varint_field_len};

/// One change of a user's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyValue<'a> {
    /// The user's key.
    pub key: &'a [u8],
    /// Main revision at which the key was created.
    pub create_revision: Revision,
    /// Main revision of this change.
    pub mod_revision: Revision,
    /// Number of changes since the creation, with this one.
    pub version: i64,
    /// The value.
    pub value: &'a [u8],
    /// The lease of the key; 0 for none.
    pub lease: LeaseId,
}

impl<'a> KeyValue<'a> {
    /// Returns the length of its encoding in bytes.
    pub fn encoded_len(&self) -> usize {
        key_value_len(
            self.key.len(),
            self.value.len(),
            self.create_revision,
            self.mod_revision,
            self.version,
            self.lease,
        )
    }

    /// Encodes into a buffer of exactly [`KeyValue::encoded_len`] bytes.
    ///
    /// # Errors
    /// The buffer has another length.
    pub fn encode(&self, buffer: &mut [u8]) -> Result<()> {
        let mut writer = Writer::new(buffer);
        writer.bytes_field(1, self.key.len())?.copy_from_slice(self.key);
        writer.varint_field(2, self.create_revision.0.cast_unsigned())?;
        writer.varint_field(3, self.mod_revision.0.cast_unsigned())?;
        writer.varint_field(4, self.version.cast_unsigned())?;
        writer.bytes_field(5, self.value.len())?.copy_from_slice(self.value);
        writer.varint_field(6, self.lease.0.cast_unsigned())?;
        writer.finish()
    }

    /// Decodes a message whose first byte is at offset `base` of its file.
    ///
    /// # Errors
    /// The bytes are not a `KeyValue` message.
    pub fn decode(message: &'a [u8], base: ByteOffset) -> Result<Self, WireError> {
        Self::decode_ascending(message).map_or_else(|| Self::decode_any(message, base), Ok)
    }

    /// Decodes a message with its fields in ascending order and no other fields; `None` for any other message.
    #[inline]
    fn decode_ascending(message: &'a [u8]) -> Option<Self> {
        let mut reader = Ascending::new(message);
        let kv = KeyValue {
            key: reader.bytes(1)?,
            create_revision: Revision(reader.varint(2)?.cast_signed()),
            mod_revision: Revision(reader.varint(3)?.cast_signed()),
            version: reader.varint(4)?.cast_signed(),
            value: reader.bytes(5)?,
            lease: LeaseId(reader.varint(6)?.cast_signed()),
        };
        reader.has_ended().then_some(kv)
    }

    fn decode_any(message: &'a [u8], base: ByteOffset) -> Result<Self, WireError> {
        let mut kv = KeyValue::default();
        let mut reader = Reader::new(message, base);
        while let Some(field) = reader.field()? {
            match field.number {
                1 => kv.key = field.bytes()?,
                2 => kv.create_revision = Revision(field.varint()?.cast_signed()),
                3 => kv.mod_revision = Revision(field.varint()?.cast_signed()),
                4 => kv.version = field.varint()?.cast_signed(),
                5 => kv.value = field.bytes()?,
                6 => kv.lease = LeaseId(field.varint()?.cast_signed()),
                _ => {}
            }
        }
        Ok(kv)
    }
}

/// Returns the encoded length of a [`KeyValue`] with a key and a value of these lengths, in bytes.
pub fn key_value_len(
    key_len: usize,
    value_len: usize,
    create_revision: Revision,
    mod_revision: Revision,
    version: i64,
    lease: LeaseId,
) -> usize {
    bytes_field_len(key_len)
        + varint_field_len(create_revision.0.cast_unsigned())
        + varint_field_len(mod_revision.0.cast_unsigned())
        + varint_field_len(version.cast_unsigned())
        + bytes_field_len(value_len)
        + varint_field_len(lease.0.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use protobuf::Message;

    use super::*;
    use crate::proto::etcd;

    fn encode(kv: &KeyValue<'_>) -> Vec<u8> {
        let mut buffer = vec![0xaa; kv.encoded_len()];
        kv.encode(&mut buffer).unwrap();
        buffer
    }

    #[test]
    fn value_of_appendix_a6() {
        let revision = Revision(2);
        let kv = KeyValue {
            key: b"/foo",
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            value: b"bar",
            lease: LeaseId(0),
        };
        assert_eq!(encode(&kv), b"\x0a\x04/foo\x10\x02\x18\x02\x20\x01\x2a\x03bar");
    }

    #[test]
    fn a_buffer_of_another_length_is_an_error() {
        let kv = KeyValue { key: b"k", ..KeyValue::default() };
        assert!(kv.encode(&mut [0; 2]).is_err() && kv.encode(&mut [0; 4]).is_err() && kv.encode(&mut [0; 3]).is_ok());
    }

    #[test]
    fn unknown_fields_are_skipped_and_wrong_types_are_not() {
        assert_eq!(KeyValue::decode(b"\x0a\x01k\x38\x05\x42\x01x", ByteOffset(0)).unwrap().key, b"k");
        assert!(KeyValue::decode(b"\x08\x05", ByteOffset(0)).is_err());
        assert!(KeyValue::decode(b"\x12\x00", ByteOffset(0)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn both_decoders_agree_on_any_message(
            fields in proptest::collection::vec((1u8..8, 0u8..3, 0u64.., 0usize..4), 0..9),
            ascending: bool,
            change in proptest::option::of((proptest::prelude::any::<proptest::sample::Index>(), 1u8..)),
        ) {
            let mut fields = fields;
            if ascending {
                fields.sort();
                fields.dedup_by_key(|field| field.0);
            }
            let mut message = Vec::new();
            for (number, kind, value, len) in fields {
                let wire_type = match number { _ if kind == 0 => kind, 1 | 5 => 2, _ => 0 };
                message.push(number << 3 | wire_type);
                let mut rest = if wire_type == 2 { len as u64 } else { value >> (8 * len) };
                while rest >= 0x80 {
                    message.push(rest.to_le_bytes()[0] | 0x80);
                    rest >>= 7;
                }
                message.push(rest.to_le_bytes()[0]);
                if wire_type == 2 {
                    message.extend(std::iter::repeat_n(b'x', len));
                }
            }
            if let Some((place, difference)) = change.filter(|_| !message.is_empty()) {
                *place.get_mut(&mut message) ^= difference;
            }
            let any = KeyValue::decode_any(&message, ByteOffset(3));
            if let Some(kv) = KeyValue::decode_ascending(&message) {
                proptest::prop_assert_eq!(&any, &Ok(kv));
            }
            proptest::prop_assert_eq!(KeyValue::decode(&message, ByteOffset(3)), any);
        }

        #[test]
        fn agrees_with_generated_code(key: Vec<u8>, value: Vec<u8>, create: i64, modified: i64, version: i64, lease: i64) {
            let kv = KeyValue {
                key: &key,
                create_revision: Revision(create),
                mod_revision: Revision(modified),
                version,
                value: &value,
                lease: LeaseId(lease),
            };
            let bytes = encode(&kv);
            proptest::prop_assert_eq!(KeyValue::decode(&bytes, ByteOffset(0)).unwrap(), kv);
            let oracle = etcd::KeyValue::parse_from_bytes(&bytes).unwrap();
            proptest::prop_assert_eq!((oracle.key(), oracle.value()), (key.as_slice(), value.as_slice()));
            proptest::prop_assert_eq!(
                (oracle.create_revision(), oracle.mod_revision(), oracle.version(), oracle.lease()),
                (create, modified, version, lease)
            );
        }

        #[test]
        fn any_bytes(bytes: Vec<u8>) {
            let _ = KeyValue::decode(&bytes, ByteOffset(0));
        }
    }
}
