//! `--to data-dir`: which directories are made, of which cluster, what may be replaced, and what `verify` and `inspect` say of
//! them.
//!
//! Converts the demo directory. `tests/peers/boot` boots such directories with real servers.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use super::kit::{AS_OF, Case, Run, demo, meta, rows, totals_add_up};
use crate::common::run::{Output, bounded, etcdlift, etcdlift_path, run};
use crate::common::scratch;
use crate::common::scratch::{edit, names};

const THREE: &str = "a=http://127.0.0.1:1,b=http://127.0.0.1:2,c=http://127.0.0.1:3";
const SEGMENT: &str = "member/wal/0000000000000000-0000000000000000.wal";

/// Converts the demo into directories, with `--to data-dir`.
fn make(case: &Case, options: &[&str]) -> Run {
    case.run(&demo(), &[&["--to", "data-dir"], options].concat())
}

/// As [`make`], for all of three members.
fn make_three(case: &Case, options: &[&str]) -> Run {
    make(case, &[&["--initial-cluster", THREE, "--all-members"], options].concat())
}

fn succeeded(run: &Run) {
    assert_eq!(run.output.status, 0, "{}", run.output.story());
    totals_add_up(run.report());
}

fn verify(path: &Path, options: &[&str]) -> Output {
    let path = path.to_str().unwrap();
    etcdlift([&["verify", path, "--json"], options].concat())
}

