//! Number types that must not be confused: a v2 index is not a raft index, and a page id is not a revision.
//!
//! Counts and byte lengths remain plain integers. Each type prints as etcd prints it. Must not know where a number was
//! read, or which values are valid.

use std::fmt;
use std::num::TryFromIntError;
use std::ops::{Add, AddAssign, Sub};

macro_rules! id {
    ($($(#[$doc:meta])* $name:ident($inner:ty), $fmt:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $fmt, self.0)
            }
        }
    )*};
}

id! {
    /// An index of the v2 store: the number of successful changes and expirations (docs/formats.md, conventions).
    V2Index(u64), "{}";
    /// The position of an entry in the raft log.
    RaftIndex(u64), "{}";
    /// A raft term.
    Term(u64), "{}";
    /// A member id, printed as lower-case hexadecimal without padding, as in etcd.
    MemberId(u64), "{:x}";
    /// A cluster id, printed as lower-case hexadecimal without padding, as in etcd.
    ClusterId(u64), "{:x}";
    /// The number of a bbolt page: its byte offset divided by the page size.
    PageId(u64), "{}";
    /// A position in a file or stream, in bytes from its start.
    ByteOffset(u64), "{}";
    /// A v3 lease id; positive.
    LeaseId(i64), "{}";
    /// A main v3 revision.
    Revision(i64), "{}";
}

impl PageId {
    /// Returns the offset of the page.
    pub fn offset(self, page_size: u32) -> ByteOffset {
        ByteOffset(self.0.saturating_mul(page_size.into()))
    }
}

impl From<usize> for ByteOffset {
    fn from(position: usize) -> ByteOffset {
        ByteOffset(position as u64)
    }
}

impl Add<u64> for ByteOffset {
    type Output = ByteOffset;

    #[inline]
    fn add(self, bytes: u64) -> ByteOffset {
        ByteOffset(self.0.saturating_add(bytes))
    }
}

impl AddAssign<u64> for ByteOffset {
    #[inline]
    fn add_assign(&mut self, bytes: u64) {
        *self = *self + bytes;
    }
}

/// The number of bytes between two offsets.
impl Sub for ByteOffset {
    type Output = u64;

    fn sub(self, earlier: ByteOffset) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl TryFrom<ByteOffset> for usize {
    type Error = TryFromIntError;

    fn try_from(offset: ByteOffset) -> Result<usize, TryFromIntError> {
        offset.0.try_into()
    }
}
