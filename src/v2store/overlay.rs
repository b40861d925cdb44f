//! The tree as it stands after the log: a snapshot's table, and over it only what was changed.
//!
//! A changed directory becomes an overlay node that names what of its base children is replaced or gone; everything below
//! that was not touched stays in the table. So the cost of a replay is that of the log, not of the snapshot. The base
//! children of a directory are indexed by name when one of them is first looked up. Knows the tree's shape and its TTLs
//! (FORMATS 6.3, 6.5, 6.6), not which requests do what.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use jiff::Timestamp;

use crate::ids::V2Index;
use crate::v2store::path;
use crate::v2store::table::{Node, NodeId, Table, copy};

/// A node, in the table or above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeRef {
    /// As the snapshot has it.
    Base(NodeId),
    /// Made or changed by the log.
    Over(OverId),
}

/// The number of an overlay node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OverId(u32);

/// Why a path leads to no node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Some component is not there (etcd's 100).
    NotFound,
    /// Some component on the way is a file (etcd's 104).
    NotDir,
}

/// A tree of nodes that the log can change.
#[derive(Debug)]
pub struct Tree<'m> {
    table: &'m Table<'m>,
    nodes: Vec<OverNode<'m>>,
    root: OverId,
    indexes: HashMap<NodeId, HashTable<NodeId>>,
    hasher: DefaultHashBuilder,
    expiries: BinaryHeap<Reverse<Expiry>>,
    /// The store's index: successful changes and expirations so far.
    pub current_index: V2Index,
}

#[derive(Debug)]
struct OverNode<'m> {
    path: Box<[u8]>,
    created: V2Index,
    modified: V2Index,
    expiry: Option<Timestamp>,
    body: Body<'m>,
    /// See [`Tree::replaced`].
    replaced: (bool, bool),
}

#[derive(Debug)]
enum Body<'m> {
    File(Cow<'m, [u8]>),
    Dir {
        /// The directory in the table that this one stands for.
        base: Option<NodeId>,
        changed: HashMap<Box<[u8]>, Change>,
        children: u64,
    },
}

/// What became of a name in a changed directory.
#[derive(Debug, Clone, Copy, Default)]
struct Change {
    /// The base child that is replaced or gone.
    base: Option<NodeId>,
    now: Option<OverId>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Expiry {
    at: Timestamp,
    depth: usize,
    path: Box<[u8]>,
}

/// A node that a walk came by.
#[derive(Debug, Clone, Copy)]
pub struct Visit {
    /// Which.
    pub node: NodeRef,
    /// The earliest expiry of the node and the directories above it.
    pub expiry: Option<Timestamp>,
}

impl<'m> Tree<'m> {
    /// The tree of a snapshot, or of a new store where the table is empty.
    ///
    /// The namespaces `/0` and `/1` are there in any case, as every server since 2.0.1 makes them (FORMATS 3.2, 3.3).
    pub fn new(table: &'m Table<'m>) -> Tree<'m> {
        let mut tree = Tree {
            table,
            nodes: Vec::new(),
            root: OverId(0),
            indexes: HashMap::new(),
            hasher: DefaultHashBuilder::default(),
            expiries: BinaryHeap::new(),
            current_index: table.current_index,
        };
        let base = if table.is_empty() { None } else { Some(NodeId(0)) };
        tree.root = tree.add_dir(b"/", V2Index(0), None, base, false);
        for namespace in [&b"0"[..], b"1"] {
            if tree.child(NodeRef::Over(tree.root), namespace).is_none() {
                tree.insert(tree.root, namespace, NewNode { index: V2Index(0), expiry: None, value: None });
            }
        }
        if !table.expiries.is_empty() {
            for node in table.nodes.iter().filter(|node| node.expiry != 0) {
                if let Some(at) = table.expiry(node) {
                    tree.push_expiry(at, table.path(node).into());
                }
            }
        }
        tree
    }

    /// The root, of all namespaces.
    pub fn root(&self) -> NodeRef {
        NodeRef::Over(self.root)
    }

    /// The node at a clean path.
    ///
    /// # Errors
    /// Why there is none.
    pub fn lookup(&mut self, clean: &[u8]) -> Result<NodeRef, Missing> {
        let mut node = NodeRef::Over(self.root);
        for name in path::components(clean) {
            if !self.is_dir(node) {
                return Err(Missing::NotDir);
            }
            node = self.child(node, name).ok_or(Missing::NotFound)?;
        }
        Ok(node)
    }

