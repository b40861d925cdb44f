//! Reference pages that are made from the code: the JSON Schemas of `convert`, `check`, `advise` and `clean`, and the page of codes.
//!
//! Compares `docs/*.schema.json` and `docs/codes.md` with the code; `BLESS=1` writes them. Also checks real reports and real
//! output against the schemas.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use etcdlift::error::Reason;
use etcdlift::internals::notice::{Code, Severity};
use etcdlift::report::advice::Topic;
use etcdlift::report::cleaning::RemovedLine;
use etcdlift::report::{Advice, Cleaning, Report, UpgradeCheck, ledger};
use schemars::Schema;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use crate::common::golden::golden;
use crate::common::run::etcdlift_path;
use crate::common::upgrade;

fn schema_of<T: schemars::JsonSchema>() -> Schema {
    // The schema of writing, not of reading.
    let settings = SchemaSettings::draft2020_12().for_serialize();
    settings.into_generator().into_root_schema_for::<T>()
}

/// Compares a file with the schema of these types, of which the first is that of the document.
fn schema_file(path: &str, title: &str, description: &str, types: Vec<(&str, Schema)>) {
    let mut definitions = serde_json::Map::new();
    let document = types[0].0.to_string();
    for (name, schema) in types {
        let mut schema = schema.to_value();
        definitions.extend(schema["$defs"].take().as_object().cloned().unwrap_or_default());
        let object = schema.as_object_mut().unwrap();
        object.retain(|key, _| key != "$defs" && key != "$schema");
        definitions.insert(name.to_string(), schema);
    }
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "description": description,
        "$ref": format!("#/$defs/{document}"),
        "$defs": definitions,
    });
    golden(path, format!("{}\n", serde_json::to_string_pretty(&schema).unwrap()));
}

#[test]
fn the_schema_of_report_and_ledger() {
    schema_file(
        "docs/report.schema.json",
        "etcdlift report and ledger",
        "`convert --report` writes a Report; each line of `convert --ledger` is a LedgerLine.",
        vec![("Report", schema_of::<Report>()), ("LedgerLine", schema_of::<ledger::Line>())],
    );
}

#[test]
fn the_schema_of_check() {
    schema_file(
        "docs/check.schema.json",
        "etcdlift check",
        "`check --json` prints an UpgradeCheck.",
        vec![("UpgradeCheck", schema_of::<UpgradeCheck>())],
    );
}

#[test]
fn the_schema_of_advise() {
    schema_file(
        "docs/advise.schema.json",
        "etcdlift advise",
        "`advise --json` prints an Advice.",
        vec![("Advice", schema_of::<Advice>())],
    );
}

#[test]
fn the_schema_of_clean() {
    schema_file(
        "docs/clean.schema.json",
        "etcdlift clean",
        "`clean --json` prints a Cleaning, and `clean --report` writes one; each line of `clean --ledger` is a RemovedLine.",
        vec![("Cleaning", schema_of::<Cleaning>()), ("RemovedLine", schema_of::<RemovedLine>())],
    );
}

