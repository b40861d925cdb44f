//! The report of one conversion: everything that scripts, runbooks and the closing summary read.
//!
//! Schema 1 of CLI.md, "The report is written on every exit but 2". Filled stage by stage, so that a failed run reports as
//! much as it knew. Knows neither how it is printed (`text`) nor where it is written (`file`).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::facts::{AuthFacts, Contents, Count, ExistingFacts, SourceFacts, SourceFile, Tail, TailWrite};
use crate::count::counted;
use crate::error::Error;
use crate::options::{ConvertOptions, Existing};

/// The number of the schema that this version writes.
pub const SCHEMA: u32 = 1;

/// What happened in one conversion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Number of the schema: [`SCHEMA`].
    pub schema: u32,
    /// The version of etcdlift that wrote it.
    pub etcdlift: String,
    /// When the run started, RFC 3339.
    pub started: String,
    /// The status that the process ended with.
    pub exit_status: u8,
    /// Why it is not 0, as a stable word.
    #[serde(default)]
    pub reason: Option<String>,
    /// The error message, if there was an error.
    #[serde(default)]
    pub error: Option<String>,
    /// What the operator can do about the error, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The output of an earlier, equal run was found and left alone.
    #[serde(default)]
    pub skipped: bool,
    /// The options in effect.
    pub options: ConvertOptions,
    /// The instant against which TTLs were counted, RFC 3339; empty if the run ended before it was known.
    pub as_of: String,
    /// What proves that instant, where the data does (`--as-of last-write`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of_evidence: Option<String>,
    /// Every file that was read.
    #[serde(default)]
    pub source_files: Vec<SourceFile>,
    /// What the source is.
    #[serde(default)]
    pub source: SourceFacts,
    /// What the source holds.
    #[serde(default)]
    pub contents: Contents,
    /// What becomes of users and roles.
    #[serde(default)]
    pub auth: AuthFacts,
    /// v3 data that the source held before, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub existing: Option<ExistingFacts>,
    /// Where each source key went.
    #[serde(default)]
    pub balance: Balance,
    /// What the log holds beyond the state.
    #[serde(default)]
    pub tail: Tail,
    /// Writes whose outcome may differ from what the cluster served: in-order keys and index compares that a backup by
    /// etcdctl 3.3 or later has after its snapshot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uncertain: Vec<TailWrite>,
    /// What the transformer did, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transformed: Option<Transformed>,
    /// What was made.
    #[serde(default)]
    pub output: Option<OutputFacts>,
    /// What the operator does with the output; empty where there is none, and after a dry run.
    #[serde(default)]
    pub next_steps: Vec<NextStep>,
    /// Time of each stage, in the order they ran.
    #[serde(default)]
    pub stages: Vec<Stage>,
    /// What the output may lack of what the cluster held (exit 8).
    #[serde(default)]
    pub losses: Vec<Notice>,
    /// What an operator should know.
    #[serde(default)]
    pub warnings: Vec<Notice>,
}

impl Report {
    /// The report of a run that starts now.
    pub fn new(options: &ConvertOptions) -> Self {
        let now = Timestamp::now();
        // Nobody's TTL is finer than a second.
        Self::started_at(options, Timestamp::from_second(now.as_second()).unwrap_or(now))
    }

    /// The report of a run that started at `now`.
    pub fn started_at(options: &ConvertOptions, now: Timestamp) -> Self {
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

    /// Adds a warning: it does not change the exit status.
    pub fn warn(&mut self, code: &str, message: impl Into<String>) {
        self.warnings.push(Notice { code: code.into(), message: message.into() });
    }

    /// Adds something that the output may lack of what the cluster held: the run ends with status 8.
    pub fn lose(&mut self, code: &str, message: impl Into<String>) {
        self.losses.push(Notice { code: code.into(), message: message.into() });
    }

    /// Adds the time that a stage took.
    pub fn stage(&mut self, name: &str, took: std::time::Duration) {
        self.stages.push(Stage { name: name.into(), ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX) });
    }

    /// The sha256 of the output that the run makes, if it makes one.
    pub fn made(&self) -> Option<&str> {
        self.output.as_ref().filter(|_| !self.options.dry_run).map(|output| output.sha256.as_str())
    }

    /// Notes how the run ended. A partial run (status 8) takes its reason from the first loss.
    pub fn end(&mut self, exit_status: u8, error: Option<&Error>) {
        self.exit_status = exit_status;
        self.error = error.map(ToString::to_string);
        self.hint = error.and_then(Error::hint_text).map(str::to_string);
        self.reason = match (error, self.losses.first()) {
            (Some(error), _) => Some(error.reason().word().into()),
            (None, Some(loss)) if exit_status != 0 => Some(loss.code.clone()),
            _ => None,
        };
        if error.is_some() {
            // Whatever was about to be made, there is none of it.
            self.output = None;
            self.next_steps.clear();
        }
    }

