//! The tree after the log: the table of a snapshot, and an overlay with the changes only.
//!
//! A changed directory becomes an overlay node, which names its replaced and removed base children. Unchanged nodes
//! below it remain in the table. So the cost of a replay depends on the log, not on the snapshot. An overlay node
//! stores its own name and its parent, never its path, and a replaced or removed node is freed. So memory depends on
//! the live tree, not on its depth or on the number of changes. Nothing recurses. Knows the shape and the TTLs of the
//! tree (docs/formats.md 6.3, 6.5, 6.6). Must not know which requests do what.

use std::borrow::Cow;

use hashbrown::{HashMap, HashTable};
use jiff::Timestamp;

use crate::ids::V2Index;
use crate::v2store::name_hash::NameHash;
use crate::v2store::path;
use crate::v2store::table::{Node, NodeId, Table, copy};

mod ahead;
mod expiry;
mod node;
mod read;
mod recent;
mod touched;
mod value;
mod walk;

use expiry::Expiries;
use node::{Body, Change, Name, OverId, OverNode, Slot};
pub use node::{NewNode, NodeRef};
use recent::Recent;
use touched::Recorder;
pub use touched::{Touched, What};
pub use value::Value;
pub use walk::Visit;

/// Number of children up to which a directory of the table needs no index: its nodes are next to each other.
const FEW: usize = if cfg!(test) { 2 } else { 8 };

/// The reason why a path leads to no node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// A component does not exist (error 100 of etcd).
    NotFound,
    /// A component before the last one is a file (error 104 of etcd).
    NotDir,
}

/// A tree of nodes that the log can change.
#[derive(Debug)]
pub struct Tree<'m> {
    table: &'m Table<'m>,
    nodes: Vec<OverNode<'m>>,
    /// Free nodes for reuse.
    free: Vec<OverId>,
    root: OverId,
    recent: Recent,
    /// The children of directories of the table, by name.
    indexes: HashMap<NodeId, HashTable<NodeId>>,
    expiries: Expiries,
    held: Held,
    /// Changes below `/1`, if they are recorded.
    touched: Recorder,
    /// The index of the store: the number of successful changes and expirations.
    pub current_index: V2Index,
}

/// Counts of everything in the overlay that uses memory, except nodes.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    /// Own names, and their total length in bytes.
    names: usize,
    name_bytes: usize,
    /// Changed names in directories.
    changes: usize,
    /// Directories with a changed name.
    tables: usize,
    /// Nodes of the table that are indexed by name.
    indexed: usize,
}

