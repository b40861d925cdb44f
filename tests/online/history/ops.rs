//! What clients did and what they were told: the history of each key. Must not know how a history is judged.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Microseconds on the clock of the test process.
pub(super) type Micros = u64;

/// Who did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Client {
    /// The test, before the job runs: writes to v2.
    First,
    /// Follows the protocol.
    Moved(usize),
    /// Uses the v2 API only.
    V2(usize),
    /// The test, after everything has ended: reads v3.
    Last,
}

/// What it asked for. `None` is a missing key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Was told this. Part of a directory read, or a compare-and-swap that failed, too.
    Read(Option<String>),
    Put {
        value: String,
        /// Seconds.
        ttl: Option<u64>,
    },
    Delete,
    Swap {
        expected: Option<String>,
        value: String,
    },
}

/// What the v2 API says of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct V2Answer {
    pub(super) index: u64,
    /// What was there.
    pub(super) previous: Option<String>,
}

/// One operation on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Op {
    pub(super) client: Client,
    pub(super) kind: Kind,
    pub(super) start: Micros,
    /// When its success was known; `None`: it may have happened at any time after its start, or never will.
    pub(super) end: Option<Micros>,
    /// Of a write to v2 that is acknowledged.
    pub(super) v2: Option<V2Answer>,
}

impl Op {
    pub(super) fn writes_v2(&self) -> bool {
        matches!(self.client, Client::First | Client::V2(_))
    }

    /// The value that it wrote, if it wrote one.
    pub(super) fn written(&self) -> Option<&str> {
        match &self.kind {
            Kind::Put { value, .. } | Kind::Swap { value, .. } => Some(value),
            Kind::Read(_) | Kind::Delete => None,
        }
    }
}

/// A run.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    pub(super) keys: BTreeMap<String, Vec<Op>>,
    /// What the job lists as conflicts: key and v2 index.
    pub(super) listed: BTreeSet<(String, u64)>,
    /// Those of them of which the job says that v3 leads the key.
    pub(super) moved: BTreeSet<(String, u64)>,
    /// Ranges of v2 indexes of which the job says that it may have missed conflicts: after, up to.
    pub(super) unknown: BTreeSet<(u64, u64)>,
}

impl History {
    pub(super) fn add(&mut self, key: &str, op: Op) {
        self.keys.entry(key.to_owned()).or_default().push(op);
    }

    pub(super) fn merge(&mut self, other: Self) {
        for (key, ops) in other.keys {
            self.keys.entry(key).or_default().extend(ops);
        }
        self.listed.extend(other.listed);
        self.moved.extend(other.moved);
        self.unknown.extend(other.unknown);
    }

    /// Whether the job says that a write to v2 may be lost.
    pub(super) fn is_listed(&self, key: &str, op: &Op) -> bool {
        let Some(index) = op.v2.as_ref().map(|v2| v2.index) else { return false };
        let unknown = self.unknown.iter().any(|(after, to)| *after < index && index <= *to);
        unknown || self.listed.contains(&(key.to_owned(), index))
    }

    /// Writes to v2 that count as listed only because the job does not know a range.
    pub(super) fn only_unknown(&self) -> usize {
        let listed =
            |key: &String, op: &Op| op.v2.as_ref().is_some_and(|v2| self.listed.contains(&(key.clone(), v2.index)));
        let ops = self.keys.iter().flat_map(|(key, ops)| ops.iter().map(move |op| (key, op)));
        ops.filter(|(key, op)| self.is_listed(key, op) && !listed(key, op)).count()
    }

    /// All operations on a key, for a failure message.
    pub(super) fn story(&self, key: &str) -> String {
        let mut ops: Vec<&Op> = self.keys.get(key).into_iter().flatten().collect();
        ops.sort_by_key(|op| (op.start, op.end));
        let line = |op: &&Op| format!("  {op}{}", if self.is_listed(key, op) { " CONFLICT LISTED" } else { "" });
        ops.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |micros: Micros| micros as f64 / 1000.0;
        let client = format!("{:?}", self.client);
        write!(f, "{:>10.1} ..", ms(self.start))?;
        match self.end {
            Some(end) => write!(f, "{:>10.1} ms", ms(end))?,
            None => write!(f, "{:>10} ms", "?")?,
        }
        write!(f, " {client:9} ")?;
        let or_absent = |value: &Option<String>| value.clone().unwrap_or_else(|| "(absent)".into());
        match &self.kind {
            Kind::Read(value) => write!(f, "read {}", or_absent(value))?,
            Kind::Put { value, ttl: None } => write!(f, "put {value}")?,
            Kind::Put { value, ttl: Some(ttl) } => write!(f, "put {value} for {ttl} s")?,
            Kind::Delete => write!(f, "delete")?,
            Kind::Swap { expected, value } => write!(f, "swap {} for {value}", or_absent(expected))?,
        }
        if let Some(v2) = &self.v2 {
            write!(f, " (v2 index {}, was {})", v2.index, or_absent(&v2.previous))?;
        }
        Ok(())
    }
}
