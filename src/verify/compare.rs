//! The written file against the expected content: every pair of every bucket, in order.
//!
//! Builds keys and values in another way than the writer (complete and decoded, not copied into pages), and takes
//! revisions from the nodes. Knows both stores. Must not know the layout of the file.

use rayon::prelude::*;

use crate::bolt::{Damage, Db, PARTS, Pair, Part};
use crate::display::short;
use crate::error::{Error, Reason, Result};
use crate::ids::Revision;
use crate::image::{Content, Stored};
use crate::interrupt::Interrupt;
use crate::mvcc::{KeyValue, RevisionKey, schema};
use crate::transform::plan::Row;
use crate::transform::revisions::{Numbering, Pairs};
use crate::v2store::path;

/// Number of pairs whose rows are read ahead at once.
const AHEAD: u64 = 64;

/// Compares a file with the expected content.
///
/// # Errors
/// [`Reason::VerifyFailed`] with the offset and the key of the first pair that differs, is missing, or is extra.
pub fn compare(file: &[u8], content: &Content<'_, '_>, interrupt: Interrupt<'_>) -> Result<()> {
    let db = Db::open(file).map_err(damaged)?;
    compare_others(&db, content)?;
    compare_keys(&db, content, interrupt)
}

/// Compares the buckets other than `key`.
///
/// # Errors
/// As [`compare`].
pub(super) fn compare_others(db: &Db<'_>, content: &Content<'_, '_>) -> Result<()> {
    content.others().try_for_each(|(name, pairs)| compare_bucket(db, name, pairs))
}

pub(super) fn compare_bucket(db: &Db<'_>, name: &[u8], expected: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
    let failed = |what: String| Error::new(Reason::VerifyFailed, format!("bucket {}: {what}", name.escape_ascii()));
    let bucket = db.bucket(name).map_err(damaged)?.ok_or_else(|| failed("expected the bucket, found none".into()))?;
    let mut expected = expected.iter();
    for found in &bucket {
        let found = found.map_err(damaged)?;
        // Neither side is shown, because users have their password hashes here.
        match expected.next() {
            Some((key, value)) if found.key == key && found.value == value => {}
            Some((key, _)) => {
                let what = format!("expected the planned value of the pair {}, found another", key.escape_ascii());
                return Err(failed(what).at(found.offset));
            }
            None => return Err(failed("expected its end, found one more pair".into()).at(found.offset)),
        }
    }
    match expected.next() {
        None => Ok(()),
        Some((key, _)) => Err(failed(format!("expected the pair {}, found the end", key.escape_ascii()))),
    }
}

/// Compares each pair of the `key` bucket.
///
/// # Errors
/// As [`compare`].
pub(super) fn compare_keys(db: &Db<'_>, content: &Content<'_, '_>, interrupt: Interrupt<'_>) -> Result<()> {
    let expectation = Expectation { stored: content.stored(), pairs: content.pairs() };
    let bucket = db.bucket(schema::KEY).map_err(damaged)?;
    let bucket = bucket.ok_or_else(|| Error::new(Reason::VerifyFailed, "expected a bucket `key`, found none"))?;
    let parts = bucket.parts(PARTS).map_err(damaged)?;
    let found = parts.last().map_or(0, |part| part.first + part.len);
    let compared = parts.into_par_iter().map(|part| {
        interrupt.ask()?;
        expectation.compare(part)
    });
    // The first difference in file order, whichever thread was first.
    let compared: Vec<Result<()>> = compared.collect();
    compared.into_iter().collect::<Result<()>>()?;
    expectation.ends_at(found)
}

/// The expected changes, in the order of their revisions.
#[derive(Clone, Copy)]
struct Expectation<'e, 't, 'm> {
    stored: &'e [Stored<'e>],
    pairs: Pairs<'t, 'm>,
}

impl Expectation<'_, '_, '_> {
    fn compare(&self, part: Part<'_>) -> Result<()> {
        for (number, pair) in (part.first..).zip(part.pairs) {
            let pair = pair.map_err(damaged)?;
            if number.is_multiple_of(AHEAD) || number == part.first {
                let start = usize::try_from(number).unwrap_or(usize::MAX).saturating_sub(self.stored.len());
                self.pairs.read_ahead(start..(start + AHEAD as usize).min(self.pairs.ordered.rows.len()));
            }
            self.compare_pair(number, &pair).map_err(|e| e.at(pair.offset))?;
        }
        Ok(())
    }

    fn compare_pair(&self, number: u64, pair: &Pair<'_>) -> Result<()> {
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        if let Some(stored) = self.stored.get(number) {
            return if (pair.key, pair.value) == (stored.key, stored.value) { Ok(()) } else { Err(changed(stored)) };
        }
        match self.pairs.ordered.rows.get(number - self.stored.len()) {
            Some(row) => compare_pair(self.pairs, row, pair),
            None => Err(Error::new(Reason::VerifyFailed, "expected the end of the bucket `key`, found one more pair")),
        }
    }

    /// Fails if there are fewer pairs than expected.
    fn ends_at(&self, found: u64) -> Result<()> {
        let found = usize::try_from(found).unwrap_or(usize::MAX);
        if let Some(stored) = self.stored.get(found) {
            return Err(changed(stored));
        }
        let row = found.checked_sub(self.stored.len()).and_then(|row| self.pairs.ordered.rows.get(row));
        let missing = "expected its pair in the output, found the end of the bucket";
        row.map_or(Ok(()), |row| Err(failed(self.pairs, row, missing)))
    }
}

