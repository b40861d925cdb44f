//! A source that changes while it is read: overwritten in place, truncated, replaced, or taken up by an etcd. A
//! transformer runs in the middle of a conversion, after the source was read and before its values are written: it
//! makes the change.

use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::harm::executable;
use super::kit::{AS_OF, Case, DEMO_SNAP, DEMO_WAL, demo};
use crate::common::run::{Output, etcdlift, etcdlift_path};
use crate::common::scratch::names;
use crate::common::v2files;
use crate::common::v2files::snap;
use crate::common::v2store::{leaf, store};

/// Converts with a transformer that runs this script and changes no key.
fn convert(case: &Case, sources: &[&Path], script: &str, more: &[&str]) -> Output {
    let program = executable(case, "change", &format!("#!/bin/sh\n{script}\nexec cat\n"));
    let mut args = vec!["convert".into()];
    args.extend(sources.iter().map(|path| path.as_os_str().to_owned()));
    args.extend(["-o".into(), case.out().into(), "--report".into(), case.report().into()]);
    args.extend(["--as-of", AS_OF, "--transformer", &program, "--transformer-protocol", "json-lines"].map(Into::into));
    etcdlift(args.into_iter().chain(more.iter().map(Into::into)))
}

fn refused(case: &Case, output: &Output, status: i32, reason: &str, words: &[&str]) {
    assert_eq!(output.status, status, "{}", output.story());
    assert!(output.stderr.lines().skip(1).all(|line| line.starts_with("hint: ")), "{}", output.story());
    assert!(words.iter().all(|word| output.stderr.contains(word)), "{words:?}: {}", output.story());
    assert!(names(&case.path("out")).is_empty(), "{}", output.story());
    let report: serde_json::Value = serde_json::from_slice(&fs::read(case.report()).unwrap()).unwrap();
    assert_eq!((&report["reason"], &report["exit_status"]), (&reason.into(), &status.into()), "{}", output.story());
    fs::remove_file(case.report()).unwrap();
}

/// The member of a large directory.
const MEMBER: u64 = 7;

/// A directory with 2 MB in its snapshot, its log and its v3 backend each, and the options to convert it.
fn large(case: &Case) -> PathBuf {
    let source = case.demo();
    let value = "v".repeat(20_000);
    let nodes: Vec<String> = (0..100).map(|n| leaf(&format!("k{n}"), 5 + n, &value)).collect();
    let store = store(200, &nodes.join(",")).into_bytes();
    let snapshot = v2files::write_snapshot(&source, store, 0x29, 2, MEMBER, 200);
    let puts = (0..100).map(|n| v2files::put_request(n + 1, &format!("/1/k{n}"), value.as_bytes()));
    v2files::write_wal(&source, &snapshot, MEMBER, 0xc1, puts);
    source
}

#[test]
fn values_that_are_overwritten_in_place_are_noticed() {
    let case = Case::new();
    let source = large(&case);
    let file = source.join(DEMO_SNAP);
    let touch = format!("printf X | dd of='{}' bs=1 seek=1000000 conv=notrunc 2>/dev/null", file.display());
    let output = convert(&case, &[&source], &touch, &[]);
    refused(&case, &output, 3, "changed-while-reading", &[".snap: ", "changed while"]);
}

/// Every kind of file that a conversion maps, cut to nothing and to a part.
#[test]
fn a_file_that_is_truncated_is_no_crash() {
    for name in [DEMO_SNAP, DEMO_WAL, "member/snap/db"] {
        for to in ["0", "4096", "50%"] {
            for more in [&[][..], &["--jobs", "1", "--no-verify"], &["--dry-run"]] {
                let case = Case::new();
                let source = large(&case);
                let file = source.join(name);
                let len = fs::metadata(&file).unwrap().len();
                let to = if to == "50%" { (len / 2).to_string() } else { to.to_string() };
                let script = format!("truncate -s {to} '{}'", file.display());
                let output = convert(&case, &[&source], &script, more);
                let leaf = file.file_name().unwrap().to_str().unwrap();
                refused(&case, &output, 3, "changed-while-reading", &[leaf, &format!("found {to} byte")]);
            }
        }
    }
}

#[test]
fn a_lone_snapshot_and_a_lone_segment_too() {
    for name in [DEMO_SNAP, DEMO_WAL] {
        let case = Case::new();
        // A log alone begins with its first entry.
        let source = if name == DEMO_WAL { case.demo() } else { large(&case) };
        let file = source.join(name);
        let output =
            convert(&case, &[&file], &format!("truncate -s 100 '{}'", file.display()), &["--revisions", "dense"]);
        refused(&case, &output, 3, "changed-while-reading", &["found 100 bytes"]);
    }
}

