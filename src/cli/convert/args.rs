//! The options of `etcdlift convert`, as typed, with their help texts.
//!
//! Must not know what an option does beyond its help, nor which options go together.

use std::path::PathBuf;

use crate::cli::cluster_args::ClusterArgs;
use crate::cli::epilog;
use crate::cli::include_exclude::Choices;
use crate::cli::progress::When;
use crate::cli::source_args::SourceArgs;
use crate::cli::terminal::RUN;
use crate::options::rules::{Pattern, Rename};
use crate::options::{
    AsOf, AuthPolicy, Dirs, Existing, Expired, Guest, Keep, OnConflict, Protocol, REQUEST_LIMIT, Revisions, Target, To,
    TtlRule, size,
};

const OUTPUT: &str = "Output";
const SELECTION: &str = "What to convert";
const TTLS: &str = "TTLs";
const AUTH: &str = "Users and roles";
const V3: &str = "v3 data";
const NAMES: &str = "Names";
const CHECKS: &str = "Checks";

/// Options of `convert`, as typed.
#[derive(Debug, clap::Args)]
#[command(after_long_help = epilog::CONVERT.help())]
pub(in crate::cli) struct Args {
    /// v2 data: a .snap file, a data directory, its member folder, a backup, or WAL segments
    ///
    /// etcdlift detects the kind. It opens sources read-only and never changes them. Several sources are members of one
    /// cluster, and etcdlift reads their logs as one. An entry counts as committed if the cluster itself would commit
    /// it after a restart. A log alone converts only from its first entry.
    #[arg(required = true, value_name = "SOURCE")]
    pub(super) sources: Vec<PathBuf>,

    #[command(flatten)]
    pub(super) source: SourceArgs,

    /// File or directory to write; it must not exist
    ///
    /// An empty directory may exist if the output is a directory.
    /// No two options may name the same file, and none may name a file of the source.
    #[arg(short, long, value_name = "OUT", help_heading = OUTPUT)]
    pub(super) output: PathBuf,

    /// Form of the output
    #[arg(long, value_enum, value_name = "FORM", default_value_t, help_heading = OUTPUT)]
    pub(super) to: To,

    #[command(flatten)]
    pub(super) cluster: ClusterArgs,

    /// Minor version of the etcd that will open the output [default: 3.7]
    ///
    /// It selects the commands that the summary shows as next steps. The bytes of the output do not depend on it. With
    /// --to member it must be 3.4 or 3.5, and 3.4 is the default.
    #[arg(long, alias = "target", value_enum, value_name = "VERSION", help_heading = OUTPUT)]
    #[arg(env = "ETCDLIFT_TARGET_VERSION", hide_env_values = true)]
    pub(super) target_version: Option<Target>,

    /// Replace OUT, and the report, ledger and index map of an earlier run
    ///
    /// OUT must be a regular file. A sidecar file replaces only a file of its own kind. A run that fails replaces
    /// nothing. A run without an output does not replace the report of an output. A dry run replaces no ledger.
    #[arg(long, conflicts_with = "skip_existing", help_heading = OUTPUT)]
    pub(super) overwrite: bool,

    /// Exit with status 0 if OUT is already what this run would write
    ///
    /// The report of the earlier run must name the same source hashes, the same options, and the hashes of OUT. OUT
    /// must be a valid database with the content of the source. Then etcdlift changes neither file. It writes a ledger
    /// or an index map that does not exist yet.
    #[arg(long, requires = "report", help_heading = OUTPUT)]
    pub(super) skip_existing: bool,

    /// Write an empty database instead of exiting with status 4
    #[arg(long, help_heading = OUTPUT)]
    pub(super) allow_empty: bool,

    /// Also write a report as JSON; `-` is standard output
    ///
    /// etcdlift writes the report on every exit status except 2. FILE must not exist; with --overwrite it may be an
    /// earlier report. A run without an output does not replace the report of an output, and standard error says so.
    /// The report can contain names of keys. It never contains values or password hashes.
    #[arg(long, value_name = "FILE|-", help_heading = OUTPUT)]
    pub(super) report: Option<PathBuf>,

