//! The result of `compare` as text: the verdict, a table of the members, the findings, the member to convert.
//!
//! Names come from a source that may be hostile, so hidden characters are escaped. Must not know how the members were read.

use std::collections::BTreeSet;

use super::comparison::{ComparedMember, ComparedTail, Comparison, Differs, EntryCounts, Rest, Status, Verdict};
use super::next_steps;
use super::table::{Table, aligned};
use super::text::notices;
use crate::count::counted;
use crate::display::{printable, short};

/// The columns of the text.
const COLUMNS: usize = 80;

/// Digits of a content hash in the table.
const HASH_DIGITS: usize = 12;

/// Returns the whole comparison. Its first line is the result.
pub(crate) fn comparison(found: &Comparison) -> String {
    let mut text = result(found) + "\n" + &members(found) + "\n" + &facts(found).wrapped(COLUMNS);
    for line in found.members.iter().filter(|line| !line.nodes.is_empty()) {
        text.push_str(&nodes(line, found));
    }
    let notices = notices(&found.warnings, &[]);
    if !notices.is_empty() {
        text.push_str(&format!("\n{notices}"));
    }
    if let Some(command) = &found.next_step {
        text.push_str(&format!("\nnext:\n{}", next_steps::lines(command, COLUMNS)));
    }
    text
}

/// Returns the verdict in one line.
pub(crate) fn result(found: &Comparison) -> String {
    let status = found.exit_status;
    let first = || printable(found.reasons.first().map_or("", String::as_str));
    match found.verdict {
        Verdict::Converged => {
            let (count, missing) = (found.members.len(), found.voters_not_read.len());
            let not_read = match missing {
                0 => String::new(),
                missing => format!("; {missing} of {} not read", counted(found.voters.len() as u64, "voter", "voters")),
            };
            format!("CONVERGED, exit status {status}: the {count} members have the same content{not_read}\n")
        }
        Verdict::ExceptEmptyEntries => {
            let most = found.members.iter().map(|line| line.behind.max(line.lacks)).max().unwrap_or(0);
            let guide = match most {
                0 | 1 => "which the migration guide of etcd allows",
                _ => "none of which changes data; the migration guide of etcd allows 1",
            };
            let most = counted(most, "entry", "entries");
            format!(
                "CONVERGED except for empty entries, exit status {status}: at most {most} without effect, {guide}\n"
            )
        }
        Verdict::Differ => format!("DIFFER, exit status {status}: {}\n", first()),
        Verdict::NotProven => format!("NOT PROVEN, exit status {status}: {}\n", first()),
    }
}

/// Returns a table with one column for each member.
fn members(found: &Comparison) -> String {
    let number = |value: Option<u64>| value.map_or("-".to_string(), |value| value.to_string());
    let hash =
        |hash: &Option<String>| hash.as_ref().map_or("-".to_string(), |hash| hash.chars().take(HASH_DIGITS).collect());
    let v3 = |line: &ComparedMember, of: fn(&super::comparison::ComparedV3) -> Option<u64>| {
        number(line.v3.as_ref().and_then(of))
    };
    let labels = labels(found);
    type Cell<'c> = Box<dyn Fn(&ComparedMember) -> String + 'c>;
    let mut rows: Vec<(String, Cell<'_>)> = vec![
        ("result".into(), Box::new(|line| line.status.to_string())),
        ("name".into(), Box::new(|line| line.name.as_deref().map_or("-".into(), short))),
        ("member id".into(), Box::new(|line| line.member_id.clone().unwrap_or("-".into()))),
        ("start snapshot".into(), Box::new(move |line| number(line.snapshot_index))),
        ("last entry".into(), Box::new(move |line| number(line.last_entry))),
        ("last term".into(), Box::new(move |line| number(line.last_term))),
        ("commit index".into(), Box::new(move |line| number(line.commit))),
        ("applied index".into(), Box::new(move |line| number(line.raft_index))),
        ("v2 index".into(), Box::new(move |line| number(line.v2_index))),
        ("content".into(), Box::new(move |line| hash(&line.content_hash))),
    ];
    if found.members.iter().any(|line| line.raft_index.is_some_and(|index| index != found.common_index)) {
        rows.push((format!("content at {}", found.common_index), Box::new(move |line| hash(&line.common_hash))));
    }
    if let Some(common) = &found.v3 {
        rows.push(("v3 revision".into(), Box::new(move |line| v3(line, |v3| Some(v3.revision)))));
        rows.push(("compact revision".into(), Box::new(move |line| v3(line, |v3| v3.compact_revision))));
        rows.push(("consistent index".into(), Box::new(move |line| v3(line, |v3| v3.consistent_index))));
        let at = format!("HashKV at {}", common.revision);
        rows.push((at, Box::new(move |line| v3(line, |v3| v3.common_hash_kv.map(u64::from)))));
    }
    let mut cells: Vec<Vec<String>> = vec![std::iter::once(String::new()).chain(labels).collect()];
    for (name, cell) in &rows {
        let row: Vec<String> = found.members.iter().map(|line| printable(&cell(line))).collect();
        if row.iter().any(|cell| cell != "-") {
            cells.push(std::iter::once(name.clone()).chain(row).collect());
        }
    }
    aligned(&cells)
}

