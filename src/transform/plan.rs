//! The plan of a conversion: one row for every pair to write, and the counts of everything left out.
//!
//! One walk over the tree. A row refers to its node; nothing is copied until it is encoded. Overrides of a row (another
//! name, a decoded value) are in a separate list. The counts come from the tree, so they can be compared with what was
//! written. Must not know how a pair is encoded.

use std::borrow::Cow;

use hashbrown::HashMap;
use jiff::Timestamp;

use crate::count::counted;
use crate::display::short;
use crate::error::{Error, Reason, Result};
use crate::ids::Revision;
use crate::interrupt::Interrupt;
use crate::options::TtlPolicy;
use crate::transform::inventory::{Count, Inventory};
use crate::transform::lease::{LeaseSlot, Slots, seconds_left};
use crate::transform::policy::{NAMESPACE, Policy, Total, Why};
use crate::transform::rules::{Renamed, shown};
use crate::v2store::path;
use crate::v2store::tree::{NodeRef, Tree, Visit};

/// Bytes of a v3 put request in addition to key and value, as etcd's own clients calculate.
pub(crate) const REQUEST_OVERHEAD: u64 = 512;

/// One pair to write.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Main revision.
    pub main: Revision,
    /// Sub revision; not 0 only if nodes share an index.
    pub sub: u32,
    /// The lease of the pair.
    pub lease: LeaseSlot,
    /// Its overrides: position in the list of overrides, from 1; 0 for none.
    pub overrides: u32,
    /// Whether it is a marker of an empty directory: its key ends in `/`.
    pub marker: bool,
    /// The node that it comes from.
    pub node: NodeRef,
}

/// The properties of a pair that do not come from its node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Overrides {
    /// A name that replaces that of the node.
    pub renamed: Option<Renamed>,
    /// A value that replaces that of the node.
    pub value: Option<Box<[u8]>>,
    /// A modification revision that replaces the modified index.
    pub modified: Option<Revision>,
    /// A creation revision that replaces the created index.
    pub created: Option<Revision>,
    /// A version that replaces 1.
    pub version: Option<i64>,
}

/// The pairs to write, and the counts of everything else.
#[derive(Debug, Default)]
pub struct Plan {
    /// One row for every pair, unordered and without revisions until `order` assigns them.
    pub rows: Vec<Row>,
    /// The overrides of rows.
    pub overrides: Vec<Overrides>,
    /// The leases of rows.
    pub leases: Slots,
    /// The content of the tree.
    pub inventory: Inventory,
    /// Keys that are not in `rows`.
    pub left_out: Vec<(NodeRef, Why)>,
    /// Keys that a policy leaves out.
    pub dropped: Count,
    /// Keys that a rule leaves out.
    pub excluded: Count,
    /// Keys that are left out because they have expired.
    pub expired: Count,
    /// Keys in `rows`.
    pub written: Count,
    /// Markers in `rows`.
    pub markers: u64,
    /// Pairs in `rows` that a transformer added; each refers to the root, and has a revision of its own.
    pub added: u64,
    /// Keys in `rows` with another name than in v2.
    pub renamed: u64,
    /// Keys in `rows` whose value was decoded.
    pub decoded: u64,
    /// Keys in `rows` that a v3 client could not write again, with the size of such a request in bytes.
    pub oversized: Vec<(NodeRef, u64)>,
    /// Number of keys with a TTL longer than any lease, written without one.
    pub beyond_leases: u64,
    /// The first key that `--ttl fail` refuses, and their number.
    refused: Option<(NodeRef, u64)>,
    interned: HashMap<Overrides, u32>,
}

/// Walks the user keys and decides on each. [`Plan::refuse`] says whether the plan may be used.
///
/// # Errors
/// [`Reason::RulesFailed`] for a value that cannot be decoded; an interruption.
pub fn plan(tree: &mut Tree<'_>, policy: &mut Policy, interrupt: Interrupt<'_>) -> Result<Plan> {
    let mut plan = Plan::default();
    let Ok(root) = tree.lookup(NAMESPACE) else { return Ok(plan) };
    let mut visited = 0u64;
    let tree = &*tree;
    // What the log added is not in the document, but has about as many bytes a node.
    let node_len = tree.table().tree_len() / (tree.table().len() as u64).max(1);
    interrupt.expect(tree.table().tree_len());
    let mut open_dirs = OpenDirs::default();
    tree.walk::<Error>(root, &mut |visit: Visit<'_>| {
        visited += 1;
        if visited.is_multiple_of(1 << 16) {
            interrupt.ask()?;
            interrupt.done(node_len << 16);
        }
        if visit.node == root { Ok(()) } else { plan.visit(tree, policy, &visit, &mut open_dirs) }
    })?;
    open_dirs.close_all(tree, &mut plan, policy);
    plan.inventory.first_elements.close();
    Ok(plan)
}