#[test]
fn the_page_of_codes() {
    let mut page = String::from(
        "# Reasons and codes\n\n\
         Stable words of the report. This page is made from the code.\n\n\
         ## Reasons\n\n\
         The field `reason` says why the exit status is not 0. For status 8 it is the code of the first loss.\n\n\
         | reason | exit status | meaning |\n|---|---|---|\n",
    );
    let mut reasons: Vec<_> =
        Reason::ALL.iter().map(|(reason, doc)| (reason.kind().exit_code(), reason.word(), *doc)).collect();
    reasons.sort_by_key(|(status, ..)| *status);
    for (status, word, doc) in reasons {
        writeln!(page, "| `{word}` | {status} |{doc} |").unwrap();
    }
    page.push_str(
        "| `interrupted` | 128 + signal | A signal ended the run. |\n\n\
         ## Codes of warnings and losses\n\n\
         Each element of `warnings` and `losses` has a `code`. Any loss makes the exit status 8, unless the run is refused.\n\n\
         | severity | meaning |\n|---|---|\n\
         | warning | The code is always in `warnings`. |\n\
         | loss | The code is always in `losses`. |\n\
         | either | The code is in `losses`, or in `warnings` if its meaning says so. |\n\n\
         `inspect` has no `losses`: it puts every code into `warnings`.\n\n\
         | code | severity | meaning |\n|---|---|---|\n",
    );
    for (code, doc) in Code::ALL {
        writeln!(page, "| `{code}` | {} |{doc} |", code.severity()).unwrap();
    }
    page.push_str(
        "\n## Reasons of the ledger\n\n\
         A line of the ledger has a `reason` if its node is not written.\n\n\
         | reason | meaning |\n|---|---|\n",
    );
    let schema = schema_of::<ledger::Line>().to_value();
    let reasons = schema["$defs"]["NotWritten"]["oneOf"].as_array().unwrap();
    for reason in reasons {
        let (word, doc) = (reason["const"].as_str().unwrap(), reason["description"].as_str().unwrap());
        writeln!(page, "| `{word}` | {doc} |").unwrap();
    }
    page.push_str(
        "\n## Topics of `advise`\n\n\
         A finding of `advise` has a `topic` and its `area`. See [advise.md](advise.md).\n\n\
         | topic | area | meaning |\n|---|---|---|\n",
    );
    for (topic, doc) in Topic::ALL {
        writeln!(page, "| `{topic}` | {} |{doc} |", topic.area()).unwrap();
    }
    golden("docs/codes.md", page);
}

/// The severity of each code is what the code of the program does with it.
#[test]
fn the_severity_of_a_code_is_how_it_is_used() {
    let mut sources = Vec::new();
    let mut folders = vec![PathBuf::from("src/pipeline")];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = fs::read_to_string(path).unwrap().split_whitespace().collect::<String>();
                // One form for the two ways to add a loss, so that the other forms are warnings.
                sources.push(text.replace("losses.push(Notice::new(Code::", ".lose(Code::"));
            }
        }
    }
    let code = |name: &str| Code::ALL.iter().map(|(code, _)| *code).find(|code| format!("{code:?}") == name).unwrap();
    let names = |begin: &'static str| {
        let uses = sources.iter().flat_map(move |text| text.split(begin).skip(1));
        uses.map(|rest| code(rest.split(|c: char| !c.is_alphanumeric()).next().unwrap()))
    };
    let (mut lost, mut warned) = (0, 0);
    for code in names(".lose(Code::").chain(names("losses.push(notice(Code::")) {
        assert_ne!(code.severity(), Severity::Warning, "{code}");
        lost += 1;
    }
    for code in names(".warn(Code::").chain(names("Notice::new(Code::")) {
        assert_ne!(code.severity(), Severity::Loss, "{code}");
        warned += 1;
    }
    assert!(lost >= 10 && warned >= 30, "{lost} losses and {warned} warnings found");
}

/// `docs/guarantees.md` says what helps against every loss of a run that ends with status 8.
#[test]
fn every_loss_has_advice() {
    // With these losses, a run is always refused.
    const REFUSED: [Code; 2] = [Code::DamageFilled, Code::LogGone];
    let page = fs::read_to_string("docs/guarantees.md").unwrap();
    let advice = page.split("## After exit status 8").nth(1).unwrap().split("\n## ").next().unwrap();
    let losses = Code::ALL.iter().map(|(code, _)| *code).filter(|code| code.severity() != Severity::Warning);
    for code in losses.filter(|code| !REFUSED.contains(code)) {
        assert!(advice.contains(&format!("`{code}`")), "no advice for {code}");
    }
}

