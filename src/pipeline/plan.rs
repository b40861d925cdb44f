//! The second stage: what is written. Applies the policies and rules to the replayed state, runs the transformer,
//! converts users and roles, and decides about the v3 data of the source.
//!
//! Selects the numbering, but numbers nothing. Must not know pages or files.

use std::collections::HashSet;

use jiff::Timestamp;

use super::clock::{Begun, Spent};
use super::context::Context;
use super::diagnostics::{Diagnosed, MergeFindings, PlanFindings};
use super::merge::decide;
use super::merge::preserved::Preserved;
use super::replay::Replayed;
use super::{as_of, duplicates, memory, nothing_to_convert, totals, transformer};
use crate::count::counted;
use crate::display::{first_of, lossy};
use crate::error::{Error, Reason, Result};
use crate::notice::Code;
use crate::options::{ConvertOptions, Dirs, Existing, Keep, OnConflict, Revisions};
use crate::transform::auth::Auth;
use crate::transform::plan::{Plan, plan as plan_tree};
use crate::transform::policy::Policy;
use crate::transform::revisions::Numbering;
use crate::transform::rules::{KeyRules, TtlRules};
use crate::transform::{auth, conflicts};
use crate::v2store::dialect::Version;
use crate::v2store::tree::Tree;

/// A source whose written keys, users and roles are known.
pub(super) struct Planned<'m> {
    pub(super) replayed: Replayed<'m>,
    /// The rules that chose and renamed.
    pub(super) rules: KeyRules,
    /// The nodes that are written, those that are not, and the counts.
    pub(super) plan: Plan,
    /// The users and roles of v2.
    pub(super) auth: Auth,
    /// The preserved v3 data of the source.
    pub(super) preserved: Option<Preserved<'m>>,
    pub(super) numbering: Numbering,
    /// The time that the stage took without the transformer, which is a stage of its own.
    pub(super) took: Spent,
}

/// Decides what is written.
///
/// # Errors
/// Every refusal by a policy, a rule, the transformer, the users and roles, or `--existing`;
/// [`Reason::NothingToConvert`].
pub(super) fn plan<'m>(context: &Context<'_>, replayed: Replayed<'m>) -> Diagnosed<PlanFindings, Planned<'m>> {
    let mut found = PlanFindings::default();
    let planned = fill(context, replayed, &mut found);
    (found, planned)
}

fn fill<'m>(context: &Context<'_>, mut replayed: Replayed<'m>, found: &mut PlanFindings) -> Result<Planned<'m>> {
    let (options, interrupt, opened) = (context.options, context.interrupt, replayed.opened);
    let in_source = |e: Error| e.in_file(opened.path());
    let mut started = Begun::now();
    let may_be_2_1 = replayed.recovered.versions.may_be(Version::new(2, 1, 0));
    let auth = auth_of(&mut replayed.recovered.replay.tree, may_be_2_1, options, found).map_err(in_source)?;
    let mut policy = policy(options)?;
    policy.as_of = as_of(context, &replayed, found)?;
    let mut plan = plan_tree(&mut replayed.recovered.replay.tree, &mut policy, interrupt).map_err(in_source)?;
    found.contents(&replayed.recovered.replay.tree, &plan, &policy);
    plan.refuse(&replayed.recovered.replay.tree, &policy).map_err(in_source)?;
    duplicates::note(found, opened, replayed.table, interrupt)?;
    found.balance = totals::of(&plan);
    nothing_to_convert::refuse(context, &replayed, &plan, &policy, found)?;
    let mut preserved = decide::decide(context, &replayed, found)?;
    if let Some(preserved) = preserved.as_mut().filter(|_| options.existing == Existing::Merge) {
        preserved.join_auth(&auth, options.on_conflict, found).map_err(in_source)?;
    }
    let numbering = match (&preserved, options.revisions) {
        (Some(preserved), _) => Numbering::Dense(preserved.current),
        (None, Revisions::Keep) => Numbering::Keep,
        (None, Revisions::Dense) => Numbering::DENSE,
    };
    if let Some(transformer) = &options.transformer {
        let begun = Begun::now();
        let memory = memory::for_answers(options, opened, replayed.table, plan.rows.len() as u64);
        let none = HashSet::new();
        let leases_in_use = preserved.as_ref().map_or(&none, |preserved| &preserved.leases_in_use);
        let stage = transformer::Stage { transformer, numbering, leases_in_use, memory };
        let tree = &mut replayed.recovered.replay.tree;
        stage.run(context, tree, &mut plan, &policy, found).map_err(in_source)?;
        started = started.without(begun.elapsed());
        found.balance = totals::of(&plan);
        nothing_to_convert::refuse(context, &replayed, &plan, &policy, found)?;
    }
    let tree = &mut replayed.recovered.replay.tree;
    if let Some(preserved) = preserved.as_ref() {
        if options.existing == Existing::Merge {
            decide::note_only_in_v3(preserved, tree, &mut found.merge);
        }
        settle_conflicts(tree, &mut plan, preserved, context, &mut found.merge).map_err(in_source)?;
        found.balance = totals::of(&plan);
    }
    Ok(Planned { replayed, rules: policy.rules, plan, auth, preserved, numbering, took: started.elapsed() })
}

