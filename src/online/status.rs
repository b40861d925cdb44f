//! `online status`: how far a migration is. Must not write.

use jiff::Timestamp;
use serde::Serialize;

use crate::error::Result;
use crate::online::lock;
use crate::online::state::{self, Conflict, Keys, Phase};
use crate::online::v2::Head;
use crate::online::v3::Kv;

/// Conflicts that a status shows.
pub const SHOWN: usize = 10;

/// How far a migration is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// Whether there is a migration with this state prefix.
    pub begun: bool,
    /// When it began.
    pub since: Option<String>,
    /// What the job did last.
    pub phase: Option<Phase>,
    /// The v2 index up to which v3 has everything.
    pub v3_index: Option<u64>,
    /// When that was written.
    pub v3_time: Option<String>,
    /// The v2 index of the source.
    pub v2_index: Option<u64>,
    /// Changes of v2 that v3 has not, at most: indexes of other stores of the cluster do not count.
    pub lag_entries: Option<u64>,
    /// Seconds since v3 had everything; while a job runs, at most 10 too many. 0 without a lag.
    pub lag_seconds: Option<u64>,
    /// The command that has the lock.
    pub lock: Option<String>,
    /// The value of the switch key.
    pub switch: Option<String>,
    /// Whether the switch is on.
    pub switched: bool,
    /// Keys that v3 leads.
    pub markers: u64,
    /// Changes of v2 that are not in v3.
    pub conflicts: u64,
    /// The first of them.
    pub first_conflicts: Vec<Conflict>,
}

/// Reads the status; `v2` is where the source is, if it is known.
///
/// # Errors
/// Those of the store.
pub fn status(kv: &dyn Kv, keys: &Keys, v2: Option<Head>) -> Result<Status> {
    let head = state::read(kv, keys)?;
    let mut first_conflicts = Vec::new();
    let mut conflicts = 0;
    state::conflicts(kv, keys, |conflict| {
        conflicts += 1;
        if first_conflicts.len() < SHOWN {
            first_conflicts.push(conflict);
        }
        Ok(())
    })?;
    let progress = head.progress.map(|(progress, _)| progress);
    let reached = progress.as_ref().map(|progress| progress.v2_index);
    let lag = v2.zip(reached).map(|(v2, reached)| v2.index.0.saturating_sub(reached) + v2.uncommitted);
    let age = progress.as_ref().and_then(|progress| progress.time.parse::<Timestamp>().ok());
    let age = age.map(|then| u64::try_from(Timestamp::now().as_second() - then.as_second()).unwrap_or(0));
    Ok(Status {
        begun: head.job.is_some(),
        since: head.job.map(|job| job.time),
        phase: progress.as_ref().map(|progress| progress.phase),
        v3_index: reached,
        v3_time: progress.map(|progress| progress.time),
        v2_index: v2.map(|v2| v2.index.0),
        lag_entries: lag,
        lag_seconds: lag.zip(age).map(|(lag, age)| if lag == 0 { 0 } else { age }),
        lock: head.lock.map(|lock| lock::describe(&lock)),
        switch: head.switch_value,
        switched: head.switch.on,
        markers: state::count(kv, keys, "moved/")?,
        conflicts,
        first_conflicts,
    })
}
