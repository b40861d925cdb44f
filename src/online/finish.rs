//! `online finish`: removes the markers and the state. The switch stays. Must not touch keys of applications.

use serde::Serialize;

use crate::error::{Error, Reason, Result};
use crate::online::copy::Context;
use crate::online::lock::Lock;
use crate::online::state::{self, Keys, count};
use crate::online::v3::{Kv, Op, Scan, Txn, prefix_end};

/// Keys that one transaction removes.
const PAGE: i64 = 1000;

/// What was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Finished {
    /// Keys of the state.
    pub removed: u64,
    /// Conflicts among them.
    pub conflicts: u64,
}

/// Finishes a migration. It can be run again after an interruption. `save` is called before the conflicts are counted, when nobody
/// can add one any more.
///
/// # Errors
/// [`Reason::NotSwitched`], [`Reason::ConflictsOpen`], [`Reason::JobRunning`]; those of the store; an interruption.
pub fn finish(
    context: &Context<'_>,
    keys: &Keys,
    accept_conflicts: bool,
    lock_seconds: i64,
    save: &mut dyn FnMut() -> Result<()>,
) -> Result<Finished> {
    let lock = Lock::take(context.kv, keys, "finish", lock_seconds, context.interrupt, context.tell)?;
    lock.hold(|| locked(context, keys, accept_conflicts, &lock, save))
}

fn locked(
    context: &Context<'_>,
    keys: &Keys,
    accept_conflicts: bool,
    lock: &Lock<'_>,
    save: &mut dyn FnMut() -> Result<()>,
) -> Result<Finished> {
    let kv = context.kv;
    let state = state::read(kv, keys)?;
    // A run before this one can have been interrupted.
    let begun = state.job.is_some() && state.progress.is_none();
    let ended = begun || state.job.is_none() && count(kv, keys, "moved/")? == 0;
    if !ended {
        state.require_own_switch(keys)?;
    }
    let over = ended || state.switch.on;
    if !over {
        let message = "the switch is not on: clients still need the markers";
        return Err(Error::new(Reason::NotSwitched, message).hint("run `etcdlift online switch` first, or `undo`"));
    }
    save()?;
    let conflicts = count(kv, keys, "conflict/")?;
    if conflicts > 0 && !accept_conflicts {
        let message = format!("{conflicts} changes of v2 are not in v3");
        let hint = "save and read them with --conflicts FILE, then give --accept-conflicts";
        return Err(Error::new(Reason::ConflictsOpen, message).hint(hint));
    }
    let mut removed = 0;
    // The progress goes first: without it, neither `undo` nor `copy` works with what is left. The job goes last, with the word
    // that its switch was put: until then, a second run knows that there is something to finish.
    for name in ["progress", "conflict/", "moved/", "own/", "folded/", "owner/", "deleted"] {
        let key = keys.named(name);
        let end = if name.ends_with('/') { prefix_end(&key) } else { [&key[..], &[0]].concat() };
        removed += remove(context, (key, end), lock)?;
    }
    let last = [keys.switched(), keys.named("job")];
    let reply = kv.txn(&Txn::read(last.iter().cloned().map(Op::Look).collect()))?;
    removed += reply.got.iter().filter(|got| got.one().is_some()).count() as u64;
    delete(kv, last.into_iter().map(Op::Delete).collect(), lock)?;
    Ok(Finished { removed, conflicts })
}

/// Deletes in one transaction, if the lock is still held.
fn delete(kv: &dyn Kv, then: Vec<Op>, lock: &Lock<'_>) -> Result<()> {
    let txn = Txn { when: vec![lock.compare()], then, otherwise: vec![Op::Look(lock.key().to_vec())] };
    let reply = kv.txn(&txn)?;
    if reply.succeeded { Ok(()) } else { lock.check_pair(reply.at(0).one()) }
}

/// Removes all keys of a range, page by page.
fn remove(context: &Context<'_>, (from, end): (Vec<u8>, Vec<u8>), lock: &Lock<'_>) -> Result<u64> {
    let mut removed = 0;
    loop {
        context.interrupt.ask()?;
        let page = Scan { from: from.clone(), to: end.clone(), limit: PAGE, values: false };
        let reply = context.kv.txn(&Txn::read(vec![Op::Scan(page)]))?;
        let got = reply.at(0);
        let Some(last) = got.pairs.last() else { return Ok(removed) };
        let to = if got.more { [&last.key[..], &[0]].concat() } else { end.clone() };
        delete(context.kv, vec![Op::DeleteRange(from.clone(), to)], lock)?;
        removed += got.pairs.len() as u64;
    }
}
