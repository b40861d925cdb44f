//! What the tree holds, counted on the way through it, whatever becomes of it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::transform::plan::Policy;
use crate::v2store::overlay::{NodeRef, Tree, Visit};
use crate::v2store::path;

/// Keys, and the bytes of their names and values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    pub first_elements: BTreeMap<Vec<u8>, Count>,
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
        let first = path::components(key).next().unwrap_or_default();
        match self.first_elements.get_mut(first) {
            Some(count) => count.add(bytes),
            None => drop(self.first_elements.insert(first.to_vec(), Count { keys: 1, bytes })),
        }
    }
}
