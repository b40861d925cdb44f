//! Which v2 key has a v3 name, where rules can give one name to several keys. The first one has it; the others wait until it goes.
//!
//! Holds hashes of 128 bits, and the values of the keys that wait. Must not know how keys are written.

use std::collections::{BTreeMap, HashMap};

use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::online::carry::Item;
use crate::online::state::Keys;
use crate::online::v3::{Kv, Op, Scan, scan};

/// The owners of names.
#[derive(Debug, Default)]
pub struct Owners {
    /// Hashes of v2 paths, by those of their v3 names.
    owners: HashMap<u128, u128>,
    /// The same as v3 has it, of names that several keys wanted. Until all keys were seen.
    earlier: HashMap<u128, u128>,
    /// The keys that wait, by name and path.
    waiting: BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Item>>,
}

/// Whether a key of the state has its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It has.
    Own,
    /// Another key had it in an earlier run, and may still come.
    Later,
    /// Another key has it.
    Taken,
}

/// What a key leaves that goes.
#[derive(Debug)]
pub enum Released {
    /// Its name, and the next key that gets it.
    Name(Option<Box<Item>>),
    /// Nothing: another key has the name.
    Nothing,
}

impl Owners {
    /// Reads the owners of names that several keys wanted.
    ///
    /// # Errors
    /// Those of the store.
    pub fn load(kv: &dyn Kv, keys: &Keys) -> Result<Owners> {
        let mut owners = Owners::default();
        let prefix = keys.owner(b"");
        scan(kv, Scan { values: true, ..Scan::prefix(&prefix) }, |pairs| {
            for pair in pairs {
                let name = pair.key.get(prefix.len()..).unwrap_or_default();
                let owner = std::str::from_utf8(&pair.value).ok().and_then(|hex| u128::from_str_radix(hex, 16).ok());
                owners.earlier.extend(owner.map(|owner| (hash(name), owner)));
            }
            Ok(())
        })?;
        Ok(owners)
    }

    /// Places a key of the state, if nobody else has its name, or had it before.
    pub fn place(&mut self, item: &Item) -> Place {
        let (name, path) = (hash(&item.key), hash(&item.path));
        let is_other = |owner: &u128| *owner != path;
        if !self.owners.contains_key(&name) && self.earlier.get(&name).is_some_and(is_other) {
            return Place::Later;
        }
        if self.claim(item) { Place::Own } else { Place::Taken }
    }

    /// All keys of the state were placed, except those for later.
    pub fn all_seen(&mut self) {
        self.earlier = HashMap::new();
    }

    /// Returns whether a key has its name, and gives it a free one.
    pub fn claim(&mut self, item: &Item) -> bool {
        let path = hash(&item.path);
        *self.owners.entry(hash(&item.key)).or_insert(path) == path
    }

    /// Lets a key wait for its name.
    pub fn wait(&mut self, item: Item) {
        self.waiting.entry(item.key.clone()).or_default().insert(item.path.clone(), item);
    }

    /// A key has no value any more. The next one has its name then.
    pub fn release(&mut self, item: &Item) -> Released {
        let name = hash(&item.key);
        let is_owner = self.owners.get(&name).is_none_or(|owner| *owner == hash(&item.path));
        let mut next = None;
        if let Some(waiting) = self.waiting.get_mut(&item.key) {
            match is_owner {
                true => next = waiting.pop_first(),
                false => drop(waiting.remove(&item.path)),
            }
            if waiting.is_empty() {
                self.waiting.remove(&item.key);
            }
        }
        if !is_owner {
            return Released::Nothing;
        }
        self.owners.remove(&name);
        Released::Name(next.map(|(path, next)| {
            self.owners.insert(name, hash(&path));
            Box::new(next)
        }))
    }

    /// Returns the operation that records the owner of a name.
    pub fn record(&self, keys: &Keys, name: &[u8]) -> Op {
        let owner = self.owners.get(&hash(name)).copied().unwrap_or_default();
        Op::put(keys.owner(name), format!("{owner:032x}"))
    }

    /// Returns whether a key has this name.
    pub fn has(&self, name: &[u8]) -> bool {
        self.owners.contains_key(&hash(name))
    }
}

/// Returns 128 bits of a hash.
pub fn hash(bytes: &[u8]) -> u128 {
    let digest = Sha256::digest(bytes);
    digest.iter().take(16).fold(0, |all, byte| all << 8 | u128::from(*byte))
}
