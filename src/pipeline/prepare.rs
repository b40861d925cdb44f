//! From an opened source to everything that is to be written: replay, policies and rules, revisions, leases, and totals.
//!
//! Every refusal that does not depend on the output happens here, before the first byte is written. `convert` writes the result;
//! `verify` compares a file with it. Must not know pages or files of the output.

use std::time::Instant;

use jiff::Timestamp;

use super::merge::decide;
use super::{Interrupted, as_of, diagnostics, duplicates, listed, memory, nothing_to_convert, transformer};
use crate::count::counted;
use crate::display::{first_of, lossy};
use crate::error::{Error, Reason, Result};
use crate::ids::{MemberId, RaftIndex, Revision, Term, V2Index};
use crate::image::{Content, auth_buckets};
use crate::interrupt::Interrupt;
use crate::mvcc::Meta;
use crate::notice::Code;
use crate::options::{AsOf, ConvertOptions, Dirs, Existing, Keep, OnConflict, Revisions, To};
use crate::pipeline::merge::preserved::Preserved;
use crate::pipeline::read::{Backend, backend};
use crate::pipeline::replay_options::replay_options;
use crate::report::{Balance, Report};
use crate::source::member::Member;
use crate::source::open::Opened;
use crate::source::raft::{ConfChangeKind, EntryKind, parse_conf_change};
use crate::transform::auth::Auth;
use crate::transform::inventory::Count;
use crate::transform::plan::{Plan, plan};
use crate::transform::policy::Policy;
use crate::transform::revisions::{Numbering, Order, Ordered, Pairs, order};
use crate::transform::rules::{KeyRules, TtlRules};
use crate::transform::{auth, collisions, conflicts, widening};
use crate::v2store::dialect::Version;
use crate::v2store::membership;
use crate::v2store::recover::recover;
use crate::v2store::replay::{Recovered, ReplayOptions};
use crate::v2store::table::Table;
use crate::v2store::tree::Tree;

/// A source that is replayed, planned and numbered.
pub(super) struct Prepared<'m> {
    /// The snapshot's store.
    pub(super) table: &'m Table<'m>,
    recovered: Recovered<'m>,
    /// The nodes that are not written, and the counts.
    pub(super) plan: Plan,
    /// The rows that are written.
    pub(super) ordered: Ordered,
    /// The rules that chose and renamed.
    pub(super) rules: KeyRules,
    auth: Auth,
    /// The preserved v3 data of the source.
    preserved: Option<Preserved<'m>>,
    meta: Meta,
}

impl<'m> Prepared<'m> {
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
        Ok(content)
    }

    /// Returns the pairs with the tree that they come from.
    pub(super) fn pairs(&self) -> Pairs<'_, 'm> {
        Pairs { tree: &self.recovered.replay.tree, ordered: &self.ordered }
    }

    /// Returns the number of pairs that the `key` bucket must have.
    pub(super) fn pair_count(&self) -> u64 {
        self.plan.written.keys + self.plan.markers + self.plan.added + self.preserved_pairs()
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
        self.recovered.v2_index()
    }
}

