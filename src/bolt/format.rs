//! The raw structures of a bbolt file, data file version 2: the byte layout of each.
//!
//! docs/formats.md sections 8.1 to 8.5 and 8.7. Everything is little-endian on every host. `layout` and `emit` write
//! with it, `read` and `check` read with it. Must not know how pages are found, ordered or checked, or what etcd stores
//! in them.

use crate::ids::PageId;

/// Page size of every file that this crate writes.
pub const PAGE_SIZE: u32 = 4096;

/// Length of a page header in bytes.
pub const HEADER_LEN: u32 = 16;

/// Length of a leaf or branch element in bytes.
pub const ELEMENT_LEN: u32 = 16;

/// Length of the header of a bucket's value in bytes.
pub const BUCKET_LEN: u32 = 16;

/// Length of the body of a meta page in bytes.
pub const META_LEN: u32 = 64;

/// The first bytes of the body of a meta page: `ed da 0c ed`.
pub const MAGIC: u32 = 0xED0C_DAED;

/// The data file version of every bbolt release.
pub const VERSION: u32 = 2;

/// The freelist page number of a file without a stored freelist.
pub const FREELIST_ABSENT: PageId = PageId(u64::MAX);

/// Flag of a branch page.
pub const FLAG_BRANCH: u16 = 0x01;

/// Flag of a leaf page.
pub const FLAG_LEAF: u16 = 0x02;

/// Flag of a meta page.
pub const FLAG_META: u16 = 0x04;

/// Flag of a freelist page.
pub const FLAG_FREELIST: u16 = 0x10;

/// Flag of a leaf element whose value is a bucket.
pub const ELEMENT_BUCKET: u32 = 0x01;

/// A freelist with at least this many ids stores their number in its first id.
pub const FREELIST_LONG: u16 = 0xFFFF;

/// The number of elements of a page must be lower than this.
pub const MAX_COUNT: u64 = 0xFFFF;

/// A bucket with one leaf is stored in its parent if its size is at most the page size divided by this.
pub const INLINE_SHARE: u32 = 4;

/// The first 16 bytes of a page.
///
/// ```text
/// ┌───────────────┬─────────┬─────────┬────────────┐
/// │ id        u64 │ flags16 │ count16 │ overflow32 │
/// └───────────────┴─────────┴─────────┴────────────┘
/// ```
///
/// Pages, and where the keys and values of a leaf or branch page are:
///
/// ```text
/// file    ┌────────┬────────┬────────┬─────┬──────────────┐   page N starts at byte N * page size
///         │ page 0 │ page 1 │ page 2 │ ... │ page hwm - 1 │   hwm: number of the first page never used
///         │ meta   │ meta   │        │     │              │
///         └────────┴────────┴────────┴─────┴──────────────┘
/// page    ┌──────────────────────┬──────────────────────────────────────────┐
///         │ page header, 16 byte │ body                                     │   with overflow n, the body goes on
///         └──────────────────────┴──────────────────────────────────────────┘   over n pages without a header
/// leaf    ┌────────┬───────────┬─────┬───────────┬────┬────┬────┬────┬──────┐
///         │ header │ element 0 │ ... │ element n │ k0 │ v0 │ k1 │ v1 │ ...  │
///         └────────┴───────────┴─────┴───────────┴────┴────┴────┴────┴──────┘
/// branch  ┌────────┬───────────┬─────┬───────────┬────┬────┬────────────────┐
///         │ header │ element 0 │ ... │ element n │ k0 │ k1 │ ...            │
///         └────────┴───────────┴─────┴───────────┴────┴────┴────────────────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageHeader {
    /// The number of the page itself; 0 in an inline bucket.
    pub id: PageId,
    /// Exactly one of the four page flags.
    pub flags: u16,
    /// Number of elements (branch, leaf) or ids (freelist) in the page.
    pub count: u16,
    /// Number of following pages that belong to this one.
    pub overflow: u32,
}

impl PageHeader {
    /// Decodes the header.
    pub fn decode(bytes: &[u8; 16]) -> Self {
        let raw = u128::from_le_bytes(*bytes);
        PageHeader {
            id: PageId(raw as u64),
            flags: (raw >> 64) as u16,
            count: (raw >> 80) as u16,
            overflow: (raw >> 96) as u32,
        }
    }

