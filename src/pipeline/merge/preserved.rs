//! The preserved v3 data of a merge: read once, and added byte for byte to what comes from v2 (docs/formats.md 7.2, 9,
//! 10.5).
//!
//! Knows buckets. Must not know the policy, which belongs to `decide`.

use std::collections::{BTreeMap, HashSet};

use crate::bolt::Db;
use crate::display::{first_of, lossy};
use crate::error::{Error, Reason, Result};
use crate::ids::{ByteOffset, LeaseId, Revision};
use crate::image::{AuthState, Content, Pair, Stored};
use crate::interrupt::Interrupt;
use crate::mvcc::{KeyValue, Lease, Meta, RevisionKey, schema};
use crate::notice::Code;
use crate::options::{OnConflict, To};
use crate::pipeline::diagnostics::PlanFindings;
use crate::report::Notice;
use crate::transform::auth::Auth;
use crate::transform::conflicts::LiveKey;

/// The preserved v3 data.
#[derive(Debug, Default)]
pub(in crate::pipeline) struct Preserved<'m> {
    /// Every change in the `key` bucket, in order.
    pub(in crate::pipeline) pairs: Vec<Stored<'m>>,
    /// The current revision of the store.
    pub(in crate::pipeline) current: Revision,
    /// The IDs of its leases, and of missing leases that a key names.
    pub(in crate::pipeline) leases_in_use: HashSet<LeaseId>,
    /// The compaction marks: scheduled, finished.
    pub(in crate::pipeline) compacted: (Option<Revision>, Option<Revision>),
    /// The live keys.
    live: BTreeMap<&'m [u8], LiveKey>,
    /// The pairs of all other buckets.
    buckets: BTreeMap<&'static [u8], Vec<Pair>>,
}

