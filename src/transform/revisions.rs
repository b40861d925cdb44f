//! Revisions, and the order of rows by them (docs/formats.md 13.2).
//!
//! `keep`: the v2 modified index is the v3 revision, so an index that an application stored remains valid. `dense`: 2,
//! 3, 4 … in the order of modified index and key. Must not know pairs and pages.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::count::counted;
use crate::display::short;
use crate::error::{Error, Reason, Result};
use crate::ids::{LeaseId, Revision, V2Index};
use crate::interrupt::Interrupt;
use crate::limits;
use crate::transform::lease::{Grant, LeaseSlot};
use crate::transform::plan::{Overrides, Plan, Row};
use crate::transform::policy::NAMESPACE;
use crate::v2store::path;
use crate::v2store::tree::{NodeRef, Tree};

/// The numbering of revisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbering {
    /// v3 revision = v2 modified index, create revision = v2 created index.
    Keep,
    /// Consecutive numbers after this revision, create = mod.
    Dense(Revision),
}

impl Numbering {
    /// For a new database: from 2, because 1 is the revision of an empty one.
    pub const DENSE: Numbering = Numbering::Dense(Revision(1));
}

/// The inputs of revisions and leases besides the rows.
#[derive(Debug)]
pub struct Order<'a> {
    /// The numbering of revisions.
    pub numbering: Numbering,
    /// The v2 index of the state.
    pub v2_index: V2Index,
    /// The increment of the current revision.
    pub bump: u64,
    /// Lease ids in use.
    pub leases_in_use: &'a HashSet<LeaseId>,
    /// Called while rows are sorted.
    pub interrupt: Interrupt<'a>,
}

/// Ordered rows, and the revision from which v3 continues.
#[derive(Debug)]
pub struct Ordered {
    /// Rows by revision, strictly ascending.
    pub rows: Vec<Row>,
    /// The overrides of rows.
    pub overrides: Vec<Overrides>,
    /// The leases of rows, by id.
    pub leases: Vec<Grant>,
    /// The numbering of revisions.
    pub numbering: Numbering,
    /// The current revision after the start, and the one below which everything counts as compacted.
    pub current: Revision,
    /// Number of rows that share their main revision with another.
    pub shared: u64,
    /// Number of rows whose v2 created index is above their modified index: etcd does not write such a store.
    pub created_after_modified: u64,
}

/// Assigns revision and lease to every row, and sorts by the revision. Takes rows and overrides out of the plan.
///
/// # Errors
/// [`Reason::IndexRange`] with a key, if an index cannot be a revision; an interruption.
pub fn order(tree: &Tree<'_>, plan: &mut Plan, order: &Order<'_>) -> Result<Ordered> {
    let (leases, places) = plan.leases.allocate(order.leases_in_use)?;
    let mut out = Ordered {
        rows: std::mem::take(&mut plan.rows),
        overrides: std::mem::take(&mut plan.overrides),
        leases,
        numbering: order.numbering,
        current: Revision(1),
        shared: 0,
        created_after_modified: 0,
    };
    out.sort(tree, &places, order.interrupt)?;
    let last = match order.numbering {
        Numbering::Keep => out.keep(order.v2_index)?,
        Numbering::Dense(before) => out.dense(before)?,
    };
    let current = last.checked_add(order.bump).filter(|current| *current <= limits::MAX_REVISION);
    let current = current.and_then(|current| i64::try_from(current.max(1)).ok());
    out.current = Revision(current.ok_or_else(|| {
        let message = format!("expected a current revision up to 2^62, found {last} and {} more", order.bump);
        Error::new(Reason::IndexRange, message).hint("give a smaller --bump-revision")
    })?);
    Ok(out)
}

impl Ordered {
    /// Returns the overrides of a row.
    pub fn overrides(&self, row: &Row) -> Option<&Overrides> {
        self.overrides.get((row.overrides as usize).checked_sub(1)?)
    }

    /// Returns the lease of a row; 0 for none.
    pub fn lease(&self, row: &Row) -> LeaseId {
        let place = (row.lease.0 as usize).checked_sub(1);
        place.and_then(|place| self.leases.get(place)).map_or(LeaseId(0), |lease| lease.id)
    }

    /// Returns the v2 index that the revision of a row comes from.
    fn modified(&self, tree: &Tree<'_>, row: &Row) -> u64 {
        let own = self.overrides(row).and_then(|overrides| overrides.modified);
        own.map_or_else(|| tree.modified(row.node).0, |revision| revision.0.cast_unsigned())
    }