    /// Whether the node is a directory.
    pub fn is_dir(&self, node: NodeRef) -> bool {
        match node {
            NodeRef::Base(id) => self.table.node(id).is_dir(),
            NodeRef::Over(id) => matches!(self.over(id).map(|n| &n.body), Some(Body::Dir { .. })),
        }
    }

    /// Whether a directory has children.
    pub fn has_children(&self, node: NodeRef) -> bool {
        match node {
            NodeRef::Base(id) => self.table.node(id).end > id.0 + 1,
            NodeRef::Over(id) => {
                matches!(self.over(id).map(|n| &n.body), Some(Body::Dir { children, .. }) if *children > 0)
            }
        }
    }

    /// A file's value; empty for a directory.
    pub fn value(&self, node: NodeRef) -> Cow<'m, [u8]> {
        match node {
            NodeRef::Base(id) => self.table.value(&self.table.node(id)),
            NodeRef::Over(id) => match self.over(id).map(|n| &n.body) {
                Some(Body::File(value)) => value.clone(),
                _ => Cow::Borrowed(&[]),
            },
        }
    }

    /// The absolute path, with its namespace.
    pub fn path(&self, node: NodeRef) -> Cow<'_, [u8]> {
        match node {
            NodeRef::Base(id) => self.table.path(&self.table.node(id)),
            NodeRef::Over(id) => Cow::Borrowed(self.over(id).map_or(&[], |n| &n.path)),
        }
    }

    /// Bytes of the path.
    pub fn path_len(&self, node: NodeRef) -> usize {
        match node {
            NodeRef::Base(id) => self.table.node(id).path.len as usize,
            NodeRef::Over(id) => self.over(id).map_or(0, |n| n.path.len()),
        }
    }

    /// Bytes of the value.
    pub fn value_len(&self, node: NodeRef) -> usize {
        match node {
            NodeRef::Base(id) => self.table.node(id).value.len as usize,
            NodeRef::Over(id) => match self.over(id).map(|n| &n.body) {
                Some(Body::File(value)) => value.len(),
                _ => 0,
            },
        }
    }

    /// Copies the end of the path, from byte `skip` on, into a buffer of exactly that length. Returns whether it fitted.
    #[must_use]
    pub fn copy_path(&self, node: NodeRef, skip: usize, out: &mut [u8]) -> bool {
        match node {
            NodeRef::Base(id) => self.table.copy_path(&self.table.node(id), skip, out),
            NodeRef::Over(_) => copy(self.path(node).get(skip..).unwrap_or_default(), out),
        }
    }

    /// Copies the value into a buffer of exactly its length. Returns whether it fitted.
    #[must_use]
    pub fn copy_value(&self, node: NodeRef, out: &mut [u8]) -> bool {
        match node {
            NodeRef::Base(id) => self.table.copy_value(&self.table.node(id), out),
            NodeRef::Over(_) => copy(&self.value(node), out),
        }
    }

    /// Whether the path, and whether the value, holds U+FFFD in place of bytes that an earlier snapshot could not keep.
    pub fn replaced(&self, node: NodeRef) -> (bool, bool) {
        match node {
            NodeRef::Base(id) => {
                let node = self.table.node(id);
                (node.has(Node::PATH_REPLACED), node.has(Node::VALUE_REPLACED))
            }
            NodeRef::Over(id) => self.over(id).map_or((false, false), |n| n.replaced),
        }
    }

    /// The index that made the node.
    pub fn created(&self, node: NodeRef) -> V2Index {
        match node {
            NodeRef::Base(id) => V2Index(self.table.node(id).created),
            NodeRef::Over(id) => self.over(id).map_or(V2Index(0), |n| n.created),
        }
    }

    /// The index that last changed the node.
    pub fn modified(&self, node: NodeRef) -> V2Index {
        match node {
            NodeRef::Base(id) => V2Index(self.table.node(id).modified),
            NodeRef::Over(id) => self.over(id).map_or(V2Index(0), |n| n.modified),
        }
    }

    /// When the node itself expires.
    pub fn expiry(&self, node: NodeRef) -> Option<Timestamp> {
        match node {
            NodeRef::Base(id) => self.table.expiry(&self.table.node(id)),
            NodeRef::Over(id) => self.over(id).and_then(|n| n.expiry),
        }
    }

    /// The table below.
    pub fn table(&self) -> &'m Table<'m> {
        self.table
    }

    /// The names and nodes in a directory.
    pub fn children(&self, dir: NodeRef) -> Vec<(Vec<u8>, NodeRef)> {
        let mut out = Vec::new();
        let (base, changed) = match dir {
            NodeRef::Base(id) => (Some(id), None),
            NodeRef::Over(id) => match self.over(id).map(|n| &n.body) {
                Some(Body::Dir { base, changed, .. }) => (*base, Some(changed)),
                _ => (None, None),
            },
        };
        for id in base.into_iter().flat_map(|base| self.table.children(base)) {
            let name = self.table.name(&self.table.node(id));
            if changed.is_none_or(|changed| !changed.contains_key(&*name)) {
                out.push((name.into_owned(), NodeRef::Base(id)));
            }
        }
        for (name, change) in changed.into_iter().flatten() {
            if let Some(now) = change.now {
                out.push((name.to_vec(), NodeRef::Over(now)));
            }
        }
        out.sort_by(|a, b| a.0.cmp(&b.0));
        out
    }

    fn over(&self, id: OverId) -> Option<&OverNode<'m>> {
        self.nodes.get(id.0 as usize)
    }

    fn child(&mut self, dir: NodeRef, name: &[u8]) -> Option<NodeRef> {
        match dir {
            NodeRef::Base(id) => self.base_child(id, name).map(NodeRef::Base),
            NodeRef::Over(id) => {
                let Some(Body::Dir { base, changed, .. }) = self.over(id).map(|n| &n.body) else { return None };
                if let Some(change) = changed.get(name) {
                    return change.now.map(NodeRef::Over);
                }
                let base = (*base)?;
                self.base_child(base, name).map(NodeRef::Base)
            }
        }
    }

    fn base_child(&mut self, dir: NodeId, name: &[u8]) -> Option<NodeId> {
        let (table, hasher) = (self.table, &self.hasher);
        let index = self.indexes.entry(dir).or_insert_with(|| {
            let hash = |id: &NodeId| hasher.hash_one(&*table.name(&table.node(*id)));
            let mut index = HashTable::new();
            for child in table.children(dir) {
                index.insert_unique(hash(&child), child, hash);
            }
            index
        });
        index.find(hasher.hash_one(name), |id| *table.name(&table.node(*id)) == *name).copied()
    }
}

