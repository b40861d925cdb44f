//! What an applied entry changed, as the v2 API would name it.
//!
//! Must not know where entries come from.

use jiff::Timestamp;

use super::super::{Change, Effect, Node};
use crate::error::Result;
use crate::source::raft::{Entry, Proposal, parse_proposal};
use crate::v2store::apply::{Replay, action};
use crate::v2store::path;
use crate::v2store::tree::{NodeRef, Touched, Tree, Visit, What};

/// The namespace of the keys.
pub(super) const KEYS: &[u8] = b"/1";

/// Appends the changes that an entry made, which was just applied.
///
/// # Errors
/// The entry has no request, which the replay would have said.
pub(super) fn append(replay: &mut Replay<'_>, entry: &Entry<'_>, out: &mut Vec<Change>) -> Result<()> {
    let touched = replay.tree.take_touched();
    if touched.is_empty() {
        return Ok(());
    }
    let action = match parse_proposal(entry.data, entry.data_offset)? {
        Proposal::V2(request) => action(&request, replay.rules),
        _ => None,
    };
    for touched in touched {
        append_one(&mut replay.tree, touched, action.unwrap_or("set"), out);
    }
    Ok(())
}

fn append_one(tree: &mut Tree<'_>, touched: Touched, action: &'static str, out: &mut Vec<Change>) {
    let Touched { path, what } = touched;
    let now = tree.current_index;
    match what {
        What::Removed => out.push(Change { index: now, action, effect: Effect::Gone(key(&path).to_vec()) }),
        What::Expired(index) => out.push(Change { index, action, effect: Effect::Gone(key(&path).to_vec()) }),
        What::Set | What::Expiry => {
            let Ok(from) = tree.lookup(&path) else { return };
            let above = expiry_above(tree, &path);
            let tree: &Tree<'_> = tree;
            let _ = walk(tree, from, |visit| {
                out.extend(node(tree, visit, above).map(|node| Change {
                    index: now,
                    action,
                    effect: Effect::Set(node),
                }));
                Ok::<(), std::convert::Infallible>(())
            });
        }
    }
}

/// Visits every file below a node.
///
/// # Errors
/// That of `each`.
pub(super) fn walk<E>(
    tree: &Tree<'_>,
    from: NodeRef,
    mut each: impl FnMut(Visit<'_>) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    tree.walk(from, &mut |visit| if tree.is_dir(visit.node) { Ok(()) } else { each(visit) })
}

/// Returns a visited file as a key, if directories above the walk expire then; `None` for what has no name below the namespace.
pub(super) fn node(tree: &Tree<'_>, visit: Visit<'_>, above: Option<Timestamp>) -> Option<Node> {
    Some(key(&visit.path())).filter(|path| *path != b"/").map(|path| Node {
        path: path.to_vec(),
        value: tree.value(visit.node).into_owned(),
        created: tree.created(visit.node),
        modified: tree.modified(visit.node),
        expiry: above.into_iter().chain(visit.expiry).min(),
    })
}

/// Returns the earliest expiry of the directories above a path.
fn expiry_above(tree: &mut Tree<'_>, path: &[u8]) -> Option<Timestamp> {
    let (mut above, _) = path::split(path);
    let mut earliest: Option<Timestamp> = None;
    while above.len() > 1 {
        if let Ok(dir) = tree.lookup(above) {
            earliest = earliest.into_iter().chain(tree.expiry(dir)).min();
        }
        above = path::split(above).0;
    }
    earliest
}

/// Returns a path without the namespace.
fn key(path: &[u8]) -> &[u8] {
    Some(path::user_key(path)).filter(|path| !path.is_empty()).unwrap_or(b"/")
}
