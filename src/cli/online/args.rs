//! The options of `online` as typed. Must not know what they do.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::cli::convert::{self, parse_map};
use crate::cli::epilog;
use crate::cli::exit::{self, usage};
use crate::cli::include_exclude::Choices;
use crate::cli::output_format::Form;
use crate::cli::progress::When;
use crate::cli::terminal::RUN;
use crate::error::Result;
use crate::online::session::Limits;
use crate::online::state::{self, Keys, STATE_PREFIX, SWITCH_KEY};
use crate::online::v2::V2Options;
use crate::online::v3::{Login, Tls, V3Options};
use crate::options::rules::Rename;
use crate::options::{Keep, REQUEST_LIMIT, TtlRule, size};

use super::epilogs;
use super::password;

const V3: &str = "v3 cluster";
const V2: &str = "v2 source";
const SELECTION: &str = "Selection";
const NAMES: &str = "Names and values";
const TTLS: &str = "TTLs";
const LIMITS: &str = "Limits";
const OUTPUT: &str = "Output";

/// The bytes of a request that are not pairs: a server counts them too.
const ENVELOPE: usize = 4096;

/// `online` and its command.
#[derive(Debug, clap::Args)]
#[command(after_long_help = epilog::ONLINE.help(), arg_required_else_help = true, disable_help_subcommand = true)]
pub(in crate::cli) struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
}

/// The commands of `online`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Copy v2 into v3, and carry its changes until a signal
    Copy(Box<CopyArgs>),
    /// Show how far the migration is
    Status(StatusArgs),
    /// Compare v2 and v3, key by key
    Verify(VerifyArgs),
    /// End the migration: clients use v3 alone
    Switch(SwitchArgs),
    /// Go back: remove from v3 what only the job wrote
    Undo(UndoArgs),
    /// Remove the markers and the state of a migration that is over
    Finish(FinishArgs),
}

/// Where v3 is.
#[derive(Debug, clap::Args)]
pub(super) struct Target {
    /// Endpoints of the v3 cluster, separated by commas
    #[arg(long, value_name = "URL,...", value_delimiter = ',', default_value = "127.0.0.1:2379", help_heading = V3)]
    endpoints: Vec<String>,

    /// Certificate authorities of the v3 cluster, in PEM
    ///
    /// Without this option, an endpoint with `https` is checked with the authorities of the operating system.
    #[arg(long, value_name = "FILE", help_heading = V3)]
    cacert: Option<PathBuf>,

    /// Certificate of this client, in PEM
    #[arg(long, value_name = "FILE", requires = "key", help_heading = V3)]
    cert: Option<PathBuf>,

    /// Key of this client's certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "cert", help_heading = V3)]
    key: Option<PathBuf>,

    /// User of the v3 cluster
    ///
    /// It needs the right to read and write the migrated keys, the keys of --state-prefix, and the switch key.
    /// Without the right to read all keys, a user of a client certificate needs this option too.
    /// The password comes from --password-file, from the variable ETCDLIFT_PASSWORD, or from a prompt.
    #[arg(long, value_name = "NAME", help_heading = V3)]
    user: Option<String>,

    /// File with the password of --user
    #[arg(long, value_name = "FILE", requires = "user", help_heading = V3)]
    password_file: Option<PathBuf>,

    /// How long a request that fails is tried again
    ///
    /// Only faults that can pass are tried again: a member that restarts, an election, a slow answer.
    #[arg(long, value_name = "DURATION", default_value = "60s", help_heading = V3)]
    pub(super) retry_for: Seconds,

    /// Prefix of the keys of the migration itself in v3
    ///
    /// Each migration has its own prefix, and its own switch key. `finish` removes the keys that etcdlift wrote below it.
    #[arg(long, value_name = "PREFIX", default_value = STATE_PREFIX, value_parser = parse_prefix, help_heading = V3)]
    state_prefix: String,
}

/// Where v2 is.
#[derive(Debug, clap::Args)]
pub(super) struct Source {
    /// Data directory of a member, which can be running
    ///
    /// etcdlift opens its files read-only and follows its log as it grows.
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Directory of the write-ahead log, if it is not in DIR
    #[arg(long, value_name = "DIR", requires = "dir", help_heading = V2)]
    wal_dir: Option<PathBuf>,

