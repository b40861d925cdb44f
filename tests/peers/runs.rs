//! The named runs of ../shared/corpus-runs: small directories about one rule each, with the exit statuses and the keys
//! that are right. Its README defines the fields of `truth.json`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::common::dump::Dump;
use crate::common::peers::{self, Peers};
use crate::common::protobuf::{all_bytes_of, bytes_of, number_of};
use crate::common::run::{all_well, etcdlift};
use crate::common::{corpus, scratch};
use crate::test_name;

/// A key: its value, created and modified index.
type Keys = BTreeMap<String, (String, u64, u64)>;

#[test]
fn every_named_run_comes_out_right() {
    let Some(peers) = peers::require(test_name!()) else { return };
    let Some(cases) = corpus::runs(test_name!()) else { return };
    let (mut wrong, mut count) = (Vec::new(), 0);
    for dir in &cases {
        let truth: Value = serde_json::from_slice(&fs::read(dir.join("truth.json")).unwrap()).unwrap();
        let before = scratch::fingerprint(dir);
        for run in truth["runs"].as_array().unwrap() {
            count += 1;
            if let Err(why) = one_run(&peers, dir, &truth, run) {
                wrong.push(format!("{}: {} {}: {why}", dir.display(), run["label"], run["sources"]));
            }
        }
        if scratch::fingerprint(dir) != before {
            wrong.push(format!("{}: a source was changed", dir.display()));
        }
    }
    assert!(count > corpus::at_least(60, 10), "{count} runs");
    all_well(&wrong);
}

fn one_run(peers: &Peers, dir: &Path, truth: &Value, run: &Value) -> Result<(), String> {
    let scratch = scratch::temp();
    let out = scratch.path().join("out.db");
    let mut args: Vec<String> = vec!["convert".into()];
    args.extend(texts(&run["sources"]).map(|name| dir.join(name).to_str().unwrap().to_string()));
    args.extend(["-o".into(), out.to_str().unwrap().into()]);
    args.extend(["--as-of".into(), truth["captured_at"].as_str().unwrap().into()]);
    args.extend(texts(&run["options"]).map(String::from));
    let output = etcdlift(args);
    let status = i64::from(output.status);
    let is_in =
        |name: &str| run[name].as_array().is_some_and(|list| list.iter().any(|one| one.as_i64() == Some(status)));
    let complain = |what: String| Err(format!("{what}\n{}", output.story()));
    if !is_in("exit") {
        return complain(format!("expected exit {}", run["exit"]));
    }
    if ![0, 8].contains(&status) {
        return if out.exists() { complain("an output without success".into()) } else { Ok(()) };
    }
    let Some(name) = run["nodes"].as_str() else { return complain("no output may appear".into()) };
    let got = keys_of(peers, &out);
    let expected = list(truth, name);
    let also = || texts(&run["nodes_8"]).any(|name| got == list(truth, name));
    let right = match run["at_least"].as_bool() {
        Some(true) => {
            let all = list(truth, "truth");
            let known = |(key, found): (&String, _)| all.get(key) == Some(found) || expected.get(key) == Some(found);
            expected.keys().all(|key| got.contains_key(key)) && got.iter().all(known)
        }
        _ => got == expected || (status == 8 && also()) || (is_in("prefix") && is_prefix(&got, &expected)),
    };
    if !right {
        return complain(format!(
            "expected {} keys of {name}, found {}: {}",
            expected.len(),
            got.len(),
            differences(&expected, &got)
        ));
    }
    rights(truth, &output.stderr, peers, &out).or_else(complain)
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().map(|one| one.as_str().unwrap())
}

fn list(truth: &Value, name: &str) -> Keys {
    let nodes = truth[if name == "truth" { "nodes" } else { name }].as_array().unwrap();
    let files = nodes.iter().filter(|node| node["dir"] != true);
    let entry = |node: &Value| {
        let index = |name: &str| node[name].as_u64().unwrap();
        let value = node["value"].as_str().unwrap_or_default().to_string();
        (node["key"].as_str().unwrap().to_string(), (value, index("createdIndex"), index("modifiedIndex")))
    };
    files.map(entry).collect()
}

fn keys_of(peers: &Peers, out: &Path) -> Keys {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let rows = Dump::of(peers, out).rows().into_iter();
    rows.map(|row| (text(&row.key), (text(&row.value), row.create.cast_unsigned(), row.modified.cast_unsigned())))
        .collect()
}

/// Exactly the keys up to some modified index, where every key was written once.
fn is_prefix(got: &Keys, expected: &Keys) -> bool {
    let up_to = got.values().map(|(.., modified)| *modified).max().unwrap_or(0);
    let prefix: Keys =
        expected.iter().filter(|(_, (.., modified))| *modified <= up_to).map(|(k, v)| (k.clone(), v.clone())).collect();
    *got == prefix
}

fn differences(expected: &Keys, got: &Keys) -> String {
    let keys = expected.keys().chain(got.keys().filter(|key| !expected.contains_key(*key)));
    let differing = keys.filter(|key| expected.get(*key) != got.get(*key));
    let lines: Vec<String> = differing
        .take(3)
        .map(|key| format!("{key:?} expected {:?}, found {:?}", expected.get(key), got.get(key)))
        .collect();
    lines.join("; ")
}

/// Where the truth says what each user could do: nobody loses a right, and who gains one is named in a warning.
fn rights(truth: &Value, stderr: &str, peers: &Peers, out: &Path) -> Result<(), String> {
    let Some(effective) = truth["effective"].as_object() else { return Ok(()) };
    let dump = Dump::of(peers, out);
    for (user, rights) in effective {
        let roles = dump.other("authUsers", user.as_bytes()).map(|bytes| all_bytes_of(bytes, 3)).unwrap_or_default();
        let permissions: Vec<Permission> = roles
            .iter()
            .filter_map(|role| dump.other("authRoles", role))
            .flat_map(|role| all_bytes_of(role, 2))
            .map(Permission::parse)
            .collect();
        let root = roles.iter().any(|role| role == b"root");
        for right in rights.as_array().unwrap() {
            let key = right[0].as_str().unwrap().as_bytes();
            for (number, write) in [(1, false), (2, true)] {
                let before = right[number].as_bool().unwrap();
                let now = root || permissions.iter().any(|permission| permission.allows(key, write));
                let named = || stderr.lines().any(|line| line.contains("warning") && line.contains(user));
                if before && !now {
                    return Err(format!("{user} loses a right on {}", right[0]));
                }
                if now && !before && !named() {
                    return Err(format!("{user} gains a right on {} and is not named", right[0]));
                }
            }
        }
    }
    Ok(())
}

struct Permission {
    kind: u64,
    key: Vec<u8>,
    end: Vec<u8>,
}

impl Permission {
    fn parse(bytes: &[u8]) -> Permission {
        let one = |field| bytes_of(bytes, field).unwrap_or_default().to_vec();
        Permission { kind: number_of(bytes, 1).unwrap_or(0), key: one(2), end: one(3) }
    }

    fn allows(&self, key: &[u8], write: bool) -> bool {
        let kind = self.kind == 2 || self.kind == u64::from(write);
        let inside = match &self.end[..] {
            b"" => key == self.key,
            b"\0" => key >= &self.key[..],
            end => key >= &self.key[..] && key < end,
        };
        kind && inside
    }
}
