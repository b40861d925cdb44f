//! The auth buckets of a converted database: the encoded users and roles of the plan.
//!
//! Knows permissions as `transform` gives them. Must not know how they were made.

use super::Pair;
use crate::error::Result;
use crate::mvcc::{FIRST_AUTH_REVISION, Permission, PermissionKind, encode_role, encode_user, schema};
use crate::transform::auth::{Access, Auth, Role};
use crate::transform::permissions::Range;

/// Returns the pairs of the buckets `auth`, `authUsers` and `authRoles`, in this order.
///
/// # Errors
/// [`Reason::Internal`](crate::error::Reason::Internal) for a wrong size computation, which cannot happen.
pub fn auth_buckets(auth: &Auth) -> Result<[(&'static [u8], Vec<Pair>); 3]> {
    let mut flags = Vec::new();
    if auth.enabled {
        flags.push((schema::AUTH_ENABLED.to_vec(), vec![1]));
        flags.push((schema::AUTH_REVISION.to_vec(), FIRST_AUTH_REVISION.to_be_bytes().to_vec()));
    }
    let users = auth.users.iter().map(|user| {
        let roles = user.roles.iter().map(Vec::as_slice);
        Ok((user.name.clone(), encode_user(&user.name, &user.password, roles)?))
    });
    let roles = auth.roles.iter().map(|role| Ok((role.name.clone(), encode(role)?)));
    Ok([
        (schema::AUTH, flags),
        (schema::AUTH_USERS, users.collect::<Result<_>>()?),
        (schema::AUTH_ROLES, roles.collect::<Result<_>>()?),
    ])
}

fn encode(role: &Role) -> Result<Vec<u8>> {
    let permissions: Vec<Permission<'_>> =
        role.permissions.iter().map(|(range, access)| permission(range, *access)).collect();
    encode_role(&role.name, &permissions)
}

/// Converts a range. A range without a start begins at the first possible key; a range without an end has a zero byte
/// as its end.
fn permission(range: &Range, access: Access) -> Permission<'_> {
    Permission {
        kind: match access {
            Access::Read => PermissionKind::Read,
            Access::Write => PermissionKind::Write,
            Access::ReadWrite => PermissionKind::ReadWrite,
        },
        key: if range.start.is_empty() { b"\0" } else { &range.start },
        range_end: match &range.end {
            _ if range.is_one_key() => b"",
            None => b"\0",
            Some(end) => end,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_become_keys_and_range_ends() {
        let range = |start: &[u8], end: Option<&[u8]>| Range { start: start.to_vec(), end: end.map(<[u8]>::to_vec) };
        for (start, end, key, range_end) in [
            (&b"/a"[..], Some(&b"/a\0"[..]), &b"/a"[..], &b""[..]),
            (b"/b/", Some(b"/b0"), b"/b/", b"/b0"),
            (b"", None, b"\0", b"\0"),
        ] {
            let range = range(start, end);
            let permission = permission(&range, Access::Read);
            assert_eq!((permission.key, permission.range_end), (key, range_end));
        }
    }

    #[test]
    fn flags_exist_only_when_authentication_is_on() {
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
