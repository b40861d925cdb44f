//! Counts in messages: one is singular.
//!
//! The sources are made here with one of everything. Every command that counts converts, lists or refuses them.

use std::fs;
use std::path::Path;

use regex::Regex;

use super::kit::{AS_OF, Case, DEMO_WAL};
use crate::common::run::{Output, etcdlift, etcdlift_path, run};
use crate::common::v2files::snap;
use crate::common::v2store::{leaf, leaf_until, store};

/// A number one before a plural, with at most one word between them.
fn plural_of_one(text: &str) -> Option<String> {
    let one =
        Regex::new(r"(?:^|[^0-9.,:/-])(1 (?:(?:v2|v3|more|overflow|oversized|expired|other) )?([a-z]+s))\b").unwrap();
    let singular = ["as", "does", "has", "is", "ms", "was"];
    let mut found = one.captures_iter(text).filter(|found| !singular.contains(&&found[2]));
    found.next().map(|found| found[1].to_string())
}

fn check(output: &Output, words: &[&str]) {
    let text = output.stderr.clone() + &output.text();
    for word in words {
        assert!(text.contains(word), "{word:?} is not said: {}", output.story());
    }
    assert_eq!(plural_of_one(&text), None, "{}", output.story());
}

#[test]
fn the_check_finds_plurals_of_one() {
    for text in ["1 keys", "of 1 bytes)", "and 1 more findings", "has 1 v2 writes", "\n1 overflow pages"] {
        assert!(plural_of_one(text).is_some(), "{text}");
    }
    for text in [
        "1 key",
        "11 keys",
        "0.1 bytes",
        "read 1 ms",
        "1 key is",
        "revision 1",
        "1, 2 keys",
        "1-1 keys",
        "1 of 3 voters",
    ] {
        assert_eq!(plural_of_one(text), None, "{text}");
    }
}

/// A key of one byte with a TTL, bytes that are lost, users and roles: one of each.
fn one_of_each(case: &Case) -> std::path::PathBuf {
    let expires = leaf_until("a", 8, "x", "2027-01-01T00:00:00Z");
    case.file("a.snap", snap(store(9, &expires).as_bytes(), 9))
}

#[test]
fn of_a_conversion() {
    let case = Case::new();
    let source = one_of_each(&case);
    let summary = case.run(&source, &[]);
    summary.converted(0);
    let words = ["1 key, 3 bytes", "1 lease for 1 key, ", "TTL keys:"];
    check(&summary.output, &words);
    let out = case.out();
    check(&etcdlift(["inspect".as_ref(), out.as_os_str(), "--keys".as_ref()]), &["/a  created ", "  1 byte"]);
    check(&etcdlift(["verify".as_ref(), out.as_os_str()]), &["VERIFIED"]);
    check(&etcdlift(["export".as_ref(), out.as_os_str(), "-o".as_ref(), "-".as_ref()]), &["1 key at revision"]);
    check(&etcdlift(["inspect".as_ref(), source.as_os_str(), "--keys".as_ref()]), &["  1 byte  expires"]);
    check(&etcdlift(["export".as_ref(), source.as_os_str(), "-o".as_ref(), "-".as_ref()]), &["1 key at v2 index"]);
    fs::remove_file(&out).unwrap();
    for (options, status, words) in [
        (&["--ttl", "fail"][..], 5, &["--ttl fail refuses 1 key with a TTL"][..]),
        (&["--as-of", "last-write"], 5, &["1 key has a TTL"]),
        (&["--exclude", "/a"], 4, &["none of 1 v2 key"]),
        (&["--as-of", "9999-12-31T23:59:59Z"], 4, &["the only v2 key has expired"]),
        (&["--as-of", "9999-12-31T23:59:59Z", "--strict", "--allow-empty"], 5, &["1 expired key"]),
        (&["--as-of", "9999-12-31T23:59:59Z", "--expired", "keep"], 0, &["1 lease for 1 key, 2 seconds"]),
        (&["--as-of", "1600-01-01T00:00:00Z"], 0, &["1 key with a TTL of more than"]),
        (&["--request-limit", "1"], 0, &["oversized values:"]),
        (&["--dirs", "marker", "--revisions", "dense"], 0, &["1 key, 3 bytes"]),
    ] {
        let run = case.run(&source, options);
        assert_eq!(run.output.status, status, "{}", run.output.story());
        check(&run.output, words);
        let _ = fs::remove_file(&out);
    }
    let lost = case.file("b.snap", snap(store(9, &leaf("a", 8, r"\ufffd")).as_bytes(), 9));
    check(&case.run(&lost, &[]).output, &["1 node with bytes that are not UTF-8"]);
}

