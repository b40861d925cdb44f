//! `etcdlift convert`: its options as typed, what they resolve to, and its run.
//!
//! Refuses options that do not go together, calls the library, and sees to it that the report is written and the summary
//! printed however the run ends. Must not know how anything is converted.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::progress::{Progress, When};
use super::reporter::Reporter;
use super::{exit, signals::Signals};
use crate::cli::include_exclude::Choices;
use crate::error::{Error, Kind, Reason, Result};
use crate::options::rules::{self, Pattern, Rename};
use crate::options::{
    AsOf, AuthPolicy, ConvertOptions, Dirs, Existing, Expired, Guest, InOrderNames, Keep, OnConflict, Protocol,
    REQUEST_LIMIT, Revisions, Rules, SourceVersion, TailPolicy, Target, To, Transformer, TtlRule, WalDir, all_cores,
    size,
};
use crate::output::report_file::Place;
use crate::pipeline;
use crate::report::{Report, text};

/// Options of `convert`, as typed.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A .snap file, a data directory, its member folder, a backup, a directory of WAL segments; or data directories of several members
    ///
    /// etcdlift detects the kind. A log alone converts only from its first entry. Sources are opened read-only and never changed. Several are members of one
    /// cluster, read as one log: what is committed is what the cluster itself would find after a restart.
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<PathBuf>,

    /// The file to make; it must not exist
    ///
    /// No two options may name the same file, and none a file of the source, by whatever path.
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,

    /// The form of the output
    #[arg(long, value_enum, value_name = "FORM", default_value_t)]
    to: To,

    /// Where the write-ahead log is when it lives elsewhere; `none` to take the newest snapshot alone
    ///
    /// A directory with .snap files but no log is refused without this option: forgetting the log would yield old data. With
    /// several sources once for each, in their order.
    #[arg(long, value_name = "DIR|none")]
    wal_dir: Vec<PathBuf>,

    /// The etcd minor version that will open the output
    ///
    /// The bytes of the output do not depend on it; the next step that the summary names does.
    #[arg(long, alias = "target", value_enum, value_name = "VERSION", default_value_t)]
    target_version: Target,

    /// Log entries after the commit index
    ///
    /// They may or may not have been acknowledged. v2 writes that are left out are listed in the report, and the exit status
    /// is 8 then.
    #[arg(long, value_enum, value_name = "POLICY", default_value_t)]
    tail: TailPolicy,

    /// Stop the replay at raft index N: the state at that point in time
    #[arg(long, value_name = "N")]
    up_to_index: Option<u64>,

    /// The version of etcd that started last on SOURCE: X.Y or X.Y.Z, 2.0 to 3.5
    ///
    /// It decides the rules of the replay: a server replays its whole log by its own rules when it starts. Without this option
    /// the source itself says which versions are possible; the report and `inspect` name each proof. X.Y is its newest patch.
    #[arg(long, value_name = "VERSION")]
    source_version: Option<SourceVersion>,

    /// Deprecated, see --source-version: how names of in-order keys (POST) were written by the server that last ran
    #[arg(long, value_enum, value_name = "FORM", default_value_t)]
    in_order_names: InOrderNames,

    /// Keys with a TTL: lease, permanent, drop, fail, or fixed:DURATION; the longest PREFIX wins
    ///
    /// `lease` attaches them to leases with the time that is left; keys that would have expired together share one.
    /// `permanent` keeps them without, `drop` leaves them out, `fail` refuses to convert, `fixed:1h` attaches them to one
    /// lease of that length. Without any of these: lease.
    #[arg(long, value_name = "[PREFIX=]POLICY")]
    ttl: Vec<TtlRule>,

    /// The instant against which TTLs are counted: `now`, `last-write` or RFC 3339
    ///
    /// `last-write` is the latest instant that the data itself proves, so that nothing expires while a copy lies around. Instants
    /// after 9999-12-30T22:00:00.999999999Z count as that one.
    #[arg(long, value_name = "TIME", default_value = "now")]
    as_of: AsOf,

    /// Keys that have expired at that instant; acts before --ttl
    #[arg(long, value_enum, value_name = "POLICY", default_value_t)]
    expired: Expired,

    /// v2 users, roles and permissions
    #[arg(long, value_enum, value_name = "POLICY", default_value_t)]
    auth: AuthPolicy,

    /// Rights of the guest role while authentication is on, which v3 cannot express
    #[arg(long, value_enum, value_name = "POLICY", default_value_t)]
    guest: Guest,

    /// v3 data that the source already holds
    ///
    /// `merge` and `keep-v3` keep every revision, lease, user and compaction mark as it is.
    #[arg(long, value_enum, value_name = "POLICY", default_value_t)]
    existing: Existing,

    /// With --existing merge, a key that v2 and v3 both have
    #[arg(long, value_enum, value_name = "POLICY", default_value_t)]
    on_conflict: OnConflict,

    #[command(flatten)]
    choices: Choices,

    /// Replace the beginning OLD of v2 keys by NEW; the first that matches, once
    ///
    /// OLD matches as in --include. It ends at the first `=`.
    #[arg(long, value_name = "OLD=NEW", value_parser = parse_map)]
    map: Vec<Rename>,

    /// Take the slash at the beginning of every key away, after --map
    #[arg(long)]
    strip_leading_slash: bool,

    /// More rules, from a TOML file; tried after those of the command line
    #[arg(long, value_name = "FILE.toml")]
    rules: Option<PathBuf>,

    /// A program that makes the v3 pairs, as `etcdctl migrate --transformer` takes it
    ///
    /// When the conversion ends or fails, the program is ended with its process group. A process that it has detached, for
    /// example with `setsid`, goes on.
    #[arg(long, value_name = "PROG")]
    transformer: Option<PathBuf>,

    /// What the transformer speaks
    #[arg(long, value_enum, value_name = "PROTOCOL", default_value_t, requires = "transformer")]
    transformer_protocol: Protocol,

    /// How many transformers run side by side; the order of keys is kept
    #[arg(long, value_name = "N", default_value_t = 1, requires = "transformer")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    transformer_jobs: u16,

    /// Without any progress of the transformer for that long, the conversion fails
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "transformer")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400))]
    transformer_timeout: u64,

    /// The conversion fails as soon as the transformers answer more than this
    ///
    /// Bytes of all answers, and 128 more for each pair. Without it the limit is 16 times the bytes that were sent to them, and
    /// at least 64 MiB.
    #[arg(long, value_name = "SIZE", requires = "transformer", value_parser = size::parse_positive)]
    transformer_answer_limit: Option<u64>,

    /// List keys that a v3 client could not write again, for this limit of a request
    ///
    /// Bytes, or a size with a unit: 512k and 512KiB are 524288 bytes, 512kB are 512000.
    #[arg(long, value_name = "SIZE", default_value_t = REQUEST_LIMIT, value_parser = size::parse)]
    request_limit: u64,

    /// Keys with a path element that starts with `_`
    #[arg(long, value_enum, value_name = "POLICY", default_value_t)]
    hidden: Keep,

    /// Empty directories, which v3 does not have
    #[arg(long, value_enum, value_name = "POLICY", default_value_t)]
    dirs: Dirs,

    /// How v3 revisions are numbered
    #[arg(long, value_enum, value_name = "POLICY", default_value_t)]
    revisions: Revisions,

    /// Raise the current revision by N and mark all below it compacted
    ///
    /// For clients that have seen a higher index than this copy holds.
    #[arg(long, value_name = "N", default_value_t = 0)]
    bump_revision: u64,

    /// Replace OUT if it is a regular file, and a report, ledger or index map of an earlier run
    ///
    /// A run that fails replaces nothing. Only a run that makes an output replaces the report of an output; a dry run
    /// replaces no ledger.
    #[arg(long, conflicts_with = "skip_existing")]
    overwrite: bool,

    /// Exit 0 if OUT is what this run would make
    ///
    /// It is when the earlier run's --report FILE names the same source hashes and options, and OUT's own sha256 and hashes, and
    /// OUT is a sound database that holds what the source holds. Neither file is touched then. A ledger or index map that does
    /// not exist yet is made.
    #[arg(long, requires = "report")]
    skip_existing: bool,

    /// Write an empty database instead of exit status 4
    #[arg(long)]
    allow_empty: bool,

    /// Skip damage: take the sound start that reaches furthest, and exit 8 with what was lost
    ///
    /// A start is a snapshot (.snap.broken files too) or the first entry of the log; the replay goes to the next damage, never
    /// across a gap. The summary lists the starts that were replayed, 32 at most, with raft index and number of keys.
    #[arg(long)]
    salvage: bool,

    /// Accept removed members and use their last known state
    #[arg(long)]
    allow_removed: bool,

    /// Read a directory that etcd is running on, as a consistent prefix of its log
    ///
    /// The output has every write up to one raft index, which the summary names, and none behind it. The source's files are
    /// held in memory.
    #[arg(long)]
    allow_live: bool,

    /// Do all but the write, with the same exit status and hashes
    #[arg(long)]
    dry_run: bool,

    /// Threads to use [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,

    /// Show on the terminal what a long run is at
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    progress: When,

    /// Refuse what would take more memory than this, beside the source's mapped files
    ///
    /// Bytes, or a size with a unit: 2GiB and 2g are 2147483648 bytes, 2GB are 2000000000. Reckoned before the work and
    /// again when more is known. Less is taken where that is possible, at the price of time.
    #[arg(long, value_name = "SIZE", value_parser = size::parse_positive)]
    memory_limit: Option<u64>,

    /// Write what happened as JSON to FILE; `-` is standard output
    ///
    /// On every exit status but 2. FILE is a regular file and must not exist; with --overwrite it may be an earlier report. The report of an
    /// output is not replaced by that of a run without one: standard error says so. Key names may stand in it, values and
    /// password hashes never.
    #[arg(long, value_name = "FILE|-")]
    report: Option<PathBuf>,

    /// Write the lookup table from v2 indexes to v3 revisions, for `etcdlift lookup`
    #[arg(long, value_name = "FILE.redb")]
    index_map: Option<PathBuf>,

    /// Write what became of every v2 node, one JSON object a line
    #[arg(long, value_name = "FILE.ndjson")]
    ledger: Option<PathBuf>,

    /// Exit 5 on what would otherwise be exit 8 or a warning about data
    ///
    /// Also on U+FFFD replacements, oversized values, expired keys and rules that match nothing.
    #[arg(long)]
    strict: bool,

    /// Do not read the output back and check it
    #[arg(long)]
    no_verify: bool,
}

