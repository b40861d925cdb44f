//! Keys of the `key` bucket: a revision, with a mark for a deletion.
//!
//! docs/formats.md section 9.2. Must not know the value of such a key.
//!
//! ```text
//! ┌─────────────────┬─────┬─────────────────┬─────┐
//! │ main     i64 BE │ '_' │ sub      i64 BE │ 't' │   the 't' only of a tombstone
//! └─────────────────┴─────┴─────────────────┴─────┘
//! ```

use crate::ids::Revision;

/// Length of a revision, and of the key of a put, in bytes.
pub const REVISION_LEN: u32 = 17;

/// The key of one change in the `key` bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RevisionKey {
    /// The main revision: the transaction.
    pub main: Revision,
    /// The sub revision: the change in the transaction, from 0.
    pub sub: i64,
    /// Whether the change is a deletion.
    pub tombstone: bool,
}

impl RevisionKey {
    /// Returns the key of a put.
    pub fn put(main: Revision, sub: i64) -> Self {
        RevisionKey { main, sub, tombstone: false }
    }

    /// Returns the first 17 bytes: the whole key of a put, and the form of the compaction marks.
    ///
    /// ```
    /// use etcdlift::internals::{ids::Revision, mvcc::RevisionKey};
    /// assert_eq!(&RevisionKey::put(Revision(2), 0).to_bytes(), b"\0\0\0\0\0\0\0\x02_\0\0\0\0\0\0\0\0");
    /// ```
    pub fn to_bytes(self) -> [u8; REVISION_LEN as usize] {
        let [a, b, c, d, e, f, g, h] = self.main.0.to_be_bytes();
        let [i, j, k, l, m, n, o, p] = self.sub.to_be_bytes();
        [a, b, c, d, e, f, g, h, b'_', i, j, k, l, m, n, o, p]
    }

    /// Decodes a key of the `key` bucket. Returns `None` for another length or separator, or a negative number.
    pub fn decode(key: &[u8]) -> Option<Self> {
        let (main, rest) = key.split_first_chunk::<8>()?;
        let (separator, rest) = rest.split_first()?;
        let (sub, mark) = rest.split_first_chunk::<8>()?;
        let (main, sub) = (i64::from_be_bytes(*main), i64::from_be_bytes(*sub));
        let tombstone = match mark {
            [] => false,
            [b't'] => true,
            _ => return None,
        };
        (*separator == b'_' && main >= 0 && sub >= 0).then_some(RevisionKey { main: Revision(main), sub, tombstone })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn keys_round_trip_and_sort_as_numbers(a in 0i64.., b in 0i64.., c in 0i64.., d in 0i64..) {
            let (x, y) = (RevisionKey::put(Revision(a), b), RevisionKey::put(Revision(c), d));
            proptest::prop_assert_eq!(RevisionKey::decode(&x.to_bytes()), Some(x));
            proptest::prop_assert_eq!(x.cmp(&y), x.to_bytes().cmp(&y.to_bytes()));
            let tombstone = [x.to_bytes().as_slice(), b"t"].concat();
            proptest::prop_assert_eq!(RevisionKey::decode(&tombstone), Some(RevisionKey { tombstone: true, ..x }));
        }
    }

    #[test]
    fn malformed_keys_are_refused() {
        let good = RevisionKey::put(Revision(5), 0).to_bytes();
        for len in 0..17 {
            assert_eq!(RevisionKey::decode(&good[..len]), None);
        }
        for (at, byte) in [(0, 0x80), (8, b'-'), (9, 0xff)] {
            let mut bad = good;
            bad[at] = byte;
            assert_eq!(RevisionKey::decode(&bad), None);
        }
        assert_eq!(RevisionKey::decode(&[good.as_slice(), b"x"].concat()), None);
        assert_eq!(RevisionKey::decode(&[good.as_slice(), b"tt"].concat()), None);
    }
}
