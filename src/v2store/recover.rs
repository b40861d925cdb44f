//! Selects the rules of an open source, and replays it into its tree.
//!
//! Must not know which entries are committed, which `replay` decides, or how rules are selected, which `choose_rules`
//! decides.

use crate::error::Result;
use crate::source::open::Opened;
use crate::v2store::choose_rules;
use crate::v2store::replay::{BackendProof, Observe, Recovered, ReplayInput, ReplayOptions};
use crate::v2store::table::Table;

/// Replays the log onto the store of the snapshot. `backend` is the proof of a v3 backend in the source.
///
/// # Errors
/// `Reason::Damaged` or `Reason::Gap` with segment and offset; `Reason::CommitBeyondLog` if the backend is ahead
/// of the log; `Reason::TailPresent` and `Reason::IndexNotReached` depending on the options.
pub fn recover<'m>(
    opened: &'m Opened,
    table: &'m Table<'m>,
    backend: Option<BackendProof>,
    options: &ReplayOptions<'_>,
) -> Result<Recovered<'m>> {
    recover_observed(opened, table, backend, options, &mut |_| Ok(()))
}

/// Replays the log like [`recover`], and passes each applied entry to `observe`.
///
/// # Errors
/// As [`recover`]; that of `observe`.
pub fn recover_observed<'m>(
    opened: &'m Opened,
    table: &'m Table<'m>,
    backend: Option<BackendProof>,
    options: &ReplayOptions<'_>,
    observe: Observe<'_>,
) -> Result<Recovered<'m>> {
    let mut input = ReplayInput::new(opened, table, backend, *options)?;
    let mut choice = choose_rules::choose(&input)?;
    let mut recovered = input.replay(choice.rules, false, observe)?;
    choose_rules::compare(&input, &mut choice, &mut recovered)?;
    recovered.versions = choice.versions;
    recovered.not_found = input.commit.not_found.take().or(recovered.not_found);
    Ok(recovered)
}

/// Returns whether the source may need more than one replay, with the rules of several versions. The proof of a v3
/// backend is not used, so the result can be true when one replay is enough.
pub fn may_compare(opened: &Opened, table: &Table<'_>, options: &ReplayOptions<'_>) -> bool {
    let input = ReplayInput::new(opened, table, None, *options);
    input.and_then(|input| choose_rules::may_compare(&input)).unwrap_or(false)
}
