//! `etcdlift convert`: what its options resolve to, and its run.
//!
//! Refuses options that exclude each other, calls the library, writes the report and prints the summary, however the
//! run ends. Must not know how anything is converted.

mod args;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

pub(super) use args::{Args, parse_map};

use super::exit::{self, usage};
use super::progress::{Progress, When};
use super::signals::Signals;
use super::stdout::print;
use crate::error::{Kind, Result};
use crate::facade::Run;
use crate::options::rules::{Choice, Rename};
use crate::options::{ConvertOptions, Dirs, Existing, Rules, Target, Transformer, TtlRule, all_cores, rules};
use crate::output::report_file::Place;
use crate::pipeline::{self, Observer, Reporter, Told};
use crate::report::{Report, text};

/// Converts, reports, and returns the exit status.
///
/// # Errors
/// The options do not go together, or there is no place for the report. Errors of the conversion itself are printed.
pub(super) fn run(args: &Args, quiet: bool) -> Result<u8> {
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
    targets.check_spelling()?;
    targets.check_named("report")?;
    let place = Place::of(&options)?;
    let print = |bytes: &[u8]| print(bytes);
    let mut reporter =
        if to_standard_output(args) { Reporter::on_standard_output(&print) } else { Reporter::at(place) };
    let mut report = Report::new(&options);
    // A transformer may write to the terminal itself.
    let progress = Progress::new(if quiet || options.transformer.is_some() { When::Never } else { args.progress });
    let interrupted = || {
        progress.tick();
        signals.check()
    };
    let result = match unread {
        Some(error) => Err(error),
        None => exit::guard(|| {
            targets.check()?;
            Run::new().observed(&progress).interrupted(&interrupted).convert_reported(
                &options,
                &mut report,
                &mut reporter,
            )
        }),
    };
    progress.end();
    match &result {
        Ok(_) => exit::say(&if quiet { text::result(&report) } else { text::summary(&report) }),
        Err(error) => {
            exit::fail(error);
            tell_failure(reporter.fail(&options, &mut report, error));
        }
    }
    if !report.skipped
        && !quiet
        && let Some(why) = reporter.unchanged_reason(&report)
    {
        exit::say_line(&why);
    }
    Ok(exit::status(&result))
}

fn tell_failure(told: Result<Told>) {
    match told {
        Ok(Told::Yes) => {}
        Ok(Told::TooEarly) => {
            exit::say_line("the report was printed before this error, and describes an output that does not exist");
        }
        Err(e) => {
            exit::fail(&e);
        }
    }
}

fn to_standard_output(args: &Args) -> bool {
    args.report.as_deref() == Some(Path::new("-"))
}

