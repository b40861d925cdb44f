//! What a run should do, as resolved values. The command line makes them, and the library takes them.
//!
//! Plain data that serialises, because the report contains the options in effect. Must not know how an option was typed
//! beyond the words of its values, nor how a stage applies it.

mod carry;
mod cleaning;
mod cluster;
pub mod rules;
pub(crate) mod size;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use carry::{AuthPolicy, Existing, Expired, Guest, OnConflict, Protocol, Transformer, TtlPolicy, TtlRule};
pub use cleaning::CleanOptions;
pub use cluster::{ClusterOptions, InitialCluster, PeerUrls, check_name};
use jiff::Timestamp;
pub use rules::Rules;
use serde::{Deserialize, Serialize, Serializer};

pub use crate::source::dir::WalDir;
use crate::time;
pub use crate::v2store::dialect::SourceVersion;
pub use crate::v2store::replay::TailPolicy;
use crate::words::words;

/// Options of a conversion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ConvertOptions {
    /// The v2 data: a `.snap` file, a data directory, its `member` folder, or a backup; or the data directories of
    /// several members of one cluster.
    #[serde(serialize_with = "lossy_list")]
    pub sources: Vec<PathBuf>,
    /// The file or directory to write.
    #[serde(serialize_with = "lossy")]
    pub output: PathBuf,
    /// The form of the output.
    pub to: To,
    /// With [`To::DataDir`], the cluster that boots from the output.
    #[serde(default)]
    pub cluster: ClusterOptions,
    /// With [`To::DataDir`] and [`To::Member`], give the files the owner of the source.
    #[serde(default)]
    pub preserve_owner: bool,
    /// The directories of the write-ahead logs, if they are not in the sources; in the same order.
    #[serde(default)]
    pub wal_dirs: Vec<WalDir>,
    /// The etcd minor version that will open the output.
    pub target: Target,
    /// Log entries after the commit index.
    #[serde(default)]
    pub tail: TailPolicy,
    /// Stop the replay at this raft index.
    #[serde(default)]
    pub up_to_index: Option<u64>,
    /// The version of etcd that started last on the source, which decides the rules of the replay.
    #[serde(default)]
    pub source_version: Option<SourceVersion>,
    /// How POST names were written by the server that last ran.
    #[serde(default)]
    pub in_order_names: InOrderNames,
    /// The instant against which TTLs are counted.
    pub as_of: AsOf,
    /// Policies for keys with a TTL; the longest prefix that matches decides. Without a match, a lease is attached.
    #[serde(default)]
    pub ttl: Vec<TtlRule>,
    /// Keys that have expired at that instant; acts before `ttl`.
    #[serde(default)]
    pub expired: Expired,
    /// v2 users, roles and permissions.
    #[serde(default)]
    pub auth: AuthPolicy,
    /// Rights of anonymous clients while authentication is on.
    #[serde(default)]
    pub guest: Guest,
    /// v3 data that the source already holds.
    #[serde(default)]
    pub existing: Existing,
    /// With `Existing::Merge`, a key that both have.
    #[serde(default)]
    pub on_conflict: OnConflict,
    /// Which keys to take, and how to rename them.
    #[serde(default)]
    pub rules: Rules,
    /// A program that makes the v3 pairs.
    #[serde(default)]
    pub transformer: Option<Transformer>,
    /// The largest request in bytes that a v3 client could send.
    #[serde(default = "default_request_limit")]
    pub request_limit: u64,
    /// Keys with a path element that starts with `_`.
    pub hidden: Keep,
    /// Empty directories.
    pub dirs: Dirs,
    /// How v3 revisions are numbered.
    pub revisions: Revisions,
    /// How much to raise the current revision by.
    pub bump_revision: u64,
    /// Replace an output, and sidecar files each by one of its kind.
    pub overwrite: bool,
    /// Leave an output unchanged that an equal run wrote.
    pub skip_existing: bool,
    /// Write an empty database instead of ending with status 4.
    pub allow_empty: bool,
    /// Skip damage: use the records before it.
    #[serde(default)]
    pub salvage: bool,
    /// Accept a removed member and use its last known state.
    #[serde(default)]
    pub allow_removed: bool,
    /// Bytes of memory that the conversion may use, without mapped files of the source.
    #[serde(default)]
    pub memory_limit: Option<u64>,
    /// Read a directory that an etcd is running on, as a consistent prefix of its log.
    #[serde(default)]
    pub allow_live: bool,
    /// Do everything except the write.
    pub dry_run: bool,
    /// Threads; at least 1.
    pub jobs: usize,
    /// Refuse losses, and warnings about data.
    pub strict: bool,
    /// Read the output back and check it before it gets its name.
    pub verify: bool,
    /// The file of the report, if it goes to a file.
    #[serde(serialize_with = "lossy_option")]
    pub report: Option<PathBuf>,
    /// The file of the table from v2 index to v3 revision.
    #[serde(default, serialize_with = "lossy_option")]
    pub index_map: Option<PathBuf>,
    /// The file of the ledger: one JSON object a line for each v2 node.
    #[serde(default, serialize_with = "lossy_option")]
    pub ledger: Option<PathBuf>,
}

