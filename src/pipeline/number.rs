//! The third stage: revisions, leases and raft position. After it, the content of the output is fixed.
//!
//! Must not know pages or files.

use std::collections::HashSet;

use super::clock::Begun;
use super::context::Context;
use super::diagnostics::{self, Diagnosed};
use super::directories::{self, Members};
use super::merge::preserved::Preserved;
use super::plan::Planned;
use super::replay::Replayed;
use super::totals;
use crate::error::{Error, Result};
use crate::ids::{RaftIndex, Revision, Term, V2Index};
use crate::image::{Content, Pair, auth_buckets};
use crate::mvcc::Meta;
use crate::options::{ConvertOptions, Target, To};
use crate::report::{Balance, Notices, StageName};
use crate::transform::auth::Auth;
use crate::transform::plan::Plan;
use crate::transform::revisions::{Order, Ordered, Pairs, order};
use crate::transform::rules::KeyRules;
use crate::transform::{collisions, widening};

/// A source whose output is known: what `write` writes, and what `verify` compares a file with.
pub(super) struct Numbered<'m> {
    pub(super) replayed: Replayed<'m>,
    /// The nodes that are not written, and the counts.
    pub(super) plan: Plan,
    /// The rows that are written.
    pub(super) ordered: Ordered,
    /// The rules that chose and renamed.
    pub(super) rules: KeyRules,
    /// The totals of all source keys.
    pub(super) balance: Balance,
    auth: Auth,
    /// The preserved v3 data of the source.
    preserved: Option<Preserved<'m>>,
    meta: Meta,
    /// The members that boot from the output, if it is a directory.
    pub(super) members: Option<Members>,
    /// The buckets that describe their cluster.
    cluster: Vec<(&'static [u8], Vec<Pair>)>,
}

/// Numbers the rows of a plan.
///
/// # Errors
/// [`Reason`](crate::error::Reason)s of the numbering: clashing names, wider permissions, revisions that do not fit, totals that
/// do not add up.
pub(super) fn number<'m>(context: &Context<'_>, planned: Planned<'m>) -> Diagnosed<Notices, Numbered<'m>> {
    let mut found = Notices::default();
    let numbered = fill(context, planned, &mut found);
    (found, numbered)
}

fn fill<'m>(context: &Context<'_>, planned: Planned<'m>, found: &mut Notices) -> Result<Numbered<'m>> {
    let started = Begun::now();
    let Planned { mut replayed, rules, mut plan, auth, preserved, numbering, took } = planned;
    let position = raft_position(context.options, &replayed);
    let members = directories::members(context, &mut replayed, position, found)?;
    let cluster = match &members {
        Some(members) => members.buckets(&mut replayed, preserved.as_ref())?,
        None => Vec::new(),
    };
    let (options, opened, tree) = (context.options, replayed.opened, &replayed.recovered.replay.tree);
    let in_source = |e: Error| e.in_file(opened.path());
    let none = HashSet::new();
    let how = Order {
        numbering,
        v2_index: replayed.recovered.v2_index(),
        bump: options.bump_revision,
        leases_in_use: preserved.as_ref().map_or(&none, |preserved| &preserved.leases_in_use),
        interrupt: context.interrupt,
    };
    let ordered = order(tree, &mut plan, &how).map_err(in_source)?;
    found.append(diagnostics::order(&ordered));
    if rules.renames() {
        refuse_renamed(&Pairs { tree, ordered: &ordered }, &auth).map_err(in_source)?;
    }
    context.spent(StageName::Plan, &(started.elapsed() + took));
    let balance = totals::of(&plan);
    totals::check(&balance, &plan, &ordered)?;
    let (consistent_index, term) = members.as_ref().and_then(Members::raft_position).unwrap_or(position);
    // A term in the database of a 3.4 member would prove that 3.5 has run on it, to who reads the directory later. 3.4 does not read it.
    let continues_3_4 = context.options.to == To::Member && context.options.target == Target::V3_4;
    let term = if continues_3_4 { Term(0) } else { term };
    let (scheduled_compact, finished_compact) = match &preserved {
        // The preserved history stays readable, unless `--bump-revision` compacts all of it.
        Some(preserved) if options.bump_revision == 0 => preserved.compacted,
        _ => (Some(ordered.current), Some(ordered.current)),
    };
    let meta = Meta { consistent_index, term, scheduled_compact, finished_compact };
    Ok(Numbered { replayed, plan, ordered, rules, balance, auth, preserved, meta, members, cluster })
}

impl<'m> Numbered<'m> {
    /// Returns the content of the database.
    ///
    /// # Errors
    /// [`Reason::Internal`].
    pub(super) fn content(&self) -> Result<Content<'_, 'm>> {
        let mut content = Content::new(self.pairs(), &self.meta)?;
        match &self.preserved {
            Some(preserved) => preserved.add_to(&mut content),
            None => {
                for (bucket, pairs) in auth_buckets(&self.auth)? {
                    content.set(bucket, pairs);
                }
            }
        }
        for (bucket, pairs) in &self.cluster {
            content.set(bucket, pairs.clone());
        }
        Ok(content)
    }

    /// Returns the pairs with the tree that they come from.
    pub(super) fn pairs(&self) -> Pairs<'_, 'm> {
        Pairs { tree: &self.replayed.recovered.replay.tree, ordered: &self.ordered }
    }

    /// Returns the number of pairs that the `key` bucket must have.
    pub(super) fn pair_count(&self) -> u64 {
        totals::pairs(&self.plan) + self.preserved_pairs()
    }

    /// Returns the number of these pairs that are preserved v3 data.
    pub(super) fn preserved_pairs(&self) -> u64 {
        self.preserved.as_ref().map_or(0, |preserved| preserved.pairs.len() as u64)
    }

    /// Returns the number of leases in the output.
    pub(super) fn lease_count(&self) -> u64 {
        self.ordered.leases.len() as u64 + self.preserved.as_ref().map_or(0, Preserved::lease_count)
    }

    /// Returns whether authentication is enabled in the output.
    pub(super) fn auth_enabled(&self) -> bool {
        self.preserved.as_ref().map_or(self.auth.enabled, Preserved::auth_is_on)
    }

    /// Returns the revision at which the store is compacted after a boot.
    pub(super) fn compacted(&self) -> Revision {
        self.meta.scheduled_compact.max(self.meta.finished_compact).unwrap_or_default()
    }

    /// Returns the v2 index of the state.
    pub(super) fn v2_index(&self) -> V2Index {
        self.replayed.recovered.v2_index()
    }
}

/// Refuses new names that clash, or that give a role more permissions.
fn refuse_renamed(pairs: &Pairs<'_, '_>, auth: &Auth) -> Result<()> {
    collisions::refuse_clashes(pairs)?;
    if auth.roles.is_empty() { Ok(()) } else { widening::refuse_wider(auth, pairs) }
}

/// Returns the raft index and term of the output. A backend continues at the end of this member's log (docs/formats.md
/// 9.8). A snapshot file has constants, so that it does not depend on the member; its restore sets both.
fn raft_position(options: &ConvertOptions, replayed: &Replayed<'_>) -> (RaftIndex, Term) {
    let Replayed { opened, recovered, backend, .. } = replayed;
    if options.to == To::Snapshot {
        return (RaftIndex(1), Term(1));
    }
    let applied = recovered.replay.applied.max(backend.consistent_index.unwrap_or(RaftIndex(0)));
    let entry = opened.wal().and_then(|wal| wal.at(applied));
    let term = entry.map_or(opened.start.term(), |entry| entry.term);
    (applied, term)
}
