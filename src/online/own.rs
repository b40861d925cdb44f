//! The revisions of the job's own transactions, each with the v2 index as of which its values are right.
//!
//! Each transaction of the job writes a record key, so the mod revision of the record is the revision of the
//! transaction. Many records are folded into one key. Must not know what a transaction contains.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{Duration, Instant};

use crate::error::{Error, Reason, Result};
use crate::ids::V2Index;
use crate::online::state::Keys;
use crate::online::v3::{Kv, Op, Pair, Scan, scan};

/// Records that are folded at a time.
const FOLD: usize = 1024;

/// A younger record stays: its transaction could arrive a second time, and the record tells that it is the second.
const AGE: Duration = Duration::from_secs(60);

/// Revisions in one list: with 2 numbers of at most 20 digits each, a list has at most 688 KiB.
const LIST: usize = 1 << 14;

/// Number of revisions from which on those without a key are looked for.
const LONG: usize = if cfg!(test) { 1500 } else { 1 << 17 };

/// The revisions.
#[derive(Debug, Default)]
pub struct Own {
    revisions: BTreeMap<i64, u64>,
    /// Number of revisions that were left the last time.
    left: usize,
    /// Records by number: the revision, and when it was written.
    records: BTreeMap<u64, (i64, Instant)>,
    /// Numbers of transactions whose answer has not arrived.
    open: BTreeSet<u64>,
    next: u64,
}

/// A fold: its operations, and the numbers of its records.
#[derive(Debug)]
pub struct Fold {
    /// Writes the list, and deletes the records.
    pub operations: Vec<Op>,
    /// The records are before this number.
    before: u64,
}

impl Own {
    /// Reads the revisions from v3.
    ///
    /// # Errors
    /// [`Reason::StateDiffers`] for a record of another form; those of the store.
    pub fn load(kv: &dyn Kv, keys: &Keys) -> Result<Own> {
        let mut own = Own::default();
        let now = Instant::now();
        let (folded, records) = (keys.named("folded/"), keys.named("own/"));
        // Lists after records: a fold in between moves revisions from records to lists.
        scan(kv, Scan { values: true, ..Scan::prefix(&records) }, |pairs| {
            for pair in pairs {
                let number = number(pair, records.len())?;
                let as_of = text(pair)?.parse().map_err(|_| other_form(pair))?;
                own.revisions.insert(pair.modified, as_of);
                own.records.insert(number, (pair.modified, now));
                own.next = own.next.max(number + 1);
            }
            Ok(())
        })?;
        scan(kv, Scan { values: true, ..Scan::prefix(&folded) }, |pairs| {
            for pair in pairs {
                own.next = own.next.max(number(pair, folded.len())? + 1);
                for line in text(pair)?.lines() {
                    let (revision, as_of) = line.split_once(' ').ok_or_else(|| other_form(pair))?;
                    let parsed = revision.parse().ok().zip(as_of.parse().ok());
                    let (revision, as_of) = parsed.ok_or_else(|| other_form(pair))?;
                    own.revisions.insert(revision, as_of);
                }
            }
            Ok(())
        })?;
        Ok(own)
    }

    /// Returns the index as of which the values of a revision are right, if it is the job's own.
    pub fn as_of(&self, revision: i64) -> Option<V2Index> {
        self.revisions.get(&revision).map(|index| V2Index(*index))
    }

    /// Returns the number of revisions.
    pub fn len(&self) -> usize {
        self.revisions.len()
    }

    /// Returns the latest revision; 0 for none.
    pub fn latest(&self) -> i64 {
        self.revisions.last_key_value().map_or(0, |(revision, _)| *revision)
    }

    /// Returns whether the job has written nothing.
    pub fn is_empty(&self) -> bool {
        self.revisions.is_empty()
    }

    /// Gives a transaction its number.
    pub fn begin(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        self.open.insert(number);
        number
    }

    /// The transaction of this number has this revision; `None`: it was not run.
    pub fn end(&mut self, number: u64, written: Option<(i64, V2Index)>) {
        self.open.remove(&number);
        if let Some((revision, as_of)) = written {
            self.revisions.insert(revision, as_of.0);
            self.records.insert(number, (revision, Instant::now()));
        }
    }

    /// Returns the next fold, if there are enough old records.
    pub fn fold(&self, keys: &Keys) -> Option<Fold> {
        let bound = self.open.first().copied().unwrap_or(u64::MAX);
        let old = self.records.range(..bound).take_while(|(_, (_, at))| at.elapsed() >= AGE);
        let old: Vec<(u64, i64)> = old.map(|(number, (revision, _))| (*number, *revision)).take(LIST).collect();
        let ((first, _), (last, _)) = old.first().zip(old.last())?;
        if old.len() < FOLD {
            return None;
        }
        let list = self.list(old.iter().map(|(_, revision)| *revision));
        let operations =
            vec![Op::put(keys.folded(*last), list), Op::DeleteRange(keys.own(*first), keys.own(*last + 1))];
        Some(Fold { operations, before: *last + 1 })
    }

