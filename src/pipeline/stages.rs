//! The three stages between the source and the output: replay, plan, number.
//!
//! A refusal by a policy, a rule or the state of the source happens here, before the first byte is written. `convert`
//! writes the result; `verify` and `--skip-existing` compare a file with it. Must not know files of the output.

use super::context::{Activity, Context};
use super::diagnostics::{Diagnosed, Findings};
use super::number::{Numbered, number};
use super::plan::plan;
use super::read::Source;
use super::replay::replay;
use crate::error::{Error, Reason, Result};
use crate::report::Report;

/// Decides everything that the output of a source contains. A failed stage also adds to the report what it found.
///
/// # Errors
/// Those of the stages; [`Reason::Strict`].
pub(super) fn run<'m>(context: &Context<'_>, source: Source<'m>, report: &mut Report) -> Result<Numbered<'m>> {
    context.observer.stage(Activity::Replaying);
    let replayed = settle(replay(context, source), report)?;
    context.observer.stage(Activity::Planning);
    let planned = settle(plan(context, replayed), report)?;
    let numbered = settle(number(context, planned), report)?;
    refuse_strict(context, report).map_err(|e| e.in_file(source.opened.path()))?;
    Ok(numbered)
}

fn settle<T>((found, result): Diagnosed<impl Findings, T>, report: &mut Report) -> Result<T> {
    found.add_to(report);
    result
}

fn refuse_strict(context: &Context<'_>, report: &Report) -> Result<()> {
    let objections = report.strict_objections();
    match objections.first() {
        Some(first) if context.options.strict => {
            let more = objections.len() - 1;
            let more = if more == 0 { String::new() } else { format!(" (and {more} more)") };
            Err(Error::new(Reason::Strict, format!("--strict refuses: {first}{more}")))
        }
        _ => Ok(()),
    }
}
