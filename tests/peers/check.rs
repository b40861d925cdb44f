//! `etcdlift check` against real servers: etcd 3.6 and 3.7 start on a copy of a directory if, and only if, the verdict is
//! `clean`. And what `etcdutl check v2store` of 3.5 says of the same directories.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::etcdctl::Etcdctl;
use crate::common::peers::{self, Peers, Version};
use crate::common::run::{all_well, bounded, etcdlift, read_json, run};
use crate::common::server::{Boot, Server};
use crate::common::{corpus, scratch, upgrade};
use crate::test_name;

/// What a server prints when v2 content stops it.
const REFUSALS: [&str; 3] = [
    "detected disallowed custom content in v2store",
    "detected disallowed v2 WAL for stage --v2-deprecation=write-only",
    "unmarshal should never fail",
];

/// What it prints about other requests that it cannot apply.
const PANICS: [&str; 4] =
    ["failed to parse member id", "failed to unmarshal", "member unknown", "not implemented apply"];

/// What it prints about a directory of a later version.
const LATER: [&str; 2] =
    ["is not supported", "invalid downgrade; server version is lower than determined cluster version"];

const VERSIONS: [(Version, &str); 2] = [(Version::V3_6, "3.6"), (Version::V3_7, "3.7")];

/// A directory to start on.
struct Source<'s> {
    path: &'s Path,
    wal_dir: Option<&'s Path>,
    force_new_cluster: bool,
}

impl Source<'_> {
    /// The verdict of etcdlift.
    fn verdict(&self, version: &str) -> String {
        let mut args = vec!["check".into(), self.path.display().to_string(), "--json".into()];
        args.extend(["--target-version".into(), version.to_string()]);
        args.extend(self.wal_dir.iter().flat_map(|wal| ["--wal-dir".into(), wal.display().to_string()]));
        etcdlift(args).json()["verdict"].as_str().unwrap().to_string()
    }

    /// Starts a server on a copy; the end of its log if v2 content stopped it.
    fn start(&self, peers: &Peers, version: Version) -> Result<(), String> {
        let temp = scratch::temp();
        let data_dir = temp.path().join("d");
        scratch::copy_tree(self.path, &data_dir);
        let mut boot = Boot { force_new_cluster: self.force_new_cluster, ..Boot::new(peers, version, &data_dir) };
        if let Some(wal) = self.wal_dir {
            scratch::copy_tree(wal, &temp.path().join("w"));
            boot.args.extend(["--wal-dir".to_string(), temp.path().join("w").display().to_string()]);
        }
        match Server::try_start(&boot) {
            Ok(server) => {
                server.stop();
                Ok(())
            }
            Err(log) => {
                let mut known = REFUSALS.iter().chain(&PANICS).chain(&LATER);
                assert!(known.any(|words| log.contains(words)), "{}: {log}", self.path.display());
                Err(log)
            }
        }
    }

    fn compare(&self, peers: &Peers, name: &str, wrong: &mut Vec<String>) {
        for (version, word) in VERSIONS {
            let (verdict, started) = (self.verdict(word), self.start(peers, version));
            if (verdict == "clean") != started.is_ok() {
                wrong.push(format!("{name}: {verdict} for {word}, and started: {:?}", started.is_ok()));
            }
            let says = |words: &str| started.as_ref().is_err_and(|log| log.contains(words));
            // The snapshot is checked before the log.
            if version == Version::V3_6 && verdict.starts_with("snapshot") && !says(REFUSALS[0]) {
                wrong.push(format!("{name}: {verdict}, and 3.6 said something else"));
            }
        }
    }
}

