//! Whose rules a log is replayed by: where its entries and files leave no doubt, where they do, and what
//! `--source-version` decides. Logs here are written record by record, as etcd writes them.

use std::fs;
use std::path::{Path, PathBuf};

use etcdlift::internals::fuzzing::log::{CONF_CHANGE, Dialect, Log, NORMAL, conf_change, member_json, request};
use etcdlift::internals::source::raft::{Method, Request};
use serde_json::Value;

use crate::common::run::{Output, etcdlift};
use crate::common::scratch;

const NODE: u64 = 0xa1;
const OTHER: u64 = 0xb2;
const TTL: i64 = 4_000_000_000_000_000_000;

/// A member's log, and the directory that it becomes.
struct Source {
    log: Log,
    dialect: Dialect,
    index: u64,
}

impl Source {
    /// A new cluster of this many members and of a cluster version; none as 2.0 leaves it.
    fn new(dialect: Dialect, members: usize, cluster_version: Option<&str>) -> Source {
        let mut source = Source { log: Log::new(dialect, NODE, 2), dialect, index: 0 };
        if cluster_version.is_none() {
            // 2.0 writes the hard state before the entries of its term.
            source.log.state(1, 0, 0);
        }
        for (port, id) in [NODE, OTHER, 0xc3].into_iter().take(members).enumerate() {
            source.entry(CONF_CHANGE, Some(&conf_change(0, id, &member_json(id, port as u16))));
        }
        source.entry(NORMAL, (cluster_version.is_none()).then_some(&[][..]));
        source.published();
        if let Some(version) = cluster_version {
            source.write(Request {
                method: Method::Put,
                path: b"/0/version",
                val: version.as_bytes(),
                ..Request::default()
            });
        }
        source
    }

    fn entry(&mut self, kind: u64, data: Option<&[u8]>) {
        self.index += 1;
        self.log.entry(kind, 1, self.index, data);
        self.log.state(1, NODE, self.index);
    }

    fn write(&mut self, write: Request<'_>) {
        self.entry(NORMAL, Some(&request(&write)));
    }

