//! A source file as bytes: opened read-only and mapped into memory. The only file of the crate with `unsafe`. Bytes in
//! memory can replace a file, so every reader of files can read them too.
//!
//! A map is private and never written. Other processes can still change a mapped file, and their writes appear in the
//! map; [`Map::check_bytes`] detects that. If they truncate the file, or a disk fails, the kernel sends SIGBUS. A
//! handler replaces the missing pages with zeros, and [`Faults`] reports it. Must not know what the bytes mean.
#![allow(unsafe_code)]

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once, OnceLock, PoisonError};

use memmap2::{Mmap, MmapMut, MmapOptions};
use nix::libc;
use rayon::prelude::*;

use crate::error::{Error, Reason, Result};
use crate::ids::ByteOffset;
use crate::interrupt::{self, Interrupt};

/// A regular file mapped read-only, or bytes in memory.
#[derive(Debug)]
pub struct Map {
    path: PathBuf,
    content: Content,
    /// Length of the file in bytes: more than [`Map::bytes`] if the file ends in a long hole.
    file_len: u64,
    /// Parts of the content, with their CRC-32C at the first read.
    sums: Vec<(Range<usize>, u32)>,
}

#[derive(Debug)]
enum Content {
    Mapped(Guarded),
    Copied(Mmap),
    /// Bytes in memory; also an empty file, which cannot be mapped.
    Held(Vec<u8>),
}

/// A map of a file, registered with the signal handler.
#[derive(Debug)]
struct Guarded {
    // Order of drop: the handler unregisters the region before it is unmapped.
    guard: Guard,
    map: Mmap,
}

impl Map {
    /// Maps the first `len` bytes of a file of `file_len` bytes. All bytes after them are zero.
    ///
    /// # Errors
    /// [`Reason::Unreadable`] if the file cannot be mapped.
    pub(super) fn of(path: &Path, file: &File, len: usize, file_len: u64) -> Result<Map> {
        let content = if len == 0 {
            Content::Held(Vec::new())
        } else {
            // SAFETY: the map is read-only and private to this process. Its bytes are read as `&[u8]` only, for which
            // any content is valid. Another process may change or truncate the file, which nothing can prevent. The
            // module documentation says how that is detected.
            let map = unsafe { MmapOptions::new().len(len).map(file) };
            let map = map.map_err(|e| Error::io(Reason::Unreadable, path, "map", e))?;
            Content::Mapped(Guarded { guard: Guard::of(&map), map })
        };
        Ok(Map { path: path.to_path_buf(), content, file_len, sums: Vec::new() })
    }

    /// Creates a map from bytes in memory, with the name of a file.
    pub fn held(path: &Path, bytes: Vec<u8>) -> Map {
        let file_len = bytes.len() as u64;
        Map { path: path.to_path_buf(), content: Content::Held(bytes), file_len, sums: Vec::new() }
    }

    /// Creates a map from a copy of the first bytes of a file of `file_len` bytes. All bytes after them are zero.
    /// Unwritten pages are zero and use no memory.
    ///
    /// # Errors
    /// [`Reason::Unreadable`] if the memory cannot be made read-only.
    pub(super) fn copied(path: &Path, copy: MmapMut, file_len: u64) -> Result<Map> {
        let copy = copy.make_read_only().map_err(|e| Error::io(Reason::Unreadable, path, "hold in memory", e))?;
        Ok(Map { path: path.to_path_buf(), content: Content::Copied(copy), file_len, sums: Vec::new() })
    }

    /// Returns the content of the file, without a long hole at its end.
    pub fn bytes(&self) -> &[u8] {
        match &self.content {
            Content::Mapped(guarded) => &guarded.map,
            Content::Copied(map) => map,
            Content::Held(bytes) => bytes,
        }
    }

    /// Returns the path of the file, for errors.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the length of the file in bytes. All bytes after [`Map::bytes`] are zero.
    pub fn file_len(&self) -> u64 {
        self.file_len
    }

    /// Returns whether other processes can change the bytes.
    pub(super) fn is_mapped(&self) -> bool {
        matches!(self.content, Content::Mapped(_))
    }

    /// Computes the CRC-32C of a part of the file. [`Map::check_bytes`] compares it with the bytes at that time.
    ///
    /// # Errors
    /// An interruption.
    pub(super) fn checksum(&mut self, part: Range<usize>, interrupt: Interrupt<'_>) -> Result<u32> {
        let crc = self.crc(&part, interrupt)?;
        if self.is_mapped() {
            self.sums.push((part, crc));
        }
        Ok(crc)
    }

