//! Would a role reach keys in v3 that it could not reach in v2? Rules can give keys names that lie in a range of another
//! (CLI.md, `--include` to `--rules`: what cannot be expressed is refused).
//!
//! Asked of the keys that there are, under both of their names. Knows roles and rows; not how either came about.

use rayon::prelude::*;

use super::auth::{Auth, Granted, Role};
use super::order::Pairs;
use super::rules::shown;
use crate::error::{Error, Reason, Result};
use crate::report::table::short;
use crate::v2store::path;

/// Refuses roles that reach a key under its new name and could not under its old one.
///
/// # Errors
/// [`Reason::AuthInvalid`], naming the role and the first such key.
pub fn refuse_wider(auth: &Auth, pairs: &Pairs<'_, '_>) -> Result<()> {
    let roles: Vec<(&Role, &Granted)> = auth.roles.iter().zip(&auth.granted).collect();
    let found = pairs.ordered.rows.par_iter().filter(|row| !row.marker).find_map_first(|row| {
        let path = pairs.tree.path(row.node);
        let (old, new) = (path::user_key(&path), pairs.key(row));
        let (role, write) = wider(&roles, old, &new)?;
        let what = if write { "write" } else { "read" };
        let (role, old, new) = (shown(&role.name), shown(old), shown(&new));
        Some(format!(
            "role {role}: it could not {what} {} in v2, and could in v3, where the rules call that key {}: give it a name \
             that the role does not reach, or leave users and roles out with --auth ignore",
            short(&old),
            short(&new)
        ))
    });
    found.map_or(Ok(()), |message| Err(Error::new(Reason::AuthInvalid, message)))
}

/// The first role that may do more to a key under its new name, and whether that is to write.
fn wider<'r>(roles: &[(&'r Role, &Granted)], old: &[u8], new: &[u8]) -> Option<(&'r Role, bool)> {
    roles.iter().find_map(|(role, granted)| {
        let gains = |write: &bool| role.allows(*write, new) && !granted.allows(*write, old);
        [false, true].into_iter().find(gains).map(|write| (*role, write))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::auth::Access;
    use crate::transform::permissions::Range;

    #[test]
    fn what_a_name_brings_within_reach_is_noticed() {
        let range = |start: &str, end: &str| Range { start: start.into(), end: Some(end.into()) };
        let role = Role { name: b"r".to_vec(), permissions: [(range("/x/", "/x0"), Access::Read)].into() };
        let granted = Granted { read: vec![range("/x/", "/x0")], write: Vec::new() };
        let roles = [(&role, &granted)];
        assert_eq!(wider(&roles, b"/a/k", b"/x/k"), Some((&role, false)));
        assert_eq!(wider(&roles, b"/x/k", b"/x/k"), None);
        assert_eq!(wider(&roles, b"/a/k", b"/b/k"), None);
        let write = Role { name: b"w".to_vec(), permissions: [(range("/x/", "/x0"), Access::ReadWrite)].into() };
        assert_eq!(wider(&[(&write, &granted)], b"/x/k", b"/x/k"), Some((&write, true)));
    }
}
