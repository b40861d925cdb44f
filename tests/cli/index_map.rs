//! The index map: what it says of every pair is what the ledger and other readers of the output say, and a file that is
//! damaged or none of ours is an error, never a panic and never a wrong answer.
//!
//! The tables are read here with code of their own; `lookup` is asked over the binary, and as a library where a file is
//! damaged a thousand times.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use etcdlift::error::Reason;
use etcdlift::internals::export::index_map::{Query, lookup};
use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::common::dump::Dump;
use crate::common::run::{self, Output, all_well, etcdlift};
use crate::common::text::bytes;
use crate::common::v2store::{Node, joined, store};
use crate::common::{corpus, peers, scratch, v2files};
use crate::test_name;

const DEMO: &str = "fixtures/demo/input/default.etcd";
const AS_OF: &str = "2026-12-01T00:00:00Z";

struct Converted {
    output: Output,
    out: PathBuf,
    map: PathBuf,
    ledger: Vec<Value>,
}

fn convert(folder: &Path, source: &Path, options: &[&str]) -> Converted {
    fs::create_dir_all(folder).unwrap();
    let (out, map, ledger) = (folder.join("out.db"), folder.join("map.redb"), folder.join("ledger.ndjson"));
    let mut args = vec!["convert", source.to_str().unwrap(), "-o", out.to_str().unwrap()];
    args.extend(["--index-map", map.to_str().unwrap(), "--ledger", ledger.to_str().unwrap()]);
    args.extend(options);
    let output = etcdlift(args);
    let lines = fs::read_to_string(ledger).unwrap_or_default();
    Converted { output, out, map, ledger: lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect() }
}

fn demo(folder: &Path, options: &[&str]) -> Converted {
    let converted = convert(folder, Path::new(DEMO), &[&["--as-of", AS_OF], options].concat());
    assert_eq!(converted.output.status, 0, "{}", converted.output.story());
    converted
}

/// A pair with the node that it comes from: revision, sub revision, v3 key, v2 index and v2 key.
type Row = (u64, u64, Vec<u8>, Option<(u64, Vec<u8>)>);

/// The numbers and bytes of a block, by docs/index-map.md.
struct Block(std::vec::IntoIter<u8>);

impl Block {
    fn byte(&mut self) -> u8 {
        self.0.next().unwrap()
    }

    fn take(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| self.byte()).collect()
    }

    fn count(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().unwrap())
    }

    fn varint(&mut self) -> u64 {
        let byte = self.byte();
        u64::from(byte & 0x7f) | if byte < 0x80 { 0 } else { self.varint() << 7 }
    }

    /// The first `shared` bytes of `before`, and the bytes that follow.
    fn name(&mut self, before: &[u8]) -> Vec<u8> {
        let shared = usize::from(self.byte());
        let len = self.varint();
        [&before[..shared], &self.take(len)].concat()
    }

    fn pairs(mut self) -> Vec<Row> {
        let (mut revision, mut index, mut key) = (0, 0u64, Vec::new());
        let mut rows = Vec::new();
        for _ in 0..self.count() {
            let flags = self.byte();
            revision += self.varint();
            let sub = if flags & 32 != 0 { self.varint() } else { 0 };
            key = self.name(&key);
            let mut node = None;
            if flags & 1 != 0 {
                index = if flags & 16 != 0 {
                    revision
                } else {
                    let difference = self.varint();
                    let half = difference / 2;
                    if difference.is_multiple_of(2) { index + half } else { index - half - 1 }
                };
                let v2_key = if flags & 8 != 0 {
                    key.clone()
                } else {
                    let shared = usize::from(self.byte());
                    let len = self.varint();
                    [&self.take(len), &key[key.len() - shared..]].concat()
                };
                node = Some((index, v2_key));
            }
            rows.push((revision, sub, key.clone(), node));
        }
        assert_eq!(self.0.len(), 0);
        rows
    }

    fn places(mut self) -> Vec<(u64, u64)> {
        let mut value = 0;
        let mut places = Vec::new();
        for _ in 0..self.count() {
            value += self.varint();
            places.push((value, self.varint()));
        }
        assert_eq!(self.0.len(), 0);
        places
    }
}

/// What a map says, by each of its tables.
struct Tables {
    meta: BTreeMap<String, String>,
    rows: BTreeSet<Row>,
}

