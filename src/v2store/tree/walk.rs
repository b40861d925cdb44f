//! Walks through the tree, in the order of the snapshot or in the byte order of paths.
//!
//! A walk maintains the current path and the earliest expiry on it, so callers need not compute them for each node. It
//! uses no recursion. Must not know what a caller does with a node.

use std::borrow::Cow;
use std::cell::Cell;

use jiff::Timestamp;

use super::Tree;
use super::node::{Body, Name, NodeRef, OverId, OverNode};
use crate::v2store::path;
use crate::v2store::table::{Node, NodeId, Table};

/// A node that a walk visits.
#[derive(Debug, Clone, Copy)]
pub struct Visit<'a> {
    /// The node.
    pub node: NodeRef,
    place: Place<'a>,
    /// Number of levels below the start of the walk.
    pub depth: usize,
    /// The earliest expiry of the node and the directories above it.
    pub expiry: Option<Timestamp>,
}

/// The place of the path of a visited node.
#[derive(Debug, Clone, Copy)]
enum Place<'a> {
    /// The path is that of this node of the table. Without `ahead`, its neighbours are not visited next.
    Table {
        table: &'a Table<'a>,
        node: &'a Node,
        ahead: Option<&'a Ahead>,
    },
    Overlay(&'a [u8]),
}

/// The paths that were read ahead. They are spread over the document, and many walks need none of them.
#[derive(Debug)]
struct Ahead {
    /// The number of the first node whose path was not.
    next: Cell<u32>,
    /// The number of the first node after the walk.
    end: u32,
}

impl<'a> Visit<'a> {
    /// Returns its path, with its namespace.
    pub fn path(&self) -> Cow<'a, [u8]> {
        let (table, node, ahead) = match self.place {
            Place::Overlay(path) => return Cow::Borrowed(path),
            Place::Table { table, node, ahead } => (table, node, ahead),
        };
        if let (NodeRef::Base(NodeId(id)), Some(ahead)) = (self.node, ahead)
            && id >= ahead.next.get()
        {
            let next = ahead.end.min(id.saturating_add(Table::PATHS_AHEAD));
            table.read_paths_ahead(id..next);
            ahead.next.set(next.max(id.saturating_add(1)));
        }
        table.path(node)
    }

    /// Returns the length of its path in bytes.
    pub fn path_len(&self) -> usize {
        match self.place {
            Place::Table { node, .. } => node.path.len as usize,
            Place::Overlay(path) => path.len(),
        }
    }

    /// Returns whether a component of its path starts with `_`, as [`path::is_hidden`].
    pub fn is_hidden(&self) -> bool {
        match self.place {
            Place::Table { node, .. } => node.has(Node::HIDDEN),
            Place::Overlay(path) => path::is_hidden(path),
        }
    }
}

/// A pending step of a walk.
enum Step {
    /// Adjacent subtrees of the table.
    Base {
        next: u32,
        end: u32,
        depth: usize,
        above: Option<Timestamp>,
    },
    Over {
        id: OverId,
        depth: usize,
        above: Option<Timestamp>,
    },
}

