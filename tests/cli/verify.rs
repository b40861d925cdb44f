//! `etcdlift verify`: files that are sound, and the differences that it finds in others.
//!
//! Uses outputs of the demo directory, damaged copies of them, databases of the corpus, and databases of real etcd
//! servers.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use etcdlift::internals::bolt::Db;
use etcdlift::internals::output::report_file;
use etcdlift::internals::pipeline::{Fault, convert_with};
use etcdlift::options::ConvertOptions;
use etcdlift::report::Report;

use crate::common::convert::{convert, convert_to};
use crate::common::etcdctl::Etcdctl;
use crate::common::peers::{self, Version};
use crate::common::run::{Output, all_well, etcdlift};
use crate::common::server::{Boot, Server};
use crate::common::v2files::snap;
use crate::common::v2store::{joined, leaf, store};
use crate::common::{corpus, scratch};
use crate::test_name;

const DEMO: &str = "fixtures/demo/input/default.etcd";
const AS_OF: &str = "2026-12-01T00:00:00Z";

fn verify(out: &Path, options: &[&str]) -> Output {
    etcdlift([&["verify", out.to_str().unwrap()], options].concat())
}

/// The demo, converted; the file and its report.
fn demo(folder: &Path, options: &[&str]) -> (PathBuf, PathBuf) {
    let converted = convert_to(Path::new(DEMO), folder, [&["--as-of", AS_OF], options].concat());
    converted.output.success();
    (converted.snapshot, converted.report)
}

#[test]
fn an_output_is_what_its_report_and_its_source_say() {
    let temp = scratch::temp();
    for (at, options) in [
        &[][..],
        &["--to", "backend"],
        &["--revisions", "dense", "--hidden", "drop", "--dirs", "marker"],
        &["--map", "/config=/c", "--exclude", "/queue", "--ttl", "fixed:1h"],
        &["--bump-revision", "100", "--as-of", "last-write"],
    ]
    .into_iter()
    .enumerate()
    {
        let folder = temp.path().join(at.to_string());
        let options: Vec<&str> = if options.contains(&"--as-of") { options[..2].to_vec() } else { options.to_vec() };
        let (out, report) = demo(&folder, &options);
        let report = report.to_str().unwrap();
        let output = verify(&out, &["--report", report, "--source", DEMO]).success();
        assert!(output.text().starts_with("VERIFIED, exit status 0: "), "{}", output.story());
        let json = verify(&out, &["--report", report, "--source", DEMO, "--json"]).success().json();
        let mut checked = vec!["structure", "store", "sha256", "report", "source"];
        if options.contains(&"backend") {
            checked.remove(2);
        }
        assert_eq!(json["checked"], serde_json::json!(checked));
        assert_eq!(json["differences"], serde_json::json!([]));
    }
    let (out, _) = demo(&temp.path().join("alone"), &[]);
    assert_eq!(verify(&out, &[]).success().stderr, "");
    let quiet = verify(&out, &["-q"]).success().text();
    assert_eq!(quiet, format!("VERIFIED, exit status 0: {}\n", out.display()));
}

#[test]
fn the_options_of_the_report_matter() {
    let temp = scratch::temp();
    let (out, report) = demo(&temp.path().join("a"), &["--hidden", "drop"]);
    let (_, other) = demo(&temp.path().join("b"), &[]);
    let fails = |options: &[&str], words: &[&str]| {
        let output = verify(&out, options);
        assert_eq!(output.status, 7, "{}", output.story());
        assert_eq!(output.stderr.lines().count(), 1, "{}", output.story());
        let said = format!("{}{}", output.text(), output.stderr);
        assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {}", output.story());
        assert!(output.text().starts_with("NOT VERIFIED, exit status 7: "), "{}", output.story());
    };
    fails(&["--report", other.to_str().unwrap()], &["sha256", "HashKV", "number of pairs 19, the file 17"]);
    fails(&["--report", other.to_str().unwrap(), "--source", DEMO], &["_internal/lock"]);
    verify(&out, &["--report", report.to_str().unwrap(), "--source", DEMO]).success();
}

