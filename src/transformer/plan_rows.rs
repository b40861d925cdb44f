//! The pairs of a transformer in place of the rows of a plan, and the effect on the counts.
//!
//! docs/formats.md 13.2. A key is written if a pair has its modified index, under any name; otherwise it is left out. A
//! pair without a key is added. Must not know how pairs were made.

use hashbrown::HashMap;

use crate::display::short;
use crate::error::{Error, Reason, Result};
use crate::ids::{LeaseId, Revision};
use crate::transform::inventory::Count;
use crate::transform::lease::LeaseSlot;
use crate::transform::plan::{Overrides, Plan, REQUEST_OVERHEAD, Row};
use crate::transform::policy::Why;
use crate::transform::revisions::Numbering;
use crate::transform::rules::{Renamed, shown};
use crate::transformer::responses::{Answers, Pair};
use crate::v2store::path;
use crate::v2store::tree::{NodeRef, Tree};

/// The context in which pairs become rows.
pub struct Written<'a, 'm> {
    /// The source of the nodes.
    pub tree: &'a Tree<'m>,
    /// The node for pairs without a node of their own: the root of the keys.
    pub root: NodeRef,
    /// The numbering of revisions.
    pub numbering: Numbering,
    /// The leases by their ids.
    pub leases: &'a HashMap<LeaseId, LeaseSlot>,
    /// The largest request of a v3 client, in bytes.
    pub request_limit: u64,
}

/// Replaces the rows of the plan by the pairs. Markers are removed, because the transformer received the directories.
/// Returns the pairs that a v3 client could not write again, with the size of such a request in bytes.
///
/// # Errors
/// [`Reason::IndexRange`] for a pair whose revision is out of range.
pub fn replace(plan: &mut Plan, answers: Answers, to: &Written<'_, '_>) -> Result<Vec<(Vec<u8>, u64)>> {
    plan.oversized = Vec::new();
    let rows = std::mem::take(&mut plan.rows);
    let keys = rows.iter().filter(|row| !row.marker);
    let mut leases: HashMap<NodeRef, LeaseSlot> = keys.clone().map(|row| (row.node, row.lease)).collect();
    (plan.written, plan.markers, plan.added) = (Count::default(), 0, 0);
    plan.overrides = Vec::new();
    let mut oversized = Vec::new();
    plan.rows = Vec::with_capacity(answers.pairs.len());
    for pair in answers.pairs {
        check_range(to, &pair)?;
        let request = request_bytes(to.tree, &pair);
        if request > to.request_limit {
            oversized.push((key(to.tree, &pair), request));
        }
        let of_node = pair.node.and_then(|node| leases.remove(&node));
        match pair.node {
            Some(node) => plan.written.add(bytes(to.tree, node)),
            None => plan.added += 1,
        }
        let lease = to.leases.get(&pair.lease).copied().or(of_node).unwrap_or_default();
        let node = pair.node.unwrap_or(to.root);
        let overrides = overrides(to, pair);
        let overrides = if overrides == Overrides::default() {
            0
        } else {
            plan.overrides.push(overrides);
            // There are fewer than 2^32 pairs: each takes more than a byte of memory.
            u32::try_from(plan.overrides.len()).unwrap_or(0)
        };
        plan.rows.push(Row { main: Revision(0), sub: 0, lease, overrides, marker: false, node });
    }
    for row in keys.filter(|row| leases.contains_key(&row.node)) {
        plan.count_left_out(row.node, Why::Transformer, bytes(to.tree, row.node));
    }
    Ok(oversized)
}

/// Returns the overrides of the row of a pair.
fn overrides(to: &Written<'_, '_>, pair: Pair) -> Overrides {
    let keep = to.numbering == Numbering::Keep;
    let node = pair.node.unwrap_or(to.root);
    let skip = path::user_key(&to.tree.path(node)).len();
    let created = Some(pair.create).filter(|_| keep);
    let as_node = pair.node.is_some_and(|node| to.tree.created(node).0 == pair.create.0.cast_unsigned());
    Overrides {
        renamed: pair.key.map(|prefix| Renamed { skip, prefix }),
        value: pair.value,
        modified: if pair.node.is_some() { None } else { Some(pair.modified) },
        created: created.filter(|_| !as_node),
        // With dense revisions, the only change of a key creates it.
        version: Some(pair.version).filter(|version| keep && *version != 1),
    }
}

fn check_range(to: &Written<'_, '_>, pair: &Pair) -> Result<()> {
    if to.numbering != Numbering::Keep || pair.create.0 >= 2 {
        return Ok(());
    }
    let message = format!(
        "the transformer's key {} has the revisions {} (created) and {} (modified), but 1 is the revision of an empty store",
        short(&shown(&key(to.tree, pair))),
        pair.create,
        pair.modified
    );
    Err(Error::new(Reason::IndexRange, message).hint("use --revisions dense"))
}

fn key(tree: &Tree<'_>, pair: &Pair) -> Vec<u8> {
    match (&pair.key, pair.node) {
        (Some(key), _) => key.to_vec(),
        (None, node) => node.map(|node| path::user_key(&tree.path(node)).to_vec()).unwrap_or_default(),
    }
}

fn request_bytes(tree: &Tree<'_>, pair: &Pair) -> u64 {
    let of_node = |len: fn(&Tree<'_>, NodeRef) -> usize| pair.node.map_or(0, |node| len(tree, node));
    let key =
        pair.key.as_ref().map_or_else(|| of_node(|tree, node| path::user_key(&tree.path(node)).len()), |k| k.len());
    let value = pair.value.as_ref().map_or_else(|| of_node(|tree, node| tree.value_len(node)), |value| value.len());
    (key + value) as u64 + REQUEST_OVERHEAD
}

/// Returns the length of a key's name and value in bytes.
fn bytes(tree: &Tree<'_>, node: NodeRef) -> u64 {
    (path::user_key(&tree.path(node)).len() + tree.value_len(node)) as u64
}
