//! `--memory-limit`: what a conversion will hold in memory beside its mapped source, reckoned before it is taken.
//!
//! Sizes of what there is one of for each node, row, entry and change; the constants for the rest are measured. Refuses what
//! will not fit, and encodes in smaller parts where that helps. Watches nothing while the work is done.

use std::fmt;

use memchr::memmem;

use super::Interrupted;
use super::replay_options::replay_options;
use super::write::EXTENT_BYTES;
use crate::bolt::Rows;
use crate::error::{Error, Reason, Result};
use crate::image::Content;
use crate::interrupt;
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

/// The program itself, its threads aside.
const PROGRAM: u64 = 6 << 20;

/// A thread's stack and its part of the heap.
const THREAD: u64 = 2 << 20;

/// A node with a TTL: when it expires, and its place in the order of expirations of two trees at most.
const EXPIRY: u64 = 96;

/// An entry that changes a node: the node above the snapshot's, its path, its place in its directory.
const CHANGE: u64 = 320;

/// A node of a tree that is compared with another tree: the hashes of its path and of what it holds.
const COMPARED: u64 = 40;

/// A name that is compared with all others: its node and row, its hash and row, and what sorting them leaves behind.
const NAME: u64 = 40;

/// An index map that is being written: redb's cache.
const INDEX_MAP: u64 = 64 << 20;

/// A pair that goes into an index map: its entry, and its places in the tables that are sorted.
const INDEXED: u64 = 176;

/// A change that a merge keeps, and the live key that it may be.
const KEPT: u64 = 112;

/// The smallest part that is encoded as one.
const SMALLEST_EXTENT: u64 = 256 << 10;

/// Refuses a source that would need more, before its snapshot is read: by the marks that nodes begin with.
///
/// # Errors
/// [`Reason::MemoryLimit`]; what `interrupted` returned.
pub(super) fn before_reading(options: &ConvertOptions, opened: &Opened, interrupted: Interrupted<'_>) -> Result<()> {
    if options.memory_limit.is_none() {
        return Ok(());
    }
    let json = opened.start.snapshot.as_ref().map_or(&[][..], |snapshot| snapshot.json());
    Need { nodes: marks(json, interrupted)?, ..Need::of(options, opened) }.with_rows().least(options).map(drop)
}

/// Refuses two snapshots whose trees would need more to be compared.
///
/// # Errors
/// [`Reason::MemoryLimit`]; an interruption.
pub(super) fn before_comparing(
    options: &ConvertOptions,
    snapshots: [&Snapshot; 2],
    interrupted: Interrupted<'_>,
) -> Result<()> {
    if options.memory_limit.is_none() {
        return Ok(());
    }
    let [one, two] = snapshots;
    let nodes = marks(one.json(), interrupted)? + marks(two.json(), interrupted)?;
    Need { nodes, compared: true, threads: options.jobs.max(1) as u64, ..Need::default() }.least(options).map(drop)
}

/// The marks that nodes have in a snapshot, in whatever form it is written.
fn marks(json: &[u8], interrupted: Interrupted<'_>) -> Result<u64> {
    const MARK: &[u8] = br#""Path""#;
    let mut nodes = 0;
    for (number, part) in json.chunks(interrupt::CHUNK).enumerate() {
        interrupted()?;
        // A mark across the end of a part counts, too.
        let end = number * interrupt::CHUNK + part.len();
        let part = json.get(end - part.len()..(end + MARK.len() - 1).min(json.len())).unwrap_or(part);
        nodes += memmem::find_iter(part, MARK).count() as u64;
    }
    Ok(nodes)
}

/// The same with what was read: a snapshot may be written in another form, and its nodes may have a TTL. Returns how many bytes
/// the changes of one replay may take: a path in the log may have more components than an entry is reckoned with.
///
/// # Errors
/// [`Reason::MemoryLimit`].
pub(super) fn after_reading(
    options: &ConvertOptions,
    opened: &Opened,
    table: &Table<'_>,
    interrupted: Interrupted<'_>,
) -> Result<Option<u64>> {
    let Some(limit) = options.memory_limit else { return Ok(None) };
    let (nodes, expiries) = (table.len() as u64, table.expiries.len() as u64);
    let compared = may_compare(opened, table, &replay_options(options, interrupted));
    interrupted()?;
    let need = Need { nodes, expiries, compared, ..Need::of(options, opened) }.with_rows();
    let extent = need.least(options)?;
    let rest = limit.saturating_sub(need.peak(extent).total());
    Ok(Some((rest / need.replays()).saturating_add(need.entries.saturating_mul(CHANGE))))
}

