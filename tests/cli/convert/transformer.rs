//! `--transformer`: the examples in fixtures, the same program through `etcdctl migrate`, and programs that crash, lie
//! or hang.
//!
//! Programs are started by the name of a link in a folder of the test's own: what they leave is found next to it. Those
//! in Python need python3 (3.8 or later).

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use serde_json::{Value, json};

use super::kit::{Case, Run, demo, one_line, rows};
use crate::common::corpus::{self, Scenario};
use crate::common::dump::Dump;
use crate::common::golden::golden;
use crate::common::peers::{self, Peers};
use crate::common::rows::{Row, differences};
use crate::common::run::{all_well, bounded, etcdlift_path, make_script, run};
use crate::common::scratch::{copy_tree, names};
use crate::common::skip::{Need, skip};
use crate::common::v2files::snap;
use crate::common::v2store::{leaf, store};
use crate::test_name;

const AS_OF: [&str; 2] = ["--as-of", "2026-12-01T00:00:00Z"];
const LINES: [&str; 2] = ["--transformer-protocol", "json-lines"];

/// Converts with a program.
fn convert(case: &Case, source: &Path, program: &Path, options: &[&str]) -> Run {
    let mut all = vec!["--transformer", program.to_str().unwrap()];
    all.extend(options);
    case.run(source, &all)
}

/// A program of the tests, under this name.
fn program(case: &Case, name: &str, file: &str) -> PathBuf {
    let link = case.path(name);
    symlink(Path::new(env!("CARGO_MANIFEST_DIR")).join(file), &link).unwrap();
    link
}

fn liar(case: &Case, name: &str) -> PathBuf {
    program(case, name, "tests/cli/convert/transformers/liar.py")
}

fn has_python(test: &str) -> bool {
    let found = Command::new("python3").arg("--version").stdout(Stdio::null()).status().is_ok_and(|s| s.success());
    if !found {
        skip(test, Need::Python, "python3 is not installed");
    }
    found
}

/// The processes that a program noted, and that none of them is left.
fn all_gone(program: &Path, count: usize) {
    let mut pids = program.as_os_str().to_owned();
    pids.push(".pids");
    let pids = fs::read_to_string(pids).unwrap();
    assert_eq!(pids.lines().count(), count);
    for pid in pids.lines() {
        // What nobody waits for stays as a zombie where the machine has no one to do so.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit(") ").next().unwrap_or_default().chars().next();
        assert!(matches!(state, None | Some('Z')), "{pid} is left: {stat}");
    }
}

// What it makes.

#[test]
fn the_examples_make_what_is_written_down() {
    if !has_python(test_name!()) {
        return;
    }
    for (name, protocol) in [("transformer-migrate", "migrate"), ("transformer-json-lines", "json-lines")] {
        let case = Case::new();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
        let options = [&AS_OF[..], &["--transformer-protocol", protocol]].concat();
        let run = convert(&case, &demo(), &folder.join("input/transformer.py"), &options);
        let line = |row: &Row| {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let pair = json!({"key": text(&row.key), "value": text(&row.value), "create_revision": row.create,
                "mod_revision": row.modified, "version": row.version, "lease": row.lease});
            format!("{pair}\n")
        };
        let found: String = run.converted(0).iter().map(line).collect();
        golden(folder.join("expected/pairs.ndjson"), found);
    }
}

#[test]
fn a_transformer_that_changes_nothing_changes_no_byte() {
    let plain = Case::new();
    let expected = plain.run(&demo(), &AS_OF);
    expected.converted(0);
    for jobs in ["1", "2", "3", "1000"] {
        let case = Case::new();
        let options = [&AS_OF[..], &LINES, &["--transformer-jobs", jobs]].concat();
        let run = convert(&case, &demo(), Path::new("cat"), &options);
        run.converted(0);
        assert!(run.bytes() == expected.bytes(), "{jobs} jobs");
        let made = &run.report()["transformed"];
        assert_eq!((&made["nodes"], &made["pairs"], &made["added"]), (&29.into(), &19.into(), &0.into()));
    }
}