#[test]
fn of_sources_that_cannot_be_read() {
    let case = Case::new();
    for bytes in [&b"x"[..], &[8], &[8, 1, 18, 9, 1]] {
        let source = case.file("a.snap", bytes);
        check(&case.run(&source, &[]).output, &["a.snap: "]);
    }
    let source = case.demo();
    let whole = fs::read(source.join(DEMO_WAL)).unwrap();
    let frames = crate::common::v2files::frames(&whole);
    for (at, record) in [&frames[30], &frames[54]] {
        for end in [at + 1, at + 7, at + 9, record.end - 1] {
            fs::write(source.join(DEMO_WAL), &whole[..end]).unwrap();
            check(&case.run(&source, &["--allow-removed"]).output, &[]);
            check(&case.run(&source, &["--salvage"]).output, &[]);
            check(&etcdlift(["inspect".as_ref(), source.as_os_str(), "--wal".as_ref()]), &[]);
            let _ = fs::remove_file(case.out());
        }
    }
}

#[test]
fn of_a_transformer() {
    let case = Case::new();
    let source = one_of_each(&case);
    let pair = r#"{"key":"/a","value":"x","mod_revision":8}"#;
    for (name, lines, status, words) in [
        ("one", format!("cat >/dev/null; echo '{pair}'"), 0, "1 pair back"),
        ("short", "cat >/dev/null; printf '{'".to_string(), 5, "expected a line end after 1 byte"),
    ] {
        use std::os::unix::fs::PermissionsExt;
        let program = case.file(name, format!("#!/bin/sh\n{lines}\n"));
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let options = ["--transformer", program.to_str().unwrap(), "--transformer-protocol", "json-lines"];
        let run = case.run(&source, &options);
        assert_eq!(run.output.status, status, "{}", run.output.story());
        check(&run.output, &[words]);
        let _ = fs::remove_file(case.out());
    }
}

/// Every value of a damaged database's small numbers is said in a message at some place.
#[test]
fn of_a_damaged_database() {
    let case = Case::new();
    case.run(&one_of_each(&case), &[]).converted(0);
    let whole = fs::read(case.out()).unwrap();
    let damaged = case.path("damaged.db");
    let look = |bytes: &[u8]| {
        fs::write(&damaged, bytes).unwrap();
        for command in ["inspect", "verify"] {
            let output = etcdlift([command.as_ref(), damaged.as_os_str()]);
            check(&output, &[]);
        }
    };
    for page in 0..whole.len() / 4096 {
        // Kind, number of elements, overflow; and the first elements.
        for at in [8, 10, 12, 16, 20, 24, 28] {
            for value in [0, 1, 2, 0xff] {
                let mut bytes = whole.clone();
                bytes[page * 4096 + at] = value;
                look(&bytes);
            }
        }
    }
    for len in [1, 4096, 4097, whole.len() - 1, whole.len() - 4096] {
        look(&whole[..len]);
    }
}

#[test]
fn of_a_small_machine() {
    let case = Case::new();
    let source = one_of_each(&case);
    check(&case.run(&source, &["--memory-limit", "1"]).output, &["--memory-limit allows 1\n"]);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -f 1; exec \"$@\"", "sh", etcdlift_path(), "convert"]);
    check(&run(command.arg(&source).arg("-o").arg(case.out()).args(["--as-of", AS_OF])), &["out.db"]);
    assert!(!Path::new(&case.out()).exists());
}
