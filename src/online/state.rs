//! The state of a migration in v3: the names of its keys, and their JSON. Must not know how keys are copied.
//!
//! All keys are below one prefix, except the switch key, which outlives the state.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Reason, Result};
use crate::ids::{RaftIndex, V2Index};
use crate::online::v3::{Kv, Op, Pair, Scan, Txn, prefix_end, scan};
use crate::options::{Keep, Rules, TtlRule};
use crate::words::words;

/// The default of `--state-prefix`.
pub const STATE_PREFIX: &str = "etcdlift/online/";

/// The default of `--switch-key`.
pub const SWITCH_KEY: &str = "etcdlift/switch";

/// The layout of the state that this version writes and reads.
pub const SCHEMA: u32 = 1;

/// The names of single keys of the state.
const SINGLE: [&str; 5] = ["deleted", "job", "lock", "progress", "switched"];

/// The names of keys of the state that have more below them.
const FOLDERS: [&str; 5] = ["conflict/", "folded/", "moved/", "own/", "owner/"];

/// The names of the keys of the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// What all begin with.
    pub prefix: Vec<u8>,
    /// The key that ends the migration.
    pub switch: Vec<u8>,
}

impl Keys {
    /// Creates the names.
    pub fn new(prefix: &str, switch: &str) -> Keys {
        Keys { prefix: prefix.into(), switch: switch.into() }
    }

    /// The marker of a key: v3 leads it.
    pub fn moved(&self, key: &[u8]) -> Vec<u8> {
        [&self.prefix[..], b"moved/", key].concat()
    }

    /// The record of a transaction of the job.
    pub fn own(&self, number: u64) -> Vec<u8> {
        self.named(&format!("own/{number:016x}"))
    }

    /// The list of records up to this one.
    pub fn folded(&self, number: u64) -> Vec<u8> {
        self.named(&format!("folded/{number:016x}"))
    }

    /// The key that is written before a key of the job can go: it is deleted, or written with a lease. A compare-and-swap of a client
    /// compares it where v3 does not have the key, because the revision of a missing key says nothing (docs/online.md).
    pub fn deleted(&self) -> Vec<u8> {
        self.named("deleted")
    }

    /// The key with the v2 index up to which v3 had everything when the switch was put.
    pub fn switched(&self) -> Vec<u8> {
        self.named("switched")
    }

    /// The owner of a name that several v2 keys want.
    pub fn owner(&self, name: &[u8]) -> Vec<u8> {
        [&self.prefix[..], b"owner/", name].concat()
    }

    /// A conflict. Keys of one index can have the same v3 name, so the v2 path names it.
    pub fn conflict(&self, index: V2Index, path: &[u8]) -> Vec<u8> {
        [&self.named(&format!("conflict/{:016x}/", index.0)), path].concat()
    }

    /// A key with this name below the prefix.
    pub fn named(&self, name: &str) -> Vec<u8> {
        [&self.prefix[..], name.as_bytes()].concat()
    }

    /// Returns whether a v3 key belongs to etcdlift itself.
    pub fn is_own_name(&self, key: &[u8]) -> bool {
        key.starts_with(&self.prefix) || key == self.switch
    }
}

/// What a migration is: `P job`. It decides the names in v3, so that every command uses the same ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The layout of the state.
    pub schema: u32,
    /// The version of etcdlift that began it.
    pub etcdlift: String,
    /// The v2 cluster.
    pub source: String,
    /// Whether the source shows hidden keys: the v2 API does not list them.
    pub hidden_keys: bool,
    /// The rules for keys.
    pub rules: Rules,
    /// The policies for keys with a TTL.
    pub ttl: Vec<TtlRule>,
    /// Keys with a hidden path element.
    pub hidden: Keep,
    /// The switch key.
    pub switch_key: String,
    /// When it began.
    pub time: String,
}

impl Job {
    /// Returns why the other is not the same migration.
    pub fn difference(&self, other: &Job) -> Option<String> {
        if self.schema != other.schema {
            return Some(format!("schema {} instead of {}", other.schema, self.schema));
        }
        if self.source != other.source {
            return Some(format!("v2 cluster {} instead of {}", other.source, self.source));
        }
        if self.hidden_keys != other.hidden_keys {
            let kind = |job: &Job| if job.hidden_keys { "a data directory" } else { "the v2 API, which hides keys" };
            return Some(format!("another source: {} instead of {}", kind(other), kind(self)));
        }
        let parts = [
            ("rules for keys", self.rules == other.rules),
            ("policies for TTLs", self.ttl == other.ttl),
            ("policy for hidden keys", self.hidden == other.hidden),
            ("switch key", self.switch_key == other.switch_key),
        ];
        parts.iter().find(|(_, same)| !same).map(|(what, _)| format!("another {what}"))
    }
}

