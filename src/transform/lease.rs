//! TTLs as leases (docs/formats.md 9.4, 13.3): the remaining time of a key, and the lease with that length.
//!
//! Keys with the same number of remaining seconds share a lease, so keys that expire together in v2 expire together in
//! v3. Must not know which keys have a TTL. Knows expiries only relative to one instant.

use std::collections::HashSet;

use hashbrown::HashMap;
use jiff::Timestamp;

use crate::error::{Error, Reason, Result};
use crate::ids::LeaseId;

/// The shortest lease: with its default election timeout, etcd raises shorter ones to this.
pub const MIN_SECONDS: i64 = 2;
/// The longest lease that etcd grants.
pub const MAX_SECONDS: i64 = 9_000_000_000;

/// A lease by its position among the leases of a conversion; 0 means none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LeaseSlot(pub u32);

/// A lease to grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// The lease id.
    pub id: LeaseId,
    /// The length in seconds.
    pub seconds: i64,
}

/// The distinct lengths of leases, numbered in the order of their first use.
#[derive(Debug, Default)]
pub struct Slots {
    by_seconds: HashMap<i64, LeaseSlot>,
}

impl Slots {
    /// Returns the lease of this length; none for one longer than etcd grants.
    pub fn of_seconds(&mut self, seconds: i64) -> LeaseSlot {
        if seconds > MAX_SECONDS {
            return LeaseSlot(0);
        }
        // There are fewer lengths than keys, and fewer than 2^32 keys.
        let next = u32::try_from(self.by_seconds.len() + 1).unwrap_or(u32::MAX);
        *self.by_seconds.entry(seconds.max(MIN_SECONDS)).or_insert(LeaseSlot(next))
    }

    /// Removes the leases that none of these keys uses. No lease can be requested after that.
    pub fn retain(&mut self, used: impl Iterator<Item = LeaseSlot>) {
        let used: HashSet<LeaseSlot> = used.collect();
        self.by_seconds.retain(|_, slot| used.contains(slot));
    }

    /// Returns the slot of each lease by the id that [`Slots::allocate`] assigns.
    ///
    /// # Errors
    /// As [`Slots::allocate`].
    pub fn by_id(&self, in_use: &HashSet<LeaseId>) -> Result<HashMap<LeaseId, LeaseSlot>> {
        let (leases, places) = self.allocate(in_use)?;
        let slots = (0..).map(LeaseSlot).zip(places);
        let ids = slots.filter_map(|(slot, place)| {
            let lease = leases.get((place.0 as usize).checked_sub(1)?)?;
            Some((lease.id, slot))
        });
        Ok(ids.collect())
    }

    /// Returns the leases, shortest first, with ids from 1 that are not in use. Also returns the position among them,
    /// from 1, of each slot assigned so far.
    ///
    /// # Errors
    /// [`Reason::Internal`] if no id is free, which cannot happen: there are more ids than leases.
    pub fn allocate(&self, in_use: &HashSet<LeaseId>) -> Result<(Vec<Grant>, Vec<LeaseSlot>)> {
        let mut lengths: Vec<(i64, LeaseSlot)> =
            self.by_seconds.iter().map(|(seconds, slot)| (*seconds, *slot)).collect();
        lengths.sort_unstable();
        let highest = lengths.iter().map(|(_, slot)| slot.0).max().unwrap_or(0);
        let mut places = vec![LeaseSlot(0); highest as usize + 1];
        let mut leases = Vec::with_capacity(lengths.len());
        let mut free = (1..=i64::MAX).map(LeaseId).filter(|id| !in_use.contains(id));
        for (seconds, slot) in lengths {
            let id = free.next().ok_or_else(|| Error::new(Reason::Internal, "no lease id is left"))?;
            leases.push(Grant { id, seconds });
            if let Some(place) = places.get_mut(slot.0 as usize) {
                *place = LeaseSlot(u32::try_from(leases.len()).unwrap_or(0));
            }
        }
        Ok((leases, places))
    }
}

/// Returns the whole seconds from `as_of` to `expiry`, rounded up so that no key expires early.
pub fn seconds_left(expiry: Timestamp, as_of: Timestamp) -> i64 {
    let left = expiry.duration_since(as_of);
    left.as_secs().saturating_add(i64::from(left.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seconds_share_a_lease_and_ids_go_by_length() {
        let mut slots = Slots::default();
        let (long, short, early) = (slots.of_seconds(90), slots.of_seconds(60), slots.of_seconds(-5));
        assert_eq!((slots.of_seconds(60), slots.of_seconds(1)), (short, early));
        assert_eq!(slots.of_seconds(MAX_SECONDS + 1), LeaseSlot(0));
        let in_use = HashSet::from([LeaseId(2)]);
        let (leases, places) = slots.allocate(&in_use).unwrap();
        let found: Vec<_> = leases.iter().map(|lease| (lease.id.0, lease.seconds)).collect();
        assert_eq!(found, [(1, 2), (3, 60), (4, 90)]);
        let by_id = slots.by_id(&in_use).unwrap();
        assert_eq!(by_id, HashMap::from_iter([(LeaseId(1), early), (LeaseId(3), short), (LeaseId(4), long)]));
        let place = |slot: LeaseSlot| places[slot.0 as usize].0;
        assert_eq!((place(early), place(short), place(long), place(LeaseSlot(0))), (1, 2, 3, 0));
        slots.retain([long, LeaseSlot(0)].into_iter());
        let (leases, places) = slots.allocate(&in_use).unwrap();
        assert_eq!((leases.len(), leases[0].seconds, places[long.0 as usize].0), (1, 90, 1));
    }

    #[test]
    fn time_left_is_rounded_up() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let as_of = at("2020-01-01T00:00:00Z");
        for (expiry, left) in [
            ("2020-01-01T00:00:10Z", 10),
            ("2020-01-01T00:00:10.000000001Z", 11),
            ("2020-01-01T00:00:00.5Z", 1),
            ("2019-12-31T23:59:59.5Z", 0),
            ("2019-12-31T23:59:50Z", -10),
        ] {
            assert_eq!(seconds_left(at(expiry), as_of), left, "{expiry}");
        }
        let span = Timestamp::MAX.as_second() - Timestamp::MIN.as_second();
        assert_eq!(seconds_left(Timestamp::MAX, Timestamp::MIN), span + 1);
        assert_eq!(seconds_left(Timestamp::MIN, Timestamp::MAX), -span);
    }
}
