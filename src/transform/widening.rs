//! A check that no role gets permission for a key in v3 without a right on it in v2. Rules can rename a key into a
//! range of another key (docs/cli.md, `--include` to `--rules`: what cannot be expressed is refused).
//!
//! The check uses the present keys, with both of their names. Every key counts as a random number, so two sets of keys
//! are compared by their sums. That takes one pass over the keys instead of one for each role. Knows roles and rows.
//! Must not know how either was made.

use std::hash::BuildHasher;

use hashbrown::DefaultHashBuilder;
use rayon::prelude::*;

use super::auth::{Access, Auth, Granted, Role};
use super::permissions::{Range, joined};
use super::plan::Row;
use super::rules::shown;
use crate::display::short;
use crate::error::{Error, Reason, Result};
use crate::transform::revisions::Pairs;
use crate::v2store::path;

/// Refuses roles with permission for a key under its new name, but without a right on it under its old one.
///
/// # Errors
/// [`Reason::AuthInvalid`] with the first such role and its first such key.
pub fn refuse_wider(auth: &Auth, pairs: &Pairs<'_, '_>) -> Result<()> {
    let roles = auth.roles.iter().zip(&auth.granted);
    let permissions: Vec<Permission<'_>> = roles
        .flat_map(|(role, granted)| [false, true].map(|write| Permission::of(role, granted, write)))
        .filter(|permission| !permission.now.is_empty())
        .collect();
    let names = |row: &Row| {
        let path = pairs.tree.path(row.node);
        (path::user_key(&path).to_vec(), pairs.key(row).into_owned())
    };
    let rows = &pairs.ordered.rows;
    let weights = Weights::of(&permissions, rows, &names);
    for permission in permissions.iter().filter(|permission| !weights.are_equal(permission)) {
        let found = rows.par_iter().filter(|row| !row.marker).find_map_first(|row| {
            let (old, new) = names(row);
            permission.gains(&old, &new).then_some((old, new))
        });
        if let Some((old, new)) = found {
            let what = if permission.write { "write" } else { "read" };
            let message = format!(
                "role {}: it could not {what} {} in v2, but could in v3, where the rules rename that key to {}",
                shown(permission.role),
                short(&shown(&old)),
                short(&shown(&new))
            );
            let hint = "rename the key to one without permission, or leave users and roles out with --auth ignore";
            return Err(Error::new(Reason::AuthInvalid, message).hint(hint));
        }
    }
    Ok(())
}

/// The keys that a role may read, or write.
struct Permission<'r> {
    role: &'r [u8],
    write: bool,
    /// The v2 keys, in order, in ranges that neither overlap nor touch.
    before: Vec<Range>,
    /// The v3 keys, in ranges of the same form.
    now: Vec<Range>,
}

impl<'r> Permission<'r> {
    fn of(role: &'r Role, granted: &Granted, write: bool) -> Permission<'r> {
        let not = if write { Access::Read } else { Access::Write };
        let now = role.permissions.iter().filter(|(_, access)| **access != not).map(|(range, _)| range.clone());
        let before = if write { &granted.write } else { &granted.read };
        Permission { role: &role.name, write, before: joined(before.clone()), now: joined(now.collect()) }
    }

    /// Returns whether it covers a key by its new name, but not by its old one.
    fn gains(&self, old: &[u8], new: &[u8]) -> bool {
        let holds = |ranges: &[Range], key: &[u8]| {
            let after = ranges.partition_point(|range| *range.start <= *key);
            after.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|range| range.contains(key))
        };
        holds(&self.now, new) && !holds(&self.before, old)
    }
}

/// Sums of the random numbers of keys, by the position of their names among the ends of all ranges.
struct Weights<'r> {
    /// The keys where a range begins or ends, sorted.
    ends: Vec<&'r [u8]>,
    /// At each position, the sum of the keys whose old name is before that end; at the last position, of all keys.
    old: Vec<u64>,
    /// The same for new names.
    new: Vec<u64>,
}