/// A node to be made.
#[derive(Debug)]
pub struct NewNode<'m> {
    /// Its created and modified index.
    pub index: V2Index,
    /// Its own expiry.
    pub expiry: Option<Timestamp>,
    /// A file's value; `None` for a directory.
    pub value: Option<Cow<'m, [u8]>>,
}

impl<'m> Tree<'m> {
    /// Makes or replaces the node at a clean path other than the root, with every directory above it that is missing;
    /// those get the same index (FORMATS 6.3). Whether the node may be there is the caller's question.
    ///
    /// # Errors
    /// [`Missing::NotDir`] if a file stands on the way; nothing is changed then.
    pub fn put(&mut self, clean: &[u8], node: NewNode<'m>) -> Result<(), Missing> {
        let (dir, name) = path::split(clean);
        match self.lookup(dir) {
            Ok(found) if !self.is_dir(found) => return Err(Missing::NotDir),
            Err(Missing::NotDir) => return Err(Missing::NotDir),
            _ => {}
        }
        let mut parent = self.root;
        for component in path::components(dir) {
            parent = self.open_dir(parent, component, node.index);
        }
        self.insert(parent, name, node);
        Ok(())
    }

    /// Changes value, modified index and expiry of the node at a clean path; a directory's value and index stay.
    pub fn update(&mut self, clean: &[u8], value: Option<Cow<'m, [u8]>>, index: V2Index, expiry: Option<Timestamp>) {
        let Ok(node) = self.lookup(clean) else { return };
        let Some(id) = self.open(clean) else { return };
        let keep = self.value(node);
        if let Some(over) = self.nodes.get_mut(id.0 as usize) {
            over.expiry = expiry;
            if let Body::File(file) = &mut over.body {
                over.replaced.1 &= value.is_none();
                *file = value.unwrap_or(keep);
                over.modified = index;
            }
        }
        if let Some(at) = expiry {
            self.push_expiry(at, clean.into());
        }
    }

    /// Removes the node at a clean path other than the root, with all below it. Returns whether there was one.
    pub fn remove(&mut self, clean: &[u8]) -> bool {
        if self.lookup(clean).is_err() {
            return false;
        }
        let (dir, name) = path::split(clean);
        let Some(parent) = self.open(dir) else { return false };
        let base = self.shadowed(parent, name);
        let Some(Body::Dir { changed, children, .. }) = self.nodes.get_mut(parent.0 as usize).map(|n| &mut n.body)
        else {
            return false;
        };
        *children -= 1;
        if base.is_none() {
            changed.remove(name);
        } else {
            changed.insert(name.into(), Change { base, now: None });
        }
        true
    }

