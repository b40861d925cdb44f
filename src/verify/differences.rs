//! The keys in which a file differs from the expected content, by name. Used after `compare` has detected a difference.
//!
//! Compares the state of each key at the current revision, not the order of pairs. Never shows values, only their
//! sizes. Must not know the source: the expected content is a plan's.

use std::borrow::Cow;

use hashbrown::HashMap;

use crate::bolt::Db;
use crate::count::counted;
use crate::display::short;
use crate::error::{Reason, Result};
use crate::ids::ByteOffset;
use crate::image::Content;
use crate::interrupt::Interrupt;
use crate::mvcc::{KeyValue, RevisionKey, schema};
use crate::transform::plan::Row;
use crate::verify::compare::{compare_bucket, damaged, revisions};

/// A description of the differences.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// One line for each bucket other than `key`, and one for each of the first keys.
    pub lines: Vec<String>,
    /// Number of keys that differ.
    pub keys: u64,
}

/// Maximum number of listed keys; further keys are only counted.
const LISTED: usize = 20;

/// Lists the differences between a file and the expected content: missing keys, extra keys, and keys with another
/// value, revision, version or lease.
///
/// # Errors
/// [`Reason::VerifyFailed`] if the file cannot be read to its end; an interruption.
pub fn list(file: &[u8], content: &Content<'_, '_>, interrupt: Interrupt<'_>) -> Result<Listing> {
    let db = Db::open(file).map_err(damaged)?;
    let mut listing = Listing::default();
    for (name, pairs) in content.others() {
        match compare_bucket(&db, name, pairs) {
            Err(e) if e.reason() == Reason::VerifyFailed => listing.lines.push(e.to_string()),
            other => other?,
        }
    }
    let mut found = found(&db, interrupt)?;
    let mut differing = Vec::new();
    for (key, expected) in expected(content, interrupt)? {
        let what = match found.remove(&*key) {
            None => Difference::Missing,
            Some(kv) => match expected.differences(&kv, content) {
                Some(what) => what,
                None => continue,
            },
        };
        differing.push((what, key));
    }
    differing.extend(found.into_keys().map(|key| (Difference::Extra, Cow::Borrowed(key))));
    differing.sort_unstable_by(|(a, a_key), (b, b_key)| (a.rank(), a_key).cmp(&(b.rank(), b_key)));
    listing.keys = differing.len() as u64;
    for (what, key) in differing.iter().take(LISTED) {
        listing.lines.push(format!("key {}: {}", short(&String::from_utf8_lossy(key)), what.words()));
    }
    let more = differing.len().saturating_sub(LISTED) as u64;
    if more > 0 {
        listing.lines.push(format!("and {}", counted(more, "more key differs", "more keys differ")));
    }
    Ok(listing)
}

enum Difference {
    Missing,
    Extra,
    /// Whether the value differs; the fields that differ.
    Changed(bool, String),
}

impl Difference {
    /// Returns the place in the list. One missing key can shift the revisions of all others, so these come last.
    fn rank(&self) -> u8 {
        match self {
            Difference::Missing | Difference::Extra | Difference::Changed(true, _) => 0,
            Difference::Changed(false, _) => 1,
        }
    }

    fn words(&self) -> &str {
        match self {
            Difference::Missing => "missing: the source has it, the file does not",
            Difference::Extra => "extra: the file has it, the source does not",
            Difference::Changed(_, what) => what,
        }
    }
}

