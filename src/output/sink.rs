//! The writer of one output file, which gets its name only when it is complete, checked and on disk.
//!
//! A temporary file in the directory of the output receives the body and is synced, then receives the meta pages and is
//! synced again. Then it is read back, and each extent is compared with its CRC-32 from when it was encoded. Then it is
//! renamed, and the directory is synced last. A failure before the rename removes the temporary file and leaves an
//! existing output unchanged. A dry run makes the same checks and writes nothing. Must not know what the bytes mean.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};
use rayon::prelude::*;
use tempfile::NamedTempFile;

use super::naming::{ANOTHER_NAME, Before, NOT_REGULAR, Named, directory_of, temporary};
use crate::count::{self, counted};
use crate::error::{Error, Reason, Result};
use crate::ids::ByteOffset;
use crate::interrupt::Interrupt;

/// The size of the largest folio of the page cache with pages of 4 KiB, in bytes. A folio begins at a multiple of its size,
/// and only whole ones are dropped. The meta pages at the start of the file, which are written last, are shorter.
const CACHE_BYTES: u64 = 1 << 21;

/// Bytes that the disk is asked to read ahead at once. Linux ignores what exceeds the read-ahead size of the device, which is
/// often 128 KiB.
const AHEAD_BYTES: usize = 128 << 10;

/// Options of an output file.
#[derive(Debug, Clone, Copy)]
pub struct SinkOptions<'p> {
    /// The path that errors name; `None` for that of the file.
    pub shown: Option<&'p Path>,
    /// The number of files of this size that the run writes, for which there must be room.
    pub copies: u64,
    /// What the path held when the run began, and gives way.
    pub before: Before,
    /// The size that the file will have, trailer included.
    pub len: u64,
    /// Checks everything and writes nothing.
    pub dry_run: bool,
}

/// An output file in progress.
#[derive(Debug)]
pub struct Sink {
    out: PathBuf,
    /// The path that errors name.
    shown: PathBuf,
    before: Before,
    len: u64,
    /// Absent in a dry run.
    temp: Option<NamedTempFile>,
    extents: Vec<Extent>,
    /// Bytes at the start of the file that were on disk when they were dropped from the page cache.
    dropped: AtomicU64,
}

/// A range of written bytes, with the checksum of its encoder.
#[derive(Debug, Clone, Copy)]
#[must_use = "what is not added counts as not written"]
pub struct Extent {
    offset: u64,
    len: u64,
    crc32: u32,
}

impl Sink {
    /// Reserves a file of `options.len` bytes with the future name `path`, which errors name.
    ///
    /// # Errors
    /// [`Reason::OutputExists`]; [`Reason::NoRoom`]; [`Reason::OutputFailed`] if its directory cannot be written.
    pub fn create(path: &Path, options: SinkOptions<'_>) -> Result<Sink> {
        options.before.check(path)?;
        let directory = directory_of(path);
        let shown = options.shown.unwrap_or(path);
        check_room(shown, directory, options.len.saturating_mul(options.copies))?;
        let (out, shown) = (path.to_path_buf(), shown.to_path_buf());
        let SinkOptions { before, len, .. } = options;
        let (extents, dropped) = (Vec::new(), AtomicU64::new(0));
        let mut sink = Sink { out, shown, before, len, temp: None, extents, dropped };
        if options.dry_run {
            sink.os("write to the directory", || {
                access(directory, AccessFlags::W_OK | AccessFlags::X_OK).map_err(io::Error::from)
            })?;
            return Ok(sink);
        }
        let temp = sink.os("create a temporary file in its directory", || temporary().tempfile_in(directory))?;
        reserve(&sink.shown, temp.as_file(), len)?;
        sink.temp = Some(temp);
        Ok(sink)
    }

    /// Writes `bytes` at `offset`; `crc32` is the CRC-32 (IEEE) of the encoder.
    ///
    /// # Errors
    /// The operating system fails, or the extent exceeds the announced size.
    pub fn write_extent(&mut self, offset: u64, bytes: &[u8], crc32: u32) -> Result<()> {
        let extent = self.write_at(offset, bytes, crc32)?;
        self.add(extent);
        Ok(())
    }

