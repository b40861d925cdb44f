//! `online copy`: takes the lock, copies the state of v2, and follows its changes. Must not know how v2 is read.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Reason, Result};
use crate::ids::V2Index;
use crate::interrupt::Interrupt;
use crate::online::carry::{Carrier, Counters};
use crate::online::follow::{End, Follower};
use crate::online::lock::Lock;
use crate::online::names::Names;
use crate::online::owners::Owners;
use crate::online::reading::{self, Message, WAITING, Wishes};
use crate::online::reconcile::{Before, Pace, reconcile};
use crate::online::session::{Limits, Session};
use crate::online::state::{self, Job, Keys, Phase, Progress, put_json};
use crate::online::v2::{Head, V2};
use crate::online::v3::Kv;

/// How long a source with a lower index than v3 may need to catch up.
const CATCH_UP: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });

/// How to copy.
#[derive(Debug, Clone)]
pub struct CopyOptions {
    /// The migration; its source is filled in.
    pub job: Job,
    /// The names of the state.
    pub keys: Keys,
    /// Ends as soon as everything is carried.
    pub once: bool,
    /// Threads and rate.
    pub pace: Pace,
    /// The limits of the server.
    pub limits: Limits,
    /// Seconds after which a lock without a holder goes.
    pub lock_seconds: i64,
}

/// What a command works with.
pub struct Context<'c> {
    /// The v3 cluster.
    pub kv: &'c dyn Kv,
    /// Asks for an interruption.
    pub interrupt: Interrupt<'c>,
    /// Gets lines for the operator.
    pub tell: &'c (dyn Fn(&str) + Sync),
}

/// Copies and follows until everything is carried (`once`), or an interruption.
///
/// # Errors
/// [`Reason::StateDiffers`] if the state is that of another migration; [`Reason::JobRunning`], [`Reason::LockLost`]; those of
/// the source and the store; the interruption, after the progress is written and the lock released.
pub fn copy(context: &Context<'_>, v2: &mut dyn V2, options: &CopyOptions, counters: &Counters) -> Result<Head> {
    let lock = Lock::take(context.kv, &options.keys, "copy", options.lock_seconds, context.interrupt, context.tell)?;
    lock.hold(|| locked(context, v2, options, counters, &lock))
}

fn locked(
    context: &Context<'_>,
    v2: &mut dyn V2,
    options: &CopyOptions,
    counters: &Counters,
    lock: &Lock<'_>,
) -> Result<Head> {
    let state = state::read(context.kv, &options.keys)?;
    let session = Session::begin(context.kv, &options.keys, options.limits, lock, state.switch)?;
    let since = V2Index(begin(&session, v2, options, &state, context)?);
    let wishes = Wishes::default();
    wishes.known.store(since.0, Ordering::Relaxed);
    let mut names = Names::new(&options.job, &options.keys)?;
    if names.can_collide() {
        v2.name_keys();
    }
    let followed = |phase: &Progress| state.job.is_some() && phase.phase == Phase::Following;
    let followed = state.progress.as_ref().is_some_and(|(progress, _)| followed(progress));
    let before = Before { since, followed };
    let (send, receive) = sync_channel::<Message>(WAITING);
    thread::scope(|scope| {
        scope.spawn(|| {
            let send = send;
            reading::read(v2, &send, &wishes);
        });
        // The reader ends when the receiver is gone.
        let source = receive;
        let carrier = Carrier::new(&session, counters);
        run(&carrier, &mut names, &source, (&wishes, before), options, context)
    })
}

