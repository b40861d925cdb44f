//! The ledger: every node of every directory has its line, the lines add up to the totals of the report, and what they
//! say of the output is so. And a writer that loses a pair is noticed, by each check on its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use etcdlift::error::Reason;
use etcdlift::internals::pipeline::{Fault, convert_with};
use etcdlift::options::ConvertOptions;
use etcdlift::report::Report;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::common::corpus::{self, Scenario};
use crate::common::dump::Dump;
use crate::common::run::{self, all_well};
use crate::common::text::bytes;
use crate::common::{peers, rows, scratch};
use crate::test_name;

const ALL: [&str; 14] = ["a", "b", "d", "e", "f", "g2", "g3", "gtorn", "h", "i", "p", "w", "x", "z2"];
const DEMO: &str = "fixtures/demo/input/default.etcd";
const AS_OF: &str = "2026-12-01T00:00:00Z";

struct Converted {
    output: run::Output,
    out: PathBuf,
    ledger: Vec<Value>,
    report: Value,
}

fn convert(folder: &Path, source: &Path, options: &[&str]) -> Converted {
    fs::create_dir_all(folder).unwrap();
    let (out, ledger, report) = (folder.join("out.db"), folder.join("ledger.ndjson"), folder.join("report.json"));
    let mut args = vec!["convert", source.to_str().unwrap(), "-o", out.to_str().unwrap()];
    args.extend(["--ledger", ledger.to_str().unwrap(), "--report", report.to_str().unwrap()]);
    args.extend(options);
    let output = run::etcdlift(args);
    let lines = fs::read_to_string(ledger).unwrap_or_default();
    let ledger = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    Converted { output, out, ledger, report: serde_json::from_slice(&fs::read(report).unwrap()).unwrap() }
}

/// The part of the accounting that a line counts in.
fn account(line: &Value) -> Option<&'static str> {
    match line["reason"].as_str() {
        None if line["dir"] == true => None,
        None => Some("written"),
        Some("hidden" | "ttl") => Some("dropped"),
        Some("excluded" | "not-included") => Some("excluded"),
        Some("expired") => Some("expired"),
        Some("directory") => None,
        other => panic!("{other:?}"),
    }
}

/// The lines, added up, against the totals of the report.
fn adds_up(converted: &Converted) -> Vec<String> {
    let mut counted: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for line in &converted.ledger {
        let Some(account) = account(line) else { continue };
        let weight = bytes(line, "path").unwrap().len() as u64 + line["value_bytes"].as_u64().unwrap();
        for account in [account, "source"] {
            let count = counted.entry(account).or_default();
            *count = (count.0 + 1, count.1 + weight);
        }
    }
    let accounts = ["source", "written", "expired", "excluded", "dropped"].into_iter();
    let wrong = accounts.filter_map(|name| {
        let totals = &converted.report["balance"][name];
        let totals = (totals["keys"].as_u64().unwrap(), totals["bytes"].as_u64().unwrap());
        let lines = counted.get(name).copied().unwrap_or_default();
        (totals != lines).then(|| format!("{name}: the totals are {totals:?}, the lines give {lines:?}"))
    });
    wrong.collect()
}

