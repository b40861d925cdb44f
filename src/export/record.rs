//! The content of an export: v2 nodes, or pairs of a v3 store, by key; and their compact form in a redb table.
//!
//! ```text
//! v2 node  flags u8 · created index u64 · modified index u64 · where flag 2 is set: seconds i64, nanoseconds u32 ·
//! value v3 pair  create revision i64 · mod revision i64 · version i64 · lease i64 · value
//!
//! flags    1 a directory, which has no value · 2 it expires at that instant, counted from 1970
//! ```
//!
//! Numbers are big-endian; the value takes the remaining bytes. Must not know file formats.

use std::borrow::Cow;

use jiff::Timestamp;

use crate::error::Result;
use crate::ids::{LeaseId, Revision, V2Index};
use crate::words::words;

/// One key with its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<'a> {
    /// The key.
    pub key: Cow<'a, [u8]>,
    /// The content of the key.
    pub what: What<'a>,
}

/// The content of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What<'a> {
    /// A node of the v2 store.
    Node {
        /// The created index.
        created: V2Index,
        /// The modified index.
        modified: V2Index,
        /// The expiry by its own TTL.
        expiration: Option<Timestamp>,
        /// The value; a directory has none.
        value: Option<Cow<'a, [u8]>>,
    },
    /// A pair of a v3 store.
    Pair {
        /// The main revision of its creation.
        create: Revision,
        /// The main revision of its last change.
        modified: Revision,
        /// The number of changes since its creation.
        version: i64,
        /// The lease; 0 for none.
        lease: LeaseId,
        /// The value.
        value: Cow<'a, [u8]>,
    },
}

words! {
    /// The kind of an export: the store that its records come from.
    #[derive(Default)]
    pub enum ExportKind {
        /// Nodes of a v2 store.
        #[default]
        V2 = "v2",
        /// Pairs of a v3 store.
        V3 = "v3",
    }
}

impl ExportKind {
    /// Returns the name of the table of the records.
    pub fn table(self) -> &'static str {
        match self {
            ExportKind::V2 => "nodes",
            ExportKind::V3 => "pairs",
        }
    }
}

/// The records of an export, in the order of their keys.
pub trait Records {
    /// Returns the kind of the records.
    fn kind(&self) -> ExportKind;

    /// Returns metadata of the export: names and texts, by name.
    fn facts(&self) -> Vec<(&'static str, String)>;

    /// Returns the number of records.
    fn len(&self) -> usize;

    /// Returns whether there are no records.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Passes each record to `show`, in order.
    ///
    /// # Errors
    /// That of `show`.
    fn each(&self, show: &mut dyn FnMut(&Record<'_>) -> Result<()>) -> Result<()>;
}

const DIR: u8 = 1;
const EXPIRES: u8 = 2;

impl Record<'_> {
    /// Appends the compact form of the content.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match &self.what {
            What::Node { created, modified, expiration, value } => {
                let dir = if value.is_none() { DIR } else { 0 };
                out.push(dir | if expiration.is_some() { EXPIRES } else { 0 });
                out.extend_from_slice(&created.0.to_be_bytes());
                out.extend_from_slice(&modified.0.to_be_bytes());
                if let Some(at) = expiration {
                    let (seconds, nanoseconds) = since_1970(*at);
                    out.extend_from_slice(&seconds.to_be_bytes());
                    out.extend_from_slice(&nanoseconds.to_be_bytes());
                }
                out.extend_from_slice(value.as_deref().unwrap_or_default());
            }
            What::Pair { create, modified, version, lease, value } => {
                for number in [create.0, modified.0, *version, lease.0] {
                    out.extend_from_slice(&number.to_be_bytes());
                }
                out.extend_from_slice(value);
            }
        }
    }
}

/// Converts an instant to whole seconds since 1970, rounded down, and nanoseconds.
pub fn since_1970(at: Timestamp) -> (i64, u32) {
    const NANOS: i128 = 1_000_000_000;
    let nanos = at.as_nanosecond();
    let seconds = i64::try_from(nanos.div_euclid(NANOS)).unwrap_or_default();
    (seconds, u32::try_from(nanos.rem_euclid(NANOS)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(what: What<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        Record { key: Cow::Borrowed(b"k"), what }.encode(&mut out);
        out
    }

    #[test]
    fn the_compact_form_is_as_documented() {
        let node = |expiration, value: Option<&'static [u8]>| What::Node {
            created: V2Index(3),
            modified: V2Index(0x0102),
            expiration,
            value: value.map(Cow::Borrowed),
        };
        assert_eq!(encoded(node(None, Some(b"v"))), b"\0\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\x01\x02v");
        let at = "1969-12-31T23:59:58.25Z".parse().unwrap();
        let expected =
            [&b"\x03\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\x01\x02"[..], &(-2i64).to_be_bytes(), &250_000_000u32.to_be_bytes()];
        assert_eq!(encoded(node(Some(at), None)), expected.concat());
        let (create, modified, lease) = (Revision(1), Revision(2), LeaseId(4));
        let pair = What::Pair { create, modified, version: 3, lease, value: Cow::Borrowed(b"v") };
        assert_eq!(
            encoded(pair),
            [&[0, 0, 0, 0, 0, 0, 0, 1][..], &2i64.to_be_bytes(), &3i64.to_be_bytes(), &4i64.to_be_bytes(), b"v"]
                .concat()
        );
    }
}
