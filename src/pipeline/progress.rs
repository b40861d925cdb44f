//! What a run is at, for whoever wants to show it.

use crate::interrupt::Interrupted;
/// Is told what a run is at. Any thread may tell.
pub trait Observer: Sync {
    /// A stage begins. It works through that many bytes, where that is known.
    fn stage(&self, _name: &'static str, _bytes: Option<u64>) {}

    /// So many more of them are done.
    fn advance(&self, _bytes: u64) {}
}

/// Nobody is told.
impl Observer for () {}

/// Whom a run tells and asks meanwhile.
pub(super) struct Run<'a> {
    pub(super) observer: &'a dyn Observer,
    pub(super) interrupted: Interrupted<'a>,
}
