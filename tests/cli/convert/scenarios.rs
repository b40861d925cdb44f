//! Directories of the corpus that need more than a plain conversion: v3 data, removed members, tails, hidden keys.
//!
//! Needs the corpus; some tests run on the part of it in `fixtures`.

use super::kit::{Case, Run, totals_add_up};
use crate::common::corpus::{self, Scenario};
use crate::common::rows::{self, Row, differences};
use crate::common::run::all_well;
use crate::test_name;

const ALL: [&str; 14] = ["a", "b", "d", "e", "f", "g2", "g3", "gtorn", "h", "i", "p", "w", "x", "z2"];

/// Converts a directory at the instant when its truth was read.
fn convert(case: &Case, scenario: &Scenario, data_dir: &str, options: &[&str]) -> Run {
    let mut options = options.to_vec();
    options.extend(["--as-of", &scenario.truth.captured_at]);
    options.extend(scenario.truth.source_version());
    case.run(&scenario.data_dir(data_dir), &options)
}

fn same(expected: &[Row], actual: &[Row]) {
    all_well(&differences(expected, actual));
}

#[test]
fn v3_data_is_refused_and_counted() {
    for (name, words) in [
        ("v3.4.23-i", "keys, 1 lease in its v3 backend"),
        ("v3.5.16-i", "in its v3 backend"),
        ("v3.4.23-x", "v3 writes in its log"),
    ] {
        let Some(scenario) = corpus::scenario(test_name!(), name) else { return };
        let case = Case::new();
        convert(&case, &scenario, "m0.etcd", &[]).refused(5, "v3-present", &["m0.etcd: ", "v3 data", words]);
    }
}

#[test]
fn a_removed_member_is_refused_unless_allowed() {
    let Some(scenarios) = corpus::of_kinds(test_name!(), &["e"]) else { return };
    for scenario in scenarios {
        let removed: Vec<&String> =
            scenario.truth.data_dirs.iter().filter(|(_, dir)| dir.is_removed()).map(|(name, _)| name).collect();
        assert_eq!(removed.len(), 1, "{}", scenario.name);
        let case = Case::new();
        let words = ["was removed from its cluster", "convert another member", "--allow-removed"];
        convert(&case, &scenario, removed[0], &[]).refused(5, "member-removed", &words);
        let run = convert(&case, &scenario, removed[0], &["--allow-removed"]);
        same(&rows::expected(&scenario, removed[0]), &run.converted(0));
    }
}

#[test]
fn only_hidden_keys_are_keys_too() {
    let Some(scenario) = corpus::scenario(test_name!(), "v3.4.23-z2") else { return };
    let case = Case::new();
    let run = convert(&case, &scenario, "m0.etcd", &[]);
    same(&rows::expected(&scenario, "m0.etcd"), &run.converted(0));
    std::fs::remove_file(case.out()).unwrap();
    let run = convert(&case, &scenario, "m0.etcd", &["--hidden", "drop"]);
    run.refused(4, "nothing-to-convert", &["none of 2 v2 keys", "--allow-empty"]);
}

#[test]
fn a_deposed_leader_leaves_its_own_tail_out() {
    let Some(scenario) = corpus::scenario(test_name!(), "v3.4.23-g2") else { return };
    for data_dir in scenario.live() {
        let case = Case::new();
        let run = convert(&case, &scenario, data_dir, &[]);
        let deposed = !run.notices("losses").is_empty();
        let found = run.converted(if deposed { 8 } else { 0 });
        assert!(!found.iter().any(|row| row.key.windows(11).any(|part| part == b"UNCOMMITTED")), "{data_dir}");
        assert!(found.iter().any(|row| row.key == b"/unc/del"), "{data_dir}");
        same(&rows::expected(&scenario, data_dir), &found);
        assert_eq!(deposed, data_dir == "m0.etcd", "{data_dir}");
        if deposed {
            assert_eq!(run.report()["reason"], "tail-left-out");
            let mut lines = run.output.stderr.lines().skip_while(|line| !line.starts_with("loss: "));
            assert!(lines.next().is_some_and(|loss| loss.contains("v2 writes")), "{}", run.output.story());
            assert!(lines.next().is_some_and(|hint| hint.starts_with("hint: convert with --tail all")));
            std::fs::remove_file(case.out()).unwrap();
            convert(&case, &scenario, data_dir, &["--strict"]).refused(5, "strict", &["v2 writes", "left out"]);
        }
    }
}

#[test]
fn an_acknowledged_write_that_nothing_proves_is_status_8() {
    let Some(scenario) = corpus::scenario(test_name!(), "v3.4.23-p") else { return };
    for data_dir in scenario.live() {
        let case = Case::new();
        let run = convert(&case, &scenario, data_dir, &[]);
        run.converted(8);
        assert_eq!((&run.report()["reason"], &run.report()["tail"]["v2_writes"]), (&"tail-left-out".into(), &1.into()));
    }
}

#[test]
fn a_member_that_lags_or_was_overruled_or_torn_gives_what_it_held() {
    for name in ["v3.4.23-f", "v3.4.23-g3", "v3.4.23-gtorn"] {
        let Some(scenario) = corpus::scenario(test_name!(), name) else { return };
        for data_dir in scenario.live() {
            let case = Case::new();
            let run = convert(&case, &scenario, data_dir, &[]);
            eprintln!("{name}/{data_dir}");
            same(&rows::expected(&scenario, data_dir), &run.converted(0));
        }
    }
}

#[test]
fn a_log_of_its_own_place_is_read_from_there() {
    let Some(scenario) = corpus::scenario(test_name!(), "v3.4.23-w") else { return };
    let case = Case::new();
    let words = ["--wal-dir DIR", "--wal-dir none"];
    convert(&case, &scenario, "m0.etcd", &[]).refused(5, "wal-missing", &words);
    let wal = scenario.data_dir(scenario.truth.data_dirs["m0.etcd"].wal_dir.as_deref().unwrap());
    let run = convert(&case, &scenario, "m0.etcd", &["--wal-dir", wal.to_str().unwrap()]);
    same(&rows::expected(&scenario, "m0.etcd"), &run.converted(0));
}

#[test]
fn the_totals_of_every_directory_add_up() {
    let Some(scenarios) = corpus::of_kinds(test_name!(), &ALL) else { return };
    let mut converted = 0;
    for scenario in &scenarios {
        for data_dir in scenario.live() {
            let case = Case::new();
            let run = convert(&case, scenario, data_dir, &["--hidden", "drop", "--guest", "drop", "--dry-run"]);
            if matches!(run.output.status, 0 | 8) {
                totals_add_up(run.report());
                converted += 1;
            }
        }
    }
    assert!(converted >= corpus::at_least(40, 5), "{converted}");
}