    fn crc(&self, part: &Range<usize>, interrupt: Interrupt<'_>) -> Result<u32> {
        let bytes = self.bytes().get(part.clone()).unwrap_or_default();
        interrupt.expect(bytes.len() as u64);
        let crc = |chunk: &[u8]| {
            interrupt.ask()?;
            let crc = crc32c::crc32c(chunk);
            interrupt.done(chunk.len() as u64);
            Ok((crc, chunk.len()))
        };
        let crcs: Vec<(u32, usize)> = bytes.par_chunks(interrupt::CHUNK).map(crc).collect::<Result<_>>()?;
        Ok(crcs.into_iter().fold(0, |before, (crc, len)| crc32c::crc32c_combine(before, crc, len)))
    }

    /// Checks that the bytes equal those of the first read. Reads all of them again.
    ///
    /// # Errors
    /// [`Reason::ChangedWhileReading`]; an interruption.
    pub fn check_bytes(&self, interrupt: Interrupt<'_>) -> Result<()> {
        for (part, expected) in &self.sums {
            let found = self.crc(part, interrupt)?;
            if found != *expected {
                let message = format!(
                    "{} bytes from here on changed while they were being read (CRC-32C {expected:08x} before, {found:08x} now)",
                    part.len()
                );
                let error = Error::new(Reason::ChangedWhileReading, message);
                return Err(error.at(ByteOffset(part.start as u64)).in_file(&self.path));
            }
        }
        Ok(())
    }

    /// Returns the faults of the map; `None` if other processes cannot change the bytes.
    pub(super) fn faults(&self) -> Option<Faults> {
        match &self.content {
            Content::Mapped(guarded) => Some(guarded.guard.faults.clone()),
            Content::Copied(_) | Content::Held(_) => None,
        }
    }
}

/// A record of unreadable pages of a map. It outlives the map.
#[derive(Debug, Clone)]
pub struct Faults(Arc<Slot>);

impl Faults {
    /// Returns the offset of the first page that was unreadable and reads as zeros.
    pub fn first(&self) -> Option<u64> {
        self.0.0.lost.load(Ordering::SeqCst).checked_sub(1).map(|offset| offset as u64)
    }
}

/// A region that the signal handler covers until this value is dropped.
#[derive(Debug)]
struct Guard {
    faults: Faults,
}

impl Guard {
    fn of(map: &[u8]) -> Guard {
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(install);
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let region = free.unwrap_or_else(Region::append);
        let start = map.as_ptr().addr();
        region.lost.store(0, Ordering::SeqCst);
        region.end.store(start + map.len(), Ordering::SeqCst);
        region.start.store(start, Ordering::SeqCst);
        Guard { faults: Faults(Arc::new(Slot(region))) }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let region = self.faults.0.0;
        region.start.store(0, Ordering::SeqCst);
        region.end.store(0, Ordering::SeqCst);
    }
}

/// A region of the list, which is free again after the drop.
#[derive(Debug)]
struct Slot(&'static Region);

impl Drop for Slot {
    fn drop(&mut self) {
        FREE.lock().unwrap_or_else(PoisonError::into_inner).push(self.0);
    }
}

/// An element of a list that only grows, so the handler can walk it at any time.
#[derive(Debug, Default)]
struct Region {
    /// First address; 0 if the region is free.
    start: AtomicUsize,
    /// Address after the last byte.
    end: AtomicUsize,
    /// 1 + offset of the first fault; 0 without a fault.
    lost: AtomicUsize,
    next: AtomicPtr<Region>,
}

static FIRST: AtomicPtr<Region> = AtomicPtr::new(ptr::null_mut());
static FREE: Mutex<Vec<&'static Region>> = Mutex::new(Vec::new());
static PAGE: AtomicUsize = AtomicUsize::new(4096);
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

impl Region {
    fn append() -> &'static Region {
        let region: &'static mut Region = Box::leak(Box::default());
        let new = ptr::from_mut(region);
        let mut first = FIRST.load(Ordering::SeqCst);
        loop {
            // SAFETY: `new` was leaked, so it is valid forever; no other thread has it before the exchange.
            unsafe { &*new }.next.store(first, Ordering::SeqCst);
            match FIRST.compare_exchange(first, new, Ordering::SeqCst, Ordering::SeqCst) {
                // SAFETY: as above. From here on only shared references to it exist.
                Ok(_) => return unsafe { &*new },
                Err(other) => first = other,
            }
        }
    }

    /// Returns the region that contains an address, with its bounds. Uses only operations that a signal handler may
    /// use.
    fn find(address: usize) -> Option<(&'static Region, usize, usize)> {
        let mut next = FIRST.load(Ordering::SeqCst);
        // SAFETY: every pointer of the list is null or points to a leaked region.
        while let Some(region) = unsafe { next.as_ref() } {
            let start = region.start.load(Ordering::SeqCst);
            let end = region.end.load(Ordering::SeqCst);
            // Another map that takes the region meanwhile has another start.
            let unchanged = region.start.load(Ordering::SeqCst) == start;
            if start != 0 && unchanged && (start..end).contains(&address) {
                return Some((region, start, end));
            }
            next = region.next.load(Ordering::SeqCst);
        }
        None
    }
}

