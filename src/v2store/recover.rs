//! From an opened source to the tree it holds: by whose rules its log is replayed, and the replay.
//!
//! What counts as committed is for `replay` to decide, and by whose rules for `choose_rules`.

use crate::error::Result;
use crate::source::open::Opened;
use crate::v2store::choose_rules;
use crate::v2store::replay::{BackendProof, Ground, Observe, Recovered, ReplayOptions};
use crate::v2store::table::Table;

/// Replays the log onto the snapshot's store. `backend` is what a v3 backend in the source proves.
///
/// # Errors
/// [`Reason::Damaged`] or [`Reason::Gap`] with segment and offset; [`Reason::CommitBeyondLog`] if the backend is ahead of
/// the log; [`Reason::TailPresent`] and [`Reason::IndexNotReached`] as the options have it.
pub fn recover<'m>(
    opened: &'m Opened,
    table: &'m Table<'m>,
    backend: Option<BackendProof>,
    options: &ReplayOptions<'_>,
) -> Result<Recovered<'m>> {
    recover_observed(opened, table, backend, options, &mut |_| Ok(()))
}

/// As [`recover`]; each entry is shown once it is applied.
///
/// # Errors
/// As [`recover`], and what `observe` returned.
pub fn recover_observed<'m>(
    opened: &'m Opened,
    table: &'m Table<'m>,
    backend: Option<BackendProof>,
    options: &ReplayOptions<'_>,
    observe: Observe<'_>,
) -> Result<Recovered<'m>> {
    let mut ground = Ground::new(opened, table, backend, *options)?;
    let mut choice = choose_rules::choose(&ground)?;
    let mut recovered = ground.replay(choice.rules, false, observe)?;
    choose_rules::compare(&ground, &mut choice, &mut recovered)?;
    recovered.versions = choice.versions;
    recovered.not_found = ground.commit.not_found.take().or(recovered.not_found);
    Ok(recovered)
}

/// Whether more than one replay may be needed, by the rules of several versions. What a v3 backend proves is left out, so this may
/// be true where one replay does.
pub fn may_compare(opened: &Opened, table: &Table<'_>, options: &ReplayOptions<'_>) -> bool {
    let ground = Ground::new(opened, table, None, *options);
    ground.and_then(|ground| choose_rules::may_compare(&ground)).unwrap_or(false)
}