fn changed(stored: &Stored<'_>) -> Error {
    let revision = RevisionKey::decode(stored.key).map_or(Revision(0), |key| key.main);
    let message = format!("v3 revision {revision}: expected it as the source's v3 backend has it, found another");
    Error::new(Reason::VerifyFailed, message)
}

fn compare_pair(pairs: Pairs<'_, '_>, row: &Row, pair: &Pair<'_>) -> Result<()> {
    let expected_key = RevisionKey { main: row.main, sub: i64::from(row.sub), tombstone: false };
    if RevisionKey::decode(pair.key) != Some(expected_key) || pair.key.len() != 17 {
        return Err(failed(pairs, row, &format!("expected it at revision {}, found another", row.main)));
    }
    let found = KeyValue::decode(pair.value, pair.value_offset()).map_err(|e| failed(pairs, row, e.expected))?;
    if found.key != &*pairs.key(row) {
        let found = short(&String::from_utf8_lossy(found.key));
        return Err(failed(pairs, row, &format!("expected its name, found {found}")));
    }
    if found.value != &*pairs.value(row) {
        return Err(failed(pairs, row, "expected its value, found another"));
    }
    let (create, modify) = revisions(pairs, row);
    if (found.create_revision, found.mod_revision) != (create, modify) {
        let (create_found, modify_found) = (found.create_revision, found.mod_revision);
        let message = format!("expected the revisions {create} and {modify}, found {create_found} and {modify_found}");
        return Err(failed(pairs, row, &message));
    }
    let (version, lease) = (pairs.version(row), pairs.ordered.lease(row));
    if (found.version, found.lease) != (version, lease) {
        let message = format!(
            "expected version {version} and lease {lease}, found version {} and lease {}",
            found.version, found.lease
        );
        return Err(failed(pairs, row, &message));
    }
    Ok(())
}

/// Returns creation and modification revision of a row, from its node.
pub(super) fn revisions(pairs: Pairs<'_, '_>, row: &Row) -> (Revision, Revision) {
    let overrides = pairs.ordered.overrides(row);
    let modified = overrides.and_then(|overrides| overrides.modified);
    let created = overrides.and_then(|overrides| overrides.created);
    let modified = match pairs.ordered.numbering {
        Numbering::Keep => modified.unwrap_or(Revision(pairs.tree.modified(row.node).0.cast_signed())),
        Numbering::Dense(_) => row.main,
    };
    let created = match pairs.ordered.numbering {
        _ if created.is_some() => created.unwrap_or_default(),
        Numbering::Keep => Revision(pairs.tree.created(row.node).0.cast_signed()),
        Numbering::Dense(_) => modified,
    };
    (created.min(modified), modified)
}

fn failed(pairs: Pairs<'_, '_>, row: &Row, what: &str) -> Error {
    let path = pairs.tree.path(row.node);
    let key = if pairs.is_added(row) { pairs.key(row) } else { path::user_key(&path).into() };
    let key = short(&String::from_utf8_lossy(&key));
    Error::new(Reason::VerifyFailed, format!("key {key}: {what}"))
}

