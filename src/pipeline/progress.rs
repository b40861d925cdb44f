//! The progress of a run, for a caller that shows it. Must not know how it is shown.

use crate::interrupt::Interrupted;

/// A receiver of a run's progress. Any thread may call it.
pub trait Observer: Sync {
    /// Reports that a stage begins, and how many bytes it processes, if that is known.
    fn stage(&self, _name: &'static str, _bytes: Option<u64>) {}

    /// Reports that the stage has processed this many more bytes.
    fn advance(&self, _bytes: u64) {}
}

/// Ignores all progress.
impl Observer for () {}

/// The observer and the interruption of a run.
pub(super) struct Run<'a> {
    pub(super) observer: &'a dyn Observer,
    pub(super) interrupted: Interrupted<'a>,
}