impl<'m> Tree<'m> {
    /// Creates the tree of a snapshot, or of a new store if the table is empty.
    ///
    /// The namespaces `/0` and `/1` always exist, because every server since 2.0.1 creates them (docs/formats.md 3.2,
    /// 3.3).
    pub fn new(table: &'m Table<'m>) -> Tree<'m> {
        let root = if table.is_empty() { None } else { Some(NodeId(0)) };
        let mut tree = Tree {
            table,
            nodes: Vec::new(),
            free: Vec::new(),
            root: OverId(0),
            recent: Recent::default(),
            indexes: HashMap::new(),
            expiries: Expiries::default(),
            held: Held::default(),
            touched: Recorder::default(),
            current_index: table.current_index,
        };
        tree.nodes.push(OverNode {
            parent: tree.root,
            name: root.map_or_else(|| Name::Own(Box::default()), Name::Base),
            path_len: 1,
            body: tree.directory(root),
            ..OverNode::default()
        });
        for namespace in [&b"0"[..], b"1"] {
            if tree.slot(tree.root, namespace).now.is_none() {
                tree.insert(tree.root, namespace, NewNode { index: V2Index(0), expiry: None, value: None });
            }
        }
        tree
    }

    /// Returns the root of all namespaces.
    pub fn root(&self) -> NodeRef {
        NodeRef::Over(self.root)
    }

    /// Returns the node at a clean path.
    ///
    /// # Errors
    /// The reason why it does not exist.
    pub fn lookup(&mut self, clean: &[u8]) -> Result<NodeRef, Missing> {
        let (dir, name) = path::split(clean);
        if name.is_empty() {
            return Ok(self.root());
        }
        let node = match self.recent(dir) {
            Some(id) => NodeRef::Over(id),
            None => self.directory_at(dir)?,
        };
        self.child(node, name)
    }

    /// Returns the overlay directory at a clean path, if it is among the recent ones.
    #[inline]
    fn recent(&self, clean: &[u8]) -> Option<OverId> {
        let id = self.recent.guess(clean);
        (self.is_dir(NodeRef::Over(id)) && self.has_path(id, clean)).then_some(id)
    }

    /// Returns whether an overlay node has this clean path. Compares names from the last one.
    fn has_path(&self, id: OverId, clean: &[u8]) -> bool {
        let (mut rest, mut next) = (clean, self.over(id));
        while let Some(over) = next.filter(|over| over.path_len == rest.len()) {
            let name = match &over.name {
                Name::Base(base) => return self.table.has_path(*base, rest),
                Name::Own(name) => name,
            };
            let above = rest.strip_suffix(&**name).and_then(|rest| rest.strip_suffix(b"/"));
            let Some(above) = above else { return false };
            if over.depth <= 1 {
                return above.is_empty();
            }
            (rest, next) = (above, self.over(over.parent));
        }
        false
    }

    /// Returns the directory at a clean path.
    fn directory_at(&mut self, clean: &[u8]) -> Result<NodeRef, Missing> {
        let mut node = self.root();
        for name in path::components(clean) {
            node = self.child(node, name)?;
        }
        match node {
            _ if !self.is_dir(node) => return Err(Missing::NotDir),
            NodeRef::Over(id) => self.recent.set(clean, id),
            NodeRef::Base(_) => {}
        }
        Ok(node)
    }

    fn child(&mut self, dir: NodeRef, name: &[u8]) -> Result<NodeRef, Missing> {
        if !self.is_dir(dir) {
            return Err(Missing::NotDir);
        }
        match dir {
            NodeRef::Base(id) => self.base_child(id, NameHash::of(name), name).map(NodeRef::Base),
            NodeRef::Over(id) => self.slot(id, name).now,
        }
        .ok_or(Missing::NotFound)
    }

    /// Returns whether the node is a directory.
    pub fn is_dir(&self, node: NodeRef) -> bool {
        match node {
            NodeRef::Base(id) => self.table.node(id).is_dir(),
            NodeRef::Over(id) => matches!(self.over(id).map(|n| &n.body), Some(Body::Dir { .. })),
        }
    }

    /// Returns whether a directory has children.
    pub fn has_children(&self, node: NodeRef) -> bool {
        match node {
            NodeRef::Base(id) => self.table.node(id).end > id.0 + 1,
            NodeRef::Over(id) => {
                matches!(self.over(id).map(|n| &n.body), Some(Body::Dir { children, .. }) if *children > 0)
            }
        }
    }

    /// Returns the absolute path, with its namespace.
    #[inline]
    pub fn path(&self, node: NodeRef) -> Cow<'_, [u8]> {
        let over = match node {
            NodeRef::Base(id) => return self.table.path(&self.table.node(id)),
            NodeRef::Over(id) => self.over(id),
        };
        match over.map(|over| (&over.name, over.path_len)) {
            None => Cow::Borrowed(&[]),
            Some((Name::Base(id), _)) => self.table.path(&self.table.node(*id)),
            Some((Name::Own(_), len)) => {
                let mut path = vec![0; len];
                let fits = self.copy_path(node, 0, &mut path);
                debug_assert!(fits, "a path has the length that its node says");
                Cow::Owned(path)
            }
        }
    }

    /// Returns the length of the path in bytes.
    pub fn path_len(&self, node: NodeRef) -> usize {
        match node {
            NodeRef::Base(id) => self.table.node(id).path.len as usize,
            NodeRef::Over(id) => self.over(id).map_or(0, |n| n.path_len),
        }
    }

    /// Copies the end of the path, from byte `skip` on, into a buffer of exactly that length. Returns whether it
    /// fitted.
    #[must_use]
    pub fn copy_path(&self, node: NodeRef, skip: usize, out: &mut [u8]) -> bool {
        match node {
            NodeRef::Base(id) => self.table.copy_path(&self.table.node(id), skip, out),
            NodeRef::Over(id) => self.path_len(node).saturating_sub(skip) == out.len() && self.fill(id, skip, out),
        }
    }

    /// Copies the end of an overlay node's path, name by name from the last one.
    fn fill(&self, id: OverId, skip: usize, out: &mut [u8]) -> bool {
        let mut next = self.over(id);
        while let Some(over) = next.filter(|over| over.path_len > skip) {
            let Some(out) = out.get_mut(..over.path_len - skip) else { return false };
            let name = match &over.name {
                Name::Base(base) => return self.table.copy_path(&self.table.node(*base), skip, out),
                Name::Own(name) => name,
            };
            let start = over.path_len - name.len();
            let rest = out.split_at_mut_checked(start.saturating_sub(skip));
            let Some((before, end)) = rest else { return false };
            if !copy(name.get(skip.saturating_sub(start)..).unwrap_or_default(), end) {
                return false;
            }
            before.last_mut().into_iter().for_each(|slash| *slash = b'/');
            next = if over.depth == 0 { None } else { self.over(over.parent) };
        }
        true
    }

    /// Returns whether the path, and whether the value, contains U+FFFD in place of bytes that an earlier snapshot
    /// could not represent.
    pub fn replaced(&self, node: NodeRef) -> (bool, bool) {
        match node {
            NodeRef::Base(id) => {
                let node = self.table.node(id);
                (node.has(Node::PATH_REPLACED), node.has(Node::VALUE_REPLACED))
            }
            NodeRef::Over(id) => self.over(id).map_or((false, false), |n| n.replaced),
        }
    }

    /// Returns the created index.
    pub fn created(&self, node: NodeRef) -> V2Index {
        match node {
            NodeRef::Base(id) => V2Index(self.table.node(id).created),
            NodeRef::Over(id) => self.over(id).map_or(V2Index(0), |n| n.created),
        }
    }

    /// Returns the modified index.
    pub fn modified(&self, node: NodeRef) -> V2Index {
        match node {
            NodeRef::Base(id) => V2Index(self.table.node(id).modified),
            NodeRef::Over(id) => self.over(id).map_or(V2Index(0), |n| n.modified),
        }
    }

    /// Returns when the node itself expires.
    pub fn expiry(&self, node: NodeRef) -> Option<Timestamp> {
        match node {
            NodeRef::Base(id) => self.table.expiry(&self.table.node(id)),
            NodeRef::Over(id) => self.over(id).and_then(|n| n.expiry),
        }
    }

    /// Maximum memory of a directory with one name in it, in bytes.
    pub const DIRECTORY_BYTES: u64 = size_of::<OverNode<'_>>() as u64 + 256;

    /// Returns the approximate memory of the overlay in bytes, with free nodes.
    pub fn held_bytes(&self) -> u64 {
        /// The overhead of the allocator for an own name, rounded up.
        const NAME: usize = 24;
        /// A slot in a hash table that is three quarters full on average.
        const CHANGE: usize = (size_of::<Change>() + 1) * 2;
        /// The smallest hash table, and the memory of a walk for each open directory.
        const TABLE: usize = 160;
        /// A slot in a hash table for an indexed node of the snapshot.
        const INDEXED: usize = (size_of::<NodeId>() + 1) * 2;
        /// An index itself, and its place among the indexes.
        const INDEX: usize = 144;
        let Held { names, name_bytes, changes, tables, indexed } = self.held;
        let nodes = self.nodes.len() * size_of::<OverNode<'_>>() + self.free.len() * size_of::<OverId>();
        let bytes = nodes
            + names * NAME
            + name_bytes
            + changes * CHANGE
            + tables * TABLE
            + indexed * INDEXED
            + self.indexes.len() * INDEX;
        bytes as u64 + self.expiries.held_bytes()
    }

    /// Returns the table below the overlay.
    pub fn table(&self) -> &'m Table<'m> {
        self.table
    }

    /// Returns the names and nodes in a directory, by name.
    pub fn children(&self, dir: NodeRef) -> Vec<(Vec<u8>, NodeRef)> {
        let mut out = Vec::new();
        let (base, over) = match dir {
            NodeRef::Base(id) => (Some(id), None),
            NodeRef::Over(id) => match self.over(id).map(|n| &n.body) {
                Some(Body::Dir { base, changed, .. }) => (*base, Some((id, changed))),
                _ => (None, None),
            },
        };
        for id in base.into_iter().flat_map(|base| self.table.children(base)) {
            let node = self.table.node(id);
            let name = self.table.name(&node);
            let change = over.and_then(|(over, _)| self.change(over, node.name_hash, &name));
            if change.is_none() {
                out.push((name.into_owned(), NodeRef::Base(id)));
            }
        }
        for change in over.into_iter().flat_map(|(_, changed)| changed) {
            if let Some(now) = change.now {
                out.push((self.name(now).into_owned(), NodeRef::Over(now)));
            }
        }
        out.sort_by(|a, b| a.0.cmp(&b.0));
        out
    }

    fn over(&self, id: OverId) -> Option<&OverNode<'m>> {
        self.nodes.get(id.0 as usize)
    }

    /// Returns the last component of an overlay node's path.
    fn name(&self, id: OverId) -> Cow<'_, [u8]> {
        match self.over(id).map(|over| &over.name) {
            Some(Name::Base(base)) => self.table.name(&self.table.node(*base)),
            Some(Name::Own(name)) => Cow::Borrowed(name),
            None => Cow::Borrowed(&[]),
        }
    }

    /// Returns the change of a name in an overlay directory.
    fn change(&self, dir: OverId, hash: NameHash, name: &[u8]) -> Option<Change> {
        let Body::Dir { changed, .. } = &self.over(dir)?.body else { return None };
        let is_named = |change: &Change| match (change.base, change.now) {
            (Some(base), _) => self.table.has_name(base, hash, name),
            (None, Some(now)) => *self.name(now) == *name,
            (None, None) => false,
        };
        changed.find(hash.spread(), |change| change.hash == hash && is_named(change)).copied()
    }

    /// Returns what a name in an overlay directory resolves to.
    fn slot(&mut self, dir: OverId, name: &[u8]) -> Slot {
        let hash = NameHash::of(name);
        if let Some(Change { base, now, .. }) = self.change(dir, hash, name) {
            return Slot { hash, base, now: now.map(NodeRef::Over) };
        }
        let base = match self.over(dir).map(|n| &n.body) {
            Some(Body::Dir { base: Some(base), .. }) => self.base_child(*base, hash, name),
            _ => None,
        };
        Slot { hash, base, now: base.map(NodeRef::Base) }
    }

    /// Returns the child of a directory in the table. The first lookup indexes the children by name, if there are more than
    /// [`FEW`].
    fn base_child(&mut self, dir: NodeId, hash: NameHash, name: &[u8]) -> Option<NodeId> {
        let table = self.table;
        let is_named = |id: &NodeId| table.has_name(*id, hash, name);
        if let Some(index) = self.indexes.get(&dir) {
            return index.find(hash.spread(), is_named).copied();
        }
        let count = table.children(dir).count();
        if count <= FEW {
            return table.children(dir).find(is_named);
        }
        let hash_of = |id: &NodeId| table.node(*id).name_hash.spread();
        let mut index = HashTable::with_capacity(count);
        for child in table.children(dir) {
            index.insert_unique(hash_of(&child), child, hash_of);
        }
        let found = index.find(hash.spread(), is_named).copied();
        self.held.indexed += count;
        self.indexes.insert(dir, index);
        found
    }
}

