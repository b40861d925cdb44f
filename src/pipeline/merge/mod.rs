//! v3 data that the source already has (`--existing`): the decision, the preserved data, and unapplied v3 entries of
//! the log.
//!
//! Must not know pages or files of the output.

mod agreement;
pub(super) mod decide;
pub(super) mod preserved;
pub(super) mod unapplied;
