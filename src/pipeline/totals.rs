//! The totals of all source keys.
//!
//! Checks that they add up at each step: from the source to the plan, from the plan to the rows, from the rows to the writer. Must
//! not know why a key is left out.

use crate::bolt::Bucket;
use crate::count::counted;
use crate::error::{Error, Reason, Result};
use crate::mvcc::schema;
use crate::report::{Balance, Count};
use crate::transform::plan::Plan;
use crate::transform::revisions::Ordered;

/// Returns the totals of a plan.
pub(super) fn of(plan: &Plan) -> Balance {
    let (source, written) = (plan.inventory.keys, plan.written);
    Balance { source, written, dropped: plan.dropped, expired: plan.expired, excluded: plan.excluded }
}

/// Returns the number of pairs that come from the source: written keys, markers, and pairs that a transformer added.
pub(super) fn pairs(plan: &Plan) -> u64 {
    plan.written.keys + plan.markers + plan.added
}

/// Checks the totals: every source key is written or has a reason, and the number of rows matches.
pub(super) fn check(balance: &Balance, plan: &Plan, ordered: &Ordered) -> Result<()> {
    let others = plan.markers + plan.added;
    if balance.holds() && ordered.rows.len() as u64 == balance.written.keys + others {
        return Ok(());
    }
    let left_out: Count = balance.expired.plus(balance.excluded).plus(balance.dropped);
    Err(unbalanced(&format!(
        "{} in the source, {} to be written, {} left out, {} of which {others} from no source key",
        counted(balance.source.keys, "key", "keys"),
        balance.written.keys,
        left_out.keys,
        counted(ordered.rows.len() as u64, "row", "rows")
    )))
}

/// Checks that the writer gets the expected number of pairs.
pub(super) fn check_writer(buckets: &[Bucket<'_>], expected: u64) -> Result<()> {
    let keys = buckets.iter().find(|bucket| bucket.name == schema::KEY).map_or(0, |bucket| bucket.rows.len());
    if keys == expected {
        return Ok(());
    }
    Err(unbalanced(&format!("{} to be written, the writer has {keys}", counted(expected, "pair is", "pairs are"))))
}

/// Creates the error for totals that do not add up. `why` names the numbers, or the pair, that differ.
pub(super) fn unbalanced(why: &str) -> Error {
    Error::new(Reason::Unbalanced, format!("the totals do not add up: {why}"))
}
