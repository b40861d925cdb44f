//! `online switch`: ends the migration for all clients, if v3 has everything. Must not copy.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::count::counted;
use crate::error::{Error, Reason, Result};
use crate::ids::V2Index;
use crate::online::copy::Context;
use crate::online::lock::{self, Holder};
use crate::online::names::{Name, Names, shown};
use crate::online::state::{self, Conflict, Job, Keys, Phase, Why, now, put_json};
use crate::online::v2::{Head, Next, V2};
use crate::online::v3::{Compare, Op, Txn};
use crate::online::verify::{self, Verified};

/// How long the job may need for the last changes.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 5 } else { 10 });

/// How long the source waits for a change.
const WAIT: Duration = Duration::from_millis(100);

/// How to switch.
#[derive(Debug, Clone, Copy, Default)]
pub struct SwitchOptions {
    /// Switches in any case.
    pub force: bool,
    /// Waits until v2 did not change for so long.
    pub quiet_for: Duration,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Switched {
    /// Whether the switch was on before.
    pub before: bool,
    /// The revision of the switch.
    pub revision: i64,
    /// The v2 index at the switch.
    pub v2_index: u64,
    /// Changes of v2 since, which nobody carries.
    pub later: u64,
    /// The comparison before.
    pub verified: Option<Verified>,
}

/// Puts the switch.
///
/// # Errors
/// [`Reason::StateMissing`], [`Reason::Lagging`], [`Reason::NotClean`]; those of the source and the store; an interruption.
pub fn switch(context: &Context<'_>, v2: &mut dyn V2, keys: &Keys, options: SwitchOptions) -> Result<Switched> {
    let state = state::read(context.kv, keys)?;
    let Some(job) = &state.job else { return Err(verify::missing()) };
    state.require_own_switch(keys)?;
    state.require_no_undo()?;
    verify::require_source(job, v2)?;
    if state.switch.on {
        let index = state.progress.map_or(0, |(progress, _)| progress.v2_index);
        return Ok(Switched {
            before: true,
            revision: state.switch.modified,
            v2_index: index,
            later: 0,
            verified: None,
        });
    }
    let mut verified = None;
    if !options.force {
        let found = verify::verify(context, v2, keys, &mut |_| Ok(()))?;
        if found.differing > 0 {
            let message = format!("{} keys of v3 differ from v2", found.differing);
            return Err(Error::new(Reason::NotClean, message)
                .hint("`etcdlift online verify` lists them; --force switches in any case"));
        }
        verified = Some(found);
    }
    let begun = state.modified.0;
    let (revision, index) = put(context, v2, keys, options, begun)?;
    let later = later(context, v2, keys, (job, begun), index)?;
    Ok(Switched { before: false, revision, v2_index: index.0, later, verified })
}

/// Puts the switch at a moment without a lag. `begun` is the revision of the job that was compared: an `undo` since then has
/// removed what it had copied.
fn put(
    context: &Context<'_>,
    v2: &mut dyn V2,
    keys: &Keys,
    options: SwitchOptions,
    begun: i64,
) -> Result<(i64, V2Index)> {
    let mut head = v2.head()?;
    let began = Instant::now();
    if !options.quiet_for.is_zero() {
        (context.tell)(&format!("waiting until v2 does not change for {} s", options.quiet_for.as_secs()));
    }
    loop {
        context.interrupt.ask()?;
        quiet(context, v2, &mut head, options.quiet_for)?;
        let index = head.index;
        // The source itself can lag.
        let missing = match v2.cluster_index() {
            Ok(cluster) => cluster.map_or(0, |cluster| cluster.0.saturating_sub(index.0)),
            Err(_) if options.force => 0,
            Err(error) => return Err(error),
        };
        head.uncommitted = head.uncommitted.max(missing);
        let state = state::read(context.kv, keys)?;
        require_migration(&state, begun)?;
        // Before the phase `following`, deletions of the past may be missing.
        let (reached, modified, follows) = state.progress.map_or((0, 0, false), |(progress, modified)| {
            (progress.v2_index, modified, progress.phase == Phase::Following)
        });
        // Clients would read a part of the keys, and nothing would say afterwards which of them v3 never had.
        if !follows || (reached < index.0 || head.uncommitted > 0) && !options.force {
            if began.elapsed() > PATIENCE + options.quiet_for {
                let more = match head.uncommitted {
                    0 if !follows => ", and the job has not copied all of it".into(),
                    0 => String::new(),
                    count => format!(", and {count} writes in its log are not known to be committed"),
                };
                let message = format!("v3 has v2 up to index {reached}, and v2 is at {index}{more}");
                let hint = match state.lock {
                    Some(_) if !follows => "wait until `etcdlift online copy` has copied the state",
                    Some(_) => "v2 is still written, or the job is slow: stop the writers of v2, or give --quiet-for",
                    None => "no job runs: start `etcdlift online copy`",
                };
                return Err(Error::new(Reason::Lagging, message).hint(hint));
            }
            std::thread::sleep(Duration::from_millis(100));
            continue;
        }
        // Another command that takes the lock now has to be seen first.
        let mut when = vec![
            Compare::modified(&keys.switch, state.switch.modified),
            Compare::modified(&keys.named("job"), begun),
            Compare::modified(&keys.named("lock"), state.modified.1),
        ];
        if !options.force {
            when.push(Compare::modified(&keys.named("progress"), modified));
        }
        // For an `undo`: what v2 gets after this is not in v3.
        let copied = reached.min(index.0).to_string();
        let then = vec![Op::put(keys.switch.clone(), "true"), Op::put(keys.switched(), copied)];
        let otherwise = vec![Op::Get(keys.switch.clone())];
        let reply = context.kv.txn(&Txn { when, then, otherwise })?;
        if reply.succeeded {
            return Ok((reply.revision, index));
        }
        // A lost answer, or another operator: either way it is on.
        if let Some(pair) = reply.at(0).one().filter(|pair| pair.value == b"true") {
            state::read(context.kv, keys)?.require_own_switch(keys)?;
            return Ok((pair.modified, index));
        }
    }
}

/// Refuses if the migration that was compared has ended, or another command ends it.
fn require_migration(state: &state::Head, begun: i64) -> Result<()> {
    state.require_no_undo()?;
    if state.modified.0 != begun {
        let message = "the migration was undone or begun again while this command ran, so the switch was not put";
        return Err(Error::new(Reason::StateDiffers, message).hint("run `etcdlift online switch` again"));
    }
    let Some(lock) = &state.lock else { return Ok(()) };
    if Holder::of(lock).is_some_and(|holder| holder.command == "copy") {
        return Ok(());
    }
    let message = format!("{} has the lock of this migration, so the switch was not put", lock::describe(lock));
    Err(Error::new(Reason::JobRunning, message).hint("wait until it ends"))
}

/// Waits until v2 did not change for so long. `head` is where it was.
fn quiet(context: &Context<'_>, v2: &mut dyn V2, head: &mut Head, quiet_for: Duration) -> Result<()> {
    let mut since = Instant::now();
    loop {
        context.interrupt.ask()?;
        match v2.next(WAIT)? {
            Next::Changes { head: now, .. } => {
                (*head, since) = (now, Instant::now());
                if quiet_for.is_zero() {
                    return Ok(());
                }
            }
            Next::Lost(_) => (*head, since) = (v2.head()?, Instant::now()),
            Next::Quiet(now) => {
                *head = now;
                if since.elapsed() >= quiet_for {
                    return Ok(());
                }
            }
        }
    }
}

/// Lists changes of v2 that came after the switch. A job that runs lists the same ones. `at` is where v2 was.
fn later(context: &Context<'_>, v2: &mut dyn V2, keys: &Keys, (job, begun): (&Job, i64), at: V2Index) -> Result<u64> {
    let progress = state::read(context.kv, keys)?.progress;
    let reached = V2Index(progress.map_or(0, |(progress, _)| progress.v2_index));
    let mut names = Names::new(job, keys)?;
    let mut found = Vec::new();
    let (began, mut is_lost, mut waiting) = (Instant::now(), false, 0);
    // The source is still where the switch saw it.
    while began.elapsed() < PATIENCE {
        context.interrupt.ask()?;
        match v2.next(Duration::from_millis(500))? {
            Next::Changes { changes, .. } => found
                .extend(changes.into_iter().map(|change| (change.effect.path().to_vec(), change.index, change.action))),
            Next::Quiet(head) => {
                // What waits for its commit can follow.
                waiting = head.uncommitted;
                if waiting == 0 {
                    break;
                }
            }
            Next::Lost(_) => {
                is_lost = true;
                break;
            }
        }
    }
    if waiting > 0 {
        let writes = counted(waiting, "write", "writes");
        (context.tell)(&format!(
            "warning: {writes} of v2 may come after the switch; `etcdlift online copy` lists them"
        ));
    }
    // What a forced switch left out.
    if is_lost || reached < at {
        v2.state(&mut |node| {
            if node.modified > reached {
                found.push((node.path, node.modified, "set"));
            }
            Ok(())
        })?;
    }
    let mut listed = 0;
    for (path, index, action) in &found {
        let Name::Key(key) = names.name(path) else { continue };
        let conflict = Conflict {
            why: Why::AfterSwitch,
            index: index.0,
            action: (*action).into(),
            key: shown(path).into_owned(),
            v3_key: shown(&key).into_owned(),
            v3_revision: None,
            time: now(),
        };
        let when = vec![Compare::modified(&keys.named("job"), begun)];
        let then = vec![put_json(keys.conflict(*index, path), &conflict)?];
        if !context.kv.txn(&Txn { when, then, otherwise: Vec::new() })?.succeeded {
            let message = "the switch is on, and the migration was finished before all later changes of v2 were listed";
            return Err(Error::new(Reason::StateDiffers, message).hint("compare v2 with v3 before v2 is removed"));
        }
        listed += 1;
    }
    Ok(listed)
}
