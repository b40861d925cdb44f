//! Carries keys of v2 into v3: reads what v3 has, decides by the table, and writes in one transaction; again if somebody
//! was faster. Must not know where the keys come from.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use crate::error::{Error, Reason, Result};
use crate::ids::V2Index;
use crate::online::decide::{Decision, Seen, Wanted, decide};
use crate::online::names::shown;
use crate::online::session::{Session, State, Written};
use crate::online::state::{Conflict, Why, now, put_json};
use crate::online::v3::{Op, Txn};
use crate::transform::lease::MIN_SECONDS;

/// Times that one transaction is decided anew. Each time, somebody else has written one of its keys.
const TRIES: usize = 1000;

/// A key to carry.
#[derive(Debug, Clone)]
pub struct Item {
    /// The v2 path.
    pub path: Vec<u8>,
    /// The v3 key.
    pub key: Vec<u8>,
    /// What v2 has; `None`: nothing.
    pub value: Option<Value>,
    /// The index of the change, and its word.
    pub at: (V2Index, &'static str),
    /// Earlier changes of the same key that this one replaces.
    pub earlier: Vec<(V2Index, &'static str)>,
    /// Whether it was changed while the migration ran.
    pub change: bool,
    /// Whether its value replaces one of the job that is right as of a later index, because that is the value of another v2 key.
    pub anyway: bool,
}

/// A value to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The second since 1970 in which its lease ends.
    pub ends: Option<i64>,
}

impl Item {
    /// A path that went; it has no v3 key yet.
    pub fn gone(path: Vec<u8>, at: (V2Index, &'static str)) -> Item {
        Item { path, key: Vec::new(), value: None, at, earlier: Vec::new(), change: true, anyway: false }
    }

    /// Returns whether the key goes from v3, or can go when its lease ends.
    pub fn can_go(&self) -> bool {
        self.value.as_ref().is_none_or(|value| value.ends.is_some())
    }
}

/// What was carried so far.
#[derive(Debug, Default)]
pub struct Counters {
    /// Keys and changes that came from v2.
    pub seen: AtomicU64,
    /// Of these, left out by rules and policies.
    pub left_out: AtomicU64,
    /// Keys that were written.
    pub put: AtomicU64,
    /// Keys that were deleted.
    pub deleted: AtomicU64,
    /// Keys that v3 had already, or leads.
    pub equal: AtomicU64,
    /// Conflicts that were listed.
    pub conflicts: AtomicU64,
    /// Bytes of the values that were written.
    pub bytes: AtomicU64,
    /// The v2 index up to which everything is carried.
    pub index: AtomicU64,
    /// The v2 index of the source.
    pub head: AtomicU64,
    /// Whether the state is copied, and changes wait.
    pub copying: AtomicU64,
}

/// Carries items within a session.
pub struct Carrier<'s, 'k> {
    /// The session.
    pub session: &'s Session<'k>,
    /// What was carried.
    pub counters: &'s Counters,
    /// Leases by the second in which they end.
    leases: Mutex<HashMap<i64, i64>>,
}

/// The writes that a table of decisions comes to.
#[derive(Default)]
struct Plan {
    /// Positions of the items that are compared.
    compared: Vec<usize>,
    operations: Vec<Op>,
    put: u64,
    bytes: u64,
    deleted: u64,
    equal: u64,
    conflicts: u64,
}

impl<'s, 'k> Carrier<'s, 'k> {
    /// Creates a carrier.
    pub fn new(session: &'s Session<'k>, counters: &'s Counters) -> Carrier<'s, 'k> {
        Carrier { session, counters, leases: Mutex::default() }
    }

    /// Carries items with different keys, at most as many as fit into one transaction. `progress` is written in the same
    /// transaction, or alone if nothing else is written.
    ///
    /// # Errors
    /// [`Reason::LockLost`]; those of the store.
    pub fn carry(&self, items: &[Item], states: Vec<State>, as_of: V2Index, progress: Option<&Op>) -> Result<()> {
        match self.try_carry(items, states, as_of, progress) {
            Err(error) if error.reason() == Reason::RequestTooLarge => match items {
                [] => Err(error),
                [one] => self.too_large(one, progress),
                _ => {
                    let (first, second) = items.split_at(items.len() / 2);
                    self.carry(first, self.look(first)?, as_of, None)?;
                    self.carry(second, self.look(second)?, as_of, progress)
                }
            },
            other => other,
        }
    }

