//! The report of one conversion: the data for scripts, runbooks and the summary (docs/report.schema.json).
//!
//! Each stage fills in its part, so the report of a failed run contains everything up to the failure. Must not know how
//! it is printed (`text`) or written (`output::report_file`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::facts::{AsOfEvidence, AuthFacts, Contents, Count, ExistingFacts, SourceFacts, SourceFile, Tail, TailWrite};
use crate::count::counted;
use crate::error::Error;
use crate::notice::Code;
use crate::options::{ConvertOptions, Existing};
use crate::words::words;

/// The number of the schema that this version writes.
pub const SCHEMA: u32 = 1;

/// The report of a conversion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
pub struct Report {
    /// The number of the schema: [`SCHEMA`].
    pub schema: u32,
    /// The version of etcdlift that wrote the report.
    pub etcdlift: String,
    /// The time when the run started, RFC 3339.
    pub started: String,
    /// The exit status of the process.
    pub exit_status: u8,
    /// The reason why the exit status is not 0, as a stable word.
    #[serde(default)]
    pub reason: Option<String>,
    /// The error message, if the run failed.
    #[serde(default)]
    pub error: Option<String>,
    /// What the operator can do about the error, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Whether the equal output of an earlier run was left alone.
    #[serde(default)]
    pub skipped: bool,
    /// The options in effect.
    #[cfg_attr(feature = "internals", schemars(with = "std::collections::BTreeMap<String, serde_json::Value>"))]
    pub options: ConvertOptions,
    /// The instant against which TTLs were counted, RFC 3339; empty if the run ended before it was known.
    pub as_of: String,
    /// The proof of this instant in the data (`--as-of last-write`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "internals", schemars(with = "Option<String>"))]
    pub as_of_evidence: Option<AsOfEvidence>,
    /// Every file that was read.
    #[serde(default)]
    pub source_files: Vec<SourceFile>,
    /// The kind of the source, and its position in the history of the cluster.
    #[serde(default)]
    pub source: SourceFacts,
    /// The content of the v2 tree.
    #[serde(default)]
    pub contents: Contents,
    /// What becomes of users and roles.
    #[serde(default)]
    pub auth: AuthFacts,
    /// The v3 data of the source, if it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub existing: Option<ExistingFacts>,
    /// The totals of all source keys.
    #[serde(default)]
    pub balance: Balance,
    /// The entries of the log after the state.
    #[serde(default)]
    pub tail: Tail,
    /// Writes with a possibly different effect than in the cluster: in-order keys and index compares after the snapshot
    /// of a backup by etcdctl 3.3 or later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uncertain: Vec<TailWrite>,
    /// The work of the transformer, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transformed: Option<Transformed>,
    /// The output, if the run made one.
    #[serde(default)]
    pub output: Option<OutputFacts>,
    /// The commands that the operator runs next; empty without an output and after a dry run.
    #[serde(default)]
    pub next_steps: Vec<NextStep>,
    /// The time of each stage, in the order in which they ran.
    #[serde(default)]
    pub stages: Vec<Stage>,
    /// The losses: what the output may lack (exit 8).
    #[serde(default)]
    pub losses: Vec<Notice>,
    /// The warnings.
    #[serde(default)]
    pub warnings: Vec<Notice>,
}

impl Report {
    /// Creates the report of a run that starts now.
    pub fn new(options: &ConvertOptions) -> Self {
        let now = Timestamp::now();
        // TTLs are whole seconds.
        Self::started_at(options, Timestamp::from_second(now.as_second()).unwrap_or(now))
    }

