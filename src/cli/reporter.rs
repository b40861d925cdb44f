//! The report of a conversion on its way to where the command line wants it.
//!
//! It is written whole before the output gets its name, so that no output appears whose report cannot be had. Decides nothing
//! about what stands in it.

use super::{exit, print};
use crate::error::{Reason, Result};
use crate::output::report_file::{Place, to_json};
use crate::output::sidecar::Sidecar;
use crate::report::Report;

/// Where the report goes, and how far that got.
#[derive(Debug)]
pub struct Reporter {
    to: To,
    sent: Sent,
}

#[derive(Debug)]
enum To {
    Nowhere,
    StandardOutput,
    Place(Place),
}

#[derive(Debug)]
enum Sent {
    Nothing,
    /// It cannot be written; the error says so.
    Failed,
    /// Whoever reads standard output has it already.
    Gone,
}

impl Reporter {
    /// A report on standard output.
    pub fn on_standard_output() -> Reporter {
        Reporter { to: To::StandardOutput, sent: Sent::Nothing }
    }

    /// A report in a file, or none.
    pub fn at(place: Option<Place>) -> Reporter {
        Reporter { to: place.map_or(To::Nowhere, To::Place), sent: Sent::Nothing }
    }

    /// Writes the report of a run that has all but the names of its files. What is returned is to get its name with them.
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

    /// Writes the report of a run that has failed, as far as there is somewhere to write it. Says on standard error where
    /// there is not.
    /// `check` is asked whether its place is still one.
    pub fn tell_failure(&mut self, report: &Report, check: &dyn Fn() -> Result<()>) {
        let written = match &self.sent {
            Sent::Nothing => check().and_then(|()| self.write(report)),
            Sent::Failed => return,
            Sent::Gone => {
                exit::say(
                    "etcdlift: the report was sent before this error, and tells of an output that does not exist\n",
                );
                return;
            }
        };
        let named = written.and_then(|file| file.map_or(Ok(()), |file| file.name().map(drop)));
        if let Err(e) = named {
            exit::fail(&e);
        }
    }

    /// Says that no report is written, and why, where an earlier one stays.
    pub fn tell_kept(&self, report: &Report) {
        let To::Place(place) = &self.to else { return };
        if let Ok(false) = place.takes(report.made()) {
            let why = match report.made() {
                Some(_) => "tells of the same output",
                None => "is the report of an output that an earlier run made",
            };
            let path = place.path().display();
            exit::say_line(&format!("{path}: this run's report is not written: the file {why}"));
        }
    }

    fn write(&mut self, report: &Report) -> Result<Option<Sidecar>> {
        match &self.to {
            To::Nowhere => Ok(None),
            To::StandardOutput => {
                print(&to_json(report)?)?;
                self.sent = Sent::Gone;
                Ok(None)
            }
            To::Place(place) if !place.takes(report.made())? => Ok(None),
            To::Place(place) => place.write(&to_json(report)?).map(Some),
        }
    }
}