    /// Reads the states of items that will be carried.
    ///
    /// # Errors
    /// [`Reason::LockLost`]; those of the store.
    pub fn look(&self, items: &[Item]) -> Result<Vec<State>> {
        let keys: Vec<&[u8]> = items.iter().map(|item| &*item.key).collect();
        if items.iter().any(Item::can_go) {
            self.session.look_before_deletions(&keys)
        } else {
            self.session.look(&keys)
        }
    }

    /// Lists all changes of items as conflicts.
    ///
    /// # Errors
    /// [`Reason::LockLost`]; those of the store.
    pub fn refuse(&self, items: &[Item], why: Why, progress: Option<&Op>) -> Result<()> {
        let mut operations = Vec::new();
        let mut found = 0;
        for item in items {
            found += self.conflict(item, why, 0, &mut operations)?;
        }
        operations.extend(progress.cloned());
        let room = self.session.limits.operations.saturating_sub(2).max(1);
        operations.chunks(room).try_for_each(|chunk| self.session.put(chunk.to_vec()))?;
        self.counters.conflicts.fetch_add(found, Ordering::Relaxed);
        Ok(())
    }

    fn try_carry(&self, items: &[Item], mut states: Vec<State>, as_of: V2Index, progress: Option<&Op>) -> Result<()> {
        let mut leases_gone = 0;
        for _ in 0..TRIES {
            let switch = self.session.switch();
            if switch.on {
                let changes: Vec<Item> = items.iter().filter(|item| item.change).cloned().collect();
                return self.refuse(&changes, Why::AfterSwitch, progress);
            }
            let mut plan = self.plan(items, &states)?;
            if plan.operations.is_empty() {
                self.count(&plan);
                return progress.map_or(Ok(()), |op| self.session.put(vec![op.clone()]));
            }
            plan.operations.extend(progress.cloned());
            let compared: Vec<(&[u8], State)> =
                plan.compared.iter().filter_map(|at| pair(items, &states, *at)).collect();
            match self.session.write(switch, as_of, &compared, std::mem::take(&mut plan.operations)) {
                Ok(Written::Done(_)) => {
                    self.count(&plan);
                    return Ok(());
                }
                Ok(Written::Differs(now)) => {
                    for (at, now) in plan.compared.iter().zip(now) {
                        if let Some(state) = states.get_mut(*at) {
                            *state = now;
                        }
                    }
                }
                Ok(Written::SwitchedOn) => {}
                Err(error) if error.reason() == Reason::LeaseGone && leases_gone < 10 => {
                    leases_gone += 1;
                    self.leases.lock().unwrap_or_else(PoisonError::into_inner).clear();
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(Reason::V3Failed, "other clients write the same keys again and again"))
    }

    fn plan(&self, items: &[Item], states: &[State]) -> Result<Plan> {
        let mut plan = Plan::default();
        for (at, (item, state)) in items.iter().zip(states).enumerate() {
            let wanted = Wanted { index: item.at.0, value: item.value.is_some(), change: item.change };
            let decision = decide(state.seen, state.marker, wanted);
            // The TTL of a directory changes without the index of the keys below it, and a TTL can be refreshed while no job runs.
            let expires = state.lease != 0 || item.value.as_ref().is_some_and(|value| value.ends.is_some());
            let is_replica = matches!(state.seen, Seen::Own(_)) && !state.is_moved();
            let decision = match decision {
                Decision::Nothing if is_replica && item.value.is_some() && (item.anyway || expires && !item.change) => {
                    Decision::Put
                }
                other => other,
            };
            match (decision, &item.value) {
                (Decision::Put, Some(value)) => {
                    let lease = value.ends.map_or(Ok(0), |ends| self.lease(ends))?;
                    plan.put += 1;
                    plan.bytes += value.bytes.len() as u64;
                    plan.compared.push(at);
                    plan.operations.push(Op::Put { key: item.key.clone(), value: value.bytes.clone(), lease });
                }
                (Decision::Delete, _) => {
                    plan.deleted += 1;
                    plan.compared.push(at);
                    plan.operations.push(Op::Delete(item.key.clone()));
                }
                (Decision::Nothing | Decision::Put, _) => plan.equal += 1,
                (Decision::Conflict(why), _) => {
                    plan.conflicts += self.conflict(item, why, state.revision, &mut plan.operations)?;
                }
                (Decision::Mark { unless_equal }, _) => {
                    plan.compared.push(at);
                    plan.operations.push(Op::put(self.session.keys.moved(&item.key), ""));
                    if unless_equal && self.is_equal(item)? {
                        plan.equal += 1;
                    } else {
                        plan.conflicts += self.conflict(item, Why::Foreign, state.revision, &mut plan.operations)?;
                    }
                }
            }
        }
        Ok(plan)
    }

    /// Adds the conflicts of an item. Returns their number.
    fn conflict(&self, item: &Item, why: Why, revision: i64, operations: &mut Vec<Op>) -> Result<u64> {
        // The keys below several directories with a TTL can be passed more than once with one index.
        let mut all: Vec<_> = item.earlier.iter().chain([&item.at]).collect();
        all.dedup_by_key(|(index, _)| *index);
        // One transaction has room for two operations of each key. Earlier changes of a key that conflicts are rare.
        let (mut extra, mut count) = (Vec::new(), 0);
        for (index, action) in all {
            let conflict = Conflict {
                why,
                index: index.0,
                action: (*action).into(),
                key: shown(&item.path).into_owned(),
                v3_key: shown(&item.key).into_owned(),
                v3_revision: Some(revision).filter(|revision| *revision > 0),
                time: now(),
            };
            extra.push(put_json(self.session.keys.conflict(*index, &item.path), &conflict)?);
            count += 1;
        }
        operations.extend(extra.pop());
        for chunk in extra.chunks(self.session.keys_at_once()) {
            self.session.put(chunk.to_vec())?;
        }
        Ok(count)
    }

    fn too_large(&self, item: &Item, progress: Option<&Op>) -> Result<()> {
        if item.value.is_none() {
            return Err(Error::new(Reason::RequestTooLarge, "the cluster refuses the smallest request as too large"));
        }
        self.refuse(std::slice::from_ref(item), Why::TooLarge, progress)
    }

    /// Returns whether v3 has the value of an item.
    fn is_equal(&self, item: &Item) -> Result<bool> {
        let reply = self.session.kv.txn(&Txn::read(vec![Op::Get(item.key.clone())]))?;
        let here = item.value.as_ref().map(|value| &value.bytes);
        Ok(reply.at(0).one().map(|pair| &pair.value) == here)
    }

    /// Returns a lease that ends in this second.
    fn lease(&self, ends: i64) -> Result<i64> {
        let now = Timestamp::now().as_second();
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lease) = leases.get(&ends) {
            return Ok(*lease);
        }
        leases.retain(|ends, _| *ends > now);
        let lease = self.session.kv.grant(ends.saturating_sub(now).max(MIN_SECONDS))?;
        leases.insert(ends, lease);
        Ok(lease)
    }

    fn count(&self, plan: &Plan) {
        let Counters { put, deleted, equal, conflicts, bytes, .. } = self.counters;
        for (counter, by) in [
            (put, plan.put),
            (deleted, plan.deleted),
            (equal, plan.equal),
            (conflicts, plan.conflicts),
            (bytes, plan.bytes),
        ] {
            counter.fetch_add(by, Ordering::Relaxed);
        }
    }
}

fn pair<'i>(items: &'i [Item], states: &[State], at: usize) -> Option<(&'i [u8], State)> {
    Some((&items.get(at)?.key, *states.get(at)?))
}