/// Converts, reports, and tells the status to exit with.
///
/// # Errors
/// The options do not go together, or there is no place for the report. Errors of the conversion itself are printed.
pub fn run(args: &Args) -> Result<u8> {
    // A rules file that cannot be read is a refusal with a report; what is wrong in it is a wrong command line.
    let (rules, unread) = match rules_of(args) {
        Ok(rules) => (rules, None),
        Err(e) if e.kind() == Kind::Usage => return Err(e),
        Err(e) => (Default::default(), Some(e)),
    };
    let options = resolve(args, rules)?;
    let signals = Signals::install()?;
    let mut targets = pipeline::targets(&options);
    args.rules.iter().for_each(|rules| targets.read("rules file", rules));
    targets.check_named("report")?;
    let place = Place::of(&options)?;
    let mut reporter = if to_standard_output(args) { Reporter::on_standard_output() } else { Reporter::at(place) };
    let mut report = Report::new(&options);
    // A transformer may write to the terminal itself.
    let progress = Progress::new(if options.transformer.is_some() { When::Never } else { args.progress });
    let interrupted = || {
        progress.tick();
        signals.check()
    };
    let result = match unread {
        Some(error) => Err(error),
        None => exit::guard(|| {
            targets.check()?;
            let staged = pipeline::stage(&options, &mut report, &progress, &interrupted)?;
            if report.skipped {
                return staged.commit(None);
            }
            report.end(exit::status(&Ok(staged.outcome())), None);
            progress.end();
            let file = reporter.prepare(&report)?;
            interrupted()?;
            staged.commit(file)
        }),
    };
    progress.end();
    let status = exit::status(&result);
    match result {
        Ok(_) => exit::say(&text::summary(&report)),
        Err(error) => {
            report.end(status, Some(&error));
            exit::fail(&error);
            reporter.tell_failure(&report, &|| pipeline::targets(&options).check_named("report"));
        }
    }
    if !report.skipped {
        reporter.tell_kept(&report);
    }
    Ok(status)
}