#[test]
fn options_that_prevent_a_comparison_are_refused() {
    let temp = scratch::temp();
    let (out, report) = demo(&temp.path().join("a"), &[]);
    let refused = |status: i32, options: &[&str], words: &str| {
        let output = verify(&out, options);
        assert_eq!(output.status, status, "{}", output.story());
        // One line, and one more for a hint.
        let mut lines = output.stderr.lines();
        assert!(lines.next().is_some_and(|line| line.contains(words)), "{}", output.story());
        assert!(lines.all(|line| line.starts_with("hint: ")), "{}", output.story());
        assert!(output.stdout.is_empty());
    };
    refused(5, &["--source", DEMO], "keys with a TTL, and the instant");
    refused(5, &["--report", "Cargo.toml"], "Cargo.toml: expected the report of a conversion");
    refused(5, &["--report", "missing"], "missing: no such file or directory");
    refused(5, &["--report", report.to_str().unwrap(), "--source", "missing"], "missing: ");
    refused(2, &["--source", DEMO, "--wal-dir", "a", "--wal-dir", "b"], "--wal-dir");
    let failed = convert_to(Path::new("Cargo.toml"), &temp.path().join("b"), ["--jobs", "1"]);
    refused(5, &["--report", failed.report.to_str().unwrap()], "without an output");
    let text = verify(Path::new("Cargo.toml"), &[]);
    assert_eq!(text.status, 7, "{}", text.story());
}

#[test]
fn a_lost_pair_is_found_by_the_report_and_by_the_source() {
    let temp = scratch::temp();
    let out = temp.path().join("out.db");
    let mut options = ConvertOptions::new(DEMO, &out);
    options.as_of = AS_OF.parse().unwrap();
    options.verify = false;
    let mut report = Report::new(&options);
    let fault = Fault { lost_row: 7, unseen_by_totals: true };
    convert_with(&options, &mut report, Some(fault), &|| Ok(())).unwrap();
    let path = temp.path().join("report.json");
    std::fs::write(&path, report_file::to_json(&report).unwrap()).unwrap();
    let path = path.to_str().unwrap();
    // In itself it is sound.
    verify(&out, &[]).success();
    let by_report = verify(&out, &["--report", path]);
    assert_eq!(by_report.status, 7);
    assert!(by_report.stderr.contains("number of pairs 19, the file 18"), "{}", by_report.story());
    let by_both = verify(&out, &["--report", path, "--source", DEMO, "--json"]);
    assert_eq!(by_both.status, 7);
    assert_eq!(by_both.json()["differences"].as_array().unwrap().len(), 2, "{}", by_both.story());
}

/// A changed value with every checksum put right: only the source can tell.
#[test]
fn a_changed_value_is_found() {
    let temp = scratch::temp();
    let (out, report) = demo(temp.path(), &["--to", "backend"]);
    let bytes = fs::read(&out).unwrap();
    let db = Db::open(&bytes).unwrap();
    let bucket = db.bucket(b"key").unwrap().unwrap();
    let pair = bucket.iter().find_map(|pair| pair.ok().filter(|pair| pair.value.ends_with(b"held"))).unwrap();
    let at = pair.value_offset() + (pair.value.len() - 4) as u64;
    let file = fs::File::options().write(true).open(&out).unwrap();
    file.write_all_at(b"HELD", at.0).unwrap();
    verify(&out, &[]).success();
    let output = verify(&out, &["--report", report.to_str().unwrap(), "--source", DEMO]);
    assert_eq!(output.status, 7, "{}", output.story());
    assert!(output.text().contains("another value (expected 4 bytes, found 4 bytes)"), "{}", output.story());
}

#[test]
fn every_damaged_page_is_found() {
    let temp = scratch::temp();
    let (out, _) = demo(temp.path(), &[]);
    let sound = fs::read(&out).unwrap();
    let damaged = temp.path().join("damaged.db");
    let mut missed = Vec::new();
    for at in (0..sound.len()).step_by(97) {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x10;
        fs::write(&damaged, bytes).unwrap();
        let output = verify(&damaged, &[]);
        if output.status != 7 {
            missed.push(format!("byte {at}: {}", output.story()));
        }
    }
    all_well(&missed);
}

#[test]
fn corpus_directories_are_what_their_files_hold() {
    let Some(scenarios) = corpus::of_kinds(test_name!(), &["a", "b", "h", "p", "z2"]) else { return };
    let mut wrong = Vec::new();
    for scenario in &scenarios {
        for data_dir in scenario.live() {
            let converted = convert(scenario, data_dir);
            if !converted.snapshot.exists() {
                continue;
            }
            let source = scenario.data_dir(data_dir);
            let report = converted.report.to_str().unwrap();
            let output = verify(&converted.snapshot, &["--report", report, "--source", source.to_str().unwrap()]);
            if output.status != 0 {
                wrong.push(format!("{}/{data_dir}: {}", scenario.name, output.story()));
            }
        }
    }
    all_well(&wrong);
}

