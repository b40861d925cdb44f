//! Looks for an order of all operations on a key that explains each answer: the search of Wing and Gong with the memory of
//! Lowe. The order keeps real time: an operation that ended before another began comes first.
//!
//! - A write without an answer may take effect at any time after its start, or never.
//! - A write that is listed as a conflict takes effect between its start and its end, or never.
//! - A value with a TTL may end at any time after the TTL; it ends once.
//! - A compare-and-swap of a client that follows the protocol reads v2 first and writes v3 then. A write of a v2-only
//!   client in between is lost, and listed. So a swap may also find its expected value below such writes.

use std::collections::HashSet;

use super::ops::{Kind, Micros, Op};

/// Positions of the search that are remembered at most.
const POSITIONS: usize = 2_000_000;

/// Whether there is an order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Order,
    None {
        /// The operations of which one must come next, where the search came farthest.
        stuck: Vec<Op>,
    },
    Undecided,
}

/// Looks for one.
pub(super) fn order(ops: &[Op], listed: &dyn Fn(&Op) -> bool) -> Verdict {
    let mut steps: Vec<Step> = ops.iter().enumerate().flat_map(|(at, op)| steps(at, op, listed(op))).collect();
    steps.sort_by_key(|step| (step.start, step.end));
    drop_unseen(&mut steps);
    let mut search =
        Search { done: vec![false; steps.len()], steps, state: vec![], seen: HashSet::new(), best: (0, vec![]) };
    match search.run() {
        true => Verdict::Order,
        false if search.seen.len() >= POSITIONS => Verdict::Undecided,
        false => Verdict::None { stuck: search.best.1.iter().map(|at| ops[*at].clone()).collect() },
    }
}

/// What a key has. `None` is a missing key.
type Has<'a> = Option<&'a str>;

/// What a key has, above what it had before hidden writes; with the step that wrote it. Empty: nothing yet.
type State<'a> = Vec<(Has<'a>, usize)>;

#[derive(Clone, Debug)]
struct Step<'a> {
    op: usize,
    effect: Effect<'a>,
    start: Micros,
    end: Micros,
    duty: Duty,
    /// A write to v2 that a swap may not have seen.
    hidden: bool,
}

#[derive(Clone, Debug)]
enum Effect<'a> {
    Read(Has<'a>),
    /// Writes; what it said was there before, if it said so.
    Write(Has<'a>, Option<Has<'a>>),
    Swap(Has<'a>, &'a str),
    Expire(&'a str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Duty {
    Must,
    /// Until its end.
    May,
    /// At any time.
    Free,
}

fn steps<'a>(at: usize, op: &'a Op, listed: bool) -> Vec<Step<'a>> {
    let previous = op.v2.as_ref().map(|v2| v2.previous.as_deref());
    let (effect, ttl) = match &op.kind {
        Kind::Read(value) => (Effect::Read(value.as_deref()), None),
        Kind::Put { value, ttl } => (Effect::Write(Some(value), previous), *ttl),
        Kind::Delete => (Effect::Write(None, previous), None),
        Kind::Swap { expected, value } if op.writes_v2() => {
            (Effect::Write(Some(value), Some(expected.as_deref())), None)
        }
        Kind::Swap { expected, value } => (Effect::Swap(expected.as_deref(), value), None),
    };
    let duty = match op.end {
        None => Duty::Free,
        Some(_) if listed => Duty::May,
        Some(_) => Duty::Must,
    };
    let hidden = op.writes_v2() && duty != Duty::Must;
    let (start, end) = (op.start, op.end.unwrap_or(Micros::MAX));
    let mut steps = vec![Step { op: at, effect, start, end, duty, hidden }];
    if let (Some(ttl), Some(value)) = (ttl, op.written()) {
        let (effect, start) = (Effect::Expire(value), op.start + ttl * 1_000_000);
        steps.push(Step { op: at, effect, start, end: Micros::MAX, duty: Duty::Free, hidden: op.writes_v2() });
    }
    steps
}

/// Drops writes that may not have happened and whose value nobody saw: an order with one is an order without it.
fn drop_unseen(steps: &mut Vec<Step>) {
    let mut seen = HashSet::new();
    for step in &*steps {
        match step.effect {
            Effect::Read(Some(value)) | Effect::Write(_, Some(Some(value))) | Effect::Swap(Some(value), _) => {
                seen.insert(value);
            }
            // It leads to a missing key, which somebody may see.
            Effect::Expire(value) => {
                seen.insert(value);
            }
            _ => {}
        }
    }
    steps.retain(|step| match step.effect {
        Effect::Write(Some(value), _) | Effect::Swap(_, value) => step.duty == Duty::Must || seen.contains(value),
        _ => true,
    });
}

