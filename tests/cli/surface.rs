//! The command line as a new user meets it: help, version, completions, manual pages, wrong usage, quiet and coloured
//! output.
//!
//! Help, errors and summaries are compared with `tests/golden`. The few conversions use the demo directory.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::common::golden::golden;
use crate::common::run::etcdlift_path;
use crate::common::scratch;

fn etcdlift(args: &[&str]) -> Output {
    Command::new(etcdlift_path()).args(args).stdin(Stdio::null()).output().unwrap()
}

fn stdout(args: &[&str]) -> String {
    let output = etcdlift(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn version_names_the_package() {
    assert_eq!(stdout(&["--version"]), format!("etcdlift {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn help_lists_the_commands_that_exist() {
    let help = stdout(&["--help"]);
    for name in [
        "convert",
        "inspect",
        "compare",
        "check",
        "advise",
        "clean",
        "verify",
        "export",
        "lookup",
        "completions",
        "man",
    ] {
        assert!(help.contains(&format!("\n  {name} ")), "{name}: {help}");
    }
    assert!(help.contains("Exit status:"));
}

/// The examples of the help, in its order. Files that no earlier example makes are prepared.
#[test]
fn the_examples_run() {
    let temp = scratch::temp();
    let dir = temp.path();
    let fixture = |from: &str, to: &str| scratch::copy_tree(&Path::new("fixtures").join(from), &dir.join(to));
    fixture("demo/input/default.etcd", "default.etcd");
    ["m0.etcd", "m1.etcd", "m2.etcd"].iter().for_each(|name| fixture(&format!("members/{name}"), name));
    let run = |command: &str| {
        let path = format!("{}:/usr/bin:/bin", Path::new(etcdlift_path()).parent().unwrap().display());
        let mut shell = Command::new("bash");
        shell.args(["-c", command]).current_dir(dir).env("PATH", path).stdin(Stdio::null());
        shell.output().unwrap()
    };
    let made = run("etcdlift convert default.etcd -o snapshot.db --index-map map.redb");
    assert!(made.status.success(), "{made:?}");
    let mut tried = 0;
    for name in ["", "convert", "inspect", "compare", "check", "advise", "clean", "verify", "export", "lookup"] {
        let help = stdout(&[name, "--help"].into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>());
        let (_, examples) = help.split_once("Examples:\n").unwrap();
        let (examples, _) = examples.split_once("Exit status:").unwrap();
        for example in examples.split("\n\n").filter_map(|example| example.split_once(":\n")) {
            // The log of the members ends before that index.
            let command = &example.1.trim().replace("--up-to-index 5000", "--up-to-index 10");
            if name == "convert" {
                let _ = fs::remove_file(dir.join("out.db"));
                let _ = fs::remove_file(dir.join("report.json"));
            }
            if !["", "convert"].contains(&name) && !dir.join("out.db").exists() {
                let made = run("etcdlift convert default.etcd -o out.db --report report.json --overwrite");
                assert!(made.status.success(), "{made:?}");
            }
            let output = run(command);
            let (status, story) = (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr));
            let expected: &[i32] = match name {
                // The prepared directories have no v3 data, and no log elsewhere.
                "check" => &[0, 5, 7, 8],
                "clean" => &[5],
                // The members have not converged.
                "compare" => &[7],
                // The demo has no key below /services, and no index 42.
                "export" | "lookup" => &[0, 4],
                _ => &[0],
            };
            assert!(expected.contains(&status), "{command}: status {status}: {story}");
            tried += 1;
        }
    }
    assert!(tried >= 20, "{tried} examples found");
}

#[test]
fn help_of_convert_names_each_default() {
    let help = stdout(&["convert", "--help"]);
    for default in ["snapshot", "3.7", "now", "keep", "drop", "0"] {
        assert!(help.contains(&format!("[default: {default}]")), "{default}");
    }
}

#[test]
fn completions_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(stdout(&["completions", shell]).contains("target-version"), "{shell}");
    }
}

/// The commands of the reference, each with its long options and those of every command.
fn reference() -> Vec<(String, Vec<String>)> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cli.md")).unwrap();
    let long_options = |section: &str| -> Vec<String> {
        let titles = section.lines().filter_map(|line| line.strip_prefix("#### `"));
        let name = |title: &str| Some(title.split("--").nth(1)?.split([' ', '`']).next()?.to_string());
        titles.filter_map(name).collect()
    };
    let mut sections = page.split("\n## ");
    let common = long_options(sections.find(|section| section.starts_with("Options of every command")).unwrap());
    let commands = sections.filter_map(|section| {
        let name = section.strip_prefix("etcdlift ")?.lines().next()?.to_string();
        Some((name, [long_options(section), common.clone()].concat()))
    });
    commands.collect()
}