    /// Removes every node whose expiry is at or before `now`, subtrees whole, one index each, earliest first (FORMATS 6.6).
    /// Returns how many indexes that took, and whether a directory and a node below it expired at the very same instant,
    /// where etcd itself counts one or two.
    pub fn expire(&mut self, now: Timestamp) -> (u64, bool) {
        let (mut removed, mut ambiguous) = (0, false);
        while self.expiries.peek().is_some_and(|Reverse(e)| e.at <= now) {
            let Some(Reverse(first)) = self.expiries.pop() else { break };
            let mut due = vec![first];
            while self.expiries.peek().is_some_and(|Reverse(e)| due.first().is_some_and(|first| first.at == e.at)) {
                due.extend(self.expiries.pop().map(|Reverse(e)| e));
            }
            // The heap may hold what was changed or removed since.
            due.retain(|e| self.lookup(&e.path).is_ok_and(|node| self.expiry(node) == Some(e.at)));
            due.dedup_by(|a, b| a.path == b.path);
            for expiry in due {
                if self.remove(&expiry.path) {
                    removed += 1;
                    self.current_index.0 += 1;
                } else {
                    ambiguous = true;
                }
            }
        }
        (removed, ambiguous)
    }

    /// The base child that a name in an overlay directory hides or would hide.
    fn shadowed(&mut self, parent: OverId, name: &[u8]) -> Option<NodeId> {
        let Some(Body::Dir { base, changed, .. }) = self.over(parent).map(|n| &n.body) else { return None };
        match (changed.get(name), *base) {
            (Some(change), _) => change.base,
            (None, Some(base)) => self.base_child(base, name),
            (None, None) => None,
        }
    }

    fn insert(&mut self, parent: OverId, name: &[u8], node: NewNode<'m>) -> OverId {
        let base = self.shadowed(parent, name);
        let old = self.child(NodeRef::Over(parent), name);
        let path = self.path_below(parent, name);
        let replaced = self.over(parent).is_some_and(|n| n.replaced.0) || old.is_some_and(|node| self.replaced(node).0);
        if let Some(at) = node.expiry {
            self.push_expiry(at, path.clone());
        }
        let id = match node.value {
            Some(value) => self.add(OverNode {
                path,
                created: node.index,
                modified: node.index,
                expiry: node.expiry,
                body: Body::File(value),
                replaced: (replaced, false),
            }),
            None => self.add_dir(&path, node.index, node.expiry, None, replaced),
        };
        self.set_child(parent, name, Change { base, now: Some(id) }, old.is_none());
        id
    }

    fn set_child(&mut self, parent: OverId, name: &[u8], change: Change, new: bool) {
        if let Some(Body::Dir { changed, children, .. }) = self.nodes.get_mut(parent.0 as usize).map(|n| &mut n.body) {
            changed.insert(name.into(), change);
            *children += u64::from(new);
        }
    }

    /// The directory `name` in an overlay directory, as an overlay node; made if it is missing.
    fn open_dir(&mut self, parent: OverId, name: &[u8], index: V2Index) -> OverId {
        match self.child(NodeRef::Over(parent), name) {
            Some(NodeRef::Over(id)) => id,
            Some(NodeRef::Base(id)) => self.lift(parent, name, id),
            None => self.insert(parent, name, NewNode { index, expiry: None, value: None }),
        }
    }

    /// The node at a clean path, as an overlay node.
    fn open(&mut self, clean: &[u8]) -> Option<OverId> {
        let mut node = self.root;
        for name in path::components(clean) {
            node = match self.child(NodeRef::Over(node), name)? {
                NodeRef::Over(id) => id,
                NodeRef::Base(id) => self.lift(node, name, id),
            };
        }
        Some(node)
    }

    /// Copies a base node into the overlay, in place.
    fn lift(&mut self, parent: OverId, name: &[u8], id: NodeId) -> OverId {
        let node = self.table.node(id);
        let path = self.table.path(&node);
        let replaced = self.replaced(NodeRef::Base(id));
        let over = if node.is_dir() {
            let over = self.add_dir(&path, V2Index(node.created), self.table.expiry(&node), Some(id), replaced.0);
            if let Some(over) = self.nodes.get_mut(over.0 as usize) {
                over.modified = V2Index(node.modified);
            }
            over
        } else {
            self.add(OverNode {
                path: path.into(),
                created: V2Index(node.created),
                modified: V2Index(node.modified),
                expiry: self.table.expiry(&node),
                body: Body::File(self.table.value(&node)),
                replaced,
            })
        };
        self.set_child(parent, name, Change { base: Some(id), now: Some(over) }, false);
        over
    }

