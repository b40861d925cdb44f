//! The selection of keys: hidden names, TTLs, rules, and the reason for each key that is left out.
//!
//! Decides for one key at a time. Must not know the plan.

use jiff::Timestamp;

use crate::options::{Expired, REQUEST_LIMIT};
use crate::transform::rules::{KeyRules, TtlRules};
use crate::v2store::path;

/// The namespace of user keys, which v3 keys do not contain.
pub const NAMESPACE: &[u8] = b"/1";

/// The content to convert.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Leaves out all keys: only v3 data is wanted.
    pub v3_only: bool,
    /// Leaves out keys with a path element that starts with `_`.
    pub drop_hidden: bool,
    /// Writes an empty-valued key `PATH/` for each empty directory.
    pub mark_empty_dirs: bool,
    /// The instant from which TTLs count; without one, keys with a TTL are refused.
    pub as_of: Option<Timestamp>,
    /// The policy for keys that have expired at that instant.
    pub expired: Expired,
    /// The policy for keys with a TTL.
    pub ttl: TtlRules,
    /// The rules that select and rename keys.
    pub rules: KeyRules,
    /// The largest request of a v3 client, in bytes.
    pub request_limit: u64,
}

impl Policy {
    /// Returns a policy that converts everything; TTLs count from `as_of`.
    pub fn everything(as_of: Timestamp) -> Policy {
        Policy {
            v3_only: false,
            drop_hidden: false,
            mark_empty_dirs: false,
            as_of: Some(as_of),
            expired: Expired::Drop,
            ttl: TtlRules::default(),
            rules: KeyRules::default(),
            request_limit: REQUEST_LIMIT,
        }
    }

    /// Returns whether the decision about a key depends on its name. If not, each method accepts any name.
    ///
    /// Names are spread over the whole source, so reading them all takes a good part of the time of a plan.
    pub fn reads_names(&self) -> bool {
        self.drop_hidden || self.rules.reads_names() || self.ttl.reads_names()
    }

    /// Returns why rules and policies leave a node out. Does not apply its TTL policy.
    pub fn leave_out(&mut self, key: &[u8], expiry: Option<Timestamp>) -> Option<Why> {
        if self.v3_only {
            return Some(Why::V3Only);
        }
        if let Some(rule) = self.rules.excluded(key) {
            return Some(rule.map_or(Why::NotIncluded, Why::Excluded));
        }
        if self.drop_hidden && path::is_hidden(key) {
            return Some(Why::Hidden);
        }
        let expired = self.expired == Expired::Drop && expiry.is_some_and(|at| self.has_expired(at));
        expired.then_some(Why::Expired)
    }

    /// Returns whether a key with this expiry has expired.
    pub fn has_expired(&self, at: Timestamp) -> bool {
        self.as_of.is_some_and(|as_of| at <= as_of)
    }
}

/// The reason why a key is not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// `--hidden drop`.
    Hidden,
    /// A rule leaves it out: the position of the rule among the includes and excludes.
    Excluded(u32),
    /// There are includes, and none matches it.
    NotIncluded,
    /// It has expired.
    Expired,
    /// `--ttl drop`.
    Ttl,
    /// No pair of the transformer has its modified index.
    Transformer,
    /// v3 has a key of that name, and `--on-conflict keep-v3` preserves it.
    PreservedV3,
    /// `--existing keep-v3` leaves v2 out.
    V3Only,
}

/// The total in which a key counts that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Total {
    /// A policy leaves it out.
    Dropped,
    /// A rule leaves it out.
    Excluded,
    /// It has expired.
    Expired,
}

impl Why {
    /// Returns the total in which the key counts.
    pub fn total(self) -> Total {
        match self {
            Why::Hidden | Why::Ttl | Why::Transformer | Why::PreservedV3 | Why::V3Only => Total::Dropped,
            Why::Excluded(_) | Why::NotIncluded => Total::Excluded,
            Why::Expired => Total::Expired,
        }
    }
}
