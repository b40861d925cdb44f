//! A pair of an output with the v2 node that it comes from. Must not know how a map stores it.

use std::borrow::Cow;

use crate::ids::{Revision, V2Index};

/// A pair of the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its main revision.
    pub revision: Revision,
    /// Its sub revision.
    pub sub: u64,
    /// Whether it deletes its key.
    pub deleted: bool,
    /// The v3 key.
    pub key: Cow<'a, [u8]>,
    /// The v2 node that it comes from; `None` for v3's own pairs and for pairs that a transformer added.
    pub node: Option<Origin<'a>>,
}

/// The v2 node that a pair comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin<'a> {
    /// Its modified index.
    pub index: V2Index,
    /// The v2 key.
    pub key: Cow<'a, [u8]>,
    /// Whether it is an empty directory, and the pair its marker.
    pub dir: bool,
}

impl Entry<'_> {
    /// Copies the keys.
    pub(super) fn into_owned(self) -> Entry<'static> {
        let node = self.node.map(|node| Origin { key: Cow::Owned(node.key.into_owned()), ..node });
        Entry { key: Cow::Owned(self.key.into_owned()), node, ..self }
    }

    /// Returns the v2 key if it differs from the v3 key.
    pub(super) fn other_name(&self) -> Option<&[u8]> {
        self.node.as_ref().map(|node| &*node.key).filter(|key| *key != &*self.key)
    }
}
