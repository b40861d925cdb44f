//! The report of a conversion, on its way to a file or to standard output.
//!
//! It is complete before the output gets its name, so that no output exists without its report. Must not know what the report
//! contains.

use super::{exit, print};
use crate::error::{Reason, Result};
use crate::output::report_file::{Place, to_json};
use crate::output::sidecar::Sidecar;
use crate::report::Report;

/// The place of the report, and whether it is there.
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
    /// It cannot be written, and the error says so.
    Failed,
    /// It is on standard output already.
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

    /// Writes the report of a run that has failed. If that is not possible, standard error says so. `check` decides whether the
    /// place can still be used.
    pub fn tell_failure(&mut self, report: &Report, check: &dyn Fn() -> Result<()>) {
        let written = match &self.sent {
            Sent::Nothing => check().and_then(|()| self.write(report)),
            Sent::Failed => return,
            Sent::Gone => {
                exit::say(
                    "etcdlift: the report was printed before this error, and describes an output that does not exist\n",
                );
                return;
            }
        };
        let named = written.and_then(|file| file.map_or(Ok(()), |file| file.name().map(drop)));
        if let Err(e) = named {
            exit::fail(&e);
        }
    }

    /// Says why the report of an earlier run stays, if it stays.
    pub fn tell_kept(&self, report: &Report) {
        let To::Place(place) = &self.to else { return };
        if let Ok(false) = place.takes(report.made()) {
            let why = match report.made() {
                Some(_) => "describes the same output",
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
