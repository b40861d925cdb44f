//! Fields of protobuf messages, written and read byte by byte.
//!
//! Shares no code with etcdlift, and knows nothing of etcd's messages.

/// A field as it is read.
#[derive(Clone, Copy, Debug)]
pub enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

pub fn put_number(out: &mut Vec<u8>, field: u64, number: u64) {
    put_varint(out, field << 3);
    put_varint(out, number);
}

pub fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A message whose fields 1, 2, … are these numbers.
pub fn numbers(values: &[u64]) -> Vec<u8> {
    let mut message = Vec::new();
    for (field, value) in (1..).zip(values) {
        put_number(&mut message, field, *value);
    }
    message
}

/// All fields of a message, in their order.
///
/// # Panics
/// If the message has fields of a fixed width, or ends inside a field.
pub fn fields(mut message: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        let number = varint(&mut message);
        let field = match tag & 7 {
            0 => Field::Number(number),
            2 => {
                let (bytes, rest) = message.split_at(usize::try_from(number).unwrap());
                message = rest;
                Field::Bytes(bytes)
            }
            wire => panic!("wire type {wire}"),
        };
        fields.push((tag >> 3, field));
    }
    fields
}

/// The first number of a message in this field.
pub fn number_of(message: &[u8], field: u64) -> Option<u64> {
    fields(message).into_iter().find_map(|found| match found {
        (number, Field::Number(value)) if number == field => Some(value),
        _ => None,
    })
}

/// The bytes of each field with this number.
pub fn all_bytes_of(message: &[u8], field: u64) -> Vec<&[u8]> {
    let bytes = fields(message).into_iter().filter_map(|found| match found {
        (number, Field::Bytes(bytes)) if number == field => Some(bytes),
        _ => None,
    });
    bytes.collect()
}

/// The bytes of the first field with this number.
pub fn bytes_of(message: &[u8], field: u64) -> Option<&[u8]> {
    all_bytes_of(message, field).first().copied()
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint(message: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = message.split_first().unwrap();
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}
