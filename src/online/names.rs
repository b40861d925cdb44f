//! Which v2 keys are copied, under which v3 names, with which values and leases: the rules of `convert`, key by key.
//! Must not know what v3 has.

use std::borrow::Cow;

use jiff::Timestamp;

use crate::error::{Error, Reason, Result};
use crate::online::state::{Job, Keys, Why};
use crate::online::v2::Node;
use crate::options::{Keep, TtlPolicy};
use crate::transform::lease::{MAX_SECONDS, MIN_SECONDS};
use crate::transform::rules::{KeyRules, TtlRules};
use crate::v2store::path::is_hidden;

/// The rules of a migration, compiled.
#[derive(Debug, Clone)]
pub struct Names {
    rules: KeyRules,
    ttl: TtlRules,
    drop_hidden: bool,
    keys: Keys,
    simple: bool,
    strip: bool,
}

/// The name of a v2 path in v3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// This one.
    Key(Vec<u8>),
    /// Rules leave it out.
    LeftOut,
    /// It would have this name, which no key can have.
    Unusable(Vec<u8>),
}

/// The value of a key in v3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A value, with a lease of this many seconds if it has one.
    Value {
        /// The value.
        value: Vec<u8>,
        /// The length of its lease.
        seconds: Option<i64>,
    },
    /// It has expired, or a policy leaves it out.
    LeftOut,
    /// It cannot be written.
    Unusable(Why),
}

impl Names {
    /// Compiles the rules of a migration.
    ///
    /// # Errors
    /// [`Reason::Usage`] for a regular expression that cannot be parsed.
    pub fn new(job: &Job, keys: &Keys) -> Result<Names> {
        Ok(Names {
            rules: KeyRules::new(&job.rules)?,
            ttl: TtlRules::new(&job.ttl),
            drop_hidden: job.hidden == Keep::Drop,
            keys: keys.clone(),
            simple: job.rules.rename.is_empty(),
            strip: job.rules.strip_leading_slash,
        })
    }

    /// Returns the name of a path.
    pub fn name(&mut self, path: &[u8]) -> Name {
        if self.rules.excluded(path).is_some() || self.drop_hidden && is_hidden(path) {
            return Name::LeftOut;
        }
        let name = self.rules.rename(path).map_or_else(|| path.to_vec(), |renamed| renamed.apply(path));
        if name.is_empty() || self.keys.is_own_name(&name) { Name::Unusable(name) } else { Name::Key(name) }
    }

    /// Returns whether two paths can have one name.
    pub fn can_collide(&self) -> bool {
        !self.simple
    }

    /// Returns the prefix of all v3 names of paths below this one; `None` if they have no common one.
    pub fn below(&self, path: &[u8]) -> Option<Vec<u8>> {
        if !self.simple {
            return None;
        }
        let path = if self.strip { path.strip_prefix(b"/").unwrap_or(path) } else { path };
        let mut prefix = path.strip_suffix(b"/").unwrap_or(path).to_vec();
        if !prefix.is_empty() || !self.strip {
            prefix.push(b'/');
        }
        Some(prefix)
    }

    /// Returns the content of a node.
    ///
    /// # Errors
    /// [`Reason::TtlPresent`] if a policy refuses keys with a TTL.
    pub fn content(&mut self, node: &Node, now: Timestamp) -> Result<Content> {
        let seconds = match node.expiry {
            None => None,
            Some(expiry) if expiry <= now => return Ok(Content::LeftOut),
            Some(expiry) => match self.ttl.policy(&node.path) {
                TtlPolicy::Lease => Some(seconds_left(expiry, now)),
                TtlPolicy::Permanent => None,
                TtlPolicy::Drop => return Ok(Content::LeftOut),
                TtlPolicy::Fixed(seconds) => Some(seconds.clamp(MIN_SECONDS, MAX_SECONDS)),
                TtlPolicy::Fail => {
                    let key = shown(&node.path);
                    return Err(Error::new(Reason::TtlPresent, format!("{key} has a TTL, and --ttl fail refuses it")));
                }
            },
        };
        let seconds = seconds.filter(|seconds| *seconds <= MAX_SECONDS);
        match self.rules.decode(&node.path, || node.value.clone()) {
            Ok(None) => Ok(Content::Value { value: node.value.clone(), seconds }),
            Ok(Some(value)) => Ok(Content::Value { value: value.into(), seconds }),
            Err(_) => Ok(Content::Unusable(Why::UnusableValue)),
        }
    }
}