/// Names and values that are no UTF-8, TTLs, thousands of keys.
#[test]
fn nothing_changes_in_the_corpus_either() {
    let Some(scenarios) = corpus::of_kinds(test_name!(), &["a", "b"]) else { return };
    for scenario in scenarios {
        let source = scenario.data_dir("m0.etcd");
        for revisions in ["keep", "dense"] {
            let mut options =
                vec!["--as-of", &scenario.truth.captured_at, "--revisions", revisions, "--auth", "ignore"];
            options.extend(scenario.truth.source_version());
            let (plain, case) = (Case::new(), Case::new());
            let expected = plain.run(&source, &options);
            expected.converted(0);
            let run = convert(&case, &source, Path::new("cat"), &[&options[..], &LINES].concat());
            run.converted(0);
            assert!(run.bytes() == expected.bytes(), "{} {revisions}", scenario.name);
        }
    }
}

#[test]
fn names_and_values_that_are_no_text_are_refused_as_etcdctl_would_spoil_them() {
    let Some(scenario) = corpus::scenario(test_name!(), "v3.4.23-a") else { return };
    let case = Case::new();
    let words = ["m0.etcd: key /", "is not UTF-8", "--transformer-protocol json-lines"];
    convert(&case, &scenario.data_dir("m0.etcd"), Path::new("cat"), &[]).refused(5, "not-utf8", &words);
}

#[test]
fn missing_pairs_are_dropped_and_new_ones_added() {
    let case = Case::new();
    let tee = program(&case, "tee", "tests/cli/convert/transformers/tee.sh");
    let run = convert(&case, &demo(), &tee, &LINES);
    run.refused(4, "nothing-to-convert", &["leave none of 19 v2 keys", "--allow-empty"]);
    assert_eq!(run.report()["balance"]["dropped"]["keys"], 19);
    let run = convert(&case, &demo(), &tee, &[&LINES[..], &["--allow-empty", "--overwrite"]].concat());
    assert!(run.converted(0).is_empty());

    if has_python(test_name!()) {
        let case = Case::new();
        let run = convert(&case, &demo(), &liar(&case, "ahead"), &LINES);
        let rows = run.converted(0);
        assert_eq!((rows.len(), rows[0].modified, rows[19_999].key.as_slice()), (20_000, 100, &b"/20099"[..]));
        assert_eq!(
            (&run.report()["transformed"]["added"], &run.report()["output"]["revision"]),
            (&20_000.into(), &20_099.into())
        );
        assert!(run.output.stderr.contains("29 nodes sent, 20000 pairs back, 20000 without a v2 key"));
    }
}

/// More than any pipe holds, in both directions.
#[test]
fn large_values_pass_through() {
    let case = Case::new();
    let values: Vec<String> = (0..12).map(|n| "v".repeat(1 << (n + 10))).collect();
    let leaves: Vec<String> = values.iter().zip(2..).map(|(value, n)| leaf(&format!("k{n}"), n, value)).collect();
    let source = case.file("large.snap", snap(store(40, &leaves.join(",")).as_bytes(), 9));
    let options = [&LINES[..], &["--transformer-jobs", "2"]].concat();
    let rows = convert(&case, &source, Path::new("cat"), &options).converted(0);
    assert_eq!(
        rows.iter().map(|row| row.value.len()).collect::<Vec<_>>(),
        values.iter().map(String::len).collect::<Vec<_>>()
    );
}