impl ConvertOptions {
    /// Creates the default options for one source and one output.
    pub fn new(source: impl Into<PathBuf>, output: impl Into<PathBuf>) -> Self {
        ConvertOptions {
            sources: vec![source.into()],
            output: output.into(),
            to: To::default(),
            cluster: ClusterOptions::default(),
            preserve_owner: false,
            wal_dirs: Vec::new(),
            target: Target::default(),
            tail: TailPolicy::default(),
            up_to_index: None,
            source_version: None,
            in_order_names: InOrderNames::default(),
            as_of: AsOf::default(),
            ttl: Vec::new(),
            expired: Expired::default(),
            auth: AuthPolicy::default(),
            guest: Guest::default(),
            existing: Existing::default(),
            on_conflict: OnConflict::default(),
            rules: Rules::default(),
            transformer: None,
            request_limit: REQUEST_LIMIT,
            hidden: Keep::default(),
            dirs: Dirs::default(),
            revisions: Revisions::default(),
            bump_revision: 0,
            overwrite: false,
            skip_existing: false,
            allow_empty: false,
            salvage: false,
            allow_removed: false,
            memory_limit: None,
            allow_live: false,
            dry_run: false,
            jobs: all_cores(),
            strict: false,
            verify: true,
            report: None,
            index_map: None,
            ledger: None,
        }
    }

    /// Returns whether a run with `other` gives the same output for the same source files. The comparison ignores the paths of
    /// files, the number of threads and the memory limit.
    pub(crate) fn same_effect(&self, other: &ConvertOptions) -> bool {
        let effect = |options: &ConvertOptions| ConvertOptions {
            sources: Vec::new(),
            output: PathBuf::new(),
            wal_dirs: Vec::new(),
            overwrite: false,
            skip_existing: false,
            memory_limit: None,
            allow_live: false,
            dry_run: false,
            jobs: 1,
            report: None,
            index_map: None,
            ledger: None,
            ..options.clone()
        };
        let no_wal = |options: &ConvertOptions| options.wal_dirs.contains(&WalDir::None);
        effect(self) == effect(other) && no_wal(self) == no_wal(other)
    }
}

/// Options of an inspection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct InspectOptions {
    /// The file or directory to look at.
    pub source: PathBuf,
    /// The directory of the write-ahead log, if it is not in the source.
    pub wal_dir: Option<WalDir>,
    /// List every key.
    pub keys: bool,
    /// Look at a directory that an etcd is running on.
    pub allow_live: bool,
}

impl InspectOptions {
    /// Inspects a file or directory, with the defaults of the command line.
    pub fn new(source: impl Into<PathBuf>) -> InspectOptions {
        InspectOptions { source: source.into(), wal_dir: None, keys: false, allow_live: false }
    }
}

/// Options of a comparison of members.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompareOptions {
    /// The data directories of members of one cluster, at least two.
    pub sources: Vec<PathBuf>,
    /// The directories of the write-ahead logs, if they are not in the sources; in the same order.
    pub wal_dirs: Vec<WalDir>,
    /// Read directories that an etcd is running on.
    pub allow_live: bool,
}

impl CompareOptions {
    /// Compares the data directories of members, with the defaults of the command line.
    pub fn new(sources: impl IntoIterator<Item = impl Into<PathBuf>>) -> CompareOptions {
        let sources = sources.into_iter().map(Into::into).collect();
        CompareOptions { sources, wal_dirs: Vec::new(), allow_live: false }
    }
}

