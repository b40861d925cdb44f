//! From a content to a file: computes the layout, encodes and writes pages in waves on all threads, hashes them in file
//! order, reads the file back and checks it. Then names the output and its sidecar files.
//!
//! One wave is hashed while the next is encoded; buffers are reused. The bytes do not depend on the number of threads.
//! Must not know the source.

use std::path::Path;
use std::thread;

use rayon::prelude::*;

use super::clock::Begun;
use super::context::{Activity, Context};
use super::hashes::hashes;
use super::totals;
use crate::bolt::{self, Bucket, Extent, Layout};
use crate::error::{Error, Reason, Result};
use crate::image::Content;
use crate::interrupt::Interrupt;
use crate::mvcc::schema;
use crate::options::{ConvertOptions, To};
use crate::output::flusher::Flusher;
use crate::output::naming::{Before, Named};
use crate::output::sidecar;
use crate::output::sink::{self, Sink, SinkOptions};
use crate::output::snapshot::{Digest, Digested, TRAILER_LEN};
use crate::output::staged_dir::Folder;
use crate::report::StageName;
use crate::source::live_copy;
use crate::source::map::Map;
use crate::verify::{self, Expected};

/// The size of a part to encode, in bytes: a multiple of the block size of disks.
pub(super) const EXTENT_BYTES: u64 = 1 << 20;

/// Number of parts that one thread encodes in each wave. With several, no thread waits long for the others. If values are
/// longer than a part, there are fewer, down to one for each thread.
pub(super) const EXTENTS_PER_THREAD: usize = 4;

/// A written output with its hashes, whole and on disk under a temporary name.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) digested: Digested,
    pub(super) hash_kv: u32,
    pub(super) status_hash: u32,
    /// The output; `None` in a dry run.
    map: Option<Map>,
    sink: Sink,
}

/// The output and its sidecar files, whole and on disk, under temporary names.
#[derive(Debug)]
pub(super) struct Files {
    output: Output,
    sidecars: Vec<sidecar::Sidecar>,
}

/// The output, under a temporary name.
#[derive(Debug)]
pub(super) enum Output {
    /// It already has its name.
    Named,
    /// A database, or nothing in a dry run.
    File(Sink),
    /// A directory with the directories of members.
    Folder(Folder),
}

impl Output {
    fn name(self) -> Result<()> {
        match self {
            Output::Named => Ok(()),
            Output::File(sink) => sink.commit(),
            Output::Folder(folder) => folder.name(),
        }
    }
}

/// The settings of the writer.
#[derive(Clone, Copy)]
pub(super) struct How<'p> {
    /// The path of the database.
    pub(super) path: &'p Path,
    /// The number of its copies in the output, itself included.
    pub(super) copies: u64,
    /// The size of a part to encode, in bytes: [`EXTENT_BYTES`], or less if memory is limited.
    pub(super) extent_bytes: u64,
    /// The existing file at that path, as it was when the run began.
    pub(super) before: Before,
    /// The number of pairs by the totals.
    pub(super) expected: u64,
}

