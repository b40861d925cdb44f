//! The result of `advise` as text: the result in one line, what was read, and each finding with its advice.
//!
//! Names come from a source that may be hostile, so hidden characters are escaped and long names shortened. Must not know how a
//! topic is found.

use super::advice::{Advice, Basis, Finding};
use super::table::Table;
use super::text::notices;
use crate::count::counted;
use crate::display::short;

/// The columns of the text.
const COLUMNS: usize = 80;

/// The columns before the lines of a finding.
const INDENT: &str = "  ";

/// What no file of etcd contains.
const NOT_VISIBLE: &str = "watches, and reads without quorum=true: no file of etcd has them";

/// The whole advice. Its first line is the result.
pub(crate) fn advice(found: &Advice) -> String {
    let mut text = format!("{}\n{}", result(found), basis(&found.basis).wrapped(COLUMNS));
    let mut area = None;
    for finding in &found.findings {
        if area != Some(finding.area) {
            text.push_str(&format!("\n{}\n", finding.area.word().to_uppercase()));
        }
        area = Some(finding.area);
        text.push_str(&format!("\n{}", self::finding(finding)));
    }
    let notices = notices(&found.warnings, &[]);
    if notices.is_empty() { text } else { format!("{text}\n{notices}") }
}

/// The result in one line.
pub(crate) fn result(found: &Advice) -> String {
    let first = found.sources.first().map_or(String::new(), |path| short(path));
    let sources = match found.sources.len() {
        0 | 1 => first,
        several => format!("{first} and {} more", several - 1),
    };
    match found.findings.len() as u64 {
        0 => format!("NOTHING FOUND: {sources} relies on no v2 behaviour that v3 does not have\n"),
        count => format!("ADVICE: {sources} relies on v2 behaviour ({})\n", counted(count, "finding", "findings")),
    }
}

fn basis(basis: &Basis) -> Table {
    let mut table = Table::new();
    let (raft, v2) = (basis.raft_index, basis.v2_index);
    table.line("state", format!("raft index {raft}, v2 index {v2}"));
    let keys = counted(basis.keys, "key", "keys");
    table.line("content", format!("{keys}, {}", counted(basis.directories, "directory", "directories")));
    let entries = counted(basis.log_entries, "entry", "entries");
    let log = match (basis.first_entry, basis.last_entry) {
        (Some(first), Some(last)) => {
            let requests = counted(basis.requests, "request", "requests");
            format!("{entries}, {first} to {last}, with {requests} to keys and directories")
        }
        _ => "no entries: requests are unknown".to_string(),
    };
    table.line("log", log);
    table.line("history", format!("{} in the snapshot", counted(basis.events, "event", "events")));
    table.line("not visible", NOT_VISIBLE);
    table
}

fn finding(finding: &Finding) -> String {
    let mut table = Table::new();
    if !finding.examples.is_empty() {
        let names: Vec<String> = finding.examples.iter().map(|name| format!("\"{}\"", short(name))).collect();
        table.line("examples", format!("{}{}", names.join(", "), if finding.more { ", ..." } else { "" }));
    }
    let guide = finding.guide;
    for (name, text) in [("v2", guide.v2), ("v3", guide.v3), ("advice", guide.advice), ("call", guide.call)] {
        table.line(name, text);
    }
    let lines = table.wrapped(COLUMNS - INDENT.len());
    let lines: String = lines.lines().map(|line| format!("{INDENT}{line}\n")).collect();
    format!("{}: {}\n{lines}", finding.topic, counts(finding))
}

fn counts(finding: &Finding) -> String {
    let mut parts = Vec::new();
    if finding.count > 0 {
        parts.push(finding.unit.counted(finding.count));
    }
    if finding.requests > 0 {
        let refused = if finding.refused > 0 { format!(" ({} refused)", finding.refused) } else { String::new() };
        parts.push(counted(finding.requests, "request", "requests") + &refused);
    }
    if finding.events > 0 {
        parts.push(counted(finding.events, "event", "events"));
    }
    parts.join(", ")
}