    /// Creates the report of a run that started at `now`.
    pub(crate) fn started_at(options: &ConvertOptions, now: Timestamp) -> Self {
        Report {
            schema: SCHEMA,
            etcdlift: env!("CARGO_PKG_VERSION").into(),
            started: now.to_string(),
            exit_status: 0,
            reason: None,
            error: None,
            hint: None,
            skipped: false,
            options: options.clone(),
            as_of: options.as_of.instant(now).map_or(String::new(), |at| at.to_string()),
            as_of_evidence: None,
            source_files: Vec::new(),
            source: SourceFacts::default(),
            contents: Contents::default(),
            auth: AuthFacts::default(),
            existing: None,
            balance: Balance::default(),
            tail: Tail::default(),
            uncertain: Vec::new(),
            transformed: None,
            output: None,
            next_steps: Vec::new(),
            stages: Vec::new(),
            losses: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Adds the warnings and losses of a stage.
    pub(crate) fn add(&mut self, notices: Notices) {
        self.warnings.extend(notices.warnings);
        self.losses.extend(notices.losses);
    }

    /// Returns the sha256 of the output, if the run makes one.
    pub(crate) fn made(&self) -> Option<&str> {
        self.output.as_ref().filter(|_| !self.options.dry_run).map(|output| output.sha256.as_str())
    }

    /// Records the end of the run. The reason of a partial run (status 8) is the code of its first loss.
    pub(crate) fn end(&mut self, exit_status: u8, error: Option<&Error>) {
        self.exit_status = exit_status;
        self.error = error.map(ToString::to_string);
        self.hint = error.and_then(Error::hint_text).map(str::to_string);
        self.reason = match (error, self.losses.first()) {
            (Some(error), _) => Some(error.reason().word().into()),
            (None, Some(loss)) if exit_status != 0 => Some(loss.code.word().into()),
            _ => None,
        };
        if error.is_some() {
            // A failed run has no output.
            self.output = None;
            self.next_steps.clear();
        }
    }

    /// Returns what `--strict` refuses, one phrase for each; empty if it refuses nothing.
    pub(crate) fn strict_objections(&self) -> Vec<String> {
        let mut found: Vec<String> = self.losses.iter().map(|loss| loss.message.clone()).collect();
        let unused = self.warnings.iter().filter(|warning| warning.code == Code::UnusedRule).count() as u64;
        let contents = &self.contents;
        let (oversized, expired) = (contents.oversized.len() as u64, contents.expired.keys);
        let of_v2 = [
            (contents.replacements, "node with U+FFFD in its name or value", "nodes with U+FFFD in name or value"),
            (oversized, "oversized key", "oversized keys"),
            (expired, "expired key", "expired keys"),
        ];
        // `--existing keep-v3` leaves v2 data out on purpose.
        let of_v2 = of_v2.into_iter().filter(|_| self.options.existing != Existing::KeepV3);
        let all = of_v2.chain([(unused, "rule that matched nothing", "rules that matched nothing")]);
        found.extend(all.filter(|(count, ..)| *count > 0).map(|(count, one, many)| counted(count, one, many)));
        found
    }
}

/// The totals of all source keys: `source` is the sum of the other four.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Balance {
    /// Keys in the source.
    pub source: Count,
    /// Keys in the output.
    pub written: Count,
    /// Keys that are left out because they have expired.
    pub expired: Count,
    /// Keys that a rule leaves out.
    pub excluded: Count,
    /// Keys that a policy leaves out, such as `--hidden drop`.
    pub dropped: Count,
}

impl Balance {
    /// Returns whether the totals add up, in keys and in bytes.
    pub(crate) fn holds(&self) -> bool {
        self.source == self.written.plus(self.expired).plus(self.excluded).plus(self.dropped)
    }
}

/// The work of a transformer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Transformed {
    /// The sha256 of the program's file, if the operator named it by its path.
    pub program_sha256: Option<String>,
    /// The number of nodes that it got, including directories.
    pub nodes: u64,
    /// The number of pairs that it returned.
    pub pairs: u64,
    /// The number of these pairs that belong to no key of the source.
    pub added: u64,
}