impl<'m> Preserved<'m> {
    /// Reads an intact store whose current revision is `current`.
    ///
    /// # Errors
    /// [`Reason::UnsupportedFormat`] for an unknown bucket; [`Reason::Damaged`]; an interruption.
    pub(in crate::pipeline) fn read(db: &Db<'m>, current: Revision, interrupt: Interrupt<'_>) -> Result<Preserved<'m>> {
        let mut preserved = Preserved { current, ..Preserved::default() };
        preserved.read_buckets(db, interrupt)?;
        let leases = preserved.buckets.get(schema::LEASE).into_iter().flatten();
        preserved.leases_in_use.extend(leases.filter_map(|(key, _)| Lease::decode_key(key)));
        let mark = |key: &[u8]| preserved.value(schema::META, key).and_then(RevisionKey::decode).map(|key| key.main);
        preserved.compacted = (mark(schema::SCHEDULED_COMPACT), mark(schema::FINISHED_COMPACT));
        Ok(preserved)
    }

    fn read_buckets(&mut self, db: &Db<'m>, interrupt: Interrupt<'_>) -> Result<()> {
        let damaged = |e: crate::bolt::Damage| e.into_error(Reason::Damaged);
        for bucket in &db.root() {
            let bucket = bucket.map_err(damaged)?;
            let Some(name) = schema::BUCKETS.into_iter().find(|name| *name == bucket.key) else {
                let name = bucket.key.escape_ascii();
                let message = format!(
                    "the v3 backend has a bucket {name}, which no etcd up to 3.7 knows, so it cannot be preserved"
                );
                return Err(Error::new(Reason::UnsupportedFormat, message).at(bucket.offset));
            };
            let tree = db.open_bucket(&bucket).map_err(damaged)?;
            let mut pairs = Vec::new();
            for pair in &tree {
                interrupt.ask()?;
                let pair = pair.map_err(damaged)?;
                if name == schema::KEY {
                    self.change(Stored { key: pair.key, value: pair.value }, pair.value_offset())?;
                } else {
                    pairs.push((pair.key.to_vec(), pair.value.to_vec()));
                }
            }
            self.buckets.insert(name, pairs);
        }
        Ok(())
    }

    /// Returns whether there is no v3 data to preserve.
    pub(in crate::pipeline) fn is_empty(&self) -> bool {
        // Every server writes a revision into `auth`; without users it means nothing.
        let others = [schema::LEASE, schema::AUTH_USERS, schema::AUTH_ROLES];
        let bare = |bucket: &&[u8]| self.buckets.get(*bucket).is_none_or(Vec::is_empty);
        self.pairs.is_empty() && self.compacted == (None, None) && others.iter().all(bare)
    }

    /// Removes what an output of this form must not have. A snapshot file and a new data directory make a new cluster
    /// (docs/formats.md 9.7, 10.5), and the conversion sets the raft position.
    pub(in crate::pipeline) fn leave_out_of(&mut self, to: To) {
        let continues = matches!(to, To::Backend | To::Member);
        if !continues {
            for bucket in [schema::ALARM, schema::CLUSTER, schema::MEMBERS, schema::MEMBERS_REMOVED] {
                self.buckets.remove(bucket);
            }
        }
        let meta = self.buckets.entry(schema::META).or_default();
        meta.retain(|(key, _)| continues && !Meta::KEYS.contains(&key.as_slice()));
    }

    /// Returns the pairs of a bucket other than `key`.
    pub(in crate::pipeline) fn pairs_of(&self, bucket: &[u8]) -> &[Pair] {
        self.buckets.get(bucket).map_or(&[], Vec::as_slice)
    }

    /// Returns the value of a key in a bucket other than `key`.
    pub(in crate::pipeline) fn value(&self, bucket: &[u8], key: &[u8]) -> Option<&[u8]> {
        let mut pairs = self.buckets.get(bucket)?.iter();
        pairs.find(|(found, _)| found == key).map(|(_, value)| value.as_slice())
    }

    /// Returns the keys of a bucket other than `key`.
    pub(in crate::pipeline) fn names(&self, bucket: &[u8]) -> HashSet<&[u8]> {
        self.buckets.get(bucket).into_iter().flatten().map(|(name, _)| name.as_slice()).collect()
    }

    /// Returns whether authentication is enabled.
    pub(in crate::pipeline) fn auth_is_on(&self) -> bool {
        self.value(schema::AUTH, schema::AUTH_ENABLED) == Some(&[1])
    }

    /// Returns whether a live key is in the range from `start` to before `end`. An empty `end` means the key `start`
    /// alone; a zero byte means no end.
    pub(in crate::pipeline) fn any_in(&self, start: &[u8], end: &[u8]) -> bool {
        match end {
            [] => self.live.contains_key(start),
            [0] => self.live.range(start..).next().is_some(),
            _ if end <= start => false,
            _ => self.live.range(start..end).next().is_some(),
        }
    }

    fn change(&mut self, stored: Stored<'m>, offset: ByteOffset) -> Result<()> {
        let kv = KeyValue::decode(stored.value, offset)?;
        if RevisionKey::decode(stored.key).is_none_or(|key| key.tombstone) {
            self.live.remove(kv.key);
        } else {
            if kv.lease.0 != 0 {
                self.leases_in_use.insert(kv.lease);
            }
            let live = LiveKey { create: kv.create_revision, version: kv.version };
            self.live.insert(kv.key, live);
        }
        self.pairs.push(stored);
        Ok(())
    }

    /// Returns the live key of this name, if v3 has one.
    pub(in crate::pipeline) fn live(&self, key: &[u8]) -> Option<LiveKey> {
        self.live.get(key).copied()
    }

    /// Returns every live key, sorted.
    pub(in crate::pipeline) fn live_keys(&self) -> impl Iterator<Item = (&'m [u8], LiveKey)> {
        self.live.iter().map(|(key, live)| (*key, *live))
    }

    /// Adds the users and roles of v2 to those of v3.
    ///
    /// # Errors
    /// [`Reason::Conflict`] for different users or roles of one name with `--on-conflict fail`; [`Reason::AuthInvalid`]
    /// if the result has no administrator.
    pub(in crate::pipeline) fn join_auth(
        &mut self,
        auth: &Auth,
        on_conflict: OnConflict,
        found: &mut PlanFindings,
    ) -> Result<()> {
        let notices = &mut found.merge.notices;
        let mut take = |name: &'static [u8]| self.buckets.remove(name).unwrap_or_default();
        let had =
            AuthState { flags: take(schema::AUTH), users: take(schema::AUTH_USERS), roles: take(schema::AUTH_ROLES) };
        let was_on = had.is_enabled();
        let v2_is_there = !auth.users.is_empty() || !auth.roles.is_empty();
        if v2_is_there && (was_on || !had.users.is_empty() || !had.roles.is_empty()) {
            let message = "users and roles of v2 and v3 share one key space: wide permissions also apply to the keys of the other \
                           side";
            notices.warnings.push(Notice::new(Code::AuthMerged, message).hint("check the roles with wide permissions"));
        }
        if auth.enabled && !was_on {
            let message = "authentication was off in v3 and is on in v2: v3 clients must log in";
            notices.warn(Code::AuthTurnedOn, message);
        }
        if was_on && found.contents.auth_enabled != Some(true) {
            let message = "authentication was on in v3 and off in v2: clients of the v2 keys must log in";
            notices.warn(Code::AuthTurnedOn, message);
        }
        let (joined, both) = had.join(AuthState::of(auth)?, on_conflict == OnConflict::TakeV2)?;
        if !both.is_empty() {
            let names: Vec<String> = both.iter().map(|(what, name)| format!("{what} {}", lossy(name))).collect();
            let first = first_of(&names);
            found.merge.existing.get_or_insert_default().auth_conflicts = names;
            let what = match on_conflict {
                OnConflict::Fail => {
                    let message = format!("v2 and v3 both have these users or roles, and they differ: {first}");
                    let hint = "give --on-conflict keep-v3, --on-conflict take-v2 or --auth ignore";
                    return Err(Error::new(Reason::Conflict, message).hint(hint));
                }
                OnConflict::KeepV3 => "taken from v3",
                OnConflict::TakeV2 => "taken from v2",
            };
            notices.warn(Code::AuthConflict, format!("users and roles in v2 and in v3 are {what}: {first}"));
        }
        if joined.is_enabled() && !joined.has_administrator() {
            let message = "authentication is on, but no user root has a password and the role root, so nobody could administer v3";
            let hint = "give another --on-conflict, or --auth ignore";
            return Err(Error::new(Reason::AuthInvalid, message).hint(hint));
        }
        self.buckets.insert(schema::AUTH, joined.flags);
        self.buckets.insert(schema::AUTH_USERS, joined.users);
        self.buckets.insert(schema::AUTH_ROLES, joined.roles);
        Ok(())
    }

    /// Adds the preserved data to the content that comes from v2.
    pub(in crate::pipeline) fn add_to<'t>(&'t self, content: &mut Content<'t, 'm>) {
        content.preserve(&self.pairs);
        for (bucket, pairs) in &self.buckets {
            content.add(bucket, pairs);
        }
    }

    /// Returns the number of preserved leases.
    pub(in crate::pipeline) fn lease_count(&self) -> u64 {
        self.buckets.get(schema::LEASE).map_or(0, Vec::len) as u64
    }
}