    fn add_dir(
        &mut self,
        path: &[u8],
        index: V2Index,
        expiry: Option<Timestamp>,
        base: Option<NodeId>,
        replaced: bool,
    ) -> OverId {
        let children = base.map_or(0, |base| self.table.children(base).count() as u64);
        let body = Body::Dir { base, changed: HashMap::new(), children };
        let replaced = (replaced, false);
        self.add(OverNode { path: path.into(), created: index, modified: index, expiry, body, replaced })
    }

    fn add(&mut self, node: OverNode<'m>) -> OverId {
        // A log of 4 billion changes would be over 100 GB.
        let id = OverId(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        self.nodes.push(node);
        id
    }

    fn path_below(&self, parent: OverId, name: &[u8]) -> Box<[u8]> {
        let parent = self.over(parent).map_or(&[][..], |n| &n.path);
        let mut path = Vec::with_capacity(parent.len() + 1 + name.len());
        path.extend_from_slice(if parent == b"/" { b"" } else { parent });
        path.push(b'/');
        path.extend_from_slice(name);
        path.into()
    }

    fn push_expiry(&mut self, at: Timestamp, path: Box<[u8]>) {
        let depth = path::components(&path).count();
        self.expiries.push(Reverse(Expiry { at, depth, path }));
    }
}

/// What a walk still has before it.
enum Step {
    /// Whole subtrees of the table, side by side.
    Base {
        next: u32,
        end: u32,
        above: Option<Timestamp>,
    },
    Over {
        id: OverId,
        above: Option<Timestamp>,
    },
}

impl Tree<'_> {
    /// Visits a node and all below it: a directory before its children, untouched ones in the snapshot's order.
    ///
    /// # Errors
    /// What `visit` returned.
    pub fn walk<E>(&self, from: NodeRef, visit: &mut impl FnMut(Visit) -> Result<(), E>) -> Result<(), E> {
        let mut steps = vec![match from {
            NodeRef::Base(id) => Step::Base { next: id.0, end: self.table.node(id).end, above: None },
            NodeRef::Over(id) => Step::Over { id, above: None },
        }];
        while let Some(step) = steps.pop() {
            match step {
                Step::Base { next, end, above } => self.walk_base(next, end, above, visit)?,
                Step::Over { id, above } => {
                    let node = NodeRef::Over(id);
                    let expiry = earliest(above, self.expiry(node));
                    visit(Visit { node, expiry })?;
                    self.push_children(id, expiry, &mut steps);
                }
            }
        }
        Ok(())
    }

    fn walk_base<E>(
        &self,
        start: u32,
        end: u32,
        above: Option<Timestamp>,
        visit: &mut impl FnMut(Visit) -> Result<(), E>,
    ) -> Result<(), E> {
        // Directories with a TTL that the walk is inside of: where they end, and what holds there.
        let mut inside: Vec<(u32, Timestamp)> = Vec::new();
        for id in start..end {
            while inside.last().is_some_and(|(end, _)| *end <= id) {
                inside.pop();
            }
            let node = self.table.node(NodeId(id));
            let own = if node.expiry == 0 { None } else { self.table.expiry(&node) };
            let expiry = earliest(inside.last().map(|(_, at)| *at).or(above), own);
            if own.is_some() && node.is_dir() {
                inside.extend(expiry.map(|at| (node.end, at)));
            }
            visit(Visit { node: NodeRef::Base(NodeId(id)), expiry })?;
        }
        Ok(())
    }

    fn push_children(&self, id: OverId, above: Option<Timestamp>, steps: &mut Vec<Step>) {
        let Some(Body::Dir { base, changed, .. }) = self.over(id).map(|n| &n.body) else { return };
        let (mut replaced, mut new): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
        for (name, change) in changed {
            match change.base {
                Some(base) => replaced.push((base, change.now)),
                None => new.extend(change.now.map(|now| (name, now))),
            }
        }
        replaced.sort_unstable_by_key(|(base, _)| *base);
        new.sort_unstable();
        let first = steps.len();
        if let Some(base) = base {
            let mut next = base.0 + 1;
            for (gone, now) in replaced {
                if next < gone.0 {
                    steps.push(Step::Base { next, end: gone.0, above });
                }
                steps.extend(now.map(|id| Step::Over { id, above }));
                next = self.table.node(gone).end;
            }
            let end = self.table.node(*base).end;
            if next < end {
                steps.push(Step::Base { next, end, above });
            }
        }
        steps.extend(new.into_iter().map(|(_, id)| Step::Over { id, above }));
        if let Some(steps) = steps.get_mut(first..) {
            steps.reverse();
        }
    }
}

fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests;
