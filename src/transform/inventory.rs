//! What the tree holds, counted on the way through it, whatever becomes of it.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::transform::policy::Policy;
use crate::v2store::path;
use crate::v2store::tree::{NodeRef, Tree, Visit};

/// Keys, and the bytes of their names and values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Count {
    /// How many keys.
    pub keys: u64,
    /// Bytes of their names and values.
    pub bytes: u64,
}

impl Count {
    /// Counts one more key.
    pub fn add(&mut self, bytes: u64) {
        self.keys = self.keys.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Counts a key no longer.
    pub fn take(&mut self, bytes: u64) {
        self.keys = self.keys.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Both counts together.
    #[must_use]
    pub fn plus(self, other: Count) -> Count {
        Count { keys: self.keys.saturating_add(other.keys), bytes: self.bytes.saturating_add(other.bytes) }
    }
}

/// What the tree holds.
#[derive(Debug, Default, Clone)]
pub struct Inventory {
    /// All keys.
    pub keys: Count,
    /// Directories, the root left out.
    pub directories: u64,
    /// Directories without children that are carried over.
    pub empty_directories: u64,
    /// Keys with a path element that starts with `_`.
    pub hidden: Count,
    /// Keys that expire, by their own TTL or a directory's.
    pub ttl: Count,
    /// Of these, expired at the instant of the policy.
    pub expired: Count,
    /// Each of these, and when it expired.
    pub expired_keys: Vec<(NodeRef, Timestamp)>,
    /// Keys whose name or value holds U+FFFD for bytes that an earlier snapshot could not keep.
    pub replaced: u64,
    /// Keys by first path element.
    pub first_elements: FirstElements,
}

/// Elements that are listed.
const LISTED: usize = 1000;

/// Keys by the first element of their path: the elements with the most keys, and how many others there are.
#[derive(Debug, Default, Clone)]
pub struct FirstElements {
    /// The smallest of them first; of equals, the last name.
    listed: BTreeSet<(u64, Reverse<Vec<u8>>, u64)>,
    /// The one whose keys are being counted: a walk visits them together.
    open: Option<(Vec<u8>, Count)>,
    others: Elements,
}

/// Elements that are not listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Elements {
    /// How many.
    pub elements: u64,
    /// Keys in them.
    pub keys: u64,
    /// Bytes of these keys' names and values.
    pub bytes: u64,
}

impl FirstElements {
    fn add(&mut self, name: &[u8], bytes: u64) {
        match &mut self.open {
            Some((open, count)) if *open == name => count.add(bytes),
            _ => {
                self.close();
                self.open = Some((name.to_vec(), Count { keys: 1, bytes }));
            }
        }
    }

    /// All keys are counted.
    pub(crate) fn close(&mut self) {
        let Some((name, count)) = self.open.take() else { return };
        self.listed.insert((count.keys, Reverse(name), count.bytes));
        if self.listed.len() > LISTED
            && let Some((keys, _, bytes)) = self.listed.pop_first()
        {
            self.others.elements += 1;
            self.others.keys = self.others.keys.saturating_add(keys);
            self.others.bytes = self.others.bytes.saturating_add(bytes);
        }
    }

    /// The elements that are listed, in no order that matters.
    pub fn listed(&self) -> impl Iterator<Item = (&[u8], Count)> {
        self.listed.iter().map(|(keys, name, bytes)| (name.0.as_slice(), Count { keys: *keys, bytes: *bytes }))
    }

    /// Those that are not.
    pub fn others(&self) -> Elements {
        self.others
    }
}

impl Inventory {
    /// Counts a key: its v2 name, and the bytes of name and value.
    pub(crate) fn count(&mut self, tree: &Tree<'_>, visit: &Visit<'_>, key: &[u8], bytes: u64, policy: &Policy) {
        self.keys.add(bytes);
        if path::is_hidden(key) {
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
        self.first_elements.add(path::components(key).next().unwrap_or_default(), bytes);
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
            (0..keys).for_each(|_| first.add(format!("{number:04}").as_bytes(), 10));
        }
        first.close();
        let names: BTreeSet<&[u8]> = first.listed().map(|(name, _)| name).collect();
        assert_eq!((names.len(), first.listed().map(|(_, count)| count.keys).sum::<u64>()), (LISTED, 1002));
        assert!(names.contains(&b"0000"[..]) && names.contains(&b"0998"[..]) && names.contains(&b"2500"[..]));
        assert_eq!(first.others(), Elements { elements: 2000, keys: 2000, bytes: 20_000 });
    }
}
