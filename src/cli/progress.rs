//! `--progress`: one line on a terminal with the current stage of a long run: the bytes done, their rate, and the time left.
//!
//! The thread that next checks for an interruption draws it, 5 times a second at most. It is erased before other text
//! appears. Without a terminal there is no line. Must not know what the stages do.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::pipeline::{Activity, Observer};

/// When to show the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum When {
    /// On a terminal, in a run of more than 1 s
    #[default]
    Auto,
    /// Never
    Never,
}

/// A shorter run shows no line.
const PATIENCE: Duration = Duration::from_secs(1);

const INTERVAL: Duration = Duration::from_millis(200);

/// The line.
pub(super) struct Progress {
    line: Option<Line>,
}

struct Line {
    started: Instant,
    /// Milliseconds after the start: when to draw next.
    due: AtomicU64,
    done: AtomicU64,
    /// The bytes of the stage, as far as they were announced.
    total: AtomicU64,
    drawn: Mutex<Drawn>,
}

struct Drawn {
    out: Box<dyn Write + Send>,
    stage: &'static str,
    /// When the stage began, since the start.
    began: Duration,
    any: bool,
}

impl Progress {
    /// Creates a line on standard error, if `when` and the terminal allow it.
    pub(super) fn new(when: When) -> Progress {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let able = std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb");
        let show = when == When::Auto && able && !set("CI") && io::stderr().is_terminal();
        Progress { line: show.then(|| Line::new(Box::new(io::stderr()), Instant::now())) }
    }

    /// Draws the line if it is due. Otherwise it costs almost nothing.
    pub(super) fn tick(&self) {
        if let Some(line) = &self.line {
            line.tick(line.started.elapsed());
        }
    }
}

impl Observer for Progress {
    fn stage(&self, activity: Activity) {
        if let Some(line) = &self.line {
            line.stage(activity.word(), line.started.elapsed());
        }
        self.tick();
    }

