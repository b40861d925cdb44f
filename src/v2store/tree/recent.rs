//! The directories of recent paths.
//!
//! A request looks up a path and then changes it, and many requests concern the same directories. So the walk from the
//! root to a directory is rarely needed twice. Must not know whether a directory still exists: the tree compares its path.

use std::hash::BuildHasher;

use hashbrown::DefaultHashBuilder;

use super::node::OverId;

/// Number of places for directories. In tests, directories often replace each other.
const PLACES: usize = if cfg!(test) { 4 } else { 1 << 13 };

/// Directories of the overlay. The hash of a path is the only place where its directory can be.
#[derive(Debug)]
pub(super) struct Recent {
    dirs: Vec<OverId>,
    hasher: DefaultHashBuilder,
}

impl Default for Recent {
    fn default() -> Self {
        Recent { dirs: vec![OverId(0); PLACES], hasher: DefaultHashBuilder::default() }
    }
}

impl Recent {
    /// Returns the only directory that can have this path: another one may have come to its place, or it is removed.
    #[inline]
    pub(super) fn guess(&self, path: &[u8]) -> OverId {
        self.dirs.get(self.place(path)).copied().unwrap_or(OverId(0))
    }

    /// Remembers the directory with this path.
    #[inline]
    pub(super) fn set(&mut self, path: &[u8], dir: OverId) {
        let place = self.place(path);
        self.dirs.get_mut(place).into_iter().for_each(|known| *known = dir);
    }

    #[inline]
    fn place(&self, path: &[u8]) -> usize {
        self.hasher.hash_one(path) as usize % PLACES
    }
}
