//! Generated maps: every answer is that of a linear search, and damage is an error or changes no answer.

use std::borrow::Cow;
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::Config;
use redb::{ReadableDatabase, ReadableTable};

use super::block::{BLOCK_BYTES, Rows, Writer};
use super::entry::{Entry, Origin};
use super::lookup::{Query, lookup, lookup_hashed};
use super::meta::{
    CACHE, Facts, HASH, Hash, KEY_HASHES, META, PAIRS, REVISIONS, V2_INDEXES, is_index_map, is_of_output,
};
use super::places::{self, Place, Places, Search, starts};
use super::write::{compare, write_hashed};
use crate::error::{Error, Reason, Result};
use crate::export::redb_file;
use crate::ids::{Revision, V2Index};
use crate::interrupt::Interrupt;

fn facts() -> Facts {
    Facts { output_sha256: "a".repeat(64), revision: Revision(1), ..Facts::default() }
}

/// Writes entries in parts of at most `part` pairs, reads the map back, and returns its path.
fn written(dir: &Path, entries: &[Entry<'_>], part: usize, hash: Hash) -> std::path::PathBuf {
    let path = dir.join("map.redb");
    std::fs::write(&path, "").unwrap();
    let parts = entries.chunks(part).map(|part| part.iter().map(|entry| Ok(entry.clone()))).collect();
    let written = write_hashed(&path, facts(), parts, hash, Interrupt::default()).unwrap();
    compare(&path, &written, Interrupt::default()).unwrap();
    path
}

/// The answer of a linear search.
fn expected(entries: &[Entry<'static>], query: &Query) -> Vec<Entry<'static>> {
    let matches = |entry: &&Entry<'_>| match query {
        Query::V2Index(index) => entry.node.as_ref().is_some_and(|node| node.index.0 == *index),
        Query::Revision(revision) => entry.revision.0.cast_unsigned() == *revision,
        Query::Key(key) => *entry.key == **key || entry.node.as_ref().is_some_and(|node| *node.key == **key),
    };
    entries.iter().filter(matches).cloned().collect()
}

/// Queries for everything that the entries have, and for what is next to it.
fn queries(entries: &[Entry<'_>]) -> Vec<Query> {
    let mut all = vec![Query::Revision(0), Query::Revision(u64::MAX), Query::V2Index(u64::MAX), Query::Key(Vec::new())];
    for entry in entries {
        let revision = entry.revision.0.cast_unsigned();
        let indexes = entry.node.iter().map(|node| node.index.0);
        for number in indexes.chain([revision]).flat_map(|number| [number.saturating_sub(1), number, number + 1]) {
            all.extend([Query::Revision(number), Query::V2Index(number)]);
        }
        let other = [&*entry.key, b"x"].concat();
        all.extend([entry.key.to_vec(), other].map(Query::Key));
        all.extend(entry.node.iter().map(|node| Query::Key(node.key.to_vec())));
    }
    all.sort_by_key(|query| format!("{query:?}"));
    all.dedup();
    all
}

/// Rows as a source has them: what a row is after the row before it.
#[derive(Debug, Clone)]
struct Step {
    revision: u32,
    sub: u64,
    key: (usize, Vec<u8>),
    node: Option<(i64, Option<Vec<u8>>, bool)>,
    deleted: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let revision = prop_oneof![3 => Just(0u32), 10 => 1..4u32, 1 => any::<u32>()];
    let sub = prop_oneof![8 => Just(1), 1 => 1..300u64];
    let text = || prop::collection::vec(prop_oneof![4 => Just(b'/'), 4 => b'a'..b'd', 1 => any::<u8>()], 0..12);
    let long = prop::collection::vec(any::<u8>(), 250..700);
    let key = (0..40usize, prop_oneof![30 => text(), 1 => long]);
    let index = prop_oneof![8 => Just(0i64), 4 => -3..4i64, 1 => any::<i32>().prop_map(i64::from)];
    let node = prop::option::weighted(0.8, (index, prop::option::weighted(0.3, text()), any::<bool>()));
    let deleted = prop::bool::weighted(0.1);
    (revision, sub, key, node, deleted).prop_map(|(revision, sub, key, node, deleted)| Step {
        revision,
        sub,
        key,
        node,
        deleted,
    })
}

fn entries(steps: Vec<Step>) -> Vec<Entry<'static>> {
    let (mut revision, mut sub) = (2u64, 0);
    let mut keys: Vec<Vec<u8>> = Vec::new();
    let mut all = Vec::new();
    for step in steps {
        revision += u64::from(step.revision);
        sub = if step.revision > 0 { step.sub - 1 } else { sub + step.sub };
        // The key of an earlier row, or one that starts like it.
        let (back, rest) = step.key;
        let earlier = keys.len().checked_sub(1 + back).map_or(&[][..], |at| &keys[at]);
        let key = if rest.len() % 5 == 0 { earlier.to_vec() } else { [earlier, &rest].concat() };
        keys.push(if key.len() > 900 { rest } else { key.clone() });
        let node = step.node.map(|(index, other, dir)| {
            let index = V2Index(revision.saturating_add_signed(index));
            let name = other.map_or(key.clone(), |other| [&other, &key[key.len() / 2..]].concat());
            Origin { index, key: Cow::Owned(name), dir }
        });
        let revision = Revision(revision.cast_signed());
        all.push(Entry { revision, sub, deleted: step.deleted, key: Cow::Owned(key), node });
    }
    all
}

/// Every key has one of two hashes.
fn two_hashes(key: &[u8]) -> u32 {
    if key.len().is_multiple_of(2) { 7 } else { u32::MAX }
}

fn one_hash(_: &[u8]) -> u32 {
    0
}

proptest! {
    #![proptest_config(Config { cases: 12, ..Config::default() })]

    #[test]
    fn answers_are_those_of_a_linear_search(
        steps in prop::collection::vec(step(), 0..300),
        part in 1..120usize,
        hash in prop::sample::select(vec![HASH, two_hashes as Hash, one_hash as Hash]),
    ) {
        let entries = entries(steps);
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path(), &entries, part, hash);
        let last = entries.last().map_or(Revision(1), |entry| entry.revision);
        for query in queries(&entries).iter().step_by(1 + entries.len() / 10) {
            let found = lookup_hashed(&path, query, hash).unwrap();
            prop_assert_eq!(&found.facts, &Facts { revision: last, ..facts() });
            prop_assert_eq!(found.entries, expected(&entries, query), "{:?}", query);
        }
    }

    #[test]
    fn blocks_have_their_rows(steps in prop::collection::vec(step(), 1..3000)) {
        let entries = entries(steps);
        let blocks = blocks(&entries);
        let mut found = Vec::new();
        for block in &blocks {
            let mut rows = Rows::new(block).unwrap();
            while let Some(row) = rows.next().unwrap() {
                found.push(row.into_owned());
            }
            prop_assert!(block.len() <= BLOCK_BYTES);
        }
        prop_assert!(found == entries);
    }

    /// A block with a changed byte gives an error or rows, and never more rows than it says.
    #[test]
    fn damaged_blocks_never_panic(steps in prop::collection::vec(step(), 1..60), at: prop::sample::Index, to: u8) {
        let entries = entries(steps);
        for block in blocks(&entries) {
            for len in 0..block.len() {
                prop_assert!(rows_of(&block[..len]).is_err(), "{} of {} bytes", len, block.len());
            }
            let mut changed = block.clone();
            changed[at.index(block.len())] = to;
            if let Ok(rows) = rows_of(&changed) {
                prop_assert!(rows.len() * 4 <= changed.len());
                let bytes: usize = rows.iter().map(|row| row.key.len()).sum();
                prop_assert!(bytes <= changed.len() + 255 * rows.len());
            }
            changed = block.clone();
            changed.push(to);
            prop_assert!(rows_of(&changed).is_err(), "a byte too many");
        }
    }

    #[test]
    fn places_are_found_as_in_a_linear_search(
        mut all in prop::collection::vec((0..2000u64, 0..40u32), 1..8000),
        far: u64,
    ) {
        all.push((far, 7));
        let mut all: Vec<Place> = all.into_iter().map(|(value, block)| Place { value, block }).collect();
        all.sort_unstable();
        let mut writer = places::Writer::new();
        let mut blocks: Vec<(Place, Vec<u8>)> = starts(all.iter().copied()).filter_map(|place| writer.push(place)).collect();
        blocks.extend(writer.finish());
        let stored: Vec<Place> = blocks.iter().flat_map(|(_, block)| Places::new(block).unwrap()).collect::<Result<_>>().unwrap();
        prop_assert!(stored.iter().copied().eq(starts(all.iter().copied())));
        for value in (0..2001).step_by(97).chain([far, far.wrapping_add(1), u64::MAX]) {
            let mut search = Search::new(value);
            let before = blocks.iter().rfind(|(first, _)| first.value < value);
            for (_, block) in before.into_iter().chain(blocks.iter().filter(|(first, _)| first.value == value)) {
                search.read(block).unwrap();
            }
            let found = search.blocks();
            let expected: Vec<u32> = all.iter().filter(|place| place.value == value).map(|place| place.block).collect();
            prop_assert!(expected.iter().all(|block| found.contains(block)), "{}", value);
            let mut distinct = expected;
            distinct.dedup();
            prop_assert!(found.len() <= distinct.len() + 1);
        }
        for (_, block) in &blocks {
            for len in (0..block.len()).rev().take(50).chain(0..50.min(block.len())) {
                prop_assert!(Places::new(&block[..len]).and_then(Iterator::collect::<Result<Vec<_>>>).is_err());
            }
        }
    }
}

fn blocks(entries: &[Entry<'_>]) -> Vec<Vec<u8>> {
    let mut writer = Writer::new();
    let mut blocks: Vec<_> = entries.iter().filter_map(|entry| writer.push(entry).unwrap()).collect();
    blocks.extend(writer.finish());
    blocks
}

fn rows_of(block: &[u8]) -> Result<Vec<Entry<'static>>> {
    let (mut rows, mut all) = (Rows::new(block)?, Vec::new());
    while let Some(row) = rows.next()? {
        all.push(row.into_owned());
    }
    Ok(all)
}

fn put(revision: i64, key: &str) -> Entry<'static> {
    let key: Cow<'static, [u8]> = Cow::Owned(key.as_bytes().to_vec());
    let node = Some(Origin { index: V2Index(revision.cast_unsigned()), key: key.clone(), dir: false });
    Entry { revision: Revision(revision), sub: 0, deleted: false, key, node }
}