pub(super) fn damaged(damage: Damage) -> Error {
    damage.into_error(Reason::VerifyFailed)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::bolt::{Bucket, emit, layout, meta_pages};
    use crate::ids::{LeaseId, RaftIndex, Term, V2Index};
    use crate::mvcc::Meta;
    use crate::transform::plan::plan;
    use crate::transform::policy::Policy;
    use crate::transform::revisions::{Order, order};
    use crate::v2store::json;
    use crate::v2store::tree::Tree;
    use crate::verify::{Expected, verify, verify_content};

    /// A file with `keys`, and the content that it should have.
    fn with_file(keys: usize, lost: Option<u64>, check: impl FnOnce(Vec<u8>, &Content<'_, '_>, &Expected<'_, '_, '_>)) {
        let node = |key: usize| {
            let (created, modified) = (2 + key % 7, 10 + (key * 7919) % keys);
            let value = if key.is_multiple_of(3) { r#"\n\u003c\"v"#.repeat(key % 30) } else { "v".repeat(key % 300) };
            format!(
                r#""k{key}":{{"Path":"/1/k{key}","CreatedIndex":{created},"ModifiedIndex":{modified},"Value":"{value}"}}"#
            )
        };
        let nodes: Vec<String> = (0..keys).map(node).collect();
        let one = format!(r#""1":{{"Path":"/1","Children":{{{}}}}}"#, nodes.join(","));
        let text = format!(r#"{{"Root":{{"Path":"/","Children":{{{one}}}}},"CurrentIndex":{}}}"#, keys + 10);
        let table = json::read(text.as_bytes()).unwrap();
        let mut tree = Tree::new(&table);
        let mut plan = plan(&mut tree, &mut Policy::everything(Timestamp::UNIX_EPOCH), Interrupt::default()).unwrap();
        let how = Order {
            numbering: Numbering::Keep,
            v2_index: V2Index(keys as u64 + 10),
            bump: 0,
            leases_in_use: &HashSet::new(),
            interrupt: Interrupt::default(),
        };
        let ordered = order(&tree, &mut plan, &how).unwrap();
        let meta = Meta {
            consistent_index: RaftIndex(1),
            term: Term(1),
            scheduled_compact: Some(ordered.current),
            finished_compact: Some(ordered.current),
        };
        let content = Content::new(Pairs { tree: &tree, ordered: &ordered }, &meta).unwrap();
        let mut written = Content::new(Pairs { tree: &tree, ordered: &ordered }, &meta).unwrap();
        lost.into_iter().for_each(|row| written.lose(row));
        let expected = Expected::of(&content);
        let buckets = written.buckets();
        let hashed = expected.hashed(buckets.iter().find(|bucket| bucket.name == schema::KEY).unwrap().rows);
        let mut buckets = buckets.clone();
        buckets.iter_mut().filter(|bucket| bucket.name == schema::KEY).for_each(|keys| keys.rows = &hashed);
        check(in_parts(&buckets), &content, &expected);
    }

    /// Writes a file as a conversion does, in many small parts.
    fn in_parts(buckets: &[Bucket<'_>]) -> Vec<u8> {
        let layout = layout(buckets).unwrap();
        let mut file = meta_pages(&layout).to_vec();
        for extent in layout.extents(1 << 14) {
            let start = file.len();
            file.resize(start + extent.byte_len() as usize, 0);
            emit(&layout, buckets, &extent, &mut file[start..]).unwrap();
        }
        file
    }

    /// Both ways to the same answer: with the sum of the writer, and with a comparison of each pair.
    fn both(
        file: &[u8],
        content: &Content<'_, '_>,
        expected: &Expected<'_, '_, '_>,
    ) -> (Option<String>, Option<String>) {
        let alone = compare(file, content, Interrupt::default()).and_then(|()| verify(file).map(|_| ()));
        let together = verify_content(file, expected, Interrupt::default());
        (alone.err().map(|e| e.to_string()), together.err().map(|e| e.to_string()))
    }

    #[test]
    fn equal_sums_are_enough() {
        with_file(20_000, None, |file, content, expected| {
            assert_eq!(both(&file, content, expected), (None, None));
            assert!(expected.is_met(), "each pair need not be compared");
        });
        for lost in [0, 9_999, 19_999] {
            with_file(20_000, Some(lost), |file, content, expected| {
                let (alone, together) = both(&file, content, expected);
                assert!(alone.is_some());
                assert_eq!(alone, together);
                assert!(!expected.is_met());
            });
        }
    }

    #[test]
    fn a_change_of_any_field_changes_the_sum() {
        with_file(1, None, |_, _, expected| {
            let revision = RevisionKey::put(Revision(7), 3);
            let kv = KeyValue {
                key: b"/a",
                create_revision: Revision(5),
                mod_revision: Revision(7),
                version: 1,
                value: b"b",
                lease: LeaseId(9),
            };
            let hash = expected.hash(revision, &kv);
            assert_eq!(expected.hash(revision, &kv), hash);
            let changed = [
                expected.hash(RevisionKey::put(Revision(8), 3), &kv),
                expected.hash(RevisionKey::put(Revision(7), 4), &kv),
                expected.hash(RevisionKey { tombstone: true, ..revision }, &kv),
                expected.hash(revision, &KeyValue { key: b"/ab", value: b"", ..kv }),
                expected.hash(revision, &KeyValue { key: b"/", value: b"ab", ..kv }),
                expected.hash(revision, &KeyValue { value: b"c", ..kv }),
                expected.hash(revision, &KeyValue { create_revision: Revision(6), ..kv }),
                expected.hash(revision, &KeyValue { mod_revision: Revision(6), ..kv }),
                expected.hash(revision, &KeyValue { version: 2, ..kv }),
                expected.hash(revision, &KeyValue { lease: LeaseId(0), ..kv }),
            ];
            let different: HashSet<u64> = changed.into_iter().collect();
            assert_eq!(different.len(), changed.len());
            assert!(!different.contains(&hash));
        });
    }

    proptest! {
        #[test]
        fn a_changed_byte_has_the_same_answer_in_both_ways(
            keys in 1usize..60,
            lost in prop::option::of(0u64..60),
            change in prop::option::of((any::<prop::sample::Index>(), 1u8..)),
        ) {
            with_file(keys, lost, |mut file, content, expected| {
                if let Some((place, difference)) = change {
                    *place.get_mut(&mut file) ^= difference;
                }
                let (alone, together) = both(&file, content, expected);
                assert_eq!(alone, together);
                assert_eq!(alone.is_some(), change.is_some() || lost.is_some_and(|lost| lost < keys as u64));
            });
        }
    }
}
