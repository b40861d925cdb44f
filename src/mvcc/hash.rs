//! The checksums that etcd computes over a backend: HashKV and the hash of `snapshot status`.
//!
//! docs/formats.md sections 10.1 and 10.3. Both are CRC-32C over bucket names and raw pairs. So both can be computed
//! while pairs are written or read, in parts that are joined later. Must not know where pairs come from. The caller
//! decides which pairs a compaction removed.

use super::revision::RevisionKey;
use super::schema;
use crate::ids::Revision;

/// A checksum over the pairs of one bucket, or of a part of it.
///
/// ```
/// use etcdlift::internals::mvcc::HashKv;
/// let mut whole = HashKv::new();
/// whole.update(b"a", b"1");
/// whole.update(b"b", b"2");
/// let mut part = HashKv::part();
/// part.update(b"b", b"2");
/// let mut joined = HashKv::new();
/// joined.update(b"a", b"1");
/// joined.join(&part);
/// assert_eq!(joined.finish(), whole.finish());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashKv {
    crc: u32,
    len: usize,
}

impl HashKv {
    /// Starts HashKV, the hash of the `key` bucket.
    #[allow(clippy::new_without_default, reason = "a default would not show that the hash covers the bucket's name")]
    pub fn new() -> Self {
        Self::of_bucket(schema::KEY)
    }

    /// Starts the hash of any bucket, to join it to a [`StatusHash`].
    pub fn of_bucket(name: &[u8]) -> Self {
        let mut hash = Self::part();
        hash.record(name);
        hash
    }

    /// Starts the hash of some consecutive pairs, to join it to the pairs before them.
    pub fn part() -> Self {
        HashKv { crc: 0, len: 0 }
    }

    /// Adds the next pair.
    pub fn update(&mut self, key: &[u8], value: &[u8]) {
        self.record(key);
        self.record(value);
    }

    /// Adds a pair whose key and value are adjacent.
    pub fn record(&mut self, record: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, record);
        self.len += record.len();
    }

    /// Adds the pairs of a part that follow the pairs so far.
    pub fn join(&mut self, part: &HashKv) {
        self.crc = crc32c::crc32c_combine(self.crc, part.crc, part.len);
        self.len += part.len;
    }

    /// Returns the checksum.
    pub fn finish(&self) -> u32 {
        self.crc
    }
}

/// The hash that `snapshot status` prints: over all buckets in the order of their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusHash(HashKv);

impl StatusHash {
    /// Starts the hash before the first bucket.
    #[allow(clippy::new_without_default, reason = "as for HashKv")]
    pub fn new() -> Self {
        StatusHash(HashKv::part())
    }

    /// Adds the next bucket; for `key` that is [`HashKv::new`] over all its pairs.
    pub fn join(&mut self, bucket: &HashKv) {
        self.0.join(bucket);
    }

    /// Returns the checksum.
    pub fn finish(&self) -> u32 {
        self.0.finish()
    }
}

/// Returns whether HashKV at the current revision covers a pair of a store compacted at `compacted` (docs/formats.md
/// 10.1, 2).
///
/// `retained` returns whether a compaction at the current revision would retain the pair. That holds for the last
/// change of each live key, and for every pair if there is no live key.
pub fn is_hashed(key: RevisionKey, compacted: Option<Revision>, retained: impl FnOnce() -> bool) -> bool {
    match compacted {
        Some(compacted) if key.main <= compacted => retained() && !(key.tombstone && key.main == compacted),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hashes_of_appendix_a6() {
        assert_eq!(HashKv::new().finish(), 0x40a4_756d);
        let mut hash = HashKv::new();
        let key = RevisionKey::put(Revision(2), 0).to_bytes();
        hash.update(&key, b"\x0a\x04/foo\x10\x02\x18\x02\x20\x01\x2a\x03bar");
        assert_eq!(hash.finish(), 0x7eef_ed3f);
    }

    #[test]
    fn compacted_keys_do_not_count() {
        let key = |main, tombstone| RevisionKey { main: Revision(main), sub: 0, tombstone };
        assert!(is_hashed(key(3, true), None, || false));
        let compacted = Some(Revision(5));
        assert!(is_hashed(key(6, true), compacted, || false));
        assert!(!is_hashed(key(5, true), compacted, || true));
        assert!(is_hashed(key(4, true), compacted, || true));
        assert!(!is_hashed(key(5, false), compacted, || false));
        assert!(is_hashed(key(5, false), compacted, || true));
    }

    fn parts() -> impl Strategy<Value = Vec<Vec<(Vec<u8>, Vec<u8>)>>> {
        vec(vec(any::<(Vec<u8>, Vec<u8>)>(), 0..4), 0..4)
    }

    proptest! {
        #[test]
        fn parts_join(parts in parts()) {
            let (mut whole, mut joined) = (HashKv::new(), HashKv::new());
            for pairs in &parts {
                let mut part = HashKv::part();
                for (key, value) in pairs {
                    whole.update(key, value);
                    part.record(&[key.as_slice(), value].concat());
                }
                joined.join(&part);
            }
            prop_assert_eq!(whole, joined);
        }
    }
}