    /// Returns the v2 index that the creation revision of a row comes from.
    fn created(&self, tree: &Tree<'_>, row: &Row) -> u64 {
        let own = self.overrides(row).and_then(|overrides| overrides.created);
        own.map_or_else(|| tree.created(row.node).0, |created| created.0.cast_unsigned())
    }

    /// Sorts the rows by their revision, and by path where they share one.
    ///
    /// # Errors
    /// [`Reason::IndexRange`] with the first key, in the order of the snapshot, whose index cannot be a revision; an interruption.
    fn sort(&mut self, tree: &Tree<'_>, places: &[LeaseSlot], interrupt: Interrupt<'_>) -> Result<()> {
        let mut rows = std::mem::take(&mut self.rows);
        // Here rows and nodes are both in the order of the snapshot, so no read of a node is waited for.
        for row in &mut rows {
            let modified = self.modified(tree, row);
            row.main = Revision(match self.numbering {
                Numbering::Keep => {
                    let created = self.created(tree, row);
                    if created.min(modified) < 2 || created.max(modified) > limits::MAX_REVISION {
                        return Err(out_of_range(tree, row));
                    }
                    self.created_after_modified += u64::from(created > modified);
                    modified.cast_signed()
                }
                // For the order only, which is the same for any index.
                Numbering::Dense(_) => i64::from_le_bytes((modified ^ (1 << 63)).to_le_bytes()),
            });
            row.lease = places.get(row.lease.0 as usize).copied().unwrap_or_default();
        }
        interrupt.sort_by(&mut rows, |a, b| {
            a.main
                .cmp(&b.main)
                .then_with(|| tree.path(a.node).cmp(&tree.path(b.node)))
                .then(a.marker.cmp(&b.marker))
                .then(a.overrides.cmp(&b.overrides))
        })?;
        self.rows = rows;
        Ok(())
    }

    fn keep(&mut self, v2_index: V2Index) -> Result<u64> {
        let mut previous = Revision(0);
        let mut sub = 0;
        for row in &mut self.rows {
            sub = if row.main == previous { sub + 1 } else { 0 };
            row.sub = sub;
            self.shared += u64::from(sub > 0);
            previous = row.main;
        }
        let last = u64::try_from(previous.0).unwrap_or(0);
        if v2_index.0 > limits::MAX_REVISION {
            let message = format!("the v2 index {v2_index} is above 2^62 and cannot be a revision");
            return Err(Error::new(Reason::IndexRange, message).hint("use --revisions dense"));
        }
        // etcd does not write a store whose index is below those of its nodes, but a revision must still be unique.
        Ok(last.max(v2_index.0))
    }

    fn dense(&mut self, before: Revision) -> Result<u64> {
        let rows = self.rows.len() as u64;
        let last = u64::try_from(before.0).unwrap_or(1).saturating_add(rows);
        if last > limits::MAX_REVISION {
            let rows = counted(rows, "revision", "revisions");
            let message = format!("expected a current revision up to 2^62, found {before} and {rows} more");
            return Err(Error::new(Reason::IndexRange, message));
        }
        for (row, revision) in self.rows.iter_mut().zip(before.0.saturating_add(1)..) {
            row.main = Revision(revision);
        }
        Ok(last)
    }
}

/// Rows with their tree: every pair to write, in its v3 form.
#[derive(Debug, Clone, Copy)]
pub struct Pairs<'t, 'm> {
    /// The source of names and values.
    pub tree: &'t Tree<'m>,
    /// The rows, in the order of their revisions.
    pub ordered: &'t Ordered,
}

