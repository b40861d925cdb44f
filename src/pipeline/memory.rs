//! `--memory-limit`: an estimate of a conversion's private memory, without the mapped source, before it is allocated.
//!
//! The estimate adds the sizes of every node, row, entry and change to constants that were measured. Refuses a
//! conversion that does not fit, and encodes in smaller parts if that helps. Measures nothing while the conversion
//! runs. Must not know what becomes of a node or an entry.

use std::fmt;

use memchr::memmem;

use super::context::Context;
use super::replay_options::replay_options;
use super::write::{EXTENT_BYTES, EXTENTS_PER_THREAD};
use crate::bolt::Rows;
use crate::error::{Error, Reason, Result};
use crate::image::Content;
use crate::interrupt::{self, Interrupt};
use crate::mvcc::schema;
use crate::options::ConvertOptions;
use crate::source::cluster::Located;
use crate::source::entries::EntryRef;
use crate::source::live_copy::Access;
use crate::source::open::Opened;
use crate::source::snap::Snapshot;
use crate::source::wal::Wal;
use crate::transform::plan::{Overrides, Row};
use crate::v2store::recover::may_compare;
use crate::v2store::table::{Node, Table};
use crate::verify::index_bytes;

/// Bytes of the program without its threads.
const PROGRAM: u64 = 6 << 20;

/// Bytes of a thread: its stack and its part of the heap.
const THREAD: u64 = 5 << 19;

/// Bytes of a node with a TTL: its expiration, and its place in the order of expirations of at most two trees.
const EXPIRY: u64 = 96;

/// Bytes of an entry that changes a node: the changed node, its path, its place in its directory.
const CHANGE: u64 = 320;

/// The directories above the first changes of a replay: a part of [`PROGRAM`].
const FIRST_CHANGES: u64 = 64 << 10;

/// A node of the snapshot in a directory that the log changes: its slot in the directory's index of names, and its part of that
/// index. An index has at least 9 nodes.
const INDEXED_NODE: u64 = 24;

/// Bytes of a node of a tree that is compared with another tree: the hashes of its path and its content.
const COMPARED: u64 = 40;

/// Bytes of a name that is compared with all others: its node and row, its hash and row, and the memory to sort them.
const NAME: u64 = 40;

/// Bytes of redb's cache while it writes an index map.
const INDEX_MAP: u64 = 16 << 20;

/// Bytes of a pair in an index map: the places of its v2 index and of the hashes of its names, and the vectors' growth.
const INDEXED: u64 = 48;

/// Bytes of the keys that one thread encodes at once for an index map, in two parts that wait for each other. v2 and v3
/// keys of a part take at most the size of its pages each.
const INDEXED_KEYS: u64 = 2 * 2 * (5 << 20);

/// Bytes of a change that a merge preserves, with the live key that it may be.
const PRESERVED: u64 = 112;

/// The smallest part to encode, in bytes.
const SMALLEST_EXTENT: u64 = 64 << 10;

/// Refuses a source that would need more memory, before its snapshot is read: counts the marks at the start of nodes.
///
/// # Errors
/// [`Reason::MemoryLimit`] if the estimate is above the limit; an interruption.
pub(super) fn before_reading(context: &Context<'_>, opened: &Opened) -> Result<()> {
    let options = context.options;
    if options.memory_limit.is_none() {
        return Ok(());
    }
    let json = opened.start.snapshot.as_ref().map_or(&[][..], |snapshot| snapshot.json());
    Need { nodes: marks(json, context.interrupt)?, ..Need::of(options, opened) }.with_rows().least(options).map(drop)
}

/// Refuses to compare two snapshots whose trees would need more memory.
///
/// # Errors
/// [`Reason::MemoryLimit`] if the estimate is above the limit; an interruption.
pub(super) fn before_comparing(context: &Context<'_>, snapshots: [&Snapshot; 2]) -> Result<()> {
    let options = context.options;
    if options.memory_limit.is_none() {
        return Ok(());
    }
    let [one, two] = snapshots;
    let nodes = marks(one.json(), context.interrupt)? + marks(two.json(), context.interrupt)?;
    Need { nodes, compared: true, threads: options.jobs.max(1) as u64, ..Need::default() }.least(options).map(drop)
}

/// Counts the `"Path"` fields of a snapshot: one for each node.
fn marks(json: &[u8], interrupt: Interrupt<'_>) -> Result<u64> {
    const MARK: &[u8] = br#""Path""#;
    let mut nodes = 0;
    for (number, part) in json.chunks(interrupt::CHUNK).enumerate() {
        interrupt.ask()?;
        // A mark across the end of a part also counts.
        let end = number * interrupt::CHUNK + part.len();
        let part = json.get(end - part.len()..(end + MARK.len() - 1).min(json.len())).unwrap_or(part);
        nodes += memmem::find_iter(part, MARK).count() as u64;
    }
    Ok(nodes)
}

