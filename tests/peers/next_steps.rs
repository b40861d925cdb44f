//! The next steps that a report prints, run as they stand on real etcd releases: the restore commands make data
//! directories, the servers that start on these answer the check, and the hash is the one that was printed.
//!
//! Needs what `tests/peers/build` makes and the corpus; a test that lacks one says `SKIPPED`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::common::convert::{Converted, convert_to};
use crate::common::corpus::{self, Scenario};
use crate::common::peers::{self, Peers, Version};
use crate::common::run::{Output, bounded, run};
use crate::common::scratch;
use crate::common::server::{Boot, Server};
use crate::test_name;

const VERSIONS: [Version; 4] = [Version::V3_4, Version::V3_5, Version::V3_6, Version::V3_7];

/// A step of the report.
struct Step {
    member: Option<String>,
    command: String,
    expect: Option<String>,
}

fn steps(converted: &Converted, purpose: &str) -> Vec<Step> {
    let report: Value = serde_json::from_slice(&fs::read(&converted.report).unwrap()).unwrap();
    let text = |value: &Value| value.as_str().map(String::from);
    let steps = report["next_steps"].as_array().unwrap().iter().filter(|step| step["purpose"] == purpose);
    steps
        .map(|step| Step {
            member: text(&step["member"]),
            command: text(&step["command"]).unwrap(),
            expect: text(&step["expect"]),
        })
        .collect()
}

/// Runs a command as it was printed, with a release's own programs in front. The etcdctl of 3.5 to 3.7 is that of 3.7.
fn paste(peers: &Peers, version: Version, folder: &Path, command: &str, password: &str) -> Output {
    let of = |program: PathBuf| program.parent().unwrap().display().to_string();
    let path = format!("{}:{}:/usr/bin:/bin", of(peers.etcd(version)), of(peers.etcdctl()));
    let mut shell = bounded(Path::new("bash"), 60);
    // What an operator would be asked for.
    shell.env("PATH", path).env("ETCDCTL_PASSWORD", password).current_dir(folder);
    run(shell.args(["-c", command]))
}

fn converted(scenario: &Scenario, folder: &Path, version: Version, options: &[&str]) -> Converted {
    let version = version.to_string();
    let all = ["--as-of", &scenario.truth.captured_at, "--target-version", &version, "--guest", "drop"];
    let made = convert_to(&scenario.data_dir("m0.etcd"), folder, [&all[..], options].concat());
    assert_eq!(made.output.status, 0, "{}", made.output.story());
    made
}

/// The hash of each line of `endpoint hashkv`: `ENDPOINT, HASH` and, in newer ones, more.
fn hashes(output: &Output) -> Vec<String> {
    let lines = output.text().lines().filter(|line| line.starts_with("http")).map(String::from).collect::<Vec<_>>();
    lines.iter().map(|line| line.split(", ").nth(1).unwrap().to_string()).collect()
}

/// Runs the check as printed; the hash must be the one that was printed. Returns the command.
fn check(peers: &Peers, version: Version, made: &Converted, server: &Server, password: &str) -> String {
    let step = steps(made, "check").remove(0);
    // The server of a test listens elsewhere than that of the source.
    let endpoint = step.command.split("--endpoints ").nth(1).unwrap().split(' ').next().unwrap();
    let command = step.command.replace(endpoint, &format!("http://{}", server.client_address()));
    let output = paste(peers, version, Path::new("/"), &command, password).success();
    assert_eq!(hashes(&output), [step.expect.unwrap()], "etcd {version}: {}", output.story());
    step.command
}

/// Restores as printed, starts the release's server on what that made, and runs the check as printed.
fn restored_and_checked(test: &str, version: Version, name: &str, auth: bool) {
    let (Some(peers), Some(scenario)) = (peers::require(test), corpus::scenario(test, name)) else { return };
    let password = scenario.truth.auth.as_ref().map_or("", |_| ROOT_PASSWORD);
    for options in [&[][..], &["--to", "backend"]] {
        let temp = scratch::temp();
        let made = converted(&scenario, &temp.path().join("it's"), version, options);
        let restore = steps(&made, "restore");
        assert_eq!(restore.len(), 1);
        let member = restore[0].member.clone().unwrap();
        paste(&peers, version, temp.path(), &restore[0].command, "").success();
        let data_dir = temp.path().join(format!("{member}.v3.etcd"));
        let server = Server::start(&Boot::new(&peers, version, &data_dir));
        let asked = check(&peers, version, &made, &server, password);
        assert_eq!(asked.contains("--user root"), auth, "{asked}");
    }
}

/// As `truth.json` of v3.4.23-d has it.
const ROOT_PASSWORD: &str = "r00t-191458";

#[test]
fn printed_commands_work_on_3_4() {
    restored_and_checked(test_name!(), Version::V3_4, "v3.4.23-b", false);
    restored_and_checked(test_name!(), Version::V3_4, "v3.4.23-d", true);
}

