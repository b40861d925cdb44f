//! `--transformer`: the part of `plan` that runs the program, and its part of the report (docs/transformers.md).
//!
//! Decides which nodes the program gets. Must not know the protocols, which belong to `crate::transformer`.

use std::collections::HashSet;
use std::fs;

use hashbrown::HashSet as NodeSet;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::clock::Begun;
use super::context::Context;
use super::diagnostics::PlanFindings;
use crate::display::lossy;
use crate::error::Result;
use crate::ids::LeaseId;
use crate::options::Transformer;
use crate::output::snapshot::hex;
use crate::report::facts::Oversized;
use crate::report::{StageName, Transformed};
use crate::transform::plan::Plan;
use crate::transform::policy::{NAMESPACE, Policy};
use crate::transform::revisions::Numbering;
use crate::transformer::{Choice, Task, Written, listing, replace, transform};
use crate::v2store::path;
use crate::v2store::tree::{NodeRef, Tree};

/// Identifies the program, so that `--skip-existing` can distinguish it from another with the same name. A program from
/// PATH, or one that cannot be read, stays unknown.
pub(super) fn identify(transformer: &Transformer) -> Transformed {
    let program = &transformer.program;
    let by_path = program.as_os_str().as_encoded_bytes().contains(&b'/');
    let is_file = fs::metadata(program).is_ok_and(|meta| meta.is_file());
    let bytes = if by_path && is_file { fs::read(program).ok() } else { None };
    Transformed { program_sha256: bytes.map(|bytes| hex(&Sha256::digest(bytes))), ..Transformed::default() }
}

/// A transformer's run.
pub(super) struct Stage<'a> {
    pub(super) transformer: &'a Transformer,
    pub(super) numbering: Numbering,
    /// Lease IDs in use.
    pub(super) leases_in_use: &'a HashSet<LeaseId>,
    /// Bytes that `--memory-limit` leaves for the answers.
    pub(super) memory: Option<u64>,
}

impl Stage<'_> {
    /// Sends the plan's keys to the program, and replaces them with its pairs.
    pub(super) fn run(
        &self,
        context: &Context<'_>,
        tree: &mut Tree<'_>,
        plan: &mut Plan,
        policy: &Policy,
        found: &mut PlanFindings,
    ) -> Result<()> {
        let started = Begun::now();
        let Ok(root) = tree.lookup(NAMESPACE) else { return Ok(()) };
        let tree = &*tree;
        let keys: NodeSet<NodeRef> = plan.rows.iter().filter(|row| !row.marker).map(|row| row.node).collect();
        // A copy: these questions must not count as uses of a rule.
        let policy_of_dirs = std::cell::RefCell::new(policy.clone());
        let bare_dir = |node: NodeRef, expiry: Option<Timestamp>| {
            policy_of_dirs.borrow_mut().leave_out(path::user_key(&tree.path(node)), expiry).is_none()
        };
        let choice = Choice { file: &|node| keys.contains(&node), bare_dir: &bare_dir };
        let listing = listing(tree, root, &choice, context.interrupt)?;
        drop(keys);
        let leases = plan.leases.by_id(self.leases_in_use)?;
        let task = Task {
            tree,
            listing: &listing,
            transformer: self.transformer,
            memory: self.memory,
            as_of: policy.as_of,
            is_lease: &|id| leases.contains_key(&id),
        };
        let answers = transform(&task, context.interrupt)?;
        let pairs = answers.pairs.len() as u64;
        let request_limit = policy.request_limit;
        let oversized =
            replace(plan, answers, &Written { tree, root, numbering: self.numbering, leases: &leases, request_limit })?;
        found.transformed =
            Some(Transformed { nodes: listing.len() as u64, pairs, added: plan.added, ..Transformed::default() });
        let line = |(key, bytes): (Vec<u8>, u64)| Oversized { key: lossy(&key), bytes };
        found.contents.oversized = oversized.into_iter().map(line).collect();
        context.took(StageName::Transformer, started);
        Ok(())
    }
}