/// Writes the output; a dry run does everything except writing.
pub(super) fn write(context: &Context<'_>, content: &Content<'_, '_>, how: How<'_>) -> Result<Written> {
    let (options, observer, interrupt) = (context.options, context.observer, context.interrupt);
    let started = Begun::now();
    let buckets = content.buckets();
    totals::check_writer(&buckets, how.expected)?;
    let layout = bolt::layout(&buckets)?;
    let trailer = if options.to == To::Snapshot { TRAILER_LEN } else { 0 };
    let len = layout.file_len() + trailer;
    let shown = Some(options.output.as_path());
    let sink_options = SinkOptions { shown, copies: how.copies, before: how.before, len, dry_run: options.dry_run };
    let mut sink = Sink::create(how.path, sink_options)?;
    context.took(StageName::Layout, started);

    let started = Begun::now();
    observer.stage(Activity::Writing);
    interrupt.expect(layout.file_len());
    let verifies = options.verify && !options.dry_run;
    let expected = Expected::of(content);
    let keys = buckets.iter().find(|bucket| verifies && bucket.name == schema::KEY);
    let hashed = keys.map(|keys| expected.hashed(keys.rows));
    let mut written = buckets.clone();
    for (bucket, rows) in written.iter_mut().filter(|bucket| bucket.name == schema::KEY).zip(&hashed) {
        bucket.rows = rows;
    }
    let pages = Pages { layout: &layout, buckets: &written };
    let meta_pages = bolt::meta_pages(&layout);
    let mut digest = Digest::new(&meta_pages);
    pages.write_waves(&mut sink, &mut digest, how.extent_bytes, context)?;
    let digested = digest.finish(options.to == To::Snapshot)?;
    if options.to == To::Snapshot {
        sink.write_extent(digested.db_bytes, &digested.db_sha256, crc32fast::hash(&digested.db_sha256))?;
    }
    sink.finish_body()?;
    sink.write_meta(&meta_pages, crc32fast::hash(&meta_pages))?;
    context.took(StageName::Write, started);

    // The verification needs the memory.
    drop(layout);
    let started = Begun::now();
    if verifies {
        observer.stage(Activity::Verifying);
        sink.forget_cached();
    }
    let map = sink.temp_path().map(|path| open_output(path, options)).transpose()?;
    let (hash_kv, status_hash) = match &map {
        Some(map) if verifies => check(&sink, map, &expected, options, interrupt)?,
        None if verifies => return Err(Error::new(Reason::Internal, "the file to check is missing")),
        _ => hashes(content, &buckets, interrupt)?,
    };
    if verifies {
        context.took(StageName::Verify, started);
    }
    interrupt.ask()?;
    Ok(Written { digested, hash_kv, status_hash, map, sink })
}

impl Written {
    /// Returns the output; `None` in a dry run.
    pub(super) fn bytes(&self) -> Option<&[u8]> {
        self.map.as_ref().map(Map::bytes)
    }

    /// Returns the database, which has a temporary name.
    pub(super) fn into_sink(self) -> Sink {
        self.sink
    }
}

impl Files {
    /// Joins the output with its sidecar files.
    pub(super) fn new(output: Output, sidecars: Vec<sidecar::Sidecar>) -> Files {
        Files { output, sidecars }
    }

    /// Returns the sidecar files of an output that has its name.
    pub(super) fn without_output(sidecars: Vec<sidecar::Sidecar>) -> Files {
        Files { output: Output::Named, sidecars }
    }

    /// Gives all files their names: first one more sidecar file, last the output. If one fails, all names are undone.
    /// The first name decides between concurrent runs: a run that does not get it changes nothing of the other. Calls
    /// `check` directly before each name.
    pub(super) fn name(self, more: Option<sidecar::Sidecar>, check: &dyn Fn() -> Result<()>) -> Result<()> {
        let sidecars: Vec<sidecar::Sidecar> = more.into_iter().chain(self.sidecars).collect();
        sidecars.iter().try_for_each(sidecar::Sidecar::sync)?;
        let mut named: Vec<Named> = Vec::new();
        let all = sidecars.into_iter().try_for_each(|file| {
            check()?;
            named.push(file.name()?);
            Ok(())
        });
        let all = all.and_then(|()| check()).and_then(|()| self.output.name());
        if all.is_err() {
            named.into_iter().rev().for_each(Named::undo);
        }
        all
    }
}

struct Pages<'a> {
    layout: &'a Layout,
    buckets: &'a [Bucket<'a>],
}

/// Extents that are encoded at the same time, in reusable buffers.
#[derive(Default)]
struct Wave {
    extents: Vec<Encoded>,
    /// Number of extents in use.
    len: usize,
}

/// An encoded extent that was written.
#[derive(Default)]
struct Encoded {
    bytes: Vec<u8>,
    written: Option<sink::Extent>,
}

