//! Every refusal of `--to member`: status, reason, words, and that nothing was written.

use std::fs;
use std::path::{Path, PathBuf};

use etcdlift::internals::fuzzing::log::Dialect;

use super::convert;
use super::source::Source;
use crate::common::run::{etcdlift, read_json};
use crate::common::{scratch, v2files};

const THREE: [(u64, &str); 3] = [(0xa1, "m1"), (0xa2, "m2"), (0xa3, "m3")];

/// Asserts a refusal of these sources with these options.
fn refused(sources: &[PathBuf], options: &[&str], status: i32, reason: &str, words: &[&str]) {
    let temp = scratch::temp();
    let (out, report) = (temp.path().join("out"), temp.path().join("report.json"));
    let before: Vec<_> = sources.iter().map(|source| scratch::fingerprint(source)).collect();
    let options = [&["--report", report.to_str().unwrap()], options].concat();
    let output = convert(sources, &out, &options);
    let story = output.story();
    assert_eq!(output.status, status, "{story}");
    assert!(words.iter().all(|word| output.stderr.contains(word)), "{words:?}: {story}");
    assert!(!out.exists(), "{story}");
    if status != 2 {
        assert_eq!(read_json(&report)["reason"], reason, "{story}");
    }
    assert_eq!(before, sources.iter().map(|source| scratch::fingerprint(source)).collect::<Vec<_>>());
}

fn cannot_continue(sources: &[PathBuf], options: &[&str], words: &[&str]) {
    refused(sources, options, 5, "cannot-continue", words);
}

#[test]
fn options_that_contradict_it() {
    let temp = scratch::temp();
    let one = [Source::new(&[(0xa1, "m1")]).write(temp.path(), 0xa1)];
    for target in ["3.6", "3.7"] {
        refused(
            &one,
            &["--target-version", target],
            2,
            "",
            &["--to member needs --target-version 3.4 or 3.5", "hint: "],
        );
    }
    for option in [&["--salvage"][..], &["--allow-live"], &["--allow-removed"], &["--up-to-index", "3"]] {
        refused(&one, option, 2, "", &["--to member excludes", option[0]]);
    }
    for option in [["--initial-cluster", "a=http://b:1"], ["--initial-cluster-token", "t"]] {
        refused(&one, &option, 2, "", &["--to data-dir"]);
    }
}

#[test]
fn cluster_versions_that_the_target_cannot_continue() {
    for (version, target, words) in [
        (Some("2.3.0"), "3.5", &["etcd 3.5 cannot continue", "\"2.3.0\"", "--target-version 3.4"][..]),
        (None, "3.5", &["etcd 3.5 cannot continue", "unknown", "--target-version 3.4"]),
        (Some("3.5.0"), "3.4", &["\"3.5.0\"", "3.4 refuses to start", "--target-version 3.5"]),
        (Some("3.6.0"), "3.4", &["\"3.6.0\"", "3.5 refuses to start", "--to data-dir"]),
        (Some("3.6.0"), "3.5", &["\"3.6.0\"", "3.5 refuses to start", "--to data-dir"]),
        (Some("3.10.0"), "3.5", &["\"3.10.0\"", "3.5 refuses to start", "--to data-dir"]),
    ] {
        let temp = scratch::temp();
        let source = Source { version, ..Source::new(&[(0xa1, "m1")]) };
        cannot_continue(&[source.write(temp.path(), 0xa1)], &["--target-version", target], words);
    }
    for (version, target) in [("2.3.0", "3.4"), ("3.0.0", "3.4"), ("3.4.0", "3.4"), ("3.3.0", "3.5"), ("3.5.0", "3.5")]
    {
        let temp = scratch::temp();
        let source = Source { version: Some(version), ..Source::new(&[(0xa1, "m1")]) };
        let out = temp.path().join("out");
        convert(&[source.write(temp.path(), 0xa1)], &out, &["--target-version", target]).success();
        etcdlift(["verify".as_ref(), out.as_os_str()]).success();
    }
}

