//! A real signal reaches the check that long work makes.
//!
//! This file is a test binary of its own: signals and their handlers belong to the process, and the other tests share
//! one.

use std::process::Command;
use std::time::{Duration, Instant};

use etcdlift::internals::signals::Signals;

#[test]
fn sigterm_ends_the_work_with_143() {
    let signals = Signals::install().unwrap();
    assert!(signals.check().is_ok());
    let pid = std::process::id().to_string();
    assert!(Command::new("sh").args(["-c", "kill -TERM \"$0\"", &pid]).status().unwrap().success());
    let begun = Instant::now();
    while signals.check().is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the signal did not arrive");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(signals.check().unwrap_err().kind().exit_code(), 143);
}
