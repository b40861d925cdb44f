//! v3 data that the source already holds, for `--existing`: what becomes of it, and what may be lost with it.

pub(super) mod decide;
pub(super) mod preserved;
pub(super) mod unapplied;