/// Returns the last parts of the paths, as many as tell them apart.
fn labels(found: &Comparison) -> Vec<String> {
    let parts: Vec<Vec<&str>> =
        found.members.iter().map(|line| line.path.split('/').filter(|part| !part.is_empty()).collect()).collect();
    let most = parts.iter().map(Vec::len).max().unwrap_or(0);
    let of = |count: usize| -> Vec<String> {
        let last = |parts: &Vec<&str>| parts.get(parts.len().saturating_sub(count)..).unwrap_or_default().join("/");
        parts.iter().map(last).collect()
    };
    let differ = |labels: &Vec<String>| labels.iter().collect::<BTreeSet<_>>().len() == labels.len();
    let labels = (1..=most).map(of).find(differ);
    let labels = labels.unwrap_or_else(|| found.members.iter().map(|line| line.path.clone()).collect());
    labels.iter().map(|label| short(label)).collect()
}

fn facts(found: &Comparison) -> Table {
    let mut table = Table::new();
    table.maybe("cluster id", found.cluster_id.as_ref());
    let voters = found.voters.len();
    let missing: Vec<String> = found.voters_not_read.iter().map(|id| named(id, found)).collect();
    let read = format!("{} of {voters} read", voters.saturating_sub(missing.len()));
    let missing = if missing.is_empty() { String::new() } else { format!("; not read: {}", missing.join(", ")) };
    table.line("voters", read + &missing);
    let read = found.members.iter().filter(|line| line.error.is_none());
    let equal = read.clone().filter_map(|line| line.common_hash.as_ref()).collect::<Vec<_>>();
    let common = match (equal.windows(2).all(|pair| pair.first() == pair.last()), equal.len() == read.count()) {
        _ if equal.len() < 2 => "nothing to compare with",
        (true, true) => "the same content in all members",
        (true, false) => "the same content in the members that can be replayed to it",
        (false, _) => "not the same content in all members",
    };
    table.line("common index", format!("{}, {common}", found.common_index));
    if let Some(why) = found.v3.as_ref().and_then(|v3| v3.not_comparable.as_ref()) {
        table.line("HashKV", format!("not comparable: {why}"));
    }
    for (line, mut label) in found.members.iter().zip(labels(found)) {
        for finding in line.error.iter().chain(&line.findings) {
            table.line(&std::mem::take(&mut label), finding);
        }
    }
    tail_lines(&mut table, &found.tail, found.voters.len());
    match &found.convert {
        Some(path) => table.line("convert", format!("{path}{}", why_this(found))),
        None => {
            table.line("convert", "nothing tells which member is right: convert each alone, and compare the results")
        }
    }
    table
}

