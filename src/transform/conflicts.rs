//! Keys that v2 and v3 both have, in a merge with preserved v3 data (docs/cli.md, `--on-conflict`).
//!
//! Names every conflict before any decision. Must not know how the v3 keys are stored: it looks up one key by its name.

use std::borrow::Cow;
use std::collections::HashSet;

use rayon::prelude::*;

use crate::display::short;
use crate::error::{Error, Reason, Result};
use crate::ids::Revision;
use crate::interrupt::Interrupt;
use crate::transform::plan::{Overrides, Plan, Row};
use crate::transform::policy::Why;
use crate::transform::revisions::{Pairs, v3_key};
use crate::transform::rules::shown;
use crate::v2store::path;
use crate::v2store::tree::Tree;

/// A live v3 key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveKey {
    /// Main revision of its creation.
    pub create: Revision,
    /// Its version: the number of changes since its creation.
    pub version: i64,
}

/// A row whose key v3 already has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Index of the row in the plan.
    row: usize,
    live: LiveKey,
    /// The v3 key.
    pub key: Vec<u8>,
}

/// Finds the rows whose key `live` finds, sorted by key.
///
/// # Errors
/// An interruption.
pub fn find(
    tree: &Tree<'_>,
    plan: &Plan,
    live: &(dyn Fn(&[u8]) -> Option<LiveKey> + Sync),
    interrupt: Interrupt<'_>,
) -> Result<Vec<Conflict>> {
    let conflict = |(row, of): (usize, &Row)| {
        let key = row_key(tree, plan, of);
        interrupt.ask_at(row)?;
        Ok(live(&key).map(|live| Conflict { row, live, key: key.into_owned() }))
    };
    let found = plan.rows.par_iter().enumerate().filter_map(|row| conflict(row).transpose());
    let mut found = found.collect::<Result<Vec<Conflict>>>()?;
    interrupt.sort_by(&mut found, |a, b| a.key.cmp(&b.key))?;
    Ok(found)
}

/// Leaves the rows out, so v3 retains its own keys.
pub fn keep_v3(tree: &Tree<'_>, plan: &mut Plan, conflicts: &[Conflict]) {
    let out: HashSet<usize> = conflicts.iter().map(|conflict| conflict.row).collect();
    let (left_out, rows): (Vec<_>, Vec<_>) =
        std::mem::take(&mut plan.rows).into_iter().enumerate().partition(|(at, _)| out.contains(at));
    plan.rows = rows.into_iter().map(|(_, row)| row).collect();
    for (_, row) in left_out {
        if row.marker {
            plan.markers = plan.markers.saturating_sub(1);
        } else if Pairs::is_of_root(tree, &row) {
            plan.added = plan.added.saturating_sub(1);
        } else {
            let bytes = (path::user_key(&tree.path(row.node)).len() + tree.value_len(row.node)) as u64;
            plan.written.take(bytes);
            plan.count_left_out(row.node, Why::PreservedV3, bytes);
        }
    }
}

/// Writes the rows on top: each is one more change of the v3 key.
///
/// # Errors
/// [`Reason::IndexRange`] with a key whose version cannot be raised.
pub fn take_v2(plan: &mut Plan, conflicts: &[Conflict]) -> Result<()> {
    for Conflict { row, live, key } in conflicts {
        let version = live.version.checked_add(1).ok_or_else(|| {
            let key = short(&shown(key));
            let message = format!("key {key}: its version in v3 is {}, which cannot be raised", live.version);
            Error::new(Reason::IndexRange, message).hint("give --on-conflict keep-v3")
        })?;
        let Some(row) = plan.rows.get_mut(*row) else { continue };
        let own = (row.overrides as usize).checked_sub(1).and_then(|at| plan.overrides.get(at)).cloned();
        plan.overrides.push(Overrides {
            created: Some(live.create),
            version: Some(version),
            ..own.unwrap_or_default()
        });
        // There are fewer than 2^32 rows, and at most two overrides for each.
        row.overrides = u32::try_from(plan.overrides.len()).unwrap_or(0);
    }
    Ok(())
}

fn row_key<'t>(tree: &'t Tree<'_>, plan: &Plan, row: &Row) -> Cow<'t, [u8]> {
    let overrides = (row.overrides as usize).checked_sub(1).and_then(|at| plan.overrides.get(at));
    v3_key(tree, row, overrides)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::plan::plan;
    use crate::transform::policy::Policy;
    use crate::v2store::json;

    const STORE: &str = r#"{"Root":{"Path":"/","Children":{"1":{"Path":"/1","Children":{
        "a":{"Path":"/1/a","CreatedIndex":3,"ModifiedIndex":4,"Value":"v"},
        "b":{"Path":"/1/b","CreatedIndex":5,"ModifiedIndex":5},"d":{"Path":"/1/d","Children":{}}}}}},"CurrentIndex":9}"#;

    fn live(key: &[u8]) -> Option<LiveKey> {
        [&b"/a"[..], b"/d/"].contains(&key).then_some(LiveKey { create: Revision(2), version: 7 })
    }

    fn with<T>(check: impl FnOnce(&Tree<'_>, Plan, Vec<Conflict>) -> T) -> T {
        let table = json::read(STORE.as_bytes()).unwrap();
        let mut tree = Tree::new(&table);
        let mut policy = Policy { mark_empty_dirs: true, ..Policy::everything(jiff::Timestamp::UNIX_EPOCH) };
        let plan = plan(&mut tree, &mut policy, Interrupt::default()).unwrap();
        let found = find(&tree, &plan, &live, Interrupt::default()).unwrap();
        assert_eq!(found.iter().map(|conflict| &conflict.key[..]).collect::<Vec<_>>(), [&b"/a"[..], b"/d/"]);
        check(&tree, plan, found)
    }

    #[test]
    fn keys_kept_in_v3_are_counted_as_dropped() {
        with(|tree, mut plan, found| {
            keep_v3(tree, &mut plan, &found);
            assert_eq!((plan.rows.len(), plan.markers), (1, 0));
            assert_eq!((plan.written.keys, plan.written.bytes), (1, 2));
            assert_eq!((plan.dropped.keys, plan.dropped.bytes), (1, 3));
            assert!(matches!(plan.left_out.as_slice(), [(_, Why::PreservedV3)]));
        });
    }

    #[test]
    fn the_last_version_cannot_be_raised() {
        with(|_, mut plan, mut found| {
            found[0].live.version = i64::MAX;
            let error = take_v2(&mut plan, &found).unwrap_err();
            assert_eq!(error.reason(), Reason::IndexRange);
            assert!(error.to_string().starts_with("key /a: its version in v3 is 9223372036854775807"), "{error}");
        });
    }

    #[test]
    fn v2_goes_on_top_with_what_v3_knew_of_the_key() {
        with(|_, mut plan, found| {
            take_v2(&mut plan, &found).unwrap();
            assert_eq!((plan.rows.len(), plan.written.keys), (3, 2));
            let overrides = |row: &Row| plan.overrides.get((row.overrides as usize).wrapping_sub(1));
            let changed: Vec<_> = plan.rows.iter().filter_map(overrides).collect();
            assert_eq!(changed.len(), 2);
            assert!(changed.iter().all(|own| (own.created, own.version) == (Some(Revision(2)), Some(8))));
        });
    }
}