impl Tree<'_> {
    /// Visits a node and its subtree: a directory before its children, unchanged ones in the order of the snapshot.
    ///
    /// # Errors
    /// That of `visit`.
    pub fn walk<E>(&self, from: NodeRef, visit: &mut impl FnMut(Visit<'_>) -> Result<(), E>) -> Result<(), E> {
        // The path of the last overlay node that was entered: all following nodes are in it or in one of its directories.
        let mut path = self.path(from).into_owned();
        let mut steps = vec![match from {
            NodeRef::Base(id) => Step::Base { next: id.0, end: self.table.node(id).end, depth: 0, above: None },
            NodeRef::Over(id) => Step::Over { id, depth: 0, above: None },
        }];
        while let Some(step) = steps.pop() {
            match step {
                Step::Base { next, end, depth, above } => self.walk_base(next..end, depth, above, visit)?,
                Step::Over { id, depth, above } => {
                    let node = NodeRef::Over(id);
                    let expiry = earliest(above, self.expiry(node));
                    // The path of a changed file need not be read before somebody asks for it.
                    if let Some(table_node) = self.file_with_path(id).map(|id| self.table.node(id)) {
                        let place = Place::Table { table: self.table, node: &table_node, ahead: None };
                        visit(Visit { node, place, depth, expiry })?;
                        continue;
                    }
                    if depth > 0 {
                        self.enter(id, &mut path);
                    }
                    visit(Visit { node, place: Place::Overlay(&path), depth, expiry })?;
                    self.push_children(id, depth + 1, expiry, &mut steps);
                }
            }
        }
        Ok(())
    }

    /// Returns the node of the table that has the path of an overlay file, if there is one.
    fn file_with_path(&self, id: OverId) -> Option<NodeId> {
        match self.over(id) {
            Some(OverNode { name: Name::Base(base), body: Body::File(_), .. }) => Some(*base),
            _ => None,
        }
    }

    /// Changes the path from that of a node in an overlay directory, or of the directory, to that of the node.
    fn enter(&self, id: OverId, path: &mut Vec<u8>) {
        let Some(over) = self.over(id) else { return };
        match &over.name {
            Name::Own(name) => {
                path.truncate(over.path_len - name.len() - 1);
                path.push(b'/');
                path.extend_from_slice(name);
            }
            Name::Base(base) => {
                path.clear();
                path.extend_from_slice(&self.table.path(&self.table.node(*base)));
            }
        }
    }

    fn walk_base<E>(
        &self,
        nodes: std::ops::Range<u32>,
        depth: usize,
        above: Option<Timestamp>,
        visit: &mut impl FnMut(Visit<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        // Directories that contain the current node: their end, and the expiry that applies there.
        let mut inside: Vec<(u32, Option<Timestamp>)> = Vec::new();
        let ahead = Ahead { next: Cell::new(nodes.start), end: nodes.end };
        for id in nodes {
            while inside.last().is_some_and(|(end, _)| *end <= id) {
                inside.pop();
            }
            let node = self.table.node(NodeId(id));
            let own = if node.expiry == 0 { None } else { self.table.expiry(&node) };
            let expiry = earliest(inside.last().map_or(above, |(_, at)| *at), own);
            let place = Place::Table { table: self.table, node: &node, ahead: Some(&ahead) };
            visit(Visit { node: NodeRef::Base(NodeId(id)), place, depth: depth + inside.len(), expiry })?;
            if node.end > id + 1 {
                inside.push((node.end, expiry));
            }
        }
        Ok(())
    }

    fn push_children(&self, id: OverId, depth: usize, above: Option<Timestamp>, steps: &mut Vec<Step>) {
        let Some(Body::Dir { base, changed, .. }) = self.over(id).map(|n| &n.body) else { return };
        let (mut replaced, mut new): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
        for change in changed {
            match change.base {
                Some(base) => replaced.push((base, change.now)),
                None => new.extend(change.now.map(|now| (self.name(now), now))),
            }
        }
        self.read_changed_ahead(replaced.iter().filter_map(|(_, now)| *now));
        replaced.sort_unstable_by_key(|(base, _)| *base);
        new.sort_unstable();
        let first = steps.len();
        if let Some(base) = base {
            let mut next = base.0 + 1;
            for (gone, now) in replaced {
                if next < gone.0 {
                    steps.push(Step::Base { next, end: gone.0, depth, above });
                }
                steps.extend(now.map(|id| Step::Over { id, depth, above }));
                next = self.table.node(gone).end;
            }
            let end = self.table.node(*base).end;
            if next < end {
                steps.push(Step::Base { next, end, depth, above });
            }
        }
        steps.extend(new.into_iter().map(|(_, id)| Step::Over { id, depth, above }));
        if let Some(steps) = steps.get_mut(first..) {
            steps.reverse();
        }
    }

    /// Visits a node and its subtree in the byte order of their paths. That is not the order of a walk: `/a!` comes
    /// between `/a` and `/a/b`.
    ///
    /// # Errors
    /// That of `visit`.
    pub fn walk_sorted<E>(
        &self,
        from: NodeRef,
        visit: &mut impl FnMut(NodeRef, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut path = self.path(from).into_owned();
        visit(from, &path)?;
        if path == b"/" {
            path.clear();
        }
        let mut steps = Vec::new();
        self.push_sorted(from, path.len(), &mut steps);
        while let Some(Sorted { above, name, node, below }) = steps.pop() {
            path.truncate(above);
            path.push(b'/');
            path.extend_from_slice(&name);
            if below {
                self.push_sorted(node, path.len(), &mut steps);
            } else {
                visit(node, &path)?;
            }
        }
        Ok(())
    }

    fn push_sorted(&self, dir: NodeRef, above: usize, steps: &mut Vec<Sorted>) {
        let first = steps.len();
        for (name, node) in self.children(dir) {
            if self.has_children(node) {
                steps.push(Sorted { above, name: name.clone(), node, below: true });
            }
            steps.push(Sorted { above, name, node, below: false });
        }
        // The last step is visited first. The paths below a directory begin with its name and a slash.
        if let Some(steps) = steps.get_mut(first..) {
            steps.sort_by(|a, b| b.key().cmp(a.key()));
        }
    }
}

/// A pending step of a sorted walk.
struct Sorted {
    /// Length of the path of the directory with the node, in bytes.
    above: usize,
    name: Vec<u8>,
    node: NodeRef,
    /// Whether the step is the subtree of the node instead of the node itself.
    below: bool,
}

impl Sorted {
    fn key(&self) -> impl Iterator<Item = u8> {
        self.name.iter().copied().chain(self.below.then_some(b'/'))
    }
}

fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
