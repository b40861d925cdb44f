//! `etcdlift clean`: copies of real directories with v2 and v3 data. The source is unchanged, the database has the same bytes, the log
//! has the same entries, and `check` finds nothing. What is refused, and what a killed run leaves.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use etcdlift::internals::source::open::{Found, OpenOptions, Opened, open};
use etcdlift::internals::source::wal::Wal;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde_json::Value;

use crate::common::protobuf::{put_bytes, put_number};
use crate::common::run::{Output, all_well, etcdlift, read_json};
use crate::common::skip::{Need, skip};
use crate::common::v2store::{Node, escaped, joined, store_of};
use crate::common::{corpus, scratch, upgrade, v2files};
use crate::convert::killed::{End, killed_before, tree};
use crate::test_name;

const FIXTURE: &str = "fixtures/upgrade-check/input/default.etcd";
const SEGMENT: &str = "member/wal/0000000000000000-0000000000000000.wal";

fn clean(sources: &[&Path], out: &Path, options: &[&str]) -> Output {
    let mut args: Vec<&std::ffi::OsStr> = vec!["clean".as_ref()];
    args.extend(sources.iter().map(|path| path.as_os_str()));
    args.extend(["-o".as_ref(), out.as_os_str()]);
    args.extend(options.iter().map(AsRef::<std::ffi::OsStr>::as_ref));
    etcdlift(args)
}