/// Replays a source and decides what is written. A failed run also fills in the report, up to the failure. `changes_limit` is the
/// maximum number of bytes for the changes of one replay.
///
/// # Errors
/// Every refusal that does not depend on the output; damage that the replay finds.
pub(super) fn prepare<'m>(
    opened: &'m Opened,
    table: &'m Table<'m>,
    options: &ConvertOptions,
    changes_limit: Option<u64>,
    report: &mut Report,
    interrupted: Interrupted<'_>,
) -> Result<Prepared<'m>> {
    let in_source = |e: Error| e.in_file(opened.path());
    let interrupt = Interrupt::new(interrupted);
    let started = Instant::now();
    let backend = backend(opened, interrupted)?;
    decide::refuse_unusable(&backend, options, report)?;
    let replay_options = ReplayOptions { changes_limit, ..replay_options(options, interrupted) };
    let mut recovered = recover(opened, table, backend.applied(), &replay_options).map_err(in_source)?;
    let incomplete = diagnostics::source(report, opened, &mut recovered);
    report.stage("replay", started.elapsed());
    refuse_removed(opened, &mut recovered, options.allow_removed)?;
    incomplete.map_or(Ok(()), Err)?;
    let lists = [("the ledger", options.ledger.is_some()), ("the transformer's input", options.transformer.is_some())];
    for (what, _) in lists.iter().filter(|(_, is_made)| *is_made) {
        listed::refuse_deep(&mut recovered.replay.tree, opened, what, interrupted)?;
    }

    let mut started = Instant::now();
    let v2_index = recovered.v2_index();
    let may_be_2_1 = recovered.versions.may_be(Version::new(2, 1, 0));
    let auth = auth_of(&mut recovered.replay.tree, may_be_2_1, options, report).map_err(in_source)?;
    let mut policy = policy(options)?;
    policy.as_of = as_of(options, opened, table, &recovered, report, interrupted)?;
    let mut plan = plan(&mut recovered.replay.tree, &mut policy, &|| interrupted()).map_err(in_source)?;
    let tree = &recovered.replay.tree;
    diagnostics::contents(report, tree, &plan, &policy);
    duplicates::note(report, opened, table, interrupt)?;
    report.balance = totals(&plan);
    let source =
        nothing_to_convert::Source { options, opened, table, recovered: &recovered, backend: &backend, interrupt };
    source.refuse(&plan, report)?;
    let mut preserved = decide::decide(opened, &backend, &recovered, options, report, interrupt)?;
    if let Some(preserved) = preserved.as_mut().filter(|_| options.existing == Existing::Merge) {
        preserved.join_auth(&auth, options.on_conflict, report).map_err(in_source)?;
    }
    let numbering = match (&preserved, options.revisions) {
        (Some(preserved), _) => Numbering::Dense(preserved.current),
        (None, Revisions::Keep) => Numbering::Keep,
        (None, Revisions::Dense) => Numbering::DENSE,
    };
    let leases_in_use = &preserved.as_ref().map(|preserved| preserved.leases_in_use.clone()).unwrap_or_default();
    if let Some(transformer) = &options.transformer {
        let begun = Instant::now();
        let memory = memory::for_answers(options, opened, table, plan.rows.len() as u64);
        let stage = transformer::Stage { transformer, numbering, leases_in_use, memory };
        stage.run(&mut recovered.replay.tree, &mut plan, &policy, report, interrupted).map_err(in_source)?;
        // The transformer is a stage of its own.
        started += begun.elapsed();
        report.balance = totals(&plan);
        let source =
            nothing_to_convert::Source { options, opened, table, recovered: &recovered, backend: &backend, interrupt };
        source.refuse(&plan, report)?;
    }
    if let Some(preserved) = preserved.as_ref().filter(|_| options.existing == Existing::Merge) {
        decide::note_only_in_v3(preserved, &mut recovered.replay.tree, report);
    }
    let tree = &recovered.replay.tree;
    if let Some(preserved) = &preserved {
        settle_conflicts(tree, &mut plan, preserved, options, report, interrupt).map_err(in_source)?;
        report.balance = totals(&plan);
    }
    let how = Order { numbering, v2_index, bump: options.bump_revision, leases_in_use, interrupt };
    let ordered = order(tree, &mut plan, &how).map_err(in_source)?;
    if policy.rules.renames() {
        refuse_renamed(&Pairs { tree, ordered: &ordered }, &auth).map_err(in_source)?;
    }
    diagnostics::order(report, &ordered);
    report.stage("plan", started.elapsed());
    refuse_strict(options, report).map_err(in_source)?;
    check_totals(&report.balance, &ordered, plan.markers + plan.added)?;

    let (consistent_index, term) = raft_position(options, opened, &recovered, &backend);
    let (scheduled_compact, finished_compact) = match &preserved {
        // The preserved history stays readable, unless `--bump-revision` compacts all of it.
        Some(preserved) if options.bump_revision == 0 => preserved.compacted,
        _ => (Some(ordered.current), Some(ordered.current)),
    };
    let meta = Meta { consistent_index, term, scheduled_compact, finished_compact };
    Ok(Prepared { table, recovered, plan, ordered, rules: policy.rules, auth, preserved, meta })
}

/// Refuses new names that clash, or that give a role more permissions.
fn refuse_renamed(pairs: &Pairs<'_, '_>, auth: &Auth) -> Result<()> {
    collisions::refuse_clashes(pairs)?;
    if auth.roles.is_empty() { Ok(()) } else { widening::refuse_wider(auth, pairs) }
}

/// Converts the users and roles of v2, and reports what becomes of them.
fn auth_of(tree: &mut Tree<'_>, may_be_2_1: bool, options: &ConvertOptions, report: &mut Report) -> Result<Auth> {
    diagnostics::auth_names(report, &auth::names(tree));
    if options.existing == Existing::KeepV3 {
        return Ok(Auth::default());
    }
    let mut auth = auth::migrate(tree, options.auth, options.guest, &options.rules)?;
    if !may_be_2_1 {
        auth.widened.clear();
    }
    diagnostics::auth(report, options, &auth);
    Ok(auth)
}

/// Applies `--on-conflict` to the keys that v2 and v3 both have.
fn settle_conflicts(
    tree: &Tree<'_>,
    plan: &mut Plan,
    preserved: &Preserved<'_>,
    options: &ConvertOptions,
    report: &mut Report,
    interrupt: Interrupt<'_>,
) -> Result<()> {
    let found = conflicts::find(tree, plan, &|key| preserved.live(key), interrupt)?;
    if found.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = found.iter().map(|conflict| lossy(&conflict.key)).collect();
    let (count, first) = (counted(names.len() as u64, "key is", "keys are"), first_of(&names));
    report.existing.get_or_insert_default().conflicts = names;
    match options.on_conflict {
        OnConflict::Fail => {
            let error = Error::new(Reason::Conflict, format!("{count} in v2 and in v3: {first}"));
            return Err(error.hint("give --on-conflict keep-v3 or --on-conflict take-v2"));
        }
        OnConflict::KeepV3 => {
            conflicts::keep_v3(tree, plan, &found);
            if options.transformer.is_none() {
                plan.leases.retain(plan.rows.iter().map(|row| row.lease));
            }
            report.warn(Code::KeptV3, format!("{count} in v2 and in v3; the output has those of v3: {first}"));
        }
        OnConflict::TakeV2 => {
            conflicts::take_v2(plan, &found)?;
            report.warn(
                Code::TakenFromV2,
                format!("{count} in v2 and in v3; those of v2 are written as later revisions: {first}"),
            );
        }
    }
    Ok(())
}