fn to_standard_output(args: &Args) -> bool {
    args.report.as_deref() == Some(Path::new("-"))
}

/// What was typed, as the library takes it.
fn resolve(args: &Args, (rules, ttl): (Rules, Vec<TtlRule>)) -> Result<ConvertOptions> {
    let report = args.report.clone().filter(|_| !to_standard_output(args));
    if args.skip_existing && report.is_none() {
        return Err(usage("--skip-existing needs the earlier run's --report in a file"));
    }
    refuse_dash("--output", Some(&args.output), "a database")?;
    refuse_dash("--ledger", args.ledger.as_ref(), "a ledger")?;
    refuse_dash("--index-map", args.index_map.as_ref(), "an index map")?;
    if args.output.as_os_str().as_encoded_bytes().ends_with(b"/") && !args.output.is_dir() {
        return Err(usage("the output is one file, but --output names a directory"));
    }
    let wal_dirs: Vec<WalDir> = args.wal_dir.iter().map(|dir| WalDir::from(dir.as_path())).collect();
    if !wal_dirs.is_empty() && wal_dirs.len() != args.sources.len() {
        return Err(usage("--wal-dir is given once for each source, in their order"));
    }
    Ok(ConvertOptions {
        sources: args.sources.clone(),
        output: args.output.clone(),
        to: args.to,
        wal_dirs,
        target: args.target_version,
        tail: args.tail,
        up_to_index: args.up_to_index,
        source_version: args.source_version,
        in_order_names: args.in_order_names,
        as_of: args.as_of,
        ttl,
        expired: args.expired,
        auth: args.auth,
        guest: args.guest,
        existing: args.existing,
        on_conflict: args.on_conflict,
        rules,
        transformer: args.transformer.clone().map(|program| Transformer {
            program,
            protocol: args.transformer_protocol,
            jobs: args.transformer_jobs.into(),
            timeout_seconds: args.transformer_timeout,
            answer_limit: args.transformer_answer_limit,
        }),
        request_limit: args.request_limit,
        hidden: args.hidden,
        dirs: args.dirs,
        revisions: args.revisions,
        bump_revision: args.bump_revision,
        overwrite: args.overwrite,
        skip_existing: args.skip_existing,
        allow_empty: args.allow_empty,
        salvage: args.salvage,
        allow_removed: args.allow_removed,
        allow_live: args.allow_live,
        memory_limit: args.memory_limit,
        dry_run: args.dry_run,
        jobs: args.jobs.map_or_else(all_cores, usize::from),
        strict: args.strict,
        verify: !args.no_verify,
        report,
        index_map: args.index_map.clone(),
        ledger: args.ledger.clone(),
    })
}