#[test]
fn a_file_that_appears_goes_or_is_replaced_is_noticed() {
    let cases = [
        (format!("cp '{{}}/{DEMO_WAL}' '{{}}/member/wal/0000000000000001-0000000000000099.wal'"), "appeared"),
        (format!("cp '{{}}/{DEMO_SNAP}' '{{}}/member/snap/0000000000000003-0000000000000099.snap'"), "appeared"),
        (format!("rm '{{}}/{DEMO_WAL}'"), "does not exist any more"),
        ("rm '{}/member/snap/db'".to_string(), "does not exist any more"),
        (format!("cp '{{}}/{DEMO_WAL}' '{{}}/x'; mv '{{}}/x' '{{}}/{DEMO_WAL}'"), "another file has its name"),
        ("mv '{}/member' '{}/other'".to_string(), "does not exist any more"),
    ];
    for (script, words) in cases {
        let case = Case::new();
        let source = case.demo();
        let output = convert(&case, &[&source], &script.replace("{}", source.to_str().unwrap()), &[]);
        refused(&case, &output, 3, "changed-while-reading", &[words]);
    }
}

/// An etcd takes a lock on its log and its database when it starts.
#[test]
fn an_etcd_that_starts_meanwhile_is_noticed() {
    for name in [DEMO_WAL, "member/snap/db"] {
        let case = Case::new();
        let source = case.demo();
        // The lock is held by a process that outlives the transformer, and ends by itself.
        let script = format!(
            "setsid flock -n -x '{}' sleep 3 >/dev/null 2>&1 </dev/null &\nsleep 0.3",
            source.join(name).display()
        );
        let output = convert(&case, &[&source], &script, &[]);
        refused(&case, &output, 5, "locked", &["an etcd started on the source while etcdlift read it"]);
    }
}

#[test]
fn a_directory_that_may_be_live_may_change() {
    let case = Case::new();
    let source = case.demo();
    let script = format!("printf x >>'{}'", source.join(DEMO_WAL).display());
    let output = convert(&case, &[&source], &script, &["--allow-live"]).success();
    assert_eq!(names(&case.path("out")), ["out.db"], "{}", output.story());
}

/// Commands that print wait for their reader: meanwhile the source is cut to nothing.
#[test]
fn truncation_while_printing_is_an_error() {
    for args in [&["export", "-o", "-"][..], &["inspect", "--wal"]] {
        let case = Case::new();
        let source = large(&case);
        if args[0] == "inspect" {
            crate::common::v2files::write_wal(
                &source,
                &crate::common::v2files::read_snapshot(&source.join(DEMO_SNAP)),
                MEMBER,
                2,
                (0..20_000).map(|n| crate::common::v2files::put_request(n + 1, "/1/k", b"v")),
            );
        }
        let name = if args[0] == "inspect" { DEMO_WAL } else { DEMO_SNAP };
        let mut child = Command::new(etcdlift_path())
            .args([args[0].as_ref(), source.as_os_str()])
            .args(&args[1..])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // The first bytes: everything is open, and a pipe holds far less than there is to be printed.
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut [0; 100]).unwrap();
        fs::File::options().write(true).open(source.join(name)).unwrap().set_len(0).unwrap();
        let mut rest = Vec::new();
        stdout.read_to_end(&mut rest).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{args:?}: {text}");
        assert!(text.contains("changed while etcdlift read it") && text.lines().count() == 2, "{args:?}: {text}");
    }
}

/// `merge` keeps the pairs of the v3 backend, which has no checksum of its own.
#[test]
fn a_backend_that_is_overwritten_during_a_merge_is_noticed() {
    let case = Case::new();
    let source = case.demo();
    let db = source.join("member/snap/db");
    let made = case.path("made.db");
    let v2 = case.file("a.snap", snap(store(200, &leaf("only-v3", 8, "secret")).as_bytes(), 0x29));
    etcdlift([
        "convert".as_ref(),
        v2.as_os_str(),
        "-o".as_ref(),
        made.as_os_str(),
        "--to".as_ref(),
        "backend".as_ref(),
    ])
    .success();
    let bytes = fs::read(&made).unwrap();
    fs::write(&db, &bytes).unwrap();
    let at = bytes.windows(6).rposition(|window| window == b"secret").unwrap();
    let script = format!("printf X | dd of='{}' bs=1 seek={at} conv=notrunc 2>/dev/null", db.display());
    let output = convert(&case, &[&source], &script, &["--existing", "merge"]);
    refused(&case, &output, 3, "changed-while-reading", &["db: "]);
    fs::File::options().write(true).open(&db).unwrap().write_all_at(b"s", at as u64).unwrap();
    let output = convert(&case, &[&source], "true", &["--existing", "merge"]).success();
    assert!(output.stderr.starts_with("COMPLETE"), "{}", output.story());
    assert!(demo().exists());
}

