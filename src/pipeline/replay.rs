//! The first stage: replays the log onto the snapshot, and refuses a state that may not be used.
//!
//! Must not know policies or rules.

use super::backend::{self, Backend};
use super::clock::Begun;
use super::context::Context;
use super::diagnostics::{self, Diagnosed, SourceFindings};
use super::read::Source;
use super::replay_options::replay_options;
use super::{listed, old_version, owner};
use crate::error::{Error, Reason, Result};
use crate::ids::MemberId;
use crate::options::{ConvertOptions, Target, To};
use crate::report::StageName;
use crate::source::member::Member;
use crate::source::open::Opened;
use crate::source::raft::{ConfChangeKind, EntryKind, parse_conf_change};
use crate::v2store::membership;
use crate::v2store::recover::recover;
use crate::v2store::replay::Recovered;
use crate::v2store::table::Table;

/// A source that was replayed: the state of v2, and the v3 backend.
pub(super) struct Replayed<'m> {
    pub(super) opened: &'m Opened,
    /// The snapshot's store.
    pub(super) table: &'m Table<'m>,
    pub(super) backend: Backend<'m>,
    pub(super) recovered: Recovered<'m>,
    /// A clause for a message that the source holds nothing; empty unless the source is possibly incomplete.
    pub(super) possibly_incomplete: String,
}

/// Replays a source.
///
/// # Errors
/// Damage that the replay finds; a v3 backend that cannot be read; a state that only `--salvage` or `--allow-removed`
/// may use; [`Reason::NoRoom`] for paths that a ledger or a transformer cannot get.
pub(super) fn replay<'m>(context: &Context<'_>, source: Source<'m>) -> Diagnosed<SourceFindings, Replayed<'m>> {
    let mut found = SourceFindings { source: diagnostics::opened_facts(source.opened), ..SourceFindings::default() };
    let replayed = fill(context, source, &mut found);
    (found, replayed)
}

fn fill<'m>(context: &Context<'_>, source: Source<'m>, found: &mut SourceFindings) -> Result<Replayed<'m>> {
    let Source { opened, table, changes_limit } = source;
    let (options, started) = (context.options, Begun::now());
    owner::require_content(opened, table, context.interrupt)?;
    let backend = backend::newest(opened, context.interrupt)?;
    backend.refuse_unusable(options.existing)?;
    found.notices.warnings.extend(backend.unusable_notice());
    let replay_options = replay_options(context, changes_limit);
    let recovered = recover(opened, table, backend.applied(), &replay_options);
    let mut recovered = recovered.map_err(|e| e.in_file(opened.path()))?;
    let (mut state, incomplete) = diagnostics::source(opened, &mut recovered, options.source_version);
    state.notices.warnings.splice(0..0, found.notices.warnings.drain(..));
    *found = state;
    if options.to == To::Backend && options.target == Target::V3_5 && options.sources.len() == 1 {
        let old = old_version::found_at_start(opened, table, recovered.replay.applied, context.interrupt)?;
        found.source.old_cluster_version = old.map(|old| old.version);
    }
    context.took(StageName::Replay, started);
    refuse_removed(opened, &mut recovered, options)?;
    incomplete.map_or(Ok(()), Err)?;
    let lists = [("the ledger", options.ledger.is_some()), ("the transformer's input", options.transformer.is_some())];
    for (what, _) in lists.iter().filter(|(_, is_made)| *is_made) {
        listed::refuse_deep(&mut recovered.replay.tree, opened, what, context.interrupt)?;
    }
    let possibly_incomplete = found.possibly_incomplete();
    Ok(Replayed { opened, table, backend, recovered, possibly_incomplete })
}

/// Refuses a source if every member was removed from its cluster. The store or the log says so; the entry need not be
/// committed.
fn refuse_removed(opened: &Opened, recovered: &mut Recovered<'_>, options: &ConvertOptions) -> Result<()> {
    let mut removed = None;
    for member in &opened.members {
        let Some(id) = member.id() else { continue };
        if !membership::was_removed(&mut recovered.replay.tree, id) && !removes_itself(member, id)? {
            return Ok(());
        }
        removed.get_or_insert((id, member));
    }
    match removed {
        Some((id, member)) if !options.allow_removed => {
            let error = Error::new(Reason::MemberRemoved, format!("member {id} was removed from its cluster"));
            let hint = match options.to {
                To::Member => "leave its directory out: a removed member cannot continue",
                _ => "convert another member, or give --allow-removed to use the last known state of this one",
            };
            Err(error.in_file(&member.path).hint(hint))
        }
        _ => Ok(()),
    }
}

/// Returns whether a member's log has an entry that removes the member.
pub(super) fn removes_itself(member: &Member, id: MemberId) -> Result<bool> {
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