    /// Returns its 16 bytes.
    pub fn encode(&self) -> [u8; 16] {
        let raw = u128::from(self.id.0)
            | u128::from(self.flags) << 64
            | u128::from(self.count) << 80
            | u128::from(self.overflow) << 96;
        raw.to_le_bytes()
    }
}

/// One element of a leaf page.
///
/// ```text
/// ┌─────────┬─────────┬─────────┬─────────┐
/// │ flags32 │ pos   32│ ksize 32│ vsize 32│   pos: from this element's first byte to its key; the value follows the key
/// └─────────┴─────────┴─────────┴─────────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeafElement {
    /// [`ELEMENT_BUCKET`] or 0.
    pub flags: u32,
    /// Distance from the element's first byte to its key.
    pub pos: u32,
    /// Length of the key in bytes.
    pub key_len: u32,
    /// Length of the value in bytes.
    pub value_len: u32,
}

impl LeafElement {
    /// Decodes the element.
    pub fn decode(bytes: &[u8; 16]) -> Self {
        let raw = u128::from_le_bytes(*bytes);
        LeafElement {
            flags: raw as u32,
            pos: (raw >> 32) as u32,
            key_len: (raw >> 64) as u32,
            value_len: (raw >> 96) as u32,
        }
    }

    /// Returns its 16 bytes.
    pub fn encode(&self) -> [u8; 16] {
        let raw = u128::from(self.flags)
            | u128::from(self.pos) << 32
            | u128::from(self.key_len) << 64
            | u128::from(self.value_len) << 96;
        raw.to_le_bytes()
    }
}

/// One element of a branch page.
///
/// ```text
/// ┌─────────┬─────────┬───────────────────┐
/// │ pos   32│ ksize 32│ page          u64 │   pos: from this element's first byte to its key
/// └─────────┴─────────┴───────────────────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BranchElement {
    /// Distance from the element's first byte to its key.
    pub pos: u32,
    /// Length of the key in bytes; the key equals the first key of the child.
    pub key_len: u32,
    /// The child page.
    pub page: PageId,
}

impl BranchElement {
    /// Decodes the element.
    pub fn decode(bytes: &[u8; 16]) -> Self {
        let raw = u128::from_le_bytes(*bytes);
        BranchElement { pos: raw as u32, key_len: (raw >> 32) as u32, page: PageId((raw >> 64) as u64) }
    }

    /// Returns its 16 bytes.
    pub fn encode(&self) -> [u8; 16] {
        let raw = u128::from(self.pos) | u128::from(self.key_len) << 32 | u128::from(self.page.0) << 64;
        raw.to_le_bytes()
    }
}

/// The first 16 bytes of a bucket's value; with root 0 an inline leaf page follows in the same value.
///
/// ```text
/// ┌───────────────────┬───────────────────┐
/// │ root page     u64 │ sequence      u64 │
/// └───────────────────┴───────────────────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketHeader {
    /// Root page of the bucket's tree, 0 for an inline bucket.
    pub root: PageId,
    /// A counter for the bucket's users; etcd does not use it.
    pub sequence: u64,
}

impl BucketHeader {
    /// Decodes the header.
    pub fn decode(bytes: &[u8; 16]) -> Self {
        let raw = u128::from_le_bytes(*bytes);
        BucketHeader { root: PageId(raw as u64), sequence: (raw >> 64) as u64 }
    }

    /// Returns its 16 bytes.
    pub fn encode(&self) -> [u8; 16] {
        (u128::from(self.root.0) | u128::from(self.sequence) << 64).to_le_bytes()
    }
}

/// The body of a meta page.
///
/// ```text
/// ┌─────────┬─────────┬─────────┬─────────┐   at byte 16 of the page
/// │ magic   │ version │ pagesize│ flags   │
/// ├─────────┴─────────┼─────────┴─────────┤
/// │ root page     u64 │ root sequence u64 │
/// ├───────────────────┼───────────────────┤
/// │ freelist page u64 │ hwm           u64 │
/// ├───────────────────┼───────────────────┤
/// │ txid          u64 │ checksum      u64 │   FNV-1a over the 56 bytes before it
/// └───────────────────┴───────────────────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// [`MAGIC`].
    pub magic: u32,
    /// [`VERSION`].
    pub version: u32,
    /// The page size in bytes.
    pub page_size: u32,
    /// 0.
    pub flags: u32,
    /// The root bucket.
    pub root: BucketHeader,
    /// The page of the freelist, or [`FREELIST_ABSENT`].
    pub freelist: PageId,
    /// The high-water mark: the number of the first unused page.
    pub hwm: PageId,
    /// The transaction that wrote this meta page; of two valid ones, the higher counts.
    pub txid: u64,
}

