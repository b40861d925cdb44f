//! The entry points of the library: one function for each command, and [`Run`] for progress and interruption.
//!
//! Must not know how a stage works.

use std::fmt;
use std::path::Path;

use crate::error::{Error, Reason, Result};
use crate::export::index_map;
pub use crate::export::index_map::Query;
use crate::interrupt::Interrupted;
use crate::options::{
    AdviseOptions, CheckOptions, CleanOptions, CompareOptions, ConvertOptions, ExportOptions, InspectOptions,
    VerifyOptions, WalOptions,
};
use crate::output::report_file::Place;
use crate::pipeline::{self, Observer, Outcome, Reporter};
use crate::report::inspection::EntryLine;
use crate::report::lookup::Answer;
use crate::report::{Advice, Cleaning, Comparison, Exported, Inspection, Report, UpgradeCheck, Verification};

/// A conversion that has made its output.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Conversion {
    /// Whether anything may be missing from the output.
    pub outcome: Outcome,
    /// What was read and written: totals, warnings, losses, next steps.
    pub report: Report,
}

/// Converts a v2 source into a v3 database or snapshot file.
///
/// The output appears whole and verified, or not at all. The report goes to [`ConvertOptions::report`], if that is set.
///
/// # Errors
/// Every failure to make the output, see [`Reason`](crate::error::Reason). Then no file of the run remains, except the report.
///
/// # Examples
/// ```
/// use etcdlift::Outcome;
/// use etcdlift::options::ConvertOptions;
///
/// # fn main() -> etcdlift::error::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let output = dir.path().join("snapshot.db");
/// let options = ConvertOptions::new("fixtures/demo/input/default.etcd", &output);
/// let conversion = etcdlift::convert(&options)?;
/// assert_eq!(conversion.outcome, Outcome::Complete);
/// assert_eq!(conversion.report.balance.written.keys, 19);
/// # Ok(())
/// # }
/// ```
pub fn convert(options: &ConvertOptions) -> Result<Conversion> {
    Run::new().convert(options)
}

/// Inspects a v2 source, a v3 database or a snapshot file.
///
/// # Errors
/// The source is not etcd data, is damaged, or cannot be read.
///
/// # Examples
/// ```
/// use etcdlift::options::InspectOptions;
///
/// # fn main() -> etcdlift::error::Result<()> {
/// let found = etcdlift::inspect(&InspectOptions::new("fixtures/demo/input/default.etcd"))?;
/// assert_eq!(found.path, "fixtures/demo/input/default.etcd");
/// # Ok(())
/// # }
/// ```
pub fn inspect(options: &InspectOptions) -> Result<Inspection> {
    Run::new().inspect(options)
}

/// Compares the data directories of members of one cluster: whether they have converged, and which one to convert.
///
/// # Errors
/// A source is not the data directory of a member with its log; the sources are not different members of one cluster;
/// none of them can be read. A difference is not an error: see [`Comparison::verdict`]. The same holds for damage in
/// some of the sources.
///
/// # Examples
/// ```
/// use etcdlift::options::CompareOptions;
/// use etcdlift::report::comparison::Verdict;
///
/// # fn main() -> etcdlift::error::Result<()> {
/// let (one, two) = ("fixtures/members/m0.etcd", "fixtures/members/m1.etcd");
/// let comparison = etcdlift::compare(&CompareOptions::new([one, two]))?;
/// assert_eq!(comparison.verdict, Verdict::Converged);
/// assert_eq!(comparison.convert.as_deref(), Some(one));
/// # Ok(())
/// # }
/// ```
pub fn compare(options: &CompareOptions) -> Result<Comparison> {
    Run::new().compare(options)
}

