//! The report as text: the summary of a conversion, the tables of an inspection and of a verification.
//!
//! A summary starts with the result. Totals, warnings, losses and next steps follow, in 80 columns where names allow.
//! Each warning, loss and difference is one line. Must not know how the data was found, nor where the text goes.

use super::facts::{Contents, Count, ExistingFacts, Member, SourceFacts};
use super::inspection::{EntryLine, Facts, Inspection, Sha256Check, V3Facts};
use super::model::{Notice, OutputFacts, OutputMember, Report, Stage, Transformed};
use super::next_steps;
use super::verification::{MemberState, Verification};
use crate::count::{bytes, counted, size};
use crate::display::{first_of, printable};
use crate::error::Kind;
use crate::options::{Existing, To};
use crate::report::table::Table;

/// The columns of a summary.
const COLUMNS: usize = 80;

/// How many path elements a summary lists.
const FIRST_ELEMENTS: usize = 10;

/// Returns the result of a conversion in one line.
pub(crate) fn result(report: &Report) -> String {
    let name = printable(&report.options.output.display().to_string());
    let verified = report.output.as_ref().is_some_and(|output| output.verified);
    let (how, what) = match (report.skipped, report.options.dry_run) {
        (true, _) => (", left unchanged", " is what this run would write"),
        (_, true) => (", dry run", " was not written"),
        _ => (if verified { "" } else { ", NOT verified" }, ""),
    };
    format!("{}{how}: {name}{what}\n", outcome(&report.losses))
}

/// Returns the first words of a result. A run with losses ends with status 8.
pub(super) fn outcome(losses: &[Notice]) -> &'static str {
    if losses.is_empty() { "COMPLETE, exit status 0" } else { "INCOMPLETE, exit status 8" }
}

/// Returns the summary of a conversion that wrote an output, or would have written it.
pub(crate) fn summary(report: &Report) -> String {
    let mut table = Table::new();
    table.line("source keys", keys_and_size(report.balance.source));
    table.line("written", keys_and_size(report.balance.written));
    balance_lines(&mut table, report);
    if let Some(Transformed { nodes, pairs, added, .. }) = report.transformed {
        let nodes = counted(nodes, "node", "nodes");
        table.line(
            "transformer",
            format!("{nodes} sent, {} back, {added} without a v2 key", counted(pairs, "pair", "pairs")),
        );
    }
    content_lines(&mut table, &report.contents, &report.as_of);
    if let Some(evidence) = &report.as_of_evidence {
        table.line("last write", format!("{} ({evidence})", report.as_of));
    }
    let auth = &report.auth;
    if auth.users + auth.roles > 0 {
        let (users, roles) = (counted(auth.users, "user", "users"), counted(auth.roles, "role", "roles"));
        let permissions = counted(auth.permissions, "permission", "permissions");
        let state = if auth.enabled { "on" } else { "off" };
        table.line("v3 auth", format!("{state}, {users}, {roles} with {permissions}"));
    }
    if let Some(existing) = &report.existing {
        existing_lines(&mut table, existing);
    }
    if let Some(output) = &report.output {
        lease_lines(&mut table, output);
    }
    if report.tail.entries > 0 {
        let tail = format!("{} left out, including {}", entries(report.tail.entries), v2_writes(report.tail.v2_writes));
        table.line("log tail", tail);
    }
    if let Some(output) = &report.output {
        output_lines(&mut table, report, output);
    }
    source_lines(&mut table, &report.source);
    if !report.stages.is_empty() {
        let stages: Vec<String> = report.stages.iter().map(stage).collect();
        table.line("time", stages.join(", "));
    }
    let notices = notices(&report.warnings, &report.losses);
    let steps = report.output.as_ref().map_or(String::new(), |output| next_steps::text(report, output, COLUMNS));
    parts([result(report), table.wrapped(COLUMNS), notices, steps])
}

/// Describes the time of a stage. The clocks tell nothing of the cores in less than a few milliseconds.
fn stage(stage: &Stage) -> String {
    let Stage { name, ms, cpu_ms, busy_cores, .. } = stage;
    let cpu = if *ms < 5 { String::new() } else { format!(" (CPU {cpu_ms} ms, {busy_cores:.1} cores)") };
    format!("{name} {ms} ms{cpu}")
}

