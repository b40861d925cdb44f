//! How a test says that it did not run, so that nobody takes it for a pass.
//!
//! `SKIPPED: <test>: <what is missing>` goes to standard error and, where
//! `ETCDLIFT_SKIP_LOG` names a file, into that file too.
//! `ETCDLIFT_REQUIRE_PEERS=1` and `ETCDLIFT_REQUIRE_CORPUS=1` turn a skip for
//! want of peers, or of the corpus, into a failure. What the machine itself forbids
//! (mounting, another user) is said on standard error alone.

use std::env;
use std::fs::OpenOptions;
use std::io::Write;

/// What a test may find missing.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    Peers,
    Corpus,
    /// python3, for the programs that tests run; a machine with peers has it.
    Python,
    /// Something that this machine does not allow, even with all peers installed.
    Machine,
}

/// Notes that `test` does not run because `what` is missing.
///
/// # Panics
/// If the environment requires it.
pub fn skip(test: &str, need: Need, what: &str) {
    let variable = match need {
        Need::Peers | Need::Python => "ETCDLIFT_REQUIRE_PEERS",
        Need::Corpus => "ETCDLIFT_REQUIRE_CORPUS",
        Need::Machine => "ETCDLIFT_REQUIRE_MACHINE",
    };
    if env::var_os(variable).is_some_and(|value| value == "1") {
        panic!("{test}: {what} ({variable}=1)");
    }
    let line = format!("SKIPPED: {test}: {what}\n");
    // Not `eprintln!`: the test harness hides that of a test which passes.
    let _ = std::io::stderr().write_all(line.as_bytes());
    // Nobody can help what a machine forbids.
    if let (Need::Peers | Need::Corpus | Need::Python, Some(path)) = (need, env::var_os("ETCDLIFT_SKIP_LOG")) {
        let mut log = OpenOptions::new().create(true).append(true).open(path).unwrap();
        log.write_all(line.as_bytes()).unwrap();
    }
}

/// The name of the test function that contains this macro.
#[macro_export]
macro_rules! test_name {
    () => {{
        fn here() {}
        let path = std::any::type_name_of_val(&here);
        path.strip_suffix("::here").unwrap_or(path)
    }};
}
