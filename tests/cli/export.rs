//! `etcdlift export`: in each format, the export equals the content of the server; it appears whole or not at all.
//!
//! Each format is read here with code of its own. The sled tests run where the feature is on:
//! `cargo test --release --features sled --test cli export::`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::Value;

use crate::common::convert::{Inspected, convert, convert_to};
use crate::common::corpus::{self, Scenario};
use crate::common::dump::Dump;
use crate::common::etcdctl::Etcdctl;
use crate::common::peers::{self, Version};
use crate::common::rows::{self, Row};
use crate::common::run::{Output, all_well, etcdlift};
use crate::common::scratch;
use crate::common::server::{Boot, Server};
use crate::common::text::{bytes, lossy};
use crate::test_name;

const DEMO: &str = "fixtures/demo/input/default.etcd";
const AS_OF: &str = "2026-12-01T00:00:00Z";

/// Value (`None`: a directory), created and modified index, and when it expires.
type Node = (Option<Vec<u8>>, u64, u64, Option<(i64, u32)>);
type Nodes = BTreeMap<Vec<u8>, Node>;

fn export(source: &Path, out: &Path, options: &[&str]) -> Output {
    etcdlift([&["export", source.to_str().unwrap(), "-o", out.to_str().unwrap()], options].concat())
}

fn lines(text: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(text).unwrap();
    assert!(text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn instant(text: &str) -> (i64, u32) {
    let at: jiff::Timestamp = text.parse().unwrap();
    (at.as_second(), at.subsec_nanosecond().cast_unsigned())
}

fn nodes_of(text: &[u8]) -> Nodes {
    let mut nodes = Nodes::new();
    for line in lines(text) {
        let value = bytes(&line, "value");
        assert_eq!(value.is_none(), line["dir"] == true, "{line}");
        let number = |name: &str| line[name].as_u64().unwrap();
        let expiration = line["expiration"].as_str().map(instant);
        let node = (value, number("created_index"), number("modified_index"), expiration);
        assert_eq!(nodes.insert(bytes(&line, "key").unwrap(), node), None, "{line}: twice");
    }
    nodes
}

fn rows_of(text: &[u8]) -> Vec<Row> {
    let row = |line: &Value| {
        let number = |name: &str| line[name].as_i64().unwrap();
        Row {
            key: bytes(line, "key").unwrap(),
            value: bytes(line, "value").unwrap(),
            create: number("create_revision"),
            modified: number("mod_revision"),
            version: number("version"),
            lease: number("lease"),
        }
    };
    lines(text).iter().map(row).collect()
}

/// The records of a redb export, and what it says of itself.
fn table(path: &Path, name: &str) -> (BTreeMap<Vec<u8>, Vec<u8>>, BTreeMap<String, String>) {
    let records: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(name);
    let meta: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");
    let database = redb::ReadOnlyDatabase::open(path).unwrap();
    let transaction = database.begin_read().unwrap();
    let records = transaction.open_table(records).unwrap();
    let records = records.iter().unwrap().map(|row| row.unwrap());
    let meta = transaction.open_table(meta).unwrap();
    let meta = meta.iter().unwrap().map(|row| row.unwrap());
    (
        records.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())).collect(),
        meta.map(|(name, text)| (name.value().into(), text.value().into())).collect(),
    )
}

fn take<const N: usize>(record: &mut &[u8]) -> [u8; N] {
    let (bytes, rest) = record.split_first_chunk().unwrap();
    *record = rest;
    *bytes
}

fn node_of_record(mut record: &[u8]) -> Node {
    let [flags] = take(&mut record);
    let (created, modified) = (u64::from_be_bytes(take(&mut record)), u64::from_be_bytes(take(&mut record)));
    let expires = flags & 2 != 0;
    let expiration = expires.then(|| (i64::from_be_bytes(take(&mut record)), u32::from_be_bytes(take(&mut record))));
    assert!(flags & !3 == 0 && (flags & 1 == 0 || record.is_empty()));
    ((flags & 1 == 0).then(|| record.to_vec()), created, modified, expiration)
}

