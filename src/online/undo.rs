//! `online undo`: back to v2 for the keys that only the job wrote. Keys that an application moved stay in v3, marked.
//!
//! If the switch was on, it first says `undo`: clients still read v3 alone, and put markers again. Once everything that v3
//! leads has a marker, it says `false`: clients ask v2 for the rest, and the copies in v3 go. Must not copy.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;

use crate::error::{Error, Reason, Result};
use crate::ids::V2Index;
use crate::online::copy::Context;
use crate::online::decide::Seen;
use crate::online::lock::Lock;
use crate::online::names::{Content, Name, Names};
use crate::online::session::{Limits, Session, State, Written};
use crate::online::state::{self, Keys, Phase, Progress, UNDO, put_json};
use crate::online::v2::V2;
use crate::online::v3::{Compare, Op, Scan, scan};
use crate::online::verify;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Undone {
    /// Keys of the job that were deleted.
    pub deleted: u64,
    /// Keys that got a marker: v3 leads them.
    pub marked: u64,
}

/// Undoes a migration. It can be run again after an interruption.
///
/// # Errors
/// [`Reason::StateMissing`](crate::error::Reason::StateMissing), [`Reason::JobRunning`](crate::error::Reason::JobRunning);
/// those of the source and the store; an interruption.
pub fn undo(context: &Context<'_>, v2: &mut dyn V2, keys: &Keys, limits: Limits, lock_seconds: i64) -> Result<Undone> {
    let lock = Lock::take(context.kv, keys, "undo", lock_seconds, context.interrupt, context.tell)?;
    lock.hold(|| locked(context, v2, keys, limits, &lock))
}

fn locked(context: &Context<'_>, v2: &mut dyn V2, keys: &Keys, limits: Limits, lock: &Lock<'_>) -> Result<Undone> {
    let before = state::read(context.kv, keys)?;
    let job = before.job.as_ref().ok_or_else(verify::missing)?;
    before.require_own_switch(keys)?;
    if before.progress.is_none() {
        let message = "the migration has no progress: a `finish` did not end, and its markers are gone";
        return Err(Error::new(Reason::StateDiffers, message).hint("run `etcdlift online finish` again"));
    }
    // A run before this one can have been interrupted.
    let was_on = before.switch.on || before.switch_value.as_deref() == Some(UNDO);
    verify::require_source(job, v2)?;
    let setup = Session::begin(context.kv, keys, limits, lock, before.switch)?;
    // A `switch` at the same time compares the lock, and the revision of the switch below is that of this write.
    if was_on {
        let as_seen = Compare::modified(&keys.switch, before.switch.modified);
        let put = setup.put_if(vec![as_seen], vec![Op::put(keys.switch.clone(), UNDO)])?;
        // Its answer may have been lost.
        if !put && state::read(context.kv, keys)?.switch_value.as_deref() != Some(UNDO) {
            return Err(switched());
        }
    }
    // Everything up to here was in v3 when the switch was put. After it, a job lists changes and moves the progress past them.
    let copied = before.progress.as_ref().filter(|(progress, _)| progress.phase == Phase::Following);
    let copied = V2Index(copied.map_or(0, |(progress, _)| progress.v2_index));
    let copied = before.switched.map_or(copied, |at| copied.min(at));
    let now = state::read(context.kv, keys)?;
    now.require_own_switch(keys)?;
    let session = Session::begin(context.kv, keys, limits, lock, now.switch)?;
    let mut undo = Undo { session: &session, was_on, done: Undone::default() };
    let mut names = Names::new(job, keys)?;
    let (mut known, mut others, now) = (Vec::new(), Vec::new(), Timestamp::now());
    v2.state(&mut |node| {
        context.interrupt.ask()?;
        session.check()?;
        let Name::Key(key) = names.name(&node.path) else { return Ok(()) };
        let fits = |value: &[u8]| session.size_of(&key, value.len()) <= session.limits.bytes;
        let was_copied = node.modified <= copied
            && matches!(names.content(&node, now)?, Content::Value { value, .. } if fits(&value));
        let (batch, choose): (_, Choose) = if was_copied { (&mut known, mark) } else { (&mut others, mark_foreign) };
        batch.push(key);
        if batch.len() >= session.keys_at_once() { undo.each(&std::mem::take(batch), choose) } else { Ok(()) }
    })?;
    undo.each(&known, mark)?;
    undo.each(&others, mark_foreign)?;
    if was_on {
        undo.scan(context, mark_foreign)?;
    }
    // From here on, clients read v2 where there is no marker. So what the job wrote can go.
    let as_seen = Compare::modified(&keys.switch, session.switch().modified);
    let put = session.put_if(vec![as_seen], vec![Op::put(keys.switch.clone(), "false")])?;
    if !put && state::read(context.kv, keys)?.switch_value.as_deref() != Some("false") {
        return Err(switched());
    }
    let session = Session::begin(context.kv, keys, limits, lock, state::read(context.kv, keys)?.switch)?;
    // If this run ends before all copies are removed, v3 is like one into which not all was copied.
    if let Some((progress, _)) = &before.progress {
        let part = Progress { phase: Phase::Copying, ..progress.clone() };
        session.put(vec![put_json(keys.named("progress"), &part)?])?;
    }
    let mut undo = Undo { session: &session, ..undo };
    undo.scan(context, remove)?;
    session.put(vec![
        Op::DeleteRange(keys.named("own/"), keys.named("own0")),
        Op::DeleteRange(keys.named("folded/"), keys.named("folded0")),
        Op::DeleteRange(keys.named("owner/"), keys.named("owner0")),
        // The progress stays: a later migration lists the changes of moved keys that v2 gets until then.
        Op::Delete(keys.named("job")),
        Op::Delete(keys.switched()),
    ])?;
    Ok(undo.done)
}