/// Returns a line for each warning and each loss, with its code; a hint has a line of its own.
pub(super) fn notices(warnings: &[Notice], losses: &[Notice]) -> String {
    let line = |kind, notice: &Notice| {
        let hint = notice.hint.as_ref().map_or(String::new(), |hint| format!("hint: {}\n", printable(hint)));
        format!("{kind}: {} [{}]\n{hint}", printable(&notice.message), notice.code)
    };
    let warnings = warnings.iter().map(|warning| line("warning", warning));
    warnings.chain(losses.iter().map(|loss| line("loss", loss))).collect()
}

/// Returns the table of an inspection.
pub(crate) fn inspection(found: &Inspection) -> String {
    let mut table = Table::new();
    table.line("path", &found.path);
    match &found.facts {
        Facts::V2(facts) => {
            source_lines(&mut table, &facts.source);
            version_lines(&mut table, &facts.source);
            for member in &facts.source.members {
                table.line("member", member_line(member));
            }
            table.line("keys", facts.contents.keys);
            table.line("bytes", size(facts.contents.bytes));
            table.line("directories", facts.contents.directories);
            content_lines(&mut table, &facts.contents, "now");
            if facts.tail.entries > 0 {
                let tail = format!("{}, including {}", entries(facts.tail.entries), v2_writes(facts.tail.v2_writes));
                table.line("log tail", tail);
            }
            if let Some(db) = &facts.db {
                table.line("v3 database", size(db.bytes));
                v3_lines(&mut table, db);
            }
        }
        Facts::V3(facts) => {
            table.line("kind", facts.kind);
            table.line("size", size(facts.bytes));
            v3_lines(&mut table, facts);
        }
    }
    let mut files = Table::new();
    for file in &found.source_files {
        files.line("file", &file.path);
        files.line("size", size(file.bytes));
        files.line("sha256", &file.sha256);
    }
    let warnings = notices(&found.warnings, &[]);
    parts([table.wrapped(COLUMNS), files.wrapped(COLUMNS), warnings, key_lines(found)])
}

/// Returns a line for each key, however long: scripts and `grep` read them.
fn key_lines(found: &Inspection) -> String {
    let mut text = String::new();
    for key in found.key_list.iter().flatten() {
        let expiration = key.expiration.as_ref().map(|at| format!("  expires {at}")).unwrap_or_default();
        let (created, modified) = (key.created, key.modified);
        let line = format!(
            "{}  created {created}  modified {modified}  {}{expiration}\n",
            printable(&key.key),
            bytes(key.value_bytes)
        );
        text.push_str(&line);
    }
    text
}

/// Returns the result of a verification in one line.
pub(crate) fn verification_result(found: &Verification) -> String {
    let path = printable(&found.path);
    if found.differences.is_empty() {
        format!("VERIFIED, exit status 0: {path}\n")
    } else {
        format!("NOT VERIFIED, exit status {}: {path}\n", Kind::Verify.exit_code())
    }
}

/// Returns the summary of a verification: the result, a table, the warnings, and the differences.
pub(crate) fn verification(found: &Verification) -> String {
    let mut table = Table::new();
    table.line("kind", found.facts.kind);
    table.line("size", size(found.facts.bytes));
    v3_lines(&mut table, &found.facts);
    table.line("file sha256", &found.sha256);
    for member in &found.members {
        let MemberState { directory, consistent_index, commit, .. } = member;
        let id = member.member_id.as_deref().unwrap_or("unknown");
        let at = consistent_index.map_or("unknown".into(), |index| index.to_string());
        table
            .line("directory", format!("{directory}: member {id}, database at raft index {at}, commit index {commit}"));
    }
    if !found.members_not_given.is_empty() {
        table.line("members not given", first_of(&found.members_not_given));
    }
    table.line("checked", found.checked.iter().map(|check| check.word()).collect::<Vec<_>>().join(", "));
    let warnings = notices(&found.warnings, &[]);
    let wrong: String =
        found.differences.iter().map(|difference| format!("wrong: {}\n", printable(difference))).collect();
    parts([verification_result(found), table.wrapped(COLUMNS), warnings, wrong])
}

