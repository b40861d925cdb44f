//! From a plan to a file: pages laid out, encoded in waves on all threads, written and hashed in file order, read back and
//! checked, and only then given their name.
//!
//! While one wave is written the next is encoded; buffers are reused. The bytes do not depend on the number of threads.

use std::path::Path;
use std::time::Instant;

use rayon::prelude::*;

use super::hashes::hashes;
use super::{Interrupted, Observer};
use crate::bolt::{self, Bucket, Extent, Layout};
use crate::error::{Error, Reason, Result};
use crate::mvcc::{Content, schema};
use crate::options::{ConvertOptions, To};
use crate::output::beside;
use crate::output::sink::{Sink, SinkOptions};
use crate::output::snapshot::{Digest, Digested, TRAILER_LEN};
use crate::report::Report;
use crate::source::map::Map;
use crate::verify;

/// Bytes encoded as one; a multiple of what the disk likes.
pub(super) const EXTENT_BYTES: u64 = 4 << 20;

/// What was written.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) digested: Digested,
    pub(super) hash_kv: u32,
    pub(super) status_hash: u32,
}

/// Makes the files that go with the output, from the output as it lies on disk; in a dry run there is none.
pub(super) type Beside<'a> = &'a dyn Fn(Option<&[u8]>, &Digested, &mut Report) -> Result<Vec<beside::Beside>>;

/// How the writer works, and whom it asks and tells meanwhile.
pub(super) struct How<'a> {
    /// Bytes encoded as one: [`EXTENT_BYTES`], or less where memory is short.
    pub(super) extent_bytes: u64,
    pub(super) observer: &'a dyn Observer,
    pub(super) interrupted: Interrupted<'a>,
}

/// Writes the output, or goes through all of it but the writing. `expected` is how many pairs the books say it has.
pub(super) fn write(
    content: &Content<'_, '_>,
    expected: u64,
    options: &ConvertOptions,
    report: &mut Report,
    make_beside: Beside<'_>,
    how: &How<'_>,
) -> Result<Written> {
    let How { observer, interrupted, .. } = *how;
    let started = Instant::now();
    let buckets = content.buckets();
    check_books(&buckets, expected)?;
    let layout = bolt::layout(&buckets)?;
    let trailer = if options.to == To::Snapshot { TRAILER_LEN } else { 0 };
    let len = layout.file_len() + trailer;
    let mut sink =
        Sink::create(&options.output, SinkOptions { overwrite: options.overwrite, len, dry_run: options.dry_run })?;
    report.stage("layout", started.elapsed());

    let started = Instant::now();
    observer.stage("writing", Some(layout.file_len()));
    let pages = Pages { layout: &layout, buckets: &buckets };
    let meta_pages = bolt::meta_pages(&layout);
    let mut digest = Digest::new(&meta_pages);
    pages.write_waves(&mut sink, &mut digest, how)?;
    let digested = digest.finish(options.to == To::Snapshot)?;
    if options.to == To::Snapshot {
        sink.write_extent(digested.db_bytes, &digested.db_sha256, crc32fast::hash(&digested.db_sha256))?;
    }
    sink.finish_body()?;
    sink.write_meta(&meta_pages, crc32fast::hash(&meta_pages))?;
    report.stage("write", started.elapsed());

    let (hash_kv, status_hash) = if options.verify && !options.dry_run {
        let started = Instant::now();
        observer.stage("reading back and verifying", None);
        let hashes = check(&sink, content, options, interrupted)?;
        report.stage("verify", started.elapsed());
        hashes
    } else {
        hashes(content, &buckets, interrupted)?
    };
    interrupted()?;
    observer.stage("finishing", None);
    let map = sink.temp_path().map(|path| open_output(path, options)).transpose()?;
    let beside = make_beside(map.as_ref().map(Map::bytes), &digested, report)?;
    drop(map);
    interrupted()?;
    name_all(sink, beside)?;
    Ok(Written { digested, hash_kv, status_hash })
}