impl<'t> Pairs<'t, '_> {
    /// Returns whether a transformer added the row without a v2 key. It refers to the root, which is not a key.
    pub fn is_added(&self, row: &Row) -> bool {
        Self::is_of_root(self.tree, row)
    }

    /// Returns [`Pairs::is_added`] for a row without a position in the order.
    pub fn is_of_root(tree: &Tree<'_>, row: &Row) -> bool {
        tree.path_len(row.node) <= NAMESPACE.len()
    }

    /// Returns whether the v3 key of a row is the v2 name of its node.
    pub fn has_name_of_node(&self, row: &Row) -> bool {
        !row.marker && self.ordered.overrides(row).is_none_or(|overrides| overrides.renamed.is_none())
    }

    /// Returns the v3 key of a row.
    pub fn key(&self, row: &Row) -> Cow<'t, [u8]> {
        v3_key(self.tree, row, self.ordered.overrides(row))
    }

    /// Prefetches the nodes of these rows, with their names and values. Changes nothing.
    pub fn read_ahead(&self, rows: std::ops::Range<usize>) {
        self.tree.read_ahead(self.nodes(rows));
    }

    /// Prefetches the nodes of these rows, without names and values. Changes nothing.
    pub fn read_nodes_ahead(&self, rows: std::ops::Range<usize>) {
        self.tree.read_nodes_ahead(self.nodes(rows));
    }

    /// Returns the nodes of these rows; none if there are fewer rows.
    fn nodes(&self, rows: std::ops::Range<usize>) -> impl Iterator<Item = NodeRef> + Clone {
        self.ordered.rows.get(rows).unwrap_or_default().iter().map(|row| row.node)
    }

    /// Returns the value of a row.
    pub fn value(&self, row: &Row) -> Cow<'t, [u8]> {
        match self.own_value(row) {
            _ if row.marker => Cow::Borrowed(&[]),
            Some(value) => Cow::Borrowed(value),
            None => self.tree.value(row.node),
        }
    }

    /// Returns the length of the v3 key in bytes.
    pub fn key_len(&self, row: &Row) -> usize {
        let (skip, prefix) = self.renamed(row);
        prefix.len() + self.tree.path_len(row.node).saturating_sub(NAMESPACE.len() + skip) + usize::from(row.marker)
    }

    /// Returns the length of the value in bytes.
    pub fn value_len(&self, row: &Row) -> usize {
        match self.own_value(row) {
            _ if row.marker => 0,
            Some(value) => value.len(),
            None => self.tree.value_len(row.node),
        }
    }

    /// Copies the v3 key into a buffer of exactly its length. Returns whether it fitted.
    #[must_use]
    pub fn copy_key(&self, row: &Row, out: &mut [u8]) -> bool {
        let (skip, prefix) = self.renamed(row);
        let Some((head, mut rest)) = out.split_at_mut_checked(prefix.len()) else { return false };
        head.copy_from_slice(prefix);
        if row.marker {
            let Some((slash, path)) = rest.split_last_mut() else { return false };
            *slash = b'/';
            rest = path;
        }
        self.tree.copy_path(row.node, NAMESPACE.len() + skip, rest)
    }

    /// Copies the value into a buffer of exactly its length. Returns whether it fitted.
    #[must_use]
    pub fn copy_value(&self, row: &Row, out: &mut [u8]) -> bool {
        match self.own_value(row) {
            _ if row.marker => out.is_empty(),
            Some(value) => crate::v2store::table::copy(value, out),
            None => self.tree.copy_value(row.node, out),
        }
    }

    /// Returns the creation revision of a row.
    pub fn create(&self, row: &Row) -> Revision {
        if let Some(created) = self.ordered.overrides(row).and_then(|overrides| overrides.created) {
            return created.min(row.main);
        }
        match self.ordered.numbering {
            Numbering::Dense(_) => row.main,
            Numbering::Keep => {
                let created = i64::try_from(self.tree.created(row.node).0).unwrap_or(i64::MAX);
                Revision(created).min(row.main)
            }
        }
    }

    /// Returns the version of a row: 1, because v2 does not record how often a key changed.
    pub fn version(&self, row: &Row) -> i64 {
        self.ordered.overrides(row).and_then(|overrides| overrides.version).unwrap_or(1)
    }

    fn own_value(&self, row: &Row) -> Option<&'t [u8]> {
        self.ordered.overrides(row)?.value.as_deref()
    }

    fn renamed(&self, row: &Row) -> (usize, &'t [u8]) {
        match self.ordered.overrides(row).and_then(|overrides| overrides.renamed.as_ref()) {
            Some(renamed) => (renamed.skip, &renamed.prefix),
            None => (0, &[]),
        }
    }
}

/// Returns the v3 key of a row with these overrides.
pub fn v3_key<'t>(tree: &'t Tree<'_>, row: &Row, overrides: Option<&Overrides>) -> Cow<'t, [u8]> {
    let path = tree.path(row.node);
    let renamed = overrides.and_then(|overrides| overrides.renamed.as_ref());
    if renamed.is_none() && !row.marker {
        return match path {
            Cow::Borrowed(path) => Cow::Borrowed(path::user_key(path)),
            Cow::Owned(path) => Cow::Owned(path::user_key(&path).to_vec()),
        };
    }
    let key = path::user_key(&path);
    let mut key = renamed.map_or_else(|| key.to_vec(), |renamed| renamed.apply(key));
    if row.marker && !key.is_empty() {
        key.push(b'/');
    }
    Cow::Owned(key)
}

