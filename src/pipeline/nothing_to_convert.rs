//! Exit status 4: the source has no v2 key, or the options leave none.
//!
//! Says what the source has instead, why each key is left out, and which options help here. Must not know the exit
//! policy.

use jiff::Timestamp;

use super::as_of;
use super::context::Context;
use super::diagnostics::PlanFindings;
use super::replay::Replayed;
use crate::count::counted;
use crate::error::{Error, Reason, Result};
use crate::ids::RaftIndex;
use crate::interrupt::Interrupt;
use crate::options::{AsOf, AuthPolicy, ConvertOptions, Dirs, Existing};
use crate::report::Contents;
use crate::transform::plan::Plan;
use crate::transform::policy::{NAMESPACE, Policy, Why};
use crate::v2store::replay;

/// A message, and the options that help.
type Refusal = (String, Vec<String>);

/// Refuses a conversion that would write no key.
///
/// # Errors
/// [`Reason::NothingToConvert`] if no key is left; a log entry cannot be read.
pub(super) fn refuse(
    context: &Context<'_>,
    replayed: &Replayed<'_>,
    plan: &Plan,
    policy: &Policy,
    found: &PlanFindings,
) -> Result<()> {
    let options = context.options;
    if !plan.rows.is_empty() || options.allow_empty || options.existing == Existing::KeepV3 {
        return Ok(());
    }
    let nothing = Nothing {
        options,
        interrupt: context.interrupt,
        replayed,
        plan,
        as_of: policy.as_of,
        contents: &found.contents,
    };
    let (message, advice) = if plan.inventory.keys.keys == 0 { nothing.no_key()? } else { nothing.none_left()? };
    let message = format!("nothing to convert: {message}{}", replayed.possibly_incomplete);
    let error = Error::new(Reason::NothingToConvert, message).in_file(replayed.opened.path());
    Err(if advice.is_empty() { error } else { error.hint(advice.join("; ")) })
}

/// A plan without a row, with everything that the message needs.
struct Nothing<'a, 'm> {
    options: &'a ConvertOptions,
    interrupt: Interrupt<'a>,
    replayed: &'a Replayed<'m>,
    plan: &'a Plan,
    as_of: Option<Timestamp>,
    contents: &'a Contents,
}

impl Nothing<'_, '_> {
    /// Describes a source without a key.
    fn no_key(&self) -> Result<Refusal> {
        let (mut there, mut advice) = (Vec::new(), Vec::new());
        let v3 = self.replayed.backend.describe().filter(|_| self.options.existing != Existing::DropV3);
        let directories = self.plan.inventory.directories;
        if directories > 0 {
            there.push(counted(directories, "directory", "directories"));
            if self.options.dirs == Dirs::Drop && self.plan.inventory.empty_directories > 0 && v3.is_none() {
                advice.push("--dirs marker writes a key for each empty directory");
            }
        }
        let names = [(&self.contents.users, "v2 user", "v2 users"), (&self.contents.roles, "v2 role", "v2 roles")];
        let auth = names.iter().filter(|(names, ..)| !names.is_empty());
        there.extend(auth.map(|(names, one, many)| counted(names.len() as u64, one, many)));
        if let Some(v3) = &v3 {
            there.push(format!("v3 data ({v3})"));
            advice.push("--existing keep-v3 writes the v3 data alone");
        }
        let at = self.options.up_to_index.map_or(String::new(), |index| format!(" at raft index {index}"));
        let mut message = format!("the source holds no v2 key{at}");
        if !there.is_empty() {
            message.push_str(&format!(", only {}", there.join(", ")));
        }
        if let Some(first) = self.first_write_after()? {
            message.push_str(&format!("; the next write of a v2 key in the log is at raft index {first}"));
        }
        let tail = self.replayed.recovered.tail.writes.len() as u64;
        if tail > 0 {
            let writes = counted(tail, "v2 write", "v2 writes");
            message.push_str(&format!("; {writes} in the log's tail left out, because nothing proves a commit"));
            advice.push("--tail all includes the tail");
        }
        let named = !self.contents.users.is_empty() || !self.contents.roles.is_empty();
        if v3.is_none() {
            advice.push(match named && self.options.auth != AuthPolicy::Ignore {
                true => "--allow-empty writes a database with the users and roles alone",
                false => "--allow-empty writes an empty database",
            });
        }
        Ok((message, advice.into_iter().map(String::from).collect()))
    }

