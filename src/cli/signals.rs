//! SIGINT and SIGTERM as a flag that long work asks now and then.
//!
//! The first signal lets the run end in order: temporary files go, the report is written. A second one ends the process
//! at once. Knows nothing of what is being run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
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
        for number in [SIGINT, SIGTERM] {
            signals
                .listen(number)
                .map_err(|e| Error::new(Reason::Internal, format!("cannot listen for signal {number}: {e}")))?;
        }
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
