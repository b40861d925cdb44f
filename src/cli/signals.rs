//! SIGINT, SIGTERM and SIGHUP as a flag that long work asks now and then.
//!
//! The first signal lets the run end in order: temporary files go, the report is written. A second one ends the process
//! at once. What was ignored when the process began (under nohup, behind a shell's `&`) stays so. Knows nothing of what is
//! being run.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

use crate::error::{Error, Reason, Result};

/// Which signal has arrived, if any.
#[derive(Debug, Default)]
pub struct Signals {
    number: Arc<AtomicUsize>,
}

impl Signals {
    /// Begins to listen.
    ///
    /// # Errors
    /// The operating system does not let us; an internal error.
    pub fn install() -> Result<Signals> {
        let signals = Signals::default();
        let failed = |number, e| Error::new(Reason::Internal, format!("cannot listen for signal {number}: {e}"));
        let ignored = ignored();
        for number in [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|number| ignored >> (number - 1) & 1 == 0) {
            signals.listen(number).map_err(|e| failed(number, e))?;
        }
        // A file that may not grow any more is an error of that write then, and does not end the process.
        flag::register(SIGXFSZ, Arc::default()).map_err(|e| failed(SIGXFSZ, e))?;
        Ok(signals)
    }

    /// Fails once a signal has arrived. Costs one relaxed load.
    ///
    /// # Errors
    /// [`Reason::Interrupted`] with the number of the signal.
    pub fn check(&self) -> Result<()> {
        match i32::try_from(self.number.load(Ordering::Relaxed)) {
            Ok(0) | Err(_) => Ok(()),
            Ok(number) => Err(Error::new(Reason::Interrupted(number), format!("interrupted by signal {number}"))),
        }
    }

    fn listen(&self, number: i32) -> std::io::Result<()> {
        // Actions run in the order they are registered: the second signal finds the flag that the first one set.
        let seen = Arc::new(AtomicBool::new(false));
        flag::register_conditional_shutdown(number, 128 + number, Arc::clone(&seen))?;
        flag::register(number, seen)?;
        flag::register_usize(number, Arc::clone(&self.number), usize::try_from(number).unwrap_or(1))?;
        Ok(())
    }
}

/// The signals that are ignored, lowest bit first; none where that cannot be found out.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_fails_the_next_check() {
        let signals = Signals::default();
        assert!(signals.check().is_ok());
        signals.number.store(15, Ordering::Relaxed);
        assert_eq!(signals.check().unwrap_err().kind().exit_code(), 143);
    }
}
