//! Whole paths, written out node by node: a ledger, an export and a transformer get that of every directory.
//!
//! A path of many levels in the log is one line there, and a line for each level here: what is small to read may be large to
//! write. Counts before anything is written.

use super::Interrupted;
use crate::count::bytes;
use crate::error::{Error, Reason, Result};
use crate::limits;
use crate::source::open::Opened;
use crate::transform::policy::NAMESPACE;
use crate::v2store::tree::Tree;

/// How often the bytes of the source its paths may be written.
const TIMES: u64 = 16;

/// Refuses to write out the paths of a tree where these are out of all proportion to the source; `what` would be written.
///
/// # Errors
/// [`Reason::NoRoom`]; an interruption.
pub(super) fn refuse_deep(
    tree: &mut Tree<'_>,
    opened: &Opened,
    what: &str,
    interrupted: Interrupted<'_>,
) -> Result<()> {
    let Ok(root) = tree.lookup(NAMESPACE) else { return Ok(()) };
    let (mut sum, mut nodes, mut levels) = (0u64, 0u64, 0);
    tree.walk::<Error>(root, &mut |visit| {
        if nodes.is_multiple_of(1 << 12) {
            interrupted()?;
        }
        (nodes, levels) = (nodes + 1, levels.max(visit.depth));
        sum = sum.saturating_add(visit.path.len() as u64);
        Ok(())
    })?;
    let source: u64 = opened.maps().iter().map(|map| map.bytes().len() as u64).sum();
    if sum <= limits::MAX_LISTED_PATHS.max(TIMES.saturating_mul(source)) {
        return Ok(());
    }
    let message = format!(
        "{what} would have {} of paths alone, from a tree of {levels} levels: every directory is in it with its whole path",
        bytes(sum)
    );
    Err(Error::new(Reason::NoRoom, message).in_file(opened.path()))
}