impl<'r> Weights<'r> {
    fn of(
        permissions: &'r [Permission<'_>],
        rows: &[Row],
        names: &(impl Fn(&Row) -> (Vec<u8>, Vec<u8>) + Sync),
    ) -> Weights<'r> {
        let ranges = permissions.iter().flat_map(|permission| permission.before.iter().chain(&permission.now));
        let mut ends: Vec<&[u8]> =
            ranges.flat_map(|range| [Some(&range.start), range.end.as_ref()]).flatten().map(|end| &**end).collect();
        ends.par_sort_unstable();
        ends.dedup();
        let hasher = DefaultHashBuilder::default();
        let place = |key: &[u8]| ends.partition_point(|end| *end <= key);
        let empty = || (vec![0u64; ends.len() + 1], vec![0u64; ends.len() + 1]);
        let add = |sums: &mut Vec<u64>, at: usize, number: u64| {
            if let Some(sum) = sums.get_mut(at) {
                *sum = sum.wrapping_add(number);
            }
        };
        let part = |rows: &[Row]| {
            let (mut old_sums, mut new_sums) = empty();
            for row in rows.iter().filter(|row| !row.marker) {
                let (old, new) = names(row);
                let number = hasher.hash_one((&old, &new));
                add(&mut old_sums, place(&old), number);
                add(&mut new_sums, place(&new), number);
            }
            (old_sums, new_sums)
        };
        let sum = |mut a: Vec<u64>, b: Vec<u64>| {
            a.iter_mut().zip(b).for_each(|(a, b)| *a = a.wrapping_add(b));
            a
        };
        // One part for each thread, with its own sums.
        let size = rows.len().div_ceil(rayon::current_num_threads()).max(1);
        let parts = rows.par_chunks(size).map(part);
        let (mut old, mut new) = parts.reduce(empty, |a, b| (sum(a.0, b.0), sum(a.1, b.1)));
        for sums in [&mut old, &mut new] {
            let mut total = 0u64;
            for sum in sums {
                total = total.wrapping_add(*sum);
                *sum = total;
            }
        }
        Weights { ends, old, new }
    }

    /// Returns whether the permitted keys are the same in v2 and v3. Different sets have equal sums with a probability
    /// of 2^-64.
    fn are_equal(&self, permission: &Permission<'_>) -> bool {
        self.sum(&self.old, &permission.before) == self.sum(&self.new, &permission.now)
    }

    fn sum(&self, sums: &[u64], ranges: &[Range]) -> u64 {
        let before = |end: Option<&Vec<u8>>| {
            let at = end.map_or(self.ends.len(), |end| self.ends.partition_point(|other| *other < &**end));
            sums.get(at).copied().unwrap_or_default()
        };
        let of = |range: &Range| before(range.end.as_ref()).wrapping_sub(before(Some(&range.start)));
        ranges.iter().fold(0, |sum, range| sum.wrapping_add(of(range)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Revision;
    use crate::transform::lease::LeaseSlot;
    use crate::v2store::table::NodeId;
    use crate::v2store::tree::NodeRef;

    fn range(start: &str, end: &str) -> Range {
        Range { start: start.into(), end: Some(end.into()) }
    }

    #[test]
    fn wider_permissions_are_found() {
        let role = Role { name: b"r".to_vec(), permissions: [(range("/x/", "/x0"), Access::Read)].into() };
        let granted = Granted { read: vec![range("/x/", "/x0")], write: Vec::new() };
        let permission = Permission::of(&role, &granted, false);
        assert!(permission.gains(b"/a/k", b"/x/k"));
        assert!(!permission.gains(b"/x/k", b"/x/k") && !permission.gains(b"/a/k", b"/b/k"));
        let write = Role { name: b"w".to_vec(), permissions: [(range("/x/", "/x0"), Access::ReadWrite)].into() };
        assert!(Permission::of(&write, &granted, true).gains(b"/x/k", b"/x/k"));
        assert!(Permission::of(&role, &granted, true).now.is_empty());
    }

    proptest::proptest! {
        /// Sums are equal if and only if the sets of keys are.
        #[test]
        fn sums_show_whether_the_same_keys_are_permitted(
            before in proptest::collection::vec(("[abc]{0,2}", "[abc]{1,2}"), 0..4),
            now in proptest::collection::vec(("[abc]{0,2}", "[abc]{1,2}"), 0..4),
            keys in proptest::collection::vec(("[abc]{1,2}", "[abc]{1,2}"), 0..9),
            open: bool,
        ) {
            let ranges = |pairs: &[(String, String)]| -> Vec<Range> {
                let pairs = pairs.iter().filter(|(start, end)| start < end);
                let mut ranges: Vec<Range> = pairs.map(|(start, end)| range(start, end)).collect();
                if open {
                    ranges.push(Range { start: b"c".to_vec(), end: None });
                }
                joined(ranges)
            };
            let permission = Permission { role: b"r", write: false, before: ranges(&before), now: ranges(&now) };
            let row = |at| Row {
                main: Revision(0), sub: 0, lease: LeaseSlot(0), overrides: 0, marker: false, node: NodeRef::Base(NodeId(at)),
            };
            let rows: Vec<Row> = (0..keys.len() as u32).map(row).collect();
            let names = |row: &Row| {
                let NodeRef::Base(NodeId(at)) = row.node else { unreachable!() };
                let (old, new) = &keys[at as usize];
                (old.clone().into_bytes(), new.clone().into_bytes())
            };
            let permissions = [permission];
            let weights = Weights::of(&permissions, &rows, &names);
            let within = |ranges: &[Range], key: &[u8]| ranges.iter().any(|range| range.contains(key));
            let differs = |row: &Row| {
                let (old, new) = names(row);
                within(&permissions[0].before, &old) != within(&permissions[0].now, &new)
            };
            // A duplicate pair of names counts twice on both sides.
            proptest::prop_assert_eq!(weights.are_equal(&permissions[0]), !rows.iter().any(differs));
        }
    }
}