struct Search<'a> {
    steps: Vec<Step<'a>>,
    done: Vec<bool>,
    state: State<'a>,
    seen: HashSet<(Vec<u64>, State<'a>)>,
    /// How far the search came, and the operations that were possible next.
    best: (usize, Vec<usize>),
}

impl<'a> Search<'a> {
    fn now(&self) -> Has<'a> {
        self.state.last().and_then(|(value, _)| *value)
    }

    /// Whether the rest can be ordered. Leaves everything as it was if not.
    fn run(&mut self) -> bool {
        let taken = self.take_reads();
        let (candidates, horizon) = self.candidates();
        if self.is_complete() {
            return true;
        }
        if self.seen.len() < POSITIONS && self.seen.insert((self.bits(), self.state.clone())) {
            self.note(&candidates);
            for at in candidates {
                if self.try_step(at, horizon) {
                    return true;
                }
            }
        }
        taken.into_iter().for_each(|at| self.done[at] = false);
        false
    }

    /// Takes every read that the state explains: no order is lost by that.
    fn take_reads(&mut self) -> Vec<usize> {
        let mut taken = Vec::new();
        loop {
            let now = self.now();
            let is_explained = |at: &usize| matches!(self.steps[*at].effect, Effect::Read(value) if value == now);
            let reads: Vec<usize> = self.candidates().0.into_iter().filter(is_explained).collect();
            if reads.is_empty() {
                return taken;
            }
            for at in reads {
                self.done[at] = true;
                taken.push(at);
            }
        }
    }

    fn try_step(&mut self, at: usize, horizon: Micros) -> bool {
        let (duty, end) = (self.steps[at].duty, self.steps[at].end);
        self.done[at] = true;
        if let Some(next) = self.after(at) {
            let before = std::mem::replace(&mut self.state, next);
            if self.run() {
                return true;
            }
            self.state = before;
        }
        // Never happened. As late as possible: it stands in the way of no other step before its end.
        if duty == Duty::May && end == horizon && self.run() {
            return true;
        }
        self.done[at] = false;
        false
    }

    /// The state after a step, if the step can come now.
    fn after(&self, at: usize) -> Option<State<'a>> {
        let step = &self.steps[at];
        let (possible, value) = match step.effect {
            Effect::Read(value) => return (value == self.now()).then(|| self.state.clone()),
            Effect::Write(value, previous) => (previous.is_none_or(|previous| previous == self.now()), value),
            Effect::Swap(expected, value) => (self.finds(step, expected), Some(value)),
            Effect::Expire(value) => (self.now() == Some(value), None),
        };
        possible.then(|| {
            let mut state = if step.hidden { self.state.clone() } else { vec![] };
            if step.hidden && state.is_empty() {
                state.push((None, usize::MAX));
            }
            state.push((value, at));
            state
        })
    }

    /// Whether a swap finds its value: now, or below hidden writes that ended after it had begun.
    fn finds(&self, swap: &Step, expected: Has) -> bool {
        if self.state.is_empty() {
            return expected.is_none();
        }
        for (value, writer) in self.state.iter().rev() {
            if *value == expected {
                return true;
            }
            let hidden = self.steps.get(*writer).is_some_and(|step| step.hidden && step.end >= swap.start);
            if !hidden {
                return false;
            }
        }
        false
    }

    /// The steps that may come next, and the end before which each has to begin.
    fn candidates(&self) -> (Vec<usize>, Micros) {
        let mut horizon = Micros::MAX;
        let mut found = Vec::new();
        for (at, step) in self.steps.iter().enumerate().filter(|(at, _)| !self.done[*at]) {
            if step.start > horizon {
                break;
            }
            horizon = horizon.min(step.end);
            found.push(at);
        }
        found.retain(|at| self.steps[*at].start <= horizon);
        found.sort_by_key(|at| (self.steps[*at].duty != Duty::Must, self.steps[*at].end));
        (found, horizon)
    }

    fn is_complete(&self) -> bool {
        self.steps.iter().zip(&self.done).all(|(step, done)| *done || step.duty != Duty::Must)
    }

    fn note(&mut self, candidates: &[usize]) {
        let count = self.done.iter().filter(|done| **done).count();
        if count >= self.best.0 {
            let must = candidates.iter().filter(|at| self.steps[**at].duty == Duty::Must);
            self.best = (count, must.map(|at| self.steps[*at].op).collect());
        }
    }

    fn bits(&self) -> Vec<u64> {
        let word = |bits: &[bool]| bits.iter().rev().fold(0, |word, bit| word << 1 | u64::from(*bit));
        self.done.chunks(64).map(word).collect()
    }
}