fn row_of_record(key: &[u8], mut record: &[u8]) -> Row {
    let [create, modified, version, lease] = [(); 4].map(|()| i64::from_be_bytes(take(&mut record)));
    Row { key: key.to_vec(), value: record.to_vec(), create, modified, version, lease }
}

/// What the demo's server showed.
fn demo_nodes() -> Nodes {
    let text = fs::read_to_string("fixtures/demo/expected/nodes.ndjson").unwrap();
    let node = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let value = line["value"].as_str().map(|value| value.as_bytes().to_vec());
        let (created, modified) = (line["created"].as_u64().unwrap(), line["modified"].as_u64().unwrap());
        let node = (value, created, modified, line["expiration"].as_str().map(instant));
        (line["key"].as_str().unwrap().as_bytes().to_vec(), node)
    };
    text.lines().map(node).collect()
}

#[test]
fn the_demo_is_what_its_server_showed() {
    let temp = scratch::temp();
    let (text, redb) = (temp.path().join("a.ndjson"), temp.path().join("a.redb"));
    let output = export(Path::new(DEMO), &text, &[]).success();
    assert!(output.stdout.is_empty());
    for words in ["19 keys at v2 index 51", "directories:  9", "read back and compared"] {
        assert!(output.stderr.contains(words), "{words}: {}", output.story());
    }
    let written = fs::read(&text).unwrap();
    assert_eq!(nodes_of(&written), demo_nodes());
    assert!(lines(&written).is_sorted_by_key(|line| bytes(line, "key").unwrap()));
    export(Path::new(DEMO), &redb, &["--format", "redb"]).success();
    let (records, meta) = table(&redb, "nodes");
    let records: Nodes = records.into_iter().map(|(key, record)| (key, node_of_record(&record))).collect();
    assert_eq!(records, demo_nodes());
    let meta: Vec<_> = meta.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(meta, [("etcdlift", version), ("kind", "v2"), ("records", "28"), ("schema", "1"), ("v2_index", "51")]);
    // Standard output has the same bytes.
    let printed = export(Path::new(DEMO), Path::new("-"), &[]).success();
    assert!(printed.stdout == written);
    for file in [&text, &redb] {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 2);
}

