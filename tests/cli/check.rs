//! `etcdlift check`: the verdict, the blockers and the leftovers of real directories with v2 and v3 data, and of generated ones
//! with one kind of v2 content in one place.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde_json::Value;

use crate::common::golden::golden;
use crate::common::run::{Output, all_well, etcdlift, read_json};
use crate::common::{corpus, scratch, upgrade, v2files};
use crate::test_name;

const FIXTURE: &str = "fixtures/upgrade-check/input/default.etcd";

fn check(sources: &[&Path], options: &[&str]) -> Output {
    let sources = sources.iter().map(|path| path.as_os_str());
    etcdlift(std::iter::once("check".as_ref()).chain(sources).chain(options.iter().map(AsRef::as_ref)))
}

/// Checks one source with an exit status that its JSON repeats, and returns what the JSON says of it.
fn one(source: &Path, options: &[&str]) -> (i32, Value) {
    let before = scratch::fingerprint(source);
    let output = check(&[source], &[options, &["--json"]].concat());
    assert_eq!(before, scratch::fingerprint(source), "the source was changed");
    let json = output.json();
    let only = &json["sources"][0];
    assert_eq!(json["exit_status"], output.status, "{}", output.story());
    assert_eq!((&json["verdict"], &json["exit_status"]), (&only["verdict"], &only["exit_status"]));
    (output.status, only.clone())
}

fn list<'v>(value: &'v Value, path: &str) -> &'v Vec<Value> {
    value.pointer(path).and_then(Value::as_array).unwrap_or_else(|| panic!("no {path} in {value:#}"))
}

fn says(output: &Output, words: &[&str]) {
    let text = format!("{} {}", output.text(), output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    for word in words {
        assert!(text.contains(word), "{word}: {}", output.story());
    }
}

#[test]
fn the_fixture_as_text_and_json() {
    for version in ["3.6", "3.7"] {
        let options = ["--target-version", version];
        let text = check(&[Path::new(FIXTURE)], &options);
        assert_eq!(text.status, 7, "{}", text.story());
        let nodes = if version == "3.6" { 5 } else { 0 };
        let counts = format!("{nodes} v2 nodes in the snapshot, 3 v2 requests in the log");
        assert_eq!(text.stderr, format!("etcdlift: error: {FIXTURE}: etcd {version} does not start: {counts}\n"));
        golden(format!("fixtures/upgrade-check/expected/check-{version}.txt"), &text.stdout);
        let json = check(&[Path::new(FIXTURE)], &[&options[..], &["-w", "json"]].concat());
        golden(format!("fixtures/upgrade-check/expected/check-{version}.json"), &json.stdout);
        let quiet = check(&[Path::new(FIXTURE)], &[&options[..], &["--quiet"]].concat());
        assert_eq!(text.text().lines().next(), quiet.text().strip_suffix('\n'));
    }
}

/// What the truth of corpus-mixed says of one data directory, in the words of `check`.
struct Truth<'t>(&'t Value);

