//! The result of `check` as text: the result in one line, then each source with its blockers and leftovers.
//!
//! Every blocker is listed. Names come from a source that may be hostile, so hidden characters are escaped and long names
//! shortened. Must not know how a source was read.

use std::collections::BTreeMap;

use super::next_steps;
use super::table::{Table, aligned};
use super::text::notices;
use super::upgrade_check::{
    Blockers, CheckedSource, Leftovers, NodeKind, NotRead, RequestCounts, UnreadSnapshot, UpgradeCheck, V2Node,
    V2Request, VersionPlace,
};
use crate::count::counted;
use crate::display::{first_of, printable, short};
use crate::options::UpgradeTarget;

/// The columns of the text.
const COLUMNS: usize = 80;

/// What etcd 3.6 prints, for those who search for it.
const REFUSAL: &str = "detected disallowed custom content in v2store";
const PANIC: &str = "detected disallowed v2 WAL for stage --v2-deprecation=write-only";
const DOWNGRADE: &str = "invalid downgrade; server version is lower than determined cluster version";
const UNPARSABLE: &str = "unmarshal should never fail";

/// The whole check. Its first line is the result.
pub(crate) fn check(found: &UpgradeCheck) -> String {
    let mut text = result(found);
    for source in &found.sources {
        text.push('\n');
        text.push_str(&facts(source, found).wrapped(COLUMNS));
        text.push_str(&list("blockers in the snapshot:", nodes(&source.blockers.nodes)));
        text.push_str(&list("blockers in the log:", requests(&source.blockers.entries)));
        let unseen = format!("not seen by etcd {}, so they would be lost:", found.target_version);
        text.push_str(&list(&unseen, nodes(&source.leftovers.nodes)));
        let notices = notices(&source.warnings, &source.losses);
        if !notices.is_empty() {
            text.push_str(&format!("\n{notices}"));
        }
        text.push_str(&steps(source));
    }
    text
}

/// The result in one line.
pub(crate) fn result(found: &UpgradeCheck) -> String {
    let (status, version) = (found.exit_status, found.target_version);
    let of = |wanted: fn(&CheckedSource) -> bool| found.sources.iter().filter(move |source| wanted(source));
    let place = |mut sources: Box<dyn Iterator<Item = &CheckedSource> + '_>| {
        let first = sources.next().map_or(String::new(), |source| short(&source.path));
        match sources.count() {
            0 => first,
            more => format!("{first} and {more} more"),
        }
    };
    if found.verdict.is_blocked() {
        let blocked = place(Box::new(of(|source| source.verdict.is_blocked())));
        return format!("BLOCKED, exit status {status}: etcd {version} does not start on {blocked}\n");
    }
    if of(|source| source.error.is_some()).next().is_some() {
        let unknown = place(Box::new(of(|source| source.error.is_some())));
        return format!("NOT CHECKED, exit status {status}: {unknown}\n");
    }
    if of(CheckedSource::loses_data).next().is_some() {
        let losing = place(Box::new(of(CheckedSource::loses_data)));
        return format!("DATA LOSS, exit status {status}: etcd {version} starts without the v2 data of {losing}\n");
    }
    if of(|source| !source.losses.is_empty()).next().is_some() {
        let cut = place(Box::new(of(|source| !source.losses.is_empty())));
        return format!("UNCERTAIN, exit status {status}: possibly incomplete: {cut}\n");
    }
    let all = match found.sources.len() {
        1 => place(Box::new(found.sources.iter())),
        count => format!("all {count} sources"),
    };
    format!("CLEAN, exit status {status}: no v2 content stops etcd {version} on {all}\n")
}

/// Why the exit status is not 0: one line for each source.
pub(crate) fn reasons(found: &UpgradeCheck) -> Vec<String> {
    found.sources.iter().filter_map(|source| reason(source, found)).collect()
}