/// Joins the parts of a summary that have text, with an empty line between them.
fn parts<const N: usize>(parts: [String; N]) -> String {
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
}

fn source_lines(table: &mut Table, source: &SourceFacts) {
    match &source.layout {
        Some(layout) => table.line("kind", format!("{} ({layout})", source.kind)),
        None => table.line("kind", source.kind),
    }
    table.maybe("cluster version", source.cluster_version.as_ref());
    if let Some(file) = &source.snapshot_file {
        let at = |n: Option<u64>| n.map_or("unknown".into(), |n| n.to_string());
        let (term, index) = (at(source.snapshot_term), at(source.snapshot_index));
        table.line("snapshot", format!("{file}, term {term}, raft index {index}"));
    }
    if let (Some(first), Some(last)) = (source.first_entry, source.last_entry) {
        let range = if first == last { format!("entry {first}") } else { format!("entries {first} to {last}") };
        table.line("log", format!("{}, {range}", segments(source.segments)));
    } else if source.segments > 0 {
        table.line("log", format!("{}, no entries", segments(source.segments)));
    }
    for part in &source.parts {
        let start = if part.start { ", start of the replay" } else { "" };
        let (last, taken) = (part.last_entry, entries(part.entries_taken));
        let what = format!("{}: commit index {}, last entry {last}, {taken} used{start}", part.path, part.commit);
        table.line("member's log", what);
    }
    for start in &source.salvage_starts {
        let file = start.snapshot_file.as_deref().unwrap_or("the log from its first entry");
        let chosen = if start.chosen { ", selected" } else { "" };
        let what = match (start.raft_index, start.keys, &start.not_replayed) {
            (Some(raft_index), Some(keys), _) => format!("raft index {raft_index}, {}", counted(keys, "key", "keys")),
            (.., Some(why)) => format!("not replayed: {why}"),
            _ => "not replayed".to_string(),
        };
        table.line("possible start", format!("{file}: {what}{chosen}"));
    }
    if source.commit != source.effective_commit {
        table.maybe("commit index", source.commit);
    }
    if let Some(commit) = source.effective_commit {
        let evidence = source.commit_evidence.as_deref().unwrap_or("evidence unknown");
        let name = if source.commit == Some(commit) { "commit index" } else { "effective commit" };
        table.line(name, format!("{commit} ({evidence})"));
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

/// Adds the possible versions of the server that started last, with proofs.
fn version_lines(table: &mut Table, source: &SourceFacts) {
    table.maybe("replay rules", source.replay_rules.as_ref());
    table.maybe("server version", source.server_versions.as_ref());
    for bound in &source.version_bounds {
        let mut line = format!("{}: {}", bound.bound, bound.proof);
        if let Some(index) = bound.raft_index {
            line.push_str(&format!(" (raft index {index})"));
        }
        if !bound.in_effect {
            line.push_str("; for an earlier server");
        }
        table.line("proof", line);
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
        let nodes = counted(contents.replacements, "node", "nodes");
        table.line("U+FFFD", format!("{nodes} with bytes that are not UTF-8: the source has lost them"));
    }
    table.count("duplicate names", contents.duplicates);
    table.count("oversized values", contents.oversized.len() as u64);
    table.count("renamed keys", contents.renamed);
    table.count("decoded values", contents.decoded);
    let mut first: Vec<(&String, &Count)> = contents.first_elements.iter().collect();
    first.sort_by_key(|(name, count)| (std::cmp::Reverse(count.keys), name.as_str()));
    for (at, (name, count)) in first.iter().take(FIRST_ELEMENTS).enumerate() {
        table.line(if at == 0 { "first elements" } else { "" }, format!("{name}  {}", keys_and_size(**count)));
    }
    let others = contents.other_elements.map_or(0, |others| others.elements);
    let more = (first.len().saturating_sub(FIRST_ELEMENTS) as u64).saturating_add(others);
    if more > 0 {
        table.line("", format!("and {more} more"));
    }
}

fn existing_lines(table: &mut Table, existing: &ExistingFacts) {
    let ExistingFacts { changes, keys, leases, users, roles, .. } = *existing;
    let mut parts = vec![format!("{} of {}", counted(changes, "change", "changes"), counted(keys, "key", "keys"))];
    for (count, one, many) in [(leases, "lease", "leases"), (users, "user", "users"), (roles, "role", "roles")] {
        if count > 0 {
            parts.push(counted(count, one, many));
        }
    }
    let parts = parts.join(", ");
    if existing.preserved {
        table.line("preserved v3 data", format!("{parts}, up to revision {}", existing.revision));
    } else {
        table.line("dropped v3 data", parts);
    }
    table.count("keys in v2 and v3", existing.conflicts.len() as u64);
    table.count("keys only in v3", existing.only_in_v3);
}

fn output_lines(table: &mut Table, report: &Report, output: &OutputFacts) {
    if report.options.existing == Existing::KeepV3 {
        table.line("revision", output.revision);
    } else {
        table.line("revisions", format!("v2 index {} -> v3 revision {}", output.v2_index, output.revision));
    }
    table.line("HashKV", output.hash_kv);
    table.line("status hash", format!("{:x}", output.status_hash));
    let is_new = report.options.to == To::DataDir;
    table.maybe("new cluster", output.cluster_id.as_ref().filter(|_| is_new));
    for member in &output.members {
        let learner = if member.is_learner { ", learner" } else { "" };
        let OutputMember { name, id, directory, peer_urls, .. } = member;
        table.line(
            if is_new { "new member" } else { "member" },
            format!("{name}, {id}{learner}, {}: {directory}", peer_urls.join(",")),
        );
    }
    table.line(if output.members.is_empty() { "output" } else { "database" }, size(output.bytes));
    table.line("sha256", &output.sha256);
}

/// Adds the leases that come from TTLs.
fn lease_lines(table: &mut Table, output: &OutputFacts) {
    if let (Some(first), Some(last)) = (output.lease_list.first(), output.lease_list.last()) {
        let keys: u64 = output.lease_list.iter().map(|lease| lease.keys).sum();
        let count = counted(output.lease_list.len() as u64, "lease", "leases");
        let keys = counted(keys, "key", "keys");
        let seconds = counted(last.ttl.unsigned_abs(), "second", "seconds");
        let range = if first.ttl == last.ttl { seconds } else { format!("{} to {seconds}", first.ttl) };
        table.line("leases", format!("{count} for {keys}, {range}"));
    }
}

fn member_line(member: &Member) -> String {
    let (peers, clients) = (member.peer_urls.join(","), member.client_urls.join(","));
    let learner = if member.is_learner { " learner" } else { "" };
    format!("{} {}{learner} peers={peers} clients={clients}", member.id, member.name)
}

fn v3_lines(table: &mut Table, db: &V3Facts) {
    table.line("pages in use", format!("{} in pages of {} bytes", size(db.db_bytes), db.page_size));
    table.maybe("storage version", db.storage_version.as_ref());
    table.maybe("v3 cluster version", db.cluster_version.as_ref());
    for member in &db.members {
        table.line("v3 member", member_line(member));
    }
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
            Sha256Check::Mismatch => "DAMAGED: the trailer does not match the database",
            Sha256Check::None => "no trailer",
        },
    );
}

