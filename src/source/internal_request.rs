//! The v3 requests in the log: what each one writes, and under which key (docs/formats.md 5.4).
//!
//! Nothing is applied. A merge must detect unapplied v3 entries, and `inspect --wal` shows what an entry asks for.
//! Knows the wire form of `InternalRaftRequest` and of the requests in it.

use crate::wire::{Reader, WireError};

/// A v3 request: the field of `InternalRaftRequest` that is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct V3Request<'a> {
    /// The number of the field.
    pub field: u32,
    /// The bytes of the request.
    pub message: &'a [u8],
}

/// One operation of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct V3Write<'a> {
    /// The operation, in one or two words.
    pub action: &'static str,
    /// The key, or the name of the user or role; empty if there is none.
    pub name: &'a [u8],
    /// The end of a range of keys: a zero byte means the end of all keys, an empty slice means one key.
    pub end: &'a [u8],
    /// The lease that is granted or revoked, or the revision of a compaction; 0 if there is none.
    pub number: i64,
}

impl<'a> V3Request<'a> {
    /// Returns the name of the operation.
    pub fn action(&self) -> &'static str {
        match self.field {
            3 => "range",
            4 => "put",
            5 => "delete",
            6 => "txn",
            7 => "compact",
            8 => "grant lease",
            9 => "revoke lease",
            10 => "alarm",
            11 => "checkpoint lease",
            1000 => "enable auth",
            1011 => "disable auth",
            1012 => "authenticate",
            1100 => "add user",
            1101 => "delete user",
            1103 => "change password of user",
            1104 => "grant role to user",
            1105 => "revoke role of user",
            1200 => "add role",
            1201 => "delete role",
            1203 => "grant permission to role",
            1204 => "revoke permission of role",
            1302 => "downgrade",
            _ => "v3 request",
        }
    }

    /// Returns whether the request may change keys, their history, leases, users or roles. Reads and requests of
    /// cluster management do not. A checkpoint only records the remaining time of a lease.
    pub fn writes(&self) -> bool {
        matches!(self.field, 4..=9 | 1000 | 1011 | 1100 | 1101 | 1103..=1105 | 1200 | 1201 | 1203 | 1204)
    }

    /// Returns whether the request may add a key, a lease, a user or a role.
    pub fn adds(&self) -> bool {
        matches!(self.field, 4 | 6 | 8 | 1100 | 1200)
    }

    /// Returns the operations of the request. A transaction can put and delete several keys, on either branch, or only
    /// read. For an unreadable message, it returns the name of the request only.
    pub fn parts(&self) -> Vec<V3Write<'a>> {
        let whole = V3Write { action: self.action(), name: &[], end: &[], number: 0 };
        let read = match self.field {
            6 => transaction(self.message),
            5 => delete(self.message).map(|part| vec![part]),
            4 | 1100.. => bytes(self.message, 1).map(|name| vec![V3Write { name, ..whole }]),
            8 => number(self.message, 2).map(|number| vec![V3Write { number, ..whole }]),
            7 | 9 => number(self.message, 1).map(|number| vec![V3Write { number, ..whole }]),
            _ => Ok(vec![whole]),
        };
        read.unwrap_or_else(|_| vec![whole])
    }
}

fn delete(message: &[u8]) -> Result<V3Write<'_>, WireError> {
    Ok(V3Write { action: "delete", name: bytes(message, 1)?, end: bytes(message, 2)?, number: 0 })
}

fn bytes(message: &[u8], wanted: u32) -> Result<&[u8], WireError> {
    let mut reader = Reader::new(message, 0);
    let mut found = &[][..];
    while let Some(field) = reader.field()? {
        if field.number == wanted {
            found = field.bytes()?;
        }
    }
    Ok(found)
}

fn number(message: &[u8], wanted: u32) -> Result<i64, WireError> {
    let mut reader = Reader::new(message, 0);
    let mut found = 0;
    while let Some(field) = reader.field()? {
        if field.number == wanted {
            found = field.varint()?.cast_signed();
        }
    }
    Ok(found)
}

/// Parses a `TxnRequest`: compares in field 1, operations on success in 2, on failure in 3. Walks nested transactions
/// without recursion.
fn transaction(message: &[u8]) -> Result<Vec<V3Write<'_>>, WireError> {
    let mut out = Vec::new();
    let mut pending = vec![message];
    while let Some(transaction) = pending.pop() {
        let mut reader = Reader::new(transaction, 0);
        while let Some(field) = reader.field()? {
            if !matches!(field.number, 2 | 3) {
                continue;
            }
            let mut operation = Reader::new(field.bytes()?, 0);
            while let Some(request) = operation.field()? {
                match request.number {
                    2 => {
                        let name = bytes(request.bytes()?, 1)?;
                        out.push(V3Write { action: "put", name, end: &[], number: 0 });
                    }
                    3 => out.push(delete(request.bytes()?)?),
                    4 => pending.push(request.bytes()?),
                    _ => {}
                }
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(field: u32, message: &[u8]) -> Vec<(&'static str, Vec<u8>, i64)> {
        let parts = V3Request { field, message }.parts();
        parts.into_iter().map(|part| (part.action, part.name.to_vec(), part.number)).collect()
    }

    #[test]
    fn requests_are_named() {
        assert_eq!(parts(4, b"\x0a\x02/a\x12\x01v"), [("put", b"/a".to_vec(), 0)]);
        assert_eq!(parts(5, b"\x0a\x02/a\x12\x02/b"), [("delete", b"/a".to_vec(), 0)]);
        assert_eq!(parts(8, b"\x08\x3c\x10\x07"), [("grant lease", vec![], 7)]);
        assert_eq!(parts(9, b"\x08\x07"), [("revoke lease", vec![], 7)]);
        assert_eq!(parts(1100, b"\x0a\x03bob\x12\x02pw"), [("add user", b"bob".to_vec(), 0)]);
        assert_eq!(parts(7, b"\x08\x05"), [("compact", vec![], 5)]);
        // An unreadable request is still named.
        assert_eq!(parts(4, b"\x0a\x09/a"), [("put", vec![], 0)]);
        assert!(V3Request { field: 5, message: &[] }.writes() && !V3Request { field: 5, message: &[] }.adds());
        assert!(!V3Request { field: 3, message: &[] }.writes() && !V3Request { field: 1012, message: &[] }.writes());
    }

    #[test]
    fn transactions_are_walked_on_both_branches_and_inside() {
        let put = |key: &[u8]| [&[0x12, key.len() as u8 + 2, 0x0a, key.len() as u8], key].concat();
        let delete = |key: &[u8]| [&[0x1a, key.len() as u8 + 2, 0x0a, key.len() as u8], key].concat();
        let branch = |number: u8, operation: &[u8]| [&[number << 3 | 2, operation.len() as u8], operation].concat();
        let inner = branch(2, &put(b"c"));
        let nested = [&[0x22, inner.len() as u8], &inner[..]].concat();
        let outer = [branch(2, &put(b"a")), branch(3, &delete(b"b")), branch(2, &nested)].concat();
        let found = parts(6, &outer);
        assert_eq!(found, [("put", b"a".to_vec(), 0), ("delete", b"b".to_vec(), 0), ("put", b"c".to_vec(), 0)]);
        assert_eq!(parts(6, b""), []);
        assert_eq!(parts(6, b"\x12\x05x"), [("txn", vec![], 0)]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes(field in 3u32..1300, bytes: Vec<u8>) {
            let parts = V3Request { field, message: &bytes }.parts();
            proptest::prop_assert!(field == 6 || !parts.is_empty());
        }
    }
}
