//! The progress line of `online copy`: keys, their rate, and the lag. Must not know how keys are copied.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::cli::progress::When;
use crate::online::carry::Counters;

const INTERVAL: Duration = Duration::from_millis(200);

/// The line, on a terminal only.
pub(super) struct Line {
    shown: Option<Mutex<Drawn>>,
    started: Instant,
}

struct Drawn {
    at: Instant,
    any: bool,
    keys: u64,
    rate: f64,
}

impl Line {
    /// Creates a line on standard error, if it is a terminal.
    pub(super) fn new(when: When, quiet: bool) -> Line {
        let able = std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb");
        let show = when == When::Auto && !quiet && able && io::stderr().is_terminal();
        let drawn = Drawn { at: Instant::now(), any: false, keys: 0, rate: 0.0 };
        Line { shown: show.then(|| Mutex::new(drawn)), started: Instant::now() }
    }

    /// Draws the line if it is due.
    pub(super) fn tick(&self, counters: &Counters) {
        let Some(drawn) = &self.shown else { return };
        let mut drawn = drawn.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = drawn.at.elapsed();
        if elapsed < INTERVAL {
            return;
        }
        let keys = counters.seen.load(Ordering::Relaxed);
        let rate = keys.saturating_sub(drawn.keys) as f64 / elapsed.as_secs_f64();
        drawn.rate = if drawn.any { 0.8 * drawn.rate + 0.2 * rate } else { rate };
        (drawn.at, drawn.keys, drawn.any) = (Instant::now(), keys, true);
        let text = describe(counters, drawn.rate, self.started.elapsed());
        // A closed terminal is no error.
        let _ = io::stderr().write_all(format!("\retcdlift: {text}\x1b[K").as_bytes());
    }

    /// Erases the line.
    pub(super) fn erase(&self) {
        let Some(drawn) = &self.shown else { return };
        let mut drawn = drawn.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut drawn.any) {
            let _ = io::stderr().write_all(b"\r\x1b[K");
        }
    }
}

fn describe(counters: &Counters, rate: f64, elapsed: Duration) -> String {
    let [keys, index, head, conflicts] = [&counters.seen, &counters.index, &counters.head, &counters.conflicts]
        .map(|counter| counter.load(Ordering::Relaxed));
    let seconds = elapsed.as_secs();
    if counters.copying.load(Ordering::Relaxed) > 0 {
        return format!("copying {keys} keys, {rate:.0} keys/s ({seconds} s)");
    }
    let lag = head.saturating_sub(index);
    format!("following at v2 index {index}, lag {lag}, {rate:.0} changes/s, {conflicts} conflicts ({seconds} s)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_the_job_does() {
        let counters = Counters::default();
        counters.seen.store(1000, Ordering::Relaxed);
        counters.copying.store(1, Ordering::Relaxed);
        assert_eq!(describe(&counters, 99.6, Duration::from_secs(10)), "copying 1000 keys, 100 keys/s (10 s)");
        counters.copying.store(0, Ordering::Relaxed);
        counters.head.store(12, Ordering::Relaxed);
        counters.index.store(10, Ordering::Relaxed);
        let expected = "following at v2 index 10, lag 2, 1 changes/s, 0 conflicts (10 s)";
        assert_eq!(describe(&counters, 1.0, Duration::from_secs(10)), expected);
    }
}