    /// Endpoints of the v2 API, separated by commas
    ///
    /// Use them without DIR if the host of a member cannot be reached. Hidden keys are missing then. With DIR, they also
    /// commit the last writes, and tell which index the cluster has.
    #[arg(long, value_name = "URL,...", value_delimiter = ',', help_heading = V2)]
    v2_endpoints: Vec<String>,

    /// Certificate authorities of the v2 endpoints, in PEM
    #[arg(long, value_name = "FILE", requires = "v2_endpoints", help_heading = V2)]
    v2_cacert: Option<PathBuf>,

    /// Certificate of this client for the v2 endpoints, in PEM
    #[arg(long, value_name = "FILE", requires = "v2_key", help_heading = V2)]
    v2_cert: Option<PathBuf>,

    /// Key of that certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "v2_cert", help_heading = V2)]
    v2_key: Option<PathBuf>,

    /// User of the v2 API
    ///
    /// It needs the right to read `/*`, as `root` has.
    /// The password comes from --v2-password-file, from the variable ETCDLIFT_V2_PASSWORD, or from a prompt.
    #[arg(long, value_name = "NAME", requires = "v2_endpoints", help_heading = V2)]
    v2_user: Option<String>,

    /// File with the password of --v2-user
    #[arg(long, value_name = "FILE", requires = "v2_user", help_heading = V2)]
    v2_password_file: Option<PathBuf>,
}

/// Limits of the v3 server.
#[derive(Debug, clap::Args)]
pub(super) struct LimitArgs {
    /// Maximum number of operations in a transaction: the server's --max-txn-ops
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u16).range(8..), help_heading = LIMITS)]
    max_txn_ops: u16,

    /// Maximum size of a request: the server's --max-request-bytes
    #[arg(long, value_name = "SIZE", default_value_t = REQUEST_LIMIT, value_parser = size::parse_positive, help_heading = LIMITS)]
    request_limit: u64,
}

/// The time of a lock.
#[derive(Debug, clap::Args)]
pub(super) struct LockTtl {
    /// Time after which the lock of a killed job goes
    #[arg(long = "lock-ttl", value_name = "DURATION", default_value = "15s", help_heading = LIMITS)]
    lock_ttl: Seconds,
}

/// Options of `copy`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = epilogs::COPY.help())]
pub(super) struct CopyArgs {
    #[command(flatten)]
    pub(super) source: Source,

    #[command(flatten)]
    pub(super) target: Target,

    /// Key that ends the migration when its value is `true`
    #[arg(long, value_name = "KEY", default_value = SWITCH_KEY, help_heading = V3)]
    pub(super) switch_key: String,

    /// Stop as soon as v3 has everything
    #[arg(long, help_heading = RUN)]
    pub(super) once: bool,

    #[command(flatten, next_help_heading = SELECTION)]
    choices: Choices,

    /// What to do with keys that have a path element starting with `_`
    #[arg(long, value_enum, value_name = "POLICY", default_value_t, help_heading = SELECTION)]
    hidden: Keep,

    /// What to do with keys that have a TTL
    ///
    /// `lease` attaches keys to leases with the remaining time. Keys that expire in the same second share a lease.
    /// `permanent` writes the keys without a lease. `drop` leaves them out. `fail` refuses to copy. `fixed:DURATION`
    /// attaches them to a lease of that length. Give the option once for each PREFIX.
    #[arg(long, value_name = "[PREFIX=]POLICY", help_heading = TTLS)]
    ttl: Vec<TtlRule>,

    /// Rename a key and all keys below it; OLD matches as in --include
    #[arg(long, value_name = "OLD=NEW", value_parser = parse_map, help_heading = NAMES)]
    map: Vec<Rename>,

    /// Remove the first slash of every key, after --map
    #[arg(long, help_heading = NAMES)]
    strip_leading_slash: bool,

    /// TOML file with more rules, which apply after those of the command line
    #[arg(long, value_name = "FILE.toml", help_heading = NAMES)]
    rules: Option<PathBuf>,

    #[command(flatten)]
    pub(super) limits: LimitArgs,

    /// Transactions that are under way at the same time
    #[arg(long, value_name = "N", default_value = "8", help_heading = LIMITS)]
    pub(super) in_flight: NonZeroUsize,

