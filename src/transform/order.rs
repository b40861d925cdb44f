//! Revisions, and the order of rows by them (FORMATS 13.2).
//!
//! `keep`: the v2 modified index is the v3 revision, so that an application's index still means the same. `dense`: 2, 3, 4 …
//! in the order of modified index and key. Knows nothing of pairs and pages.

use rayon::slice::ParallelSliceMut;

use crate::error::{Error, Reason, Result};
use crate::ids::{Revision, V2Index};
use crate::limits;
use crate::report::table::short;
use crate::transform::plan::Row;
use crate::v2store::overlay::{NodeRef, Tree};

/// How revisions are numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbering {
    /// v3 revision = v2 modified index, create revision = v2 created index.
    Keep,
    /// 2 to n + 1, create = mod.
    Dense,
}

/// Ordered rows and the revision that v3 goes on from.
#[derive(Debug)]
pub struct Ordered {
    /// Rows by revision, strictly ascending.
    pub rows: Vec<Row>,
    /// How revisions are numbered.
    pub numbering: Numbering,
    /// The current revision after boot, and the one below which everything counts as compacted.
    pub current: Revision,
    /// Rows that share their main revision with another.
    pub shared: u64,
    /// Rows whose v2 created index lies above their modified index: such a store is not etcd's own.
    pub created_after_modified: u64,
}

/// Gives every row its revision and sorts by it.
///
/// # Errors
/// [`Reason::IndexRange`] naming a key, if an index cannot be kept as a revision.
pub fn order(
    tree: &Tree<'_>,
    mut rows: Vec<Row>,
    numbering: Numbering,
    v2_index: V2Index,
    bump: u64,
) -> Result<Ordered> {
    for row in &mut rows {
        let modified = tree.modified(row.node).0;
        row.main = Revision(match numbering {
            Numbering::Keep => i64::try_from(modified).map_err(|_| out_of_range(tree, row))?,
            // Only for the order, which is the same for any index.
            Numbering::Dense => i64::from_le_bytes((modified ^ (1 << 63)).to_le_bytes()),
        });
    }
    rows.par_sort_unstable_by(|a, b| {
        a.main.cmp(&b.main).then_with(|| key(tree, a).cmp(&key(tree, b))).then(a.marker.cmp(&b.marker))
    });
    let mut out = Ordered { rows, numbering, current: Revision(1), shared: 0, created_after_modified: 0 };
    let last = match numbering {
        Numbering::Keep => out.keep(tree, v2_index)?,
        Numbering::Dense => out.dense(),
    };
    let current = last.checked_add(bump).filter(|current| *current <= limits::MAX_REVISION);
    let current = current.and_then(|current| i64::try_from(current.max(1)).ok());
    out.current = Revision(current.ok_or_else(|| {
        Error::new(Reason::IndexRange, format!("expected a current revision up to 2^62, found {last} and {bump} more"))
    })?);
    Ok(out)
}

impl Ordered {
    /// The create revision of a row.
    pub fn create(&self, tree: &Tree<'_>, row: &Row) -> Revision {
        match self.numbering {
            Numbering::Dense => row.main,
            Numbering::Keep => {
                let created = i64::try_from(tree.created(row.node).0).unwrap_or(i64::MAX);
                Revision(created).min(row.main)
            }
        }
    }

    fn keep(&mut self, tree: &Tree<'_>, v2_index: V2Index) -> Result<u64> {
        let mut previous = Revision(0);
        let mut sub = 0;
        for row in &mut self.rows {
            let created = tree.created(row.node).0;
            let modified = tree.modified(row.node).0;
            if created.min(modified) < 2 || created.max(modified) > limits::MAX_REVISION {
                return Err(out_of_range(tree, row));
            }
            self.created_after_modified += u64::from(created > modified);
            sub = if row.main == previous { sub + 1 } else { 0 };
            row.sub = sub;
            self.shared += u64::from(sub > 0);
            previous = row.main;
        }
        let last = u64::try_from(previous.0).unwrap_or(0);
        if v2_index.0 > limits::MAX_REVISION {
            let message =
                format!("the v2 index {v2_index} is above 2^62 and cannot be a revision: use --revisions dense");
            return Err(Error::new(Reason::IndexRange, message));
        }
        // A store whose index fell behind its nodes is not etcd's own; no revision may be given twice all the same.
        Ok(last.max(v2_index.0))
    }

    fn dense(&mut self) -> u64 {
        let mut next = 2;
        for row in &mut self.rows {
            row.main = Revision(next);
            next += 1;
        }
        u64::try_from(next - 1).unwrap_or(1)
    }
}

fn key<'t>(tree: &'t Tree<'_>, row: &Row) -> std::borrow::Cow<'t, [u8]> {
    tree.path(row.node)
}

fn out_of_range(tree: &Tree<'_>, row: &Row) -> Error {
    let node: NodeRef = row.node;
    let message = format!(
        "key {} has the v2 indexes {} (created) and {} (modified), which cannot be revisions (2 to 2^62): use --revisions dense",
        short(&String::from_utf8_lossy(crate::v2store::path::user_key(&tree.path(node)))),
        tree.created(node),
        tree.modified(node)
    );
    Error::new(Reason::IndexRange, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::plan::{Policy, plan};
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
        let policy = Policy { drop_hidden: false, mark_empty_dirs: false, as_of: jiff::Timestamp::UNIX_EPOCH };
        let rows = plan(&mut tree, &policy, &|| Ok(())).unwrap().rows;
        let out = order(&tree, rows, numbering, V2Index(index), 0)?;
        let mut list: Vec<_> = out
            .rows
            .iter()
            .map(|r| {
                (String::from_utf8_lossy(&tree.path(r.node)).into_owned(), r.main.0, r.sub, out.create(&tree, r).0)
            })
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
        let list = ordered(&[("c", 9, u64::MAX), ("a", 1, 1), ("b", 0, 0)], Numbering::Dense, 12).unwrap();
        let row = |name: &str, main, create| (name.to_string(), main, 0, create);
        assert_eq!(list, [row("/1/b", 2, 2), row("/1/a", 3, 3), row("/1/c", 4, 4), row("current", 4, 0)]);
    }

    #[test]
    fn refuses_indexes_that_cannot_be_revisions() {
        for (created, modified) in [(1, 1), (1, 5), (2, (1 << 62) + 1), (0, 3), (3, u64::MAX)] {
            let error = ordered(&[("a", created, modified)], Numbering::Keep, 9).unwrap_err();
            assert_eq!(error.reason(), Reason::IndexRange, "{error}");
        }
    }
}
