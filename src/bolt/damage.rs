//! Damage of a bbolt file: the offset, and what was expected there.
//!
//! Corruption is a value, never a panic: reading returns it, and the check collects it. As the crate's [`Error`], it is
//! damage of the source. Must not know what it means for the run.

use std::fmt;

use crate::error::{Error, Reason};
use crate::ids::ByteOffset;

/// The damage at one offset of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Offset in the file.
    pub offset: ByteOffset,
    /// What was expected and what was found.
    pub message: String,
}

impl Damage {
    /// Creates the damage at `offset`.
    pub fn new(offset: ByteOffset, message: impl Into<String>) -> Self {
        Damage { offset, message: message.into() }
    }

    /// Converts the damage to an error of the crate with this reason.
    #[must_use]
    pub fn into_error(self, reason: Reason) -> Error {
        Error::new(reason, self.message).at(self.offset)
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}: {}", self.offset, self.message)
    }
}

impl std::error::Error for Damage {}

impl From<Damage> for Error {
    fn from(damage: Damage) -> Error {
        damage.into_error(Reason::Damaged)
    }
}