    /// Also write a ledger: one JSON object a line for each v2 node
    ///
    /// A line names the v3 key of the node, or the reason why the node is left out.
    #[arg(long, value_name = "FILE.ndjson", help_heading = OUTPUT)]
    pub(super) ledger: Option<PathBuf>,

    /// Also write a lookup table from v2 index to v3 revision, for `etcdlift lookup`
    #[arg(long, value_name = "FILE.redb", help_heading = OUTPUT)]
    pub(super) index_map: Option<PathBuf>,

    #[command(flatten, next_help_heading = SELECTION)]
    pub(super) choices: Choices,

    /// What to do with keys that have a path element starting with `_`
    #[arg(long, value_enum, value_name = "POLICY", default_value_t, help_heading = SELECTION)]
    pub(super) hidden: Keep,

    /// What to do with empty directories, which v3 does not have
    #[arg(long, value_enum, value_name = "POLICY", default_value_t, help_heading = SELECTION)]
    pub(super) dirs: Dirs,

    /// What to do with keys that have a TTL; the longest PREFIX wins [default: lease]
    ///
    /// `lease` attaches keys to leases with the remaining time. Keys with the same remaining time share a lease.
    /// `permanent` writes the keys without a lease. `drop` leaves them out. `fail` refuses to convert.
    /// `fixed:DURATION`, like `fixed:1h`, attaches them to one lease of that length. Give the option once for each
    /// PREFIX.
    #[arg(long, value_name = "[PREFIX=]POLICY", help_heading = TTLS)]
    pub(super) ttl: Vec<TtlRule>,

    /// Instant from which TTLs count: `now`, `last-write` or an RFC 3339 time
    ///
    /// `last-write` is the latest instant that the data itself proves. Use it for an old copy, so that its age expires
    /// no keys. Instants after 9999-12-30T22:00:00.999999999Z count as that instant.
    #[arg(long, value_name = "TIME", default_value = "now", help_heading = TTLS)]
    pub(super) as_of: AsOf,

    /// What to do with keys that have expired at that instant
    ///
    /// This policy applies before --ttl.
    #[arg(long, value_enum, value_name = "POLICY", default_value_t, help_heading = TTLS)]
    pub(super) expired: Expired,

    /// What to do with v2 users, roles and permissions
    #[arg(long, value_enum, value_name = "POLICY", default_value_t, help_heading = AUTH)]
    pub(super) auth: AuthPolicy,

    /// What to do with rights of the guest role while authentication is on
    ///
    /// v3 cannot express such rights: it has no role for anonymous clients.
    #[arg(long, value_enum, value_name = "POLICY", default_value_t, help_heading = AUTH)]
    pub(super) guest: Guest,

    /// What to do with v3 data that SOURCE already contains
    ///
    /// `merge` and `keep-v3` preserve every revision, lease, user and compaction mark.
    #[arg(long, value_enum, value_name = "POLICY", default_value_t, help_heading = V3)]
    pub(super) existing: Existing,

    /// With --existing merge: what to do with a key that v2 and v3 both have
    ///
    /// The policy also applies to users and roles.
    #[arg(long, value_enum, value_name = "POLICY", default_value_t, help_heading = V3)]
    pub(super) on_conflict: OnConflict,

    /// How to number v3 revisions
    #[arg(long, value_enum, value_name = "POLICY", default_value_t, help_heading = V3)]
    pub(super) revisions: Revisions,