/// The rules of the command line, and behind them those of the file.
fn rules_of(args: &Args) -> Result<(Rules, Vec<TtlRule>)> {
    let mut rules = Rules {
        choose: args.choices.0.clone(),
        rename: args.map.clone(),
        strip_leading_slash: args.strip_leading_slash,
        values: Vec::new(),
    };
    let mut ttl = args.ttl.clone();
    if let Some(path) = &args.rules {
        let file = rules::read(path)?;
        rules.choose.extend(file.rules.choose);
        rules.rename.extend(file.rules.rename);
        rules.strip_leading_slash |= file.rules.strip_leading_slash;
        rules.values.extend(file.rules.values);
        // What is typed wins over what the file says of the same keys.
        let typed: HashSet<_> = args.ttl.iter().map(|rule| &rule.prefix).collect();
        ttl.extend(file.ttl.into_iter().filter(|rule| !typed.contains(&rule.prefix)));
    }
    let mut seen = HashSet::new();
    for rule in &ttl {
        if !seen.insert(&rule.prefix) {
            let which = rule.prefix.as_ref().map_or("all keys".into(), |prefix| format!("{prefix:?}"));
            return Err(usage(&format!("--ttl names two policies for {which}")));
        }
    }
    if args.transformer.is_some() && (rules.rename_keys() || !rules.values.is_empty()) {
        return Err(usage(
            "--transformer names keys and values itself: it does not go with rules that rename or decode",
        ));
    }
    if args.transformer.is_some() && args.existing == Existing::KeepV3 {
        return Err(usage(
            "--transformer is sent v2 nodes: it does not go with --existing keep-v3, which leaves them out",
        ));
    }
    if args.transformer.is_some() && args.dirs == Dirs::Marker {
        return Err(usage(
            "--transformer is sent directories and makes their markers: it does not go with --dirs marker",
        ));
    }
    Ok((rules, ttl))
}