    /// Writes like [`Sink::write_extent`], from any thread. The caller must [`add`](Sink::add) the extent.
    ///
    /// # Errors
    /// As [`Sink::write_extent`].
    pub fn write_at(&self, offset: u64, bytes: &[u8], crc32: u32) -> Result<Extent> {
        let len = bytes.len() as u64;
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            let message =
                format!("an output of {} has no room for {} at {offset}", count::bytes(self.len), count::bytes(len));
            return Err(Error::new(Reason::Internal, message).in_file(&self.shown));
        }
        if let Some(temp) = &self.temp {
            self.os("write", || temp.as_file().write_all_at(bytes, offset))?;
        }
        Ok(Extent { offset, len, crc32 })
    }

    /// Adds a written extent to those that must cover the file.
    pub fn add(&mut self, extent: Extent) {
        self.extents.push(extent);
    }

    /// Syncs the file, of which at least the first `written` bytes are complete except for the meta pages, while more is written.
    /// Then lets the disk begin to read these bytes back.
    ///
    /// # Errors
    /// The operating system fails. It does not report the same failure again.
    pub fn flush(&self, written: u64) -> Result<()> {
        let Some(temp) = &self.temp else { return Ok(()) };
        self.os("sync", || temp.as_file().sync_data())?;
        self.drop_cached(written & !(CACHE_BYTES - 1));
        Ok(())
    }

    /// Ends the body: all of it is on disk before the meta pages make it a database.
    ///
    /// # Errors
    /// The operating system fails.
    pub fn finish_body(&mut self) -> Result<()> {
        self.sync()
    }

    /// Writes the meta pages at offset 0 and syncs the file: the last write.
    ///
    /// # Errors
    /// The operating system fails, or the extents do not cover the file exactly once.
    pub fn write_meta(&mut self, bytes: &[u8], crc32: u32) -> Result<()> {
        self.write_extent(0, bytes, crc32)?;
        self.extents.sort_unstable_by_key(|extent| extent.offset);
        self.check_coverage()?;
        self.sync()
    }

    /// Drops from the page cache what [`Sink::flush`] has not, so that the next reader of the file reads what is on disk.
    /// This is advice. If the file system ignores it, that reader still checks what was written.
    pub fn forget_cached(&self) {
        self.drop_cached(self.len);
        self.advise(0, CACHE_BYTES);
    }

    /// Drops the bytes up to `end` that were not dropped yet, and that are on disk.
    fn drop_cached(&self, end: u64) {
        let start = self.dropped.fetch_max(end, Ordering::Relaxed);
        if start < end {
            self.advise(start, end - start);
        }
    }

    /// Drops a range from the page cache, and lets the disk read it ahead of the comparison.
    fn advise(&self, start: u64, len: u64) {
        let (Some(temp), Ok(start), Ok(len)) = (&self.temp, i64::try_from(start), i64::try_from(len)) else { return };
        let _ = posix_fadvise(temp.as_file(), start, len, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        for at in (start..start.saturating_add(len)).step_by(AHEAD_BYTES) {
            let _ = posix_fadvise(temp.as_file(), at, AHEAD_BYTES as i64, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
        }
    }

    /// Compares the CRC-32 of every extent with `file`: the bytes of the file, mapped after [`Sink::forget_cached`].
    ///
    /// # Errors
    /// [`Reason::VerifyFailed`] with the byte offset, if an extent differs or is missing; the interruption.
    pub fn compare(&self, file: &[u8], interrupt: Interrupt<'_>) -> Result<()> {
        interrupt.expect(self.len);
        let compared = self.extents.par_iter().map(|extent| {
            interrupt.ask()?;
            interrupt.done(extent.len);
            self.compare_extent(file, *extent)
        });
        // The first error in file order, whichever thread was first.
        let compared: Vec<Result<()>> = compared.collect();
        compared.into_iter().collect()
    }

    fn compare_extent(&self, file: &[u8], extent: Extent) -> Result<()> {
        let start = usize::try_from(extent.offset).unwrap_or(usize::MAX);
        let len = usize::try_from(extent.len).unwrap_or(usize::MAX);
        let found = file.get(start..).and_then(|rest| rest.get(..len)).map(crc32fast::hash);
        if found == Some(extent.crc32) {
            return Ok(());
        }
        let found = found.map_or("the end of the file".into(), |crc| format!("{crc:08x}"));
        let message = format!(
            "expected CRC-32 {:08x} over {} bytes as they were encoded, read back {found}",
            extent.crc32, extent.len
        );
        Err(Error::new(Reason::VerifyFailed, message).in_file(&self.shown).at(ByteOffset(extent.offset)))
    }

    /// Returns the path of the temporary file; `None` in a dry run.
    pub fn temp_path(&self) -> Option<&Path> {
        self.temp.as_ref().map(NamedTempFile::path)
    }

    /// Gives the file its name and syncs the directory.
    ///
    /// # Errors
    /// [`Reason::OutputExists`] if another file has that name now; the file is incomplete, or the operating system
    /// fails. If its directory cannot be synced, the name is taken back.
    pub fn commit(mut self) -> Result<()> {
        self.check_coverage()?;
        let Some(temp) = self.temp.take() else { return self.before.check(&self.out) };
        self.step().map_err(|e| self.failed("rename", e))?;
        let named = Named::give(temp.into_temp_path(), &self.out, self.before)?;
        match self.os("sync the directory", || named.sync()) {
            Ok(()) => Ok(()),
            Err(e) => {
                named.undo();
                Err(e)
            }
        }
    }

    fn sync(&self) -> Result<()> {
        match &self.temp {
            Some(temp) => self.os("sync", || temp.as_file().sync_all()),
            None => Ok(()),
        }
    }

    /// Checks that every byte was written exactly once: unwritten bytes cannot be compared.
    fn check_coverage(&self) -> Result<()> {
        let mut end = 0;
        for extent in &self.extents {
            if extent.offset != end {
                let message = format!("expected an extent of the output here, found the next one at {}", extent.offset);
                return Err(Error::new(Reason::Internal, message).in_file(&self.shown).at(ByteOffset(end)));
            }
            end += extent.len;
        }
        if end != self.len {
            let message = format!("expected the output to end at {}, found its end here", self.len);
            return Err(Error::new(Reason::Internal, message).in_file(&self.shown).at(ByteOffset(end)));
        }
        Ok(())
    }

    /// Wraps every call to the operating system: it names the output in errors, and tests inject failures here.
    fn os<T>(&self, action: &str, call: impl FnOnce() -> io::Result<T>) -> Result<T> {
        self.step().and_then(|()| call()).map_err(|e| self.failed(action, e))
    }

    fn failed(&self, action: &str, e: io::Error) -> Error {
        Error::io(Reason::OutputFailed, &self.shown, action, e)
    }

    #[cfg(not(test))]
    fn step(&self) -> io::Result<()> {
        Ok(())
    }

    #[cfg(test)]
    fn step(&self) -> io::Result<()> {
        tests::fault()
    }
}

/// Checks that an output can have the name `path`: its directory exists, and contains no file of that name or a regular
/// file that may be replaced.
///
/// # Errors
/// [`Reason::OutputExists`]; [`Reason::Locked`] if another process has locked the file; [`Reason::OutputFailed`] if its
/// directory does not exist or cannot be examined.
pub fn refuse_existing(path: &Path, overwrite: bool) -> Result<Before> {
    let nothing = || require_directory(path).map(|()| Before::Nothing);
    let meta = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return nothing(),
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => return nothing(),
        Err(e) => return Err(Error::io(Reason::OutputFailed, path, "look for an existing output", e)),
        Ok(meta) => meta,
    };
    if meta.is_file() {
        return if overwrite { Before::at(path, true) } else { Err(exists(path)) };
    }
    let (message, hint) = match meta.is_dir() {
        true => ("the output is a directory", "name a file in it"),
        false => (NOT_REGULAR, ANOTHER_NAME),
    };
    Err(Error::new(Reason::OutputExists, message).in_file(path).hint(hint))
}

