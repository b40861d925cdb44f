//! Values that many requests use again: refreshed, compared or overwritten without a copy for each.
//!
//! The sources are made here: a log of requests for one key, which may have a large value in the snapshot.

use super::harness::{MIB, Source};
use crate::common::v2files::Request;
use crate::common::v2store::{leaf, store};

/// A value of the snapshot with 230 KB, all of it escaped: 1.4 MB on disk.
fn escaped() -> String {
    store(10, &leaf("big", 5, &r"\u003c".repeat(230_000)))
}

#[test]
fn refreshes_of_an_escaped_value_share_it() {
    let refresh = |at: u64| Request::new("PUT", "/1/big").expires(4_000_000_000 + at).refresh().bytes();
    let source = Source::new(escaped(), (0..4000).map(refresh));
    source.convert(&["--source-version", "2.3.8"]).within(0, 20 * MIB, 3.0);
    assert!(source.report()["contents"]["bytes"].as_u64().unwrap() > 230_000, "the value is kept");
}

#[test]
fn compares_with_an_escaped_value_do_not_copy_it() {
    let short = || Request::new("PUT", "/1/big").value(b"x").prev_value(b"<<").bytes();
    let source = Source::new(escaped(), (0..100_000).map(|_| short()));
    source.convert(&[]).within(0, 40 * MIB, 5.0);
}

#[test]
fn a_key_that_is_written_again_and_again_takes_the_memory_of_one() {
    let put = |at: u64| Request::new("PUT", "/1/a").value(b"v").expires(4_000_000_000 + at).bytes();
    let source = Source::new(store(10, ""), (0..200_000).map(put));
    source.convert(&[]).within(0, 40 * MIB, 5.0);
}
