//! The v2 side of a migration: the whole state at one index, and the changes after it.
//!
//! Sources are synchronous; the caller runs one in a thread. Must not know v3.

pub mod dir;
pub mod http;
mod open;
mod options;

pub use open::open;
pub use options::V2Options;

use std::time::Duration;

use jiff::Timestamp;

use crate::error::Result;
use crate::ids::{RaftIndex, V2Index};

/// A v2 key with a value, as of one index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Path, beginning with `/`, without the `/1` of the store.
    pub path: Vec<u8>,
    /// Value.
    pub value: Vec<u8>,
    /// `createdIndex`.
    pub created: V2Index,
    /// `modifiedIndex`.
    pub modified: V2Index,
    /// When it expires, by its own TTL or by that of a directory above it.
    pub expiry: Option<Timestamp>,
}

/// A change of v2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The v2 index of the change.
    pub index: V2Index,
    /// The word of the v2 API: `set`, `create`, `update`, `compareAndSwap`, `delete`, `compareAndDelete`, `expire`.
    pub action: &'static str,
    /// What is there now.
    pub effect: Effect,
}

/// What a change leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A key has this value.
    Set(Node),
    /// This key has no value any more.
    Gone(Vec<u8>),
    /// No key below this directory has a value any more, and the source does not know which keys had one.
    GoneDir(Vec<u8>),
}

impl Effect {
    /// Returns the path of the change.
    pub fn path(&self) -> &[u8] {
        match self {
            Effect::Set(node) => &node.path,
            Effect::Gone(path) | Effect::GoneDir(path) => path,
        }
    }
}

/// How far a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    /// The index of the store.
    pub index: V2Index,
    /// The raft index, if it is known.
    pub raft: Option<RaftIndex>,
    /// Number of v2 writes that were made, but not delivered: the log does not show that they are committed, or they are on their way.
    pub uncommitted: u64,
    /// The seconds by which the clock of this machine is ahead of that of the cluster, as far as the source shows it.
    pub clock_ahead: u64,
}

/// The answer to [`V2::next`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Changes in the order of their indexes, all after those returned before. The store is at `head` after them.
    Changes {
        /// The changes; not empty.
        changes: Vec<Change>,
        /// Where the store is after them.
        head: Head,
    },
    /// No change within the time; the store is at this index.
    Quiet(Head),
    /// Changes are missing: the log was purged, or the event history was cleared. The state must be read again.
    Lost(String),
}

/// A source of v2 data.
pub trait V2: Send {
    /// Returns the identity of the cluster, for the state of a migration.
    ///
    /// # Errors
    /// The source cannot be read.
    fn cluster(&mut self) -> Result<String>;

    /// Returns whether it shows keys with a path element that begins with `_`.
    fn shows_hidden_keys(&self) -> bool {
        true
    }

    /// Makes the source name every key that goes with its directory, in later changes of [`V2::next`]. It may need memory for the names
    /// of all keys then. Called before [`V2::state`]. The default always names them.
    fn name_keys(&mut self) {}

    /// Reads the whole state: calls `each` for every key with a value. Later changes come from [`V2::next`].
    ///
    /// # Errors
    /// The source cannot be read; that of `each`.
    fn state(&mut self, each: &mut dyn FnMut(Node) -> Result<()>) -> Result<Head>;

    /// Returns where the store is now. Later changes come from [`V2::next`], as after [`V2::state`]. The default reads the whole
    /// state for it.
    ///
    /// # Errors
    /// The source cannot be read.
    fn head(&mut self) -> Result<Head> {
        self.state(&mut |_| Ok(()))
    }

    /// Asks the cluster, not only this source, for its index. `None`: the source has no way to ask.
    ///
    /// # Errors
    /// No endpoint answers.
    fn cluster_index(&mut self) -> Result<Option<V2Index>> {
        Ok(None)
    }

    /// Calls `each` for the changes after this index up to the last state, in order, if the log or the event history still
    /// has them all; some of them if it has not. Returns whether it has. Called after [`V2::state`]; the default has none.
    ///
    /// # Errors
    /// The source cannot be read; that of `each`.
    fn since(&mut self, index: V2Index, each: &mut dyn FnMut(Change) -> Result<()>) -> Result<bool> {
        let _ = (index, each);
        Ok(false)
    }

    /// Returns the changes since the last call, or since the state; waits for at most this long. After an error, the changes that it kept
    /// from being returned come again.
    ///
    /// # Errors
    /// The source cannot be read any more.
    fn next(&mut self, wait: Duration) -> Result<Next>;
}
