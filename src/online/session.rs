//! The writes of a lock holder: every transaction compares the lock and the switch, and writes a record.
//!
//! A transaction that was not run says what is different, so that the caller decides again. Must not know v2.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Reason, Result};
use crate::ids::V2Index;
use crate::interrupt::Interrupt;
use crate::online::decide::{Marker, Seen};
use crate::online::lock::Lock;
use crate::online::own::Own;
use crate::online::state::{Keys, Switch};
use crate::online::v3::{Compare, Kv, Op, Pair, Reply, Scan, Txn, scan};

/// Limits of a transaction.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Maximum number of comparisons or operations: the server's `--max-txn-ops`.
    pub operations: usize,
    /// Maximum size of a request in bytes: the server's `--max-request-bytes`.
    pub bytes: usize,
}

/// Comparisons of each transaction that are not of a key: the lock, the switch and the record; and one operation for the
/// progress.
const FIXED: usize = 4;

/// Bytes of a request that are not keys or values: names and numbers of the protocol, for each key.
const OVERHEAD: usize = 128;

/// A key in v3, as seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// What is there.
    pub seen: Seen,
    /// Its mod revision; 0 for nothing.
    pub revision: i64,
    /// Its lease; 0 for none.
    pub lease: i64,
    /// Its marker.
    pub marker: Marker,
}

impl State {
    /// Nothing, and no marker.
    pub const ABSENT: State = State { seen: Seen::Absent, revision: 0, lease: 0, marker: Marker::Absent };
}

/// What became of a transaction.
#[derive(Debug)]
pub enum Written {
    /// It was run, at this revision.
    Done(i64),
    /// It was not, because a key is in another state: the states of its keys.
    Differs(Vec<State>),
    /// It was not, because the switch is on.
    SwitchedOn,
}

/// The holder of a lock, and what it knows.
pub struct Session<'k> {
    /// The store.
    pub kv: &'k dyn Kv,
    /// The names of the state.
    pub keys: Keys,
    /// The limits.
    pub limits: Limits,
    lock: &'k Lock<'k>,
    own: Mutex<Own>,
    switch: Mutex<Switch>,
}

