//! The exit policy: the status of a run, and its text on standard error.
//!
//! The kind of the error alone decides the status. A run that succeeds but is possibly incomplete has status 8. Must
//! not know the subcommands.

use std::any::Any;
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Mutex;

use clap::error::ErrorKind;

use super::terminal;
use crate::display::printable;
use crate::error::{Error, Reason, Result};
use crate::pipeline::Outcome;

/// Done and verified, but possibly incomplete.
pub(super) const PARTIAL: u8 = 8;

/// Returns the exit status of a conversion.
pub(super) fn status(result: &Result<Outcome>) -> u8 {
    match result {
        Ok(outcome) => outcome.exit_code(),
        Err(error) => error.kind().exit_code(),
    }
}

/// Prints an error on one line and its hint on the next. Returns the exit status.
pub(super) fn fail(error: &Error) -> u8 {
    let hint = error.hint_text().map_or(String::new(), |hint| format!("hint: {}\n", printable(hint)));
    say(&format!("etcdlift: error: {error}\n{hint}"));
    error.kind().exit_code()
}

/// Creates an error of the command line.
pub(super) fn usage(message: impl Into<String>) -> Error {
    Error::new(Reason::Usage, message)
}

/// Prints what clap says about the command line: an error, or the help that was asked for.
pub(super) fn fail_usage(error: &clap::Error) {
    if error.use_stderr() && error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        say("etcdlift: ");
    }
    // A closed terminal is no error.
    let _ = error.print();
}

/// Prints one line about a run. Hidden characters of file names are escaped.
pub(super) fn say_line(text: &str) {
    say(&format!("etcdlift: {}\n", printable(text)));
}

/// Writes to standard error. A failure is ignored: no other place is left to report it.
pub(super) fn say(text: &str) {
    let _ = io::stderr().lock().write_all(terminal::shown(text, &io::stderr()).as_bytes());
}

/// Runs `work` and turns a panic into an internal error (exit status 1): one line, and temporary files are removed.
///
/// # Errors
/// Those of `work`, and [`Reason::Internal`] for a panic.
pub(super) fn guard<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| Err(panicked(payload.as_ref())))
}

/// Stops panics from printing. [`guard`] prints the location in its one line.
pub(super) fn quiet_panics() {
    panic::set_hook(Box::new(|info| {
        if let (Some(location), Ok(mut place)) = (info.location(), PLACE.lock()) {
            *place = format!(" at {}:{}", location.file(), location.line());
        }
    }));
}

/// The location of the last panic, on any thread.
static PLACE: Mutex<String> = Mutex::new(String::new());

fn panicked(payload: &(dyn Any + Send)) -> Error {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("unknown");
    let place = PLACE.lock().map(|place| place.clone()).unwrap_or_default();
    Error::new(Reason::Internal, format!("an internal error of etcdlift{place}: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_has_its_status() {
        assert_eq!(status(&Ok(Outcome::Complete)), 0);
        assert_eq!(status(&Ok(Outcome::Partial)), 8);
        for (reason, code) in [
            (Reason::Internal, 1),
            (Reason::Usage, 2),
            (Reason::Damaged, 3),
            (Reason::NothingToConvert, 4),
            (Reason::Locked, 5),
            (Reason::OutputFailed, 6),
            (Reason::VerifyFailed, 7),
            (Reason::Interrupted(2), 130),
            (Reason::Interrupted(15), 143),
        ] {
            assert_eq!(status(&Err(Error::new(reason, ""))), code);
        }
    }

    #[test]
    fn a_panic_is_an_internal_error() {
        let error = guard(|| -> Result<()> { panic!("index {}", 7) }).unwrap_err();
        assert_eq!(error.reason(), Reason::Internal);
        assert_eq!(error.to_string(), "an internal error of etcdlift: index 7");
    }
}
