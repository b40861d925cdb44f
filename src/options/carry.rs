//! Policies for what v3 has no equal for: TTLs, users and roles, and v3 data of the source.
//!
//! `convert` has options with the same names. Plain data. Must not know how a stage applies a policy.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

/// Keys that have already expired at the instant against which TTLs are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Expired {
    /// Leave them out and list them
    #[default]
    Drop,
    /// Write them with the shortest lease
    Keep,
}

/// A policy for keys with a TTL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum TtlPolicy {
    /// Attach it to a lease with the remaining time.
    #[default]
    Lease,
    /// Write it without a lease.
    Permanent,
    /// Leave it out.
    Drop,
    /// Refuse to convert.
    Fail,
    /// Attach it to a lease of this many seconds; at least 1.
    Fixed(i64),
}

impl TtlPolicy {
    const LEASE: &'static str = "lease";
    const PERMANENT: &'static str = "permanent";
    const DROP: &'static str = "drop";
    const FAIL: &'static str = "fail";
    /// The word before the duration.
    const FIXED: &'static str = "fixed:";
}

impl fmt::Display for TtlPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TtlPolicy::Lease => f.write_str(TtlPolicy::LEASE),
            TtlPolicy::Permanent => f.write_str(TtlPolicy::PERMANENT),
            TtlPolicy::Drop => f.write_str(TtlPolicy::DROP),
            TtlPolicy::Fail => f.write_str(TtlPolicy::FAIL),
            TtlPolicy::Fixed(seconds) => write!(f, "{}{seconds}s", TtlPolicy::FIXED),
        }
    }
}

impl FromStr for TtlPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected lease, permanent, drop, fail or fixed:DURATION, like fixed:90s or fixed:1h30m";
        match text {
            TtlPolicy::LEASE => Ok(TtlPolicy::Lease),
            TtlPolicy::PERMANENT => Ok(TtlPolicy::Permanent),
            TtlPolicy::DROP => Ok(TtlPolicy::Drop),
            TtlPolicy::FAIL => Ok(TtlPolicy::Fail),
            _ => {
                let duration = text.strip_prefix(TtlPolicy::FIXED).ok_or_else(expected)?;
                let duration: SignedDuration = duration.parse().map_err(|_| expected())?;
                let seconds = duration.as_secs().saturating_add(i64::from(duration.subsec_nanos() > 0));
                if seconds < 1 { Err("expected at least one second".into()) } else { Ok(TtlPolicy::Fixed(seconds)) }
            }
        }
    }
}

impl From<TtlPolicy> for String {
    fn from(policy: TtlPolicy) -> String {
        policy.to_string()
    }
}

impl TryFrom<String> for TtlPolicy {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// A TTL policy for the keys below a prefix, or for all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TtlRule {
    /// The v2 keys that it applies to; `None`: all keys without a prefix of their own.
    pub prefix: Option<String>,
    /// The policy.
    pub policy: TtlPolicy,
}

impl FromStr for TtlRule {
    type Err = String;

    /// Parses `[PREFIX=]POLICY`; a prefix may contain `=`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.rsplit_once('=') {
            None => Ok(TtlRule { prefix: None, policy: text.parse()? }),
            Some(("", _)) => Err("expected a prefix before `=`".into()),
            Some((prefix, policy)) => Ok(TtlRule { prefix: Some(prefix.into()), policy: policy.parse()? }),
        }
    }
}

/// v2 users, roles, permissions, and whether authentication is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum AuthPolicy {
    /// Convert them, and whether authentication is on
    #[default]
    Migrate,
    /// Convert users and roles, and leave authentication off
    UsersOnly,
    /// Leave them out: everyone can read and write v3
    Ignore,
    /// Refuse if there are any
    Fail,
}

/// A policy for rights of the guest role: v3 has no role for anonymous clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Guest {
    /// Refuse
    #[default]
    Fail,
    /// Accept that anonymous clients lose access
    Drop,
}

/// A policy for v3 data that the source already contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Existing {
    /// Refuse
    #[default]
    Fail,
    /// Preserve it, and add the v2 keys with higher revisions
    Merge,
    /// Leave it out
    DropV3,
    /// Preserve it, and leave out v2 keys, users and roles
    KeepV3,
}

/// With `merge`, a policy for a key that v2 and v3 both have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum OnConflict {
    /// Refuse
    #[default]
    Fail,
    /// Preserve that of v3, and leave out that of v2
    KeepV3,
    /// Write that of v2 as a new revision
    TakeV2,
}

/// A program that turns v2 nodes into v3 pairs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transformer {
    /// The program; it is started without arguments.
    pub program: PathBuf,
    /// Its protocol.
    pub protocol: Protocol,
    /// How many run in parallel; at least 1.
    pub jobs: usize,
    /// Seconds without any progress after which it counts as hung; at least 1.
    pub timeout_seconds: u64,
    /// Limit of all answers in bytes, counting 128 more for each pair; `None`: 16 times what it receives, and at least
    /// 64 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer_limit: Option<u64>,
}

/// The protocol of a transformer on its standard input and output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// As `etcdctl migrate --transformer`: JSON nodes in, framed KeyValue messages out
    #[default]
    Migrate,
    /// One JSON object a line, in and out; bytes that are not UTF-8 are in base64
    JsonLines,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ttl_rules_as_typed() {
        let rule = |prefix: Option<&str>, policy| TtlRule { prefix: prefix.map(Into::into), policy };
        for (text, expected) in [
            ("lease", rule(None, TtlPolicy::Lease)),
            ("/a=drop", rule(Some("/a"), TtlPolicy::Drop)),
            ("/a=b=fixed:90s", rule(Some("/a=b"), TtlPolicy::Fixed(90))),
            ("fixed:1h30m", rule(None, TtlPolicy::Fixed(5400))),
            ("fixed:1500ms", rule(None, TtlPolicy::Fixed(2))),
        ] {
            assert_eq!(text.parse::<TtlRule>().unwrap(), expected, "{text}");
            assert_eq!(expected.policy.to_string().parse::<TtlPolicy>().unwrap(), expected.policy);
        }
        for text in ["", "=lease", "forever", "fixed:", "fixed:0s", "fixed:-5s", "fixed:10", "/a=", "fixed:1y"] {
            assert!(text.parse::<TtlRule>().is_err(), "{text}");
        }
    }
}