#[test]
fn every_node_of_every_directory_has_its_line() {
    let test = test_name!();
    let (Some(peers), Some(scenarios)) = (peers::require(test), corpus::of_kinds(test, &ALL)) else { return };
    let mut wrong = Vec::new();
    let mut converted = 0;
    for scenario in &scenarios {
        for data_dir in scenario.live() {
            let Some(found) = of_scenario(scenario, data_dir) else { continue };
            converted += 1;
            let mut say = |what: String| wrong.push(format!("{}/{data_dir}: {what}", scenario.name));
            adds_up(&found).into_iter().for_each(&mut say);
            let (rows, nodes) = (Dump::of(&peers, &found.out).rows(), scenario.truth.nodes_of(data_dir));
            let by_key: BTreeMap<_, _> = rows.iter().map(|row| (&row.key[..], row)).collect();
            for line in found.ledger.iter().filter(|line| account(line) == Some("written")) {
                let row = by_key[&bytes(line, "key").unwrap()[..]];
                let lease = line["lease"].as_i64().unwrap_or(0);
                let hash: String = Sha256::digest(&row.value).iter().map(|byte| format!("{byte:02x}")).collect();
                if (line["revision"].as_i64().unwrap(), lease) != (row.modified, row.lease)
                    || line["value_sha256"] != hash
                {
                    say(format!("{line} is not {}", row.show()));
                }
            }
            // Bytes that are no UTF-8 are shown with U+FFFD by the API that the truth is from.
            let shown: BTreeSet<String> = found
                .ledger
                .iter()
                .map(|line| String::from_utf8_lossy(&bytes(line, "path").unwrap()).into_owned())
                .collect();
            let expected: BTreeSet<String> = nodes.iter().map(|node| node.key.clone()).collect();
            if shown != expected || found.ledger.len() < nodes.len() {
                let missing: Vec<_> = expected.symmetric_difference(&shown).take(5).collect();
                say(format!("{} lines for {} nodes: {missing:?}", found.ledger.len(), nodes.len()));
            }
            let expected = rows::expected(scenario, data_dir).len();
            if found.ledger.iter().filter(|line| account(line) == Some("written")).count() != expected {
                say(format!("not {expected} lines of keys that are written"));
            }
        }
    }
    all_well(&wrong);
    assert!(converted >= corpus::at_least(20, 5), "only {converted} directories were converted");
}

fn of_scenario(scenario: &Scenario, data_dir: &str) -> Option<Converted> {
    let temp = scratch::dir().join("ledger").join(&scenario.name).join(data_dir);
    let wal_dir = scenario.truth.data_dirs[data_dir].wal_dir.as_ref().map(|dir| scenario.data_dir(dir));
    let mut options = vec!["--as-of", &scenario.truth.captured_at, "--guest", "drop", "--existing", "drop-v3"];
    if let Some(wal_dir) = &wal_dir {
        options.extend(["--wal-dir", wal_dir.to_str().unwrap()]);
    }
    let found = convert(&temp, &scenario.data_dir(data_dir), &options);
    matches!(found.output.status, 0 | 8).then_some(found)
}

#[test]
fn each_reason_has_its_word() {
    let temp = scratch::temp();
    let demo = Path::new(DEMO);
    let options = [
        "--hidden",
        "drop",
        "--exclude",
        "/queue",
        "--ttl",
        "drop",
        "--dirs",
        "marker",
        "--as-of",
        AS_OF,
        "--map",
        "/config=/c",
    ];
    let found = convert(&temp.path().join("a"), demo, &options);
    assert_eq!(found.output.status, 0, "{}", found.output.story());
    all_well(&adds_up(&found));
    let line = |path: &str| found.ledger.iter().find(|line| line["path"] == path).unwrap_or_else(|| panic!("{path}"));
    assert_eq!(line("/_internal/lock")["reason"], "hidden");
    assert_eq!(line("/sessions/alice")["reason"], "ttl");
    assert!(line("/sessions/alice")["expiration"].is_string());
    let queue = found.ledger.iter().find(|line| line["path"].as_str().unwrap().starts_with("/queue/")).unwrap();
    assert_eq!((&queue["reason"], &queue["rule"]), (&"excluded".into(), &"exclude /queue".into()));
    assert_eq!(line("/services")["reason"], "directory");
    assert_eq!((&line("/locks")["key"], &line("/locks")["dir"]), (&"/locks/".into(), &true.into()));
    assert!(found.ledger.iter().any(|line| line["key"].as_str().is_some_and(|key| key.starts_with("/c/"))));
    let paths: BTreeSet<&str> = found.ledger.iter().map(|line| line["path"].as_str().unwrap()).collect();
    assert_eq!(paths.len(), found.ledger.len(), "a node has two lines");

    let found = convert(&temp.path().join("b"), demo, &["--include", "/counter", "--as-of", "2099-01-01T00:00:00Z"]);
    assert_eq!(found.ledger.iter().filter(|line| line["reason"] == "not-included").count(), 18);
    let found = convert(&temp.path().join("c"), demo, &["--as-of", "2099-01-01T00:00:00Z"]);
    assert_eq!(found.ledger.iter().filter(|line| line["reason"] == "expired").count(), 1);
    // A dry run says the same of a file that is not written.
    let dry = convert(&temp.path().join("d"), demo, &["--as-of", "2099-01-01T00:00:00Z", "--dry-run"]);
    assert_eq!(dry.ledger, found.ledger);
    assert!(!dry.out.exists());
}

