//! The paths that requests changed, for a reader that follows the log.
//!
//! Off by default. Must not know requests, or what is at a path now.

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
    /// A file was removed, alone or with a directory above it, or a directory took its place.
    Removed,
    /// A file expired, or a directory above it, which took this index.
    Expired(V2Index),
    /// A directory expires at another time, and so does everything below it.
    Expiry,
}

/// The changes since the last look, in their order.
#[derive(Debug, Default)]
pub(super) struct Recorder(Option<Vec<Touched>>);

impl Recorder {
    /// Records changes from now on.
    pub(super) fn start(&mut self) {
        self.0 = Some(Vec::new());
    }

    /// Returns whether changes are recorded.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Takes the changes since the last call; none if they are not recorded.
    pub(super) fn take(&mut self) -> Vec<Touched> {
        self.0.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Records a change.
    #[inline]
    pub(super) fn touch(&mut self, path: &[u8], what: What) {
        if let Some(touched) = &mut self.0
            && (path == b"/1" || path.starts_with(b"/1/"))
        {
            touched.push(Touched { path: path.to_vec(), what });
        }
    }
}