    /// Raise the current revision by N and mark all revisions below it as compacted
    ///
    /// Use this option if clients have seen a higher index than this copy contains.
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = V3)]
    pub(super) bump_revision: u64,

    /// Replace the prefix OLD of v2 keys with NEW; only the first match applies
    ///
    /// OLD matches as in --include. OLD ends at the first `=`.
    #[arg(long, value_name = "OLD=NEW", value_parser = parse_map, help_heading = NAMES)]
    pub(super) map: Vec<Rename>,

    /// Remove the first slash of every key, after --map
    #[arg(long, help_heading = NAMES)]
    pub(super) strip_leading_slash: bool,

    /// TOML file with more rules, which apply after those of the command line
    #[arg(long, value_name = "FILE.toml", help_heading = NAMES)]
    pub(super) rules: Option<PathBuf>,

    /// Program that makes the v3 pairs, as for `etcdctl migrate --transformer`
    ///
    /// When the conversion ends or fails, etcdlift ends the program and its process group. A process that the program
    /// has detached, for example with `setsid`, continues.
    #[arg(long, value_name = "PROG", help_heading = NAMES)]
    pub(super) transformer: Option<PathBuf>,

    /// Protocol of the transformer
    #[arg(long, value_enum, value_name = "PROTOCOL", default_value_t, requires = "transformer", help_heading = NAMES)]
    pub(super) transformer_protocol: Protocol,

    /// Number of transformers that run in parallel; the order of keys does not change
    #[arg(long, value_name = "N", default_value_t = 1, requires = "transformer", help_heading = NAMES)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) transformer_jobs: u16,

    /// Fail if the transformer makes no progress for this time
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "transformer", help_heading = NAMES)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(super) transformer_timeout: u64,

    /// Fail if the answers of the transformers exceed SIZE
    ///
    /// The limit counts the bytes of all answers, and 128 more for each pair. The default is 16 times the bytes that
    /// the transformers receive, and at least 64 MiB.
    #[arg(long, value_name = "SIZE", requires = "transformer", value_parser = size::parse_positive, help_heading = NAMES)]
    pub(super) transformer_answer_limit: Option<u64>,

    /// Exit with status 5 on losses (status 8) and on warnings about data
    ///
    /// Warnings about data are: U+FFFD replacements, oversized values, expired keys, and rules that match nothing.
    #[arg(long, help_heading = CHECKS)]
    pub(super) strict: bool,

    /// List keys that a v3 client could not write again, with this request limit
    ///
    /// SIZE is in bytes, or has a unit: 512k and 512KiB are 524288 bytes, 512kB is 512000. etcdlift converts the keys
    /// all the same.
    #[arg(long, value_name = "SIZE", default_value_t = REQUEST_LIMIT, value_parser = size::parse, help_heading = CHECKS)]
    #[arg(env = "ETCDLIFT_REQUEST_LIMIT", hide_env_values = true)]
    pub(super) request_limit: u64,

    /// Do not read the output back and check it
    #[arg(long, help_heading = CHECKS)]
    pub(super) no_verify: bool,

    /// Do everything except the write; exit status and hashes are the same
    #[arg(long, help_heading = RUN)]
    pub(super) dry_run: bool,

    /// Number of threads [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = RUN)]
    #[arg(env = "ETCDLIFT_JOBS", hide_env_values = true)]
    pub(super) jobs: Option<u16>,

    /// Refuse a conversion that needs more memory than SIZE
    ///
    /// Mapped files of the source do not count. SIZE is in bytes, or has a unit: 2GiB and 2g are 2147483648 bytes, 2GB
    /// is 2000000000. etcdlift estimates the need before the work, and again when more is known. Where it can, it uses
    /// less memory and more time.
    #[arg(long, value_name = "SIZE", value_parser = size::parse_positive, help_heading = RUN)]
    #[arg(env = "ETCDLIFT_MEMORY_LIMIT", hide_env_values = true)]
    pub(super) memory_limit: Option<u64>,

    /// Show the current stage of a long run on the terminal
    #[arg(long, value_enum, value_name = "WHEN", default_value_t, help_heading = RUN)]
    #[arg(env = "ETCDLIFT_PROGRESS", hide_env_values = true)]
    pub(super) progress: When,
}

/// Reads OLD=NEW.
///
/// # Errors
/// The text has another form.
pub(in crate::cli) fn parse_map(text: &str) -> Result<Rename, String> {
    match text.split_once('=') {
        None | Some(("", _)) => Err("expected OLD=NEW".into()),
        Some((old, new)) => Ok(Rename { from: Pattern::Prefix(old.into()), to: new.into() }),
    }
}
