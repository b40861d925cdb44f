//! `authpb`: what the auth buckets store (FORMATS section 7.2).
//!
//! Canonical proto3 as etcd writes it. Must not know v2, nor why somebody may do something.

use super::content::Pair;
use super::schema;
use crate::error::Result;
use crate::transform::auth::{Access, Auth, Role, User};
use crate::transform::permissions::Range;
use crate::wire::{Writer, bytes_field_len, varint_field_len};

/// The revision of a store that authentication was just turned on in; etcd itself sets it at boot where it is missing.
const FIRST_REVISION: u64 = 1;

/// The pairs of the buckets `auth`, `authUsers` and `authRoles`, in this order.
///
/// # Errors
/// Never in practice: a fault of the size computation.
pub fn auth_buckets(auth: &Auth) -> Result<[(&'static [u8], Vec<Pair>); 3]> {
    let mut flags = Vec::new();
    if auth.enabled {
        flags.push((schema::AUTH_ENABLED.to_vec(), vec![1]));
        flags.push((schema::AUTH_REVISION.to_vec(), FIRST_REVISION.to_be_bytes().to_vec()));
    }
    let users = auth.users.iter().map(|user| Ok((user.name.clone(), encode_user(user)?)));
    let roles = auth.roles.iter().map(|role| Ok((role.name.clone(), encode_role(role)?)));
    Ok([
        (schema::AUTH, flags),
        (schema::AUTH_USERS, users.collect::<Result<_>>()?),
        (schema::AUTH_ROLES, roles.collect::<Result<_>>()?),
    ])
}

/// `authpb.User`.
fn encode_user(user: &User) -> Result<Vec<u8>> {
    // UserAddOptions{no_password: true}; 3.4 knows it, and older servers pass over it.
    let options: &[u8] = if user.password.is_empty() { &[0x08, 1] } else { &[] };
    let mut fields: Vec<(u32, &[u8])> = vec![(1, &user.name), (2, &user.password)];
    fields.extend(user.roles.iter().map(|role| (3, &role[..])));
    fields.push((4, options));
    message(&fields)
}

/// `authpb.Role`.
fn encode_role(role: &Role) -> Result<Vec<u8>> {
    let permissions: Vec<Vec<u8>> =
        role.permissions.iter().map(|(range, access)| encode_permission(range, *access)).collect::<Result<_>>()?;
    let mut fields: Vec<(u32, &[u8])> = vec![(1, &role.name)];
    fields.extend(permissions.iter().map(|permission| (2, &permission[..])));
    message(&fields)
}

/// `authpb.Permission`: one key has no `range_end`, and an end that is open is one zero byte.
fn encode_permission(range: &Range, access: Access) -> Result<Vec<u8>> {
    let kind = match access {
        Access::Read => 0,
        Access::Write => 1,
        Access::ReadWrite => 2,
    };
    let key: &[u8] = if range.start.is_empty() { b"\0" } else { &range.start };
    let end: &[u8] = match &range.end {
        _ if range.is_one_key() => b"",
        None => b"\0",
        Some(end) => end,
    };
    let len = varint_field_len(kind) + bytes_field_len(key.len()) + bytes_field_len(end.len());
    let mut buffer = vec![0; len];
    let mut writer = Writer::new(&mut buffer);
    writer.varint_field(1, kind)?;
    writer.bytes_field(2, key.len())?.copy_from_slice(key);
    writer.bytes_field(3, end.len())?.copy_from_slice(end);
    writer.finish()?;
    Ok(buffer)
}

/// A message of bytes fields; empty ones are left out.
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
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn messages_are_those_of_etcd() {
        let roles = BTreeSet::from([b"b".to_vec(), b"a".to_vec()]);
        let mut user = User { name: b"bob".to_vec(), password: b"$2a".to_vec(), roles };
        assert_eq!(encode_user(&user).unwrap(), b"\x0a\x03bob\x12\x03$2a\x1a\x01a\x1a\x01b");
        user.password.clear();
        assert_eq!(encode_user(&user).unwrap(), b"\x0a\x03bob\x1a\x01a\x1a\x01b\x22\x02\x08\x01");
        let range = |start: &[u8], end: Option<&[u8]>| Range { start: start.to_vec(), end: end.map(<[u8]>::to_vec) };
        let permissions = BTreeMap::from([
            (range(b"/a", Some(b"/a\0")), Access::Read),
            (range(b"/b/", Some(b"/b0")), Access::ReadWrite),
            (range(b"", None), Access::Write),
        ]);
        let role = Role { name: b"r".to_vec(), permissions };
        let all = b"\x12\x08\x08\x01\x12\x01\0\x1a\x01\0";
        let one = b"\x12\x04\x12\x02/a";
        let dir = b"\x12\x0c\x08\x02\x12\x03/b/\x1a\x03/b0";
        assert_eq!(encode_role(&role).unwrap(), [&b"\x0a\x01r"[..], all, one, dir].concat());
    }

    #[test]
    fn flags_are_there_only_when_authentication_is_on() {
        let mut auth = Auth::default();
        assert_eq!(auth_buckets(&auth).unwrap()[0].1.len(), 0);
        auth.enabled = true;
        let [(_, flags), ..] = auth_buckets(&auth).unwrap();
        assert_eq!(
            flags,
            [(b"authEnabled".to_vec(), vec![1]), (b"authRevision".to_vec(), vec![0, 0, 0, 0, 0, 0, 0, 1])]
        );
    }
}
