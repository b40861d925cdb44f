//! The report as people read it: the closing summary of a conversion, and the table of an inspection.
//!
//! Compact: a line only where there is something to say, and the next step as a command that can be pasted. Reads the data
//! of this folder and nothing else.

use std::path::Path;

use super::facts::{Contents, Count, SourceFacts};
use super::inspection::{Facts, Inspection, Sha256Check, V3Facts};
use super::model::{OutputFacts, Report};
use super::table::{Table, printable, size};
use crate::options::{Target, To};

/// The quota that etcd starts with unless told otherwise.
const DEFAULT_QUOTA: u64 = 2 << 30;

/// Path elements that a summary lists; the report has all.
const FIRST_ELEMENTS: usize = 10;

/// The closing summary of a conversion that has made an output (or would have, in a dry run).
pub fn summary(report: &Report) -> String {
    let mut table = Table::new();
    source_lines(&mut table, &report.source);
    table.line("source keys", keys_and_size(report.balance.source));
    table.line("written", keys_and_size(report.balance.written));
    balance_lines(&mut table, report);
    content_lines(&mut table, &report.contents, &report.as_of);
    if report.tail.entries > 0 {
        let tail = format!("{} entries left out, {} of them v2 writes", report.tail.entries, report.tail.v2_writes);
        table.line("log tail", tail);
    }
    if let Some(output) = &report.output {
        output_lines(&mut table, output);
    }
    if !report.stages.is_empty() {
        let stages: Vec<String> = report.stages.iter().map(|stage| format!("{} {} ms", stage.name, stage.ms)).collect();
        table.line("time", stages.join(", "));
    }
    let mut text = table.to_string();
    for warning in &report.warnings {
        text.push_str(&format!("warning: {}\n", printable(&warning.message)));
    }
    for loss in &report.losses {
        text.push_str(&format!("perhaps not all: {}\n", printable(&loss.message)));
    }
    if let Some(output) = &report.output {
        text.push_str(&ending(report, output));
    }
    text
}

/// The table of an inspection.
pub fn inspection(found: &Inspection) -> String {
    let mut table = Table::new();
    table.line("path", &found.path);
    match &found.facts {
        Facts::V2(facts) => {
            source_lines(&mut table, &facts.source);
            for member in &facts.source.members {
                let (peers, clients) = (member.peer_urls.join(","), member.client_urls.join(","));
                table.line("member", format!("{} {} peers={peers} clients={clients}", member.id, member.name));
            }
            table.line("keys", facts.contents.keys);
            table.line("bytes", size(facts.contents.bytes));
            table.line("directories", facts.contents.directories);
            content_lines(&mut table, &facts.contents, "now");
            if facts.tail.entries > 0 {
                let tail = format!("{} entries, {} of them v2 writes", facts.tail.entries, facts.tail.v2_writes);
                table.line("log tail", tail);
            }
            if let Some(db) = &facts.db {
                table.line("v3 database", size(db.bytes));
                v3_lines(&mut table, db);
            }
        }
        Facts::V3(facts) => {
            table.line("kind", &facts.kind);
            table.line("size", size(facts.bytes));
            v3_lines(&mut table, facts);
        }
    }
    for file in &found.source_files {
        table.line("file", format!("{}  {}  {}", file.path, size(file.bytes), file.sha256));
    }
    let mut text = table.to_string();
    for warning in &found.warnings {
        text.push_str(&format!("warning: {}\n", printable(&warning.message)));
    }
    for key in found.key_list.iter().flatten() {
        let expiration = key.expiration.as_ref().map(|at| format!("  expires {at}")).unwrap_or_default();
        let (created, modified) = (key.created, key.modified);
        let line = format!("{}  created {created}  modified {modified}  {} bytes{expiration}\n", printable(&key.key), key.value_bytes);
        text.push_str(&line);
    }
    text
}

fn source_lines(table: &mut Table, source: &SourceFacts) {
    match &source.layout {
        Some(layout) => table.line("kind", format!("{} ({layout})", source.kind)),
        None => table.line("kind", &source.kind),
    }
    table.maybe("cluster version", source.cluster_version.as_ref());
    if let Some(file) = &source.snapshot_file {
        let at = |n: Option<u64>| n.map_or("unknown".into(), |n| n.to_string());
        let (term, index) = (at(source.snapshot_term), at(source.snapshot_index));
        table.line("snapshot", format!("{file}, term {term}, raft index {index}"));
    }
    if let (Some(first), Some(last)) = (source.first_entry, source.last_entry) {
        table.line("log", format!("{} segments, entries {first} to {last}", source.segments));
    } else if source.segments > 0 {
        table.line("log", format!("{} segments, no entries", source.segments));
    }
    table.maybe("commit", source.commit);
    if let Some(commit) = source.effective_commit {
        let evidence = source.commit_evidence.as_deref().unwrap_or("evidence unknown");
        table.line("effective commit", format!("{commit} ({evidence})"));
    }
    table.maybe("raft index", source.raft_index);
    table.maybe("v2 index", source.v2_index);
    table.maybe("last SYNC", source.last_sync.as_ref());
    table.maybe("torn tail", source.torn_tail.map(|offset| format!("at byte {offset} of the last segment")));
    table.maybe("cluster id", source.cluster_id.as_ref());
    table.maybe("member id", source.member_id.as_ref());
    if !source.voters.is_empty() {
        table.line("voters", source.voters.join(", "));
    }
}

