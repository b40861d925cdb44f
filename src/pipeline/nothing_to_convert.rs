//! Exit status 4: the source has no v2 key, or the options leave none.
//!
//! Says what the source has instead, why each key is left out, and which options help here. Must not know the exit policy.

use super::{as_of, diagnostics};
use crate::count::counted;
use crate::error::{Error, Reason, Result};
use crate::ids::RaftIndex;
use crate::interrupt::Interrupt;
use crate::options::{AsOf, AuthPolicy, ConvertOptions, Dirs, Existing};
use crate::pipeline::read::Backend;
use crate::report::Report;
use crate::source::open::Opened;
use crate::transform::plan::Plan;
use crate::transform::policy::{NAMESPACE, Why};
use crate::v2store::replay;
use crate::v2store::replay::Recovered;
use crate::v2store::table::Table;

/// A message, and the options that help.
type Refusal = (String, Vec<String>);

/// The source of a conversion, with everything that the message needs.
pub(super) struct Source<'a, 'm> {
    pub(super) options: &'a ConvertOptions,
    pub(super) opened: &'m Opened,
    pub(super) table: &'a Table<'m>,
    pub(super) recovered: &'a Recovered<'m>,
    pub(super) backend: &'a Backend<'m>,
    pub(super) interrupt: Interrupt<'a>,
}

impl Source<'_, '_> {
    /// Refuses a conversion that would write no key.
    ///
    /// # Errors
    /// [`Reason::NothingToConvert`] if no key is left; a log entry cannot be read.
    pub(super) fn refuse(&self, plan: &Plan, report: &Report) -> Result<()> {
        if !plan.rows.is_empty() || self.options.allow_empty || self.options.existing == Existing::KeepV3 {
            return Ok(());
        }
        let (message, advice) =
            if plan.inventory.keys.keys == 0 { self.no_key(plan, report)? } else { self.none_left(plan, report)? };
        let message = format!("nothing to convert: {message}{}", diagnostics::possibly_incomplete(report));
        let error = Error::new(Reason::NothingToConvert, message).in_file(self.opened.path());
        Err(if advice.is_empty() { error } else { error.hint(advice.join("; ")) })
    }

    /// Describes a source without a key.
    fn no_key(&self, plan: &Plan, report: &Report) -> Result<Refusal> {
        let (mut there, mut advice) = (Vec::new(), Vec::new());
        let v3 = self.backend.describe().filter(|_| self.options.existing != Existing::DropV3);
        let directories = plan.inventory.directories;
        if directories > 0 {
            there.push(counted(directories, "directory", "directories"));
            if self.options.dirs == Dirs::Drop && plan.inventory.empty_directories > 0 && v3.is_none() {
                advice.push("--dirs marker writes a key for each empty directory");
            }
        }
        let names = [(&report.contents.users, "v2 user", "v2 users"), (&report.contents.roles, "v2 role", "v2 roles")];
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
        if report.tail.v2_writes > 0 {
            let writes = counted(report.tail.v2_writes, "v2 write", "v2 writes");
            message.push_str(&format!("; {writes} in the log's tail left out, because nothing proves a commit"));
            advice.push("--tail all includes the tail");
        }
        let named = !report.contents.users.is_empty() || !report.contents.roles.is_empty();
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
        let applied = self.recovered.replay.applied;
        let Some(wal) = self.opened.wal() else { return Ok(None) };
        for reference in wal.entries().iter().filter(|entry| entry.index > applied) {
            let write = replay::write_in(&wal.entry(reference)?);
            if write.is_some_and(|write| write.path.starts_with(NAMESPACE)) {
                return Ok(Some(reference.index));
            }
        }
        Ok(None)
    }

    /// Describes why the options leave no key.
    fn none_left(&self, plan: &Plan, report: &Report) -> Result<Refusal> {
        let keys = plan.inventory.keys.keys;
        let count = |wanted: fn(&Why) -> bool| plan.left_out.iter().filter(|(_, why)| wanted(why)).count() as u64;
        let expired = count(|why| matches!(why, Why::Expired));
        let mut advice = if expired > 0 { self.expired_advice(plan, report)? } else { Vec::new() };
        if self.backend.describe().is_none() || self.options.existing == Existing::DropV3 {
            advice.push("--allow-empty writes an empty database".to_string());
        }
        if expired == keys {
            let all = if keys == 1 { "the only v2 key has".into() } else { format!("all {keys} v2 keys have") };
            let last = match as_of::last_write(self.opened, self.table, self.recovered, self.interrupt)? {
                Some(proven) => format!("the last write that the source proves is at {} ({})", proven.at, proven.by),
                None => "the source proves no time of a write".to_string(),
            };
            return Ok((format!("{all} expired as of {}; {last}", report.as_of), advice));
        }
        let parts = [
            (expired, "expired", format!(" as of {}", report.as_of)),
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

    /// Returns the options that write expired keys here.
    fn expired_advice(&self, plan: &Plan, report: &Report) -> Result<Vec<String>> {
        let mut advice = Vec::new();
        let proven =
            as_of::last_write(self.opened, self.table, self.recovered, self.interrupt)?.map(|proven| proven.at);
        let lived = |at| plan.inventory.expired_keys.iter().any(|(_, expiry)| *expiry > at);
        if self.options.as_of != AsOf::LastWrite && proven.is_some_and(lived) {
            advice.push("--as-of last-write counts from the last write".to_string());
        }
        if !report.as_of.is_empty() {
            advice.push("--expired keep writes them with the shortest lease".to_string());
        }
        Ok(advice)
    }
}
