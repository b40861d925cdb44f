//! Which keys are written: hidden names, TTLs, rules, and the reason for each key that is not.
//!
//! Decides for one key at a time. Must not know the plan.

use jiff::Timestamp;

use crate::options::{Expired, REQUEST_LIMIT};
use crate::transform::rules::{KeyRules, TtlRules};
use crate::v2store::path;

/// The namespace of user keys, which v3 keys do not carry.
pub const NAMESPACE: &[u8] = b"/1";

/// What to carry over.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Leave out all keys: v3 data alone is wanted.
    pub v3_only: bool,
    /// Leave out keys with a path element that starts with `_`.
    pub drop_hidden: bool,
    /// Write an empty-valued key `PATH/` for each empty directory.
    pub mark_empty_dirs: bool,
    /// The instant against which TTLs are counted; without one, keys with a TTL are refused.
    pub as_of: Option<Timestamp>,
    /// Keys that have expired then.
    pub expired: Expired,
    /// Keys with a TTL.
    pub ttl: TtlRules,
    /// Which keys to take, and what to call them.
    pub rules: KeyRules,
    /// Bytes of the largest request that a v3 client may send.
    pub request_limit: u64,
}

impl Policy {
    /// Carry everything over; TTLs count from `as_of`.
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

    /// Why rules and policies leave a node out, its TTL policy aside.
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

    /// Whether what expires at that instant has expired.
    pub fn has_expired(&self, at: Timestamp) -> bool {
        self.as_of.is_some_and(|as_of| at <= as_of)
    }
}

/// Why a key is not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// `--hidden drop`.
    Hidden,
    /// A rule leaves it out: its place among the choices.
    Excluded(u32),
    /// There are includes, and none names it.
    NotIncluded,
    /// Its time was up.
    Expired,
    /// `--ttl drop`.
    Ttl,
    /// No pair of the transformer has its modified index.
    Transformer,
    /// v3 has a key of that name, and `--on-conflict keep-v3` keeps it.
    KeptV3,
    /// `--existing keep-v3`: v2 is left out on purpose.
    V3Only,
}