    fn expect(&self, bytes: u64) {
        if let Some(line) = &self.line {
            line.total.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    fn advance(&self, bytes: u64) {
        if let Some(line) = &self.line {
            line.done.fetch_add(bytes, Ordering::Relaxed);
        }
        self.tick();
    }

    /// Erases the line and draws it no more.
    fn end(&self) {
        if let Some(line) = &self.line {
            line.end();
        }
    }
}

impl Line {
    fn new(out: Box<dyn Write + Send>, started: Instant) -> Line {
        Line {
            started,
            due: AtomicU64::new(millis(PATIENCE)),
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
            drawn: Mutex::new(Drawn { out, stage: "starting", began: Duration::ZERO, any: false }),
        }
    }

    fn stage(&self, name: &'static str, elapsed: Duration) {
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        (drawn.stage, drawn.began) = (name, elapsed);
        self.done.store(0, Ordering::Relaxed);
        self.total.store(0, Ordering::Relaxed);
    }

    fn tick(&self, elapsed: Duration) {
        let (now, due) = (millis(elapsed), self.due.load(Ordering::Relaxed));
        let next = now.saturating_add(millis(INTERVAL));
        // Of the threads that find the line due, one draws.
        if now < due || self.due.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        if self.due.load(Ordering::Relaxed) == u64::MAX {
            return;
        }
        let (done, total) = (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        let part = part(done, total, elapsed.saturating_sub(drawn.began));
        let line = format!("\retcdlift: {}{part} ({} s)\x1b[K", drawn.stage, elapsed.as_secs());
        // A closed terminal is no error.
        let _ = drawn.out.write_all(line.as_bytes()).and_then(|()| drawn.out.flush());
        drawn.any = true;
    }

    fn end(&self) {
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        self.due.store(u64::MAX, Ordering::Relaxed);
        if std::mem::take(&mut drawn.any) {
            let _ = drawn.out.write_all(b"\r\x1b[K").and_then(|()| drawn.out.flush());
        }
    }
}

/// Describes how far a stage is after this time: percent, bytes, rate, and the time left at that rate. Empty without a total. The
/// rate needs the patience of a whole line.
fn part(done: u64, total: u64, elapsed: Duration) -> String {
    let done = done.min(total);
    let Some(percent) = done.saturating_mul(100).checked_div(total) else { return String::new() };
    let scale = Scale::of(total);
    let part = format!(" {percent} %, {:.1} of {:.1} {}", scale.of_bytes(done), scale.of_bytes(total), scale.unit);
    // A stage can have more to do than the bytes that it counts.
    if done == 0 || done == total || elapsed < PATIENCE {
        return part;
    }
    let rate = done as f64 / elapsed.as_secs_f64();
    let (left, scale) = ((total - done) as f64 / rate, Scale::of(rate as u64));
    format!("{part}, {:.1} {}/s, {} left", rate / scale.bytes, scale.unit, seconds(left))
}

/// Formats a time that is an estimate: `12 s`, `3 min`.
fn seconds(time: f64) -> String {
    if time < 120.0 { format!("{} s", time.ceil() as u64) } else { format!("{} min", (time / 60.0).ceil() as u64) }
}

/// A unit for a size.
struct Scale {
    unit: &'static str,
    bytes: f64,
}

impl Scale {
    /// Returns the unit in which a size is 1 or more; at least KiB.
    fn of(size: u64) -> Scale {
        let units = [("TiB", 40), ("GiB", 30), ("MiB", 20)];
        let (unit, shift) = units.into_iter().find(|(_, shift)| size >> shift > 0).unwrap_or(("KiB", 10));
        Scale { unit, bytes: (1_u64 << shift) as f64 }
    }

    fn of_bytes(&self, size: u64) -> f64 {
        size as f64 / self.bytes
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX - 1)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Terminal(Arc<Mutex<Vec<u8>>>);

    impl Write for Terminal {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Terminal {
        fn line(&self) -> Line {
            Line::new(Box::new(self.clone()), Instant::now())
        }

        fn text(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
        }
    }

    #[test]
    fn a_short_run_says_nothing() {
        let terminal = Terminal::default();
        let line = terminal.line();
        line.stage("reading", Duration::ZERO);
        line.tick(Duration::from_millis(999));
        line.end();
        assert_eq!(terminal.text(), "");
    }

    #[test]
    fn a_long_run_says_what_it_is_at_and_takes_it_back() {
        let terminal = Terminal::default();
        let line = terminal.line();
        let ms = Duration::from_millis;
        line.stage("writing", ms(500));
        line.total.fetch_add(200 << 20, Ordering::Relaxed);
        line.done.fetch_add(50 << 20, Ordering::Relaxed);
        line.tick(ms(1000));
        assert_eq!(terminal.text(), "\retcdlift: writing 25 %, 50.0 of 200.0 MiB (1 s)\x1b[K");
        line.tick(ms(1199));
        assert_eq!(terminal.text(), "", "it is drawn five times a second");
        line.tick(ms(2500));
        let expected = "\retcdlift: writing 25 %, 50.0 of 200.0 MiB, 25.0 MiB/s, 6 s left (2 s)\x1b[K";
        assert_eq!(terminal.text(), expected);
        line.stage("checking", ms(2600));
        line.tick(ms(3500));
        assert_eq!(terminal.text(), "\retcdlift: checking (3 s)\x1b[K");
        line.end();
        assert_eq!(terminal.text(), "\r\x1b[K");
        line.tick(Duration::from_secs(60));
        line.end();
        assert_eq!(terminal.text(), "", "it stays away");
    }

    #[test]
    fn the_rate_is_that_of_the_stage_and_the_line_fits_a_terminal() {
        let s = Duration::from_secs;
        assert_eq!(part(0, 0, s(9)), "");
        assert_eq!(part(0, 4 << 10, s(9)), " 0 %, 0.0 of 4.0 KiB", "nothing is done, so the rate is unknown");
        assert_eq!(part(1 << 20, 3 << 30, s(2)), " 0 %, 0.0 of 3.0 GiB, 512.0 KiB/s, 103 min left");
        // More than all: the last chunk of a file is a short one.
        assert_eq!(part(9 << 20, 8 << 20, s(4)), " 100 %, 8.0 of 8.0 MiB");
        for activity in Activity::ALL {
            let part = part(1000 << 30, 1023 << 30, s(1000));
            let line = format!("etcdlift: {}{part} (1000 s)", activity.word());
            assert!(line.len() < 80, "{line}");
        }
    }
}