impl Wave {
    fn of(width: usize) -> Wave {
        Wave { extents: (0..width).map(|_| Encoded::default()).collect(), len: 0 }
    }

    fn encoded(&self) -> &[Encoded] {
        self.extents.get(..self.len).unwrap_or_default()
    }

    fn byte_len(&self) -> u64 {
        self.encoded().iter().map(|extent| extent.bytes.len() as u64).sum()
    }
}

impl Pages<'_> {
    /// Encodes and writes all extents on all threads. One wave is hashed in file order while the next is encoded.
    fn write_waves(
        &self,
        sink: &mut Sink,
        digest: &mut Digest,
        extent_bytes: u64,
        context: &Context<'_>,
    ) -> Result<()> {
        let extents = self.layout.extents(extent_bytes);
        let threads = rayon::current_num_threads().max(1);
        let width = threads * EXTENTS_PER_THREAD;
        let mut written = Vec::with_capacity(extents.len());
        let flusher = Flusher::default();
        thread::scope(|scope| {
            let flushing = flusher.start(scope, sink);
            let (mut done, mut ahead) = (Wave::of(width), Wave::of(width));
            let waves = waves(&extents, threads, extent_bytes).try_for_each(|extents| {
                let (encoded, ()) = rayon::join(
                    || self.encode(extents, extent_bytes, &mut ahead, sink, context.interrupt),
                    || done.encoded().iter().for_each(|extent| digest.update(&extent.bytes)),
                );
                encoded?;
                written.extend(ahead.encoded().iter().filter_map(|extent| extent.written));
                context.interrupt.done(ahead.byte_len());
                flusher.advance(ahead.byte_len());
                std::mem::swap(&mut done, &mut ahead);
                Ok(())
            });
            done.encoded().iter().for_each(|extent| digest.update(&extent.bytes));
            waves.and(flushing.end())
        })?;
        written.into_iter().for_each(|extent| sink.add(extent));
        Ok(())
    }

    fn encode(
        &self,
        extents: &[Extent],
        extent_bytes: u64,
        wave: &mut Wave,
        sink: &Sink,
        interrupt: Interrupt<'_>,
    ) -> Result<()> {
        wave.len = extents.len();
        wave.extents.iter_mut().skip(extents.len()).for_each(|unused| unused.bytes = Vec::new());
        extents.par_iter().zip(&mut wave.extents).with_max_len(1).try_for_each(|(extent, out)| {
            interrupt.ask()?;
            let len = usize::try_from(extent.byte_len())
                .map_err(|_| Error::new(Reason::Internal, "an extent does not fit in memory"))?;
            // A buffer has the length of a part, or of its longer extent: it neither grows beyond that nor stays longer.
            let wanted = len.max(usize::try_from(extent_bytes).unwrap_or(len));
            if out.bytes.capacity() < len || out.bytes.capacity() > wanted {
                out.bytes = Vec::with_capacity(wanted);
            }
            out.bytes.resize(len, 0);
            bolt::emit(self.layout, self.buckets, extent, &mut out.bytes)?;
            // Written at once, while the bytes are in the cache of the processor.
            out.written = Some(sink.write_at(extent.offset(), &out.bytes, crc32fast::hash(&out.bytes))?);
            Ok(())
        })
    }
}

/// Cuts extents into waves of up to [`EXTENTS_PER_THREAD`] for each thread. Beyond one for each thread, a wave ends before its
/// bytes exceed those of as many parts of `extent_bytes`.
fn waves(extents: &[Extent], threads: usize, extent_bytes: u64) -> impl Iterator<Item = &[Extent]> {
    let (width, bytes) = (threads * EXTENTS_PER_THREAD, (threads * EXTENTS_PER_THREAD) as u64 * extent_bytes);
    let mut rest = extents;
    std::iter::from_fn(move || {
        let mut sum = 0;
        let fits = |(at, extent): &(usize, &Extent)| {
            sum += extent.byte_len();
            *at < threads || (*at < width && sum <= bytes)
        };
        let count = rest.iter().enumerate().take_while(fits).count();
        let (wave, after) = rest.split_at_checked(count).filter(|(wave, _)| !wave.is_empty())?;
        rest = after;
        Some(wave)
    })
}