/// Options of a check before an upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckOptions {
    /// Data directories of members, each with its log.
    pub sources: Vec<PathBuf>,
    /// The directories of the write-ahead logs, if they are not in the sources; in the same order.
    pub wal_dirs: Vec<WalDir>,
    /// The etcd minor version that will start on the sources.
    pub target: UpgradeTarget,
    /// Read directories that an etcd is running on.
    pub allow_live: bool,
}

impl CheckOptions {
    /// Checks data directories, with the defaults of the command line.
    pub fn new(sources: impl IntoIterator<Item = impl Into<PathBuf>>) -> CheckOptions {
        let sources = sources.into_iter().map(Into::into).collect();
        CheckOptions { sources, wal_dirs: Vec::new(), target: UpgradeTarget::default(), allow_live: false }
    }

    /// Sets the etcd minor version that will start on the sources.
    #[must_use]
    pub fn target(self, target: UpgradeTarget) -> CheckOptions {
        CheckOptions { target, ..self }
    }

    /// Sets the directories of the write-ahead logs, one for each source, in the same order.
    #[must_use]
    pub fn wal_dirs(self, wal_dirs: impl IntoIterator<Item = WalDir>) -> CheckOptions {
        CheckOptions { wal_dirs: wal_dirs.into_iter().collect(), ..self }
    }
}

/// Options of an advice for the change of applications from v2 to v3.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdviseOptions {
    /// One v2 source, or the data directories of members of one cluster.
    pub sources: Vec<PathBuf>,
    /// The directories of the write-ahead logs, if they are not in the sources; in the same order.
    pub wal_dirs: Vec<WalDir>,
    /// Read directories that an etcd is running on.
    pub allow_live: bool,
    /// The rules of the conversion that change names of keys: [`Rules::rename`] and [`Rules::strip_leading_slash`].
    pub rules: Rules,
    /// Maximum number of examples of one finding.
    pub examples: usize,
}

impl AdviseOptions {
    /// Advises on sources, with the defaults of the command line.
    pub fn new(sources: impl IntoIterator<Item = impl Into<PathBuf>>) -> AdviseOptions {
        let sources = sources.into_iter().map(Into::into).collect();
        AdviseOptions {
            sources,
            wal_dirs: Vec::new(),
            allow_live: false,
            rules: Rules::default(),
            examples: AdviseOptions::EXAMPLES,
        }
    }

    /// The default of [`AdviseOptions::examples`].
    pub const EXAMPLES: usize = 5;
}

/// Options of a verification.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyOptions {
    /// The v3 database or snapshot file.
    pub file: PathBuf,
    /// The report of the conversion that made it.
    pub report: Option<PathBuf>,
    /// The sources of the conversion: members of one cluster.
    pub sources: Vec<PathBuf>,
    /// The directories of the write-ahead logs, if they are not in the sources; in the same order.
    pub wal_dirs: Vec<WalDir>,
    /// The transformer of the conversion, to run it again. etcdlift starts no program because a report names it.
    pub transformer: Option<PathBuf>,
}

impl VerifyOptions {
    /// Checks a file alone.
    pub fn new(file: impl Into<PathBuf>) -> VerifyOptions {
        VerifyOptions { file: file.into(), report: None, sources: Vec::new(), wal_dirs: Vec::new(), transformer: None }
    }
}

/// Options of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportOptions {
    /// Sources of a conversion, or one v3 database or snapshot file.
    pub sources: Vec<PathBuf>,
    /// The directories of the write-ahead logs, if they are not in the sources; in the same order.
    pub wal_dirs: Vec<WalDir>,
    /// Log entries after the commit index.
    pub tail: TailPolicy,
    /// Stop the replay at this raft index.
    pub up_to_index: Option<u64>,
    /// The version of etcd that started last on the source, which decides the rules of the replay.
    pub source_version: Option<SourceVersion>,
    /// How POST names were written by the server that last ran.
    pub in_order_names: InOrderNames,
    /// Skip damage: use the records before it.
    pub salvage: bool,
    /// Accept a removed member and use its last known state.
    pub allow_removed: bool,
    /// Read a source that an etcd is running on, as a consistent prefix of its writes.
    pub allow_live: bool,
    /// Which keys to take, by their names in the source; the first that matches decides.
    pub choose: Vec<rules::Choice>,
    /// The file to write, or the directory for sled; `None`: standard output, as ndjson.
    pub output: Option<PathBuf>,
    /// The form of the output.
    pub format: ExportFormat,
    /// Replace an existing regular file.
    pub overwrite: bool,
}