/// The directories that contain the walk's position, to detect those without children.
#[derive(Default)]
struct OpenDirs {
    dirs: Vec<OpenDir>,
}

struct OpenDir {
    node: NodeRef,
    /// Number of levels below the root of the walk.
    depth: usize,
    expiry: Option<Timestamp>,
    /// Whether something below it is written.
    written: bool,
}

impl OpenDirs {
    /// Closes the directories that do not contain a node of this depth. A walk visits a directory before its children.
    fn leave(&mut self, depth: usize, tree: &Tree<'_>, plan: &mut Plan, policy: &mut Policy) {
        while self.dirs.last().is_some_and(|dir| dir.depth >= depth) {
            self.close(tree, plan, policy);
        }
    }

    fn close(&mut self, tree: &Tree<'_>, plan: &mut Plan, policy: &mut Policy) {
        let Some(dir) = self.dirs.pop() else { return };
        if !dir.written {
            plan.inventory.empty_directories += 1;
            if policy.mark_empty_dirs {
                plan.mark(tree, &dir, policy);
            }
        }
        // An empty directory is content of its parent.
        if let Some(parent) = self.dirs.last_mut() {
            parent.written = true;
        }
    }

    fn close_all(&mut self, tree: &Tree<'_>, plan: &mut Plan, policy: &mut Policy) {
        while !self.dirs.is_empty() {
            self.close(tree, plan, policy);
        }
    }
}

impl Plan {
    fn visit(&mut self, tree: &Tree<'_>, policy: &mut Policy, visit: &Visit<'_>, open: &mut OpenDirs) -> Result<()> {
        let node = visit.node;
        open.leave(visit.depth, tree, self, policy);
        if visit.depth == 1 {
            self.inventory.enter(visit);
        }
        // Without a name, nothing below may depend on it: `Policy::reads_names`.
        let path = if policy.reads_names() { visit.path() } else { Cow::Borrowed(&[][..]) };
        let key = path::user_key(&path);
        if tree.is_dir(node) {
            self.inventory.directories += 1;
            if policy.leave_out(key, visit.expiry).is_none() {
                open.dirs.push(OpenDir { node, depth: visit.depth, expiry: visit.expiry, written: false });
            }
            return Ok(());
        }
        let key_len = visit.path_len().saturating_sub(NAMESPACE.len());
        let bytes = (key_len + tree.value_len(node)) as u64;
        self.inventory.count(tree, visit, bytes, policy);
        let outcome = match policy.leave_out(key, visit.expiry) {
            Some(why) => Err(why),
            None => self.lease(policy, key, node, visit.expiry).ok_or(Why::Ttl),
        };
        let lease = match outcome {
            Ok(lease) => lease,
            Err(why) => {
                self.count_left_out(node, why, bytes);
                return Ok(());
            }
        };
        if let Some(parent) = open.dirs.last_mut() {
            parent.written = true;
        }
        let overrides = self.overrides(tree, policy, node, key)?;
        self.check_size(tree, policy, overrides, node, key_len);
        self.written.add(bytes);
        self.rows.push(Row { main: Revision(0), sub: 0, lease, overrides, marker: false, node });
        Ok(())
    }

    /// Records a key that is not written, with the length of its name and value.
    pub fn count_left_out(&mut self, node: NodeRef, why: Why, bytes: u64) {
        match why.total() {
            Total::Dropped => self.dropped.add(bytes),
            Total::Excluded => self.excluded.add(bytes),
            Total::Expired => self.expired.add(bytes),
        }
        self.left_out.push((node, why));
    }

    /// Returns the lease of a key; `None` if its TTL leaves it out.
    fn lease(
        &mut self,
        policy: &mut Policy,
        key: &[u8],
        node: NodeRef,
        expiry: Option<Timestamp>,
    ) -> Option<LeaseSlot> {
        let (Some(expiry), Some(as_of)) = (expiry, policy.as_of) else { return Some(LeaseSlot(0)) };
        let left = match policy.ttl.policy(key) {
            TtlPolicy::Lease => seconds_left(expiry, as_of),
            TtlPolicy::Fixed(seconds) => seconds,
            TtlPolicy::Permanent => return Some(LeaseSlot(0)),
            TtlPolicy::Drop => return None,
            TtlPolicy::Fail => {
                self.refused.get_or_insert((node, 0)).1 += 1;
                return None;
            }
        };
        let lease = self.leases.of_seconds(left);
        self.beyond_leases += u64::from(lease == LeaseSlot(0));
        Some(lease)
    }