    /// Maximum number of keys per second while the state is copied
    #[arg(long, value_name = "KEYS", value_parser = clap::value_parser!(u64).range(1..), help_heading = LIMITS)]
    pub(super) rate_limit: Option<u64>,

    #[command(flatten)]
    pub(super) lock_ttl: LockTtl,

    /// When to show a progress line
    #[arg(long, value_enum, value_name = "WHEN", default_value_t, help_heading = RUN)]
    pub(super) progress: When,
}

/// Options of `status`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = epilogs::STATUS.help())]
pub(super) struct StatusArgs {
    #[command(flatten)]
    pub(super) source: Source,

    #[command(flatten)]
    pub(super) target: Target,

    /// Write all conflicts to a file, as lines of JSON; `-` is standard output
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    pub(super) conflicts: Option<PathBuf>,

    #[command(flatten)]
    pub(super) form: Form,
}

/// Options of `verify`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = epilogs::VERIFY.help())]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    pub(super) source: Source,

    #[command(flatten)]
    pub(super) target: Target,

    /// Write an index map: from the v2 index of each key to its real v3 revision
    ///
    /// `etcdlift lookup` reads it. Keys that v3 leads are not in it.
    #[arg(long, value_name = "FILE.redb", help_heading = OUTPUT)]
    pub(super) index_map: Option<PathBuf>,

    /// Replace the index map if it exists
    #[arg(long, requires = "index_map", help_heading = OUTPUT)]
    pub(super) overwrite: bool,

    #[command(flatten)]
    pub(super) form: Form,
}

/// Options of `switch`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = epilogs::SWITCH.help())]
pub(super) struct SwitchArgs {
    #[command(flatten)]
    pub(super) source: Source,

    #[command(flatten)]
    pub(super) target: Target,

    /// Wait until v2 has not changed for this time
    #[arg(long, value_name = "DURATION", help_heading = RUN)]
    pub(super) quiet_for: Option<Seconds>,

    /// Switch although changes of v2 are missing in v3, or keys differ
    ///
    /// Not before the state was copied once, and not while `undo` or `finish` runs.
    #[arg(long, help_heading = RUN)]
    pub(super) force: bool,

    #[command(flatten)]
    pub(super) form: Form,
}

/// Options of `undo`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = epilogs::UNDO.help())]
pub(super) struct UndoArgs {
    #[command(flatten)]
    pub(super) source: Source,

    #[command(flatten)]
    pub(super) target: Target,

    #[command(flatten)]
    pub(super) limits: LimitArgs,

    #[command(flatten)]
    pub(super) lock_ttl: LockTtl,

    #[command(flatten)]
    pub(super) form: Form,
}

/// Options of `finish`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = epilogs::FINISH.help())]
pub(super) struct FinishArgs {
    #[command(flatten)]
    pub(super) target: Target,

    /// Write all conflicts to a file first, as lines of JSON; `-` is standard output
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    pub(super) conflicts: Option<PathBuf>,

    /// Finish although changes of v2 are not in v3
    #[arg(long, help_heading = RUN)]
    pub(super) accept_conflicts: bool,

    #[command(flatten)]
    pub(super) lock_ttl: LockTtl,

    #[command(flatten)]
    pub(super) form: Form,
}

/// A duration of at least one second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seconds(pub(super) Duration);

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rule: crate::options::TtlPolicy = format!("fixed:{text}").parse()?;
        match rule {
            crate::options::TtlPolicy::Fixed(seconds) => Ok(Seconds(Duration::from_secs(seconds.unsigned_abs()))),
            _ => Err("expected a duration like 30s".into()),
        }
    }
}

/// Refuses URLs with a user: a password there would be in the list of processes, and in messages.
fn refuse_password(urls: &[String], option: &str, user: &str) -> Result<()> {
    let has_user = |url: &String| {
        let rest = url.split_once("://").map_or(&**url, |(_, rest)| rest);
        rest.split('/').next().is_some_and(|host| host.contains('@'))
    };
    if urls.iter().any(has_user) {
        return Err(usage(format!("{option} takes URLs without a user")).hint(format!("give {user}")));
    }
    Ok(())
}

fn parse_prefix(text: &str) -> Result<String, String> {
    if text.ends_with('/') { Ok(text.into()) } else { Err("expected a prefix that ends in `/`".into()) }
}