impl ExportOptions {
    /// Exports a source into a file as NDJSON, with the defaults of the command line.
    pub fn new(source: impl Into<PathBuf>, output: impl Into<PathBuf>) -> ExportOptions {
        ExportOptions {
            sources: vec![source.into()],
            wal_dirs: Vec::new(),
            tail: TailPolicy::default(),
            up_to_index: None,
            source_version: None,
            in_order_names: InOrderNames::default(),
            salvage: false,
            allow_removed: false,
            allow_live: false,
            choose: Vec::new(),
            output: Some(output.into()),
            format: ExportFormat::default(),
            overwrite: false,
        }
    }
}

/// The form of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum ExportFormat {
    /// One JSON object a line; bytes that are not text are in base64
    #[default]
    Ndjson,
    /// A redb table, by key
    Redb,
    /// A sled database; needs the feature `sled` at build time
    Sled,
}

/// Options of `inspect --wal`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WalOptions {
    /// The directory to look at.
    pub source: PathBuf,
    /// The directory of the write-ahead log, if it is not in the source.
    pub wal_dir: Option<WalDir>,
    /// Only entries of these kinds; all kinds if empty.
    pub kinds: Vec<EntryFilter>,
    /// Only entries from this raft index on.
    pub from_index: u64,
    /// Only entries up to this raft index.
    pub to_index: u64,
    /// Look at a directory that an etcd is running on.
    pub allow_live: bool,
}

impl WalOptions {
    /// Lists all entries in the log of a data directory.
    pub fn new(source: impl Into<PathBuf>) -> WalOptions {
        let source = source.into();
        WalOptions { source, wal_dir: None, kinds: Vec::new(), from_index: 0, to_index: u64::MAX, allow_live: false }
    }
}

words! {
    /// A kind of log entry, as `inspect --wal` names it.
    #[derive(Default)]
    #[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
    pub enum EntryFilter {
        /// v2 writes of any method
        Write = "write",
        /// v2 PUT
        Put = "put",
        /// v2 POST
        Post = "post",
        /// v2 DELETE
        Delete = "delete",
        /// SYNC: the time of the leader, which expires keys
        Sync = "sync",
        /// Quorum reads
        Qget = "qget",
        /// Changes of the raft configuration
        ConfChange = "conf-change",
        /// v3 requests
        V3 = "v3",
        /// Entries without a request, as a new leader writes first
        #[default]
        Empty = "empty",
    }
}

/// The form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum To {
    /// A .db file with a sha256 trailer, for `etcdutl snapshot restore`
    #[default]
    Snapshot,
    /// The bbolt file alone, as in member/snap/db
    Backend,
    /// The data directory of a new cluster's member, ready to boot
    #[cfg_attr(feature = "cli", value(name = "data-dir"))]
    #[serde(rename = "data-dir")]
    DataDir,
    /// A copy of this member's data directory with the v3 database in place: the member continues
    Member,
}

impl To {
    /// Returns whether the output is a directory.
    pub fn is_directory(self) -> bool {
        matches!(self, To::DataDir | To::Member)
    }
}

words! {
    /// The etcd minor version that will open the output.
    #[derive(PartialOrd, Ord, Default)]
    #[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
    pub enum Target {
        /// etcd 3.4
        #[cfg_attr(feature = "cli", value(name = "3.4"))]
        V3_4 = "3.4",
        /// etcd 3.5
        #[cfg_attr(feature = "cli", value(name = "3.5"))]
        V3_5 = "3.5",
        /// etcd 3.6
        #[cfg_attr(feature = "cli", value(name = "3.6"))]
        V3_6 = "3.6",
        /// etcd 3.7
        #[default]
        #[cfg_attr(feature = "cli", value(name = "3.7"))]
        V3_7 = "3.7",
    }
}

words! {
    /// The etcd minor version that will start on a data directory with v2 content.
    #[derive(PartialOrd, Ord, Default)]
    #[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
    pub enum UpgradeTarget {
        /// etcd 3.6
        #[default]
        #[cfg_attr(feature = "cli", value(name = "3.6"))]
        V3_6 = "3.6",
        /// etcd 3.7
        #[cfg_attr(feature = "cli", value(name = "3.7"))]
        V3_7 = "3.7",
    }
}

impl Target {
    /// Returns the default for an output of this form.
    pub fn for_output(to: To) -> Target {
        if to == To::Member { Target::V3_4 } else { Target::default() }
    }
}