/// Checks whether an etcd version would start on the data directories of members, and lists all v2 content that prevents it.
///
/// # Errors
/// No source is the data directory of a member with its log and a v3 backend, or none can be read. A blocker is not an error: see
/// [`UpgradeCheck::verdict`]. The same holds for an error in some of the sources.
///
/// # Examples
/// ```
/// use etcdlift::options::{CheckOptions, UpgradeTarget};
/// use etcdlift::report::upgrade_check::Verdict;
///
/// # fn main() -> etcdlift::error::Result<()> {
/// let options = CheckOptions::new(["fixtures/upgrade-check/input/default.etcd"]).target(UpgradeTarget::V3_6);
/// let found = etcdlift::check(&options)?;
/// assert_eq!(found.verdict, Verdict::SnapshotAndWal);
/// assert_eq!(found.sources[0].blockers.nodes[0].path, "/1/config/db/host");
/// # Ok(())
/// # }
/// ```
pub fn check(options: &CheckOptions) -> Result<UpgradeCheck> {
    Run::new().check(options)
}

/// Advises on a v2 source: what in its data relies on v2 behaviour that v3 does not have, and what to do in v3 instead.
///
/// Several sources are the data directories of members of one cluster, and are read as one.
///
/// # Errors
/// The source has no v2 data, is damaged, or cannot be read. A possibly incomplete source is not an error: see
/// [`Advice::warnings`].
///
/// # Examples
/// ```
/// use etcdlift::options::AdviseOptions;
/// use etcdlift::report::advice::Topic;
///
/// # fn main() -> etcdlift::error::Result<()> {
/// let advice = etcdlift::advise(&AdviseOptions::new(["fixtures/demo/input/default.etcd"]))?;
/// let hidden = advice.finding(Topic::HiddenKey);
/// assert_eq!(hidden.map(|finding| finding.count), Some(2));
/// # Ok(())
/// # }
/// ```
pub fn advise(options: &AdviseOptions) -> Result<Advice> {
    Run::new().advise(options)
}

/// Copies the data directories of members without their v2 content: the same v3 data and the same identity, a fresh log.
///
/// The output appears whole and checked, or not at all. The report goes to [`CleanOptions::report`], if that is set.
///
/// # Errors
/// A source is damaged, is in use, or has no v3 data; the sources are not members of one cluster; the output exists or cannot be
/// written. Then no file of the run remains.
///
/// # Examples
/// ```
/// use etcdlift::options::CleanOptions;
///
/// # fn main() -> etcdlift::error::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let output = dir.path().join("clean.etcd");
/// let options = CleanOptions::new(["fixtures/upgrade-check/input/default.etcd"], &output);
/// let cleaning = etcdlift::clean(&options)?;
/// assert!(!cleaning.members[0].removed_nodes.is_empty());
/// # Ok(())
/// # }
/// ```
pub fn clean(options: &CleanOptions) -> Result<Cleaning> {
    Run::new().clean(options)
}

/// Checks a v3 database or snapshot file. Also compares it with the report and the source of its conversion, if the
/// options name them.
///
/// # Errors
/// A file cannot be read. A difference is not an error: see [`Verification::differences`].
///
/// # Examples
/// ```
/// use etcdlift::options::{ConvertOptions, VerifyOptions};
///
/// # fn main() -> etcdlift::error::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let output = dir.path().join("snapshot.db");
/// # etcdlift::convert(&ConvertOptions::new("fixtures/demo/input/default.etcd", &output))?;
/// let verification = etcdlift::verify(&VerifyOptions::new(&output))?;
/// assert!(verification.differences.is_empty());
/// # Ok(())
/// # }
/// ```
pub fn verify(options: &VerifyOptions) -> Result<Verification> {
    Run::new().verify(options)
}

/// Writes the keys of a v2 source or of a v3 database into a file for other programs. [`ExportOptions::output`] names
/// the file.
///
/// # Errors
/// Those of a conversion of the same source; the output cannot be written, or the options name none.
///
/// # Examples
/// ```
/// use etcdlift::options::ExportOptions;
///
/// # fn main() -> etcdlift::error::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let output = dir.path().join("keys.ndjson");
/// let exported = etcdlift::export(&ExportOptions::new("fixtures/demo/input/default.etcd", &output))?;
/// assert!(exported.bytes > 0);
/// # Ok(())
/// # }
/// ```
pub fn export(options: &ExportOptions) -> Result<Exported> {
    Run::new().export(options)
}