fn install() {
    // SAFETY: `sysconf` has no preconditions. Both structures are plain data, valid when zeroed, and live through the
    // calls. The handler has the signature that SA_SIGINFO requires.
    unsafe {
        if let Ok(page) = usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)) {
            PAGE.store(page, Ordering::SeqCst);
        }
        let mut before: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGBUS, ptr::null(), &mut before) != 0 {
            return;
        }
        BEFORE.get_or_init(|| before);
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_bus_error as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&mut action.sa_mask);
        libc::sigaction(libc::SIGBUS, &action, ptr::null_mut());
    }
}

/// Replaces pages that a mapped file no longer has with zeros, and records the fault. For any other address it restores
/// the previous handler: the instruction runs again and fails again.
extern "C" fn on_bus_error(signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid `info`. Nothing here allocates or locks: `find` reads atomics, and `mmap`,
    // `sigaction` and `raise` are system calls. The replaced pages are in a live map of this process, which holds no
    // references that assume their content.
    unsafe {
        let errno = *libc::__errno_location();
        let sent = (*info).si_code <= 0;
        let address = (*info).si_addr().addr();
        let region = if sent { None } else { Region::find(address) };
        if let Some((region, start, end)) = region {
            let from = address & !(PAGE.load(Ordering::SeqCst) - 1);
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
            let at = ptr::with_exposed_provenance_mut(from);
            if libc::mmap(at, end - from, libc::PROT_READ, flags, -1, 0) != libc::MAP_FAILED {
                let offset = from.max(start) - start;
                let _ = region.lost.compare_exchange(0, 1 + offset, Ordering::SeqCst, Ordering::SeqCst);
                *libc::__errno_location() = errno;
                return;
            }
        }
        match BEFORE.get() {
            Some(before) => libc::sigaction(signal, before, ptr::null_mut()),
            None => 0,
        };
        if sent {
            libc::raise(signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    fn map(len: usize) -> (tempfile::NamedTempFile, Map) {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all_at(&vec![7; len], 0).unwrap();
        let map = Map::of(file.path(), file.as_file(), len, len as u64).unwrap();
        (file, map)
    }

    #[test]
    fn a_truncated_file_reads_as_zeros_and_says_where() {
        let (file, map) = map(100_000);
        let faults = map.faults().unwrap();
        assert_eq!((map.bytes()[99_999], faults.first()), (7, None));
        file.as_file().set_len(5000).unwrap();
        assert!(map.bytes()[8192..].iter().all(|byte| *byte == 0));
        assert_eq!(faults.first(), Some(8192));
        assert_eq!(map.bytes()[..5000], [7; 5000]);
        drop(map);
        assert_eq!(faults.first(), Some(8192), "the map is gone, what happened to it is known");
    }

    #[test]
    fn one_of_many_maps_is_truncated() {
        let mut maps: Vec<_> = (1..20).map(|pages| map(pages * 10_000)).collect();
        // Regions are reused.
        maps.drain(5..9);
        maps.extend((1..5).map(|pages| map(pages * 10_000)));
        for (number, (file, map)) in maps.iter().enumerate() {
            if number % 3 == 0 {
                file.as_file().set_len(0).unwrap();
            }
            let sum: u64 = map.bytes().iter().map(|byte| u64::from(*byte)).sum();
            let lost = number % 3 == 0;
            assert_eq!(map.faults().unwrap().first(), lost.then_some(0), "map {number}");
            assert_eq!(sum, if lost { 0 } else { 7 * map.bytes().len() as u64 });
        }
    }

    #[test]
    fn bytes_that_change_are_found() {
        let (file, mut map) = map(10_000);
        let crc = map.checksum(0..10_000, Interrupt::default()).unwrap();
        assert_eq!(crc, crc32c::crc32c(&[7; 10_000]));
        map.check_bytes(Interrupt::default()).unwrap();
        file.as_file().write_all_at(&[8], 9_000).unwrap();
        let error = map.check_bytes(Interrupt::default()).unwrap_err();
        assert_eq!((error.reason(), error.offset()), (Reason::ChangedWhileReading, Some(ByteOffset(0))));
        file.as_file().write_all_at(&[7], 9_000).unwrap();
        map.check_bytes(Interrupt::default()).unwrap();
    }
}