/// Whether a script has a word that ends where the word ends.
fn has_word(script: &str, word: &str) -> bool {
    let mut rests = script.match_indices(word).map(|(at, _)| &script[at + word.len()..]);
    rests.any(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-'))
}

#[test]
fn completions_and_manual_pages_name_every_command_and_option() {
    let commands = reference();
    assert!(commands.len() == 11 && commands.iter().all(|(_, options)| options.len() >= 3), "{commands:?}");
    let plain = |args: &[&str]| stdout(args).replace("\\-", "-").replace("\\f", " ");
    let root = plain(&["man"]);
    for (command, options) in &commands {
        let page = plain(&["man", command]);
        assert!(has_word(&root, &format!("etcdlift-{command}")), "the manual page lacks {command}");
        for option in options {
            assert!(has_word(&page, &format!("--{option}")), "the manual page of {command} lacks --{option}");
        }
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = stdout(&["completions", shell]);
        for (command, options) in &commands {
            assert!(has_word(&script, command), "{shell} lacks {command}");
            for option in options {
                let found = has_word(&script, &format!("--{option}")) || has_word(&script, &format!("-l {option}"));
                assert!(found, "{shell} lacks --{option}");
            }
        }
    }
}

#[test]
fn manual_pages_are_roff() {
    let page = stdout(&["man"]);
    assert!(page.contains(".TH etcdlift 1") && page.contains("etcdlift\\-convert(1)"), "{page}");
    assert!(stdout(&["man", "convert"]).contains("\\-\\-wal\\-dir"));
}

#[test]
fn wrong_usage_is_status_2_and_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.db");
    let out = out.to_str().unwrap();
    let source = env!("CARGO_MANIFEST_DIR");
    for args in [
        &[][..],
        &["transmogrify"],
        &["convert"],
        &["convert", source],
        &["convert", "-o", out],
        &["convert", source, "-o", out, "--to", "directory"],
        &["convert", source, "-o", out, "--jobs", "none"],
        &["convert", source, "-o", out, "--skip-existing"],
        &["convert", source, "-o", "-"],
        &["convert", source, "-o", out, "--ledger", "-"],
        &["convert", source, "-o", out, "--index-map", "-"],
        &["export", source, "-o", "-", "--format", "redb"],
        &["inspect"],
        &["inspect", source, "-w", "yaml"],
        &["advise"],
        &["advise", source, "--map", "/a"],
        &["inspect", source, "--json", "-w", "table"],
        &["compare", source],
        &["completions", "tcsh"],
        &["man", "woman"],
    ] {
        let output = etcdlift(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn nothing_is_written_into_a_source() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().to_str().unwrap();
    let inside = dir.path().join("out.db");
    let output = etcdlift(&["convert", source, "-o", inside.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(5));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("out.db: the output would be written into the source"), "{message}");
    assert_eq!(message.lines().count(), 1);
}

#[test]
fn a_report_that_cannot_be_written_is_known_before_the_work() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let output = etcdlift(&["convert", &at("source"), "-o", &at("out.db"), "--report", &at("missing/report.json")]);
    assert_eq!(output.status.code(), Some(6));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("missing/report.json: cannot write the report"), "{message}");
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let mut child = Command::new(etcdlift_path())
        .args(["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
}

/// Converts the demo into a file of its own; returns the output of the program.
fn converted(args: &[&str], variables: &[(&str, &str)]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.db");
    let mut command = Command::new(etcdlift_path());
    command.args(["convert", "fixtures/demo/input/default.etcd", "-o"]).arg(out).args(["--report", "-"]).args(args);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).envs(variables.iter().copied()).output().unwrap()
}

#[test]
fn a_quiet_run_prints_its_result_alone() {
    for (args, variables) in [(&["-q"][..], &[][..]), (&["--quiet"], &[]), (&[], &[("ETCDLIFT_QUIET", "1")])] {
        let output = converted(args, variables);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{text}");
        assert!(text.starts_with("COMPLETE, exit status 0: ") && text.lines().count() == 1, "{text}");
    }
    let text = String::from_utf8(converted(&["-q", "--ttl", "fail"], &[]).stderr).unwrap();
    assert!(text.starts_with("etcdlift: error: ") && text.contains("--ttl fail refuses"), "{text}");
    assert!(converted(&[], &[("ETCDLIFT_QUIET", "0")]).stderr.len() > 500);
}

#[test]
fn variables_set_options_and_the_command_line_wins() {
    let variables = [
        ("ETCDLIFT_JOBS", "1"),
        ("ETCDLIFT_MEMORY_LIMIT", "1GiB"),
        ("ETCDLIFT_TARGET_VERSION", "3.5"),
        ("ETCDLIFT_REQUEST_LIMIT", "1MiB"),
        ("ETCDLIFT_PROGRESS", "never"),
    ];
    let options = |args| {
        let output = converted(args, &variables);
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()["options"].clone()
    };
    let found = options(&[]);
    assert_eq!((&found["jobs"], &found["memory_limit"]), (&1.into(), &(1u64 << 30).into()));
    assert_eq!((&found["target"], &found["request_limit"]), (&"3.5".into(), &(1u64 << 20).into()));
    assert_eq!(options(&["--target-version", "3.6"])["target"], "3.6");
    let wrong = converted(&[], &[("ETCDLIFT_JOBS", "many")]);
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn colours_are_in_a_pipe_only_if_asked_for() {
    let escape = b"\x1b[";
    let colours = |bytes: &[u8]| bytes.windows(2).any(|window| window == escape);
    let always = ["--color", "always"];
    for (args, variables, expected) in [
        (&[][..], &[][..], false),
        (&[], &[("CLICOLOR_FORCE", "1")], false),
        (&always, &[], true),
        (&always, &[("NO_COLOR", "1")], true),
        (&[], &[("ETCDLIFT_COLOR", "always")], true),
        (&["--color=never"], &[("ETCDLIFT_COLOR", "always")], false),
    ] {
        let output = converted(args, variables);
        assert_eq!(colours(&output.stderr), expected, "{args:?} {variables:?}");
        assert!(!colours(&output.stdout), "a report has no colours");
    }
    assert!(colours(&etcdlift(&["--color", "always", "convert", "--help"]).stdout));
    assert!(colours(&etcdlift(&["convert", "--color=always"]).stderr));
    assert!(!colours(&etcdlift(&["convert", "--help"]).stdout));
}

#[test]
fn help_texts_are_as_written_down() {
    let help = |args: &[&str]| {
        let mut command = Command::new(etcdlift_path());
        // Without a terminal, the width comes from this variable.
        let output = command.args(args).env("COLUMNS", "80").stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    golden("tests/golden/help/etcdlift.txt", help(&["--help"]));
    for name in [
        "convert",
        "inspect",
        "compare",
        "check",
        "advise",
        "clean",
        "verify",
        "export",
        "lookup",
        "completions",
        "man",
    ] {
        golden(format!("tests/golden/help/{name}.txt"), help(&[name, "--help"]));
        golden(format!("tests/golden/help/{name}-short.txt"), help(&[name, "-h"]));
    }
}

#[test]
fn errors_are_as_written_down() {
    const DEMO: &str = "fixtures/demo/input/default.etcd";
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_str().unwrap();
    let at = |name: &str| format!("{folder}/{name}");
    fs::write(at("text.snap"), "no snapshot").unwrap();
    fs::write(at("exists.db"), "mine").unwrap();
    fs::write(at("rules.toml"), "[[choose]]\ninclude = 1\n").unwrap();
    fs::create_dir_all(at("no-log/member/snap")).unwrap();
    let snapshot = "member/snap/0000000000000002-0000000000000029.snap";
    fs::copy(Path::new(DEMO).join(snapshot), Path::new(&at("no-log")).join(snapshot)).unwrap();
    let (out, exists, text, no_log) = (at("out.db"), at("exists.db"), at("text.snap"), at("no-log"));
    let (missing, rules) = (at("missing"), at("rules.toml"));
    let mut found = String::new();
    for args in [
        &["convert", DEMO][..],
        &["convert", DEMO, "-o", &out, "--jobs", "0"],
        &["convert", DEMO, "-o", "-"],
        &["convert", DEMO, "-o", &out, "--skip-existing", "--report", "-"],
        &["convert", DEMO, DEMO, "-o", &out, "--wal-dir", "none"],
        &["convert", DEMO, "-o", &out, "--rules", &rules],
        &["convert", DEMO, "-o", &exists],
        &["convert", DEMO, "-o", &out, "--ttl", "fail"],
        &["convert", DEMO, "-o", &out, "--include", "/none"],
        &["convert", &missing, "-o", &out],
        &["convert", &text, "-o", &out],
        &["convert", &no_log, "-o", &out],
        &["export", DEMO, "-o", "-", "--format", "redb"],
        &["check", DEMO, "--wal-dir", "a", "--wal-dir", "b"],
        &["check", "fixtures/members/m0.etcd"],
        &["clean", DEMO, "-o", &out],
        &["compare", DEMO],
        &["compare", DEMO, DEMO],
        &["compare", DEMO, "fixtures/members/m0.etcd"],
        &["verify", &text],
        &["lookup", &text, "--v2-index", "7"],
        &["man", "woman"],
    ] {
        let output = etcdlift(args);
        let (line, stderr) = (args.join(" "), String::from_utf8(output.stderr).unwrap());
        let status = output.status.code().unwrap();
        found.push_str(&format!("$ etcdlift {line}\n{stderr}exit status {status}\n\n").replace(folder, "DIR"));
    }
    golden("tests/golden/errors.txt", found);
}

#[test]
fn summaries_are_as_written_down() {
    const M0: &str = "fixtures/members/m0.etcd";
    const M1: &str = "fixtures/members/m1.etcd";
    const M2: &str = "fixtures/members/m2.etcd";
    const DEMO: &str = "fixtures/demo/input/default.etcd";
    const AS_OF: &str = "2026-12-01T00:00:00Z";
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_str().unwrap();
    let at = |name: &str| format!("{folder}/{name}");
    // A copy whose last segment is shorter than etcd preallocates it.
    let cut = at("cut.etcd");
    for part in ["snap", "wal"] {
        let (from, to) = (Path::new(DEMO).join("member").join(part), Path::new(&cut).join("member").join(part));
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
    let segment = Path::new(&cut).join("member/wal/0000000000000000-0000000000000000.wal");
    fs::File::options().write(true).open(segment).unwrap().set_len(1 << 20).unwrap();
    let (out, report, map) = (at("out.db"), at("out.json"), at("out.redb"));
    let (partial, lines) = (at("partial.db"), at("out.ndjson"));
    let mut found = String::new();
    for (status, args) in [
        (0, &["convert", DEMO, "-o", &out, "--report", &report, "--index-map", &map, "--as-of", AS_OF][..]),
        (8, &["convert", &cut, "-o", &partial, "--revisions", "dense", "--as-of", AS_OF]),
        (0, &["verify", &out, "--report", &report, "--source", DEMO]),
        (7, &["verify", &partial, "--report", &report]),
        (0, &["compare", M0, M1]),
        (7, &["compare", M0, M1, M2]),
        (0, &["inspect", DEMO]),
        (0, &["inspect", &out]),
        (0, &["export", DEMO, "-o", &lines]),
        (0, &["lookup", &map, "--v2-index", "7"]),
    ] {
        let output = etcdlift(args);
        assert_eq!(output.status.code(), Some(status), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        let text = [output.stdout, output.stderr].concat();
        let text = without_times(&String::from_utf8(text).unwrap());
        let line = args.join(" ");
        found.push_str(&format!("$ etcdlift {line}\n{text}exit status {status}\n\n").replace(folder, "DIR"));
    }
    golden("tests/golden/summaries.txt", found);
}

/// The text without the times of the stages, which differ from run to run.
fn without_times(text: &str) -> String {
    let mut in_times = false;
    let mut is_kept = |line: &&str| {
        in_times = line.starts_with("time:") || (in_times && line.starts_with(' '));
        !in_times
    };
    text.split_inclusive('\n').filter(|line| is_kept(line)).collect()
}