/// The layout of docs/index-map.md, byte by byte.
#[test]
fn a_block_has_the_documented_bytes() {
    let moved = Origin { index: V2Index(7), key: Cow::Borrowed(b"/old/b"), dir: true };
    let second = Entry { sub: 1, node: Some(moved), ..put(300, "/a/b") };
    let third = Entry { deleted: true, node: None, ..put(301, "/a/b") };
    let block = blocks(&[put(300, "/a/a"), second, third]).remove(0);
    let mut bytes = vec![3, 0, 0, 0];
    bytes.extend(b"\x19\xac\x02\x00\x04/a/a");
    bytes.extend(b"\x23\x00\x01\x03\x01b\xc9\x04\x02\x04/old");
    bytes.extend(b"\x04\x01\x04\x00");
    assert_eq!(block, bytes);
    let mut writer = places::Writer::new();
    for (value, block) in [(300, 0), (300, 5), (1000, 2)] {
        assert!(writer.push(Place { value, block }).is_none());
    }
    let (first, block) = writer.finish().unwrap();
    assert_eq!((first.value, first.block), (300, 0));
    assert_eq!(block, b"\x03\x00\x00\x00\xac\x02\x00\x00\x05\xbc\x05\x02");
}

/// A key that has thousands of revisions, and revisions with thousands of keys.
#[test]
fn what_is_in_many_blocks_is_found_in_all_of_them() {
    let mut all: Vec<Entry<'static>> = Vec::new();
    for revision in 2..9000 {
        all.push(put(revision, if revision % 2 == 0 { "/same" } else { "/key" }));
        all.push(Entry { sub: 1, ..put(revision, &format!("/a longer key {}", revision * 7919)) });
    }
    all.extend((0..20_000).map(|sub| Entry { sub, ..put(9000, &format!("/{sub}/in one revision")) }));
    let dir = tempfile::tempdir().unwrap();
    let path = written(dir.path(), &all, 5000, HASH);
    let queries = [Query::Key(b"/same".to_vec()), Query::Revision(9000), Query::V2Index(9000), Query::Revision(8999)];
    for (query, len) in queries.iter().zip([4499, 20_000, 20_000, 2]) {
        let found = lookup(&path, query).unwrap().entries;
        assert_eq!((found.len(), found), (len, expected(&all, query)), "{query:?}");
    }
}

