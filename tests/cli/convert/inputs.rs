//! Wrong inputs that are known for what they are: archives, pointers, a directory one level too high or too low, a file
//! that does not exist or may not be read, for every command and option that reads one; and names that collide in a
//! snapshot.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::kit::{Case, DEMO_SNAP, DEMO_WAL, demo, one_line};
use super::sources::as_nobody;
use crate::common::http;
use crate::common::peers::{self, Version};
use crate::common::run::etcdlift;
use crate::common::scratch::copy_tree;
use crate::common::server::{Boot, Server};
use crate::common::v2files::snap;
use crate::common::v2store::{Node, auth_store, leaf, store};
use crate::test_name;

const LFS: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";

#[test]
fn archives_and_pointers_are_named_with_the_cure() {
    let case = Case::new();
    let mut tar = vec![0; 1024];
    tar[..4].copy_from_slice(b"wal/");
    tar[257..262].copy_from_slice(b"ustar");
    for (name, bytes, words) in [
        ("a.tar.gz", &b"\x1f\x8b\x08\0\0\0\0\0"[..], ["gzip", "unpack it"]),
        ("a.snap", b"\x1f\x8b\x08\0\0\0\0\0", ["gzip", "unpack it"]),
        ("a.zst", b"\x28\xb5\x2f\xfd\0\0", ["zstd", "unpack it"]),
        ("a.xz", b"\xfd7zXZ\0\0\0", ["xz", "unpack it"]),
        ("a.bz2", b"BZh91AY&SY", ["bzip2", "unpack it"]),
        ("a.zip", b"PK\x03\x04\x14\0", ["zip", "unpack it"]),
        ("a.tar", &tar, ["tar archive", "unpack it"]),
        ("b.snap", LFS.as_bytes(), ["Git LFS", "git lfs pull"]),
        ("b.db", LFS.as_bytes(), ["Git LFS", "git lfs pull"]),
        ("c.snap", b"/annex/objects/SHA256E-s12--00.snap\n", ["git-annex", "git annex get"]),
    ] {
        let source = case.file(name, bytes);
        let words = [name, "expected a .snap file or a data directory, found ", words[0], words[1]];
        case.run(&source, &[]).refused(5, "not-etcd-data", &words);
        let inspected = etcdlift(["inspect", source.to_str().unwrap()]);
        assert_eq!(inspected.status, 5, "{}", inspected.story());
        one_line(&inspected, &words);
        let verified = etcdlift(["verify", source.to_str().unwrap()]);
        assert_eq!(verified.status, 5, "{}", verified.story());
        one_line(&verified, &[name, words[2], words[3]]);
    }
}

#[test]
fn a_pointer_inside_a_data_directory_is_named() {
    for (name, reason) in
        [(DEMO_SNAP, "not-etcd-data"), (DEMO_WAL, "not-etcd-data"), ("member/snap/db", "v3-unreadable")]
    {
        let case = Case::new();
        let source = case.demo();
        fs::write(source.join(name), LFS).unwrap();
        case.run(&source, &[]).refused(5, reason, &[name, "Git LFS", "git lfs pull"]);
    }
    let case = Case::new();
    let source = case.demo();
    fs::remove_file(source.join(DEMO_SNAP)).unwrap();
    symlink("../../../.git/annex/objects/a/b/SHA256E-s1--0/SHA256E-s1--0", source.join(DEMO_SNAP)).unwrap();
    case.run(&source, &[]).refused(5, "not-etcd-data", &[DEMO_SNAP, "git annex get"]);
}

#[test]
fn the_directory_that_was_meant_is_named() {
    let case = Case::new();
    let one = case.path("backup");
    copy_tree(&demo(), &one.join("m0.etcd"));
    case.file("backup/readme", "x");
    let right = one.join("m0.etcd");
    case.run(&one, &[]).refused(
        5,
        "not-etcd-data",
        &["a directory that contains one", "give ", right.to_str().unwrap()],
    );
    copy_tree(&demo().join("member"), &one.join("m1.etcd"));
    let words = ["contains 2 of them", "m0.etcd, ", "m1.etcd"];
    case.run(&one, &[]).refused(5, "not-etcd-data", &words);
    let snap = right.join("member/snap");
    case.run(&snap, &[]).refused(
        5,
        "not-etcd-data",
        &["`wal` or `snap` folder", &format!("above it, {}", right.display())],
    );
    // It may hold a v3 backend alone.
    fs::remove_file(right.join(DEMO_SNAP)).unwrap();
    case.run(&snap, &[]).refused(
        5,
        "not-etcd-data",
        &["`wal` or `snap` folder", &format!("above it, {}", right.display())],
    );
}

const MISSING: &str = "no such file or directory";