/// Every file and directory below a path, sorted.
fn tree(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![path.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap().path();
            found.push(entry.clone());
            if entry.is_dir() {
                open.push(entry);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn one_member_is_a_directory_of_its_own() {
    let case = Case::new();
    let run = make(&case, &["--name", "n1", "--initial-advertise-peer-urls", "http://127.0.0.1:9"]);
    succeeded(&run);
    let root = case.out();
    let files: Vec<_> =
        tree(&root).into_iter().map(|path| path.strip_prefix(&root).unwrap().display().to_string()).collect();
    let snap = "member/snap/0000000000000001-0000000000000001.snap";
    assert_eq!(files, ["member", "member/snap", snap, "member/snap/db", "member/wal", SEGMENT]);
    assert_eq!(
        (meta(&root.join("member/snap/db"), "consistent_index"), meta(&root.join("member/snap/db"), "term")),
        (1, 1)
    );
    assert_eq!(rows(&root.join("member/snap/db")).len(), 19);
    let output = &run.report()["output"];
    let member = &output["members"][0];
    assert_eq!((&member["name"], &member["peer_urls"][0]), (&"n1".into(), &"http://127.0.0.1:9".into()));
    assert_eq!(member["directory"], root.to_str().unwrap());
    let step = &run.report()["next_steps"][0];
    assert_eq!((&step["purpose"], &step["member"]), (&"start".into(), &"n1".into()));
    assert!(step["command"].as_str().unwrap().contains("--initial-advertise-peer-urls http://127.0.0.1:9"), "{step}");
    verify(&root, &[]).success();
}

#[test]
fn all_members_have_one_database_and_logs_of_their_own() {
    let case = Case::new();
    let run = make_three(&case, &["--initial-cluster-token", "t"]);
    succeeded(&run);
    let at = |member: &str, file: &str| fs::read(case.out().join(member).join(file)).unwrap();
    assert_eq!(names(&case.out()), ["a", "b", "c"]);
    for member in ["b", "c"] {
        assert!(at(member, "member/snap/db") == at("a", "member/snap/db"));
        assert!(at(member, SEGMENT) != at("a", SEGMENT) && at(member, SEGMENT).len() == 64_000_000);
    }
    assert!(run.notices("warnings").is_empty(), "{}", run.output.story());
    assert_eq!(run.report()["output"]["files"].as_array().unwrap().len(), 9);
    for path in tree(&case.out()) {
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
    }
    // The hole takes no room.
    assert!(fs::metadata(case.out().join("a").join(SEGMENT)).unwrap().blocks() < 1000);
    let (report, source) = (case.report(), demo());
    let found = verify(&case.out(), &["--report", report.to_str().unwrap(), "--source", source.to_str().unwrap()]);
    let found = found.success().json();
    assert_eq!(found["directories"].as_array().unwrap().len(), 3);
    let inspected = etcdlift(["inspect", case.out().join("b").to_str().unwrap(), "--json"]).success().json();
    let listed = inspected["db"]["members"].as_array().unwrap();
    let mut named: Vec<_> = listed.iter().map(|member| member["name"].as_str().unwrap()).collect();
    named.sort_unstable();
    assert_eq!((named, inspected["voters"].as_array().unwrap().len()), (vec!["a", "b", "c"], 3));
}

#[test]
fn a_run_for_one_of_several_members_names_the_instant_for_the_others() {
    let case = Case::new();
    let run = make(&case, &["--initial-cluster", THREE, "--name", "b"]);
    succeeded(&run);
    assert_eq!(run.notices("warnings"), ["other-members"]);
    let hint = &run.report()["warnings"][0]["hint"];
    assert!(hint.as_str().unwrap().contains("--as-of 2026-12-01T00:00:00Z"), "{hint}");
    // The same cluster as in a run for all members.
    let all = Case::new();
    let of_all = make_three(&all, &[]);
    assert_eq!(run.report()["output"]["cluster_id"], of_all.report()["output"]["cluster_id"]);
    for file in ["member/snap/db", SEGMENT, "member/snap/0000000000000001-0000000000000003.snap"] {
        assert!(
            fs::read(case.out().join(file)).unwrap() == fs::read(all.out().join("b").join(file)).unwrap(),
            "{file}"
        );
    }
}

#[test]
fn a_learner_does_not_vote() {
    let case = Case::new();
    succeeded(&make_three(&case, &["--learner", "b"]));
    let inspected = etcdlift(["inspect", case.out().join("a").to_str().unwrap(), "--json"]).success().json();
    let learners = |list: &serde_json::Value| -> Vec<String> {
        let members = list.as_array().unwrap().iter().filter(|member| member["is_learner"] == true);
        members.map(|member| member["id"].as_str().unwrap().to_string()).collect()
    };
    assert_eq!(learners(&inspected["db"]["members"]).len(), 1);
    assert_eq!(learners(&inspected["members"]), learners(&inspected["db"]["members"]));
    assert_eq!(inspected["voters"].as_array().unwrap().len(), 2);
    verify(&case.out(), &[]).success();
}

#[test]
fn members_of_the_source_form_a_new_cluster() {
    let case = Case::new();
    let run = make(&case, &["--members-from-source", "--initial-cluster-token", "new"]);
    succeeded(&run);
    let (output, source) = (&run.report()["output"], &run.report()["source"]);
    assert_eq!(output["members"][0]["peer_urls"], source["members"][0]["peer_urls"]);
    assert_ne!(output["cluster_id"], source["cluster_id"]);
    let command = run.report()["next_steps"][0]["command"].as_str().unwrap();
    assert!(command.contains("--listen-client-urls http://127.0.0.1:23790"), "{command}");
    // The demo cluster has the default token.
    let same = Case::new();
    let run = make(&same, &["--members-from-source"]);
    assert_eq!(run.notices("warnings"), ["same-cluster-id"]);
}

#[test]
fn options_that_contradict_each_other_are_a_wrong_command_line() {
    let case = Case::new();
    let of_data_dir = [
        (&["--initial-cluster", THREE][..], "no option chooses one"),
        (&["--initial-cluster", THREE, "--name", "d"], "not a member"),
        (&["--initial-cluster", THREE, "--name", "a", "--all-members"], "--all-members"),
        (&["--initial-cluster", THREE, "--name", "a", "--learner", "d"], "--learner"),
        (&["--initial-cluster", THREE, "--all-members", "--learner", "a", "--learner", "b", "--learner", "c"], "voter"),
        (&["--initial-cluster", THREE, "--name", "a", "--initial-advertise-peer-urls", "http://h:1"], "differs"),
        (&["--initial-cluster", "a=http://127.0.0.1:1,b=http://127.0.0.1:1", "--name", "a"], "same peer URL"),
        (&["--initial-cluster", "a=http://127.0.0.1"], "port"),
        (&["--initial-cluster-token", ""], "empty"),
        (&["--members-from-source", "--initial-cluster", THREE], "cannot be used with"),
        (&["--members-from-source", "--name", "other"], "not a member"),
    ];
    for (options, words) in of_data_dir {
        let run = make(&case, options);
        assert_eq!(run.output.status, 2, "{options:?}: {}", run.output.story());
        assert!(run.output.stderr.contains(words), "{}", run.output.story());
    }
    for options in
        [&["--name", "a"][..], &["--all-members"], &["--preserve-owner"], &["--to", "backend", "--learner", "a"]]
    {
        let run = case.run(&demo(), options);
        assert_eq!(run.output.status, 2, "{options:?}: {}", run.output.story());
    }
    assert!(names(&case.path("out")).is_empty());
}

#[test]
fn a_dry_run_has_the_same_hash_and_writes_nothing() {
    let case = Case::new();
    for (options, existing) in [(&["--dry-run"][..], false), (&["--dry-run"], true), (&[], true)] {
        if existing {
            fs::create_dir_all(case.out()).unwrap();
        }
        let run = make_three(&case, options);
        succeeded(&run);
        assert_eq!(run.report()["output"]["hash_kv"], 3_944_313_399_u32);
        let left = if existing { vec!["out.db"] } else { Vec::new() };
        assert_eq!(names(&case.path("out")), left);
        assert_eq!(names(&case.out_if_any()).len(), if options.is_empty() { 3 } else { 0 });
    }
}

#[test]
fn only_what_no_etcd_has_opened_is_replaced() {
    let case = Case::new();
    succeeded(&make_three(&case, &[]));
    make_three(&case, &[]).refused_with_files(5, "output-exists", &["--overwrite"], &["out.db"]);
    succeeded(&make(&case, &["--overwrite"]));
    assert_eq!(names(&case.out()), ["member"]);
    let db = case.out().join("member/snap/db");
    // The next transaction of an etcd writes the meta page of the other id.
    let opened = |bytes: &mut Vec<u8>| bytes[16 + 48] ^= 6;
    let stranger = |name: &str| case.out().join(name);
    let refused = |what: &str| {
        let run = make(&case, &["--overwrite"]);
        assert_eq!(
            (run.output.status, &run.report()["reason"]),
            (5, &"output-exists".into()),
            "{}",
            run.output.story()
        );
        assert!(run.output.stderr.contains(what), "{what}: {}", run.output.story());
        assert!(db.exists());
    };
    for file in
        ["member/snap/other", "notes.txt", "member/wal/other.txt", "member/snap/payroll.snap", "member/wal/a-b.wal"]
    {
        fs::write(stranger(file), "mine").unwrap();
        refused(if file == "notes.txt" { "is not one that etcdlift makes" } else { "another file" });
        fs::remove_file(stranger(file)).unwrap();
    }
    edit(&db, opened);
    refused("an etcd has opened it");
    fs::remove_dir_all(case.out()).unwrap();
    fs::create_dir_all(case.out().join("x")).unwrap();
    let run = make(&case, &["--overwrite"]);
    assert_eq!(run.output.status, 5, "{}", run.output.story());
    assert!(case.out().join("x").is_dir());
}

#[test]
fn an_equal_output_is_left_alone() {
    let case = Case::new();
    let made = case.path("made.json");
    let options = |report: &Path| {
        let (source, out) = (demo(), case.out());
        let paths =
            [Path::new("convert"), source.as_path(), Path::new("-o"), out.as_path(), Path::new("--report"), report];
        let more = ["--to=data-dir", "--initial-cluster", THREE, "--all-members", "--skip-existing", "--as-of", AS_OF];
        paths.into_iter().map(|path| path.as_os_str().to_owned()).chain(more.map(Into::into)).collect::<Vec<_>>()
    };
    etcdlift(options(&made)).success();
    let before: Vec<_> = tree(&case.out()).iter().map(|path| fs::metadata(path).unwrap().ino()).collect();
    let again = etcdlift(options(&made)).success();
    assert!(again.stderr.contains("left unchanged"), "{}", again.story());
    let after: Vec<_> = tree(&case.out()).iter().map(|path| fs::metadata(path).unwrap().ino()).collect();
    assert_eq!(before, after);
    let extra = case.out().join("b/member/wal/0000000000000001-0000000000000038.wal");
    fs::write(&extra, "").unwrap();
    let refused = etcdlift(options(&made));
    assert!(
        refused.status == 5 && refused.stderr.contains("not a file that its report describes"),
        "{}",
        refused.story()
    );
    assert_eq!(verify(&case.out(), &["--report", made.to_str().unwrap()]).status, 7);
    fs::remove_file(&extra).unwrap();
    edit(&case.out().join("c").join(SEGMENT), |bytes| bytes[300] ^= 1);
    let refused = etcdlift(options(&made));
    assert_eq!(refused.status, 5, "{}", refused.story());
    for words in ["c/member/wal", "not the file that its report describes"] {
        assert!(refused.stderr.contains(words), "{}", refused.story());
    }
}

#[test]
fn verify_finds_what_would_keep_etcd_from_starting() {
    type Damage = (&'static str, fn(&Path), &'static str);
    let damage: [Damage; 7] = [
        ("a damaged log", |root| edit(&root.join("b").join(SEGMENT), |bytes| bytes[60] ^= 1), "b/member/wal"),
        ("a log without records", |root| edit(&root.join("b").join(SEGMENT), |bytes| bytes.fill(0)), "b"),
        ("no database", |root| fs::remove_file(root.join("b/member/snap/db")).unwrap(), "empty v3 data"),
        ("no directory of a member", |root| fs::remove_dir_all(root.join("b/member")).unwrap(), "b"),
        ("no log", |root| fs::remove_dir_all(root.join("b/member/wal")).unwrap(), "b"),
        (
            "the log of another member",
            |root| {
                fs::copy(root.join("a").join(SEGMENT), root.join("b").join(SEGMENT)).unwrap();
            },
            "member ID",
        ),
        (
            "a damaged snapshot",
            |root| {
                edit(&root.join("b/member/snap/0000000000000001-0000000000000003.snap"), |bytes| bytes[100] ^= 1);
            },
            "b",
        ),
    ];
    for (name, change, words) in damage {
        let case = Case::new();
        succeeded(&make_three(&case, &[]));
        let report = case.report();
        verify(&case.out(), &["--report", report.to_str().unwrap()]).success();
        change(&case.out());
        assert!([5, 7].contains(&verify(&case.out(), &["--report", report.to_str().unwrap()]).status), "{name}");
        let found = verify(&case.out(), &[]);
        assert!([5, 7].contains(&found.status), "{name}: {}", found.story());
        assert!(found.stderr.contains(words), "{name}: {}", found.story());
    }
}

#[test]
fn verify_compares_what_hashkv_leaves_out() {
    let (one, two) = (Case::new(), Case::new());
    succeeded(&make_three(&one, &[]));
    // The lease of another instant has another TTL.
    succeeded(&two.run(
        &demo(),
        &["--to", "data-dir", "--initial-cluster", THREE, "--all-members", "--as-of", "2027-01-01T00:00:00Z"],
    ));
    verify(&two.out(), &[]).success();
    let db = "b/member/snap/db";
    fs::copy(two.out().join(db), one.out().join(db)).unwrap();
    let found = verify(&one.out(), &[]);
    assert_eq!(found.status, 7, "{}", found.story());
    assert!(found.stderr.contains("hash of users, roles, leases and alarms"), "{}", found.story());
}

#[test]
fn the_owner_is_that_of_the_source() {
    let case = Case::new();
    let source = case.demo();
    let all = tree(&source).into_iter().chain([source.clone()]);
    if all.map(|path| chown(path, Some(1234), Some(1235))).any(|given| given.is_err()) {
        // Only root may give a file away; then the option is refused.
        let run = case.run(&source, &["--to", "data-dir", "--preserve-owner"]);
        assert!([0, 6].contains(&run.output.status), "{}", run.output.story());
        return;
    }
    succeeded(&case.run(&source, &["--to", "data-dir", "--preserve-owner"]));
    for path in tree(&case.out()).into_iter().chain([case.out()]) {
        let found = fs::metadata(&path).unwrap();
        assert_eq!((found.uid(), found.gid()), (1234, 1235), "{}", path.display());
    }
}

#[test]
fn no_room_and_no_place_are_known_before_the_work() {
    let case = Case::new();
    case.run_to(&demo(), &case.path("no/out"), &["--to", "data-dir"]).refused(6, "output-failed", &["no"]);
    let file = case.file("out/file", "mine");
    case.run_to(&demo(), &file, &["--to", "data-dir"]).refused_with_files(
        5,
        "output-exists",
        &["file of that name"],
        &["file"],
    );
    let source = case.demo();
    let into = case.run_to(&source, &source.join("member/new"), &["--to", "data-dir"]);
    assert_eq!((into.output.status, &into.report()["reason"]), (5, &"into-source".into()), "{}", into.output.story());
}

/// A report inside OUT would be there before OUT, or be replaced with it: refused before the source is opened.
#[test]
fn no_other_file_is_written_into_the_output() {
    let case = Case::new();
    let missing = case.path("no/such/source");
    std::os::unix::fs::symlink(case.out(), case.path("link")).unwrap();
    for exists in [false, true] {
        if exists {
            fs::create_dir(case.out()).unwrap();
        }
        for (option, what) in [("--report", "report"), ("--ledger", "ledger"), ("--index-map", "index map")] {
            for inside in [case.out().join("x"), case.out().join("a/member/x"), case.path("link/x")] {
                for to in ["data-dir", "member"] {
                    let args = ["convert", "--to", to, option].map(Into::into).into_iter();
                    let paths = [&inside, Path::new("-o"), &case.out(), &missing].map(|path: &Path| path.into());
                    let output = etcdlift(args.chain(paths).collect::<Vec<std::ffi::OsString>>());
                    assert_eq!(output.status, 5, "{}", output.story());
                    let words = format!("the {what} would be in the output, which is a directory of its own");
                    super::kit::one_line(&output, &[&words]);
                    assert_eq!(case.out().exists(), exists);
                    assert!(!exists || names(&case.out()).is_empty(), "{}", output.story());
                }
            }
        }
    }
}

#[test]
fn two_sidecar_files_of_a_directory_are_two_files() {
    let case = Case::new();
    let (file, link) = (case.path("x"), case.path("link"));
    std::os::unix::fs::symlink("x", &link).unwrap();
    let paths = ["--report", file.to_str().unwrap(), "--ledger", link.to_str().unwrap(), "--overwrite"];
    let options = [&["convert", "--to", "data-dir", "--initial-cluster", THREE, "--all-members"], &paths[..]].concat();
    let (demo, out) = (demo(), case.out());
    let output = etcdlift([&options[..], &[demo.to_str().unwrap(), "-o", out.to_str().unwrap()]].concat());
    assert_eq!(output.status, 5, "{}", output.story());
    super::kit::one_line(&output, &["the report and the ledger are the same file"]);
    assert!(!out.exists() && !file.exists());
}

#[test]
fn an_output_has_a_name_of_its_own() {
    let case = Case::new();
    let empty = case.path("empty");
    fs::create_dir(&empty).unwrap();
    let convert = |out: &Path| {
        let mut command = bounded(Path::new(etcdlift_path()), 60);
        command.args(["convert", "--to", "data-dir", "--name", "n1", "--as-of", AS_OF]).arg(demo()).arg("-o").arg(out);
        run(command.args(["--initial-advertise-peer-urls", "http://127.0.0.1:9"]).current_dir(&empty))
    };
    for out in [".", "..", "/", "../empty/.", "x/.."] {
        let output = convert(Path::new(out));
        let is_named = out == "../empty/.";
        assert_eq!(output.status, if is_named { 0 } else { 5 }, "{}", output.story());
        if !is_named {
            super::kit::one_line(&output, &["this path does not end in a name", "./converted"]);
            assert!(names(&empty).is_empty(), "{}", output.story());
        } else {
            fs::remove_dir_all(&empty).unwrap();
            fs::create_dir(&empty).unwrap();
        }
    }
    for out in ["slash/", "dot/."] {
        let output = convert(Path::new(out)).success();
        let directory = empty.join(out);
        etcdlift(["verify".as_ref(), directory.as_os_str()]).success();
        assert!(!output.stderr.contains("error"), "{}", output.story());
    }
    assert_eq!(names(&empty), ["dot", "slash"]);
    for (option, what) in [("--report", "report"), ("--ledger", "ledger"), ("--index-map", "index map")] {
        let (demo, out) = (demo(), case.out());
        let output = etcdlift(["convert", demo.to_str().unwrap(), "-o", out.to_str().unwrap(), option, "new/"]);
        assert_eq!(output.status, 2, "{}", output.story());
        super::kit::one_line(&output, &[&format!("the {what} is one file"), "remove the last `/`"]);
    }
    let output = etcdlift(["export", demo().to_str().unwrap(), "--format", "redb", "-o", "new/"]);
    assert_eq!(output.status, 2, "{}", output.story());
}

/// An output that lost a part on its way is not verified. What is no data directory is refused.
#[test]
fn a_directory_without_a_part_is_not_verified() {
    let case = Case::new();
    let one = ["--name", "n1", "--initial-advertise-peer-urls", "http://127.0.0.1:9"];
    let runs: [&dyn Fn(&Case) -> Run; 2] = [&|case| make(case, &one), &|case| make_three(case, &[])];
    for (run, root) in runs.iter().zip(["", "b"]) {
        let cases = [
            ("member/wal", "the log is missing, so etcd would start it as a new member", 7),
            (SEGMENT, "the log is missing, so etcd would start it as a new member", 7),
            ("member/snap/db", "the database of a member is missing, so etcd would start it with empty v3 data", 7),
            ("member/snap", "the database of a member is missing", 7),
            ("member", if root.is_empty() { "expected a v3 file" } else { "the database of a member is missing" }, 7),
        ];
        for (part, words, status) in cases {
            let _ = fs::remove_dir_all(case.out());
            succeeded(&run(&case));
            let path = case.out().join(root).join(part);
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }.unwrap();
            let output = verify(&case.out(), &[]);
            let status = if part == "member" && root.is_empty() { 5 } else { status };
            assert_eq!(output.status, status, "{part}: {}", output.story());
            assert!(output.stderr.contains(words) && !output.stderr.contains("--wal-dir"), "{}", output.story());
        }
    }
    let root = case.out().join("b");
    for (path, what) in [(root.join("member/snap/db"), "a regular file"), (root.join(SEGMENT), "an empty one")] {
        let _ = fs::remove_dir_all(case.out());
        succeeded(&make_three(&case, &[]));
        fs::remove_file(&path).unwrap();
        if what == "an empty one" { fs::write(&path, "") } else { fs::create_dir(&path) }.unwrap();
        let output = verify(&case.out(), &[]);
        assert_eq!(output.status, 7, "{}", output.story());
        assert!(output.stderr.contains(what), "{}", output.story());
    }
}

/// A set of directories that lacks a member is a warning, one directory by itself is none.
#[test]
fn verify_names_the_members_that_are_not_there() {
    let case = Case::new();
    succeeded(&make_three(&case, &[]));
    let not_given = |path: &Path, options: &[&str]| {
        let output = verify(path, options);
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status, found["members_not_given"].to_string(), found["warnings"].to_string())
    };
    assert_eq!(not_given(&case.out(), &[]), (0, "null".into(), "null".into()));
    assert_eq!(not_given(&case.out().join("a"), &[]), (0, r#"["b","c"]"#.into(), "null".into()));
    fs::remove_dir_all(case.out().join("c")).unwrap();
    let (status, members, warnings) = not_given(&case.out(), &[]);
    assert_eq!((status, members.as_str()), (0, r#"["c"]"#));
    assert!(warnings.contains("other-members") && warnings.contains("1 of 3 members missing (c)"), "{warnings}");
    let text = etcdlift(["verify".as_ref(), case.out().as_os_str()]).success();
    assert!(text.text().contains("members not given:"), "{}", text.story());
    // The report describes all three.
    let report = case.report();
    let (status, ..) = not_given(&case.out(), &["--report", report.to_str().unwrap()]);
    assert_eq!(status, 7);
}

#[test]
fn verify_compares_the_members_with_each_other() {
    let (case, other) = (Case::new(), Case::new());
    succeeded(&make_three(&case, &[]));
    succeeded(&make_three(&other, &["--exclude", "/config"]));
    let wrong = |words: &str| {
        let output = verify(&case.out(), &[]);
        assert_eq!(output.status, 7, "{}", output.story());
        assert!(output.stderr.contains(words), "{words}: {}", output.story());
    };
    fs::remove_dir_all(case.out().join("c")).unwrap();
    scratch::copy_tree(&other.out().join("c"), &case.out().join("c"));
    wrong("has the HashKV");
    fs::remove_dir_all(case.out().join("c")).unwrap();
    scratch::copy_tree(&case.out().join("b"), &case.out().join("z"));
    wrong("has the member ID");
}

/// A learner answers no request for its hash.
#[test]
fn the_check_asks_voters_only() {
    let case = Case::new();
    let run = make_three(&case, &["--learner", "b"]);
    succeeded(&run);
    let steps = run.report()["next_steps"].clone();
    let check = steps.as_array().unwrap().iter().find(|step| step["purpose"] == "check").unwrap();
    let command = check["command"].as_str().unwrap();
    assert!(command.contains("--endpoints CLIENT_URL,... ") && !command.contains("--cluster"), "{command}");
    assert!(run.output.stderr.contains("every voter must print the hash"), "{}", run.output.story());
}
