//! The size of a list of whole paths: a ledger, an export and a transformer's input have the path of every directory.
//!
//! A deep path is one entry in the log, but one line for each level in such a list. So a small source can make a large
//! list. Counts before anything is written, and refuses a list above its limit. Must not know the form of the list.

use crate::count::bytes;
use crate::error::{Error, Reason, Result};
use crate::interrupt::Interrupt;
use crate::limits;
use crate::source::open::Opened;
use crate::transform::policy::NAMESPACE;
use crate::v2store::tree::Tree;

/// The maximum ratio of the bytes of all paths to the bytes of the source.
const TIMES: u64 = 16;

/// Refuses to write the paths of a tree if they are much larger than the source; `what` names the list.
///
/// # Errors
/// [`Reason::NoRoom`] if the paths are too large; an interruption.
pub(super) fn refuse_deep(tree: &mut Tree<'_>, opened: &Opened, what: &str, interrupt: Interrupt<'_>) -> Result<()> {
    let Ok(root) = tree.lookup(NAMESPACE) else { return Ok(()) };
    let (mut sum, mut nodes, mut levels) = (0u64, 0u64, 0);
    tree.walk::<Error>(root, &mut |visit| {
        if nodes.is_multiple_of(1 << 12) {
            interrupt.ask()?;
        }
        (nodes, levels) = (nodes + 1, levels.max(visit.depth));
        sum = sum.saturating_add(visit.path_len() as u64);
        Ok(())
    })?;
    let source: u64 = opened.maps().iter().map(|map| map.bytes().len() as u64).sum();
    if sum <= limits::MAX_LISTED_PATHS.max(TIMES.saturating_mul(source)) {
        return Ok(());
    }
    let message = format!(
        "{what} would have {} of paths, because the tree has {levels} levels and lists each directory with its whole path",
        bytes(sum)
    );
    Err(Error::new(Reason::NoRoom, message).in_file(opened.path()))
}
