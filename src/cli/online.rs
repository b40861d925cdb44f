//! `etcdlift online`: its commands as typed, and their runs.
//!
//! Prints what the library found. Must not know the protocol.

mod args;
mod epilogs;
mod password;
mod progress;
mod text;

use std::path::Path;

use serde::Serialize;

use super::exit;
use super::signals::{self, Signals};
use super::stdout::{print, print_text};
use crate::error::{Error, Reason, Result};
use crate::interrupt::Interrupt;
use crate::online::carry::Counters;
use crate::online::copy::{self, Context, CopyOptions};
use crate::online::files;
use crate::online::finish;
use crate::online::mapping;
use crate::online::reconcile::Pace;
use crate::online::state::{self, Conflict, Keys, SCHEMA};
use crate::online::status;
use crate::online::switch::{self, SwitchOptions};
use crate::online::undo;
use crate::online::v2::{self, V2};
use crate::online::v3::Connection;
use crate::online::verify;
use crate::output::naming::Before;
use crate::output::report_file;

pub(super) use args::Args;
use args::{Command, CopyArgs, FinishArgs, StatusArgs, SwitchArgs, Target, UndoArgs, VerifyArgs};
use progress::Line;

/// Differences were found.
const DIFFERS: u8 = 7;

/// Runs a command. Returns the exit status.
///
/// # Errors
/// Those of the library.
pub(super) fn run(args: &Args, quiet: bool) -> Result<u8> {
    let signals = Signals::install()?;
    signals.check()?;
    match &args.command {
        Command::Copy(args) => copy(args, quiet),
        Command::Status(args) => status(args),
        Command::Verify(args) => verify(args, quiet),
        Command::Switch(args) => switch(args),
        Command::Undo(args) => undo(args),
        Command::Finish(args) => finish(args),
    }
}

