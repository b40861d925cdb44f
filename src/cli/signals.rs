//! SIGINT, SIGTERM and SIGHUP as a flag that long work reads.
//!
//! After the first signal, the run removes its temporary files and writes the report. A second signal ends the process
//! at once. A signal that was ignored at the start (under nohup, or with `&` in a shell) stays ignored. Must not know
//! what runs.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

use crate::error::{Error, Reason, Result};

/// Which signal has arrived, if any.
#[derive(Debug, Default)]
pub struct Signals {
    number: Arc<AtomicUsize>,
}

impl Signals {
    /// Starts to listen for signals.
    ///
    /// # Errors
    /// An internal error, if the operating system refuses.
    pub fn install() -> Result<Signals> {
        let signals = Signals::default();
        let failed = |number, e| Error::new(Reason::Internal, format!("cannot listen for signal {number}: {e}"));
        let ignored = ignored();
        let _ = ARRIVED.set(Arc::clone(&signals.number));
        // Every second signal sees the flag of the first.
        let seen = Arc::new(AtomicBool::new(false));
        for number in [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|number| ignored >> (number - 1) & 1 == 0) {
            signals.listen(number, &seen).map_err(|e| failed(number, e))?;
        }
        // Without a handler, SIGXFSZ ends the process. With one, the write fails.
        flag::register(SIGXFSZ, Arc::default()).map_err(|e| failed(SIGXFSZ, e))?;
        Ok(signals)
    }

    /// Fails after a signal has arrived. Costs one relaxed load.
    ///
    /// # Errors
    /// [`Reason::Interrupted`] with the number of the signal.
    pub fn check(&self) -> Result<()> {
        arrived(&self.number)
    }

    fn listen(&self, number: i32, seen: &Arc<AtomicBool>) -> std::io::Result<()> {
        // Actions run in the order of their registration.
        flag::register_conditional_shutdown(number, 128 + number, Arc::clone(seen))?;
        flag::register(number, Arc::clone(seen))?;
        flag::register_usize(number, Arc::clone(&self.number), usize::try_from(number).unwrap_or(1))?;
        Ok(())
    }
}

/// The number of the signal, as the installed [`Signals`] set it.
static ARRIVED: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// Does the same as [`Signals::check`], without a [`Signals`]; never fails before they are installed.
///
/// # Errors
/// [`Reason::Interrupted`] with the number of the signal.
pub fn check() -> Result<()> {
    ARRIVED.get().map_or(Ok(()), |number| arrived(number))
}

fn arrived(number: &AtomicUsize) -> Result<()> {
    match i32::try_from(number.load(Ordering::Relaxed)) {
        Ok(0) | Err(_) => Ok(()),
        Ok(number) => Err(Error::new(Reason::Interrupted(number), format!("interrupted by signal {number}"))),
    }
}

/// Returns the ignored signals, lowest bit first; none if the operating system does not say.
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
