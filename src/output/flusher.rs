//! A thread that syncs what was written so far while more is written, so that the last sync has little left.
//!
//! It only saves time: the last sync covers the whole file. Without a thread there is only that one. Must not know who writes.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use super::sink::Sink;
use crate::error::{Error, Reason, Result};

/// Bytes that are written between two flushes.
const FLUSH_BYTES: u64 = 16 << 20;

/// The bytes that were written, for the thread that syncs them.
#[derive(Debug, Default)]
pub struct Flusher {
    state: Mutex<Flushing>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Flushing {
    /// Bytes of the body that were written, in file order.
    written: u64,
    /// Bytes that were written when the last flush began.
    flushed: u64,
    ended: bool,
}

/// A running flusher. Dropping it ends its thread.
#[derive(Debug)]
pub struct Running<'s, 'f> {
    until: Until<'f>,
    /// `None` if the thread could not be started.
    thread: Option<ScopedJoinHandle<'s, Result<()>>>,
}

/// Ends the thread of a flusher when it is dropped, by a panic too: the scope waits for that thread.
#[derive(Debug)]
struct Until<'f>(&'f Flusher);

impl Flusher {
    /// Starts the thread.
    pub fn start<'s, 'f: 's>(&'f self, scope: &'s Scope<'s, 'f>, sink: &'f Sink) -> Running<'s, 'f> {
        let thread = Builder::new().spawn_scoped(scope, || self.run(sink)).ok();
        Running { until: Until(self), thread }
    }

    /// Counts bytes that were written after all others.
    pub fn advance(&self, bytes: u64) {
        self.lock().written += bytes;
        self.changed.notify_one();
    }

    /// Flushes until the end.
    fn run(&self, sink: &Sink) -> Result<()> {
        loop {
            let waiting = |state: &mut Flushing| !state.ended && state.written - state.flushed < FLUSH_BYTES;
            let state = self.changed.wait_while(self.lock(), waiting);
            let mut state = state.unwrap_or_else(PoisonError::into_inner);
            if state.ended {
                return Ok(());
            }
            state.flushed = state.written;
            let written = state.written;
            drop(state);
            sink.flush(written)?;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Flushing> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running<'_, '_> {
    /// Ends the thread.
    ///
    /// # Errors
    /// A flush failed. No later sync reports that again.
    pub fn end(self) -> Result<()> {
        drop(self.until);
        let panicked = |_| Err(Error::new(Reason::Internal, "a thread panicked"));
        self.thread.map_or(Ok(()), |thread| thread.join().unwrap_or_else(panicked))
    }
}

impl Drop for Until<'_> {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::output::naming::Before;
    use crate::output::sink::SinkOptions;

    #[test]
    fn a_flusher_ends_with_its_scope_whether_it_was_ended_or_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let options = SinkOptions { shown: None, copies: 1, before: Before::Nothing, len: 4, dry_run: false };
        let sink = Sink::create(&dir.path().join("out.db"), options).unwrap();
        for bytes in [0, 1, FLUSH_BYTES, 3 * FLUSH_BYTES] {
            let flusher = Flusher::default();
            thread::scope(|scope| {
                let running = flusher.start(scope, &sink);
                flusher.advance(bytes);
                running.end()
            })
            .unwrap();
            let flusher = Flusher::default();
            thread::scope(|scope| {
                let _running = flusher.start(scope, &sink);
                flusher.advance(bytes);
            });
        }
    }
}
