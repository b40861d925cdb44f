//! The time that a stage takes: elapsed time, and CPU time of the process and of each thread.
//!
//! Must not know the stages.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Add;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// The CPU time of threads, by the number that the kernel gives each.
type Threads = BTreeMap<u32, Duration>;

/// The time that a part of a run took.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Spent {
    /// Elapsed time.
    pub(super) wall: Duration,
    /// CPU time of all threads of the process, in user and in kernel mode.
    pub(super) cpu: Duration,
    /// CPU time of each thread that ran at the end.
    pub(super) threads: Threads,
}

impl Add for Spent {
    type Output = Spent;

    fn add(mut self, other: Spent) -> Spent {
        for (thread, cpu) in other.threads {
            *self.threads.entry(thread).or_default() += cpu;
        }
        Spent { wall: self.wall + other.wall, cpu: self.cpu + other.cpu, threads: self.threads }
    }
}

/// The beginning of a part of a run.
#[derive(Debug, Clone)]
pub(super) struct Begun {
    at: Instant,
    cpu: Duration,
    threads: Threads,
}

impl Begun {
    /// Begins now.
    pub(super) fn now() -> Begun {
        Begun { at: Instant::now(), cpu: cpu_time(), threads: thread_times() }
    }

    /// Returns the time since then.
    pub(super) fn elapsed(&self) -> Spent {
        let (wall, cpu) = (self.at.elapsed(), cpu_time().saturating_sub(self.cpu));
        let before = |thread: &u32| self.threads.get(thread).copied().unwrap_or_default();
        let since = |(thread, cpu): (u32, Duration)| (thread, cpu.saturating_sub(before(&thread)));
        Spent { wall, cpu, threads: thread_times().into_iter().map(since).collect() }
    }

    /// Leaves out a part that counts elsewhere.
    pub(super) fn without(mut self, part: Spent) -> Begun {
        for (thread, cpu) in part.threads {
            *self.threads.entry(thread).or_default() += cpu;
        }
        let at = self.at.checked_add(part.wall).unwrap_or(self.at);
        Begun { at, cpu: self.cpu + part.cpu, threads: self.threads }
    }
}

/// Returns the CPU time of each thread of the process. Empty if the kernel does not say it.
fn thread_times() -> Threads {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let times = threads.filter_map(|thread| {
        let number = thread.file_name().to_str()?.parse().ok()?;
        // A thread that has ended meanwhile has no such file.
        let stat = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        Some((number, Duration::from_nanos(stat.split(' ').next()?.parse().ok()?)))
    });
    times.collect()
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
        let rest = begun.clone().without(first.clone()).elapsed();
        assert!(all.cpu >= first.cpu && all.wall >= first.wall, "{all:?}");
        assert!(rest.cpu < begun.elapsed().cpu && rest.wall < begun.elapsed().wall, "{rest:?}");
        assert_eq!(first.clone() + Spent::default(), first);
    }

    #[test]
    fn each_thread_has_its_own_time() {
        let begun = Begun::now();
        if begun.threads.is_empty() {
            eprintln!("skipped: each_thread_has_its_own_time: the kernel does not say the CPU time of threads");
            return;
        }
        let (ready, wait) = std::sync::mpsc::channel();
        let (release, ended) = std::sync::mpsc::channel::<()>();
        let worker = std::thread::spawn(move || {
            work(Duration::from_millis(30));
            ready.send(nix::unistd::gettid().as_raw()).unwrap();
            ended.recv().unwrap_err();
        });
        let worked = u32::try_from(wait.recv().unwrap()).unwrap();
        let this = u32::try_from(nix::unistd::gettid().as_raw()).unwrap();
        let spent = begun.elapsed();
        // Other tests run meanwhile, so the process has more time than this thread.
        assert!(spent.threads[&worked] > spent.threads[&this], "{spent:?}");
        let twice = spent.clone() + spent.clone();
        assert_eq!(twice.threads[&worked], spent.threads[&worked] * 2);
        assert!(begun.without(spent.clone()).elapsed().threads[&worked] < spent.threads[&worked]);
        drop(release);
        worker.join().unwrap();
    }

    #[test]
    fn sleep_is_no_cpu_time_of_this_thread() {
        let begun = Begun::now();
        std::thread::sleep(Duration::from_millis(20));
        // Other threads of the test may work meanwhile.
        assert!(begun.elapsed().wall >= Duration::from_millis(20));
    }
}