/// etcd 3.5 finds the old version when it starts, if no snapshot of the member is after the change.
#[test]
fn a_cluster_version_of_2_that_a_member_starts_with() {
    let source =
        Source { version: Some("3.4.0"), old_version: Some("2.3.0"), dialect: Dialect::Padded, ..Source::new(&THREE) };
    let v3_5 = ["--target-version", "3.5"];
    let refused = |sources: &[PathBuf], words: &str| {
        let words = ["etcd 3.5 would not serve v3", "\"2.3.0\"", words, "--target-version 3.4", "--to data-dir"];
        cannot_continue(sources, &v3_5, &words);
        let out = scratch::temp();
        convert(sources, &out.path().join("out"), &[]).success();
    };
    let temp = scratch::temp();
    let all = source.write_all(temp.path());
    refused(&all, "in its log at raft index 7");
    // The change is entry 10. The new snapshot of two members does not help the third one.
    source.add_snapshot(&all[0], 0xa1, 12, Some("3.4.0"));
    source.add_snapshot(&all[1], 0xa2, 12, Some("3.4.0"));
    refused(&all, "a3.etcd: etcd 3.5 would not serve v3");
    source.add_snapshot(&all[2], 0xa3, 9, Some("2.3.0"));
    refused(&all, "in its snapshot at raft index 9");
    source.add_snapshot(&all[2], 0xa3, 10, Some("3.4.0"));
    let out = temp.path().join("out");
    convert(&all, &out, &v3_5).success();
    etcdlift(["verify".as_ref(), out.as_os_str()]).success();
}

/// A database for the directory of the member has the same limit.
#[test]
fn a_cluster_version_of_2_and_the_step_that_installs_a_database() {
    for (old_version, target, installs) in
        [(None, "3.5", true), (Some("2.3.0"), "3.5", false), (Some("2.3.0"), "3.4", true)]
    {
        let temp = scratch::temp();
        let source = Source { version: Some("3.4.0"), old_version, ..Source::new(&[(0xa1, "m1")]) };
        let (path, out) = (source.write(temp.path(), 0xa1), temp.path().join("db"));
        let args = ["convert", "--to", "backend", "--target-version", target, "--as-of", "2026-01-01T00:00:00Z", "-o"];
        let output = etcdlift(args.iter().map(AsRef::as_ref).chain([out.as_os_str(), path.as_os_str()])).success();
        assert_eq!(output.stderr.contains("install -m 600"), installs, "{}", output.story());
    }
}

#[test]
fn parts_of_a_member() {
    let temp = scratch::temp();
    let source = Source::new(&[(0xa1, "m1")]).write(temp.path(), 0xa1);
    let log = source.join("member/wal");
    cannot_continue(&[log], &[], &["expected the data directory of a member"]);
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join(crate::convert::kit::DEMO);
    let snap = demo.join(crate::convert::kit::DEMO_SNAP);
    cannot_continue(&[snap], &[], &["expected the data directory of a member"]);
}

#[test]
fn a_cluster_that_is_not_complete() {
    let temp = scratch::temp();
    let all = Source::new(&THREE).write_all(temp.path());
    for (missing, (_, name)) in THREE.iter().enumerate() {
        let mut given = all.clone();
        given.remove(missing);
        let name = format!("member {name} is missing");
        cannot_continue(&given, &[], &[&name, "--to data-dir"]);
    }
    cannot_continue(&all[..1], &[], &["is missing"]);
}

/// A learner has the database too.
#[test]
fn a_cluster_without_its_learner() {
    let temp = scratch::temp();
    let source =
        Source { learner: Some(0xa3), version: Some("3.4.0"), dialect: Dialect::Padded, ..Source::new(&THREE) };
    let all = source.write_all(temp.path());
    cannot_continue(&all[..2], &[], &["member m3 is missing"]);
    let out = temp.path().join("out");
    convert(&all, &out, &[]).success();
    etcdlift(["verify".as_ref(), out.as_os_str()]).success();
}

