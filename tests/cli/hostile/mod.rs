//! Generated hostile sources: logs and snapshots that are small on disk and made to cost memory or time, damaged in
//! part, given to every command. Whatever they are, a run ends by itself with a status that an operator knows, within
//! bounds that grow with the size of the source, leaves nothing behind, and never touches the source.
//!
//! `ETCDLIFT_HOSTILE_CASES` says how many cases, or which (`1000..2000`). The files of a failed case remain, and the failure names them.

mod bounds;
mod shapes;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use bounds::{Bounds, Ended, run};
use shapes::Source;

use crate::common::random::{Random, seeds};
use crate::common::scratch::write_sparse;

/// Cases that are tried where the environment does not say.
const CASES: u64 = 1000;

/// The statuses that a hostile source may end with: done, damaged, nothing to convert, refused, blocked (`check` alone), possibly
/// incomplete.
const STATUSES: [i32; 6] = [0, 3, 4, 5, 7, 8];

#[test]
fn no_source_does_harm() {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut count = |what: String| *counts.entry(what).or_default() += 1;
    let (mut wrong, mut most) = (Vec::new(), 0f64);
    let cases = seeds("ETCDLIFT_HOSTILE_CASES", 0..CASES);
    let total = cases.end - cases.start;
    for seed in cases {
        let mut random = Random::new(seed);
        let dir = tempfile::Builder::new().prefix("hostile-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let source = Source::generate(&mut random);
        let path = source.write(&dir.path().join("source.etcd"), &mut random);
        fs::create_dir(dir.path().join("out")).unwrap();
        let args = command(&mut random, &path, dir.path());
        if args[0] == "check" {
            add_v3(&path);
        }
        let before = fingerprint(&path);
        let mut bounds = Bounds::of(&path, source.components);
        if args.iter().any(|arg| arg == "redb" || arg == "--index-map") {
            // The cache of redb.
            bounds.memory += 64 << 20;
        }
        let ended = run(&args, &bounds);
        bounds.allow(&dir.path().join("out"));
        let mut complaints = complaints(&ended, &bounds);
        if ended.status == 7 && args[0] != "check" {
            complaints.push("status 7".to_string());
        }
        if fingerprint(&path) != before {
            complaints.push("the source was changed".to_string());
        }
        complaints.extend(left_behind(dir.path(), ended.status));
        most = most.max(ended.seconds / bounds.seconds);
        if let Some(args) = verification(&args, ended.status, dir.path()).filter(|_| random.chance(25)) {
            let verified = run(&args, &bounds);
            count(format!("{:12} {}", args[0], verified.status));
            most = most.max(verified.seconds / bounds.seconds);
            if verified.status != 0 || verified.seconds > bounds.seconds {
                let Ended { status, seconds, stderr } = verified;
                complaints.push(format!("`verify` ends with {status} after {seconds:.2} s: {stderr}"));
            }
        }
        count(format!("{:12} {}", args[0], ended.status));
        count(format!("shape {}", source.name));
        if !complaints.is_empty() {
            let kept = dir.keep();
            let story = format!(
                "case {seed} ({}, {}, kept in {}): {}\n  etcdlift {}\n{}",
                source.name,
                source.size,
                kept.display(),
                complaints.join("; "),
                args.join(" "),
                ended
                    .stderr
                    .lines()
                    .take(3)
                    .map(|line| format!("  {}\n", &line[..floor(line, 300)]))
                    .collect::<String>()
            );
            let _ = std::io::stderr().write_all(story.as_bytes());
            wrong.push(story);
        }
    }
    let counts = counts.iter().map(|(what, count)| format!("{count:6} {what}\n")).collect::<String>();
    let most = 100.0 * most;
    let summary =
        format!("{counts}{total} cases, {} wrong; at most {most:.0} % of the time that is allowed\n", wrong.len());
    // Not `println!`: the test harness hides that of a test which passes.
    let _ = std::io::stderr().write_all(summary.as_bytes());
    assert!(wrong.is_empty(), "{} of {total} cases went wrong:\n{}", wrong.len(), wrong.join("\n"));
}

fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap()
}

/// Gives a data directory a v3 backend: without one, `check` refuses it.
fn add_v3(source: &Path) {
    let snap = source.join("member/snap");
    if snap.is_dir() && !snap.join("db").exists() {
        let mut db = fs::File::open("fixtures/upgrade-check/input/default.etcd/member/snap/db").unwrap();
        write_sparse(&mut db, &snap.join("db")).unwrap();
    }
}