/// Every command line that reads `file`, where it reads nothing else that is wrong.
fn readers(case: &Case, file: &Path) -> Vec<Vec<PathBuf>> {
    let out = case.path("made.db");
    let report = case.path("made.json");
    if !out.exists() {
        let made = case.run_to(&demo(), &out, &[]);
        assert_eq!(made.output.status, 0, "{}", made.output.story());
        fs::copy(case.report(), &report).unwrap();
    }
    let words = |words: &[&dyn AsRef<OsStr>]| words.iter().map(|word| PathBuf::from(word.as_ref())).collect::<Vec<_>>();
    let new = case.path("out/new.db");
    vec![
        words(&[&"convert", &file, &"-o", &new]),
        words(&[&"convert", &demo(), &"-o", &new, &"--rules", &file]),
        words(&[&"inspect", &file]),
        words(&[&"inspect", &"--wal", &file]),
        words(&[&"export", &file, &"-o", &new]),
        words(&[&"verify", &file]),
        words(&[&"verify", &out, &"--report", &file]),
        words(&[&"verify", &out, &"--report", &report, &"--source", &file]),
        words(&[&"lookup", &file, &"--key", &"/a"]),
    ]
}

#[test]
fn a_missing_file_is_status_5_everywhere() {
    let case = Case::new();
    for name in ["missing", "file/below"] {
        case.file("file", "x");
        let file = case.path(name);
        let mut lines = readers(&case, &file);
        let wal_dir = |command: &str| {
            let words = [command, demo().to_str().unwrap(), "--wal-dir", file.to_str().unwrap()].map(PathBuf::from);
            words.to_vec()
        };
        lines.push(wal_dir("inspect"));
        lines.push([wal_dir("convert"), vec!["-o".into(), case.path("out/x.db")]].concat());
        for line in lines {
            let output = etcdlift(&line);
            assert_eq!(output.status, 5, "{}", output.story());
            one_line(&output, &[name, MISSING]);
        }
    }
    let lost = case.demo();
    symlink("nirvana", lost.join("member/snap/0000000000000002-0000000000000030.snap")).unwrap();
    fs::remove_file(lost.join("member/snap/db")).unwrap();
    symlink("nirvana", lost.join("member/snap/db")).unwrap();
    case.run(&lost, &[]).refused(5, "source-missing", &["member/snap/db: ", MISSING]);
}

#[test]
fn a_rules_file_that_cannot_be_read_leaves_a_report() {
    let case = Case::new();
    let rules = case.path("rules.toml");
    case.run(&demo(), &["--rules", rules.to_str().unwrap()]).refused(5, "file-missing", &["rules.toml: ", MISSING]);
}

#[test]
fn unreadable_sources_are_status_5_everywhere() {
    let case = Case::new();
    let temp = tempfile::tempdir().unwrap();
    fs::set_permissions(temp.path(), Permissions::from_mode(0o777)).unwrap();
    let secret = temp.path().join("secret");
    fs::write(&secret, "x").unwrap();
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
    let uid = fs::metadata(&secret).unwrap().uid();
    if uid != 0 {
        // The owner's own bits bind him, too.
        fs::set_permissions(&secret, Permissions::from_mode(0o000)).unwrap();
    }
    let source = temp.path().join("default.etcd");
    copy_tree(&demo(), &source);
    let mut tried = 0;
    for line in readers(&case, &secret) {
        // Nobody may read what lies in a test's own folder.
        let open = |path: PathBuf| match path.file_name().and_then(OsStr::to_str) {
            Some(name @ ("made.db" | "made.json")) => {
                let copy = temp.path().join(name);
                fs::copy(&path, &copy).unwrap();
                fs::set_permissions(&copy, Permissions::from_mode(0o644)).unwrap();
                copy
            }
            Some("new.db") => temp.path().join("new.db"),
            Some("default.etcd") => source.clone(),
            _ => path,
        };
        let line: Vec<PathBuf> = line.into_iter().map(open).collect();
        let words: Vec<&OsStr> = line.iter().map(|word| word.as_os_str()).collect();
        let Some(output) = as_nobody(test_name!(), &words) else { return };
        assert_eq!(output.status, 5, "{}", output.story());
        one_line(
            &output,
            &[secret.to_str().unwrap(), &format!("owned by uid {uid} and gid "), "this process runs as uid "],
        );
        tried += 1;
    }
    assert_eq!(tried, 9);
}