impl Target {
    /// Returns how to reach v3. Asks for the password if necessary.
    pub(super) fn options(&self) -> Result<V3Options> {
        refuse_password(&self.endpoints, "--endpoints", "--user")?;
        let login = match &self.user {
            None => None,
            Some(user) if user.contains(':') => {
                return Err(usage("--user takes a name only: a password would be in the list of processes")
                    .hint("give --password-file, or set ETCDLIFT_PASSWORD"));
            }
            Some(user) => {
                let password = password::read(
                    user,
                    password::Places {
                        file: self.password_file.as_deref(),
                        option: "--password-file",
                        variable: "ETCDLIFT_PASSWORD",
                    },
                )?;
                Some(Login { user: user.clone(), password })
            }
        };
        Ok(V3Options {
            endpoints: self.endpoints.clone(),
            tls: Tls { cacert: self.cacert.clone(), cert: self.cert.clone(), key: self.key.clone() },
            login,
            retry_for: self.retry_for.0,
            request_timeout: Duration::from_secs(10),
        })
    }

    /// Returns the names of the state, with the default of the switch key.
    pub(super) fn keys(&self) -> Keys {
        Keys::new(&self.state_prefix, SWITCH_KEY)
    }
}

impl Source {
    /// Returns whether there is one.
    pub(super) fn is_given(&self) -> bool {
        self.dir.is_some() || !self.v2_endpoints.is_empty()
    }

    /// Returns the files that must stay as they are.
    pub(super) fn paths(&self) -> Vec<&Path> {
        self.dir.iter().chain(&self.wal_dir).map(|path| &**path).collect()
    }

    /// Returns how to reach v2. Asks for the password if necessary.
    pub(super) fn options(&self, retry_for: Duration) -> Result<V2Options> {
        if !self.is_given() {
            return Err(usage("expected the data directory of a member, or --v2-endpoints"));
        }
        refuse_password(&self.v2_endpoints, "--v2-endpoints", "--v2-user")?;
        let user = match &self.v2_user {
            None => None,
            Some(user) if user.contains(':') => {
                return Err(usage("--v2-user takes a name only: a password would be in the list of processes")
                    .hint("give --v2-password-file, or set ETCDLIFT_V2_PASSWORD"));
            }
            Some(user) => {
                let password = password::read(
                    user,
                    password::Places {
                        file: self.v2_password_file.as_deref(),
                        option: "--v2-password-file",
                        variable: "ETCDLIFT_V2_PASSWORD",
                    },
                )?;
                Some((user.clone(), password))
            }
        };
        Ok(V2Options {
            dir: self.dir.clone(),
            wal_dir: self.wal_dir.clone(),
            endpoints: self.v2_endpoints.clone(),
            cacert: self.v2_cacert.clone(),
            cert: self.v2_cert.clone(),
            key: self.v2_key.clone(),
            user,
            retry_for,
            tell: Some(exit::say_line),
        })
    }
}

impl LimitArgs {
    /// Returns the limits.
    pub(super) fn limits(&self) -> Limits {
        let bytes = usize::try_from(self.request_limit).unwrap_or(usize::MAX);
        Limits { operations: self.max_txn_ops.into(), bytes: bytes.saturating_sub(ENVELOPE) }
    }
}

impl LockTtl {
    /// Returns the seconds; etcd grants at least 2.
    pub(super) fn seconds(&self) -> i64 {
        i64::try_from(self.lock_ttl.0.as_secs()).unwrap_or(i64::MAX).max(2)
    }
}

impl CopyArgs {
    /// Returns the migration; its source, schema and version are filled in later.
    pub(super) fn job(&self) -> Result<state::Job> {
        let typed = convert::Typed {
            choose: &self.choices.0,
            rename: &self.map,
            strip_leading_slash: self.strip_leading_slash,
            ttl: &self.ttl,
            file: self.rules.as_deref(),
        };
        let (rules, ttl) = typed.rules()?;
        Ok(state::Job {
            schema: state::SCHEMA,
            etcdlift: String::new(),
            source: String::new(),
            hidden_keys: true,
            rules,
            ttl,
            hidden: self.hidden,
            switch_key: self.switch_key.clone(),
            time: state::now(),
        })
    }
}