/// Changes.
impl<'m> Tree<'m> {
    /// Records the touched paths from now on.
    pub fn record(&mut self) {
        self.touched.start();
    }

    /// Takes the touched paths since the last call, in their order; none if they are not recorded.
    pub fn take_touched(&mut self) -> Vec<Touched> {
        self.touched.take()
    }

    /// Creates or replaces the node at a clean path other than the root, and every missing directory above it. Those
    /// get the same index (docs/formats.md 6.3). The caller decides whether the node may exist.
    ///
    /// # Errors
    /// [`Missing::NotDir`] if a component before the last one is a file; then nothing is changed.
    pub fn put(&mut self, clean: &[u8], node: NewNode<'m>) -> Result<(), Missing> {
        let (dir, name) = path::split(clean);
        let parent = self.open(dir, Some(node.index))?;
        if self.touched.is_on() {
            let was_there = self.slot(parent, name).now.is_some();
            match node.value {
                Some(_) => self.touched.touch(clean, What::Set),
                None if was_there => self.touched.touch(clean, What::Removed),
                None => {}
            }
        }
        self.insert(parent, name, node);
        Ok(())
    }

    /// Changes value, modified index and expiry of the node at a clean path. For a directory, only the expiry changes.
    pub fn update(&mut self, clean: &[u8], value: Option<Value<'m>>, index: V2Index, expiry: Option<Timestamp>) {
        let (dir, name) = path::split(clean);
        let Ok(parent) = self.open(dir, None) else { return };
        let slot = self.slot(parent, name);
        let id = match slot.now {
            Some(NodeRef::Over(id)) => id,
            Some(NodeRef::Base(id)) => self.lift(parent, slot.hash, id),
            None => return,
        };
        let Some(over) = self.nodes.get_mut(id.0 as usize) else { return };
        let is_file = matches!(over.body, Body::File(_));
        if let Body::File(file) = &mut over.body {
            over.modified = index;
            if let Some(value) = value {
                over.replaced.1 = false;
                *file = value;
            }
        }
        let (depth, before) = (over.depth, std::mem::replace(&mut over.expiry, expiry));
        self.expiries.change(id, depth, before, expiry);
        match is_file {
            true => self.touched.touch(clean, What::Set),
            false if before != expiry => self.touched.touch(clean, What::Expiry),
            false => {}
        }
    }