/// Maps the output under its temporary name. An error is one of the output, not of the source.
fn open_output(temp: &Path, options: &ConvertOptions) -> Result<Map> {
    live_copy::map(temp).map_err(|e| {
        let e = Error::new(Reason::OutputFailed, e.message()).in_file(&options.output);
        e.context("reading it back")
    })
}

/// Reads the file back, checks it as a database, and compares it with the content.
fn check(
    sink: &Sink,
    map: &Map,
    expected: &Expected<'_, '_, '_>,
    options: &ConvertOptions,
    interrupt: Interrupt<'_>,
) -> Result<(u32, u32)> {
    let failed = |e: Error| e.in_file(&options.output);
    let (compared, summary) = rayon::join(
        || sink.compare(map.bytes(), interrupt),
        || verify::verify_content(map.bytes(), expected, interrupt),
    );
    interrupt.ask()?;
    // What differs from the written bytes has its place, whatever else it is.
    compared?;
    let summary = summary.map_err(failed)?;
    Ok((summary.hash_kv, summary.status_hash))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    fn sidecar(path: &Path, text: &str) -> sidecar::Sidecar {
        let mut file = sidecar::Sidecar::create(path, Before::at(path, true).unwrap()).unwrap();
        file.write(|out| out.write_all(text.as_bytes()).map_err(|e| file_error(path, e))).unwrap();
        file
    }

    fn file_error(path: &Path, e: std::io::Error) -> Error {
        Error::io(Reason::OutputFailed, path, "write", e)
    }

    fn output(path: &Path) -> Sink {
        let options =
            SinkOptions { shown: None, copies: 1, before: Before::at(path, true).unwrap(), len: 4, dry_run: false };
        let mut sink = Sink::create(path, options).unwrap();
        sink.write_meta(b"made", crc32fast::hash(b"made")).unwrap();
        sink
    }

    fn listed(dir: &Path) -> Vec<(String, String)> {
        let read = |path: PathBuf| {
            let text = if path.is_dir() { "directory".into() } else { fs::read_to_string(&path).unwrap() };
            (path.file_name().unwrap().to_str().unwrap().to_string(), text)
        };
        let mut found: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| read(entry.unwrap().path())).collect();
        found.sort();
        found
    }

    #[test]
    fn all_files_have_their_names_or_each_name_is_as_it_was() {
        for (blocked, replaced) in [("", false), ("out", false), ("out", true), ("report", false), ("ledger", true)] {
            let dir = tempfile::tempdir().unwrap();
            let at = |name: &str| dir.path().join(name);
            if replaced {
                ["out", "ledger", "report"].iter().for_each(|name| fs::write(at(name), "old").unwrap());
            }
            let files =
                Files { output: Output::File(output(&at("out"))), sidecars: vec![sidecar(&at("ledger"), "made")] };
            let report = sidecar(&at("report"), "made");
            if !blocked.is_empty() {
                // A directory takes the name in the meantime.
                let _ = fs::remove_file(at(blocked));
                fs::create_dir(at(blocked)).unwrap();
            }
            let before: Vec<_> = listed(dir.path()).into_iter().filter(|(name, _)| !name.starts_with('.')).collect();
            let named = files.name(Some(report), &|| Ok(()));
            let after = listed(dir.path());
            if blocked.is_empty() {
                named.unwrap();
                let expected = ["ledger", "out", "report"].map(|name| (name.to_string(), "made".to_string()));
                assert_eq!(after, expected);
            } else {
                assert!(named.is_err(), "{blocked}");
                assert_eq!(after, before, "{blocked}");
            }
        }
    }
}
