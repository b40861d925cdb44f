//! The summary of a v3 database, for any file (`summarize`) and as the last word on our own (`verify`).
//!
//! FORMATS sections 8.9, 9.8, 10.1, 10.3 and 10.4. The parts, [`structure`], [`store`] and [`digest`], read the file on
//! their own and may run at the same time. Must not know where the file comes from.

use sha2::{Digest, Sha256};

use crate::bolt::{Check, Damage, Db, Strictness, check};
use crate::count::counted;
use crate::error::{Reason, Result};
use crate::ids::{MemberId, RaftIndex, Revision, Term};
use crate::interrupt::{self, Interrupt};
use crate::verify::key_bucket::Findings;

/// What a v3 database holds, and what is wrong with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct V3Summary {
    /// The current revision that etcd has after booting on it.
    pub revision: Revision,
    /// Main revision of the last change, as `snapshot status` prints it; 0 without any.
    pub last_key_revision: Revision,
    /// Keys that are not deleted; `snapshot status` of 3.6 and later prints this as total keys.
    pub keys: u64,
    /// Changes in the `key` bucket.
    pub pairs: u64,
    /// Pairs in all buckets; `snapshot status` of 3.4 and 3.5 prints this as total keys.
    pub all_pairs: u64,
    /// Changes that are deletions.
    pub tombstones: u64,
    /// Leases.
    pub leases: u64,
    /// Users.
    pub users: u64,
    /// Roles.
    pub roles: u64,
    /// Whether authentication is on.
    pub auth_enabled: bool,
    /// Alarms that are raised.
    pub alarms: u64,
    /// HashKV at the current revision, as every member prints it after boot.
    pub hash_kv: u32,
    /// The hash that `snapshot status` prints.
    pub status_hash: u32,
    /// The revision that the store is compacted at after boot.
    pub compacted: Option<Revision>,
    /// Raft index of the last applied entry.
    pub consistent_index: Option<RaftIndex>,
    /// Its term.
    pub term: Option<Term>,
    /// The version of the storage.
    pub storage_version: Option<String>,
    /// The version of the cluster.
    pub cluster_version: Option<String>,
    /// The members of the cluster.
    pub members: Vec<Member>,
    /// Bytes of all pages, as `snapshot status` prints it.
    pub total_size: u64,
    /// Whether a snapshot's SHA-256 is right; `None` if it was not looked at.
    pub sha256: Option<Sha256State>,
    /// What is wrong, at most 100.
    pub findings: Vec<Damage>,
    /// How many more findings there are.
    pub more_findings: u64,
}

/// A member of the cluster, as the `members` bucket has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// Its name; empty until it has started.
    pub name: String,
    /// Where its peers find it.
    pub peer_urls: Vec<String>,
    /// Where its clients find it; none until it has started.
    pub client_urls: Vec<String>,
    /// Whether it has no vote.
    pub learner: bool,
}

/// The SHA-256 that a snapshot file ends in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sha256State {
    /// It is that of the bytes before it.
    Good,
    /// It is another.
    Bad,
    /// The file has none: a database file, not a snapshot.
    Absent,
}

/// Summarizes any v3 database or snapshot file. What is wrong but can be read past is a finding.
///
/// # Errors
/// The file is no bbolt file or is damaged so that it cannot be read to its end ([`Reason::Damaged`]).
pub fn summarize(file: &[u8]) -> Result<V3Summary> {
    summarize_watched(file, Interrupt::default())
}

/// As [`summarize`], until it is interrupted: what comes out then says nothing of the file, and the caller asks once more.
///
/// # Errors
/// As [`summarize`].
pub fn summarize_watched(file: &[u8], interrupt: Interrupt<'_>) -> Result<V3Summary> {
    let db = Db::open(file)?.watched(interrupt);
    let found = check(&db, Strictness::Any);
    let mut summary = store(&db)?;
    summary.findings.splice(0..0, found.findings);
    summary.more_findings += found.more_findings;
    summary.sha256 = Some(digest(&db));
    if summary.sha256 == Some(Sha256State::Bad) {
        summary.findings.push(Damage::new(db.body().len() as u64, "the SHA-256 of the snapshot is wrong"));
    }
    Ok(summary)
}

/// Verifies a file that this program has written: everything that [`summarize`] would find, the structure in full
/// strictness, and the SHA-256.
///
/// # Errors
/// Anything is wrong ([`Reason::VerifyFailed`]); the first finding is named.
pub fn verify(file: &[u8]) -> Result<V3Summary> {
    verify_watched(file, Interrupt::default())
}

/// As [`verify`], until it is interrupted: the error then says nothing of the file, and the caller asks once more.
///
/// # Errors
/// As [`verify`].
pub fn verify_watched(file: &[u8], interrupt: Interrupt<'_>) -> Result<V3Summary> {
    let db = Db::open(file).map_err(failed)?.watched(interrupt);
    structure(&db)?;
    let mut summary = store(&db).map_err(failed)?;
    if let Some(first) = summary.findings.first() {
        let others = summary.findings.len() as u64 - 1 + summary.more_findings;
        let message = if others == 0 {
            first.message.clone()
        } else {
            format!("{} (and {})", first.message, counted(others, "more finding", "more findings"))
        };
        return Err(failed(Damage::new(first.offset, message)));
    }
    if summary.consistent_index.is_none() {
        return Err(failed(Damage::new(0, "meta: there is no consistent_index")));
    }
    let state = digest(&db);
    if state == Sha256State::Bad {
        return Err(failed(Damage::new(db.body().len() as u64, "the SHA-256 of the snapshot is wrong")));
    }
    summary.sha256 = Some(state);
    Ok(summary)
}

/// The structure of a file that this program has written.
///
/// # Errors
/// It is not as the writer makes it ([`Reason::VerifyFailed`]).
pub fn structure(db: &Db<'_>) -> Result<Check> {
    check(db, Strictness::Own).sound().map_err(failed)
}

/// The store in the file: all of the summary but the SHA-256 and the findings of the structure.
///
/// # Errors
/// The file cannot be read to its end.
pub fn store(db: &Db<'_>) -> Result<V3Summary, Damage> {
    let mut findings = Findings::default();
    crate::verify::invariants::buckets(db, &mut findings)?;
    read(db, findings)
}

/// As [`store`], of a database that is to be carried on: a bucket that is missing is one that its server did not know yet.
///
/// # Errors
/// The file cannot be read to its end.
pub fn carried(db: &Db<'_>) -> Result<V3Summary, Damage> {
    read(db, Findings::default())
}

fn read(db: &Db<'_>, mut findings: Findings) -> Result<V3Summary, Damage> {
    let mut summary = V3Summary::default();
    crate::verify::invariants::read(db, &mut summary, &mut findings)?;
    summary.findings = findings.list;
    summary.more_findings = findings.more;
    Ok(summary)
}

/// Holds the SHA-256 of a snapshot file against its bytes.
pub fn digest(db: &Db<'_>) -> Sha256State {
    let Some(trailer) = db.trailer() else { return Sha256State::Absent };
    let mut sha256 = Sha256::new();
    for chunk in db.body().chunks(interrupt::CHUNK) {
        if db.interrupt().ask().is_err() {
            return Sha256State::Bad;
        }
        sha256.update(chunk);
    }
    if sha256.finalize().as_slice() == trailer { Sha256State::Good } else { Sha256State::Bad }
}

fn failed(damage: Damage) -> crate::error::Error {
    damage.into_error(Reason::VerifyFailed)
}