/// Estimates again from the parsed snapshot, whose nodes may have a TTL. Returns the maximum number of bytes for the
/// changes of one replay: a path in the log may have more components than the estimate assumes for an entry.
///
/// # Errors
/// [`Reason::MemoryLimit`] if the estimate is above the limit.
pub(super) fn after_reading(context: &Context<'_>, opened: &Opened, table: &Table<'_>) -> Result<Option<u64>> {
    let options = context.options;
    let Some(limit) = options.memory_limit else { return Ok(None) };
    let (nodes, expiries) = (table.len() as u64, table.expiries.len() as u64);
    let compared = may_compare(opened, table, &replay_options(context, None));
    context.interrupt.ask()?;
    let need = Need { nodes, expiries, compared, ..Need::of(options, opened) }.with_rows();
    let extent = need.least(options)?;
    let rest = limit.saturating_sub(need.peak(extent).total());
    Ok(Some(
        (rest / need.replays())
            .saturating_add(need.entries.saturating_mul(CHANGE))
            .saturating_add(need.name_indexes())
            .saturating_add(FIRST_CHANGES),
    ))
}

/// Returns the number of bytes that the limit leaves for the answers of a transformer.
pub(super) fn for_answers(options: &ConvertOptions, opened: &Opened, table: &Table<'_>, rows: u64) -> Option<u64> {
    let (nodes, expiries) = (table.len() as u64, table.expiries.len() as u64);
    let need = Need { nodes, expiries, rows, ..Need::of(options, opened) };
    Some(options.memory_limit?.saturating_sub(need.peak(SMALLEST_EXTENT).total()))
}

/// Estimates again from the content to write. Returns the size of the parts to encode, in bytes.
///
/// # Errors
/// [`Reason::MemoryLimit`] if the estimate is above the limit.
pub(super) fn before_writing(
    options: &ConvertOptions,
    opened: &Opened,
    table: &Table<'_>,
    content: &Content<'_, '_>,
) -> Result<u64> {
    if options.memory_limit.is_none() {
        return Ok(EXTENT_BYTES);
    }
    let ordered = content.pairs().ordered;
    let buckets = content.buckets();
    let keys = buckets.iter().find(|bucket| bucket.name == schema::KEY).map(|bucket| bucket.rows);
    let pairs = keys.map_or(0, Rows::len);
    let largest = keys.map_or(0, |keys| (0..pairs).map(|row| u64::from(keys.value_len(row))).max().unwrap_or(0));
    let overrides: u64 = ordered.overrides.iter().map(overrides_bytes).sum();
    let rows = ordered.rows.len() as u64;
    let need = Need {
        nodes: table.len() as u64,
        expiries: table.expiries.len() as u64,
        rows,
        preserved: pairs.saturating_sub(rows),
        largest,
        more: overrides,
        ..Need::of(options, opened)
    };
    need.least(options)
}

fn overrides_bytes(overrides: &Overrides) -> u64 {
    (size_of::<Overrides>() + overrides.value.as_ref().map_or(0, |value| value.len() + 16)) as u64
}

/// Counts of everything that uses memory.
#[derive(Debug, Clone, Copy, Default)]
struct Need {
    /// Bytes of files that are copied to memory instead of mapped.
    copies: u64,
    entries: u64,
    nodes: u64,
    expiries: u64,
    rows: u64,
    preserved: u64,
    /// Bytes of the largest pair.
    largest: u64,
    /// Bytes of everything else.
    more: u64,
    threads: u64,
    /// The output is read back and its keys are indexed.
    verify: bool,
    /// Names are compared with each other.
    renames: bool,
    /// Two replays may be compared, one by the rules of each of two versions.
    compared: bool,
    /// An index map is made of the output.
    index_map: bool,
}

impl Need {
    /// Counts what an open source shows.
    fn of(options: &ConvertOptions, opened: &Opened) -> Need {
        let wals = || opened.members.iter().filter_map(|member| member.wal.as_ref());
        let held = opened.members.iter().any(|member| member.access() != Access::AtRest);
        Need {
            copies: if held { opened.maps().iter().map(|map| map.bytes().len() as u64).sum() } else { 0 },
            entries: wals().flat_map(Wal::spans).map(|span| span.entries.len() as u64).sum(),
            threads: options.jobs.max(1) as u64,
            verify: options.verify && !options.dry_run,
            index_map: options.index_map.is_some() && !options.dry_run,
            renames: options.rules.rename_keys() || options.transformer.is_some(),
            ..Need::default()
        }
    }

    /// Assumes the maximum number of rows: one for each node and each entry of the log.
    fn with_rows(self) -> Need {
        Need { rows: self.nodes.saturating_add(self.entries), ..self }
    }

    /// Returns the largest part to encode, in bytes, with which the conversion fits into the limit.
    fn least(&self, options: &ConvertOptions) -> Result<u64> {
        let Some(limit) = options.memory_limit else { return Ok(EXTENT_BYTES) };
        let mut extent = EXTENT_BYTES;
        while self.peak(extent).total() > limit && extent > SMALLEST_EXTENT {
            extent /= 2;
        }
        let peak = self.peak(extent);
        if peak.total() <= limit {
            return Ok(extent);
        }
        let message = format!(
            "this conversion needs about {} bytes of memory ({peak}), and --memory-limit allows {limit}",
            peak.total()
        );
        Err(Error::new(Reason::MemoryLimit, message).hint("raise --memory-limit, or convert on a larger machine"))
    }