fn keys_and_size(count: Count) -> String {
    format!("{}, {}", counted(count.keys, "key", "keys"), size(count.bytes))
}

fn entries(count: u64) -> String {
    counted(count, "entry", "entries")
}

fn v2_writes(count: u64) -> String {
    counted(count, "v2 write", "v2 writes")
}

fn segments(count: u64) -> String {
    counted(count, "segment", "segments")
}

/// Returns one entry of the log, in one line.
pub(crate) fn entry(line: &EntryLine) -> String {
    let key = line.key.as_ref().map(|key| format!(" {key:?}")).unwrap_or_default();
    let value = line.value_bytes.map(|bytes| format!(" {bytes} B")).unwrap_or_default();
    let detail: String = line.detail.iter().map(|detail| format!(" {detail}")).collect();
    let index = line.v2_index.map(|index| format!(" (v2 index {index})")).unwrap_or_default();
    printable(&format!(
        "{:>8} {:>4} {:<11}{key}{value}{detail}: {}{index}",
        line.raft_index, line.term, line.kind, line.effect
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notice::Code;
    use crate::options::ConvertOptions;
    use crate::report::facts::{Layout, SourceKind};
    use crate::report::inspection::{KeyLine, V2Facts, V3Kind};
    use crate::report::model::StageName;

    /// A conversion with a bit of everything.
    fn converted() -> Report {
        let mut report = Report::new(&ConvertOptions::new("default.etcd", "/tmp/demo.db"));
        report.as_of = "2016-05-04T12:00:00Z".into();
        report.source = SourceFacts {
            kind: SourceKind::DataDir,
            layout: Some(Layout::Member),
            snapshot_file: Some("0-1.snap".into()),
            snapshot_term: Some(2),
            snapshot_index: Some(10),
            segments: 1,
            first_entry: Some(11),
            last_entry: Some(20),
            effective_commit: Some(19),
            commit_evidence: Some("HardState".into()),
            v2_index: Some(7),
            ..Default::default()
        };
        report.contents.ttl = Count { keys: 2, bytes: 20 };
        report.contents.expired = Count { keys: 1, bytes: 10 };
        report.contents.users = vec!["root".into(), "b\x1bob".into()];
        report.contents.first_elements.insert("a".into(), Count { keys: 1, bytes: 8 });
        report.contents.first_elements.insert("b".into(), Count { keys: 3, bytes: 4096 });
        report.balance.source = Count { keys: 4, bytes: 4104 };
        report.balance.written = Count { keys: 3, bytes: 4096 };
        report.balance.dropped = Count { keys: 1, bytes: 8 };
        report.tail.entries = 1;
        report.tail.v2_writes = 1;
        report.output = Some(OutputFacts {
            bytes: 65568,
            db_bytes: 65536,
            sha256: "00ff".into(),
            v2_index: 7,
            revision: 7,
            hash_kv: 123,
            status_hash: 0xabc,
            verified: true,
            ..Default::default()
        });
        let ms = std::time::Duration::from_millis;
        report.stages.push(Stage::new(StageName::Open, ms(4), ms(9), [].into_iter()));
        report.stages.push(Stage::new(StageName::Read, ms(12), ms(21), [ms(9), ms(12)].into_iter()));
        report.warnings.push(Notice::new(Code::AuthLeftOut, "2 users are left out"));
        report.losses.push(Notice::new(Code::TailLeftOut, "1 write left out"));
        report.next_steps = next_steps::steps(&report);
        report
    }

    #[test]
    fn the_summary_says_what_happened_and_what_is_next() {
        let expected = "\
INCOMPLETE, exit status 8: /tmp/demo.db

source keys:       4 keys, 4104 bytes (4.0 KiB)
written:           3 keys, 4096 bytes (4.0 KiB)
dropped:           1 key, 8 bytes
TTL keys:          2, 1 expired as of 2016-05-04T12:00:00Z
users:             2 (root, b\\u{1b}ob)
first elements:    b  3 keys, 4096 bytes (4.0 KiB)
                   a  1 key, 8 bytes
log tail:          1 entry left out, including 1 v2 write
revisions:         v2 index 7 -> v3 revision 7
HashKV:            123
status hash:       abc
output:            65568 bytes (64.0 KiB)
sha256:            00ff
kind:              data-dir (member)
snapshot:          0-1.snap, term 2, raft index 10
log:               1 segment, entries 11 to 20
effective commit:  19 (HardState)
v2 index:          7
time:              open 4 ms, read 12 ms (CPU 21 ms, 1.8 cores)

warning: 2 users are left out [auth-left-out]
loss: 1 write left out [tail-left-out]

next, on every member:
  etcdutl snapshot restore /tmp/demo.db \\
    --name NAME \\
    --initial-cluster NAME=PEER_URL,... \\
    --initial-advertise-peer-urls PEER_URL \\
    --data-dir NAME.v3.etcd
then, before the first write: every member must print the hash 123
  etcdctl --endpoints CLIENT_URL endpoint hashkv --cluster --rev 7
";
        assert_eq!(summary(&converted()), expected);
    }

    #[test]
    fn the_quota_is_named_above_two_gib_only() {
        let mut report = converted();
        let mut with = |bytes| {
            report.output.as_mut().unwrap().db_bytes = bytes;
            summary(&report)
        };
        assert!(!with(2 << 30).contains("quota"));
        assert!(with((2 << 30) + 4096).contains("--quota-backend-bytes=4294967296"));
    }

    #[test]
    fn a_run_without_a_write_does_not_claim_one() {
        let mut report = converted();
        report.options.dry_run = true;
        let first = |report: &Report| summary(report).lines().next().unwrap().to_string();
        assert_eq!(first(&report), "INCOMPLETE, exit status 8, dry run: /tmp/demo.db was not written");
        assert!(summary(&report).ends_with("[tail-left-out]\n"));
        report.options.dry_run = false;
        report.skipped = true;
        report.losses.clear();
        assert_eq!(
            first(&report),
            "COMPLETE, exit status 0, left unchanged: /tmp/demo.db is what this run would write"
        );
        report.skipped = false;
        report.output.as_mut().unwrap().verified = false;
        assert_eq!(first(&report), "COMPLETE, exit status 0, NOT verified: /tmp/demo.db");
    }

    #[test]
    fn an_inspection_has_the_names_that_scripts_rely_on() {
        let v3 = V3Facts { kind: V3Kind::Snapshot, revision: 7, sha256: Sha256Check::Good, ..Default::default() };
        let found = |facts| Inspection {
            path: "x".into(),
            facts,
            source_files: Vec::new(),
            key_list: Some(vec![KeyLine { key: "/a\n".into(), created: 1, modified: 2, ..Default::default() }]),
            warnings: vec![Notice::new(Code::Live, "mind")],
        };
        let json = serde_json::to_value(found(Facts::V3(v3))).unwrap();
        for name in ["kind", "revision", "keys", "leases", "hash_kv", "status_hash", "sha256"] {
            assert!(json.get(name).is_some(), "{name}: {json}");
        }
        assert_eq!((&json["sha256"], &json["revision"]), (&"good".into(), &7.into()));

        let facts = V2Facts {
            source: SourceFacts { kind: SourceKind::SnapFile, ..Default::default() },
            contents: Contents { keys: 5, ..Default::default() },
            ..Default::default()
        };
        let v2 = found(Facts::V2(Box::new(facts)));
        let json = serde_json::to_value(&v2).unwrap();
        assert_eq!((&json["kind"], &json["keys"]), (&"snap-file".into(), &5.into()));
        let text = inspection(&v2);
        assert!(text.contains("keys:         5\n"), "{text}");
        assert!(text.ends_with("\nwarning: mind [live]\n\n/a\\n  created 1  modified 2  0 bytes\n"), "{text}");
    }

    #[test]
    fn a_verification_starts_with_its_result_and_fits() {
        use crate::report::verification::Check;

        let mut found = Verification { path: "out.db".into(), sha256: "0f".repeat(32), ..Default::default() };
        assert!(verification(&found).starts_with("VERIFIED, exit status 0: out.db\n\nkind: "));
        found.checked = [Check::Structure, Check::Store, Check::Sha256, Check::Report, Check::Source].repeat(3);
        found.differences.push("a\nb".to_string());
        let text = verification(&found);
        assert!(text.starts_with("NOT VERIFIED, exit status 7: out.db\n\nkind: "), "{text}");
        assert!(text.lines().all(|line| line.len() <= COLUMNS) && text.ends_with("\n\nwrong: a\\nb\n"), "{text}");
    }

    #[test]
    fn a_report_reads_back_as_it_was_written() {
        let report = converted();
        let json = crate::output::report_file::to_json(&report).unwrap();
        assert_eq!(serde_json::from_slice::<Report>(&json).unwrap(), report);
    }
}