/// Connects to v3, and calls `work` with the connection and the names of the state.
fn connected<T>(target: &Target, work: impl FnOnce(&Context<'_>, &Keys) -> Result<T>) -> Result<T> {
    let tell = |line: &str| exit::say_line(line);
    let interrupt = Interrupt::new(&signals::check);
    let connection = Connection::open(target.options()?, interrupt, &tell)?;
    let context = Context { kv: &connection, interrupt, tell: &tell };
    let mut keys = target.keys();
    if let Some(job) = state::read(context.kv, &keys)?.job {
        keys.switch = job.switch_key.into_bytes();
    }
    work(&context, &keys)
}

fn open(source: &args::Source, target: &Target) -> Result<Box<dyn V2>> {
    v2::open(&source.options(target.retry_for.0)?, Interrupt::new(&signals::check))
}

fn copy(args: &CopyArgs, quiet: bool) -> Result<u8> {
    let job = args.job()?;
    let counters = Counters::default();
    let line = Line::new(args.progress, quiet);
    let result = connected(&args.target, |context, keys| {
        let mut v2 = open(&args.source, &args.target)?;
        // The switch key of a migration that exists is compared, not taken.
        let keys = Keys { switch: args.switch_key.clone().into_bytes(), ..keys.clone() };
        let options = CopyOptions {
            job: state::Job { schema: SCHEMA, etcdlift: env!("CARGO_PKG_VERSION").into(), ..job },
            keys,
            once: args.once,
            pace: Pace { in_flight: args.in_flight.into(), rate_limit: args.rate_limit },
            limits: args.limits.limits(),
            lock_seconds: args.lock_ttl.seconds(),
        };
        let tell = |text: &str| {
            line.erase();
            exit::say_line(text);
        };
        let asked = || {
            line.tick(&counters);
            signals::check()
        };
        let context = Context { interrupt: Interrupt::new(&asked), tell: &tell, ..*context };
        if !v2.shows_hidden_keys() {
            tell("warning: the v2 API does not list hidden keys, so they are not copied; a data directory has them");
        }
        let head = copy::copy(&context, &mut *v2, &options, &counters)?;
        Ok((head, state::count(context.kv, &options.keys, "conflict/")?))
    });
    line.erase();
    match &result {
        Ok((head, conflicts)) if !quiet => exit::say(&text::copied(*head, *conflicts, &counters)),
        Err(error) if matches!(error.reason(), Reason::Interrupted(_)) && !quiet => {
            exit::say(&text::stopped(&counters));
        }
        _ => {}
    }
    result.map(|(_, conflicts)| if conflicts > 0 { exit::PARTIAL } else { 0 })
}

fn status(args: &StatusArgs) -> Result<u8> {
    connected(&args.target, |context, keys| {
        let head = if args.source.is_given() { Some(open(&args.source, &args.target)?.head()?) } else { None };
        if let Some(file) = &args.conflicts {
            save_conflicts(context, keys, file, &args.source.paths())?;
            if file == Path::new("-") {
                return Ok(0);
            }
        }
        let status = status::status(context.kv, keys, head)?;
        show(args.form.is_json(), &status, || text::status(&status)).map(|()| 0)
    })
}

fn verify(args: &VerifyArgs, quiet: bool) -> Result<u8> {
    connected(&args.target, |context, keys| {
        let earlier = match &args.index_map {
            Some(path) => files::index_map(path, args.overwrite, &args.source.paths())?,
            None => Before::Nothing,
        };
        let mut v2 = open(&args.source, &args.target)?;
        let mut pairs = Vec::new();
        let wanted = args.index_map.is_some();
        let found = verify::verify(context, &mut *v2, keys, &mut |pair| {
            if wanted {
                pairs.push(pair);
            }
            Ok(())
        })?;
        if let Some(path) = &args.index_map {
            mapping::write(path, earlier, pairs, &found, context.interrupt)?;
        }
        show(args.form.is_json(), &found, || text::verified(&found, quiet))?;
        Ok(if found.differing > 0 { DIFFERS } else { 0 })
    })
}

fn switch(args: &SwitchArgs) -> Result<u8> {
    connected(&args.target, |context, keys| {
        let mut v2 = open(&args.source, &args.target)?;
        let options =
            SwitchOptions { force: args.force, quiet_for: args.quiet_for.map_or_else(Default::default, |d| d.0) };
        let done = switch::switch(context, &mut *v2, keys, options)?;
        show(args.form.is_json(), &done, || text::switched(&done, keys))?;
        Ok(if done.later > 0 { exit::PARTIAL } else { 0 })
    })
}

fn undo(args: &UndoArgs) -> Result<u8> {
    connected(&args.target, |context, keys| {
        let mut v2 = open(&args.source, &args.target)?;
        let done = undo::undo(context, &mut *v2, keys, args.limits.limits(), args.lock_ttl.seconds())?;
        show(args.form.is_json(), &done, || text::undone(done)).map(|()| 0)
    })
}

fn finish(args: &FinishArgs) -> Result<u8> {
    connected(&args.target, |context, keys| {
        let mut save = || args.conflicts.as_ref().map_or(Ok(()), |file| save_conflicts(context, keys, file, &[]));
        let done = finish::finish(context, keys, args.accept_conflicts, args.lock_ttl.seconds(), &mut save)?;
        if args.conflicts.as_deref() == Some(Path::new("-")) {
            return Ok(0);
        }
        show(args.form.is_json(), &done, || text::finished(done)).map(|()| 0)
    })
}

fn show(json: bool, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
    if json { print(&report_file::to_json(value)?) } else { print_text(&text()) }
}

/// Writes all conflicts as lines of JSON; `-` is standard output.
fn save_conflicts(context: &Context<'_>, keys: &Keys, path: &Path, sources: &[&Path]) -> Result<()> {
    let line = |conflict: &Conflict| {
        let text = serde_json::to_string(conflict);
        text.map(|text| text + "\n").map_err(|e| Error::new(Reason::Internal, format!("JSON: {e}")))
    };
    if path == Path::new("-") {
        return state::conflicts(context.kv, keys, |conflict| print(line(&conflict)?.as_bytes()));
    }
    files::new_file("--conflicts", path, sources, |out| {
        let failed = |e| Error::io(Reason::OutputFailed, path, "write the conflicts", e);
        state::conflicts(context.kv, keys, |conflict| out.write_all(line(&conflict)?.as_bytes()).map_err(failed))
    })
}