/// The output of a conversion.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct OutputFacts {
    /// The size of the file, in bytes.
    pub bytes: u64,
    /// The sha256 of the whole file in lower-case hex, as `sha256sum` prints it.
    pub sha256: String,
    /// The size of the database in bytes, without the trailer of a snapshot file.
    pub db_bytes: u64,
    /// The sha256 of the database, as in the trailer of a snapshot file.
    pub db_sha256: String,
    /// The v2 index of the state.
    pub v2_index: u64,
    /// The current v3 revision after a boot.
    pub revision: u64,
    /// The revision up to which history counts as compacted.
    pub compact_revision: u64,
    /// HashKV at `revision`, as `etcdctl endpoint hashkv` prints it.
    pub hash_kv: u32,
    /// The hash that `etcdutl snapshot status` prints.
    pub status_hash: u32,
    /// The number of changes of keys by the totals: written keys, markers of empty directories, pairs that a
    /// transformer added, and preserved v3 changes.
    pub pairs: u64,
    /// The number of leases.
    pub leases: u64,
    /// The leases that come from v2 TTLs, shortest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lease_list: Vec<LeaseLine>,
    /// The ID of the new cluster in lower-case hex, if the output is the data directory of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// The members whose directories were written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<OutputMember>,
    /// Every file of these directories, by its path in the output; `bytes` and `sha256` of the output are those of the
    /// database.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<SourceFile>,
    /// Whether authentication is enabled.
    pub auth_enabled: bool,
    /// Whether the file was read back, checked and compared with the source.
    pub verified: bool,
}

impl OutputFacts {
    /// Returns the files of an output at this path: path, size in bytes and sha256 of each.
    pub(crate) fn files_at(&self, output: &Path) -> Vec<(PathBuf, u64, String)> {
        if self.files.is_empty() {
            return vec![(output.to_path_buf(), self.bytes, self.sha256.clone())];
        }
        self.files.iter().map(|file| (output.join(&file.path), file.bytes, file.sha256.clone())).collect()
    }
}

/// A member of a new cluster, and its directory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct OutputMember {
    /// The name.
    pub name: String,
    /// The ID in lower-case hex.
    pub id: String,
    /// The path of the data directory.
    pub directory: String,
    /// The peer URLs.
    pub peer_urls: Vec<String>,
    /// Whether the member does not vote.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_learner: bool,
}

/// A lease, and the number of its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct LeaseLine {
    /// The lease ID; etcdctl prints it in hexadecimal.
    pub id: i64,
    /// The TTL in seconds. It starts when the new cluster elects its leader.
    pub ttl: i64,
    /// The number of keys that expire with it.
    pub keys: u64,
}

words! {
    /// A stage whose time the report contains.
    pub enum StageName {
        /// Opens the sources.
        Open = "open",
        /// Reads the snapshot and hashes all files.
        Read = "read",
        /// Applies the log to the snapshot.
        Replay = "replay",
        /// Decides what is written.
        Plan = "plan",
        /// Runs the transformer.
        Transformer = "transformer",
        /// Computes the pages.
        Layout = "layout",
        /// Writes the output.
        Write = "write",
        /// Reads the output back and compares it.
        Verify = "verify",
        /// Makes the ledger.
        Ledger = "ledger",
        /// Makes the index map.
        IndexMap = "index map",
        /// Checks that the source has not changed.
        CheckSource = "check source",
        /// A stage that this version does not know, in the report of another version.
        #[serde(other)]
        Unknown = "unknown",
    }
}

/// The time of one stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
pub struct Stage {
    /// The name of the stage.
    #[cfg_attr(feature = "internals", schemars(with = "String"))]
    pub name: StageName,
    /// Elapsed time in milliseconds.
    pub ms: u64,
    /// CPU time of the process in milliseconds, in user and in kernel mode.
    #[serde(default)]
    pub cpu_ms: u64,
    /// CPU time divided by elapsed time: the average number of busy cores.
    #[serde(default)]
    pub busy_cores: f64,
    /// CPU time of each thread in milliseconds, the busiest first. Threads that ended within the stage, or used less
    /// than a millisecond, are left out. Empty if the kernel does not say it.
    #[serde(default)]
    pub threads_cpu_ms: Vec<u64>,
}