impl Truth<'_> {
    fn compare(&self, found: &Value, wrong: &mut Vec<String>) {
        let truth = &self.0["after_stop"];
        let mut equal = |what: &str, found: Value, expected: Value| {
            if found != expected {
                wrong.push(format!("{what}: expected {expected}, found {found}"));
            }
        };
        equal("verdict", found["verdict"].clone(), truth["verdict"].clone());
        let name = |path: &Value| path.as_str().map(|path| path.rsplit('/').next().unwrap().to_string());
        equal("snapshot", name(&found["snapshot"]["path"]).into(), truth["chosen_snapshot"].clone());
        let (nodes, unseen) = (list(found, "/blockers/nodes"), list(found, "/leftovers/nodes"));
        let of = |kind: &str, nodes: &[Value]| nodes.iter().filter(|node| node["kind"] == kind).count() as u64;
        for snapshot in truth["snapshots_newest_first"].as_array().unwrap() {
            let keys = |which: &str| snapshot["user_nodes"][which].as_u64().unwrap();
            if snapshot["file"] == truth["chosen_snapshot"] {
                equal("content", (!nodes.is_empty()).into(), truth["snap_custom_content"].clone());
                equal("keys", of("key", nodes).into(), keys("visible_keys").into());
                equal("hidden keys", of("key", unseen).into(), keys("hidden_keys").into());
                let older = !nodes.is_empty() || found.get("refused_before_3_6_3").is_some();
                equal("older releases", older.into(), snapshot["custom_content_rule_before_3_5_22"].clone());
                continue;
            }
            let files = list(found, "/leftovers/snapshots");
            let file = files.iter().find(|file| name(&file["path"]).as_deref() == snapshot["file"].as_str());
            let found = file.map_or(0, |file| file["nodes"]["key"].as_u64().unwrap_or(0));
            equal("keys in older snapshots", found.into(), (keys("visible_keys") + keys("hidden_keys")).into());
        }
        self.compare_requests(found, &mut equal);
    }

    fn compare_requests(&self, found: &Value, equal: &mut impl FnMut(&str, Value, Value)) {
        let entries = list(found, "/blockers/entries");
        let truth = &self.0["after_stop"]["wal"]["v2_requests_after_snapshot"];
        equal("requests", entries.len().into(), truth["disallowed"].clone());
        equal("membership", found["membership_requests"].clone(), truth["membership_only_allowed"].clone());
        let open = entries.iter().filter(|entry| entry["committed"] == false).count();
        equal("above the commit index", open.into(), truth["disallowed_above_commit"].clone());
        let end = |entry: Option<&Value>| entry.map_or(Value::Null, |entry| entry["raft_index"].clone());
        equal("first request", end(entries.first()), truth["first_disallowed_index"].clone());
        equal("last request", end(entries.last()), truth["last_disallowed_index"].clone());
        let mut methods: BTreeMap<&str, u64> = BTreeMap::new();
        let mut paths: BTreeMap<String, u64> = BTreeMap::new();
        for entry in entries {
            let (method, path) = (entry["method"].as_str().unwrap(), entry["path"].as_str().unwrap());
            *methods.entry(method).or_default() += 1;
            // The truth counts by the first component of the key.
            let path = path.split('/').take(3).collect::<Vec<_>>().join("/");
            let path = if path.is_empty() { "(empty path)".to_string() } else { path };
            *paths.entry(format!("{method} {path}")).or_default() += 1;
        }
        equal("methods", serde_json::to_value(methods).unwrap(), truth["disallowed_by_method"].clone());
        // The truth lists at most 20 paths.
        let known = truth["paths"].as_object().unwrap();
        let listed = paths.iter().filter(|(path, _)| known.contains_key(*path)).map(|(path, count)| (path, *count));
        equal("paths", serde_json::to_value(listed.collect::<BTreeMap<_, _>>()).unwrap(), truth["paths"].clone());
    }
}

/// In a directory without v2 requests after its snapshot, the nodes in it are those that the API showed.
fn compare_nodes(truth: &Value, found: &Value, wrong: &mut Vec<String>) {
    let of = |nodes: &[Value], name: &str| {
        let index = |node: &Value, name: &str| node[name].as_u64().unwrap();
        let (created, modified) =
            if name == "key" { ("createdIndex", "modifiedIndex") } else { ("created_index", "modified_index") };
        let lines = nodes.iter().filter(|node| node["dir"] != true && node["kind"] != "empty-directory");
        lines
            .map(|node| {
                let path = node[name].as_str().unwrap();
                let path = path.strip_prefix("/1").filter(|_| name == "path").unwrap_or(path);
                (path.to_string(), index(node, created), index(node, modified))
            })
            .collect::<BTreeSet<_>>()
    };
    let nodes = [list(found, "/blockers/nodes").clone(), list(found, "/leftovers/nodes").clone()].concat();
    let (found, expected) = (of(&nodes, "path"), of(list(truth, "/v2/nodes"), "key"));
    if found != expected {
        wrong.push(format!("nodes: expected {expected:?}, found {found:?}"));
    }
}