/// What is left of the limit for the answers of a transformer, once its nodes are there.
pub(super) fn for_answers(options: &ConvertOptions, opened: &Opened, table: &Table<'_>, rows: u64) -> Option<u64> {
    let (nodes, expiries) = (table.len() as u64, table.expiries.len() as u64);
    let need = Need { nodes, expiries, rows, ..Need::of(options, opened) };
    Some(options.memory_limit?.saturating_sub(need.peak(SMALLEST_EXTENT).total()))
}

/// The same with what will be written. Returns how many bytes to encode as one.
///
/// # Errors
/// [`Reason::MemoryLimit`].
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
        kept: pairs.saturating_sub(rows),
        largest,
        more: overrides,
        ..Need::of(options, opened)
    };
    need.least(options)
}

fn overrides_bytes(overrides: &Overrides) -> u64 {
    (size_of::<Overrides>() + overrides.value.as_ref().map_or(0, |value| value.len() + 16)) as u64
}

/// What there is how many of.
#[derive(Debug, Clone, Copy, Default)]
struct Need {
    /// Bytes of files that are held instead of mapped.
    copies: u64,
    entries: u64,
    nodes: u64,
    expiries: u64,
    rows: u64,
    kept: u64,
    /// Bytes of the largest pair.
    largest: u64,
    /// Bytes of all else.
    more: u64,
    threads: u64,
    /// The output is read back and its keys are indexed.
    verify: bool,
    /// Names are compared with each other.
    renames: bool,
    /// Two replays may be compared, by the rules of two versions.
    compared: bool,
    /// An index map is made of the output.
    index_map: bool,
}

impl Need {
    /// What is known once a source is open.
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

    /// At most a row for each node and for each entry of the log.
    fn with_rows(self) -> Need {
        Need { rows: self.nodes.saturating_add(self.entries), ..self }
    }

    /// The largest part to encode as one with which it fits.
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
            "this conversion needs about {} bytes of memory ({peak}), and --memory-limit allows {limit}: give as many, or run it \
             on a larger machine",
            peak.total()
        );
        Err(Error::new(Reason::MemoryLimit, message))
    }

    /// Trees that the log is replayed into at a time.
    fn replays(&self) -> u64 {
        if self.compared { 2 } else { 1 }
    }

    /// Writing an index map: its entries, and what redb keeps.
    fn index_map(&self, pairs: u64) -> u64 {
        if self.index_map { INDEX_MAP.saturating_add(pairs.saturating_mul(INDEXED)) } else { 0 }
    }

    fn peak(&self, extent: u64) -> Peak {
        let size = |count: u64, bytes: usize| count.saturating_mul(bytes as u64);
        let pairs = self.rows.saturating_add(self.kept);
        let check = if self.verify { index_bytes(pairs) } else { 0 };
        let names = if self.renames { size(self.rows, NAME as usize) } else { 0 };
        // Twice as many as threads: one half is written while the other is encoded.
        let extents = (2 * self.threads).saturating_mul(extent.max(self.largest.saturating_add(1 << 13)));
        let replays = self.replays() * CHANGE;
        let hashes = if self.compared { size(self.nodes.saturating_add(self.entries), COMPARED as usize) } else { 0 };
        let log = size(self.entries, size_of::<EntryRef>() + size_of::<Located>() + replays as usize);
        let log = log.saturating_add(hashes);
        let rows =
            size(self.rows, size_of::<Row>()).saturating_add(self.more).saturating_add(size(self.kept, KEPT as usize));
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

/// Bytes, by what they are for.
#[derive(Debug, Clone, Copy)]
struct Peak {
    copies: u64,
    tree: u64,
    log: u64,
    rows: u64,
    /// Buffers of the writer or the index of the check, which are never there at the same time.
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
            Need { copies: all, entries: all, nodes: all, expiries: all, rows: all, kept: all, ..Need::default() };
        assert_eq!(need.peak(EXTENT_BYTES).total(), u64::MAX);
    }
}