fn reason(source: &CheckedSource, found: &UpgradeCheck) -> Option<String> {
    let (path, version) = (&source.path, found.target_version);
    if let Some(error) = &source.error {
        return Some(error.clone());
    }
    if let Some(later) = &source.blockers.later_version {
        return Some(format!("{path}: etcd {version} does not start: {}", later.phrase()));
    }
    if source.verdict.is_blocked() {
        let nodes = counted(source.blockers.nodes.len() as u64, "v2 node", "v2 nodes");
        let entries = counted(source.blockers.entries.len() as u64, "v2 request", "v2 requests");
        return Some(format!("{path}: etcd {version} does not start: {nodes} in the snapshot, {entries} in the log"));
    }
    if source.loses_data() {
        return Some(format!("{path}: etcd {version} starts without the v2 data in it"));
    }
    source.losses.first().map(|loss| format!("{path}: possibly incomplete: {}", loss.message))
}

fn facts(source: &CheckedSource, found: &UpgradeCheck) -> Table {
    let mut table = Table::new();
    table.line("source", &source.path);
    table.line("verdict", source.verdict);
    if let Some(error) = &source.error {
        table.line("error", error);
        return table;
    }
    match &source.snapshot {
        Some(counting) => {
            let name = counting.path.rsplit('/').next().unwrap_or_default();
            table.line(
                "snapshot",
                format!("{name}, raft index {}, v2 index {}", counting.raft_index, counting.v2_index),
            );
        }
        None => table.line("snapshot", "none that the log has a committed record of"),
    }
    table.line("log", log(source));
    let Blockers { later_version, nodes, entries } = &source.blockers;
    let version = found.target_version;
    if let Some(later) = later_version {
        let says = match later.place {
            VersionPlace::Storage => format!("version {:?} is not supported", short(&later.version)),
            VersionPlace::Cluster | VersionPlace::Log => DOWNGRADE.to_string(),
        };
        table.line("later version", format!("{}: etcd {version} refuses, \"{says}\"", later.phrase()));
    }
    if !nodes.is_empty() {
        table.line("snapshot has", format!("{}: etcd {version} refuses, \"{REFUSAL}\"", counts(&by_kind(nodes))));
    }
    if !entries.is_empty() {
        let says = if version == UpgradeTarget::V3_6 { PANIC } else { UNPARSABLE };
        let count = counted(entries.len() as u64, "v2 request", "v2 requests");
        table.line("log has", format!("{count}: etcd {version} panics, \"{says}\""));
        let open = entries.iter().filter(|entry| !entry.committed).count() as u64;
        if open > 0 {
            let count = counted(open, "request is", "requests are");
            table.line("", format!("{count} above the commit index; they count once the cluster commits them"));
        }
    }
    if !source.refused_before_3_6_3.is_empty() && nodes.is_empty() {
        let paths: Vec<String> = source.refused_before_3_6_3.iter().map(|node| node.path.clone()).collect();
        let who = "3.6.0 to 3.6.2, and 3.5 before 3.5.22 with --v2-deprecation=write-only, also refuse";
        table.line("older releases", format!("{who} {}", first_of(&paths)));
    }
    leftovers(&mut table, &source.leftovers);
    table
}

/// The part of the log that the version reads.
fn log(source: &CheckedSource) -> String {
    let last = source.last_entry.unwrap_or_default().max(source.replay_after);
    let range = match last - source.replay_after {
        0 => "no entry is read".to_string(),
        1 => format!("entry {last} is read"),
        _ => format!("entries {} to {last} are read", source.replay_after + 1),
    };
    format!("{range}; commit index {}", source.commit)
}

