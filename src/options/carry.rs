//! What becomes of what v3 has no equal for: TTLs, users and roles, v3 data that is already there.
//!
//! CLI.md, the options of `convert` of the same names. Plain data; what the policies do is the stages' matter.

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
    /// Keep them, with the shortest lease
    Keep,
}

/// What to do with a key that has a TTL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum TtlPolicy {
    /// Attach it to a lease with the time that is left.
    #[default]
    Lease,
    /// Keep it without a lease.
    Permanent,
    /// Leave it out.
    Drop,
    /// Refuse to convert.
    Fail,
    /// Attach it to a lease of this many seconds; at least 1.
    Fixed(i64),
}

impl fmt::Display for TtlPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TtlPolicy::Lease => f.write_str("lease"),
            TtlPolicy::Permanent => f.write_str("permanent"),
            TtlPolicy::Drop => f.write_str("drop"),
            TtlPolicy::Fail => f.write_str("fail"),
            TtlPolicy::Fixed(seconds) => write!(f, "fixed:{seconds}s"),
        }
    }
}

impl FromStr for TtlPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected lease, permanent, drop, fail or fixed:DURATION, like fixed:90s or fixed:1h30m";
        match text {
            "lease" => Ok(TtlPolicy::Lease),
            "permanent" => Ok(TtlPolicy::Permanent),
            "drop" => Ok(TtlPolicy::Drop),
            "fail" => Ok(TtlPolicy::Fail),
            _ => {
                let duration = text.strip_prefix("fixed:").ok_or_else(expected)?;
                let duration: SignedDuration = duration.parse().map_err(|_| expected())?;
                let seconds = duration.as_secs().saturating_add(i64::from(duration.subsec_nanos() > 0));
                if seconds < 1 {
                    Err("a lease takes at least one second".into())
                } else {
                    Ok(TtlPolicy::Fixed(seconds))
                }
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
    /// The v2 keys it is for; `None` for all that no prefix names.
    pub prefix: Option<String>,
    /// What to do with them.
    pub policy: TtlPolicy,
}

impl FromStr for TtlRule {
    type Err = String;

    /// `[PREFIX=]POLICY`; a prefix may hold `=` itself.
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
    /// Carry all of it over
    #[default]
    Migrate,
    /// Carry users and roles over, and leave authentication off
    UsersOnly,
    /// Leave them out: v3 will be open to everyone
    Ignore,
    /// Refuse if there are any
    Fail,
}

/// Rights of the guest role while authentication is on: v3 has none for anonymous clients.
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

/// v3 data that the source already holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Existing {
    /// Refuse
    #[default]
    Fail,
    /// Keep all of it, and add the v2 keys above
    Merge,
    /// Start without it
    DropV3,
    /// Keep all of it, and leave the v2 keys, users and roles out
    KeepV3,
}

impl Existing {
    /// Whether the v3 data of the source is in the output.
    pub fn keeps_v3(self) -> bool {
        matches!(self, Existing::Merge | Existing::KeepV3)
    }
}

/// With `merge`, a key that v2 and v3 both have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum OnConflict {
    /// Refuse
    #[default]
    Fail,
    /// Keep the v3 one and leave the v2 one out
    KeepV3,
    /// Put the v2 one on top, as a new revision
    TakeV2,
}

/// A program that turns v2 nodes into v3 pairs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transformer {
    /// The program; it is started without arguments.
    pub program: PathBuf,
    /// What it speaks.
    pub protocol: Protocol,
    /// How many of it run side by side; at least 1.
    pub jobs: usize,
    /// Seconds without any progress after which it counts as hung; at least 1.
    pub timeout_seconds: u64,
    /// How many bytes it may answer in all, with 128 more for each pair; `None`: 16 times what it is sent, and at least 64 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer_limit: Option<u64>,
}

/// What a transformer speaks on its standard input and output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// That of `etcdctl migrate --transformer`: JSON nodes in, framed KeyValue messages out
    #[default]
    Migrate,
    /// One JSON object a line, in and out; bytes in base64 where they are no UTF-8
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