#[test]
fn options_decide_what_is_sent() {
    let sent = |options: &[&str]| {
        let case = Case::new();
        let tee = program(&case, "tee", "tests/cli/convert/transformers/tee.sh");
        let as_of = if options.contains(&"--as-of") { &[][..] } else { &AS_OF };
        let options = [&LINES[..], as_of, &["--allow-empty"], options].concat();
        convert(&case, &demo(), &tee, &options).converted(0);
        let text = fs::read_to_string(case.path("tee.sent")).unwrap();
        let key = |line: &str| serde_json::from_str::<Value>(line).unwrap()["key"].as_str().unwrap().to_owned();
        text.lines().map(key).collect::<Vec<_>>()
    };
    let all = sent(&[]);
    assert!(all.len() == 29 && all[0] == "/" && all.contains(&"/_internal/lock".into()) && all.is_sorted(), "{all:?}");
    let shown = sent(&["--hidden", "drop"]);
    assert_eq!(shown.len(), 26);
    assert!(!shown.iter().any(|key| key.contains("/_")), "{shown:?}");
    assert_eq!(sent(&["--include", "/config"]), ["/", "/config", "/config/empty", "/config/motd"]);
    let expired = sent(&["--as-of", "2090-01-01T00:00:00Z"]);
    assert!(!expired.contains(&"/sessions/alice".into()) && expired.contains(&"/sessions".into()), "{expired:?}");
    assert_eq!(sent(&["--ttl", "drop"]), expired);
}

#[test]
fn the_ledger_says_what_became_of_each_node_and_which_pairs_are_new() {
    if !has_python(test_name!()) {
        return;
    }
    let case = Case::new();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/transformer-json-lines/input/transformer.py");
    let ledger = case.path("ledger.ndjson");
    let options = [&LINES[..], &["--ledger", ledger.to_str().unwrap()]].concat();
    let rows = convert(&case, &demo(), &example, &options).converted(0);
    let text = fs::read_to_string(ledger).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let written = |line: &&Value| line.get("revision").is_some();
    let keys: Vec<_> = lines.iter().filter(written).map(|line| line["key"].as_str().unwrap().as_bytes()).collect();
    assert_eq!(keys, rows.iter().map(|row| row.key.as_slice()).collect::<Vec<_>>());
    let with = |name: &str, value: Value| lines.iter().filter(|line| line[name] == value).count();
    assert_eq!((with("added", true.into()), with("reason", "transformer".into()), lines.len()), (8, 4, 19 + 8 + 9));
    assert!(lines.iter().filter(|line| line["added"] == true).all(|line| line.get("path").is_none()));
}

#[test]
fn verify_runs_the_program_that_it_is_given_and_none_that_a_report_names() {
    let case = Case::new();
    let tee = program(&case, "tee", "tests/cli/convert/transformers/tee.sh");
    let script = case.path("keep");
    make_script(&script, "#!/bin/sh\nexec sed s,/counter,/count,\n");
    convert(&case, &demo(), &script, &LINES).converted(0);
    let (out, report, demo) = (case.out(), case.report(), demo());
    let verify = |more: &[&str]| {
        let mut command = bounded(Path::new(etcdlift_path()), 60);
        command.arg("verify").arg(&out).arg("--report").arg(&report).arg("--source").arg(&demo);
        run(command.args(more))
    };
    verify(&["--transformer", script.to_str().unwrap()]).success();
    let output = verify(&[]);
    assert_eq!(output.status, 5, "{}", output.story());
    one_line(&output, &["report.json: the conversion ran the transformer ", "name the program with --transformer"]);
    let output = verify(&["--transformer", "cat"]);
    assert_eq!(output.status, 7, "{}", output.story());
    one_line(&output, &["/count"]);
    let output = verify(&["--transformer", tee.to_str().unwrap()]);
    assert_ne!(output.status, 0, "{}", output.story());
}

// Compared with etcdctl.

/// A run of `etcdctl migrate` over a copy; the database that it has made.
fn migrate(peers: &Peers, case: &Case, source: &Path, program: &Path) -> PathBuf {
    let copy = case.path("copy");
    let _ = fs::remove_dir_all(&copy);
    copy_tree(source, &copy);
    let mut command = bounded(&peers.etcdctl_3_4(), 60);
    command.env("ETCDCTL_API", "3").arg("migrate").arg("--data-dir").arg(&copy);
    run(command.arg("--transformer").arg(program)).success();
    copy.join("member/snap/db")
}

