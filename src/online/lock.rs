//! The lock: one command at a time writes the state of a migration.
//!
//! A key with a lease that is kept alive. Every transaction of the holder compares its create revision, so a holder that
//! lost the lock writes nothing. Must not know what is written.

use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Reason, Result};
use crate::interrupt::Interrupt;
use crate::online::state::{self, Keys, put_json};
use crate::online::v3::{Compare, Keep, Kv, Op, Pair, Txn};

/// The holder of a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The command.
    pub command: String,
    /// The name of its machine.
    pub host: String,
    /// Its process.
    pub pid: u32,
    /// When it started.
    pub started: String,
}

impl Holder {
    /// Reads the value of a lock; `None` if it has another form.
    pub fn of(value: &str) -> Option<Holder> {
        serde_json::from_str(value).ok()
    }
}

/// A lock that this process has.
pub struct Lock<'k> {
    kv: &'k dyn Kv,
    key: Vec<u8>,
    lease: i64,
    created: i64,
    seconds: i64,
    lost: AtomicBool,
    released: AtomicBool,
}

impl<'k> Lock<'k> {
    /// Takes the lock. A lock whose holder ended goes after its time, so this waits a little longer than that.
    ///
    /// # Errors
    /// [`Reason::JobRunning`] if another command has it; those of the store.
    pub fn take(
        kv: &'k dyn Kv,
        keys: &Keys,
        command: &str,
        seconds: i64,
        interrupt: Interrupt<'_>,
        tell: &(dyn Fn(&str) + Sync),
    ) -> Result<Lock<'k>> {
        let (key, lease) = (keys.named("lock"), kv.grant(seconds)?);
        let holder = Holder { command: command.into(), host: host(), pid: process::id(), started: state::now() };
        let Op::Put { value, .. } = put_json(key.clone(), &holder)? else {
            return Err(Error::new(Reason::Internal, "expected a write"));
        };
        let txn = Txn {
            when: vec![Compare::created(&key, 0)],
            then: vec![Op::Put { key: key.clone(), value, lease }],
            otherwise: vec![Op::Get(key.clone())],
        };
        let until = Instant::now() + Duration::from_secs(seconds.unsigned_abs() + 2);
        let mut told = false;
        loop {
            let reply = kv.txn(&txn)?;
            let pair = reply.at(0).one().filter(|_| !reply.succeeded);
            // A second run of the same transaction finds the lock of the first.
            let created = match pair {
                Some(pair) if pair.lease == lease => Some(pair.created),
                None if reply.succeeded => Some(reply.revision),
                _ => None,
            };
            if let Some(created) = created {
                let (lost, released) = (AtomicBool::new(false), AtomicBool::new(false));
                return Ok(Lock { kv, key, lease, created, seconds, lost, released });
            }
            if let Some(pair) = pair {
                if Instant::now() > until {
                    kv.revoke(lease)?;
                    return Err(running(pair));
                }
                if !std::mem::replace(&mut told, true) {
                    tell(&format!("waiting for the lock of {}", name(pair)));
                }
                kv.keep_alive(lease)?;
            }
            interrupt.ask()?;
            thread::sleep(Duration::from_millis(250));
        }
    }

    /// Returns the condition that the lock is still this one.
    pub fn compare(&self) -> Compare {
        Compare::created(&self.key, self.created)
    }

    /// Returns the key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Fails if a pair of the lock's key shows that the lock is lost.
    ///
    /// # Errors
    /// [`Reason::LockLost`].
    pub fn check_pair(&self, pair: Option<&Pair>) -> Result<()> {
        match pair {
            Some(pair) if pair.created == self.created => Ok(()),
            _ => Err(lost()),
        }
    }

    /// Fails if the lease is known to be gone.
    ///
    /// # Errors
    /// [`Reason::LockLost`].
    pub fn check(&self) -> Result<()> {
        if self.lost.load(Ordering::Relaxed) { Err(lost()) } else { Ok(()) }
    }

    /// Runs `work` while a thread keeps the lease alive, and releases the lock.
    ///
    /// # Errors
    /// That of `work`.
    pub fn hold<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let result = thread::scope(|scope| {
            scope.spawn(|| self.keep());
            let _ends = Ends(&self.released);
            work()
        });
        // The lock goes by itself if this fails.
        let _ = self.kv.revoke(self.lease);
        result
    }

    fn keep(&self) {
        let every = Duration::from_millis(self.seconds.unsigned_abs() * 1000 / 4);
        let mut due = Instant::now() + every;
        while !self.released.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(50));
            if Instant::now() < due {
                continue;
            }
            due = Instant::now() + every;
            match self.kv.keep_alive(self.lease) {
                Ok(Keep::Alive) => {}
                Ok(Keep::Gone) => return self.lost.store(true, Ordering::Relaxed),
                Err(_) => due = Instant::now() + Duration::from_millis(500),
            }
        }
    }
}

/// Ends the thread of a lock, also after a panic.
struct Ends<'l>(&'l AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Describes the holder of a lock from its value.
pub fn describe(value: &str) -> String {
    serde_json::from_str::<Holder>(value).map_or("another command".into(), |holder| {
        format!("`{}` on {}, process {}", holder.command, holder.host, holder.pid)
    })
}

fn name(pair: &Pair) -> String {
    describe(&String::from_utf8_lossy(&pair.value))
}

fn running(pair: &Pair) -> Error {
    Error::new(Reason::JobRunning, format!("{} has the lock of this migration", name(pair)))
        .hint("stop it first; another migration needs its own --state-prefix and --switch-key")
}

fn lost() -> Error {
    Error::new(Reason::LockLost, "the lock is lost: its lease expired or was revoked; nothing was written since")
        .hint("run the command again: it goes on where it was")
}

fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map_or("unknown".into(), |name| name.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::online::state::{STATE_PREFIX, SWITCH_KEY};
    use crate::online::v3::memory::Memory;

    #[test]
    fn one_holder_at_a_time() {
        let (store, keys) = (Memory::default(), Keys::new(STATE_PREFIX, SWITCH_KEY));
        let take = |seconds| Lock::take(&store, &keys, "copy", seconds, Interrupt::default(), &|_| {});
        let first = take(9).unwrap();
        let error = take(0).err().unwrap();
        assert_eq!(error.reason(), Reason::JobRunning);
        assert!(error.message().starts_with("`copy` on "), "{error}");
        assert!(first.check_pair(store.get("etcdlift/online/lock").as_ref()).is_ok());
        first.hold(|| Ok(())).unwrap();
        let second = take(9).unwrap();
        assert_eq!(
            first.check_pair(store.get("etcdlift/online/lock").as_ref()).unwrap_err().reason(),
            Reason::LockLost
        );
        assert!(second.check_pair(store.get("etcdlift/online/lock").as_ref()).is_ok());
    }

    #[test]
    fn a_lost_answer_does_not_lose_the_lock() {
        let (store, keys) = (Memory::default(), Keys::new(STATE_PREFIX, SWITCH_KEY));
        store.twice.store(1, Ordering::Relaxed);
        let lock = Lock::take(&store, &keys, "copy", 9, Interrupt::default(), &|_| {}).unwrap();
        assert!(lock.check_pair(store.get("etcdlift/online/lock").as_ref()).is_ok());
    }
}