    /// Removes the node at a clean path other than the root, with its subtree. Returns whether it existed.
    pub fn remove(&mut self, clean: &[u8]) -> bool {
        let mut files = Vec::new();
        if self.touched.is_on()
            && let Ok(node) = self.lookup(clean)
        {
            files = self.files(node);
        }
        let was_there = self.remove_at(clean);
        if was_there {
            files.iter().for_each(|path| self.touched.touch(path, What::Removed));
        }
        was_there
    }

    /// Returns the paths of a file, or of all files below a directory.
    fn files(&self, from: NodeRef) -> Vec<Vec<u8>> {
        let mut files = Vec::new();
        let _ = self.walk(from, &mut |visit| {
            if !self.is_dir(visit.node) {
                files.push(visit.path().into_owned());
            }
            Ok::<(), std::convert::Infallible>(())
        });
        files
    }

    fn remove_at(&mut self, clean: &[u8]) -> bool {
        let (dir, name) = path::split(clean);
        // A directory without that name remains in the table.
        if self.lookup(clean).is_err() {
            return false;
        }
        let Ok(parent) = self.open(dir, None) else { return false };
        let slot = self.slot(parent, name);
        self.unlink(parent, slot);
        true
    }

    /// Removes every node whose expiry is at or before `now`, with its subtree, one index each, earliest first
    /// (docs/formats.md 6.6).
    ///
    /// Returns how many indexes that took, and whether a directory and a node below it expired at the same instant. In
    /// that case etcd itself counts one or two.
    pub fn expire(&mut self, now: Timestamp) -> (u64, bool) {
        let (mut removed, mut ambiguous) = (0, false);
        while let Some(at) = self.expiries.first(self.table).filter(|at| *at <= now) {
            let mut due = self.expiries.due(self.table, at);
            // A node of the table may have been changed or removed since the snapshot.
            due.retain(|(_, node)| match node {
                NodeRef::Base(id) => self.lookup(&self.table.path(&self.table.node(*id))) == Ok(*node),
                NodeRef::Over(_) => true,
            });
            for (depth, node) in due {
                let is_due = match node {
                    NodeRef::Base(_) => true,
                    NodeRef::Over(id) => self.expiries.remove(id, depth, at),
                };
                let files = if is_due && self.touched.is_on() { self.files(node) } else { Vec::new() };
                let was_there = match node {
                    NodeRef::Base(id) => self.remove_at(&self.table.path(&self.table.node(id))),
                    NodeRef::Over(id) => is_due && self.remove_over(id),
                };
                if was_there {
                    removed += 1;
                    self.current_index.0 += 1;
                    files.iter().for_each(|path| self.touched.touch(path, What::Expired(self.current_index)));
                } else {
                    ambiguous = true;
                }
            }
        }
        (removed, ambiguous)
    }

