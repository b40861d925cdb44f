//! The paths that requests changed, for a reader that follows the log.
//!
//! Off by default. Must not know requests, or what is at a path now.

use super::Tree;
use crate::ids::V2Index;

/// A change of a path in the namespace `/1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched {
    /// The path, with its namespace.
    pub path: Vec<u8>,
    /// What happened there.
    pub what: What,
}

/// What happened at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A file was created, replaced or changed.
    Set,
    /// A node was removed with its subtree, or a directory took the place of a file.
    Removed,
    /// A node expired, with its subtree, which took this index.
    Expired(V2Index),
    /// A directory expires at another time, and so does everything below it.
    Expiry,
}

impl Tree<'_> {
    /// Records changes from now on.
    pub fn record(&mut self) {
        self.touched = Some(Vec::new());
    }

    /// Takes the changes since the last call, in their order; none if they are not recorded.
    pub fn take_touched(&mut self) -> Vec<Touched> {
        self.touched.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Records a change.
    #[inline]
    pub(super) fn touch(&mut self, path: &[u8], what: What) {
        if let Some(touched) = &mut self.touched
            && (path == b"/1" || path.starts_with(b"/1/"))
        {
            touched.push(Touched { path: path.to_vec(), what });
        }
    }
}