/// Directories that etcdctl reads as their server would, and in which all is text.
fn sources(test: &str) -> Option<Vec<(String, PathBuf)>> {
    let mut found = vec![("demo".to_string(), demo())];
    for name in ["v2.0.13-b", "v2.2.5-b", "v2.3.8-b", "v2.3.8-d", "v3.0.17-b", "v3.3.27-e", "v3.4.23-b", "v3.4.23-e"] {
        let scenario: std::sync::Arc<Scenario> = corpus::scenario(test, name)?;
        found.push((name.into(), scenario.data_dir("m0.etcd")));
    }
    Some(found)
}

#[test]
fn requests_equal_those_of_etcdctl() {
    let Some(peers) = peers::require(test_name!()) else { return };
    let Some(sources) = sources(test_name!()) else { return };
    for (name, source) in sources {
        let case = Case::new();
        let [theirs, ours] =
            ["theirs", "ours"].map(|name| program(&case, name, "tests/cli/convert/transformers/tee.sh"));
        migrate(&peers, &case, &source, &theirs);
        let options = ["--as-of", "now", "--hidden", "drop", "--expired", "keep", "--auth", "ignore", "--allow-empty"];
        convert(&case, &source, &ours, &options).converted(0);
        let [theirs, ours] = ["theirs.sent", "ours.sent"].map(|name| fs::read_to_string(case.path(name)).unwrap());
        assert!(theirs.len() > 500, "{name}");
        // Both count against the clock, one after the other.
        let (theirs, ours) = (without_ttl(&theirs), without_ttl(&ours));
        assert!(theirs.0 == ours.0, "{name}: {}", first_difference(&theirs.0, &ours.0));
        let close = |(a, b): (&i64, &i64)| (a - b).abs() < 60;
        assert!(theirs.1.len() == ours.1.len() && theirs.1.iter().zip(&ours.1).all(close), "{name}");
    }
}

/// What was sent without the numbers of its `ttl`s, and these.
fn without_ttl(sent: &str) -> (String, Vec<i64>) {
    let mut parts = sent.split(",\"ttl\":");
    let mut text = parts.next().unwrap().to_owned();
    let mut numbers = Vec::new();
    for part in parts {
        let end = part.find(',').unwrap();
        numbers.push(part[..end].parse().unwrap());
        text.push_str(&part[end..]);
    }
    (text, numbers)
}

fn first_difference(a: &str, b: &str) -> String {
    let at = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let around = |text: &str| {
        String::from_utf8_lossy(&text.as_bytes()[at.saturating_sub(80)..(at + 80).min(text.len())]).into_owned()
    };
    format!("\n{}\n{}", around(a), around(b))
}

#[test]
fn the_same_program_makes_the_same_pairs_through_etcdctl() {
    let Some(peers) = peers::require(test_name!()) else { return };
    let Some(sources) = sources(test_name!()) else { return };
    if !has_python(test_name!()) {
        return;
    }
    for (name, source) in sources {
        let case = Case::new();
        let linger = program(&case, "linger", "tests/cli/convert/transformers/linger.sh");
        let example = program(&case, "linger.real", "fixtures/transformer-migrate/input/transformer.py");
        let db = migrate(&peers, &case, &source, &linger);
        let expected = Dump::of(&peers, &db).rows();
        assert!(expected.len() > 10, "{name}");
        let options = ["--expired", "keep", "--auth", "ignore"];
        let mut found = convert(&case, &source, &example, &options).converted(0);
        let all = found.len();
        // etcdctl knows neither hidden keys nor leases.
        found.retain(|row| !row.key.windows(2).any(|two| two == b"/_"));
        assert!(found.len() < all, "{name}");
        found.iter_mut().for_each(|row| row.lease = 0);
        all_well(&differences(&expected, &found));
    }
}

// What fails.