/// Returns a key for messages.
pub fn shown(key: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(key)
}

/// Returns the whole seconds until an instant, counted so that a key never expires in v3 before it does in v2.
fn seconds_left(expiry: Timestamp, now: Timestamp) -> i64 {
    let end = expiry.as_second().saturating_add(i64::from(expiry.subsec_nanosecond() > 0));
    end.saturating_sub(now.as_second()).max(MIN_SECONDS)
}

/// Tests, and a job for other tests.
#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ids::V2Index;
    use crate::online::state::{SCHEMA, STATE_PREFIX, SWITCH_KEY};
    use crate::options::Rules;
    use crate::options::rules::{Pattern, Rename};

    /// A job with these rules.
    pub(in crate::online) fn job(rules: Rules) -> Job {
        Job {
            schema: SCHEMA,
            etcdlift: "test".into(),
            source: "cluster".into(),
            hidden_keys: true,
            rules,
            ttl: Vec::new(),
            hidden: Keep::Keep,
            switch_key: SWITCH_KEY.into(),
            time: String::new(),
        }
    }

    fn names(rules: Rules) -> Names {
        Names::new(&job(rules), &Keys::new(STATE_PREFIX, SWITCH_KEY)).unwrap()
    }

    #[test]
    fn names_of_etcdlift_are_unusable() {
        let mut plain = names(Rules::default());
        assert_eq!(plain.name(b"/a"), Name::Key(b"/a".to_vec()));
        assert_eq!(plain.name(b"/etcdlift/switch"), Name::Key(b"/etcdlift/switch".to_vec()));
        let mut stripped = names(Rules { strip_leading_slash: true, ..Rules::default() });
        assert_eq!(stripped.name(b"/etcdlift/switch"), Name::Unusable(b"etcdlift/switch".to_vec()));
        assert_eq!(stripped.name(b"/etcdlift/online/job"), Name::Unusable(b"etcdlift/online/job".to_vec()));
        assert_eq!(stripped.name(b"/"), Name::Unusable(Vec::new()));
    }

    #[test]
    fn the_names_below_a_directory() {
        assert_eq!(names(Rules::default()).below(b"/a").unwrap(), b"/a/");
        assert_eq!(names(Rules::default()).below(b"/").unwrap(), b"/");
        let stripped = names(Rules { strip_leading_slash: true, ..Rules::default() });
        assert_eq!(stripped.below(b"/a").unwrap(), b"a/");
        assert_eq!(stripped.below(b"/").unwrap(), b"");
        let rename = vec![Rename { from: Pattern::Prefix("/a".into()), to: "/b".into() }];
        assert_eq!(names(Rules { rename, ..Rules::default() }).below(b"/a"), None);
    }

    #[test]
    fn a_lease_is_never_shorter_than_the_ttl() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (expiry, expected) in [
            ("2026-01-01T00:00:00Z", None),
            ("2026-01-01T00:00:00.1Z", Some(2)),
            ("2026-01-01T00:00:10Z", Some(10)),
            ("2026-01-01T00:00:10.000000001Z", Some(11)),
        ] {
            let node = Node {
                path: b"/a".to_vec(),
                value: b"v".to_vec(),
                created: V2Index(1),
                modified: V2Index(1),
                expiry: Some(expiry.parse().unwrap()),
            };
            let got = match names(Rules::default()).content(&node, now).unwrap() {
                Content::Value { seconds, .. } => seconds,
                _ => None,
            };
            assert_eq!(got, expected, "{expiry}");
        }
    }
}
