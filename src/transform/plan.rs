//! The plan of a conversion: one row for every pair that will be written, and the books on what is not.
//!
//! One walk over the tree. A row refers to its node; nothing is copied until it is encoded. What is counted here is counted
//! from the tree, so that the books can be held against what was written.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::ids::Revision;
use crate::options::REQUEST_LIMIT;
use crate::v2store::overlay::{NodeRef, Tree, Visit};
use crate::v2store::path;

/// The namespace of user keys, which v3 keys do not carry.
pub const NAMESPACE: &[u8] = b"/1";

/// Bytes that a v3 put takes besides key and value, as etcd's own clients reckon it.
const REQUEST_OVERHEAD: u64 = 512;

/// What to carry over.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Leave out keys with a path element that starts with `_`.
    pub drop_hidden: bool,
    /// Write an empty-valued key `PATH/` for each empty directory.
    pub mark_empty_dirs: bool,
    /// The instant against which TTLs are counted.
    pub as_of: Timestamp,
}

/// One pair to be written.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Main revision.
    pub main: Revision,
    /// Sub revision; other than 0 only where nodes share an index.
    pub sub: u32,
    /// A marker of an empty directory: its key ends in `/`.
    pub marker: bool,
    /// The node it comes from.
    pub node: NodeRef,
}

/// Keys, and the bytes of their names and values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Count {
    /// How many keys.
    pub keys: u64,
    /// Bytes of their names and values.
    pub bytes: u64,
}

impl Count {
    /// Counts one more key.
    pub fn add(&mut self, bytes: u64) {
        self.keys = self.keys.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Both counts together.
    #[must_use]
    pub fn plus(self, other: Count) -> Count {
        Count { keys: self.keys.saturating_add(other.keys), bytes: self.bytes.saturating_add(other.bytes) }
    }
}

/// What the tree holds.
#[derive(Debug, Default, Clone)]
pub struct Inventory {
    /// All keys.
    pub keys: Count,
    /// Directories, the root left out.
    pub directories: u64,
    /// Directories without children that are carried over.
    pub empty_directories: u64,
    /// Keys with a path element that starts with `_`.
    pub hidden: Count,
    /// Keys that expire, by their own TTL or a directory's.
    pub ttl: Count,
    /// Of these, expired at the instant of the policy.
    pub expired: Count,
    /// Keys whose name or value holds U+FFFD for bytes that an earlier snapshot could not keep.
    pub replaced: u64,
    /// Keys that a v3 client could not write again, with the size of such a request.
    pub oversized: Vec<(Vec<u8>, u64)>,
    /// Keys by first path element.
    pub first_elements: BTreeMap<Vec<u8>, Count>,
}

/// What will be written, and what not.
#[derive(Debug, Default)]
pub struct Plan {
    /// One row for every pair, unordered and without revisions until `order` has seen them.
    pub rows: Vec<Row>,
    /// What the tree holds.
    pub inventory: Inventory,
    /// Keys that a policy leaves out.
    pub dropped: Count,
    /// Keys in `rows`.
    pub written: Count,
    /// Markers in `rows`.
    pub markers: u64,
}

/// Walks the user keys and decides on each.
///
/// # Errors
/// What `interrupted` returned; it is asked now and then.
pub fn plan(tree: &mut Tree<'_>, policy: &Policy, interrupted: &dyn Fn() -> Result<()>) -> Result<Plan> {
    let mut plan = Plan::default();
    let Ok(root) = tree.lookup(NAMESPACE) else { return Ok(plan) };
    let mut visited = 0u64;
    let tree = &*tree;
    let mut open_dirs = OpenDirs::default();
    tree.walk::<crate::error::Error>(root, &mut |visit: Visit| {
        visited += 1;
        if visited.is_multiple_of(1 << 16) {
            interrupted()?;
        }
        if visit.node != root {
            plan.visit(tree, policy, &visit, &mut open_dirs);
        }
        Ok(())
    })?;
    open_dirs.close_all(&mut plan, policy);
    Ok(plan)
}

/// Directories that the walk is inside of, to tell which stay without children.
#[derive(Default)]
struct OpenDirs {
    dirs: Vec<OpenDir>,
}

struct OpenDir {
    node: NodeRef,
    path_len: usize,
    /// Something below it is carried over.
    kept: bool,
}

impl OpenDirs {
    /// Leaves the directories that a node with this path is not below. A walk visits a directory before its children.
    fn leave(&mut self, path: &[u8], tree: &Tree<'_>, plan: &mut Plan, policy: &Policy) {
        while let Some(dir) = self.dirs.last() {
            let below = path.get(dir.path_len) == Some(&b'/') && path.starts_with(&tree.path(dir.node));
            if below {
                break;
            }
            self.close(plan, policy);
        }
    }

    fn close(&mut self, plan: &mut Plan, policy: &Policy) {
        let Some(dir) = self.dirs.pop() else { return };
        if dir.kept {
            if let Some(parent) = self.dirs.last_mut() {
                parent.kept = true;
            }
            return;
        }
        plan.inventory.empty_directories += 1;
        if policy.mark_empty_dirs {
            plan.markers += 1;
            plan.rows.push(Row { main: Revision(0), sub: 0, marker: true, node: dir.node });
        }
        // An empty directory is content of the one above it.
        if let Some(parent) = self.dirs.last_mut() {
            parent.kept = true;
        }
    }