#[test]
fn printed_commands_work_on_3_5() {
    restored_and_checked(test_name!(), Version::V3_5, "v2.3.8-b", false);
    restored_and_checked(test_name!(), Version::V3_5, "v3.4.23-d", true);
}

#[test]
fn printed_commands_work_on_3_6() {
    restored_and_checked(test_name!(), Version::V3_6, "v2.0.13-b", false);
    restored_and_checked(test_name!(), Version::V3_6, "v3.4.23-d", true);
}

#[test]
fn printed_commands_work_on_3_7() {
    restored_and_checked(test_name!(), Version::V3_7, "v3.5.16-b", false);
    restored_and_checked(test_name!(), Version::V3_7, "v3.4.23-d", true);
}

/// Preserved v3 data has a history: it is compacted below the current revision, and each release says the same of
/// it.
#[test]
fn the_hash_of_preserved_v3_data_is_that_of_every_release() {
    let (Some(peers), Some(scenario)) = (peers::require(test_name!()), corpus::scenario(test_name!(), "v3.4.23-i"))
    else {
        return;
    };
    for version in VERSIONS {
        for existing in [&["--existing", "keep-v3"][..], &["--existing", "merge", "--on-conflict", "take-v2"]] {
            let temp = scratch::temp();
            let made = converted(&scenario, temp.path(), version, existing);
            let restore = steps(&made, "restore").remove(0);
            paste(&peers, version, temp.path(), &restore.command, "").success();
            let data_dir = temp.path().join(format!("{}.v3.etcd", restore.member.unwrap()));
            let server = Server::start(&Boot::new(&peers, version, &data_dir));
            check(&peers, version, &made, &server, "");
        }
    }
}

/// Three members, one command each, all of one cluster.
#[test]
fn every_member_has_its_own_restore_command() {
    let (Some(peers), Some(scenario)) = (peers::require(test_name!()), corpus::scenario(test_name!(), "v3.4.23-e"))
    else {
        return;
    };
    for version in VERSIONS {
        let temp = scratch::temp();
        let made = converted(&scenario, temp.path(), version, &["--allow-removed"]);
        let restore = steps(&made, "restore");
        let names: Vec<_> = restore.iter().map(|step| step.member.as_deref().unwrap()).collect();
        assert_eq!(names, ["m0", "m2", "m3"]);
        for step in &restore {
            paste(&peers, version, temp.path(), &step.command, "").success();
            let dir = temp.path().join(format!("{}.v3.etcd", step.member.as_ref().unwrap()));
            assert!(dir.join("member/wal").is_dir() && dir.join("member/snap/db").is_file());
        }
        assert_eq!(steps(&made, "check").len(), 1);
    }
}

/// A backend goes into the member's own directory where the release can go on from there.
#[test]
fn the_install_command_works_where_it_is_printed() {
    let (Some(peers), Some(scenario)) = (peers::require(test_name!()), corpus::scenario(test_name!(), "v3.4.23-b"))
    else {
        return;
    };
    for version in VERSIONS {
        let temp = scratch::temp();
        let copy = temp.path().join("m0.etcd");
        scratch::copy_tree(&scenario.data_dir("m0.etcd"), &copy);
        let target = version.to_string();
        let as_of = &scenario.truth.captured_at;
        let options = ["--to", "backend", "--target-version", &target, "--as-of", as_of];
        let made = convert_to(&copy, &temp.path().join("out"), options);
        assert_eq!(made.output.status, 0, "{}", made.output.story());
        let install = steps(&made, "install");
        let fits = matches!(version, Version::V3_4 | Version::V3_5);
        assert_eq!(install.len(), usize::from(fits), "etcd {version}");
        let Some(step) = install.first() else { continue };
        paste(&peers, version, temp.path(), &step.command, "").success();
        let server = Server::start(&Boot::new(&peers, version, &copy));
        check(&peers, version, &made, &server, "");
    }
}

/// Names that no shell takes as they are.
#[test]
fn a_path_of_any_bytes_can_be_pasted() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let temp = scratch::temp();
    for name in [&b"a b"[..], b"it's", b"\xff\n$HOME", b"-rf", b"`id`", "ü".as_bytes()] {
        let folder = temp.path().join(OsStr::from_bytes(name));
        let made = convert_to(Path::new("fixtures/demo/input/default.etcd"), &folder, ["--jobs", "1"]);
        assert_eq!(made.output.status, 0, "{}", made.output.story());
        let command = steps(&made, "restore").remove(0).command;
        // The word after `restore`, as a shell reads it.
        let script = format!("etcdutl() {{ printf %s \"$3\"; }}; {command}");
        let output = Command::new("bash").args(["-c", &script]).output().unwrap();
        assert_eq!(output.stdout, made.snapshot.as_os_str().as_bytes(), "{command}");
    }
}