/// Refuses a source if every member was removed from its cluster. The store or the log says so; the entry need not be committed.
pub(super) fn refuse_removed(opened: &Opened, recovered: &mut Recovered<'_>, allowed: bool) -> Result<()> {
    let mut removed = None;
    for member in &opened.members {
        let Some(id) = member.id() else { continue };
        if !membership::was_removed(&mut recovered.replay.tree, id) && !removes_itself(member, id)? {
            return Ok(());
        }
        removed.get_or_insert((id, member));
    }
    match removed {
        Some((id, member)) if !allowed => {
            let error = Error::new(Reason::MemberRemoved, format!("member {id} was removed from its cluster"));
            let hint = "convert another member, or give --allow-removed to use the last known state of this one";
            Err(error.in_file(&member.path).hint(hint))
        }
        _ => Ok(()),
    }
}

/// Returns whether a member's log has an entry that removes the member.
fn removes_itself(member: &Member, id: MemberId) -> Result<bool> {
    let Some(wal) = &member.wal else { return Ok(false) };
    for reference in wal.entries().iter().filter(|entry| entry.kind == EntryKind::ConfChange) {
        let entry = wal.entry(reference)?;
        if let Ok(change) = parse_conf_change(entry.data, entry.data_offset)
            && change.kind == ConfChangeKind::RemoveNode
            && change.node_id == id
        {
            return Ok(true);
        }
    }
    Ok(false)
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

/// Determines the instant against which TTLs count, and records it in the report.
fn as_of(
    options: &ConvertOptions,
    opened: &Opened,
    table: &Table<'_>,
    recovered: &Recovered<'_>,
    report: &mut Report,
    interrupted: Interrupted<'_>,
) -> Result<Option<Timestamp>> {
    if options.as_of == AsOf::LastWrite && report.as_of.is_empty() {
        let proven = as_of::last_write(opened, table, recovered, Interrupt::new(interrupted))?;
        report.as_of = proven.map_or(String::new(), |proven| proven.at.to_string());
        report.as_of_evidence = proven.map(|proven| proven.by.to_string());
        return Ok(proven.map(|proven| proven.at));
    }
    let instant = report.as_of.parse();
    instant.map(Some).map_err(|_| Error::new(Reason::Internal, "the report's instant cannot be read"))
}

fn refuse_strict(options: &ConvertOptions, report: &Report) -> Result<()> {
    let objections = report.strict_objections();
    match objections.first() {
        Some(first) if options.strict => {
            let more = objections.len() - 1;
            let more = if more == 0 { String::new() } else { format!(" (and {more} more)") };
            Err(Error::new(Reason::Strict, format!("--strict refuses: {first}{more}")))
        }
        _ => Ok(()),
    }
}

fn totals(plan: &Plan) -> Balance {
    let (source, written) = (plan.inventory.keys, plan.written);
    Balance { source, written, dropped: plan.dropped, expired: plan.expired, excluded: plan.excluded }
}

/// Checks the totals: every source key is written or has a reason, and the number of rows matches.
fn check_totals(balance: &Balance, ordered: &Ordered, others: u64) -> Result<()> {
    if balance.holds() && ordered.rows.len() as u64 == balance.written.keys + others {
        return Ok(());
    }
    let left_out: Count = balance.expired.plus(balance.excluded).plus(balance.dropped);
    let message = format!(
        "the totals do not add up: {} in the source, {} to be written, {} left out, {} of which {others} from no source key",
        counted(balance.source.keys, "key", "keys"),
        balance.written.keys,
        left_out.keys,
        counted(ordered.rows.len() as u64, "row", "rows")
    );
    Err(Error::new(Reason::Unbalanced, message))
}

/// Returns the raft index and term of the output. A backend continues at the end of this member's log (docs/formats.md 9.8). A
/// snapshot file has constants, so that it does not depend on the member; its restore sets both.
fn raft_position(
    options: &ConvertOptions,
    opened: &Opened,
    recovered: &Recovered<'_>,
    backend: &Backend<'_>,
) -> (RaftIndex, Term) {
    if options.to == To::Snapshot {
        return (RaftIndex(1), Term(1));
    }
    let applied = recovered.replay.applied.max(backend.consistent_index.unwrap_or(RaftIndex(0)));
    let entry = opened.wal().and_then(|wal| wal.at(applied));
    let term = entry.map_or(opened.start.term(), |entry| entry.term);
    (applied, term)
}