#[test]
fn the_database_of_every_etcd_is_sound() {
    let Some(peers) = peers::require(test_name!()) else { return };
    for version in [Version::V3_4, Version::V3_5, Version::V3_6, Version::V3_7] {
        let temp = scratch::temp();
        let data_dir = temp.path().join("data");
        let server = Server::start(&Boot::new(&peers, version, &data_dir));
        let ctl = Etcdctl::new(&peers, &server);
        for n in 0..40 {
            ctl.put(&format!("/k{}", n % 7), &"v".repeat(n * 300));
        }
        ctl.del("/k3");
        ctl.compaction(20);
        ctl.put_with_new_lease("/leased", "x", 600);
        ctl.put("/k3", "again");
        ctl.add_user("root", "secret");
        let snapshot = temp.path().join("saved.db");
        ctl.save(&snapshot);
        server.stop();
        for (file, trailer) in [(&snapshot, true), (&data_dir.join("member/snap/db"), false)] {
            let output = verify(file, &["--json"]);
            assert_eq!(output.status, 0, "etcd {version}: {}", output.story());
            let json = output.json();
            let kind = if trailer { "v3-snapshot" } else { "v3-db" };
            assert_eq!((&json["kind"], &json["leases"], &json["users"]), (&kind.into(), &1.into(), &1.into()));
            assert_eq!(json["keys"], 8, "etcd {version}: {json}");
        }
    }
}

/// Another source is named first, by sha256, and then the keys in which it differs.
#[test]
fn another_source_is_named_and_its_keys_are_listed() {
    let temp = scratch::temp();
    let children =
        |keys: std::ops::Range<u32>, value: &str| joined(keys.map(|n| leaf(&format!("k{n:02}"), u64::from(n), value)));
    let write = |name: &str, children: &str| {
        let path = temp.path().join(name);
        fs::write(&path, snap(store(99, children).as_bytes(), 9)).unwrap();
        path
    };
    let source = write("a.snap", &children(10..50, "x"));
    let converted = convert_to(&source, &temp.path().join("a"), ["--jobs", "1"]);
    converted.output.success();
    let report = converted.report.to_str().unwrap();
    let against = |source: &Path, options: &[&str]| {
        verify(&converted.snapshot, &[&["--report", report, "--source", source.to_str().unwrap()], options].concat())
    };
    against(&source, &[]).success();
    // The same keys in another file: said, and no difference.
    let same = write("same.snap", &format!("{} ", children(10..50, "x")));
    let output = against(&same, &[]).success();
    assert!(output.text().contains("warning: this is not the source of the report: "), "{}", output.story());

    let one = write(
        "one.snap",
        &children(10..50, "x")
            .replace(r#""Value":"x","Children":null},"k12""#, r#""Value":"yy","Children":null},"k12""#),
    );
    let output = against(&one, &["--json"]);
    assert_eq!(output.status, 7, "{}", output.story());
    assert!(
        output.stderr.contains("one.snap has the sha256 ") && output.stderr.contains("(and 1 more)"),
        "{}",
        output.story()
    );
    let json = output.json();
    assert_eq!(json["differing_keys"], 1);
    let lines: Vec<&str> = json["differences"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    assert!(lines[0].starts_with("this is not the source of the report: ") && lines[0].contains("sha256"), "{lines:?}");
    assert!(lines[1].ends_with("key /k11: another value (expected 2 bytes, found 1 bytes)"), "{lines:?}");

    // 5 are missing, 8 are too much, 35 have another value.
    let many = write("many.snap", &children(15..58, "other"));
    let json = against(&many, &["--json"]).json();
    assert_eq!(json["differing_keys"], 48);
    let lines: Vec<&str> = json["differences"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    assert_eq!(lines.len(), 22, "{lines:?}");
    assert!(lines[1].contains("key /k10: extra: the file has it"), "{lines:?}");
    assert!(lines[21].ends_with("and 28 more keys differ"), "{lines:?}");
    assert!(against(&many, &[]).text().lines().filter(|line| line.starts_with("wrong: ")).count() == 22);
    // A key that the file lacks.
    let more = write("more.snap", &children(10..51, "x"));
    let output = against(&more, &[]);
    assert!(output.text().contains("key /k50: missing: the source has it"), "{}", output.story());
}
