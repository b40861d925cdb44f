//! The hash of a name in a directory, which is small enough to be a part of every node.
//!
//! The reader of a document has each name in the processor's cache and hashes it there. An index of names is then made
//! from the nodes alone. Must not know nodes or indexes.

use std::hash::BuildHasher;
use std::sync::LazyLock;

use hashbrown::DefaultHashBuilder;

/// The hash of a name: 24 bits. Two names of a directory can have the same one.
///
/// The seed is random, so that nobody can choose names with equal hashes. It is the same during a process, so that
/// equal documents give equal tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct NameHash([u8; 3]);

impl NameHash {
    /// Hashes a name, without escapes.
    #[inline]
    pub(super) fn of(name: &[u8]) -> NameHash {
        static SEED: LazyLock<DefaultHashBuilder> = LazyLock::new(DefaultHashBuilder::default);
        let [a, b, c, ..] = SEED.hash_one(name).to_le_bytes();
        NameHash([a, b, c])
    }

    /// Returns the hash for a hash table, which uses the low bits and the highest ones.
    #[inline]
    pub(super) fn spread(self) -> u64 {
        /// 2^64 divided by the golden ratio.
        const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
        let NameHash([a, b, c]) = self;
        u64::from(u32::from_le_bytes([a, b, c, 0])).wrapping_mul(FACTOR)
    }
}