#[test]
fn lies_are_refused() {
    if !has_python(test_name!()) {
        return;
    }
    for (name, words) in [
        ("truncated-length", "truncated: 3 of the 8 bytes of its length"),
        ("truncated-frame", "the frame at byte 48 of its output: truncated: 13 of 16 bytes"),
        ("huge", "expected a length of up to 2147483646 bytes, found 4611686018427387904"),
        ("large", "truncated: 13 of 1073741824 bytes"),
        ("negative", "expected a length of up to 2147483646 bytes, found -1"),
        ("text", "the frame at byte 0 of its output: expected a length of up to"),
        ("no-protobuf", "expected a KeyValue message, found at byte 57 no length within the message"),
        ("wrong-type", "expected a KeyValue message, found at byte 56 no length-delimited field"),
        ("same-revision", "expected one pair at each mod_revision, found /fine and /other at 5"),
        ("same-key", "expected each key once, found /good at the mod_revisions 4 and 6"),
        ("revision-0", "key /zero: expected a mod_revision from 1 to 2^62, found 0"),
        ("revision-below-0", "key /minus: expected a mod_revision from 1 to 2^62, found -1"),
        ("revision-too-high", "key /high: expected a mod_revision from 1 to 2^62, found 4611686018427387905"),
        ("created-later", "key /early: expected a create_revision from 1 to its mod_revision 6, found 7"),
        ("version-0", "key /none: expected a version of at least 1, found 0"),
        (
            "unknown-lease",
            "key /leased: expected lease 0 (that of its node) or one of the conversion's leases, found 77",
        ),
        ("no-name", "expected a name, found none"),
    ] {
        let case = Case::new();
        let liar = liar(&case, name);
        let run = convert(&case, &demo(), &liar, &[]);
        run.refused(5, "transformer-failed", &[&format!("{name}: the transformer's answers cannot be used: "), words]);
        all_gone(&liar, 1);
    }
}

#[test]
fn crashes_and_programs_that_do_not_listen_are_refused() {
    if !has_python(test_name!()) {
        return;
    }
    for (name, words) in [
        ("crash", "it ended with exit status 3"),
        ("crash-behind-answers", "it ended with exit status 1"),
        ("killed", "signal 9 (SIGKILL) ended it"),
        ("deaf", "it ended with exit status 0 before it read all nodes"),
        ("hard-of-hearing", "it ended with exit status 0 before it read all nodes"),
    ] {
        // Those that answer all the same answer alike, and that is noticed first.
        let answers = ["crash-behind-answers", "hard-of-hearing"].contains(&name);
        for jobs in if answers { &["1"][..] } else { &["1", "3"] } {
            let case = Case::new();
            let liar = liar(&case, name);
            let run = convert(&case, &demo(), &liar, &["--transformer-jobs", jobs]);
            run.refused(5, "transformer-failed", &[&format!("{name}: the transformer failed: "), words]);
        }
    }
    let case = Case::new();
    let text = case.file("text", "no program");
    let words = ["text: cannot start the transformer: Permission denied"];
    convert(&case, &demo(), &text, &[]).refused(5, "transformer-failed", &words);
    let words = ["missing: cannot start the transformer: No such file"];
    convert(&case, &demo(), &case.path("missing"), &[]).refused(5, "transformer-failed", &words);
}

#[test]
fn a_program_that_answers_for_ever_is_ended() {
    if !has_python(test_name!()) {
        return;
    }
    let more = ["that it received, found more"];
    let twice = ["expected one pair at each mod_revision, found /good and /good at 4"];
    let small = ["--transformer-answer-limit", "1MiB"];
    for (name, options, words) in [
        ("endless-line", &LINES[..], more),
        ("endless-directories", &LINES[..], more),
        ("endless-frames", &small[..], more),
        ("endless-twins", &[], twice),
    ] {
        let case = Case::new();
        let liar = liar(&case, name);
        let run = convert(&case, &demo(), &liar, options);
        run.refused(5, "transformer-failed", &["the transformer's answers cannot be used: ", words[0]]);
        all_gone(&liar, 1);
    }
}