    fn close_all(&mut self, plan: &mut Plan, policy: &Policy) {
        while !self.dirs.is_empty() {
            self.close(plan, policy);
        }
    }
}

impl Plan {
    fn visit(&mut self, tree: &Tree<'_>, policy: &Policy, visit: &Visit, open: &mut OpenDirs) {
        let node = visit.node;
        let path = tree.path(node);
        open.leave(&path, tree, self, policy);
        let hidden = path::is_hidden(&path);
        let dropped = hidden && policy.drop_hidden;
        if tree.is_dir(node) {
            self.inventory.directories += 1;
            if !dropped {
                open.dirs.push(OpenDir { node, path_len: path.len(), kept: false });
            }
            return;
        }
        let key = path::user_key(&path);
        let bytes = (key.len() + tree.value_len(node)) as u64;
        self.inventory.count(tree, visit, key, bytes, hidden, policy);
        if dropped {
            self.dropped.add(bytes);
            return;
        }
        if let Some(parent) = open.dirs.last_mut() {
            parent.kept = true;
        }
        self.written.add(bytes);
        self.rows.push(Row { main: Revision(0), sub: 0, marker: false, node });
    }
}

impl Inventory {
    fn count(&mut self, tree: &Tree<'_>, visit: &Visit, key: &[u8], bytes: u64, hidden: bool, policy: &Policy) {
        self.keys.add(bytes);
        if hidden {
            self.hidden.add(bytes);
        }
        if let Some(at) = visit.expiry {
            self.ttl.add(bytes);
            if at <= policy.as_of {
                self.expired.add(bytes);
            }
        }
        let (in_path, in_value) = tree.replaced(visit.node);
        self.replaced += u64::from(in_path || in_value);
        if bytes + REQUEST_OVERHEAD > REQUEST_LIMIT {
            self.oversized.push((key.to_vec(), bytes + REQUEST_OVERHEAD));
        }
        let first = path::components(key).next().unwrap_or_default();
        match self.first_elements.get_mut(first) {
            Some(count) => count.add(bytes),
            None => drop(self.first_elements.insert(first.to_vec(), Count { keys: 1, bytes })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v2store::json;
    use crate::v2store::table::Table;

    const STORE: &str = r#"{"Root":{"Path":"/","Children":{"0":{"Path":"/0","Children":{"x":{"Path":"/0/x","Value":"no"}}},
        "1":{"Path":"/1","Children":{
        "_h":{"Path":"/1/_h","Children":{"k":{"Path":"/1/_h/k","Value":"hidden"}}},
        "d":{"Path":"/1/d","Children":{"e":{"Path":"/1/d/e","Children":{}}}},
        "g":{"Path":"/1/g","Children":{"_x":{"Path":"/1/g/_x","Value":"1"}}},
        "t":{"Path":"/1/t","ExpireTime":"2001-01-01T00:00:00Z","Children":{"k":{"Path":"/1/t/k","Value":"\ufffd"}}},
        "z":{"Path":"/1/z","Value":"zz"}}}}},"CurrentIndex":7}"#;

    fn plan_of(table: &Table<'_>, drop_hidden: bool) -> (Plan, Vec<String>) {
        let mut tree = Tree::new(table);
        let as_of = "2020-01-01T00:00:00Z".parse().unwrap();
        let policy = Policy { drop_hidden, mark_empty_dirs: true, as_of };
        let plan = plan(&mut tree, &policy, &|| Ok(())).unwrap();
        let names = plan.rows.iter().map(|r| {
            let path = String::from_utf8(tree.path(r.node).into_owned()).unwrap();
            if r.marker { path + "/" } else { path }
        });
        let names = names.collect();
        (plan, names)
    }

    #[test]
    fn counts_what_the_tree_holds_and_what_is_left_out() {
        let table = json::read(STORE.as_bytes()).unwrap();
        let (plan, names) = plan_of(&table, false);
        assert_eq!(names, ["/1/_h/k", "/1/d/e/", "/1/g/_x", "/1/t/k", "/1/z"]);
        let inventory = &plan.inventory;
        assert_eq!((inventory.keys.keys, inventory.directories, inventory.empty_directories), (4, 5, 1));
        assert_eq!((inventory.hidden.keys, inventory.ttl.keys, inventory.expired.keys), (2, 1, 1));
        assert_eq!((inventory.replaced, plan.written, plan.dropped.keys), (1, inventory.keys, 0));
        assert_eq!(inventory.first_elements.len(), 4);
    }

    #[test]
    fn hidden_keys_can_be_left_out_with_their_directories() {
        let table = json::read(STORE.as_bytes()).unwrap();
        let (plan, names) = plan_of(&table, true);
        assert_eq!(names, ["/1/d/e/", "/1/g/", "/1/t/k", "/1/z"]);
        assert_eq!((plan.dropped.keys, plan.written.keys, plan.inventory.keys.keys), (2, 2, 4));
        assert_eq!(plan.dropped.bytes + plan.written.bytes, plan.inventory.keys.bytes);
    }
}