/// Begins the migration, or goes on with it. Returns the v2 index up to which everything is carried.
fn begin(
    session: &Session<'_>,
    v2: &mut dyn V2,
    options: &CopyOptions,
    state: &state::Head,
    context: &Context<'_>,
) -> Result<u64> {
    let job = Job { source: v2.cluster()?, hidden_keys: v2.shows_hidden_keys(), ..options.job.clone() };
    if state.job.is_some() {
        state.require_own_switch(&options.keys)?;
    }
    state.require_no_undo()?;
    // What was undone has left its state there.
    if state.job.is_none()
        && state.progress.is_none()
        && let Some(key) = state::foreign(context.kv, &options.keys)?
    {
        let key = String::from_utf8_lossy(&key).into_owned();
        let message = format!("{key}: expected only keys of etcdlift below the state prefix, found this one");
        return Err(Error::new(Reason::StateDiffers, message).hint("give another --state-prefix"));
    }
    if state.job.is_none() && session.switch().on {
        let switch = String::from_utf8_lossy(&options.keys.switch);
        let message = format!("{switch}: the switch is on before the migration begins, so nothing would be copied");
        return Err(Error::new(Reason::StateDiffers, message)
            .hint("if a migration ended here, v2 keys that were deleted since would come back; otherwise give another --switch-key"));
    }
    let (since, copying) = match (&state.job, &state.progress) {
        (Some(known), _) if known.difference(&job).is_some() => {
            let difference = known.difference(&job).unwrap_or_default();
            let prefix = String::from_utf8_lossy(&options.keys.prefix).into_owned();
            let message = format!("{prefix}job: the state in v3 is that of a migration with {difference}");
            let message = message.replace(" with v2 cluster", " of v2 cluster");
            return Err(Error::new(Reason::StateDiffers, message)
                .hint("use the options of the first run, another --state-prefix with its own --switch-key, or `etcdlift online undo`"));
        }
        (Some(_), None) => {
            let message = "the migration has no progress: a `finish` did not end, and its markers are gone";
            return Err(Error::new(Reason::StateDiffers, message).hint("run `etcdlift online finish` again"));
        }
        (Some(_), Some((progress, _))) => (progress.v2_index, None),
        // It was undone: markers of then say what v3 leads.
        (None, Some((progress, _))) => {
            (progress.v2_index, Some(Progress { phase: Phase::Copying, ..progress.clone() }))
        }
        (None, None) => {
            let head = v2.head()?;
            (head.index.0, Some(Progress::now(Phase::Copying, head.index, head.raft)))
        }
    };
    if state.progress.is_some() {
        require_head(v2, since, context)?;
    }
    if let Some(copying) = copying {
        let keys = &options.keys;
        session.put(vec![put_json(keys.named("job"), &job)?, put_json(keys.named("progress"), &copying)?])?;
    }
    if session.switch().on {
        (context.tell)("the switch is on: changes of v2 are listed as conflicts, and not carried any more");
    }
    Ok(since)
}

/// Waits until the source has the index of v3, and refuses one that does not get there: the copy of its state would bring back
/// what v3 has replaced or deleted.
fn require_head(v2: &mut dyn V2, since: u64, context: &Context<'_>) -> Result<()> {
    let began = Instant::now();
    loop {
        let index = v2.head()?.index.0;
        if index >= since {
            return Ok(());
        }
        if began.elapsed() >= CATCH_UP {
            let message = format!("the source is at v2 index {index}, and v3 has everything up to index {since}");
            return Err(Error::new(Reason::StateDiffers, message).hint(
                "give a member that has caught up, not an older copy; for another cluster give another --state-prefix and --switch-key",
            ));
        }
        context.interrupt.ask()?;
        thread::sleep(Duration::from_millis(200));
    }
}

fn run(
    carrier: &Carrier<'_, '_>,
    names: &mut Names,
    source: &Receiver<Message>,
    (wishes, mut before): (&Wishes, Before),
    options: &CopyOptions,
    context: &Context<'_>,
) -> Result<Head> {
    let Counters { copying, head: newest, index, .. } = carrier.counters;
    loop {
        let since = before.since;
        copying.store(1, Ordering::Relaxed);
        let (kv, keys) = (context.kv, &options.keys);
        let mut owners = names.can_collide().then(|| Owners::load(kv, keys)).transpose()?;
        let head = reconcile(carrier, (names, &mut owners), source, before, options.pace, context.interrupt)?;
        newest.store(head.index.0, Ordering::Relaxed);
        let (once, tell, written) = (options.once, context.tell, (since, Instant::now()));
        let mut follower =
            Follower { carrier, names, owners: &mut owners, once, tell, head, written, told_of_clock: false };
        // Deletions that the copy of the state does not show.
        carrier.session.look_before_deletions(&[])?;
        follower.missed(source, since, context.interrupt)?;
        copying.store(0, Ordering::Relaxed);
        let result = follower.follow(source, context.interrupt);
        let reached = follower.written.0;
        before = Before { since: reached, followed: true };
        wishes.known.store(reached.0, Ordering::Relaxed);
        index.store(reached.0, Ordering::Relaxed);
        match result? {
            End::CaughtUp(head) => return Ok(head),
            End::Lost(why) => (context.tell)(&format!("the state of v2 is read again: {why}")),
        }
    }
}