/// As many pairs are handed to the writer as the books say.
fn check_books(buckets: &[Bucket<'_>], expected: u64) -> Result<()> {
    let keys = buckets.iter().find(|bucket| bucket.name == schema::KEY).map_or(0, |bucket| bucket.rows.len());
    if keys == expected {
        return Ok(());
    }
    let message = format!("the books do not balance: {expected} pairs are to be written, the writer has {keys}");
    Err(Error::new(Reason::Unbalanced, message))
}

/// Gives all files their names, the output last; if one cannot have its name, none keeps it.
fn name_all(sink: Sink, beside: Vec<beside::Beside>) -> Result<()> {
    let mut named: Vec<beside::Named> = Vec::new();
    let result =
        beside.into_iter().try_for_each(|file| file.name().map(|file| named.push(file))).and_then(|()| sink.commit());
    result.inspect_err(|_| named.iter().for_each(beside::Named::undo))
}

struct Pages<'a> {
    layout: &'a Layout,
    buckets: &'a [Bucket<'a>],
}

/// An extent as it was encoded, in a buffer that is used again.
#[derive(Default)]
struct Encoded {
    offset: u64,
    bytes: Vec<u8>,
    crc32: u32,
}

impl Pages<'_> {
    fn write_waves(&self, sink: &mut Sink, digest: &mut Digest, how: &How<'_>) -> Result<()> {
        let extents = self.layout.extents(how.extent_bytes);
        let width = rayon::current_num_threads().max(1);
        let fresh = || (0..width).map(|_| Encoded::default()).collect::<Vec<_>>();
        let (mut ready, mut spare) = (fresh(), fresh());
        let mut ready_len = 0;
        for wave in extents.chunks(width) {
            let ahead = spare.get_mut(..wave.len()).unwrap_or_default();
            let behind = ready.get(..ready_len).unwrap_or_default();
            let (encoded, written) =
                rayon::join(|| self.encode(wave, ahead, how.interrupted), || write_in_order(behind, sink, digest));
            encoded?;
            written?;
            how.observer.advance(behind.iter().map(|extent| extent.bytes.len() as u64).sum());
            std::mem::swap(&mut ready, &mut spare);
            ready_len = wave.len();
        }
        write_in_order(ready.get(..ready_len).unwrap_or_default(), sink, digest)
    }

    fn encode(&self, wave: &[Extent], out: &mut [Encoded], interrupted: Interrupted<'_>) -> Result<()> {
        wave.par_iter().zip(out).try_for_each(|(extent, out)| {
            interrupted()?;
            let len = usize::try_from(extent.byte_len())
                .map_err(|_| Error::new(Reason::Internal, "an extent does not fit in memory"))?;
            out.offset = extent.offset();
            out.bytes.resize(len, 0);
            bolt::emit(self.layout, self.buckets, extent, &mut out.bytes)?;
            out.crc32 = crc32fast::hash(&out.bytes);
            Ok(())
        })
    }
}

fn write_in_order(wave: &[Encoded], sink: &mut Sink, digest: &mut Digest) -> Result<()> {
    for extent in wave {
        sink.write_extent(extent.offset, &extent.bytes, extent.crc32)?;
        digest.update(&extent.bytes);
    }
    Ok(())
}

/// The output under its temporary name. Whatever is wrong with that is not the source's fault.
fn open_output(temp: &Path, options: &ConvertOptions) -> Result<Map> {
    Map::open(temp).map_err(|e| {
        let e = Error::new(Reason::OutputFailed, e.message()).in_file(&options.output);
        e.context("reading it back")
    })
}

/// Reads the file back, checks it as a database, and holds it against the tree.
fn check(
    sink: &Sink,
    content: &Content<'_, '_>,
    options: &ConvertOptions,
    interrupted: Interrupted<'_>,
) -> Result<(u32, u32)> {
    sink.read_back(&|| interrupted())?;
    let Some(path) = sink.temp_path() else {
        return Err(Error::new(Reason::Internal, "there is no file to check"));
    };
    let failed = |e: Error| e.in_file(&options.output);
    let map = open_output(path, options)?;
    let (summary, compared) =
        rayon::join(|| verify::verify(map.bytes()), || verify::compare(map.bytes(), content, interrupted));
    compared.map_err(failed)?;
    let summary = summary.map_err(failed)?;
    Ok((summary.hash_kv, summary.status_hash))
}