/// Checks the directory before the work instead of after it.
pub(crate) fn require_directory(path: &Path) -> Result<()> {
    let directory = directory_of(path);
    match fs::metadata(directory) {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => Err(Error::new(Reason::OutputFailed, "expected a directory to write the output into, found a file")),
        Err(e) => Err(Error::new(Reason::OutputFailed, format!("cannot write the output into it: {e}"))),
    }
    .map_err(|e| e.in_file(directory))
}

fn exists(path: &Path) -> Error {
    Error::new(Reason::OutputExists, "the output exists").in_file(path).hint("give --overwrite to replace it")
}

fn check_room(path: &Path, directory: &Path, len: u64) -> Result<()> {
    let room = statvfs(directory).map_err(|e| Error::io(Reason::OutputFailed, path, "use its directory", e.into()))?;
    let free = room.blocks_available().saturating_mul(room.fragment_size());
    // A file system without a count of blocks gives no information.
    if room.blocks() > 0 && free < len {
        let message =
            format!("no room for the output of {}, {} free", count::bytes(len), counted(free, "byte is", "bytes are"));
        return Err(Error::new(Reason::NoRoom, message).in_file(path));
    }
    Ok(())
}

fn reserve(path: &Path, file: &File, len: u64) -> Result<()> {
    let size = i64::try_from(len).map_err(|_| no_room(path, len))?;
    if size == 0 {
        return Ok(());
    }
    match fallocate(file, FallocateFlags::empty(), 0, size) {
        Ok(()) => Ok(()),
        Err(Errno::ENOSPC | Errno::EDQUOT) => Err(no_room(path, len)),
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => {
            file.set_len(len).map_err(|e| Error::io(Reason::OutputFailed, path, "set its size", e))
        }
        Err(e) => Err(Error::io(Reason::OutputFailed, path, "reserve its size", e.into())),
    }
}