#[test]
fn a_hung_program_is_ended_with_all_that_it_started() {
    if !has_python(test_name!()) {
        return;
    }
    for (name, processes) in [("hung", 1), ("mute", 1), ("leaves-one-talking", 2)] {
        let case = Case::new();
        let liar = liar(&case, name);
        let begun = Instant::now();
        let run = convert(&case, &demo(), &liar, &["--transformer-timeout", "1"]);
        assert!(begun.elapsed() < Duration::from_secs(20), "{name}");
        run.refused(5, "transformer-failed", &["no progress for 1 s", "--transformer-timeout"]);
        all_gone(&liar, processes);
    }
}

#[test]
fn children_of_the_program_are_ended() {
    if !has_python(test_name!()) {
        return;
    }
    let case = Case::new();
    let liar = liar(&case, "leaves-one");
    assert_eq!(convert(&case, &demo(), &liar, &[]).converted(0).len(), 2);
    all_gone(&liar, 2);
}

#[test]
fn a_slow_program_is_not_a_hung_one() {
    if !has_python(test_name!()) {
        return;
    }
    let case = Case::new();
    let options = [&LINES[..], &["--transformer-timeout", "3"]].concat();
    let run = convert(&case, &demo(), &liar(&case, "slow"), &options);
    assert_eq!(run.converted(0).len(), 19);
}

#[test]
fn an_interrupt_ends_the_program() {
    if !has_python(test_name!()) {
        return;
    }
    let case = Case::new();
    let liar = liar(&case, "hung");
    let mut command = Command::new(etcdlift_path());
    command.arg("convert").arg(demo()).arg("-o").arg(case.out()).arg("--transformer").arg(&liar);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while !case.path("hung.pids").exists() && begun.elapsed() < Duration::from_secs(60) {
        thread::sleep(Duration::from_millis(5));
    }
    // Until it has noted its number.
    thread::sleep(Duration::from_millis(200));
    let kill = Command::new("sh").args(["-c", &format!("kill -TERM {}", child.id())]).status();
    assert!(kill.unwrap().success());
    let ended = loop {
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        if begun.elapsed() > Duration::from_secs(90) {
            child.kill().unwrap();
            panic!("it does not end");
        }
        thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(ended.code(), Some(143));
    assert!(names(&case.path("out")).is_empty());
    all_gone(&liar, 1);
}

#[test]
fn an_output_of_another_program_is_not_left_alone() {
    let case = Case::new();
    let cat = case.path("cat");
    let make = |text: &str| make_script(&cat, text);
    make("#!/bin/sh\nexec cat\n");
    let options = [&LINES[..], &AS_OF, &["--skip-existing"]].concat();
    convert(&case, &demo(), &cat, &[&LINES[..], &AS_OF].concat()).converted(0);
    let report = fs::read(case.report()).unwrap();
    let again = |options: &[&str]| {
        fs::write(case.path("kept.json"), &report).unwrap();
        let mut command = bounded(Path::new(etcdlift_path()), 60);
        command.arg("convert").arg(demo()).arg("-o").arg(case.out()).arg("--transformer").arg(&cat);
        run(command.args(options).arg("--report").arg(case.path("kept.json")))
    };
    assert_eq!(rows(&case.out()).len(), 19);
    again(&options).success();
    make("#!/bin/sh\nexec grep -v queue\n");
    let output = again(&options);
    assert_eq!(output.status, 5, "{}", output.story());
    assert!(output.stderr.contains("it was made with another transformer"), "{}", output.story());
}

/// What `--memory-limit` leaves is a limit for the answers, too.
#[test]
fn answers_stay_within_the_memory_limit() {
    let case = Case::new();
    let script = "#!/bin/sh\ncat >/dev/null\nhead -c 50000000 /dev/zero | tr '\\0' x\n";
    let program = super::harm::executable(&case, "long", script);
    let run = case.run(
        &demo(),
        &["--transformer", &program, "--transformer-protocol", "json-lines", "--memory-limit", "40MiB", "--jobs", "1"],
    );
    run.refused(5, "memory-limit", &["long: ", "which --memory-limit allows, found more"]);
}