impl Tables {
    /// # Panics
    /// If the tables contradict each other.
    fn read(path: &Path) -> Self {
        let meta: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");
        let pairs: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("pairs");
        let database = redb::ReadOnlyDatabase::open(path).unwrap();
        let transaction = database.begin_read().unwrap();
        let table = transaction.open_table(meta).unwrap();
        let meta = table.iter().unwrap().map(|row| row.unwrap());
        let meta = meta.map(|(name, text)| (name.value().to_string(), text.value().to_string())).collect();
        let mut rows = BTreeSet::new();
        // What the three other tables must have: values and blocks.
        let mut expected: [BTreeSet<(u64, u64)>; 3] = Default::default();
        for (number, row) in transaction.open_table(pairs).unwrap().iter().unwrap().enumerate() {
            let (key, block) = row.unwrap();
            let block_number = key.value();
            assert_eq!(block_number, number as u64);
            for row in Block(block.value().to_vec().into_iter()).pairs() {
                let (revision, _, key, node) = &row;
                expected[0].insert((*revision, block_number));
                expected[2].insert((crc32c::crc32c(key).into(), block_number));
                if let Some((index, v2_key)) = node {
                    expected[1].insert((*index, block_number));
                    expected[2].insert((crc32c::crc32c(v2_key).into(), block_number));
                }
                assert!(rows.last().is_none_or(|last| *last < row), "{row:?}");
                rows.insert(row);
            }
        }
        for (name, expected) in ["revisions", "v2_indexes", "key_hashes"].into_iter().zip(expected) {
            let definition: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new(name);
            let mut found = Vec::new();
            for row in transaction.open_table(definition).unwrap().iter().unwrap() {
                let (first, block) = row.unwrap();
                let places = Block(block.value().to_vec().into_iter()).places();
                assert_eq!(places[0], first.value(), "{name}");
                found.extend(places);
            }
            // Of neighbours with one block, only the first is there.
            let mut expected: Vec<_> = expected.into_iter().collect();
            expected.dedup_by_key(|(_, block)| *block);
            assert_eq!(found, expected, "{name}");
        }
        Self { meta, rows }
    }