fn says(output: &Output, words: &[&str]) {
    let text = format!("{} {}", output.text(), output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    for word in words {
        assert!(text.contains(word), "{word}: {}", output.story());
    }
}

fn opened(path: &Path, wal_dir: Option<&Path>) -> Box<Opened> {
    let wal_dir = wal_dir.map(etcdlift::options::WalDir::from);
    match open(path, wal_dir.as_ref(), &OpenOptions::default()).unwrap() {
        Found::V2(opened) => opened,
        _ => panic!("{path:?}"),
    }
}

/// Term, index and data of the entries after an index.
fn entries(wal: &Wal, after: u64) -> Vec<(u64, u64, Vec<u8>)> {
    let found = wal.history().into_iter().filter(|entry| entry.index.0 > after);
    found
        .map(|entry| wal.entry(entry).unwrap())
        .map(|entry| (entry.term.0, entry.index.0, entry.data.to_vec()))
        .collect()
}

/// Compares a copy with its source. `member` is what the result says of it.
fn compare(source: &Path, wal_dir: Option<&Path>, copy: &Path, member: &Value, wrong: &mut Vec<String>) {
    let mut equal = |what: &str, found: String, expected: String| {
        if found != expected {
            wrong.push(format!("{}: {what}: expected {expected}, found {found}", source.display()));
        }
    };
    let db = |dir: &Path| fs::read(dir.join("member/snap/db")).unwrap();
    equal("database", (db(copy) == db(source)).to_string(), true.to_string());
    let (from, to) = (opened(source, wal_dir), opened(copy, None));
    let (old, new) = (from.wal().unwrap(), to.wal().unwrap());
    equal("owner", format!("{:?}", new.metadata()), format!("{:?}", old.metadata()));
    let index = member["raft_index"].as_u64().unwrap();
    let (before, after) = (entries(old, index), entries(new, 0));
    let places = |entries: &[(u64, u64, Vec<u8>)]| {
        entries.iter().map(|(term, index, _)| format!("{term}/{index}")).collect::<Vec<_>>().join(" ")
    };
    equal("entries", places(&after), places(&before));
    let changed = before.iter().zip(&after).filter(|(old, new)| old.2 != new.2);
    equal("emptied", changed.clone().all(|(_, new)| new.2.is_empty()).to_string(), true.to_string());
    let replaced: u64 = member["replaced_requests"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    equal("replaced", changed.count().to_string(), replaced.to_string());
    let state = |wal: &Wal| wal.hard_state().map(|state| (state.term, state.vote, state.commit.0.max(index)));
    equal("hard state", format!("{:?}", state(new)), format!("{:?}", state(old)));
    for path in fs::read_dir(copy.join("member/snap")).unwrap().chain(fs::read_dir(copy.join("member/wal")).unwrap()) {
        let mode = path.unwrap().metadata().unwrap().permissions().mode() & 0o777;
        equal("mode", format!("{mode:o}"), "600".into());
    }
}

#[test]
fn real_directories_keep_their_v3_data_and_their_log() {
    let mut wrong = Vec::new();
    for name in corpus::MIXED {
        let Some(dir) = corpus::mixed(test_name!(), name) else { return };
        let truth = read_json(&dir.join("truth.json"));
        for (member, of_member) in truth["data_dirs"].as_object().unwrap() {
            let (source, wal) = (dir.join(member), of_member["wal_dir"].as_str().map(|wal| dir.join(wal)));
            let before = (scratch::fingerprint(&source), wal.as_deref().map(scratch::fingerprint));
            for version in ["3.6", "3.7"] {
                let temp = scratch::temp();
                let copy = temp.path().join("copy");
                let mut options = vec!["--target-version", version, "--json"];
                options.extend(wal.iter().flat_map(|wal| ["--wal-dir", wal.to_str().unwrap()]));
                let made = clean(&[&source], &copy, &options).success().json();
                compare(&source, wal.as_deref(), &copy, &made["members"][0], &mut wrong);
                let checked = etcdlift(["check", copy.to_str().unwrap(), "--target-version", version, "--json"]);
                let found = checked.json();
                let sum = (checked.status, &found["verdict"], &found["sources"][0]["leftovers"]["nodes"]);
                if sum != (0, &"clean".into(), &serde_json::json!([])) {
                    wrong.push(format!("{name} {member} for {version}: {}", checked.story()));
                }
                assert_eq!(scratch::names(temp.path()), ["copy"]);
            }
            assert_eq!(before, (scratch::fingerprint(&source), wal.as_deref().map(scratch::fingerprint)));
        }
        fs::remove_dir_all(dir).unwrap();
    }
    all_well(&wrong);
}

#[test]
fn several_members_get_the_names_of_convert() {
    let Some(dir) = corpus::mixed(test_name!(), "v3.5.16-m9") else { return };
    let temp = scratch::temp();
    let (out, report) = (temp.path().join("out"), temp.path().join("report.json"));
    let sources = ["m3.etcd", "m0.etcd", "m2.etcd", "m1.etcd"].map(|name| dir.join(name));
    let sources: Vec<&Path> = sources.iter().map(PathBuf::as_path).collect();
    let made = clean(&sources, &out, &["--report", report.to_str().unwrap()]).success();
    says(&made, &["was removed from its cluster, so no etcd starts on it [removed-member]"]);
    assert_eq!(scratch::names(&out), ["14a74371e6b8126f", "m0", "m1", "m3"]);
    let report = read_json(&report);
    let mut wrong = Vec::new();
    for (source, member) in sources.iter().zip(report["members"].as_array().unwrap()) {
        compare(source, None, Path::new(member["directory"].as_str().unwrap()), member, &mut wrong);
    }
    all_well(&wrong);
    // One of them alone is that of a cluster of three.
    let alone = temp.path().join("alone");
    let made = clean(&[sources[1]], &alone, &[]).success();
    says(&made, &["the cluster also has the members m1, m3 [other-members]"]);
    assert_eq!(tree(&alone), tree(&out.join("m0")));
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn what_is_refused() {
    let temp = scratch::temp();
    let copy_of = |from: &str, name: &str| {
        let path = temp.path().join(name);
        scratch::copy_tree(Path::new(from), &path);
        path
    };
    let source = copy_of(FIXTURE, "source");
    let out = temp.path().join("out");
    let refused = |sources: &[&Path], options: &[&str], status: i32, words: &[&str]| {
        let output = clean(sources, &out, options);
        assert_eq!(output.status, status, "{}", output.story());
        says(&output, words);
        assert!(!out.exists());
    };
    let demo = Path::new("fixtures/demo/input/default.etcd");
    refused(&[demo], &[], 5, &["has v2 data only", "hint: `etcdlift convert` makes a v3 database of v2 data"]);
    refused(&[Path::new("fixtures/members/m0.etcd")], &[], 5, &["v2 data only"]);
    refused(&[&source, &source], &[], 5, &["is member", "hint: give the directories of different members"]);
    refused(&[&temp.path().join("none")], &[], 5, &["no such file"]);
    let inside = source.join("out");
    assert_eq!(clean(&[&source], &inside, &[]).status, 5);
    let report = temp.path().join("report.json");
    fs::write(&report, "mine").unwrap();
    refused(&[&source], &["--report", report.to_str().unwrap()], 5, &["the report exists", "hint: give another name"]);
    let in_output = out.join("report.json");
    refused(&[&source], &["--report", in_output.to_str().unwrap()], 5, &["a directory of its own"]);
    let full = copy_of(FIXTURE, "full");
    let output = clean(&[&source], &full, &[]);
    assert_eq!(output.status, 5, "{}", output.story());
    says(&output, &["the output exists and is not empty"]);
    // An etcd runs on it.
    let held = Flock::lock(fs::File::open(source.join(SEGMENT)).unwrap(), FlockArg::LockExclusiveNonblock).unwrap();
    refused(&[&source], &[], 5, &["an etcd is running on it", "hint: stop that etcd"]);
    held.unlock().unwrap();
    // The log ends before the entry that the backend has applied, or it is damaged.
    let cut = copy_of(FIXTURE, "cut");
    let frames = v2files::frames(&fs::read(cut.join(SEGMENT)).unwrap());
    let record = &frames[frames.len() - 6].1;
    scratch::edit(&cut.join(SEGMENT), |bytes| bytes[record.start - 8..].fill(0));
    refused(&[&cut], &[], 3, &["the v3 backend is at raft index", "hint: take another copy"]);
    let damaged = copy_of(FIXTURE, "damaged");
    scratch::edit(&damaged.join(SEGMENT), |bytes| bytes[record.end - 1] ^= 1);
    refused(&[&damaged], &[], 3, &["wal: byte ", "hint: take another copy"]);
    let short = copy_of(FIXTURE, "short");
    fs::File::options().write(true).open(short.join(SEGMENT)).unwrap().set_len(32_000_000).unwrap();
    refused(&[&short], &[], 5, &["the copy of a member is incomplete"]);
    let without_log = copy_of(FIXTURE, "without-log");
    fs::remove_dir_all(without_log.join("member/wal")).unwrap();
    refused(&[&without_log], &[], 5, &["hint: give --wal-dir DIR"]);
    let broken = copy_of(FIXTURE, "broken");
    scratch::edit(&broken.join("member/snap/db"), |bytes| bytes[..16384].fill(7));
    assert_eq!(clean(&[&broken], &out, &[]).status, 5);
    assert!(!out.exists());
    // An empty directory gives way.
    fs::create_dir(&out).unwrap();
    clean(&[&source], &out, &[]).success();
}

#[test]
fn sources_of_two_clusters_are_refused() {
    let (Some(one), Some(two)) = (corpus::mixed(test_name!(), "v3.5.16-m1"), corpus::mixed(test_name!(), "v3.5.16-m8"))
    else {
        return;
    };
    let temp = scratch::temp();
    let output = clean(&[&one.join("m0.etcd"), &two.join("m0.etcd")], &temp.path().join("out"), &[]);
    assert_eq!(output.status, 5, "{}", output.story());
    says(&output, &["the source is of cluster", "hint: give the directories of different members of one cluster"]);
    assert!(scratch::names(temp.path()).is_empty());
    fs::remove_dir_all(one).unwrap();
    fs::remove_dir_all(two).unwrap();
}

#[test]
fn a_killed_run_leaves_nothing_or_all() {
    let temp = scratch::temp();
    let (source, out) = (Path::new(FIXTURE), temp.path().join("out"));
    let reference = temp.path().join("reference");
    clean(&[source], &reference, &[]).success();
    let (whole, before) = (tree(&reference), scratch::fingerprint(source));
    let words = ["clean".into(), source.into(), "-o".into(), out.clone().into_os_string()];
    let mut seen = Vec::new();
    for step in 1..1000 {
        let end = match killed_before(step, &words) {
            Ok(end) => end,
            Err(errno @ (Errno::EPERM | Errno::EACCES)) => {
                skip(test_name!(), Need::Machine, &format!("a program cannot be traced here: {errno}"));
                return;
            }
            Err(errno) => panic!("{errno}"),
        };
        assert!(!out.exists() || tree(&out) == whole, "step {step}: a part of the output has its name");
        assert_eq!(scratch::fingerprint(source), before, "the source was changed");
        seen.push(fs::remove_dir_all(&out).is_ok());
        for name in scratch::names(temp.path()).iter().filter(|name| *name != "reference") {
            assert!(name.starts_with('.'), "{name}");
            fs::remove_dir_all(temp.path().join(name)).unwrap();
        }
        if let End::Itself(status) = end {
            assert_eq!(status, 0);
            assert!(step > 20 && seen.is_sorted(), "{seen:?}");
            return;
        }
    }
    panic!("no run ends by itself");
}

#[test]
fn every_kind_of_content_and_request_is_removed() {
    let mut wrong = Vec::new();
    for case in upgrade::cases().iter().filter(|case| !case.is_history() || case.name.starts_with("a user")) {
        let temp = scratch::temp();
        let source = temp.path().join("source");
        upgrade::write(&source, case);
        let before = scratch::fingerprint(&source);
        for version in ["3.6", "3.7"] {
            let copy = temp.path().join(version);
            let made = clean(&[&source], &copy, &["--target-version", version, "--json"]);
            if made.status != 0 {
                wrong.push(format!("{} for {version}: {}", case.name, made.story()));
                continue;
            }
            compare(&source, None, &copy, &made.json()["members"][0], &mut wrong);
            let checked = etcdlift(["check", copy.to_str().unwrap(), "--target-version", version]);
            if checked.status != 0 {
                wrong.push(format!("{} for {version}: {}", case.name, checked.story()));
            }
        }
        assert_eq!(scratch::fingerprint(&source), before);
    }
    all_well(&wrong);
}

#[test]
fn what_is_removed_can_be_saved_and_listed() {
    let temp = scratch::temp();
    let at = |name: &str| temp.path().join(name).display().to_string();
    let (source, out) = (Path::new(FIXTURE), temp.path().join("out"));
    let (saved, ledger) = (at("saved.ndjson"), at("ledger.ndjson"));
    let options = ["--save-v2", &saved, "--ledger", &ledger, "--in-place-plan"];
    let made = clean(&[source], &out, &options).success();
    let exported = at("exported.ndjson");
    etcdlift(["export", FIXTURE, "-o", &exported]).success();
    assert_eq!(fs::read(&saved).unwrap(), fs::read(&exported).unwrap());
    let lines = fs::read_to_string(&ledger).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let paths: Vec<&str> = lines.iter().filter_map(|line| line["node"]["path"].as_str()).collect();
    assert!(paths.contains(&"/1/_internal/lock") && paths.contains(&"/2/users/ann"), "{paths:?}");
    for file in [&saved, &ledger] {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let full = fs::canonicalize(".").unwrap().join(FIXTURE).display().to_string();
    says(
        &made,
        &[
            "systemctl stop etcd",
            &format!("mv -T {full} {full}.with-v2"),
            &format!("mv -T {} {full}", out.display()),
            "systemctl start etcd",
        ],
    );
    assert!(Path::new(FIXTURE).exists(), "the plan was carried out");
    // An output that exists is never replaced, and then no other file is written.
    let again = clean(&[source], &temp.path().join("again"), &["--save-v2", &saved, "--ledger", &at("other")]);
    assert_eq!(again.status, 5, "{}", again.story());
    says(&again, &["the list of v2 keys exists", "hint: give another name"]);
    assert_eq!(scratch::names(temp.path()), ["exported.ndjson", "ledger.ndjson", "out", "saved.ndjson"]);
}

#[test]
fn keys_that_are_not_in_v3_can_be_refused() {
    let temp = scratch::temp();
    let out = temp.path().join("out");
    let refused = clean(&[Path::new(FIXTURE)], &out, &["--require-migrated"]);
    assert_eq!(refused.status, 5, "{}", refused.story());
    says(&refused, &["missing in v3 (/", "hint: `etcdlift convert --existing merge` adds them to v3"]);
    assert!(scratch::names(temp.path()).is_empty());
    let Some(dir) = corpus::mixed(test_name!(), "v3.5.16-m1") else { return };
    let saved = temp.path().join("saved.ndjson");
    let options = ["--require-migrated", "--save-v2", saved.to_str().unwrap()];
    let made = clean(&[&dir.join("m0.etcd")], &out, &options).success();
    says(&made, &["saved: 0 v2 keys"]);
    assert!(!saved.exists());
    // Without v2 keys, nothing is missing. With equal ones, neither: `convert --existing merge` writes them.
    let merged = temp.path().join("merged");
    let db = temp.path().join("db");
    let source = temp.path().join("source");
    scratch::copy_tree(Path::new(FIXTURE), &source);
    let args = ["--to", "backend", "--existing", "merge", "--target-version", "3.5", "--auth", "ignore"];
    let command = [&["convert", FIXTURE, "-o", db.to_str().unwrap()], &args[..]].concat();
    etcdlift(&command).success();
    fs::copy(&db, source.join("member/snap/db")).unwrap();
    let refused = clean(&[&source], &merged, &["--require-migrated"]);
    assert_eq!(refused.status, 5, "{}", refused.story());
    let message = "of 1 v2 user, 1 missing in v3 (ann); of 1 v2 role, 1 missing in v3 (readers)";
    says(&refused, &[&format!("{}: {message}", source.display())]);
    // With users and roles, nothing is missing.
    fs::remove_file(&db).unwrap();
    etcdlift(&command[..command.len() - 2]).success();
    fs::copy(&db, source.join("member/snap/db")).unwrap();
    clean(&[&source], &merged, &["--require-migrated"]).success();
    fs::remove_dir_all(dir).unwrap();
}

/// The role of anonymous clients has no counterpart in v3.
#[test]
fn users_and_roles_that_are_not_in_v3_are_named() {
    let temp = scratch::temp();
    let source = temp.path().join("source");
    upgrade::write(&source, &upgrade::cases()[0]);
    for (files, expected) in [
        (&["/2/roles/guest"][..], None),
        (&["/2/roles/guest", "/2/roles/ops"], Some("of 1 v2 role, 1 missing in v3 (ops)")),
        (&["/2/users/ann", "/2/users/ben"], Some("of 2 v2 users, 2 missing in v3 (ann, ben)")),
    ] {
        let dir = &files[0][.."/2/roles".len()];
        let children = files.iter().map(|path| Node::file(path, 7, "{}").child());
        let auth = Node::dir("/2", 7, &Node::dir(dir, 7, &joined(children)).child()).child();
        let store = store_of(9, &joined([Node::dir("/1", 7, "").child(), auth]), "null");
        v2files::write_snapshot(&source, store.into_bytes(), 40, 2, upgrade::MEMBER, 9);
        let out = temp.path().join("out");
        let output = clean(&[&source], &out, &["--require-migrated"]);
        match expected {
            None => {
                output.success();
                fs::remove_dir_all(&out).unwrap();
            }
            Some(words) => {
                assert_eq!(output.status, 5, "{}", output.story());
                says(&output, &[words]);
                assert!(!output.stderr.contains("guest"), "{}", output.story());
            }
        }
    }
}

/// A v3 write in the log decides what v3 has, once the member starts.
#[test]
fn v3_writes_that_are_only_in_the_log_are_not_migrated() {
    let key = |field: u64, name: &'static str| upgrade::internal(field, |out| put_bytes(out, 1, name.as_bytes()));
    for (what, data, refused) in [
        ("no request", Vec::new(), None),
        ("a delete", key(5, "/registry/item0"), Some("delete /registry/item0 (raft index 45)")),
        ("a delete of a missing key", key(5, "/none"), None),
        ("a put", key(4, "/a"), Some("put /a (raft index 45)")),
        ("a new user", key(1100, "ann"), Some("add user ann (raft index 45)")),
        ("a compaction", upgrade::internal(7, |out| put_number(out, 1, 23)), None),
        ("a lease", upgrade::internal(8, |out| put_number(out, 2, 7)), None),
    ] {
        let temp = scratch::temp();
        let (source, out) = (temp.path().join("source"), temp.path().join("out"));
        upgrade::write(&source, &upgrade::Case::with_entry(what, data));
        let output = clean(&[&source], &out, &["--require-migrated"]);
        let Some(named) = refused else {
            assert_eq!(output.status, 0, "{what}: {}", output.story());
            continue;
        };
        assert_eq!((output.status, out.exists()), (5, false), "{what}: {}", output.story());
        let message = "1 v3 write is in the log but not applied to the v3 backend (which is at raft index 42): ";
        says(&output, &[&format!("{message}{named}"), "stop it cleanly, then clean again"]);
        clean(&[&source], &out, &[]).success();
    }
}

/// `export` gives the same warning.
#[test]
fn saved_keys_of_a_minority_may_lack_later_writes() {
    const WARNING: &str = "they may lack writes after raft index";
    let temp = scratch::temp();
    let at = |name: &str| temp.path().join(name);
    let Some(dir) = corpus::mixed(test_name!(), "v3.5.16-m9") else { return };
    for (number, (members, code)) in
        [(&["m1"][..], Some("one-of-several-voters")), (&["m0", "m1"], None)].into_iter().enumerate()
    {
        let sources: Vec<PathBuf> = members.iter().map(|name| dir.join(format!("{name}.etcd"))).collect();
        let sources: Vec<&Path> = sources.iter().map(PathBuf::as_path).collect();
        let file = at(&format!("{number}.ndjson"));
        let options = ["--save-v2", file.to_str().unwrap(), "--json"];
        let made = clean(&sources, &at(&format!("out{number}")), &options).success().json();
        let codes: Vec<&str> =
            made["warnings"].as_array().unwrap().iter().map(|warning| warning["code"].as_str().unwrap()).collect();
        assert_eq!(codes.iter().find(|found| **found == "one-of-several-voters").copied(), code, "{codes:?}");
        let without = clean(&sources, &at(&format!("without{number}")), &["--json"]).success().json();
        assert!(!without.to_string().contains("one-of-several-voters"));
    }
    fs::remove_dir_all(dir).unwrap();
    // The member has no v2 key, and the others may have some.
    let source = at("source");
    upgrade::write(&source, &upgrade::cases()[0]);
    let store = store_of(9, &Node::dir("/1", 7, "").child(), "null");
    v2files::write_snapshot_of(&source, store.into_bytes(), 40, 2, &[upgrade::MEMBER, 2, 3], 9);
    let made = clean(&[&source], &at("none"), &["--save-v2", at("none.ndjson").to_str().unwrap()]).success();
    says(&made, &["saved: 0 v2 keys", &WARNING.replace("they", "one of 3 voters: it"), "[one-of-several-voters]"]);
    assert!(!at("none.ndjson").exists());
}

/// A source, a log elsewhere and a copy, for commands that are pasted.
struct Swapped {
    temp: tempfile::TempDir,
    root: PathBuf,
}

impl Swapped {
    fn new() -> Swapped {
        let temp = scratch::temp();
        let root = temp.path().join("source");
        scratch::copy_tree(Path::new(FIXTURE), &root);
        Swapped { temp, root }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// Cleans the source, and runs the printed commands without those for systemd. Then the swapped directory is checked, as etcd
    /// finds it with the same options.
    fn paste(&self, source: &Path, wal_dir: Option<&Path>) -> Vec<String> {
        let mut options = vec!["--in-place-plan", "--json"];
        options.extend(wal_dir.iter().flat_map(|log| ["--wal-dir", log.to_str().unwrap()]));
        let made = clean(&[source], &self.at("out"), &options).success().json();
        let commands = made["in_place_plan"][0]["commands"].as_array().unwrap();
        let commands = commands.iter().map(|command| command.as_str().unwrap().to_string());
        let commands: Vec<String> = commands.filter(|command| !command.starts_with("systemctl ")).collect();
        for command in &commands {
            assert!(Command::new("sh").args(["-c", command]).status().unwrap().success(), "{commands:?}");
        }
        let root = if source.ends_with("member") { source.parent().unwrap() } else { source };
        let mut check = vec!["check", root.to_str().unwrap(), "--json"];
        check.extend(wal_dir.iter().flat_map(|log| ["--wal-dir", log.to_str().unwrap()]));
        let checked = etcdlift(check);
        assert_eq!((checked.status, &checked.json()["verdict"]), (0, &"clean".into()), "{commands:?}");
        let log = wal_dir.map_or(root.join("member/wal"), Path::to_path_buf);
        assert_eq!(scratch::names(&log), [Path::new(SEGMENT).file_name().unwrap().to_str().unwrap()]);
        commands
    }
}

#[test]
fn the_plan_can_be_pasted() {
    for (folder, moves_log) in [("", false), ("member", false), ("", true), ("member", true)] {
        let place = Swapped::new();
        let log = place.at("log");
        if moves_log {
            fs::rename(place.root.join("member/wal"), &log).unwrap();
        }
        let source = if folder.is_empty() { place.root.clone() } else { place.root.join(folder) };
        let commands = place.paste(&source, moves_log.then_some(log.as_path()));
        assert_eq!(commands.len(), if moves_log { 4 } else { 2 });
    }
}

/// A crash between a snapshot and its record in the log.
#[test]
fn a_snapshot_without_a_record_is_ignored_as_etcd_does() {
    let temp = scratch::temp();
    let case = upgrade::cases().into_iter().find(|case| case.name == "nothing in the snapshot").unwrap();
    for (name, index, is_received, is_ignored) in [
        // The log reaches it.
        ("last", 46, false, true),
        // A leader sent it with a backend.
        ("received", 101, true, true),
        // The log may lack its end.
        ("beyond", 101, false, false),
    ] {
        let source = temp.path().join(name);
        upgrade::write(&source, &case);
        let store = store_of(9, &Node::dir("/1", 7, &Node::file("/1/a", 7, "v").child()).child(), "null");
        let snapshot = v2files::write_snapshot(&source, store.into_bytes(), index, 2, upgrade::MEMBER, 9).path;
        if is_received {
            let received = source.join(format!("member/snap/{index:016x}.snap.db"));
            fs::copy(source.join("member/snap/db"), received).unwrap();
        }
        let out = temp.path().join(format!("{name}.out"));
        let checked = etcdlift(["check", "--json", source.to_str().unwrap()]);
        let cleaned = etcdlift(["clean", "--json", source.to_str().unwrap(), "-o", out.to_str().unwrap()]);
        let expected = if is_ignored { (0, 0) } else { (8, 5) };
        assert_eq!((checked.status, cleaned.status), expected, "{}\n{}", checked.story(), cleaned.story());
        let mut results = vec![checked.json()["sources"][0].clone()];
        if is_ignored {
            assert_eq!(results[0]["losses"], serde_json::json!([]));
            results.push(cleaned.json());
        } else {
            assert!(cleaned.stderr.contains("the copy of a member is incomplete"), "{}", cleaned.story());
        }
        for found in results {
            let warnings = found["warnings"].as_array().unwrap();
            let warning = warnings.iter().find(|warning| warning["code"] == "snapshot-passed-over");
            let message = warning.unwrap_or_else(|| panic!("{found:#}"))["message"].as_str().unwrap();
            assert!(message.starts_with(snapshot.to_str().unwrap()), "{message}");
        }
    }
}

/// The log moves aside with the source, and etcd looks for the new one at the same path.
#[test]
fn the_plan_can_be_pasted_if_the_log_is_inside_the_source() {
    for (folder, log, count) in [
        ("", "member/wal", 2),
        ("member", "member/wal", 2),
        ("", "member/../member/wal", 2),
        ("", "mywal", 3),
        ("", "logs/etcd/wal", 4),
        ("", "member/log", 4),
        ("member", "member/log", 3),
        ("member", "mywal", 4),
        ("", "member/wal/deeper", 4),
    ] {
        let place = Swapped::new();
        let log = place.root.join(log);
        if !log.exists() {
            let held = place.at("held");
            fs::rename(place.root.join("member/wal"), &held).unwrap();
            fs::create_dir_all(log.parent().unwrap()).unwrap();
            fs::rename(&held, &log).unwrap();
        }
        let source = if folder.is_empty() { place.root.clone() } else { place.root.join(folder) };
        let commands = place.paste(&source, Some(&log));
        assert_eq!(commands.len(), count, "{commands:?}");
    }
}

/// A rename changes the link, not the directory behind it.
#[test]
fn the_plan_can_be_pasted_with_links() {
    // The source is a link, and the log is named through it or by its real path.
    for (log, count) in [("source/mywal", 3), ("real/mywal", 4), ("source/member/wal", 2), ("real/member/wal", 4)] {
        let place = Swapped::new();
        fs::rename(&place.root, place.at("real")).unwrap();
        symlink(place.at("real"), &place.root).unwrap();
        if log.ends_with("mywal") {
            fs::rename(place.at("real/member/wal"), place.at("real/mywal")).unwrap();
        }
        let commands = place.paste(&place.root, Some(&place.at(log)));
        assert_eq!(commands.len(), count, "{log}: {commands:?}");
        assert!(place.at("real/member/snap").exists());
    }
    // A link elsewhere names the source, or the log inside it; the log of the source is a link.
    for (link, target, log, moves, count) in [
        ("link", "source", "link/mywal", "source/mywal", 3),
        ("link", "source/mywal", "link", "source/mywal", 3),
        ("link", "source", "link/member/wal", "source/member/wal", 2),
        ("source/member/wal", "disk", "source/member/wal", "disk", 2),
        ("link", "disk", "link", "disk", 4),
    ] {
        let place = Swapped::new();
        fs::rename(place.root.join("member/wal"), place.at("held")).unwrap();
        fs::rename(place.at("held"), place.at(moves)).unwrap();
        symlink(place.at(target), place.at(link)).unwrap();
        let commands = place.paste(&place.root, Some(&place.at(log)));
        assert_eq!(commands.len(), count, "{log}: {commands:?}");
    }
}

/// `./-x` would be another name.
#[test]
fn the_name_of_a_member_is_not_a_path() {
    let temp = scratch::temp();
    let (source, out) = (temp.path().join("source"), temp.path().join("out"));
    upgrade::write(&source, &upgrade::cases()[0]);
    let id = format!("/0/members/{:x}", upgrade::MEMBER);
    let of_member = [
        (format!("{id}/attributes"), r#"{"name":"-x y"}"#),
        (format!("{id}/raftAttributes"), r#"{"peerURLs":["http://127.0.0.1:2380"]}"#),
    ];
    let files = of_member.map(|(path, value)| Node::file(&path, 7, &escaped(value)).child());
    let members = Node::dir("/0/members", 7, &Node::dir(&id, 7, &joined(files)).child()).child();
    let store = store_of(9, &joined([Node::dir("/0", 7, &members).child(), Node::dir("/1", 7, "").child()]), "null");
    v2files::write_snapshot(&source, store.into_bytes(), 40, 2, upgrade::MEMBER, 9);
    let made = clean(&[&source], &out, &["--json"]).success().json();
    assert_eq!(made["members"][0]["name"], "-x y");
    assert_eq!(made["next_steps"][1], format!("etcd --name='-x y' --data-dir {}", out.display()));
}