#[test]
fn an_export_is_whole_or_missing_and_never_in_the_source() {
    let temp = scratch::temp();
    let out = temp.path().join("out");
    fs::write(&out, "mine").unwrap();
    let refused = |status: i32, source: &str, out: &Path, options: &[&str], words: &str| {
        let output = export(Path::new(source), out, options);
        assert_eq!(output.status, status, "{}", output.story());
        // One line, and one more for a hint.
        let mut lines = output.stderr.lines();
        assert!(lines.next().is_some_and(|line| line.contains(words)), "{words}: {}", output.story());
        assert!(lines.all(|line| line.starts_with("hint: ")) && output.stdout.is_empty(), "{}", output.story());
    };
    for format in ["ndjson", "redb"] {
        refused(5, DEMO, &out, &["--format", format], "the output exists");
        assert_eq!(fs::read(&out).unwrap(), b"mine");
        export(Path::new(DEMO), &out, &["--format", format, "--overwrite"]).success();
        fs::write(&out, "mine").unwrap();
    }
    refused(5, DEMO, &Path::new(DEMO).join("x"), &[], "into the source");
    refused(2, DEMO, Path::new("-"), &["--format", "redb"], "standard output");
    refused(2, DEMO, &temp.path().join("x"), &["--wal-dir", "a", "--wal-dir", "b"], "--wal-dir");
    refused(6, DEMO, &temp.path().join("none/x"), &[], "none");
    refused(5, "missing", &temp.path().join("x"), &[], "missing");
    refused(5, "Cargo.toml", &temp.path().join("x"), &["--format", "redb"], "Cargo.toml");
    let snapshot = convert_to(Path::new(DEMO), &temp.path().join("c"), ["--as-of", AS_OF]).snapshot;
    refused(5, snapshot.to_str().unwrap(), &snapshot, &["--overwrite"], "into the source");
    let mut bytes = fs::read(&snapshot).unwrap();
    bytes[9000] ^= 1;
    let damaged = temp.path().join("damaged.db");
    fs::write(&damaged, bytes).unwrap();
    refused(3, damaged.to_str().unwrap(), &temp.path().join("x"), &[], "damaged.db: byte");
    let empty = temp.path().join("d");
    convert_to(Path::new(DEMO), &empty, ["--include", "/none", "--allow-empty"]).output.success();
    refused(4, empty.join("snapshot.db").to_str().unwrap(), &temp.path().join("x"), &[], "nothing to export");
    let left = fs::read_dir(temp.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut left: Vec<_> = left.collect();
    left.sort();
    assert_eq!(left, ["c", "d", "damaged.db", "out"]);
}

/// The keys of an export, directories among them.
fn keys(source: &Path, options: &[&str]) -> (Vec<String>, String) {
    let output = export(source, Path::new("-"), options).success();
    let keys = lines(&output.stdout).iter().map(|line| line["key"].as_str().unwrap().to_string()).collect();
    (keys, output.stderr)
}

#[test]
fn include_and_exclude_mean_what_they_mean_to_convert() {
    let temp = scratch::temp();
    let demo = Path::new(DEMO);
    let snapshot = convert_to(demo, &temp.path().join("all"), ["--as-of", AS_OF]).snapshot;
    let (all, _) = keys(&snapshot, &[]);
    for (at, options) in [
        &["--include", "/config"][..],
        &["--include", "/config", "--include", "/queue"],
        &["--include", "/config/"],
        &["--include", "/conf", "--include", "/last"],
        &["--exclude", "/services"],
        &["--exclude", "/services", "--include", "/services"],
        &["--include", "/services", "--exclude", "/services/web"],
        &["--exclude", "/services/web", "--include", "/services"],
        &["--exclude", "/none"],
    ]
    .into_iter()
    .enumerate()
    {
        let folder = temp.path().join(at.to_string());
        let convert = [&["--as-of", AS_OF, "--allow-empty"], options].concat();
        let converted = convert_to(demo, &folder, convert);
        let unused = |text: &str| text.lines().filter(|line| line.contains("a rule matched nothing")).count();
        if Inspected::of(&converted.snapshot).keys == 0 {
            for source in [demo, &snapshot] {
                let output = export(source, Path::new("-"), options);
                assert_eq!(output.status, 4, "{}", output.story());
                assert!(output.stderr.contains("--include and --exclude leave no key"), "{}", output.story());
            }
            continue;
        }
        let (expected, _) = keys(&converted.snapshot, &[]);
        assert!(!expected.is_empty() && expected.len() <= all.len());
        let (of_v3, said) = keys(&snapshot, options);
        assert_eq!(of_v3, expected, "{options:?}");
        assert_eq!(unused(&said), unused(&converted.output.stderr), "{options:?}: {said}");
        let (of_v2, said) = keys(demo, options);
        assert_eq!(unused(&said), unused(&converted.output.stderr), "{options:?}: {said}");
        let is_key = |key: &&String| expected.contains(key);
        assert_eq!(of_v2.iter().filter(is_key).count(), expected.len(), "{options:?}");
        // The rest are directories that the same rules take.
        let output = export(demo, Path::new("-"), options);
        let rest =
            lines(&output.stdout).into_iter().filter(|line| !is_key(&&line["key"].as_str().unwrap().to_string()));
        assert!(rest.into_iter().all(|line| line["dir"] == true), "{options:?}");
    }
    let (services, _) = keys(demo, &["--include", "/services", "--exclude", "/services/web"]);
    assert!(services.iter().all(|key| key.starts_with("/services")) && services.contains(&"/services/web".into()));
    let (others, _) = keys(demo, &["--exclude", "/services"]);
    assert!(others.len() > 9 && !others.iter().any(|key| key.starts_with("/services")));
}

/// What the directory's server showed; bytes that are no UTF-8 as it shows them.
fn truth(scenario: &Scenario, data_dir: &str) -> Nodes {
    let nodes = scenario.truth.nodes_of(data_dir).iter();
    let node = |node: &crate::common::truth::Node| {
        let value = (!node.dir).then(|| node.value.clone().unwrap_or_default().into_bytes());
        let expiration = node.expiration.as_deref().map(instant);
        (node.key.clone().into_bytes(), (value, node.created_index, node.modified_index, expiration))
    };
    nodes.map(node).collect()
}

fn shown(nodes: Nodes) -> Nodes {
    let lossy = |bytes: &[u8]| lossy(bytes).into_bytes();
    nodes
        .into_iter()
        .map(|(key, node)| (lossy(&key), (node.0.map(|value| lossy(&value)), node.1, node.2, node.3)))
        .collect()
}

fn differences(expected: &Nodes, found: &Nodes) -> Vec<String> {
    let differs = |(key, node): (&Vec<u8>, &Node)| {
        let other = found.get(key);
        (other != Some(node)).then(|| format!("{}: expected {node:?}, found {other:?}", key.escape_ascii()))
    };
    let mut wrong: Vec<String> = expected.iter().filter_map(differs).take(5).collect();
    wrong.extend(
        found.keys().filter(|key| !expected.contains_key(*key)).map(|key| format!("extra: {}", key.escape_ascii())),
    );
    wrong
}

#[test]
fn every_directory_is_what_its_server_showed() {
    let kinds = ["a", "b", "d", "e", "f", "g2", "g3", "gtorn", "h", "i", "p", "w", "x", "z2"];
    let Some(scenarios) = corpus::of_kinds(test_name!(), &kinds) else { return };
    let (mut wrong, mut compared, mut base64) = (Vec::new(), 0, 0);
    for scenario in &scenarios {
        for (data_dir, truth_of_dir) in &scenario.truth.data_dirs {
            let temp = scratch::temp();
            let (text, redb) = (temp.path().join("a.ndjson"), temp.path().join("a.redb"));
            let wal_dir = truth_of_dir.wal_dir.as_ref().map(|dir| scenario.data_dir(dir));
            let mut options = vec!["--allow-removed"];
            if let Some(wal_dir) = &wal_dir {
                options.extend(["--wal-dir", wal_dir.to_str().unwrap()]);
            }
            let source = scenario.data_dir(data_dir);
            let outputs = [
                export(&source, &text, &options),
                export(&source, &redb, &[&options[..], &["--format", "redb"]].concat()),
            ];
            let expected = truth(scenario, data_dir);
            let mut say = |what: String| wrong.push(format!("{}/{data_dir}: {what}", scenario.name));
            if outputs.iter().any(|output| !matches!(output.status, 0 | 8)) {
                if !expected.is_empty() || outputs.iter().any(|output| output.status != 4) {
                    say(outputs[0].story());
                }
                continue;
            }
            compared += 1;
            let written = fs::read(&text).unwrap();
            base64 += usize::from(String::from_utf8_lossy(&written).contains("_base64\":"));
            let nodes = nodes_of(&written);
            differences(&expected, &shown(nodes.clone())).into_iter().for_each(&mut say);
            let records: Nodes =
                table(&redb, "nodes").0.into_iter().map(|(key, record)| (key, node_of_record(&record))).collect();
            if records != nodes {
                say("the redb table is not the text".into());
            }
            let hashes = ["$2a$", "$2y$", "\"/2/", "\"/0/"];
            if let Some(found) = hashes.iter().find(|hash| String::from_utf8_lossy(&written).contains(**hash)) {
                say(format!("{found} stands in it"));
            }
        }
    }
    all_well(&wrong);
    assert!(
        compared > corpus::at_least(40, 5) && base64 > 0,
        "{compared} directories, {base64} with bytes that are no UTF-8"
    );
}

#[test]
fn a_converted_snapshot_holds_what_other_readers_find_in_it() {
    let test = test_name!();
    let (Some(peers), Some(scenarios)) = (peers::require(test), corpus::of_kinds(test, &["a", "b", "h", "p", "z2"]))
    else {
        return;
    };
    let (mut wrong, mut compared) = (Vec::new(), 0);
    for scenario in &scenarios {
        for data_dir in scenario.live() {
            let converted = convert(scenario, data_dir);
            if !converted.snapshot.exists() {
                continue;
            }
            compared += 1;
            let temp = scratch::temp();
            wrong.extend(against_dump(&peers, &converted.snapshot, temp.path()));
        }
    }
    all_well(&wrong);
    assert!(compared >= corpus::at_least(10, 2), "only {compared} snapshots were compared");
}

/// Both formats of an export of a file without deletions, against the rows of the dump.
fn against_dump(peers: &peers::Peers, file: &Path, folder: &Path) -> Vec<String> {
    let (text, redb) = (folder.join("v3.ndjson"), folder.join("v3.redb"));
    export(file, &text, &[]).success();
    export(file, &redb, &["--format", "redb"]).success();
    let expected = Dump::of(peers, file).rows();
    let found = rows_of(&fs::read(&text).unwrap());
    let mut wrong = rows::differences(&expected, &found);
    let (records, meta) = table(&redb, "pairs");
    let records: Vec<Row> = records.iter().map(|(key, record)| row_of_record(key, record)).collect();
    if records != found || meta["kind"] != "v3" || meta["records"] != found.len().to_string() {
        wrong.push(format!("{}: the redb table is not the text", file.display()));
    }
    wrong
}

#[test]
fn the_demo_converted_holds_what_other_readers_find_in_it() {
    let Some(peers) = peers::require(test_name!()) else { return };
    let temp = scratch::temp();
    for to in ["snapshot", "backend"] {
        let folder = temp.path().join(to);
        let converted = convert_to(Path::new(DEMO), &folder, ["--as-of", AS_OF, "--to", to]);
        converted.output.success();
        all_well(&against_dump(&peers, &converted.snapshot, &folder));
    }
}

#[test]
fn the_live_keys_of_a_real_v3_store_are_exported() {
    let Some(peers) = peers::require(test_name!()) else { return };
    let temp = scratch::temp();
    let data_dir = temp.path().join("data");
    let server = Server::start(&Boot::new(&peers, Version::V3_5, &data_dir));
    let ctl = Etcdctl::new(&peers, &server);
    for n in 0..20 {
        ctl.put(&format!("/k{}", n % 7), &"v".repeat(n * 100));
    }
    ctl.del("/k3");
    ctl.compaction(10);
    ctl.put_with_new_lease("/leased", "x", 600);
    ctl.put("/again", "1");
    ctl.del("/again");
    ctl.put("/again", "2");
    ctl.add_user("root", "secret");
    let (expected, revision) = ctl.all();
    let saved = temp.path().join("saved.db");
    ctl.save(&saved);
    let live = export(&data_dir.join("member/snap/db"), &temp.path().join("live"), &[]);
    assert_eq!(live.status, 5, "etcd is running on it: {}", live.story());
    // It writes to its file ten times a second.
    std::thread::sleep(std::time::Duration::from_secs(1));
    let out = temp.path().join("live.ndjson");
    let live = export(&data_dir.join("member/snap/db"), &out, &["--allow-live"]).success();
    let warning = format!(
        "warning: an etcd is running on the file: the output has its state at revision {revision}, and no later writes"
    );
    assert!(live.stderr.contains(&warning), "{}", live.story());
    all_well(&rows::differences(&expected, &rows_of(&fs::read(&out).unwrap())));
    server.stop();
    for (at, source) in [saved, data_dir.join("member/snap/db"), data_dir].into_iter().enumerate() {
        let out: PathBuf = temp.path().join(format!("{at}.ndjson"));
        let output = export(&source, &out, &[]);
        if at == 2 && output.status != 0 {
            // A directory is a v2 source by its WAL, and this one holds no v2 key.
            assert_eq!(output.status, 4, "{}", output.story());
            continue;
        }
        assert!(
            output.stderr.contains(&format!("{} keys at revision {revision}", expected.len())),
            "{}",
            output.story()
        );
        let text = fs::read(&out).unwrap();
        all_well(&rows::differences(&expected, &rows_of(&text)));
        assert!(!String::from_utf8(text).unwrap().contains("root"));
    }
}

#[cfg(not(feature = "sled"))]
#[test]
fn without_the_feature_sled_is_refused_by_name() {
    let temp = scratch::temp();
    let output = export(Path::new(DEMO), &temp.path().join("out"), &["--format", "sled"]);
    assert_eq!((output.status, output.stderr.lines().count()), (2, 2), "{}", output.story());
    assert!(output.stderr.contains("--features sled"), "{}", output.story());
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
}

#[cfg(feature = "sled")]
mod sled_dir {
    use super::*;

    fn tree(path: &Path, name: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let database = sled::open(path).unwrap();
        let rows = database.open_tree(name).unwrap().iter().map(|row| row.unwrap());
        rows.map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
    }

    fn decode<T: bincode::Decode<()>>(record: &[u8]) -> T {
        let (decoded, len) = bincode::decode_from_slice(record, bincode::config::standard()).unwrap();
        assert_eq!(len, record.len());
        decoded
    }

    #[test]
    fn a_sled_database_holds_what_the_text_holds() {
        let temp = scratch::temp();
        let out = temp.path().join("nodes.sled");
        export(Path::new(DEMO), &out, &["--format", "sled"]).success();
        assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o700);
        for entry in fs::read_dir(&out).unwrap().map(|entry| entry.unwrap()) {
            let expected = if entry.file_type().unwrap().is_dir() { 0o700 } else { 0o600 };
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, expected, "{entry:?}");
        }
        let meta = tree(&out, "meta");
        assert_eq!((&meta[&b"kind"[..]][..], &meta[&b"v2_index"[..]][..]), (&b"v2"[..], &b"51"[..]));
        let node = |(key, record): (Vec<u8>, Vec<u8>)| {
            let (dir, created, modified, expiration, value): (bool, u64, u64, Option<(i64, u32)>, Vec<u8>) =
                decode(&record);
            (key, ((!dir).then_some(value), created, modified, expiration))
        };
        assert_eq!(tree(&out, "nodes").into_iter().map(node).collect::<Nodes>(), demo_nodes());

        let folder = temp.path().join("v3");
        let snapshot = convert_to(Path::new(DEMO), &folder, ["--as-of", AS_OF]).snapshot;
        let (text, pairs) = (folder.join("v3.ndjson"), folder.join("v3.sled"));
        export(&snapshot, &text, &[]).success();
        export(&snapshot, &pairs, &["--format", "sled"]).success();
        let row = |(key, record): (Vec<u8>, Vec<u8>)| {
            let (create, modified, version, lease, value): (i64, i64, i64, i64, Vec<u8>) = decode(&record);
            Row { key, value, create, modified, version, lease }
        };
        let found: Vec<Row> = tree(&pairs, "pairs").into_iter().map(row).collect();
        assert_eq!(found, rows_of(&fs::read(&text).unwrap()));
    }

    #[test]
    fn a_directory_with_something_in_it_is_left_alone() {
        let temp = scratch::temp();
        let out = temp.path().join("out");
        fs::create_dir(&out).unwrap();
        fs::write(out.join("mine"), "").unwrap();
        let output = export(Path::new(DEMO), &out, &["--format", "sled", "--overwrite"]);
        assert_eq!((output.status, output.stderr.lines().count()), (5, 2), "{}", output.story());
        assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
        fs::remove_file(out.join("mine")).unwrap();
        export(Path::new(DEMO), &out, &["--format", "sled"]).success();
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
    }
}