/// A warning or a loss.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
pub struct Notice {
    /// A stable word for scripts.
    #[cfg_attr(feature = "internals", schemars(with = "String"))]
    pub code: Code,
    /// One line for people.
    pub message: String,
    /// What to do about it; absent if nothing helps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Stage {
    /// Creates the time of a stage: elapsed time, CPU time, and the CPU time of each thread.
    pub(crate) fn new(
        name: StageName,
        wall: Duration,
        cpu: Duration,
        threads: impl Iterator<Item = Duration>,
    ) -> Stage {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let busy = if wall.is_zero() { 0.0 } else { cpu.as_secs_f64() / wall.as_secs_f64() };
        let busy_cores = (busy * 100.0).round() / 100.0;
        let mut threads_cpu_ms: Vec<u64> = threads.map(millis).filter(|ms| *ms > 0).collect();
        threads_cpu_ms.sort_unstable_by(|a, b| b.cmp(a));
        Stage { name, ms: millis(wall), cpu_ms: millis(cpu), busy_cores, threads_cpu_ms }
    }
}

impl Notice {
    /// Creates a warning or a loss with this code.
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Notice {
        Notice { code, message: message.into(), hint: None }
    }

    /// Says what to do about it.
    #[must_use]
    pub(crate) fn hint(self, hint: impl Into<String>) -> Notice {
        Notice { hint: Some(hint.into()), ..self }
    }
}

/// The warnings and losses of a stage, in the order in which it found them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Notices {
    /// Findings that do not change the exit status.
    pub(crate) warnings: Vec<Notice>,
    /// What the output may lack, so the run ends with status 8.
    pub(crate) losses: Vec<Notice>,
}

impl Notices {
    /// Adds the findings of another stage.
    pub(crate) fn append(&mut self, other: Notices) {
        self.warnings.extend(other.warnings);
        self.losses.extend(other.losses);
    }

    /// Adds a warning, which does not change the exit status.
    pub(crate) fn warn(&mut self, code: Code, message: impl Into<String>) {
        self.warnings.push(Notice::new(code, message));
    }

    /// Adds a loss: something that the output may lack, so the run ends with status 8.
    pub(crate) fn lose(&mut self, code: Code, message: impl Into<String>) {
        self.losses.push(Notice::new(code, message));
    }
}

words! {
    /// The purpose of a next step.
    #[derive(Default)]
    pub enum Purpose {
        /// Makes a data directory from the output.
        #[default]
        Restore = "restore",
        /// Starts a member on its directory in the output.
        Start = "start",
        /// Replaces the backend in the member's own directory.
        Install = "install",
        /// Queries the running cluster.
        Check = "check",
    }
}

/// A command that the operator runs next.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct NextStep {
    /// The member to run it for; absent if it is for the whole cluster, or if the source has no members.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// The purpose.
    pub purpose: Purpose,
    /// A line for a POSIX shell. Upper-case words without quotes are placeholders for what the source does not contain.
    pub command: String,
    /// What `check` must print for every member.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Reason;

    #[test]
    fn the_end_names_its_reason() {
        let mut report = Report::new(&ConvertOptions::new("a", "b"));
        report.output = Some(OutputFacts::default());
        report.end(0, None);
        assert_eq!((report.reason.as_deref(), report.output.is_some()), (None, true));
        report.losses.push(Notice::new(Code::TailLeftOut, "3 writes"));
        report.end(8, None);
        assert_eq!((report.reason.as_deref(), report.output.is_some()), (Some("tail-left-out"), true));
        report.end(5, Some(&Error::new(Reason::Locked, "etcd runs")));
        assert_eq!((report.reason.as_deref(), report.error.as_deref()), (Some("locked"), Some("etcd runs")));
        assert_eq!(report.output, None);
    }

    #[test]
    fn the_totals_add_up_in_keys_and_bytes() {
        let count = |keys, bytes| Count { keys, bytes };
        let mut balance =
            Balance { source: count(3, 30), written: count(2, 20), dropped: count(1, 10), ..Default::default() };
        assert!(balance.holds());
        balance.dropped.bytes = 9;
        assert!(!balance.holds());
    }

    #[test]
    fn strict_names_losses_and_findings() {
        let mut report = Report::new(&ConvertOptions::new("a", "b"));
        assert!(report.strict_objections().is_empty());
        report.losses.push(Notice::new(Code::TailLeftOut, "2 writes left out"));
        report.contents.replacements = 4;
        assert_eq!(report.strict_objections(), ["2 writes left out", "4 nodes with U+FFFD in name or value"]);
    }
}