/// Finds the v3 revision of a v2 index in an index map, or the other way round.
///
/// # Errors
/// The file does not exist, is not an index map, or is damaged. An answer without pairs is not an error: see
/// [`Answer::note`].
///
/// # Examples
/// ```
/// use etcdlift::Query;
/// use etcdlift::options::ConvertOptions;
///
/// # fn main() -> etcdlift::error::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let (output, map) = (dir.path().join("snapshot.db"), dir.path().join("map.redb"));
/// let mut options = ConvertOptions::new("fixtures/demo/input/default.etcd", &output);
/// options.index_map = Some(map.clone());
/// etcdlift::convert(&options)?;
/// let answer = etcdlift::lookup(&map, &Query::V2Index(51))?;
/// assert_eq!(answer.map.v2_index, 51);
/// # Ok(())
/// # }
/// ```
pub fn lookup(index_map: &Path, query: &Query) -> Result<Answer> {
    Ok(Answer::new(index_map, query, &index_map::lookup(index_map, query)?))
}

/// The entry points with progress and interruption.
///
/// # Examples
/// ```
/// use std::time::{Duration, Instant};
///
/// use etcdlift::error::{Error, Reason, Result};
/// use etcdlift::options::ConvertOptions;
/// use etcdlift::{Activity, Observer, Outcome, Run};
///
/// struct Print;
///
/// impl Observer for Print {
///     fn stage(&self, activity: Activity) {
///         println!("{activity}");
///     }
/// }
///
/// # fn main() -> Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let output = dir.path().join("snapshot.db");
/// let end = Instant::now() + Duration::from_secs(600);
/// let in_time = || match Instant::now() < end {
///     true => Ok(()),
///     false => Err(Error::new(Reason::Interrupted(15), "the maintenance window is over")),
/// };
/// let options = ConvertOptions::new("fixtures/demo/input/default.etcd", &output);
/// let conversion = Run::new().observed(&Print).interrupted(&in_time).convert(&options)?;
/// assert_eq!(conversion.outcome, Outcome::Complete);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy)]
pub struct Run<'a> {
    observer: &'a dyn Observer,
    interrupted: Interrupted<'a>,
}

impl Default for Run<'_> {
    fn default() -> Self {
        Run { observer: &(), interrupted: &|| Ok(()) }
    }
}

impl fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Run")
    }
}

