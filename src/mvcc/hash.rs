//! The checksums that etcd computes over a backend: HashKV and the hash of `snapshot status`.
//!
//! FORMATS sections 10.1 and 10.3. Both are CRC-32C over bucket names and raw pairs, so both can be taken while pairs are
//! written or read, in parts that are joined afterwards. Must not know where pairs come from; which pairs a compaction
//! has taken away is for the caller to say.

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
    /// HashKV: of the `key` bucket.
    #[allow(clippy::new_without_default, reason = "a default would not say that the bucket's name is hashed in")]
    pub fn new() -> Self {
        Self::of_bucket(schema::KEY)
    }

    /// Of any bucket, to be joined to a [`StatusHash`].
    pub fn of_bucket(name: &[u8]) -> Self {
        let mut hash = Self::part();
        hash.record(name);
        hash
    }

    /// Of some consecutive pairs, to be joined to those before them.
    pub fn part() -> Self {
        HashKv { crc: 0, len: 0 }
    }

    /// Takes in the next pair.
    pub fn update(&mut self, key: &[u8], value: &[u8]) {
        self.record(key);
        self.record(value);
    }

    /// Takes in a pair whose key and value stand side by side.
    pub fn record(&mut self, record: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, record);
        self.len += record.len();
    }

    /// Takes in the pairs of a part that follow those taken in so far.
    pub fn join(&mut self, part: &HashKv) {
        self.crc = crc32c::crc32c_combine(self.crc, part.crc, part.len);
        self.len += part.len;
    }

    /// The checksum.
    pub fn finish(&self) -> u32 {
        self.crc
    }
}

/// The hash that `snapshot status` prints: over all buckets in the order of their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusHash(HashKv);

impl StatusHash {
    /// Before the first bucket.
    #[allow(clippy::new_without_default, reason = "as for HashKv")]
    pub fn new() -> Self {
        StatusHash(HashKv::part())
    }

    /// Takes in the next bucket; for `key` that is [`HashKv::new`] over all its pairs.
    pub fn join(&mut self, bucket: &HashKv) {
        self.0.join(bucket);
    }

    /// The checksum.
    pub fn finish(&self) -> u32 {
        self.0.finish()
    }
}

/// Whether HashKV at the current revision takes in a pair of a store compacted at `compacted` (FORMATS 10.1, 2).
///
/// `kept` says whether a compaction at the current revision would keep the pair, which is so of the last change of each key
/// that is not deleted; and it says yes of every pair if there is no such key.
pub fn is_hashed(key: RevisionKey, compacted: Option<Revision>, kept: impl FnOnce() -> bool) -> bool {
    match compacted {
        Some(compacted) if key.main <= compacted => kept() && !(key.tombstone && key.main == compacted),
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
    fn what_a_compaction_has_taken_away() {
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
