//! How far the clock of this machine is ahead of that of the v2 cluster: its leader writes its time into the log, twice a
//! second while there are keys with a TTL.
//!
//! Each entry is read some time after it was written. So the smallest of several differences counts, and differences that are
//! old do not. Must not know the log.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// The number of times of the leader that are compared.
const TIMES: usize = 8;

/// After so long, the leader has written other times.
const RECENT: Duration = Duration::from_secs(10);

/// The last times of the leader.
#[derive(Debug, Default)]
pub(super) struct Clock {
    last: Option<Timestamp>,
    /// When each was read, and the seconds by which the clock of this machine was ahead.
    seen: VecDeque<(Instant, i64)>,
}

impl Clock {
    /// Compares the last time of the leader with that of this machine, if it is a new one.
    pub(super) fn see(&mut self, leader: Option<Timestamp>, now: Timestamp) {
        let Some(at) = leader.filter(|_| leader != self.last) else { return };
        self.last = leader;
        if self.seen.len() == TIMES {
            self.seen.pop_front();
        }
        self.seen.push_back((Instant::now(), now.as_second() - at.as_second()));
    }

    /// Returns the seconds by which the clock of this machine is ahead; 0 if it is not, or if that is unknown.
    pub(super) fn seconds_ahead(&self) -> u64 {
        let is_recent = |(at, _): &&(Instant, i64)| at.elapsed() <= RECENT;
        let recent = self.seen.iter().filter(is_recent);
        if recent.clone().count() < TIMES {
            return 0;
        }
        recent.map(|(_, ahead)| *ahead).min().and_then(|ahead| u64::try_from(ahead).ok()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The clock after it saw these times of the leader at these times of this machine.
    fn seen(times: impl IntoIterator<Item = (i64, i64)>) -> u64 {
        let mut clock = Clock::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        times.into_iter().for_each(|(leader, now)| clock.see(Some(at(leader)), at(now)));
        clock.seconds_ahead()
    }

    #[test]
    fn the_smallest_of_several_differences_counts() {
        assert_eq!(seen((0..20).map(|n| (n, n + 30))), 30);
        // Entries of the past are read all at once; the last ones are of now.
        assert_eq!(seen((0..100).map(|n| (n, 100))), 1);
        assert_eq!(seen((0..20).map(|n| (n, n + if n == 18 { 1 } else { 30 }))), 1);
        assert_eq!(seen((0..20).map(|n| (n + 30, n))), 0, "it is slow");
        assert_eq!(seen((0..7).map(|n| (n, n + 30))), 0, "too few");
        assert_eq!(seen((0..20).map(|n| (7, n + 30))), 0, "always the same time");
    }
}
