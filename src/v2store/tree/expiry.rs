//! The order in which nodes expire (docs/formats.md 6.6): one entry for each live node with a TTL, independent of
//! renewals.
//!
//! A directory comes before the nodes below it that expire at the same instant. Must not know the time: the tree asks
//! for the nodes that are due at an instant.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::node::{NodeRef, OverId};
use crate::v2store::path;
use crate::v2store::table::{NodeId, Table};

/// The nodes with a TTL. The depth sorts a directory before its subtree.
#[derive(Debug, Default)]
pub(super) struct Expiries {
    /// Nodes of the snapshot, latest first, even if they are removed. Listed when the first instant is asked for: many
    /// logs have no request that expires nodes.
    base: Option<Vec<(Timestamp, u32, NodeId)>>,
    over: BTreeSet<(Timestamp, u32, OverId)>,
}

impl Expiries {
    /// Records that an overlay node expires at another instant, or no longer.
    #[inline]
    pub(super) fn change(&mut self, id: OverId, depth: u32, before: Option<Timestamp>, now: Option<Timestamp>) {
        if before == now {
            return;
        }
        if let Some(at) = before {
            self.remove(id, depth, at);
        }
        if let Some(at) = now {
            self.over.insert((at, depth, id));
        }
    }

    /// Removes an overlay node. Returns whether it existed.
    pub(super) fn remove(&mut self, id: OverId, depth: u32, at: Timestamp) -> bool {
        self.over.remove(&(at, depth, id))
    }

    /// Returns the memory for overlay nodes in bytes: the nodes of a B-tree are two thirds full on average.
    pub(super) fn held_bytes(&self) -> u64 {
        (self.over.len() * size_of::<(Timestamp, u32, OverId)>() * 3 / 2) as u64
    }

    /// Returns the earliest instant at which a node expires.
    pub(super) fn first(&mut self, table: &Table<'_>) -> Option<Timestamp> {
        let base = self.base.get_or_insert_with(|| list(table)).last().map(|(at, ..)| *at);
        base.into_iter().chain(self.over.first().map(|(at, ..)| *at)).min()
    }

    /// Returns the nodes that expire at this instant, the earliest, with their depths, directories before their
    /// subtrees. Nodes of the snapshot are not returned again.
    pub(super) fn due(&mut self, table: &Table<'_>, at: Timestamp) -> Vec<(u32, NodeRef)> {
        let base = self.base.get_or_insert_with(|| list(table));
        let first = base.partition_point(|(other, ..)| *other > at);
        let mut due: Vec<_> = base.drain(first..).map(|(_, depth, id)| (depth, NodeRef::Base(id))).collect();
        let over = self.over.iter().take_while(|(other, ..)| *other <= at);
        due.extend(over.map(|(_, depth, id)| (*depth, NodeRef::Over(*id))));
        due.sort_unstable();
        due
    }
}

/// Lists the nodes of a snapshot that have a TTL, latest first.
fn list(table: &Table<'_>) -> Vec<(Timestamp, u32, NodeId)> {
    if table.expiries.is_empty() {
        return Vec::new();
    }
    let timed = (0..).map(NodeId).zip(&table.nodes).filter(|(_, node)| node.expiry != 0);
    let place = |(id, node)| {
        let depth = path::components(&table.path(node)).count();
        table.expiry(node).map(|at| (at, u32::try_from(depth).unwrap_or(u32::MAX), id))
    };
    let mut listed: Vec<_> = timed.filter_map(place).collect();
    listed.sort_unstable_by(|a, b| b.cmp(a));
    listed
}