#[test]
fn the_verdict_and_the_blockers_of_every_real_directory() {
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for name in corpus::MIXED {
        let Some(dir) = corpus::mixed(test_name!(), name) else { return };
        let truth = read_json(&dir.join("truth.json"));
        for (member, of_member) in truth["data_dirs"].as_object().unwrap() {
            let wal_dir = of_member["wal_dir"].as_str().map(|wal| dir.join(wal).display().to_string());
            let options = wal_dir.iter().flat_map(|wal| ["--wal-dir", wal.as_str()]).collect::<Vec<_>>();
            let (status, found) = one(&dir.join(member), &options);
            let mut of_this = Vec::new();
            Truth(of_member).compare(&found, &mut of_this);
            let is_blocked = of_member["after_stop"]["blocks_3_6"] == true;
            let loses = ["v3.5.16-m6"].contains(&name);
            let expected = if is_blocked {
                7
            } else if loses {
                8
            } else {
                0
            };
            if status != expected {
                of_this.push(format!("expected exit status {expected}, found {status}"));
            }
            // The TTLs of the others ran while the truth was read, or v2 requests changed the nodes.
            if ["v3.5.16-m3", "v3.5.16-m6", "v3.5.16-m8"].contains(&name) {
                compare_nodes(&truth, &found, &mut of_this);
            }
            wrong.extend(of_this.iter().map(|line| format!("{name} {member}: {line}")));
            checked += 1;
        }
        fs::remove_dir_all(dir).unwrap();
    }
    assert_eq!(checked, 22);
    all_well(&wrong);
}

#[test]
fn every_kind_of_content_in_every_place() {
    let mut wrong = Vec::new();
    for case in upgrade::cases() {
        let temp = scratch::temp();
        let source = temp.path().join("m.etcd");
        upgrade::write(&source, &case);
        for (version, expected) in ["3.6", "3.7"].into_iter().zip(case.expect) {
            let (status, found) = one(&source, &["--target-version", version]);
            let count = |path: &str| list(&found, path).len();
            let counts = [count("/blockers/nodes"), count("/blockers/entries"), count("/leftovers/nodes")];
            let verdict = found["verdict"].as_str().unwrap();
            if (verdict, status, counts) != (expected.verdict, expected.status, expected.counts) {
                wrong.push(format!("{} on {version}: {verdict} {status} {counts:?}, not {expected:?}", case.name));
            }
            let losses = list(&found, "/losses");
            if !losses.is_empty() {
                wrong.push(format!("{} on {version}: {losses:?}", case.name));
            }
        }
    }
    all_well(&wrong);
}

/// The data directory of a generated case.
fn generated(at: &Path, name: &str) -> PathBuf {
    let source = at.join(name.replace(' ', "-"));
    let case = upgrade::cases().into_iter().find(|case| case.name == name);
    upgrade::write(&source, &case.unwrap_or_else(|| panic!("no case {name}")));
    source
}

#[test]
fn leftovers_name_the_files_that_are_not_read() {
    let temp = scratch::temp();
    for (place, word) in
        [("an older snapshot", "older"), ("a snapshot without a record", "no-record"), ("a .broken file", "broken")]
    {
        let source = generated(temp.path(), &format!("a user in {place}"));
        let (_, found) = one(&source, &[]);
        let [file] = &list(&found, "/leftovers/snapshots")[..] else { panic!("{found:#}") };
        assert_eq!((&file["not_read"], &file["nodes"]["user"]), (&word.into(), &1.into()), "{found:#}");
    }
    let source = generated(temp.path(), "a key in an older snapshot");
    fs::write(source.join("member/snap/0000000000000002-000000000000002d.snap"), "x").unwrap();
    fs::write(source.join("member/wal/0000000000000000-0000000000000000.wal.broken"), "x").unwrap();
    let (status, found) = one(&source, &[]);
    assert_eq!(status, 0);
    let files = list(&found, "/leftovers/snapshots");
    assert_eq!((&files[0]["not_read"], &files[1]["not_read"]), (&"damaged".into(), &"older".into()), "{found:#}");
    assert!(files[0]["error"].as_str().unwrap().contains("byte "), "{found:#}");
    assert_eq!(list(&found, "/leftovers/broken_segments").len(), 1);
}

#[test]
fn requests_that_are_not_committed_are_marked() {
    let temp = scratch::temp();
    for (name, committed) in [("PUT above the commit index", false), ("PUT not applied", true)] {
        let source = generated(temp.path(), name);
        let (_, found) = one(&source, &[]);
        let entry = &list(&found, "/blockers/entries")[0];
        assert_eq!(
            (&entry["committed"], &entry["raft_index"], &entry["term"]),
            (&committed.into(), &45.into(), &2.into())
        );
        assert_eq!((&entry["method"], &entry["path"]), (&"PUT".into(), &"/1/a".into()));
        let open = "1 request is above the commit index; they count once the cluster commits them";
        assert_eq!(
            check(&[&source], &[]).text().split_whitespace().collect::<Vec<_>>().join(" ").contains(open),
            !committed
        );
    }
}