impl<'k> Session<'k> {
    /// Begins to write.
    ///
    /// # Errors
    /// Those of the store.
    pub fn begin(
        kv: &'k dyn Kv,
        keys: &Keys,
        limits: Limits,
        lock: &'k Lock<'k>,
        switch: Switch,
    ) -> Result<Session<'k>> {
        let own = Mutex::new(Own::load(kv, keys)?);
        Ok(Session { kv, keys: keys.clone(), limits, lock, own, switch: Mutex::new(switch) })
    }

    /// Returns the job's own revisions.
    pub fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the switch as last seen.
    pub fn switch(&self) -> Switch {
        *self.switch_mut()
    }

    /// Fails if the lock is known to be lost.
    ///
    /// # Errors
    /// [`Reason::LockLost`].
    pub fn check(&self) -> Result<()> {
        self.lock.check()
    }

    /// Returns the number of keys that one transaction can have.
    pub fn keys_at_once(&self) -> usize {
        (self.limits.operations.saturating_sub(FIXED) / 2).max(1)
    }

    /// Returns the size of a key in a request, with its marker, comparisons and reads.
    pub fn size_of(&self, key: &[u8], value: usize) -> usize {
        value + 6 * key.len() + 3 * self.keys.prefix.len() + OVERHEAD
    }

    /// Reads the states of keys.
    ///
    /// # Errors
    /// Those of the store.
    pub fn look(&self, keys: &[&[u8]]) -> Result<Vec<State>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut operations = Vec::new();
        self.looks(keys, &mut operations);
        let reply = self.kv.txn(&Txn::read(operations))?;
        Ok(self.states(&reply, 0, keys.len()))
    }

    /// Says that keys of the job may go from now on, and reads the states of keys.
    ///
    /// A compare-and-swap that is run after this, and read before it, fails. One that was run before this has put a marker, which these
    /// states have. So no change of v2 passes between the read and the write of a swap without a trace.
    ///
    /// # Errors
    /// [`Reason::LockLost`]; those of the store.
    pub fn look_before_deletions(&self, keys: &[&[u8]]) -> Result<Vec<State>> {
        let mut then = vec![Op::put(self.keys.deleted(), "")];
        self.looks(keys, &mut then);
        let otherwise = vec![Op::Look(self.lock.key().to_vec())];
        let reply = self.kv.txn(&Txn { when: vec![self.lock.compare()], then, otherwise })?;
        if !reply.succeeded {
            self.lock.check_pair(reply.at(0).one())?;
            return Err(Error::new(Reason::Internal, "a transaction was refused without a difference"));
        }
        Ok(self.states(&reply, 1, keys.len()))
    }

    /// Runs `then` if each of `keys` is in the state that it has here, and the switch is as it was when that was decided
    /// (`planned`) or still off. Values are right as of `as_of`.
    ///
    /// # Errors
    /// [`Reason::LockLost`]; those of the store.
    pub fn write(&self, planned: Switch, as_of: V2Index, keys: &[(&[u8], State)], then: Vec<Op>) -> Result<Written> {
        let number = self.own().begin();
        let result = self.write_numbered(number, (planned, as_of), keys, then);
        let written = match &result {
            Ok(Written::Done(revision)) => Some((*revision, as_of)),
            _ => None,
        };
        self.own().end(number, written);
        result
    }

    fn write_numbered(
        &self,
        number: u64,
        (planned, as_of): (Switch, V2Index),
        keys: &[(&[u8], State)],
        mut then: Vec<Op>,
    ) -> Result<Written> {
        let mut switch = planned;
        let record = self.keys.own(number);
        then.push(Op::put(record.clone(), as_of.to_string()));
        loop {
            let mut when = vec![
                self.lock.compare(),
                Compare::modified(&self.keys.switch, switch.modified),
                Compare::created(&record, 0),
            ];
            for (key, state) in keys {
                when.push(Compare::modified(key, state.revision));
                when.push(Compare::created(&self.keys.moved(key), 0));
            }
            let mut otherwise =
                vec![Op::Look(self.lock.key().to_vec()), Op::Get(self.keys.switch.clone()), Op::Look(record.clone())];
            let looked: Vec<&[u8]> = keys.iter().map(|(key, _)| *key).collect();
            self.looks(&looked, &mut otherwise);
            let fixed = otherwise.len() - 2 * keys.len();
            let txn = Txn { when, then, otherwise };
            let reply = self.kv.txn(&txn)?;
            if reply.succeeded {
                return Ok(Written::Done(reply.revision));
            }
            // It was run, and its answer was lost.
            if let Some(record) = reply.at(2).one() {
                return Ok(Written::Done(record.modified));
            }
            self.lock.check_pair(reply.at(0).one())?;
            let now = Switch::of(reply.at(1).one());
            *self.switch_mut() = now;
            if now.on && !switch.on {
                return Ok(Written::SwitchedOn);
            }
            let states = self.states(&reply, fixed, keys.len());
            let same = keys.iter().zip(&states).all(|((_, was), is)| was.revision == is.revision && !is.is_moved());
            if !same {
                return Ok(Written::Differs(states));
            }
            if now == switch {
                return Err(Error::new(Reason::Internal, "a transaction was refused without a difference"));
            }
            switch = now;
            then = txn.then;
        }
    }

    /// Writes what concerns no v2 key: compares the lock alone.
    ///
    /// # Errors
    /// [`Reason::LockLost`]; those of the store.
    pub fn put(&self, then: Vec<Op>) -> Result<()> {
        self.put_if(Vec::new(), then).map(drop)
    }

    /// Does the same as [`Session::put`] if more comparisons hold. Returns whether they did. Such a write must be harmless if
    /// it runs twice.
    ///
    /// # Errors
    /// [`Reason::LockLost`]; those of the store.
    pub fn put_if(&self, mut when: Vec<Compare>, then: Vec<Op>) -> Result<bool> {
        when.push(self.lock.compare());
        let otherwise = vec![Op::Look(self.lock.key().to_vec())];
        let reply = self.kv.txn(&Txn { when, then, otherwise })?;
        if !reply.succeeded {
            self.lock.check_pair(reply.at(0).one())?;
        }
        Ok(reply.succeeded)
    }

    /// Folds records if there are many.
    ///
    /// # Errors
    /// As [`Session::put`].
    pub fn fold(&self) -> Result<()> {
        let Some(fold) = self.own().fold(&self.keys) else { return Ok(()) };
        self.put(fold.operations.clone())?;
        self.own().folded(&fold);
        Ok(())
    }

    /// Forgets revisions that no key has any more, if there are many. Nobody else may write as the job meanwhile.
    ///
    /// # Errors
    /// As [`Session::put`]; an interruption.
    pub fn forget(&self, interrupt: Interrupt<'_>) -> Result<()> {
        let until = self.own().latest();
        if !self.own().is_long() {
            return Ok(());
        }
        let mut live = HashSet::new();
        scan(self.kv, Scan::prefix(b""), |pairs| {
            interrupt.ask()?;
            self.check()?;
            let own = self.own();
            live.extend(pairs.iter().map(|pair| pair.modified).filter(|revision| own.as_of(*revision).is_some()));
            Ok(())
        })?;
        let groups = self.own().prune(&live, until, &self.keys);
        groups.into_iter().try_for_each(|operations| self.put(operations))
    }

    fn looks(&self, keys: &[&[u8]], operations: &mut Vec<Op>) {
        for key in keys {
            operations.push(Op::Look(key.to_vec()));
            operations.push(Op::Get(self.keys.moved(key)));
        }
    }

    fn states(&self, reply: &Reply, from: usize, count: usize) -> Vec<State> {
        let own = self.own();
        let state = |at: usize| state_of(&own, reply.at(from + 2 * at).one(), reply.at(from + 2 * at + 1).one());
        (0..count).map(state).collect()
    }

    fn switch_mut(&self) -> MutexGuard<'_, Switch> {
        self.switch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Returns whether the key has a marker.
    pub fn is_moved(&self) -> bool {
        self.marker != Marker::Absent
    }
}