    fn remove_over(&mut self, id: OverId) -> bool {
        let Some(parent) = self.over(id).filter(|over| over.depth > 0).map(|over| over.parent) else { return false };
        let name = self.name(id).into_owned();
        let slot = self.slot(parent, &name);
        self.unlink(parent, slot);
        true
    }

    /// Removes what a slot of an overlay directory resolves to.
    fn unlink(&mut self, parent: OverId, slot: Slot) {
        self.set(parent, slot, None);
        if let Some(Body::Dir { children, .. }) = self.nodes.get_mut(parent.0 as usize).map(|n| &mut n.body) {
            *children = children.saturating_sub(1);
        }
    }

    /// Sets or clears the overlay node of a slot in an overlay directory. Frees the previous one.
    fn set(&mut self, parent: OverId, slot: Slot, now: Option<OverId>) {
        let Slot { hash, base, now: before } = slot;
        let before = match before {
            Some(NodeRef::Over(id)) => Some(id),
            _ => None,
        };
        let same = |change: &Change| match (base, before) {
            (Some(_), _) => change.base == base,
            (None, Some(_)) => change.now == before,
            (None, None) => false,
        };
        let Some(Body::Dir { changed, .. }) = self.nodes.get_mut(parent.0 as usize).map(|n| &mut n.body) else {
            return;
        };
        match changed.find_entry(hash.spread(), same) {
            Ok(entry) if now.is_none() && base.is_none() => {
                entry.remove();
                self.held.changes -= 1;
            }
            Ok(mut entry) => entry.get_mut().now = now,
            Err(_) => {
                self.held.tables += usize::from(changed.capacity() == 0);
                changed.insert_unique(hash.spread(), Change { hash, base, now }, |change| change.hash.spread());
                self.held.changes += 1;
            }
        }
        if let Some(id) = before {
            self.free(id);
        }
    }

