//! A v3 store in memory for tests, which can lose answers.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::txn::{Check, Got, Keep, Kv, Op, Pair, Reply, Scan, Txn};
use crate::error::{Error, Reason, Result};

/// The store.
#[derive(Debug, Default)]
pub struct Memory {
    inner: Mutex<Inner>,
    /// Every so many transactions are sent twice, as if the first answer was lost; 0: never.
    pub twice: AtomicU64,
    /// The number of transactions after which each fails; 0: never.
    pub dies_at: AtomicU64,
    count: AtomicU64,
}

#[derive(Debug)]
struct Inner {
    revision: i64,
    keys: BTreeMap<Vec<u8>, Pair>,
    leases: Vec<i64>,
}

impl Default for Inner {
    fn default() -> Inner {
        Inner { revision: 1, keys: BTreeMap::new(), leases: Vec::new() }
    }
}

impl Memory {
    /// Returns a pair.
    pub fn get(&self, key: &str) -> Option<Pair> {
        self.inner.lock().unwrap().keys.get(key.as_bytes()).cloned()
    }

    /// Returns the value of a key.
    pub fn value(&self, key: &str) -> Option<String> {
        self.get(key).map(|pair| String::from_utf8(pair.value).unwrap())
    }

    /// Returns all keys with a prefix.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let inner = self.inner.lock().unwrap();
        let keys = inner.keys.keys().filter(|key| key.starts_with(prefix.as_bytes()));
        keys.map(|key| String::from_utf8_lossy(key).into_owned()).collect()
    }

    /// Writes as another client.
    pub fn put(&self, key: &str, value: &str) {
        self.inner.lock().unwrap().run(&Txn::read(vec![Op::put(key, value)]));
    }

    /// Writes as a client of the protocol.
    pub fn put_moved(&self, key: &str, value: &str) {
        let marker = format!("etcdlift/online/moved/{key}");
        self.inner.lock().unwrap().run(&Txn::read(vec![Op::put(key, value), Op::put(marker, "")]));
    }

    /// Deletes as a client of the protocol.
    pub fn delete_moved(&self, key: &str) {
        let marker = format!("etcdlift/online/moved/{key}");
        self.inner.lock().unwrap().run(&Txn::read(vec![Op::Delete(key.into()), Op::put(marker, "")]));
    }

    /// Fails all requests after so many; 0: none.
    pub fn die_after(&self, requests: u64) {
        let now = self.count.load(Ordering::Relaxed);
        self.dies_at.store(if requests == 0 { 0 } else { now + requests }, Ordering::Relaxed);
    }

    /// Deletes as another client.
    pub fn delete(&self, key: &str) {
        self.inner.lock().unwrap().run(&Txn::read(vec![Op::Delete(key.into())]));
    }

    /// Ends a lease with its keys.
    pub fn expire(&self, lease: i64) {
        let mut inner = self.inner.lock().unwrap();
        inner.revision += 1;
        inner.leases.retain(|other| *other != lease);
        inner.keys.retain(|_, pair| pair.lease != lease);
    }
}

impl Inner {
    fn run(&mut self, txn: &Txn) -> Reply {
        let holds = txn.when.iter().all(|compare| {
            let pair = self.keys.get(&compare.key);
            match compare.check {
                Check::Created(revision) => pair.map_or(0, |pair| pair.created) == revision,
                Check::Modified(revision) => pair.map_or(0, |pair| pair.modified) == revision,
            }
        });
        let next = self.revision + 1;
        let mut wrote = false;
        let got = if holds { &txn.then } else { &txn.otherwise }.iter().map(|op| self.op(op, next, &mut wrote));
        let got = got.collect::<Vec<_>>();
        if wrote {
            self.revision = next;
        }
        Reply { succeeded: holds, revision: self.revision, got }
    }

    fn op(&mut self, op: &Op, next: i64, wrote: &mut bool) -> Got {
        let (Op::Put { key, .. } | Op::Delete(key) | Op::DeleteRange(key, _) | Op::Look(key) | Op::Get(key)) = op
        else {
            let Op::Scan(scan) = op else { unreachable!() };
            assert!(!scan.from.is_empty(), "key is not provided");
            return self.scan(scan);
        };
        assert!(!key.is_empty(), "key is not provided");
        match op {
            Op::Put { key, value, lease } => {
                *wrote = true;
                let created = self.keys.get(key).map_or(next, |pair| pair.created);
                assert!(self.keys.get(key).is_none_or(|pair| pair.modified < next), "a key twice in one transaction");
                let pair = Pair { key: key.clone(), value: value.clone(), created, modified: next, lease: *lease };
                self.keys.insert(key.clone(), pair);
                Got::default()
            }
            Op::Delete(key) => {
                *wrote |= self.keys.remove(key).is_some();
                Got::default()
            }
            Op::DeleteRange(from, to) => {
                let gone: Vec<_> = self.keys.range(from.clone()..to.clone()).map(|(key, _)| key.clone()).collect();
                *wrote |= !gone.is_empty();
                gone.iter().for_each(|key| drop(self.keys.remove(key)));
                Got::default()
            }
            Op::Look(key) => {
                let pairs = self.keys.get(key).map(|pair| Pair { value: Vec::new(), ..pair.clone() });
                Got { pairs: pairs.into_iter().collect(), more: false }
            }
            Op::Get(key) => Got { pairs: self.keys.get(key).cloned().into_iter().collect(), more: false },
            Op::Scan(_) => Got::default(),
        }
    }

    fn scan(&self, Scan { from, to, limit, values }: &Scan) -> Got {
        let limit = if *limit == 0 { usize::MAX } else { usize::try_from(*limit).unwrap() };
        let all = self.keys.range(from.clone()..).take_while(|(key, _)| *to == [0] || *key < to);
        let all: Vec<Pair> = all.map(|(_, pair)| pair.clone()).collect();
        let more = all.len() > limit;
        let value = |pair: Pair| if *values { pair } else { Pair { value: Vec::new(), ..pair } };
        Got { pairs: all.into_iter().take(limit).map(value).collect(), more }
    }
}

impl Kv for Memory {
    fn txn(&self, txn: &Txn) -> Result<Reply> {
        assert!(txn.when.len() <= 128 && txn.then.len() <= 128 && txn.otherwise.len() <= 128, "too many operations");
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let dies_at = self.dies_at.load(Ordering::Relaxed);
        if dies_at > 0 && count >= dies_at {
            return Err(Error::new(Reason::Unreachable, "dead"));
        }
        let mut inner = self.inner.lock().unwrap();
        let twice = self.twice.load(Ordering::Relaxed);
        if twice > 0 && count.is_multiple_of(twice) {
            inner.run(txn);
        }
        Ok(inner.run(txn))
    }

    fn grant(&self, _: i64) -> Result<i64> {
        let mut inner = self.inner.lock().unwrap();
        let lease = 1000 + inner.leases.len() as i64;
        inner.leases.push(lease);
        Ok(lease)
    }

    fn keep_alive(&self, lease: i64) -> Result<Keep> {
        let alive = self.inner.lock().unwrap().leases.contains(&lease);
        Ok(if alive { Keep::Alive } else { Keep::Gone })
    }

    fn revoke(&self, lease: i64) -> Result<()> {
        self.expire(lease);
        Ok(())
    }

    fn cluster(&self) -> Result<u64> {
        Ok(7)
    }
}