#[test]
fn pairs_out_of_order_are_refused_within_and_between_parts() {
    let dir = tempfile::tempdir().unwrap();
    for parts in [vec![vec![3, 2]], vec![vec![2], vec![2]], vec![vec![2, 5], vec![], vec![4]]] {
        let path = dir.path().join("map");
        std::fs::write(&path, "").unwrap();
        let parts = parts.into_iter().map(|part: Vec<i64>| part.into_iter().map(|revision| Ok(put(revision, "/a"))));
        let error = write_hashed(&path, facts(), parts.collect(), HASH, Interrupt::default()).unwrap_err();
        assert_eq!(error.reason(), Reason::Internal, "{error}");
    }
    let fail = |number: i64| if number == 7 { Err(Error::new(Reason::Unbalanced, "7")) } else { Ok(put(number, "/a")) };
    let path = dir.path().join("map");
    std::fs::write(&path, "").unwrap();
    let parts = vec![(2..5).map(fail), (5..9).map(fail)];
    let error = write_hashed(&path, facts(), parts, HASH, Interrupt::default()).unwrap_err();
    assert_eq!(error.reason(), Reason::Unbalanced, "the error of a part");
}

/// A sound redb file with other rows than those that were written.
#[test]
fn a_change_in_any_table_is_detected_when_the_map_is_read_back() {
    let all: Vec<Entry<'static>> = (2..4000).map(|revision| put(revision, &format!("/key {revision}"))).collect();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("map");
    for table in ["none", "meta", "pairs", "revisions", "v2_indexes", "key_hashes"] {
        std::fs::write(&path, "").unwrap();
        let parts = vec![all.iter().map(|entry| Ok(entry.clone()))];
        let written = write_hashed(&path, facts(), parts, HASH, Interrupt::default()).unwrap();
        let database = redb::Database::open(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        match table {
            "none" => {}
            "meta" => drop(transaction.open_table(META).unwrap().insert("etcdlift", "9").unwrap()),
            "pairs" => drop(transaction.open_table(PAIRS).unwrap().pop_last().unwrap()),
            places => {
                let definition = [REVISIONS, V2_INDEXES, KEY_HASHES];
                let definition = definition.into_iter().find(|it| redb::TableHandle::name(it) == places).unwrap();
                let mut table = transaction.open_table(definition).unwrap();
                let (key, mut block) =
                    table.first().unwrap().map(|(key, block)| (key.value(), block.value().to_vec())).unwrap();
                *block.last_mut().unwrap() ^= 1;
                table.insert(key, &*block).unwrap();
            }
        }
        transaction.commit().unwrap();
        drop(database);
        match compare(&path, &written, Interrupt::default()) {
            Ok(()) => assert_eq!(table, "none"),
            Err(e) => {
                assert_eq!(e.reason(), Reason::VerifyFailed);
                assert!(e.message().contains(&format!("table {table} differs")), "{table}: {e}");
            }
        }
    }
}

/// Sound redb files with the tables of a map and any content: redb's checks find nothing in them.
#[test]
fn wrong_blocks_in_a_sound_file_are_damage_or_change_nothing() {
    let all: Vec<Entry<'static>> = (2..60).map(|revision| put(revision, &format!("/key {revision}"))).collect();
    let dir = tempfile::tempdir().unwrap();
    let path = written(dir.path(), &all, 30, HASH);
    let queries = [Query::Revision(40), Query::V2Index(40), Query::Key(b"/key 40".to_vec())];
    let sound: Vec<(u64, Vec<u8>)> = {
        let database = redb::ReadOnlyDatabase::open(&path).unwrap();
        let table = database.begin_read().unwrap().open_table(PAIRS).unwrap();
        let rows = table.iter().unwrap().map(|row| row.unwrap());
        rows.map(|(number, block)| (number.value(), block.value().to_vec())).collect()
    };
    assert_eq!(sound.len(), 2);
    let (number, block) = &sound[1];
    let mut damaged = 0;
    for at in 0..block.len() {
        let mut changed = block.clone();
        changed[at] ^= 1 << (at % 8);
        let database = redb::Database::open(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(PAIRS).unwrap().insert(number, &*changed).unwrap();
        transaction.commit().unwrap();
        drop(database);
        for query in &queries {
            match lookup(&path, query) {
                Ok(found) => assert!(found.entries.len() <= all.len()),
                Err(e) => {
                    assert_eq!(e.reason(), Reason::Damaged, "byte {at}: {e}");
                    assert!(!e.message().contains("its own library cannot read"), "byte {at}: a panic");
                    damaged += 1;
                }
            }
        }
    }
    assert!(damaged > block.len() / 10, "only {damaged} were noticed");
    let database = redb::Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    drop(transaction.open_table(PAIRS).unwrap().remove(number).unwrap());
    transaction.commit().unwrap();
    drop(database);
    for query in &queries {
        let error = lookup(&path, query).unwrap_err();
        assert_eq!(
            (error.reason(), error.hint_text()),
            (Reason::Damaged, Some("write it again with `convert`")),
            "{error}"
        );
    }
}

/// A map of an earlier version: another schema, and other tables.
#[test]
fn a_map_of_another_schema_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("map");
    std::fs::write(&path, "").unwrap();
    redb_file::create(&path, CACHE, Interrupt::default(), |database| {
        let transaction = database.begin_write().unwrap();
        let text = [("output_sha256", "a"), ("schema", "1")];
        redb_file::fill(&transaction, META, |put| text.iter().try_for_each(|(name, text)| put(name, text))).unwrap();
        transaction.commit().unwrap();
        Ok(())
    })
    .unwrap();
    assert!(is_index_map(&path));
    for error in
        [lookup(&path, &Query::Revision(2)).unwrap_err(), is_of_output(&path, "a", Interrupt::default()).unwrap_err()]
    {
        assert_eq!((error.reason(), error.hint_text()), (Reason::NotIndexMap, Some("write it again with `convert`")));
        assert!(error.message().contains("found one of schema 1, which another version"), "{error}");
        assert_eq!(error.file(), Some(&*path));
    }
}
