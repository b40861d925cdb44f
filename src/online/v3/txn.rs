//! Transactions as plain data, and the trait of a store that runs them. Must not know how they travel.

use crate::error::{Reason, Result};

/// A condition on one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    /// The key.
    pub key: Vec<u8>,
    /// What must hold.
    pub check: Check,
}

/// What must hold for a key. The revisions of a key that does not exist are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Its create revision is this one.
    Created(i64),
    /// Its mod revision is this one.
    Modified(i64),
}

/// An operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Writes a key; lease 0 is none.
    Put {
        /// The key.
        key: Vec<u8>,
        /// The value.
        value: Vec<u8>,
        /// The lease.
        lease: i64,
    },
    /// Deletes a key.
    Delete(Vec<u8>),
    /// Deletes all keys from the first to the second, which is not included.
    DeleteRange(Vec<u8>, Vec<u8>),
    /// Reads a key without its value.
    Look(Vec<u8>),
    /// Reads a key.
    Get(Vec<u8>),
    /// Reads the keys of a range, without values unless `values` is set.
    Scan(Scan),
}

/// A range to read, in the order of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// The first key.
    pub from: Vec<u8>,
    /// The end, which is not included; `\0` is the end of all keys.
    pub to: Vec<u8>,
    /// Maximum number of keys; 0 is all.
    pub limit: i64,
    /// Whether values are read.
    pub values: bool,
}

/// A transaction: if all comparisons hold, `then` runs, else `otherwise`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Txn {
    /// The comparisons.
    pub when: Vec<Compare>,
    /// Runs if they hold.
    pub then: Vec<Op>,
    /// Runs if one does not.
    pub otherwise: Vec<Op>,
}

/// A pair of the store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pair {
    /// The key.
    pub key: Vec<u8>,
    /// The value; empty if it was not asked for.
    pub value: Vec<u8>,
    /// The revision of its creation.
    pub created: i64,
    /// The revision of its last change.
    pub modified: i64,
    /// Its lease; 0 for none.
    pub lease: i64,
}

/// What an operation that reads found; empty for others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Got {
    /// The pairs, by key.
    pub pairs: Vec<Pair>,
    /// Whether the range has more than the limit.
    pub more: bool,
}

impl Got {
    /// Returns the pair of an operation on one key.
    pub fn one(&self) -> Option<&Pair> {
        self.pairs.first()
    }
}

/// The answer to a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reply {
    /// Whether the comparisons held.
    pub succeeded: bool,
    /// The revision of the store: that of the transaction if it wrote.
    pub revision: i64,
    /// One for each operation that ran.
    pub got: Vec<Got>,
}

impl Reply {
    /// Returns what an operation found.
    pub fn at(&self, operation: usize) -> &Got {
        const NONE: &Got = &Got { pairs: Vec::new(), more: false };
        self.got.get(operation).unwrap_or(NONE)
    }
}

/// Whether a lease still exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// It exists, and its time starts again.
    Alive,
    /// It has expired, or was revoked.
    Gone,
}

/// A v3 store.
///
/// A request whose answer was lost is sent again, so a transaction can run twice. Its comparisons must make the second
/// run harmless.
pub trait Kv: Send + Sync {
    /// Runs a transaction.
    ///
    /// # Errors
    /// The store does not answer within the time, or refuses.
    fn txn(&self, txn: &Txn) -> Result<Reply>;

    /// Grants a lease of this length and returns its id.
    ///
    /// # Errors
    /// As [`Kv::txn`].
    fn grant(&self, seconds: i64) -> Result<i64>;

    /// Starts the time of a lease again. Does not try twice.
    ///
    /// # Errors
    /// As [`Kv::txn`].
    fn keep_alive(&self, lease: i64) -> Result<Keep>;

    /// Revokes a lease; one that does not exist is no error.
    ///
    /// # Errors
    /// As [`Kv::txn`].
    fn revoke(&self, lease: i64) -> Result<()>;

    /// Returns the id of the cluster.
    ///
    /// # Errors
    /// As [`Kv::txn`].
    fn cluster(&self) -> Result<u64>;

    /// Returns the ranges that the user may read, in the order of keys.
    ///
    /// # Errors
    /// As [`Kv::txn`].
    fn readable(&self) -> Result<Vec<Scan>> {
        Ok(vec![Scan::prefix(b"")])
    }
}

impl Txn {
    /// Creates a transaction that only reads.
    pub fn read(then: Vec<Op>) -> Txn {
        Txn { then, ..Txn::default() }
    }
}

impl Compare {
    /// The key has this create revision; 0: it does not exist.
    pub fn created(key: &[u8], revision: i64) -> Compare {
        Compare { key: key.to_vec(), check: Check::Created(revision) }
    }

    /// The key has this mod revision; 0: it does not exist.
    pub fn modified(key: &[u8], revision: i64) -> Compare {
        Compare { key: key.to_vec(), check: Check::Modified(revision) }
    }
}

