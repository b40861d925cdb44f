//! `--progress`: one line on a terminal with the current stage of a long run.
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
    /// 0 if unknown.
    total: AtomicU64,
    drawn: Mutex<Drawn>,
}

struct Drawn {
    out: Box<dyn Write + Send>,
    stage: &'static str,
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
    fn stage(&self, activity: Activity, bytes: Option<u64>) {
        if let Some(line) = &self.line {
            line.stage(activity.word(), bytes);
        }
        self.tick();
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
            drawn: Mutex::new(Drawn { out, stage: "starting", any: false }),
        }
    }

    fn stage(&self, name: &'static str, bytes: Option<u64>) {
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        drawn.stage = name;
        self.done.store(0, Ordering::Relaxed);
        self.total.store(bytes.unwrap_or(0), Ordering::Relaxed);
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
        let part = done.min(total).saturating_mul(100).checked_div(total);
        let part = part.map_or(String::new(), |percent| format!(" {percent} %"));
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
        line.stage("reading", Some(10));
        line.tick(Duration::from_millis(999));
        line.end();
        assert_eq!(terminal.text(), "");
    }

    #[test]
    fn a_long_run_says_what_it_is_at_and_takes_it_back() {
        let terminal = Terminal::default();
        let line = terminal.line();
        line.stage("writing", Some(200));
        line.done.fetch_add(50, Ordering::Relaxed);
        line.tick(Duration::from_millis(1000));
        assert_eq!(terminal.text(), "\retcdlift: writing 25 % (1 s)\x1b[K");
        line.tick(Duration::from_millis(1199));
        assert_eq!(terminal.text(), "", "it is drawn five times a second");
        line.stage("checking", None);
        line.tick(Duration::from_millis(2500));
        assert_eq!(terminal.text(), "\retcdlift: checking (2 s)\x1b[K");
        line.end();
        assert_eq!(terminal.text(), "\r\x1b[K");
        line.tick(Duration::from_secs(60));
        line.end();
        assert_eq!(terminal.text(), "", "it stays away");
    }
}
