//! Names that would move a terminal's cursor or reorder its lines, and values that nobody may see: neither comes out of
//! any command.

use std::fs;
use std::path::PathBuf;

use super::kit::{AS_OF, Case};
use crate::common::run::{Output, etcdlift};
use crate::common::v2files;
use crate::common::v2files::snap;
use crate::common::v2store::{leaf, leaf_until, store};

/// What a name can hold as JSON has it.
const NAME: &str = r"k\u202e\u2066\u200f\u061c\u009b2J\u001b[2J\u007f\u2028\u2029\u0085";

fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn shows_nothing_hidden(what: &str, text: &str) {
    let hidden: Vec<char> = text.chars().filter(|c| is_hidden(*c) && *c != '\n').collect();
    assert!(hidden.is_empty(), "{what}: {hidden:?} in {text}");
}

/// A key with a TTL, whose name is all that a terminal must not see.
fn source(case: &Case) -> PathBuf {
    let expires = leaf_until(NAME, 8, "x", "2027-01-01T00:00:00Z");
    case.file("a.snap", snap(store(9, &expires).as_bytes(), 9))
}

fn check(output: &Output, name: &str) {
    let text = output.text();
    shows_nothing_hidden(&output.story(), &(text.clone() + &output.stderr));
    assert!((text + &output.stderr).contains(name), "the name is not there: {}", output.story());
}

#[test]
fn names_reach_no_terminal_as_they_are() {
    let case = Case::new();
    let source = source(&case);
    let rust = r"k\u{202e}\u{2066}\u{200f}\u{61c}\u{9b}2J\u{1b}[2J\u{7f}\u{2028}\u{2029}\u{85}";
    let (inspect, file) = ("inspect", source.to_str().unwrap());
    check(&etcdlift([inspect, file, "--keys"]), rust);
    check(&etcdlift([inspect, file, "--keys", "--json"]), NAME);
    let refused = case.run(&source, &["--ttl", "fail"]);
    check(&refused.output, rust);
    let export = case.path("out/keys.ndjson");
    etcdlift(["export", file, "-o", export.to_str().unwrap(), "--format", "ndjson"]).success();
    let ledger = case.path("ledger.ndjson");
    case.run(&source, &["--ledger", ledger.to_str().unwrap()]);
    for file in [export, ledger, case.report()] {
        let text = fs::read_to_string(&file).unwrap();
        shows_nothing_hidden(&file.display().to_string(), &text);
        let name: String = serde_json::from_str(&format!("\"/{NAME}\"")).unwrap();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let keys: Vec<_> = lines.filter_map(|line| line["key"].as_str().map(str::to_owned)).collect();
        assert!(file == case.report() || keys.contains(&name), "{}: {text}", file.display());
    }
}

/// The log entry by entry, the output and its index map.
#[test]
fn names_reach_no_terminal_from_the_log_and_the_output() {
    let case = Case::new();
    let name: String = serde_json::from_str(&format!("\"/1/{NAME}\"")).unwrap();
    let dir = case.path("source");
    let start = v2files::write_snapshot(&dir, store(9, &leaf("a", 8, "x")).into_bytes(), 9, 2, 7, 9);
    let request = v2files::put_request(1, &name, b"$2a$10$secret");
    v2files::write_wal(&dir, &start, 7, 1, std::iter::once(request));
    let (source, map) = (dir.to_str().unwrap(), case.path("out/i.redb"));
    let rust = r"k\u{202e}\u{2066}\u{200f}\u{61c}\u{9b}2J\u{1b}[2J\u{7f}\u{2028}\u{2029}\u{85}";
    let map = map.to_str().unwrap();
    case.run(&dir, &["--as-of", AS_OF, "--index-map", map]).output.success();
    let out = case.out();
    let out = out.to_str().unwrap();
    for (args, shown) in [
        (vec!["inspect", source, "--wal"], rust),
        (vec!["inspect", source, "--wal", "--json"], NAME),
        (vec!["inspect", out, "--keys"], rust),
        (vec!["inspect", out, "--keys", "--json"], NAME),
        (vec!["lookup", map, "--v2-index", "10"], rust),
        (vec!["lookup", map, "--v2-index", "10", "--json"], NAME),
    ] {
        let output = etcdlift(args);
        check(&output, shown);
        assert!(!output.text().contains("secret"), "{}", output.story());
    }
    // A file that differs from its source: the name of the key, and not its value.
    let other = case.path("other");
    let start = v2files::write_snapshot(&other, store(9, &leaf("a", 8, "x")).into_bytes(), 9, 2, 7, 9);
    v2files::write_wal(&other, &start, 7, 1, std::iter::once(v2files::put_request(1, &name, b"$2a$10$other")));
    let (other, report) = (other.to_str().unwrap(), case.report());
    let output = etcdlift(["verify", out, "--report", report.to_str().unwrap(), "--source", other]);
    assert_eq!(output.status, 7, "{}", output.story());
    let text = output.text() + &output.stderr;
    shows_nothing_hidden("verify", &text);
    assert!(text.contains(rust) && !text.contains("$2a$"), "{text}");
}

#[test]
fn a_value_that_cannot_be_read_is_not_shown() {
    let case = Case::new();
    let source = case.path("source");
    let start = v2files::write_snapshot(&source, store(9, &leaf("a", 8, "x")).into_bytes(), 9, 2, 7, 9);
    let secret = br#"{"name":["$2a$10$secret"]}"#;
    let request = v2files::put_request(1, "/1/0/members/ab/attributes", secret);
    v2files::write_wal(&source, &start, 7, 1, std::iter::once(request));
    let run = case.run(&source, &["--source-version", "3.3", "--as-of", AS_OF]);
    run.refused(3, "damaged", &["a member's attributes as JSON, found a value of another kind at byte 8"]);
    assert!(!format!("{}{}", run.output.stderr, run.report()).contains("secret"));
}