    /// Returns the raft index of the first write of a key after `--up-to-index`.
    fn first_write_after(&self) -> Result<Option<RaftIndex>> {
        if self.options.up_to_index.is_none() {
            return Ok(None);
        }
        let applied = self.replayed.recovered.replay.applied;
        let Some(wal) = self.replayed.opened.wal() else { return Ok(None) };
        for reference in wal.entries().iter().filter(|entry| entry.index > applied) {
            let write = replay::write_in(&wal.entry(reference)?);
            if write.is_some_and(|write| write.path.starts_with(NAMESPACE)) {
                return Ok(Some(reference.index));
            }
        }
        Ok(None)
    }

    /// Describes why the options leave no key.
    fn none_left(&self) -> Result<Refusal> {
        let keys = self.plan.inventory.keys.keys;
        let count = |wanted: fn(&Why) -> bool| self.plan.left_out.iter().filter(|(_, why)| wanted(why)).count() as u64;
        let expired = count(|why| matches!(why, Why::Expired));
        let as_of = self.as_of.map_or(String::new(), |at| at.to_string());
        let mut advice = if expired > 0 { self.expired_advice()? } else { Vec::new() };
        if count(|why| matches!(why, Why::Excluded(_) | Why::NotIncluded)) > 0 {
            advice.push("check --include, --exclude and --rules".to_string());
        }
        if self.replayed.backend.describe().is_none() || self.options.existing == Existing::DropV3 {
            advice.push("--allow-empty writes an empty database".to_string());
        }
        if expired == keys {
            let all = if keys == 1 { "the only v2 key has".into() } else { format!("all {keys} v2 keys have") };
            let last = match self.last_write()? {
                Some(proven) => format!("the last write that the source proves is at {} ({})", proven.at, proven.by),
                None => "the source proves no time of a write".to_string(),
            };
            return Ok((format!("{all} expired as of {as_of}; {last}"), advice));
        }
        let parts = [
            (expired, "expired", format!(" as of {as_of}")),
            (count(|why| matches!(why, Why::Excluded(_))), "excluded by a rule", String::new()),
            (count(|why| matches!(why, Why::NotIncluded)), "matched by no include", String::new()),
            (count(|why| matches!(why, Why::Hidden)), "hidden", " and dropped by --hidden drop".to_string()),
            (count(|why| matches!(why, Why::Ttl)), "dropped by a --ttl policy", String::new()),
            (count(|why| matches!(why, Why::Transformer)), "without a pair from the transformer", String::new()),
        ];
        let parts: Vec<String> = parts
            .iter()
            .filter(|(count, ..)| *count > 0)
            .map(|(count, what, how)| format!("{count} {what}{how}"))
            .collect();
        let keys = counted(keys, "v2 key", "v2 keys");
        Ok((format!("the options leave none of {keys}: {}", parts.join(", ")), advice))
    }

    fn last_write(&self) -> Result<Option<as_of::Proven>> {
        let Replayed { opened, table, recovered, .. } = self.replayed;
        as_of::last_write(opened, table, recovered, self.interrupt)
    }

    /// Returns the options that write expired keys here.
    fn expired_advice(&self) -> Result<Vec<String>> {
        let mut advice = Vec::new();
        let proven = self.last_write()?.map(|proven| proven.at);
        let lived = |at| self.plan.inventory.expired_keys.iter().any(|(_, expiry)| *expiry > at);
        if self.options.as_of != AsOf::LastWrite && proven.is_some_and(lived) {
            advice.push("--as-of last-write counts from the last write".to_string());
        }
        if self.as_of.is_some() {
            advice.push("--expired keep writes them with the shortest lease".to_string());
        }
        Ok(advice)
    }
}