    /// Against the ledger, and against the file that it belongs to.
    fn belongs_to(&self, converted: &Converted) -> Vec<String> {
        let expected: BTreeSet<Row> = converted.ledger.iter().filter_map(of_line).collect();
        let mut wrong: Vec<String> =
            expected.symmetric_difference(&self.rows).take(5).map(|row| format!("not in both: {row:?}")).collect();
        let sha256: String =
            Sha256::digest(fs::read(&converted.out).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect();
        if self.meta["output_sha256"] != sha256 {
            wrong.push("another sha256".into());
        }
        wrong
    }
}

/// The row of a line of the ledger that is written.
fn of_line(line: &Value) -> Option<Row> {
    let revision = line["revision"].as_u64()?;
    let sub = line["sub_revision"].as_u64().unwrap_or(0);
    let node =
        (line["added"] != true).then(|| (line["modified_index"].as_u64().unwrap(), bytes(line, "path").unwrap()));
    Some((revision, sub, bytes(line, "key").unwrap(), node))
}

fn ask(map: &Path, query: &[&str]) -> Output {
    etcdlift([&["lookup", map.to_str().unwrap(), "--json"], query].concat())
}

/// The revisions that an answer names.
fn revisions(map: &Path, query: &[&str]) -> Vec<(u64, u64)> {
    let answer = ask(map, query).success().json();
    let found = answer["found"].as_array().unwrap().iter();
    found.map(|line| (line["revision"].as_u64().unwrap(), line["sub_revision"].as_u64().unwrap())).collect()
}

#[test]
fn whatever_was_written_is_found_by_index_revision_and_both_names() {
    let temp = scratch::temp();
    let added = fs::canonicalize("tests/cli/convert/transformers/added.sh").unwrap();
    let transformer = ["--transformer", added.to_str().unwrap(), "--transformer-protocol", "json-lines"];
    for (at, options) in [
        &[][..],
        &["--revisions", "dense", "--map", "/config=/c", "--dirs", "marker", "--hidden", "drop"],
        &["--strip-leading-slash", "--bump-revision", "100", "--to", "backend"],
        &transformer,
        &[&transformer[..], &["--revisions", "dense"]].concat(),
    ]
    .into_iter()
    .enumerate()
    {
        let converted = demo(&temp.path().join(at.to_string()), options);
        let tables = Tables::read(&converted.map);
        all_well(&tables.belongs_to(&converted));
        let dense = options.contains(&"dense");
        assert_eq!(tables.meta["numbering"], if dense { "dense" } else { "keep" });
        assert_eq!((tables.meta["v2_index"].as_str(), tables.meta["schema"].as_str()), ("51", "2"));
        let inspected = etcdlift(["inspect", converted.out.to_str().unwrap(), "--json"]).success().json();
        for name in ["revision", "compact_revision"] {
            assert_eq!(tables.meta[name], inspected[name].to_string(), "{options:?}");
        }
        for (revision, sub, key, node) in &tables.rows {
            let here = [(*revision, *sub)];
            assert_eq!(revisions(&converted.map, &["--revision", &revision.to_string()]), here, "{options:?}");
            let key = STANDARD.encode(key);
            assert_eq!(revisions(&converted.map, &["--key-base64", &key]), here, "{options:?}: {key}");
            let Some((index, v2_key)) = node else { continue };
            assert_eq!(revisions(&converted.map, &["--v2-index", &index.to_string()]), here, "{options:?}");
            let v2_key = String::from_utf8(v2_key.clone()).unwrap();
            assert_eq!(revisions(&converted.map, &["--key", &v2_key]), here, "{options:?}: {v2_key}");
        }
    }
}

#[test]
fn a_key_that_is_no_text_is_asked_for_as_bytes_and_in_base64() {
    use std::os::unix::ffi::OsStrExt;
    let temp = scratch::temp();
    let added = fs::canonicalize("tests/cli/convert/transformers/added.sh").unwrap();
    let map =
        demo(temp.path(), &["--transformer", added.to_str().unwrap(), "--transformer-protocol", "json-lines"]).map;
    let raw = std::ffi::OsStr::from_bytes(b"\xff\x66\xfe");
    let output = etcdlift(["lookup".as_ref(), map.as_os_str(), "--json".as_ref(), "--key".as_ref(), raw]).success();
    let answer = output.json();
    assert_eq!(answer["query"], json!({ "key_base64": "/2b+" }));
    // It comes from no node: it has neither index nor name in v2.
    assert_eq!(answer["found"], json!([{ "revision": 50, "sub_revision": 0, "key_base64": "/2b+" }]));
    assert_eq!(ask(&map, &["--key-base64", "/2b+"]).success().json(), answer);
    let text = etcdlift(["lookup", map.to_str().unwrap(), "--revision", "50"]).success().text();
    assert!(text.starts_with("key (base64):  /2b+\nrevision:      50\n"), "{text}");
}

#[test]
fn nodes_that_share_an_index_are_all_named() {
    let temp = scratch::temp();
    let store = store(9, &joined(["/1/a", "/1/b"].map(|path| Node::file(path, 3, "v").modified(7).child())));
    let snapshot = v2files::write_snapshot(&temp.path().join("source"), store.into_bytes(), 9, 2, 1, 9);
    let converted = convert(&temp.path().join("keep"), &snapshot.path, &[]);
    assert_eq!(converted.output.status, 0, "{}", converted.output.story());
    all_well(&Tables::read(&converted.map).belongs_to(&converted));
    assert_eq!(revisions(&converted.map, &["--v2-index", "7"]), [(7, 0), (7, 1)]);
    assert_eq!(revisions(&converted.map, &["--revision", "7"]), [(7, 0), (7, 1)]);
    assert_eq!(revisions(&converted.map, &["--key", "/b"]), [(7, 1)]);
    let converted = convert(&temp.path().join("dense"), &snapshot.path, &["--revisions", "dense"]);
    assert_eq!(revisions(&converted.map, &["--v2-index", "7"]), [(2, 0), (3, 0)]);
}

#[test]
fn a_name_that_is_one_key_in_v2_and_another_in_v3_finds_both() {
    let temp = scratch::temp();
    let map = demo(temp.path(), &["--map", "/counter=/moved", "--map", "/last=/counter"]).map;
    assert_eq!(revisions(&map, &["--key", "/counter"]), [(49, 0), (51, 0)]);
    assert_eq!(revisions(&map, &["--key", "/moved"]), [(49, 0)]);
    assert_eq!(revisions(&map, &["--key", "/last"]), [(51, 0)]);
}

#[test]
fn a_missing_item_is_status_4_and_no_guess() {
    let temp = scratch::temp();
    let map = demo(temp.path(), &["--revisions", "dense"]).map;
    for (query, words) in [
        (["--v2-index", "50"], "it has changed since"),
        (["--v2-index", "52"], "ends at v2 index 51"),
        (["--revision", "1"], "no pair of the output"),
        (["--revision", "21"], "after the output"),
        (["--key", "/config"], "no pair of the output has the v3 or v2 name /config"),
    ] {
        let output = ask(&map, &query);
        assert_eq!((output.status, output.stderr.lines().count()), (4, 1), "{}", output.story());
        let answer = output.json();
        assert_eq!((&answer["found"], &answer["map"]["revision"]), (&json!([]), &json!(20)));
        let note = answer["note"].as_str().unwrap();
        assert!(
            note.contains(words)
                && note.ends_with("later v3 writes follow revision 20; revisions before 20 are compacted")
        );
        assert!(output.stderr.contains(note), "{}", output.story());
    }
}

#[test]
fn foreign_databases_are_refused() {
    let temp = scratch::temp();
    let converted = demo(temp.path(), &[]);
    let other = temp.path().join("other.redb");
    let database = redb::Database::create(&other).unwrap();
    let transaction = database.begin_write().unwrap();
    let table: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");
    transaction.open_table(table).unwrap().insert("schema", "2").unwrap();
    transaction.commit().unwrap();
    drop(database);
    let exported = temp.path().join("export.redb");
    etcdlift(["export", DEMO, "-o", exported.to_str().unwrap(), "--format", "redb"]).success();
    fs::write(temp.path().join("empty"), "").unwrap();
    for (file, words) in [
        (temp.path().join("missing"), "no such file or directory"),
        (temp.path().join("empty"), "found a file that is not a redb file"),
        (converted.out, "found a file that is not a redb file"),
        (other, "other tables"),
        (exported, "other tables"),
    ] {
        let output = ask(&file, &["--key", "/a"]);
        assert_eq!((output.status, output.stderr.lines().count()), (5, 1), "{}", output.story());
        assert!(output.stderr.contains(words) && output.stdout.is_empty(), "{}", output.story());
        assert_eq!(lookup(&file, &Query::Revision(3)).unwrap_err().reason(), Reason::NotIndexMap);
    }
    for query in [&[][..], &["--key", "/a", "--revision", "3"], &["--v2-index", "x"], &["--key-base64", "-"]] {
        assert_eq!(ask(&converted.map, query).status, 2, "{query:?}");
    }
}

#[test]
fn a_damaged_map_never_panics_and_never_lies() {
    let temp = scratch::temp();
    let map = demo(temp.path(), &["--map", "/config=/c"]).map;
    let sound = fs::read(&map).unwrap();
    let damaged = temp.path().join("damaged.redb");
    let queries = [Query::V2Index(49), Query::Revision(13), Query::Key(b"/config/empty".to_vec())];
    let answers = queries.each_ref().map(|query| lookup(&map, query).unwrap());
    let mut found = 0;
    let mut try_it = |bytes: &[u8], what: &str| {
        fs::write(&damaged, bytes).unwrap();
        for (query, answer) in queries.iter().zip(&answers) {
            match lookup(&damaged, query) {
                // Pages that nothing refers to may hold anything.
                Ok(other) => assert_eq!(other, *answer, "{what}"),
                Err(e) => {
                    found += 1;
                    assert!(matches!(e.reason(), Reason::Damaged | Reason::NotIndexMap), "{what}: {e:?}");
                    assert!(!e.message().contains("its own library cannot read"), "{what}: a panic");
                    assert_eq!(e.file(), Some(&*damaged), "{what}");
                }
            }
            assert!(fs::read(&damaged).unwrap() == bytes, "{what}: a lookup changed the file");
        }
    };
    for at in (0..400).chain((400..sound.len()).step_by(53)) {
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << (at % 8);
        try_it(&bytes, &format!("byte {at}"));
    }
    for len in (0..sound.len()).step_by(1021) {
        try_it(&sound[..len], &format!("{len} bytes"));
    }
    for page in 0..sound.len() / 4096 {
        let mut bytes = sound.clone();
        bytes[page * 4096 + 16..][..4080].fill(0xa5);
        try_it(&bytes, &format!("page {page} overwritten"));
    }
    let mut random = sound[..9].to_vec();
    random.extend((0..50_000u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8));
    try_it(&random, "random bytes");
    assert!(found > 500, "only {found} were noticed");
    let output = ask(&damaged, &["--key", "/a"]);
    assert_eq!((output.status, output.stderr.lines().count()), (3, 2), "{}", output.story());
    assert!(output.stderr.contains("write it again with `convert`"), "{}", output.story());
}

#[test]
fn it_appears_with_the_output_or_not_at_all() {
    let temp = scratch::temp();
    let folder = temp.path().join("a");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("map.redb"), "mine").unwrap();
    let options = ["--as-of", AS_OF];
    let found = convert(&folder, Path::new(DEMO), &options);
    assert_eq!(found.output.status, 5, "{}", found.output.story());
    assert!(found.output.stderr.contains("map.redb: the index map exists"), "{}", found.output.story());
    let overwrite = [&options[..], &["--overwrite"]].concat();
    let found = convert(&folder, Path::new(DEMO), &overwrite);
    assert_eq!(found.output.status, 5, "{}", found.output.story());
    assert!(found.output.stderr.contains("map.redb: the file is no index map"), "{}", found.output.story());
    assert_eq!(fs::read(&found.map).unwrap(), b"mine");
    fs::remove_file(&found.map).unwrap();
    let include = [&overwrite[..], &["--include", "/counter"]].concat();
    for options in [include, overwrite] {
        let found = convert(&folder, Path::new(DEMO), &options);
        assert_eq!(found.output.status, 0, "{}", found.output.story());
    }
    assert_eq!(revisions(&found.map, &["--key", "/last"]), [(51, 0)]);
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(&found.map).unwrap().permissions().mode() & 0o777, 0o600);
    // A dry run makes none: it would belong to a file that does not exist.
    let dry = convert(&temp.path().join("b"), Path::new(DEMO), &[&options[..], &["--dry-run"]].concat());
    assert_eq!((dry.output.status, dry.map.exists()), (0, false), "{}", dry.output.story());
    let none = convert(&temp.path().join("c"), Path::new(DEMO), &[&options[..], &["--include", "/none"]].concat());
    assert_eq!((none.output.status, fs::read_dir(temp.path().join("c")).unwrap().count()), (4, 0));
}