/// What is done with a key without a marker.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Mark,
    Delete,
}

/// Marks what v3 leads from now on, of keys that the job had copied: one that is absent was deleted after the switch.
fn mark(seen: Seen, was_on: bool) -> Option<Action> {
    (seen == Seen::Foreign || seen == Seen::Absent && was_on).then_some(Action::Mark)
}

/// Marks what v3 leads from now on, of keys that the job may not have copied: only what is there.
fn mark_foreign(seen: Seen, _: bool) -> Option<Action> {
    (seen == Seen::Foreign).then_some(Action::Mark)
}

/// The error for a switch that somebody else put.
fn switched() -> Error {
    Error::new(Reason::V3Failed, "another command or client has put the switch meanwhile")
        .hint("run `etcdlift online undo` again")
}

/// Deletes what only the job wrote.
fn remove(seen: Seen, _: bool) -> Option<Action> {
    matches!(seen, Seen::Own(_)).then_some(Action::Delete)
}

type Choose = fn(Seen, bool) -> Option<Action>;

struct Undo<'u, 'k> {
    session: &'u Session<'k>,
    was_on: bool,
    done: Undone,
}

impl Undo<'_, '_> {
    /// Handles keys, at most as many as one transaction can have.
    fn each(&mut self, keys: &[Vec<u8>], choose: Choose) -> Result<()> {
        // Two v2 keys can have one name.
        let keys: Vec<&[u8]> = keys.iter().map(|key| &**key).collect::<BTreeSet<_>>().into_iter().collect();
        let mut left: Vec<(&[u8], State)> = keys.iter().copied().zip(self.session.look(&keys)?).collect();
        loop {
            let switch = self.session.switch();
            let (mut then, mut compared, mut done) = (Vec::new(), Vec::new(), Undone::default());
            for (key, state) in &left {
                match choose(state.seen, self.was_on).filter(|_| !state.is_moved()) {
                    Some(Action::Mark) => {
                        done.marked += 1;
                        then.push(Op::put(self.session.keys.moved(key), ""));
                    }
                    Some(Action::Delete) => {
                        done.deleted += 1;
                        then.push(Op::Delete(key.to_vec()));
                    }
                    None => continue,
                }
                compared.push((*key, *state));
            }
            if then.is_empty() {
                return Ok(());
            }
            match self.session.write(switch, V2Index(0), &compared, then)? {
                Written::Done(_) => {
                    self.add(done);
                    return Ok(());
                }
                Written::Differs(now) => {
                    left = compared.into_iter().zip(now).map(|((key, _), now)| (key, now)).collect();
                }
                Written::SwitchedOn => return Err(switched()),
            }
        }
    }

    /// Handles all keys of v3.
    fn scan(&mut self, context: &Context<'_>, choose: Choose) -> Result<()> {
        let session = self.session;
        scan(session.kv, Scan::prefix(b""), |pairs| {
            context.interrupt.ask()?;
            session.check()?;
            let theirs = pairs.iter().filter(|pair| !session.keys.is_own_name(&pair.key));
            let keys: Vec<Vec<u8>> = theirs.map(|pair| pair.key.clone()).collect();
            keys.chunks(session.keys_at_once()).try_for_each(|chunk| self.each(chunk, choose))
        })
    }

    fn add(&mut self, done: Undone) {
        self.done.deleted += done.deleted;
        self.done.marked += done.marked;
    }
}