/// A byte that is written through a page which was written to before: the file keeps its times, and only its bytes
/// tell.
#[test]
#[allow(unsafe_code)]
fn bytes_that_change_without_a_trace_are_noticed() {
    for (name, more) in [(DEMO_SNAP, &[][..]), (DEMO_WAL, &[]), ("member/snap/db", &["--existing", "drop-v3"])] {
        let case = Case::new();
        let source = large(&case);
        let file = fs::File::options().read(true).write(true).open(source.join(name)).unwrap();
        // SAFETY: nobody truncates the file.
        let mut map = unsafe { memmap2::MmapMut::map_mut(&file) }.unwrap();
        let at = 9000;
        // From now on the page is dirty.
        map[at] ^= 0;
        let (ready, done) = (case.path("ready"), case.path("done"));
        let script = format!(": >'{}'; until [ -e '{}' ]; do sleep 0.01; done", ready.display(), done.display());
        let output = std::thread::scope(|scope| {
            let run = scope.spawn(|| convert(&case, &[&source], &script, more));
            while !ready.exists() && !run.is_finished() {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            map[at] ^= 1;
            fs::write(&done, "").unwrap();
            run.join().unwrap()
        });
        refused(&case, &output, 3, "changed-while-reading", &[Path::new(name).file_name().unwrap().to_str().unwrap()]);
        println!("{name}: {}", output.stderr);
    }
}

/// The data directory of one of two members of a cluster, with the same entries.
fn member_of(case: &Case, id: u64) -> PathBuf {
    let dir = case.path(&format!("member-{id}"));
    let start = v2files::write_snapshot(&dir, store(9, &leaf("a", 8, "x")).into_bytes(), 9, 2, 1, 9);
    let puts = (0..100).map(|n| v2files::put_request(n + 1, &format!("/1/k{n}"), &[b'v'; 1000]));
    v2files::write_wal(&dir, &start, id, 7, puts);
    dir
}

/// A v3 file while its keys are exported: it is truncated as soon as the first of them come out.
#[test]
fn a_v3_file_may_be_truncated_while_it_is_exported() {
    let case = Case::new();
    let leaves: Vec<String> = (0..2000).map(|n| leaf(&format!("k{n:04}"), 2 + n, &"v".repeat(1000))).collect();
    let source = case.file("a.snap", snap(store(2002, &leaves.join(",")).as_bytes(), 9));
    case.run(&source, &["--to", "backend"]).converted(0);
    let mut command = Command::new(etcdlift_path());
    command.arg("export").arg(case.out()).args(["-o", "-"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut first = [0; 1000];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    fs::File::options().write(true).open(case.out()).unwrap().set_len(8192).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("changed while") || text.contains("cannot read"), "{text}");
}

/// Truncated under every command that maps it: one of several members, a log elsewhere, a folder of a directory.
#[test]
fn every_kind_of_source_may_be_truncated() {
    let cut = |path: &Path| format!("truncate -s 4096 '{}'", path.display());
    let case = Case::new();
    let source = large(&case);
    let member = source.join("member");
    let output = convert(&case, &[&member], &cut(&source.join(DEMO_WAL)), &[]);
    refused(&case, &output, 3, "changed-while-reading", &["found 4096 bytes"]);
    let case = Case::new();
    let source = large(&case);
    let log = case.path("log");
    fs::rename(source.join("member/wal"), &log).unwrap();
    let file = log.join(Path::new(DEMO_WAL).file_name().unwrap());
    let output = convert(&case, &[&source], &cut(&file), &["--wal-dir", log.to_str().unwrap()]);
    refused(&case, &output, 3, "changed-while-reading", &["found 4096 bytes"]);
    // One of several members, which the entries are not taken from.
    let case = Case::new();
    let (one, two) = (member_of(&case, 1), member_of(&case, 2));
    let file = two.join("member/wal/0000000000000000-0000000000000000.wal");
    let output = convert(&case, &[&one, &two], &cut(&file), &[]);
    refused(&case, &output, 3, "changed-while-reading", &["changed while"]);
    // The backend that came with a snapshot.
    let case = Case::new();
    let source = large(&case);
    let received = source.join("member/snap/0000000000000029.snap.db");
    fs::copy(source.join("member/snap/db"), &received).unwrap();
    let output = convert(&case, &[&source], &cut(&received), &["--existing", "drop-v3"]);
    refused(&case, &output, 3, "changed-while-reading", &["29.snap.db: ", "found 4096 bytes"]);
    // The source of a verification, by the transformer that it runs again.
    let case = Case::new();
    let source = large(&case);
    convert(&case, &[&source], "true", &[]).success();
    let program = executable(&case, "change", &format!("#!/bin/sh\n{}\nexec cat\n", cut(&source.join(DEMO_SNAP))));
    let (out, report) = (case.out(), case.report());
    let args = ["verify", out.to_str().unwrap(), "--report", report.to_str().unwrap(), "--source"];
    let output = etcdlift(args.into_iter().chain([source.to_str().unwrap(), "--transformer", &program]));
    assert_eq!(output.status, 3, "{}", output.story());
    assert!(output.stderr.contains("found 4096 bytes"), "{}", output.story());
}
