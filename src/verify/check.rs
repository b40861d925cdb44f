//! The summary of a v3 database, for any file (`summarize`) and as the final check of our own (`verify`, and
//! `verify_content`, which also compares).
//!
//! docs/formats.md sections 8.9, 9.8, 10.1, 10.3 and 10.4. The parts, [`structure`], [`store`] and [`digest`], read the
//! file independently and can run in parallel. Must not know where the file comes from.

use sha2::{Digest, Sha256};

use crate::bolt::{Check, Damage, Db, Strictness, check};
use crate::count::counted;
use crate::error::{Reason, Result};
use crate::ids::ByteOffset;
use crate::interrupt::{self, Interrupt};
use crate::verify::compare::{compare_keys, compare_others};
use crate::verify::expected::Expected;
use crate::verify::key_bucket::Findings;
use crate::verify::summary::{Sha256Check, V3Summary};

/// Summarizes any v3 database or snapshot file. A fault that does not end the reading is a finding.
///
/// # Errors
/// [`Reason::Damaged`] if the file is not a bbolt file, or cannot be read to its end.
pub fn summarize(file: &[u8]) -> Result<V3Summary> {
    summarize_watched(file, Interrupt::default())
}

/// Summarizes a file like [`summarize`], until an interruption. After one, the result says nothing about the file, and
/// the caller must test for the interruption again.
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
    if summary.sha256 == Some(Sha256Check::Mismatch) {
        summary.findings.push(Damage::new(ByteOffset(db.body().len() as u64), "the SHA-256 of the snapshot is wrong"));
    }
    Ok(summary)
}

/// Verifies a file that this program has written: every check of [`summarize`], the structure with full strictness, and
/// the SHA-256.
///
/// # Errors
/// [`Reason::VerifyFailed`] with the first finding.
pub fn verify(file: &[u8]) -> Result<V3Summary> {
    verify_watched(file, Interrupt::default())
}

/// Verifies a file like [`verify`], until an interruption. After one, the error says nothing about the file, and the
/// caller must test for the interruption again.
///
/// # Errors
/// As [`verify`].
pub fn verify_watched(file: &[u8], interrupt: Interrupt<'_>) -> Result<V3Summary> {
    let db = Db::open(file).map_err(failed)?.watched(interrupt);
    structure(&db)?;
    sound(&db, store(&db).map_err(failed)?, digest(&db))
}

/// Verifies a file like [`verify_watched`], and compares it with the expected content like [`compare`](super::compare()).
/// If the sum of the file is that of the expectation, the pairs need not be compared one by one.
///
/// # Errors
/// As both.
pub fn verify_content(file: &[u8], expected: &Expected<'_, '_, '_>, interrupt: Interrupt<'_>) -> Result<V3Summary> {
    let db = Db::open(file).map_err(failed)?.counted(interrupt);
    // Once for the structure, about twice to cut the pairs into parts, and once for the pairs.
    interrupt.expect(db.size().saturating_mul(4));
    let (digest, (structure, summary)) =
        rayon::join(|| digest(&db), || rayon::join(|| structure(&db), || store_with(&db, Some(expected))));
    interrupt.ask()?;
    // A difference names its key, a finding only its place.
    compare_others(&db, expected.content())?;
    if !expected.is_met() {
        compare_keys(&db, expected.content(), interrupt)?;
    }
    structure?;
    sound(&db, summary.map_err(failed)?, digest)
}

/// Returns the summary of a file without findings.
fn sound(db: &Db<'_>, mut summary: V3Summary, digest: Sha256Check) -> Result<V3Summary> {
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
        return Err(failed(Damage::new(ByteOffset(0), "meta: consistent_index is missing")));
    }
    if digest == Sha256Check::Mismatch {
        return Err(failed(Damage::new(ByteOffset(db.body().len() as u64), "the SHA-256 of the snapshot is wrong")));
    }
    summary.sha256 = Some(digest);
    Ok(summary)
}

/// Checks the structure of a file that this program has written.
///
/// # Errors
/// [`Reason::VerifyFailed`] if it differs from what the writer makes.
pub fn structure(db: &Db<'_>) -> Result<Check> {
    check(db, Strictness::Own).sound().map_err(failed)
}

/// Summarizes the store in the file, without the SHA-256 and the findings of the structure.
///
/// # Errors
/// The file cannot be read to its end.
pub fn store(db: &Db<'_>) -> Result<V3Summary, Damage> {
    store_with(db, None)
}

fn store_with(db: &Db<'_>, expected: Option<&Expected<'_, '_, '_>>) -> Result<V3Summary, Damage> {
    let mut findings = Findings::default();
    crate::verify::invariants::buckets(db, &mut findings)?;
    read(db, findings, expected)
}

/// Summarizes a database that is to be preserved, like [`store`]. A missing bucket is one that its server did not know
/// yet.
///
/// # Errors
/// The file cannot be read to its end.
pub fn carried(db: &Db<'_>) -> Result<V3Summary, Damage> {
    read(db, Findings::default(), None)
}

fn read(db: &Db<'_>, mut findings: Findings, expected: Option<&Expected<'_, '_, '_>>) -> Result<V3Summary, Damage> {
    let mut summary = V3Summary::default();
    crate::verify::invariants::read(db, &mut summary, &mut findings, expected)?;
    summary.findings = findings.list;
    summary.more_findings = findings.more;
    Ok(summary)
}

/// Compares the SHA-256 of a snapshot file with its bytes.
pub fn digest(db: &Db<'_>) -> Sha256Check {
    let Some(trailer) = db.trailer() else { return Sha256Check::None };
    let mut sha256 = Sha256::new();
    db.interrupt().expect(db.body().len() as u64);
    for chunk in db.body().chunks(interrupt::CHUNK) {
        if db.interrupt().ask().is_err() {
            return Sha256Check::Mismatch;
        }
        sha256.update(chunk);
        db.interrupt().done(chunk.len() as u64);
    }
    if sha256.finalize().as_slice() == trailer { Sha256Check::Good } else { Sha256Check::Mismatch }
}

fn failed(damage: Damage) -> crate::error::Error {
    damage.into_error(Reason::VerifyFailed)
}