impl Op {
    /// Writes a key without a lease.
    pub fn put(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Op {
        Op::Put { key: key.into(), value: value.into(), lease: 0 }
    }
}

impl Scan {
    /// All keys with this prefix, without values and limit.
    pub fn prefix(prefix: &[u8]) -> Scan {
        // etcd refuses an empty key: the first key of all is a zero byte.
        let from = if prefix.is_empty() { vec![0] } else { prefix.to_vec() };
        Scan { from, to: prefix_end(prefix), limit: 0, values: false }
    }

    /// Returns the part of this range that is in another one, if there is one.
    fn within(&self, range: &Scan) -> Option<Scan> {
        let from = (&self.from).max(&range.from).clone();
        let to = match (&*self.to, &*range.to) {
            ([0], other) | (other, [0]) => other,
            (one, other) => one.min(other),
        };
        (to == [0] || *from < *to).then(|| Scan { from, to: to.to_vec(), ..self.clone() })
    }
}

/// Reads, in several transactions if the server accepts fewer operations in one. `group` operations in a row stay together.
///
/// # Errors
/// Those of the store.
pub fn read_in_groups(kv: &dyn Kv, operations: &[Op], group: usize) -> Result<Vec<Got>> {
    match kv.txn(&Txn::read(operations.to_vec())) {
        Err(e) if e.reason() == Reason::RequestTooLarge && operations.len() > group => {
            // Half as many each time.
            let half = (operations.len() / group).div_ceil(2) * group;
            let (first, rest) = operations.split_at_checked(half).unwrap_or((operations, &[]));
            let mut got = read_in_groups(kv, first, group)?;
            got.extend(read_in_groups(kv, rest, group)?);
            Ok(got)
        }
        reply => reply.map(|reply| reply.got),
    }
}

/// Returns the end of the range of all keys with a prefix.
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

/// Calls `each` for the pairs of a range, page by page. Other writers can change the range meanwhile. Of all keys, it reads those
/// that the user may read.
///
/// # Errors
/// Those of the store, and of `each`.
pub fn scan(kv: &dyn Kv, scan: Scan, mut each: impl FnMut(&[Pair]) -> Result<()>) -> Result<()> {
    if scan.from == [0] && scan.to == [0] { scan_readable(kv, scan, each) } else { pages(kv, scan, &mut each) }
}

/// Does the same for the part of a range that the user may read.
///
/// # Errors
/// Those of the store, also if the user may read nothing at all; those of `each`.
pub fn scan_readable(kv: &dyn Kv, scan: Scan, mut each: impl FnMut(&[Pair]) -> Result<()>) -> Result<()> {
    match kv.txn(&Txn::read(vec![Op::Scan(Scan { limit: 1, values: false, ..scan.clone() })])) {
        Err(denied) if denied.reason() == Reason::V3Denied => match kv.readable()? {
            ranges if ranges.is_empty() => Err(denied),
            ranges => {
                ranges.iter().filter_map(|range| scan.within(range)).try_for_each(|part| pages(kv, part, &mut each))
            }
        },
        other => other.and_then(|_| pages(kv, scan, &mut each)),
    }
}

fn pages(kv: &dyn Kv, mut scan: Scan, each: &mut dyn FnMut(&[Pair]) -> Result<()>) -> Result<()> {
    const PAGE: i64 = 1000;
    const PAGE_WITH_VALUES: i64 = 100;
    scan.limit = if scan.values { PAGE_WITH_VALUES } else { PAGE };
    loop {
        let reply = kv.txn(&Txn::read(vec![Op::Scan(scan.clone())]))?;
        let got = reply.at(0);
        each(&got.pairs)?;
        match got.pairs.last().filter(|_| got.more) {
            Some(last) => scan.from = [&last.key[..], &[0]].concat(),
            None => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix() {
        for (prefix, end) in [(&b"a"[..], &b"b"[..]), (b"a/", b"a0"), (b"a\xff", b"b"), (b"\xff", b"\0"), (b"", b"\0")]
        {
            assert_eq!(prefix_end(prefix), end, "{prefix:?}");
        }
    }
    #[test]
    fn the_part_of_a_range_in_another() {
        let range = |from: &[u8], to: &[u8]| Scan { from: from.into(), to: to.into(), limit: 0, values: false };
        for (one, other, part) in [
            ((&b"b"[..], &b"f"[..]), (&b"a"[..], &b"c"[..]), Some((&b"b"[..], &b"c"[..]))),
            ((b"b", b"f"), (b"c", b"\0"), Some((b"c", b"f"))),
            ((b"b", b"\0"), (b"c", b"\0"), Some((b"c", b"\0"))),
            ((b"\0", b"\0"), (b"c", b"d"), Some((b"c", b"d"))),
            ((b"b", b"c"), (b"c", b"d"), None),
        ] {
            let part = part.map(|(from, to)| range(from, to));
            assert_eq!(range(one.0, one.1).within(&range(other.0, other.1)), part, "{one:?} {other:?}");
            assert_eq!(range(other.0, other.1).within(&range(one.0, one.1)), part, "{other:?} {one:?}");
        }
    }
}