fn no_room(path: &Path, len: u64) -> Error {
    Error::new(Reason::NoRoom, format!("no room for the output of {}", count::bytes(len))).in_file(path)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    thread_local! {
        /// Number of calls to the operating system that succeed before the injected failure.
        static CALLS_LEFT: Cell<Option<u32>> = const { Cell::new(None) };
    }

    pub(super) fn fault() -> io::Result<()> {
        CALLS_LEFT.with(|left| match left.get() {
            Some(0) => Err(io::Error::from_raw_os_error(Errno::EIO as i32)),
            Some(n) => {
                left.set(Some(n - 1));
                Ok(())
            }
            None => Ok(()),
        })
    }

    const BODY: &[u8] = &[7; 3 << 20];
    const META: &[u8] = &[9; 8192];

    fn options(before: Before) -> SinkOptions<'static> {
        SinkOptions { shown: None, copies: 1, before, len: (META.len() + BODY.len()) as u64, dry_run: false }
    }

    fn fill(path: &Path, options: SinkOptions<'_>) -> Result<Sink> {
        let mut sink = Sink::create(path, options)?;
        let (one, two) = BODY.split_at(1 << 20);
        let start = META.len() as u64;
        sink.write_extent(start + one.len() as u64, two, crc32fast::hash(two))?;
        sink.write_extent(start, one, crc32fast::hash(one))?;
        sink.finish_body()?;
        sink.write_meta(META, crc32fast::hash(META))?;
        Ok(sink)
    }

    fn make(path: &Path, options: SinkOptions<'_>) -> Result<()> {
        let sink = fill(path, options)?;
        sink.forget_cached();
        // A dry run has no file to compare.
        if sink.temp_path().is_some() {
            sink.compare(&written(&sink), Interrupt::default())?;
        }
        sink.commit()
    }

    fn written(sink: &Sink) -> Vec<u8> {
        sink.temp_path().map(|path| fs::read(path).unwrap()).unwrap_or_default()
    }

    fn names(dir: &Path) -> Vec<String> {
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_whole_file_is_private_and_complete() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out.db");
        make(&out, options(Before::Nothing)).unwrap();
        assert_eq!(fs::read(&out).unwrap(), [META, BODY].concat());
        assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(names(dir.path()), ["out.db"]);
    }

    #[test]
    fn a_failure_at_any_call_leaves_nothing() {
        for calls in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let out = dir.path().join("out.db");
            CALLS_LEFT.set(Some(calls));
            let made = make(&out, options(Before::Nothing));
            CALLS_LEFT.set(None);
            match made {
                Ok(()) => {
                    assert!(calls >= 8, "only {calls} calls were failed");
                    return;
                }
                Err(e) => assert_eq!((e.reason(), e.file()), (Reason::OutputFailed, Some(out.as_path()))),
            }
            assert_eq!(names(dir.path()), Vec::<String>::new(), "after {calls} calls");
        }
    }

    #[test]
    fn a_failure_at_any_call_keeps_what_is_overwritten() {
        for calls in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let out = dir.path().join("out.db");
            fs::write(&out, "old").unwrap();
            CALLS_LEFT.set(Some(calls));
            let made = make(&out, options(Before::at(&out, true).unwrap()));
            CALLS_LEFT.set(None);
            assert_eq!(names(dir.path()), ["out.db"]);
            if made.is_ok() {
                assert!(fs::read(&out).unwrap() == [META, BODY].concat());
                return;
            }
            assert_eq!(fs::read(&out).unwrap(), b"old", "after {calls} calls");
        }
    }

    #[test]
    fn an_existing_output_is_refused_and_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out.db");
        fs::write(&out, "mine").unwrap();
        assert_eq!(make(&out, options(Before::Nothing)).unwrap_err().reason(), Reason::OutputExists);
        assert_eq!(fs::read(&out).unwrap(), b"mine");
        make(&out, options(Before::at(&out, true).unwrap())).unwrap();
        assert_eq!(fs::metadata(&out).unwrap().len(), options(Before::Nothing).len);
    }

    #[test]
    fn only_a_regular_file_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let (directory, link) = (dir.path().join("d"), dir.path().join("l"));
        fs::create_dir(&directory).unwrap();
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        for out in [&directory, &link] {
            assert_eq!(refuse_existing(out, true).unwrap_err().reason(), Reason::OutputExists);
        }
    }

    #[test]
    fn an_output_that_appears_meanwhile_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out.db");
        let sink = fill(&out, options(Before::Nothing)).unwrap();
        fs::write(&out, "theirs").unwrap();
        assert_eq!(sink.commit().unwrap_err().reason(), Reason::OutputExists);
        assert_eq!(fs::read(&out).unwrap(), b"theirs");
        assert_eq!(names(dir.path()), ["out.db"]);
    }

    #[test]
    fn a_flipped_byte_is_found_at_its_extent() {
        let dir = tempfile::tempdir().unwrap();
        let sink = fill(&dir.path().join("out.db"), options(Before::Nothing)).unwrap();
        let file = File::options().write(true).open(sink.temp_path().unwrap()).unwrap();
        file.write_all_at(&[8], (2 << 20) + 5).unwrap();
        let error = sink.compare(&written(&sink), Interrupt::default()).unwrap_err();
        assert_eq!(error.reason(), Reason::VerifyFailed);
        assert_eq!(error.offset(), Some(ByteOffset(8192 + (1 << 20))));
    }

    #[test]
    fn a_file_that_ends_early_is_found_at_the_first_extent_that_is_not_whole() {
        let dir = tempfile::tempdir().unwrap();
        let sink = fill(&dir.path().join("out.db"), options(Before::Nothing)).unwrap();
        let file = written(&sink);
        sink.compare(&file, Interrupt::default()).unwrap();
        for (len, offset) in [(0, 0), (8191, 0), (8192, 8192), (file.len() - 1, 8192 + (1 << 20))] {
            let error = sink.compare(&file[..len], Interrupt::default()).unwrap_err();
            assert_eq!((error.reason(), error.offset()), (Reason::VerifyFailed, Some(ByteOffset(offset))));
        }
    }

    #[test]
    fn a_read_back_stops_when_interrupted() {
        let dir = tempfile::tempdir().unwrap();
        let sink = fill(&dir.path().join("out.db"), options(Before::Nothing)).unwrap();
        let stop = || Err(Error::new(Reason::Interrupted(2), "stop"));
        let error = sink.compare(&written(&sink), Interrupt::new(&stop)).unwrap_err();
        assert_eq!(error.kind().exit_code(), 130);
    }

    #[test]
    fn dropping_it_removes_the_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let sink = fill(&dir.path().join("out.db"), options(Before::Nothing)).unwrap();
        assert!(sink.temp_path().unwrap().exists());
        drop(sink);
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn holes_and_overlaps_are_internal_errors() {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = Sink::create(
            &dir.path().join("o"),
            SinkOptions { shown: None, copies: 1, before: Before::Nothing, len: 10, dry_run: false },
        )
        .unwrap();
        sink.write_extent(5, b"world", 0).unwrap();
        assert_eq!(sink.write_extent(6, b"world", 0).unwrap_err().reason(), Reason::Internal);
        assert_eq!(sink.write_meta(b"hell", 0).unwrap_err().offset(), Some(ByteOffset(4)));
        assert_eq!(sink.commit().unwrap_err().reason(), Reason::Internal);
    }

    #[test]
    fn a_dry_run_makes_the_same_checks_and_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out.db");
        let dry = SinkOptions { dry_run: true, ..options(Before::Nothing) };
        make(&out, dry).unwrap();
        assert!(names(dir.path()).is_empty());
        assert_eq!(make(&dir.path().join("no/out"), dry).unwrap_err().reason(), Reason::OutputFailed);
        fs::write(&out, "mine").unwrap();
        assert_eq!(make(&out, dry).unwrap_err().reason(), Reason::OutputExists);
    }

    #[test]
    fn no_room_is_known_before_the_first_byte() {
        let dir = tempfile::tempdir().unwrap();
        for dry_run in [false, true] {
            let huge = SinkOptions { shown: None, copies: 1, before: Before::Nothing, len: 1 << 60, dry_run };
            let error = Sink::create(&dir.path().join("out.db"), huge).unwrap_err();
            assert_eq!(error.reason(), Reason::NoRoom);
        }
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn a_missing_directory_or_a_file_for_one_is_an_output_error() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        for out in ["missing/out.db", "file/out.db"] {
            assert_eq!(
                make(&dir.path().join(out), options(Before::Nothing)).unwrap_err().reason(),
                Reason::OutputFailed
            );
        }
    }
}
