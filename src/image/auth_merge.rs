//! The three auth buckets as a whole: those of an earlier database, joined with others (docs/formats.md 7.2).
//!
//! Unchanged pairs are preserved byte for byte. Must not know v2, or which side wins if both have a name.

use std::collections::BTreeMap;

use super::{Pair, auth_buckets};
use crate::error::Result;
use crate::ids::ByteOffset;
use crate::mvcc::schema;
use crate::transform::auth::{Auth, Principal};
use crate::wire::Reader;

/// The user, and the role, with all permissions.
const ROOT: &[u8] = b"root";

/// The pairs of the buckets `auth`, `authUsers` and `authRoles`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuthState {
    /// The state of authentication, and its revision.
    pub flags: Vec<Pair>,
    /// Users by name.
    pub users: Vec<Pair>,
    /// Roles by name.
    pub roles: Vec<Pair>,
}

/// The kind and name of a user or a role.
pub type Named = (Principal, Vec<u8>);

impl AuthState {
    /// Encodes users and roles from v2.
    ///
    /// # Errors
    /// [`Reason::Internal`](crate::error::Reason::Internal) for a wrong size computation, which cannot happen.
    pub fn of(auth: &Auth) -> Result<AuthState> {
        let [(_, flags), (_, users), (_, roles)] = auth_buckets(auth)?;
        Ok(AuthState { flags, users, roles })
    }

    /// Returns whether authentication is on.
    pub fn is_enabled(&self) -> bool {
        self.flag(schema::AUTH_ENABLED) == Some(&[1])
    }

    /// Returns whether a user with all permissions can log in.
    pub fn has_administrator(&self) -> bool {
        let root = self.users.iter().find(|(name, _)| name == ROOT);
        root.is_some_and(|(_, user)| can_administer(user).unwrap_or(false))
    }

    /// Joins both states. Also returns the users and roles that both have with different content. With `take_other`,
    /// those of `other` replace those of `self`. Authentication is on if it is on in one of them.
    ///
    /// # Errors
    /// [`Reason::Internal`](crate::error::Reason::Internal) for a wrong size computation, which cannot happen.
    pub fn join(self, other: AuthState, take_other: bool) -> Result<(AuthState, Vec<Named>)> {
        let mut both = Vec::new();
        let mut changed = other.is_enabled() && !self.is_enabled();
        let mut joined = |what: Principal, here: Vec<Pair>, other: Vec<Pair>| {
            let mut pairs: BTreeMap<Vec<u8>, Vec<u8>> = here.into_iter().collect();
            for (name, value) in other {
                match pairs.get(&name) {
                    Some(found) if *found == value => continue,
                    Some(_) => {
                        both.push((what, name.clone()));
                        if !take_other {
                            continue;
                        }
                    }
                    None => {}
                }
                changed = true;
                pairs.insert(name, value);
            }
            pairs.into_iter().collect()
        };
        let users = joined(Principal::User, self.users.clone(), other.users.clone());
        let roles = joined(Principal::Role, self.roles.clone(), other.roles.clone());
        let mut out = AuthState { flags: self.flags.clone(), users, roles };
        if changed {
            out.set_flags(self.is_enabled() || other.is_enabled());
        }
        Ok((out, both))
    }

    /// Sets the state of authentication. A change raises the revision, as in a server. Authentication that was never on
    /// has no revision.
    fn set_flags(&mut self, enabled: bool) {
        let revision = self.flag(schema::AUTH_REVISION).and_then(|value| <[u8; 8]>::try_from(value).ok());
        let revision = revision.map(u64::from_be_bytes);
        if !enabled && revision.is_none() {
            return;
        }
        self.flags.retain(|(key, _)| key != schema::AUTH_ENABLED && key != schema::AUTH_REVISION);
        self.flags.push((schema::AUTH_ENABLED.to_vec(), vec![u8::from(enabled)]));
        let revision = revision.unwrap_or(0).saturating_add(1);
        self.flags.push((schema::AUTH_REVISION.to_vec(), revision.to_be_bytes().to_vec()));
    }

    fn flag(&self, key: &[u8]) -> Option<&[u8]> {
        self.flags.iter().find(|(found, _)| found == key).map(|(_, value)| value.as_slice())
    }
}

/// Parses an `authpb.User`. Returns whether it has a password and the role root.
fn can_administer(user: &[u8]) -> Result<bool> {
    let (mut password, mut root) = (false, false);
    let mut reader = Reader::new(user, ByteOffset(0));
    while let Some(field) = reader.field()? {
        match field.number {
            2 => password = !field.bytes()?.is_empty(),
            3 => root |= field.bytes()? == ROOT,
            _ => {}
        }
    }
    Ok(password && root)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(enabled: Option<(u8, u64)>, users: &[(&str, &str)]) -> AuthState {
        let pair = |(name, value): &(&str, &str)| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
        let flags = enabled.map(|(on, revision)| {
            let revision = (schema::AUTH_REVISION.to_vec(), revision.to_be_bytes().to_vec());
            vec![(schema::AUTH_ENABLED.to_vec(), vec![on]), revision]
        });
        AuthState { flags: flags.unwrap_or_default(), users: users.iter().map(pair).collect(), roles: Vec::new() }
    }

    fn flags(state: &AuthState) -> (Option<bool>, Option<u64>) {
        let revision = state.flag(schema::AUTH_REVISION).map(|value| u64::from_be_bytes(value.try_into().unwrap()));
        (state.flag(schema::AUTH_ENABLED).map(|value| value == [1]), revision)
    }

    #[test]
    fn users_of_both_are_there_and_those_that_differ_are_named() {
        let here = state(Some((1, 7)), &[("a", "1"), ("b", "1")]);
        let other = state(None, &[("b", "2"), ("c", "1"), ("a", "1")]);
        for (take_other, b) in [(false, "1"), (true, "2")] {
            let (joined, both) = here.clone().join(other.clone(), take_other).unwrap();
            assert_eq!(both, [(Principal::User, b"b".to_vec())]);
            assert_eq!(joined.users, state(None, &[("a", "1"), ("b", b), ("c", "1")]).users);
            assert_eq!(flags(&joined), (Some(true), Some(8)));
        }
        let (same, both) = here.clone().join(state(None, &[("a", "1")]), true).unwrap();
        assert_eq!((same, both.len()), (here, 0));
    }

    #[test]
    fn authentication_is_on_if_one_side_has_it_on() {
        let on = |a, b| flags(&state(a, &[]).join(state(b, &[]), false).unwrap().0);
        assert_eq!(on(None, None), (None, None));
        assert_eq!(on(None, Some((1, 1))), (Some(true), Some(1)));
        assert_eq!(on(Some((0, 4)), Some((1, 1))), (Some(true), Some(5)));
        assert_eq!(on(Some((1, 4)), Some((1, 1))), (Some(true), Some(4)));
        assert_eq!(on(Some((1, 4)), None), (Some(true), Some(4)));
    }

    #[test]
    fn an_administrator_has_a_password_and_the_role() {
        let with = |user: &[u8]| AuthState { users: vec![(b"root".to_vec(), user.to_vec())], ..AuthState::default() };
        assert!(with(b"\x0a\x04root\x12\x01x\x1a\x04root").has_administrator());
        assert!(!with(b"\x0a\x04root\x1a\x04root").has_administrator());
        assert!(!with(b"\x0a\x04root\x12\x01x").has_administrator());
        assert!(!with(b"\x0a\xff").has_administrator());
        assert!(!AuthState::default().has_administrator());
    }
}