/// Converts the users and roles of v2, and reports what becomes of them.
fn auth_of(tree: &mut Tree<'_>, may_be_2_1: bool, options: &ConvertOptions, found: &mut PlanFindings) -> Result<Auth> {
    found.auth_names(&auth::names(tree));
    if options.existing == Existing::KeepV3 {
        return Ok(Auth::default());
    }
    let mut auth = auth::migrate(tree, options.auth, options.guest, &options.rules)?;
    if !may_be_2_1 {
        auth.widened.clear();
    }
    found.auth(options, &auth);
    Ok(auth)
}

/// Applies `--on-conflict` to the keys that v2 and v3 both have.
fn settle_conflicts(
    tree: &Tree<'_>,
    plan: &mut Plan,
    preserved: &Preserved<'_>,
    context: &Context<'_>,
    found: &mut MergeFindings,
) -> Result<()> {
    let options = context.options;
    let conflicts = conflicts::find(tree, plan, &|key| preserved.live(key), context.interrupt)?;
    if conflicts.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = conflicts.iter().map(|conflict| lossy(&conflict.key)).collect();
    let (count, first) = (counted(names.len() as u64, "key is", "keys are"), first_of(&names));
    found.existing.get_or_insert_default().conflicts = names;
    match options.on_conflict {
        OnConflict::Fail => {
            let error = Error::new(Reason::Conflict, format!("{count} in v2 and in v3: {first}"));
            return Err(error.hint("give --on-conflict keep-v3 or --on-conflict take-v2"));
        }
        OnConflict::KeepV3 => {
            conflicts::keep_v3(tree, plan, &conflicts);
            if options.transformer.is_none() {
                plan.leases.retain(plan.rows.iter().map(|row| row.lease));
            }
            found.notices.warn(Code::KeptV3, format!("{count} in v2 and in v3; the output has those of v3: {first}"));
        }
        OnConflict::TakeV2 => {
            conflicts::take_v2(plan, &conflicts)?;
            found.notices.warn(
                Code::TakenFromV2,
                format!("{count} in v2 and in v3; those of v2 are written as later revisions: {first}"),
            );
        }
    }
    Ok(())
}

fn policy(options: &ConvertOptions) -> Result<Policy> {
    Ok(Policy {
        v3_only: options.existing == Existing::KeepV3,
        drop_hidden: options.hidden == Keep::Drop,
        mark_empty_dirs: options.dirs == Dirs::Marker,
        as_of: None,
        expired: options.expired,
        ttl: TtlRules::new(&options.ttl),
        rules: KeyRules::new(&options.rules)?,
        request_limit: options.request_limit,
    })
}

/// Determines the instant against which TTLs count; `None` if the data proves none.
fn as_of(context: &Context<'_>, replayed: &Replayed<'_>, found: &mut PlanFindings) -> Result<Option<Timestamp>> {
    if context.as_of.is_some() {
        return Ok(context.as_of);
    }
    let Replayed { opened, table, recovered, .. } = replayed;
    found.last_write = as_of::last_write(opened, table, recovered, context.interrupt)?;
    Ok(found.last_write.map(|proven| proven.at))
}
