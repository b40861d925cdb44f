//! Whether a run was interrupted: the question that everything asks which takes long.
//!
//! An answer costs one relaxed load, so it is asked for each record, entry and node of a tree that costs more than that, and now
//! and then where they cost less. Knows nothing of signals.

use std::fmt;

use crate::error::Result;

/// Asked now and then by everything that takes long: an error ends the run. Any thread may ask.
pub type Interrupted<'a> = &'a (dyn Fn() -> Result<()> + Sync);

/// Bytes that are hashed, searched or copied between two questions.
pub const CHUNK: usize = 16 << 20;

/// The question as a value, to be handed on with options. The default is never interrupted.
#[derive(Clone, Copy, Default)]
pub struct Interrupt<'a>(Option<Interrupted<'a>>);

impl<'a> Interrupt<'a> {
    /// Asks this.
    pub fn new(interrupted: Interrupted<'a>) -> Interrupt<'a> {
        Interrupt(Some(interrupted))
    }

    /// Asks.
    ///
    /// # Errors
    /// The run was interrupted.
    pub fn ask(self) -> Result<()> {
        self.0.map_or(Ok(()), |interrupted| interrupted())
    }

    /// Asks at every 4096th step, for steps that take less than a microsecond.
    ///
    /// # Errors
    /// The run was interrupted.
    pub fn ask_at(self, step: usize) -> Result<()> {
        if step.is_multiple_of(1 << 12) { self.ask() } else { Ok(()) }
    }
}

impl fmt::Debug for Interrupt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Interrupt" } else { "Interrupt(never)" })
    }
}