/// Turns the command line into options of the library.
fn resolve(args: &Args, (rules, ttl): (Rules, Vec<TtlRule>)) -> Result<ConvertOptions> {
    let report = args.report.clone().filter(|_| !to_standard_output(args));
    if args.skip_existing && report.is_none() {
        let message = "--skip-existing needs the report of the earlier run in a file";
        return Err(usage(message).hint("give --report FILE, with the report of the run that wrote the output"));
    }
    refuse_dash("--output", Some(&args.output), "a database")?;
    refuse_dash("--ledger", args.ledger.as_ref(), "a ledger")?;
    refuse_dash("--index-map", args.index_map.as_ref(), "an index map")?;
    let source = &args.source;
    Ok(ConvertOptions {
        sources: args.sources.clone(),
        output: args.output.clone(),
        to: args.to,
        cluster: args.cluster.resolve()?,
        preserve_owner: args.cluster.preserve_owner,
        wal_dirs: source.wal_dirs(args.sources.len())?,
        target: args.target_version.unwrap_or_else(|| Target::for_output(args.to)),
        tail: source.tail,
        up_to_index: source.up_to_index,
        source_version: source.source_version,
        in_order_names: source.in_order_names,
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
        salvage: source.salvage,
        allow_removed: source.allow_removed,
        allow_live: source.allow_live,
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

/// The rules of a command line.
pub(super) struct Typed<'a> {
    /// `--include` and `--exclude`.
    pub(super) choose: &'a [Choice],
    /// `--map`.
    pub(super) rename: &'a [Rename],
    /// `--strip-leading-slash`.
    pub(super) strip_leading_slash: bool,
    /// `--ttl`.
    pub(super) ttl: &'a [TtlRule],
    /// `--rules`.
    pub(super) file: Option<&'a Path>,
}

impl Typed<'_> {
    /// Returns the rules of the command line, and after them those of the file.
    ///
    /// # Errors
    /// The file cannot be read or is wrong; a prefix has two policies.
    pub(super) fn rules(&self) -> Result<(Rules, Vec<TtlRule>)> {
        let mut rules = Rules {
            choose: self.choose.to_vec(),
            rename: self.rename.to_vec(),
            strip_leading_slash: self.strip_leading_slash,
            values: Vec::new(),
        };
        let mut ttl = self.ttl.to_vec();
        if let Some(path) = self.file {
            let file = rules::read(path)?;
            rules.choose.extend(file.rules.choose);
            rules.rename.extend(file.rules.rename);
            rules.strip_leading_slash |= file.rules.strip_leading_slash;
            rules.values.extend(file.rules.values);
            // What is typed wins over what the file says of the same keys.
            let typed: HashSet<_> = self.ttl.iter().map(|rule| &rule.prefix).collect();
            ttl.extend(file.ttl.into_iter().filter(|rule| !typed.contains(&rule.prefix)));
        }
        let mut seen = HashSet::new();
        for rule in &ttl {
            if !seen.insert(&rule.prefix) {
                let which = rule.prefix.as_ref().map_or("all keys".into(), |prefix| format!("{prefix:?}"));
                return Err(usage(format!("--ttl names two policies for {which}")));
            }
        }
        Ok((rules, ttl))
    }
}

/// Returns the rules, if they go together with the other options.
fn rules_of(args: &Args) -> Result<(Rules, Vec<TtlRule>)> {
    let typed = Typed {
        choose: &args.choices.0,
        rename: &args.map,
        strip_leading_slash: args.strip_leading_slash,
        ttl: &args.ttl,
        file: args.rules.as_deref(),
    };
    let (rules, ttl) = typed.rules()?;
    if args.transformer.is_some() && (rules.rename_keys() || !rules.values.is_empty()) {
        let message = "--transformer excludes rules that rename keys or decode values: the program does both itself";
        return Err(usage(message));
    }
    if args.transformer.is_some() && args.existing == Existing::KeepV3 {
        return Err(usage(
            "--transformer excludes --existing keep-v3, which leaves out the v2 nodes that it would get",
        ));
    }
    if args.transformer.is_some() && args.dirs == Dirs::Marker {
        return Err(usage(
            "--transformer excludes --dirs marker: the program gets directories and makes markers itself",
        ));
    }
    Ok((rules, ttl))
}

/// Refuses `-`: only JSON goes to standard output, and a file with that name is hardly meant.
fn refuse_dash(option: &str, path: Option<&PathBuf>, what: &str) -> Result<()> {
    if path.is_none_or(|path| path != Path::new("-")) {
        return Ok(());
    }
    let message = format!("{option} - is refused: etcdlift never writes {what} to standard output");
    Err(usage(message).hint("name a file; `./-` is a file with the name `-`"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};
    use crate::options::rules::Pattern;
    use crate::options::{
        AuthPolicy, Expired, Guest, InOrderNames, Keep, OnConflict, Protocol, Revisions, TailPolicy, Target, To, WalDir,
    };

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
    fn contradicting_options_are_refused() {
        for words in [
            &["src"][..],
            &["-o", "out"],
            &["src", "src2", "-o", "out", "--wal-dir", "w"],
            &["src", "-o", "out", "--overwrite", "--skip-existing", "--report", "r"],
            &["src", "-o", "out", "--skip-existing"],
            &["src", "-o", "out", "--skip-existing", "--report", "-"],
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
