//! Reference pages that are made from the code: the JSON Schema of report and ledger, and the codes. `BLESS=1` writes them.

use std::fmt::Write;
use std::fs;

use etcdlift::error::Reason;
use etcdlift::internals::notice::Code;
use etcdlift::report::{Report, ledger};
use schemars::Schema;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use crate::common::golden::golden;
use crate::common::run::etcdlift_path;

fn schema_of<T: schemars::JsonSchema>() -> Schema {
    // What is written, not what is read.
    let settings = SchemaSettings::draft2020_12().for_serialize();
    settings.into_generator().into_root_schema_for::<T>()
}

#[test]
fn the_schema_of_report_and_ledger() {
    let mut report = schema_of::<Report>().to_value();
    let mut line = schema_of::<ledger::Line>().to_value();
    let mut definitions = report["$defs"].take().as_object().cloned().unwrap_or_default();
    definitions.extend(line["$defs"].take().as_object().cloned().unwrap_or_default());
    for (name, schema) in [("Report", &mut report), ("LedgerLine", &mut line)] {
        let object = schema.as_object_mut().unwrap();
        object.retain(|key, _| key != "$defs" && key != "$schema");
        definitions.insert(name.to_string(), Value::Object(object.clone()));
    }
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "etcdlift report and ledger",
        "description": "`convert --report` writes a Report; each line of `convert --ledger` is a LedgerLine.",
        "$ref": "#/$defs/Report",
        "$defs": definitions,
    });
    golden("docs/report.schema.json", format!("{}\n", serde_json::to_string_pretty(&schema).unwrap()));
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
    page.push_str("| `interrupted` | 128 + signal | A signal ended the run. |\n\n## Codes of warnings and losses\n\n");
    page.push_str("Each element of `warnings` and `losses` has a `code`. Any loss makes the exit status 8.\n\n");
    page.push_str("| code | meaning |\n|---|---|\n");
    for (code, doc) in Code::ALL {
        writeln!(page, "| `{code}` |{doc} |").unwrap();
    }
    golden("docs/codes.md", page);
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
