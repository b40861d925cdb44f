//! Counts of the content of the tree, independent of what is written.
//!
//! Keys, directories, hidden keys, TTLs, expired keys, and the first elements of paths. `--as-of` of the policy alone
//! decides what has expired. Must not know which keys become rows.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::transform::policy::Policy;
use crate::v2store::path;
use crate::v2store::tree::{NodeRef, Tree, Visit};

/// A number of keys, and the total size of their names and values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Count {
    /// Number of keys.
    pub keys: u64,
    /// Total length of their names and values in bytes.
    pub bytes: u64,
}

impl Count {
    /// Adds one key.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.keys = self.keys.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Removes one key.
    pub(crate) fn take(&mut self, bytes: u64) {
        self.keys = self.keys.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Returns the sum of two counts.
    #[must_use]
    pub(crate) fn plus(self, other: Count) -> Count {
        Count { keys: self.keys.saturating_add(other.keys), bytes: self.bytes.saturating_add(other.bytes) }
    }
}

/// The content of the tree.
#[derive(Debug, Default, Clone)]
pub struct Inventory {
    /// All keys.
    pub keys: Count,
    /// Number of directories, without the root.
    pub directories: u64,
    /// Number of directories without children that are written.
    pub empty_directories: u64,
    /// Keys with a path element that starts with `_`.
    pub hidden: Count,
    /// Keys that expire, by their own TTL or by that of a directory.
    pub ttl: Count,
    /// Of these, the keys that have expired at the instant of the policy.
    pub expired: Count,
    /// Each of these keys, with its expiry.
    pub expired_keys: Vec<(NodeRef, Timestamp)>,
    /// Number of keys whose name or value contains U+FFFD for bytes that an earlier snapshot could not represent.
    pub replaced: u64,
    /// Keys by first path element.
    pub first_elements: FirstElements,
}

/// Maximum number of listed elements.
const LISTED: usize = 1000;

/// Keys by the first element of their path: the elements with the most keys, and the number of others.
#[derive(Debug, Default, Clone)]
pub struct FirstElements {
    /// Sorted with the smallest count first; of equals, the last name first.
    listed: BTreeSet<(u64, Reverse<Vec<u8>>, u64)>,
    /// The element whose keys are being counted: a walk visits them together.
    open: Option<(Vec<u8>, Count)>,
    others: Elements,
}

/// Counts for the elements that are not listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Elements {
    /// Number of elements.
    pub elements: u64,
    /// Number of their keys.
    pub keys: u64,
    /// Total length of the names and values of these keys in bytes.
    pub bytes: u64,
}

impl FirstElements {
    /// Begins with the next element.
    fn enter(&mut self, name: &[u8]) {
        self.close();
        self.open = Some((name.to_vec(), Count::default()));
    }

    /// Counts a key of the element.
    fn add(&mut self, bytes: u64) {
        self.open.get_or_insert_default().1.add(bytes);
    }

    /// Ends the count.
    pub(crate) fn close(&mut self) {
        let Some((name, count)) = self.open.take().filter(|(_, count)| count.keys > 0) else { return };
        self.listed.insert((count.keys, Reverse(name), count.bytes));
        if self.listed.len() > LISTED
            && let Some((keys, _, bytes)) = self.listed.pop_first()
        {
            self.others.elements += 1;
            self.others.keys = self.others.keys.saturating_add(keys);
            self.others.bytes = self.others.bytes.saturating_add(bytes);
        }
    }

    /// Returns the listed elements, in no particular order.
    pub fn listed(&self) -> impl Iterator<Item = (&[u8], Count)> {
        self.listed.iter().map(|(keys, name, bytes)| (name.0.as_slice(), Count { keys: *keys, bytes: *bytes }))
    }

    /// Returns the counts for the other elements.
    pub fn others(&self) -> Elements {
        self.others
    }
}

impl Inventory {
    /// Begins the count of the next first element. A walk visits all keys at or below it together.
    pub(crate) fn enter(&mut self, visit: &Visit<'_>) {
        let path = visit.path();
        self.first_elements.enter(path::components(path::user_key(&path)).next().unwrap_or_default());
    }

    /// Counts a key by the length of its v2 name and its value.
    pub(crate) fn count(&mut self, tree: &Tree<'_>, visit: &Visit<'_>, bytes: u64, policy: &Policy) {
        self.keys.add(bytes);
        if visit.is_hidden() {
            self.hidden.add(bytes);
        }
        if let Some(at) = visit.expiry {
            self.ttl.add(bytes);
            if policy.has_expired(at) {
                self.expired.add(bytes);
                self.expired_keys.push((visit.node, at));
            }
        }
        let (in_path, in_value) = tree.replaced(visit.node);
        self.replaced += u64::from(in_path || in_value);
        self.first_elements.add(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_elements_with_the_most_keys_are_listed_and_the_rest_is_counted() {
        let mut first = FirstElements::default();
        for number in 0..3000 {
            let keys = if number == 2500 { 3 } else { 1 };
            first.enter(format!("{number:04}").as_bytes());
            (0..keys).for_each(|_| first.add(10));
        }
        first.enter(b"a directory without keys");
        first.close();
        let names: BTreeSet<&[u8]> = first.listed().map(|(name, _)| name).collect();
        assert_eq!((names.len(), first.listed().map(|(_, count)| count.keys).sum::<u64>()), (LISTED, 1002));
        assert!(names.contains(&b"0000"[..]) && names.contains(&b"0998"[..]) && names.contains(&b"2500"[..]));
        assert_eq!(first.others(), Elements { elements: 2000, keys: 2000, bytes: 20_000 });
    }
}
