//! Judges histories. Two judges, and a history has to pass both:
//!
//! - rules that each find one kind of violation, and name it;
//! - `register.rs`: each key is one register for all clients that follow the protocol, and for the writes of v2-only
//!   clients that the job does not list as conflicts. A listed write may have taken effect within its own time, or not.
//!
//! Pure: a history in, violations out.

use std::fmt;

use super::ops::{Client, History, Kind, Micros, Op};
use super::register;

/// What is wrong with the history of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Violation {
    /// A read has a value that nobody wrote to this key before the read ended.
    NeverWritten,
    /// A read has a value that an acknowledged delete, or the end of a TTL that somebody saw, had ended.
    Back,
    /// A read has a value older than a write that was acknowledged before the read began.
    Stale,
    /// A read has a value older than that of an earlier read.
    Older,
    /// At the end v3 has not what an acknowledged write says.
    Lost,
    /// A v2-only client was told that its write succeeded, after the key had moved; the job does not list it.
    Unlisted,
    /// The job lists a write of v2 because v3 leads the key, but no client has moved the key.
    ForNothing,
    /// No order of the operations explains what the clients were told.
    NoOrder,
    /// The search for an order ended without a result.
    Undecided,
}

/// A violation with what it is about.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) violation: Violation,
    pub(super) key: String,
    /// In the order of the violation. For [`Violation::NoOrder`]: one of these must come next, where the search came farthest.
    pub(super) ops: Vec<Op>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ops: Vec<String> = self.ops.iter().map(|op| format!("\n{op}")).collect();
        write!(f, "{:?} in the history of {}:{}", self.violation, self.key, ops.concat())
    }
}

/// All violations.
pub(super) fn check(history: &History) -> Vec<Found> {
    let mut found = rules(history);
    for (key, ops) in &history.keys {
        let listed = |op: &Op| history.is_listed(key, op);
        let (violation, ops) = match register::order(ops, &listed) {
            register::Verdict::Order => continue,
            register::Verdict::None { stuck } => (Violation::NoOrder, stuck),
            register::Verdict::Undecided => (Violation::Undecided, vec![]),
        };
        found.push(Found { violation, key: key.clone(), ops });
    }
    found
}

/// The violations that rules find.
pub(super) fn rules(history: &History) -> Vec<Found> {
    let mut found = Vec::new();
    for (key, ops) in &history.keys {
        let mut add = |violation, ops: &[&Op]| {
            let ops = ops.iter().map(|op| (*op).clone()).collect();
            found.push(Found { violation, key: key.clone(), ops });
        };
        let rules = Rules { history, key, ops };
        rules.listed(&mut add);
        for op in ops {
            match &op.kind {
                Kind::Read(value) => rules.read(op, value.as_deref(), &mut add),
                _ => rules.write(op, &mut add),
            }
        }
    }
    found
}

struct Rules<'a> {
    history: &'a History,
    key: &'a str,
    ops: &'a [Op],
}

impl Rules<'_> {
    /// Conflicts of a key that v3 does not lead. After an `undo`, v3 also leads a key that was away because its TTL had ended.
    fn listed(&self, add: &mut impl FnMut(Violation, &[&Op])) {
        let moves = |op: &Op| match (&op.client, &op.kind) {
            (_, Kind::Put { ttl: Some(_), .. }) => true,
            (Client::Moved(_), kind) => !matches!(kind, Kind::Read(_)),
            _ => false,
        };
        if self.ops.iter().any(moves) {
            return;
        }
        let index = |op: &Op| op.v2.as_ref().map(|v2| v2.index);
        let is_listed = |index: u64| self.history.moved.contains(&(self.key.to_owned(), index));
        for op in self.ops.iter().filter(|op| index(op).is_some_and(is_listed)) {
            add(Violation::ForNothing, &[op]);
        }
    }

    /// A write that took effect for sure, and when that was known.
    fn definite(&self, op: &Op) -> Option<Micros> {
        let writes = !matches!(op.kind, Kind::Read(_));
        op.end.filter(|_| writes && !self.history.is_listed(self.key, op))
    }

    fn read(&self, read: &Op, value: Option<&str>, add: &mut impl FnMut(Violation, &[&Op])) {
        let end = read.end.unwrap_or(Micros::MAX);
        match value {
            None => self.absent(read, add),
            Some(value) => match self.ops.iter().find(|op| op.written() == Some(value)) {
                Some(writer) if writer.start <= end => self.value(read, writer, add),
                _ => add(Violation::NeverWritten, &[read]),
            },
        }
    }

    /// A read of a value, and who wrote it.
    fn value(&self, read: &Op, writer: &Op, add: &mut impl FnMut(Violation, &[&Op])) {
        let Some(written) = writer.end else { return };
        let at_the_end = read.client == Client::Last;
        for op in self.ops.iter().filter(|op| op.start > written) {
            if self.definite(op).is_some_and(|end| end < read.start) {
                let violation = match op.kind {
                    Kind::Delete => Violation::Back,
                    _ if at_the_end => Violation::Lost,
                    _ => Violation::Stale,
                };
                return add(violation, &[writer, op, read]);
            }
            let Kind::Read(seen) = &op.kind else { continue };
            if seen.as_deref() != writer.written() && op.end.is_some_and(|end| end < read.start) {
                let violation = if seen.is_none() { Violation::Back } else { Violation::Older };
                return add(violation, &[writer, op, read]);
            }
        }
    }

    /// A read of a missing key: what can have ended the last value?
    fn absent(&self, read: &Op, add: &mut impl FnMut(Violation, &[&Op])) {
        let before = self.ops.iter().filter(|op| self.definite(op).is_some_and(|end| end < read.start));
        for write in before.filter(|op| op.written().is_some() && !has_ttl(op)) {
            let explains = |op: &&Op| {
                let ends = op.kind == Kind::Delete || has_ttl(op);
                ends && op.start <= read.end.unwrap_or(Micros::MAX) && op.end.is_none_or(|end| end >= write.start)
            };
            if !self.ops.iter().any(|op| explains(&op)) {
                let violation = if read.client == Client::Last { Violation::Lost } else { Violation::Stale };
                return add(violation, &[write, read]);
            }
        }
    }

    /// A write of a v2-only client to a key that had moved before.
    fn write(&self, write: &Op, add: &mut impl FnMut(Violation, &[&Op])) {
        if !write.writes_v2() || self.definite(write).is_none() {
            return;
        }
        let moved =
            |op: &&Op| matches!(op.client, Client::Moved(_)) && self.definite(op).is_some_and(|end| end < write.start);
        if let Some(moved) = self.ops.iter().find(moved) {
            add(Violation::Unlisted, &[moved, write]);
        }
    }
}

fn has_ttl(op: &Op) -> bool {
    matches!(op.kind, Kind::Put { ttl: Some(_), .. })
}

#[cfg(test)]
#[path = "checker_tests.rs"]
mod tests;