words! {
    /// What the job does.
    pub enum Phase {
        /// It copies the whole state.
        Copying = "copying",
        /// It carries changes.
        Following = "following",
    }
}

/// How far the job is: `P progress`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What it does.
    pub phase: Phase,
    /// All changes of v2 up to this index are in v3, or in the list of conflicts.
    pub v2_index: u64,
    /// The raft index there, if the source knows it.
    pub raft_index: Option<u64>,
    /// When it was written.
    pub time: String,
}

impl Progress {
    /// Creates progress as of now.
    pub fn now(phase: Phase, index: V2Index, raft: Option<RaftIndex>) -> Progress {
        Progress { phase, v2_index: index.0, raft_index: raft.map(|raft| raft.0), time: now() }
    }
}

words! {
    /// Why a change of v2 is not in v3.
    pub enum Why {
        /// v3 leads the key.
        Moved = "moved",
        /// A client that does not follow the protocol wrote the key, or it was there before.
        Foreign = "foreign",
        /// The switch was put before.
        AfterSwitch = "after-switch",
        /// The pair is larger than v3 accepts.
        TooLarge = "too-large",
        /// The name is empty or belongs to etcdlift.
        UnusableName = "unusable-name",
        /// A rule decodes the value, but it has another form.
        UnusableValue = "unusable-value",
        /// A rule gives the key the name of another v2 key.
        NameTaken = "name-taken",
        /// A directory went while the job did not run, and which of its keys v3 leads is unknown.
        UnknownKeys = "unknown-keys",
        /// The job did not run, and deletions in that time are unknown.
        Unknown = "unknown-deletions",
    }
}

/// A change of v2 that is not in v3: `P conflict/INDEX/PATH`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// Why.
    pub why: Why,
    /// The v2 index of the change.
    pub index: u64,
    /// The word of the v2 API.
    pub action: String,
    /// The v2 path.
    pub key: String,
    /// The v3 key.
    pub v3_key: String,
    /// The revision of the v3 key, if it exists.
    pub v3_revision: Option<i64>,
    /// When it was found.
    pub time: String,
}

/// The switch key as last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Switch {
    /// Its mod revision; 0: it does not exist.
    pub modified: i64,
    /// Whether its value is `true`.
    pub on: bool,
}

/// The value of the switch while a migration that had it on is undone.
pub const UNDO: &str = "undo";

impl Switch {
    /// Reads the switch from its pair.
    pub fn of(pair: Option<&Pair>) -> Switch {
        pair.map_or(Switch::default(), |pair| Switch { modified: pair.modified, on: pair.value == b"true" })
    }
}

/// What the state is, read at one revision.
#[derive(Debug, Clone, Default)]
pub struct Head {
    /// The migration.
    pub job: Option<Job>,
    /// How far it is, with the mod revision of its key.
    pub progress: Option<(Progress, i64)>,
    /// The switch.
    pub switch: Switch,
    /// The value of the switch key.
    pub switch_value: Option<String>,
    /// The value of the lock.
    pub lock: Option<String>,
    /// The v2 index up to which v3 had everything when this migration put the switch; `None` if it did not.
    pub switched: Option<V2Index>,
    /// The mod revisions of the job and of the lock; 0 without them.
    pub modified: (i64, i64),
}

impl Head {
    /// Refuses to go on while an `undo` has not ended: v2 may have keys that were deleted in v3 without a marker.
    ///
    /// # Errors
    /// [`Reason::StateDiffers`].
    pub fn require_no_undo(&self) -> Result<()> {
        if self.switch_value.as_deref() != Some(UNDO) {
            return Ok(());
        }
        let message = "an `etcdlift online undo` has not ended, so v3 leads all keys";
        Err(Error::new(Reason::StateDiffers, message).hint("run `etcdlift online undo` again"))
    }

    /// Refuses to go on if the switch is on or being undone, but not by this migration: it says nothing of the keys of this one.
    ///
    /// # Errors
    /// [`Reason::StateDiffers`].
    pub fn require_own_switch(&self, keys: &Keys) -> Result<()> {
        let value = self.switch_value.as_deref().unwrap_or_default();
        if self.switched.is_some() || !self.switch.on && value != UNDO {
            return Ok(());
        }
        let switch = String::from_utf8_lossy(&keys.switch);
        let message = format!("{switch}: the value is `{value}`, but this migration did not put it");
        Err(Error::new(Reason::StateDiffers, message).hint(
            "each migration needs its own --switch-key, which only `etcdlift online` puts; if it was put by hand, put `false` before \
             applications delete keys, as such keys come back",
        ))
    }
}

