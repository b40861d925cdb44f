//! When a cluster stopped answering: one line for the operator when it begins, and one when it is over. Must not know requests.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What requests say of a cluster; several threads send them.
#[derive(Debug, Default)]
pub struct Outage {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    began: Option<Instant>,
    /// When the last request was sent that had an answer.
    answered: Option<Instant>,
}

impl Outage {
    /// Returns whether any request had an answer.
    pub fn ever_answered(&self) -> bool {
        self.seen().answered.is_some()
    }

    /// Returns whether the cluster does not answer now.
    pub fn lasts(&self) -> bool {
        self.seen().began.is_some()
    }

    /// A request that was sent then failed. Returns whether an outage begins with it: a request that was sent later may have had
    /// an answer.
    pub fn failed(&self, sent: Instant) -> bool {
        let mut seen = self.seen();
        let begins = seen.began.is_none() && seen.answered.is_none_or(|answered| answered < sent);
        if begins {
            seen.began = Some(Instant::now());
        }
        begins
    }

    /// A request that was sent then had an answer. Returns how long the outage was that is over with it. An answer to a request
    /// from before does not end it.
    pub fn answered(&self, sent: Instant) -> Option<Duration> {
        let mut seen = self.seen();
        seen.answered = seen.answered.max(Some(sent));
        seen.began.take_if(|began| *began <= sent).map(|began| began.elapsed())
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_begins_once_and_ends_once() {
        let outage = Outage::default();
        let early = Instant::now();
        assert!(!outage.ever_answered() && outage.failed(early) && !outage.failed(early));
        assert_eq!(outage.answered(early), None, "it was sent before the outage");
        assert!(outage.lasts());
        let late = Instant::now();
        assert!(outage.answered(late).is_some() && outage.answered(late).is_none() && !outage.lasts());
        assert!(outage.ever_answered() && !outage.failed(early), "a later request had an answer");
        assert!(outage.failed(late + Duration::from_nanos(1)));
    }
}