impl Meta {
    /// Decodes the meta page. Returns it, and whether its checksum is correct.
    pub fn decode(bytes: &[u8; 64]) -> (Self, bool) {
        let (chunks, _) = bytes.as_chunks::<16>();
        let mut raw = [0u128; 4];
        for (word, chunk) in raw.iter_mut().zip(chunks) {
            *word = u128::from_le_bytes(*chunk);
        }
        let [head, root, pages, tail] = raw;
        let meta = Meta {
            magic: head as u32,
            version: (head >> 32) as u32,
            page_size: (head >> 64) as u32,
            flags: (head >> 96) as u32,
            root: BucketHeader { root: PageId(root as u64), sequence: (root >> 64) as u64 },
            freelist: PageId(pages as u64),
            hwm: PageId((pages >> 64) as u64),
            txid: tail as u64,
        };
        (meta, meta.checksum() == (tail >> 64) as u64)
    }

    /// Returns its 64 bytes, with the checksum.
    pub fn encode(&self) -> [u8; 64] {
        let words = self.words(self.checksum());
        let mut bytes = [0u8; 64];
        for (chunk, word) in bytes.as_chunks_mut::<16>().0.iter_mut().zip(words) {
            *chunk = word.to_le_bytes();
        }
        bytes
    }

    /// Returns FNV-1a of the first 56 bytes.
    pub fn checksum(&self) -> u64 {
        fnv1a(self.words(0).iter().flat_map(|word| word.to_le_bytes()).take(56))
    }

    fn words(&self, checksum: u64) -> [u128; 4] {
        [
            u128::from(self.magic)
                | u128::from(self.version) << 32
                | u128::from(self.page_size) << 64
                | u128::from(self.flags) << 96,
            u128::from(self.root.root.0) | u128::from(self.root.sequence) << 64,
            u128::from(self.freelist.0) | u128::from(self.hwm.0) << 64,
            u128::from(self.txid) | u128::from(checksum) << 64,
        ]
    }
}

/// Returns the 64-bit FNV-1a hash.
pub fn fnv1a(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes
        .into_iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(freelist: PageId, txid: u64) -> Meta {
        Meta {
            magic: MAGIC,
            version: VERSION,
            page_size: PAGE_SIZE,
            flags: 0,
            root: BucketHeader { root: PageId(3), sequence: 0 },
            freelist,
            hwm: PageId(4),
            txid,
        }
    }

    #[test]
    fn meta_checksums_of_appendix_a4() {
        assert_eq!(meta(PageId(2), 0).checksum(), 0x0751_6e11_4689_fdee);
        assert_eq!(meta(PageId(2), 1).checksum(), 0x264c_351a_5179_480f);
        assert_eq!(meta(FREELIST_ABSENT, 0).checksum(), 0x8963_f20b_09a8_e9a4);
        assert_eq!(meta(FREELIST_ABSENT, 1).checksum(), 0xa85e_b914_1498_33c5);
    }

    #[test]
    fn meta_bytes_of_appendix_a4() {
        let bytes = meta(PageId(2), 0).encode();
        let expected = [
            &[0xed, 0xda, 0x0c, 0xed, 2, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0][..],
            &[3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0],
            &[0, 0, 0, 0, 0, 0, 0, 0, 0xee, 0xfd, 0x89, 0x46, 0x11, 0x6e, 0x51, 0x07],
        ]
        .concat();
        assert_eq!(bytes.to_vec(), expected);
        assert_eq!(Meta::decode(&bytes), (meta(PageId(2), 0), true));
        let mut damaged = bytes;
        damaged[40] ^= 1;
        assert!(!Meta::decode(&damaged).1);
    }

    proptest::proptest! {
        #[test]
        fn every_structure_round_trips(bytes: [u8; 16]) {
            proptest::prop_assert_eq!(PageHeader::decode(&bytes).encode(), bytes);
            proptest::prop_assert_eq!(LeafElement::decode(&bytes).encode(), bytes);
            proptest::prop_assert_eq!(BranchElement::decode(&bytes).encode(), bytes);
            proptest::prop_assert_eq!(BucketHeader::decode(&bytes).encode(), bytes);
        }
    }
}