/// A report of a real run has no field that the schema does not know, and lacks none that it requires.
#[test]
fn a_real_report_and_ledger_fit_the_schema() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let (output, report, lines) = (at("o.db"), at("r.json"), at("l.ndjson"));
    let status = std::process::Command::new(etcdlift_path())
        .args(["convert", "fixtures/demo/input/default.etcd", "-o", &output, "--report", &report, "--ledger", &lines])
        .stderr(std::process::Stdio::null())
        .status();
    assert!(status.unwrap().success());
    let schema: Value = serde_json::from_slice(&fs::read("docs/report.schema.json").unwrap()).unwrap();
    let mut wrong = Vec::new();
    let report: Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    check(&schema, &schema["$defs"]["Report"], &report, "report", &mut wrong);
    for line in fs::read_to_string(lines).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let known = schema["$defs"]["LedgerLine"].to_string();
        wrong.extend(line.as_object().unwrap().keys().filter(|key| !known.contains(&format!("\"{key}\""))).cloned());
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The lines of a file of JSON.
fn lines(path: &str) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Runs etcdlift, which ends with this status, and returns what it prints.
fn printed(args: &[&str], status: i32) -> Vec<u8> {
    let output = std::process::Command::new(etcdlift_path()).args(args).output().unwrap();
    assert_eq!(output.status.code(), Some(status), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

const FIXTURE: &str = "fixtures/upgrade-check/input/default.etcd";

/// Of a source with blockers and leftovers, of one that cannot be read, and of one that is clean.
#[test]
fn real_checks_fit_the_schema() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy").to_str().unwrap().to_string();
    printed(&["clean", FIXTURE, "-o", &copy], 0);
    let schema: Value = serde_json::from_slice(&fs::read("docs/check.schema.json").unwrap()).unwrap();
    let mut wrong = Vec::new();
    let mut fields = BTreeSet::new();
    for (sources, version, status) in
        [(&[FIXTURE, "fixtures/members/m0.etcd"][..], "3.6", 7), (&[FIXTURE], "3.7", 7), (&[&copy], "3.6", 0)]
    {
        let args = [&["check", "--json", "--target-version", version], sources].concat();
        let json: Value = serde_json::from_slice(&printed(&args, status)).unwrap();
        check(&schema, &schema["$defs"]["UpgradeCheck"], &json, "check", &mut wrong);
        for source in json["sources"].as_array().unwrap() {
            fields.extend(source.as_object().unwrap().keys().cloned());
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // Nothing of the schema is left unseen.
    let known = schema["$defs"]["CheckedSource"]["properties"].as_object().unwrap();
    let unseen: Vec<&String> = known.keys().filter(|name| !fields.contains(*name)).collect();
    assert!(unseen.is_empty(), "{unseen:?}");
}

/// Of a source with findings, of one with warnings, and of several members.
#[test]
fn real_advice_fits_the_schema() {
    const DEMO: &str = "fixtures/demo/input/default.etcd";
    let schema: Value = serde_json::from_slice(&fs::read("docs/advise.schema.json").unwrap()).unwrap();
    let (mut wrong, mut fields) = (Vec::new(), BTreeSet::new());
    let members = ["fixtures/members/m0.etcd", "fixtures/members/m1.etcd"];
    for args in [&[DEMO][..], &[DEMO, "--wal-dir", "none"], &members] {
        let json: Value = serde_json::from_slice(&printed(&[&["advise", "--json"], args].concat(), 0)).unwrap();
        check(&schema, &schema["$defs"]["Advice"], &json, "advise", &mut wrong);
        let objects = [&json["basis"], &json["findings"][0], &json["warnings"][0]];
        objects.into_iter().filter_map(Value::as_object).for_each(|object| fields.extend(object.keys().cloned()));
        for finding in json["findings"].as_array().unwrap() {
            let topic = Topic::from_word(finding["topic"].as_str().unwrap()).unwrap();
            assert_eq!(finding["area"], topic.area().word());
            assert_eq!(finding["call"], topic.guide().call);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for object in ["Basis", "Finding"] {
        let known = schema["$defs"][object]["properties"].as_object().unwrap();
        assert!(known.keys().all(|name| fields.contains(name)), "{object}: {fields:?}");
    }
}

/// `docs/advise.md` names every topic.
#[test]
fn every_topic_is_explained() {
    let page = fs::read_to_string("docs/advise.md").unwrap();
    for (topic, _) in Topic::ALL {
        assert!(page.contains(&format!("| `{topic}` |")), "no row for {topic}");
    }
}

/// Of a run that succeeds, with all its files, and of one that fails.
#[test]
fn real_copies_fit_the_schema() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let (report, failed, ledger) = (at("report.json"), at("failed.json"), at("ledger.ndjson"));
    let (out, saved, other) = (at("out"), at("saved.ndjson"), at("other"));
    let files = ["--report", &report, "--ledger", &ledger, "--save-v2", &saved, "--in-place-plan", "--json"];
    let shown = printed(&[&["clean", FIXTURE, "-o", &out], &files[..]].concat(), 0);
    assert_eq!(fs::read(&report).unwrap(), shown, "--json prints the report");
    printed(&["clean", FIXTURE, "-o", &other, "--report", &failed, "--require-migrated"], 5);
    let schema: Value = serde_json::from_slice(&fs::read("docs/clean.schema.json").unwrap()).unwrap();
    let (mut wrong, mut fields) = (Vec::new(), BTreeSet::new());
    for path in [report, failed] {
        let json: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        check(&schema, &schema["$defs"]["Cleaning"], &json, "clean", &mut wrong);
        fields.extend(json.as_object().unwrap().keys().cloned());
    }
    // The fixture has no request after its backend.
    let (source, requests) = (at("source"), at("requests.ndjson"));
    let is_replaced = |case: &upgrade::Case| case.name.ends_with("not applied") && case.expect[0].verdict == "wal";
    upgrade::write(Path::new(&source), &upgrade::cases().into_iter().find(is_replaced).unwrap());
    printed(&["clean", &source, "-o", &other, "--ledger", &requests], 0);
    let (mut removed, requests) = (lines(&ledger), lines(&requests));
    assert!(removed.iter().all(|line| line["node"].is_object()) && !removed.is_empty());
    assert!(requests.iter().all(|line| line["request"].is_object()) && !requests.is_empty());
    removed.extend(requests);
    removed.iter().for_each(|line| check(&schema, &schema["$defs"]["RemovedLine"], line, "ledger", &mut wrong));
    assert!(wrong.is_empty(), "{wrong:#?}");
    let known = schema["$defs"]["Cleaning"]["properties"].as_object().unwrap();
    assert!(known.keys().all(|name| fields.contains(name)), "{fields:?}");
}

/// Objects against `properties` and `required`, at every depth.
fn check(root: &Value, schema: &Value, value: &Value, place: &str, wrong: &mut Vec<String>) {
    let schema = match schema["$ref"].as_str().or_else(|| schema["anyOf"][0]["$ref"].as_str()) {
        Some(path) => root.pointer(path.trim_start_matches('#')).unwrap(),
        None => schema,
    };
    match value {
        Value::Object(fields) => {
            let Some(properties) = schema["properties"].as_object() else { return };
            for (name, field) in fields {
                match properties.get(name) {
                    Some(schema) => check(root, schema, field, &format!("{place}.{name}"), wrong),
                    None => wrong.push(format!("{place}.{name} is not in the schema")),
                }
            }
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            wrong.extend(
                required.filter(|name| !fields.contains_key(*name)).map(|name| format!("{place}.{name} is missing")),
            );
        }
        Value::Array(items) => {
            items.iter().for_each(|item| check(root, &schema["items"], item, &format!("{place}[]"), wrong));
        }
        _ => {}
    }
}
