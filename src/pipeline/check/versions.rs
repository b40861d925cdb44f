//! Whether a data directory is of a later version than the one that will start on it (docs/formats.md 11.2).
//!
//! etcd compares its minor version with the storage version and the cluster version of the v3 backend, and with each cluster version in
//! the log that it replays. Must not know v2 content.

use crate::bolt::{Damage, Db};
use crate::error::{Error, Reason, Result};
use crate::ids::{ByteOffset, RaftIndex};
use crate::interrupt::Interrupt;
use crate::mvcc::schema;
use crate::options::UpgradeTarget;
use crate::report::upgrade_check::{LaterVersion, VersionPlace};
use crate::source::map::Map;
use crate::source::raft::{EntryKind, Proposal, parse_proposal};
use crate::source::wal::Wal;
use crate::v2store::dialect::Version;
use crate::wire::Reader;

/// Returns the version in a source that is too high for the target. `replay_after` is the raft index after which the target reads the log.
///
/// # Errors
/// The backend or an entry is damaged; an interruption.
pub(super) fn later(
    (map, wal): (&Map, &Wal),
    replay_after: RaftIndex,
    target: UpgradeTarget,
    interrupt: Interrupt<'_>,
) -> Result<Option<LaterVersion>> {
    let db = Db::open(map.bytes()).map(|db| db.watched(interrupt));
    let text = |name: &[u8], key: &[u8]| -> Result<Option<Vec<u8>>, Damage> {
        let Some(bucket) = db.clone()?.bucket(name)? else { return Ok(None) };
        Ok(bucket.get(key)?.map(|pair| pair.value.to_vec()))
    };
    let places = [
        (VersionPlace::Storage, text(schema::META, schema::STORAGE_VERSION)),
        (VersionPlace::Cluster, text(schema::CLUSTER, schema::CLUSTER_VERSION)),
    ];
    interrupt.ask()?;
    for (place, text) in places {
        let text = text.map_err(|damage| damage.into_error(Reason::V3Unreadable).in_file(map.path()))?;
        if let Some(text) = text.filter(|text| is_later(text, place, target)) {
            return Ok(Some(found(&text, place)));
        }
    }
    in_log(wal, replay_after, target, interrupt)
}

/// Refuses a source of a later version.
///
/// # Errors
/// [`Reason::CannotContinue`]; those of [`later`].
pub(super) fn require(
    (map, wal): (&Map, &Wal),
    replay_after: RaftIndex,
    target: UpgradeTarget,
    interrupt: Interrupt<'_>,
) -> Result<()> {
    let Some(later) = later((map, wal), replay_after, target, interrupt)? else { return Ok(()) };
    let message = format!("{}, so etcd {target} does not start on a copy", later.phrase());
    let hint = match target {
        UpgradeTarget::V3_6 => "give --target-version 3.7, or downgrade the cluster first",
        UpgradeTarget::V3_7 => "downgrade the cluster first",
    };
    Err(Error::new(Reason::CannotContinue, message).hint(hint))
}

fn found(text: &[u8], place: VersionPlace) -> LaterVersion {
    LaterVersion { version: String::from_utf8_lossy(text).into_owned(), place }
}

/// Returns whether a version is too high. etcd ignores a version that cannot be parsed, and its own patch version. It ignores the patch
/// version of the storage version, but not that of the cluster version.
fn is_later(text: &[u8], place: VersionPlace, target: UpgradeTarget) -> bool {
    let minor = match target {
        UpgradeTarget::V3_6 => 6,
        UpgradeTarget::V3_7 => 7,
    };
    let patch = |version: &Version| if place == VersionPlace::Storage { 0 } else { version.patch };
    let version = Version::parse(text).map(|version| Version { patch: patch(&version), ..version });
    version.is_some_and(|version| version > Version::new(3, minor, 0))
}

fn in_log(
    wal: &Wal,
    replay_after: RaftIndex,
    target: UpgradeTarget,
    interrupt: Interrupt<'_>,
) -> Result<Option<LaterVersion>> {
    for (number, reference) in wal.history().into_iter().filter(|entry| entry.index > replay_after).enumerate() {
        interrupt.ask_at(number)?;
        let entry = wal.entry(reference)?;
        if entry.kind != EntryKind::Normal {
            continue;
        }
        let Ok(Proposal::ClusterVersionSet(message)) = parse_proposal(entry.data, entry.data_offset) else { continue };
        if let Some(text) = version_of(message).filter(|text| is_later(text, VersionPlace::Log, target)) {
            return Ok(Some(found(text, VersionPlace::Log)));
        }
    }
    Ok(None)
}

/// Returns field 1 of a `ClusterVersionSetRequest`.
fn version_of(message: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader::new(message, ByteOffset(0));
    let mut version = None;
    while let Ok(Some(field)) = reader.field() {
        if field.number == 1 {
            version = field.bytes().ok();
        }
    }
    version
}