#[test]
fn each_source_is_judged_by_itself_and_the_worst_counts() {
    let temp = scratch::temp();
    let clean = generated(temp.path(), "nothing in the snapshot");
    let blocked = generated(temp.path(), "a key in the snapshot");
    let losing = generated(temp.path(), "a hidden key in the snapshot");
    let v2_only = Path::new("fixtures/members/m0.etcd");
    let missing = temp.path().join("missing");
    for (sources, status, verdict, result) in [
        (vec![&*clean, &*clean], 0, "clean", "CLEAN, exit status 0: no v2 content stops etcd 3.6 on all 2 sources"),
        (vec![&clean, &losing], 8, "clean", "DATA LOSS, exit status 8: etcd 3.6 starts without the v2 data of"),
        (vec![&losing, &blocked, v2_only], 7, "snapshot", "BLOCKED, exit status 7: etcd 3.6 does not start on"),
        (vec![&losing, v2_only], 5, "unknown", "NOT CHECKED, exit status 5: fixtures/members/m0.etcd"),
        (vec![&clean, &missing], 5, "unknown", "NOT CHECKED, exit status 5:"),
    ] {
        let text = check(&sources, &[]);
        assert_eq!(text.status, status, "{}", text.story());
        assert!(text.text().starts_with(result), "{}", text.story());
        let json = check(&sources, &["--json"]).json();
        assert_eq!((&json["verdict"], &json["exit_status"]), (&verdict.into(), &status.into()));
        assert_eq!(list(&json, "/sources").len(), sources.len());
    }
}

#[test]
fn what_no_etcd_starts_on_is_refused() {
    let temp = scratch::temp();
    let source = generated(temp.path(), "a key in the snapshot");
    let snap = source.join("member/snap/0000000000000002-0000000000000028.snap");
    let db = source.join("member/snap/db");
    for (path, options, status, words) in [
        (Path::new("fixtures/members/m0.etcd"), &[][..], 5, "found no v3 backend"),
        (Path::new("fixtures/members/m0.etcd"), &[], 5, "hint: `etcdlift convert` makes a v3 database of v2 data"),
        (&snap, &[], 5, "expected the data directory of a member with its log"),
        (&db, &[], 5, "expected the data directory of a member with its log"),
        (&source, &["--wal-dir", "none"], 5, "expected the data directory of a member with its log"),
        (&source, &["--wal-dir", "a", "--wal-dir", "b"], 2, "--wal-dir is given 2 times for 1 source"),
        (&source, &["--target-version", "3.5"], 2, "invalid value '3.5'"),
    ] {
        let output = check(&[path], options);
        assert_eq!(output.status, status, "{}", output.story());
        says(&output, &[words]);
    }
    let segment = File::open(source.join("member/wal/0000000000000000-0000000000000000.wal")).unwrap();
    let held = Flock::lock(segment, FlockArg::LockExclusiveNonblock).unwrap();
    let output = check(&[&source], &[]);
    assert_eq!(output.status, 5, "{}", output.story());
    says(&output, &["an etcd is running on it", "hint: stop that etcd, check a copy, or use --allow-live"]);
    let live = check(&[&source], &["--allow-live"]);
    assert_eq!(live.status, 7, "{}", live.story());
    says(&live, &["what it writes from now on is not checked [live]"]);
    held.unlock().unwrap();
    fs::rename(source.join("member/wal"), temp.path().join("wal")).unwrap();
    let output = check(&[&source], &[]);
    assert_eq!(output.status, 5, "{}", output.story());
    says(&output, &["found .snap files but no WAL", "hint: give --wal-dir DIR"]);
    let wal = temp.path().join("wal");
    assert_eq!(check(&[&source], &["--wal-dir", wal.to_str().unwrap()]).status, 7);
    fs::rename(wal, source.join("member/wal")).unwrap();
    // A backend of 0 bytes is none. The log can show that there was one.
    fs::write(&db, "").unwrap();
    assert_eq!(check(&[&source], &[]).status, 5);
    let mixed = temp.path().join("mixed");
    scratch::copy_tree(Path::new("fixtures/upgrade-check/input/default.etcd"), &mixed);
    fs::write(mixed.join("member/snap/db"), "").unwrap();
    let output = check(&[&mixed], &[]);
    assert_eq!(output.status, 5, "{}", output.story());
    says(&output, &["but v3 requests in the log", "hint: copy the whole data directory"]);
    fs::write(&db, "no database").unwrap();
    let output = check(&[&source], &[]);
    assert_eq!(output.status, 5, "{}", output.story());
}

