//! Versions, their rules, and the combination of bounds.
//!
//! No source is read: versions and bounds are given as values.

use super::*;

fn version(text: &str) -> Version {
    Version::parse(text.as_bytes()).unwrap()
}

/// Builds bounds from `(">=" or "<", version, raft index or `None` for the end)`.
fn evidence(bounds: &[(&str, &str, Option<u64>)], started: u64) -> Evidence {
    let mut evidence = Evidence { started: Some(RaftIndex(started)), ..Evidence::default() };
    for (sign, at, place) in bounds {
        let limit = if *sign == "<" { Limit::Below(version(at)) } else { Limit::AtLeast(version(at)) };
        evidence.add(limit, place.map_or(Place::End, |index| Place::At(RaftIndex(index))), "", None);
    }
    evidence
}

fn labels(interval: Interval) -> Vec<&'static str> {
    interval.rule_sets().into_iter().map(|set| set.label).collect()
}

#[test]
fn every_rule_begins_a_rule_set() {
    let mut since: Vec<Version> = Rules::SINCE.iter().map(|(_, since)| *since).collect();
    since.push(version("2.0.0"));
    since.sort();
    since.dedup();
    assert_eq!(since, RuleSet::ALL.map(|set| set.first));
}

#[test]
fn a_version_has_the_rules_of_its_set() {
    let rules = [
        ("2.0.9", Rules::COMPARED_UPDATES, false),
        ("2.0.10", Rules::COMPARED_UPDATES, true),
        ("2.1.3", Rules::PADDED_NAMES, false),
        ("2.2.0", Rules::PADDED_NAMES, true),
        ("2.3.6", Rules::REFRESH_IN_SWAPS, false),
        ("2.3.7", Rules::REFRESH_IN_SWAPS, true),
        ("3.4.45", Rules::FIXED_DIRECTORIES, false),
        ("3.5.0", Rules::FIXED_DIRECTORIES, true),
        ("3.5.30", Rules::LASTING_LEARNERS, false),
        ("3.5.31", Rules::LASTING_LEARNERS, true),
    ];
    for (text, rule, has) in rules {
        assert_eq!(Rules::of(version(text)).has(rule), has, "{text}");
        assert_eq!(RuleSet::of(version(text)).rules(), Rules::of(version(text)), "{text}");
    }
    assert_eq!(RuleSet::of(version("3.6.2")).label, "3.5.31 or later");
}

#[test]
fn a_named_version_is_the_newest_patch_of_its_line() {
    let set = |text: &str| RuleSet::of(text.parse::<SourceVersion>().unwrap().version()).label;
    let expected = [
        ("2.0", "2.0.10 to 2.1"),
        ("2.0.9", "2.0.1 to 2.0.9"),
        ("2.3", "2.3.7 or later 2.3"),
        ("2.3.0", "2.3.0 to 2.3.6"),
        ("3.4", "3.4"),
        ("3.5", "3.5.31 or later"),
        ("3.5.16", "3.5.0 to 3.5.30"),
    ];
    for (text, label) in expected {
        assert_eq!(set(text), label, "{text}");
        assert_eq!(text.parse::<SourceVersion>().unwrap().to_string(), text);
    }
    for text in
        ["", "2", "1.9", "2.4", "3.6", "3.6.1", "4.0", "v2.0", "2.0.x", "2.0.9.1", "2..9", "+2.0", "2.0.99999999999"]
    {
        assert!(text.parse::<SourceVersion>().is_err(), "{text}");
    }
}

#[test]
fn the_last_server_counts_not_the_newest() {
    // A 3.5 directory on which 3.4 ran last: the backend has no mark of 3.5 any more.
    let found = evidence(&[(">=", "3.5.0", Some(4)), ("<", "3.5.0", None), (">=", "3.4.0", Some(16))], 14).resolve();
    assert_eq!(labels(found), ["3.4"]);
    // A 2.1 directory on which 2.2 ran last: the cluster version is unchanged.
    let found =
        evidence(&[(">=", "2.1.0", Some(9)), (">=", "2.2.0", Some(69)), ("<", "3.0.0", Some(77))], 40).resolve();
    assert_eq!(labels(found), ["2.2", "2.3.0 to 2.3.6", "2.3.7 or later 2.3"]);
    assert_eq!(found.most_plausible(&found.rule_sets()).label, "2.2");
}

#[test]
fn an_upper_bound_of_an_earlier_server_does_not_hold() {
    let mut bounds = evidence(&[("<", "2.1.0", Some(10)), ("<", "3.0.0", Some(50))], 20);
    assert_eq!(bounds.resolve(), Interval { from: version("2.0.0"), below: Some(version("3.0.0")) });
    assert_eq!(bounds.bounds.iter().map(|bound| bound.in_effect).collect::<Vec<_>>(), [true, false]);
    let found = evidence(&[("<", "2.1.0", Some(30)), ("<", "3.0.0", Some(50))], 20).resolve();
    assert_eq!(labels(found), ["2.0.0", "2.0.1 to 2.0.9", "2.0.10 to 2.1"]);
    assert_eq!(found.most_plausible(&found.rule_sets()).label, "2.0.10 to 2.1");
}

#[test]
fn a_lowered_cluster_version_ends_the_lower_bounds_before_it() {
    let mut lowered = evidence(&[(">=", "3.5.0", Some(5)), (">=", "3.4.0", Some(20))], 18);
    lowered.lowered = Some(RaftIndex(20));
    assert_eq!(lowered.resolve().from, version("3.4.0"));
    // A mark of 3.5 after the last start still counts.
    let mut since = evidence(&[(">=", "3.5.0", Some(19)), (">=", "3.4.0", Some(20))], 18);
    since.lowered = Some(RaftIndex(20));
    assert_eq!(since.resolve().from, version("3.5.0"));
}

#[test]
fn newest_patches_are_the_most_plausible() {
    for (from, below, label) in [
        ("2.0.2", "2.1.0", "2.0.10 to 2.1"),
        ("2.3.0", "3.0.0", "2.3.7 or later 2.3"),
        ("3.5.0", "3.6.0", "3.5.31 or later"),
        ("3.3.0", "3.5.0", "3.0 to 3.3"),
    ] {
        let found = Interval { from: version(from), below: Some(version(below)) };
        assert_eq!(found.most_plausible(&found.rule_sets()).label, label);
    }
}

#[test]
fn says_whether_a_line_may_have_run() {
    let found = Interval { from: version("2.0.2"), below: Some(version("2.2.0")) };
    assert!(found.may_be(version("2.1.0")) && found.may_be(version("2.0.0")));
    assert!(!found.may_be(version("2.2.0")) && !found.may_be(version("3.4.0")));
}
