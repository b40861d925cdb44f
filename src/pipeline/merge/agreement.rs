//! The v3 backends of the other members: they must have the v3 data of the one that is preserved.
//!
//! One backend becomes that of all members, so a difference would be lost without a word. Must not know the v2 keys.

use crate::bolt::{Damage, Db};
use crate::error::{Error, Reason, Result};
use crate::interrupt::Interrupt;
use crate::pipeline::backend::{self, Backend};
use crate::report::Notice;
use crate::source::open::Opened;
use crate::verify::{self, V3Summary, hash_kv_at, replicated_hash};

/// Compares the backends of all members with the preserved one: HashKV at the lower revision, and at equal consistent indexes also
/// users, roles, leases and alarms. Returns a warning for each that cannot be read.
///
/// # Errors
/// [`Reason::V3Differs`]; an interruption.
pub(super) fn check(
    opened: &Opened,
    (preserved, db, summary): (&Backend<'_>, &Db<'_>, &V3Summary),
    interrupt: Interrupt<'_>,
) -> Result<Vec<Notice>> {
    let mut unreadable = Vec::new();
    for other in backend::others(opened, preserved, interrupt)? {
        unreadable.extend(other.unusable_notice());
        let Some(map) = other.map.filter(|_| other.unusable.is_none()) else { continue };
        let same_index = other.consistent_index == preserved.consistent_index;
        let found =
            Db::open(map.bytes()).and_then(|other| difference((db, summary), &other.watched(interrupt), same_index));
        interrupt.ask()?;
        let failed = |damage: Damage| damage.into_error(Reason::V3Unreadable).in_file(map.path());
        let Some(what) = found.map_err(failed)? else { continue };
        let other = preserved.map.map_or(String::new(), |map| map.path().display().to_string());
        let message = format!("the members have different v3 data: {what} differs from that of {other}");
        let hint = "`etcdlift compare` shows the members; name only those with the right v3 data";
        return Err(Error::new(Reason::V3Differs, message).in_file(map.path()).hint(hint));
    }
    Ok(unreadable)
}

/// Returns what differs between the preserved backend and another; `None` if nothing does, or if their histories do not overlap.
fn difference(
    (db, summary): (&Db<'_>, &V3Summary),
    other: &Db<'_>,
    same_index: bool,
) -> std::result::Result<Option<String>, Damage> {
    let other_summary = verify::carried(other)?;
    let revision = summary.revision.min(other_summary.revision);
    let compacted = summary.compacted.max(other_summary.compacted);
    if same_index && summary.revision != other_summary.revision {
        return Ok(Some("the current revision".to_string()));
    }
    if compacted.is_none_or(|compacted| compacted <= revision) {
        let (one, two) = (hash_kv_at(db, revision, compacted)?, hash_kv_at(other, revision, compacted)?);
        let comparable = (one.is_stable && two.is_stable) || summary.compacted == other_summary.compacted;
        if comparable && one.hash != two.hash {
            return Ok(Some(format!("HashKV at revision {}", revision.0)));
        }
    }
    let differ = same_index && replicated_hash(db)? != replicated_hash(other)?;
    Ok(differ.then(|| "a user, role, lease or alarm".to_string()))
}
