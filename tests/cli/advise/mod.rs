//! `etcdlift advise`: the findings of generated directories, each with one use of v2, and of real ones.
//!
//! `corpus` compares real directories with what their server showed, and with a reader of logs that is not etcdlift's.

mod corpus;
mod generated;
mod sources;

use std::path::Path;

use serde_json::Value;

use crate::common::run::{Output, etcdlift};
use crate::common::scratch;

const DEMO: &str = "fixtures/demo/input/default.etcd";

fn advise(sources: &[&Path], options: &[&str]) -> Output {
    let sources = sources.iter().map(|path| path.as_os_str());
    etcdlift(std::iter::once("advise".as_ref()).chain(sources).chain(options.iter().map(AsRef::as_ref)))
}

/// What the JSON says of a source, which a run leaves as it is.
fn json(source: &Path, options: &[&str]) -> Value {
    let before = scratch::fingerprint(source);
    let output = advise(&[source], &[options, &["--json"]].concat()).success();
    assert_eq!(before, scratch::fingerprint(source), "the source was changed");
    assert_eq!(output.stderr, "", "{}", output.story());
    output.json()
}

/// The finding of a topic.
fn finding<'v>(advice: &'v Value, topic: &str) -> Option<&'v Value> {
    advice["findings"].as_array().unwrap().iter().find(|finding| finding["topic"] == topic)
}

/// A number of a finding; 0 without the finding.
fn number(advice: &Value, topic: &str, field: &str) -> u64 {
    finding(advice, topic).map_or(0, |finding| finding[field].as_u64().unwrap())
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
