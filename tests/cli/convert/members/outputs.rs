//! The directories that `--to member` writes: their names, modes and owner, and what may be replaced.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use etcdlift::internals::fuzzing::log::Dialect;

use super::source::Source;
use super::{convert, segments};
use crate::common::run::etcdlift;
use crate::common::scratch;
use crate::common::skip::{Need, skip};

/// A name that is missing, is used twice, or is the ID of another member is no name for a directory.
#[test]
fn directories_have_the_names_or_the_ids_of_members() {
    for (members, expected) in [
        ([(0xa1, "m1"), (0xa2, "m2"), (0xa3, "m3")], ["m1", "m2", "m3"]),
        ([(0xa1, "same"), (0xa2, "same"), (0xa3, "m3")], ["a1", "a2", "m3"]),
        ([(0xa1, "a2"), (0xa2, ""), (0xa3, "..")], ["a1", "a2", "a3"]),
    ] {
        let temp = scratch::temp();
        let mut sources = Source::new(&members).write_all(temp.path());
        for name in ["one", "two"] {
            let out = temp.path().join(name);
            convert(&sources, &out, &[]).success();
            assert_eq!(scratch::names(&out), expected);
            sources.reverse();
        }
    }
}

#[test]
fn directories_are_private_and_of_the_owner_of_the_source() {
    let temp = scratch::temp();
    let sources = [Source::new(&[(0xa1, "m1")]).write(temp.path(), 0xa1)];
    if chown(&sources[0], Some(1234), Some(1234)).is_err() {
        return skip(crate::test_name!(), Need::Machine, "only root can give a file to another user");
    }
    for (name, options, owner) in
        [("plain", &[][..], fs::metadata(temp.path()).unwrap().uid()), ("owned", &["--preserve-owner"], 1234)]
    {
        let out = temp.path().join(name);
        convert(&sources, &out, options).success();
        for (path, _) in scratch::fingerprint(&out) {
            let found = fs::metadata(&path).unwrap();
            let mode = if found.is_dir() { 0o700 } else { 0o600 };
            assert_eq!((found.mode() & 0o777, found.uid()), (mode, owner), "{}", path.display());
        }
    }
}

#[test]
fn an_output_is_replaced_only_if_no_etcd_has_opened_it() {
    let temp = scratch::temp();
    let sources = Source::new(&[(0xa1, "m1"), (0xa2, "m2")]).write_all(temp.path());
    let (out, report) = (temp.path().join("out"), temp.path().join("report.json"));
    let report = ["--report", report.to_str().unwrap()];
    convert(&sources, &out, &["--dry-run"]).success();
    assert!(!out.exists());
    convert(&sources, &out, &report).success();
    let files = scratch::fingerprint(&out);
    assert_ne!(convert(&sources, &out, &[]).status, 0);
    convert(&sources, &out, &[&report[..], &["--skip-existing"]].concat()).success();
    assert_eq!(scratch::fingerprint(&out), files);
    let db = fs::read(out.join("m1/member/snap/db")).unwrap();
    convert(&sources, &out, &[&report[..], &["--overwrite"]].concat()).success();
    assert!(fs::read(out.join("m1/member/snap/db")).unwrap() == db);
    etcdlift(["verify".as_ref(), out.as_os_str()]).success();
    fs::write(out.join("m1/member/wal/other"), "").unwrap();
    assert_ne!(convert(&sources, &out, &[&report[..], &["--overwrite"]].concat()).status, 0);
}

/// A member that stopped earlier gets the entries of the others.
#[test]
fn a_member_that_lags_gets_the_entries_of_the_others() {
    let source = Source::new(&[(0xa1, "m1"), (0xa2, "m2"), (0xa3, "m3")]);
    let temp = scratch::temp();
    let mut sources = source.write_all(temp.path());
    fs::remove_dir_all(sources.remove(1)).unwrap();
    sources.insert(1, source.write_some(temp.path(), 0xa2, 7));
    let out = temp.path().join("out");
    convert(&sources, &out, &[]).success();
    let read = |path: &Path| fs::read(segments(path).pop().unwrap()).unwrap();
    let (old, new) = (read(&sources[1]), read(&out.join("m2")));
    assert!(new.starts_with(&old) && new.len() > old.len());
    assert!(read(&out.join("m1")) == read(&sources[0]));
    etcdlift(["verify".as_ref(), out.as_os_str()]).success();
}