#[test]
fn a_copy_that_was_cut() {
    let temp = scratch::temp();
    let source = Source { dialect: Dialect::Padded, ..Source::new(&[(0xa1, "m1")]) };
    let path = source.write(temp.path(), 0xa1);
    let segment = &super::segments(&path)[0];
    let bytes = fs::read(segment).unwrap();
    let (_, last) = v2files::frames(&bytes).pop().unwrap();
    fs::write(segment, &bytes[..last.end.next_multiple_of(8)]).unwrap();
    cannot_continue(&[path], &[], &["the copy of a member is incomplete", "the copy is probably truncated"]);
}

#[test]
fn a_damaged_log() {
    let temp = scratch::temp();
    let all = Source { dialect: Dialect::Padded, ..Source::new(&THREE) }.write_all(temp.path());
    scratch::edit(&super::segments(&all[0])[0], |bytes| {
        let frames = v2files::frames(bytes);
        let (_, record) = frames[frames.len() / 2].clone();
        bytes[record.end - 2] ^= 1;
    });
    cannot_continue(&all, &[], &["the log of the member is damaged"]);
}

/// The removed member, and the others without it.
#[test]
fn a_removed_member() {
    let Some(scenario) = crate::common::corpus::scenario(crate::test_name!(), "v2.3.8-e") else { return };
    let dir = |name: &str| scenario.data_dir(name);
    let options = ["--source-version", "2.3.8"];
    refused(&[dir("m2.etcd")], &options, 5, "member-removed", &["was removed from its cluster"]);
    cannot_continue(
        &[dir("m0.etcd"), dir("m1.etcd"), dir("m3.etcd"), dir("m2.etcd")],
        &options,
        &["is not in its cluster"],
    );
}

#[test]
fn a_backup() {
    let Some(scenario) = crate::common::corpus::scenario(crate::test_name!(), "v3.3.27-h") else { return };
    for name in ["offline.etcd", "live.etcd"] {
        cannot_continue(&[scenario.data_dir(name)], &[], &["backup"]);
    }
}

/// The database of one member becomes that of all, so different v3 data is refused; an earlier state of the same data is not.
#[test]
fn members_with_different_v3_data() {
    let temp = scratch::temp();
    let source = Source { version: Some("3.4.0"), dialect: Dialect::Padded, ..Source::new(&THREE) };
    let sources = source.write_all(temp.path());
    let first = temp.path().join("first");
    convert(&sources, &first, &["--strip-leading-slash"]).success();
    let other = temp.path().join("other");
    convert(&sources, &other, &["--strip-leading-slash", "--revisions", "dense"]).success();
    let db = |dir: &Path, member: &str| dir.join(member).join("member/snap/db");
    for (source, (_, name)) in sources.iter().zip(THREE) {
        fs::copy(db(&first, name), source.join("member/snap/db")).unwrap();
    }
    for existing in ["merge", "keep-v3"] {
        convert(&sources, &temp.path().join(existing), &["--existing", existing]).success();
    }
    fs::copy(db(&other, "m3"), sources[2].join("member/snap/db")).unwrap();
    for existing in ["merge", "keep-v3"] {
        let words = ["the members have different v3 data", "hint: `etcdlift compare`"];
        refused(&sources, &["--existing", existing], 5, "v3-differs", &words);
        let mut reversed = sources.clone();
        reversed.reverse();
        refused(&reversed, &["--existing", existing], 5, "v3-differs", &words);
    }
    // Without v3 data, nothing differs.
    convert(&sources, &temp.path().join("drop"), &["--existing", "drop-v3"]).success();
    // One that cannot be read proves nothing, and is named.
    fs::write(sources[2].join("member/snap/db"), vec![7; 65536]).unwrap();
    let output = convert(&sources, &temp.path().join("unreadable"), &["--existing", "merge"]).success();
    assert!(output.stderr.contains("[v3-unreadable]"), "{}", output.story());
}