/// One run of some command on the source.
fn command(random: &mut Random, source: &Path, dir: &Path) -> Vec<String> {
    let text = |path: &Path| path.to_str().unwrap().to_string();
    let at = |name: &str| text(&dir.join("out").join(name));
    let source = text(source);
    let mut args = match random.below(11) {
        0 => vec!["inspect".to_string(), source],
        1 => vec!["inspect".to_string(), source, "--keys".into(), "--json".into()],
        2 => vec!["inspect".to_string(), source, "--wal".into()],
        3 => {
            let (format, name) = random.pick(&[("ndjson", "e.ndjson"), ("redb", "e.redb")]);
            vec!["export".to_string(), source, "-o".into(), at(name), "--format".into(), format.into()]
        }
        4 => {
            let version = random.pick(&["3.6", "3.7"]);
            vec!["check".to_string(), source, "--json".into(), "--target-version".into(), version.to_string()]
        }
        5 => vec!["advise".to_string(), source, "--strip-leading-slash".into()],
        _ => vec!["convert".to_string(), source, "-o".into(), at("out.db"), "--report".into(), at("r.json")],
    };
    if matches!(args[0].as_str(), "convert" | "export") && random.chance(10) {
        // The log is also at a place of its own; or the same member is given twice, which is refused.
        let wal = Path::new(&args[1]).join("member/wal");
        match wal.is_dir() && random.chance(50) {
            true => args.extend(["--wal-dir".to_string(), text(&wal)]),
            false => args.push(args[1].clone()),
        }
    }
    if args[0] == "convert" {
        let sidecars = [("--ledger", "l.ndjson"), ("--index-map", "i.redb")];
        for (option, name) in sidecars {
            if random.chance(25) {
                args.extend([option.to_string(), at(name)]);
            }
        }
        for (option, value) in [
            ("--as-of", random.pick(&["last-write", "2020-01-01T00:00:00Z"])),
            ("--revisions", random.pick(&["keep", "dense"])),
            ("--dirs", random.pick(&["drop", "marker"])),
            ("--guest", "drop"),
            ("--auth", random.pick(&["migrate", "users-only", "ignore"])),
            ("--to", random.pick(&["snapshot", "backend"])),
            ("--jobs", random.pick(&["1", "2", "7"])),
            ("--memory-limit", random.pick(&["20MB", "100MB", "1GB"])),
            ("--existing", random.pick(&["merge", "drop-v3"])),
        ] {
            if random.chance(40) {
                args.extend([option.to_string(), value.to_string()]);
            }
        }
        for option in ["--allow-empty", "--salvage", "--allow-live", "--dry-run", "--no-verify", "--allow-removed"] {
            if random.chance(20) {
                args.push(option.to_string());
            }
        }
    }
    args
}

/// The output against its source, where there is one.
fn verification(args: &[String], status: i32, dir: &Path) -> Option<Vec<String>> {
    let at = |name: &str| dir.join("out").join(name);
    let made = args[0] == "convert" && matches!(status, 0 | 8) && at("out.db").exists();
    let text = |path: PathBuf| path.to_str().unwrap().to_string();
    let (out, report) = (text(at("out.db")), text(at("r.json")));
    made.then(|| ["verify", &out, "--report", &report, "--source", &args[1]].map(String::from).to_vec())
}

fn complaints(ended: &Ended, bounds: &Bounds) -> Vec<String> {
    let mut complaints = Vec::new();
    if !STATUSES.contains(&ended.status) {
        complaints.push(format!("status {}", ended.status));
    }
    if ended.seconds > bounds.seconds {
        complaints.push(format!("{:.2} s of processor time, {:.2} allowed", ended.seconds, bounds.seconds));
    }
    if ended.status != 0 && ended.stderr.is_empty() {
        complaints.push("an error without a word".to_string());
    }
    complaints
}

/// Files that a run of this status should not have left.
fn left_behind(dir: &Path, status: i32) -> Option<String> {
    let out = dir.join("out");
    let names: Vec<String> =
        fs::read_dir(out).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    let may_stand = |name: &String| name == "r.json" || (matches!(status, 0 | 8) && !name.starts_with('.'));
    names.iter().find(|name| !may_stand(name)).map(|name| format!("{name} was left behind"))
}

/// Every file of a source with its size, its times and its bytes.
fn fingerprint(path: &Path) -> Vec<(PathBuf, u64, Option<std::time::SystemTime>, u32)> {
    let mut out = Vec::new();
    let mut open = vec![path.to_path_buf()];
    while let Some(path) = open.pop() {
        let found = fs::metadata(&path).unwrap();
        if found.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            let crc = crc32c::crc32c(&fs::read(&path).unwrap());
            out.push((path, found.len(), found.modified().ok(), crc));
        }
    }
    out.sort();
    out
}