    /// Frees an overlay node and its subtree.
    fn free(&mut self, id: OverId) {
        let (mut next, mut pending) = (Some(id), Vec::new());
        while let Some(id) = next {
            let Some(node) = self.nodes.get_mut(id.0 as usize) else { return };
            let OverNode { name, depth, expiry, body, .. } = std::mem::take(node);
            self.expiries.change(id, depth, expiry, None);
            if let Name::Own(name) = name {
                self.held.names -= 1;
                self.held.name_bytes -= name.len();
            }
            if let Body::Dir { changed, .. } = body {
                self.held.changes -= changed.len();
                self.held.tables -= usize::from(changed.capacity() > 0);
                pending.extend(changed.iter().filter_map(|change| change.now));
            }
            self.free.push(id);
            next = pending.pop();
        }
    }

    fn insert(&mut self, parent: OverId, name: &[u8], node: NewNode<'m>) -> OverId {
        let slot = self.slot(parent, name);
        let replaced =
            self.over(parent).is_some_and(|n| n.replaced.0) || slot.now.is_some_and(|node| self.replaced(node).0);
        let body = match node.value {
            Some(value) => Body::File(value),
            None => self.directory(None),
        };
        let id = self.add(
            parent,
            slot.base.map_or_else(|| Name::Own(name.into()), Name::Base),
            OverNode {
                created: node.index,
                modified: node.index,
                expiry: node.expiry,
                body,
                replaced: (replaced, false),
                ..OverNode::default()
            },
        );
        self.set(parent, slot, Some(id));
        if let Some(Body::Dir { children, .. }) = self.nodes.get_mut(parent.0 as usize).map(|n| &mut n.body) {
            *children += u64::from(slot.now.is_none());
        }
        id
    }