#[test]
fn servers_start_on_real_directories_that_are_clean() {
    let Some(peers) = peers::require(test_name!()) else { return };
    let mut wrong = Vec::new();
    for name in corpus::MIXED {
        let Some(dir) = corpus::mixed(test_name!(), name) else { return };
        let truth = read_json(&dir.join("truth.json"));
        for (member, of_member) in truth["data_dirs"].as_object().unwrap() {
            let (path, wal) = (dir.join(member), of_member["wal_dir"].as_str().map(|wal| dir.join(wal)));
            let source = Source { path: &path, wal_dir: wal.as_deref(), force_new_cluster: name.ends_with("-m9") };
            source.compare(&peers, &format!("{name} {member}"), &mut wrong);
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
    all_well(&wrong);
}

#[test]
fn servers_start_on_generated_directories_that_are_clean() {
    let Some(peers) = peers::require(test_name!()) else { return };
    let mut wrong = Vec::new();
    let all = std::env::var_os("ETCDLIFT_BOOT_ALL").is_some_and(|value| value == "1");
    for case in upgrade::cases() {
        // Most content of files that do not count is left out.
        if !all && case.is_history() && !case.name.starts_with("a user in ") {
            continue;
        }
        let temp = scratch::temp();
        let path = temp.path().join("m.etcd");
        upgrade::write(&path, &case);
        Source { path: &path, wal_dir: None, force_new_cluster: false }.compare(&peers, &case.name, &mut wrong);
    }
    all_well(&wrong);
}

#[test]
fn servers_start_on_versions_that_are_not_later() {
    let Some(peers) = peers::require(test_name!()) else { return };
    let mut wrong = Vec::new();
    for versioned in upgrade::VERSIONED {
        let temp = scratch::temp();
        let path = temp.path().join("m.etcd");
        upgrade::write_versioned(&path, &versioned);
        let source = Source { path: &path, wal_dir: None, force_new_cluster: false };
        source.compare(&peers, &format!("{versioned:?}"), &mut wrong);
    }
    all_well(&wrong);
}

/// What 3.7 has written blocks 3.6, until the cluster has been downgraded.
#[test]
fn a_directory_of_3_7() {
    let Some(peers) = peers::require(test_name!()) else { return };
    let temp = scratch::temp();
    let path = temp.path().join("m.etcd");
    let server = Server::start(&Boot::new(&peers, Version::V3_7, &path));
    let client = Etcdctl::new(&peers, &server);
    client.put("a", "b");
    wait(|| stored(&path).contains("storage version: 3.7.0"));
    let mut wrong = Vec::new();
    let compare = |path: &Path, expected: &str, wrong: &mut Vec<String>| {
        let source = Source { path, wal_dir: None, force_new_cluster: false };
        assert_eq!(source.verdict("3.6"), expected);
        assert_eq!(source.verdict("3.7"), "clean");
        source.compare(&peers, expected, wrong);
    };
    let enabled = temp.path().join("enabled");
    wait(|| client.attempt(&["downgrade", "enable", "3.6"]).status == 0);
    server.kill();
    scratch::copy_tree(&path, &enabled);
    compare(&enabled, "later-version", &mut wrong);
    let server = Server::start(&Boot::new(&peers, Version::V3_7, &path));
    wait(|| stored(&path).contains("storage version: 3.6.0"));
    server.stop();
    compare(&path, "clean", &mut wrong);
    all_well(&wrong);
}

/// What `inspect` says of the v3 backend of a running server.
fn stored(data_dir: &Path) -> String {
    let db = data_dir.join("member/snap/db").display().to_string();
    let text = etcdlift(["inspect".to_string(), db, "--allow-live".into()]).text().to_string();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn wait(mut is_done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_done() {
        assert!(Instant::now() < deadline, "the server does not get there");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The table of `docs/check.md`: each directory with the verdict of etcdlift, of the servers, and of `etcdutl check v2store`.
#[test]
fn the_table_of_the_documentation() {
    let Some(peers) = peers::require(test_name!()) else { return };
    let page = std::fs::read_to_string("docs/check.md").unwrap();
    let mut wrong = Vec::new();
    for name in corpus::MIXED {
        let Some(dir) = corpus::mixed(test_name!(), name) else { return };
        let truth = read_json(&dir.join("truth.json"));
        let scenario = name.rsplit('-').next().unwrap();
        for (member, of_member) in truth["data_dirs"].as_object().unwrap() {
            let (path, wal) = (dir.join(member), of_member["wal_dir"].as_str().map(|wal| dir.join(wal)));
            let source = Source { path: &path, wal_dir: wal.as_deref(), force_new_cluster: false };
            // It writes into the directory.
            let copy = scratch::temp();
            scratch::copy_tree(&path, copy.path());
            let mut command = bounded(&peers.etcdutl(Version::V3_5), 60);
            command.args(["check", "v2store", "--data-dir"]).arg(copy.path());
            let tool = run(wal.iter().fold(&mut command, |command, wal| command.arg("--wal-dir").arg(wal)));
            let said = match (tool.status, tool.stderr.trim()) {
                (0, _) => "clean",
                (_, "Error: detected custom content in v2store") => "snapshot",
                (_, "Error: detected custom v2 content in WAL records") => "wal",
                (_, "Error: detected custom v2 content in both v2store and WAL records") => "snapshot+wal",
                _ => panic!("{}", tool.story()),
            };
            let place =
                if name.ends_with("-m9") { format!("{scenario} {}", &member[..2]) } else { scenario.to_string() };
            let (v3_6, v3_7) = (source.verdict("3.6"), source.verdict("3.7"));
            let line = format!("| {place} | `{v3_6}` | `{v3_7}` | `{said}` |");
            println!("{line}");
            if !page.contains(&line) {
                wrong.push(line);
            }
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
    all_well(&wrong);
}
