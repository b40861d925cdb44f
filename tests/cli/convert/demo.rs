//! The demo directory: every key as its server held it, and the report and summary as they are written down.
//!
//! `BLESS=1` writes them down anew.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use super::kit::{Case, DEMO, demo};
use crate::common::golden::golden;
use crate::common::rows::{Row, differences};
use crate::common::run::{all_well, etcdlift};

#[test]
fn it_holds_what_its_server_held() {
    let case = Case::new();
    let rows = case.run(&demo(), &[]).converted(0);
    let text = fs::read_to_string(expected("nodes.ndjson")).unwrap();
    let nodes: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let files: Vec<Row> = nodes
        .iter()
        .filter_map(|node| {
            let value = node.get("value")?.as_str().unwrap();
            let key = node["key"].as_str().unwrap();
            let index = |name: &str| node[name].as_u64().unwrap();
            // The one key with a TTL has the only lease.
            let lease = i64::from(node.get("expiration").is_some());
            let row = Row::of_file(key.as_bytes(), value.as_bytes(), index("created"), index("modified"));
            Some(Row { lease, ..row })
        })
        .collect();
    assert_eq!(files.len(), 19);
    all_well(&differences(&files, &rows));
}

#[test]
fn its_report_and_summary_are_as_written_down() {
    let case = Case::new();
    let (out, report) = (case.out(), case.report());
    let args = ["convert", DEMO, "-o", out.to_str().unwrap(), "--report", report.to_str().unwrap()];
    // The rest of the command line does not depend on where the tests run.
    let output = etcdlift(args.into_iter().chain(["--jobs", "2", "--as-of", "2026-12-01T00:00:00Z"])).success();
    let names = BTreeMap::from([(out.to_str().unwrap(), "OUT"), (report.to_str().unwrap(), "REPORT")]);
    let plain = |mut text: String| {
        names.iter().for_each(|(path, name)| text = text.replace(path, name));
        text
    };
    let mut json: Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    json["started"] = "STARTED".into();
    json["etcdlift"] = "VERSION".into();
    for stage in json["stages"].as_array_mut().unwrap() {
        assert!(stage["cpu_ms"].is_u64() && stage["busy_cores"].as_f64().is_some_and(|busy| busy >= 0.0), "{stage}");
        let threads = stage["threads_cpu_ms"].as_array().unwrap();
        assert!(threads.iter().all(|ms| ms.as_u64() > Some(0)), "{stage}");
        stage["threads_cpu_ms"] = Value::Array(Vec::new());
        ["ms", "cpu_ms", "busy_cores"].into_iter().for_each(|time| stage[time] = 0.into());
    }
    golden(expected("report.json"), plain(serde_json::to_string_pretty(&json).unwrap() + "\n"));
    // Times differ from run to run; they are the end of the totals.
    let (totals, steps) = output.stderr.split_once("\n\nnext, ").unwrap();
    let (totals, _) = totals.split_once("\ntime:").unwrap();
    golden(expected("summary.txt"), plain(format!("{totals}\n\nnext, {steps}")));
}

fn expected(name: &str) -> String {
    format!("fixtures/demo/expected/{name}")
}
