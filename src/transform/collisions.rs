//! A check that no two pairs have the same key, and none the empty key, which renames could cause.
//!
//! Compares hashes first, and names only for equal hashes, so a million renamed keys are never all in memory. Knows
//! rows. Must not know rules.

use std::hash::BuildHasher;

use hashbrown::DefaultHashBuilder;
use rayon::prelude::*;

use crate::display::short;
use crate::error::{Error, Reason, Result};
use crate::transform::revisions::Pairs;
use crate::transform::rules::shown;
use crate::v2store::path;

/// Refuses rows with the same v3 key, or with the empty key.
///
/// # Errors
/// [`Reason::RulesFailed`] with the v2 keys.
pub fn refuse_clashes(pairs: &Pairs<'_, '_>) -> Result<()> {
    let hasher = DefaultHashBuilder::default();
    let rows = &pairs.ordered.rows;
    // Node order reads names that are adjacent in memory; the order of revisions would jump.
    let mut by_node: Vec<_> = rows.iter().enumerate().map(|(at, row)| (row.node, at)).collect();
    by_node.par_sort_unstable();
    let hash = |(_, at)| {
        let key = rows.get(at).map(|row| pairs.key(row)).unwrap_or_default();
        if key.is_empty() {
            let message = format!("key {}: the rules make its name empty", old(pairs, at));
            return Err(Error::new(Reason::RulesFailed, message));
        }
        Ok((hasher.hash_one(&*key), at))
    };
    let mut hashes: Vec<(u64, usize)> = by_node.into_par_iter().map(hash).collect::<Result<_>>()?;
    hashes.par_sort_unstable();
    for equal in hashes.chunk_by(|a, b| a.0 == b.0).filter(|equal| equal.len() > 1) {
        let mut keys: Vec<_> =
            equal.iter().filter_map(|(_, at)| rows.get(*at).map(|row| (pairs.key(row), *at))).collect();
        keys.sort_unstable();
        let twice = keys.iter().zip(keys.iter().skip(1)).find(|(a, b)| a.0 == b.0);
        if let Some(((key, a), (_, b))) = twice {
            let (key, a, b) = (short(&shown(key)), old(pairs, *a), old(pairs, *b));
            let message = format!("the rules give two keys the name {key}: {a} and {b}");
            return Err(Error::new(Reason::RulesFailed, message));
        }
    }
    Ok(())
}

/// Returns the v2 name of a row.
fn old(pairs: &Pairs<'_, '_>, at: usize) -> String {
    let Some(row) = pairs.ordered.rows.get(at) else { return String::new() };
    let path = pairs.tree.path(row.node);
    short(&shown(path::user_key(&path))).to_string() + if row.marker { "/" } else { "" }
}