impl<'a> Run<'a> {
    /// Creates a run without progress and interruption.
    pub fn new() -> Run<'a> {
        Run::default()
    }

    /// Sets the observer of a conversion's stages.
    #[must_use]
    pub fn observed(self, observer: &'a dyn Observer) -> Run<'a> {
        Run { observer, ..self }
    }

    /// Sets the function that interrupts the run: all threads call it often, and its error ends the run.
    #[must_use]
    pub fn interrupted(self, interrupted: Interrupted<'a>) -> Run<'a> {
        Run { interrupted, ..self }
    }

    /// Converts like [`convert`](crate::convert()).
    ///
    /// # Errors
    /// Those of [`convert`](crate::convert()); the interruption.
    pub fn convert(self, options: &ConvertOptions) -> Result<Conversion> {
        let mut report = Report::new(options);
        let outcome = self.convert_into(options, &mut report)?;
        Ok(Conversion { outcome, report })
    }

    /// Converts like [`convert`](crate::convert()), into a report of the caller. A failed run also fills in the report, up to the
    /// failure.
    ///
    /// # Errors
    /// Those of [`convert`](crate::convert()); the interruption.
    ///
    /// # Examples
    /// ```
    /// use etcdlift::Run;
    /// use etcdlift::options::ConvertOptions;
    /// use etcdlift::report::Report;
    ///
    /// # fn main() -> etcdlift::error::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let output = dir.path().join("snapshot.db");
    /// let mut options = ConvertOptions::new("fixtures/demo/input/default.etcd", &output);
    /// options.strict = true;
    /// options.up_to_index = Some(1);
    /// let mut report = Report::new(&options);
    /// let result = Run::new().convert_into(&options, &mut report);
    /// assert!(result.is_err() && report.source.last_entry.is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub fn convert_into(self, options: &ConvertOptions, report: &mut Report) -> Result<Outcome> {
        let targets = pipeline::targets(options);
        targets.check_spelling()?;
        targets.check_named("report")?;
        let mut reporter = Reporter::at(Place::of(options)?);
        let result = self.convert_reported(options, report, &mut reporter);
        if let Err(error) = &result {
            // An error while the report is written must not hide the first error.
            let _ = reporter.fail(options, report, error);
        }
        result
    }

    /// Converts like [`Run::convert_into`], with a reporter of the caller, who calls [`Reporter::fail`] after an error.
    pub(crate) fn convert_reported(
        self,
        options: &ConvertOptions,
        report: &mut Report,
        reporter: &mut Reporter<'_>,
    ) -> Result<Outcome> {
        let staged = pipeline::stage(options, report, self.observer, self.interrupted)?;
        if report.skipped {
            return staged.commit(None);
        }
        report.end(staged.outcome().exit_code(), None);
        self.observer.end();
        let file = reporter.prepare(report)?;
        (self.interrupted)()?;
        staged.commit(file)
    }

    /// Inspects like [`inspect`](crate::inspect()).
    ///
    /// # Errors
    /// Those of [`inspect`](crate::inspect()); the interruption.
    pub fn inspect(self, options: &InspectOptions) -> Result<Inspection> {
        pipeline::inspect(options, self.interrupted)
    }

    /// Lists the entries in the log of a data directory one by one: `print` gets each, so a log of any size takes little memory.
    ///
    /// # Errors
    /// The source has no log; damage, after the entries before it; the interruption; what `print` returned.
    ///
    /// # Examples
    /// ```
    /// use etcdlift::Run;
    /// use etcdlift::options::WalOptions;
    ///
    /// # fn main() -> etcdlift::error::Result<()> {
    /// let mut entries = 0;
    /// Run::new().inspect_wal(&WalOptions::new("fixtures/demo/input/default.etcd"), &mut |_| {
    ///     entries += 1;
    ///     Ok(())
    /// })?;
    /// assert!(entries > 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn inspect_wal(self, options: &WalOptions, print: &mut dyn FnMut(&EntryLine) -> Result<()>) -> Result<()> {
        pipeline::inspect_wal(options, self.interrupted, print)
    }

    /// Compares like [`compare`](crate::compare()).
    ///
    /// # Errors
    /// Those of [`compare`](crate::compare()); the interruption.
    pub fn compare(self, options: &CompareOptions) -> Result<Comparison> {
        pipeline::compare(options, self.interrupted)
    }

    /// Checks like [`check`](crate::check()).
    ///
    /// # Errors
    /// Those of [`check`](crate::check()); the interruption.
    pub fn check(self, options: &CheckOptions) -> Result<UpgradeCheck> {
        pipeline::check(options, self.interrupted)
    }

    /// Advises like [`advise`](crate::advise()).
    ///
    /// # Errors
    /// Those of [`advise`](crate::advise()); the interruption.
    pub fn advise(self, options: &AdviseOptions) -> Result<Advice> {
        pipeline::advise(options, self.interrupted)
    }

    /// Copies like [`clean`](crate::clean()).
    ///
    /// # Errors
    /// Those of [`clean`](crate::clean()); the interruption.
    pub fn clean(self, options: &CleanOptions) -> Result<Cleaning> {
        // An error while the report is written must not hide the first error.
        pipeline::clean(options, self.interrupted, &mut |_| {})
    }

    /// Verifies like [`verify`](crate::verify()).
    ///
    /// # Errors
    /// Those of [`verify`](crate::verify()); the interruption.
    pub fn verify(self, options: &VerifyOptions) -> Result<Verification> {
        pipeline::verify(options, self.interrupted)
    }

    /// Exports like [`export`](crate::export()).
    ///
    /// # Errors
    /// Those of [`export`](crate::export()); the interruption.
    pub fn export(self, options: &ExportOptions) -> Result<Exported> {
        self.export_to(options, &mut |_| {
            let error = Error::new(Reason::Usage, "the options name no output");
            Err(error.hint("set `ExportOptions::output`, or call `Run::export_to`"))
        })
    }

    /// Exports like [`export`](crate::export()). If the options name no output, `print` takes the lines.
    ///
    /// # Errors
    /// Those of [`export`](crate::export()); the interruption; what `print` returned.
    pub fn export_to(self, options: &ExportOptions, print: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<Exported> {
        pipeline::export(options, print, self.interrupted)
    }
}
