//! `authpb`: the users, roles and permissions in the auth buckets (docs/formats.md section 7.2).
//!
//! The encoding is canonical proto3, as in etcd. Must not know v2, or which keys a permission is for.

use crate::error::Result;
use crate::wire::{Writer, bytes_field_len, varint_field_len};

/// The value of `authRevision` directly after authentication is enabled. etcd sets it at its start if it is missing.
pub const FIRST_AUTH_REVISION: u64 = 1;

/// A permission of a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permission<'a> {
    /// The allowed access.
    pub kind: PermissionKind,
    /// The first key.
    pub key: &'a [u8],
    /// The first key after the range. Empty: only `key`. One zero byte: no end.
    pub range_end: &'a [u8],
}

/// `authpb.Permission.Type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PermissionKind {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Both.
    ReadWrite,
}

/// Encodes an `authpb.User`. An empty password hash means that the user cannot log in with a password.
///
/// # Errors
/// [`Reason::Internal`](crate::error::Reason::Internal) for a wrong size computation, which cannot happen.
pub fn encode_user<'a>(
    name: &'a [u8],
    password: &'a [u8],
    roles: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<u8>> {
    // UserAddOptions{no_password: true}; 3.4 and later know it, and older servers ignore it.
    let options: &[u8] = if password.is_empty() { &[0x08, 1] } else { &[] };
    let mut fields = vec![(1, name), (2, password)];
    fields.extend(roles.into_iter().map(|role| (3, role)));
    fields.push((4, options));
    message(&fields)
}

/// Encodes an `authpb.Role`.
///
/// # Errors
/// [`Reason::Internal`](crate::error::Reason::Internal) for a wrong size computation, which cannot happen.
pub fn encode_role(name: &[u8], permissions: &[Permission<'_>]) -> Result<Vec<u8>> {
    let permissions: Vec<Vec<u8>> = permissions.iter().map(encode_permission).collect::<Result<_>>()?;
    let mut fields = vec![(1, name)];
    fields.extend(permissions.iter().map(|permission| (2, &permission[..])));
    message(&fields)
}

/// Encodes an `authpb.Permission`.
fn encode_permission(permission: &Permission<'_>) -> Result<Vec<u8>> {
    let Permission { key, range_end, .. } = *permission;
    let kind = match permission.kind {
        PermissionKind::Read => 0,
        PermissionKind::Write => 1,
        PermissionKind::ReadWrite => 2,
    };
    let len = varint_field_len(kind) + bytes_field_len(key.len()) + bytes_field_len(range_end.len());
    let mut buffer = vec![0; len];
    let mut writer = Writer::new(&mut buffer);
    writer.varint_field(1, kind)?;
    writer.bytes_field(2, key.len())?.copy_from_slice(key);
    writer.bytes_field(3, range_end.len())?.copy_from_slice(range_end);
    writer.finish()?;
    Ok(buffer)
}

/// Encodes a message of bytes fields, without empty ones.
fn message(fields: &[(u32, &[u8])]) -> Result<Vec<u8>> {
    let mut buffer = vec![0; fields.iter().map(|(_, bytes)| bytes_field_len(bytes.len())).sum()];
    let mut writer = Writer::new(&mut buffer);
    for (number, bytes) in fields {
        writer.bytes_field(*number, bytes.len())?.copy_from_slice(bytes);
    }
    writer.finish()?;
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_etcd() {
        let roles = || [&b"a"[..], b"b"];
        assert_eq!(encode_user(b"bob", b"$2a", roles()).unwrap(), b"\x0a\x03bob\x12\x03$2a\x1a\x01a\x1a\x01b");
        assert_eq!(encode_user(b"bob", b"", roles()).unwrap(), b"\x0a\x03bob\x1a\x01a\x1a\x01b\x22\x02\x08\x01");
        let permissions = [
            Permission { kind: PermissionKind::Write, key: b"\0", range_end: b"\0" },
            Permission { kind: PermissionKind::Read, key: b"/a", range_end: b"" },
            Permission { kind: PermissionKind::ReadWrite, key: b"/b/", range_end: b"/b0" },
        ];
        let all = b"\x12\x08\x08\x01\x12\x01\0\x1a\x01\0";
        let one = b"\x12\x04\x12\x02/a";
        let dir = b"\x12\x0c\x08\x02\x12\x03/b/\x1a\x03/b0";
        assert_eq!(encode_role(b"r", &permissions).unwrap(), [&b"\x0a\x01r"[..], all, one, dir].concat());
    }
}