    /// The member has started.
    fn published(&mut self) {
        let path = format!("/0/members/{NODE:x}/attributes");
        self.write(put(&path, r#"{"name":"m0","clientURLs":["http://127.0.0.1:1"]}"#));
    }

    fn post(&mut self, dir: &str) {
        self.write(Request { method: Method::Post, path: dir.as_bytes(), val: b"x", ..Request::default() });
    }

    fn delete(&mut self, path: &str) {
        self.write(Request { method: Method::Delete, path: path.as_bytes(), ..Request::default() });
    }

    /// Writes the directory; a test's folder is its own.
    fn save(&self, folder: &Path) -> PathBuf {
        let dir = folder.join("m0.etcd");
        fs::create_dir_all(dir.join("member/snap")).unwrap();
        fs::create_dir_all(dir.join("member/wal")).unwrap();
        for (name, mut bytes) in self.log.named() {
            if self.dialect == Dialect::Padded {
                bytes.resize(64_000_000, 0);
            }
            fs::write(dir.join("member/wal").join(name.path), bytes).unwrap();
        }
        dir
    }
}

fn put<'a>(path: &'a str, val: &'a str) -> Request<'a> {
    Request { method: Method::Put, path: path.as_bytes(), val: val.as_bytes(), ..Request::default() }
}

/// A conversion, with its report.
struct Run {
    output: Output,
    report: Value,
}

impl Run {
    fn rules(&self) -> &str {
        self.report["source"]["replay_rules"].as_str().unwrap()
    }

    fn codes(&self, list: &str) -> Vec<&str> {
        self.report[list].as_array().unwrap().iter().map(|notice| notice["code"].as_str().unwrap()).collect()
    }

    /// The status 8 that names what differs.
    fn undecided(&self, keys: &[&str]) {
        assert_eq!(
            (self.output.status, &self.report["reason"]),
            (8, &"source-version-unknown".into()),
            "{}",
            self.output.story()
        );
        let found: Vec<&str> = self.report["source"]["other_rules"][0]["keys"]
            .as_array()
            .unwrap()
            .iter()
            .map(|key| key.as_str().unwrap())
            .collect();
        assert_eq!(found, keys);
        assert!(self.output.stderr.contains("--source-version"), "{}", self.output.stderr);
    }

    fn decided(&self, rules: &str) {
        assert_eq!((self.output.status, self.rules()), (0, rules), "{}", self.output.story());
        assert!(self.report["source"]["other_rules"].is_null());
    }
}

fn convert(dir: &Path, options: &[&str]) -> Run {
    let folder = scratch::temp();
    let report = folder.path().join("r.json");
    let mut args: Vec<&std::ffi::OsStr> = vec!["convert".as_ref(), dir.as_ref(), "-o".as_ref()];
    let out = folder.path().join("out.db");
    args.extend([out.as_os_str(), "--report".as_ref(), report.as_ref()]);
    args.extend(options.iter().map(|option| -> &std::ffi::OsStr { option.as_ref() }));
    let output = etcdlift(args);
    let report = fs::read(&report).map(|json| serde_json::from_slice(&json).unwrap()).unwrap_or_default();
    Run { output, report }
}

/// What `export` gives: key to value and modified index.
fn export(dir: &Path, options: &[&str]) -> Vec<(String, String, u64)> {
    let mut args: Vec<&std::ffi::OsStr> = vec!["export".as_ref(), dir.as_ref(), "-o".as_ref(), "-".as_ref()];
    args.extend(options.iter().map(|option| -> &std::ffi::OsStr { option.as_ref() }));
    let output = etcdlift(args);
    let lines = output.text();
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let files = lines.filter(|line| line["dir"] != true);
    let node = |line: Value| {
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_string();
        (text("key"), text("value"), line["modified_index"].as_u64().unwrap())
    };
    files.map(node).collect()
}

/// `prevExist=true` with a previous index that does not match.
fn compared_update(source: &mut Source) {
    source.write(put("/1/a", "old"));
    source.write(Request { prev_exist: Some(true), prev_index: 999, ..put("/1/a", "new") });
}

#[test]
fn a_compared_update_of_2_0_is_not_decided_by_the_log() {
    let mut source = Source::new(Dialect::Unpadded, 1, None);
    compared_update(&mut source);
    let temp = scratch::temp();
    let dir = source.save(temp.path());
    let run = convert(&dir, &[]);
    run.undecided(&["/a"]);
    assert_eq!(run.rules(), "2.0.10 to 2.1");
    let strict = convert(&dir, &["--strict"]);
    assert_eq!((strict.output.status, &strict.report["reason"]), (5, &"strict".into()));
    for (version, rules, value) in
        [("2.0", "2.0.10 to 2.1", "old"), ("2.0.13", "2.0.10 to 2.1", "old"), ("2.0.9", "2.0.1 to 2.0.9", "new")]
    {
        let run = convert(&dir, &["--source-version", version]);
        run.decided(rules);
        assert!(run.codes("warnings").is_empty(), "{}", run.output.stderr);
        assert_eq!(export(&dir, &["--source-version", version])[0].1, value, "{version}");
    }
}

#[test]
fn a_refresh_with_a_condition_of_2_3_is_not_decided_by_the_log() {
    let mut source = Source::new(Dialect::Unpadded, 1, Some("2.3.0"));
    source.write(Request { expiration: TTL, ..put("/1/a", "kept") });
    source.write(Request { refresh: Some(true), prev_value: b"kept", expiration: TTL, ..put("/1/a", "") });
    let temp = scratch::temp();
    let dir = source.save(temp.path());
    convert(&dir, &[]).undecided(&["/a"]);
    assert_eq!(export(&dir, &["--source-version", "2.3.6"])[0].1, "");
    assert_eq!(export(&dir, &["--source-version", "2.3.7"])[0].1, "kept");
    convert(&dir, &["--source-version", "2.3.8"]).decided("2.3.7 or later 2.3");
}

#[test]
fn without_an_entry_that_versions_treat_otherwise_nothing_is_said() {
    let mut source = Source::new(Dialect::Unpadded, 1, None);
    source.write(put("/1/a", "x"));
    source.write(Request { prev_exist: Some(true), ..put("/1/a", "y") });
    source.write(Request { prev_value: b"y", ..put("/1/a", "z") });
    let temp = scratch::temp();
    convert(&source.save(temp.path()), &[]).decided("2.0.10 to 2.1");
}

#[test]
fn equal_trees_are_no_difference() {
    let mut source = Source::new(Dialect::Unpadded, 1, None);
    source.write(put("/1/a", "x"));
    // It is there, and has this value: compared or not, it is written.
    source.write(Request { prev_exist: Some(true), prev_value: b"x", ..put("/1/a", "y") });
    let temp = scratch::temp();
    convert(&source.save(temp.path()), &[]).decided("2.0.10 to 2.1");
}

/// The members' indexes are 1 to 3, the attributes' 4, the version's 5; so the first key is at 6.
#[test]
fn in_order_names_in_later_requests_prove_the_rules_of_the_server() {
    for (name, rules, left) in
        [("/1/q/6", "2.0.10 to 2.1", "/q/7"), ("/1/q/00000000000000000006", "2.2", "/q/00000000000000000007")]
    {
        let mut source = Source::new(Dialect::Unpadded, 3, Some("2.1.0"));
        source.post("/1/q");
        source.post("/1/q");
        let temp = scratch::temp();
        let dir = source.save(&temp.path().join("undecided"));
        // One of three voters: no server need have raised the cluster version.
        convert(&dir, &[]).undecided(&["/q/00000000000000000006", "/q/00000000000000000007", "/q/6", "/q/7"]);
        source.delete(name);
        let dir = source.save(&temp.path().join("decided"));
        let run = convert(&dir, &[]);
        run.decided(rules);
        assert_eq!(export(&dir, &[]).into_iter().map(|(key, ..)| key).collect::<Vec<_>>(), [left]);
        let bounds = run.report["source"]["version_bounds"].as_array().unwrap().clone();
        let refuted: Vec<_> =
            bounds.iter().filter(|bound| bound["bound"].as_str().unwrap().starts_with("not ")).collect();
        assert_eq!((refuted.len(), refuted[0]["raft_index"].as_u64()), (1, Some(source.index)), "{bounds:?}");
        // A restart after that may have been an upgrade.
        source.published();
        let run = convert(&source.save(&temp.path().join("restarted")), &[]);
        assert_eq!((run.output.status, &run.report["reason"]), (8, &"source-version-unknown".into()));
    }
}

#[test]
fn the_only_member_raises_the_cluster_version() {
    let mut source = Source::new(Dialect::Unpadded, 1, Some("2.1.0"));
    source.post("/1/q");
    let temp = scratch::temp();
    convert(&source.save(temp.path()), &[]).decided("2.0.10 to 2.1");
}

#[test]
fn a_lowered_cluster_version_counts_not_the_highest() {
    let mut source = Source::new(Dialect::Padded, 1, Some("3.5.0"));
    source.write(Request { dir: true, expiration: TTL, ..put("/1/d", "") });
    source.write(put("/1/d/a", "x"));
    source.entry(NORMAL, None);
    source.published();
    source.write(put("/0/version", "3.4.0"));
    source.write(Request { dir: true, prev_exist: Some(true), expiration: TTL + 1, ..put("/1/d", "") });
    source.write(put("/1/b", "x"));
    let temp = scratch::temp();
    let dir = source.save(temp.path());
    convert(&dir, &[]).decided("3.4");
    // The directory's update costs an index in 3.4, and fails in 3.5.
    let index =
        |version: &str| export(&dir, &["--source-version", version]).iter().find(|(key, ..)| key == "/b").unwrap().2;
    assert_eq!(index("3.4"), index("3.5") + 1);
}

#[test]
fn a_version_that_the_source_disproves_is_taken_with_a_warning() {
    let mut source = Source::new(Dialect::Padded, 1, Some("3.4.0"));
    source.post("/1/q");
    let temp = scratch::temp();
    let dir = source.save(temp.path());
    let run = convert(&dir, &["--source-version", "2.1"]);
    run.decided("2.0.10 to 2.1");
    assert_eq!(run.codes("warnings"), ["source-version-contradicted"]);
    assert!(run.output.stderr.contains("3.4.0"), "{}", run.output.stderr);
    for version in ["1.0", "2.4", "3.6", "3", "x"] {
        assert_eq!(convert(&dir, &["--source-version", version]).output.status, 2, "{version}");
    }
}

#[test]
fn in_order_names_alone_can_be_decided() {
    let mut source = Source::new(Dialect::Padded, 1, Some("3.4.0"));
    source.post("/1/q");
    let temp = scratch::temp();
    let dir = source.save(temp.path());
    let key = |options: &[&str]| export(&dir, options)[0].0.clone();
    let index = key(&[]).rsplit('/').next().unwrap().parse::<u64>().unwrap();
    assert_eq!(key(&["--in-order-names", "plain"]), format!("/q/{index}"));
    assert_eq!(key(&["--source-version", "2.1"]), format!("/q/{index}"));
    assert_eq!(key(&["--source-version", "2.1", "--in-order-names", "padded"]), format!("/q/{index:020}"));
}

#[test]
fn verify_takes_the_version_from_the_report() {
    let mut source = Source::new(Dialect::Unpadded, 1, None);
    compared_update(&mut source);
    let temp = scratch::temp();
    let dir = source.save(temp.path());
    let (out, report) = (temp.path().join("out.db"), temp.path().join("r.json"));
    let paths = |words: &[&str]| -> Vec<std::ffi::OsString> { words.iter().map(Into::into).collect() };
    let mut args = paths(&["convert", "--source-version", "2.0.9", "-o"]);
    args.extend([out.clone().into(), "--report".into(), report.clone().into(), dir.clone().into()]);
    etcdlift(args).success();
    let mut args = paths(&["verify", "--report"]);
    args.extend([report.into(), "--source".into(), dir.clone().into(), out.clone().into()]);
    etcdlift(args).success();
    let mut args = paths(&["verify", "--source"]);
    args.extend([dir.into(), out.into()]);
    assert_eq!(etcdlift(args).status, 7);
}

#[test]
fn inspect_names_each_bound() {
    let source = Source::new(Dialect::Padded, 1, Some("3.4.0"));
    let temp = scratch::temp();
    let dir = source.save(temp.path());
    let text = etcdlift(["inspect".as_ref(), dir.as_os_str()]).success().text();
    assert!(text.contains("3.4.0 or later: the cluster version 3.4.0"), "{text}");
    assert!(text.contains("3.0.0 or later: padded frames"), "{text}");
    let json = etcdlift(["inspect".as_ref(), dir.as_os_str(), "--json".as_ref()]).success().json();
    let bounds = json["version_bounds"].as_array().unwrap();
    assert!(bounds.iter().all(|bound| bound["proof"].is_string() && bound["in_effect"].is_boolean()), "{bounds:?}");
    assert_eq!(json["replay_rules"], "3.4");
}

/// The entry of index 0 and term 0 that 2.0 and 2.1 begin a log with which they migrate from 0.4.
#[test]
fn a_log_that_was_migrated_from_0_4_is_read() {
    let mut migrated = Source { log: Log::new(Dialect::Unpadded, NODE, 2), dialect: Dialect::Unpadded, index: 0 };
    migrated.log.entry(NORMAL, 0, 0, None);
    migrated.entry(CONF_CHANGE, Some(&conf_change(0, NODE, &member_json(NODE, 1))));
    migrated.write(put("/1/a", "x"));
    let temp = scratch::temp();
    let dir = migrated.save(&temp.path().join("first"));
    assert_eq!(export(&dir, &[]), [("/a".to_string(), "x".to_string(), 2)]);
    // Anywhere else it is damage.
    migrated.log.entry(NORMAL, 0, 0, None);
    let dir = migrated.save(&temp.path().join("later"));
    let run = convert(&dir, &[]);
    assert_eq!((run.output.status, &run.report["reason"]), (3, &"damaged".into()), "{}", run.output.story());
}