#[test]
fn corpus_directories_have_the_map_that_their_ledger_and_other_readers_tell_of() {
    let test = test_name!();
    let kinds = ["a", "b", "d", "e", "f", "h", "i", "p", "w", "x", "z2"];
    let (Some(peers), Some(scenarios)) = (peers::require(test), corpus::of_kinds(test, &kinds)) else { return };
    let (mut wrong, mut compared) = (Vec::new(), 0);
    for scenario in &scenarios {
        for data_dir in scenario.live() {
            for numbering in ["keep", "dense"] {
                let temp = scratch::temp();
                let wal_dir = scenario.truth.data_dirs[data_dir].wal_dir.as_ref().map(|dir| scenario.data_dir(dir));
                let mut options = vec!["--as-of", &scenario.truth.captured_at, "--auth", "ignore"];
                options.extend(["--revisions", numbering]);
                if let Some(wal_dir) = &wal_dir {
                    options.extend(["--wal-dir", wal_dir.to_str().unwrap()]);
                }
                let converted = convert(temp.path(), &scenario.data_dir(data_dir), &options);
                if !matches!(converted.output.status, 0 | 8) {
                    continue;
                }
                compared += 1;
                let tables = Tables::read(&converted.map);
                let mut differences = tables.belongs_to(&converted);
                let dump = Dump::of(&peers, &converted.out);
                let dumped: BTreeSet<_> = dump
                    .keys
                    .iter()
                    .map(|pair| (pair.main.cast_unsigned(), pair.sub.cast_unsigned(), pair.row.key.clone()))
                    .collect();
                let mapped: BTreeSet<_> = tables.rows.iter().map(|row| (row.0, row.1, row.2.clone())).collect();
                differences.extend(dumped.symmetric_difference(&mapped).take(5).map(|row| format!("{row:?}")));
                let place = format!("{}/{data_dir} {numbering}", scenario.name);
                wrong.extend(differences.into_iter().map(|what| format!("{place}: {what}")));
            }
        }
    }
    run::all_well(&wrong);
    assert!(compared >= corpus::at_least(30, 5), "only {compared} conversions were compared");
}