    /// Returns the overrides of an included key by the rules: another name, another value.
    fn overrides(&mut self, tree: &Tree<'_>, policy: &mut Policy, node: NodeRef, key: &[u8]) -> Result<u32> {
        let renamed = if policy.rules.renames() { policy.rules.rename(key) } else { None };
        let value = if policy.rules.decodes() {
            let decoded = policy.rules.decode(key, || tree.value(node).into_owned());
            decoded.map_err(|what| {
                Error::new(Reason::RulesFailed, format!("key {}: cannot decode its value: {what}", short(&shown(key))))
            })?
        } else {
            None
        };
        self.renamed += u64::from(renamed.is_some());
        self.decoded += u64::from(value.is_some());
        Ok(self.intern(Overrides { renamed, value, ..Overrides::default() }))
    }

    /// Records a key that a v3 client could not write again.
    fn check_size(&mut self, tree: &Tree<'_>, policy: &Policy, overrides: u32, node: NodeRef, key_len: usize) {
        let overrides = (overrides as usize).checked_sub(1).and_then(|at| self.overrides.get(at));
        let renamed = overrides.and_then(|overrides| overrides.renamed.as_ref());
        let name = renamed.map_or(key_len, |new| new.prefix.len() + key_len.saturating_sub(new.skip));
        let value = overrides.and_then(|overrides| overrides.value.as_ref());
        let value = value.map_or_else(|| tree.value_len(node), |value| value.len());
        let bytes = REQUEST_OVERHEAD.saturating_add((name + value) as u64);
        if bytes > policy.request_limit {
            self.oversized.push((node, bytes));
        }
    }

    fn mark(&mut self, tree: &Tree<'_>, dir: &OpenDir, policy: &mut Policy) {
        let path = tree.path(dir.node);
        let key = path::user_key(&path);
        // A TTL on a directory without keys is no reason to refuse.
        let refused = self.refused;
        let lease = self.lease(policy, key, dir.node, dir.expiry);
        self.refused = refused;
        let Some(lease) = lease else { return };
        let renamed = if policy.rules.renames() { policy.rules.rename(key) } else { None };
        let overrides = self.intern(Overrides { renamed, ..Overrides::default() });
        self.markers += 1;
        self.rows.push(Row { main: Revision(0), sub: 0, lease, overrides, marker: true, node: dir.node });
    }

    /// Returns the number of an override; equal ones share it.
    pub fn intern(&mut self, overrides: Overrides) -> u32 {
        if overrides == Overrides::default() {
            return 0;
        }
        if overrides.value.is_some() {
            self.overrides.push(overrides);
            return u32::try_from(self.overrides.len()).unwrap_or(0);
        }
        let list = &mut self.overrides;
        *self.interned.entry(overrides).or_insert_with_key(|overrides| {
            list.push(overrides.clone());
            u32::try_from(list.len()).unwrap_or(0)
        })
    }

    /// Refuses a plan with keys that the policy cannot decide on.
    ///
    /// # Errors
    /// [`Reason::TtlPresent`] depending on the policy; [`Reason::TimeUnknown`] for keys with a TTL and no instant to
    /// count from.
    pub fn refuse(&self, tree: &Tree<'_>, policy: &Policy) -> Result<()> {
        if policy.as_of.is_none() && self.inventory.ttl.keys > 0 && !policy.v3_only {
            let message = format!(
                "{} a TTL, and nothing in the source proves the time of its last write",
                counted(self.inventory.ttl.keys, "key has", "keys have")
            );
            return Err(Error::new(Reason::TimeUnknown, message).hint("give --as-of now or an instant"));
        }
        let Some((first, count)) = self.refused else { return Ok(()) };
        let path = tree.path(first);
        let message = format!(
            "--ttl fail refuses {} with a TTL, the first {}",
            counted(count, "key", "keys"),
            short(&shown(path::user_key(&path)))
        );
        Err(Error::new(Reason::TtlPresent, message).hint("give --ttl lease, permanent or drop"))
    }
}

#[cfg(test)]
mod tests;