fn leftovers(table: &mut Table, leftovers: &Leftovers) {
    let Leftovers { nodes, snapshots, requests, broken_segments } = leftovers;
    let mut name = "leftovers";
    let mut line = |text: String| table.line(std::mem::take(&mut name), text);
    if !nodes.is_empty() {
        line(format!("{} in the snapshot, not seen", counts(&by_kind(nodes))));
    }
    if let Some(RequestCounts { count, first_index, last_index, lost_writes, .. }) = requests {
        let requests = counted(*count, "v2 request", "v2 requests");
        line(format!("{requests} in the log that do not count, entries {first_index} to {last_index}"));
        if *lost_writes > 0 {
            line(format!("{} after the snapshot would be lost", counted(*lost_writes, "v2 write", "v2 writes")));
        }
    }
    for snapshot in snapshots {
        line(unread(snapshot));
    }
    for segment in broken_segments {
        line(format!("{} is not read", file_name(segment)));
    }
}

fn unread(snapshot: &UnreadSnapshot) -> String {
    let name = file_name(&snapshot.path);
    let why = match snapshot.not_read {
        NotRead::Older => "older",
        NotRead::NoRecord => "the log has no committed record of it",
        NotRead::Broken => "renamed",
        NotRead::Damaged => "damaged",
    };
    match &snapshot.error {
        Some(error) => format!("{name} ({why}): {error}"),
        None if snapshot.nodes.is_empty() => format!("{name} ({why}): no v2 data"),
        None => format!("{name} ({why}): {}", counts(&snapshot.nodes)),
    }
}

fn file_name(path: &str) -> String {
    short(path.rsplit('/').next().unwrap_or_default())
}

fn by_kind(nodes: &[V2Node]) -> BTreeMap<&'static str, u64> {
    let mut kinds = BTreeMap::new();
    for node in nodes {
        *kinds.entry(node.kind.word()).or_default() += 1;
    }
    kinds
}

fn counts(by_kind: &BTreeMap<&'static str, u64>) -> String {
    let named = [
        (NodeKind::Key, "key", "keys"),
        (NodeKind::EmptyDirectory, "empty directory", "empty directories"),
        (NodeKind::User, "user", "users"),
        (NodeKind::Role, "role", "roles"),
    ];
    let count =
        |(kind, one, many): &(NodeKind, &str, &str)| by_kind.get(kind.word()).map(|count| counted(*count, one, many));
    named.iter().filter_map(count).collect::<Vec<_>>().join(", ")
}

fn list(heading: &str, rows: Vec<Vec<String>>) -> String {
    if rows.len() < 2 {
        return String::new();
    }
    let indented: Vec<Vec<String>> = rows
        .into_iter()
        .map(|mut row| {
            row.iter_mut().take(1).for_each(|cell| cell.insert_str(0, "  "));
            row
        })
        .collect();
    format!("\n{heading}\n{}", aligned(&indented))
}

fn nodes(nodes: &[V2Node]) -> Vec<Vec<String>> {
    let head = ["kind", "v2 index", "path"].map(String::from).to_vec();
    let row = |node: &V2Node| {
        let expires = node.expiration.as_ref().map_or(String::new(), |at| format!(" (expires {at})"));
        let kind = node.kind.word().replace('-', " ");
        vec![kind, node.modified_index.to_string(), short(&node.path) + &expires]
    };
    std::iter::once(head).chain(nodes.iter().map(row)).collect()
}

fn requests(requests: &[V2Request]) -> Vec<Vec<String>> {
    let head = ["raft index", "why", "method", "path"].map(String::from).to_vec();
    let row = |request: &V2Request| {
        let open = if request.committed { "" } else { ", not committed" };
        let why = format!("{}{open}", request.reason.phrase());
        vec![request.raft_index.to_string(), why, printable(&request.method), short(&request.path)]
    };
    std::iter::once(head).chain(requests.iter().map(row)).collect()
}

fn steps(source: &CheckedSource) -> String {
    let mut text = String::new();
    for (command, heading) in source.next_steps.iter().zip(["next:", "or, without the v2 data:"]) {
        text.push_str(&format!("\n{heading}\n{}", next_steps::lines(command, COLUMNS)));
    }
    text
}