    /// The fold is written.
    pub fn folded(&mut self, fold: &Fold) {
        self.records = self.records.split_off(&fold.before);
    }

    /// Returns whether it is worth looking for revisions that no key has any more: there are twice as many as the last time.
    pub fn is_long(&self) -> bool {
        self.revisions.len() >= LONG.max(self.left.saturating_mul(2))
    }

    /// Returns the operations, in groups, that leave only the revisions of `live` in lists; later ones than `until`
    /// stay. Empty if this frees little.
    pub fn prune(&mut self, live: &HashSet<i64>, until: i64, keys: &Keys) -> Vec<Vec<Op>> {
        let recent: HashSet<i64> = self.records.values().map(|(revision, _)| *revision).collect();
        let stays = |revision: &i64| *revision > until || live.contains(revision) || recent.contains(revision);
        let dead = self.revisions.keys().filter(|revision| !stays(revision)).count();
        self.left = self.revisions.len();
        if dead < FOLD || dead * 2 < self.revisions.len() {
            return Vec::new();
        }
        self.revisions.retain(|revision, _| stays(revision));
        self.left = self.revisions.len();
        let listed: Vec<i64> = self.revisions.keys().copied().filter(|revision| !recent.contains(revision)).collect();
        // New lists have new numbers, so an interruption leaves too many lists, never too few.
        let first = self.next;
        let mut groups = Vec::new();
        for chunk in listed.chunks(LIST) {
            groups.push(vec![Op::put(keys.folded(self.next), self.list(chunk.iter().copied()))]);
            self.next += 1;
        }
        groups.push(vec![Op::DeleteRange(keys.folded(0), keys.folded(first))]);
        groups
    }

    /// Makes all records old enough to be folded.
    #[cfg(test)]
    pub(super) fn make_old(&mut self) {
        if let Some(past) = Instant::now().checked_sub(AGE) {
            self.records.values_mut().for_each(|(_, at)| *at = past);
        }
    }

    fn list(&self, revisions: impl Iterator<Item = i64>) -> Vec<u8> {
        let mut list = String::new();
        for revision in revisions {
            let as_of = self.revisions.get(&revision).copied().unwrap_or(0);
            list.push_str(&format!("{revision} {as_of}\n"));
        }
        list.into_bytes()
    }
}

fn number(pair: &Pair, prefix: usize) -> Result<u64> {
    let name = pair.key.get(prefix..).unwrap_or_default();
    let name = std::str::from_utf8(name).map_err(|_| other_form(pair))?;
    u64::from_str_radix(name, 16).map_err(|_| other_form(pair))
}

fn text(pair: &Pair) -> Result<&str> {
    std::str::from_utf8(&pair.value).map_err(|_| other_form(pair))
}

fn other_form(pair: &Pair) -> Error {
    let key = String::from_utf8_lossy(&pair.key);
    Error::new(Reason::StateDiffers, format!("{key}: expected a record of this version of etcdlift"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::online::state::{STATE_PREFIX, SWITCH_KEY};
    use crate::online::v3::Txn;
    use crate::online::v3::memory::Memory;

    fn old(own: &mut Own) {
        own.make_old();
    }

    #[test]
    fn records_are_folded_and_read_again() {
        let (store, keys) = (Memory::default(), Keys::new(STATE_PREFIX, SWITCH_KEY));
        let mut own = Own::default();
        for index in 0..1500 {
            let number = own.begin();
            let reply = store.txn(&Txn::read(vec![Op::put(keys.own(number), index.to_string())])).unwrap();
            own.end(number, Some((reply.revision, V2Index(index))));
        }
        assert!(own.fold(&keys).is_none(), "they are young");
        old(&mut own);
        let open = own.begin();
        let fold = own.fold(&keys).unwrap();
        store.txn(&Txn::read(fold.operations.clone())).unwrap();
        own.folded(&fold);
        own.end(open, None);
        assert!(own.fold(&keys).is_none() && store.keys("etcdlift/online/own/").is_empty());
        let again = Own::load(&store, &keys).unwrap();
        assert_eq!((&again.revisions, again.next), (&own.revisions, 1500));
        assert_eq!(again.len(), 1500);
    }

    #[test]
    fn dead_revisions_go() {
        let (store, keys) = (Memory::default(), Keys::new(STATE_PREFIX, SWITCH_KEY));
        let mut own = Own::default();
        for index in 0..5000 {
            let number = own.begin();
            own.end(number, Some((index + 2, V2Index(1))));
        }
        old(&mut own);
        let fold = own.fold(&keys).unwrap();
        store.txn(&Txn::read(fold.operations.clone())).unwrap();
        own.folded(&fold);
        let live: HashSet<i64> = (0..5000).step_by(10).map(|index| index + 2).collect();
        for operations in own.prune(&live, i64::MAX, &keys) {
            store.txn(&Txn::read(operations)).unwrap();
        }
        assert_eq!(own.revisions.keys().copied().collect::<HashSet<_>>(), live);
        assert_eq!(Own::load(&store, &keys).unwrap().revisions, own.revisions);
    }
}