fn parse_map(text: &str) -> Result<Rename, String> {
    match text.split_once('=') {
        None | Some(("", _)) => Err("expected OLD=NEW".into()),
        Some((old, new)) => Ok(Rename { from: Pattern::Prefix(old.into()), to: new.into() }),
    }
}

/// Only JSON and lines of JSON go to standard output: a file called `-` is nobody's wish.
fn refuse_dash(option: &str, path: Option<&PathBuf>, what: &str) -> Result<()> {
    if path.is_none_or(|path| path != Path::new("-")) {
        return Ok(());
    }
    Err(usage(&format!("{option} - is refused: {what} is never written to standard output; name a file (./- is one)")))
}

pub(super) fn usage(message: &str) -> Error {
    Error::new(Reason::Usage, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use crate::options::rules::Choice;
    use clap::Parser;

    fn parse(words: &[&str]) -> Result<ConvertOptions, String> {
        let words = ["etcdlift", "convert"].iter().chain(words);
        match Cli::try_parse_from(words).map_err(|e| e.to_string())?.command {
            Command::Convert(args) => {
                rules_of(&args).and_then(|rules| resolve(&args, rules)).map_err(|e| e.to_string())
            }
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn nothing_typed_is_every_default() {
        assert_eq!(parse(&["src", "-o", "out"]).unwrap(), ConvertOptions::new("src", "out"));
    }

    #[test]
    fn every_option_arrives() {
        let typed = "src --output out --to backend --wal-dir none --target 3.4 --as-of 2016-05-04T12:00:00Z --hidden drop \
                     --dirs marker --revisions dense --bump-revision 7 --overwrite --allow-empty --dry-run --jobs 3 \
                     --report r.json --strict --no-verify --tail committed --up-to-index 9 --in-order-names plain --source-version 2.0.9 --allow-removed --allow-live --memory-limit 9k --progress never --salvage \
                     --ttl drop --ttl /a=lease --expired keep --auth users-only --guest drop --existing merge \
                     --on-conflict take-v2 --exclude /a/b --include /a --map /a=/b=c --strip-leading-slash \
                     --request-limit 9MB --index-map i.redb --ledger l.ndjson";
        let options = parse(&typed.split_whitespace().collect::<Vec<_>>()).unwrap();
        let expected = ConvertOptions {
            ttl: vec!["drop".parse().unwrap(), "/a=lease".parse().unwrap()],
            expired: Expired::Keep,
            auth: AuthPolicy::UsersOnly,
            guest: Guest::Drop,
            existing: Existing::Merge,
            on_conflict: OnConflict::TakeV2,
            rules: Rules {
                choose: vec![
                    Choice::Exclude(Pattern::Prefix("/a/b".into())),
                    Choice::Include(Pattern::Prefix("/a".into())),
                ],
                rename: vec![Rename { from: Pattern::Prefix("/a".into()), to: "/b=c".into() }],
                strip_leading_slash: true,
                values: Vec::new(),
            },
            request_limit: 9_000_000,
            index_map: Some("i.redb".into()),
            ledger: Some("l.ndjson".into()),
            tail: TailPolicy::Committed,
            up_to_index: Some(9),
            source_version: Some("2.0.9".parse().unwrap()),
            in_order_names: InOrderNames::Plain,
            allow_removed: true,
            allow_live: true,
            memory_limit: Some(9 << 10),
            salvage: true,
            to: To::Backend,
            wal_dirs: vec![WalDir::None],
            target: Target::V3_4,
            as_of: "2016-05-04T12:00:00Z".parse().unwrap(),
            hidden: Keep::Drop,
            dirs: Dirs::Marker,
            revisions: Revisions::Dense,
            bump_revision: 7,
            overwrite: true,
            allow_empty: true,
            dry_run: true,
            jobs: 3,
            report: Some("r.json".into()),
            strict: true,
            verify: false,
            ..ConvertOptions::new("src", "out")
        };
        assert_eq!(options, expected);
    }

    #[test]
    fn a_transformer_arrives() {
        let typed = "src -o out --transformer ./t.py --transformer-protocol json-lines --transformer-jobs 2 \
                     --transformer-timeout 5 --transformer-answer-limit 9k";
        let transformer = parse(&typed.split_whitespace().collect::<Vec<_>>()).unwrap().transformer.unwrap();
        let expected = Transformer {
            program: "./t.py".into(),
            protocol: Protocol::JsonLines,
            jobs: 2,
            timeout_seconds: 5,
            answer_limit: Some(9 << 10),
        };
        assert_eq!(transformer, expected);
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for words in [
            &["src"][..],
            &["-o", "out"],
            &["src", "src2", "-o", "out", "--wal-dir", "w"],
            &["src", "-o", "out", "--overwrite", "--skip-existing", "--report", "r"],
            &["src", "-o", "out", "--skip-existing"],
            &["src", "-o", "out", "--skip-existing", "--report", "-"],
            &["src", "-o", "missing/"],
            &["src", "-o", "-"],
            &["src", "-o", "out", "--ledger", "-"],
            &["src", "-o", "out", "--index-map", "-"],
            &["src", "-o", "out", "--as-of", "yesterday"],
            &["src", "-o", "out", "--as-of", "2016-05-04T12:00:00"],
            &["src", "-o", "out", "--jobs", "0"],
            &["src", "-o", "out", "--memory-limit", "0"],
            &["src", "-o", "out", "--memory-limit", "1X"],
            &["src", "-o", "out", "--progress", "always"],
            &["src", "-o", "out", "--target-version", "2.3"],
            &["src", "-o", "out", "--bump-revision", "-1"],
            &["src", "-o", "out", "--ttl", "drop", "--ttl", "lease"],
            &["src", "-o", "out", "--ttl", "/a=soon"],
            &["src", "-o", "out", "--map", "/a"],
            &["src", "-o", "out", "--include", ""],
            &["src", "-o", "out", "--transformer", "t", "--map", "/a=/b"],
            &["src", "-o", "out", "--transformer", "t", "--dirs", "marker"],
            &["src", "-o", "out", "--transformer-jobs", "2"],
            &["src", "-o", "out", "--rules", "missing.toml"],
            &["src", "-o", "out", "--request-limit", "1.5MiB"],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }
}