fn balance_lines(table: &mut Table, report: &Report) {
    let balance = &report.balance;
    for (name, count) in [("expired", balance.expired), ("excluded", balance.excluded), ("dropped", balance.dropped)] {
        if count.keys > 0 {
            table.line(name, keys_and_size(count));
        }
    }
}

fn content_lines(table: &mut Table, contents: &Contents, as_of: &str) {
    table.count("hidden keys", contents.hidden.keys);
    if contents.ttl.keys > 0 {
        table.line("TTL keys", format!("{}, {} expired as of {as_of}", contents.ttl.keys, contents.expired.keys));
    }
    table.count("empty directories", contents.empty_directories);
    if let Some(enabled) = contents.auth_enabled {
        table.line("auth", if enabled { "enabled" } else { "disabled" });
    }
    for (name, list) in [("users", &contents.users), ("roles", &contents.roles)] {
        if !list.is_empty() {
            table.line(name, format!("{} ({})", list.len(), list.join(", ")));
        }
    }
    if contents.replacements > 0 {
        let what = "nodes: bytes that were no UTF-8 are lost in the source";
        table.line("U+FFFD", format!("{} {what}", contents.replacements));
    }
    table.count("oversized values", contents.oversized.len() as u64);
    let mut first: Vec<(&String, &Count)> = contents.first_elements.iter().collect();
    first.sort_by_key(|(name, count)| (std::cmp::Reverse(count.keys), name.as_str()));
    for (at, (name, count)) in first.iter().take(FIRST_ELEMENTS).enumerate() {
        table.line(if at == 0 { "first elements" } else { "" }, format!("{name}  {}", keys_and_size(**count)));
    }
    if first.len() > FIRST_ELEMENTS {
        table.line("", format!("and {} more", first.len() - FIRST_ELEMENTS));
    }
}

fn output_lines(table: &mut Table, output: &OutputFacts) {
    table.line("revisions", format!("v2 index {} -> v3 revision {}", output.v2_index, output.revision));
    table.line("HashKV", output.hash_kv);
    table.line("status hash", format!("{:x}", output.status_hash));
    table.line("output", size(output.bytes));
    table.line("sha256", &output.sha256);
}

fn v3_lines(table: &mut Table, db: &V3Facts) {
    table.line("pages in use", format!("{} in pages of {} bytes", size(db.db_bytes), db.page_size));
    table.maybe("storage version", db.storage_version.as_ref());
    table.maybe("consistent index", db.consistent_index);
    table.line("revision", db.revision);
    table.maybe("compact revision", db.compact_revision);
    table.line("v3 keys", db.keys);
    table.line("leases", db.leases);
    table.count("v3 users", db.users);
    table.count("v3 roles", db.roles);
    table.line("HashKV", db.hash_kv);
    table.line("status hash", format!("{:x}", db.status_hash));
    table.line(
        "sha256",
        match db.sha256 {
            Sha256Check::Good => "good",
            Sha256Check::Bad => "BAD: the trailer does not match the database",
            Sha256Check::None => "no trailer",
        },
    );
}

fn ending(report: &Report, output: &OutputFacts) -> String {
    let out = &report.options.output;
    let name = printable(&out.display().to_string());
    let mut text = match (report.options.dry_run, report.skipped, output.verified) {
        (_, true, _) => format!("left alone: {name} is what this run would make\n"),
        (true, _, _) => return format!("dry run: {name} was not written\n"),
        (_, _, true) => format!("done, verified: {name}\n"),
        (_, _, false) => format!("done, NOT verified: {name}\n"),
    };
    text.push_str("next, on every member:\n");
    text.push_str(&format!("  {}\n", restore_command(report, out)));
    text.push_str(&format!(
        "then: `etcdctl endpoint hashkv --cluster --rev {}` must print {}\n",
        output.revision, output.hash_kv
    ));
    if output.db_bytes > DEFAULT_QUOTA {
        text.push_str(&format!(
            "the database is larger than etcd's default quota of 2 GiB: start etcd with --quota-backend-bytes={}\n",
            quota_for(output.db_bytes)
        ));
    }
    text
}

fn restore_command(report: &Report, out: &Path) -> String {
    let tool = match report.options.target {
        Target::V3_4 => "ETCDCTL_API=3 etcdctl",
        Target::V3_5 | Target::V3_6 | Target::V3_7 => "etcdutl",
    };
    let skip = match report.options.to {
        To::Snapshot => "",
        To::Backend => " --skip-hash-check",
    };
    let identity = "--name NAME --initial-cluster NAME=PEER_URL,... --initial-advertise-peer-urls PEER_URL";
    format!("{tool} snapshot restore {}{skip} --data-dir NEW_DATA_DIR {identity}", quoted(out))
}

/// Half as much again, in whole GiB: room to write before the quota alarm.
fn quota_for(db_bytes: u64) -> u64 {
    db_bytes.saturating_add(db_bytes / 2).div_ceil(1 << 30).saturating_mul(1 << 30)
}

/// A path as a POSIX shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let dashed = if text.starts_with('-') { format!("./{text}") } else { text };
    if dashed.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+=:,@%".contains(&b)) {
        return dashed;
    }
    format!("'{}'", printable(&dashed.replace('\'', r"'\''")))
}

fn keys_and_size(count: Count) -> String {
    format!("{} keys, {}", count.keys, size(count.bytes))
}