#[test]
fn it_appears_with_the_output_or_not_at_all() {
    let temp = scratch::temp();
    let folder = temp.path().join("a");
    let demo = Path::new(DEMO);
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("ledger.ndjson"), "{}\n").unwrap();
    let found = convert(&folder, demo, &["--as-of", AS_OF]);
    assert_eq!((found.output.status, &found.report["reason"]), (5, &"output-exists".into()));
    assert!(found.output.stderr.contains("ledger.ndjson: the ledger exists"), "{}", found.output.story());
    assert!(!found.out.exists());
    let found = convert(&folder, demo, &["--as-of", AS_OF, "--overwrite"]);
    assert_eq!((found.output.status, &found.report["reason"]), (5, &"output-exists".into()));
    assert!(found.output.stderr.contains("ledger.ndjson: the file is no ledger"), "{}", found.output.story());
    fs::remove_file(folder.join("ledger.ndjson")).unwrap();
    let found = convert(&folder, demo, &["--as-of", AS_OF, "--overwrite", "--include", "/counter"]);
    assert_eq!((found.output.status, found.ledger.len()), (0, 28), "{}", found.output.story());
    let found = convert(&folder, demo, &["--as-of", AS_OF, "--overwrite"]);
    assert_eq!((found.output.status, found.ledger.len()), (0, 28), "{}", found.output.story());
    let missing = temp.path().join("none/ledger");
    let args =
        ["convert", DEMO, "-o", folder.join("other.db").to_str().unwrap(), "--ledger", missing.to_str().unwrap()]
            .map(String::from);
    let output = run::etcdlift(args);
    assert_eq!(output.status, 6, "{}", output.story());
    let mut left: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["ledger.ndjson", "out.db", "report.json"]);
}

/// Loses the 4th pair, with these checks left on.
fn losing(folder: &Path, fault: Fault, options: impl FnOnce(&mut ConvertOptions)) -> Result<(), Reason> {
    let mut typed = ConvertOptions::new(DEMO, folder.join("out.db"));
    typed.as_of = AS_OF.parse().unwrap();
    options(&mut typed);
    let mut report = Report::new(&typed);
    convert_with(&typed, &mut report, Some(fault), &|| Ok(())).map(|_| ()).map_err(|e| e.reason())
}

#[test]
fn a_writer_that_loses_a_pair_is_noticed_by_each_check() {
    let temp = scratch::temp();
    let seen = Fault { lost_row: 3, unseen_by_totals: false };
    let unseen = Fault { lost_row: 3, unseen_by_totals: true };
    let bare = |options: &mut ConvertOptions| options.verify = false;
    let ledger = |options: &mut ConvertOptions| {
        options.verify = false;
        options.ledger = Some(temp.path().join("ledger"));
    };
    assert_eq!(losing(temp.path(), seen, bare), Err(Reason::Unbalanced), "the totals");
    assert_eq!(losing(temp.path(), unseen, ledger), Err(Reason::Unbalanced), "the ledger");
    assert_eq!(losing(temp.path(), unseen, |_| ()), Err(Reason::VerifyFailed), "the verification");
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0, "something was left behind");
    // With all of them blind there is a file, sound in itself, with a pair less.
    losing(temp.path(), unseen, bare).unwrap();
    let inspected = crate::common::convert::Inspected::of(&temp.path().join("out.db"));
    assert_eq!(inspected.keys, 18);
}
