//! The v3 requests in the log: what each one writes, and under which key (docs/formats.md 5.4).
//!
//! Nothing is applied. A merge must detect unapplied v3 entries, and `inspect --wal` shows what an entry asks for.
//! Knows the wire form of `InternalRaftRequest` and of the requests in it. Must not know the v3 backend or a revision.

use crate::ids::ByteOffset;
use crate::wire::{Reader, WireError};
use crate::words::words;

words! {
    /// The operation of a v3 request.
    #[derive(Default)]
    pub enum V3Action {
        /// Reads keys.
        Range = "range",
        /// Writes a key.
        Put = "put",
        /// Deletes a range of keys.
        Delete = "delete",
        /// Compares, then does other operations.
        Txn = "txn",
        /// Compacts the history of keys.
        Compact = "compact",
        /// Makes a lease.
        GrantLease = "grant lease",
        /// Revokes a lease and deletes its keys.
        RevokeLease = "revoke lease",
        /// Changes alarms.
        Alarm = "alarm",
        /// Records the remaining time of leases.
        CheckpointLease = "checkpoint lease",
        /// Turns authentication on.
        EnableAuth = "enable auth",
        /// Turns authentication off.
        DisableAuth = "disable auth",
        /// Logs a user in.
        Authenticate = "authenticate",
        /// Adds a user.
        AddUser = "add user",
        /// Deletes a user.
        DeleteUser = "delete user",
        /// Changes the password of a user.
        ChangePassword = "change password of user",
        /// Grants a role to a user.
        GrantRole = "grant role to user",
        /// Revokes a role of a user.
        RevokeRole = "revoke role of user",
        /// Adds a role.
        AddRole = "add role",
        /// Deletes a role.
        DeleteRole = "delete role",
        /// Grants a permission to a role.
        GrantPermission = "grant permission to role",
        /// Revokes a permission of a role.
        RevokePermission = "revoke permission of role",
        /// Starts or cancels a downgrade of the cluster.
        Downgrade = "downgrade",
        /// Another operation.
        #[default]
        Other = "v3 request",
    }
}

impl V3Action {
    /// Returns whether the number of the request is a lease ID.
    pub fn is_of_lease(self) -> bool {
        matches!(self, V3Action::GrantLease | V3Action::RevokeLease | V3Action::CheckpointLease)
    }
}

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
    /// The operation.
    pub action: V3Action,
    /// The key, or the name of the user or role; empty if the request has none.
    pub name: &'a [u8],
    /// The end of a range of keys: a zero byte means the end of all keys, an empty slice means one key.
    pub end: &'a [u8],
    /// The lease that is granted or revoked, or the revision of a compaction; 0 if the request has none.
    pub number: i64,
}

impl<'a> V3Request<'a> {
    /// Returns the operation.
    pub fn action(&self) -> V3Action {
        match self.field {
            3 => V3Action::Range,
            4 => V3Action::Put,
            5 => V3Action::Delete,
            6 => V3Action::Txn,
            7 => V3Action::Compact,
            8 => V3Action::GrantLease,
            9 => V3Action::RevokeLease,
            10 => V3Action::Alarm,
            11 => V3Action::CheckpointLease,
            1000 => V3Action::EnableAuth,
            1011 => V3Action::DisableAuth,
            1012 => V3Action::Authenticate,
            1100 => V3Action::AddUser,
            1101 => V3Action::DeleteUser,
            1103 => V3Action::ChangePassword,
            1104 => V3Action::GrantRole,
            1105 => V3Action::RevokeRole,
            1200 => V3Action::AddRole,
            1201 => V3Action::DeleteRole,
            1203 => V3Action::GrantPermission,
            1204 => V3Action::RevokePermission,
            1302 => V3Action::Downgrade,
            _ => V3Action::Other,
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
    Ok(V3Write { action: V3Action::Delete, name: bytes(message, 1)?, end: bytes(message, 2)?, number: 0 })
}

fn bytes(message: &[u8], wanted: u32) -> Result<&[u8], WireError> {
    let mut reader = Reader::new(message, ByteOffset(0));
    let mut found = &[][..];
    while let Some(field) = reader.field()? {
        if field.number == wanted {
            found = field.bytes()?;
        }
    }
    Ok(found)
}

fn number(message: &[u8], wanted: u32) -> Result<i64, WireError> {
    let mut reader = Reader::new(message, ByteOffset(0));
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
        let mut reader = Reader::new(transaction, ByteOffset(0));
        while let Some(field) = reader.field()? {
            if !matches!(field.number, 2 | 3) {
                continue;
            }
            let mut operation = Reader::new(field.bytes()?, ByteOffset(0));
            while let Some(request) = operation.field()? {
                match request.number {
                    2 => {
                        let name = bytes(request.bytes()?, 1)?;
                        out.push(V3Write { action: V3Action::Put, name, end: &[], number: 0 });
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
        parts.into_iter().map(|part| (part.action.word(), part.name.to_vec(), part.number)).collect()
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