    /// What `--strict` refuses, one phrase for each; empty when there is nothing.
    pub fn strict_objections(&self) -> Vec<String> {
        let mut found: Vec<String> = self.losses.iter().map(|loss| loss.message.clone()).collect();
        let unused = self.warnings.iter().filter(|warning| warning.code == "unused-rule").count() as u64;
        let contents = &self.contents;
        let (oversized, expired) = (contents.oversized.len() as u64, contents.expired.keys);
        let of_v2 = [
            (contents.replacements, "node with U+FFFD in its name or value", "nodes with U+FFFD in name or value"),
            (oversized, "oversized key", "oversized keys"),
            (expired, "expired key", "expired keys"),
        ];
        // What v2 holds may be left out on purpose.
        let of_v2 = of_v2.into_iter().filter(|_| self.options.existing != Existing::KeepV3);
        let all = of_v2.chain([(unused, "rule that matched nothing", "rules that matched nothing")]);
        found.extend(all.filter(|(count, ..)| *count > 0).map(|(count, one, many)| counted(count, one, many)));
        found
    }
}

/// Where each source key went: what is on the right adds up to what is on the left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Balance {
    /// Keys of the source.
    pub source: Count,
    /// Written to the output.
    pub written: Count,
    /// Left out because they have expired.
    pub expired: Count,
    /// Left out by a rule.
    pub excluded: Count,
    /// Left out by a policy, like `--hidden drop`.
    pub dropped: Count,
}

impl Balance {
    /// Whether every source key is accounted for, in keys and in bytes.
    pub fn holds(&self) -> bool {
        self.source == self.written.plus(self.expired).plus(self.excluded).plus(self.dropped)
    }
}

/// What a transformer did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Transformed {
    /// sha256 of the program's file, where it was named by its path.
    pub program_sha256: Option<String>,
    /// Nodes that it was sent, directories among them.
    pub nodes: u64,
    /// Pairs that came back.
    pub pairs: u64,
    /// Pairs of these that belong to no key of the source.
    pub added: u64,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct OutputFacts {
    /// Size of the file.
    pub bytes: u64,
    /// sha256 of the whole file in lower-case hex: what `sha256sum` prints.
    pub sha256: String,
    /// Size of the database, without a snapshot's trailer.
    pub db_bytes: u64,
    /// sha256 of the database: what a snapshot's trailer holds.
    pub db_sha256: String,
    /// The v2 index that the state stands at.
    pub v2_index: u64,
    /// The current v3 revision after a boot.
    pub revision: u64,
    /// The revision up to which history counts as compacted.
    pub compact_revision: u64,
    /// HashKV at `revision`, as `etcdctl endpoint hashkv` prints it.
    pub hash_kv: u32,
    /// The hash that `etcdutl snapshot status` prints.
    pub status_hash: u32,
    /// Changes of keys in it, as the books have them: one for each key that was written, one for each marker, and those that
    /// were kept of the source's v3 data.
    pub pairs: u64,
    /// Leases in it.
    pub leases: u64,
    /// Those that come from v2's TTLs, shortest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lease_list: Vec<LeaseLine>,
    /// Authentication will be on.
    pub auth_enabled: bool,
    /// It was read back and its structure checked.
    pub verified: bool,
}

/// A lease, and how much hangs on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LeaseLine {
    /// Its id; etcdctl prints it in hexadecimal.
    pub id: i64,
    /// Seconds, counted from when the new cluster elects its leader.
    pub ttl: i64,
    /// Keys that go with it.
    pub keys: u64,
}

/// Time of one stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// Milliseconds by the clock on the wall.
    pub ms: u64,
}

/// A warning or a loss.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// A stable word for scripts.
    pub code: String,
    /// One line for people.
    pub message: String,
}

/// A command that the operator runs next.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NextStep {
    /// The member to run it for; none where it is for the whole cluster, or where the source names no members.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// `restore` makes a data directory of the output, `install` puts the output into the member's own directory in its
    /// place, `check` asks the running cluster.
    pub purpose: String,
    /// A line for a POSIX shell; upper-case words without quotes stand for what the source does not say.
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
        report.lose("tail-left-out", "3 writes");
        report.end(8, None);
        assert_eq!((report.reason.as_deref(), report.output.is_some()), (Some("tail-left-out"), true));
        report.end(5, Some(&Error::new(Reason::Locked, "etcd runs")));
        assert_eq!((report.reason.as_deref(), report.error.as_deref()), (Some("locked"), Some("etcd runs")));
        assert_eq!(report.output, None);
    }

    #[test]
    fn the_books_balance_in_keys_and_bytes() {
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
        report.lose("tail-left-out", "2 writes left out");
        report.contents.replacements = 4;
        assert_eq!(report.strict_objections(), ["2 writes left out", "4 nodes with U+FFFD in name or value"]);
    }
}