    /// Returns the bytes for the indexes of names of one replay: the log may change every directory.
    fn name_indexes(&self) -> u64 {
        if self.entries > 0 { self.nodes.saturating_mul(INDEXED_NODE) } else { 0 }
    }

    /// Returns the number of trees that exist during a replay.
    fn replays(&self) -> u64 {
        if self.compared { 2 } else { 1 }
    }

    /// Returns the bytes to write an index map: the places of its pairs, the keys that are encoded, and redb's cache.
    fn index_map(&self, pairs: u64) -> u64 {
        if !self.index_map {
            return 0;
        }
        let keys = self.threads.saturating_mul(INDEXED_KEYS.saturating_add(self.largest.saturating_mul(2)));
        INDEX_MAP.saturating_add(keys).saturating_add(pairs.saturating_mul(INDEXED))
    }

    fn peak(&self, extent: u64) -> Peak {
        let size = |count: u64, bytes: usize| count.saturating_mul(bytes as u64);
        let pairs = self.rows.saturating_add(self.preserved);
        let check = if self.verify { index_bytes(pairs) } else { 0 };
        let names = if self.renames { size(self.rows, NAME as usize) } else { 0 };
        // Two waves: one is hashed while the other is encoded. A wave has several parts for each thread, or one long one.
        let of_thread = extent.saturating_mul(EXTENTS_PER_THREAD as u64);
        let extents = (2 * self.threads).saturating_mul(of_thread.max(self.largest.saturating_add(1 << 13)));
        let replays = self.replays() * CHANGE;
        let hashes = if self.compared { size(self.nodes.saturating_add(self.entries), COMPARED as usize) } else { 0 };
        let log = size(self.entries, size_of::<EntryRef>() + size_of::<Located>() + replays as usize);
        let log = log.saturating_add(hashes).saturating_add(self.replays().saturating_mul(self.name_indexes()));
        let rows = size(self.rows, size_of::<Row>())
            .saturating_add(self.more)
            .saturating_add(size(self.preserved, PRESERVED as usize));
        Peak {
            copies: self.copies,
            tree: size(self.nodes, size_of::<Node>()).saturating_add(size(self.expiries, EXPIRY as usize)),
            log,
            rows,
            work: check.max(extents).max(self.index_map(pairs)).saturating_add(names),
            program: PROGRAM + self.threads.saturating_mul(THREAD),
        }
    }
}

/// Bytes by their use.
#[derive(Debug, Clone, Copy)]
struct Peak {
    copies: u64,
    tree: u64,
    log: u64,
    rows: u64,
    /// Buffers of the writer, or the index of the check: they never exist at the same time.
    work: u64,
    program: u64,
}

impl Peak {
    fn total(&self) -> u64 {
        let parts = [self.copies, self.tree, self.log, self.rows, self.work, self.program];
        parts.into_iter().fold(0, u64::saturating_add)
    }
}

impl fmt::Display for Peak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.copies, "copies of files"),
            (self.tree, "the tree"),
            (self.log, "the log"),
            (self.rows, "rows"),
            (self.work, "writing and checking"),
            (self.program, "the program"),
        ];
        for (at, (bytes, what)) in parts.into_iter().filter(|(bytes, _)| *bytes > 0).enumerate() {
            write!(f, "{}{what} {bytes}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(limit: u64) -> ConvertOptions {
        ConvertOptions { memory_limit: Some(limit), jobs: 64, ..ConvertOptions::new("a", "b") }
    }

    #[test]
    fn many_threads_encode_smaller_parts_before_anything_is_refused() {
        let need = Need { nodes: 1000, rows: 1000, threads: 64, ..Need::default() };
        let (most, least) = (need.peak(EXTENT_BYTES).total(), need.peak(SMALLEST_EXTENT).total());
        assert_eq!(need.least(&options(most)).unwrap(), EXTENT_BYTES);
        assert_eq!(need.least(&options(most - 1)).unwrap(), EXTENT_BYTES / 2);
        assert_eq!(need.least(&options(least)).unwrap(), SMALLEST_EXTENT);
        let error = need.least(&options(least - 1)).unwrap_err();
        assert_eq!(error.reason(), Reason::MemoryLimit);
        let words = [format!("about {least} bytes"), format!("allows {}", least - 1), "the tree 64000".to_string()];
        assert!(words.iter().all(|word| error.message().contains(word)), "{error}");
    }

    #[test]
    fn a_pair_is_encoded_whole_however_large_it_is() {
        let need = Need { largest: 100 << 20, threads: 1, ..Need::default() };
        assert!(need.peak(SMALLEST_EXTENT).work > 200 << 20);
    }

    #[test]
    fn numbers_beyond_all_memory_are_only_large() {
        let all = u64::MAX;
        let need =
            Need { copies: all, entries: all, nodes: all, expiries: all, rows: all, preserved: all, ..Need::default() };
        assert_eq!(need.peak(EXTENT_BYTES).total(), u64::MAX);
    }
}