/// Returns a voter by its ID, with its name if a store has it.
fn named(id: &String, found: &Comparison) -> String {
    let member = found.members.iter().flat_map(|line| &line.members).find(|member| member.id == *id);
    member.filter(|member| !member.name.is_empty()).map_or(id.clone(), |member| format!("{id} ({})", member.name))
}

fn why_this(found: &Comparison) -> String {
    if found.tail.committed_to.is_some() && found.tail.entries.may_change_data() {
        return ", with the others: their logs together prove what is committed".to_string();
    }
    let index = found.members.iter().find(|line| line.path == found.reference).and_then(|line| line.raft_index);
    let as_far = |line: &&ComparedMember| line.status != Status::Removed && line.raft_index == index;
    let index = index.map_or("unknown".to_string(), |index| index.to_string());
    match found.members.iter().filter(as_far).count() {
        0 | 1 => format!(", which has the most advanced committed state (raft index {index})"),
        count => format!(", the first of {count} members with the most advanced committed state (raft index {index})"),
    }
}

fn tail_lines(table: &mut Table, tail: &ComparedTail, voters: usize) {
    let Some((first, last)) = tail.range else { return };
    let entries = |from: u64, counts: &EntryCounts| {
        let range = if from == last { format!("entry {from}") } else { format!("entries {from} to {last}") };
        format!("{range} ({counts})")
    };
    let mut name = "log tail";
    if let (Some(to), Some(proof)) = (tail.committed_to, &tail.proof) {
        let range = if first == to { format!("entry {to} is") } else { format!("entries {first} to {to} are") };
        table.line(name, format!("{range} committed: {proof}"));
        name = "";
    }
    let rest = entries(tail.committed_to.unwrap_or(first.saturating_sub(1)).saturating_add(1), &tail.rest_entries);
    let held = format!("at most {} of {voters} voters hold them", tail.held_by);
    match tail.rest {
        Rest::None => {}
        Rest::NotCommitted => {
            table.line(
                name,
                format!("{rest}: not committed, because {held}; the next leader commits them if it holds them"),
            );
        }
        Rest::Undecided if tail.more_members_decide => {
            table.line(name, format!("{rest}: not decided; the data of more voters would decide"));
        }
        Rest::Undecided if tail.live => table.line(name, format!("{rest}: not decided while an etcd is running")),
        Rest::Undecided => table.line(name, format!("{rest}: not decided; the next election of the cluster decides")),
    }
    for write in &tail.writes {
        table.line("", format!("{} {} at raft index {}", write.method, short(&write.key), write.raft_index));
    }
}

/// Returns the nodes in which a member differs.
fn nodes(line: &ComparedMember, found: &Comparison) -> String {
    let (path, reference) = (printable(&line.path), printable(&found.reference));
    let count = counted(line.differing_nodes, "node differs", "nodes differ");
    let mut text = match line.nodes_compared_at {
        Some((own, other)) if own != other => {
            format!("\n{path} at raft index {own}: {count} from {reference} at {other}:\n")
        }
        at => format!("\n{path}: {count} from {reference} at raft index {}:\n", at.map_or(0, |(own, _)| own)),
    };
    for node in &line.nodes {
        let differs: Vec<&str> = node.differs.iter().map(|differs| words(*differs)).collect();
        text.push_str(&format!("  {}: {}\n", short(&node.key), differs.join(", ")));
    }
    let more = line.differing_nodes.saturating_sub(line.nodes.len() as u64);
    if more > 0 {
        text.push_str(&format!("  and {more} more\n"));
    }
    text
}

fn words(differs: Differs) -> &'static str {
    match differs {
        Differs::Missing => "missing",
        Differs::Extra => "extra",
        Differs::Kind => "a directory in one, a key in the other",
        Differs::Value => "another value",
        Differs::CreatedIndex => "another created index",
        Differs::ModifiedIndex => "another modified index",
        Differs::Expiration => "another expiration",
    }
}