/// The expected last state of a key.
enum Expected<'t, 'm> {
    Row(&'t Row),
    Stored(KeyValue<'m>),
}

impl Expected<'_, '_> {
    fn differences(&self, found: &KeyValue<'_>, content: &Content<'_, '_>) -> Option<Difference> {
        let pairs = content.pairs();
        let (value, (create, modify), version, lease): (Cow<'_, [u8]>, _, _, _) = match self {
            Expected::Row(row) => {
                (pairs.value(row), revisions(pairs, row), pairs.version(row), pairs.ordered.lease(row))
            }
            Expected::Stored(kv) => (kv.value.into(), (kv.create_revision, kv.mod_revision), kv.version, kv.lease),
        };
        let other_value = *value != *found.value;
        let mut what = Vec::new();
        if other_value {
            what.push(format!("value (expected {} bytes, found {} bytes)", value.len(), found.value.len()));
        }
        let mut field = |name: &str, expected: i64, found: i64| {
            if expected != found {
                what.push(format!("{name} (expected {expected}, found {found})"));
            }
        };
        field("create revision", create.0, found.create_revision.0);
        field("revision", modify.0, found.mod_revision.0);
        field("version", version, found.version);
        field("lease", lease.0, found.lease.0);
        (!what.is_empty()).then(|| Difference::Changed(other_value, format!("another {}", what.join(", "))))
    }
}

type LiveKeys<'k, T> = HashMap<Cow<'k, [u8]>, T>;

/// Returns every expected key.
fn expected<'t, 'm>(content: &Content<'t, 'm>, interrupt: Interrupt<'_>) -> Result<LiveKeys<'t, Expected<'t, 'm>>>
where
    'm: 't,
{
    let mut live: LiveKeys<'t, Expected<'t, 'm>> = HashMap::new();
    for (at, stored) in content.stored().iter().enumerate() {
        if at.is_multiple_of(1 << 16) {
            interrupt.ask()?;
        }
        let kv = KeyValue::decode(stored.value, ByteOffset(0))?;
        if RevisionKey::decode(stored.key).is_none_or(|key| key.tombstone) {
            live.remove(kv.key);
        } else {
            live.insert(kv.key.into(), Expected::Stored(kv));
        }
    }
    let pairs = content.pairs();
    for (at, row) in pairs.ordered.rows.iter().enumerate() {
        if at.is_multiple_of(1 << 16) {
            interrupt.ask()?;
        }
        live.insert(pairs.key(row), Expected::Row(row));
    }
    Ok(live)
}

/// Returns every live key of the file.
fn found<'f>(db: &Db<'f>, interrupt: Interrupt<'_>) -> Result<HashMap<&'f [u8], KeyValue<'f>>> {
    let mut live = HashMap::new();
    let Some(bucket) = db.bucket(schema::KEY).map_err(damaged)? else { return Ok(live) };
    for (at, pair) in bucket.iter().enumerate() {
        if at.is_multiple_of(1 << 16) {
            interrupt.ask()?;
        }
        let pair = pair.map_err(damaged)?;
        // A pair that is not a change of a key was a finding before.
        let (Some(key), Ok(kv)) = (RevisionKey::decode(pair.key), KeyValue::decode(pair.value, ByteOffset(0))) else {
            continue;
        };
        if key.tombstone {
            live.remove(kv.key);
        } else {
            // The key has the revision; the value may claim another one.
            let kv = if kv.mod_revision == key.main { kv } else { KeyValue { mod_revision: key.main, ..kv } };
            live.insert(kv.key, kv);
        }
    }
    Ok(live)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{LeaseId, RaftIndex, Revision, Term, V2Index};
    use crate::interrupt::Interrupt;
    use crate::mvcc::Meta;
    use crate::transform::plan::Plan;
    use crate::transform::revisions::{Numbering, Order, Pairs, order};
    use crate::v2store::table::Table;
    use crate::v2store::tree::Tree;

    #[test]
    fn differences_have_sizes_and_no_values() {
        let kv = |value: &'static [u8], modified: i64, lease: i64| KeyValue {
            key: b"/a",
            value,
            create_revision: Revision(2),
            mod_revision: Revision(modified),
            version: 1,
            lease: LeaseId(lease),
        };
        let table = Table::empty();
        let tree = Tree::new(&table);
        let mut plan = Plan::default();
        let leases = std::collections::HashSet::new();
        let how = Order {
            numbering: Numbering::Keep,
            v2_index: V2Index(9),
            bump: 0,
            leases_in_use: &leases,
            interrupt: Interrupt::default(),
        };
        let ordered = order(&tree, &mut plan, &how).unwrap();
        let pairs = Pairs { tree: &tree, ordered: &ordered };
        let meta =
            Meta { consistent_index: RaftIndex(1), term: Term(1), scheduled_compact: None, finished_compact: None };
        let content = Content::new(pairs, &meta).unwrap();
        let said = |found: KeyValue<'static>| {
            Expected::Stored(kv(b"secret", 3, 0)).differences(&found, &content).map(|what| what.words().to_string())
        };
        assert_eq!(said(kv(b"secret", 3, 0)), None);
        assert_eq!(
            said(kv(b"other", 3, 7)).unwrap(),
            "another value (expected 6 bytes, found 5 bytes), lease (expected 0, found 7)"
        );
        assert_eq!(said(kv(b"secret", 4, 0)).unwrap(), "another revision (expected 3, found 4)");
    }
}
