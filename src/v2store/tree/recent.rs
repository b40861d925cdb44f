//! The directory of the last path.
//!
//! A request looks up a path and then changes it, and many requests in a row often concern one directory. So the walk
//! from the root to the directory is needed once. Must not know when a directory disappears: the tree says so.

use super::node::OverId;

/// Length of the longest path that is remembered, in bytes.
const LONGEST: usize = 4096;

/// A directory of the overlay, with its clean path.
#[derive(Debug, Default)]
pub(super) struct Recent {
    path: Vec<u8>,
    dir: Option<OverId>,
}

impl Recent {
    /// Returns the directory if it has this path.
    #[inline]
    pub(super) fn find(&self, path: &[u8]) -> Option<OverId> {
        self.dir.filter(|_| self.path == path)
    }

    /// Replaces the directory.
    pub(super) fn set(&mut self, path: &[u8], dir: OverId) {
        self.dir = None;
        if path.len() <= LONGEST {
            self.path.clear();
            self.path.extend_from_slice(path);
            self.dir = Some(dir);
        }
    }

    /// Forgets the directory, because it may be removed.
    pub(super) fn forget(&mut self) {
        self.dir = None;
    }
}