/// Only 3.5 writes the term of the last entry into the database. It would prove that the log is replayed by the rules of 3.5.
#[test]
fn the_database_of_a_member_does_not_say_that_a_later_etcd_ran_on_it() {
    let temp = scratch::temp();
    let source = Source { version: Some("3.4.0"), dialect: Dialect::Padded, ..Source::new(&[(0xa1, "m1")]) };
    let source = source.write(temp.path(), 0xa1);
    for (target, has_term) in [("3.4", false), ("3.5", true)] {
        let out = temp.path().join(target);
        convert(&[&source], &out, &["--target-version", target]).success();
        etcdlift(["verify".as_ref(), out.as_os_str()]).success();
        let inspected = etcdlift(["inspect".as_ref(), out.as_os_str(), "--json".as_ref()]).success();
        assert_eq!(inspected.text().contains("`meta/term` or `confState`"), has_term, "{}", inspected.story());
    }
}

/// Before 3.5, the bucket `members` need not have every member. The v2 store has them all.
#[test]
fn the_members_come_from_the_v2_store_also_with_v3_data() {
    let temp = scratch::temp();
    let source = Source { version: Some("3.4.0"), dialect: Dialect::Padded, ..Source::new(&[(0xa1, "m1")]) };
    let source = source.write(temp.path(), 0xa1);
    let installed = source.join("member/snap/db");
    let made = temp.path().join("db");
    let args = ["convert", "--to", "backend", "--as-of", "2026-01-01T00:00:00Z", "-o"].map(AsRef::as_ref);
    let args = args.into_iter().chain([made.as_os_str(), source.as_os_str(), "--strip-leading-slash".as_ref()]);
    etcdlift(args).success();
    fs::copy(made, &installed).unwrap();
    let members = |path: &Path| etcdlift(["inspect".as_ref(), path.as_os_str(), "--json".as_ref()]).success().json();
    assert!(members(&installed)["members"].as_array().is_none_or(Vec::is_empty));
    for existing in ["merge", "keep-v3"] {
        let out = temp.path().join(existing);
        convert(&[&source], &out, &["--existing", existing]).success();
        let found = members(&out.join("member/snap/db"));
        assert_eq!((&found["members"][0]["id"], &found["members"][0]["name"]), (&"a1".into(), &"m1".into()), "{found}");
        assert_eq!(found["cluster_version"], "3.4.0", "{found}");
    }
}

/// Only one of three has the last entry, so nothing proves a commit. It stays in the log of that member, and can still be committed.
#[test]
fn writes_that_the_next_leader_may_commit_are_a_loss() {
    let source = Source::new(&[(0xa1, "m1"), (0xa2, "m2"), (0xa3, "m3")]);
    let temp = scratch::temp();
    let before = source.entries().len() - 1;
    let sources = [
        source.write_with_tail(temp.path(), 0xa1),
        source.write_some(temp.path(), 0xa2, before),
        source.write_some(temp.path(), 0xa3, before),
    ];
    let output = convert(&sources, &temp.path().join("out"), &[]);
    assert_eq!(output.status, 8, "{}", output.story());
    for words in ["the next leader may commit them", "hint: --tail all commits them on all members"] {
        assert!(output.stderr.contains(words), "{words}: {}", output.story());
    }
    let all = convert(&sources, &temp.path().join("all"), &["--tail", "all"]).success();
    assert!(!all.stderr.contains("may commit them"), "{}", all.story());
    etcdlift(["verify".as_ref(), temp.path().join("all").as_os_str()]).success();
}