fn out_of_range(tree: &Tree<'_>, row: &Row) -> Error {
    let node: NodeRef = row.node;
    let message = format!(
        "key {} has the v2 indexes {} (created) and {} (modified), which cannot be revisions (2 to 2^62)",
        short(&String::from_utf8_lossy(path::user_key(&tree.path(node)))),
        tree.created(node),
        tree.modified(node)
    );
    Error::new(Reason::IndexRange, message).hint("use --revisions dense")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::plan::plan;
    use crate::transform::policy::Policy;
    use crate::v2store::json;

    fn ordered(nodes: &[(&str, u64, u64)], numbering: Numbering, index: u64) -> Result<Vec<(String, i64, u32, i64)>> {
        let nodes: Vec<_> = nodes
            .iter()
            .map(|(name, c, m)| format!(r#""{name}":{{"Path":"/1/{name}","CreatedIndex":{c},"ModifiedIndex":{m}}}"#))
            .collect();
        let one = format!(r#""1":{{"Path":"/1","Children":{{{}}}}}"#, nodes.join(","));
        let text = format!(r#"{{"Root":{{"Path":"/","Children":{{{one}}}}},"CurrentIndex":{index}}}"#);
        let table = json::read(text.as_bytes()).unwrap();
        let mut tree = Tree::new(&table);
        let mut policy = Policy::everything(jiff::Timestamp::UNIX_EPOCH);
        let mut plan = plan(&mut tree, &mut policy, Interrupt::default()).unwrap();
        let leases_in_use = &HashSet::new();
        let how =
            Order { numbering, v2_index: V2Index(index), bump: 0, leases_in_use, interrupt: Interrupt::default() };
        let out = order(&tree, &mut plan, &how)?;
        let pairs = Pairs { tree: &tree, ordered: &out };
        let mut list: Vec<_> = out
            .rows
            .iter()
            .map(|r| (String::from_utf8_lossy(&tree.path(r.node)).into_owned(), r.main.0, r.sub, pairs.create(r).0))
            .collect();
        list.push(("current".into(), out.current.0, 0, 0));
        Ok(list)
    }

    #[test]
    fn keeps_indexes_as_revisions() {
        let list = ordered(&[("a", 5, 9), ("b", 2, 2), ("c", 9, 9)], Numbering::Keep, 12).unwrap();
        let row = |name: &str, main, sub, create| (name.to_string(), main, sub, create);
        assert_eq!(list, [row("/1/b", 2, 0, 2), row("/1/a", 9, 0, 5), row("/1/c", 9, 1, 9), row("current", 12, 0, 0)]);
    }

    #[test]
    fn numbers_densely_from_2() {
        let list = ordered(&[("c", 9, u64::MAX), ("a", 1, 1), ("b", 0, 0)], Numbering::DENSE, 12).unwrap();
        let row = |name: &str, main, create| (name.to_string(), main, 0, create);
        assert_eq!(list, [row("/1/b", 2, 2), row("/1/a", 3, 3), row("/1/c", 4, 4), row("current", 4, 0)]);
    }

    #[test]
    fn refuses_to_number_on_from_the_last_revision() {
        for before in [1 << 62, i64::MAX - 1, i64::MAX] {
            let error = ordered(&[("a", 5, 9), ("b", 2, 2)], Numbering::Dense(Revision(before)), 12).unwrap_err();
            assert_eq!(error.reason(), Reason::IndexRange);
            assert!(error.to_string().contains(&format!("found {before} and 2 revisions more")), "{error}");
        }
        assert!(ordered(&[("a", 5, 9)], Numbering::Dense(Revision((1 << 62) - 1)), 12).is_ok());
    }

    #[test]
    fn refuses_indexes_that_cannot_be_revisions() {
        for (created, modified) in [(1, 1), (1, 5), (2, (1 << 62) + 1), (0, 3), (3, u64::MAX)] {
            let error = ordered(&[("a", created, modified)], Numbering::Keep, 9).unwrap_err();
            assert_eq!(error.reason(), Reason::IndexRange, "{error}");
        }
    }
}