/// What to do with hidden keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// Write them like any other key
    #[default]
    Keep,
    /// Leave them out and count them
    Drop,
}

/// What to do with empty directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Dirs {
    /// Leave them out and count them
    #[default]
    Drop,
    /// Write an empty-valued key `PATH/` for each
    Marker,
}

/// How names of in-order keys (POST) were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum InOrderNames {
    /// As the server that ran last writes them
    #[default]
    Auto,
    /// `/queue/17`, as servers before 2.2 write them
    Plain,
    /// `/queue/00000000000000000017`, as 2.2 and later write them
    Padded,
}

words! {
    /// How v3 revisions are numbered.
    #[derive(Default)]
    #[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
    pub enum Revisions {
        /// The v3 revision is the v2 modified index; the current revision is the v2 index
        #[default]
        Keep = "keep",
        /// Revisions are 2 to n+1, in the order of modified index and key
        Dense = "dense",
    }
}

/// The instant against which TTLs are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum AsOf {
    /// When the run starts.
    #[default]
    Now,
    /// The latest instant that the data proves.
    LastWrite,
    /// The instant given.
    At(Timestamp),
}

impl AsOf {
    const NOW: &'static str = "now";
    const LAST_WRITE: &'static str = "last-write";

    /// Returns the instant, with `now` as the start of the run; `None` if only the data can tell.
    pub(crate) fn instant(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            AsOf::Now => Some(now),
            AsOf::At(instant) => Some(instant),
            AsOf::LastWrite => None,
        }
    }
}

impl fmt::Display for AsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AsOf::Now => f.write_str(AsOf::NOW),
            AsOf::LastWrite => f.write_str(AsOf::LAST_WRITE),
            AsOf::At(instant) => instant.fmt(f),
        }
    }
}

impl FromStr for AsOf {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            AsOf::NOW => Ok(AsOf::Now),
            AsOf::LAST_WRITE => Ok(AsOf::LastWrite),
            _ => time::instant(text).map(AsOf::At).ok_or_else(|| {
                "expected `now`, `last-write` or RFC 3339 with an offset, like 2016-05-04T12:00:00Z".into()
            }),
        }
    }
}

impl From<AsOf> for String {
    fn from(as_of: AsOf) -> String {
        as_of.to_string()
    }
}

impl TryFrom<String> for AsOf {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// The default of etcd's `--max-request-bytes`.
pub(crate) const REQUEST_LIMIT: u64 = 1_572_864;

fn default_request_limit() -> u64 {
    REQUEST_LIMIT
}

/// As many threads as the machine has cores for this process.
pub(crate) fn all_cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// Writes a path that is not UTF-8 with replacements: serde refuses it, and every run has a report.
fn lossy<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

fn lossy_list<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(paths.iter().map(|path| path.display().to_string()))
}

fn lossy_option<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => lossy(path, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_survive_json() {
        let mut options = ConvertOptions::new("a", "b");
        options.as_of = "2016-05-04T12:00:00+02:00".parse().unwrap();
        options.wal_dirs = vec![WalDir::Dir("w".into())];
        options.report = Some("r.json".into());
        let json = serde_json::to_value(&options).unwrap();
        assert_eq!(json["as_of"], "2016-05-04T10:00:00Z");
        assert_eq!(json["target"], "3.7");
        assert_eq!(json["wal_dirs"][0], "w");
        assert_eq!(serde_json::from_value::<ConvertOptions>(json).unwrap(), options);
    }

    #[test]
    fn a_path_that_is_no_utf8_serialises() {
        use std::os::unix::ffi::OsStrExt;
        let path = Path::new(std::ffi::OsStr::from_bytes(b"a\xff"));
        let json = serde_json::to_value(ConvertOptions::new(path, "b")).unwrap();
        assert_eq!(json["sources"][0], "a\u{fffd}");
    }

    #[test]
    fn places_and_threads_have_no_effect_but_policies_do() {
        let one = ConvertOptions::new("a", "b");
        let mut two = ConvertOptions::new("c", "d");
        two.jobs = one.jobs + 1;
        two.wal_dirs = vec![WalDir::Dir("w".into())];
        assert!(one.same_effect(&two));
        two.hidden = Keep::Drop;
        assert!(!one.same_effect(&two));
        two.hidden = Keep::Keep;
        two.wal_dirs = vec![WalDir::None];
        assert!(!one.same_effect(&two));
    }
}
