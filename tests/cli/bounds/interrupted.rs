//! Every command asks often enough whether it was interrupted, in each of its stages.
//!
//! The sources are made here: snapshots, and logs with many entries. The tests count how often the library asks.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use etcdlift::error::{Error, Reason, Result};
use etcdlift::internals::pipeline;
use etcdlift::options::{ConvertOptions, ExportOptions, InspectOptions, VerifyOptions, WalOptions};
use etcdlift::report::Report;

use super::harness::Source;
use crate::common::v2files::Request;
use crate::common::v2store::{leaf, store};

const ENTRIES: u64 = 20_000;

fn source() -> Source {
    let put = |at: u64| Request::new("PUT", &format!("/1/k{}", at % 100)).value(b"v").bytes();
    Source::new(store(10, &leaf("a", 5, "v")), (0..ENTRIES).map(put))
}

/// How often a command asks, and that it ends with the interruption whenever that comes.
fn asked(command: impl Fn(&(dyn Fn() -> Result<()> + Sync)) -> Result<()>) -> u64 {
    let run = |last: u64| {
        let asked = AtomicU64::new(0);
        let interrupted = || match asked.fetch_add(1, Ordering::Relaxed) {
            number if number < last => Ok(()),
            _ => Err(Error::new(Reason::Interrupted(15), "interrupted by signal 15")),
        };
        let ended = command(&interrupted);
        (ended, asked.into_inner())
    };
    let (ended, total) = run(u64::MAX);
    ended.unwrap();
    for step in 0..40 {
        let (ended, asked) = run(total * step / 40);
        let error = ended.expect_err(&format!("interrupted at question {} of {total}", total * step / 40));
        assert_eq!(error.reason(), Reason::Interrupted(15), "{step}: {error}");
        // A few threads may ask at the same time, and what tells an interruption from damage asks once more.
        assert!(asked <= total * step / 40 + 50, "{step}: went on to question {asked}");
    }
    total
}

#[test]
fn a_conversion_asks_for_each_entry_that_it_reads_and_replays() {
    let source = source();
    let out = source.at("out");
    let asked = asked(|interrupted| {
        let _ = fs::remove_file(&out);
        let options = ConvertOptions::new(source.path(), &out);
        pipeline::convert(&options, &mut Report::new(&options), interrupted).map(drop)
    });
    // The scan, the look for versions, the replay.
    assert!(asked > 3 * ENTRIES, "{asked}");
}

#[test]
fn an_inspection_asks_for_each_entry() {
    let source = source();
    let mut options = InspectOptions::new(source.path());
    options.keys = true;
    assert!(asked(|interrupted| pipeline::inspect(&options, interrupted).map(drop)) > 3 * ENTRIES);
}

#[test]
fn a_listing_of_the_log_asks_for_each_entry() {
    let source = source();
    let options = WalOptions::new(source.path());
    let asked = asked(|interrupted| pipeline::inspect_wal(&options, interrupted, &mut |_| Ok(())));
    assert!(asked > 4 * ENTRIES, "{asked}");
}

#[test]
fn an_export_asks_for_each_entry() {
    let source = source();
    let out = source.at("out");
    let options = ExportOptions::new(source.path(), &out);
    let asked = asked(|interrupted| {
        let _ = fs::remove_file(&out);
        pipeline::export(&options, &mut |_| Ok(()), interrupted).map(drop)
    });
    assert!(asked > 3 * ENTRIES, "{asked}");
}

#[test]
fn a_verification_asks_for_each_page_and_each_entry() {
    let source = source();
    let out = source.at("out");
    let convert = ConvertOptions::new(source.path(), &out);
    pipeline::convert(&convert, &mut Report::new(&convert), &|| Ok(())).unwrap();
    let mut options = VerifyOptions::new(out);
    options.sources.push(source.path());
    assert!(asked(|interrupted| pipeline::verify(&options, interrupted).map(drop)) > 3 * ENTRIES);
}
