//! The report of a conversion, on its way to a file or to standard output.
//!
//! It is complete before the output gets its name, so that no output exists without its report. A failed run writes its
//! report too. Must not know what the report contains, or the terminal: the caller gives the function that prints.

use super::targets;
use crate::error::{Error, Reason, Result};
use crate::options::ConvertOptions;
use crate::output::report_file::{Place, to_json};
use crate::output::sidecar::Sidecar;
use crate::report::Report;

/// A function that writes to standard output.
type Print<'a> = &'a dyn Fn(&[u8]) -> Result<()>;

/// The destination of the report, and whether it was written.
pub struct Reporter<'a> {
    to: To<'a>,
    sent: Sent,
}

enum To<'a> {
    Nowhere,
    StandardOutput(Print<'a>),
    Place(Place),
}

enum Sent {
    Nothing,
    /// It cannot be written, and the error of the run says so.
    Failed,
    /// It is on standard output already.
    Printed,
}

/// What became of the report of a failed run.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    /// It says how the run failed; or the run has no report, or its error says why the report is missing.
    Yes,
    /// It was printed before the run failed, and describes an output that does not exist.
    TooEarly,
}

impl<'a> Reporter<'a> {
    /// Creates a reporter that prints the report.
    pub fn on_standard_output(print: Print<'a>) -> Self {
        Reporter { to: To::StandardOutput(print), sent: Sent::Nothing }
    }

    /// Creates a reporter that writes the report to a file, or to none.
    pub fn at(place: Option<Place>) -> Self {
        Reporter { to: place.map_or(To::Nowhere, To::Place), sent: Sent::Nothing }
    }

    /// Writes the report of a run whose files have no names yet. The returned file gets its name together with them.
    ///
    /// # Errors
    /// The operating system fails.
    pub fn prepare(&mut self, report: &Report) -> Result<Option<Sidecar>> {
        let prepared = self.write(report);
        if let Err(e) = &prepared
            && e.reason() != Reason::OutputExists
        {
            self.sent = Sent::Failed;
        }
        prepared
    }

    /// Ends the report of a run that has failed, and writes it.
    ///
    /// # Errors
    /// The path of the report leads into the source by now; the operating system fails.
    pub fn fail(&mut self, options: &ConvertOptions, report: &mut Report, error: &Error) -> Result<Told> {
        report.end(error.kind().exit_code(), Some(error));
        match self.sent {
            Sent::Failed => return Ok(Told::Yes),
            Sent::Printed => return Ok(Told::TooEarly),
            Sent::Nothing => targets::targets(options).check_named("report")?,
        }
        self.write(report)?.map_or(Ok(()), |file| file.name().map(drop))?;
        Ok(Told::Yes)
    }

    /// Returns why the report of an earlier run stays, if it stays.
    pub fn unchanged_reason(&self, report: &Report) -> Option<String> {
        let To::Place(place) = &self.to else { return None };
        if !matches!(place.takes(report.made()), Ok(false)) {
            return None;
        }
        let why = match report.made() {
            Some(_) => "describes the same output",
            None => "is the report of an output that an earlier run made",
        };
        Some(format!("{}: this run's report is not written: the file {why}", place.path().display()))
    }

    fn write(&mut self, report: &Report) -> Result<Option<Sidecar>> {
        match &self.to {
            To::Nowhere => Ok(None),
            To::StandardOutput(print) => {
                print(&to_json(report)?)?;
                self.sent = Sent::Printed;
                Ok(None)
            }
            To::Place(place) if !place.takes(report.made())? => Ok(None),
            To::Place(place) => place.write(&to_json(report)?).map(Some),
        }
    }
}
