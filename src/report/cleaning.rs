//! The result of `clean`, as data and as text: what each copy contains, and what was removed.
//!
//! The text starts with the result, as that of a conversion does. Must not know how a copy was made.

use std::collections::BTreeMap;

use serde::Serialize;

use super::facts::SourceFile;
use super::model::Notice;
use super::table::Table;
use super::text::{notices, outcome};
use super::upgrade_check::{NodeKind, V2Node, V2Request};
use crate::count::counted;
use crate::display::{printable, short};
use crate::error::Error;
use crate::options::{CleanOptions, UpgradeTarget};

/// The columns of the text.
const COLUMNS: usize = 80;

/// The result of a copy without v2 content.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
pub struct Cleaning {
    /// The version of etcdlift.
    pub etcdlift: String,
    /// The exit status of the command.
    pub exit_status: u8,
    /// The reason why the exit status is not 0, as a stable word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The error message, if the run failed. Then it has no output, and `members` and `files` are empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What the operator can do about the error, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The etcd minor version that starts on the output.
    pub target_version: UpgradeTarget,
    /// The path of the output.
    pub output: String,
    /// The ID of the cluster, in lower-case hex; empty if the run failed.
    pub cluster_id: String,
    /// The members, in the order of the command line.
    pub members: Vec<CleanedMember>,
    /// The files of the output, by path in it.
    pub files: Vec<SourceFile>,
    /// The number of v2 keys in the file of `--save-v2`, without directories.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saved_keys: Option<u64>,
    /// The warnings.
    pub warnings: Vec<Notice>,
    /// What the file of `--save-v2` may lack (exit status 8).
    pub losses: Vec<Notice>,
    /// Commands to run next.
    pub next_steps: Vec<String>,
    /// The commands that put each copy in the place of its source.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub in_place_plan: Vec<Swap>,
}

/// A line of the ledger: what was removed from a member.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
pub struct RemovedLine<'l> {
    /// The ID of the member in lower-case hex.
    pub member_id: &'l str,
    /// A node of the snapshot that counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<&'l V2Node>,
    /// A request in the log, which became an empty entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<&'l V2Request>,
}

/// The commands that put a copy in the place of its source.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
pub struct Swap {
    /// The ID of the member in lower-case hex.
    pub member_id: String,
    /// Its name; empty if it is unknown.
    pub name: String,
    /// The commands, in order.
    pub commands: Vec<String>,
}

impl Cleaning {
    /// Creates the result of a run that has made nothing yet.
    pub(crate) fn new(options: &CleanOptions) -> Cleaning {
        Cleaning {
            etcdlift: env!("CARGO_PKG_VERSION").into(),
            target_version: options.target,
            output: options.output.display().to_string(),
            ..Cleaning::default()
        }
    }

    /// Creates the result of a run that failed.
    pub(crate) fn failed(options: &CleanOptions, error: &Error) -> Cleaning {
        Cleaning {
            exit_status: error.kind().exit_code(),
            reason: Some(error.reason().word().into()),
            error: Some(error.to_string()),
            hint: error.hint_text().map(str::to_string),
            ..Cleaning::new(options)
        }
    }

    /// Decides about the exit status. The reason of a partial run (status 8) is the code of its first loss.
    pub(crate) fn judge(&mut self) {
        self.exit_status = if self.losses.is_empty() { 0 } else { 8 };
        self.reason = self.losses.first().map(|loss| loss.code.word().to_string());
    }
}

/// The copy of one member.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
pub struct CleanedMember {
    /// The source as the operator named it.
    pub source: String,
    /// The directory of the copy.
    pub directory: String,
    /// The name of the member; empty if it is unknown.
    pub name: String,
    /// Its ID in lower-case hex.
    pub member_id: String,
    /// The raft index of the snapshot: that of the last entry in the v3 backend.
    pub raft_index: u64,
    /// The term of that entry.
    pub term: u64,
    /// The raft index of the last entry in the log.
    pub last_entry: u64,
    /// The commit index.
    pub commit: u64,
    /// The number of entries after the snapshot.
    pub entries: u64,
    /// v2 nodes in the snapshot of the source, by kind.
    pub removed_nodes: BTreeMap<&'static str, u64>,
    /// v2 requests that became empty entries, by method.
    pub replaced_requests: BTreeMap<String, u64>,
}

impl CleanedMember {
    /// Counts what was removed.
    pub(crate) fn count(&mut self, nodes: &[V2Node], requests: &[V2Request]) {
        for node in nodes {
            *self.removed_nodes.entry(node.kind.word()).or_default() += 1;
        }
        for request in requests {
            *self.replaced_requests.entry(request.method.clone()).or_default() += 1;
        }
    }
}

/// The result in one line.
pub(crate) fn result(found: &Cleaning) -> String {
    format!("{}: {}\n", outcome(&found.losses), printable(&found.output))
}

/// The summary: the result, each member, warnings, next steps.
pub(crate) fn text(found: &Cleaning) -> String {
    let mut text = result(found);
    for member in &found.members {
        text.push('\n');
        text.push_str(&facts(member).wrapped(COLUMNS));
    }
    if let Some(keys) = found.saved_keys {
        text.push_str(&format!("\nsaved: {}\n", counted(keys, "v2 key", "v2 keys")));
    }
    let notices = notices(&found.warnings, &found.losses);
    if !notices.is_empty() {
        text.push_str(&format!("\n{notices}"));
    }
    if !found.next_steps.is_empty() {
        text.push_str("\nnext:\n");
        found.next_steps.iter().for_each(|step| text.push_str(&format!("  {step}\n")));
    }
    for swap in &found.in_place_plan {
        let name = if swap.name.is_empty() { &swap.member_id } else { &swap.name };
        text.push_str(&format!("\nto put it in place of the source, on {}:\n", short(name)));
        swap.commands.iter().for_each(|command| text.push_str(&format!("  {command}\n")));
    }
    text
}

fn facts(member: &CleanedMember) -> Table {
    let mut table = Table::new();
    match member.name.as_str() {
        "" => table.line("member", &member.member_id),
        name => table.line("member", format!("{} ({})", short(name), member.member_id)),
    }
    table.line("source", &member.source);
    table.line("directory", &member.directory);
    table.line("snapshot", format!("raft index {}, term {}", member.raft_index, member.term));
    let entries = counted(member.entries, "entry", "entries");
    table.line("log", format!("{entries} after it, commit index {}", member.commit));
    let kinds = [
        (NodeKind::Key, "key", "keys"),
        (NodeKind::EmptyDirectory, "empty directory", "empty directories"),
        (NodeKind::User, "user", "users"),
        (NodeKind::Role, "role", "roles"),
    ];
    let nodes: Vec<String> = kinds
        .iter()
        .filter_map(|(kind, one, many)| Some(counted(*member.removed_nodes.get(kind.word())?, one, many)))
        .collect();
    table.line("removed nodes", if nodes.is_empty() { "none".to_string() } else { nodes.join(", ") });
    let requests: u64 = member.replaced_requests.values().sum();
    let by_method: Vec<String> =
        member.replaced_requests.iter().map(|(method, count)| format!("{count} {}", short(method))).collect();
    match requests {
        0 => table.line("replaced", "no request"),
        _ => table.line("replaced", format!("{}: {}", counted(requests, "request", "requests"), by_method.join(", "))),
    }
    table
}