/// Returns the state of a key from its pair and its marker.
pub fn state_of(own: &Own, pair: Option<&Pair>, marker: Option<&Pair>) -> State {
    let seen = match pair {
        None => Seen::Absent,
        Some(pair) => own.as_of(pair.modified).map_or(Seen::Foreign, Seen::Own),
    };
    let read = |pair: &Pair| std::str::from_utf8(&pair.value).ok()?.trim().parse().ok().map(V2Index);
    let marker = marker.map_or(Marker::Absent, |pair| Marker::Present(read(pair)));
    let (revision, lease) = pair.map_or((0, 0), |pair| (pair.modified, pair.lease));
    State { seen, revision, lease, marker }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::online::state::{STATE_PREFIX, SWITCH_KEY};
    use crate::online::v3::memory::Memory;

    #[test]
    fn revisions_without_a_key_are_forgotten_and_the_others_stay() {
        let (store, keys) = (Memory::default(), Keys::new(STATE_PREFIX, SWITCH_KEY));
        let lock = Lock::take(&store, &keys, "copy", 60, Interrupt::default(), &|_| {}).unwrap();
        let limits = Limits { operations: 128, bytes: 1 << 20 };
        let session = Session::begin(&store, &keys, limits, &lock, Switch::default()).unwrap();
        let put = |key: &[u8], index| {
            let state = session.look(&[key]).unwrap()[0];
            let written =
                session.write(Switch::default(), V2Index(index), &[(key, state)], vec![Op::put(key.to_vec(), "x")]);
            let written = written.unwrap();
            assert!(matches!(written, Written::Done(_)), "{written:?}");
        };
        put(b"/once", 1);
        (2..2000).for_each(|index| put(b"/often", index));
        session.own().make_old();
        session.fold().unwrap();
        let before = session.own().len();
        session.forget(Interrupt::default()).unwrap();
        assert_eq!((before, session.own().len()), (1999, 2));
        let again = Session::begin(&store, &keys, limits, &lock, Switch::default()).unwrap();
        let seen: Vec<Seen> = again.look(&[b"/once", b"/often"]).unwrap().iter().map(|state| state.seen).collect();
        assert_eq!(seen, [Seen::Own(V2Index(1)), Seen::Own(V2Index(1999))]);
        assert!(!again.own().is_long());
        put(b"/often", 2000);
    }
}