#[test]
fn a_copy_that_may_lack_its_end_is_uncertain() {
    let temp = scratch::temp();
    let source = generated(temp.path(), "nothing in the snapshot");
    let segment = source.join("member/wal/0000000000000000-0000000000000000.wal");
    fs::File::options().write(true).open(&segment).unwrap().set_len(32_000_000).unwrap();
    let output = check(&[&source], &[]);
    assert_eq!(output.status, 8, "{}", output.story());
    says(&output, &["UNCERTAIN, exit status 8: possibly incomplete", "the copy is probably truncated"]);
    // A blocker is certain.
    let source = generated(temp.path(), "a key in the snapshot");
    let segment = source.join("member/wal/0000000000000000-0000000000000000.wal");
    fs::File::options().write(true).open(&segment).unwrap().set_len(32_000_000).unwrap();
    assert_eq!(check(&[&source], &[]).status, 7);
    // Damage in the log hides requests. etcd reads all of it, also what is before the snapshot.
    for record in [2, 7] {
        let source = generated(temp.path(), "a key in the snapshot");
        let segment = source.join("member/wal/0000000000000000-0000000000000000.wal");
        scratch::edit(&segment, |bytes| {
            let range = v2files::frames(bytes)[record].1.clone();
            bytes[range.end - 1] ^= 1;
        });
        let output = check(&[&source], &[]);
        assert_eq!(output.status, 3, "{}", output.story());
        says(&output, &["wal: byte ", "hint: take another copy while etcd is stopped"]);
    }
}

#[test]
fn a_later_version_is_a_blocker() {
    let mut wrong = Vec::new();
    for versioned in upgrade::VERSIONED {
        for (version, starts) in ["3.6", "3.7"].into_iter().zip(versioned.starts) {
            let temp = scratch::temp();
            let source = temp.path().join("source");
            upgrade::write_versioned(&source, &versioned);
            let (status, found) = one(&source, &["--target-version", version]);
            let expected = if starts { (0, "clean") } else { (7, "later-version") };
            if (status, found["verdict"].as_str().unwrap()) != expected {
                wrong.push(format!("{versioned:?} for {version}: {found:#}"));
            }
            assert!(list(&found, "/next_steps").is_empty());
            let copy = temp.path().join("copy");
            let args = ["clean", source.to_str().unwrap(), "-o", copy.to_str().unwrap(), "--target-version", version];
            let cleaned = etcdlift(args);
            if (cleaned.status, copy.exists()) != (if starts { 0 } else { 5 }, starts) {
                wrong.push(format!("{versioned:?} for {version}: {}", cleaned.story()));
            }
        }
    }
    all_well(&wrong);
    let temp = scratch::temp();
    let source = temp.path().join("source");
    upgrade::write_versioned(&source, &upgrade::VERSIONED[0]);
    let output = check(&[&source, Path::new(FIXTURE)], &[]);
    assert_eq!(output.status, 7, "{}", output.story());
    says(
        &output,
        &[
            "BLOCKED, exit status 7: etcd 3.6 does not start on",
            "later version: the cluster version is 3.7.0: etcd 3.6 refuses, \"invalid downgrade; server version is lower",
            "etcd 3.6 does not start: the cluster version is 3.7.0",
        ],
    );
    assert_eq!(check(&[&source, Path::new(FIXTURE)], &["--json"]).json()["verdict"], "later-version");
    let copy = temp.path().join("copy");
    let output = etcdlift(["clean", source.to_str().unwrap(), "-o", copy.to_str().unwrap()]);
    says(
        &output,
        &[
            "the cluster version is 3.7.0, so etcd 3.6 does not start on a copy",
            "hint: give --target-version 3.7, or downgrade the cluster first",
        ],
    );
}
