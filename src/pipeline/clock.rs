//! The time that a stage takes: elapsed time, and CPU time of the process.
//!
//! Must not know the stages.

use std::ops::Add;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// The time that a part of a run took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Spent {
    /// Elapsed time.
    pub(super) wall: Duration,
    /// CPU time of all threads of the process, in user and in kernel mode.
    pub(super) cpu: Duration,
}

impl Add for Spent {
    type Output = Spent;

    fn add(self, other: Spent) -> Spent {
        Spent { wall: self.wall + other.wall, cpu: self.cpu + other.cpu }
    }
}

/// The beginning of a part of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun {
    at: Instant,
    cpu: Duration,
}

impl Begun {
    /// Begins now.
    pub(super) fn now() -> Begun {
        Begun { at: Instant::now(), cpu: cpu_time() }
    }

    /// Returns the time since then.
    pub(super) fn elapsed(self) -> Spent {
        Spent { wall: self.at.elapsed(), cpu: cpu_time().saturating_sub(self.cpu) }
    }

    /// Leaves out a part that counts elsewhere.
    pub(super) fn without(self, part: Spent) -> Begun {
        Begun { at: self.at.checked_add(part.wall).unwrap_or(self.at), cpu: self.cpu + part.cpu }
    }
}

/// Returns the CPU time of the process; 0 if the kernel does not say it.
fn cpu_time() -> Duration {
    let of = |time: nix::sys::time::TimeVal| Duration::from_micros(u64::try_from(time.num_microseconds()).unwrap_or(0));
    getrusage(UsageWho::RUSAGE_SELF)
        .map_or(Duration::ZERO, |usage| of(usage.user_time()).saturating_add(of(usage.system_time())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Uses CPU time until the kernel has counted this much.
    fn work(cpu: Duration) -> Spent {
        let begun = Begun::now();
        while begun.elapsed().cpu < cpu {
            std::hint::black_box((0..10_000_u64).fold(0, |all, n| all ^ n));
        }
        begun.elapsed()
    }

    #[test]
    fn work_counts_as_cpu_time_and_a_part_is_left_out() {
        let begun = Begun::now();
        let first = work(Duration::from_millis(20));
        assert!(first.cpu >= Duration::from_millis(20) && first.wall > Duration::ZERO, "{first:?}");
        let all = begun.elapsed();
        let rest = begun.without(first).elapsed();
        assert!(all.cpu >= first.cpu && all.wall >= first.wall, "{all:?}");
        assert!(rest.cpu < begun.elapsed().cpu && rest.wall < begun.elapsed().wall, "{rest:?}");
        assert_eq!(first + Spent::default(), first);
    }

    #[test]
    fn sleep_is_no_cpu_time_of_this_thread() {
        let begun = Begun::now();
        std::thread::sleep(Duration::from_millis(20));
        // Other threads of the test may work meanwhile.
        assert!(begun.elapsed().wall >= Duration::from_millis(20));
    }
}
