//! The context of a conversion, which every stage gets: the options, the progress, the interruption, and the clock.
//!
//! Must not know how progress is shown, or what a stage does.

use std::sync::Mutex;

use jiff::Timestamp;

use super::clock::{Begun, Spent};
use crate::error::{Error, Reason, Result};
use crate::interrupt::Interrupt;
use crate::options::ConvertOptions;
use crate::report::{Report, Stage, StageName};
use crate::words::words;

words! {
    /// What a run does at one of its stages, as progress shows it.
    pub enum Activity {
        /// Opens the sources.
        Opening = "opening",
        /// Reads the snapshot and hashes all files.
        Reading = "reading",
        /// Applies the log.
        Replaying = "replaying",
        /// Decides what is written.
        Planning = "planning",
        /// Writes the output.
        Writing = "writing",
        /// Reads the output back and compares it.
        Verifying = "verifying",
        /// Writes the ledger.
        Ledger = "ledger",
        /// Writes the index map.
        IndexMap = "index map",
        /// Checks that the source has not changed.
        CheckingSource = "checking",
        /// Makes the directories of members, and the report.
        Finishing = "finishing",
    }
}

impl Activity {
    /// All activities, in the order of a run that has each of them.
    pub const ALL: [Activity; 10] = [
        Activity::Opening,
        Activity::Reading,
        Activity::Replaying,
        Activity::Planning,
        Activity::Writing,
        Activity::Verifying,
        Activity::Ledger,
        Activity::IndexMap,
        Activity::CheckingSource,
        Activity::Finishing,
    ];
}

/// A receiver of a run's progress. Any thread may call it.
pub trait Observer: Sync {
    /// Reports that a stage begins. Nothing is known of its bytes yet.
    fn stage(&self, _activity: Activity) {}

    /// Reports that the stage will process this many more bytes. They are what was announced so far, not necessarily all.
    fn expect(&self, _bytes: u64) {}

    /// Reports that the stage has processed this many more bytes. The sum can differ a little from the announced one.
    fn advance(&self, _bytes: u64) {}

    /// Reports that all stages have ended.
    fn end(&self) {}
}

/// Ignores all progress.
impl Observer for () {}

/// The context of a conversion.
pub(super) struct Context<'a> {
    pub(super) options: &'a ConvertOptions,
    /// The instant against which TTLs count; `None` if the data determines it (`--as-of last-write`).
    pub(super) as_of: Option<Timestamp>,
    pub(super) observer: &'a dyn Observer,
    pub(super) interrupt: Interrupt<'a>,
    times: Mutex<Vec<Stage>>,
}

impl<'a> Context<'a> {
    /// Creates the context of a run that a report describes.
    ///
    /// # Errors
    /// [`Reason::ReportUnusable`] if the report has no valid instant.
    pub(super) fn new(
        options: &'a ConvertOptions,
        report: &Report,
        observer: &'a dyn Observer,
        interrupt: Interrupt<'a>,
    ) -> Result<Context<'a>> {
        let unreadable = |_| Error::new(Reason::ReportUnusable, "the instant in the report cannot be read");
        let as_of = match report.as_of.as_str() {
            "" => None,
            instant => Some(instant.parse().map_err(unreadable)?),
        };
        Ok(Context { options, as_of, observer, interrupt, times: Mutex::default() })
    }

    /// Creates the context for a part of this run with other options.
    ///
    /// # Errors
    /// As [`Context::new`].
    pub(super) fn with<'b>(&'b self, options: &'b ConvertOptions, report: &Report) -> Result<Context<'b>> {
        Context::new(options, report, self.observer, self.interrupt)
    }

    /// Records the time of a stage that began at `started`.
    pub(super) fn took(&self, stage: StageName, started: Begun) {
        self.spent(stage, &started.elapsed());
    }

    /// Records the time of a stage.
    pub(super) fn spent(&self, stage: StageName, spent: &Spent) {
        let stage = Stage::new(stage, spent.wall, spent.cpu, spent.threads.values().copied());
        self.times.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(stage);
    }

    /// Returns the time of each stage, in the order in which they ended.
    pub(super) fn times(self) -> Vec<Stage> {
        self.times.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