    /// Returns the directory at a clean path as an overlay node. Creates it, and every missing directory above it, if an
    /// index for them is given.
    fn open(&mut self, clean: &[u8], new: Option<V2Index>) -> Result<OverId, Missing> {
        if let Some(dir) = self.recent(clean) {
            return Ok(dir);
        }
        let mut dir = self.root;
        for name in path::components(clean) {
            let slot = self.slot(dir, name);
            dir = match (slot.now, new) {
                // A missing directory has no nodes below it, so nothing was created yet.
                (Some(found), _) if !self.is_dir(found) => return Err(Missing::NotDir),
                (Some(NodeRef::Over(id)), _) => id,
                (Some(NodeRef::Base(id)), _) => self.lift(dir, slot.hash, id),
                (None, Some(index)) => self.insert(dir, name, NewNode { index, expiry: None, value: None }),
                (None, None) => return Err(Missing::NotFound),
            };
        }
        self.recent.set(clean, dir);
        Ok(dir)
    }

    /// Copies a base node into the overlay, in place.
    fn lift(&mut self, parent: OverId, hash: NameHash, id: NodeId) -> OverId {
        let node = self.table.node(id);
        let body = if node.is_dir() { self.directory(Some(id)) } else { Body::File(Value::of_node(self.table, id)) };
        let (in_path, in_value) = self.replaced(NodeRef::Base(id));
        let over = self.add(
            parent,
            Name::Base(id),
            OverNode {
                created: V2Index(node.created),
                modified: V2Index(node.modified),
                expiry: self.table.expiry(&node),
                body,
                replaced: (in_path, in_value && !node.is_dir()),
                ..OverNode::default()
            },
        );
        self.set(parent, Slot { hash, base: Some(id), now: Some(NodeRef::Base(id)) }, Some(over));
        over
    }

    fn directory(&self, base: Option<NodeId>) -> Body<'m> {
        let count = |base| self.indexes.get(&base).map_or_else(|| self.table.children(base).count(), HashTable::len);
        let children = base.map_or(0, count) as u64;
        Body::Dir { base, changed: HashTable::new(), children }
    }

    /// Adds a node to a directory that does not contain the name yet.
    fn add(&mut self, parent: OverId, name: Name, node: OverNode<'m>) -> OverId {
        let (above, depth) = self.over(parent).map_or((0, 0), |parent| (parent.path_len, parent.depth));
        let above = if depth == 0 { 0 } else { above };
        let path_len = match &name {
            Name::Base(id) => self.table.node(*id).path.len as usize,
            Name::Own(name) => {
                self.held.names += 1;
                self.held.name_bytes += name.len();
                above + 1 + name.len()
            }
        };
        let expiry = node.expiry;
        let node = OverNode { parent, name, path_len, depth: depth.saturating_add(1), ..node };
        let depth = node.depth;
        // 4 billion live changes would take more than 600 GB.
        let next = || OverId(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        let id = self.free.pop().unwrap_or_else(next);
        match self.nodes.get_mut(id.0 as usize) {
            Some(vacant) => *vacant = node,
            None => self.nodes.push(node),
        }
        self.expiries.change(id, depth, None, expiry);
        id
    }
}

#[cfg(test)]
mod tests;
