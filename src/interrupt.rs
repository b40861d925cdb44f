//! A test whether the run was interrupted, which all long operations call, and the count of the bytes that they process.
//!
//! A test costs one relaxed load. So loops call it for each record, entry or node that costs more, and from time to
//! time otherwise. Must not know signals, or how progress is shown.

use std::fmt;

use rayon::slice::ParallelSliceMut;

use crate::error::Result;

/// A function that long operations call from time to time; an error ends the run. Any thread may call it.
pub type Interrupted<'a> = &'a (dyn Fn() -> Result<()> + Sync);

/// Bytes that are hashed, searched or copied between two tests.
pub const CHUNK: usize = 16 << 20;

/// Bytes of a JSON document that are read between two tests: the densest of them take a few milliseconds.
pub const DOCUMENT_CHUNK: usize = 1 << 20;

/// Number of elements that are sorted between two tests. Sorting them takes well under a second.
const SORTED_AT_ONCE: usize = 1 << 21;

/// Bytes of the current stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bytes {
    /// The stage will process this many more.
    Expected(u64),
    /// The stage has processed this many more.
    Done(u64),
}

/// A function that counts the bytes of the current stage. Any thread may call it.
pub type Progress<'a> = &'a (dyn Fn(Bytes) + Sync);

/// The test as a value for options. The default is never interrupted, and counts nothing.
#[derive(Clone, Copy, Default)]
pub struct Interrupt<'a> {
    interrupted: Option<Interrupted<'a>>,
    progress: Option<Progress<'a>>,
}

impl<'a> Interrupt<'a> {
    /// Creates a test from a function.
    pub fn new(interrupted: Interrupted<'a>) -> Interrupt<'a> {
        Interrupt { interrupted: Some(interrupted), progress: None }
    }

    /// Returns the same test with a function that counts bytes.
    #[must_use]
    pub fn counted(self, progress: Progress<'a>) -> Interrupt<'a> {
        Interrupt { progress: Some(progress), ..self }
    }

    /// Returns the same test without a function that counts bytes: for work that no stage announced.
    #[must_use]
    pub fn uncounted(self) -> Interrupt<'a> {
        Interrupt { progress: None, ..self }
    }

    /// Announces bytes that the current stage will process.
    pub fn expect(self, bytes: u64) {
        self.progress.into_iter().for_each(|progress| progress(Bytes::Expected(bytes)));
    }

    /// Counts bytes that the current stage has processed.
    pub fn done(self, bytes: u64) {
        self.progress.into_iter().for_each(|progress| progress(Bytes::Done(bytes)));
    }

    /// Tests for an interruption.
    ///
    /// # Errors
    /// The interruption.
    pub fn ask(self) -> Result<()> {
        self.interrupted.map_or(Ok(()), |interrupted| interrupted())
    }

    /// Tests at every 4096th step, for steps shorter than a microsecond.
    ///
    /// # Errors
    /// The interruption.
    pub fn ask_at(self, step: usize) -> Result<()> {
        if step.is_multiple_of(1 << 12) { self.ask() } else { Ok(()) }
    }

    /// Sorts in parallel, in parts of at most `SORTED_AT_ONCE`. Equal elements can change their order.
    ///
    /// # Errors
    /// The interruption; then the elements are in an undefined order.
    pub fn sort_by<T: Send>(
        self,
        elements: &mut [T],
        compare: impl Fn(&T, &T) -> std::cmp::Ordering + Sync + Copy,
    ) -> Result<()> {
        self.ask()?;
        if elements.len() <= SORTED_AT_ONCE {
            elements.par_sort_unstable_by(compare);
            return Ok(());
        }
        let half = elements.len() / 2;
        let (low, _, high) = elements.select_nth_unstable_by(half, compare);
        self.sort_by(low, compare)?;
        self.sort_by(high, compare)
    }
}

impl fmt::Debug for Interrupt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.interrupted.is_some() { "Interrupt" } else { "Interrupt(never)" })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::error::{Error, Reason};

    #[test]
    fn sorts_in_parts_as_in_one_and_asks_before_each() {
        let mut elements: Vec<u64> = (0..5 << 20).map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44).collect();
        let mut expected = elements.clone();
        expected.sort_unstable();
        let asked = AtomicUsize::new(0);
        let count = || {
            asked.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        Interrupt::new(&count).sort_by(&mut elements, Ord::cmp).unwrap();
        assert!(elements == expected);
        assert_eq!(asked.into_inner(), 7, "four parts, and three times what is cut in two");
        let stop = || Err(Error::new(Reason::Interrupted(2), "stop"));
        assert!(Interrupt::new(&stop).sort_by(&mut elements, Ord::cmp).is_err());
    }
}