/// Names that differ only in bytes that are no UTF-8, as a snapshot has them; the log before it still has the bytes.
#[test]
fn names_that_collide_are_listed_in_report_and_ledger() {
    let case = Case::new();
    let dir = Node::dir(r"/1/\ufffd", 3, &Node::file(r"/1/\ufffd/b", 4, "deep").child()).child();
    let children = [dir, leaf("a", 5, "x"), leaf("\\ufffd", 6, "last")].join(",");
    let source = case.file("twice.snap", snap(store(9, &children).as_bytes(), 9));
    let ledger = case.path("ledger");
    let run = case.run(&source, &["--ledger", ledger.to_str().unwrap()]);
    let rows = run.converted(0);
    assert_eq!(rows.len(), 2, "{rows:?}");
    let report = run.report();
    assert_eq!(report["contents"]["duplicates"], 1);
    assert_eq!(report["contents"]["duplicate_names"], json!([{"key": "/\u{fffd}", "shadowed": 1}]));
    assert!(run.notices("warnings").contains(&"duplicate-names"), "{report}");
    assert!(run.output.stderr.contains("uses the last node: /\u{fffd} [duplicate-names]\n"), "{}", run.output.story());
    let text = fs::read_to_string(&ledger).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let shadowed: Vec<_> = lines
        .iter()
        .filter(|line| line["reason"] == "duplicate-name")
        .map(|line| (line["path"].as_str().unwrap(), line["dir"] == true, line["modified_index"].as_u64().unwrap()))
        .collect();
    assert_eq!(shadowed, [("/\u{fffd}", true, 3), ("/\u{fffd}/b", false, 4)]);
    let inspected = etcdlift(["inspect", source.to_str().unwrap(), "--json"]).success().json();
    assert_eq!(inspected["duplicates"], 1);
}

/// A real server keeps both names until it reads its own snapshot; its log has the bytes.
#[test]
fn the_log_of_a_real_server_still_has_the_names() {
    let Some(peers) = peers::require(test_name!()) else { return };
    let case = Case::new();
    let source = case.path("source");
    let boot = Boot::new(&peers, Version::V3_4, &source);
    let server = Server::start(&Boot { enable_v2: true, args: vec!["--snapshot-count=20".into()], ..boot });
    let put = |key: &str| {
        let answer = http::put_form(server.client_address(), &format!("/v2/keys{key}"), "value=x").unwrap();
        assert!(answer.status < 300, "{key}: {}", answer.status);
    };
    ["/d%FE/a", "/d%FF/a"].iter().for_each(|key| put(key));
    (0..60).for_each(|n| put(&format!("/k{n}")));
    server.stop();
    let run = case.run(&source, &[]);
    assert_eq!(run.converted(0).len(), 61);
    let names = &run.report()["contents"]["duplicate_names"];
    assert_eq!((&names[0]["key"], &names[0]["shadowed"]), (&"/d\u{fffd}".into(), &1.into()), "{names}");
    let written: Vec<&str> =
        names[0]["written_as"].as_array().unwrap().iter().map(|name| name["key"].as_str().unwrap()).collect();
    assert_eq!(written, ["/d\\xfe", "/d\\xff"]);
    let indexes: Vec<u64> =
        names[0]["written_as"].as_array().unwrap().iter().map(|name| name["raft_index"].as_u64().unwrap()).collect();
    assert!(indexes[0] > 0 && indexes[1] == indexes[0] + 1, "{indexes:?}");
    let said = format!("original names: /d\\xfe (raft index {}), /d\\xff (raft index {})", indexes[0], indexes[1]);
    assert!(run.output.stderr.contains(&said), "{}", run.output.story());
}

/// Names and documents that v2 could hold and v3 cannot: refused by name, before the work.
#[test]
fn users_and_roles_that_v3_cannot_hold_are_refused_by_name() {
    let long = "n".repeat(40_000);
    let (user, role) = (r#"{"user":"u","password":"$2a$10$secret","roles":[]}"#, r#"{"role":"r","permissions":{}}"#);
    let secret = r#"["$2a$10$secret",["root"]]"#;
    for (users, roles, words) in [
        (vec![(&*long, user)], vec![], "user nnnn"),
        (vec![], vec![(&*long, role)], "role nnnn"),
        (vec![("bob", secret)], vec![], "user bob: expected"),
        (vec![("bob", "7")], vec![], "user bob: expected"),
        (vec![("bob", "{")], vec![], "user bob: expected"),
        (vec![], vec![("ops", "null")], "role ops: expected"),
    ] {
        let case = Case::new();
        let source = case.file("a.snap", snap(auth_store(&users, &roles).as_bytes(), 9));
        let run = case.run(&source, &[]);
        run.refused(5, "auth-invalid", &[words, "--auth ignore"]);
        assert!(!run.output.stderr.contains("secret"), "{}", run.output.story());
        case.run(&source, &["--auth", "ignore"]).converted(0);
    }
}

/// Go takes an instant for the zero time, and not a text.
#[test]
fn no_expiry_is_no_expiry_however_it_is_written() {
    for zero in ["0001-01-01T00:00:00.000Z", "0001-01-01T00:00:00+00:00", "0001-01-01T01:00:00+01:00"] {
        let case = Case::new();
        let json = store(9, &leaf("k", 8, "v")).replace("0001-01-01T00:00:00Z", zero);
        let run = case.run(&case.file("a.snap", snap(json.as_bytes(), 9)), &["--ttl", "fail"]);
        assert_eq!(run.converted(0).len(), 1, "{zero}");
    }
}