/// Reads the state of a migration.
///
/// # Errors
/// [`Reason::StateDiffers`] if another version wrote it; those of the store.
pub fn read(kv: &dyn Kv, keys: &Keys) -> Result<Head> {
    let wanted = [keys.named("job"), keys.named("progress"), keys.switch.clone(), keys.named("lock"), keys.switched()];
    let reply = kv.txn(&Txn::read(wanted.into_iter().map(Op::Get).collect()))?;
    let text = |pair: &Pair| String::from_utf8_lossy(&pair.value).into_owned();
    let modified = |at| reply.at(at).one().map_or(0, |pair| pair.modified);
    Ok(Head {
        job: reply.at(0).one().map(decode).transpose()?,
        progress: reply.at(1).one().map(progress).transpose()?,
        switch: Switch::of(reply.at(2).one()),
        switch_value: reply.at(2).one().map(text),
        lock: reply.at(3).one().map(text),
        switched: reply.at(4).one().and_then(|pair| text(pair).parse().ok()).map(V2Index),
        modified: (modified(0), modified(3)),
    })
}

/// Returns a key below the prefix that no version of etcdlift wrote, if there is one.
///
/// # Errors
/// Those of the store.
pub fn foreign(kv: &dyn Kv, keys: &Keys) -> Result<Option<Vec<u8>>> {
    let one = |key: Vec<u8>| (key.clone(), [&key[..], &[0]].concat());
    let mut known: Vec<(Vec<u8>, Vec<u8>)> = SINGLE.iter().map(|name| one(keys.named(name))).collect();
    known.push(one(keys.switch.clone()));
    known.extend(FOLDERS.iter().map(|name| (keys.named(name), prefix_end(&keys.named(name)))));
    known.sort();
    let end = prefix_end(&keys.prefix);
    let (mut from, mut gaps) = (keys.prefix.clone(), Vec::new());
    for (start, after) in known.into_iter().filter(|(start, _)| start.starts_with(&keys.prefix)) {
        gaps.push((std::mem::replace(&mut from, after), start));
    }
    gaps.push((from, end));
    for (from, to) in gaps.into_iter().filter(|(from, to)| from < to) {
        let reply = kv.txn(&Txn::read(vec![Op::Scan(Scan { from, to, limit: 1, values: false })]))?;
        if let Some(pair) = reply.at(0).one() {
            return Ok(Some(pair.key.clone()));
        }
    }
    Ok(None)
}

/// Reads the conflicts in the order of their indexes.
///
/// # Errors
/// Those of the store, and of `each`.
pub fn conflicts(kv: &dyn Kv, keys: &Keys, mut each: impl FnMut(Conflict) -> Result<()>) -> Result<()> {
    let range = Scan { values: true, ..Scan::prefix(&keys.named("conflict/")) };
    scan(kv, range, |pairs| pairs.iter().try_for_each(|pair| each(decode(pair)?)))
}

/// Counts the keys below a name of the state.
///
/// # Errors
/// Those of the store.
pub fn count(kv: &dyn Kv, keys: &Keys, name: &str) -> Result<u64> {
    let mut found = 0;
    scan(kv, Scan::prefix(&keys.named(name)), |pairs| {
        found += pairs.len() as u64;
        Ok(())
    })?;
    Ok(found)
}

/// Returns an operation that writes JSON.
///
/// # Errors
/// [`Reason::Internal`].
pub fn put_json(key: Vec<u8>, value: &impl Serialize) -> Result<Op> {
    let bytes = serde_json::to_vec(value).map_err(|e| Error::new(Reason::Internal, format!("JSON: {e}")))?;
    Ok(Op::put(key, bytes))
}

/// Returns now, in RFC 3339.
pub fn now() -> String {
    Timestamp::now().to_string()
}

fn progress(pair: &Pair) -> Result<(Progress, i64)> {
    Ok((decode(pair)?, pair.modified))
}

fn decode<T: for<'de> Deserialize<'de>>(pair: &Pair) -> Result<T> {
    serde_json::from_slice(&pair.value).map_err(|e| {
        let key = String::from_utf8_lossy(&pair.key);
        Error::new(Reason::StateDiffers, format!("{key}: expected the state of this version of etcdlift: {e}"))
            .hint("use the version that began the migration, or another --state-prefix")
    })
}
